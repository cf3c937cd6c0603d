//! Who a container's process is: ids, capabilities, filter, limits, names.

use dhow_oci::runtime::{IdMapping, Namespace, Rlimit};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{CAPABILITIES, Image, chain, default_spec, linux, process};

tests! {
    the_namespaces_are_new_and_the_process_is_the_first
    the_default_capabilities_are_dockers_and_none_is_inheritable
    a_user_has_no_capabilities_but_the_ambient_ones
    the_filter_and_no_new_privs_are_in_force
    the_filter_works_for_a_user_without_no_new_privs
    the_user_has_the_groups_of_the_spec
    the_mask_for_new_files_is_what_the_spec_says
    limits_and_score_are_set
    signals_are_neither_ignored_nor_blocked
    a_new_network_has_its_loopback_up
    sysctls_are_set_inside_alone
    the_working_directory_is_made_when_missing
    a_user_namespace_maps_ids_and_binds_devices
    devices_in_a_user_namespace_have_the_mode_and_owner_that_the_spec_says
    an_unheld_capability_is_an_error
}

fn the_namespaces_are_new_and_the_process_is_the_first() {
    let image = Image::new();
    let out = image.sh(
        "for ns in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$ns; done; hostname; echo $$",
        |_| (),
    );
    let lines: Vec<&str> = out.lines().collect();
    for (kind, line) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"].iter().zip(&lines) {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(own.to_str().unwrap(), *line);
    }
    assert_eq!(&lines[6..], ["box", "1"]);
}

fn status(image: &Image, change: impl FnOnce(&mut dhow_oci::runtime::Spec)) -> impl Fn(&str) -> String {
    let out = image.sh("cat /proc/self/status", change);
    move |field| {
        let line = out
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }
}

fn the_default_capabilities_are_dockers_and_none_is_inheritable() {
    let image = Image::new();
    let field = status(&image, |spec| {
        // CVE-2022-29162: not even when the spec asks.
        process(spec).capabilities.as_mut().unwrap().inheritable = CAPABILITIES.map(str::to_owned).to_vec();
    });
    assert_eq!(field("CapInh"), "0000000000000000");
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    assert_eq!(field("CapAmb"), "0000000000000000");
}

fn a_user_has_no_capabilities_but_the_ambient_ones() {
    let image = Image::new();
    let field = status(&image, |spec| process(spec).user.uid = 1000);
    assert_eq!(
        (field("CapEff"), field("CapPrm")),
        ("0000000000000000".into(), "0000000000000000".into())
    );
    let field = status(&image, |spec| {
        process(spec).user.uid = 1000;
        let capabilities = process(spec).capabilities.as_mut().unwrap();
        (capabilities.inheritable, capabilities.ambient) =
            (vec!["CAP_NET_RAW".into()], vec!["CAP_NET_RAW".into()]);
    });
    for set in ["CapEff", "CapPrm", "CapAmb"] {
        assert_eq!(field(set), "0000000000002000", "{set}");
    }
}

fn the_filter_and_no_new_privs_are_in_force() {
    let image = Image::new();
    let field = status(&image, |spec| process(spec).no_new_privileges = true);
    assert_eq!(
        (field("Seccomp"), field("Seccomp_filters"), field("NoNewPrivs")),
        ("2".into(), "1".into(), "1".into())
    );
    let field = status(&image, |_| ());
    assert_eq!((field("Seccomp"), field("NoNewPrivs")), ("2".into(), "0".into()));
    let field = status(&image, |spec| linux(spec).seccomp = None);
    assert_eq!(field("Seccomp"), "0");
}

fn the_filter_works_for_a_user_without_no_new_privs() {
    let image = Image::new();
    let field = status(&image, |spec| process(spec).user.uid = 1000);
    assert_eq!((field("Seccomp"), field("NoNewPrivs")), ("2".into(), "0".into()));
}

fn the_user_has_the_groups_of_the_spec() {
    let image = Image::new();
    let field = status(&image, |spec| {
        let user = &mut process(spec).user;
        (user.uid, user.gid, user.additional_gids) = (1000, 1001, vec![5, 6]);
    });
    assert_eq!(field("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field("Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(field("Groups"), "5 6");
}

fn the_mask_for_new_files_is_what_the_spec_says() {
    let image = Image::new();
    assert_eq!(image.sh("umask", |_| ()), "0022\n");
    assert_eq!(
        image.sh("umask", |spec| process(spec).user.umask = Some(0o077)),
        "0077\n"
    );
}

fn limits_and_score_are_set() {
    let image = Image::new();
    let out = image.sh("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj", |spec| {
        process(spec).rlimits = vec![Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            soft: 100,
            hard: 200,
        }];
        process(spec).oom_score_adj = Some(500);
    });
    assert_eq!(out, "100\n200\n500\n");
}

fn signals_are_neither_ignored_nor_blocked() {
    let image = Image::new();
    let mask = dhow_sys::process::block_signals().unwrap();
    // Rust ignores SIGPIPE; a container must not. No shell here, since that ignores some itself.
    let field = status(&image, |spec| {
        process(spec).args = vec!["cat".into(), "/proc/self/status".into()]
    });
    dhow_sys::process::restore_signals(mask).unwrap();
    assert_eq!(
        (field("SigIgn"), field("SigBlk")),
        ("0000000000000000".into(), "0000000000000000".into())
    );
}

fn a_new_network_has_its_loopback_up() {
    let image = Image::new();
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    // sysfs shows the network it was mounted in: the new one has nothing but its loopback device, which is up (1).
    assert_eq!(
        image.sh("ls /sys/class/net; cat /sys/class/net/lo/flags", |_| ()),
        "lo\n0x9\n"
    );
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
}

fn sysctls_are_set_inside_alone() {
    let image = Image::new();
    let file = "/proc/sys/net/ipv4/conf/all/accept_local";
    let host = std::fs::read_to_string(file).unwrap();
    let wanted = if host.trim() == "1" { "0" } else { "1" };
    for with_proc in [true, false] {
        let out = image.run(&Image::shell(
            &format!("cat {file}; cat /proc/sys/kernel/shmmni"),
            |spec| {
                linux(spec)
                    .sysctl
                    .insert("net.ipv4.conf.all.accept_local".into(), wanted.into());
                linux(spec).sysctl.insert("kernel.shmmni".into(), "1234".into());
                if !with_proc {
                    spec.mounts
                        .retain(|mount| mount.destination.to_str() != Some("/proc"));
                }
            },
        ));
        let out = out.unwrap();
        assert!(!with_proc || out.out == format!("{wanted}\n1234\n"), "{out:?}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), host);
}

fn the_working_directory_is_made_when_missing() {
    let image = Image::new();
    assert_eq!(
        image.sh("pwd", |spec| process(spec).cwd = "/new/one".into()),
        "/new/one\n"
    );
    assert!(image.root().join("new/one").is_dir());
    let (kind, message) = image.refused(&Image::shell("true", |spec| {
        process(spec).cwd = "/bin/busybox".into()
    }));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(
        message.contains("working directory \"/bin/busybox\""),
        "{message}"
    );
}

fn a_user_namespace_maps_ids_and_binds_devices() {
    let image = Image::new();
    crate::fixture::host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        image.root().display()
    ));
    let out = image.sh(
        "id -u; cat /proc/self/uid_map; echo x > /dev/null && stat -c %t:%T /dev/null; touch /etc/f",
        |spec| {
            let mapping = vec![IdMapping {
                container_id: 0,
                host_id: 100_000,
                size: 65536,
            }];
            let linux = linux(spec);
            linux.namespaces.push(Namespace {
                kind: "user".into(),
                path: None,
            });
            (linux.uid_mappings, linux.gid_mappings) = (mapping.clone(), mapping);
        },
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "1:3"]);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(image.root().join("etc/f")).unwrap());
    assert_eq!(owner, 100_000);
}

/// Nodes can neither be made nor opened in what a user namespace mounts. A naive runtime binds the host's node with the host's
/// mode and owner, and fails where the host has none of that name.
fn devices_in_a_user_namespace_have_the_mode_and_owner_that_the_spec_says() {
    let image = Image::new();
    crate::fixture::host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        image.root().display()
    ));
    let device = |path: &str, minor, mode: Option<u32>, owner: Option<u32>| dhow_oci::runtime::Device {
        kind: "c".into(),
        path: path.into(),
        major: 1,
        minor,
        file_mode: mode,
        uid: owner,
        gid: owner.map(|owner| owner + 1),
    };
    let users = |spec: &mut dhow_oci::runtime::Spec| {
        let linux = linux(spec);
        let mapping = vec![IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 65536,
        }];
        linux.namespaces.push(Namespace {
            kind: "user".into(),
            path: None,
        });
        (linux.uid_mappings, linux.gid_mappings) = (mapping.clone(), mapping);
    };
    let script = "stat -c '%n %t:%T %a %u:%g' /dev/zero /dev/not-the-hosts /dev/deep/full; head -c 2 /dev/not-the-hosts | wc -c; \
                  echo x 2>/dev/null >/dev/deep/full || echo is full";
    let out = image.run(&Image::shell(script, |spec| {
        users(spec);
        linux(spec).devices = vec![
            device("/dev/zero", 5, Some(0o640), Some(5)),
            device("/dev/not-the-hosts", 5, None, None),
            device("/dev/deep/full", 7, Some(0o606), Some(0)),
        ];
    }));
    let out = match out {
        Ok(outcome) => outcome.out,
        // Before Linux 6.15 the host's own are bound, and told to be missing.
        Err(error) => {
            let message = chain(&error);
            assert!(
                message.contains("make device node /dev/not-the-hosts"),
                "{message}"
            );
            return;
        }
    };
    let wanted =
        "/dev/zero 1:5 640 5:6\n/dev/not-the-hosts 1:5 666 0:0\n/dev/deep/full 1:7 606 0:1\n2\nis full\n";
    assert_eq!(out, wanted);
    // An owner that nobody inside can be: the host's node, as it is.
    let out = image.sh("stat -c '%t:%T %u' /dev/zero", |spec| {
        users(spec);
        linux(spec).devices = vec![device("/dev/zero", 5, None, Some(70_000))];
    });
    assert_eq!(out, "1:5 65534\n");
}

fn an_unheld_capability_is_an_error() {
    let held = rustix::thread::capabilities(None).unwrap().permitted;
    let Some(missing) = [(24, "CAP_SYS_RESOURCE"), (25, "CAP_SYS_TIME")]
        .into_iter()
        .find(|(bit, _)| held.bits() & (1 << bit) == 0)
    else {
        return;
    };
    let image = Image::new();
    let mut spec = default_spec(&["true"]);
    process(&mut spec)
        .capabilities
        .as_mut()
        .unwrap()
        .permitted
        .push(missing.1.into());
    let (kind, message) = image.refused(&spec);
    assert!(message.contains("apply capabilities"), "{message}");
    assert_eq!(kind, ErrorKind::FailedPrecondition);
}
