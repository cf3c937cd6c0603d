//! The uplink of a normal user's network: pasta makes a tap device in the namespace and speaks for it with sockets of the host.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Where pasta takes questions to the name server of the host, also to one on its loopback. Link-local, so that it is in
/// no network of anybody; podman has the same.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where containers reach the host itself, with a pasta of August 2024 or later.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

const TUN: &str = "/dev/net/tun";
const WITHOUT: &str = "use --network none or --network host";

/// Whether the user may make tap devices: pasta's own word is "Failed to open tun socket in namespace".
pub(super) fn check() -> Result<(), Error> {
    File::options()
        .read(true)
        .write(true)
        .open(TUN)
        .map(drop)
        .context(|| format!("open {TUN}, which the network of a normal user's containers needs"))
        .map_err(|error| {
            error.with_kind(ErrorKind::FailedPrecondition).with_hint(format!(
                "have root do: modprobe tun; chmod 666 {TUN}; or {WITHOUT}"
            ))
        })
}

/// Starts pasta for a namespace; it stays behind and writes its number to the file.
///
/// All that it would forward by itself is off: ports are published one by one, and the host's loopback is nobody's. The
/// namespace is its standard input, since it closes what else it inherits; so there is no path whose end it could watch.
/// Says whether it leads to the host at [`HOST`].
pub(super) fn start(netns: OwnedFd, pid_file: &Path) -> Result<bool, Error> {
    let copy = netns.try_clone().context(|| "duplicate the network namespace")?;
    let host = HOST.to_string();
    match run(netns, pid_file, &["--map-guest-addr", &host]) {
        // It is newer than some distributions' package.
        Err(error) if error.to_string().contains("map-guest-addr") => {
            run(copy, pid_file, &[]).map(|()| false)
        }
        other => other.map(|()| true),
    }
}

fn run(netns: OwnedFd, pid_file: &Path, more: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("pasta");
    command
        .args(["--config-net", "--quiet", "--no-map-gw", "--no-netns-quit"])
        .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .args(["--ns-ifname", "uplink", "--dns-forward", &RESOLVER.to_string()])
        .args(["--netns", "/proc/self/fd/0", "--pid"])
        .arg(pid_file)
        .args(more)
        .stdin(Stdio::from(netns));
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "the program pasta is needed for the network of a normal user's containers";
            return Err(
                Error::because(ErrorKind::FailedPrecondition, message, error).with_hint(format!(
                    "install the package passt (apt install passt), or {WITHOUT}"
                )),
            );
        }
        output => output.context(|| "run pasta")?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said
        .lines()
        // Older ones have no socket to the system's log in a namespace, and say so for every line.
        .filter(|line| !line.trim().is_empty() && !line.ends_with("to syslog"))
        .collect();
    let message = format!("pasta failed: {}", lines.join("; "));
    Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint(format!("see passt(1), or {WITHOUT}")))
}

/// Whether the process is a pasta that was started with this file for its number.
pub(super) fn is(pid: i32, pid_file: &Path) -> bool {
    let wanted = pid_file.as_os_str().as_encoded_bytes();
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == wanted))
}

/// The pasta that was started with this file for its number.
pub(super) fn find(pid_file: &Path) -> Option<i32> {
    let processes = fs::read_dir("/proc").ok()?;
    let numbers = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|pid| is(*pid, pid_file))
}
