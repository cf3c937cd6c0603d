//! What the child tells its parent: which step failed, on which of the plan's things, with which errno.
//!
//! Messages are twelve bytes on a socket that keeps their borders; the socket closes on execve, so its end means
//! that the program runs.

use std::io;

use dhow_types::ErrorKind;
use rustix::io::Errno;

use crate::plan::{Plan, Program, Source};
use crate::{Context as _, Error};

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)*) => {
        /// A step of the child; its words complete "unable to ...".
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub(crate) enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            const ALL: &[Self] = &[$(Self::$name,)*];

            const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

steps! {
    Affinity = "set the CPU affinity",
    AppArmor = "apply apparmor profile",
    Ambient = "raise the ambient capabilities",
    BoundingSet = "limit the capability bounding set",
    Capabilities = "apply capabilities",
    CgroupJoin = "join the control group",
    CgroupMount = "mount the control groups",
    CgroupNamespace = "make a cgroup namespace",
    CloseOnExec = "mark descriptors close-on-exec",
    Console = "set up /dev/console",
    Device = "make device node",
    CopyUp = "copy up what is below mount",
    DeviceDirectory = "open /dev of the root file system",
    DeviceLink = "make symbolic link in /dev",
    Domainname = "set the domain name",
    Dumpable = "protect the process",
    Execute = "execute",
    Find = "find the program",
    Groups = "set groups",
    Hook = "run a hook",
    Hostname = "set the host name",
    Init = "make the first process",
    IoPriority = "set io priority",
    JoinNamespace = "join namespace",
    Keyring = "join a session keyring",
    Landlock = "apply the Landlock ruleset",
    LandlockPath = "open the path of a Landlock rule",
    Listener = "hand the seccomp listener over",
    MapIds = "map the ids of mount (does its file system know idmapped mounts?)",
    Mask = "mask path",
    MemoryPolicy = "set memory policy",
    Mount = "mount",
    MountSource = "open the source of mount",
    MountTarget = "open the target of mount",
    Network = "enter the new network namespace",
    NoNewPrivileges = "set no_new_privs",
    NullDevice = "verify that /dev/null is the null device",
    OomScore = "set oom_score_adj",
    Personality = "set the personality",
    Pivot = "change to the root file system",
    Propagation = "make the mounts private",
    ReadOnly = "make path read-only",
    ReadOnlyRoot = "make the root file system read-only",
    Report = "report to the parent",
    Rlimit = "set resource limit",
    RootFilesystem = "open the root file system",
    RootPropagation = "set the propagation of the root file system",
    Scheduler = "set scheduler",
    Selinux = "apply selinux label",
    Seccomp = "load the seccomp filter",
    Session = "start a session",
    Signals = "reset signals",
    Stdio = "set up standard streams",
    Stub = "execute the stub (memfd; does the seccomp profile allow execveat, vm.memfd_noexec executable memory?)",
    Sysctl = "set sysctl",
    Terminal = "set up the terminal",
    TimeNamespace = "make a time namespace with its offsets",
    UserId = "set the user",
    WorkingDirectory = "chdir to the working directory",
    WorkingDirectoryEscape = "accept the working directory: it is outside of the container's root file system",
}

/// A failed step. `index` says which of the plan's things it was about, where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: i32,
}

/// Names the step of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T, E: Into<Code>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.map_err(|error| Failure {
            step,
            index,
            errno: error.into().0,
        })
    }
}

/// An errno, from whatever carries one.
pub(crate) struct Code(i32);

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
    }
}

impl From<dhow_rootpath::Error> for Code {
    fn from(error: dhow_rootpath::Error) -> Self {
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            if let Some(errno) = inner
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
            {
                return Self(errno);
            }
            if let Some(errno) = inner.downcast_ref::<Errno>() {
                return Self(errno.raw_os_error());
            }
            cause = inner.source();
        }
        Self(match error.kind() {
            ErrorKind::FailedPrecondition => Errno::NOTDIR.raw_os_error(),
            ErrorKind::NotFound => Errno::NOENT.raw_os_error(),
            ErrorKind::PermissionDenied => Errno::ACCESS.raw_os_error(),
            _ => Errno::INVAL.raw_os_error(),
        })
    }
}

/// Length of every message.
pub(crate) const LENGTH: usize = 12;
/// First word of the message "set up, waiting".
const READY: u32 = u32::MAX;
/// First word of the message "set up as far as hooks of the runtime's namespaces want to see it".
const HOOKS: u32 = u32::MAX - 1;
/// First word of a failure told in words; they follow.
const SAID: u32 = u32::MAX - 2;
/// Longest message: a failure in words.
pub(crate) const LONGEST: usize = 2048;

/// A failure in words, as it is sent; cut to what fits.
pub(crate) fn said(words: &str) -> Vec<u8> {
    let mut bytes = SAID.to_ne_bytes().to_vec();
    bytes.extend(words.bytes().take(LONGEST - 4));
    bytes
}

/// The words of a failure that was told in words.
pub(crate) fn words(bytes: &[u8]) -> Option<String> {
    let text = bytes.strip_prefix(&SAID.to_ne_bytes())?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// First word of the message "the listener of my filter is this descriptor"; its number is the second.
const LISTENER: u32 = u32::MAX - 3;

/// First word of the message of the stub that it handed over to the process of this number, or why not.
pub(crate) const HANDED_OVER: u32 = u32::MAX - 4;

/// First word of the message "give this mount those ids"; which mount of the plan and whether with all below it follow.
const MAP_IDS: u32 = u32::MAX - 5;

/// A message of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Ready,
    /// The filter is loaded; its listener is this descriptor of the child, which waits.
    Listener(u32),
    /// Hooks of the runtime's namespaces may run; the child waits.
    Hooks,
    /// The stub made the process of this number, which goes on in its place; or none, because of the errno.
    HandedOver(u32, i32),
    /// The ids of a mount of this index are for the parent to map, of it alone or of all below it too. With it come the
    /// mount, the user namespace, and a socket that says when it is done.
    MapIds(u32, bool),
    Failed(Failure),
}

impl Message {
    pub(crate) fn encode(self) -> [u8; LENGTH] {
        let (first, index, errno) = match self {
            Self::Ready => (READY, 0, 0),
            Self::Listener(number) => (LISTENER, number, 0),
            Self::Hooks => (HOOKS, 0, 0),
            Self::HandedOver(pid, errno) => (HANDED_OVER, pid, errno),
            Self::MapIds(index, recursive) => (MAP_IDS, index, i32::from(recursive)),
            Self::Failed(failure) => (failure.step as u32, failure.index, failure.errno),
        };
        let mut bytes = [0; LENGTH];
        let (head, tail) = bytes.split_at_mut(4);
        let (middle, end) = tail.split_at_mut(4);
        head.copy_from_slice(&first.to_ne_bytes());
        middle.copy_from_slice(&index.to_ne_bytes());
        end.copy_from_slice(&errno.to_ne_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let (first, index, errno) = (word(0)?, word(4)?, word(8)?.cast_signed());
        if bytes.len() != LENGTH {
            return None;
        }
        match first {
            READY => return Some(Self::Ready),
            LISTENER => return Some(Self::Listener(index)),
            HOOKS => return Some(Self::Hooks),
            HANDED_OVER => return Some(Self::HandedOver(index, errno)),
            MAP_IDS => return Some(Self::MapIds(index, errno != 0)),
            _ => {}
        }
        let step = *Step::ALL.get(usize::try_from(first).ok()?)?;
        Some(Self::Failed(Failure { step, index, errno }))
    }
}

impl Failure {
    /// The error a person sees.
    pub(crate) fn explain(self, name: &Name, program: Option<&Program>, plan: Option<&Plan>) -> Error {
        let errno = io::Error::from_raw_os_error(self.errno);
        if self.step == Step::Find {
            let missing = Name {
                found: false,
                ..name.clone()
            };
            return not_executed(&missing, errno);
        }
        if self.step == Step::Execute {
            return not_executed(name, errno);
        }
        if self.step == Step::Scheduler
            && program.is_some_and(|program| self.is_deadline_of_some_cpus(program))
        {
            let message = "process scheduler can't be used together with AllowedCPUs";
            return Error::because(ErrorKind::FailedPrecondition, message, errno);
        }
        let mut message = match self.step {
            // runc's word, which people look for.
            Step::Mount => "error mounting".to_owned(),
            step => format!("unable to {}", step.words()),
        };
        let ordinary = matches!(self.errno, libc::ELOOP | libc::ENOTDIR) && self.is_of_proc_or_sys(plan);
        if let Some(subject) = self.subject(program, plan) {
            message.push(' ');
            message.push_str(&subject);
        }
        if ordinary {
            message.push_str(": must be mounted on ordinary directory");
        }
        Err::<(), _>(errno).context(|| message).map_or_else(
            |error| match self.step {
                // The kinds NotFound and PermissionDenied are for the program itself: they become exit codes 127 and 126.
                Step::WorkingDirectory => error.with_kind(ErrorKind::InvalidArgument),
                Step::Device if plan.is_some_and(Plan::has_users) => error
                    .with_kind(ErrorKind::FailedPrecondition)
                    .with_hint("in a user namespace the host's own node of that name is bound: make it on the host first"),
                _ if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                    error.with_kind(ErrorKind::FailedPrecondition)
                }
                _ => error,
            },
            |()| Error::new(ErrorKind::Internal, "no failure"),
        )
    }

    /// The failure in words, where it is about a label: whoever starts a container that another process made does not know
    /// which.
    pub(crate) fn of_label(self, program: &Program) -> Option<String> {
        let label = program.labels.as_ref()?.named(self.step)?;
        let errno = io::Error::from_raw_os_error(self.errno);
        Some(format!("unable to {} {label}: {errno}", self.step.words()))
    }

    /// Whether it is the target of a procfs or sysfs that was not to be had.
    fn is_of_proc_or_sys(self, plan: Option<&Plan>) -> bool {
        let index = usize::try_from(self.index).unwrap_or(usize::MAX);
        let mount = plan.and_then(|plan| plan.mounts.get(index));
        let special = |kind: &std::ffi::CStr| matches!(kind.to_bytes(), b"proc" | b"sysfs");
        self.step == Step::MountTarget
            && mount.is_some_and(
                |mount| matches!(&mount.source, Source::New { kind, .. } if special(kind.as_c_str())),
            )
    }

    /// The kernel admits deadlines only to processes that may use every CPU (sched(7)).
    fn is_deadline_of_some_cpus(self, program: &Program) -> bool {
        let restricted = program.share.as_ref().is_some_and(|share| share.some_cpus);
        restricted && self.errno == Errno::PERM.raw_os_error()
    }

    fn subject(self, program: Option<&Program>, plan: Option<&Plan>) -> Option<String> {
        let index = usize::try_from(self.index).ok()?;
        let absolute = |path: &std::path::Path| Some(format!("/{}", path.display()));
        match self.step {
            Step::AppArmor | Step::Selinux => program?.labels.as_ref()?.named(self.step),
            Step::Device => absolute(&plan?.nodes.get(index)?.target),
            Step::Mask => absolute(plan?.masked.get(index)?),
            Step::ReadOnly => absolute(plan?.readonly.get(index)?),
            Step::Sysctl => Some(plan?.sysctls.get(index)?.name.clone()),
            Step::Rlimit => program?
                .rlimits
                .get(index)
                .map(|(resource, _)| format!("{resource:?}")),
            Step::LandlockPath => program?.landlock.as_ref()?.path(index),
            Step::WorkingDirectory | Step::WorkingDirectoryEscape => {
                Some(format!("{:?}", program?.cwd.to_string_lossy()))
            }
            Step::CopyUp | Step::MapIds | Step::Mount | Step::MountSource | Step::MountTarget => {
                let mount = plan?.mounts.get(index)?;
                let source = match &mount.source {
                    Source::Bind(bind) => bind.path.to_string_lossy().into_owned(),
                    Source::Cgroup(_) => "cgroup".to_owned(),
                    Source::Remount => "remount".to_owned(),
                    Source::New { kind, .. } => kind.to_string_lossy().into_owned(),
                };
                let target = mount.target.display();
                Some(match self.step {
                    Step::Mount => format!("\"{source}\" to rootfs at \"/{target}\""),
                    _ => format!("{source} at /{target}"),
                })
            }
            _ => None,
        }
    }
}

/// The program as the person named it.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    /// Whether it was looked for in PATH.
    pub(crate) searched: bool,
    /// Whether it was looked for before, and was there: what is missing at execve is what interprets it.
    pub(crate) found: bool,
}

/// runc's wording, which docker's clients know.
fn not_executed(name: &Name, errno: io::Error) -> Error {
    let (name, searched, found) = (&name.text, name.searched, name.found);
    let missing = matches!(
        errno.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    );
    let message = match errno.kind() {
        _ if missing && found => format!("exec {name}"),
        _ if missing && searched => format!("exec: {name:?}: executable file not found in $PATH"),
        _ if missing => format!("exec: {name:?}: stat {name}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("exec: {name:?}: permission denied"),
        _ if errno.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            format!("exec {name}: exec format error")
        }
        _ => format!("exec: {name:?}"),
    };
    let kind = match dhow_types::Failure::kind(&errno) {
        _ if missing => ErrorKind::NotFound,
        // docker's rule: what is there and cannot be invoked is 126.
        ErrorKind::Internal => ErrorKind::PermissionDenied,
        kind => kind,
    };
    Error::because(kind, message, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for step in Step::ALL {
            let message = Message::Failed(Failure {
                step: *step,
                index: 7,
                errno: -3,
            });
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        for message in [
            Message::Ready,
            Message::Listener(9),
            Message::Hooks,
            Message::HandedOver(7, 11),
            Message::MapIds(3, true),
            Message::MapIds(0, false),
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_failure_in_words_is_cut_and_is_no_other_message() {
        let long = "x".repeat(2 * LONGEST);
        let message = said(&long);
        assert_eq!(message.len(), LONGEST);
        assert_eq!(words(&message).unwrap().len(), LONGEST - 4);
        assert_eq!(words(&said("8 bytes.")).as_deref(), Some("8 bytes."));
        assert_eq!(Message::decode(&said("8 bytes.")), None);
        assert_eq!(words(&Message::Ready.encode()), None);
    }

    #[test]
    fn a_malformed_message_is_no_message() {
        assert_eq!(Message::decode(&[]), None);
        assert_eq!(Message::decode(&[0; 11]), None);
        assert_eq!(Message::decode(&[0; 13]), None);
        assert_eq!(Message::decode(&[0xfe; 12]), None);
    }
}
