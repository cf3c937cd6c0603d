//! `run`: create, start, and stay attached unless told otherwise.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::attach::{Attached, End, exit_byte, pump, start_failure};
use crate::flags::ContainerFlags;
use crate::render::{note, say_line};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "run",
    about: "Create and run a new container from an image",
    flags: |command| {
        crate::flags::registry::augment(RunFlags::augment_args(command))
            .override_usage("dhow run [OPTIONS] IMAGE [COMMAND] [ARG...]")
    },
    run,
};

#[derive(Args, Debug)]
struct RunFlags {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Proxy received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Pass N descriptors beside the three to the container, from 3 on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..1024))]
    preserve_fds: Option<u32>,
    /// Pass these descriptors to the container
    #[arg(long, value_name = "FD,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(3..1024))]
    preserve_fd: Vec<u32>,
    #[command(flatten)]
    container: ContainerFlags,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RunFlags = crate::flags::read(matches)?;
    let container = &flags.container;
    if container.tty && container.interactive && !flags.detach && !is_terminal() {
        return Err(CliError::plain("the input device is not a TTY").with_code(1));
    }
    if flags.detach && !container.attach.is_empty() {
        return Err(
            CliError::plain("conflicting options: cannot specify both --attach and --detach").with_code(125),
        );
    }
    refuse_kept_fds(&flags)?;
    let id = super::create::create(context, container).map_err(|error| {
        // Podman's program that is none is not found.
        match dialect::spoken().is_podman() && error.message().starts_with("no command specified") {
            true => error.with_code(127),
            false => error,
        }
    })?;
    let engine = context.engine()?;
    if dialect::spoken().is_podman() {
        engine.start_needs(id.as_str())?;
    }
    let started = match engine.start_handing(id.as_str(), !flags.detach, context.kept()) {
        Ok(started) => started,
        Err(error) => {
            let code = dialect::spoken().start_failure(start_failure(error.kind()));
            if container.rm {
                // The failure to start is what the person needs to hear; what is left shows in `ps -a`.
                drop(engine.remove_container(id.as_str(), true, true));
            }
            return Err(CliError::from(error).with_code(code));
        }
    };
    crate::notify::Notifier::new(container.podman.sdnotify).started(engine, &id)?;
    let Some(socket) = started.attached else {
        say_line(&id.to_string())?;
        return Ok(ExitCode::SUCCESS);
    };
    let (stdin, stdout, stderr) = streams(container);
    if !stdout && !stderr {
        say_line(&id.to_string())?;
    }
    let how = Attached {
        stdin,
        stdout,
        stderr,
        keys: container.detach_keys.clone(),
        tty: container.tty,
        // With a terminal, too: keys come by it, but who ends this command ends the container (moby#28872).
        signals: flags.sig_proxy,
    };
    let end = pump(socket, how, |number| {
        // It may have ended already; its exit code comes next.
        drop(engine.kill(id.as_str(), &number.to_string()));
    })?;
    if container.podman.rmi {
        warn_of_image(engine, container);
    }
    match end {
        // With `--rm` the container was gone before its exit was told.
        End::Exit(code) => Ok(ExitCode::from(exit_byte(code))),
        End::Detached => Ok(ExitCode::SUCCESS),
    }
}

/// Who wants to hand descriptors over has them open.
fn refuse_kept_fds(flags: &RunFlags) -> Result<(), CliError> {
    match (flags.preserve_fds, flags.preserve_fd.as_slice()) {
        (Some(_), [_, ..]) => {
            Err(CliError::plain("cannot specify both --preserve-fds and --preserve-fd").with_code(125))
        }
        _ => Ok(()),
    }
}

/// The image went with the container, unless somebody else has it.
fn warn_of_image(engine: &dhow_engine::Engine, flags: &ContainerFlags) {
    let name = super::local_image(engine, flags.image());
    let removed = match flags.platform.platform() {
        Ok(Some(platform)) => engine.remove_image_for(&name, &[platform], false),
        _ => engine.remove_image(&name, false),
    };
    match removed {
        Err(error) if error.kind() == dhow_types::ErrorKind::FailedPrecondition => {
            note(&dialect::warning(&format!(
                "image {name} was not removed: image is in use by a container"
            )));
        }
        _ => {}
    }
}

/// Which of the three streams are connected: those that `-a` names, else the input that is open and both outputs.
fn streams(container: &ContainerFlags) -> (bool, bool, bool) {
    if container.attach.is_empty() {
        return (container.interactive, true, true);
    }
    let named = |stream: &str| {
        container
            .attach
            .iter()
            .any(|word| word.eq_ignore_ascii_case(stream))
    };
    (
        container.interactive && named("stdin"),
        named("stdout"),
        named("stderr"),
    )
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}
