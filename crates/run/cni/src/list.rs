//! Lists of plugins, as administrators write them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use serde_json::{Map, Value};

use crate::{Context as _, Error, invalid, shown};

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Files that are read of a folder at most.
const MAX_FILES: usize = 1024;
/// Plugins of a list at most.
const MAX_PLUGINS: usize = 32;

/// Versions of the protocol that are spoken, oldest first. Those before have results of another form, and no plugin of
/// today knows them alone.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network as a file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) disable_check: bool,
    pub(crate) plugins: Vec<Map<String, Value>>,
    pub(crate) path: PathBuf,
}

impl NetworkList {
    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that describes it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its first plugin is: `bridge`, `macvlan`, ...
    #[must_use]
    pub fn kind(&self) -> &str {
        self.plugins.first().map_or("", kind)
    }

    /// Whether a plugin of it takes this part of the runtime's configuration (`portMappings`, `ips`, ...).
    #[must_use]
    pub fn takes(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| takes(plugin, capability))
    }

    /// Whether the version is at least this one of [`VERSIONS`].
    pub(crate) fn speaks(&self, version: &str) -> bool {
        let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        place(&self.version) >= place(version)
    }

    /// Reads a file: a list, or one plugin alone.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let what = || format!("read {}", path.display());
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).context(what)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).context(what)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(invalid(format!("{} is larger than 1 MiB", path.display())));
        }
        Self::parse(&bytes, path)
    }

    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let bad = |why: &str| invalid(format!("{}: {why}", path.display()));
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, bad("no JSON").to_string(), error))?;
        let Value::Object(mut document) = document else {
            return Err(bad("it is no object"));
        };
        let name = text(&document, "name").ok_or_else(|| bad("it has no name"))?;
        if !is_name(&name) {
            return Err(bad(&format!("invalid name {:?}", shown(&name))));
        }
        let version = version(&document).map_err(|said| {
            let message = format!(
                "{}: CNI version {:?} is not supported",
                path.display(),
                shown(&said)
            );
            Error::new(ErrorKind::Unsupported, message)
                .with_hint(format!("the versions known here: {}", VERSIONS.join(", ")))
        })?;
        let disable_check = document.get("disableCheck") == Some(&Value::Bool(true));
        let plugins = match document.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err(bad("its plugins are no list")),
            None => vec![Value::Object(document)],
        };
        if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
            return Err(bad(&format!("it has not 1 to {MAX_PLUGINS} plugins")));
        }
        let plugins = plugins.into_iter().map(|plugin| match plugin {
            Value::Object(plugin) if is_program(kind(&plugin)) => Ok(plugin),
            _ => Err(bad("a plugin has no type that is the name of a program")),
        });
        Ok(Self {
            name,
            version,
            disable_check,
            plugins: plugins.collect::<Result<_, _>>()?,
            path: path.to_owned(),
        })
    }
}

/// The lists of folders, by name of file; of two networks of one name the first. Files that say nothing sound are left out
/// here and named when their network is asked for.
pub(crate) fn all(folders: &[PathBuf]) -> Vec<Result<NetworkList, Error>> {
    let mut found: Vec<Result<NetworkList, Error>> = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let kind = path.extension().and_then(|kind| kind.to_str());
                matches!(kind, Some("conflist" | "conf" | "json")) && path.is_file()
            })
            .take(MAX_FILES)
            .collect();
        paths.sort();
        for path in paths {
            let list = NetworkList::read(&path);
            let known = |name: &str| found.iter().flatten().any(|other| other.name == name);
            if !list.as_ref().is_ok_and(|list| known(&list.name)) {
                found.push(list);
            }
        }
    }
    found
}

/// The program of a plugin.
pub(crate) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn takes(plugin: &Map<String, Value>, capability: &str) -> bool {
    let capabilities = plugin.get("capabilities").and_then(Value::as_object);
    capabilities.is_some_and(|all| all.get(capability) == Some(&Value::Bool(true)))
}

fn text(document: &Map<String, Value>, key: &str) -> Option<String> {
    document.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// The newest version that file and program both know: of `cniVersions` (1.1) or `cniVersion`.
fn version(document: &Map<String, Value>) -> Result<String, String> {
    let mut said: Vec<String> = match document.get("cniVersions") {
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    // One that names none means the first there was.
    said.extend(text(document, "cniVersion").or_else(|| said.is_empty().then(|| "0.1.0".to_owned())));
    let best = VERSIONS
        .iter()
        .rev()
        .find(|known| said.iter().any(|one| one == *known));
    best.map(|best| (*best).to_owned())
        .ok_or_else(|| said.pop().unwrap_or_default())
}

/// The rule of the specification for names of networks and containers.
fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A name of a file, and no way to another folder.
fn is_program(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(['/', '\0']) && !matches!(name, "." | "..")
}

#[cfg(test)]
mod unit {
    use super::*;

    fn parse(text: &str) -> Result<NetworkList, ErrorKind> {
        NetworkList::parse(text.as_bytes(), Path::new("x.conflist")).map_err(|error| error.kind())
    }

    #[test]
    fn lists_and_single_plugins_are_read_and_the_newest_version_is_taken() {
        let list = parse(
            r#"{"cniVersion":"0.4.0","name":"n","disableCheck":true,"plugins":[
                {"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true,"x":false}}]}"#,
        )
        .unwrap();
        assert_eq!((list.name(), list.kind(), list.plugins.len()), ("n", "bridge", 2));
        assert!(list.takes("portMappings") && !list.takes("x") && list.disable_check);
        assert!(list.speaks("0.4.0") && list.speaks("0.3.1") && !list.speaks("1.0.0"));
        let single = parse(r#"{"cniVersion":"0.3.1","name":"one","type":"macvlan"}"#).unwrap();
        assert_eq!((single.kind(), single.plugins.len()), ("macvlan", 1));
        let several =
            r#"{"cniVersion":"0.3.1","cniVersions":["1.0.0","9.9.9","0.4.0"],"name":"n","type":"x"}"#;
        assert_eq!(parse(several).unwrap().version, "1.0.0");
    }

    #[test]
    fn what_is_no_list_is_refused_by_kind() {
        for (text, kind) in [
            ("", ErrorKind::InvalidArgument),
            ("[]", ErrorKind::InvalidArgument),
            (r#"{"cniVersion":"1.0.0","type":"x"}"#, ErrorKind::InvalidArgument),
            (
                r#"{"cniVersion":"1.0.0","name":"../n","type":"x"}"#,
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"../../bin/sh"}"#,
                ErrorKind::InvalidArgument,
            ),
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, ErrorKind::InvalidArgument),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#,
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[1]}"#,
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"cniVersion":"0.2.0","name":"n","type":"x"}"#,
                ErrorKind::Unsupported,
            ),
            (r#"{"name":"n","type":"x"}"#, ErrorKind::Unsupported),
            (
                r#"{"cniVersion":"2.0.0","name":"n","type":"x"}"#,
                ErrorKind::Unsupported,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), kind, "{text}");
        }
        let many = format!(
            r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{}{{"type":"x"}}]}}"#,
            r#"{"type":"x"},"#.repeat(40)
        );
        assert_eq!(parse(&many).unwrap_err(), ErrorKind::InvalidArgument);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fall(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            drop(NetworkList::parse(&bytes, Path::new("x")));
        }
    }
}
