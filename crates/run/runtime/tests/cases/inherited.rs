//! What leaks between a caller and a container by way of state that a process inherits: terminal, session, keys,
//! mask, environment, arguments. Each test says what a naive runtime does.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use dhow_oci::runtime::Spec;
use dhow_runtime::{Create, Exec, Plan, Rootfs, Settings, Stdio, exec, wait};
use dhow_types::ErrorKind;

use super::cve::exec_with_terminal;
use super::tests;
use crate::fixture::{Image, attack, chain, default_spec, host, linux, mount, process};

tests! {
    a_terminal_of_the_caller_takes_no_input_from_inside
    the_session_and_its_keys_are_the_containers_own
    message_queues_of_the_host_are_not_seen
    modes_do_not_depend_on_the_callers_mask
    a_null_byte_or_a_line_break_adds_no_variable
    arguments_that_are_too_long_are_an_error
    a_hostile_terminal_device_does_not_stop_exec
    a_root_that_is_swapped_is_one_root
}

/// A terminal of the host, with its two ends.
fn host_terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master.into(), terminal.into())
}

/// A container that is given the caller's terminal types into it (TIOCSTI), so that the caller's shell runs commands
/// later. A naive runtime leaves the container in the caller's session, where the kernel allows that.
fn a_terminal_of_the_caller_takes_no_input_from_inside() {
    let program = r#"
        my $typed = 0; for my $byte (split //, "evil\n") { $typed++ if ioctl(STDIN, 0x5412, $byte); }
        print STDOUT "typed $typed\n";
        print STDOUT "taken\n" if ioctl(STDIN, 0x540E, 0);
        print STDOUT "session $$ ", getppid(), "\n"; open(my $tty, "<", "/dev/tty") and print STDOUT "tty\n";
    "#;
    let Some(mut spec) = attack(&["/usr/bin/perl", "-e", program]) else {
        return;
    };
    let image = Image::new();
    // The caller is the leader of the terminal's session, as a shell's jobs are members.
    rustix::process::setsid().unwrap();
    let (master, terminal) = host_terminal();
    // Closed by the end of this process alone: it hangs the session up.
    let _master: &File = Box::leak(Box::new(master));
    rustix::process::ioctl_tiocsctty(&terminal).unwrap();
    let stdio = |terminal: &File| {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdio = Stdio::Fds {
            stdin: terminal.try_clone().unwrap().into(),
            stdout: write.try_clone().unwrap(),
            stderr: write,
        };
        (stdio, File::from(read))
    };
    let sleeper = image.sleeping(|spec| spec.mounts = attack(&["true"]).unwrap().mounts);
    for by_exec in [false, true] {
        let (stdio, mut output) = stdio(&terminal);
        let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
        let running = if by_exec {
            exec(Exec {
                init: sleeper.0.pidfd.as_fd(),
                process: process(&mut spec),
                seccomp: None,
                linux: None,
                annotations: None,
                group: None,
                stdio,
                settings: &Settings::default(),
                state: None,
            })
        } else {
            dhow_runtime::run(Create {
                plan: &plan,
                rootfs: Rootfs::Path(image.root()),
                stdio,
                group: None,
                namespaces: Vec::new(),
                state: None,
            })
        };
        let running = running.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mut out = String::new();
        output.read_to_string(&mut out).unwrap();
        wait(running.pidfd.as_fd()).unwrap();
        assert!(out.starts_with("typed 0\nsession "), "exec: {by_exec}: {out}");
        assert!(!out.contains("tty"), "exec: {by_exec}: {out}");
    }
    // Nothing waits to be read by the caller.
    rustix::io::ioctl_fionbio(&terminal, true).unwrap();
    assert!((&terminal).read(&mut [0; 8]).is_err());
}

/// A key in the caller's session is the caller's: a naive runtime passes its session keyring on, where the container's
/// root has the same user id.
fn the_session_and_its_keys_are_the_containers_own() {
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0), and a search for the key.
    let program = format!(
        r#"my $ring = syscall({keyctl}, 0, -3, 0); my $type = "user"; my $name = "dhow-test-secret";
           my $key = syscall({keyctl}, 10, -3, $type, $name, 0); print "$ring $key\n";"#,
        keyctl = libc::SYS_keyctl
    );
    let Some(mut spec) = attack(&["/usr/bin/perl", "-e", &program]) else {
        return;
    };
    linux(&mut spec).seccomp = None;
    dhow_sys::process::join_session_keyring().unwrap();
    let add = format!(
        r#"my $t = "user"; my $n = "dhow-test-secret"; my $p = "secret"; print syscall({add}, $t, $n, $p, 6, -3);"#,
        add = libc::SYS_add_key
    );
    let on_host = |program: &str| {
        let output = std::process::Command::new("/usr/bin/perl")
            .args(["-e", program])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let key = on_host(&add);
    // The control: here the key is found, so a process that kept the keyring would find it too.
    let here = on_host(&program);
    assert!(here.trim_end().ends_with(&format!(" {key}")), "{here} {key}");
    let image = Image::new();
    let ring = |line: &str| line.split(' ').next().unwrap().to_owned();
    let out = image.run(&spec).unwrap().out;
    assert!(
        out.ends_with(" -1\n") && ring(&out) != ring(&here),
        "{out} {here}"
    );
    let sleeper = image.sleeping(|sleeping| sleeping.mounts = spec.mounts.clone());
    let out = sleeper.exec(process(&mut spec)).unwrap().out;
    assert!(
        out.ends_with(" -1\n") && ring(&out) != ring(&here),
        "{out} {here}"
    );
}

/// A naive runtime mounts the mqueue of the namespace that it is in.
fn message_queues_of_the_host_are_not_seen() {
    if !Path::new("/usr/bin/perl").exists() {
        return;
    }
    let call = |number: i64, rest: &str| {
        let name = format!("dhow-test-{}", std::process::id());
        let program = format!(r#"my $n = "{name}"; exit(syscall({number}, $n{rest}) < 0);"#);
        host(&format!("perl -e '{program}'"));
    };
    call(libc::SYS_mq_open, ", 0102, 0600, 0");
    let out = std::panic::catch_unwind(|| Image::new().sh("ls /dev/mqueue", |_| ()));
    call(libc::SYS_mq_unlink, "");
    assert_eq!(out.unwrap(), "");
}

/// A caller with a mask of 077 gives unusable devices, one with 0 gives files that anybody writes: a naive runtime
/// passes its mask on, or makes nodes under it.
fn modes_do_not_depend_on_the_callers_mask() {
    let seen = [0o000, 0o022, 0o077].map(|mask| {
        let image = Image::new();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let script = "umask; touch /tmp/f; stat -c %a /tmp/f /dev/null /dev/zero /dev/shm /dev/pts /made /made/cwd /made/mount";
        let change = |spec: &mut Spec| {
            process(spec).cwd = "/made/cwd".into();
            spec.mounts.push(mount("/made/mount/point", "tmpfs", "tmpfs", &["mode=755"]));
        };
        let out = image.sh(script, change);
        let sleeper = image.sleeping(|_| ());
        let by_exec = sleeper.sh("umask; pwd; stat -c %a /by /by/exec", |process| process.cwd = "/by/exec".into());
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        (out, by_exec)
    });
    let wanted = "0022\n644\n666\n666\n1777\n755\n755\n755\n755\n";
    for (out, by_exec) in seen {
        assert_eq!(
            (out.as_str(), by_exec.as_str()),
            (wanted, "0022\n/by/exec\n755\n755\n")
        );
    }
}

/// A variable is one string of execve: what an image puts into it starts no other one.
fn a_null_byte_or_a_line_break_adds_no_variable() {
    let image = Image::new();
    let with = |variable: &str| {
        let mut spec = default_spec(&["/bin/env"]);
        process(&mut spec).env.push(variable.into());
        spec
    };
    let (kind, message) = image.refused(&with("A=b\0LD_PRELOAD=/evil.so"));
    assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
    let out = image.sh("cat /proc/self/environ | tr '\\0' '|'", |spec| {
        process(spec).env.push("A=b\nLD_PRELOAD=/evil.so".into());
    });
    assert!(out.contains("|A=b\nLD_PRELOAD=/evil.so|"), "{out}");
    for field in ["args", "cwd", "hostname"] {
        let mut spec = default_spec(&["/bin/true"]);
        match field {
            "args" => process(&mut spec).args.push("a\0b".into()),
            "cwd" => process(&mut spec).cwd = "/\0".into(),
            _ => spec.hostname = Some("a".repeat(100)),
        }
        let (_, message) = image.refused(&spec);
        assert!(!message.is_empty());
    }
}

/// The kernel's limits (128 KiB for one string, a quarter of the stack for all) come back as an error, not as a
/// container that died.
fn arguments_that_are_too_long_are_an_error() {
    let image = Image::new();
    let long = "x".repeat(256 << 10);
    let mut one = default_spec(&["/bin/true", &long]);
    let mut many = default_spec(&["/bin/true"]);
    process(&mut many).args.extend(vec!["x".repeat(100 << 10); 200]);
    let sleeper = image.sleeping(|_| ());
    for spec in [&mut one, &mut many] {
        let (_, message) = image.refused(spec);
        assert!(message.contains("Argument list too long"), "{message}");
        let error = sleeper.exec(process(spec)).unwrap_err();
        assert!(
            chain(&error).contains("Argument list too long"),
            "{}",
            chain(&error)
        );
    }
    let mut name = default_spec(&["/bin/true"]);
    process(&mut name).args[0] = format!("/{long}");
    let (_, message) = image.refused(&name);
    assert!(
        message.len() < 64 << 10 || message.contains("too long"),
        "{}",
        message.len()
    );
}

/// A container that may mount puts a pipe or a file over /dev/pts/ptmx. A naive runtime opens it and hangs, or takes it
/// for a terminal.
fn a_hostile_terminal_device_does_not_stop_exec() {
    let image = Image::new();
    let sleeper = image.sleeping(|spec| {
        linux(spec).seccomp = None;
        let capabilities = process(spec).capabilities.as_mut().unwrap();
        for set in [
            &mut capabilities.bounding,
            &mut capabilities.effective,
            &mut capabilities.permitted,
        ] {
            set.push("CAP_SYS_ADMIN".into());
        }
    });
    let mounting = |process: &mut dhow_oci::runtime::Process| {
        let capabilities = process.capabilities.as_mut().unwrap();
        for set in [
            &mut capabilities.bounding,
            &mut capabilities.effective,
            &mut capabilities.permitted,
        ] {
            set.push("CAP_SYS_ADMIN".into());
        }
    };
    for make in [
        "mkfifo /tmp/f 2>/dev/null || mknod /tmp/f p",
        "echo bait > /tmp/f",
        "mknod /tmp/f c 1 3",
    ] {
        sleeper.sh(
            &format!("rm -f /tmp/f; {make}; mount --bind /tmp/f /dev/pts/ptmx"),
            mounting,
        );
        let error = exec_with_terminal(&sleeper, "true").unwrap_err();
        assert!(chain(&error).contains("terminal"), "{}", chain(&error));
        sleeper.sh("umount /dev/pts/ptmx", mounting);
    }
    exec_with_terminal(&sleeper, "true").unwrap();
}

/// Two roots that change places while containers start: each container is one of them altogether. A naive runtime goes
/// by the path again and again.
fn a_root_that_is_swapped_is_one_root() {
    let (first, second) = (Image::new(), Image::new());
    for (image, name) in [(&first, "first"), (&second, "second")] {
        std::fs::write(image.root().join("etc/name"), name).unwrap();
        std::fs::create_dir(image.root().join(name)).unwrap();
    }
    let script = "ls -d /first /second 2>/dev/null; cat /etc/name";
    let spec = Image::shell(script, |spec| {
        spec.mounts.push(mount("/etc/deep/er", "tmpfs", "tmpfs", &[]))
    });
    crate::fixture::while_swapping(&first.root(), &second.root(), || {
        for _ in 0..20 {
            let out = first.run(&spec).unwrap().out;
            assert!(out == "/first\nfirst" || out == "/second\nsecond", "{out}");
        }
    });
}
