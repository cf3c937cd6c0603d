//! Docker's contexts: names for engines, in docker's own files, so that docker's command line and this one read each other's.
//!
//! ```text
//! DOCKER_CONFIG/config.json                             "currentContext", when it is not the default
//! DOCKER_CONFIG/contexts/meta/<sha256 of the name>/meta.json
//! DOCKER_CONFIG/contexts/tls/<sha256 of the name>/<endpoint>/{ca,cert,key}.pem
//! ```
//! What is in `meta.json` and not known here is kept. A context that leads to another host by anything but ssh
//! ([`crate::elsewhere`]) is an error for every verb that would do something there, and never silently this host (see
//! [`Contexts::check_here`]).

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dhow_types::Digest;
use serde_json::{Map, Value, json};

use crate::{CliError, docker_config};

/// The context that is no file: this host, or what `DOCKER_HOST` names.
pub(crate) const DEFAULT: &str = "default";
/// The endpoint that docker knows, beside others of other programs.
pub(crate) const DOCKER: &str = "docker";
/// Where docker's engine listens when nobody says.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// The variable that counts before every context.
pub(crate) const HOST_VARIABLE: &str = "DOCKER_HOST";
/// Largest file of a context.
pub(crate) const LARGEST: u64 = 10 << 20;

/// All contexts of a person.
#[derive(Clone, Debug)]
pub(crate) struct Contexts {
    /// Docker's folder; without one there is the default context alone.
    folder: Option<PathBuf>,
    /// `--context`.
    asked: Option<String>,
    /// `--host`, or `DOCKER_HOST`.
    host: Option<String>,
    /// `DOCKER_CONTEXT`.
    variable: Option<String>,
}

/// One context: the whole of its `meta.json`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) name: String,
    document: Map<String, Value>,
}

/// Files of an endpoint, by name.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

impl Named {
    /// A new one.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            document: Map::new(),
        }
    }

    /// From the text of a `meta.json`, under a name that counts more than the one in it.
    pub(crate) fn parse(name: &str, text: &[u8]) -> Result<Self, CliError> {
        let document = serde_json::from_slice(text).map_err(|error| {
            CliError::plain(format!(
                "context {name:?}: its metadata is no JSON object: {error}"
            ))
        })?;
        Ok(Self {
            name: name.to_owned(),
            document,
        })
    }

    fn set(&mut self, part: &str, key: &str, value: Value) {
        let mut inner = match self.document.remove(part) {
            Some(Value::Object(inner)) => inner,
            _ => Map::new(),
        };
        inner.insert(key.to_owned(), value);
        self.document.insert(part.to_owned(), inner.into());
    }

    pub(crate) fn description(&self) -> &str {
        let metadata = self.document.get("Metadata");
        let found = metadata.and_then(|metadata| metadata.get("Description"));
        found.and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn describe(&mut self, text: &str) {
        self.set("Metadata", "Description", text.into());
    }

    /// Docker's endpoint.
    pub(crate) fn endpoint(&self) -> Option<&Map<String, Value>> {
        self.document.get("Endpoints")?.get(DOCKER)?.as_object()
    }

    /// Where its engine listens; empty when it does not say.
    pub(crate) fn host(&self) -> &str {
        let host = self.endpoint().and_then(|endpoint| endpoint.get("Host"));
        host.and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: Map<String, Value>) {
        self.set("Endpoints", DOCKER, endpoint.into());
    }

    /// The document as docker writes it.
    pub(crate) fn document(&self) -> Value {
        let mut document = self.document.clone();
        document.insert("Name".to_owned(), self.name.as_str().into());
        document.entry("Metadata").or_insert_with(|| json!({}));
        document.entry("Endpoints").or_insert_with(|| json!({}));
        document.into()
    }
}

/// An endpoint of docker's.
pub(crate) fn endpoint(host: &str, skip_verification: bool) -> Map<String, Value> {
    let mut endpoint = Map::new();
    endpoint.insert("Host".to_owned(), host.into());
    endpoint.insert("SkipTLSVerify".to_owned(), skip_verification.into());
    endpoint
}

/// Whether an address is that of another host, or of a program's own choosing: all but a Unix socket.
fn is_elsewhere(host: &str) -> bool {
    !host.is_empty() && !host.starts_with("unix://")
}

impl Contexts {
    pub(crate) fn new(folder: Option<PathBuf>, asked: Option<String>, host: Option<String>) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            folder,
            asked,
            host: host.or_else(|| variable(HOST_VARIABLE)),
            variable: variable("DOCKER_CONTEXT"),
        }
    }

    /// The address of the engine that is meant; this host's usual one where a context says nothing.
    pub(crate) fn engine(&self) -> String {
        let found = self.find(&self.current());
        let host = found.as_ref().map_or("", |context| context.host());
        if host.is_empty() { SOCKET } else { host }.to_owned()
    }

    /// The name of the context that counts, in docker's order (docker/cli `cli/command/cli.go`, `resolveContextName`).
    pub(crate) fn current(&self) -> String {
        if let Some(asked) = &self.asked {
            return asked.clone();
        }
        if self.host.is_some() {
            return DEFAULT.to_owned();
        }
        if let Some(variable) = &self.variable {
            return variable.clone();
        }
        // A file that cannot be read is told by the verbs that write it.
        let config = self
            .config_file()
            .and_then(|path| docker_config::read(&path).ok());
        let current = config.as_ref().and_then(|config| config.get("currentContext"));
        let current = current.and_then(Value::as_str).filter(|name| !name.is_empty());
        current.unwrap_or(DEFAULT).to_owned()
    }

    /// Refuses to work on this host when the person means another one: what is removed here is not to be got back there.
    ///
    /// # Errors
    /// Which context it is, and where it leads to; a context that is not there.
    pub(crate) fn check_here(&self) -> Result<(), CliError> {
        let current = self.current();
        let context = self.find(&current)?;
        if !is_elsewhere(context.host()) {
            return Ok(());
        }
        let (what, hint) = match (&self.host, current.as_str()) {
            (Some(_), DEFAULT) => (
                format!("{HOST_VARIABLE} or --host is {}", context.host()),
                format!("unset {HOST_VARIABLE} to work on this host"),
            ),
            _ => (
                format!("the context {current:?} is {}", context.host()),
                "dhow --context default works on this host, dhow context use default makes it so from now on"
                    .to_owned(),
            ),
        };
        let message = format!("{what}, which is not this host, and dhow works on its own host alone");
        Err(CliError::plain(message).with_hint(&hint))
    }

    /// The context of a name.
    ///
    /// # Errors
    /// In docker's words when there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Named, CliError> {
        if name == DEFAULT {
            let mut default = Named::new(DEFAULT);
            default.set_endpoint(endpoint(self.host.as_deref().unwrap_or(SOCKET), false));
            return Ok(default);
        }
        let missing = |why: &str| CliError::plain(format!("context {name:?}: context not found{why}"));
        let Some(path) = self.meta_folder(name).map(|folder| folder.join("meta.json")) else {
            return Err(missing(""));
        };
        match read(&path) {
            Ok(text) => Named::parse(name, &text),
            Err(error) => Err(missing(&format!(": open {}: {error}", path.display()))),
        }
    }

    /// Every context by name, the default among them; of one that cannot be read, why.
    pub(crate) fn list(&self) -> Result<Vec<Named>, CliError> {
        let mut all = vec![self.find(DEFAULT)?];
        let folder = self.folder.as_ref().map(|folder| folder.join("contexts/meta"));
        let entries = folder.map(fs::read_dir).into_iter().flatten().flatten().flatten();
        for entry in entries {
            let Ok(text) = read(&entry.path().join("meta.json")) else {
                continue;
            };
            let named = Named::parse("", &text)?;
            let name = named.document.get("Name").and_then(Value::as_str);
            if let Some(name) = name.map(str::to_owned) {
                all.push(Named { name, ..named });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Whether there is one of this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        name == DEFAULT || self.meta_folder(name).is_some_and(|folder| folder.is_dir())
    }

    /// Writes a context, new or changed. Its files stay as they are.
    pub(crate) fn write(&self, context: &Named) -> Result<(), CliError> {
        let folder = self.meta_folder(&context.name).ok_or_else(homeless)?;
        let failed = |error: std::io::Error| CliError::plain(format!("write {}: {error}", folder.display()));
        make_folder(&folder, 0o755).map_err(failed)?;
        write(
            &folder.join("meta.json"),
            context.document().to_string().as_bytes(),
            0o644,
        )
        .map_err(failed)
    }

    /// Replaces the files of an endpoint.
    pub(crate) fn write_files(&self, name: &str, endpoint: &str, files: &Files) -> Result<(), CliError> {
        let folder = self.tls_folder(name).ok_or_else(homeless)?.join(endpoint);
        let failed = |error: std::io::Error| CliError::plain(format!("write {}: {error}", folder.display()));
        remove(&folder).map_err(failed)?;
        if files.is_empty() {
            return Ok(());
        }
        make_folder(&folder, 0o700).map_err(failed)?;
        files
            .iter()
            .try_for_each(|(file, content)| write(&folder.join(file), content, 0o600))
            .map_err(failed)
    }

    /// The files of all endpoints.
    pub(crate) fn files(&self, name: &str) -> Result<Vec<(String, Files)>, CliError> {
        let mut all = Vec::new();
        let Some(folder) = self.tls_folder(name).filter(|_| name != DEFAULT) else {
            return Ok(all);
        };
        for endpoint in names(&folder) {
            let place = folder.join(&endpoint);
            let mut files = Vec::new();
            for file in names(&place) {
                let path = place.join(&file);
                let content = read(&path)
                    .map_err(|error| CliError::plain(format!("read {}: {error}", path.display())))?;
                files.push((file, content));
            }
            all.push((endpoint, files));
        }
        Ok(all)
    }

    /// Takes a context away.
    pub(crate) fn remove(&self, name: &str) -> Result<(), CliError> {
        let folders = [self.meta_folder(name), self.tls_folder(name)];
        for folder in folders.into_iter().flatten() {
            remove(&folder)
                .map_err(|error| CliError::plain(format!("failed to remove context {name}: {error}")))?;
        }
        Ok(())
    }

    /// Makes a context the current one.
    pub(crate) fn choose(&self, name: &str) -> Result<(), CliError> {
        let path = self.config_file().ok_or_else(homeless)?;
        let mut config = docker_config::read(&path)?;
        let before = config.get("currentContext").and_then(Value::as_str).unwrap_or("");
        let wanted = if name == DEFAULT { "" } else { name };
        // What does not change is not written, and no folder made for it.
        if before == wanted {
            return Ok(());
        }
        if wanted.is_empty() {
            config.remove("currentContext");
        } else {
            config.insert("currentContext".to_owned(), wanted.into());
        }
        docker_config::write(&path, &config)
    }

    /// Where a context is kept, for `inspect`.
    pub(crate) fn storage(&self, name: &str) -> Value {
        let shown = |folder: Option<PathBuf>| match folder {
            Some(folder) if name != DEFAULT => folder.display().to_string(),
            _ => "<IN MEMORY>".to_owned(),
        };
        json!({"MetadataPath": shown(self.meta_folder(name)), "TLSPath": shown(self.tls_folder(name))})
    }

    /// Whether `DOCKER_HOST` stands before every context.
    pub(crate) fn is_overridden() -> bool {
        std::env::var_os(HOST_VARIABLE).is_some_and(|value| !value.is_empty())
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("config.json"))
    }

    fn meta_folder(&self, name: &str) -> Option<PathBuf> {
        self.place("meta", name)
    }

    fn tls_folder(&self, name: &str) -> Option<PathBuf> {
        self.place("tls", name)
    }

    fn place(&self, kind: &str, name: &str) -> Option<PathBuf> {
        let below = self.folder.as_ref()?.join("contexts").join(kind);
        Some(below.join(Digest::of(name.as_bytes()).hex()))
    }
}

fn homeless() -> CliError {
    CliError::plain("there is no HOME to keep contexts in: name a folder with DOCKER_CONFIG")
}

/// Names in a folder, sorted; none when it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file of at most [`LARGEST`] bytes.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(std::io::Error::other(format!("it has more than {LARGEST} bytes")));
    }
    Ok(content)
}

fn make_folder(folder: &Path, mode: u32) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Beside its place, then renamed.
fn write(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(content)
        .and_then(|()| fs::rename(&beside, path))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(folder: &Path) -> Contexts {
        Contexts {
            folder: Some(folder.to_owned()),
            asked: None,
            host: None,
            variable: None,
        }
    }

    #[test]
    fn the_order_is_dockers() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = contexts(folder.path());
        assert_eq!(all.current(), DEFAULT);
        all.choose("file").unwrap();
        assert_eq!(all.current(), "file");
        all.variable = Some("variable".to_owned());
        assert_eq!(all.current(), "variable");
        all.host = Some("tcp://x:1".to_owned());
        assert_eq!(all.current(), DEFAULT);
        assert_eq!(all.find(DEFAULT).unwrap().host(), "tcp://x:1");
        all.asked = Some("asked".to_owned());
        assert_eq!(all.current(), "asked");
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let all = contexts(folder.path());
        let text = br#"{"Name":"other","Metadata":{"StackOrchestrator":"swarm"},"Endpoints":{"kubernetes":{"Host":"h"}},"New":1}"#;
        let mut context = Named::parse("remote", text).unwrap();
        context.describe("far away");
        context.set_endpoint(endpoint("ssh://far", false));
        all.write(&context).unwrap();
        // Docker's place of a context of this name.
        let place =
            "contexts/meta/b71199ebd070b36beab7317920c2c2f1d777df8d05e5527d8458fda57cb17a7a/meta.json";
        assert!(folder.path().join(place).exists());
        let document = all.find("remote").unwrap().document();
        assert_eq!(document["Name"], "remote");
        assert_eq!(document["Metadata"]["StackOrchestrator"], "swarm");
        assert_eq!(document["Endpoints"]["kubernetes"]["Host"], "h");
        assert_eq!(document["Endpoints"]["docker"]["Host"], "ssh://far");
        assert_eq!(document["New"], 1);
        all.remove("remote").unwrap();
        assert!(all.find("remote").is_err());
    }

    #[test]
    fn another_host_is_never_taken_for_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = contexts(folder.path());
        for (host, here) in [
            ("unix:///run/x.sock", true),
            ("", true),
            ("tcp://10.0.0.1:2376", false),
            ("ssh://me@far", false),
            ("npipe:////./pipe/x", false),
        ] {
            let mut context = Named::new("some");
            context.set_endpoint(endpoint(host, false));
            all.write(&context).unwrap();
            all.asked = Some("some".to_owned());
            assert_eq!(all.check_here().is_ok(), here, "{host}");
        }
        all.asked = Some("nosuch".to_owned());
        assert!(all.check_here().is_err());
    }
}
