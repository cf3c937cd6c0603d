//! Options of sockets that have no safe call elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Lets a socket have an address that is not of this host (`IP_TRANSPARENT`, `IPV6_TRANSPARENT`), and gives its packets a mark
/// (`SO_MARK`), by which rules and routes know them.
///
/// # Errors
/// What the kernel says: `EPERM` without CAP_NET_ADMIN over the socket's network namespace.
pub fn take_any_address(socket: impl AsFd, v6: bool, mark: u32) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT)
    };
    set(&socket, level, option, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)
}

fn set(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads the four bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    crate::check(result.into()).map(drop)
}
