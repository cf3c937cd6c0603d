//! Images and neighbours that attack the runtime: one test for each known hole of other runtimes.

use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;

use dhow_runtime::{Create, Plan, Rootfs, Settings, create, wait};

use super::tests;
use crate::fixture::{Image, chain, default_spec, host, linux, mount, null_stdio, process};

tests! {
    cve_2019_5736_the_entry_point_is_never_our_binary
    cve_2019_5736_exec_never_runs_our_binary
    cve_2019_5736_the_setup_process_cannot_be_inspected
    cve_2019_19921_a_linked_proc_or_sys_is_refused
    cve_2021_30465_a_linked_target_stays_inside
    cve_2024_21626_no_working_directory_outside
    cve_2024_21626_no_descriptor_leaks
    cve_2025_31133_the_null_device_of_the_image_is_not_trusted
    cve_2025_52565_a_terminal_comes_from_devpts_alone
    cve_2026_41579_a_linked_dev_is_refused
    cve_2022_0811_a_sysctl_value_sets_nothing_else
    device_names_of_the_image_are_replaced
    a_hostile_script_cannot_loop_for_ever_in_start
}

/// Contents that tell the test's own binary from any other.
fn own_binary() -> Vec<u8> {
    std::fs::read("/proc/self/exe").unwrap()
}

fn cve_2019_5736_the_entry_point_is_never_our_binary() {
    let image = Image::new();
    let before = own_binary();
    std::fs::write(image.root().join("bin/script"), "#!/proc/self/exe\n").unwrap();
    host(&format!("chmod 755 {}/bin/script", image.root().display()));
    symlink("/proc/self/exe", image.root().join("bin/link")).unwrap();
    for program in [
        "/proc/self/exe",
        "/bin/script",
        "/bin/link",
        "/proc/1/exe",
        "/proc/thread-self/exe",
    ] {
        // Our binary would print the names of its tests.
        let outcome = image.run(&default_spec(&[program, "--list"])).unwrap();
        assert_eq!((outcome.code, outcome.out.as_str()), (255, ""), "{program}");
    }
    assert_eq!(own_binary(), before);
}

fn cve_2019_5736_exec_never_runs_our_binary() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    std::fs::write(image.root().join("bin/script"), "#!/proc/self/exe\n").unwrap();
    host(&format!("chmod 755 {}/bin/script", image.root().display()));
    for program in ["/proc/self/exe", "/bin/script"] {
        let outcome = sleeper
            .exec(process(&mut default_spec(&[program, "--list"])))
            .unwrap();
        assert_eq!((outcome.code, outcome.out.as_str()), (255, ""), "{program}");
    }
}

/// A container that shares the process id namespace with one that is being set up sees that process; it must be
/// unable to open its program, memory, descriptors or root.
fn cve_2019_5736_the_setup_process_cannot_be_inspected() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let mut spec = default_spec(&["true"]);
    for namespace in &mut linux(&mut spec).namespaces {
        if namespace.kind == "pid" {
            namespace.path = Some(format!("/proc/{}/ns/pid", sleeper.0.pid).into());
        }
    }
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let created = create(Create {
        plan: &plan,
        rootfs,
        stdio: null_stdio(),
        group: None,
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap();
    let script = "for p in /proc/[0-9]*; do case $(cat $p/comm) in main*) for f in exe cwd root fd/3; do \
                  readlink $p/$f && echo leak; done; cat $p/maps $p/mem 2>/dev/null && echo leak; echo seen;; esac; done";
    let out = sleeper.sh(script, |_| ());
    assert!(out.contains("seen") && !out.contains("leak"), "{out}");
    let running = created.start().unwrap();
    wait(running.pidfd.as_fd()).unwrap();
}

fn cve_2019_19921_a_linked_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let image = Image::new();
        std::fs::remove_dir(image.root().join(name)).unwrap();
        std::fs::create_dir(image.root().join("evil")).unwrap();
        symlink("/evil", image.root().join(name)).unwrap();
        let (_, message) = image.refused(&default_spec(&["true"]));
        assert!(
            message.contains(&format!("target of mount {name}")) || message.contains("target of mount sysfs"),
            "{message}"
        );
    }
}

fn cve_2021_30465_a_linked_target_stays_inside() {
    let image = Image::new();
    let outside = image.beside("outside");
    let up = "../".repeat(20);
    let absolute = outside.to_str().unwrap().to_owned();
    symlink(format!("{up}{absolute}"), image.root().join("relative")).unwrap();
    symlink(&absolute, image.root().join("absolute")).unwrap();
    symlink("/proc/self/root/tmp", image.root().join("magic")).unwrap();
    let file = image.beside("source");
    std::fs::write(file.join("f"), "x").unwrap();
    let attempt = |destination: &str| {
        let spec = Image::shell("true", |spec| {
            spec.mounts
                .push(mount(&format!("{destination}/dir"), "tmpfs", "tmpfs", &[]));
            spec.mounts.push(mount(
                &format!("{destination}/file"),
                "bind",
                file.join("f").to_str().unwrap(),
                &["bind"],
            ));
        });
        image.run(&spec).map_err(|error| chain(&error))
    };
    for destination in ["/relative", "/absolute", "/magic"] {
        // Made inside, at the same path, or refused; in no case outside (CVE-2024-45310 too).
        let outcome = attempt(destination);
        assert!(
            outcome.is_ok() || outcome.as_ref().is_err_and(|error| error.contains("target")),
            "{outcome:?}"
        );
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{destination}");
    }
    assert!(!std::path::Path::new("/tmp/dir").exists() && !std::path::Path::new("/tmp/file").exists());
}

fn cve_2024_21626_no_working_directory_outside() {
    let image = Image::new();
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let mut refused = 0;
    for fd in 3..24 {
        let spec = Image::shell("ls -a /proc/self/cwd/ ..", |spec| {
            process(spec).cwd = format!("/proc/self/fd/{fd}").into();
        });
        match image.run(&spec) {
            Ok(outcome) => assert!(
                !outcome.out.contains("lost+found") && !outcome.out.contains("usr"),
                "{outcome:?}"
            ),
            Err(error) => {
                refused += usize::from(chain(&error).contains("outside of the container"));
            }
        }
    }
    assert!(refused > 0, "the leaked descriptor was not tried");
}

fn cve_2024_21626_no_descriptor_leaks() {
    let image = Image::new();
    let leaks: Vec<_> = (0..5).map(|_| std::fs::File::open("/").unwrap()).collect();
    for leak in &leaks {
        rustix::io::fcntl_setfd(leak, rustix::io::FdFlags::empty()).unwrap();
    }
    // The fourth is the directory that ls reads.
    assert_eq!(image.sh("ls /proc/self/fd", |_| ()), "0\n1\n2\n3\n");
}

fn cve_2025_31133_the_null_device_of_the_image_is_not_trusted() {
    let image = Image::new();
    symlink("/proc/sys/kernel/core_pattern", image.root().join("dev/null")).unwrap();
    let out = image.sh("stat -c %t:%T /proc/keys /dev/null; stat -c %F /dev/null; echo x > /proc/keys; cat /proc/sys/kernel/core_pattern", |spec| {
        spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    });
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(out, format!("1:3\n1:3\ncharacter special file\n{pattern}"));
}

fn cve_2025_52565_a_terminal_comes_from_devpts_alone() {
    let image = Image::new();
    std::fs::create_dir(image.root().join("dev/pts")).unwrap();
    std::fs::write(image.root().join("dev/pts/ptmx"), "").unwrap();
    let spec = Image::shell("true", |spec| {
        spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        process(spec).terminal = true;
    });
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let stdio = dhow_runtime::Stdio::Terminal;
    let error = create(Create {
        plan: &plan,
        rootfs,
        stdio,
        group: None,
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap_err();
    assert!(chain(&error).contains("set up the terminal"), "{}", chain(&error));
}

fn cve_2026_41579_a_linked_dev_is_refused() {
    for with_tmpfs in [true, false] {
        let image = Image::new();
        let outside = image.beside("outside");
        std::fs::remove_dir(image.root().join("dev")).unwrap();
        symlink("/etc", image.root().join("dev")).unwrap();
        let spec = Image::shell("true", |spec| {
            if !with_tmpfs {
                spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
            }
        });
        let (_, message) = image.refused(&spec);
        assert!(message.contains("dev"), "{message}");
        assert!(!image.root().join("etc/null").exists());
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    }
}

fn cve_2022_0811_a_sysctl_value_sets_nothing_else() {
    let image = Image::new();
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let spec = Image::shell("true", |spec| {
        linux(spec).sysctl.insert(
            "kernel.shm_rmid_forced".into(),
            "1+kernel.core_pattern=|/evil".into(),
        );
    });
    let (_, message) = image.refused(&spec);
    assert!(message.contains("sysctl kernel.shm_rmid_forced"), "{message}");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
        before
    );
}

fn device_names_of_the_image_are_replaced() {
    let image = Image::new();
    std::fs::write(image.root().join("dev/zero"), "not zero").unwrap();
    symlink("/etc/passwd", image.root().join("dev/random")).unwrap();
    symlink("/elsewhere", image.root().join("dev/fd")).unwrap();
    let out = image.sh("cd /dev; stat -c '%n %t:%T' zero random; readlink fd", |spec| {
        spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    });
    assert_eq!(out, "zero 1:5\nrandom 1:8\n/proc/self/fd\n");
}

/// The stub, executed again by the name of `/proc/self/exe`, ends instead of trying for ever.
fn a_hostile_script_cannot_loop_for_ever_in_start() {
    let image = Image::new();
    let spec = default_spec(&["/proc/self/exe"]);
    let started = std::time::Instant::now();
    assert_eq!(image.run(&spec).unwrap().code, 255);
    assert!(started.elapsed().as_secs() < 5);
}
