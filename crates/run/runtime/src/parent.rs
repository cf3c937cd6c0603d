//! What `create` and `exec` do alike on the parent's side: the link to the child, its place, its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_cgroup::Group;
use dhow_oci::runtime::State;
use dhow_sys::clone::{Child, Options};
use dhow_sys::process::{block_signals, restore_signals};
use dhow_sys::sched::Urgent;
use dhow_types::ErrorKind;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use crate::agent::{self, Agent};
use crate::create::{Namespace, Running, Stdio};
use crate::init::target;
use crate::plan::{Plan, Program, Share};
use crate::report::{Failure, LONGEST, Message, Name, Step, words};
use crate::{Context as _, Error, within};

/// The parent's end of the socket between the two.
#[derive(Debug)]
pub(crate) struct Link(pub(crate) OwnedFd);

/// The word for the child of [`Message::Listener`] that says "send it"; any other says "go on".
pub(crate) const SEND_IT: u8 = 2;

/// What came from the child.
pub(crate) enum Answer {
    /// It is set up; with the master of its terminal.
    Ready(Option<OwnedFd>),
    /// Its filter is loaded, and this number is the listener; it waits.
    Listener(u32),
    /// It is set up but for its change of root, and waits for the hooks of the runtime's namespaces.
    Hooks,
    /// A step failed.
    Failed(Failure),
    /// Something failed that no errno tells.
    Said(String),
    /// Its end closed: execve succeeded, or it died.
    Closed,
    /// The socket itself failed, or a message made no sense.
    Broken(io::Error),
    /// The stub handed over to the process of this number, or could not.
    HandedOver(u32, i32),
}

impl Link {
    /// A socket that keeps the borders of messages: this end, and the child's.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), Error> {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.map_err(io::Error::from).context(|| "make a socket pair")?;
        Ok((Self(ours), theirs))
    }

    /// Says "go on" to the child. One that is gone answers by its end.
    pub(crate) fn tell(&self) {
        match dhow_sys::fd::send(&self.0, &[1], &[]) {
            Ok(_) | Err(_) => {}
        }
    }

    /// Asks the child to send the descriptor that it spoke of.
    pub(crate) fn ask_for_descriptor(&self) -> io::Result<OwnedFd> {
        dhow_sys::fd::send(&self.0, &[SEND_IT], &[])?;
        let (_, fds) = dhow_sys::fd::receive(&self.0, &mut [0; 1])?;
        fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// Hands a descriptor to the child. One that is gone answers by its end.
    pub(crate) fn hand(&self, fd: &OwnedFd) -> Result<(), Error> {
        match dhow_sys::fd::send(&self.0, &[1], &[fd.as_fd()]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::wrap(error, "hand a namespace to the container's process"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for the next message that is not about the parent's own part in the mounts.
    pub(crate) fn answer(&self) -> Answer {
        loop {
            match self.next() {
                Next::Answer(answer) => return answer,
                Next::MapIds {
                    index,
                    recursive,
                    fds,
                } => {
                    if let Err(failure) = map_ids(index, recursive, &fds) {
                        return Answer::Failed(failure);
                    }
                }
            }
        }
    }

    fn next(&self) -> Next {
        let mut bytes = [0; LONGEST];
        let mut received = dhow_sys::fd::receive(&self.0, &mut bytes);
        // A child that exits with a word of ours unread resets the connection (unix_release_sock); that is reported
        // once, before what it had sent.
        if received
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
        {
            received = dhow_sys::fd::receive(&self.0, &mut bytes);
        }
        Next::Answer(match received {
            Err(error) => Answer::Broken(error),
            Ok((0, _)) => Answer::Closed,
            Ok((length, fds)) => {
                let bytes = bytes.get(..length).unwrap_or_default();
                match (Message::decode(bytes), words(bytes)) {
                    (Some(Message::MapIds(index, recursive)), _) => {
                        return Next::MapIds {
                            index,
                            recursive,
                            fds,
                        };
                    }
                    (Some(Message::Ready), _) => Answer::Ready(fds.into_iter().next()),
                    (Some(Message::Hooks), _) => Answer::Hooks,
                    (Some(Message::HandedOver(pid, errno)), _) => Answer::HandedOver(pid, errno),
                    (Some(Message::Listener(number)), _) => Answer::Listener(number),
                    (Some(Message::Failed(failure)), _) => Answer::Failed(failure),
                    (None, Some(words)) => Answer::Said(words),
                    (None, None) => Answer::Broken(io::ErrorKind::InvalidData.into()),
                }
            }
        })
    }
}

/// A message, or a part of the work that the child has not the rights for.
enum Next {
    Answer(Answer),
    MapIds {
        index: u32,
        recursive: bool,
        fds: Vec<OwnedFd>,
    },
}

/// Maps the ids of a mount that a child in a user namespace made of something inside its root: only who has rights over the
/// whole file system may (mount_setattr(2)).
fn map_ids(index: u32, recursive: bool, fds: &[OwnedFd]) -> Result<(), Failure> {
    let failed = |errno: i32| Failure {
        step: Step::MapIds,
        index,
        errno,
    };
    let [tree, users, done] = fds else {
        return Err(failed(libc::EBADMSG));
    };
    let mapped = target::map_ids(tree, users, recursive);
    mapped.map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EIO)))?;
    match dhow_sys::fd::send(done, &[1], &[]) {
        // A child that is gone is seen by the end of its link.
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Answer {
    /// The error of a child that should have been ready; the child is ended and reaped.
    pub(crate) fn into_error(
        self,
        child: &Child,
        name: &Name,
        program: Option<&Program>,
        plan: Option<&Plan>,
    ) -> Error {
        end(child);
        self.into_failure(name, program, plan)
    }

    /// The error this answer is.
    pub(crate) fn into_failure(self, name: &Name, program: Option<&Program>, plan: Option<&Plan>) -> Error {
        match self {
            Self::Failed(failure) => failure.explain(name, program, plan),
            Self::Broken(error) => Error::wrap(error, "receive the report of the container's process"),
            Self::Said(words) => Error::new(ErrorKind::FailedPrecondition, words),
            Self::Closed | Self::Ready(_) | Self::Listener(_) | Self::Hooks | Self::HandedOver(..) => {
                Error::new(
                    ErrorKind::Internal,
                    "container's process died while it was set up",
                )
                .with_hint("it may have run out of memory: look at the kernel log and the memory limit")
            }
        }
    }
}

/// Waits until a child that was told to go on has become its program. `state` is the container's.
pub(crate) fn running(
    child: Child,
    link: &Link,
    program: &Program,
    plan: Option<&Plan>,
    state: Option<&State>,
) -> Result<Running, Error> {
    let terminal = match link.answer() {
        Answer::Ready(terminal) => terminal,
        answer => return Err(answer.into_error(&child, &program.name, Some(program), plan)),
    };
    let pid = child.pid.as_raw_pid();
    match executed(link, pid, child.pidfd.as_fd(), program.agent.as_ref(), state) {
        Ok(Answer::Closed) => Ok(Running {
            pid,
            pidfd: child.pidfd,
            terminal,
        }),
        Ok(answer) => Err(answer.into_error(&child, &program.name, Some(program), plan)),
        Err(error) => {
            end(&child);
            Err(error)
        }
    }
}

/// The last answer of a child that was told to go on; on the way the agent of its filter gets the listener.
///
/// # Errors
/// When the agent cannot be reached. The child waits for it, and wants to be ended.
pub(crate) fn executed(
    link: &Link,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    agent: Option<&Agent>,
    state: Option<&State>,
) -> Result<Answer, Error> {
    match (link.answer(), agent) {
        (Answer::Listener(number), Some(agent)) => {
            agent.introduce(link, pidfd, number, agent::process_state(pid, state))?;
            Ok(link.answer())
        }
        (answer, _) => Ok(answer),
    }
}

/// Kills and reaps a child that failed.
pub(crate) fn end(child: &Child) {
    kill(child.pidfd.as_fd());
}

/// Kills and reaps the process of `pidfd`, a child.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) {
    match dhow_sys::process::send_signal(pidfd, libc::SIGKILL) {
        // Gone already; what counts is that nothing of it is left, which waiting makes sure of.
        Ok(()) | Err(_) => reap(pidfd),
    }
}

/// Reaps a child that is about to exit.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) {
    match crate::wait(pidfd) {
        // A caller that ignores SIGCHLD has it reaped by the kernel.
        Ok(_) | Err(_) => {}
    }
}

/// The streams as the child takes them; none for a terminal.
pub(crate) fn streams(stdio: &Stdio, terminal: bool) -> Result<Option<[BorrowedFd<'_>; 3]>, Error> {
    match stdio {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } if !terminal => Ok(Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])),
        Stdio::Terminal if terminal => Ok(None),
        _ => {
            let message = "process.terminal of the spec and the streams given do not fit together";
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

/// How a child gets into its control group.
pub(crate) struct Place<'a> {
    /// Directory in the v2 tree to be born in.
    born: Option<BorrowedFd<'a>>,
    /// Files to write itself into: of v1 groups, of classes of service.
    entrances: Vec<OwnedFd>,
    /// Whether neither is there for a group that is wanted.
    by_parent: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn of(group: Option<&'a Group>) -> Result<Self, Error> {
        let Some(group) = group else {
            return Ok(Self {
                born: None,
                entrances: Vec::new(),
                by_parent: false,
            });
        };
        let entrances = group
            .entrances()
            .context(|| format!("enter control group {}", group.path().display()))?;
        let born = group.v2_fd();
        Ok(Self {
            by_parent: born.is_none() && entrances.is_empty(),
            born,
            entrances,
        })
    }

    /// The same with more files to write itself into, of another kind of groups.
    pub(crate) fn and(mut self, classes: &[OwnedFd]) -> Result<Self, Error> {
        for entrance in classes {
            let entrance = entrance.try_clone();
            self.entrances
                .push(entrance.context(|| "duplicate the entrance of a class of service")?);
        }
        Ok(self)
    }

    pub(crate) fn entrances(&self) -> &[OwnedFd] {
        &self.entrances
    }

    pub(crate) fn by_parent(&self) -> bool {
        self.by_parent
    }

    /// A child that begins at once, on a processor of its own, beside what its parent has still to do: some kernels leave it
    /// behind the parent until that one sleeps. None for one that is born into its group or moved there by the parent: a group
    /// without a share of realtime takes no urgent process in (`sched_rt_can_attach`).
    pub(crate) fn urgent(&self) -> Option<Urgent> {
        (self.born.is_none() && !self.by_parent).then(Urgent::begin)
    }

    /// Clones the child with all signals blocked, so that none is delivered to code of the parent in it. Says whether
    /// the parent has to move the child into the group: the kernel may refuse the birth in it (Linux before 5.7, a
    /// threaded or populated inner group), and what the child is told by its argument is the same.
    ///
    /// A process between the two enters the namespaces of `between`, if there are any.
    pub(crate) fn spawn(
        &self,
        namespaces: UnshareFlags,
        between: &[(Namespace, OwnedFd)],
        mut child: impl FnMut(bool) -> i32,
    ) -> Result<(Child, bool), Error> {
        let mask = block_signals().context(|| "block signals")?;
        let by_parent = self.by_parent;
        let mut options = Options {
            namespaces,
            cgroup: self.born,
            sibling: false,
        };
        let mut spawn = |options: &Options<'_>, by_parent| {
            let spawned = if between.is_empty() {
                dhow_sys::clone::spawn(options, || child(by_parent))
            } else {
                within::spawn(between, options, || child(by_parent))
            };
            spawned.map(|child| (child, by_parent))
        };
        let mut spawned = spawn(&options, by_parent);
        if spawned.is_err() && self.born.is_some() {
            options.cgroup = None;
            spawned = spawn(&options, true);
        }
        restore_signals(mask).context(|| "restore signals")?;
        spawned.context(|| "clone the container's process").map_err(|error| {
            if error.kind() == ErrorKind::PermissionDenied {
                error.with_hint("namespaces need CAP_SYS_ADMIN, or a user namespace in the spec that this host allows")
            } else {
                error
            }
        })
    }
}

/// The CPUs a process of `exec` begins on: the parent's own for the moment of the clone.
#[must_use = "the CPUs come back when it is dropped"]
pub(crate) struct FirstCpus(Option<Vec<u64>>);

impl FirstCpus {
    pub(crate) fn take(share: Option<&Share>) -> Result<Self, Error> {
        let Some(cpus) = share.and_then(|share| share.first_cpus.as_ref()) else {
            return Ok(Self(None));
        };
        let own = dhow_sys::sched::affinity().context(|| "ask for the own CPUs")?;
        dhow_sys::sched::set_affinity(cpus).context(|| "set the initial CPU affinity")?;
        Ok(Self(Some(own)))
    }
}

impl Drop for FirstCpus {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            match dhow_sys::sched::set_affinity(own) {
                // They were the caller's a moment ago; a CPU that went away meanwhile is no failure of this exec.
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Namespaces that the parent itself is in for the moment of the clone, and the way back.
pub(crate) struct Visit(Vec<OwnedFd>);

impl Visit {
    pub(crate) fn enter(namespaces: &[(Namespace, OwnedFd)]) -> Result<Self, Error> {
        let mut visit = Self(Vec::with_capacity(namespaces.len()));
        for (kind, fd) in namespaces {
            visit.0.push(home(*kind)?);
            if let Err(error) = dhow_sys::namespace::enter(fd) {
                visit.0.pop();
                visit.leave()?;
                return Err(Error::wrap(error, format!("enter {kind:?} namespace")));
            }
        }
        Ok(visit)
    }

    /// Enters the process id namespace of a process, for children.
    pub(crate) fn enter_processes_of(pidfd: BorrowedFd<'_>) -> Result<Self, Error> {
        let home = home(Namespace::Pid)?;
        let entered = rustix::thread::move_into_thread_name_spaces(
            pidfd,
            rustix::thread::ThreadNameSpaceType::PROCESS_ID,
        );
        entered
            .map_err(io::Error::from)
            .context(|| "enter the container's process id namespace")?;
        Ok(Self(vec![home]))
    }

    pub(crate) fn leave(self) -> Result<(), Error> {
        for home in self.0.iter().rev() {
            dhow_sys::namespace::enter(home).context(|| "return to the host's namespace")?;
        }
        Ok(())
    }
}

/// Makes a network namespace with its loopback device up, and comes back.
pub(crate) fn network() -> Result<OwnedFd, Error> {
    let home = home(Namespace::Network)?;
    let network = network_of_a_thread();
    dhow_sys::namespace::enter(&home).context(|| "return to the host's network namespace")?;
    network
}

/// The same by a thread that does not come back: its end is near.
pub(crate) fn network_of_a_thread() -> Result<OwnedFd, Error> {
    let network = dhow_sys::namespace::unshare_net().context(|| "make a network namespace")?;
    let up = dhow_sys::namespace::loopback_up().context(|| "bring the loopback device up");
    up.map(|()| network)
}

/// The namespace that this process is in.
pub(crate) fn home(kind: Namespace) -> Result<OwnedFd, Error> {
    let path = match kind {
        Namespace::Cgroup => c"/proc/self/ns/cgroup",
        Namespace::Ipc => c"/proc/self/ns/ipc",
        Namespace::Mount => c"/proc/self/ns/mnt",
        Namespace::Network => c"/proc/self/ns/net",
        Namespace::Pid => c"/proc/self/ns/pid_for_children",
        Namespace::Time => c"/proc/self/ns/time_for_children",
        Namespace::User => c"/proc/self/ns/user",
        Namespace::Uts => c"/proc/self/ns/uts",
    };
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened
        .map_err(io::Error::from)
        .context(|| format!("open the host's {kind:?} namespace"))
}

/// Keeps the caller not dumpable while it lives: the child inherits that, so there is no moment in which a process of
/// a shared process id namespace could trace it or open its program through `/proc/<pid>/exe` (CVE-2019-5736).
#[must_use = "the protection ends when it is dropped"]
pub(crate) struct Protection(bool);

pub(crate) fn protect(wanted: bool) -> Result<Protection, Error> {
    let dumpable = dumpable_behavior()
        .map_err(io::Error::from)
        .context(|| "ask whether the process is dumpable")?;
    if !wanted || dumpable != DumpableBehavior::Dumpable {
        return Ok(Protection(false));
    }
    let set = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    set.map_err(io::Error::from)
        .context(|| "make the process not dumpable")?;
    Ok(Protection(true))
}

impl Drop for Protection {
    fn drop(&mut self) {
        if self.0 {
            match set_dumpable_behavior(DumpableBehavior::Dumpable) {
                // Cannot fail for this value; staying protected would do no harm.
                Ok(()) | Err(_) => {}
            }
        }
    }
}
