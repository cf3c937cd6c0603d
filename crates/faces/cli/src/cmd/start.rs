//! `start`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::attach::{Attached, End, exit_byte, pump};
use crate::flags::Chosen;
use crate::render::say_line;
use crate::view::container::is_up;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "start",
    about: "Start one or more stopped containers",
    // `-a` and `-i` are others here.
    flags: |command| {
        StartFlags::augment_args(command)
            .mut_arg("all", |all| all.short(None))
            .mut_arg("ignore", |ignore| ignore.short(None))
    },
    run,
};

#[derive(Args, Debug)]
struct StartFlags {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// The keys that leave the container running; none when empty
    #[arg(long, value_name = "KEYS", value_parser = crate::attach::Keys::parse, default_value = crate::attach::DETACH_KEYS, hide_default_value = true)]
    detach_keys: crate::attach::Keys,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    chosen: Chosen,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StartFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if dialect::spoken().is_podman() && flags.chosen.all_and_named() {
        let message = "either start all containers or the container(s) provided in the arguments";
        return Err(CliError::plain(message));
    }
    let names = flags.chosen.names(context, |one| !is_up(one.state.status))?;
    if !flags.attach && !flags.interactive {
        return super::each(&names, |name| match start(engine, name) {
            Err(error) if flags.chosen.passes(&error) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => say_line(name),
        });
    }
    let [name] = names.as_slice() else {
        return Err(CliError::plain(
            "you cannot start and attach multiple containers at once",
        ));
    };
    if dialect::spoken().is_podman() {
        engine.start_needs(name)?;
    }
    let started = engine.start(name, true)?;
    let config = started.container.config;
    let Some(socket) = started.attached else {
        return Ok(ExitCode::SUCCESS);
    };
    let tty = config.request.tty;
    let how = Attached {
        stdin: flags.interactive && config.open_stdin,
        stdout: true,
        stderr: true,
        keys: flags.detach_keys,
        tty,
        signals: !tty,
    };
    let end = pump(socket, how, |number| {
        drop(engine.kill(config.id.as_str(), &number.to_string()))
    })?;
    match end {
        End::Exit(code) => {
            engine.settled(&config.id)?;
            Ok(ExitCode::from(exit_byte(code)))
        }
        End::Detached => Ok(ExitCode::SUCCESS),
    }
}

/// Starts a container; podman starts what it needs first.
fn start(engine: &dhow_engine::Engine, name: &str) -> Result<(), dhow_engine::Error> {
    if dialect::spoken().is_podman() {
        engine.start_needs(name)?;
    }
    engine.start(name, false).map(drop)
}
