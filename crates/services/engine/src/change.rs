//! `--change`: Dockerfile instructions that alter an image's config.

use dhow_dockerfile::{Command, Form, Healthcheck, Op, SyntaxError, parse_trigger};
use dhow_oci::{Extra, RunConfig};
use dhow_types::ErrorKind;

use crate::{Engine, Error};

impl Engine {
    /// A config with nothing but these instructions.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no instruction; `Unsupported` for one that a config does not hold.
    pub fn changed_config(&self, changes: &[String]) -> Result<RunConfig, Error> {
        self.change_config(RunConfig::default(), changes)
    }

    /// The same over a config that is there.
    pub(crate) fn change_config(
        &self,
        mut config: RunConfig,
        changes: &[String],
    ) -> Result<RunConfig, Error> {
        for text in changes {
            match parse_trigger(text) {
                Ok(instruction) => apply(&mut config, instruction.op, text)?,
                // A change is one instruction: a command of several lines is one command, as with podman.
                Err(errors) => match lines_of_command(text, &config) {
                    Some((true, words)) => config.entrypoint = Some(words),
                    Some((false, words)) => config.cmd = Some(words),
                    None => return Err(syntax(text, &errors)),
                },
            }
        }
        Ok(config)
    }
}

/// The words of `CMD` or `ENTRYPOINT` (true) in their shell form with a text of several lines.
fn lines_of_command(text: &str, config: &RunConfig) -> Option<(bool, Vec<String>)> {
    let (keyword, rest) = text.trim().split_once(char::is_whitespace)?;
    let entrypoint = keyword.eq_ignore_ascii_case("ENTRYPOINT");
    if !rest.contains('\n') || !(entrypoint || keyword.eq_ignore_ascii_case("CMD")) {
        return None;
    }
    let usual = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
    let mut words = config.shell.clone().unwrap_or_else(usual);
    words.push(rest.trim_start().to_owned());
    Some((entrypoint, words))
}

fn syntax(text: &str, errors: &[SyntaxError]) -> Error {
    let why = errors
        .first()
        .map_or("it is no instruction", |error| error.message.as_str());
    Error::new(
        ErrorKind::InvalidArgument,
        format!("read the change {text:?}: {why}"),
    )
}

fn apply(config: &mut RunConfig, op: Op, text: &str) -> Result<(), Error> {
    match op {
        Op::Cmd(command) => config.cmd = Some(words(command)),
        Op::Entrypoint(command) => config.entrypoint = Some(words(command)),
        Op::Env(pairs) => {
            for pair in pairs {
                let start = format!("{}=", pair.key);
                config.env.retain(|line| !line.starts_with(&start));
                config.env.push(format!("{start}{}", pair.value));
            }
        }
        Op::Expose(ports) => {
            let with_protocol = |port: String| {
                if port.contains('/') {
                    port
                } else {
                    format!("{port}/tcp")
                }
            };
            config
                .exposed_ports
                .extend(ports.into_iter().map(|port| (with_protocol(port), Extra::new())));
        }
        Op::Label(pairs) => config
            .labels
            .extend(pairs.into_iter().map(|pair| (pair.key, pair.value))),
        Op::User(user) => config.user = user,
        Op::Volume(paths) => config
            .volumes
            .extend(paths.into_iter().map(|path| (path, Extra::new()))),
        Op::Workdir(path) => config.working_dir = path,
        Op::StopSignal(signal) => config.stop_signal = Some(signal),
        Op::Onbuild(trigger) => config.on_build.push(trigger),
        Op::Shell(shell) => config.shell = Some(shell),
        Op::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
        other => {
            let message = format!("{} is not a valid change command: {text}", other.keyword());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    }
    Ok(())
}

fn words(command: Command) -> Vec<String> {
    match command.form {
        Form::Exec(words) => words,
        Form::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text],
    }
}

fn healthcheck(check: Healthcheck) -> dhow_oci::Healthcheck {
    let nanoseconds = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match check {
        Healthcheck::None => dhow_oci::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Default::default()
        },
        Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let test = match command.form {
                Form::Exec(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                Form::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
            };
            dhow_oci::Healthcheck {
                test,
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.into(),
            }
        }
    }
}
