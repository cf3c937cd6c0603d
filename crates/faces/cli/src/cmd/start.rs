//! `start`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::attach::{Attached, End, exit_byte, pump};
use crate::render::say_line;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "start",
    about: "Start one or more stopped containers",
    flags: |command| StartFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct StartFlags {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StartFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if !flags.attach && !flags.interactive {
        return super::each(&flags.containers, |name| {
            engine.start(name, false)?;
            say_line(name)
        });
    }
    let [name] = flags.containers.as_slice() else {
        return Err(CliError::plain(
            "you cannot start and attach multiple containers at once",
        ));
    };
    let started = engine.start(name, true)?;
    let config = started.container.config;
    let Some(socket) = started.attached else {
        return Ok(ExitCode::SUCCESS);
    };
    let tty = config.request.tty;
    let how = Attached {
        stdin: flags.interactive && config.open_stdin,
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
