//! Namespaces of the calling, single-threaded process.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Moves the caller into new namespaces.
///
/// # Errors
/// What the kernel says; `InvalidInput` for a new user namespace in a process with threads.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the call is unsafe for UnshareFlags::FILES alone (descriptors that other threads own); refused above.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Enters the namespace that `fd` names, whatever its kind.
///
/// # Errors
/// What the kernel says.
pub fn enter(fd: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(fd.as_fd(), None)?)
}

/// What kind of namespace `fd` names (`NS_GET_NSTYPE`, Linux 4.11).
///
/// # Errors
/// What the kernel says: `ENOTTY` when it is no namespace.
pub fn kind(fd: impl AsFd) -> io::Result<UnshareFlags> {
    /// `_IO(0xb7, 3)` of `include/uapi/linux/nsfs.h`.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the call takes no argument and writes nothing.
    let kind = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE, 0) };
    let kind = crate::check(kind.into())?;
    Ok(UnshareFlags::from_bits_retain(u32::try_from(kind).unwrap_or(0)))
}

/// The namespace that the user or process id namespace `fd` was made in (`NS_GET_PARENT`, Linux 4.9).
///
/// # Errors
/// What the kernel says: `EPERM` when it is none that the caller's own namespace holds.
pub fn parent(fd: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 2)` of `include/uapi/linux/nsfs.h`.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    related(fd, NS_GET_PARENT)
}

/// The user namespace whose root has the rights over the namespace `fd` (`NS_GET_USERNS`, Linux 4.9).
///
/// # Errors
/// What the kernel says: `EPERM` when it is none that the caller's own namespace holds.
pub fn owner(fd: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 1)` of `include/uapi/linux/nsfs.h`.
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    related(fd, NS_GET_USERNS)
}

fn related(fd: impl AsFd, request: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: the calls of this file take no argument and write nothing.
    let fd = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, 0) };
    let fd = i32::try_from(crate::check(fd.into())?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor (close-on-exec), and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a time namespace whose clocks are moved by `offsets` (lines of `timens_offsets`; none for none) and enters it,
/// which unshare(2) alone would do for children only.
///
/// # Errors
/// What the kernel says; `InvalidInput` for an offset that would set a clock before zero or too far ahead.
pub fn enter_new_time(offsets: Option<&[u8]>) -> io::Result<()> {
    unshare(UnshareFlags::NEWTIME)?;
    if let Some(offsets) = offsets {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/timens_offsets", flags, Mode::empty())?;
        rustix::io::write(file, offsets)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let time = rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())?;
    Ok(move_into_link_name_space(
        time.as_fd(),
        Some(LinkNameSpaceType::Time),
    )?)
}

/// The calling thread's own network namespace.
///
/// # Errors
/// When `/proc` is not there.
pub fn network() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        c"/proc/thread-self/ns/net",
        flags,
        Mode::empty(),
    )?)
}

/// Makes a network namespace and moves the calling thread into it; returns the new one. [`enter`] with the fd that
/// [`network`] gave before leads back.
///
/// # Errors
/// What the kernel says.
pub fn unshare_net() -> io::Result<OwnedFd> {
    unshare(UnshareFlags::NEWNET)?;
    network()
}

/// Runs `work` inside the network namespace `fd` and comes back.
///
/// # Errors
/// When entering or leaving fails; after a failed return the thread is still inside, and must end.
pub fn within_net<T>(fd: impl AsFd, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = network()?;
    move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
    let outcome = work();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(outcome)
}

/// `SIOCSIFFLAGS`, whose type in libc is not that of every C library's `ioctl` (musl).
const SET_FLAGS: libc::Ioctl = 0x8914;

/// Brings the loopback device of the current network namespace up, which also gives it its addresses.
///
/// # Errors
/// What the kernel says; `PermissionDenied` without CAP_NET_ADMIN in the namespace.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is a plain structure of integers and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the request reads an ifreq with name and flags, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) };
    crate::check(result.into()).map(drop)
}
