//! Standard streams: three descriptors, or a terminal of the container's devpts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, tcsetattr};

use super::dev;
use crate::plan::Program;
use crate::report::{At, Failure, Step};

/// Magic number of devpts (`include/uapi/linux/magic.h`).
const DEVPTS: u64 = 0x1cd1;

/// Opens a terminal in the root's devpts and makes it the process's; returns the master.
///
/// The other end comes from the master itself (TIOCGPTPEER), never from a path like /dev/pts/0 that another process
/// could swap (CVE-2025-52565), and the master is proved to be one of a devpts.
/// Without `control` it is left to a later process to make it its controlling terminal.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    program: &Program,
    console: bool,
    control: bool,
) -> Result<OwnedFd, Failure> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat2(root, c"dev/pts/ptmx", flags, Mode::empty(), resolve).at(Step::Terminal)?;
    let stat = fstat(&master).at(Step::Terminal)?;
    let magic = fstatfs(&master).at(Step::Terminal)?.f_type;
    if !dev::is_device(&stat, 5, 2) || u64::try_from(magic).ok() != Some(DEVPTS) {
        return Err(Errno::NOTTY).at(Step::Terminal);
    }
    unlockpt(&master).at(Step::Terminal)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(&master, flags).at(Step::Terminal)?;
    if program.bare_newlines {
        let mut modes = rustix::termios::tcgetattr(&terminal).at(Step::Terminal)?;
        modes.output_modes &= !OutputModes::ONLCR;
        tcsetattr(&terminal, OptionalActions::Now, &modes).at(Step::Terminal)?;
    }
    if let Some(size) = program.console_size {
        rustix::termios::tcsetwinsize(&master, size).at(Step::Terminal)?;
    }
    if console {
        dev::console(root, &terminal)?;
    }
    if control {
        rustix::process::ioctl_tiocsctty(&terminal).at(Step::Terminal)?;
    }
    streams([terminal.as_fd(); 3], program.uid, program.gid)?;
    Ok(master)
}

/// Makes the three descriptors standard input, output and error.
///
/// Pipes and terminals are given to the user the program runs as, so that it can open /dev/stdout again; files keep
/// their owner.
pub(crate) fn streams(fds: [BorrowedFd<'_>; 3], user: Uid, group: Gid) -> Result<(), Failure> {
    let mut moved: [Option<OwnedFd>; 3] = [const { None }; 3];
    for (fd, moved) in fds.iter().zip(&mut moved) {
        // One that sits at 0, 1 or 2 would be overwritten by another one, or keep its close-on-exec flag.
        if fd.as_raw_fd() < 3 {
            *moved = Some(rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Stdio)?);
        }
    }
    let [stdin, stdout, stderr] = [0, 1, 2].map(|at: usize| {
        let moved = moved.get(at).and_then(Option::as_ref).map(AsFd::as_fd);
        moved.or(fds.get(at).copied())
    });
    if let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) {
        rustix::stdio::dup2_stdin(stdin).at(Step::Stdio)?;
        rustix::stdio::dup2_stdout(stdout).at(Step::Stdio)?;
        rustix::stdio::dup2_stderr(stderr).at(Step::Stdio)?;
        if !user.is_root() {
            for fd in [stdin, stdout, stderr] {
                give(fd, user, group)?;
            }
        }
    }
    Ok(())
}

fn give(fd: BorrowedFd<'_>, user: Uid, group: Gid) -> Result<(), Failure> {
    let stat = fstat(fd).at(Step::Stdio)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let terminal = kind == FileType::CharacterDevice && rustix::termios::isatty(fd);
    if stat.st_uid == user.as_raw() || !(terminal || kind == FileType::Fifo) {
        return Ok(());
    }
    // A terminal keeps its group, which is the one that may write to terminals.
    let group = (!terminal).then_some(group);
    match rustix::fs::fchown(fd, Some(user), group) {
        // The stream is the host's business then: read-only, or an id that the user namespace does not map.
        Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => Ok(()),
        done => done.at(Step::Stdio),
    }
}
