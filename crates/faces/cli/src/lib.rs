//! The command line: docker's verbs, flags, columns and exit codes over Dhow's engine.
//!
//! This crate alone reads the environment, the terminal and the clock of a person, and it alone prints. It
//! translates and never decides: a verb's module turns flags ([`clap`] derive structs, built only for the verb that
//! is called, since building all of them costs a millisecond) into the engine's words and the engine's answer into
//! docker's columns.
//!
//! Data goes to standard output, everything else (progress, warnings, errors) to standard error. An error is said
//! once: `dhow: what: why`, then `hint: what to do`.

#![forbid(unsafe_code)]

mod attach;
mod cmd;
mod containers_conf;
mod contexts;
mod dialect;
mod docker_config;
mod elsewhere;
mod environment;
mod error;
mod flags;
mod front;
mod globals;
mod interrupt;
mod notify;
mod plugins;
mod render;
mod terminal;
mod view;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

pub use environment::Environment;
pub(crate) use error::CliError;

/// What a verb has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    /// Descriptors of the caller that a container is to have.
    kept: Vec<u32>,
    environment: Environment,
    globals: globals::Globals,
    engine: std::sync::OnceLock<dhow_engine::Engine>,
}

impl Context {
    /// Descriptors of the caller that a container is to have.
    pub(crate) fn kept(&self) -> &[u32] {
        &self.kept
    }

    /// The engine, opened when first asked for.
    pub(crate) fn engine(&self) -> Result<&dhow_engine::Engine, CliError> {
        Ok(self.opened()?)
    }

    /// The same with the engine's own error.
    pub(crate) fn opened(&self) -> Result<&dhow_engine::Engine, dhow_engine::Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = dhow_engine::Engine::open(self.environment.settings())?;
        self.globals.apply(&engine)?;
        Ok(self.engine.get_or_init(|| engine))
    }
}

/// One verb: its name, its flags, its deed.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: fn(Command) -> Command,
    pub(crate) run: fn(&Context, &ArgMatches) -> Result<ExitCode, CliError>,
}

/// The program: reads its arguments and environment, does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let words = cmd::quadlet::called(&words).unwrap_or(words);
    match front::pass(&words) {
        Ok(front::Way::Verb) => {}
        Ok(front::Way::Done(code)) => return code,
        Err(error) => return error.report(),
    }
    let words = match with_defaults(words) {
        Ok(words) => words,
        Err(error) => return error.report(),
    };
    let matches = match matches(words.clone()) {
        Ok(matches) => matches,
        Err(error) => return usage_error(&error),
    };
    let kept = match kept(&matches) {
        Ok(kept) => kept,
        Err(error) => return error.report(),
    };
    dhow_engine::close_inherited_but(&kept);
    if let Err(error) = redirect(&matches) {
        return error.report();
    }
    let read = || Ok((Environment::read(&matches)?, globals::Globals::read(&matches)?));
    let (environment, globals) = match read() {
        Ok(both) => both,
        Err(error) => return CliError::report(error),
    };
    if let Err(error) = check_context(&environment, &globals, &matches, &words) {
        return error.report();
    }
    if let Err(error) = enter_own_namespace(&environment, &matches) {
        return error.report();
    }
    globals.begin(&environment);
    let context = Context {
        kept,
        environment,
        globals,
        engine: std::sync::OnceLock::new(),
    };
    let code = cmd::dispatch(&context, &matches).unwrap_or_else(|error| error.report());
    context.globals.end();
    code
}

/// What a normal user needs no namespace for: it says what this host has, asks registries, or serves.
const OUTSIDE: [&str; 11] = [
    "completion",
    "context",
    "doctor",
    "login",
    "logout",
    "man",
    "quadlet",
    "registry",
    "scan",
    "search",
    "version",
];

/// A verb that does something on an engine is not for this host, when the person's context is another. What starts with the
/// machine has no person.
fn check_context(
    environment: &Environment,
    globals: &globals::Globals,
    matches: &ArgMatches,
    words: &[std::ffi::OsString],
) -> Result<(), CliError> {
    // It lists contexts.
    let connection = |(verb, below): (&str, &ArgMatches)| {
        verb == "system" && below.subcommand_name() == Some("connection")
    };
    if matches.subcommand().is_some_and(connection) {
        return Ok(());
    }
    let podman = dialect::spoken().is_podman();
    match matches.subcommand_name() {
        Some(verb) if (verb == "version" || !OUTSIDE.contains(&verb)) && verb != "boot" && !podman => {
            let engine = environment.contexts().engine();
            if elsewhere::is_ssh(&engine) {
                return elsewhere::by_ssh(&engine, words, matches);
            }
        }
        _ => {}
    }
    match matches.subcommand_name() {
        // Podman's users have other words for other hosts.
        Some(verb) if !OUTSIDE.contains(&verb) && verb != "boot" && !podman => {
            environment.contexts().check_here()?;
            globals.check_endpoint()
        }
        _ => Ok(()),
    }
}

/// A normal user's images and containers are worked on as root of a namespace of theirs.
fn enter_own_namespace(environment: &Environment, matches: &ArgMatches) -> Result<(), CliError> {
    match matches.subcommand_name() {
        Some(verb) if !OUTSIDE.contains(&verb) => Ok(dhow_engine::rootless::enter(&environment.settings())?),
        _ => Ok(()),
    }
}

/// The descriptors of this command's caller that a container is to have (`--preserve-fds`, `--preserve-fd`). All others are
/// closed before anything of this command is open.
fn kept(matches: &ArgMatches) -> Result<Vec<u32>, CliError> {
    let mut inner = matches;
    while let Some((_, below)) = inner.subcommand() {
        inner = below;
    }
    let count = inner
        .try_get_one::<u32>("preserve_fds")
        .ok()
        .flatten()
        .copied()
        .unwrap_or(0);
    let named = inner.try_get_many::<u32>("preserve_fd").ok().flatten();
    let all: Vec<u32> = (3..count.saturating_add(3))
        .chain(named.into_iter().flatten().copied())
        .collect();
    match all.iter().find(|number| !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists()) {
        Some(number) => Err(CliError::plain(format!(
            "file descriptor {number} is not available: --preserve-fds and --preserve-fd need descriptors that are open"
        ))
        .with_code(125)),
        None => Ok(all),
    }
}

/// Lets standard output lead to where `--out` and `--noout` say.
fn redirect(matches: &ArgMatches) -> Result<(), CliError> {
    let path = match matches.get_one::<String>("out") {
        Some(path) => path.as_str(),
        None if matches.get_flag("noout") => "/dev/null",
        None => return Ok(()),
    };
    let failed = |error: &dyn std::fmt::Display| CliError::plain(format!("write to {path}: {error}"));
    let file = std::fs::File::create(path).map_err(|error| failed(&error))?;
    rustix::stdio::dup2_stdout(&file).map_err(|error| failed(&error))
}

/// Global flags that have a value.
const GLOBAL: [&str; 7] = ["--root", "--out", "--config", "--context", "-c", "--host", "-H"];

/// The words with what `containers.conf` says of containers, before the person's own flags.
fn with_defaults(mut words: Vec<std::ffi::OsString>) -> Result<Vec<std::ffi::OsString>, CliError> {
    if !dialect::spoken().is_podman() {
        return Ok(words);
    }
    let mut at = 1;
    while let Some(word) = words.get(at).and_then(|word| word.to_str()) {
        match word {
            "container" => at += 1,
            flag if GLOBAL.contains(&flag) || globals::VALUED.contains(&flag) => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => break,
        }
    }
    if !words
        .get(at)
        .is_some_and(|verb| verb == "run" || verb == "create")
    {
        return Ok(words);
    }
    let conf = containers_conf::ContainersConf::usual()?;
    let said: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let flags = conf.flags(&said)?;
    words.splice(at + 1..at + 1, flags.into_iter().map(Into::into));
    Ok(words)
}

/// Reads the arguments. A switch may be given a value (`--rm=false`), as docker and podman have it: it is found when it
/// is refused, since only then it is known to be a switch.
fn matches(mut words: Vec<std::ffi::OsString>) -> Result<ArgMatches, clap::Error> {
    loop {
        let (at, on) = match command().try_get_matches_from(&words) {
            Ok(matches) => match taken_for_image(&matches, &words) {
                Some(found) => found,
                None => return Ok(matches),
            },
            Err(error) => match valued_switch(&error, &words) {
                Some(found) => found,
                None => return Err(error),
            },
        };
        let word = words.remove(at);
        let name = word
            .to_str()
            .and_then(|word| word.split_once('='))
            .map(|(name, _)| name);
        let Some(name) = name else { continue };
        if on {
            words.insert(at, name.into());
        } else {
            // It takes back what was said before it.
            let mut before = words[..at].to_vec();
            before.retain(|word| word != name);
            words.splice(..at, before);
        }
    }
}

/// A word such as `-t=false`: the switch, and its value.
fn split_switch(word: &std::ffi::OsStr) -> Option<(&str, bool)> {
    let (name, value) = word.to_str()?.split_once('=')?;
    let on = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return None,
    };
    Some((name, on))
}

/// Whether this is a switch of one letter.
fn is_short(name: &str) -> bool {
    name.len() == 2 && name.starts_with('-') && name.ends_with(char::is_alphanumeric)
}

/// The place of a short switch with a value that `run` took for its image, which may begin with a dash, and the value.
fn taken_for_image(matches: &ArgMatches, words: &[std::ffi::OsString]) -> Option<(usize, bool)> {
    let mut inner = matches;
    while let Some((_, below)) = inner.subcommand() {
        inner = below;
    }
    let image = inner.try_get_many::<String>("words").ok()??.next()?;
    let (_, on) = split_switch(image.as_ref()).filter(|(name, _)| is_short(name))?;
    Some((words.iter().position(|word| word == image.as_str())?, on))
}

/// The place of the switch that was refused for its value, and the value. Of `-t=false`, clap refuses the equals sign as
/// if it were a switch, too.
fn valued_switch(error: &clap::Error, words: &[std::ffi::OsString]) -> Option<(usize, bool)> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let refused = |word: &str| match error.kind() {
        ErrorKind::TooManyValues => name.split(' ').any(|form| form == word),
        ErrorKind::UnknownArgument => name == "-=" && is_short(word),
        _ => false,
    };
    words.iter().enumerate().find_map(|(at, word)| {
        let (name, on) = split_switch(word)?;
        refused(name).then_some((at, on))
    })
}

/// Help and version go to standard output. A wrong flag exits with docker's 125 and any other wrong usage with 1,
/// which clap's own 2 would break.
fn usage_error(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Nothing is left to tell when the terminal itself is gone.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    usage_failure(error).report()
}

/// Wrong usage as an error of ours.
pub(crate) fn usage_failure(error: &clap::Error) -> CliError {
    if let Some(message) = front::too_many_words(error).filter(|_| dialect::is_docker()) {
        return CliError::usage(message, 1);
    }
    CliError::usage(usage_text(&error.render().to_string()), usage_code(error))
}

/// Clap's message in our form: `dhow: what`, then `hint: what to do`.
fn usage_text(rendered: &str) -> String {
    let mut lines = Vec::new();
    for line in rendered.lines() {
        let line = if let Some(message) = line.strip_prefix("error: ") {
            message.to_owned()
        } else if let Some(tip) = line.trim_start().strip_prefix("tip: ") {
            format!("hint: {tip}")
        } else {
            line.to_owned()
        };
        // Nobody means an image or a container that begins with a dash.
        if !line.trim().is_empty() && !line.contains("as a value, use '-- ") {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Docker's exit code (docker/cli `cli/cobra.go`, `FlagErrorFunc`): 125 when a flag is wrong, 1 for the rest.
fn usage_code(error: &clap::Error) -> u8 {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let is_flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => name.starts_with('-'),
        Some(ContextValue::Strings(names)) => names.iter().any(|name| name.starts_with('-')),
        _ => false,
    };
    let missing = error.kind() == ErrorKind::MissingRequiredArgument;
    if is_flag && !missing { 125 } else { 1 }
}

/// The whole command tree; each verb's flags are built only when it is called.
#[must_use]
pub fn command() -> Command {
    let root =
        Command::new("dhow")
            .bin_name("dhow")
            .about("Containers through their whole life: build, run, share, serve")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(false)
            // Of a flag that is given twice the last counts, as with docker and podman.
            .args_override_self(true)
            .max_term_width(100)
            .arg(
                Arg::new("root").long("root").global(true).value_name("DIR").help(
                    "Keep everything under this folder [default: /var/lib/dhow, or ~/.local/share/dhow]",
                ),
            );
    let root = root
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("DIR")
                .help("Where docker's client keeps its files [default: ~/.docker]"),
        )
        .arg(
            Arg::new("context")
                .long("context")
                .short('c')
                .value_name("CONTEXT")
                .help("The context that counts, over DOCKER_HOST, DOCKER_CONTEXT and dhow context use"),
        )
        .arg(
            Arg::new("host")
                .long("host")
                .short('H')
                .value_name("ADDRESS")
                .conflicts_with("context")
                .help("The engine that is meant: a unix:// address is this host"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .help("Write what goes to standard output to a file instead"),
        )
        .arg(
            Arg::new("noout")
                .long("noout")
                .action(clap::ArgAction::SetTrue)
                .conflicts_with("out")
                .help("Write nothing to standard output"),
        );
    cmd::tree(globals::augment(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> clap::Error {
        command().try_get_matches_from(words.split(' ')).unwrap_err()
    }

    #[test]
    fn every_verb_has_sound_flags() {
        let mut command = command();
        command.build();
        command.debug_assert();
    }

    #[test]
    fn a_wrong_flag_is_named_and_exits_as_dockers() {
        for (words, code) in [
            ("dhow exec --nope x", 125),
            ("dhow ps --nope", 125),
            ("dhow container ls --nope", 125),
            ("dhow pull --platform nope x", 125),
            ("dhow rm", 1),
            ("dhow tag a", 1),
            ("dhow tag a b c", 1),
            ("dhow nope", 1),
        ] {
            assert_eq!(usage_code(&refused(words)), code, "{words}");
        }
        let text = usage_text(&refused("dhow exec --nope x").render().to_string());
        assert!(text.starts_with("unexpected argument '--nope' found"), "{text}");
    }

    #[test]
    fn a_switch_may_have_a_value_and_the_last_of_a_flag_counts() {
        let run = |line: &str| {
            let words = line.split(' ').map(Into::into).collect();
            matches(words).unwrap().subcommand().unwrap().1.clone()
        };
        assert!(run("dhow run --rm=true x").get_flag("rm"));
        assert!(!run("dhow run --rm=false x --rm=true").get_flag("rm"));
        assert!(!run("dhow run --rm --rm=false x").get_flag("rm"));
        assert!(!run("dhow run -t -t=false x").get_flag("tty"));
        assert!(!run("dhow exec -t -t=false x y").get_flag("tty"));
        assert!(run("dhow run -i=true x -t=false").get_flag("interactive"));
        let named = run("dhow run --name a --name b x");
        assert_eq!(named.get_one::<String>("name").map(String::as_str), Some("b"));
        let bad = matches("dhow run --rm=maybe x".split(' ').map(Into::into).collect());
        assert_eq!(usage_code(&bad.unwrap_err()), 125);
    }

    #[test]
    fn a_slip_of_the_hand_is_corrected() {
        let text = usage_text(&refused("dhow imagse").render().to_string());
        assert!(text.contains("hint: ") && text.contains("images"), "{text}");
        let text = usage_text(&refused("dhow build --taget x .").render().to_string());
        assert!(text.contains("--target"), "{text}");
    }

    #[test]
    fn flags_after_the_image_belong_to_the_command() {
        for words in ["busybox ls -l --rm", "busybox -c x --memory", "busybox"] {
            let line = format!("dhow run --rm -e A=b {words}");
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            let (_, run) = matches.subcommand().unwrap();
            let taken: Vec<&str> = run.get_many("words").unwrap().map(String::as_str).collect();
            assert_eq!(taken, words.split(' ').collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unknown_flag_of_run_is_no_image() {
        use clap::FromArgMatches as _;
        for (word, expected) in [
            ("--memroy", "--memory"),
            ("--link", "unexpected argument"),
            ("-Z", "unexpected argument"),
        ] {
            let matches = command()
                .try_get_matches_from(["dhow", "run", word, "x"])
                .unwrap();
            let flags = flags::ContainerFlags::from_arg_matches(matches.subcommand().unwrap().1).unwrap();
            let error = flags.check().unwrap_err();
            assert!(error.message().contains(expected), "{}", error.message());
            assert_eq!(error.code(), 125, "{word}");
        }
    }

    #[test]
    fn aliases_lead_to_the_same_verb() {
        for words in [
            "dhow container ls",
            "dhow container list",
            "dhow container ps",
            "dhow image list",
            "dhow image remove x",
        ] {
            let matches = command().try_get_matches_from(words.split(' ')).unwrap();
            let (group, rest) = matches.subcommand().unwrap();
            assert!(
                matches!(
                    (group, rest.subcommand_name()),
                    ("container" | "image", Some("ls" | "rm"))
                ),
                "{words}"
            );
        }
    }
}
