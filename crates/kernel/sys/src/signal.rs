//! Signals as something to read, instead of handlers that interrupt.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Signals that are read from a descriptor while this value lives; afterwards the mask is as before.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: crate::process::SignalMask,
}

impl Signals {
    /// Blocks these signals for the calling thread and makes them readable instead (signalfd(2)).
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn watch(numbers: &[i32]) -> io::Result<Self> {
        // SAFETY: sigset_t is a plain array of integers; zero is the empty set.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        for number in numbers {
            // SAFETY: `set` is a valid set; a number that is no signal is refused and changes nothing.
            unsafe { libc::sigaddset(&raw mut set, *number) };
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` outlives the call, which only reads it.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let before = crate::process::block(&set)?;
        Ok(Self { fd, before })
    }

    /// The signals that came since the last call, each by number.
    #[must_use]
    pub fn take(&self) -> Vec<i32> {
        const SIZE: usize = mem::size_of::<libc::signalfd_siginfo>();
        let mut numbers = Vec::new();
        loop {
            let mut raw = [0_u8; SIZE];
            // SAFETY: reads at most SIZE bytes into a buffer of SIZE bytes.
            let count = unsafe { libc::read(self.fd.as_raw_fd(), raw.as_mut_ptr().cast(), SIZE) };
            if count != SIZE.cast_signed() {
                return numbers;
            }
            // The signal's number is the first field, four bytes (signalfd(2)).
            let number = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
            numbers.extend(i32::try_from(number));
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What is still pending comes now, with its usual effect; the call cannot fail for a mask that was in force.
        drop(crate::process::restore_signals(self.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_signal_is_read_and_does_not_end_the_process() {
        let signals = Signals::watch(&[libc::SIGUSR2]).unwrap();
        assert!(signals.take().is_empty());
        // SAFETY: only asks for the number of the calling thread.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: sends a signal to this very thread, where it is blocked.
        unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
        assert_eq!(signals.take(), [libc::SIGUSR2]);
    }
}
