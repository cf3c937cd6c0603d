//! Who the process is: limits, ids, capabilities, filter; then execve.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use dhow_sys::stub::Stub;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::lsm::{Attributes, StubLabel};
use crate::parent::SEND_IT;
use crate::plan::{Program, Share};
use crate::report::{At, Failure, Message, Step};

/// Whether a user namespace lets its processes change their supplementary groups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetGroups {
    Allowed,
    /// Made without privilege: `/proc/<pid>/setgroups` says `deny` (user_namespaces(7)).
    Denied,
    /// Nobody asked to: those of the caller stay.
    Kept,
}

impl SetGroups {
    /// What the user namespace that the program's parent is in allows.
    pub(crate) const fn possible(program: &Program) -> Self {
        if program.groups_denied {
            Self::Denied
        } else {
            Self::Allowed
        }
    }
}

/// Becomes root of the user namespace it is in.
pub(crate) fn become_root(groups: SetGroups) -> Result<SetGroups, Failure> {
    let groups = match groups {
        SetGroups::Allowed => match rustix::thread::set_thread_groups(&[]) {
            Err(Errno::PERM) => SetGroups::Denied,
            done => done.map(|()| SetGroups::Allowed).at(Step::Groups)?,
        },
        other => other,
    };
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at(Step::Groups)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at(Step::UserId)?;
    Ok(groups)
}

/// Everything about the identity that can be done before the parent says start: all but filter and capabilities.
pub(crate) fn settle(program: &Program, groups: SetGroups) -> Result<(), Failure> {
    if let Some(share) = &program.share {
        take_share(share)?;
    }
    for (index, (resource, limit)) in program.rlimits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).at_index(Step::Rlimit, index)?;
    }
    if program.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    }
    limit_bounding_set(program.masks.bounding)?;
    // As root first: the user may be unable to reach a directory that was meant for it. If root cannot (a network file
    // system that maps root away), the user tries.
    let reached = enter_directory(program);
    change_user(program, groups)?;
    match reached {
        Err(Errno::ACCESS | Errno::PERM) => enter_directory(program).at(Step::WorkingDirectory)?,
        reached => reached.at(Step::WorkingDirectory)?,
    }
    verify_directory()?;
    rustix::process::umask(program.umask.unwrap_or(rustix::fs::Mode::from_raw_mode(0o022)));
    Ok(())
}

/// Before the limits and the change of user, which would forbid it.
fn take_share(share: &Share) -> Result<(), Failure> {
    use dhow_sys::sched;
    if let Some(attributes) = &share.scheduler {
        sched::set_scheduler(attributes).at(Step::Scheduler)?;
    }
    if let Some((class, level)) = share.io_priority {
        sched::set_io_priority(class, level).at(Step::IoPriority)?;
    }
    if let Some((mode, nodes)) = &share.memory {
        sched::set_memory_policy(*mode, nodes).at(Step::MemoryPolicy)?;
    }
    if let Some(domain) = share.personality {
        sched::set_personality(domain).at(Step::Personality)?;
    }
    Ok(())
}

fn limit_bounding_set(keep: CapabilitySet) -> Result<(), Failure> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no capability of this number: all are done.
            Err(Errno::INVAL) => return Ok(()),
            done => done.at(Step::BoundingSet)?,
        }
    }
    Ok(())
}

fn change_user(program: &Program, groups: SetGroups) -> Result<(), Failure> {
    // Where the kernel forbids it, asking for no group but the primary one is fulfilled.
    let wanted = match groups {
        SetGroups::Allowed => true,
        SetGroups::Denied => program.groups.len() > 1,
        SetGroups::Kept => false,
    };
    if wanted {
        rustix::thread::set_thread_groups(&program.groups).at(Step::Groups)?;
    }
    rustix::thread::set_thread_res_gid(program.gid, program.gid, program.gid).at(Step::Groups)?;
    if !program.uid.is_root() {
        // Keeps what the ambient set and the seccomp filter will need; execve resets it.
        rustix::thread::set_keep_capabilities(true).at(Step::UserId)?;
    }
    rustix::thread::set_thread_res_uid(program.uid, program.uid, program.uid).at(Step::UserId)
}

/// A directory that is missing is made, as runc does.
fn enter_directory(program: &Program) -> rustix::io::Result<()> {
    match rustix::process::chdir(program.cwd.as_c_str()) {
        Err(Errno::NOENT) => {
            make_directories(program.cwd.to_bytes())?;
            rustix::process::chdir(program.cwd.as_c_str())
        }
        done => done,
    }
}

/// `mkdir -p` inside the container's root, which is this process's root by now. No link of procfs is entered: the
/// descriptors of the host are still open, and a directory would be made in one of them (CVE-2024-21626).
fn make_directories(path: &[u8]) -> rustix::io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let mut parent = openat2(CWD, c"/", flags, Mode::empty(), resolve)?;
    let mut begin = 0;
    while let Some(rest) = path.get(begin..).filter(|rest| !rest.is_empty()) {
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let end = begin + length;
        if let (Some(name), Some(prefix)) = (
            rest.get(..length).filter(|name| !name.is_empty()),
            path.get(..end),
        ) {
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            parent = openat2(CWD, prefix, flags, Mode::empty(), resolve)?;
        }
        begin = end + 1;
    }
    Ok(())
}

/// CVE-2024-21626: a working directory like /proc/self/fd/7 leads to a directory of the host while the descriptors
/// are still open. The kernel names a directory outside of the root "(unreachable)", and a removed one not at all.
fn verify_directory() -> Result<(), Failure> {
    let inside = match rustix::process::getcwd(Vec::new()) {
        Ok(path) => path.to_bytes().starts_with(b"/"),
        Err(_) => false,
    };
    if inside {
        return Ok(());
    }
    Err(Failure {
        step: Step::WorkingDirectoryEscape,
        index: 0,
        errno: Errno::NOENT.raw_os_error(),
    })
}

/// The last steps: labels, filter and capabilities, then the program. Returns only the failure.
///
/// With no_new_privs the filter needs no capability and comes last, so that it sees nothing but execve. Without, it
/// needs CAP_SYS_ADMIN and comes before the capabilities are given up, so it also sees capset and prctl, as with runc.
///
/// `step` is what has failed when the program cannot be executed.
pub(crate) fn launch(
    program: &Program,
    attributes: Option<&Attributes>,
    link: BorrowedFd<'_>,
    step: Step,
) -> Failure {
    match restrict(program, attributes, link) {
        Ok(label) => execute(program, link, step, label.as_deref()),
        Err(failure) => failure,
    }
}

/// Labels, filter and capabilities, in the order that [`launch`] explains. The label is for the stub's file.
pub(crate) fn restrict(
    program: &Program,
    attributes: Option<&Attributes>,
    link: BorrowedFd<'_>,
) -> Result<StubLabel, Failure> {
    let labelled = match (attributes, &program.labels) {
        (Some(attributes), Some(labels)) => attributes.apply(labels),
        _ => Ok(None),
    };
    let label = labelled?;
    if let Some(landlock) = &program.landlock {
        // Before the filter, which may know nothing of it, and before the capabilities go by which root reaches paths.
        landlock.apply()?;
    }
    if program.no_new_privileges {
        take_capabilities(program).and_then(|()| load_filter(program, link))
    } else {
        raise_for_filter(program)
            .and_then(|()| load_filter(program, link))
            .and_then(|()| take_capabilities(program))
    }
    .map(|()| label)
}

/// The change of user emptied the effective set.
fn raise_for_filter(program: &Program) -> Result<(), Failure> {
    if program.filter.is_none() || program.uid.is_root() {
        return Ok(());
    }
    let held = rustix::thread::capabilities(None).at(Step::Capabilities)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: held.permitted,
            ..held
        },
    )
    .at(Step::Capabilities)
}

fn load_filter(program: &Program, link: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(filter) = &program.filter else {
        return Ok(());
    };
    match dhow_sys::process::install_filter(&filter.filter, filter.flags).at(Step::Seccomp)? {
        Some(listener) => hand_over(listener, link),
        None => Ok(()),
    }
}

/// Tells the parent which descriptor the listener is, and waits until the agent has it. From here on each call may be one
/// that the agent answers; the write is not (the compiler of filters sees to that).
fn hand_over(listener: OwnedFd, link: BorrowedFd<'_>) -> Result<(), Failure> {
    let number = listener.as_raw_fd().cast_unsigned();
    rustix::io::write(link, &Message::Listener(number).encode()).at(Step::Listener)?;
    loop {
        let mut word = [0; 1];
        match rustix::io::read(link, &mut word) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(Errno::PIPE).at(Step::Listener),
            Ok(_) if word == [SEND_IT] => {
                dhow_sys::fd::send(link, &[0], &[listener.as_fd()]).at(Step::Listener)?;
            }
            read => {
                read.at(Step::Listener)?;
                // Execve closes it, as the kernel made it: a close here would be one more call to ask about.
                std::mem::forget(listener);
                return Ok(());
            }
        }
    }
}

fn take_capabilities(program: &Program) -> Result<(), Failure> {
    let masks = program.masks;
    let sets = CapabilitySets {
        effective: masks.effective,
        permitted: masks.permitted,
        inheritable: masks.inheritable,
    };
    set_capabilities(None, sets).at(Step::Capabilities)?;
    rustix::thread::clear_ambient_capability_set().at(Step::Ambient)?;
    for capability in masks.ambient.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true).at(Step::Ambient)?;
    }
    Ok(())
}

/// Executes by way of a stub, since this program is still what `/proc/self/exe` is during execve (CVE-2019-5736).
pub(crate) fn execute(program: &Program, link: BorrowedFd<'_>, step: Step, label: Option<&[u8]>) -> Failure {
    let stub = Stub {
        paths: &program.candidates,
        search: program.name.searched,
        word: step as u32,
        handover: program.handover,
        label,
    };
    let error = dhow_sys::stub::execute(&stub, &program.argv, &program.env, link);
    let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    Failure {
        step: Step::Stub,
        index: 0,
        errno,
    }
}
