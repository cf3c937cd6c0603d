use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::netlink::{Batch, Socket, route};
use crate::{Context as _, Error};

/// Index of the loopback interface, the first of every namespace (kernel `net/loopback`: LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

fn here() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Runs `body` in the namespace and comes back. The thread that calls is the one that moves.
pub(crate) fn within<T>(netns: BorrowedFd<'_>, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let home = here().context(|| "open the own network namespace")?;
    enter(netns).context(|| "enter the container's network namespace")?;
    let outcome = body();
    enter(home.as_fd()).context(|| "return to the host's network namespace")?;
    outcome
}

/// Whether this process may leave its network namespace and come back: root of a user namespace may not come back to the
/// host's (setns(2): CAP_SYS_ADMIN where it belongs).
pub(crate) fn may_come_back() -> bool {
    here().is_ok_and(|home| enter(home.as_fd()).is_ok())
}

/// Sockets that `make` makes in the namespace.
pub(crate) fn sockets(
    netns: BorrowedFd<'_>,
    make: impl FnOnce() -> Result<Vec<OwnedFd>, Error>,
) -> Result<Vec<OwnedFd>, Error> {
    if may_come_back() {
        return within(netns, make);
    }
    crate::user::fetch(netns, || make().map(|made| ((), made))).map(|((), made)| made)
}

/// Whether nobody has a socket in the namespace, and no closed connection is left in it (`TIME_WAIT`, for a minute after its
/// end), which would keep the next program there from listening where the last one did. False where nobody can look: a normal
/// user's process may not come back from there.
#[must_use]
pub fn is_unused(netns: BorrowedFd<'_>) -> bool {
    let read = |name: &str| match std::fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name != "sockstat" => Ok(String::new()),
        read => read.context(|| format!("read {name}")),
    };
    let texts = || Ok([read("sockstat")?, read("sockstat6")?]);
    may_come_back() && within(netns, texts).is_ok_and(|texts| texts.iter().all(|text| has_no_socket(text)))
}

/// `/proc/net/sockstat` (kernel net/ipv4/proc.c): `TCP: inuse 0 orphan 0 tw 0 alloc 2 mem 0`; the others of its numbers are those of
/// the whole machine.
fn has_no_socket(text: &str) -> bool {
    text.lines().all(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        while let (Some(name), Some(count)) = (words.next(), words.next()) {
            if matches!(name, "inuse" | "tw") && count != "0" {
                return false;
            }
        }
        true
    })
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        netns,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// A new network namespace with its loopback interface up. The calling process must be single-threaded: it, or a child,
/// enters the new namespace.
///
/// # Errors
/// Those of unshare(2), clone3(2), setns(2) and netlink.
pub fn sandbox() -> Result<OwnedFd, Error> {
    let home = here().context(|| "open the own network namespace")?;
    if !may_come_back() {
        return sandbox_of_a_child(None);
    }
    dhow_sys::namespace::unshare(UnshareFlags::NEWNET).context(|| "create a network namespace")?;
    let made = here()
        .context(|| "open the new network namespace")
        .and_then(|netns| {
            loopback_up().context(|| "set the loopback interface up")?;
            Ok(netns)
        });
    enter(home.as_fd()).context(|| "return to the host's network namespace")?;
    made.map(OwnedFd::from)
}

/// As [`sandbox`], with the root of the user namespace `users` as its owner: who is root there may set it up.
///
/// # Errors
/// As [`sandbox`].
pub fn sandbox_of(users: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    sandbox_of_a_child(Some(users))
}

fn sandbox_of_a_child(users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let what = || "create a network namespace";
    let options = dhow_sys::clone::Options {
        namespaces: match users {
            Some(_) => UnshareFlags::empty(),
            None => UnshareFlags::NEWNET,
        },
        ..dhow_sys::clone::Options::default()
    };
    let enter = || match users {
        Some(users) => dhow_sys::namespace::enter(users)
            .and_then(|()| dhow_sys::namespace::unshare(UnshareFlags::NEWNET)),
        None => Ok(()),
    };
    let (mut done, report) = io::pipe().context(what)?;
    let parent = rustix::process::getpid();
    let child = dhow_sys::clone::spawn(&options, || {
        let told = dhow_sys::process::end_with(parent)
            .and_then(|()| enter())
            .and_then(|()| loopback_up())
            .and_then(|()| (&report).write_all(&[1]));
        if told.is_ok() {
            // It is killed when its namespace has been opened.
            rustix::event::pause();
        }
        1
    })
    .context(what)?;
    // Of the child alone: its end is an end of the pipe, too.
    drop(report);
    let up = done.read_exact(&mut [0]);
    let opened = File::open(format!("/proc/{}/ns/net", child.pid.as_raw_pid()));
    // One that has ended is as good as killed.
    _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    _ = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty());
    up.context(|| "set the loopback interface of a network namespace up")?;
    opened
        .map(OwnedFd::from)
        .context(|| "open the new network namespace")
}

pub(crate) fn loopback_up() -> io::Result<()> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    Socket::route()?.demand(&mut batch, &mut |_, _| ())
}

#[cfg(test)]
mod tests {
    use super::has_no_socket;

    #[test]
    fn a_socket_or_what_is_left_of_one_is_seen() {
        let quiet = "sockets: used 3\nTCP: inuse 0 orphan 7 tw 0 alloc 9 mem 1\nUDP: inuse 0 mem 5\nUDPLITE: inuse 0\n\
                     RAW: inuse 0\nFRAG: inuse 0 memory 0\n";
        assert!(has_no_socket(quiet));
        assert!(has_no_socket(""));
        for (old, new) in [
            ("TCP: inuse 0", "TCP: inuse 1"),
            ("tw 0", "tw 3"),
            ("UDP: inuse 0", "UDP: inuse 2"),
            ("RAW: inuse 0", "RAW6: inuse 1"),
        ] {
            assert!(!has_no_socket(&quiet.replacen(old, new, 1)), "{new}");
        }
    }
}
