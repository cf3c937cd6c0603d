//! Programs that add verbs: docker's command line plugins (docker/cli `cli-plugins`). Called `docker`, a program
//! `docker-NAME` is the verb NAME; called `dhow`, it is `dhow-NAME`, since docker's own plugins talk to docker's engine.
//!
//! ```text
//! cliPluginsExtraDirs of config.json, DOCKER_CONFIG/cli-plugins, then /usr/{local/,}lib{,exec}/docker/cli-plugins
//! PLUGIN docker-cli-plugin-metadata     says what it is, as JSON
//! PLUGIN WORDS                          with all words of the call, also those before the verb
//! ```
//! A plugin is given a socket (`DOCKER_CLI_PLUGIN_SOCKET`) whose end tells it to stop; a signal does not reach it when it is
//! not in front of a terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dhow_engine::Signals;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use serde::Deserialize;
use serde_json::Value;

use crate::render::note;
use crate::{CliError, dialect, docker_config};

/// Where distributions put them.
const FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// The word that asks a plugin what it is.
const METADATA: &str = "docker-cli-plugin-metadata";
/// How the plugin's caller was called.
const CALLER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// Where a plugin listens for the end.
const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";
/// Largest answer of a plugin about itself.
const LARGEST: u64 = 1 << 20;
/// Most connections of a plugin that are kept.
const MOST_CONNECTIONS: usize = 64;
/// INT and TERM.
const SIGNALS: [i32; 2] = [2, 15];
/// So many of them end a plugin that does not end itself.
const PATIENCE: usize = 3;

/// Where plugins are looked for.
#[derive(Debug)]
pub(crate) struct Plugins {
    prefix: &'static str,
    folders: Vec<PathBuf>,
}

/// One that was found.
#[derive(Debug)]
pub(crate) struct Plugin {
    name: String,
    path: PathBuf,
    metadata: Metadata,
    /// Why it is none.
    wrong: Option<String>,
}

/// What a plugin says of itself (docker/cli `cli-plugins/metadata`).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Metadata {
    schema_version: String,
    vendor: String,
    short_description: String,
    hidden: bool,
}

impl Plugin {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn about(&self) -> &str {
        &self.metadata.short_description
    }

    pub(crate) const fn is_hidden(&self) -> bool {
        self.metadata.hidden
    }

    /// Why it is no plugin.
    pub(crate) fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    pub(crate) const fn is_sound(&self) -> bool {
        self.wrong.is_none()
    }

    fn ask(name: &str, path: PathBuf) -> Self {
        let (metadata, wrong) = match asked(name, &path) {
            Ok(metadata) => (metadata, None),
            Err(wrong) => (Metadata::default(), Some(wrong)),
        };
        Self {
            name: name.to_owned(),
            path,
            metadata,
            wrong,
        }
    }
}

impl Plugins {
    /// Those of a person whose docker folder is this, or the usual one.
    pub(crate) fn new(config: Option<&Path>) -> Self {
        let own = docker_config::folder(config);
        let mut folders = Vec::new();
        if let Some(own) = own {
            // A file that cannot be read is told by the verbs that need it.
            let said = docker_config::read(&own.join("config.json")).unwrap_or_default();
            let extra = said.get("cliPluginsExtraDirs").and_then(Value::as_array);
            let extra = extra.into_iter().flatten().filter_map(Value::as_str);
            folders.extend(extra.map(PathBuf::from));
            folders.push(own.join("cli-plugins"));
        }
        folders.extend(FOLDERS.map(PathBuf::from));
        let prefix = if dialect::is_docker() { "docker-" } else { "dhow-" };
        Self { prefix, folders }
    }

    /// The first of this name, sound or not.
    pub(crate) fn find(&self, name: &str) -> Option<Plugin> {
        if !is_name(name) {
            return None;
        }
        let file = format!("{}{name}", self.prefix);
        let mut paths = self.folders.iter().map(|folder| folder.join(&file));
        let path = paths.find(|path| path.is_file())?;
        Some(Plugin::ask(name, path))
    }

    /// All, by name.
    pub(crate) fn list(&self) -> Vec<Plugin> {
        let mut found: Vec<Plugin> = Vec::new();
        for folder in &self.folders {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries {
                let file = entry.file_name();
                let Some(name) = file.to_str().and_then(|file| file.strip_prefix(self.prefix)) else {
                    continue;
                };
                let known = found.iter().any(|plugin| plugin.name == name);
                if !known && entry.path().is_file() {
                    found.push(Plugin::ask(name, entry.path()));
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

/// A letter, then letters and digits, all small.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// What a plugin says of itself, or why it is none.
fn asked(name: &str, path: &Path) -> Result<Metadata, String> {
    if !is_name(name) {
        return Err(format!(
            "plugin candidate {name:?} did not match \"^[a-z][a-z0-9]*$\""
        ));
    }
    if crate::cmd::is_verb(name) {
        return Err(format!("plugin {name:?} duplicates builtin command"));
    }
    let failed = |error: &dyn std::fmt::Display| format!("failed to fetch metadata: {error}");
    let mut child = Command::new(path)
        .arg(METADATA)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut said = Vec::new();
    // Its end is dropped here, so that one who says too much ends by a broken pipe.
    let read = match child.stdout.take() {
        Some(out) => out.take(LARGEST).read_to_end(&mut said),
        None => Ok(0),
    };
    let status = child.wait().map_err(|error| failed(&error))?;
    read.map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&status));
    }
    let metadata: Metadata = serde_json::from_slice(&said)
        .map_err(|error| format!("invalid metadata: {}", in_gos_words(&said, &error)))?;
    check_schema(&metadata.schema_version)?;
    if metadata.vendor.is_empty() {
        return Err("plugin metadata does not define a vendor".to_owned());
    }
    Ok(metadata)
}

/// Every version below 2.0.0 is understood (docker/cli `cli-plugins/manager/plugin.go`, `validateSchemaVersion`).
fn check_schema(version: &str) -> Result<(), String> {
    if version.is_empty() {
        return Err("plugin SchemaVersion version cannot be empty".to_owned());
    }
    match version.split_once('.').map(|(major, _)| major.parse::<u32>()) {
        Some(Ok(0 | 1)) => Ok(()),
        Some(Ok(_)) => Err(format!(
            "plugin SchemaVersion {version:?} is not supported: must be lower than 2.0.0"
        )),
        _ => Err(format!(
            "plugin SchemaVersion {version:?} has wrong format: must be <major>.<minor>.<patch>"
        )),
    }
}

/// What is wrong with a document as docker says it, where that is known.
fn in_gos_words(text: &[u8], error: &serde_json::Error) -> String {
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let at = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    let said = error.to_string();
    match at.map(|byte| char::from(*byte)) {
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(character) if said.starts_with("key must be a string") => {
            format!("invalid character {character:?} looking for beginning of object key string")
        }
        Some(character) if said.starts_with("expected value") => {
            format!("invalid character {character:?} looking for beginning of value")
        }
        _ => said,
    }
}

/// The socket that a plugin listens at: nothing is ever said on it, its end is the message.
#[derive(Clone, Debug)]
struct Line {
    listener: Arc<UnixListener>,
    /// None once it has ended.
    connections: Arc<Mutex<Option<Vec<UnixStream>>>>,
}

impl Line {
    /// A socket without a file, and its name; its thread takes connections until the line ends.
    fn open() -> std::io::Result<(Self, String)> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("docker_cli_{hex}");
        let line = Self {
            listener: Arc::new(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?),
            connections: Arc::new(Mutex::new(Some(Vec::new()))),
        };
        let own = line.clone();
        std::thread::Builder::new()
            .name("plugin".to_owned())
            .spawn(move || own.take())?;
        Ok((line, format!("@{name}")))
    }

    fn take(&self) {
        while let Ok((connection, _)) = self.listener.accept() {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            match connections.as_mut() {
                Some(kept) if kept.len() < MOST_CONNECTIONS => kept.push(connection),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Tells the plugin to end; again, it does nothing.
    fn end(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        drop(connections.take());
        // Nobody waits in `accept` after that; one that has ended already cannot be ended again.
        _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

/// Runs a plugin with all words of this call; its exit code is ours.
///
/// # Errors
/// When it cannot be executed.
pub(crate) fn run(plugin: &Plugin, words: &[OsString]) -> Result<ExitCode, CliError> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::plain(format!("run {}: {error}", plugin.path.display()));
    // Held back from here on; the plugin has them as usual, since a program is given an empty mask.
    let signals = Signals::watch(&SIGNALS)?;
    let line = Line::open().ok();
    let mut command = Command::new(&plugin.path);
    command.args(words.iter().skip(1));
    if let Some(caller) = words.first() {
        command.env(CALLER, caller);
    }
    if let Some((_, name)) = &line {
        command.env(SOCKET, name);
    }
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let killed = Arc::new(AtomicBool::new(false));
    // In front of a terminal the kernel has told the plugin, too.
    let apart = !std::io::IsTerminal::is_terminal(&std::io::stdout());
    let pid = rustix::process::Pid::from_child(&child);
    if let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        && apart
    {
        let killed = Arc::clone(&killed);
        let line = line.as_ref().map(|(line, _)| line.clone());
        let watch = move || pass_on(&signals, line.as_ref(), &process, &killed);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(watch)
            .map_err(|error| failed(&error))?;
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if let Some((line, _)) = &line {
        line.end();
    }
    if killed.load(Ordering::Acquire) {
        note("got 3 SIGTERM/SIGINTs, forcefully exiting");
        return Ok(ExitCode::FAILURE);
    }
    let signal = || 128 + status.signal().unwrap_or(0);
    let code = status.code().unwrap_or_else(signal);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The first signal ends the line, the last one the plugin.
fn pass_on(signals: &Signals, line: Option<&Line>, process: &OwnedFd, killed: &AtomicBool) {
    let mut count = 0;
    while count < PATIENCE {
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        // An interrupted wait is begun again.
        if rustix::event::poll(&mut fds, None).is_ok() {
            count += signals.take().len();
        }
        if count > 0
            && let Some(line) = line
        {
            line.end();
        }
    }
    killed.store(true, Ordering::Release);
    // It may have ended by itself.
    _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_small_letters_and_digits() {
        for good in ["compose", "a1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1a", "Compose", "a-b", "../a", "a/b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_plugin_is_told_in_dockers_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-one");
        let (says, ends) = (folder.path().join("says"), folder.path().join("ends"));
        let script = format!(
            "#!/bin/sh\ncat {}\nexit $(cat {})\n",
            says.display(),
            ends.display()
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let ask = |said: &str, code: u8| {
            std::fs::write(&says, said).unwrap();
            std::fs::write(&ends, code.to_string()).unwrap();
            asked("one", &path).map(|metadata| metadata.short_description)
        };
        let good = r#"{"SchemaVersion":"0.1.0","Vendor":"us","ShortDescription":"one","Later":1}"#;
        assert_eq!(ask(good, 0).unwrap(), "one");
        for (said, code, wrong) in [
            (good, 3, "failed to fetch metadata: exit status: 3"),
            (
                "{invalid-json}",
                0,
                "invalid metadata: invalid character 'i' looking for beginning of object key string",
            ),
            ("", 0, "invalid metadata: unexpected end of JSON input"),
            (
                "hello",
                0,
                "invalid metadata: invalid character 'h' looking for beginning of value",
            ),
            ("{}", 0, "plugin SchemaVersion version cannot be empty"),
            (
                r#"{"SchemaVersion":"2.0.0","Vendor":"us"}"#,
                0,
                "plugin SchemaVersion \"2.0.0\" is not supported: must be lower than 2.0.0",
            ),
            (
                r#"{"SchemaVersion":"one","Vendor":"us"}"#,
                0,
                "plugin SchemaVersion \"one\" has wrong format: must be <major>.<minor>.<patch>",
            ),
            (
                r#"{"SchemaVersion":"1.2.0"}"#,
                0,
                "plugin metadata does not define a vendor",
            ),
        ] {
            assert_eq!(ask(said, code).unwrap_err(), wrong, "{said}");
        }
        assert!(
            asked("run", Path::new("/bin/true"))
                .unwrap_err()
                .contains("duplicates builtin")
        );
        // One that never stops talking.
        let path = folder.path().join("docker-two");
        std::fs::write(&path, "#!/bin/sh\nexec yes\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(asked("two", &path).is_err());
    }

    #[test]
    fn the_end_of_the_line_reaches_who_listens() {
        let (line, name) = Line::open().unwrap();
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let mut plugin = UnixStream::connect_addr(&address).unwrap();
        // Taken once a second one could connect and be read from: the line keeps both.
        while line.connections.lock().unwrap().as_ref().unwrap().is_empty() {
            std::thread::yield_now();
        }
        line.end();
        assert_eq!(plugin.read(&mut [0]).unwrap(), 0);
        line.end();
        assert!(UnixStream::connect_addr(&address).is_err());
    }
}
