//! `create` and `run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_oci::runtime::Spec;
use dhow_runtime::container::{self, Begun, Bundle, Options, Systemd, WithoutGroup};
use dhow_runtime::{Settings, Stdio};
use dhow_types::ErrorKind;

use crate::args::{Flag, Given, Until, on, value};
use crate::foreground::Foreground;
use crate::notify::{Readiness, Supervisor};
use crate::streams::{self, Passed, Receiver};
use crate::{Context, Failure, Verb, crun};

pub(super) const BUNDLE: Flag = value(
    "bundle",
    Some('b'),
    "folder of the bundle [default: the working directory]",
);
const CONFIG: Flag = value(
    "config",
    Some('f'),
    "the spec of the container [default: config.json of the bundle]",
);
pub(super) const CONSOLE: Flag = value(
    "console-socket",
    None,
    "socket that receives the master of the terminal",
);
const PIDFD: Flag = value(
    "pidfd-socket",
    None,
    "socket that receives a pidfd of the process",
);
pub(super) const PID_FILE: Flag = value("pid-file", None, "write the process id to this file");
pub(super) const NO_PIVOT: Flag = on(
    "no-pivot",
    None,
    "change the root by chroot, for a host that runs from an initramfs",
);
const NO_KEYRING: Flag = on("no-new-keyring", None, "keep the session keyring of the caller");
const PRESERVE: Flag = value(
    "preserve-fds",
    None,
    "pass this many descriptors, from 3 on, to the process",
);

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "create a container",
    words: "<container-id>",
    flags: &[
        BUNDLE, CONFIG, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE,
    ],
    until: Until::End,
    count: (1, 1),
    run: |context, given| {
        let doing = format!("{} create failed", context.name);
        create(context, given).map_err(|failure| failure.during(&doing))
    },
};

pub(crate) const RUN: Verb = Verb {
    name: "run",
    about: "create and run a container",
    words: "<container-id>",
    flags: &[
        BUNDLE,
        CONFIG,
        CONSOLE,
        PIDFD,
        PID_FILE,
        NO_PIVOT,
        NO_KEYRING,
        PRESERVE,
        on("detach", Some('d'), "detach from the container's process"),
        on("keep", None, "do not delete the container after it exits"),
        on(
            "no-subreaper",
            None,
            "do not reap the container's orphaned processes",
        ),
    ],
    until: Until::End,
    count: (1, 1),
    run: |context, given| {
        let doing = format!("{} run failed", context.name);
        run(context, given).map_err(|failure| failure.during(&doing))
    },
};

/// What the options say, with all paths absolute: the working directory becomes the bundle's.
struct Request {
    id: String,
    bundle: Bundle,
    options: Options,
    terminal: bool,
    pid_file: Option<PathBuf>,
    console: Option<Receiver>,
    pidfd: Option<Receiver>,
    supervisor: Option<Supervisor>,
}

impl Request {
    fn read(context: &Context, given: &Given, detached: bool) -> Result<Self, Failure> {
        let passed = Passed::of(given, streams::listening(context.name), context.opened)?;
        let id = given.words.first().cloned().unwrap_or_default();
        crun::check_id(context, &id)?;
        let path = |long: &str| given.text(long).map(streams::absolute).transpose();
        let (pid_file, console, pidfd) = (path("pid-file")?, path("console-socket")?, path("pidfd-socket")?);
        let mut bundle = read_bundle(given.text("bundle"), given.text("config"), passed)?;
        let mut settings = Settings {
            kept_fds: passed.count(),
            shared_keyring: given.is_on("no-new-keyring"),
            no_pivot: given.is_on("no-pivot"),
            bare_newlines: !detached,
            ..Settings::default()
        };
        let pidfd = crun::apply(context, &mut bundle.spec, &mut settings)?.or(pidfd);
        let hooks = crun::surroundings(context, &bundle.spec.annotations)?;
        let (notify, supervisor) = crun::readiness(context)?;
        let terminal = bundle
            .spec
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        check_terminal(terminal, detached, console.is_some())?;
        let stdio = if terminal {
            Stdio::Terminal
        } else {
            streams::inherited()?
        };
        let connect = |path: Option<PathBuf>| path.as_deref().map(Receiver::connect).transpose();
        Ok(Self {
            id,
            bundle,
            options: Options {
                settings,
                stdio,
                systemd: systemd(context)?,
                notify,
                without_group: without_group(context),
                hooks,
            },
            terminal,
            pid_file,
            console: connect(console)?,
            pidfd: connect(pidfd)?,
            supervisor,
        })
    }
}

/// The systemd that is to make the control group: the user's own where control groups are without root's rights.
fn systemd(context: &Context) -> Result<Option<Systemd>, Failure> {
    if !context.systemd {
        return Ok(None);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // A machine in a user namespace has a root and a systemd of its own.
    let own = rustix::process::geteuid().is_root()
        && variable("XDG_RUNTIME_DIR").is_none_or(|folder| folder.trim_end_matches('/') == "/run/user/0");
    if !context.rootless || (own && variable("DBUS_SESSION_BUS_ADDRESS").is_none()) {
        return Ok(Some(Systemd::System));
    }
    let address = variable("DBUS_SESSION_BUS_ADDRESS")
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|folder| format!("unix:path={folder}/bus")));
    match address {
        Some(address) => Ok(Some(Systemd::User(address))),
        None => Err(Failure::new(
            "could not find the user's systemd: neither $DBUS_SESSION_BUS_ADDRESS nor $XDG_RUNTIME_DIR is set",
        )),
    }
}

/// Without a word on it, root is refused a container without a control group, but where none can be.
fn without_group(context: &Context) -> WithoutGroup {
    if context.no_groups {
        return WithoutGroup::Wanted;
    }
    match (context.rootless, context.told_rootless) {
        (true, _) => WithoutGroup::Allowed,
        (false, true) => WithoutGroup::Refused,
        (false, false) => WithoutGroup::WhereReadOnly,
    }
}

/// What detaching and a terminal ask of the console socket, in runc's words.
pub(crate) fn check_terminal(terminal: bool, detached: bool, console: bool) -> Result<(), Failure> {
    if detached && terminal && !console {
        let message = "cannot allocate tty if runc will detach without setting console socket";
        return Err(Failure::new(message));
    }
    if (!detached || !terminal) && console {
        let message = "cannot use console socket if runc will not detach or allocate tty";
        return Err(Failure::new(message));
    }
    Ok(())
}

fn read_bundle(path: Option<&str>, config: Option<&str>, passed: Passed) -> Result<Bundle, Failure> {
    if let Some(path) = path {
        std::env::set_current_dir(path)
            .map_err(|error| Failure::from(error).during(&format!("chdir {path}")))?;
    }
    let here =
        std::env::current_dir().map_err(|error| Failure::from(error).during("find the working directory"))?;
    let name = config.unwrap_or("config.json");
    let file = match streams::open(Path::new(name)) {
        Err(_) if !Path::new(name).exists() => {
            return Err(Failure::new(format!("JSON specification file {name} not found")));
        }
        opened => opened?,
    };
    let config = streams::read_document(file, name)?;
    if config.trim_ascii() == b"null" {
        return Err(Failure::new("config cannot be null"));
    }
    let mut spec = Spec::parse(&config)?;
    let Some(process) = &mut spec.process else {
        return Err(Failure::new("process property must not be empty"));
    };
    if passed.listening > 0 {
        process.env.push(format!("LISTEN_FDS={}", passed.listening));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    Ok(Bundle {
        path: here,
        config,
        spec,
    })
}

fn create(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let request = Request::read(context, given, true)?;
    let Request {
        id,
        bundle,
        options,
        terminal,
        ..
    } = request;
    let begun = container::create(&context.root, &id, &bundle, options).map_err(not_begun)?;
    warn(context, &begun);
    let handed = crun::write_status(context, &begun, terminal, true).and_then(|()| {
        hand_over(
            &begun,
            request.console,
            request.pidfd,
            request.pid_file.as_deref(),
        )
    });
    or_delete(context, begun, handed)?;
    Ok(ExitCode::SUCCESS)
}

fn run(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    carry(context, given, |id, bundle, options| {
        container::run(&context.root, id, bundle, options).map_err(not_begun)
    })
}

/// Begins a container that runs at once, and stays with it unless it is detached.
pub(super) fn carry(
    context: &Context,
    given: &Given,
    begin: impl FnOnce(&str, &Bundle, Options) -> Result<Begun, Failure>,
) -> Result<ExitCode, Failure> {
    let detached = given.is_on("detach");
    let mut request = Request::read(context, given, detached)?;
    if !given.is_on("no-subreaper") {
        match rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            // Orphans go to another reaper then.
            Ok(()) | Err(_) => {}
        }
    }
    let foreground = if detached {
        None
    } else {
        let foreground = Foreground::new(request.terminal)?;
        if let Some(process) = &mut request.bundle.spec.process {
            foreground.size(process);
        }
        Some(foreground)
    };
    let begun = begin(&request.id, &request.bundle, request.options)?;
    // While the container is at work: at the end somebody waits for this process.
    drop(request.bundle);
    warn(context, &begun);
    let handed = crun::write_status(context, &begun, request.terminal, detached).and_then(|()| {
        hand_over(
            &begun,
            request.console,
            request.pidfd,
            request.pid_file.as_deref(),
        )
    });
    let mut begun = or_delete(context, begun, handed)?;
    let readiness = |pid| {
        let word = begun.notify.take().zip(request.supervisor);
        word.map(|(socket, supervisor)| Readiness::new(socket, supervisor, pid))
    };
    let Some(foreground) = foreground else {
        return match readiness(begun.pid.cast_unsigned()) {
            Some(readiness) => readiness.wait(&begun.pidfd).map(|()| ExitCode::SUCCESS),
            None => Ok(ExitCode::SUCCESS),
        };
    };
    // The supervisor watches this process, which ends with the container's.
    let readiness = readiness(std::process::id());
    let outcome = foreground.wait(&begun.pidfd, begun.terminal, readiness);
    if !given.is_on("keep") {
        let hooks = crun::last_surroundings(context, begun.container.record());
        crun::warn_of_hooks(context, begun.container.delete(true, &hooks)?);
    }
    outcome.map(ExitCode::from)
}

/// What the spec asks for and was left out is logged, as the standard wants it of capabilities.
fn warn(context: &Context, begun: &Begun) {
    // Lines of runc's debug log that its clients' tests read.
    for step in [
        "nsexec container setup",
        "child process in init()",
        "init: closing the pipe to signal completion",
    ] {
        context.log.debug(|| step.to_owned());
    }
    for warning in &begun.warnings {
        context.log.warn(warning);
    }
}

/// runc's words around a container that could not be begun; what is wrong with the request itself needs none.
fn not_begun(error: dhow_runtime::Error) -> Failure {
    let asked = matches!(
        error.kind(),
        ErrorKind::AlreadyExists | ErrorKind::InvalidArgument
    );
    let failure = Failure::of_process(error);
    if asked {
        failure
    } else {
        failure.during("unable to start container process: error during container init")
    }
}

/// Gives what the caller asked for to whom it asked: the terminal, the pidfd, the process id.
fn hand_over(
    begun: &Begun,
    console: Option<Receiver>,
    pidfd: Option<Receiver>,
    pid_file: Option<&Path>,
) -> Result<(), Failure> {
    if let (Some(console), Some(terminal)) = (console, &begun.terminal) {
        console.send("/dev/ptmx", terminal)?;
    }
    if let Some(receiver) = pidfd {
        receiver.send("pidfd", &begun.pidfd)?;
    }
    match pid_file {
        Some(path) => streams::write_pid(path, begun.pid),
        None => Ok(()),
    }
}

fn or_delete(context: &Context, begun: Begun, handed: Result<(), Failure>) -> Result<Begun, Failure> {
    let Err(failure) = handed else {
        return Ok(begun);
    };
    let hooks = crun::last_surroundings(context, begun.container.record());
    match begun.container.delete(true, &hooks) {
        Ok(failures) => crun::warn_of_hooks(context, failures),
        Err(error) => context.log.warn(&Failure::from(error).message),
    }
    Err(failure)
}
