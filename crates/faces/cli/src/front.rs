//! What stands before the verb, and words that are no verb: those of programs that add verbs (see [`crate::plugins`]), and
//! called `docker`, help, version and wrong flags as docker's command line has them (docker/cli `cmd/docker/docker.go`,
//! `cli/cobra.go`), since scripts and its own tests compare them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::plugins::{Plugin, Plugins};
use crate::render::{note, say};
use crate::{CliError, cmd, dialect, plugins};

/// What comes of the words of a call before a verb reads them.
#[derive(Debug)]
pub(crate) enum Way {
    /// A verb of ours is to read them.
    Verb,
    /// All is done.
    Done(ExitCode),
}

/// Flags before the verb that have a value: the long and the short name.
const VALUED: [(&str, char); 9] = [
    ("config", NONE),
    ("context", 'c'),
    ("host", 'H'),
    ("log-level", 'l'),
    ("out", NONE),
    ("root", NONE),
    ("tlscacert", NONE),
    ("tlscert", NONE),
    ("tlskey", NONE),
];
/// Those that have none, or one after an equals sign.
const SWITCHES: [(&str, char); 6] = [
    ("debug", 'D'),
    ("help", 'h'),
    ("noout", NONE),
    ("tls", NONE),
    ("tlsverify", NONE),
    ("version", 'v'),
];
/// A flag that has no short name.
const NONE: char = '\0';

/// The verbs that docker lists first, in its order.
const COMMON: [&str; 11] = [
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
];

/// What stands before the verb.
#[derive(Debug, Default, PartialEq)]
struct Before {
    /// The place of the verb among the words; none when there is none.
    verb: Option<usize>,
    config: Option<PathBuf>,
    host: Option<String>,
    help: bool,
    version: bool,
}

impl Before {
    /// Reads them as docker does (spf13/pflag): the first word that is no flag ends them.
    ///
    /// # Errors
    /// In docker's words.
    fn read(words: &[OsString]) -> Result<Self, String> {
        let mut before = Self::default();
        let mut at = 1;
        while let Some(word) = words.get(at) {
            let text = word.to_str().unwrap_or_default();
            if text == "--" {
                before.verb = (at + 1 < words.len()).then_some(at + 1);
                break;
            }
            let next = words.get(at + 1).and_then(|word| word.to_str());
            let took = match text.strip_prefix("--") {
                Some(flag) => before.long(flag, next)?,
                None if text.len() > 1 && text.starts_with('-') => before.short(text, next)?,
                None => {
                    before.verb = Some(at);
                    break;
                }
            };
            at += 1 + usize::from(took);
        }
        Ok(before)
    }

    /// `--name`, `--name=value`, `--name value`; whether the next word was its value.
    fn long(&mut self, flag: &str, next: Option<&str>) -> Result<bool, String> {
        let (name, value) = flag
            .split_once('=')
            .map_or((flag, None), |(name, value)| (name, Some(value)));
        if SWITCHES.iter().any(|(known, _)| *known == name) {
            self.switch(name);
            return Ok(false);
        }
        if !VALUED.iter().any(|(known, _)| *known == name) {
            return Err(format!("unknown flag: --{name}"));
        }
        let given = value
            .or(next)
            .ok_or_else(|| format!("flag needs an argument: --{name}"))?;
        self.value(name, given)?;
        Ok(value.is_none())
    }

    /// `-D`, `-Dv`, `-Hvalue`, `-H=value`, `-H value`.
    fn short(&mut self, text: &str, next: Option<&str>) -> Result<bool, String> {
        let letters = &text[1..];
        for (place, letter) in letters.char_indices() {
            let named = |list: &[(&'static str, char)]| {
                let found = list.iter().find(|(_, short)| *short == letter);
                found.map(|(name, _)| *name)
            };
            if let Some(name) = named(&SWITCHES) {
                self.switch(name);
                continue;
            }
            let Some(name) = named(&VALUED) else {
                return Err(format!("unknown shorthand flag: {letter:?} in -{letters}"));
            };
            let rest = &letters[place + letter.len_utf8()..];
            let own = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
            let given = own
                .or(next)
                .ok_or_else(|| format!("flag needs an argument: {letter:?} in -{letters}"))?;
            self.value(name, given)?;
            return Ok(own.is_none());
        }
        Ok(false)
    }

    fn switch(&mut self, name: &str) {
        self.help |= name == "help";
        self.version |= name == "version";
    }

    fn value(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "config" => self.config = Some(value.into()),
            "host" if self.host.is_some() => {
                return Err(format!(
                    "invalid argument {value:?} for \"-H, --host\" flag: specify only one -H"
                ));
            }
            "host" => self.host = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// Does what no verb of ours does.
///
/// # Errors
/// A program that adds a verb and could not be run.
pub(crate) fn pass(words: &[OsString]) -> Result<Way, CliError> {
    if dialect::spoken().is_podman() {
        return Ok(Way::Verb);
    }
    let docker = dialect::is_docker();
    let before = match Before::read(words) {
        Ok(before) => before,
        Err(wrong) if docker => {
            note(&format!(
                "{wrong}\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information"
            ));
            return Ok(Way::Done(ExitCode::from(125)));
        }
        // Our own words for it come later.
        Err(_) => return Ok(Way::Verb),
    };
    let word = |at: usize| words.get(at).and_then(|word| word.to_str());
    let config = before.config.clone();
    let plugins = || Plugins::new(config.as_deref());
    let Some((at, verb)) = before.verb.and_then(|at| Some((at, word(at)?))) else {
        return if docker {
            without_verb(&before, &plugins())
        } else {
            Ok(Way::Verb)
        };
    };
    let asked = if verb == "help" { word(at + 1) } else { Some(verb) };
    if let Some(name) = asked.filter(|name| !cmd::is_verb(name)) {
        if let Some(plugin) = plugins().find(name).filter(Plugin::is_sound) {
            return plugins::run(&plugin, words).map(Way::Done);
        }
        if docker {
            return no_verb(&before, name, verb == "help", &words[at + 1..], &plugins());
        }
    }
    match (docker, verb, asked) {
        (true, "help", None) => without_verb(&Before { help: true, ..before }, &plugins()),
        (true, ..) if before.version => without_verb(&before, &plugins()),
        _ => Ok(Way::Verb),
    }
}

/// Version or help; the latter goes to standard error when nobody asked for it.
fn without_verb(before: &Before, plugins: &Plugins) -> Result<Way, CliError> {
    if before.version && !before.help {
        say(&format!(
            "Docker version {}, build dhow\n",
            env!("CARGO_PKG_VERSION")
        ))?;
    } else if before.help {
        say(&root_help(plugins))?;
    } else {
        note(root_help(plugins).trim_end_matches('\n'));
    }
    Ok(Way::Done(ExitCode::SUCCESS))
}

/// A word that names no verb.
fn no_verb(
    before: &Before,
    name: &str,
    is_topic: bool,
    rest: &[OsString],
    plugins: &Plugins,
) -> Result<Way, CliError> {
    let has = |flag: &str| rest.iter().any(|word| word == flag);
    if is_topic {
        let topic: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
        note(&format!("unknown help topic: {}", topic.join(" ")));
        return Ok(Way::Done(ExitCode::FAILURE));
    }
    if before.version || before.help || has("--help") {
        return without_verb(
            before_help(before, has("--help")).as_ref().unwrap_or(before),
            plugins,
        );
    }
    if has("-h") {
        say("Flag shorthand -h has been deprecated, use --help\n")?;
        say(&root_help(plugins))?;
        return Ok(Way::Done(ExitCode::SUCCESS));
    }
    note(&format!(
        "docker: unknown command: docker {name}\n\nRun 'docker --help' for more information"
    ));
    Ok(Way::Done(ExitCode::FAILURE))
}

/// The same with help asked for.
fn before_help(before: &Before, asked: bool) -> Option<Before> {
    asked.then(|| Before {
        help: true,
        verb: before.verb,
        ..Before::default()
    })
}

/// Docker's first page.
fn root_help(plugins: &Plugins) -> String {
    let found: Vec<Plugin> = plugins.list();
    let sound = found
        .iter()
        .filter(|plugin| plugin.is_sound() && !plugin.is_hidden())
        .map(|plugin| (format!("{}*", plugin.name()), plugin.about().to_owned()));
    let wrong = found.iter().filter_map(|plugin| {
        let why = plugin.wrong()?;
        Some((plugin.name().to_owned(), why.to_owned()))
    });
    let owned = |(name, about): (&str, &str)| (name.to_owned(), about.to_owned());
    let common: Vec<_> = COMMON
        .iter()
        .filter_map(|name| cmd::verbs().find(|(verb, _)| verb == name))
        .map(owned)
        .collect();
    let mut groups: Vec<_> = cmd::groups().map(owned).chain(sound).collect();
    let mut rest: Vec<_> = cmd::verbs()
        .filter(|(verb, _)| !COMMON.contains(verb))
        .map(owned)
        .collect();
    let mut wrong: Vec<_> = wrong.collect();
    for list in [&mut groups, &mut rest, &mut wrong] {
        list.sort();
    }
    let parts = [
        ("Common Commands", common),
        ("Management Commands", groups),
        ("Commands", rest),
        ("Invalid Plugins", wrong),
    ];
    let all = parts.iter().flat_map(|(_, list)| list);
    let width = all.map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut out = "Usage:  docker [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n".to_owned();
    for (title, list) in &parts {
        if list.is_empty() {
            continue;
        }
        out.push_str(&format!("\n{title}:\n"));
        for (name, about) in list {
            out.push_str(&format!("  {name:width$} {about}\n"));
        }
    }
    out.push_str(OPTIONS);
    out
}

/// A word too many, in docker's words; none where something else is wrong.
pub(crate) fn too_many_words(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') {
        return None;
    }
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return None;
    };
    let usage = usage.to_string();
    let usage = usage.trim_start_matches("Usage:").trim().split_once(' ')?.1;
    let verb: Vec<&str> = usage
        .split(' ')
        .take_while(|word| !word.starts_with(['[', '<']))
        .collect();
    let verb = verb.join(" ");
    // One that takes some words is told apart by what its usage names.
    let takes = usage.contains('<') || usage.replace("[OPTIONS]", "").contains('[');
    let what = if takes {
        "accepts fewer arguments"
    } else {
        "accepts no arguments"
    };
    Some(format!(
        "'docker {verb}' {what}\n\nUsage:  docker {usage}\n\nRun 'docker {verb} --help' for more information"
    ))
}

/// What may stand before a verb.
const OPTIONS: &str = "
Global Options:
      --config string      Location of client config files
  -c, --context string     Name of the context that counts (overrides DOCKER_HOST and \"docker context use\")
  -D, --debug              Enable debug mode
  -H, --host string        The engine that is meant
  -l, --log-level string   Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")
      --noout              Write nothing to standard output
      --out string         Write what goes to standard output to a file instead
      --root string        Keep everything under this folder
      --tls                Use TLS; implied by --tlsverify
      --tlscacert string   Trust certs signed only by this CA
      --tlscert string     Path to TLS certificate file
      --tlskey string      Path to TLS key file
      --tlsverify          Use TLS and verify the remote
  -v, --version            Print version information and quit

Run 'docker COMMAND --help' for more information on a command.

This is dhow, called docker.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Before, String> {
        Before::read(&line.split(' ').map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn the_first_word_that_is_no_flag_is_the_verb() {
        let verb = |line: &str| read(line).unwrap().verb;
        assert_eq!(verb("docker"), None);
        assert_eq!(verb("docker -D -l info --tlsverify=false ps -a"), Some(5));
        assert_eq!(verb("docker -Hunix:///x --config c run -v x"), Some(4));
        assert_eq!(verb("docker --config=c -- run"), Some(3));
        assert_eq!(verb("docker --root /r"), None);
        let before = read("docker --config c -vD").unwrap();
        assert_eq!(before.config, Some("c".into()));
        assert!(before.version);
    }

    #[test]
    fn wrong_flags_are_told_in_dockers_words() {
        for (line, said) in [
            ("docker --unknown x", "unknown flag: --unknown"),
            ("docker --unknown=y x", "unknown flag: --unknown"),
            ("docker -Dx", "unknown shorthand flag: 'x' in -Dx"),
            ("docker --config", "flag needs an argument: --config"),
            ("docker -H", "flag needs an argument: 'H' in -H"),
            (
                "docker -H a -H=b ps",
                "invalid argument \"b\" for \"-H, --host\" flag: specify only one -H",
            ),
        ] {
            assert_eq!(read(line).unwrap_err(), said, "{line}");
        }
    }
}
