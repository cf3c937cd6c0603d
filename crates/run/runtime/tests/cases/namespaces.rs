//! Namespaces that are joined, clocks that are moved, and what does not go together.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use dhow_oci::runtime::{IdMapping, Linux, Namespace, TimeOffset};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, Sleeper, default_spec, host, linux, mount};

tests! {
    every_kind_of_namespace_is_joined_by_its_path
    a_mount_namespace_is_joined_with_what_is_mounted_in_it
    a_container_of_a_joined_user_namespace_is_in_its_own_others
    exec_enters_a_container_that_joined_its_user_namespace
    mappings_beside_a_joined_user_namespace_must_be_its_own
    a_path_that_is_no_namespace_of_its_kind_is_refused
    what_a_spec_says_twice_or_by_halves_is_refused
    the_clocks_of_a_container_are_moved
    clocks_are_moved_in_a_user_namespace_too
    a_network_device_is_moved_with_its_addresses_and_renamed
    the_machine_has_the_names_of_the_spec
    a_container_without_a_mount_namespace_has_its_root_on_the_host
}

const MAPPING: IdMapping = IdMapping {
    container_id: 0,
    host_id: 100_000,
    size: 65536,
};

fn namespace(kind: &str, path: Option<PathBuf>) -> Namespace {
    Namespace {
        kind: kind.into(),
        path,
    }
}

fn mapped(linux: &mut Linux) {
    linux.namespaces.push(namespace("user", None));
    (linux.uid_mappings, linux.gid_mappings) = (vec![MAPPING], vec![MAPPING]);
}

fn given_away(image: &Image) {
    let root = image.root();
    host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        root.display()
    ));
}

fn file(sleeper: &Sleeper, name: &str) -> PathBuf {
    format!("/proc/{}/ns/{name}", sleeper.0.pid).into()
}

fn link(sleeper: &Sleeper, name: &str) -> String {
    let link = std::fs::read_link(file(sleeper, name)).unwrap();
    link.to_str().unwrap().to_owned()
}

fn every_kind_of_namespace_is_joined_by_its_path() {
    let image = Image::new();
    let sleeper = image.sleeping(|spec| linux(spec).namespaces.push(namespace("time", None)));
    let kinds = [
        ("cgroup", "cgroup"),
        ("ipc", "ipc"),
        ("network", "net"),
        ("pid", "pid"),
        ("time", "time"),
        ("uts", "uts"),
    ];
    for (kind, name) in kinds {
        let out = image.sh(&format!("readlink /proc/self/ns/{name}"), |spec| {
            let list = &mut linux(spec).namespaces;
            list.retain(|one| one.kind != kind);
            list.push(namespace(kind, Some(file(&sleeper, name))));
            if kind == "uts" {
                spec.hostname = None;
            }
        });
        assert_eq!(out.trim_end(), link(&sleeper, name), "{kind}");
    }
}

/// Paths mean what they mean in that namespace, the root's own too.
fn a_mount_namespace_is_joined_with_what_is_mounted_in_it() {
    let image = Image::new();
    let volume = image.beside("volume");
    let mut other = std::process::Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs x \"$0\" && touch \"$0/only-there\" && echo && exec sleep 100",
        ])
        .arg(&volume)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let path = PathBuf::from(format!("/proc/{}/ns/mnt", other.id()));
    let wanted = std::fs::read_link(&path).unwrap();
    let out = image.sh("readlink /proc/self/ns/mnt; ls /volume", |spec| {
        let list = &mut linux(spec).namespaces;
        list.retain(|one| one.kind != "mount");
        list.push(namespace("mount", Some(path)));
        spec.mounts
            .push(mount("/volume", "bind", volume.to_str().unwrap(), &["bind"]));
    });
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(out, format!("{}\nonly-there\n", wanted.display()));
}

fn a_container_of_a_joined_user_namespace_is_in_its_own_others() {
    let image = Image::new();
    given_away(&image);
    let sleeper = image.sleeping(|spec| mapped(linux(spec)));
    let script = "readlink /proc/self/ns/user; id -u; echo $$; hostname; cat /proc/self/uid_map; grep -c . /proc/mounts; \
                  touch /etc/mine; ls /sys/class/net";
    let out = image.sh(script, |spec| {
        let list = &mut linux(spec).namespaces;
        list.push(namespace("user", Some(file(&sleeper, "user"))));
    });
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], link(&sleeper, "user"));
    assert_eq!(&lines[1..4], ["0", "1", "box"]);
    assert_eq!(
        lines[4].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    assert_eq!(lines.last(), Some(&"lo"));
    assert_eq!(
        std::fs::metadata(image.root().join("etc/mine")).unwrap().uid(),
        100_000
    );
}

fn exec_enters_a_container_that_joined_its_user_namespace() {
    let image = Image::new();
    given_away(&image);
    let first = image.sleeping(|spec| mapped(linux(spec)));
    let second = image.sleeping(|spec| {
        let list = &mut linux(spec).namespaces;
        list.retain(|one| !matches!(one.kind.as_str(), "network" | "ipc"));
        list.push(namespace("user", Some(file(&first, "user"))));
        list.push(namespace("network", Some(file(&first, "net"))));
        list.push(namespace("ipc", Some(file(&first, "ipc"))));
    });
    let out = second.sh(
        "for ns in user net ipc mnt; do readlink /proc/self/ns/$ns; done; id -u",
        |_| (),
    );
    let wanted = [
        link(&first, "user"),
        link(&first, "net"),
        link(&first, "ipc"),
        link(&second, "mnt"),
        "0".to_owned(),
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
    assert_ne!(link(&first, "mnt"), link(&second, "mnt"));
}

fn mappings_beside_a_joined_user_namespace_must_be_its_own() {
    let image = Image::new();
    given_away(&image);
    let sleeper = image.sleeping(|spec| mapped(linux(spec)));
    let join = |size| {
        Image::shell("true", |spec| {
            let mapping = IdMapping { size, ..MAPPING };
            let linux = linux(spec);
            linux
                .namespaces
                .push(namespace("user", Some(file(&sleeper, "user"))));
            (linux.uid_mappings, linux.gid_mappings) = (vec![mapping.clone()], vec![mapping]);
        })
    };
    assert_eq!(image.run(&join(65536)).unwrap().code, 0);
    let (kind, message) = image.refused(&join(1000));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("non-matching mapping"), "{message}");
}

fn a_path_that_is_no_namespace_of_its_kind_is_refused() {
    let image = Image::new();
    let fifo = image.beside("x").join("fifo");
    host(&format!("mkfifo {}", fifo.display()));
    let paths = [
        PathBuf::from("/proc/self/ns/uts"),
        "/etc/passwd".into(),
        "/dev/null".into(),
        fifo,
    ];
    for path in paths {
        let (kind, message) = image.refused(&Image::shell("true", |spec| {
            let list = &mut linux(spec).namespaces;
            list.retain(|one| one.kind != "ipc");
            list.push(namespace("ipc", Some(path.clone())));
        }));
        assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
        assert!(
            message.contains("is not a namespace of type \"ipc\""),
            "{message}"
        );
    }
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        linux(spec).namespaces.retain(|one| one.kind != "ipc");
        let gone = namespace("ipc", Some("/no/such/namespace".into()));
        linux(spec).namespaces.push(gone);
    }));
    assert!(
        message.contains("open ipc namespace /no/such/namespace"),
        "{message}"
    );
}

fn what_a_spec_says_twice_or_by_halves_is_refused() {
    let image = Image::new();
    let said = |change: &dyn Fn(&mut Linux)| {
        let mut spec = default_spec(&["true"]);
        change(linux(&mut spec));
        let (kind, message) = image.refused(&spec);
        assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
        message
    };
    let offset = |linux: &mut Linux, clock: &str, nanosecs| {
        let offset = TimeOffset { secs: 1, nanosecs };
        linux.time_offsets.insert(clock.into(), offset);
    };
    let time = |linux: &mut Linux| linux.namespaces.push(namespace("time", None));
    assert!(said(&|l| l.namespaces.push(namespace("pid", None))).contains("duplicated ns \"pid\""));
    assert!(said(&|l| l.namespaces.push(namespace("", None))).contains("does not exist"));
    assert!(said(&|l| l.uid_mappings.push(MAPPING)).contains("user namespace isn't enabled"));
    assert!(said(&|l| l.namespaces.push(namespace("user", None))).contains("nor mappings"));
    assert!(said(&|l| offset(l, "monotonic", 0)).contains("time namespace isn't enabled"));
    let both = said(&|l| {
        offset(l, "monotonic", 0);
        let own = namespace("time", Some("/proc/self/ns/time".into()));
        l.namespaces.push(own);
    });
    assert!(both.contains("may only provide one"), "{both}");
    let clock = said(&|l| {
        time(l);
        offset(l, "realtime", 0);
    });
    assert!(clock.contains("no clock \"realtime\""), "{clock}");
    let second = said(&|l| {
        time(l);
        offset(l, "boottime", 1_000_000_000);
    });
    assert!(second.contains("more than a second"), "{second}");
}

fn moved(linux: &mut Linux) {
    linux.namespaces.push(namespace("time", None));
    for (clock, secs, nanosecs) in [("monotonic", 7881, 2_718_281), ("boottime", 1_000_000_000, 0)] {
        linux
            .time_offsets
            .insert(clock.into(), TimeOffset { secs, nanosecs });
    }
}

fn lines(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

fn the_clocks_of_a_container_are_moved() {
    let image = Image::new();
    let script = "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime";
    let out = image.sh(script, |spec| {
        moved(linux(spec));
    });
    let found = lines(&out);
    assert_eq!(found[0], ["monotonic", "7881", "2718281"]);
    assert_eq!(found[1], ["boottime", "1000000000", "0"]);
    assert!(found[2][0].parse::<u64>().unwrap() >= 1_000_000_000, "{out}");
    let sleeper = image.sleeping(|spec| moved(linux(spec)));
    assert_eq!(
        lines(&sleeper.sh("cat /proc/self/timens_offsets", |_| ())),
        found[..2]
    );
    // Without offsets the namespace is a new one all the same.
    let plain = image.sleeping(|spec| linux(spec).namespaces.push(namespace("time", None)));
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    assert_ne!(own.to_str().unwrap(), link(&plain, "time"));
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        moved(linux(spec));
        let offset = TimeOffset {
            secs: -1_000_000_000,
            nanosecs: 0,
        };
        linux(spec).time_offsets.insert("boottime".into(), offset);
    }));
    assert!(message.contains("time namespace"), "{message}");
}

fn clocks_are_moved_in_a_user_namespace_too() {
    let image = Image::new();
    given_away(&image);
    let out = image.sh("cat /proc/self/timens_offsets; id -u", |spec| {
        moved(linux(spec));
        mapped(linux(spec));
    });
    assert_eq!(lines(&out)[0], ["monotonic", "7881", "2718281"]);
    assert!(out.ends_with("\n0\n"), "{out}");
}

fn a_container_without_a_mount_namespace_has_its_root_on_the_host() {
    let image = Image::new();
    // This test's own, which stands for the host's.
    dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    host("mount --make-rprivate /");
    let shared = |spec: &mut dhow_oci::runtime::Spec| {
        let linux = linux(spec);
        linux.namespaces.retain(|one| one.kind != "mount");
        linux.masked_paths.clear();
        linux.readonly_paths.clear();
    };
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let out = image.sh("readlink /proc/self/ns/mnt; ls -d /bin/busybox", shared);
    assert_eq!(out, format!("{}\n/bin/busybox\n", own.display()));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(mounts.contains(&format!("{}/proc ", image.root().display())));
    host(&format!("umount -R -l {}", image.root().display()));
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        shared(spec);
        linux(spec).masked_paths.push("/proc/keys".into());
    }));
    assert!(message.contains("without a private MNT namespace"), "{message}");
}

fn the_machine_has_the_names_of_the_spec() {
    let image = Image::new();
    let host = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    let out = image.sh("hostname; cat /proc/sys/kernel/domainname", |spec| {
        spec.hostname = Some("some".into());
        spec.domainname = Some("where.example".into());
    });
    assert_eq!(out, "some\nwhere.example\n");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap(),
        host
    );
}

fn a_network_device_is_moved_with_its_addresses_and_renamed() {
    // This test's own, which stands for the host's.
    dhow_sys::namespace::unshare_net().unwrap();
    host(
        "ip link add dhowtest0 type veth peer name dhowtest1 && ip addr add 192.0.2.7/24 brd + dev dhowtest0 && ip link set dhowtest0 up",
    );
    let image = Image::new();
    let wanted = |spec: &mut dhow_oci::runtime::Spec, name: &str, inside: &str| {
        let device = dhow_oci::runtime::NetDevice {
            name: Some(inside.into()),
        };
        linux(spec).net_devices.insert(name.into(), device);
    };
    let script =
        "ls /sys/class/net; cat /proc/net/fib_trie | grep -c 192.0.2.7; cat /sys/class/net/inner0/flags";
    let out = image.sh(script, |spec| wanted(spec, "dhowtest0", "inner0"));
    assert!(out.starts_with("inner0\nlo\n2\n0x1003\n"), "{out}");
    let said =
        |change: &dyn Fn(&mut dhow_oci::runtime::Spec)| image.refused(&Image::shell("true", |s| change(s))).1;
    assert!(said(&|s| wanted(s, "no-such", "x")).contains("no-such"));
    assert!(said(&|s| wanted(s, "lo", "a/b")).contains("invalid network device name"));
    let shared = said(&|s| {
        linux(s).namespaces.retain(|one| one.kind != "network");
        wanted(s, "lo", "x");
    });
    assert!(shared.contains("without a private NET namespace"), "{shared}");
}
