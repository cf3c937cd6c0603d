//! A second process in a container.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use dhow_runtime::{Exec, Settings, Stdio, exec, kill, wait};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{CAPABILITIES, Image, chain, default_spec, process};

tests! {
    a_process_joins_all_namespaces
    a_process_of_exec_has_the_same_limits_on_its_rights
    a_missing_program_of_exec_is_not_found
    a_script_of_exec_without_its_interpreter_is_told_as_that
    a_right_to_override_modes_counts_for_the_program_of_exec
    exec_finds_the_working_directory_inside_alone
    exec_leaves_the_caller_where_it_was
    exec_with_a_terminal_uses_the_containers
    exec_into_a_stopped_container_says_so
    exec_enters_a_user_namespace
    exec_works_under_any_filter_and_leaves_no_process
}

fn a_process_joins_all_namespaces() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let script = "hostname; cat /proc/1/comm; for ns in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$ns; done; pwd";
    let out = sleeper.sh(script, |_| ());
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["box", "sleep"]);
    for (kind, line) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .zip(&lines[2..])
    {
        let wanted = std::fs::read_link(format!("/proc/{}/ns/{kind}", sleeper.0.pid)).unwrap();
        assert_eq!(wanted.to_str().unwrap(), *line);
    }
    assert_eq!(lines[8], "/");
}

fn a_process_of_exec_has_the_same_limits_on_its_rights() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let out = sleeper.sh("cat /proc/self/status; ls /proc/self/fd", |process| {
        process.user.uid = 1000;
        process.user.additional_gids = vec![7];
        process.capabilities.as_mut().unwrap().inheritable = CAPABILITIES.map(str::to_owned).to_vec();
        process.no_new_privileges = true;
    });
    for wanted in [
        // Where no program gains rights this set gives none (CVE-2022-29162 is the other case, below).
        "CapInh:\t00000000a80425fb",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t1",
        "Groups:\t7",
    ] {
        assert!(out.contains(wanted), "{wanted} in {out}");
    }
    assert!(out.ends_with("\n0\n1\n2\n3\n"), "{out}");
    let out = sleeper.sh("grep CapInh /proc/self/status", |process| {
        process.user.uid = 1000;
        process.capabilities.as_mut().unwrap().inheritable = CAPABILITIES.map(str::to_owned).to_vec();
    });
    assert_eq!(out, "CapInh:\t0000000000000000\n");
}

fn a_missing_program_of_exec_is_not_found() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let error = sleeper.exec(process(&mut default_spec(&["foo"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "exec: \"foo\": executable file not found in $PATH"
    );
    let error = sleeper.exec(process(&mut default_spec(&["/etc"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// CVE-2024-21626 by `exec -w`.
/// Writes a script of root's, with this mode.
fn script(image: &Image, mode: u32, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = image.root().join("bin/script");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn a_script_of_exec_without_its_interpreter_is_told_as_that() {
    let image = Image::new();
    script(&image, 0o755, "#!/nope with words\n");
    let sleeper = image.sleeping(|_| ());
    for name in ["/bin/script", "script"] {
        let error = sleeper.exec(process(&mut default_spec(&[name]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("exec {name}"));
    }
}

fn a_right_to_override_modes_counts_for_the_program_of_exec() {
    let image = Image::new();
    script(&image, 0o744, "#!/bin/sh\necho ran\n");
    let sleeper = image.sleeping(|_| ());
    let mut spec = default_spec(&["/bin/script"]);
    process(&mut spec).user.uid = 1000;
    let error = sleeper.exec(process(&mut spec)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let capabilities = process(&mut spec).capabilities.as_mut().unwrap();
    for set in [&mut capabilities.inheritable, &mut capabilities.ambient] {
        set.push("CAP_DAC_OVERRIDE".into());
    }
    // A shell reads the script: by the same right.
    assert_eq!(sleeper.exec(process(&mut spec)).unwrap().out, "ran\n");
}

fn exec_finds_the_working_directory_inside_alone() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for fd in 3..24 {
        let mut spec = Image::shell("ls /proc/self/cwd/", |spec| {
            process(spec).cwd = format!("/proc/self/fd/{fd}").into()
        });
        match sleeper.exec(process(&mut spec)) {
            Ok(outcome) => assert!(
                !outcome.out.contains("lost+found") && !outcome.out.contains("usr"),
                "{outcome:?}"
            ),
            Err(error) => assert!(chain(&error).contains("working directory"), "{}", chain(&error)),
        }
    }
}

fn exec_leaves_the_caller_where_it_was() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let state = || {
        let names = [
            "cgroup",
            "ipc",
            "mnt",
            "net",
            "pid",
            "pid_for_children",
            "user",
            "uts",
        ];
        names.map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
    };
    let dumpable = || rustix::process::dumpable_behavior().unwrap();
    let before = (state(), dumpable());
    sleeper.sh("true", |_| ());
    sleeper.exec(process(&mut default_spec(&["foo"]))).unwrap_err();
    assert_eq!((state(), dumpable()), before);
}

fn exec_with_a_terminal_uses_the_containers() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let mut spec = Image::shell("tty; ls -l /proc/self/fd/0", |spec| process(spec).terminal = true);
    let settings = Settings::default();
    let init = sleeper.0.pidfd.as_fd();
    let stdio = Stdio::Terminal;
    let process = process(&mut spec);
    let running = exec(Exec {
        init,
        process,
        seccomp: None,
        linux: None,
        annotations: None,
        group: None,
        stdio,
        settings: &settings,
        state: None,
    })
    .unwrap();
    let mut master = std::fs::File::from(running.terminal.unwrap());
    let (mut out, mut chunk) = (String::new(), [0; 256]);
    while let Ok(length) = master.read(&mut chunk) {
        out.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 0, "{out}");
    assert!(out.starts_with("/dev/pts/0\r\n"), "{out}");
}

fn exec_into_a_stopped_container_says_so() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    kill(sleeper.0.pidfd.as_fd(), 9).unwrap();
    wait(sleeper.0.pidfd.as_fd()).unwrap();
    let error = sleeper.exec(process(&mut default_spec(&["true"]))).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::FailedPrecondition, "container is not running".into())
    );
}

fn exec_enters_a_user_namespace() {
    let image = Image::new();
    crate::fixture::host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        image.root().display()
    ));
    let sleeper = image.sleeping(|spec| {
        let mapping = dhow_oci::runtime::IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 65536,
        };
        let linux = spec.linux.as_mut().unwrap();
        linux.namespaces.push(dhow_oci::runtime::Namespace {
            kind: "user".into(),
            path: None,
        });
        (linux.uid_mappings, linux.gid_mappings) = (vec![mapping.clone()], vec![mapping]);
    });
    let out = sleeper.sh("id -u; readlink /proc/self/ns/user", |process| {
        process.user.uid = 7
    });
    let wanted = std::fs::read_link(format!("/proc/{}/ns/user", sleeper.0.pid)).unwrap();
    assert_eq!(out, format!("7\n{}\n", wanted.display()));
}

/// What enters hands over to a child of its own; a filter that does not let it is no hindrance. What was started is the
/// caller's to reap, and nothing else is.
fn exec_works_under_any_filter_and_leaves_no_process() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let rule = |action: &str| {
        let names = ["clone", "fork", "vfork", "setsid"];
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": names, "action": action}],
        });
        serde_json::from_value::<dhow_oci::runtime::Seccomp>(profile).unwrap()
    };
    let usual = default_spec(&[]).linux.unwrap().seccomp;
    let filters = [
        None,
        usual,
        Some(rule("SCMP_ACT_ERRNO")),
        Some(rule("SCMP_ACT_KILL_PROCESS")),
        Some(rule("SCMP_ACT_TRAP")),
    ];
    for filter in filters {
        let settings = Settings::default();
        let mut spec = default_spec(&["/bin/sh", "-c", "read word; exit 7"]);
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = || std::fs::File::create("/dev/null").unwrap().into();
        let running = exec(Exec {
            init: sleeper.0.pidfd.as_fd(),
            process: process(&mut spec),
            seccomp: filter.as_ref(),
            linux: None,
            annotations: None,
            group: None,
            stdio: Stdio::Fds {
                stdin: read,
                stdout: null(),
                stderr: null(),
            },
            settings: &settings,
            state: None,
        })
        .unwrap_or_else(|error| panic!("{filter:?}: {}", chain(&error)));
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(field("PPid:"), [std::process::id().to_string()]);
        let (ids, session) = (field("NSpid:"), field("NSsid:"));
        assert_eq!((ids.len(), session.last()), (2, ids.last()), "{status}");
        drop(write);
        assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 7);
    }
    // The sleeper alone is left.
    let options = rustix::process::WaitOptions::NOHANG;
    assert!(rustix::process::wait(options).unwrap().is_none());
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert!(
        children.is_empty() || children.trim() == sleeper.0.pid.to_string(),
        "{children}"
    );
}
