//! What the containers of a normal user need beside the rest.

use std::fs::File;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use super::{Check, read};

/// In the order in which a container needs them; nothing for root.
pub(super) fn checks() -> Vec<Check> {
    if rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    vec![ids(), uplink(), low_ports(), ping()]
}

fn ids() -> Check {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let ids = crate::rootless::ids(uid.as_raw(), gid.as_raw());
    match ids {
        Some((uids, gids)) if uids > 1 && gids > 1 => {
            Check::good("ids of the user", format!("{uids} users, {gids} groups"))
        }
        _ => Check::limited(
            "ids of the user",
            "one: images with files of several users cannot be unpacked with their owners",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        ),
    }
}

fn uplink() -> Check {
    let name = "network of the user";
    let pasta = Command::new("pasta")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    if let Err(error) = pasta {
        return Check::limited(
            name,
            format!("pasta is not to be had ({error}): networks other than none and host will fail"),
            "install the package passt",
        );
    }
    match File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check::good(name, "pasta and tap devices are there"),
        Err(error) => Check::limited(
            name,
            format!("/dev/net/tun: {error}: networks other than none and host will fail"),
            match error.kind() {
                ErrorKind::PermissionDenied => "chmod 666 /dev/net/tun",
                _ => "modprobe tun",
            },
        ),
    }
}

fn low_ports() -> Check {
    let first = read("/proc/sys/net/ipv4/ip_unprivileged_port_start").and_then(|text| text.parse().ok());
    match first {
        Some(first @ 81_u32..) => Check::limited(
            "low ports",
            format!("ports below {first} are root's: a container of the user cannot publish them"),
            "sysctl -w net.ipv4.ip_unprivileged_port_start=80",
        ),
        Some(first) => Check::good("low ports", format!("ports from {first} on can be published")),
        None => Check::good("low ports", "unknown to this kernel"),
    }
}

fn ping() -> Check {
    let range = read("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let gid = rustix::process::getegid().as_raw();
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) if (first..=last).contains(&gid) => {
            Check::good("ping", "the user's containers may send echo requests")
        }
        _ => Check::limited(
            "ping",
            format!(
                "the group {gid} is not in net.ipv4.ping_group_range: ping from a container of the user gets no answer"
            ),
            "sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        ),
    }
}
