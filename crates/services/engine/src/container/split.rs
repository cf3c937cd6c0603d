//! A service's own control group, divided: the monitor in one part, the container in another (podman's `--cgroups=split`).

use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::{Context as _, Engine, Error};

/// Where version 2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// The part of those who watch. In version 2 a group with controllers of its own for its parts has no processes besides them
/// (cgroups(7), "no internal processes").
const SUPERVISOR: &str = "supervisor";

impl Engine {
    /// Puts this process, and so the monitor that it starts, into a part of the group that it is in; the path of that group,
    /// below which the container's own is to be. None where this process is in no group of its own, as without systemd.
    ///
    /// # Errors
    /// `PermissionDenied` and the like where the group was not given to this user (`Delegate=yes`).
    pub fn split_group(&self) -> Result<Option<String>, Error> {
        let read = |path: &str| std::fs::read_to_string(path).context(|| format!("read {path}"));
        let Some((own, unified)) = own_group(&read("/proc/self/cgroup")?) else {
            return Ok(None);
        };
        // Version 1 has no such rule, and systemd's own hierarchy says which group is the service's.
        if unified && Path::new(ROOT).join("cgroup.procs").exists() {
            let part = PathBuf::from(ROOT)
                .join(own.trim_start_matches('/'))
                .join(SUPERVISOR);
            let what = || format!("move this process into the control group {}", part.display());
            match std::fs::create_dir(&part) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::wrap(error, what())
                        .with_hint("give the service its control group: Delegate=yes"));
                }
                _ => {}
            }
            std::fs::write(part.join("cgroup.procs"), std::process::id().to_string()).context(what)?;
        } else if unified {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("control groups are not mounted at {ROOT}"),
            ));
        }
        Ok(Some(own))
    }
}

/// The group that a process is in, and whether it is of version 2; none when it is the root.
fn own_group(membership: &str) -> Option<(String, bool)> {
    let path = |start: &str| {
        let line = membership.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix(start)
        })?;
        (line != "/" && !line.contains("..")).then(|| line.to_owned())
    };
    // On a host with both, version 2 is systemd's own when version 1 has no hierarchy of that name.
    match path("name=systemd:") {
        Some(own) => Some((own, false)),
        None => path(":").map(|own| (own, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_group_is_found_in_both_versions() {
        let unit = "/system.slice/web.service";
        assert_eq!(own_group(&format!("0::{unit}\n")), Some((unit.to_owned(), true)));
        let first = format!("3:cpu,cpuacct:/\n1:name=systemd:{unit}\n0::/\n");
        assert_eq!(own_group(&first), Some((unit.to_owned(), false)));
        assert_eq!(own_group("0::/\n"), None);
        assert_eq!(own_group("3:cpu:/x\n"), None);
    }
}
