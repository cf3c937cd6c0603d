//! `exec`.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{ExecRequest, ExecStarted};
use rustix::event::{PollFd, PollFlags};

use crate::attach::{exit_byte, start_failure};
use crate::flags::{Signals, env_pairs};
use crate::terminal::{self, RawMode};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "exec",
    about: "Execute a command in a running container",
    flags: |command| ExecFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ExecFlags {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Pass N descriptors beside the three to the container, from 3 on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..1024))]
    preserve_fds: Option<u32>,
    /// Pass these descriptors to the container
    #[arg(long, value_name = "FD,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(3..1024))]
    preserve_fd: Vec<u32>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: name|uid[:group|gid])
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = !dialect::spoken().is_podman(),
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExecFlags = crate::flags::read(matches)?;
    if flags.tty && flags.interactive && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(CliError::plain("the input device is not a TTY"));
    }
    if flags.preserve_fds.is_some() && !flags.preserve_fd.is_empty() {
        return Err(CliError::plain(
            "cannot specify both --preserve-fds and --preserve-fd",
        ));
    }
    if flags.command.is_empty() {
        let message = "must provide a non-empty command to start an exec session: invalid argument";
        return Err(CliError::plain(message));
    }
    let engine = context.engine()?;
    let mut env = env_pairs(&flags.env, &flags.env_file)?;
    if dialect::spoken().is_podman() {
        env.extend(terminal_of(engine, &flags.container, &env));
    }
    let request = ExecRequest {
        container: flags.container,
        args: flags.command,
        env,
        kept: context.kept().to_vec(),
        keep_groups: dialect::spoken().is_podman(),
        user: flags.user,
        workdir: flags.workdir,
        tty: flags.tty,
        console_size: flags.tty.then(terminal::size).flatten(),
        privileged: flags.privileged,
    };
    let streams = if flags.tty || flags.detach {
        None
    } else {
        Some(own_streams(flags.interactive)?)
    };
    let started = match engine.exec(&request, streams) {
        Ok(started) => started,
        Err(error) => {
            let code = match start_failure(error.kind()) {
                // The session of a detached one could not be started.
                _ if flags.detach && dialect::spoken().is_podman() => 125,
                // Docker exits with 1 when it is not the program that is missing.
                125 => 1,
                code => code,
            };
            return Err(CliError::from(error).with_code(code));
        }
    };
    if flags.detach {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(master) = &started.terminal {
        talk(master, &started, flags.interactive)?;
    }
    let code = engine.exec_wait(&started)?;
    Ok(ExitCode::from(exit_byte(code)))
}

/// With podman every process of a container with a terminal finds its kind, unless a variable says another.
fn terminal_of(engine: &dhow_engine::Engine, container: &str, env: &[String]) -> Option<String> {
    let config = engine.containers().find(container).ok()?.config;
    let says = |set: &String| set.starts_with("TERM=");
    let quiet = !config.request.env.iter().any(says) && !env.iter().any(says);
    (config.request.tty && quiet).then(|| "TERM=xterm".to_owned())
}

/// This command's own streams, for the process to use directly.
fn own_streams(interactive: bool) -> Result<[OwnedFd; 3], CliError> {
    let stdin: OwnedFd = if interactive {
        std::io::stdin().as_fd().try_clone_to_owned()?
    } else {
        std::fs::File::open("/dev/null")?.into()
    };
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    Ok([stdin, stdout, stderr])
}

/// Moves bytes between the person's terminal and the process'.
fn talk(master: &OwnedFd, started: &ExecStarted, interactive: bool) -> Result<(), CliError> {
    let raw = if interactive { RawMode::enter() } else { None };
    let signals = Signals::watch(false, true)?;
    resize(master);
    let mut writer = std::fs::File::from(master.try_clone()?);
    let mut reader = std::fs::File::from(master.try_clone()?);
    let mut buffer = vec![0; 32 << 10];
    let mut open = interactive;
    let stdin = std::io::stdin();
    loop {
        let mut fds = vec![
            PollFd::new(master, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&started.pidfd, PollFlags::IN),
        ];
        if open {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        rustix::event::poll(&mut fds, None).ok();
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            match reader.read(&mut buffer) {
                Ok(count @ 1..) => {
                    let mut out = std::io::stdout();
                    out.write_all(&buffer[..count])?;
                    out.flush()?;
                }
                // The other side of the terminal is closed.
                _ => break,
            }
        } else if ready[2] {
            break;
        }
        if ready[1] && !signals.take().is_empty() {
            resize(master);
        }
        if ready.get(3) == Some(&true) {
            match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(count @ 1..) => writer.write_all(&buffer[..count])?,
                _ => open = false,
            }
        }
    }
    drop(raw);
    Ok(())
}

fn resize(master: &OwnedFd) {
    if let Some((rows, columns)) = terminal::size() {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal that is gone has no size.
        rustix::termios::tcsetwinsize(master, size).ok();
    }
}
