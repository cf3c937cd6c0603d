//! Docker's `config.json`: credentials, and which context is the current one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::CliError;

/// Largest file that is read.
const MAX_CONFIG: u64 = 4 << 20;

/// Where docker's client keeps its files: the folder that `--config` names, `DOCKER_CONFIG`, or one in the home; none without a
/// home.
pub(crate) fn folder(named: Option<&Path>) -> Option<PathBuf> {
    let variable = || std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    let home = || {
        std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let named = named
        .map(Path::to_owned)
        .or_else(|| variable().map(PathBuf::from));
    named.or_else(|| Some(home()?.join(".docker")))
}

/// The variables that `proxies` of the file sets in containers and builds, each in both spellings (docker/cli
/// `cli/config/configfile/file.go`, `ParseProxyConfig`): those of the engine's address, else the default ones.
pub(crate) fn proxies(config: &Map<String, Value>, host: &str) -> Vec<(String, String)> {
    let all = config.get("proxies");
    let of = |name: &str| all?.get(name)?.as_object();
    let Some(chosen) = of(host).or_else(|| of("default")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, name) in PROXIES {
        let value = chosen.get(key).and_then(Value::as_str);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.push((name.to_owned(), value.to_owned()));
            found.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    found
}

/// What it calls proxies, and the variables for them.
const PROXIES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// Everything that is in the file, ours or not.
pub(crate) fn read(path: &Path) -> Result<Map<String, Value>, CliError> {
    let what = |why: String| CliError::plain(format!("read {}: {why}", path.display()));
    let mut text = String::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        file => file
            .and_then(|file| file.take(MAX_CONFIG).read_to_string(&mut text))
            .map_err(|error| what(error.to_string()))?,
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&text).map_err(|error| what(error.to_string()))
}

/// Beside its place, for nobody else to read, then renamed.
pub(crate) fn write(path: &Path, config: &Map<String, Value>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::plain(format!("write {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    let text = serde_json::to_string_pretty(config).map_err(|error| CliError::plain(error.to_string()))?;
    // Where a link points to, so that the link stays.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = place.with_extension(format!("json.{}", std::process::id()));
    let written = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, &place));
    written
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_those_of_the_host_or_the_default_ones() {
        let text = r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "", "allProxy": 7},
            "tcp://far:1": {"ftpProxy": "ftp://p"}}}"#;
        let config: Map<String, Value> = serde_json::from_str(text).unwrap();
        let of = |host: &str| -> Vec<String> {
            let found = proxies(&config, host).into_iter();
            found.map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(
            of("unix:///x"),
            ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]
        );
        assert_eq!(of("tcp://far:1"), ["FTP_PROXY=ftp://p", "ftp_proxy=ftp://p"]);
        assert!(proxies(&Map::new(), "x").is_empty());
    }

    #[test]
    fn what_others_wrote_stays_and_nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.json");
        let mut config = read(&path).unwrap();
        config.insert("detachKeys".to_owned(), "ctrl-x".into());
        write(&path, &config).unwrap();
        assert_eq!(read(&path).unwrap(), config);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "[1]").unwrap();
        assert!(read(&path).is_err());
    }
}
