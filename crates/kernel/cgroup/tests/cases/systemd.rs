//! Units of a real systemd; skipped with a message where there is none, or where control groups are not version 2 alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use dhow_cgroup::systemd::{Bus, StandIn, Unit};
use dhow_oci::runtime::{CpuLimit, DeviceRule, MemoryLimit, PidsLimit, Resources};

use crate::until;

/// A process that is killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A connection to the systemd of this user, or `None` with a message.
fn bus() -> Option<(Bus, bool)> {
    if !dhow_cgroup::systemd::running() || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        println!("skipped: no systemd with cgroup v2 here");
        return None;
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Some((Bus::system().unwrap(), false));
    }
    let socket = format!("/run/user/{}/bus", uid.as_raw());
    if !Path::new(&socket).exists() {
        println!("skipped: no systemd of this user");
        return None;
    }
    Some((Bus::user(&format!("unix:path={socket}")).unwrap(), true))
}

fn limits(memory: i64, tasks: i64) -> Resources {
    let null = DeviceRule {
        allow: true,
        kind: Some("c".to_owned()),
        major: Some(1),
        minor: Some(3),
        access: Some("rwm".to_owned()),
    };
    Resources {
        memory: Some(MemoryLimit {
            limit: Some(memory),
            ..MemoryLimit::default()
        }),
        cpu: Some(CpuLimit {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(100_000),
            ..CpuLimit::default()
        }),
        pids: Some(PidsLimit { limit: Some(tasks) }),
        devices: vec![DeviceRule::default(), null],
        ..Resources::default()
    }
}

#[test]
fn a_unit_holds_its_limits_over_a_reload_and_goes_with_its_groups() {
    let Some((mut bus, user)) = bus() else { return };
    let name = format!("test-{}", std::process::id());
    let unit = Unit::parse(Some(&format!(":dhow:{name}")), "id", user).unwrap();
    let sleeper = Sleeper::new();
    let annotations: BTreeMap<_, _> =
        [("org.systemd.property.TimeoutStopSec".to_owned(), "1".to_owned())].into();
    let group = unit
        .start(&mut bus, &limits(64 << 20, 50), &annotations, sleeper.0.id())
        .unwrap();
    assert_eq!(group.procs().unwrap(), [sleeper.0.id().cast_signed()]);
    let dir: PathBuf = group.directories().next().unwrap().to_owned();
    assert!(dir.ends_with(format!("dhow-{name}.scope")), "{}", dir.display());
    let read = |file: &str| {
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.trim().to_owned()
    };
    assert_eq!(
        (read("memory.max"), read("pids.max")),
        ("67108864".to_owned(), "50".to_owned())
    );
    unit.update(&mut bus, &group, &limits(96 << 20, 60)).unwrap();
    let reload = Command::new("systemctl")
        .args(user.then_some("--user"))
        .arg("daemon-reload")
        .status();
    assert!(reload.unwrap().success());
    assert_eq!(
        (read("memory.max"), read("pids.max")),
        ("100663296".to_owned(), "60".to_owned())
    );
    let second = Sleeper::new();
    unit.attach(&mut bus, Path::new(""), second.0.id()).unwrap();
    until("the second is in it", || group.procs().unwrap().len() == 2);
    // The same unit cannot be started twice.
    let third = Sleeper::new();
    let again = unit.start(&mut bus, &Resources::default(), &BTreeMap::new(), third.0.id());
    assert_eq!(again.unwrap_err().kind(), dhow_types::ErrorKind::AlreadyExists);
    group.kill_all().unwrap();
    drop((sleeper, second));
    unit.stop(&mut bus).unwrap();
    assert!(!dir.exists(), "{}", dir.display());
    unit.stop(&mut bus).unwrap();
}

#[test]
fn a_process_with_threads_gets_no_stand_in() {
    // As every test: a fork of a process with threads may hold locks that nobody frees.
    assert!(StandIn::fork().is_err());
}
