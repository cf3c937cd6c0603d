//! `doctor`: what this host has, and the exact fix for what it lacks.

mod rootless;

use std::fs;
use std::path::Path;

use crate::{Engine, Opening};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is there.
    Good,
    /// Something does less than it could.
    Limited,
    /// Containers cannot run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Good,
            found: found.into(),
            fix: None,
        }
    }

    fn limited(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Limited,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Missing,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }
}

impl Engine {
    /// Looks at everything that containers need of the host.
    #[must_use]
    pub fn doctor(&self) -> Vec<Check> {
        let mut checks = vec![
            user(),
            kernel(),
            cgroup(),
            overlay(),
            user_namespaces(),
            nf_tables(),
            forwarding(),
            security_module(),
            limits(),
            disk(&self.settings().root),
        ];
        checks.extend(rootless::checks());
        checks.extend(self.openings().ok().map(|openings| opened(&openings)));
        checks
    }
}

/// The ports of the host that lead to containers; those that its input rules do not guard are for somebody to know.
fn opened(openings: &[Opening]) -> Check {
    /// Most that are named.
    const NAMED: usize = 8;
    let passed: Vec<String> = openings
        .iter()
        .filter(|one| !one.filtered)
        .map(|one| {
            let port = &one.port;
            format!("{}/{} ({})", port.host_port, port.protocol, one.container)
        })
        .collect();
    let all = format!("{} ports of this host lead to containers", openings.len());
    if passed.is_empty() {
        return Check::good("openings", all);
    }
    let more = match passed.len().checked_sub(NAMED) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more"),
    };
    let named = passed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    Check::limited(
        "openings",
        format!("{all}, past the host's own input rules: {named}{more}"),
        "`dhow network openings` lists them; networks with `-o com.dhow.firewall=host` let those rules decide",
    )
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn user() -> Check {
    if rustix::process::geteuid().is_root() {
        return Check::good("user", "root");
    }
    Check::good("user", "not root: containers run in a user namespace")
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let host = crate::system::bundle_host();
    // openat2 is of 5.6, close_range with CLOEXEC of 5.11, mount_setattr of 5.12.
    if host.kernel >= (5, 12) {
        return Check::good("kernel", release);
    }
    Check::missing(
        "kernel",
        format!("{release} is older than 5.12"),
        "boot a newer kernel: `apt install linux-image-amd64`",
    )
}

fn cgroup() -> Check {
    if crate::system::bundle_host().cgroup_v2 {
        let controllers = read("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let lacking: Vec<_> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !controllers.split(' ').any(|c| c == *name))
            .collect();
        if lacking.is_empty() {
            return Check::good("control groups", format!("version 2 with {controllers}"));
        }
        return Check::limited(
            "control groups",
            format!("version 2 without {}", lacking.join(", ")),
            "add cgroup_enable=memory to the kernel's command line and boot again",
        );
    }
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let mounted = |name: &str| {
        mounts.lines().any(|line| {
            line.split(" - ").nth(1).is_some_and(|rest| {
                rest.starts_with("cgroup ")
                    && rest
                        .rsplit(' ')
                        .next()
                        .is_some_and(|o| o.split(',').any(|o| o == name))
            })
        })
    };
    let lacking: Vec<_> = ["cpu", "memory", "pids", "devices", "freezer"]
        .into_iter()
        .filter(|n| !mounted(n))
        .collect();
    if lacking.is_empty() {
        return Check::good("control groups", "version 1");
    }
    Check::limited(
        "control groups",
        format!("version 1 without {}", lacking.join(", ")),
        format!("mount -t cgroup -o {0} cgroup /sys/fs/cgroup/{0}", lacking[0]),
    )
}

fn overlay() -> Check {
    let known = read("/proc/filesystems").unwrap_or_default();
    if known
        .lines()
        .any(|line| line.trim_start_matches("nodev").trim() == "overlay")
    {
        return Check::good("overlayfs", "known to the kernel");
    }
    Check::missing(
        "overlayfs",
        "not known to the kernel",
        "modprobe overlay; without it, `dhow system snapshots copy` makes plain copies",
    )
}

fn user_namespaces() -> Check {
    match read("/proc/sys/user/max_user_namespaces").as_deref() {
        Some("0") => Check::limited(
            "user namespaces",
            "switched off",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        Some(_) if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") => {
            Check::limited(
                "user namespaces",
                "only for root",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            )
        }
        Some(maximum) => Check::good("user namespaces", format!("up to {maximum}")),
        None => Check::limited(
            "user namespaces",
            "not in this kernel",
            "boot a kernel with CONFIG_USER_NS",
        ),
    }
}

fn nf_tables() -> Check {
    use rustix::net::{AddressFamily, SocketType, netlink};
    // Opening the netlink family loads its module, so a failure is final.
    match rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::NETFILTER)) {
        Ok(_) if Path::new("/proc/net/netfilter").exists() => Check::good("nf_tables", "reachable"),
        _ => Check::missing(
            "nf_tables",
            "not reachable: published ports and the default network will fail",
            "modprobe nf_tables",
        ),
    }
}

fn forwarding() -> Check {
    match read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("1") if wires() > 1 => Check::limited(
            "forwarding",
            "on for the whole host: this machine also routes between its own networks, unless a firewall forbids it",
            "drop what comes from one wire and leaves by another: \
             nft add table inet wires; \
             nft 'add chain inet wires forward { type filter hook forward priority 10; }'; \
             nft add rule inet wires forward iifname WIRE1 oifname WIRE2 drop; and the other way round",
        ),
        Some("1") => Check::good("forwarding", "on for the whole host"),
        _ => Check::good(
            "forwarding",
            "off; the first container on a bridge switches it on for the whole host",
        ),
    }
}

/// Network devices that are no bridges, tunnels or ends of containers.
fn wires() -> usize {
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    devices
        .filter(|device| device.path().join("device").exists())
        .count()
}

fn security_module() -> Check {
    if dhow_runtime::lsm::apparmor_enabled() && crate::confine::default_profile().is_none() {
        if !crate::rootless::is_rootful() {
            return Check::limited(
                "security modules",
                "AppArmor is there, and only root can load a profile: containers run without one",
                "have root run a container: the kernel keeps its profile until the next boot, for everybody",
            );
        }
        return Check::limited(
            "security modules",
            "AppArmor is there, and apparmor_parser is not: containers run without a profile",
            "install the package apparmor",
        );
    }
    match read("/sys/kernel/security/lsm") {
        Some(modules) if modules.contains("apparmor") || modules.contains("selinux") => {
            Check::good("security modules", modules)
        }
        _ => Check::limited(
            "security modules",
            "neither AppArmor nor SELinux; seccomp, capabilities and masked paths still hold",
            "boot with apparmor=1 security=apparmor, where the kernel has it",
        ),
    }
}

fn limits() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.maximum {
        Some(maximum) if maximum < 4096 => Check::limited(
            "open files",
            format!("at most {maximum}"),
            "raise the hard limit: `ulimit -Hn 65536`, or LimitNOFILE= of the service",
        ),
        Some(maximum) => Check::good("open files", format!("at most {maximum}")),
        None => Check::good("open files", "without limit"),
    }
}

fn disk(root: &Path) -> Check {
    let Ok(status) = rustix::fs::statvfs(root) else {
        return Check::missing(
            "disk",
            format!("{} cannot be read", root.display()),
            "name another folder with --root",
        );
    };
    let free = status.f_bavail * status.f_frsize;
    let found = format!("{} free under {}", dhow_types::human_size(free), root.display());
    if free < 1 << 30 || (status.f_files > 0 && status.f_favail < 10_000) {
        return Check::limited(
            "disk",
            found,
            "dhow system prune --all, or name another folder with --root",
        );
    }
    Check::good("disk", found)
}
