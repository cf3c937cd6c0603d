//! What a container gets without being asked for by name: what a systemd as its program needs, memory beside a read-only
//! root, the host's devices when it is privileged.

use std::path::{Path, PathBuf};

use dhow_bundle::Device;
use dhow_image::Image;
use dhow_types::{ContainerId, ErrorKind};

use super::create::{CreateContainer, ImageVolumes, device};
use super::mounts::MountSpec;

/// The programs that are a systemd (podman `pkg/specgen/generate/container.go`).
const SYSTEMD: [&str; 4] = ["systemd", "/usr/sbin/init", "/sbin/init", "/usr/local/sbin/init"];
/// Where it wants memory (systemd, "The Container Interface").
const SYSTEMD_MEMORY: [(&str, &str); 4] = [
    ("/run", "mode=755"),
    ("/run/lock", "mode=755"),
    ("/tmp", "mode=1777"),
    ("/var/log/journal", "mode=755"),
];
/// The signal that shuts it down in order.
const SYSTEMD_STOP: &str = "SIGRTMIN+3";
/// Where programs write that know nothing of a read-only root.
const READ_ONLY_MEMORY: [(&str, &str); 3] = [
    ("/run", "mode=755"),
    ("/tmp", "mode=1777"),
    ("/var/tmp", "mode=1777"),
];

/// Adds it to what was asked for. `args` is the program with its arguments.
pub(super) fn complete(
    wanted: &CreateContainer,
    image: &Image,
    id: &ContainerId,
    args: &[String],
) -> CreateContainer {
    let mut wanted = wanted.clone();
    let program = args.first().map_or("", String::as_str);
    let is_systemd = SYSTEMD.contains(&program)
        || Path::new(program)
            .file_name()
            .is_some_and(|name| name == "systemd");
    // Behind a first process it is not the first, as it must be to manage anything.
    let systemd = wanted.systemd.unwrap_or(is_systemd && wanted.init.is_none());
    let mut memory = Vec::new();
    if systemd {
        memory.extend(SYSTEMD_MEMORY);
        let defaults = &image.config.config;
        if wanted.stop_signal.is_none() && defaults.stop_signal.is_none() {
            wanted.stop_signal = Some(SYSTEMD_STOP.to_owned());
        }
        // Its machine id, where the image has an empty one: 32 digits (machine-id(5)).
        let uuid = id.as_str().get(..32).unwrap_or_default();
        for (name, value) in [("container", "oci"), ("container_uuid", uuid)] {
            let sets = |set: &String| set.split_once('=').is_some_and(|(set, _)| set == name);
            if !wanted.env.iter().any(sets) {
                wanted.env.push(format!("{name}={value}"));
            }
        }
    }
    if wanted.read_only_tmpfs {
        memory.extend(READ_ONLY_MEMORY);
    }
    for (target, mode) in memory {
        let target = PathBuf::from(target);
        let covers = |spec: &MountSpec| spec.target().components().eq(target.components());
        let volumes = &image.config.config.volumes;
        if wanted.mounts.iter().any(covers) || volumes.keys().any(|path| Path::new(path) == target) {
            continue;
        }
        let options = ["rw", "exec", mode, "tmpcopyup"].map(str::to_owned).into();
        wanted.mounts.push(MountSpec::Tmpfs { target, options });
    }
    if wanted.image_volumes == ImageVolumes::Tmpfs {
        for path in image.config.config.volumes.keys() {
            let target = PathBuf::from(path);
            let covers = |spec: &MountSpec| spec.target().components().eq(target.components());
            if !wanted.mounts.iter().any(covers) {
                let options = ["rw", "exec", "mode=1777"].map(str::to_owned).into();
                wanted.mounts.push(MountSpec::Tmpfs { target, options });
            }
        }
    }
    wanted.extras.systemd = systemd;
    wanted
}

/// What who runs a systemd should know of a host whose control groups are of version 1 (systemd 256, NEWS).
pub(super) fn old_groups(version_2: bool) -> Option<String> {
    (!version_2).then(|| {
        "the control groups of this host are of version 1, with which a systemd of version 256 or later refuses to \
         start; boot the host with systemd.unified_cgroup_hierarchy=1"
            .to_owned()
    })
}

/// Folders of `/dev` that are file systems of their own, and what no container is to have (moby `oci/devices_linux.go`).
const NOT_DEVICES: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "console",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];
/// Those that every container has as its own.
const OWN: [&str; 7] = ["full", "null", "ptmx", "random", "tty", "urandom", "zero"];
/// More devices than any host has.
const MOST: usize = 4096;

/// All devices of the host, for a privileged container. A systemd would take its virtual terminals from the host:
/// `terminals` says whether they come along.
pub(crate) fn host_devices(terminals: bool) -> Vec<Device> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let top = folder == Path::new("/dev");
            if NOT_DEVICES.contains(&&*name) || (top && OWN.contains(&&*name)) || found.len() >= MOST {
                continue;
            }
            let number = name.strip_prefix("tty");
            if !terminals && number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                // Links are left out: what they lead to is there under its own name. One that vanished is none.
                Ok(kind) if !kind.is_symlink() => match device(&path, &path, "rwm") {
                    Ok(device) => found.push(device),
                    Err(error) => debug_assert!(error.kind() != ErrorKind::Internal),
                },
                _ => {}
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_control_groups_are_told_of_with_what_to_do() {
        assert_eq!(old_groups(true), None);
        let told = old_groups(false).unwrap();
        assert!(told.contains("256") && told.contains("systemd.unified_cgroup_hierarchy=1"));
    }

    #[test]
    fn the_hosts_devices_are_whole_and_without_what_a_container_has_itself() {
        let all = host_devices(true);
        let few = host_devices(false);
        let is_terminal = |device: &&Device| {
            let name = device
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.strip_prefix("tty")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        assert_eq!(all.iter().filter(is_terminal).count() + few.len(), all.len());
        assert!(
            all.iter()
                .all(|device| device.path != Path::new("/dev/null") && !device.path.starts_with("/dev/pts"))
        );
    }
}
