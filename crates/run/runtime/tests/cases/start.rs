//! A program starts, fails to start, ends.

use std::os::fd::AsFd as _;

use dhow_runtime::{Create, ExitStatus, Namespace, Plan, Rootfs, Settings, create, kill, run, wait};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, default_spec, linux, null_stdio, piped, process};

tests! {
    a_program_runs_and_its_status_comes_back
    a_created_container_runs_nothing_before_start
    a_created_container_that_is_dropped_goes_away
    a_killed_program_is_reported_by_its_signal
    a_missing_program_is_not_found_in_runcs_words
    a_program_that_may_not_be_executed_is_permission_denied
    a_program_of_another_format_says_so
    a_group_is_entered_before_the_program_runs
    a_given_namespace_is_joined
    a_shared_process_namespace_is_joined_by_path
    an_overlay_mount_becomes_the_root
    a_caller_with_threads_is_refused
    hooks_are_refused
}

fn a_program_runs_and_its_status_comes_back() {
    let image = Image::new();
    assert_eq!(image.sh("echo hello; exit 0", |_| ()), "hello\n");
    assert_eq!(image.run(&Image::shell("exit 7", |_| ())).unwrap().code, 7);
    assert_eq!(image.run(&default_spec(&["true"])).unwrap().code, 0);
}

fn a_created_container_runs_nothing_before_start() {
    let image = Image::new();
    let spec = Image::shell("echo > /tmp/ran", |_| ());
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let stdio = null_stdio();
    let created = create(Create {
        plan: &plan,
        rootfs,
        stdio,
        group: None,
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!image.root().join("tmp/ran").exists());
    let running = created.start().unwrap();
    assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 0);
    assert!(image.root().join("tmp/ran").exists());
}

fn a_created_container_that_is_dropped_goes_away() {
    let image = Image::new();
    let plan = Plan::prepare(&default_spec(&["true"]), &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let created = create(Create {
        plan: &plan,
        rootfs,
        stdio: null_stdio(),
        group: None,
        namespaces: Vec::new(),
        state: None,
    });
    let created = created.unwrap();
    let pidfd = created.pidfd.try_clone().unwrap();
    drop(created);
    assert_eq!(wait(pidfd.as_fd()).unwrap(), ExitStatus::Exited(255));
}

fn a_killed_program_is_reported_by_its_signal() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    kill(sleeper.0.pidfd.as_fd(), 9).unwrap();
    let status = wait(sleeper.0.pidfd.as_fd()).unwrap();
    assert_eq!((status, status.code()), (ExitStatus::Signaled(9), 137));
    assert_eq!(
        kill(sleeper.0.pidfd.as_fd(), 9).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

fn a_missing_program_is_not_found_in_runcs_words() {
    let image = Image::new();
    let (kind, message) = image.refused(&default_spec(&["foo"]));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(
        message.starts_with("exec: \"foo\": executable file not found in $PATH"),
        "{message}"
    );
    let (kind, message) = image.refused(&default_spec(&["/foo"]));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(
        message.contains("stat /foo: no such file or directory"),
        "{message}"
    );
}

fn a_program_that_may_not_be_executed_is_permission_denied() {
    let image = Image::new();
    std::fs::write(image.root().join("bin/plain"), "text").unwrap();
    for name in ["/bin/plain", "plain", "/etc"] {
        let (kind, message) = image.refused(&default_spec(&[name]));
        assert_eq!(kind, ErrorKind::PermissionDenied, "{message}");
        assert!(message.contains("permission denied"), "{message}");
    }
}

fn a_program_of_another_format_says_so() {
    let image = Image::new();
    let path = image.root().join("bin/odd");
    std::fs::write(&path, "no program").unwrap();
    crate::fixture::host(&format!("chmod 755 {}", path.display()));
    let (_, message) = image.refused(&default_spec(&["/bin/odd"]));
    assert!(message.contains("exec format error"), "{message}");
}

fn a_group_is_entered_before_the_program_runs() {
    let name = format!("dhow-test-{}", std::process::id());
    let path = std::path::Path::new(&name);
    let group = dhow_cgroup::Group::create(path, &dhow_oci::runtime::Resources::default()).unwrap();
    let image = Image::new();
    let spec = Image::shell(
        "cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/*/cgroup.procs",
        |spec| {
            // Without a namespace of groups the paths are the host's.
            linux(spec)
                .namespaces
                .retain(|namespace| namespace.kind != "cgroup");
        },
    );
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let (stdio, mut output) = piped();
    let rootfs = Rootfs::Path(image.root());
    let running = run(Create {
        plan: &plan,
        rootfs,
        stdio,
        group: Some(&group),
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap();
    let mut out = String::new();
    std::io::Read::read_to_string(&mut output, &mut out).unwrap();
    assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 0, "{out}");
    group.delete().unwrap();
    assert!(out.contains(&format!("/{name}\n")), "{out}");
}

fn a_given_namespace_is_joined() {
    let image = Image::new();
    let home = dhow_sys::namespace::network().unwrap();
    let network = dhow_sys::namespace::unshare_net().unwrap();
    let wanted = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    dhow_sys::namespace::enter(&home).unwrap();
    let spec = Image::shell("readlink /proc/self/ns/net", |_| ());
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let (stdio, mut output) = piped();
    let rootfs = Rootfs::Path(image.root());
    let namespaces = vec![(Namespace::Network, network)];
    let running = run(Create {
        plan: &plan,
        rootfs,
        stdio,
        group: None,
        namespaces,
        state: None,
    })
    .unwrap();
    let mut out = String::new();
    std::io::Read::read_to_string(&mut output, &mut out).unwrap();
    wait(running.pidfd.as_fd()).unwrap();
    assert_eq!(out.trim(), wanted.to_str().unwrap());
}

fn a_shared_process_namespace_is_joined_by_path() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let before = std::fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    let out = image.sh("cat /proc/1/comm", |spec| {
        for namespace in &mut linux(spec).namespaces {
            if namespace.kind == "pid" {
                namespace.path = Some(format!("/proc/{}/ns/pid", sleeper.0.pid).into());
            }
        }
    });
    assert_eq!(out, "sleep\n");
    assert_eq!(
        std::fs::read_link("/proc/self/ns/pid_for_children").unwrap(),
        before
    );
}

fn an_overlay_mount_becomes_the_root() {
    let image = Image::new();
    let (upper, work) = (image.beside("upper"), image.beside("work"));
    let root = image.root();
    let mount = dhow_sys::mount::overlay(&[&root], Some(&upper), Some(&work), &[]).unwrap();
    let spec = Image::shell("echo new > /etc/file", |_| ());
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let rootfs = Rootfs::Mount(mount);
    let running = run(Create {
        plan: &plan,
        rootfs,
        stdio: null_stdio(),
        group: None,
        namespaces: Vec::new(),
        state: None,
    });
    assert_eq!(wait(running.unwrap().pidfd.as_fd()).unwrap().code(), 0);
    assert_eq!(std::fs::read_to_string(upper.join("etc/file")).unwrap(), "new\n");
    assert!(!root.join("etc/file").exists());
}

fn a_caller_with_threads_is_refused() {
    let image = Image::new();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let (_, message) = image.refused(&default_spec(&["true"]));
    assert!(message.contains("2 threads"), "{message}");
    stop.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

fn hooks_are_refused() {
    let image = Image::new();
    let mut spec = default_spec(&["true"]);
    process(&mut spec).no_new_privileges = true;
    let hooks = dhow_oci::runtime::Hooks {
        prestart: vec![dhow_oci::runtime::Hook {
            path: "/bin/true".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    spec.hooks = Some(hooks);
    assert_eq!(image.refused(&spec).0, ErrorKind::Unsupported);
}
