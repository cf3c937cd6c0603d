//! File descriptors: close-on-exec for all of them, and their way over a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Most descriptors that travel in one message here.
pub const MAX_PASSED: usize = 8;

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11; CVE-2024-21626: nothing of the host leaks).
///
/// # Errors
/// On kernels without the call.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call only sets a flag of descriptors; no descriptor is closed under its owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    crate::check(result).map(drop)
}

/// Closes every descriptor from 3 on that the process got from its parent: call it first of all in `main`.
///
/// A container's monitor lives long: a descriptor that a script left open would stay open with it, such as a lock
/// (`( flock 9; dhow run -d ... ) 9>file`) or a pipe whose reader waits for its end.
pub fn close_inherited() {
    close_inherited_from(3);
}

/// The same from descriptor `first` on, for a caller that hands some of them to a container.
pub fn close_inherited_from(first: u32) {
    // SAFETY: at the start of `main` nothing of this process owns a descriptor beyond the three standard ones, so none
    // is closed under its owner. A kernel without the call (before Linux 5.9) leaves them open, as they came.
    let _: libc::c_long = unsafe { libc::syscall(libc::SYS_close_range, first.max(3), u32::MAX, 0) };
}

/// The same but of those with these numbers, for a caller that hands them to a container.
pub fn close_inherited_but(kept: &[u32]) {
    let mut kept: Vec<u32> = kept.iter().copied().filter(|number| *number >= 3).collect();
    kept.sort_unstable();
    let mut next = 3;
    for number in kept {
        close_numbers(next, number.saturating_sub(1));
        next = number.saturating_add(1);
    }
    close_numbers(next, u32::MAX);
}

/// Closes inherited descriptors that were kept for a container, once it has them.
pub fn close_kept(kept: &[u32]) {
    for number in kept.iter().filter(|number| **number >= 3) {
        close_numbers(*number, *number);
    }
}

fn close_numbers(first: u32, last: u32) {
    if first > last {
        return;
    }
    // SAFETY: these came from the parent, and no value of this process owns them: at the start of `main` nothing does, and
    // later a number that is kept is taken and given to nothing else. A kernel without the call (before Linux 5.9) leaves
    // them open, as they came.
    let _: libc::c_long = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Closes every descriptor from `first` on but `kept`, in a child of [`crate::clone::spawn`] that is about to wait long.
///
/// Nothing of the caller may use or close one of the others afterwards: such a child ends by execve or without
/// destructors of its parent's values, which owned them.
///
/// # Errors
/// On kernels without the call (before Linux 5.9).
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let close = |from: u32, to: u32| {
        // SAFETY: what is closed belongs to values whose destructors do not run, as the caller promises.
        let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        crate::check(result).map(drop)
    };
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers.into_iter().filter(|number| *number >= first) {
        if number > next {
            close(next, number - 1)?;
        }
        next = number + 1;
    }
    close(next, u32::MAX)
}

/// Sends `bytes` with at most [`MAX_PASSED`] descriptors (SCM_RIGHTS); returns how many bytes went.
///
/// # Errors
/// `InvalidInput` for too many descriptors, else what sendmsg says. A dead peer is an error, never a SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up, so it alone would let one more through.
    if fds.len() > MAX_PASSED || !(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives bytes and the descriptors that came with them, close-on-exec; zero bytes mean that the peer is gone.
///
/// # Errors
/// What recvmsg says.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            fds.extend(passed);
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn descriptors_travel_with_bytes_and_the_end_is_seen() {
        let (one, two) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(send(&one, b"word", &[null.as_fd(), null.as_fd()]).unwrap(), 4);
        assert_eq!(send(&one, b"x", &[]).unwrap(), 1);
        let mut bytes = [0; 16];
        let (length, fds) = receive(&two, &mut bytes).unwrap();
        assert_eq!((&bytes[..length], fds.len()), (&b"word"[..], 2));
        for fd in &fds {
            assert!(
                rustix::io::fcntl_getfd(fd)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
            let (own, sent) = (rustix::fs::fstat(&null).unwrap(), rustix::fs::fstat(fd).unwrap());
            assert_eq!((own.st_dev, own.st_ino), (sent.st_dev, sent.st_ino));
        }
        assert_eq!(receive(&two, &mut bytes).unwrap().0, 1);
        drop(one);
        assert_eq!(receive(&two, &mut bytes).unwrap().0, 0);
        assert!(send(&two, b"late", &[]).is_err());
    }

    #[test]
    fn all_descriptors_but_those_that_are_kept_are_closed() {
        let open = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let listed = || {
            let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut numbers: Vec<u32> = numbers
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
                .collect();
            numbers.sort_unstable();
            numbers
        };
        // A program of its own: a child of a process with threads would be unsound.
        if std::env::var_os("DHOW_CLOSES").is_none() {
            let name = "fd::tests::all_descriptors_but_those_that_are_kept_are_closed";
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env("DHOW_CLOSES", "1")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let fds: Vec<OwnedFd> = (0..6).map(|_| open()).collect();
        let first = fds[0].as_raw_fd().cast_unsigned();
        close_all_but(first, &[fds[4].as_fd(), fds[1].as_fd()]).unwrap();
        let left: Vec<u32> = listed().into_iter().filter(|number| *number > first).collect();
        // The listing itself takes the lowest free number, which is `first`.
        assert_eq!(left, [first + 1, first + 4]);
        std::mem::forget(fds);
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (one, _two) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let fds = [one.as_fd(); MAX_PASSED + 1];
        assert_eq!(
            send(&one, b"", &fds).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
