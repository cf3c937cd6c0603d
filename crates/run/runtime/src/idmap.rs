//! Id maps of a user namespace, written by the parent (user_namespaces(7)).

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use dhow_oci::runtime::IdMapping;
use dhow_types::ErrorKind;
use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};

use crate::{Context as _, Error};

/// Writes the maps of the process `pid`, which waits for them.
///
/// Root writes any. Who is not root may map the own id alone, with setgroups denied; more goes through the setuid
/// programs newuidmap and newgidmap, which know the ranges of `/etc/subuid`.
///
/// # Errors
/// What the kernel or those programs say; `FailedPrecondition` when they are needed and not there.
pub fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Error> {
    let root = geteuid().is_root();
    if root || is_own(uids, geteuid().as_raw()) {
        file(pid, "uid_map", &lines(uids))?;
    } else {
        program("newuidmap", pid, uids)?;
    }
    if root {
        return file(pid, "gid_map", &lines(gids));
    }
    if is_own(gids, getegid().as_raw()) {
        file(pid, "setgroups", "deny")?;
        return file(pid, "gid_map", &lines(gids));
    }
    program("newgidmap", pid, gids)
}

/// A user namespace with these mappings, for the ids of a mount, or for a process that is to be made in it. Nothing runs in it
/// yet. The caller must be single-threaded.
///
/// # Errors
/// As [`write`], and those of clone3(2).
pub fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Error> {
    let options = dhow_sys::clone::Options {
        namespaces: rustix::thread::UnshareFlags::NEWUSER,
        ..dhow_sys::clone::Options::default()
    };
    let parent = rustix::process::getpid();
    let child = dhow_sys::clone::spawn(&options, || {
        // It is killed when its namespace has been opened.
        if dhow_sys::process::end_with(parent).is_ok() {
            rustix::event::pause();
        }
        0
    });
    let child = child.context(|| "clone a process for a user namespace")?;
    let pid = child.pid.as_raw_pid();
    let opened = write(pid, uids, gids).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty());
        opened
            .map_err(io::Error::from)
            .context(|| "open the user namespace of a mount")
    });
    crate::parent::end(&child);
    opened
}

/// The mappings of users and of groups of a user namespace, as this process sees them. The caller must be single-threaded.
///
/// # Errors
/// Those of setns(2), and `DataLoss` for a map that is none.
pub fn of(namespace: &OwnedFd) -> Result<(Vec<IdMapping>, Vec<IdMapping>), Error> {
    let (mut inside, report) = io::pipe().context(|| "make a pipe")?;
    let parent = rustix::process::getpid();
    let child = dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
        let entered = dhow_sys::process::end_with(parent)
            .and_then(|()| dhow_sys::namespace::enter(namespace))
            .and_then(|()| io::Write::write_all(&mut &report, &[1]));
        if entered.is_ok() {
            // It is killed when its maps have been read.
            rustix::event::pause();
        }
        0
    });
    let child = child.context(|| "clone a process to look into a user namespace")?;
    // Of the child alone: its end is an end of the pipe, too.
    drop(report);
    let pid = child.pid.as_raw_pid();
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
        parse(&text).ok_or_else(|| Error::new(ErrorKind::DataLoss, format!("{path} is no map of ids")))
    };
    let maps = io::Read::read_exact(&mut inside, &mut [0])
        .context(|| "enter the user namespace")
        .and_then(|()| Ok((read("uid_map")?, read("gid_map")?)));
    crate::parent::end(&child);
    maps
}

fn parse(text: &str) -> Option<Vec<IdMapping>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdMapping {
            container_id: numbers.next()??,
            host_id: numbers.next()??,
            size: numbers.next()??,
        })
    };
    text.lines().map(line).collect()
}

/// Checks that the maps of a joined user namespace are those that the spec has too, if it has any.
pub(crate) fn compare(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Error> {
    for (name, wanted) in [("uid_map", uids), ("gid_map", gids)] {
        if wanted.is_empty() {
            continue;
        }
        let path = format!("/proc/{pid}/{name}");
        let found = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
        let numbers = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if numbers(&found) != numbers(&lines(wanted)) {
            let message = "user namespaces enabled, but both namespace path and non-matching mapping specified -- you \
                           may only provide one";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    }
    Ok(())
}

fn is_own(mappings: &[IdMapping], id: u32) -> bool {
    matches!(mappings, [one] if one.size == 1 && one.host_id == id)
}

fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut lines, one| {
        let IdMapping {
            container_id,
            host_id,
            size,
        } = one;
        match writeln!(lines, "{container_id} {host_id} {size}") {
            // Writing to a string cannot fail.
            Ok(()) | Err(_) => lines,
        }
    })
}

fn file(pid: i32, name: &str, text: &str) -> Result<(), Error> {
    std::fs::write(format!("/proc/{pid}/{name}"), text)
        .context(|| format!("write {name} of the container: {}", text.trim_end()))
}

fn program(name: &str, pid: i32, mappings: &[IdMapping]) -> Result<(), Error> {
    let numbers = mappings
        .iter()
        .flat_map(|one| [one.container_id, one.host_id, one.size]);
    let mut command = Command::new(name);
    command
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("{name} is needed to map more than one id without root");
            return Err(Error::because(ErrorKind::FailedPrecondition, message, error)
                .with_hint("install the package uidmap (shadow-utils)"));
        }
        output => output.context(|| format!("run {name}"))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(
        Error::new(ErrorKind::FailedPrecondition, format!("{name} failed: {said}"))
            .with_hint("check the ranges of the user in /etc/subuid and /etc/subgid"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_one_line_for_each_range() {
        let map = [
            IdMapping {
                container_id: 0,
                host_id: 1000,
                size: 1,
            },
            IdMapping {
                container_id: 1,
                host_id: 100_000,
                size: 65536,
            },
        ];
        assert_eq!(lines(&map), "0 1000 1\n1 100000 65536\n");
        assert_eq!(parse(&lines(&map)).as_deref(), Some(&map[..]));
        assert_eq!(parse("0 1"), None);
        assert!(is_own(&map[..1], 1000));
        assert!(!is_own(&map, 1000));
    }
}
