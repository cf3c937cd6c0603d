//! Kernel settings: only those that belong to a namespace which the container does not share with the host.
//!
//! CVE-2022-0811: a value with a separator in it set `kernel.core_pattern` of the host. Here every name is on the
//! list, name and value stay apart, and neither can hold what would make it another.

use std::collections::BTreeMap;

use crate::check::{invalid, one_line, shown};
use crate::{Error, Host, NamespaceMode, Namespaces, Request};

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// The person's settings, checked, and docker's own: everybody may use low ports and send pings in a network
/// namespace of the container's own.
pub(crate) fn sysctls(request: &Request, host: &Host) -> Result<BTreeMap<String, String>, Error> {
    let mut out = BTreeMap::new();
    // Without a procfs of its own, which a user namespace has in its own process id namespace only, nothing can be set.
    let namespaces = &request.namespaces;
    let own = namespaces.user.0 == NamespaceMode::Host || namespaces.pid == NamespaceMode::Private;
    if namespaces.net == NamespaceMode::Private && own {
        out.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        // The range would have to be mapped in a user namespace, the container's or a normal user's.
        if request.namespaces.user.0 == NamespaceMode::Host && !host.rootless {
            out.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
    }
    for (name, value) in &request.sysctls {
        check(name, &request.namespaces)?;
        one_line(value, "value of a sysctl", 4096)?;
        out.insert(name.clone(), value.clone());
    }
    Ok(out)
}

fn check(name: &str, namespaces: &Namespaces) -> Result<(), Error> {
    // sysctl(8): components are apart by dots, and a slash is a dot within a component (`eth0.1`).
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    if name.len() > 256
        || name
            .split('.')
            .any(|part| part.is_empty() || !part.chars().all(plain))
    {
        return Err(invalid(format!(
            "sysctl {:?} is no name such as net.core.somaxconn",
            shown(name)
        )));
    }
    if name.contains("//") || name.split(['.', '/']).any(str::is_empty) {
        return Err(invalid(format!(
            "sysctl {:?} is no name such as net.core.somaxconn",
            shown(name)
        )));
    }
    let (space, mode) = if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        ("ipc", &namespaces.ipc)
    } else if name.starts_with("net.") {
        ("network", &namespaces.net)
    } else if name == "kernel.domainname" {
        ("uts", &namespaces.uts)
    } else {
        return Err(invalid(format!(
            "sysctl {name} does not belong to a namespace, so it would change the host"
        ))
        .with_hint("set it on the host with sysctl -w"));
    };
    if *mode == NamespaceMode::Host {
        return Err(invalid(format!(
            "sysctl {name} would change the host: the container shares its {space} namespace"
        ))
        .with_hint(format!(
            "give the container a {space} namespace of its own, or leave the sysctl out"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        cgroup_v2: true,
        rootless: false,
        kernel: (6, 1),
    };

    fn request(name: &str, value: &str) -> Request {
        Request {
            sysctls: [(name.to_owned(), value.to_owned())].into(),
            ..Request::default()
        }
    }

    #[test]
    fn settings_of_own_namespaces_pass() {
        for name in [
            "net.core.somaxconn",
            "net.ipv4.conf.eth0/1.forwarding",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
        ] {
            assert!(
                sysctls(&request(name, "1"), &HOST).unwrap().contains_key(name),
                "{name}"
            );
        }
    }

    #[test]
    fn settings_of_the_host_and_tricks_with_names_and_values_are_refused() {
        for name in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.swappiness",
            "kernel.shmmax+kernel.core_pattern",
            "net.ipv4/../../kernel/core_pattern",
            "net..core",
            "net.core.somaxconn=1",
            "net.core\nx",
            "",
        ] {
            assert!(sysctls(&request(name, "1"), &HOST).is_err(), "{name:?}");
        }
        assert!(sysctls(&request("net.core.somaxconn", "1\nkernel.core_pattern=x"), &HOST).is_err());
        let mut shared = request("net.core.somaxconn", "1");
        shared.namespaces.net = NamespaceMode::Host;
        assert!(sysctls(&shared, &HOST).is_err());
    }
}
