//! One instruction from its text: keyword, flags and arguments to [`Op`].

use std::time::Duration;

use dhow_types::{Span, SyntaxError, parse_duration};

use crate::lines::Logical;
use crate::mount::Mount;
use crate::suggest::did_you_mean;
use crate::tree::{
    ArgDefinition, Command, Copy, Flag, Form, Healthcheck, Heredoc, MountFlag, Network, Op, Run, Security,
};
use crate::words::{Parts, json_words, pairs, plain_words, shell_words};
use crate::{MAX_WORDS, heredoc};

/// All keywords in upper case.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction that is being read.
pub(crate) struct Reading<'a> {
    pub(crate) line: &'a Logical,
    pub(crate) parts: &'a Parts<'a>,
    pub(crate) keyword: &'a str,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) escape: char,
}

type Result<T> = std::result::Result<T, SyntaxError>;

impl Reading<'_> {
    /// Place of the whole line.
    fn at(&self) -> Span {
        Span::new(self.line.start, self.line.end)
    }

    /// Place of the arguments.
    pub(crate) fn arguments_at(&self) -> Span {
        if self.parts.arguments.is_empty() {
            return self.at();
        }
        let start = self.parts.offset;
        self.line.span(start, start + self.parts.arguments.len())
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at: self.arguments_at(),
            message: message.into(),
            hint: None,
        }
    }

    fn at_least_one(&self) -> SyntaxError {
        self.error(format!("{} requires at least one argument", self.keyword))
    }

    /// Reads everything but `FROM`.
    pub(crate) fn op(&mut self) -> Result<Op> {
        Ok(match self.keyword {
            "ADD" => Op::Add(self.add()?),
            "ARG" => Op::Arg(self.arg()?),
            "CMD" => Op::Cmd(self.command_without_flags()?),
            "COPY" => Op::Copy(self.copy()?),
            "ENTRYPOINT" => Op::Entrypoint(self.command_without_flags()?),
            "ENV" => Op::Env(self.pairs()?),
            "EXPOSE" => {
                let mut ports = self.list()?;
                ports.sort();
                Op::Expose(ports)
            }
            "HEALTHCHECK" => Op::Healthcheck(self.healthcheck()?),
            "LABEL" => Op::Label(self.pairs()?),
            "MAINTAINER" => Op::Maintainer(self.text()?),
            "RUN" => Op::Run(self.run()?),
            "SHELL" => Op::Shell(self.shell()?),
            "STOPSIGNAL" => Op::StopSignal(self.text()?),
            "USER" => Op::User(self.text()?),
            "VOLUME" => Op::Volume(self.volume()?),
            "WORKDIR" => Op::Workdir(self.text()?),
            other => return Err(unknown(other, self.at())),
        })
    }

    /// Refuses every flag that is not in `known`, and any but a repeatable one (`name*`) given twice.
    pub(crate) fn check_flags(&self, known: &[&str]) -> Result<()> {
        for (index, flag) in self.parts.flags.iter().enumerate() {
            let names = known.iter().map(|name| name.trim_end_matches('*'));
            let Some(spelling) = known.iter().find(|name| name.trim_end_matches('*') == flag.name) else {
                return Err(SyntaxError {
                    at: flag.at,
                    message: format!("unknown flag: --{}", flag.name),
                    hint: did_you_mean(&flag.name, names, "--"),
                });
            };
            let before = &self.parts.flags[..index];
            if !spelling.ends_with('*') && before.iter().any(|other| other.name == flag.name) {
                return Err(flag_error(
                    flag,
                    format!("duplicate flag specified: --{}", flag.name),
                ));
            }
        }
        Ok(())
    }

    fn flag(&self, name: &str) -> Option<&Flag> {
        self.parts.flags.iter().find(|flag| flag.name == name)
    }

    pub(crate) fn string_flag(&self, name: &str) -> Result<Option<String>> {
        self.flag(name)
            .map(|flag| flag_value(flag).map(str::to_owned))
            .transpose()
    }

    fn string_flags(&self, name: &str) -> Result<Vec<String>> {
        let flags = self.parts.flags.iter().filter(|flag| flag.name == name);
        flags.map(|flag| flag_value(flag).map(str::to_owned)).collect()
    }

    fn bool_flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(flag) = self.flag(name) else {
            return Ok(None);
        };
        match flag.value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some("") => Err(flag_error(flag, format!("missing a value on flag: --{name}"))),
            Some(other) => Err(flag_error(
                flag,
                format!("expecting boolean value for flag --{name}, not: {other}"),
            )),
        }
    }

    fn duration_flag(&self, name: &str) -> Result<Duration> {
        let Some(flag) = self.flag(name) else {
            return Ok(Duration::ZERO);
        };
        let value = flag_value(flag)?;
        if value.is_empty() || value == "0" {
            return Ok(Duration::ZERO);
        }
        let duration = parse_duration(value).map_err(|error| flag_error(flag, error.to_string()))?;
        if !duration.is_zero() && duration < Duration::from_millis(1) {
            return Err(flag_error(
                flag,
                format!("interval {name:?} cannot be less than 1ms"),
            ));
        }
        Ok(duration)
    }

    /// The arguments as one text, which must be there.
    fn text(&self) -> Result<String> {
        self.check_flags(&[])?;
        if self.parts.arguments.is_empty() {
            return Err(self.error(format!("{} requires exactly one argument", self.keyword)));
        }
        Ok(self.parts.arguments.to_owned())
    }

    fn bounded(&self, words: Vec<String>) -> Result<Vec<String>> {
        if words.len() > MAX_WORDS {
            return Err(self.error(format!("{} has more than {MAX_WORDS} words", self.keyword)));
        }
        Ok(words)
    }

    fn list(&self) -> Result<Vec<String>> {
        self.check_flags(&[])?;
        let words = self.bounded(plain_words(self.parts.arguments))?;
        if words.is_empty() {
            return Err(self.at_least_one());
        }
        Ok(words)
    }

    /// Words of a JSON array, or words between blanks.
    fn json_or_words(&self) -> Result<Vec<String>> {
        let words = match json_words(self.parts.arguments) {
            Some(words) => words.map_err(|message| self.error(message))?,
            None => plain_words(self.parts.arguments),
        };
        self.bounded(words)
    }

    fn pairs(&self) -> Result<Vec<crate::Pair>> {
        self.check_flags(&[])?;
        pairs(self.parts.arguments, self.keyword, self.escape).map_err(|message| self.error(message))
    }

    fn arg(&self) -> Result<Vec<ArgDefinition>> {
        self.check_flags(&[])?;
        let words = self.bounded(shell_words(self.parts.arguments, self.escape))?;
        if words.is_empty() {
            return Err(self.at_least_one());
        }
        words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err(self.error("ARG names can not be blank")),
                Some((name, default)) => Ok(ArgDefinition {
                    name: name.to_owned(),
                    default: Some(default.to_owned()),
                }),
                None => Ok(ArgDefinition {
                    name: word,
                    default: None,
                }),
            })
            .collect()
    }

    /// A command; only valid JSON is the exec form, all else is text for the shell.
    fn command(&mut self, text: &str) -> Result<Command> {
        let form = match json_words(text) {
            Some(words) => {
                let words = words.map_err(|message| self.error(message))?;
                Form::Exec(self.bounded(words)?)
            }
            None => Form::Shell(text.to_owned()),
        };
        let heredocs = match form {
            Form::Shell(_) => std::mem::take(&mut self.heredocs),
            Form::Exec(_) => Vec::new(),
        };
        Ok(Command { form, heredocs })
    }

    fn command_without_flags(&mut self) -> Result<Command> {
        self.check_flags(&[])?;
        self.command(self.parts.arguments)
    }

    fn run(&mut self) -> Result<Run> {
        self.check_flags(&["mount*", "network", "security", "device*"])?;
        let mut mounts = Vec::new();
        for flag in self.parts.flags.iter().filter(|flag| flag.name == "mount") {
            let text = flag_value(flag)?;
            let checked = if text.contains('$') {
                Mount::check_shape(text)
            } else {
                Mount::parse(text, &mut |value| Ok(value.to_owned())).map(drop)
            };
            checked.map_err(|(message, hint)| SyntaxError {
                at: flag.at,
                message,
                hint,
            })?;
            mounts.push(MountFlag {
                at: flag.at,
                text: text.to_owned(),
            });
        }
        let network = self.choice(
            "network",
            &[
                ("default", Network::Default),
                ("host", Network::Host),
                ("none", Network::None),
            ],
        )?;
        let security = self.choice(
            "security",
            &[("insecure", Security::Insecure), ("sandbox", Security::Sandbox)],
        )?;
        Ok(Run {
            mounts,
            network,
            security,
            devices: self.string_flags("device")?,
            command: self.command(self.parts.arguments)?,
        })
    }

    fn choice<T: std::marker::Copy + Default>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let Some(flag) = self.flag(name) else {
            return Ok(T::default());
        };
        let value = flag_value(flag)?;
        let found = choices.iter().find(|(choice, _)| *choice == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            SyntaxError {
                at: flag.at,
                message: format!("invalid value {value:?} of --{name}"),
                hint: Some(format!("use one of {}", names.join(", "))),
            }
        })
    }

    fn shell(&self) -> Result<Vec<String>> {
        self.check_flags(&[])?;
        match json_words(self.parts.arguments) {
            Some(Ok(words)) if !words.is_empty() => self.bounded(words),
            Some(Err(message)) => Err(self.error(message)),
            _ if self.parts.arguments.is_empty() => Err(self.at_least_one()),
            Some(Ok(_)) => Err(self.at_least_one()),
            None => Err(SyntaxError {
                hint: Some("write SHELL [\"executable\", \"parameters\"]".to_owned()),
                ..self.error("SHELL requires the arguments to be in JSON form")
            }),
        }
    }

    fn volume(&self) -> Result<Vec<String>> {
        self.check_flags(&[])?;
        let words = self.json_or_words()?;
        if words.is_empty() {
            return Err(self.at_least_one());
        }
        let volumes: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
        if volumes.iter().any(String::is_empty) {
            return Err(self.error("VOLUME specified can not be an empty string"));
        }
        Ok(volumes)
    }

    fn healthcheck(&mut self) -> Result<Healthcheck> {
        let text = self.parts.arguments;
        let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        match kind.to_ascii_uppercase().as_str() {
            "" => Err(self.at_least_one()),
            "NONE" => {
                self.check_flags(&[])?;
                if rest.is_empty() {
                    Ok(Healthcheck::None)
                } else {
                    Err(self.error("HEALTHCHECK NONE takes no arguments"))
                }
            }
            "CMD" => self.healthcheck_command(rest),
            other => Err(SyntaxError {
                hint: Some("write HEALTHCHECK CMD <command> or HEALTHCHECK NONE".to_owned()),
                ..self.error(format!("unknown type {other:?} in HEALTHCHECK"))
            }),
        }
    }

    fn healthcheck_command(&mut self, text: &str) -> Result<Healthcheck> {
        self.check_flags(&["interval", "timeout", "start-period", "start-interval", "retries"])?;
        let command = self.command(text)?;
        let empty = match &command.form {
            Form::Exec(words) => words.is_empty(),
            Form::Shell(text) => text.is_empty(),
        };
        if empty {
            return Err(self.error("missing command after HEALTHCHECK CMD"));
        }
        let retries = match self.flag("retries") {
            None => 0,
            Some(flag) => match flag_value(flag)? {
                "" => 0,
                value => value
                    .parse::<u32>()
                    .ok()
                    .filter(|retries| *retries <= i32::MAX.unsigned_abs())
                    .ok_or_else(|| {
                        flag_error(
                            flag,
                            format!("--retries must be a number from 0 on, not {value:?}"),
                        )
                    })?,
            },
        };
        Ok(Healthcheck::Check {
            command,
            interval: self.duration_flag("interval")?,
            timeout: self.duration_flag("timeout")?,
            start_period: self.duration_flag("start-period")?,
            start_interval: self.duration_flag("start-interval")?,
            retries,
        })
    }

    fn add(&mut self) -> Result<Copy> {
        self.check_flags(&[
            "chown",
            "chmod",
            "link",
            "keep-git-dir",
            "checksum",
            "unpack",
            "exclude*",
        ])?;
        let copy = self.sources()?;
        Ok(Copy {
            keep_git_dir: self.bool_flag("keep-git-dir")?,
            checksum: self.string_flag("checksum")?,
            unpack: self.bool_flag("unpack")?,
            ..copy
        })
    }

    fn copy(&mut self) -> Result<Copy> {
        self.check_flags(&["chown", "from", "chmod", "link", "exclude*", "parents"])?;
        let copy = self.sources()?;
        Ok(Copy {
            from: self.string_flag("from")?.filter(|from| !from.is_empty()),
            parents: self.bool_flag("parents")?.unwrap_or(false),
            ..copy
        })
    }

    /// What `ADD` and `COPY` share.
    fn sources(&mut self) -> Result<Copy> {
        let mut words = self.json_or_words()?;
        let destination = match words.pop() {
            Some(destination) if !words.is_empty() => destination,
            _ => {
                let message = format!(
                    "{} requires at least two arguments, but only one was provided: destination could not be determined",
                    self.keyword
                );
                return Err(self.error(message));
            }
        };
        if heredoc::parse_word(&destination).is_some() {
            return Err(self.error(format!(
                "{} cannot accept a heredoc as a destination",
                self.keyword
            )));
        }
        let mut copy = Copy {
            destination,
            chown: self.string_flag("chown")?.filter(|chown| !chown.is_empty()),
            chmod: self.string_flag("chmod")?.filter(|chmod| !chmod.is_empty()),
            link: self.bool_flag("link")?.unwrap_or(false),
            excludes: self.string_flags("exclude")?,
            ..Copy::default()
        };
        let bodies = std::mem::take(&mut self.heredocs);
        for word in words {
            let body = heredoc::parse_word(&word)
                .and_then(|announced| bodies.iter().find(|body| body.name == announced.name));
            match body {
                Some(body) => copy.files.push(body.clone()),
                None => copy.paths.push(word),
            }
        }
        Ok(copy)
    }
}

fn flag_error(flag: &Flag, message: String) -> SyntaxError {
    SyntaxError {
        at: flag.at,
        message,
        hint: None,
    }
}

fn flag_value(flag: &Flag) -> Result<&str> {
    flag.value
        .as_deref()
        .ok_or_else(|| flag_error(flag, format!("missing a value on flag: --{}", flag.name)))
}

/// The error for a keyword that does not exist.
pub(crate) fn unknown(keyword: &str, at: Span) -> SyntaxError {
    let shown: String = keyword.chars().take(64).collect();
    SyntaxError {
        at,
        hint: did_you_mean(&shown, KEYWORDS, ""),
        message: format!("unknown instruction: {shown}"),
    }
}
