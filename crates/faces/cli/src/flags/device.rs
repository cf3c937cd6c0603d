//! Devices of the host in a container: by path, by the Container Device Interface, and GPUs.

use std::path::PathBuf;

use clap::Args;
use dhow_engine::container::is_cdi_device as is_by_interface;

use crate::dialect;

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct DeviceFlags {
    /// Add a host device to the container, by path or by CDI (vendor.com/class=name)
    #[arg(long, value_name = "HOST[:CONTAINER[:ACCESS]]")]
    device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long, value_name = "GPUS")]
    gpus: Vec<String>,
    /// Read CDI specs from this folder instead of /etc/cdi and /var/run/cdi
    #[arg(long, value_name = "FOLDER")]
    cdi_spec_dir: Vec<PathBuf>,
}

impl DeviceFlags {
    /// Those by path: on the host, in the container, access.
    pub(super) fn of_the_host(&self) -> Result<Vec<(PathBuf, PathBuf, String)>, String> {
        let paths = self.device.iter().filter(|word| !is_by_interface(word));
        paths.map(|word| device(word)).collect()
    }

    /// Those by the Container Device Interface, GPUs among them.
    pub(super) fn by_interface(&self) -> Result<Vec<String>, String> {
        let mut names: Vec<String> = self
            .device
            .iter()
            .filter(|word| is_by_interface(word))
            .cloned()
            .collect();
        for asked in &self.gpus {
            names.extend(gpus(asked)?);
        }
        Ok(names)
    }

    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, String> {
        // The monitor, which looks again, has another working directory.
        let whole = |path: &PathBuf| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        self.cdi_spec_dir.iter().map(whole).collect()
    }

    /// Device rules; podman's may leave out the minor number, and its words for a wrong one are others.
    pub(super) fn rules(&self) -> Result<Vec<String>, String> {
        let rules = &self.device_cgroup_rule;
        if !dialect::spoken().is_podman() {
            return Ok(rules.clone());
        }
        rules
            .iter()
            .map(|rule| super::podman::device_rule(rule))
            .collect()
    }
}

/// What is asked for by `--gpus` (docker/cli `opts/gpus.go`): `all`, a number, or `device=0,1` beside a driver and what it
/// must be able to do. There is one driver whose GPUs have such names, and what CDI gives can do all.
fn gpus(text: &str) -> Result<Vec<String>, String> {
    let name = |which: &str| format!("nvidia.com/gpu={which}");
    let count = |text: &str| match text {
        "all" | "-1" => Ok(vec![name("all")]),
        number => match number.parse::<u16>() {
            Ok(number) => Ok((0..number).map(|index| name(&index.to_string())).collect()),
            Err(_) => Err(format!("invalid --gpus count {text:?}: write all or a number")),
        },
    };
    if !text.contains('=') {
        return count(text);
    }
    let fields = super::csv(text);
    let (mut counted, mut named) = (None, Vec::new());
    for field in &fields {
        match field.split_once('=') {
            Some(("count", value)) => counted = Some(value),
            None => counted = Some(field.as_str()),
            Some(("device", ids)) => named.extend(ids.split(',').map(name)),
            Some(("driver", "nvidia" | "cdi" | "")) => {}
            Some(("capabilities", wanted)) => {
                const KNOWN: [&str; 8] = [
                    "gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display",
                ];
                if let Some(unknown) = wanted.split(',').find(|word| !KNOWN.contains(word)) {
                    return Err(format!("--gpus: no driver has the capability {unknown:?}"));
                }
            }
            Some((key, value)) => return Err(format!("--gpus: {key}={value} is not supported")),
        }
    }
    match (counted, named.is_empty()) {
        (Some(_), false) => Err("--gpus: cannot set both a count and devices".to_owned()),
        (Some(counted), true) => count(counted),
        (None, false) => Ok(named),
        (None, true) => count("1"),
    }
}

fn device(text: &str) -> Result<(PathBuf, PathBuf, String), String> {
    let access = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if access(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if access(mode) => (*host, *container, *mode),
        _ => return Err(format!("invalid device {text:?}: write host[:container[:rwm]]")),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(format!("invalid device {text:?}: paths must be absolute"));
    }
    Ok((host.into(), container.into(), mode.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_devices_of_their_vendor() {
        let found = |text: &str| gpus(text).unwrap().join(" ");
        assert_eq!(found("all"), "nvidia.com/gpu=all");
        assert_eq!(found("2"), "nvidia.com/gpu=0 nvidia.com/gpu=1");
        assert_eq!(found("0"), "");
        assert_eq!(found("device=1"), "nvidia.com/gpu=1");
        assert_eq!(
            found(r#""device=0,GPU-3a""#),
            "nvidia.com/gpu=0 nvidia.com/gpu=GPU-3a"
        );
        assert_eq!(
            found(r#"all,"capabilities=compute,utility""#),
            "nvidia.com/gpu=all"
        );
        assert_eq!(found("driver=nvidia,count=all"), "nvidia.com/gpu=all");
        assert_eq!(found("capabilities=gpu"), "nvidia.com/gpu=0");
        for bad in [
            "some",
            "count=x",
            "count=1,device=0",
            "driver=other",
            "capabilities=coffee",
            "options=a",
            "99999",
        ] {
            assert!(gpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_with_an_equals_sign_is_a_path() {
        assert!(!is_by_interface("/dev/disk/by-partlabel/a=b"));
        assert!(is_by_interface("vendor.com/class=name"));
    }
}
