//! The flags that podman, and docker, have before every verb, as far as they mean something here. What they name that this
//! program is not (another runtime, a runtime's flags, TLS to this host) is an error, and not passed over.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use dhow_engine::{Engine, SnapshotForm};

use crate::containers_conf::ContainersConf;
use crate::render::note;
use crate::{CliError, dialect, docker_config};

/// Those that have a value.
pub(crate) const VALUED: [&str; 8] = [
    "--runtime",
    "--runtime-flag",
    "--log-level",
    "--storage-driver",
    "--storage-opt",
    "--runroot",
    "--volumepath",
    "--default-mounts-file",
];

/// Verbs that run programs.
const RUNNING: [&str; 6] = ["build", "container", "create", "pod", "run", "start"];
/// Runtimes that a file for podman may name: whichever it is, containers are run by this program itself.
const OTHERS: [&str; 8] = [
    "crun",
    "crun-vm",
    "crun-wasm",
    "kata",
    "krun",
    "ocijail",
    "runc",
    "runsc",
];

/// How much is told of what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Trace,
    Debug,
    Info,
    /// Warnings are told with whatever level: they are for the person.
    Rest,
}

/// The flags, read.
#[derive(Debug)]
pub(crate) struct Globals {
    level: Level,
    storage: Option<SnapshotForm>,
    mounts: Option<PathBuf>,
    runtime: Option<String>,
    /// The authority that another host is to show; none where nobody asked for TLS.
    authority: Option<PathBuf>,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            level: Level::Rest,
            storage: None,
            mounts: None,
            runtime: None,
            authority: None,
        }
    }
}

/// Docker's, when the program is in its place.
fn dockers(root: Command) -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(["true", "false", "1", "0"])
    };
    let file =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("FILE").help(help);
    root.arg(
        Arg::new("log-level")
            .long("log-level")
            .short('l')
            .value_name("LEVEL")
            .value_parser(["debug", "info", "warn", "error", "fatal"])
            .help("Tell what is done: debug; the others tell nothing more"),
    )
    .arg(
        Arg::new("debug")
            .long("debug")
            .short('D')
            .action(ArgAction::SetTrue)
            .help("As --log-level=debug"),
    )
    .arg(switch("tls", "Use TLS; implied by --tlsverify"))
    .arg(switch("tlsverify", "Use TLS and verify the remote"))
    .arg(file("tlscacert", "Trust certs signed only by this CA"))
    .arg(file("tlscert", "Path to TLS certificate file"))
    .arg(file("tlskey", "Path to TLS key file"))
}

/// Adds the flags to the root of all verbs, when the program is called podman or docker.
pub(crate) fn augment(root: Command) -> Command {
    if dialect::is_docker() {
        return dockers(root);
    }
    if !dialect::spoken().is_podman() {
        return root;
    }
    let valued = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .global(true)
    };
    root.arg(valued(
        "runtime",
        "NAME",
        "The program that runs containers, which is this one",
    ))
    .arg(
        valued("runtime-flag", "FLAG", "A flag of the runtime, which has none")
            .action(ArgAction::Append)
            .allow_hyphen_values(true),
    )
    .arg(
        Arg::new("log-level")
            .long("log-level")
            .value_name("LEVEL")
            .global(true)
            .help("Tell what is done: trace, debug or info; warn, error, fatal and panic tell nothing more"),
    )
    .arg(
        Arg::new("debug")
            .long("debug")
            .short('D')
            .global(true)
            .action(ArgAction::SetTrue)
            .help("As --log-level=debug"),
    )
    .arg(valued(
        "storage-driver",
        "NAME",
        "Make root file systems so from now on: overlay, or vfs for plain copies",
    ))
    .arg(
        valued("storage-opt", "OPTION", "An option of the storage, which has none: only the empty one")
            .action(ArgAction::Append),
    )
    .arg(valued(
        "runroot",
        "DIR",
        "Where what ends with a boot is kept [default: below --root, or /run/dhow]",
    ))
    .arg(valued(
        "volumepath",
        "DIR",
        "Where volumes are kept [default: below --root]",
    ))
    .arg(valued(
        "default-mounts-file",
        "FILE",
        "The file that says what is mounted read-only in every container, a line each: HOST-DIR:CONTAINER-DIR",
    ))
}

impl Globals {
    /// Reads them.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self, CliError> {
        let one = |name: &str| matches.get_one::<String>(name).map(String::as_str);
        if dialect::is_docker() {
            let debug = matches.get_flag("debug") || one("log-level") == Some("debug");
            return Ok(Self {
                level: if debug { Level::Debug } else { Level::Rest },
                authority: authority(&one),
                ..Self::default()
            });
        }
        if !dialect::spoken().is_podman() {
            return Ok(Self::default());
        }
        check_storage_options(matches)?;
        let globals = Self {
            level: level(one("log-level"), matches.get_flag("debug"))?,
            storage: one("storage-driver").map(storage).transpose()?,
            mounts: one("default-mounts-file").map(PathBuf::from),
            runtime: one("runtime").map(str::to_owned),
            authority: None,
        };
        if let Some(verb) = matches.subcommand_name()
            && RUNNING.contains(&verb)
        {
            check_runtime(matches, verb)?;
        }
        Ok(globals)
    }

    /// Lets the engine make root file systems as was asked for.
    pub(crate) fn apply(&self, engine: &Engine) -> Result<(), dhow_engine::Error> {
        let Some(form) = self.storage else {
            return Ok(());
        };
        // Apart: who runs a container must not have the index open.
        engine.apart(|engine| {
            let is = match form {
                SnapshotForm::Overlay => "overlay",
                SnapshotForm::Copy => "copy",
            };
            if engine.snapshots_form()? != is {
                engine.make_snapshots_as(form)?;
            }
            Ok(())
        })
    }

    /// Refuses TLS to this host, which nobody is asked for over a network. In docker's words where its files are not there.
    ///
    /// # Errors
    /// When TLS was asked for.
    pub(crate) fn check_endpoint(&self) -> Result<(), CliError> {
        let Some(file) = &self.authority else {
            return Ok(());
        };
        let why = match std::fs::File::open(file) {
            Err(error) => format!("open {}: {error}", file.display()),
            Ok(_) => {
                "TLS is for tcp:// addresses of other hosts, and dhow works on its own host alone".to_owned()
            }
        };
        Err(CliError::plain(format!(
            "unable to resolve docker endpoint: {why}"
        )))
    }

    /// Whether TLS was asked for.
    pub(crate) const fn wants_tls(&self) -> bool {
        self.authority.is_some()
    }

    /// What the runtime is called.
    pub(crate) fn runtime(&self) -> Option<String> {
        self.runtime.clone()
    }

    /// What every container has mounted (containers-mounts.conf(5)), by what it is on this host: here it is bound read-only,
    /// where podman makes a copy. The file need not be there, nor what it names.
    pub(crate) fn mounts(&self) -> Result<Vec<(PathBuf, PathBuf)>, CliError> {
        let usual = ["/etc/containers/mounts.conf", "/usr/share/containers/mounts.conf"].map(Path::new);
        let usual = || usual.into_iter().find(|file| file.exists());
        let file = self
            .mounts
            .as_deref()
            .or_else(|| dialect::spoken().is_podman().then(usual)?);
        let Some(file) = file else {
            return Ok(Vec::new());
        };
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(|error| {
                CliError::plain(format!("read {}: {error}", file.display())).with_code(125)
            })?,
        };
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(lines
            .map(|line| line.split_once(':').unwrap_or((line, line)))
            .map(|(source, target)| (PathBuf::from(source), PathBuf::from(target)))
            .filter(|(source, target)| source.is_absolute() && target.is_absolute() && source.exists())
            .collect())
    }

    /// Tells what is done, if that is wanted.
    pub(crate) fn begin(&self, environment: &crate::Environment) {
        let words: Vec<String> = std::env::args().collect();
        self.tell(Level::Trace, &format!("arguments: {words:?}"));
        self.tell(
            Level::Debug,
            &format!(
                "keeping things in {}, and what ends with a boot in {}",
                environment.root().display(),
                environment.run().display()
            ),
        );
        let called = words.first().map_or("", String::as_str);
        self.tell(
            Level::Info,
            &format!("{called} is dhow {}", env!("CARGO_PKG_VERSION")),
        );
    }

    /// Tells that all is done.
    pub(crate) fn end(&self) {
        self.tell(Level::Debug, "Shutting down engines");
    }

    fn tell(&self, level: Level, message: &str) {
        if level < self.level {
            return;
        }
        let name = match level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info | Level::Rest => "info",
        };
        note(&dialect::logged(name, message));
    }
}

/// The file that is to be read when TLS is asked for: by `--tls`, and by `--tlsverify` whatever it says (docker/cli
/// `cli/flags/options.go`, `SetDefaultOptions`).
fn authority<'a>(one: &impl Fn(&str) -> Option<&'a str>) -> Option<PathBuf> {
    let on = matches!(one("tls"), Some("true" | "1")) || one("tlsverify").is_some();
    let usual = || {
        let certificates = std::env::var_os("DOCKER_CERT_PATH").filter(|path| !path.is_empty());
        let folder = certificates
            .map(PathBuf::from)
            .or_else(|| docker_config::folder(one("config").map(Path::new)));
        folder.unwrap_or_default().join("ca.pem")
    };
    on.then(|| one("tlscacert").map_or_else(usual, PathBuf::from))
}

/// The level that is meant; wrong ones exit with 1, without the word that begins an error (podman `cmd/podman/root.go`).
fn level(name: Option<&str>, debug: bool) -> Result<Level, CliError> {
    let wrong = |message: &str| {
        note(message);
        CliError::exit(1)
    };
    match (name, debug) {
        (Some(_), true) => Err(wrong("Setting --log-level and --debug is not allowed")),
        (None, true) | (Some("debug"), _) => Ok(Level::Debug),
        (Some("trace"), _) => Ok(Level::Trace),
        (Some("info"), _) => Ok(Level::Info),
        (None | Some("warn" | "warning" | "error" | "fatal" | "panic"), _) => Ok(Level::Rest),
        (Some(other), _) => Err(wrong(&format!(
            "Log Level {other:?} is not supported, choose from: trace, debug, info, warn, warning, error, fatal, panic"
        ))),
    }
}

fn storage(name: &str) -> Result<SnapshotForm, CliError> {
    match name {
        "overlay" => Ok(SnapshotForm::Overlay),
        "vfs" => Ok(SnapshotForm::Copy),
        other => Err(CliError::plain(format!(
            "storage driver {other:?} is not supported: use overlay or vfs"
        ))),
    }
}

fn check_storage_options(matches: &ArgMatches) -> Result<(), CliError> {
    let mut options = matches.get_many::<String>("storage-opt").into_iter().flatten();
    match options.find(|option| !option.is_empty()) {
        Some(option) => Err(CliError::plain(format!(
            "--storage-opt {option}: the storage has no such option"
        ))),
        None => Ok(()),
    }
}

/// Refuses another runtime, and flags for it, with the exit code of a program that cannot be started.
fn check_runtime(matches: &ArgMatches, verb: &str) -> Result<(), CliError> {
    let conf = ContainersConf::usual()?;
    let asked = matches.get_one::<String>("runtime").map(String::as_str);
    let absent = |name: &str| {
        CliError::plain(format!(
            "default OCI runtime {name:?} not found: invalid argument"
        ))
    };
    match (asked, conf.runtime()) {
        (Some(name), _) if is_this(name) => {}
        (Some(name), _) if is_there(name) => {
            return Err(CliError::plain(format!(
                "--runtime {name}: containers are run by this program itself, and by no other"
            ))
            .with_code(125));
        }
        (Some(name), _) => return Err(absent(name)),
        (None, Some(name)) if !is_this(name) && !OTHERS.contains(&name) && !is_there(name) => {
            return Err(absent(name));
        }
        _ => {}
    }
    let mut flags = matches.get_many::<String>("runtime-flag").into_iter().flatten();
    let flag = flags
        .next()
        .cloned()
        .or_else(|| conf.runtime_flags(OWN).into_iter().next());
    match flag {
        None => Ok(()),
        Some(flag) => {
            let code = match verb {
                "run" | "start" => 126,
                "build" => 1,
                _ => 125,
            };
            Err(CliError::plain(format!("the runtime has no flag --{flag}")).with_code(code))
        }
    }
}

/// What the runtime is called: `info` says so.
const OWN: &str = "dhow";

/// Whether it is this program, or a copy of it.
fn is_this(name: &str) -> bool {
    if name == OWN {
        return true;
    }
    let (Ok(own), Ok(other)) = (std::env::current_exe(), std::fs::canonicalize(name)) else {
        return false;
    };
    own == other || same_content(&own, &other).unwrap_or(false)
}

fn same_content(one: &Path, other: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let (mut one, mut other) = (std::fs::File::open(one)?, std::fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

/// Whether there is such a program.
fn is_there(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_podmans() {
        assert_eq!(level(None, false).unwrap(), Level::Rest);
        assert_eq!(level(None, true).unwrap(), Level::Debug);
        assert_eq!(level(Some("warning"), false).unwrap(), Level::Rest);
        assert_eq!(level(Some("loud"), false).unwrap_err().code(), 1);
        assert_eq!(level(Some("info"), true).unwrap_err().code(), 1);
        assert!(Level::Trace < Level::Debug && Level::Debug < Level::Info);
    }

    #[test]
    fn drivers_of_podmans_storage_are_forms_of_ours() {
        assert!(matches!(storage("vfs"), Ok(SnapshotForm::Copy)));
        assert!(matches!(storage("overlay"), Ok(SnapshotForm::Overlay)));
        assert!(storage("btrfs").is_err());
    }
}
