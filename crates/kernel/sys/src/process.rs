//! The state of a process that execve keeps: signals, keyring, seccomp filter.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Signals of Linux on every architecture we run on: 1 to 64.
const SIGNALS: libc::c_int = 64;

/// The signal mask that was in force before [`block_signals`].
#[derive(Clone, Copy)]
#[must_use = "the signals stay blocked until the mask is restored"]
pub struct SignalMask(libc::sigset_t);

impl std::fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalMask")
    }
}

/// Blocks all signals of the calling thread.
///
/// # Errors
/// Never in practice.
pub fn block_signals() -> io::Result<SignalMask> {
    // SAFETY: sigset_t is a plain array of integers.
    let mut full: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `full` is a valid set.
    unsafe { libc::sigfillset(&raw mut full) };
    change_mask(&full).map(SignalMask)
}

/// Puts a mask back.
///
/// # Errors
/// Never in practice.
pub fn restore_signals(mask: SignalMask) -> io::Result<()> {
    change_mask(&mask.0).map(drop)
}

/// Blocks these signals besides those that are blocked; the mask before.
pub(crate) fn block(set: &libc::sigset_t) -> io::Result<SignalMask> {
    // SAFETY: sigset_t is a plain array of integers.
    let mut old: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both sets are valid for the call.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, &raw mut old) };
    if result == 0 {
        Ok(SignalMask(old))
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

fn change_mask(new: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    // SAFETY: sigset_t is a plain array of integers.
    let mut old: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both sets are valid for the call. In a process with one thread this equals pthread_sigmask.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, new, &raw mut old) };
    crate::check(result.into()).map(|_| old)
}

/// Gives every signal its default action and unblocks all, for the program that execve will start: an ignored signal
/// and the mask survive execve, and Rust's runtime ignores SIGPIPE.
///
/// # Errors
/// Never in practice.
pub fn reset_signals() -> io::Result<()> {
    // The kernel's struct sigaction of all 64-bit machines: handler (zero is SIG_DFL), flags, restorer, 64-bit mask.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        let (new, old) = (default.as_ptr(), ptr::null_mut::<u64>());
        // SAFETY: sets a default action from a valid structure; no handler of ours is involved. The raw call also reaches the
        // two signals that libc keeps for itself. KILL and STOP are refused with EINVAL, which is right to pass over.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) };
    }
    // SAFETY: sigset_t is a plain array of integers; zero is the empty set.
    let empty: libc::sigset_t = unsafe { mem::zeroed() };
    change_mask(&empty).map(drop)
}

/// Joins a new anonymous session keyring, so that the container does not share the caller's keys.
///
/// # Errors
/// What the kernel says: `Unsupported` without keyrings, `QuotaExceeded` when the user has too many.
pub fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    crate::check(result).map(drop)
}

/// Flags of [`install_filter`]: `SECCOMP_FILTER_FLAG_LOG`.
pub const FILTER_LOG: u32 = 1 << 1;
/// Flags of [`install_filter`]: `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FILTER_SPEC_ALLOW: u32 = 1 << 2;
/// Flags of [`install_filter`]: `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FILTER_NEW_LISTENER: u32 = 1 << 3;

/// Installs a seccomp filter for the calling process: at most 4096 instructions. With [`FILTER_NEW_LISTENER`] the listener is returned.
///
/// # Errors
/// `PermissionDenied` without both no_new_privs and CAP_SYS_ADMIN, `InvalidInput` for a malformed program.
pub fn install_filter(program: &[libc::sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` points at `length` instructions that the kernel copies and checks before use; it writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            &raw const fprog,
        )
    };
    let result = crate::check(result)?;
    if flags & FILTER_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let listener = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) }))
}

/// Sends any signal, realtime ones too, to the process of `pidfd`; zero only asks whether it is there.
///
/// # Errors
/// What the kernel says: ESRCH for a process that is gone, `InvalidInput` for a number that is no signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null info makes the kernel fill in the sender; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    crate::check(result).map(drop)
}

/// When a process began, in clock ticks since the boot, which with its number names it for good; none of one that has
/// ended, a zombie too.
#[must_use]
pub fn started(pid: i32) -> Option<u64> {
    // One read has it all: the 52 fields of proc_pid_stat(5) are shorter.
    let mut buffer = [0_u8; 2048];
    let read = std::fs::File::open(format!("/proc/{pid}/stat"))
        .and_then(|mut file| io::Read::read(&mut file, &mut buffer))
        .ok()?;
    // A name may be no UTF-8.
    let name_end = buffer[..read].iter().rposition(|&byte| byte == b')')?;
    let after_name = std::str::from_utf8(buffer.get(name_end + 2..read)?).ok()?;
    // A zombie has ended, though its number is still taken.
    if after_name.starts_with('Z') {
        return None;
    }
    after_name.split(' ').nth(19)?.parse().ok()
}

/// Number of a living process's inode in pidfs, which no other process of this boot has: for who would ask [`started`] of
/// a thousand, at a quarter of the price.
///
/// # Errors
/// `NotFound` for one that has ended, a zombie too; `Unsupported` where pidfds have no inodes of their own (before
/// Linux 6.9, and with numbers of 32 bits). What else the kernel says concerns the caller, not the process: no more descriptors.
pub fn pidfs_inode(pid: i32) -> io::Result<u64> {
    use rustix::io::Errno;
    const PIDFS: u64 = 0x5049_4446;
    if cfg!(not(target_pointer_width = "64")) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let handle = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(handle) => handle,
        // INVAL is said of a thread that is not its process's first: the process of that number is gone.
        Err(Errno::SRCH | Errno::INVAL) => return Err(io::ErrorKind::NotFound.into()),
        Err(errno) => return Err(errno.into()),
    };
    // One answer for all processes, and asked once.
    static KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let file_system = || rustix::fs::fstatfs(&handle).is_ok_and(|of| u64::try_from(of.f_type) == Ok(PIDFS));
    if !*KNOWN.get_or_init(file_system) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // A pidfd can be read from when its process has ended.
    let mut ends = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    if rustix::event::poll(&mut ends, Some(&rustix::time::Timespec::default()))? > 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(rustix::fs::fstat(&handle)?.st_ino)
}

/// How a process ended that is no child of the caller: its exit code, or 128 and the signal's number. None while it lives.
/// The kernel keeps it for who has a handle (Linux 6.15), once whoever reaps the process has done that, for which this
/// waits for so long; 255 when nobody can tell.
#[must_use]
pub fn end_of_another(pidfd: BorrowedFd<'_>, patience: std::time::Duration) -> Option<i32> {
    /// `struct pidfd_info` as it was in 6.13, of 64 bytes.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const UNKNOWN: i32 = 255;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut ends, Some(&Timespec::default())) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return None,
        _ => {}
    }
    // Said of one that was reaped, whatever is asked for.
    let mut reaped = [PollFd::new(&pidfd, PollFlags::empty())];
    let patience = Timespec::try_from(patience).ok();
    // If it is not by now, nobody can tell; the question below says so.
    _ = poll(&mut reaped, patience.as_ref());
    let mut info = Info {
        mask: PIDFD_INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: the request says that it reads and writes 64 bytes, which `info` has.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return Some(UNKNOWN);
    }
    Some(match (info.exit_code & 0x7f, (info.exit_code >> 8) & 0xff) {
        (0, code) => code,
        (signal, _) => 128 + signal,
    })
}

/// Has the kernel kill this process when its parent ends (`PR_SET_PDEATHSIG`): for a child that only waits for it.
///
/// # Errors
/// `NotFound` when `parent` has ended already.
pub fn end_with(parent: rustix::process::Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Makes the calling thread act on file systems as this user and group (setfsuid(2)), with the capabilities that it has.
///
/// # Errors
/// `PermissionDenied` without CAP_SETUID and CAP_SETGID.
pub fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    const NO_ID: libc::c_long = -1;
    let capabilities = rustix::thread::capabilities(None)?;
    let set = |call: libc::c_long, id: libc::c_long| {
        // SAFETY: both calls take one number and touch no memory.
        unsafe { libc::syscall(call, id) };
        // Neither tells of a failure; minus one is no id, and asks which one is in force.
        // SAFETY: as above.
        let in_force = unsafe { libc::syscall(call, NO_ID) };
        // The kernel gives back a signed number of 32 bits on some targets.
        (in_force & 0xffff_ffff) == id
    };
    // The group first: without user 0 there is no right to it.
    let group = set(libc::SYS_setfsgid, libc::c_long::from(gid));
    if !(set(libc::SYS_setfsuid, libc::c_long::from(uid)) && group) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // Leaving user 0 took those that concern files (capabilities(7)).
    rustix::thread::set_capabilities(None, capabilities)?;
    Ok(())
}

/// Does `work` as [`set_fs_ids`] says, and is the one from before again.
///
/// # Errors
/// As [`set_fs_ids`]; after a failed return the thread acts as the other one, and must end.
pub fn with_fs_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    set_fs_ids(uid, gid)?;
    let outcome = work();
    set_fs_ids(
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_anothers_child_is_known_to_who_has_a_handle() {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        use std::os::fd::AsFd as _;
        let ends = [("exit 7", 7), ("kill -9 $$", 137)];
        for (script, code) in ends {
            let mut child = std::process::Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
            let patience = std::time::Duration::from_millis(50);
            assert_eq!(end_of_another(handle.as_fd(), patience), None);
            drop(child.stdin.take());
            // As whoever reaps it does.
            child.wait().unwrap();
            let known = end_of_another(handle.as_fd(), patience).unwrap();
            // A kernel before 6.15 keeps no exit codes.
            assert!(known == code || known == 255, "{script}: {known}");
            if known == 255 {
                return;
            }
        }
    }

    #[test]
    fn a_process_has_a_number_of_its_own_until_it_ends_also_as_a_zombie() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mine = match pidfs_inode(own) {
            // A kernel before 6.9: there is nothing to compare.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            mine => mine.unwrap(),
        };
        assert_eq!(pidfs_inode(own).unwrap(), mine);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_ne!(pidfs_inode(pid).unwrap(), mine);
        child.kill().unwrap();
        // Not waited for, it is a zombie.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while pidfs_inode(pid).is_ok() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(started(pid), None);
        assert_eq!(pidfs_inode(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
        child.wait().unwrap();
        assert_eq!(pidfs_inode(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(pidfs_inode(0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
