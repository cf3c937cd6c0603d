use super::*;
use dhow_oci::runtime::{Mount, Namespace as Wanted, Process, Rlimit};
use rustix::mount::MountAttrFlags as Attr;

const NOWHERE: Places<'_> = Places {
    bundle: None,
    root: None,
    users: false,
};

fn spec(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = Spec {
        process: Some(Process {
            args: vec!["true".into()],
            cwd: "/".into(),
            ..Process::default()
        }),
        linux: Some(Linux {
            namespaces: vec![Wanted {
                kind: "mount".into(),
                path: None,
            }],
            ..Linux::default()
        }),
        ..Spec::default()
    };
    change(&mut spec);
    spec
}

fn prepared(change: impl FnOnce(&mut Spec)) -> Result<Plan, Error> {
    Plan::prepare(&spec(change), &Settings::default())
}

fn refused(change: impl FnOnce(&mut Spec)) -> (ErrorKind, String) {
    let error = prepared(change).unwrap_err();
    (error.kind(), error.to_string())
}

fn process(spec: &mut Spec) -> &mut Process {
    spec.process.as_mut().unwrap()
}

fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux.as_mut().unwrap()
}

#[test]
fn a_minimal_spec_is_accepted_and_gets_the_default_devices() {
    let plan = prepared(|_| ()).unwrap();
    assert_eq!(plan.nodes.len(), 6);
    assert!(plan.fill_dev);
    // A link to the container's own terminals stands where this one would.
    let multiplexer = dhow_oci::runtime::Device {
        path: "/dev/ptmx".into(),
        kind: "c".into(),
        major: 5,
        minor: 2,
        ..dhow_oci::runtime::Device::default()
    };
    let plan = prepared(|spec| linux(spec).devices.push(multiplexer)).unwrap();
    assert_eq!(plan.nodes.len(), 6);
}

#[test]
fn a_group_is_given_to_who_sees_it_as_the_root_and_may_write_there() {
    let owner = |uid: u32, change: &dyn Fn(&mut Spec)| {
        let plan = prepared(|spec| {
            process(spec).user.uid = uid;
            let mapping = |container_id, host_id, size| IdMapping {
                container_id,
                host_id,
                size,
            };
            let mappings = vec![mapping(0, 1000, 1), mapping(1, 100_000, 65_535)];
            linux(spec)
                .namespaces
                .extend(["user", "cgroup"].map(|kind| Wanted {
                    kind: kind.into(),
                    path: None,
                }));
            (linux(spec).uid_mappings, linux(spec).gid_mappings) = (mappings.clone(), mappings);
            spec.mounts.push(Mount {
                destination: "/sys/fs/cgroup".into(),
                kind: Some("cgroup".into()),
                options: vec!["ro".into(), "rw".into()],
                ..Mount::default()
            });
            change(spec);
        });
        plan.unwrap().owner_of_groups()
    };
    assert_eq!(owner(0, &|_| ()), Some(1000));
    assert_eq!(owner(7, &|_| ()), Some(100_006));
    assert_eq!(owner(70_000, &|_| ()), None);
    let without =
        |kind: &'static str| move |spec: &mut Spec| linux(spec).namespaces.retain(|space| space.kind != kind);
    assert_eq!(owner(0, &without("cgroup")), None);
    assert_eq!(owner(0, &|spec| spec.mounts[0].options.push("ro".into())), None);
    assert_eq!(owner(0, &|spec| spec.mounts.clear()), None);
}

#[test]
fn a_hook_without_a_path_is_refused_by_name() {
    let (kind, message) = refused(|spec| {
        let hook = dhow_oci::runtime::Hook::default();
        spec.hooks = Some(Hooks {
            poststart: vec![hook],
            ..Hooks::default()
        });
    });
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("poststart"), "{message}");
}

#[test]
fn labels_of_absent_security_modules_are_refused_and_unconfined_is_not() {
    if !crate::lsm::apparmor_enabled() {
        assert_eq!(
            refused(|s| process(s).apparmor_profile = Some("docker-default".into())).0,
            ErrorKind::Unsupported
        );
    }
    if !crate::lsm::selinux_enabled() {
        assert_eq!(
            refused(|s| process(s).selinux_label = Some("a:b:c".into())).0,
            ErrorKind::Unsupported
        );
        let plan = prepared(|s| linux(s).mount_label = Some("a:b:c".into())).unwrap();
        assert!(
            plan.program.warnings[0].contains("\"a:b:c\" is left out"),
            "{:?}",
            plan.program.warnings
        );
    }
    let wrong = |s: &mut Spec| {
        linux(s).mount_label = Some(
            "a
b"
            .into(),
        )
    };
    assert_eq!(refused(wrong).0, ErrorKind::InvalidArgument);
    prepared(|s| process(s).apparmor_profile = Some("unconfined".into())).unwrap();
}

#[test]
fn what_is_wrong_about_a_class_of_service_is_refused_and_unknown_fields_are_ignored() {
    assert_eq!(
        refused(|s| linux(s).intel_rdt.get_or_insert_default().clos_id = Some("../x".into())).0,
        ErrorKind::InvalidArgument
    );
    prepared(|s| linux(s).intel_rdt = Some(Default::default())).unwrap();
    prepared(|s| drop(linux(s).extra.insert("somethingNew".into(), serde_json::json!(1)))).unwrap();
}

#[test]
fn a_name_without_a_slash_is_looked_for_in_the_path_of_the_container() {
    let plan = prepared(|s| process(s).env = vec!["PATH=/a:relative::/b/".into()]).unwrap();
    assert_eq!(
        plan.program.candidates,
        [c"/a/true".to_owned(), c"/b/true".to_owned()]
    );
}

#[test]
fn an_id_that_means_no_change_is_refused() {
    assert_eq!(
        refused(|s| process(s).user.uid = u32::MAX).0,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(|s| process(s).user.additional_gids = vec![u32::MAX]).0,
        ErrorKind::InvalidArgument
    );
}

#[test]
fn supplementary_groups_are_those_of_the_spec() {
    let plan = prepared(|s| {
        process(s).user.gid = 7;
        process(s).user.additional_gids = vec![8, 9, 8];
    });
    let groups: Vec<_> = plan
        .unwrap()
        .program
        .groups
        .iter()
        .map(|gid| gid.as_raw())
        .collect();
    assert_eq!(groups, [8, 9, 8]);
}

#[test]
fn sysctls_are_held_to_the_namespaces_of_the_container() {
    let set = |name: &'static str, namespace: &'static str| {
        move |s: &mut Spec| {
            linux(s).sysctl.insert(name.into(), "1".into());
            if !namespace.is_empty() {
                linux(s).namespaces.push(Wanted {
                    kind: namespace.into(),
                    path: None,
                });
            }
        }
    };
    prepared(set("net.ipv4.ip_forward", "network")).unwrap();
    prepared(set("kernel.shmmax", "ipc")).unwrap();
    assert_eq!(
        refused(set("net.ipv4.ip_forward", "")).0,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(set("kernel.core_pattern", "ipc")).0,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(set("net.ipv4./././kernel/core_pattern", "network")).0,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(set("kernel.shmmax=1+kernel.core_pattern", "ipc")).0,
        ErrorKind::InvalidArgument
    );
}

#[test]
fn mount_options_become_attributes_and_parameters() {
    let mount = Mount {
        destination: "/dev".into(),
        kind: Some("tmpfs".into()),
        source: Some("tmpfs".into()),
        options: ["nosuid", "strictatime", "mode=755,size=65536k", "ro", "rw"]
            .map(String::from)
            .to_vec(),
        ..Mount::default()
    };
    let plan = MountPlan::parse(&mount, None, &NOWHERE).unwrap();
    assert_eq!(
        plan.attributes.raised,
        Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_STRICTATIME
    );
    let Source::New { parameters, .. } = plan.source else {
        panic!("not a new file system")
    };
    let keys: Vec<_> = parameters.iter().map(|(key, _)| key.to_str().unwrap()).collect();
    assert_eq!(keys, ["source", "mode", "size"]);
}

#[test]
fn a_mount_label_goes_to_new_file_systems_that_the_policy_does_not_label_itself() {
    let context = |kind: &str, options: &[&str]| {
        let mount = Mount {
            destination: "/x".into(),
            kind: Some(kind.into()),
            source: Some("/y".into()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        };
        match MountPlan::parse(&mount, Some("u:r:t:s0:c1,c2"), &NOWHERE)
            .unwrap()
            .source
        {
            Source::New { parameters, .. } => parameters
                .into_iter()
                .filter(|(key, _)| key.as_c_str() == c"context")
                .map(|(_, value)| value.unwrap().into_string().unwrap())
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        }
    };
    assert_eq!(context("tmpfs", &["size=1m"]), ["u:r:t:s0:c1,c2"]);
    assert_eq!(context("devpts", &[]), ["u:r:t:s0:c1,c2"]);
    assert_eq!(context("tmpfs", &["context=own"]), ["own"]);
    for (kind, options) in [
        ("proc", [].as_slice()),
        ("sysfs", &[]),
        ("mqueue", &[]),
        ("bind", &["bind"]),
    ] {
        assert!(context(kind, options).is_empty(), "{kind}");
    }
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut Mount)| {
        let mut mount = Mount {
            destination: "/x".into(),
            kind: Some("bind".into()),
            ..Mount::default()
        };
        mount.source = Some("/y".into());
        change(&mut mount);
        MountPlan::parse(&mount, None, &NOWHERE).unwrap_err().kind()
    };
    assert_eq!(
        refused(&|m| m.source = Some("relative".into())),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| m.destination = "/a/../../b".into()),
        ErrorKind::InvalidArgument
    );
    // A word without a value may be a flag that is spelled wrong.
    assert_eq!(
        refused(&|m| m.options = vec!["noexecc".into()]),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| (m.kind, m.options) = (Some("cgroup".into()), vec!["size=1".into()])),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| m.options = vec!["tmpcopyup".into()]),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| m.uid_mappings = vec![IdMapping::default()]),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| m.options = vec!["idmap".into()]),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(&|m| m.destination = "/proc/sys/kernel/core_pattern".into()),
        ErrorKind::InvalidArgument
    );
    assert_eq!(refused(&|m| m.kind = None), ErrorKind::InvalidArgument);
}

#[test]
fn options_of_a_file_system_have_no_effect_on_a_bind_mount_and_that_is_said() {
    let bound = |options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        prepared(|spec| {
            spec.mounts.push(Mount {
                destination: "/x".into(),
                source: Some("/y".into()),
                options,
                ..Mount::default()
            });
        })
        .unwrap()
        .program
        .warnings
    };
    assert_eq!(
        bound(&["rbind", "ro", "mode=755", "size=1k"]),
        ["mount /x: a bind mount does not take the options of a file system: [mode size]"]
    );
    assert!(bound(&["rbind", "ro"]).is_empty());
}

#[test]
fn limits_are_checked() {
    let limit = |kind: &str, soft, hard| Rlimit {
        kind: kind.into(),
        soft,
        hard,
    };
    assert_eq!(
        refused(|s| process(s).rlimits = vec![limit("RLIMIT_NOFILE", 2, 1)]).0,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        refused(|s| process(s).rlimits = vec![limit("NOFILE", 1, 1)]).0,
        ErrorKind::InvalidArgument
    );
    let twice = vec![limit("RLIMIT_CPU", 1, 1), limit("RLIMIT_CPU", 1, 1)];
    assert_eq!(
        refused(|s| process(s).rlimits = twice).0,
        ErrorKind::InvalidArgument
    );
}

#[test]
fn the_names_of_the_machine_have_fields_of_their_own() {
    let with = |name: &'static str, domain: bool| {
        move |spec: &mut Spec| {
            spec.domainname = domain.then(|| "example".to_owned());
            linux(spec).sysctl.insert(name.to_owned(), "x".to_owned());
            linux(spec).namespaces.push(Wanted {
                kind: "uts".into(),
                path: None,
            });
        }
    };
    prepared(with("kernel.hostname", false)).unwrap();
    let (kind, message) = refused(with("kernel.domainname", true));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(
        message.contains("conflicts with the OCI field \"domainname\""),
        "{message}"
    );
    prepared(|spec| {
        with("kernel.domainname", true)(spec);
        spec.domainname = Some("x".to_owned());
    })
    .unwrap();
    prepared(with("kernel.domainname", false)).unwrap();
}

#[test]
fn the_last_of_two_variables_of_a_name_counts() {
    let plan = prepared(|spec| {
        process(spec).env = ["A=1", "B=2", "A=3", "C"].map(str::to_owned).to_vec();
    });
    let env = plan.unwrap().program.env;
    let env: Vec<_> = env.strings().iter().map(|one| one.to_str().unwrap()).collect();
    assert_eq!(env, ["B=2", "A=3", "C"]);
}
