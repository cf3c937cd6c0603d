use std::path::Path;

use dhow_oci::runtime::{IdMapping, Mount};
use proptest::prelude::*;

use super::*;
use crate::{
    BindMount, GeneratedFile, Init, MountRequest, Namespaces, Propagation, SelinuxLabels, Submounts,
    TmpfsMount, UserMode,
};

const HOST: Host = Host {
    cgroup_v2: false,
    rootless: false,
    kernel: (6, 1),
};

fn request() -> Request {
    Request {
        args: vec!["/bin/sh".to_owned()],
        hostname: "0123456789ab".to_owned(),
        cgroup_path: "dhow/0123456789ab".to_owned(),
        ..Request::default()
    }
}

fn made(request: &Request) -> Spec {
    spec(request, &HOST).unwrap()
}

fn mount_at<'a>(spec: &'a Spec, destination: &str) -> &'a Mount {
    spec.mounts
        .iter()
        .find(|mount| mount.destination == Path::new(destination))
        .unwrap()
}

/// The document without the filter, which has tests of its own and would fill pages.
fn golden(mut spec: Spec) -> String {
    let linux = spec.linux.as_mut().unwrap();
    assert_eq!(linux.seccomp.take().is_some(), !linux.masked_paths.is_empty());
    serde_json::to_string_pretty(&spec).unwrap() + "\n"
}

#[test]
fn the_spec_of_a_plain_request_is_dockers() {
    assert_eq!(
        golden(made(&request())),
        include_str!("../../testdata/default.json")
    );
}

#[test]
fn the_spec_of_a_request_with_everything_is_as_recorded() {
    let mut request: Request =
        serde_json::from_str(include_str!("../../testdata/everything.request.json")).unwrap();
    request.hostname = "web".to_owned();
    assert_eq!(
        golden(made(&request)),
        include_str!("../../testdata/everything.json")
    );
}

#[test]
fn a_request_survives_its_own_json() {
    let before = request();
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), before);
    assert_eq!(serde_json::from_str::<Request>("{}").unwrap(), Request::default());
}

#[test]
fn the_default_filter_follows_the_capabilities() {
    let plain = made(&request()).linux.unwrap().seccomp.unwrap();
    let admin = Request {
        cap_add: vec!["SYS_ADMIN".to_owned()],
        ..request()
    };
    let admin = made(&admin).linux.unwrap().seccomp.unwrap();
    let mounts = |profile: &Seccomp| {
        profile
            .syscalls
            .iter()
            .any(|rule| rule.names.contains(&"mount".to_owned()))
    };
    assert!(!mounts(&plain) && mounts(&admin));
    let open = Request {
        seccomp: SeccompChoice::Unconfined,
        ..request()
    };
    assert!(made(&open).linux.unwrap().seccomp.is_none());
}

#[test]
fn privileged_opens_what_docker_opens() {
    let spec = made(&Request {
        privileged: true,
        ..request()
    });
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.seccomp.is_none() && linux.masked_paths.is_empty() && linux.readonly_paths.is_empty());
    let rules = &linux.resources.as_ref().unwrap().devices;
    assert!(rules.len() == 1 && rules[0].allow && rules[0].major.is_none());
    for place in ["/sys", "/sys/fs/cgroup"] {
        assert!(
            !mount_at(&spec, place).options.contains(&"ro".to_owned()),
            "{place}"
        );
    }
    let process = spec.process.unwrap();
    assert_eq!(process.capabilities.unwrap().effective.len(), 41);
}

#[test]
fn inheritable_and_ambient_capabilities_are_empty_for_everybody() {
    for privileged in [false, true] {
        for uid in [0, 1000] {
            let mut request = Request {
                privileged,
                ..request()
            };
            request.identity.uid = uid;
            let sets = made(&request).process.unwrap().capabilities.unwrap();
            assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
            assert_eq!(sets.effective.is_empty(), uid != 0);
        }
    }
}

#[test]
fn the_primary_group_is_a_supplementary_one_and_none_is_twice() {
    let mut request = request();
    request.identity.gid = 50;
    request.identity.groups = vec![60, 50];
    request.extra_groups = vec![70, 60];
    assert_eq!(made(&request).process.unwrap().user.additional_gids, [50, 60, 70]);
}

#[test]
fn the_environment_has_dockers_variables_under_the_requests() {
    let mut request = Request {
        tty: true,
        env: vec!["A=1".to_owned(), "PATH=/mine".to_owned()],
        ..request()
    };
    let env = made(&request).process.unwrap().env;
    assert_eq!(
        env,
        [
            "PATH=/mine",
            "HOSTNAME=0123456789ab",
            "TERM=xterm",
            "A=1",
            "HOME=/root"
        ]
    );
    for bad in ["=x", "NAME", "A=\0"] {
        request.env = vec![bad.to_owned()];
        assert!(spec(&request, &HOST).is_err(), "{bad:?}");
    }
    request.env = Vec::new();
    request.identity.home = "/root\nHOME=/x".to_owned();
    assert!(spec(&request, &HOST).is_err());
}

#[test]
fn limits_of_processes_are_left_alone_unless_asked_for() {
    assert!(made(&request()).process.unwrap().rlimits.is_empty());
}

#[test]
fn mounts_come_by_depth_and_take_the_place_of_the_default_ones() {
    let bind = |from: &str, to: &str| {
        MountRequest::Bind(BindMount {
            source: from.into(),
            destination: to.into(),
            ..BindMount::default()
        })
    };
    let mut request = request();
    request.mounts = vec![
        bind("/d", "/a/b/c/"),
        bind("/x", "/a"),
        bind("/s", "/dev/shm"),
        bind("/h", "/etc/hosts"),
    ];
    request.files = ["/etc/hosts", "/etc/hostname"]
        .map(|to| GeneratedFile {
            source: "/gen".into(),
            destination: to.into(),
            read_only: false,
        })
        .into();
    let spec = made(&request);
    let order: Vec<_> = spec
        .mounts
        .iter()
        .map(|mount| mount.destination.to_str().unwrap())
        .collect();
    assert_eq!(
        order[5..],
        [
            "/dev/mqueue",
            "/a",
            "/dev/shm",
            "/etc/hosts",
            "/etc/hostname",
            "/a/b/c"
        ]
    );
    assert_eq!(
        mount_at(&spec, "/etc/hosts").source.as_deref(),
        Some(Path::new("/h"))
    );
    assert_eq!(
        mount_at(&spec, "/dev/shm").source.as_deref(),
        Some(Path::new("/s"))
    );

    for bad in [
        bind("/x", "/"),
        bind("/x", "a"),
        bind("x", "/a"),
        bind("/x", "/a/../b"),
        bind("/x", "/."),
    ] {
        request.mounts = vec![bad.clone()];
        assert!(super::spec(&request, &HOST).is_err(), "{bad:?}");
    }
    request.mounts = vec![bind("/x", "/a"), bind("/y", "/a/")];
    assert!(super::spec(&request, &HOST).is_err());
}

#[test]
fn read_only_binds_hold_for_the_mounts_below_where_the_kernel_can() {
    let mut request = request();
    request.mounts = vec![MountRequest::Bind(BindMount {
        source: "/x".into(),
        destination: "/x".into(),
        read_only: true,
        propagation: Propagation::Rslave,
        options: Vec::new(),
        submounts: Submounts::Enabled,
    })];
    let new = made(&request);
    assert_eq!(mount_at(&new, "/x").options, ["rbind", "ro", "rro", "rslave"]);
    assert_eq!(new.linux.unwrap().rootfs_propagation.as_deref(), Some("rslave"));
    let old = spec(
        &request,
        &Host {
            kernel: (5, 4),
            ..HOST
        },
    )
    .unwrap();
    assert_eq!(mount_at(&old, "/x").options, ["rbind", "ro", "rslave"]);
}

#[test]
fn mounts_below_a_bind_are_as_they_are_asked_for() {
    let options = |submounts: Submounts, host: &Host| {
        let mut request = request();
        request.mounts = vec![MountRequest::Bind(BindMount {
            source: "/x".into(),
            destination: "/x".into(),
            read_only: true,
            submounts,
            ..BindMount::default()
        })];
        super::spec(&request, host).map(|spec| mount_at(&spec, "/x").options.clone())
    };
    let old = Host {
        kernel: (5, 10),
        ..HOST
    };
    assert_eq!(
        options(Submounts::Disabled, &HOST).unwrap(),
        ["bind", "ro", "rprivate"]
    );
    assert_eq!(
        options(Submounts::Writable, &HOST).unwrap(),
        ["rbind", "ro", "rprivate"]
    );
    assert_eq!(
        options(Submounts::ReadOnly, &HOST).unwrap(),
        ["rbind", "ro", "rro", "rprivate"]
    );
    assert!(options(Submounts::ReadOnly, &old).is_err());
    assert_eq!(
        options(Submounts::Enabled, &old).unwrap(),
        ["rbind", "ro", "rprivate"]
    );
}

#[test]
fn tmpfs_options_replace_dockers_and_unknown_ones_are_refused() {
    let tmpfs = |options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mounts = vec![MountRequest::Tmpfs(TmpfsMount {
            destination: "/run".into(),
            options,
        })];
        spec(&Request { mounts, ..request() }, &HOST)
    };
    let made = tmpfs(&["exec", "size=1m", "size=2m", "uid=5"]).unwrap();
    assert_eq!(
        mount_at(&made, "/run").options,
        ["nosuid", "nodev", "rprivate", "exec", "size=2m", "uid=5"]
    );
    for bad in ["lowerdir=/", "bind", "size=1m,exec", "mode=1\n"] {
        assert!(tmpfs(&[bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn shared_namespaces_are_left_out_or_joined_and_bring_their_mounts() {
    let mut request = request();
    request.namespaces = Namespaces {
        pid: NamespaceMode::Host,
        ipc: NamespaceMode::Host,
        uts: NamespaceMode::Host,
        net: NamespaceMode::Path("/proc/7/ns/net".into()),
        ..Namespaces::default()
    };
    let spec = made(&request);
    assert_eq!(spec.hostname, None);
    assert_eq!(mount_at(&spec, "/dev/shm").kind.as_deref(), Some("bind"));
    let linux = spec.linux.unwrap();
    let kinds: Vec<_> = linux.namespaces.iter().map(|space| space.kind.as_str()).collect();
    assert_eq!(kinds, ["mount", "network"]);
    assert_eq!(
        linux.namespaces[1].path.as_deref(),
        Some(Path::new("/proc/7/ns/net"))
    );
    assert!(linux.sysctl.is_empty());
    let v2 = super::spec(
        &super::tests::request(),
        &Host {
            cgroup_v2: true,
            ..HOST
        },
    )
    .unwrap();
    assert!(
        v2.linux
            .unwrap()
            .namespaces
            .iter()
            .any(|space| space.kind == "cgroup")
    );
}

#[test]
fn rootless_containers_ask_for_nothing_that_a_user_namespace_forbids() {
    let mut request = request();
    request.namespaces.user = UserMode(NamespaceMode::Private);
    assert!(
        spec(&request, &HOST).is_err(),
        "a user namespace without mappings"
    );
    request.namespaces.net = NamespaceMode::Host;
    let map = vec![IdMapping {
        container_id: 0,
        host_id: 1000,
        size: 1,
    }];
    (request.uid_mappings, request.gid_mappings) = (map.clone(), map);
    let rootless = spec(
        &request,
        &Host {
            rootless: true,
            ..HOST
        },
    )
    .unwrap();
    assert!(
        !mount_at(&rootless, "/dev/pts")
            .options
            .contains(&"gid=5".to_owned())
    );
    assert_eq!(mount_at(&rootless, "/sys").kind.as_deref(), Some("bind"));
    request.gid_mappings[0].size = 65_536;
    let many = spec(
        &request,
        &Host {
            rootless: true,
            ..HOST
        },
    )
    .unwrap();
    assert!(mount_at(&many, "/dev/pts").options.contains(&"gid=5".to_owned()));
}

#[test]
fn what_is_joined_from_outside_of_a_new_user_namespace_is_bound_from_the_host() {
    let map = vec![IdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65_536,
    }];
    let mut request = Request {
        uid_mappings: map.clone(),
        gid_mappings: map,
        mapped_files: true,
        files: vec![GeneratedFile {
            source: "/r/hosts".into(),
            destination: "/etc/hosts".into(),
            read_only: false,
        }],
        ..request()
    };
    request.namespaces.user = UserMode(NamespaceMode::Private);
    let kind = |request: &Request, place: &str| mount_at(&made(request), place).kind.clone().unwrap();
    let places = ["/proc", "/sys", "/dev/mqueue"];
    assert_eq!(
        places.map(|place| kind(&request, place)),
        ["proc", "sysfs", "mqueue"]
    );
    assert!(
        mount_at(&made(&request), "/etc/hosts")
            .options
            .contains(&"idmap".to_owned())
    );
    let other = NamespaceMode::Path("/proc/7/ns/x".into());
    request.namespaces.net = other.clone();
    request.namespaces.pid = other.clone();
    request.namespaces.ipc = other.clone();
    assert_eq!(
        places.map(|place| kind(&request, place)),
        ["bind", "bind", "bind"]
    );
    // They are of the user namespace that is joined as well.
    request.namespaces.user = UserMode(other);
    assert_eq!(
        places.map(|place| kind(&request, place)),
        ["proc", "sysfs", "mqueue"]
    );
    // Nothing can be set without a procfs of its own.
    request.namespaces.net = NamespaceMode::Private;
    assert!(made(&request).linux.unwrap().sysctl.is_empty());
    request.namespaces.pid = NamespaceMode::Private;
    assert!(!made(&request).linux.unwrap().sysctl.is_empty());
}

#[test]
fn init_goes_first_and_is_bound_read_only() {
    let spec = made(&Request {
        init: Some(Init {
            place: "/sbin/docker-init".into(),
            program: Some("/usr/lib/init".into()),
        }),
        ..request()
    });
    assert_eq!(
        spec.process.as_ref().unwrap().args,
        ["/sbin/docker-init", "--", "/bin/sh"]
    );
    assert!(
        mount_at(&spec, "/sbin/docker-init")
            .options
            .contains(&"ro".to_owned())
    );
}

#[test]
fn an_init_that_is_no_file_is_not_in_the_spec() {
    let init = Init {
        place: "/run/podman-init".into(),
        program: None,
    };
    assert_eq!(init.name(), "podman-init");
    let with = made(&Request {
        init: Some(init),
        ..request()
    });
    assert_eq!(with, made(&request()));
}

#[test]
fn labels_and_profiles_pass_and_unconfined_means_none() {
    let labels = SelinuxLabels {
        process: "p".to_owned(),
        mount: "m".to_owned(),
    };
    let spec = made(&Request {
        selinux: Some(labels),
        apparmor: Some("unconfined".to_owned()),
        ..request()
    });
    let process = spec.process.unwrap();
    assert_eq!(
        (process.apparmor_profile, process.selinux_label.as_deref()),
        (None, Some("p"))
    );
    assert_eq!(spec.linux.unwrap().mount_label.as_deref(), Some("m"));
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let refused = |change: &dyn Fn(&mut Request)| {
        let mut request = request();
        change(&mut request);
        assert!(spec(&request, &HOST).is_err());
    };
    refused(&|request| request.args.clear());
    refused(&|request| request.args.push("a\0b".to_owned()));
    refused(&|request| request.cwd = "work".into());
    refused(&|request| request.cwd = "/a/../..".into());
    refused(&|request| request.hostname = "a\nb".to_owned());
    refused(&|request| request.hostname = "a".repeat(65));
    refused(&|request| request.oom_score_adj = Some(1001));
    refused(&|request| request.masked_paths = Some(vec!["proc".into()]));
    refused(&|request| request.cap_add = vec!["GOD".to_owned()]);
    refused(&|request| request.namespaces.pid = NamespaceMode::Path("ns".into()));
}

proptest! {
    #[test]
    fn no_words_of_a_person_panic(
        words in prop::collection::vec(".{0,12}", 8),
        numbers in prop::collection::vec(any::<u64>(), 8),
    ) {
        let mut request = request();
        request.cwd = words[0].clone().into();
        request.env.push(words[1].clone());
        request.device_rules.push(words[2].clone());
        request.sysctls.insert(words[3].clone(), words[4].clone());
        request.limits.cpuset_cpus = Some(words[5].clone());
        request.limits.memory = Some(numbers[0]);
        request.limits.memory_swap = Some(numbers[1].cast_signed());
        request.limits.nano_cpus = Some(numbers[2]);
        request.limits.pids = Some(numbers[3].cast_signed());
        request.ulimits.push(crate::Ulimit {
            name: words[6].clone(),
            soft: numbers[4].cast_signed(),
            hard: numbers[5].cast_signed(),
        });
        if let Ok(spec) = spec(&request, &HOST) {
            let sysctl = spec.linux.unwrap().sysctl;
            prop_assert!(sysctl.keys().all(|name| name.starts_with("net.") || name.starts_with("kernel.")));
        }
    }
}
