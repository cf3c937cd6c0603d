//! `attach`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::attach::{Attached, End, exit_byte, pump};
use crate::render::note;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "attach",
    about: "Attach local standard input, output, and error streams to a running container",
    flags: |command| AttachFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct AttachFlags {
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// The keys that leave the container running; none when empty
    #[arg(long, value_name = "KEYS", value_parser = crate::attach::Keys::parse, default_value = crate::attach::DETACH_KEYS, hide_default_value = true)]
    detach_keys: crate::attach::Keys,
    /// Proxy all received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: AttachFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let (container, socket) = engine.attach(&flags.container)?;
    let config = container.config;
    let tty = config.request.tty;
    let how = Attached {
        stdin: !flags.no_stdin && config.open_stdin,
        stdout: true,
        stderr: true,
        keys: flags.detach_keys,
        tty,
        signals: flags.sig_proxy && !tty,
    };
    // It may have ended already; its exit code comes next.
    match pump(socket, how, |number| {
        drop(engine.kill(config.id.as_str(), &number.to_string()))
    })? {
        End::Exit(code) => Ok(ExitCode::from(exit_byte(code))),
        // Who reads docker's exit code by docker's name learns that the container runs on.
        End::Detached if dialect::is_docker() => {
            note("read escape sequence");
            Ok(ExitCode::FAILURE)
        }
        End::Detached => Ok(ExitCode::SUCCESS),
    }
}
