//! `info` and `version` as podman has them (podman `define.Info`, `define.Version`). What is podman's alone (conmon,
//! netavark, buildah) is not claimed: its field is left out, or says `dhow`.

use dhow_engine::Info;
use serde_json::{Value, json};

/// What `info` knows beside the engine's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Where what ends with a boot is kept.
    pub(crate) run: &'a std::path::Path,
    /// Whether the person is not root.
    pub(crate) rootless: bool,
    /// Where volumes are, if not below the root.
    pub(crate) volumes: Option<&'a std::path::Path>,
    /// This program.
    pub(crate) program: Option<&'a std::path::Path>,
}

/// The whole document.
pub(crate) fn info(info: &Info, place: Place<'_>) -> Value {
    let (running, paused, stopped) = info.containers;
    let (name, version) = distribution(&info.system);
    let search = info
        .registries
        .as_ref()
        .map_or_else(|_| Vec::new(), |found| found.search().to_vec());
    let has = |name: &str| info.security.iter().any(|one| one.starts_with(name));
    let platform = dhow_types::Platform::host();
    json!({
        "host": {
            "arch": platform.architecture,
            "cgroupManager": "cgroupfs",
            "cgroupVersion": format!("v{}", info.cgroup_version),
            // The name of the same in podman's templates.
            "cgroupsVersion": format!("v{}", info.cgroup_version),
            "cpus": info.cpus,
            "databaseBackend": "sqlite",
            "distribution": {"distribution": name, "version": version},
            "eventLogger": "none",
            "hostname": info.name,
            "kernel": info.kernel,
            "logDriver": "local",
            "memTotal": info.memory,
            "networkBackend": "dhow",
            "ociRuntime": {
                "name": "dhow",
                "path": place.program.map_or_else(String::new, |path| path.display().to_string()),
                "version": env!("CARGO_PKG_VERSION"),
            },
            "os": platform.os,
            "security": {
                "apparmorEnabled": has("apparmor"),
                "rootless": place.rootless,
                "seccompEnabled": has("seccomp"),
                "selinuxEnabled": has("selinux"),
            },
            "serviceIsRemote": false,
            // There is none, and scripts ask.
            "slirp4netns": {"executable": "", "package": "", "version": ""},
        },
        "store": {
            "containerStore": {
                "number": running + paused + stopped, "paused": paused, "running": running, "stopped": stopped,
            },
            "graphDriverName": "overlay",
            "graphOptions": {},
            "graphRoot": info.root,
            "graphStatus": {"Backing": info.storage},
            "imageStore": {"number": info.images},
            "runRoot": place.run.display().to_string(),
            "volumePath": place.volumes.map_or_else(|| format!("{}/volumes", info.root), |folder| folder.display().to_string()),
        },
        "registries": {"search": search},
        "plugins": {"volume": ["local"], "network": ["bridge"], "log": ["local", "json-file", "k8s-file", "none"]},
        "version": version_fields(),
    })
}

/// `Debian GNU/Linux 12 (bookworm)`: the name, and the first word with a digit.
fn distribution(system: &str) -> (&str, &str) {
    let version = system
        .split(' ')
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let version = version.unwrap_or("");
    let name = system.split(version).next().unwrap_or(system).trim();
    (if version.is_empty() { system } else { name }, version)
}

/// The fields of a version.
pub(crate) fn version_fields() -> Value {
    let platform = dhow_types::Platform::host();
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "APIVersion": env!("CARGO_PKG_VERSION"),
        "OsArch": format!("{}/{}", platform.os, platform.architecture),
    })
}

/// A document as YAML, which `info` prints: maps, lists and plain values, every text that could be another in quotes.
pub(crate) fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                out.push_str(&format!("{indent}{name}:"));
                nested(value, depth, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{indent}-"));
                nested(item, depth, out);
            }
        }
        other => out.push_str(&format!("{indent}{other}\n")),
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            yaml(value, depth + 1, out);
        }
        Value::String(text) if is_plain(text) => out.push_str(&format!(" {text}\n")),
        other => out.push_str(&format!(" {other}\n")),
    }
}

/// Whether a text needs no quotes: it begins with a letter or a slash, has no sign of YAML's, and is no word of it.
fn is_plain(text: &str) -> bool {
    let word = matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    !word
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " /._-+".contains(c))
        && !text.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_quotes_what_could_be_read_as_something_else() {
        let value = json!({"a": {"b": "plain text", "c": "1.0", "d": "yes", "e": [], "f": ["x", {"y": true}]}, "n": 3});
        let mut out = String::new();
        yaml(&value, 0, &mut out);
        assert_eq!(
            out,
            "a:\n  b: plain text\n  c: \"1.0\"\n  d: \"yes\"\n  e: []\n  f:\n    - x\n    -\n      y: true\nn: 3\n"
        );
    }

    #[test]
    fn a_distribution_is_a_name_and_a_version() {
        assert_eq!(
            distribution("Debian GNU/Linux 12 (bookworm)"),
            ("Debian GNU/Linux", "12")
        );
        assert_eq!(distribution("Arch Linux"), ("Arch Linux", ""));
    }
}
