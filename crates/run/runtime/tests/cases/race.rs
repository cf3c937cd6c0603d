//! Races: another process exchanges a directory and a link as fast as it can while containers start at full rate.
//!
//! Each test runs for two seconds, or for `DHOW_RACE_SECONDS`. A start may fail (the kernel refused what it met) or land
//! inside; nothing may happen outside. What a test counted is printed, and `docs/security/designed-out.md` keeps the
//! figures of a long run. A naive runtime that checks a path and then uses it loses each of these within a second: the
//! control at the end of the file shows that for the swap itself.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_oci::runtime::{Device, Spec};
use dhow_runtime::{Create, Plan, Rootfs, Settings, Stdio};

use super::tests;
use crate::fixture::{Image, chain, default_spec, host, linux, mount, process, race_seconds, while_swapping};

tests! {
    race_of_a_mount_target_on_a_shared_volume
    race_of_a_mount_targets_parent
    race_of_a_masked_path
    race_of_the_name_of_procfs
    race_of_the_working_directory
    race_of_the_working_directory_of_exec
    race_of_a_volumes_sub_path
    race_of_the_device_directory
    race_of_the_console
    race_of_the_terminal_device
    race_of_the_root_and_a_link_to_the_host
    race_of_the_control_groups_target
    race_control_a_check_before_the_use_loses
}

/// What the starts came to.
#[derive(Default)]
struct Tally {
    started: u64,
    refused: u64,
    /// The first refusal, for the reader.
    why: Option<String>,
}

/// The directory of the host that nothing may reach, beside an image.
struct Outside(PathBuf);

impl Outside {
    fn of(image: &Image) -> Self {
        let outside = image.beside("outside");
        for name in ["keep", "keys", "null", "console", "ptmx"] {
            std::fs::write(outside.join(name), "host").unwrap();
        }
        Self(outside)
    }

    /// Everything is as it was made.
    fn check(&self) {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["console", "keep", "keys", "null", "ptmx"]);
        for name in names {
            assert_eq!(
                std::fs::read_to_string(self.0.join(&name)).unwrap(),
                "host",
                "{name}"
            );
        }
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(self.0.to_str().unwrap()), "a mount on the host");
    }
}

/// Starts containers until the time is over; `check` sees what each printed.
fn starts(name: &str, image: &Image, spec: &Spec, check: impl Fn(&str)) {
    repeat(name, || image.run(spec).map(|outcome| outcome.out), check);
}

fn repeat(name: &str, act: impl Fn() -> Result<String, dhow_runtime::Error>, check: impl Fn(&str)) {
    let mut tally = Tally::default();
    let end = Instant::now() + Duration::from_secs(race_seconds());
    while Instant::now() < end || tally.started + tally.refused == 0 {
        match act() {
            Ok(out) => {
                check(&out);
                tally.started += 1;
            }
            Err(error) => {
                tally.refused += 1;
                tally.why.get_or_insert_with(|| chain(&error));
            }
        }
    }
    println!(
        "race {name}: {} started, {} refused{}",
        tally.started,
        tally.refused,
        tally
            .why
            .map(|why| format!(" (first: {why})"))
            .unwrap_or_default()
    );
}

/// A volume that another container writes, with `target` and a link to `to` changing places in it.
fn volume_with(image: &Image, to: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let volume = image.beside("volume");
    let (target, link) = (volume.join("target"), volume.join("link"));
    std::fs::create_dir(&target).unwrap();
    symlink(to, &link).unwrap();
    (volume, target, link)
}

fn bound(spec: &mut Spec, volume: &Path) {
    spec.mounts
        .push(mount("/volume", "bind", volume.to_str().unwrap(), &["rbind"]));
}

/// Links that lead to a directory of the host for who follows them on the host, by each way up there is.
fn escape(to: &Path) -> PathBuf {
    format!("{}{}", "../".repeat(30), to.display()).into()
}

/// CVE-2021-30465: the second mount of the spec goes into the first, where the target is swapped for a link to the
/// host. A mount there would cover the host's directory, and show the host's files in the container.
fn race_of_a_mount_target_on_a_shared_volume() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (volume, target, link) = volume_with(&image, &escape(&outside.0));
    let spec = Image::shell(
        "grep -c ' /volume' /proc/mounts; cat /outside/keep 2>/dev/null; true",
        |spec| {
            bound(spec, &volume);
            spec.mounts.push(mount("/volume/target", "tmpfs", "tmpfs", &[]));
        },
    );
    while_swapping(&target, &link, || {
        starts("mount target", &image, &spec, |out| {
            assert!(!out.contains("host"), "{out}")
        });
    });
    outside.check();
}

/// CVE-2024-45310: the directories on the way to a target are made while one of them is swapped: none may be made on
/// the host.
fn race_of_a_mount_targets_parent() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (volume, target, link) = volume_with(&image, &escape(&outside.0));
    let file = image.beside("source").join("file");
    std::fs::write(&file, "").unwrap();
    let number = std::cell::Cell::new(0);
    while_swapping(&target, &link, || {
        repeat(
            "mount target's parent",
            || {
                number.set(number.get() + 1);
                let (directory, at) = (format!("/volume/target/a{}/b", number.get()), number.get());
                let spec = Image::shell("true", |spec| {
                    bound(spec, &volume);
                    spec.mounts.push(mount(&directory, "tmpfs", "tmpfs", &[]));
                    let name = format!("/volume/target/file{at}");
                    spec.mounts
                        .push(mount(&name, "bind", file.to_str().unwrap(), &["bind"]));
                });
                image.run(&spec).map(|outcome| outcome.out)
            },
            |_| (),
        );
    });
    outside.check();
}

/// CVE-2025-31133's class: a masked path that is a link at one moment must not put the mask, or take the read-only copy,
/// elsewhere on the host.
fn race_of_a_masked_path() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (volume, target, link) = volume_with(&image, &escape(&outside.0));
    std::fs::write(target.join("keys"), "secret").unwrap();
    let spec = Image::shell(
        "cat /volume/target/keys; echo x > /volume/target/new; true",
        |spec| {
            bound(spec, &volume);
            linux(spec).masked_paths.push("/volume/target/keys".into());
            linux(spec).readonly_paths.push("/volume/target".into());
        },
    );
    while_swapping(&target, &link, || {
        starts("masked path", &image, &spec, |out| {
            assert!(!out.contains("host"), "{out}")
        });
    });
    outside.check();
}

/// CVE-2025-52881, CVE-2023-28642: who shares the root renames the directory that procfs is mounted on. Masks and
/// settings go to procfs nevertheless: `/proc/keys` of every instance that is left is the null device.
fn race_of_the_name_of_procfs() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (real, decoy) = (image.root().join("proc"), image.root().join("decoy"));
    std::fs::create_dir_all(decoy.join("sys/net/ipv4")).unwrap();
    symlink(
        escape(&outside.0.join("keys")),
        decoy.join("sys/net/ipv4/ip_default_ttl"),
    )
    .unwrap();
    symlink(escape(&outside.0.join("keys")), decoy.join("keys")).unwrap();
    // By relative names: the two go on changing places while the script looks.
    let script = "for d in /proc /decoy; do cd $d; test -e self/status || continue; \
                  test -c keys || echo unmasked; ( : >> sys/vm/swappiness ) 2>/dev/null && echo writable; done; true";
    let spec = Image::shell(script, |spec| {
        linux(spec)
            .sysctl
            .insert("net.ipv4.ip_default_ttl".into(), "77".into());
    });
    while_swapping(&real, &decoy, || {
        starts("name of procfs", &image, &spec, |out| {
            assert!(!out.contains("unmasked") && !out.contains("writable"), "{out}");
        });
    });
    outside.check();
}

/// CVE-2024-21626 with a swap: the working directory is a link to a descriptor of the host at some moments.
fn race_of_the_working_directory() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let leak = std::fs::File::open(&outside.0).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&leak);
    let (volume, target, link) = volume_with(&image, Path::new(&format!("/proc/self/fd/{fd}")));
    let script = "ls /proc/self/cwd/ . ..; echo new > made; true";
    for deeper in ["", "/a/b"] {
        let spec = Image::shell(script, |spec| {
            bound(spec, &volume);
            process(spec).cwd = format!("/volume/target{deeper}").into();
        });
        while_swapping(&target, &link, || {
            starts("working directory", &image, &spec, |out| {
                assert!(!out.contains("keep") && !out.contains("outside"), "{out}");
            });
        });
        outside.check();
    }
}

fn race_of_the_working_directory_of_exec() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let leak = std::fs::File::open(&outside.0).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&leak);
    let (volume, target, link) = volume_with(&image, Path::new(&format!("/proc/self/fd/{fd}")));
    let sleeper = image.sleeping(|spec| bound(spec, &volume));
    let mut spec = Image::shell("ls /proc/self/cwd/ . ..; echo new > made; true", |spec| {
        process(spec).cwd = "/volume/target/a/b".into();
    });
    let process = process(&mut spec).clone();
    while_swapping(&target, &link, || {
        repeat(
            "working directory of exec",
            || sleeper.exec(&process).map(|outcome| outcome.out),
            |out| assert!(!out.contains("keep") && !out.contains("outside"), "{out}"),
        );
    });
    outside.check();
}

/// CVE-2023-0778's and buildkit 2024-23651's class: a part of a volume that another container writes is opened inside
/// the volume by one call, and what is mounted is that descriptor's.
fn race_of_a_volumes_sub_path() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (volume, target, link) = volume_with(&image, &escape(&outside.0));
    std::fs::write(target.join("keep"), "volume").unwrap();
    let root = dhow_rootpath::Root::open(&volume).unwrap();
    while_swapping(&target, &link, || {
        let mut seen = (0_u64, 0_u64);
        let end = Instant::now() + Duration::from_secs(race_seconds());
        while Instant::now() < end {
            match root.read(Path::new("target/keep"), 100) {
                Ok(bytes) => {
                    assert_eq!(bytes, b"volume");
                    seen.0 += 1;
                }
                Err(_) => seen.1 += 1,
            }
            assert!(
                root.create_dir_all(Path::new("target/sub"), 0o755, None).is_ok()
                    || !outside.0.join("sub").exists()
            );
        }
        println!("race volume's sub path: {} opened, {} refused", seen.0, seen.1);
        assert!(seen.0 > 0);
    });
    outside.check();
}

/// CVE-2026-41579 with a swap: /dev is a directory of the image and a link by turns while nodes are made in it.
fn race_of_the_device_directory() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (real, link) = (image.root().join("dev"), image.root().join("link"));
    symlink(escape(&outside.0), &link).unwrap();
    let spec = Image::shell("true", |spec| {
        spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        linux(spec).devices = vec![Device {
            path: "/dev/deeper/node".into(),
            kind: "c".into(),
            major: 1,
            minor: 5,
            ..Device::default()
        }];
    });
    while_swapping(&real, &link, || starts("device directory", &image, &spec, |_| ()));
    outside.check();
}

/// A container with a terminal, and what it printed; it has no tmpfs on /dev, so that the swap reaches it.
fn with_terminal(image: &Image, spec: &Spec) -> Result<String, dhow_runtime::Error> {
    let plan = Plan::prepare(spec, &Settings::default())?;
    let running = dhow_runtime::run(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio: Stdio::Terminal,
        group: None,
        namespaces: Vec::new(),
        state: None,
    })?;
    let mut master = std::fs::File::from(running.terminal.unwrap());
    let (mut out, mut chunk) = (String::new(), [0; 256]);
    while let Ok(length) = std::io::Read::read(&mut master, &mut chunk) {
        out.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    dhow_runtime::wait(std::os::fd::AsFd::as_fd(&running.pidfd))?;
    Ok(out)
}

/// CVE-2025-52565: /dev/console is a file and a link by turns while the terminal is bound there.
fn race_of_the_console() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (real, link) = (image.root().join("dev/console"), image.root().join("dev/link"));
    std::fs::write(&real, "").unwrap();
    symlink(escape(&outside.0.join("console")), &link).unwrap();
    let spec = Image::shell("tty; cat /outside/keep 2>/dev/null; true", |spec| {
        spec.mounts.retain(|mount| mount.destination != Path::new("/dev"));
        process(spec).terminal = true;
    });
    while_swapping(&real, &link, || {
        repeat(
            "console",
            || with_terminal(&image, &spec),
            |out| assert!(out.starts_with("/dev/pts/0"), "{out}"),
        );
    });
    outside.check();
}

/// The same for /dev/pts, the directory that devpts is mounted on: the terminal is one of a devpts or there is none.
fn race_of_the_terminal_device() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let (real, decoy) = (image.root().join("dev/pts"), image.root().join("dev/decoy"));
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(&decoy).unwrap();
    host(&format!("mkfifo {}/ptmx", decoy.display()));
    let spec = Image::shell("stat -c %t -L /proc/self/fd/0; true", |spec| {
        spec.mounts.retain(|mount| mount.destination != Path::new("/dev"));
        process(spec).terminal = true;
    });
    while_swapping(&real, &decoy, || {
        repeat(
            "terminal device",
            || with_terminal(&image, &spec),
            |out| assert_eq!(out, "88\r\n"),
        );
    });
    outside.check();
}

/// The root itself is a directory and a link to another image by turns: a container is one of the two altogether.
fn race_of_the_root_and_a_link_to_the_host() {
    let (image, other) = (Image::new(), Image::new());
    let outside = Outside::of(&image);
    for (image, name) in [(&image, "first"), (&other, "second")] {
        std::fs::create_dir(image.root().join(name)).unwrap();
        std::fs::write(image.root().join("etc/name"), name).unwrap();
    }
    let link = image.root().with_file_name("link");
    symlink(other.root(), &link).unwrap();
    let spec = Image::shell("ls -d /first /second 2>/dev/null; cat /etc/name", |spec| {
        spec.mounts.push(mount("/etc/deep/er", "tmpfs", "tmpfs", &[]));
        linux(spec).masked_paths.push("/etc/deep".into());
    });
    while_swapping(&image.root(), &link, || {
        starts("root", &image, &spec, |out| {
            assert!(out == "/first\nfirst" || out == "/second\nsecond", "{out}");
        });
    });
    outside.check();
}

/// /sys/fs/cgroup is mounted into a directory of the image's when sysfs is left out: swapped for a link, it stays inside.
fn race_of_the_control_groups_target() {
    let image = Image::new();
    let outside = Outside::of(&image);
    let sys = image.root().join("sys/fs");
    std::fs::create_dir_all(sys.join("cgroup")).unwrap();
    symlink(escape(&outside.0), sys.join("link")).unwrap();
    let mut spec = default_spec(&["/bin/true"]);
    spec.mounts.retain(|mount| mount.destination != Path::new("/sys"));
    while_swapping(&sys.join("cgroup"), &sys.join("link"), || {
        starts("control groups' target", &image, &spec, |_| ());
    });
    outside.check();
}

/// The control: the same swap against a check (`symlink_metadata`) followed by a use (`create_dir_all`, a path): within
/// the same time a directory is made on the other side of the link. Without this the tests above might win against
/// nobody.
fn race_control_a_check_before_the_use_loses() {
    let image = Image::new();
    let outside = image.beside("outside");
    let (_, target, link) = volume_with(&image, &outside);
    let mut lost = 0;
    while_swapping(&target, &link, || {
        let end = Instant::now() + Duration::from_secs(race_seconds().max(5));
        while lost == 0 && Instant::now() < end {
            if std::fs::symlink_metadata(&target).unwrap().is_dir() {
                drop(std::fs::create_dir(target.join("made")));
            }
            lost += u32::from(outside.join("made").exists());
        }
    });
    assert!(lost > 0, "the swap is too slow to race with");
}
