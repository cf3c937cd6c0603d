//! New processes: [`fork`] for a copy that lives on, [`spawn`] for a child that will execve.
//!
//! Both refuse when the caller has a second thread: the copy would hold whatever locks that thread held (allocator,
//! standard streams) for ever.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Exit status of a child whose closure panicked.
pub const PANICKED: i32 = 254;

/// What the child gets that its parent has not.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Namespaces made for the child. `NEWTIME` is not possible here.
    pub namespaces: UnshareFlags,
    /// Directory of a cgroup (version 2) the child is born in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is a child of the caller's parent, as the caller itself is (`CLONE_PARENT`).
    pub sibling: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            namespaces: UnshareFlags::empty(),
            cgroup: None,
            sibling: false,
        }
    }
}

/// A child process.
#[derive(Debug)]
pub struct Child {
    /// Its process id in the caller's namespace.
    pub pid: Pid,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Number of threads of this process.
///
/// One `stat`: the directory `/proc/self/task` has a link per thread besides its two own (`proc_task_getattr`).
///
/// # Errors
/// When `/proc` is not a procfs.
pub fn threads() -> io::Result<u64> {
    let stat = rustix::fs::stat(c"/proc/self/task")?;
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "st_nlink is 32 bits wide on some targets"
    )]
    let links = stat.st_nlink as u64;
    links
        .checked_sub(2)
        .filter(|threads| *threads > 0)
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn refuse_threads() -> io::Result<()> {
    // Unsharing the memory does nothing but to ask whether it is shared: EINVAL for a process with threads (unshare(2)).
    // It works where no procfs is, such as in a container's root file system.
    // SAFETY: the flag neither moves nor closes anything.
    if unsafe { libc::unshare(libc::CLONE_VM) } == 0 {
        return Ok(());
    }
    match threads()? {
        1 => Ok(()),
        more => Err(io::Error::other(format!(
            "process has {more} threads; forking it is unsound"
        ))),
    }
}

/// Splits this single-threaded process in two; `None` is the child.
///
/// # Errors
/// When the process has more than one thread, or no process can be made.
pub fn fork() -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: the process has one thread (checked above), so no lock is held by a thread that the child lacks.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(Pid::from_raw(pid))
    }
}

/// Starts a child by clone3 that runs `child` and exits with what it returns, without destructors of the parent's
/// values and without exit handlers.
///
/// The child has its own copy of the memory and of the file descriptors. Handled signals are reset to their default
/// action in it; ignored ones stay ignored and the mask is inherited: see [`crate::process::reset_signals`].
/// A child whose closure panics exits with [`PANICKED`].
///
/// # Errors
/// When the process has more than one thread, or clone3 fails.
pub fn spawn(options: &Options<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    refuse_threads()?;
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a plain structure of integers, for which zero is the documented default.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = u64::from(options.namespaces.bits())
        | u64::from(libc::CLONE_PIDFD.cast_unsigned())
        | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    if options.sibling {
        // Its exit signal is that of the caller; giving one is an error.
        args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    } else {
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a private copy of the whole address space. The
    // process has one thread (checked above), so that copy is consistent; `args` and `pidfd` outlive the call. The raw
    // call skips libc's fork bookkeeping (cached thread id, at-fork handlers): nothing the child calls needs either.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            mem::size_of::<libc::clone_args>(),
        )
    };
    if pid == 0 {
        let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        // SAFETY: ends the child at once; nothing is assumed of its state.
        unsafe { libc::_exit(status) }
    }
    let pid = i32::try_from(crate::check(pid)?)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: with CLONE_PIDFD a successful clone3 stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// Linux 5.5; libc's constant does not fit its own type.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Linux 5.7; libc's constant does not fit its own type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_counted_and_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(threads().unwrap() >= 2);
        assert!(fork().unwrap_err().to_string().contains("threads"));
        assert!(
            spawn(&Options::default(), || 0)
                .unwrap_err()
                .to_string()
                .contains("threads")
        );
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
