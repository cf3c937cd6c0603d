//! Control groups on the running kernel: needs root and hierarchies that may be written; skips with a message otherwise.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, which may panic and say why they skip"
)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dhow_cgroup::Group;
use dhow_oci::runtime::{CpuLimit, DeviceRule, HugepageLimit, MemoryLimit, PidsLimit, Resources};
use dhow_types::ErrorKind;

/// A path of its own for each test.
fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("dhow-test-{}-{next}", std::process::id()))
}

/// The group, or `None` with a message where groups cannot be made.
fn group(resources: &Resources) -> Option<Group> {
    match Group::create(&path(), resources) {
        Ok(group) => Some(group),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::FailedPrecondition
            ) =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// A shell in the group, running `script`, killed when dropped.
struct Shell(Child);

impl Shell {
    fn new(group: &Group, script: &str) -> Self {
        // The shell waits for a line, so that it is in the group before it does anything.
        let script = format!("read go; {script}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        group.add(child.id().cast_signed()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Self(child)
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Contents of a limit file in whichever hierarchy has it.
fn limit_file(group: &Group, v1: &str, v2: &str) -> String {
    let controller = v1.split('.').next().unwrap();
    let places = [
        PathBuf::from("/sys/fs/cgroup")
            .join(controller)
            .join(group.path())
            .join(v1),
        PathBuf::from("/sys/fs/cgroup").join(group.path()).join(v2),
    ];
    places
        .iter()
        .find_map(|place| fs::read_to_string(place).ok())
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn create_sets_the_limits_and_delete_leaves_nothing() {
    let resources = Resources {
        memory: Some(MemoryLimit {
            limit: Some(64 << 20),
            ..MemoryLimit::default()
        }),
        cpu: Some(CpuLimit {
            quota: Some(50_000),
            period: Some(100_000),
            cpus: Some("0".to_owned()),
            ..CpuLimit::default()
        }),
        pids: Some(PidsLimit { limit: 17 }),
        ..Resources::default()
    };
    let Some(group) = group(&resources) else { return };
    assert_eq!(
        limit_file(&group, "memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(limit_file(&group, "pids.max", "pids.max"), "17");
    assert_eq!(limit_file(&group, "cpuset.cpus", "cpuset.cpus"), "0");
    assert!(limit_file(&group, "cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (Some(64 << 20), Some(17)));

    assert_eq!(
        Group::create(group.path(), &resources).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let path = group.path().to_owned();
    group.delete().unwrap();
    assert_eq!(Group::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_controller_of_the_v2_tree_is_enabled_on_the_way_down() {
    let resources = Resources {
        hugepage_limits: vec![HugepageLimit {
            page_size: "2MB".to_owned(),
            limit: 4 << 20,
        }],
        ..Resources::default()
    };
    let group = match Group::create(&path(), &resources) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return println!("skipped: {error}"),
        outcome => outcome.unwrap(),
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tree = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4));
    if let Some(tree) = tree {
        let file = PathBuf::from(tree).join(group.path()).join("hugetlb.2MB.max");
        assert_eq!(fs::read_to_string(file).unwrap().trim(), "4194304");
    }
    group.delete().unwrap();
}

#[test]
fn a_failed_create_leaves_nothing() {
    let resources = Resources {
        cpu: Some(CpuLimit {
            cpus: Some("4000".to_owned()),
            ..CpuLimit::default()
        }),
        ..Resources::default()
    };
    let path = path();
    let error = Group::create(&path, &resources).unwrap_err();
    if error.kind() == ErrorKind::PermissionDenied {
        println!("skipped: {error}");
        return;
    }
    assert!(
        error.to_string().contains("cpuset.cpus") && error.to_string().contains("4000"),
        "{error}"
    );
    assert_eq!(Group::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn paths_that_lead_out_are_refused() {
    for bad in ["", "/", "..", "dhow/../..", "a/../../b", "a\nb"] {
        let error = Group::create(bad.as_ref(), &Resources::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
    }
}

#[test]
fn kill_all_kills_what_forks_and_delete_removes_inner_groups() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let mut shell = Shell::new(&group, "while :; do sleep 100 & sleep 0.01; done");
    until("three processes run", || group.procs().unwrap().len() >= 3);
    assert!(group.stats().unwrap().pids.current >= 3);
    group.kill_all().unwrap();
    until("all are gone", || {
        shell.ended() && group.procs().unwrap().is_empty()
    });
    for place in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
        let place = PathBuf::from(place).join(group.path());
        if place.exists() {
            fs::create_dir_all(place.join("inner/most")).unwrap();
        }
    }
    let path = group.path().to_owned();
    group.delete().unwrap();
    assert_eq!(Group::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn freeze_stops_the_clock_of_processes_and_thaw_starts_it() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let _shell = Shell::new(&group, "while :; do :; done");
    until("it runs", || group.stats().unwrap().cpu.usage > 5_000_000);
    assert!(!group.frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.frozen().unwrap());
    let before = group.stats().unwrap().cpu.usage;
    std::thread::sleep(Duration::from_millis(50));
    assert!(group.stats().unwrap().cpu.usage - before < 5_000_000);
    group.thaw().unwrap();
    until("it runs again", || {
        group.stats().unwrap().cpu.usage > before + 5_000_000
    });
    group.kill_all().unwrap();
    drop(_shell);
    group.delete().unwrap();
}

#[test]
fn update_adds_a_controller_with_the_processes_that_are_there() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let shell = Shell::new(&group, "sleep 100; :");
    let resources = Resources {
        memory: Some(MemoryLimit {
            limit: Some(32 << 20),
            ..MemoryLimit::default()
        }),
        cpu: Some(CpuLimit {
            quota: Some(20_000),
            period: Some(100_000),
            ..CpuLimit::default()
        }),
        ..Resources::default()
    };
    group.update(&resources).unwrap();
    assert!(limit_file(&group, "cpu.cfs_quota_us", "cpu.max").starts_with("20000"));
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", shell.0.id())).unwrap();
    let cpu = membership
        .lines()
        .find(|line| line.contains(":cpu:") || line.starts_with("0::"))
        .unwrap();
    assert!(cpu.ends_with(group.path().to_str().unwrap()), "{membership}");
    let path = group.path().to_owned();
    Group::open(&path).unwrap().kill_all().unwrap();
    drop(shell);
    group.delete().unwrap();
    assert_eq!(Group::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn raising_and_lowering_memory_with_swap_works_in_both_directions() {
    let memory = |bytes: i64| Resources {
        memory: Some(MemoryLimit {
            limit: Some(bytes),
            swap: Some(bytes * 2),
            ..MemoryLimit::default()
        }),
        ..Resources::default()
    };
    let Some(group) = group(&memory(32 << 20)) else {
        return;
    };
    group.update(&memory(256 << 20)).unwrap();
    group.update(&memory(16 << 20)).unwrap();
    assert_eq!(group.stats().unwrap().memory.limit, Some(16 << 20));
    group.delete().unwrap();
}

#[test]
fn an_out_of_memory_kill_is_counted() {
    let resources = Resources {
        memory: Some(MemoryLimit {
            limit: Some(8 << 20),
            swap: Some(8 << 20),
            ..MemoryLimit::default()
        }),
        ..Resources::default()
    };
    let Some(group) = group(&resources) else { return };
    assert_eq!(group.oom_count().unwrap(), 0);
    let mut shell = Shell::new(&group, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done");
    until("it is killed", || shell.ended());
    assert!(group.oom_count().unwrap() >= 1);
    assert_eq!(
        group.stats().unwrap().memory.oom_kills,
        group.oom_count().unwrap()
    );
    drop(shell);
    group.delete().unwrap();
}

#[test]
fn entrances_take_the_writing_thread_alone() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let entrances = group.entrances().unwrap();
    let want = group.path().to_str().unwrap().to_owned();
    let joined = std::thread::spawn(move || {
        for entrance in &entrances {
            rustix::io::write(entrance, b"0").unwrap();
        }
        let text = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        text.lines().filter(|line| line.ends_with(&want)).count() == entrances.len()
    });
    assert!(joined.join().unwrap());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(!own.contains(group.path().to_str().unwrap()), "{own}");
    group.delete().unwrap();
}

#[test]
fn a_device_that_is_not_allowed_cannot_be_opened() {
    let rule = |allow, kind: Option<&str>, numbers: Option<(i64, i64)>, access: &str| DeviceRule {
        allow,
        kind: kind.map(str::to_owned),
        major: numbers.map(|(major, _)| major),
        minor: numbers.map(|(_, minor)| minor),
        access: Some(access.to_owned()),
    };
    let resources = Resources {
        devices: vec![
            rule(false, None, None, "rwm"),
            rule(true, Some("c"), Some((1, 3)), "rw"),
        ],
        ..Resources::default()
    };
    let Some(group) = group(&resources) else { return };
    for (script, code) in [
        ("exec 3</dev/null || exit 9", 0),
        ("exec 3</dev/zero || exit 9", 2),
    ] {
        let mut shell = Shell::new(&group, script);
        let status = shell.0.wait().unwrap().code();
        assert_eq!(status == Some(0), code == 0, "{script}: {status:?}");
    }
    group.delete().unwrap();
}

#[test]
fn the_v2_device_filter_holds_on_the_running_kernel() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let Some(dir) = group.v2_fd() else {
        println!("skipped: no v2 tree");
        group.delete().unwrap();
        return;
    };
    // r0 = 0; exit: nothing is allowed.
    let nothing = [0xb7_u64, 0x95];
    let filter = dhow_sys::bpf::load_device_filter(&nothing).unwrap();
    dhow_sys::bpf::attach_device_filter(dir, std::os::fd::AsFd::as_fd(&filter)).unwrap();
    assert_eq!(dhow_sys::bpf::device_filters(dir).unwrap().len(), 1);
    let mut shell = Shell::new(&group, "exec 3</dev/zero");
    assert_ne!(shell.0.wait().unwrap().code(), Some(0));
    dhow_sys::bpf::detach_device_filter(dir, std::os::fd::AsFd::as_fd(&filter)).unwrap();
    assert!(dhow_sys::bpf::device_filters(dir).unwrap().is_empty());
    let mut shell = Shell::new(&group, "exec 3</dev/zero");
    assert_eq!(shell.0.wait().unwrap().code(), Some(0));
    group.delete().unwrap();
}

#[test]
#[ignore = "prints a measurement"]
fn speed_of_create_and_delete() {
    let rule = |allow, minor| DeviceRule {
        allow,
        kind: Some("c".to_owned()),
        major: Some(1),
        minor: Some(minor),
        access: Some("rwm".to_owned()),
    };
    let mut devices = vec![DeviceRule {
        allow: false,
        access: Some("rwm".to_owned()),
        ..DeviceRule::default()
    }];
    devices.extend((3..13).map(|minor| rule(true, minor)));
    let resources = Resources {
        devices,
        ..Resources::default()
    };
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let group = group(&resources).unwrap();
            let made = start.elapsed();
            let again = Instant::now();
            group.delete().unwrap();
            (made, again.elapsed())
        })
        .collect();
    times.sort();
    println!("median create and delete: {:?}", times[25]);
}
