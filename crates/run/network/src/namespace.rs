use std::fs::File;
use std::io;
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

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        netns,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// A new network namespace with its loopback interface up. The calling process must be single-threaded:
/// it enters the new namespace and comes back.
///
/// # Errors
/// Those of unshare(2), setns(2) and netlink.
pub fn sandbox() -> Result<OwnedFd, Error> {
    let home = here().context(|| "open the own network namespace")?;
    #[expect(
        deprecated,
        reason = "the safe form is unsound for CLONE_FILES alone, which is not asked for here"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNET)
        .map_err(io::Error::from)
        .context(|| "create a network namespace")?;
    let made = here()
        .context(|| "open the new network namespace")
        .and_then(|netns| {
            loopback_up().context(|| "set the loopback interface up")?;
            Ok(netns)
        });
    enter(home.as_fd()).context(|| "return to the host's network namespace")?;
    made.map(OwnedFd::from)
}

fn loopback_up() -> io::Result<()> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    Socket::route()?.demand(&mut batch, &mut |_, _| ())
}
