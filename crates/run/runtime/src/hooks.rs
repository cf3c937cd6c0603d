//! Hooks: programs of the host, or of the container, that are told the container's state at points of its life
//! (runtime-spec, "POSIX-platform Hooks" and "Lifecycle").
//!
//! They are executed by way of the stub, as the container's own program is: a `startContainer` hook is a file of the
//! image, which must not find this program behind its `/proc/self/exe` (CVE-2019-5736).

use std::ffi::{CStr, CString};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use dhow_oci::runtime::{Hook, Hooks, State};
use dhow_sys::clone::{Child, Options};
use dhow_sys::exec::Vector;
use dhow_sys::stub::{Handover, Stub};
use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use crate::lsm::StubLabel;
use crate::parent::{self, Answer, Link};
use crate::report::{Failure, Name, Step};
use crate::{Context as _, Error, ExitStatus};

/// Most of a hook's output that is told when it fails, in bytes a stream.
const TOLD: usize = 800;

/// What hooks run with, besides the container's state.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The environment of a hook that has none of its own, as `NAME=value`. A `startContainer` hook has the container's.
    pub env: Vec<CString>,
    /// Where their output goes, in place of the message about one that fails.
    pub stdout: Option<OwnedFd>,
    /// The same for their errors.
    pub stderr: Option<OwnedFd>,
    /// Whether the first `poststop` hook that fails is the last one, as with runc and youki, where the standard has the others
    /// run.
    pub until_failure: bool,
}

impl Surroundings {
    pub(crate) fn around(&self) -> Around<'_> {
        Around {
            env: &self.env,
            stdout: self.stdout.as_ref(),
            stderr: self.stderr.as_ref(),
            until_failure: self.until_failure,
        }
    }
}

/// [`Surroundings`], borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) env: &'a [CString],
    pub(crate) stdout: Option<&'a OwnedFd>,
    pub(crate) stderr: Option<&'a OwnedFd>,
    pub(crate) until_failure: bool,
}

/// A hook that failed where the container's life goes on.
#[derive(Debug)]
pub struct HookFailure {
    /// runc's words: which hook of which stage, how it ended, what it wrote.
    pub error: Error,
    /// How it ended, if it ran to its end.
    pub status: Option<ExitStatus>,
}

impl From<Error> for HookFailure {
    fn from(error: Error) -> Self {
        Self { error, status: None }
    }
}

/// A point in a container's life at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    /// Those before the program begins, which may ask for the container's state.
    pub(crate) const BEFORE_START: [Self; 4] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
    ];
    const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The field of the spec.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The container's status while they run: "created" begins after step 2 of the lifecycle, before the first hook.
    const fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer | Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    pub(crate) fn of(self, hooks: &Hooks) -> &[Hook] {
        match self {
            Self::Prestart => &hooks.prestart,
            Self::CreateRuntime => &hooks.create_runtime,
            Self::CreateContainer => &hooks.create_container,
            Self::StartContainer => &hooks.start_container,
            Self::Poststart => &hooks.poststart,
            Self::Poststop => &hooks.poststop,
        }
    }
}

/// The hooks of a spec, if the kernel can be asked to execute them.
pub(crate) fn checked(hooks: Option<&Hooks>) -> Result<Hooks, Error> {
    let Some(hooks) = hooks else {
        return Ok(Hooks::default());
    };
    for stage in Stage::ALL {
        for (index, hook) in stage.of(hooks).iter().enumerate() {
            let wrong = |why: &str| {
                let message = format!("{} hook #{index}: {why}", stage.name());
                Err(Error::new(ErrorKind::InvalidArgument, message))
            };
            if !hook.path.is_absolute() {
                return wrong(&format!("path {:?} is not absolute", hook.path));
            }
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                return wrong("timeout is not greater than zero");
            }
            let mut words = hook.args.iter().chain(&hook.env).map(String::as_bytes);
            if hook.path.as_os_str().as_bytes().contains(&0) || words.any(|word| word.contains(&0)) {
                return wrong("a null byte is in its path, args or env");
            }
        }
    }
    Ok(hooks.clone())
}

/// The names of the stages that a container must have an id and a bundle for, if there are any.
pub(crate) fn refuse(hooks: &Hooks) -> Result<(), Error> {
    let used: Vec<_> = Stage::ALL
        .into_iter()
        .filter(|stage| !stage.of(hooks).is_empty())
        .map(Stage::name)
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    let message = format!("hooks need a container with a state folder: {}", used.join(", "));
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Runs the hooks of a stage in order, in the caller's namespaces; the first that fails ends it.
///
/// `restrict` is what a hook's process gives up first.
///
/// # Errors
/// runc's words: which hook of which stage, how it ended, what it wrote.
pub(crate) fn run(
    stage: Stage,
    hooks: &[Hook],
    state: &State,
    around: Around<'_>,
    restrict: Option<Restriction<'_>>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = told(stage, state)?;
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, &state, around, restrict).map_err(|failed| named(stage, index, &failed.error))?;
    }
    Ok(())
}

/// Runs the `poststart` hooks of a container whose `startContainer` hook failed, and keeps to the failure that is there.
///
/// The standard would leave them out (runtime-spec, "Lifecycle", step 8). runc, crun and youki do not wait for that hook and run
/// them all the same, so that what a `poststop` hook undoes has been done.
pub(crate) fn run_after_failure(hooks: &[Hook], state: &State, around: Around<'_>) {
    // What is told is why the container did not start.
    let _second = run(Stage::Poststart, hooks, state, around, None);
}

/// Runs the `poststop` hooks, all of them: "the remaining hooks and lifecycle continue as if the hook had succeeded"
/// (runtime-spec, "Lifecycle", step 13), unless [`Surroundings::until_failure`] says otherwise. Returns those that failed.
pub(crate) fn run_last(hooks: &[Hook], state: &State, around: Around<'_>) -> Vec<HookFailure> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let state = match told(Stage::Poststop, state) {
        Ok(state) => state,
        Err(error) => return vec![error.into()],
    };
    let failed = |(index, hook)| {
        one(hook, &state, around, None).err().map(|failed| HookFailure {
            error: named(Stage::Poststop, index, &failed.error),
            ..failed
        })
    };
    let most = if around.until_failure { 1 } else { hooks.len() };
    hooks.iter().enumerate().filter_map(failed).take(most).collect()
}

/// Runs the `poststop` hooks of a container that [`run_with_hooks`](crate::run_with_hooks) started, once it has ended. Returns
/// those that failed: the others run all the same.
#[must_use]
pub fn run_last_hooks(hooks: &Hooks, state: &State, surroundings: &Surroundings) -> Vec<HookFailure> {
    run_last(&hooks.poststop, state, surroundings.around())
}

/// The state as hooks of a stage read it.
fn told(stage: Stage, state: &State) -> Result<Vec<u8>, Error> {
    let state = State {
        status: stage.status().to_owned(),
        ..state.clone()
    };
    serde_json::to_vec(&state)
        .map_err(|error| Error::because(ErrorKind::Internal, "write the state for hooks", error))
}

/// What went wrong, with which hook.
fn named(stage: Stage, index: usize, error: &Error) -> Error {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    let message = format!("error running {} hook #{index}: {words}", stage.name());
    Error::new(ErrorKind::FailedPrecondition, message)
}

/// What a hook's process gives up before it executes.
pub(crate) type Restriction<'a> = &'a dyn Fn(BorrowedFd<'_>) -> Result<StubLabel, Failure>;

fn one(
    hook: &Hook,
    state: &[u8],
    around: Around<'_>,
    restrict: Option<Restriction<'_>>,
) -> Result<(), HookFailure> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let texts = |strings: &[String]| {
        strings
            .iter()
            .map(|string| text(string.as_bytes()))
            .collect::<io::Result<Vec<_>>>()
    };
    let path = text(hook.path.as_os_str().as_bytes()).context(|| "read its path")?;
    let mut args = texts(&hook.args).context(|| "read its args")?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let mut env = texts(&hook.env).context(|| "read its env")?;
    if env.is_empty() {
        env.extend_from_slice(around.env);
    }
    let stdin = memory(c"state", state)?;
    let (stdout, stderr) = (memory(c"stdout", &[])?, memory(c"stderr", &[])?);
    let (link, other) = Link::pair()?;
    let program = Executable {
        paths: [path],
        argv: Vector::new(args),
        env: Vector::new(env),
        streams: [
            &stdin,
            around.stdout.unwrap_or(&stdout),
            around.stderr.unwrap_or(&stderr),
        ],
        link: &other,
        restrict,
    };
    let mask = dhow_sys::process::block_signals().context(|| "block signals")?;
    let spawned = dhow_sys::clone::spawn(&Options::default(), || program.begin());
    dhow_sys::process::restore_signals(mask).context(|| "restore signals")?;
    let child = spawned.context(|| "make a process")?;
    drop(other);
    match link.answer() {
        Answer::Closed => {}
        Answer::Failed(failure) => {
            parent::reap(child.pidfd.as_fd());
            let errno = io::Error::from_raw_os_error(failure.errno);
            return Err(errno)
                .context(|| format!("fork/exec {}", hook.path.display()))
                .map_err(HookFailure::from);
        }
        Answer::Listener(_) => {
            parent::end(&child);
            let message =
                "a hook in a container whose filter asks an agent (SCMP_ACT_NOTIFY) is not supported";
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        answer => {
            parent::end(&child);
            let name = Name {
                text: hook.path.display().to_string(),
                searched: false,
                found: false,
            };
            return Err(answer.into_failure(&name, None, None).into());
        }
    }
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok());
    finish(&child, timeout.map(Duration::from_secs), stdout, stderr)
}

/// Waits for a hook; one that is late is killed with all of its process group.
fn finish(
    child: &Child,
    timeout: Option<Duration>,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<(), HookFailure> {
    if let Some(timeout) = timeout
        && !ends_within(child, timeout).context(|| "wait for it")?
    {
        match rustix::process::kill_process_group(child.pid, rustix::process::Signal::KILL) {
            // Its process is killed below, whatever became of the group.
            Ok(()) | Err(_) => parent::end(child),
        }
        let message = format!("hook ran past specified timeout of {:.1}s", timeout.as_secs_f64());
        return Err(Error::new(ErrorKind::FailedPrecondition, message).into());
    }
    let status = crate::wait(child.pidfd.as_fd())?;
    let how = match status {
        ExitStatus::Exited(0) => return Ok(()),
        ExitStatus::Exited(status) => format!("exit status {status}"),
        ExitStatus::Signaled(signal) => format!("signal: {}", signal_words(signal)),
    };
    let message = format!("{how}, stdout: {}, stderr: {}", output(stdout)?, output(stderr)?);
    Err(HookFailure {
        error: Error::new(ErrorKind::FailedPrecondition, message),
        status: Some(status),
    })
}

/// Go's words for the signals that end hooks, which clients know from runc's messages.
fn signal_words(signal: u8) -> String {
    let words = match i32::from(signal) {
        libc::SIGABRT => "aborted",
        libc::SIGKILL => "killed",
        libc::SIGPIPE => "broken pipe",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGSYS => "bad system call",
        libc::SIGTERM => "terminated",
        other => return other.to_string(),
    };
    words.to_owned()
}

fn ends_within(child: &Child, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// A file in memory: no reader can block on it, and no writer.
fn memory(name: &CStr, content: &[u8]) -> Result<OwnedFd, Error> {
    let made = || -> io::Result<OwnedFd> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        io::Write::write_all(&mut file, content)?;
        file.rewind()?;
        Ok(file.into())
    };
    made().context(|| "make a file for its streams")
}

fn output(file: OwnedFd) -> Result<String, Error> {
    let mut file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    let mut read = || -> io::Result<()> {
        file.rewind()?;
        (&mut file).take(TOLD as u64).read_to_end(&mut bytes)?;
        Ok(())
    };
    read().context(|| "read what it wrote")?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// What the process of a hook executes.
struct Executable<'a> {
    paths: [CString; 1],
    argv: Vector,
    env: Vector,
    streams: [&'a OwnedFd; 3],
    link: &'a OwnedFd,
    restrict: Option<Restriction<'a>>,
}

impl Executable<'_> {
    /// The child's side; returns the exit status of one that failed.
    fn begin(&self) -> i32 {
        let [stdin, stdout, stderr] = self.streams;
        let prepared = || -> io::Result<()> {
            dhow_sys::process::reset_signals()?;
            // Of its own process group, so that it can be ended with what it started.
            rustix::process::setpgid(None, None)?;
            // All descriptors here are beyond the three: the caller has those, or the null device there.
            rustix::stdio::dup2_stdin(stdin)?;
            rustix::stdio::dup2_stdout(stdout)?;
            rustix::stdio::dup2_stderr(stderr)?;
            dhow_sys::fd::cloexec_from(3)
        };
        let restricted = || match self.restrict {
            Some(restrict) => restrict(self.link.as_fd()),
            None => Ok(None),
        };
        let error = match prepared() {
            Ok(()) => {
                let label = match restricted() {
                    Ok(label) => label,
                    Err(failure) => return crate::init::fail(self.link.as_fd(), failure),
                };
                let stub = Stub {
                    paths: &self.paths,
                    search: false,
                    word: Step::Execute as u32,
                    handover: Handover::None,
                    label: label.as_deref(),
                };
                dhow_sys::stub::execute(&stub, &self.argv, &self.env, self.link.as_fd())
            }
            Err(error) => error,
        };
        let failure = Failure {
            step: Step::Stub,
            index: 0,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        };
        crate::init::fail(self.link.as_fd(), failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["WORD=one".to_owned()],
            timeout,
        }
    }

    #[test]
    fn hooks_that_cannot_be_executed_are_refused_by_name() {
        let wrong = [
            Hook {
                path: "relative".into(),
                ..Hook::default()
            },
            hook("true", Some(0)),
            hook("true", Some(-3)),
            hook("a\0b", None),
        ];
        for one in wrong {
            let hooks = Hooks {
                create_runtime: vec![hook("true", None), one],
                ..Hooks::default()
            };
            let error = checked(Some(&hooks)).unwrap_err();
            assert!(
                error.to_string().starts_with("createRuntime hook #1: "),
                "{error}"
            );
        }
        assert!(checked(None).is_ok());
        assert!(refuse(&Hooks::default()).is_ok());
    }
}
