//! The command line of an OCI runtime as runc has it, over [`dhow_runtime`]: for podman, containerd, docker, and for the
//! suites that test runtimes.
//!
//! It is called as `dhow runtime ...`, or by the name `runc`, `crun` or `dhow-runtime`. Exit codes, messages and the lines of
//! `--log` are runc's where clients parse them. It reads arguments, environment and terminal and prints; it decides nothing.
//! Nothing is set up before a verb needs it: no thread, no async runtime.

#![forbid(unsafe_code)]

mod args;
mod crun;
mod foreground;
mod log;
mod notify;
mod streams;
mod verb;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_types::ErrorKind;

use args::{Flag, Given, Until, Usage, on, value};
use log::{Level, Log};

/// How this face was called.
#[derive(Debug)]
pub struct Call {
    /// The name for messages and the default root: `runc` when it stands in for that.
    name: &'static str,
    args: Vec<OsString>,
}

/// Whether this program is called as a runtime: by its name, or by its first word.
#[must_use]
pub fn called() -> Option<Call> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    let name = Path::new(&program).file_name().and_then(|name| name.to_str());
    let name = match name {
        Some("runc") => "runc",
        Some("crun") => "crun",
        Some("dhow-runtime") => "dhow",
        _ => {
            let first = args.next()?;
            if first != "runtime" {
                return None;
            }
            "dhow"
        }
    };
    Some(Call {
        name,
        args: args.collect(),
    })
}

/// Options before the verb.
const GLOBAL: &[Flag] = &[
    on("debug", None, "enable debug logging"),
    value(
        "log",
        None,
        "write messages to this file [default: standard error]",
    ),
    value("log-format", None, "format of messages: text (default) or json"),
    value(
        "log-level",
        None,
        "least level of messages: error, warning (default) or debug",
    ),
    value("root", None, "folder of the containers' state"),
    on("systemd-cgroup", None, "let systemd make the control groups"),
    value(
        "cgroup-manager",
        None,
        "who makes the control groups: cgroupfs (default), systemd, or nobody (disabled)",
    ),
    value(
        "rootless",
        None,
        "ignore control group permission errors: true, false or auto (default)",
    ),
    on("help", Some('h'), "show help"),
    on("version", Some('v'), "print the version"),
];

/// What a verb has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) name: &'static str,
    pub(crate) log: Log,
    pub(crate) root: PathBuf,
    /// How many inherited descriptors from 3 on are open, of those that the arguments ask to pass.
    pub(crate) opened: u32,
    /// Whether the root was given.
    pub(crate) chosen_root: bool,
    pub(crate) systemd: bool,
    /// Whether containers stay in the control groups of this process.
    pub(crate) no_groups: bool,
    /// Whether what control groups forbid is passed over.
    pub(crate) rootless: bool,
    /// Whether that was said, and not found out.
    pub(crate) told_rootless: bool,
}

/// A verb: its name, its options, its deed.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) words: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) until: Until,
    /// Fewest and most words.
    pub(crate) count: (usize, usize),
    pub(crate) run: fn(&Context, &Given) -> Result<ExitCode, Failure>,
}

/// Why a verb failed: what is said, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
    /// The program itself could not be executed, and says so as it would have itself: without a log line.
    bare: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            bare: false,
        }
    }

    /// The same with what was being done before it, unless it is the program's own word.
    pub(crate) fn during(self, what: &str) -> Self {
        if self.bare {
            return self;
        }
        Self {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    /// The failure of a process that was to become its program. Where runc's process would have been the one to say that
    /// the kernel does not execute what is there, it says that alone, as a shell does.
    pub(crate) fn of_process(error: dhow_runtime::Error) -> Self {
        let bare = error.to_string().starts_with("exec ");
        Self {
            bare,
            ..Self::from(error)
        }
    }

    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl<E: dhow_types::Failure> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = words(&error);
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&words(inner));
            cause = inner.source();
        }
        if let Some(hint) = error.hint() {
            message.push_str(&format!(" ({hint})"));
        }
        Self::new(message)
    }
}

/// What an error says, without its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let errno = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::raw_os_error);
    errno.map_or_else(|| error.to_string(), errno_words)
}

/// What the kernel said, as Go's programs write it: clients look for "no such file or directory".
fn errno_words(errno: i32) -> String {
    let words = std::io::Error::from_raw_os_error(errno).to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => words.to_owned(),
    }
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::new(usage.0)
    }
}

/// The program: does what its arguments say.
#[must_use]
pub fn main(call: Call) -> ExitCode {
    let args: Result<Vec<String>, OsString> = call.args.into_iter().map(OsString::into_string).collect();
    let Ok(args) = args else {
        Log::default().fatal("arguments are not UTF-8");
        return ExitCode::FAILURE;
    };
    let opened = streams::close_inherited(call.name, &args);
    // The first word is the verb: options before it are global.
    let given = match args::parse(GLOBAL, Until::Words(1), &args) {
        Ok(given) => given,
        Err(usage) => {
            Log::default().fatal(&usage.0);
            return ExitCode::FAILURE;
        }
    };
    match dispatch(call.name, &given, opened) {
        Ok(code) => code,
        Err((log, failure)) => {
            if failure.bare && !log.is_file() {
                log::print_error(&failure.message);
            } else {
                log.fatal(&failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(name: &'static str, given: &Given, opened: u32) -> Result<ExitCode, (Log, Failure)> {
    let plain = |failure: Failure| (Log::default(), failure);
    if given.is_on("version") {
        return print(&version(name)).map_err(plain);
    }
    let Some((word, rest)) = given.words.split_first().filter(|_| !given.is_on("help")) else {
        return print(&usage(name)).map_err(plain);
    };
    let log = open_log(name, given).map_err(plain)?;
    let Some(verb) = verb::ALL.iter().find(|verb| verb.name == word) else {
        if matches!(word.as_str(), "help" | "h") {
            return print(&usage(name)).map_err(plain);
        }
        let failure = Failure::new(format!("No help topic for '{word}': unknown command")).with_code(3);
        return Err((log, failure));
    };
    let context = match Context::new(name, given, log, opened) {
        Ok(context) => context,
        Err((log, failure)) => return Err((log, failure)),
    };
    context
        .log
        .debug(|| format!("{} {}: root {}", name, rest.join(" "), context.root.display()));
    match call_verb(&context, verb, rest) {
        Ok(code) => Ok(code),
        Err(failure) => Err((context.log, failure)),
    }
}

fn open_log(name: &str, given: &Given) -> Result<Log, Failure> {
    let path = match given.text("log") {
        Some(text) if name == "crun" => Some(crun::log_file(text)?),
        path => path,
    };
    let level = match given.text("log-level") {
        _ if given.is_on("debug") => Level::Debug,
        None => Level::Warning,
        Some(word) => Level::parse(word).ok_or_else(|| Failure::new(format!("invalid log-level: {word}")))?,
    };
    let format = given.value("log-format").unwrap_or_default();
    Log::open(path.map(Path::new), format, level).map_err(Failure::new)
}

fn call_verb(context: &Context, verb: &Verb, rest: &[String]) -> Result<ExitCode, Failure> {
    if rest
        .iter()
        .take_while(|word| word.as_str() != "--")
        .take(1)
        .any(|word| matches!(word.as_str(), "--help" | "-h"))
    {
        return print(&verb_usage(context.name, verb));
    }
    let given = args::parse(verb.flags, verb.until, rest)?;
    let (fewest, most) = verb.count;
    let count = given.words.len();
    let bound = match (count < fewest, count > most) {
        (false, false) => return (verb.run)(context, &given),
        _ if fewest == most => format!("exactly {fewest}"),
        (true, _) => format!("a minimum of {fewest}"),
        _ => format!("a maximum of {most}"),
    };
    let message = format!("{}: \"{}\" requires {bound} argument(s)", context.name, verb.name);
    Err(Failure::new(message))
}

impl Context {
    /// Whether crun's own manners are expected ([`mod@crun`]).
    pub(crate) fn is_crun(&self) -> bool {
        self.name == "crun"
    }

    /// Whether runc's are, also where it does not do what the standard says.
    pub(crate) fn is_runc(&self) -> bool {
        self.name == "runc"
    }

    fn new(name: &'static str, given: &Given, log: Log, opened: u32) -> Result<Self, (Log, Failure)> {
        let rootless = match given.value("rootless").unwrap_or("auto") {
            "" | "auto" => Ok(dhow_cgroup::rootless()),
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(Failure::new(format!("invalid value for --rootless: {other}"))),
        };
        let manager = given.text("cgroup-manager");
        let systemd = match manager {
            None | Some("cgroupfs") => Ok(given.is_on("systemd-cgroup")),
            Some("disabled") => Ok(false),
            Some("systemd") => Ok(true),
            Some(other) => Err(Failure::new(format!("unsupported cgroup manager: {other}"))),
        };
        let settled = rootless.and_then(|rootless| Ok((rootless, systemd?, root(name, given)?)));
        match settled {
            Ok((rootless, systemd, root)) => Ok(Self {
                name,
                log,
                root,
                opened,
                chosen_root: given.value("root").is_some(),
                systemd,
                no_groups: manager == Some("disabled"),
                rootless,
                told_rootless: !matches!(given.value("rootless"), None | Some("" | "auto")),
            }),
            Err(failure) => Err((log, failure)),
        }
    }
}

/// The folder of containers: as given, or the user's own, or the machine's.
fn root(name: &str, given: &Given) -> Result<PathBuf, Failure> {
    if let Some(root) = given
        .value("root")
        .filter(|root| !root.is_empty() || name != "runc")
    {
        let root = std::path::absolute(root).unwrap_or_default();
        if root.parent().is_none() {
            return Err(Failure::new("Option --root argument should not be set to /"));
        }
        return Ok(root);
    }
    let below = match name {
        "runc" | "crun" => name,
        _ => "dhow/runtime",
    };
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match own {
        Some(own) if !rustix::process::geteuid().is_root() => {
            let root = Path::new(&own).join(below);
            // Sticky: else it may be pruned (XDG Base Directory Specification).
            let make = || -> std::io::Result<()> {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::create_dir_all(&root)?;
                std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o1700))
            };
            make().map_err(|error| {
                Failure::new(format!(
                    "the path in $XDG_RUNTIME_DIR must be writable by the user: {error}"
                ))
            })?;
            Ok(root)
        }
        _ => Ok(Path::new("/run").join(below)),
    }
}

/// Prints a document or a table; a reader that went away ends it quietly.
pub(crate) fn print(text: &str) -> Result<ExitCode, Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::from(error).during("write to standard output"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn version(name: &str) -> String {
    // podman, containerd and docker look for lines of this form. A build that was not told its commit has its version.
    let own = env!("CARGO_PKG_VERSION");
    let commit = option_env!("DHOW_COMMIT").unwrap_or(concat!("v", env!("CARGO_PKG_VERSION")));
    let shown = if name == "dhow" { "dhow-runtime" } else { name };
    let (before, after) = match name {
        "crun" => ("rundir: /run/crun\n", format!("{}\n", crun::BUILT_IN)),
        _ => ("", String::new()),
    };
    format!(
        "{shown} version {own}\n{before}commit: {commit}\nspec: {}\n{after}",
        verb::SPEC_VERSION
    )
}

fn usage(name: &str) -> String {
    let call = if name == "dhow" { "dhow runtime" } else { name };
    let start = if name == "crun" {
        "Usage: crun [OPTION...] COMMAND [OPTION...]\n\n"
    } else {
        ""
    };
    let mut text = format!(
        "{start}NAME:\n   {call} - Open Container Initiative runtime\n\nUSAGE:\n   {call} [global options] command [command options] [arguments...]\n\nVERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION")
    );
    for verb in verb::ALL {
        text.push_str(&format!("   {:<12} {}\n", verb.name, verb.about));
    }
    text.push_str(&format!("\nGLOBAL OPTIONS:\n{}", args::help(GLOBAL)));
    text
}

fn verb_usage(name: &str, verb: &Verb) -> String {
    if name == "crun" {
        let words = verb
            .words
            .replace("<container-id>", "CONTAINER")
            .replace("<command>", "cmd");
        let options = args::help(verb.flags);
        return format!(
            "Usage: crun [OPTION...] {} {words}\n{}\n\n{options}",
            verb.name, verb.about
        );
    }
    let call = if name == "dhow" { "dhow runtime" } else { name };
    format!(
        "NAME:\n   {call} {} - {}\n\nUSAGE:\n   {call} {} [command options] {}\n\nOPTIONS:\n{}",
        verb.name,
        verb.about,
        verb.name,
        verb.words,
        args::help(verb.flags)
    )
}

/// Whether an error says that there is no such thing.
pub(crate) fn is_missing(kind: ErrorKind) -> bool {
    kind == ErrorKind::NotFound
}
