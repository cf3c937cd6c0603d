//! A normal user's containers: all work on them is done in one user namespace of that user, in which they are root and have
//! the further ids that `/etc/subuid` and `/etc/subgid` give them.
//!
//! No process keeps that namespace when nothing runs. Whoever comes joins it through any of those that are in it, running
//! containers, their monitors and the commands at work, or makes it anew: what is on the disk has the same owners in each. All
//! must be in one, since a process of another may not enter its containers.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::IdMapping;
use dhow_types::ErrorKind;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use crate::container::{make_folder, process_start};
use crate::{Context as _, Engine, Error, Settings};

/// Most that is read of the files of ids.
const MOST: usize = 1 << 20;

/// Whether this process is root of the host, and no user namespace lies between.
#[must_use]
pub fn is_rootful() -> bool {
    !dhow_cgroup::rootless()
}

/// Where processes that are in the user's namespace are written down, as `PID-START`.
pub(crate) fn members(settings: &Settings) -> PathBuf {
    settings.run.join("user")
}

/// Enters the user's namespace, with a mount namespace of this process' own, unless this is root already. The calling
/// process must be single-threaded, and stays outside where the host allows no user namespaces: without one, images can be
/// kept, and nothing run.
///
/// # Errors
/// `FailedPrecondition` when ids of the user are not to be had.
pub fn enter(settings: &Settings) -> Result<(), Error> {
    if geteuid().is_root() {
        return Ok(());
    }
    // Makes the folders, or says which may not be made.
    let engine = Engine::open(settings.clone())?;
    let members = members(settings);
    make_folder(&members)?;
    let lock = File::create(members.join("lock")).context(|| format!("lock {}", members.display()))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(std::io::Error::from)
        .context(|| format!("lock {}", members.display()))?;
    let joined = living(&engine, &members)?.into_iter().any(|namespace| {
        // One that has ended meanwhile had a namespace that nobody needs.
        dhow_sys::namespace::enter(&namespace).is_ok()
    });
    if !joined && !make()? {
        return Ok(());
    }
    dhow_sys::namespace::unshare(UnshareFlags::NEWNS)
        .context(|| "make a mount namespace in the user's namespace")
        .map_err(|error| {
            error.with_hint(
                "a host may give no rights in it: sysctl kernel.apparmor_restrict_unprivileged_userns",
            )
        })?;
    register(&members)
}

/// Says that this process, a container's monitor, is in the user's namespace as well: the command that started it ends before
/// the container's record is written.
pub(crate) fn remain(settings: &Settings) -> Result<(), Error> {
    let members = members(settings);
    if is_rootful() || !members.exists() {
        return Ok(());
    }
    register(&members)
}

fn register(members: &Path) -> Result<(), Error> {
    let own = std::process::id();
    let start = i32::try_from(own).ok().and_then(process_start).unwrap_or(0);
    let name = members.join(format!("{own}-{start}"));
    File::create(&name).context(|| format!("write {}", name.display()))?;
    Ok(())
}

/// The user namespaces of containers and commands that live; records of those that do not are removed.
fn living(engine: &Engine, members: &Path) -> Result<Vec<OwnedFd>, Error> {
    let mut processes = Vec::new();
    for entry in fs::read_dir(members).context(|| format!("list {}", members.display()))? {
        let entry = entry.context(|| format!("list {}", members.display()))?;
        let name = entry.file_name();
        let Some((pid, start)) = name.to_str().and_then(|name| name.split_once('-')) else {
            continue;
        };
        let (Ok(pid), Ok(start)) = (pid.parse(), start.parse()) else {
            continue;
        };
        if process_start(pid) == Some(start) {
            processes.push((pid, start));
        } else {
            // Whoever comes next tries again.
            drop(fs::remove_file(entry.path()));
        }
    }
    // What cannot be read is not running.
    let containers = engine.containers().list().unwrap_or_default();
    let inits = containers.iter().map(|one| (one.state.pid, one.state.pid_start));
    processes.extend(inits.filter(|(pid, _)| *pid != 0));
    // What was to become a program and has lost its monitor can only be ended by who is in its namespace.
    let newborn = containers.iter().filter_map(|one| one.state.newborn);
    processes.extend(newborn.map(|newborn| (newborn.pid, newborn.pid_start)));
    let own = File::open("/proc/self/ns/user").context(|| "open the own user namespace")?;
    let namespaces = processes.into_iter().filter_map(|(pid, start)| {
        let namespace = File::open(format!("/proc/{pid}/ns/user")).ok()?;
        // Opened, it is still that process and not a later one of its number.
        if process_start(pid) != Some(start) {
            return None;
        }
        if is_child(&namespace, &own) {
            return Some(namespace.into());
        }
        // A container may be in one of its own, which was made in the user's.
        let around = File::from(dhow_sys::namespace::parent(&namespace).ok()?);
        is_child(&around, &own).then(|| around.into())
    });
    Ok(namespaces.collect())
}

/// Whether a user namespace was made in the own one: then it is the user's. What a program in a container makes is further down,
/// and no place for us.
fn is_child(namespace: &File, own: &File) -> bool {
    let parent = dhow_sys::namespace::parent(namespace);
    let identity =
        |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    parent.is_ok_and(|parent| match (identity(parent.as_fd()), identity(own.as_fd())) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    })
}

/// Makes the namespace, and enters it; false when the host allows none.
fn make() -> Result<bool, Error> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let (uids, gids) = (
        mappings("/etc/subuid", uid, uid)?,
        mappings("/etc/subgid", uid, gid)?,
    );
    let what = || "make a process for the maps of a user namespace";
    let (wait, go) = std::io::pipe().context(what)?;
    let (answer, report) = std::io::pipe().context(what)?;
    let own = rustix::process::getpid();
    let writer = dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
        use std::io::{Read as _, Write as _};
        // It has a copy of the other end, too, so that it would wait for ever for a parent that has ended.
        let told = dhow_sys::process::end_with(own).and_then(|()| (&wait).read_exact(&mut [0]));
        if told.is_err() {
            return 1;
        }
        let text = match dhow_runtime::write_id_maps(own.as_raw_pid(), &uids, &gids) {
            Ok(()) => return 0,
            Err(error) => crate::worker::chain(&error),
        };
        drop((&report).write_all(text.as_bytes()));
        1
    })
    .context(what)?;
    drop(report);
    if dhow_sys::namespace::unshare(UnshareFlags::NEWUSER).is_err() {
        _ = rustix::process::pidfd_send_signal(&writer.pidfd, rustix::process::Signal::KILL);
        _ = rustix::process::waitpid(Some(writer.pid), rustix::process::WaitOptions::empty());
        return Ok(false);
    }
    std::io::Write::write_all(&mut &go, &[1]).context(what)?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut &answer, &mut said).context(what)?;
    _ = rustix::process::waitpid(Some(writer.pid), rustix::process::WaitOptions::empty());
    if said.is_empty() {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::FailedPrecondition, said).with_hint(
        "install the package uidmap, and see that the user has ranges in /etc/subuid and /etc/subgid",
    ))
}

/// How many users and groups a namespace of this user would have; none when the files cannot be read.
pub(crate) fn ids(uid: u32, gid: u32) -> Option<(u64, u64)> {
    let count = |file: &str, id: u32| -> Option<u64> {
        let mappings = mappings(file, uid, id).ok()?;
        Some(mappings.iter().map(|one| u64::from(one.size)).sum())
    };
    Some((count("/etc/subuid", uid)?, count("/etc/subgid", gid)?))
}

/// The own id as root's, and behind it the ranges that a file gives the user.
fn mappings(file: &str, uid: u32, id: u32) -> Result<Vec<IdMapping>, Error> {
    let text = match dhow_sys::file::read_text(file, MOST) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.context(|| format!("read {file}"))?,
    };
    let names = dhow_sys::file::read_text("/etc/passwd", MOST).unwrap_or_default();
    let name = names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    Ok(ranges(&text, name, uid, id))
}

/// Ids that a file gives a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subordinate {
    /// The first.
    pub(crate) first: u32,
    /// How many.
    pub(crate) count: u32,
}

/// The ids that `/etc/subuid` or `/etc/subgid` gives a name; none when there is no file.
pub(crate) fn subordinate(file: &str, name: &str) -> Result<Vec<Subordinate>, Error> {
    let text = match dhow_sys::file::read_text(file, MOST) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.context(|| format!("read {file}"))?,
    };
    Ok(lines(&text)
        .filter(|(user, _)| *user == name)
        .map(|(_, ids)| ids)
        .collect())
}

/// Lines `user:first:count` (subuid(5)); those that give nothing are passed over.
fn lines(text: &str) -> impl Iterator<Item = (&str, Subordinate)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((user, Subordinate { first, count }))
    })
}

/// The user is there by name or number.
fn ranges(text: &str, name: Option<&str>, uid: u32, id: u32) -> Vec<IdMapping> {
    let mut mappings = vec![IdMapping {
        container_id: 0,
        host_id: id,
        size: 1,
    }];
    let mut next = 1_u32;
    for (user, Subordinate { first, count }) in lines(text) {
        let theirs = Some(user) == name || user.parse() == Ok(uid);
        let Some(after) = next.checked_add(count).filter(|_| theirs) else {
            continue;
        };
        mappings.push(IdMapping {
            container_id: next,
            host_id: first,
            size: count,
        });
        next = after;
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user_one_after_the_other() {
        let text = "other:1:2\nann:100000:65536\n# no line\n1000:300000:10\nann:x:1\nann:5:0\n";
        let of = |name| -> Vec<_> {
            let found = ranges(text, name, 1000, 1000);
            found
                .iter()
                .map(|one| (one.container_id, one.host_id, one.size))
                .collect()
        };
        assert_eq!(
            of(Some("ann")),
            [(0, 1000, 1), (1, 100_000, 65_536), (65_537, 300_000, 10)]
        );
        assert_eq!(of(None), [(0, 1000, 1), (1, 300_000, 10)]);
        assert_eq!(ranges(text, Some("bob"), 1001, 7).len(), 1);
    }
}
