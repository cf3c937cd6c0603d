//! `containers.conf` (containers.conf(5)), under podman's name alone: what it says of containers is taken for flags that come
//! before the person's own, so that those count.
//!
//! Keys about what is not ours (which runtime, conmon, a database) mean nothing here and are passed over, as podman passes
//! over keys that it does not know.

use std::path::{Path, PathBuf};

use dhow_engine::container::Names;
use serde::Deserialize;
use toml::{Table, Value};

use crate::CliError;

/// Largest file that is read.
const MOST: u64 = 1 << 20;

/// What the files say together: of each key, the last file that has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainersConf {
    containers: Table,
    engine: Table,
}

/// Keys that are a flag with a value, or with several.
const FLAGS: [(&str, &str); 19] = [
    ("annotations", "annotation"),
    ("cgroupns", "cgroupns"),
    ("default_sysctls", "sysctl"),
    ("default_ulimits", "ulimit"),
    ("devices", "device"),
    ("dns_options", "dns-option"),
    ("dns_searches", "dns-search"),
    ("dns_servers", "dns"),
    ("env", "env"),
    ("ipcns", "ipc"),
    ("log_driver", "log-driver"),
    ("mounts", "mount"),
    ("oom_score_adj", "oom-score-adj"),
    ("pidns", "pid"),
    ("shm_size", "shm-size"),
    ("tz", "tz"),
    ("umask", "umask"),
    ("userns", "userns"),
    ("utsns", "uts"),
];
/// Keys that are a switch.
const SWITCHES: [(&str, &str); 2] = [("no_hosts", "no-hosts"), ("read_only", "read-only")];

impl ContainersConf {
    /// What the files say that the environment leads to.
    pub(crate) fn usual() -> Result<Self, CliError> {
        Self::read(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(Into::into)
        })
    }

    /// Reads the files that there are: `read` gives a variable of the environment.
    pub(crate) fn read(read: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, CliError> {
        let mut conf = Self::default();
        match read("CONTAINERS_CONF") {
            Some(file) => conf.add(&file, true)?,
            None => {
                for file in places(&read) {
                    conf.add(&file, false)?;
                }
            }
        }
        if let Some(file) = read("CONTAINERS_CONF_OVERRIDE") {
            conf.add(&file, true)?;
        }
        Ok(conf)
    }

    fn add(&mut self, file: &Path, needed: bool) -> Result<(), CliError> {
        use std::io::Read as _;
        let failed = |why: String| {
            CliError::plain(format!("reading configuration {}: {why}", file.display())).with_code(125)
        };
        let opened = match std::fs::File::open(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needed => return Ok(()),
            opened => opened.map_err(|error| failed(error.to_string()))?,
        };
        let mut text = String::new();
        opened
            .take(MOST)
            .read_to_string(&mut text)
            .map_err(|error| failed(error.to_string()))?;
        let more: Self = toml::from_str(&text).map_err(|error| failed(error.message().to_owned()))?;
        self.containers.extend(more.containers);
        self.engine.extend(more.engine);
        Ok(())
    }

    /// The flags of `run` and `create` that it stands for. `said` are the person's own words: the network is theirs alone
    /// when they name one, since a container can be in several.
    pub(crate) fn flags(&self, said: &[String]) -> Result<Vec<String>, CliError> {
        let mut flags = Vec::new();
        let text = |key: &str| self.containers.get(key).and_then(Value::as_str);
        let network = network_of(said).or_else(|| text("netns").map(str::to_owned));
        let foreign = network.is_some_and(|network| network == "host" || network.starts_with("container:"));
        for (key, flag) in FLAGS {
            let mut values = self.values(key)?;
            if foreign && key == "default_sysctls" {
                // They are the host's, or another container's, to set.
                values.retain(|value| !value.starts_with("net."));
            }
            // A pod has its own.
            let ids = [
                "--uidmap",
                "--gidmap",
                "--subuidname",
                "--subgidname",
                "--pod",
                "--pod-id-file",
            ];
            if key == "userns" && says(said, &ids) {
                values.clear();
            }
            flags.extend(values.into_iter().map(|value| format!("--{flag}={value}")));
        }
        for (key, flag) in SWITCHES {
            if self.containers.get(key).and_then(Value::as_bool) == Some(true) {
                flags.push(format!("--{flag}"));
            }
        }
        flags.extend(
            self.values("volumes")?
                .into_iter()
                .map(|volume| format!("--volume={volume}")),
        );
        let number = |key: &str| self.containers.get(key).and_then(Value::as_integer);
        // Neither 0 nor -1 is a limit there.
        if let Some(limit) = number("pids_limit").filter(|limit| *limit > 0) {
            flags.push(format!("--pids-limit={limit}"));
        }
        if let Some(size) = number("log_size_max").filter(|size| *size > 0) {
            flags.push(format!("--log-opt=max-size={size}"));
        }
        if self.containers.get("label").and_then(Value::as_bool) == Some(false) {
            flags.push("--security-opt=label=disable".to_owned());
        }
        for (key, option) in [("apparmor_profile", "apparmor"), ("seccomp_profile", "seccomp")] {
            if let Some(value) = self
                .containers
                .get(key)
                .and_then(Value::as_str)
                .filter(|value| !value.is_empty())
            {
                flags.push(format!("--security-opt={option}={value}"));
            }
        }
        if let Some(mode) = text("netns").filter(|mode| matches!(*mode, "host" | "none"))
            && network_of(said).is_none()
        {
            flags.push(format!("--network={mode}"));
        }
        for (key, flag) in [("image_volume_mode", "image-volume"), ("pull_policy", "pull")] {
            if let Some(value) = self
                .engine
                .get(key)
                .and_then(Value::as_str)
                .filter(|value| !value.is_empty())
            {
                flags.push(format!("--{flag}={value}"));
            }
        }
        Ok(flags)
    }

    /// The texts of a key; none without it.
    fn values(&self, key: &str) -> Result<Vec<String>, CliError> {
        let values = self
            .containers
            .get(key)
            .map(|value| texts(key, value))
            .transpose()?;
        Ok(values.unwrap_or_default())
    }

    /// The runtime that is named.
    pub(crate) fn runtime(&self) -> Option<&str> {
        let name = self.engine.get("runtime").and_then(Value::as_str);
        name.filter(|name| !name.is_empty())
    }

    /// The flags that a runtime is to have.
    pub(crate) fn runtime_flags(&self, name: &str) -> Vec<String> {
        let all = self.engine.get("runtimes_flags").and_then(Value::as_table);
        let own = all.and_then(|all| all.get(name)).and_then(Value::as_array);
        let flags = own.into_iter().flatten().filter_map(Value::as_str);
        flags.map(str::to_owned).collect()
    }

    /// How a container's file of hosts is written.
    pub(crate) fn names(&self) -> Result<Names, CliError> {
        let text = |key: &str| self.containers.get(key).and_then(Value::as_str).unwrap_or("");
        let base = match text("base_hosts_file") {
            "" => Some(PathBuf::from("/etc/hosts")),
            "none" => None,
            "image" => {
                let message = "containers.conf: base_hosts_file = \"image\" is not supported: name a file of the host, or none";
                return Err(CliError::plain(message).with_code(125));
            }
            file => Some(PathBuf::from(file)),
        };
        let internal = text("host_containers_internal_ip");
        let address = match internal {
            "" | "none" => None,
            text => Some(text.parse().map_err(|_| {
                CliError::plain(format!(
                    "containers.conf: host_containers_internal_ip = {text:?} is no address"
                ))
                .with_code(125)
            })?),
        };
        Ok(Names {
            base,
            host: internal != "none",
            host_address: address,
        })
    }

    /// The capabilities that a container has without being asked for them.
    pub(crate) fn capabilities(&self) -> Result<Option<Vec<String>>, CliError> {
        let key = "default_capabilities";
        self.containers
            .get(key)
            .map(|value| texts(key, value))
            .transpose()
    }
}

/// Whether one of these flags is among the words.
fn says(said: &[String], flags: &[&str]) -> bool {
    let name = |word: &String| word.split('=').next().unwrap_or_default().to_owned();
    said.iter().any(|word| flags.contains(&name(word).as_str()))
}

/// The first network that the words name; a pod has its own.
fn network_of(said: &[String]) -> Option<String> {
    let mut words = said.iter();
    while let Some(word) = words.next() {
        let (flag, value) = word
            .split_once('=')
            .map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        let value = || value.map(str::to_owned).or_else(|| words.clone().next().cloned());
        match flag {
            "--network" | "--net" => return value(),
            "--pod" | "--pod-id-file" => return Some("container:".to_owned()),
            _ => {}
        }
    }
    None
}

/// Where the files are, the one that counts least first.
fn places(read: &impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let own = read("XDG_CONFIG_HOME").or_else(|| read("HOME").map(|home| home.join(".config")));
    let folders = [
        Some(PathBuf::from("/usr/share")),
        Some(PathBuf::from("/etc")),
        own,
    ];
    let mut files = Vec::new();
    for folder in folders.into_iter().flatten() {
        files.push(folder.join("containers/containers.conf"));
        let drop_ins = std::fs::read_dir(folder.join("containers/containers.conf.d"));
        let mut found: Vec<PathBuf> = drop_ins
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        found.sort();
        files.extend(found);
    }
    files
}

/// One value or several, as texts.
fn texts(key: &str, value: &Value) -> Result<Vec<String>, CliError> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(word) => Ok(word.to_string()),
        // Tables with `append = true` come with files that add to a list; the list is whole without them.
        _ => Err(
            CliError::plain(format!("containers.conf: {key} has something else than texts")).with_code(125),
        ),
    };
    match value {
        Value::Array(values) => values
            .iter()
            .filter(|value| !value.is_table())
            .map(text)
            .collect(),
        Value::String(empty) if empty.is_empty() => Ok(Vec::new()),
        one => Ok(vec![text(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(texts: &[&str]) -> ContainersConf {
        let folder = tempfile::tempdir().unwrap();
        let mut conf = ContainersConf::default();
        for (index, text) in texts.iter().enumerate() {
            let file = folder.path().join(index.to_string());
            std::fs::write(&file, text).unwrap();
            conf.add(&file, true).unwrap();
        }
        conf
    }

    #[test]
    fn keys_are_flags_and_the_last_file_that_has_one_counts() {
        let conf = conf(&[
            "[containers]\nenv = [\"A=1\"]\npids_limit = 7\nread_only = true\nnetns = \"host\"\n[engine]\nruntime = \"crun\"",
            "[containers]\nenv = [\"B=2\"]\nlog_size_max = 5\noom_score_adj = -3\n[engine]\npull_policy = \"always\"",
        ]);
        let flags = conf.flags(&[]).unwrap();
        let expected = [
            "--env=B=2",
            "--oom-score-adj=-3",
            "--read-only",
            "--pids-limit=7",
            "--log-opt=max-size=5",
            "--network=host",
            "--pull=always",
        ];
        assert_eq!(flags, expected);
        assert!(
            !conf
                .flags(&["--network=none".to_owned()])
                .unwrap()
                .contains(&"--network=host".to_owned())
        );
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_be_one() {
        let mut conf = ContainersConf::default();
        assert!(conf.add(Path::new("/no/such/file"), true).is_err());
        conf.add(Path::new("/no/such/file"), false).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad");
        std::fs::write(&file, "[containers\n").unwrap();
        assert!(conf.add(&file, false).is_err());
    }
}
