//! Control groups on the running kernel: needs root and hierarchies that may be written; skips with a message otherwise.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, which may panic and say why they skip"
)]

#[path = "cases/limits.rs"]
mod limits;
#[path = "cases/rootless.rs"]
mod rootless;
#[path = "cases/systemd.rs"]
mod systemd;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dhow_cgroup::{Group, Place, SubGroups};
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
    // Opened again: an update by another process may have added a directory.
    let group = Group::open(group.path()).unwrap();
    let places: Vec<PathBuf> = group
        .directories()
        .flat_map(|dir| [dir.join(v1), dir.join(v2)])
        .collect();
    places
        .iter()
        .find_map(|place| fs::read_to_string(place).ok())
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn a_group_below_a_new_parent_is_born_with_its_cpus() {
    let top = Path::new("/sys/fs/cgroup/cpuset");
    if !top.join("cpuset.cpus").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("left out: no cpuset of version 1, or not root");
        return;
    }
    let parent = format!("dhow-test-born-{}", std::process::id());
    let Some(group) = oci_group(
        &Place::parse(Some(&format!("/{parent}/a")), "id").unwrap(),
        &Resources::default(),
    ) else {
        return;
    };
    let read = |at: &Path, file: &str| fs::read_to_string(at.join(file)).unwrap();
    let own = group
        .directories()
        .find(|at| at.ends_with(format!("cpuset/{parent}/a")))
        .unwrap();
    assert_eq!(read(own.parent().unwrap(), "cgroup.clone_children"), "1\n");
    // The kernel filled it before we looked: what is made beside it by anybody is filled, too.
    let beside = own.with_file_name("b");
    fs::create_dir(&beside).unwrap();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        assert_eq!(read(&beside, file), read(top, file));
        assert_eq!(read(own, file), read(top, file));
    }
    fs::remove_dir(&beside).unwrap();
    let folders: Vec<PathBuf> = group.directories().map(Path::to_path_buf).collect();
    group.delete().unwrap();
    for folder in folders {
        drop(fs::remove_dir(folder.parent().unwrap()));
    }
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
        pids: Some(PidsLimit { limit: Some(17) }),
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
fn the_end_of_a_group_kills_who_is_left_in_it_and_asks_nothing_of_an_empty_one() {
    let Some(group) = group(&Resources::default()) else {
        return;
    };
    let places: Vec<PathBuf> = group.directories().map(PathBuf::from).collect();
    let mut shell = Shell::new(&group, "sleep 100 & sleep 100");
    let inner = places.first().unwrap().join("inner");
    fs::create_dir(&inner).unwrap();
    group.end().unwrap();
    until("the shell is killed", || shell.ended());
    assert!(!places.iter().any(|place| place.exists()), "{places:?}");
    let again = Group::create(&path(), &Resources::default()).unwrap();
    let gone = Group::open(again.path()).unwrap();
    again.end().unwrap();
    // One that another process has removed is as good as removed.
    gone.end().unwrap();
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
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a user can load no device filter");
    }
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
    let filter = match dhow_sys::bpf::load_device_filter(&nothing) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: {error}");
            return group.delete().unwrap();
        }
        outcome => outcome.unwrap(),
    };
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

/// The group of an OCI container, or `None` with a message where groups cannot be made.
fn oci_group(place: &Place, resources: &Resources) -> Option<Group> {
    match Group::create_at(place, resources) {
        Ok(Some(group)) => Some(group),
        Ok(None) => {
            println!("skipped: this user makes no groups");
            None
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

fn place() -> Place {
    Place::parse(Some(&format!("/{}", path().display())), "id").unwrap()
}

#[test]
fn an_oci_group_is_in_every_hierarchy_and_its_paths_find_it_again() {
    let Some(group) = oci_group(&place(), &Resources::default()) else {
        return;
    };
    let shell = Shell::new(&group, "exec sleep 100");
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", shell.0.id())).unwrap();
    let want = format!(":/{}", group.path().display());
    // Hierarchies that are not mounted here (a v2 tree without a mount point) cannot be joined.
    let outside = membership.lines().filter(|line| !line.ends_with(&want)).count();
    assert_eq!(
        membership.lines().count() - outside,
        group.paths().len(),
        "{membership}"
    );
    assert!(outside <= 1, "{membership}");
    let again = Group::from_paths(&group.paths()).unwrap();
    assert_eq!(again.procs().unwrap(), [shell.0.id().cast_signed()]);
    let of = Group::of_process(shell.0.id().cast_signed()).unwrap();
    assert_eq!(of.paths(), group.paths());
    again.kill_all().unwrap();
    drop(shell);
    again.delete().unwrap();
    assert_eq!(
        Group::from_paths(&group.paths()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_relative_place_is_below_the_own_group_and_the_id_stands_for_no_path() {
    let name = path().display().to_string();
    let Some(group) = oci_group(&Place::parse(None, &name).unwrap(), &Resources::default()) else {
        return;
    };
    assert_eq!(group.path(), PathBuf::from(&name));
    for dir in group.directories() {
        assert!(dir.ends_with(&name) && dir.exists(), "{}", dir.display());
    }
    group.delete().unwrap();
}

#[test]
fn a_group_with_processes_or_a_frozen_one_is_refused_and_an_empty_one_is_taken() {
    let place = place();
    let Some(first) = oci_group(&place, &Resources::default()) else {
        return;
    };
    let taken = Group::create_at(&place, &Resources::default()).unwrap().unwrap();
    assert_eq!(taken.paths(), first.paths());
    let shell = Shell::new(&first, "exec sleep 100");
    let refused = || {
        Group::create_at(&place, &Resources::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(), "container's cgroup is not empty: 1 process(es) found");
    first.kill_all().unwrap();
    drop(shell);
    until("it is empty", || first.procs().unwrap().is_empty());
    first.freeze().unwrap();
    assert_eq!(refused(), "container's cgroup unexpectedly frozen");
    first.thaw().unwrap();
    assert!(
        first.directories().all(|dir| dir.exists()),
        "a refused group stays"
    );
    first.delete().unwrap();
}

#[test]
fn a_process_enters_groups_below_that_are_there_and_no_others() {
    let Some(group) = oci_group(&place(), &Resources::default()) else {
        return;
    };
    let parse = |text: &str| SubGroups::parse(&[text]).unwrap();
    let missing = group.below(&parse("nonexistent")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains(" adding pid "), "{missing}");
    let unknown = group.below(&parse("whaaat:/")).unwrap_err().to_string();
    assert!(unknown.contains("unknown controller "), "{unknown}");
    for dir in group.directories() {
        fs::create_dir(dir.join("inner")).unwrap();
    }
    let inner = group.below(&parse("inner")).unwrap();
    assert!(inner.directories().all(|dir| dir.ends_with("inner")));
    let same = group.below(&parse("/")).unwrap();
    assert_eq!(same.paths(), group.paths());
    if group.paths().contains_key("memory") {
        let one = group.below(&parse("memory:inner")).unwrap();
        let below = |dir: &&std::path::Path| dir.ends_with("inner");
        assert_eq!(one.directories().filter(below).count(), 1);
    }
    group.delete().unwrap();
}

#[test]
fn quota_and_period_are_changed_alone_and_together() {
    let cpu = |quota: Option<i64>, period: Option<u64>| Resources {
        cpu: Some(CpuLimit {
            quota,
            period,
            ..CpuLimit::default()
        }),
        ..Resources::default()
    };
    let Some(group) = group(&cpu(Some(50_000), Some(100_000))) else {
        return;
    };
    let now = |group: &Group| {
        let quota = limit_file(group, "cpu.cfs_quota_us", "cpu.max");
        if quota.contains(' ') {
            return quota.replace("max", "-1");
        }
        format!("{quota} {}", limit_file(group, "cpu.cfs_period_us", "cpu.max"))
    };
    group.update(&cpu(Some(70_000), None)).unwrap();
    assert_eq!(now(&group), "70000 100000");
    group.update(&cpu(None, Some(200_000))).unwrap();
    assert_eq!(now(&group), "70000 200000");
    group.update(&cpu(Some(2000), Some(5000))).unwrap();
    assert_eq!(now(&group), "2000 5000");
    group.update(&cpu(Some(-1), None)).unwrap();
    assert_eq!(now(&group), "-1 5000");
    group.delete().unwrap();
}

#[test]
fn a_running_container_keeps_its_devices_over_an_update() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a user can load no device filter");
    }
    let rules = |minors: &[i64]| {
        let rule = |minor| DeviceRule {
            allow: true,
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
        devices.extend(minors.iter().copied().map(rule));
        Resources {
            devices,
            ..Resources::default()
        }
    };
    let Some(group) = group(&rules(&[3, 5])) else {
        return;
    };
    // It opens /dev/null all the time, and ends at the first refusal.
    let mut shell = Shell::new(&group, "while exec 3</dev/null; do :; done");
    for minors in [&[3, 5, 7][..], &[3], &[5, 3], &[3, 8]] {
        Group::open(group.path()).unwrap().update(&rules(minors)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!shell.ended(), "it was refused a device that it keeps");
    let mut other = Shell::new(&group, "exec 3</dev/zero");
    assert_ne!(other.0.wait().unwrap().code(), Some(0));
    Group::open(group.path()).unwrap().update(&rules(&[5])).unwrap();
    until("it is refused", || shell.ended());
    group.delete().unwrap();
}

#[test]
fn all_counters_are_those_of_the_kernel() {
    let resources = Resources {
        memory: Some(MemoryLimit {
            limit: Some(64 << 20),
            ..MemoryLimit::default()
        }),
        pids: Some(PidsLimit { limit: Some(9) }),
        ..Resources::default()
    };
    let Some(group) = oci_group(&place(), &resources) else {
        return;
    };
    let mut shell = Shell::new(
        &group,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; read end",
    );
    until("it has used time", || {
        group.usage().unwrap().cpu.usage.total > 5_000_000
    });
    let usage = group.usage().unwrap();
    assert_eq!(usage.memory.usage.limit, 64 << 20);
    assert!(usage.memory.usage.usage > 0 && !usage.memory.raw.is_empty());
    assert_eq!((usage.pids.limit, usage.pids.current >= 1), (9, true));
    if group.paths().contains_key("cpuacct") {
        assert!(usage.cpu.usage.percpu.iter().sum::<u64>() > 0);
        assert!(!usage.cpuset.cpus.is_empty());
    }
    assert!(usage.hugetlb.keys().all(|size| size.ends_with('B')));
    drop(shell.0.kill());
    drop(shell);
    until("it is empty", || group.procs().unwrap().is_empty());
    group.delete().unwrap();
}

#[test]
fn a_pure_v2_host_holds_the_unified_map_and_refuses_limits_below_the_usage() {
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        println!("skipped: the controllers of this host are not in a v2 tree");
        let unified = Resources {
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        if let Err(error) = Group::create_at(&place(), &unified) {
            assert!(matches!(
                error.kind(),
                ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ));
        }
        return;
    }
    let unified = |value: &str| Resources {
        unified: [
            ("memory.high".to_owned(), value.to_owned()),
            ("memory.oom.group".to_owned(), "1".to_owned()),
        ]
        .into(),
        ..Resources::default()
    };
    let Some(group) = oci_group(&place(), &unified("104857600")) else {
        return;
    };
    let dir = group.directories().next().unwrap().to_owned();
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
    assert_eq!(
        (read("memory.high"), read("memory.oom.group")),
        ("104857600".to_owned(), "1".to_owned())
    );
    let shell = Shell::new(&group, "x=$(head -c 3000000 /dev/zero | tr '\\0' x); read end");
    until("it uses memory", || {
        group.usage().unwrap().memory.usage.usage > 3_000_000
    });
    let checked = Resources {
        memory: Some(MemoryLimit {
            limit: Some(4096),
            check_before_update: Some(true),
            ..MemoryLimit::default()
        }),
        ..Resources::default()
    };
    let refused = group.update(&checked).unwrap_err().to_string();
    assert!(
        refused.starts_with("rejecting memory limit 4096 <= usage"),
        "{refused}"
    );
    assert!(group.usage().unwrap().memory.psi.is_some() || !dir.join("memory.pressure").exists());
    group.freeze().unwrap();
    assert!(group.frozen().unwrap());
    group.thaw().unwrap();
    group.delegate(65_534).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.join("cgroup.procs")).unwrap()),
        65_534
    );
    group.kill_all().unwrap();
    drop(shell);
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
