//! `exec`: one more process in a running container; and who a process runs as.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_bundle::Identity;
use dhow_rootpath::Root;
use dhow_runtime::{Exec, Running, Stdio};
use dhow_types::{ContainerId, ErrorKind};

use super::folder::Container;
use super::record::Status;
use super::stop::open_process;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// What `exec`'s flags say.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Name or id.
    pub container: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Further environment, `NAME=value`.
    pub env: Vec<String>,
    /// `name|uid[:group|gid]`; the container's own when absent.
    pub user: Option<String>,
    /// Working directory; the container's own when absent.
    pub workdir: Option<PathBuf>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Size of the terminal in rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// All rights.
    pub privileged: bool,
    /// Descriptors of this process that it has under the same numbers.
    pub kept: Vec<u32>,
    /// Whether the groups that the container was given go with another user, too.
    pub keep_groups: bool,
}

/// A process that was started in a container; a child of the caller.
#[derive(Debug)]
pub struct ExecStarted {
    /// Its handle.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// What is told when it ends.
    died: Event,
}

impl Engine {
    /// Starts a process in a running container, with these streams (ignored for a terminal). The caller must be
    /// single-threaded.
    ///
    /// # Errors
    /// `NotFound` for a program that is not there (127), `PermissionDenied` (126); `FailedPrecondition` when the
    /// container does not run.
    pub fn exec(&self, wanted: &ExecRequest, streams: Option<[OwnedFd; 3]>) -> Result<ExecStarted, Error> {
        let container = self
            .containers()
            .find(&wanted.container)
            .map_err(not_the_program)?;
        let not_running = || {
            let message = format!("container {} is not running", container.config.id);
            Error::new(ErrorKind::FailedPrecondition, message)
        };
        if container.state.status == Status::Paused {
            let message = format!(
                "container {} is paused, unpause the container before exec",
                wanted.container
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let init = open_process(&container)?.ok_or_else(not_running)?;
        let (process, seccomp) = self.exec_process(&container, wanted).map_err(not_the_program)?;
        let stdio = match (wanted.tty, streams) {
            (true, _) => Stdio::Terminal,
            (false, Some([stdin, stdout, stderr])) => Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
            (false, None) => null_streams()?,
        };
        if let (
            Some(ids),
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
        ) = (self.ids_of(&container)?, &stdio)
        {
            let user = (process.user.uid, process.user.gid);
            let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
            super::users::give_streams(&ids, user, streams);
        }
        let group = self.group_if_any(&container.config).map_err(not_the_program)?;
        let running = dhow_runtime::exec(Exec {
            init: init.as_fd(),
            process: &process,
            seccomp: seccomp.as_ref(),
            linux: None,
            annotations: None,
            group: group.as_ref(),
            stdio,
            settings: &self.handing_settings(&wanted.kept),
            state: None,
        });
        let command = wanted.args.join(" ");
        let id = ContainerId::from_random(super::name::random_bytes()?);
        let told = |action: &str| Event::of(&container.config, action).with("execID", &id);
        let mut events = vec![told(&format!("exec_create: {command}"))];
        if running.is_ok() {
            events.push(told(&format!("exec_start: {command}")));
        }
        self.tell_all(&events);
        let Running { pidfd, terminal, .. } = running.context(|| "exec failed")?;
        let died = told("exec_die");
        Ok(ExecStarted {
            pidfd,
            terminal,
            died,
        })
    }

    /// Waits for a process that [`Engine::exec`] started; its exit code.
    ///
    /// # Errors
    /// `NotFound` when it was waited for before.
    pub fn exec_wait(&self, started: &ExecStarted) -> Result<i32, Error> {
        let status = dhow_runtime::wait(started.pidfd.as_fd()).context(|| "wait for the process")?;
        let code = i32::from(status.code());
        let mut died = started.died.clone();
        died.nanoseconds = crate::event::now();
        self.tell(&died.with("exitCode", code));
        Ok(code)
    }

    fn exec_process(
        &self,
        container: &Container,
        wanted: &ExecRequest,
    ) -> Result<(dhow_oci::runtime::Process, Option<dhow_oci::runtime::Seccomp>), Error> {
        let config = &container.config;
        let root = Root::open(Path::new(&format!("/proc/{}/root", container.state.pid)))
            .context(|| "open the container's root")?;
        let mut request = config.request.clone();
        request.identity = identity(&root, wanted.user.as_deref().unwrap_or(&config.user))?;
        // Groups of the container's own user do not follow another user into an exec.
        request.extra_groups = match wanted.user {
            None => groups(&root, &config.group_add)?,
            Some(_) if wanted.keep_groups => groups(&root, &config.group_add)?,
            Some(_) => Vec::new(),
        };
        request.args.clone_from(&wanted.args);
        request.env.extend(self.secret_variables(config)?);
        request.env = dhow_bundle::merge_env(&request.env, &wanted.env);
        request.tty = wanted.tty;
        request.console_size = wanted.console_size;
        request.privileged |= wanted.privileged;
        request.init = None;
        if let Some(workdir) = &wanted.workdir {
            request.cwd.clone_from(workdir);
        }
        let spec = crate::system::runtime_spec(&request)?;
        let seccomp = spec.linux.and_then(|linux| linux.seccomp);
        Ok((spec.process.unwrap_or_default(), seccomp))
    }
}

fn null_streams() -> Result<Stdio, Error> {
    let null = || {
        let file = File::options().read(true).write(true).open("/dev/null");
        file.map(OwnedFd::from).context(|| "open /dev/null")
    };
    Ok(Stdio::Fds {
        stdin: null()?,
        stdout: null()?,
        stderr: null()?,
    })
}

fn not_the_program(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => error.with_kind(ErrorKind::FailedPrecondition),
        _ => error,
    }
}

/// Looks a user up in the container's own files.
pub(crate) fn identity(root: &Root, user: &str) -> Result<Identity, Error> {
    let (passwd, group) = accounts(root)?;
    dhow_bundle::passwd::resolve(user, &passwd, &group).context(|| format!("unable to find user {user}"))
}

/// Looks groups up in the container's own files.
pub(crate) fn groups(root: &Root, wanted: &[String]) -> Result<Vec<u32>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (passwd, group) = accounts(root)?;
    wanted
        .iter()
        .map(|name| {
            // The group part of a `user:group` has the rules that a group alone needs.
            let found = dhow_bundle::passwd::resolve(&format!("0:{name}"), &passwd, &group);
            found
                .map(|identity| identity.gid)
                .context(|| format!("unable to find group {name}"))
        })
        .collect()
}

/// The container's own `passwd` and `group`; empty where it has none.
pub(super) fn accounts(root: &Root) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let read = |path: &str| match root.read(Path::new(path), MAX_ACCOUNTS) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.context(|| format!("read the container's {path}")),
    };
    Ok((read("/etc/passwd")?, read("/etc/group")?))
}
