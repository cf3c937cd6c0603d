//! Work on hostile bytes, done by a process that can do nothing else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use dhow_oci::runtime::{Seccomp, SyscallRule};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::process::{Resource, Rlimit, WaitOptions};

use crate::{Context as _, Error};

/// Memory of such a process: its largest input, unpacked, and what is made of it.
const MEMORY: u64 = 2 << 30;
/// Processor seconds.
const SECONDS: u64 = 600;
/// Largest answer.
const MOST_ANSWER: u64 = 512 << 20;

/// Calls that reading files and thinking about them needs; everything else fails with EPERM.
const CALLS: &[&str] = &[
    "brk",
    "clock_gettime",
    "close",
    "exit",
    "exit_group",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getdents64",
    "getpid",
    "getrandom",
    "gettid",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "openat2",
    "pread64",
    "read",
    "readlinkat",
    "readv",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sigaltstack",
    "statx",
    "tgkill",
    "write",
    "writev",
];

/// A process at work.
#[derive(Debug)]
pub(crate) struct Confined {
    pid: rustix::process::Pid,
    answer: File,
}

impl Confined {
    /// Starts `work`, on a tree of files or on what is open already. The process reads the tree and writes its answer, and may do
    /// nothing else: Landlock leaves it that one directory or none (Linux 5.13), seccomp the calls above, and limits its memory
    /// and time. The caller must be single-threaded.
    pub(crate) fn start(
        tree: Option<&Root>,
        work: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Self, Error> {
        let what = || "make a process that looks through files";
        let filter = filter()?;
        let parent = rustix::process::getpid();
        let (reader, writer) = std::io::pipe().context(what)?;
        let Some(pid) = dhow_sys::clone::fork().context(what)? else {
            drop(reader);
            let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
            let ends_with_parent = dhow_sys::process::end_with(parent).context(what);
            let confined = ends_with_parent.and_then(|()| confine(tree, &filter));
            let code = match confined.and_then(|()| work()) {
                Ok(answer) => writer.write_all(&answer).map_or(2, |()| 0),
                Err(error) => {
                    // Its reader tells it as the reason.
                    drop(writer.write_all(crate::worker::chain(&error).as_bytes()));
                    1
                }
            };
            dhow_sys::background::exit_now(code)
        };
        Ok(Self {
            pid,
            answer: File::from(std::os::fd::OwnedFd::from(reader)),
        })
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// What it said; `ResourceExhausted` when it was ended by its limits.
    pub(crate) fn wait(self) -> Result<Vec<u8>, Error> {
        let mut answer = Vec::new();
        let read = (&self.answer).take(MOST_ANSWER).read_to_end(&mut answer);
        drop(self.answer);
        let status = loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(std::io::Error::from(errno)).context(|| "wait for a process");
                }
                Ok(None) => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "a process ended without a status",
                    ));
                }
                Ok(Some((_, status))) => break status,
            }
        };
        read.context(|| "read what was found")?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => Ok(answer),
            (Some(1), _) => Err(Error::new(
                ErrorKind::Internal,
                String::from_utf8_lossy(&answer).into_owned(),
            )),
            (_, Some(signal)) => Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("what looks through files was ended by signal {signal}"),
            )
            .with_hint("its files may be made to exhaust whoever reads them")),
            _ => Err(Error::new(
                ErrorKind::Cancelled,
                "what looks through files ended before it was done",
            )),
        }
    }
}

fn filter() -> Result<dhow_seccomp::Program, Error> {
    let profile = Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        syscalls: vec![SyscallRule {
            names: CALLS.iter().map(|&call| call.to_owned()).collect(),
            action: "SCMP_ACT_ALLOW".to_owned(),
            ..SyscallRule::default()
        }],
        ..Seccomp::default()
    };
    dhow_seccomp::compile(&profile, dhow_seccomp::Arch::host()).context(|| "confine a process")
}

/// Gives up, for good, all that reading the tree does not need.
fn confine(tree: Option<&Root>, filter: &dhow_seccomp::Program) -> Result<(), Error> {
    let what = || "confine a process";
    for (resource, most) in [
        (Resource::As, MEMORY),
        (Resource::Cpu, SECONDS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        rustix::process::setrlimit(resource, limit)
            .map_err(std::io::Error::from)
            .context(what)?;
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(std::io::Error::from)
        .context(what)?;
    // A kernel without it still has the filter, which lets nothing be written, and paths that `rootpath` keeps inside.
    if dhow_sys::landlock::abi().is_ok() {
        const READ_FILE: u64 = 1 << 2;
        const READ_DIR: u64 = 1 << 3;
        // The thirteen rights of the first version.
        const ALL: u64 = (1 << 13) - 1;
        let handled = dhow_sys::landlock::Handled {
            files: ALL,
            ..Default::default()
        };
        let rules = dhow_sys::landlock::Ruleset::new(&handled).context(what)?;
        if let Some(tree) = tree {
            rules
                .allow_beneath(READ_FILE | READ_DIR, tree.as_fd())
                .context(what)?;
        }
        rules.restrict_self().context(what)?;
    }
    dhow_sys::process::install_filter(&filter.filter, filter.flags).context(what)?;
    Ok(())
}
