//! `boot`: what a daemon does when the machine starts, as a command.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::render::{say, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "boot",
    about: "Start the containers that are to run after a reboot",
    flags: |command| BootFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct BootFlags {
    /// Print a systemd unit that does this at each boot, instead of doing it
    #[arg(long)]
    unit: bool,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: BootFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.unit {
        let program = std::env::current_exe()
            .map_err(|error| CliError::plain(format!("find this program's own path: {error}")))?;
        say(&unit(
            &program.display().to_string(),
            &engine.settings().root.display().to_string(),
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut code = ExitCode::SUCCESS;
    for booted in engine.boot()? {
        match booted.failure {
            None => say_line(&booted.container.config.name)?,
            Some(error) => {
                CliError::from(error).shown();
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The monitors are no processes of the unit's that systemd may end with it (`KillMode=process`), so stopping or
/// upgrading the unit stops no container.
fn unit(program: &str, root: &str) -> String {
    let (program, root) = (quoted(program), quoted(root));
    format!(
        "# {program} boot --unit > /etc/systemd/system/dhow-boot.service; systemctl enable dhow-boot\n\
         [Unit]\n\
         Description=Containers that run after a reboot\n\
         Wants=network-online.target\n\
         After=network-online.target local-fs.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         KillMode=process\n\
         Delegate=yes\n\
         TimeoutStartSec=infinity\n\
         ExecStart={program} --root {root} boot\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// An argument as systemd reads it (systemd.service(5), "Command lines"; `%` and `$` stand for themselves doubled).
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::{quoted, unit};

    #[test]
    fn a_unit_names_program_and_root_in_systemds_quotes() {
        let text = unit("/usr/bin/dhow", "/var/lib/my dhow");
        assert!(
            text.contains("ExecStart=/usr/bin/dhow --root \"/var/lib/my dhow\" boot\n"),
            "{text}"
        );
        assert_eq!(quoted("/a%b$c\"d"), "\"/a%%b$$c\\\"d\"");
    }
}
