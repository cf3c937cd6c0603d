//! What a container sees of file systems, devices and terminals.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use dhow_oci::runtime::ConsoleSize;
use dhow_runtime::{Create, Plan, Rootfs, Settings, Stdio, run, wait};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, host, linux, mount, null_stdio, process};

tests! {
    the_default_mounts_have_their_options
    nothing_of_the_hosts_mounts_is_left
    mounts_are_made_in_the_order_of_the_spec
    devices_and_links_are_there
    extra_devices_are_made_with_mode_and_owner
    masked_paths_are_empty_and_read_only_paths_refuse_writes
    a_read_only_root_refuses_writes
    binds_follow_their_options
    a_recursive_read_only_bind_covers_what_is_below
    propagation_from_the_host_reaches_a_slave_bind
    mounts_are_listed_in_the_order_of_the_spec_also_those_that_propagate
    propagation_from_the_host_reaches_a_slave_root_and_no_other
    a_shared_root_is_shared_and_an_unbindable_one_cannot_be_bound
    a_tmpfs_keeps_the_mode_of_what_it_covers
    a_bound_dev_is_left_alone
    a_remount_changes_what_is_there
    only_the_own_groups_are_seen
    a_terminal_is_one_of_the_container
    a_missing_source_is_named
    a_read_only_file_system_is_filled_first
    a_target_is_made_where_links_lead_to_nothing_yet
    a_target_takes_over_the_group_id_bit_above_it
}

fn the_default_mounts_have_their_options() {
    let image = Image::new();
    let out = image.sh("cat /proc/self/mounts", |_| ());
    let options = |point: &str| {
        let line = out.lines().find(|line| line.split(' ').nth(1) == Some(point));
        let fields: Vec<&str> = line
            .unwrap_or_else(|| panic!("{point} in {out}"))
            .split(' ')
            .collect();
        (fields[2].to_owned(), fields[3].to_owned())
    };
    let expect = |point: &str, kind: &str, wanted: &[&str]| {
        let (found, options) = options(point);
        assert_eq!(found, kind, "{point}");
        for one in wanted {
            assert!(
                options.split(',').any(|option| option == *one),
                "{point}: {options} lacks {one}"
            );
        }
    };
    expect("/proc", "proc", &["nosuid", "nodev", "noexec"]);
    expect("/dev", "tmpfs", &["rw", "nosuid", "size=65536k", "mode=755"]);
    expect(
        "/dev/pts",
        "devpts",
        &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"],
    );
    expect("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]);
    expect("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]);
    expect("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "size=65536k"]);
    assert_eq!(image.sh("stat -c %a /dev /dev/shm", |_| ()), "755\n1777\n");
}

fn nothing_of_the_hosts_mounts_is_left() {
    let image = Image::new();
    let out = image.sh("cat /proc/self/mountinfo; ls /", |_| ());
    assert!(
        !out.contains("/dev/hugepages") && !out.contains("rootfs\n"),
        "{out}"
    );
    let points: Vec<&str> = out.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{out}");
    let known = ["/", "/proc", "/dev", "/sys"];
    assert!(points.iter().all(|point| {
        known
            .iter()
            .any(|known| *point == *known || point.starts_with(&format!("{known}/")))
    }));
}

/// config.md, "Mounts": "the runtime MUST mount entries in the listed order". What hangs below /sys waits for the network.
fn mounts_are_made_in_the_order_of_the_spec() {
    let image = Image::new();
    let out = image.sh("cat /proc/self/mountinfo", |spec| {
        spec.mounts.push(mount("/last", "tmpfs", "tmpfs", &[]));
    });
    let at = |point: &str| {
        let line = out.lines().position(|line| line.split(' ').nth(4) == Some(point));
        line.unwrap_or_else(|| panic!("{point} in {out}"))
    };
    assert!(at("/proc") < at("/sys"), "{out}");
    assert!(at("/sys") < at("/last"), "{out}");
}

fn devices_and_links_are_there() {
    let image = Image::new();
    let out = image.sh("cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty; for link in fd stdin stdout stderr ptmx; do readlink $link; done", |_| ());
    let wanted = "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n\
                  /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(out, wanted);
}

fn extra_devices_are_made_with_mode_and_owner() {
    let image = Image::new();
    let out = image.sh("stat -c '%F %t:%T %a %u:%g' /dev/net/tun /dev/pipe", |spec| {
        let device = |kind: &str, path: &str, major, minor| dhow_oci::runtime::Device {
            kind: kind.into(),
            path: path.into(),
            major,
            minor,
            file_mode: Some(0o620),
            uid: Some(3),
            gid: Some(4),
        };
        linux(spec).devices = vec![
            device("c", "/dev/net/tun", 10, 200),
            device("p", "/dev/pipe", 0, 0),
        ];
    });
    assert_eq!(out, "character special file a:c8 620 3:4\nfifo 0:0 620 3:4\n");
}

fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let image = Image::new();
    let script = "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls -A /proc/acpi /sys/firmware | grep -v : ; \
                  echo 1 > /proc/sys/kernel/shmmni || echo refused; touch /sys/firmware/x || echo refused; \
                  stat -c %F /proc/keys";
    let out = image.sh(script, |_| ());
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], "0", "{out}");
    assert_eq!(
        lines.iter().filter(|line| **line == "refused").count(),
        2,
        "{out}"
    );
    assert!(
        out.contains("Read-only file system") && out.ends_with("character special file\n"),
        "{out}"
    );
}

fn a_read_only_root_refuses_writes() {
    let image = Image::new();
    let out = image.sh(
        "touch /etc/x || echo refused; touch /dev/shm/x && echo allowed",
        |spec| {
            spec.root.as_mut().unwrap().readonly = true;
        },
    );
    assert!(out.contains("Read-only file system\nrefused\nallowed\n"), "{out}");
}

fn binds_follow_their_options() {
    let image = Image::new();
    let volume = image.beside("volume");
    std::fs::write(volume.join("file"), "content").unwrap();
    let out = image.sh("cat /rw/file /etc/one; echo more > /rw/new; touch /ro/x || echo refused; echo y > /etc/one || echo refused", |spec| {
        let source = volume.to_str().unwrap().to_owned();
        spec.mounts.push(mount("/rw", "bind", &source, &["rbind", "rprivate"]));
        spec.mounts.push(mount("/ro", "bind", &source, &["rbind", "ro", "nosuid", "nodev"]));
        spec.mounts.push(mount("/etc/one", "bind", &format!("{source}/file"), &["bind", "ro"]));
    });
    assert!(
        out.starts_with("contentcontent") && out.matches("refused").count() == 2,
        "{out}"
    );
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "more\n");
    assert_eq!(std::fs::metadata(image.root().join("etc/one")).unwrap().len(), 0);
}

fn a_recursive_read_only_bind_covers_what_is_below() {
    let image = Image::new();
    let volume = image.beside("volume");
    std::fs::create_dir(volume.join("below")).unwrap();
    dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    host(&format!(
        "mount --make-rprivate / && mount -t tmpfs x {}/below",
        volume.display()
    ));
    let out = image.sh(
        "touch /top/below/x && echo written; touch /all/below/x || echo refused",
        |spec| {
            let source = volume.to_str().unwrap().to_owned();
            spec.mounts.push(mount("/top", "bind", &source, &["rbind", "ro"]));
            spec.mounts
                .push(mount("/all", "bind", &source, &["rbind", "rro"]));
        },
    );
    host(&format!("umount -l {}/below", volume.display()));
    assert!(out.contains("written") && out.contains("refused"), "{out}");
}

fn propagation_from_the_host_reaches_a_slave_bind() {
    let image = Image::new();
    let volume = image.beside("volume");
    dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    let path = volume.display();
    host(&format!(
        "mount --make-rprivate / && mount -t tmpfs x {path} && mount --make-shared {path} && mkdir {path}/late"
    ));
    let sleeper = image.sleeping(|spec| {
        let source = volume.to_str().unwrap().to_owned();
        spec.mounts
            .push(mount("/slave", "bind", &source, &["rbind", "rslave"]));
        spec.mounts
            .push(mount("/private", "bind", &source, &["rbind", "rprivate"]));
    });
    host(&format!("mount -t tmpfs x {path}/late && touch {path}/late/seen"));
    let out = sleeper.sh("ls /slave/late /private/late", |_| ());
    drop(sleeper);
    host(&format!("umount -l {path}"));
    assert_eq!(out, "/private/late:\n\n/slave/late:\nseen\n");
}

fn mounts_are_listed_in_the_order_of_the_spec_also_those_that_propagate() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let kernel = [numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap()];
    if ([6, 8]..[6, 15]).contains(&kernel) {
        eprintln!("left out: Linux {release} lists mounts by age and copies none that is detached");
        return;
    }
    let image = Image::new();
    let volume = image.beside("volume");
    dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    let path = volume.display();
    host(&format!(
        "mount --make-rprivate / && mount -t tmpfs x {path} && mount --make-shared {path}"
    ));
    let out = image.sh("grep -o ' /at-[a-z]* ' /proc/self/mountinfo", |spec| {
        let source = volume.to_str().unwrap().to_owned();
        spec.mounts.push(mount("/at-a", "tmpfs", "x", &[]));
        spec.mounts
            .push(mount("/at-b", "bind", &source, &["bind", "shared"]));
        spec.mounts
            .push(mount("/at-c", "bind", &source, &["rbind", "rprivate"]));
        spec.mounts
            .push(mount("/at-d", "bind", &source, &["rbind", "rslave"]));
        spec.mounts.push(mount("/at-e", "tmpfs", "x", &[]));
    });
    host(&format!("umount -l {path}"));
    let targets: Vec<_> = out.split_whitespace().collect();
    assert_eq!(targets, ["/at-a", "/at-b", "/at-c", "/at-d", "/at-e"]);
}

fn propagation_from_the_host_reaches_a_slave_root_and_no_other() {
    let image = Image::new();
    dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    let root = image.root();
    let path = root.display();
    host(&format!(
        "mount --make-rprivate / && mount --bind {path} {path} && mount --make-shared {path} && mkdir {path}/late"
    ));
    for (wanted, seen) in [
        (None, "own\n"),
        (Some("private"), "own\n"),
        (Some("slave"), "own\nseen\n"),
        (Some("rslave"), "own\nseen\n"),
    ] {
        let sleeper = image.sleeping(|spec| linux(spec).rootfs_propagation = wanted.map(str::to_owned));
        host(&format!("mount -t tmpfs x {path}/late && touch {path}/late/seen"));
        let out = sleeper.sh("echo own; ls /late", |_| ());
        // What the container mounts stays in it.
        drop(sleeper);
        host(&format!("umount {path}/late"));
        assert_eq!(out, seen, "{wanted:?}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!("{path}/");
    assert!(!mounts.contains(&below), "{mounts}");
    host(&format!("umount -l {path}"));
}

fn a_shared_root_is_shared_and_an_unbindable_one_cannot_be_bound() {
    let image = Image::new();
    let script = "grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo | head -n 1";
    for (wanted, word) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let out = image.sh(script, |spec| {
            linux(spec).rootfs_propagation = Some(wanted.into())
        });
        assert!(out.contains(word), "{wanted}: {out}");
    }
    let wrong = Image::shell("true", |spec| {
        linux(spec).rootfs_propagation = Some("sideways".into())
    });
    assert_eq!(image.refused(&wrong).0, ErrorKind::InvalidArgument);
}

fn a_tmpfs_keeps_the_mode_of_what_it_covers() {
    let image = Image::new();
    let out = image.sh("stat -c %a /tmp /etc /fresh /moded", |spec| {
        spec.mounts.push(mount("/tmp", "tmpfs", "tmpfs", &[]));
        spec.mounts.push(mount("/etc", "tmpfs", "tmpfs", &["size=1m"]));
        spec.mounts.push(mount("/fresh", "tmpfs", "tmpfs", &[]));
        spec.mounts.push(mount("/moded", "tmpfs", "tmpfs", &["mode=700"]));
    });
    assert_eq!(out, "1777\n755\n1777\n700\n");
}

fn a_bound_dev_is_left_alone() {
    let image = Image::new();
    let dev = image.beside("dev");
    let out = image.sh("ls -A /dev | wc -l", |spec| {
        spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        spec.mounts
            .push(mount("/dev", "bind", dev.to_str().unwrap(), &["bind"]));
        linux(spec).masked_paths.clear();
    });
    assert_eq!(out, "0\n");
    assert_eq!(std::fs::read_dir(dev).unwrap().count(), 0);
}

fn a_remount_changes_what_is_there() {
    let image = Image::new();
    let out = image.sh("touch /dev/shm/x || echo refused", |spec| {
        spec.mounts
            .push(mount("/dev/shm", "tmpfs", "tmpfs", &["remount", "ro"]));
    });
    assert!(out.ends_with("refused\n"), "{out}");
}

/// CVE-2023-25809 and its kin: no group of the host or of another container is in sight, and none is writable.
fn only_the_own_groups_are_seen() {
    let name = format!("dhow-test-groups-{}", std::process::id());
    let path = std::path::Path::new(&name);
    let group = dhow_cgroup::Group::create(path, &dhow_oci::runtime::Resources::default()).unwrap();
    let image = Image::new();
    let script = "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*/dhow* /sys/fs/cgroup/dhow* 2>/dev/null; \
                  mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused; mkdir /sys/fs/cgroup/*/x 2>/dev/null || echo refused";
    let plan = Plan::prepare(&Image::shell(script, |_| ()), &Settings::default()).unwrap();
    let (stdio, mut output) = crate::fixture::piped();
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
    output.read_to_string(&mut out).unwrap();
    wait(running.pidfd.as_fd()).unwrap();
    group.delete().unwrap();
    assert!(!out.contains("dhow"), "{out}");
    assert_eq!(out.matches("refused").count(), 2, "{out}");
}

fn a_terminal_is_one_of_the_container() {
    let image = Image::new();
    let script = "tty; stty size; test /dev/console -ef $(tty) && echo console; ls /dev/pts; read line; echo got $line";
    let spec = Image::shell(script, |spec| {
        process(spec).terminal = true;
        process(spec).console_size = Some(ConsoleSize {
            height: 33,
            width: 99,
        });
        process(spec).user.uid = 1000;
    });
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let create = Create {
        plan: &plan,
        rootfs,
        stdio: Stdio::Terminal,
        group: None,
        namespaces: Vec::new(),
        state: None,
    };
    let running = run(create).unwrap();
    let mut master = std::fs::File::from(running.terminal.unwrap());
    master.write_all(b"typed\n").unwrap();
    let mut out = Vec::new();
    let mut chunk = [0; 256];
    // The master of a terminal whose other end is closed gives EIO.
    while let Ok(length) = master.read(&mut chunk) {
        out.extend_from_slice(&chunk[..length]);
    }
    let out = String::from_utf8(out).unwrap();
    assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 0, "{out}");
    for wanted in ["/dev/pts/0\r\n", "33 99\r\n", "console\r\n", "got typed\r\n"] {
        assert!(out.contains(wanted), "{wanted:?} in {out:?}");
    }
    let mut wrong = Image::shell("true", |_| ());
    process(&mut wrong).terminal = true;
    let plan = Plan::prepare(&wrong, &Settings::default()).unwrap();
    let rootfs = Rootfs::Path(image.root());
    let create = Create {
        plan: &plan,
        rootfs,
        stdio: null_stdio(),
        group: None,
        namespaces: Vec::new(),
        state: None,
    };
    assert_eq!(run(create).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn a_missing_source_is_named() {
    let image = Image::new();
    let spec = Image::shell("true", |spec| {
        spec.mounts
            .push(mount("/x", "bind", "/no/such/source", &["rbind"]))
    });
    let (kind, message) = image.refused(&spec);
    assert_eq!(kind, ErrorKind::FailedPrecondition);
    assert!(message.contains("/no/such/source at /x"), "{message}");
}

fn a_read_only_file_system_is_filled_first() {
    let image = Image::new();
    let beside = image.beside("file");
    std::fs::write(beside.join("one"), "content").unwrap();
    std::fs::create_dir_all(image.root().join("copied")).unwrap();
    std::fs::write(image.root().join("copied/old"), "old").unwrap();
    let script = "stat -c %t:%T /dev/null; readlink /dev/fd; cat /small/one /copied/old; ls -d /dev/shm /small/below; \
                  for at in /dev /small /copied; do touch $at/x || echo refused; done; touch /small/below/x && echo written; \
                  grep -c ' /dev tmpfs ro,' /proc/mounts";
    let out = image.sh(script, |spec| {
        for mount in &mut spec.mounts {
            if mount.destination == std::path::Path::new("/dev") {
                mount.options.push("ro".into());
            }
        }
        let source = beside.join("one");
        spec.mounts
            .push(mount("/small", "tmpfs", "tmpfs", &["ro", "nosuid"]));
        spec.mounts
            .push(mount("/small/one", "bind", source.to_str().unwrap(), &["bind"]));
        spec.mounts.push(mount("/small/below", "tmpfs", "tmpfs", &[]));
        spec.mounts
            .push(mount("/copied", "tmpfs", "tmpfs", &["ro", "tmpcopyup"]));
    });
    let lines: Vec<&str> = out.lines().filter(|line| !line.contains("touch:")).collect();
    let wanted = [
        "1:3",
        "/proc/self/fd",
        "contentold/dev/shm",
        "/small/below",
        "refused",
        "refused",
        "refused",
        "written",
        "1",
    ];
    assert_eq!(lines, wanted, "{out}");
}

fn a_target_is_made_where_links_lead_to_nothing_yet() {
    let image = Image::new();
    let beside = image.beside("volume");
    std::fs::write(beside.join("hosts"), "content").unwrap();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, image.root().join(name)).unwrap();
    };
    link("/tmp/foo/bar", "jump");
    link("/jump/baz/hosts", "etc/hosts");
    link("../../../../deep/folder", "etc/folder");
    let out = image.sh("cat /tmp/foo/bar/baz/hosts /deep/folder/hosts", |spec| {
        let source = beside.to_str().unwrap();
        spec.mounts
            .push(mount("/etc/hosts", "bind", &format!("{source}/hosts"), &["bind"]));
        spec.mounts.push(mount("/etc/folder", "bind", source, &["bind"]));
    });
    assert_eq!(out, "contentcontent");
    assert!(image.root().join("deep/folder").is_dir());
    // A loop is an error, and not what is tried for ever.
    link("loop", "loop");
    let spec = Image::shell("true", |spec| {
        spec.mounts.push(mount("/loop/x", "tmpfs", "tmpfs", &[]));
    });
    let (_, message) = image.refused(&spec);
    assert!(message.contains("/loop/x"), "{message}");
}

fn a_target_takes_over_the_group_id_bit_above_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let image = Image::new();
    let shared = image.root().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o7755)).unwrap();
    image.sh("true", |spec| {
        spec.mounts
            .push(mount("/shared/a/b/c", "tmpfs", "tmpfs", &["ro", "nosuid"]));
    });
    for name in ["a", "a/b", "a/b/c"] {
        let mode = shared.join(name).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o2755, "{name}");
    }
}
