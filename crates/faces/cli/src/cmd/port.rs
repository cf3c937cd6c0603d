//! `port`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::render::say;
use crate::view::port::{joined, published};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "port",
    about: "List port mappings or a specific mapping for the container",
    flags: |command| PortFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct PortFlags {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// One port of the container
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PortFlags = crate::flags::read(matches)?;
    let container = context.engine()?.containers().find(&flags.container)?;
    let ports = published(&container);
    let Some(wanted) = &flags.port else {
        let lines = ports.iter().map(|port| {
            let host = joined(port.host_ip, &port.host_port.to_string());
            format!("{}/{} -> {host}\n", port.container_port, port.protocol)
        });
        say(&lines.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = if wanted.contains('/') {
        wanted.clone()
    } else {
        format!("{wanted}/tcp")
    };
    let lines: String = ports
        .iter()
        .filter(|port| format!("{}/{}", port.container_port, port.protocol) == wanted)
        .map(|port| joined(port.host_ip, &port.host_port.to_string()) + "\n")
        .collect();
    if lines.is_empty() {
        let message = match crate::dialect::spoken().is_podman() {
            true => format!("failed to find published port {wanted:?}"),
            false => format!("no public port '{wanted}' published for {}", flags.container),
        };
        return Err(CliError::plain(message));
    }
    say(&lines)?;
    Ok(ExitCode::SUCCESS)
}
