//! Where the host has its control groups, and which part of each is the container's.

use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Largest `/proc/self/mountinfo` that is looked at.
const MAX_MOUNTINFO: usize = 16 << 20;

/// The mounted hierarchies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Version 1 hierarchies, and the version 2 one of a hybrid host.
    pub(crate) mounts: Vec<Hierarchy>,
    /// Whether there is only the version 2 tree, mounted at [`ROOT`].
    pub(crate) unified: bool,
}

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Its name below [`ROOT`]: `cpu,cpuacct`, `systemd`, `unified`.
    pub(crate) name: String,
    /// Which cgroup is the root of that mount.
    pub(crate) root: PathBuf,
    /// Word of the second field of `/proc/self/cgroup` (`name=systemd`, `memory`); empty for version 2.
    pub(crate) controller: String,
}

/// The conventional place of all hierarchies.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

impl Hierarchies {
    /// The host's, from the caller's mount table.
    pub(crate) fn read() -> Result<Self, Error> {
        let table = std::fs::read("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        if table.len() > MAX_MOUNTINFO {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "mount table of the host is too large",
            ));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&table)))
    }

    /// Picks the cgroup mounts out of a mount table (proc(5), mountinfo).
    pub(crate) fn parse(table: &str) -> Self {
        let mut found = Self::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
                continue;
            };
            let Ok(name) = Path::new(point).strip_prefix(ROOT) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            if *kind == "cgroup2" && name.is_empty() {
                found.unified = true;
                continue;
            }
            let controller = match *kind {
                "cgroup2" => String::new(),
                "cgroup" => {
                    let options = right.get(2).copied().unwrap_or_default();
                    let word = options
                        .split(',')
                        .find(|word| !matches!(*word, "rw" | "ro" | "xattr" | "clone_children"));
                    word.unwrap_or_default().to_owned()
                }
                _ => continue,
            };
            if name.is_empty() || name.contains('/') || found.mounts.iter().any(|known| known.name == name) {
                continue;
            }
            let (point, root) = (PathBuf::from(point), PathBuf::from(root));
            found.mounts.push(Hierarchy {
                point,
                name,
                root,
                controller,
            });
        }
        found
    }
}

impl Hierarchy {
    /// The directory on the host of the cgroup that the process with this `/proc/self/cgroup` is in.
    pub(crate) fn own(&self, membership: &str) -> Option<PathBuf> {
        let path = membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers
                .split(',')
                .any(|word| word == self.controller)
                .then_some(path)
        })?;
        let below = Path::new(path)
            .strip_prefix(&self.root)
            .unwrap_or(Path::new(path).strip_prefix("/").ok()?);
        Some(self.point.join(below))
    }
}
