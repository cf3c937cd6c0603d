//! The uplink of a normal user's network: pasta makes a tap device in the namespace and speaks for it with sockets of the host.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

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

/// Starts pasta for a namespace; it stays behind, and its number is in the file.
///
/// It does not write that file itself: Debian's profile of AppArmor lets it write below /tmp and the home folder alone, and
/// in no folder for things that run. Its number comes by its standard output; the file is the name that it is called by,
/// by which [`find`] knows it.
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
        .arg0(pid_file)
        .args(["--config-net", "--quiet", "--no-map-gw", "--no-netns-quit"])
        .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .args(["--ns-ifname", "uplink", "--dns-forward", &RESOLVER.to_string()])
        .args(["--netns", "/proc/self/fd/0", "--pid", "/proc/self/fd/1"])
        .args(more)
        .stdin(Stdio::from(netns))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "the program pasta is needed for the network of a normal user's containers";
            return Err(
                Error::because(ErrorKind::FailedPrecondition, message, error).with_hint(format!(
                    "install the package passt (apt install passt), or {WITHOUT}"
                )),
            );
        }
        child => child.context(|| "run pasta")?,
    };
    let (status, number, said) = outcome(child).context(|| "run pasta")?;
    if status.success() {
        return fs::write(pid_file, number).context(|| format!("write {}", pid_file.display()));
    }
    let said = said + &number;
    let lines: Vec<&str> = said
        .lines()
        // Older ones have no socket to the system's log in a namespace, and say so for every line.
        .filter(|line| !line.trim().is_empty() && !line.ends_with("to syslog"))
        .collect();
    Err(failed(&lines))
}

/// What pasta's last words mean to who wants a network.
fn failed(lines: &[&str]) -> Error {
    let said = lines.join("; ");
    if lines
        .iter()
        .any(|line| line.contains("External interface not usable"))
    {
        let message = format!("this host has no default route, which pasta takes for the way out ({said})");
        return Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint(format!("connect the host to a network, or {WITHOUT}"));
    }
    let message = format!("pasta failed: {said}");
    Error::new(ErrorKind::FailedPrecondition, message).with_hint(format!("see passt(1), or {WITHOUT}"))
}

/// How it ended, what it wrote to its standard output, and what it said. The pasta that stays keeps the first of the two
/// pipes open, so that a number is read and no end awaited.
fn outcome(mut child: Child) -> io::Result<(ExitStatus, String, String)> {
    let (mut number, mut said) = (String::new(), Vec::new());
    if let Some(mut from) = child.stderr.take() {
        from.read_to_end(&mut said)?;
    }
    let status = child.wait()?;
    if let Some(mut from) = child.stdout.take() {
        if status.success() {
            let mut buffer = [0_u8; 32];
            let length = from.read(&mut buffer)?;
            number.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
        } else {
            from.read_to_string(&mut number)?;
        }
    }
    Ok((status, number, String::from_utf8_lossy(&said).into_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_default_route_is_called_that() {
        let said = [
            "No external routable interface for IPv4",
            "No external routable interface for IPv6",
            "External interface not usable",
        ];
        let error = failed(&said);
        assert!(error.to_string().contains("no default route"));
        assert!(error.to_string().contains(said[0]));
        let other = failed(&["Failed to open tun socket in namespace"]);
        assert_eq!(
            other.to_string(),
            "pasta failed: Failed to open tun socket in namespace"
        );
    }
}
