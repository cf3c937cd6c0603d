//! Making a group: which hierarchies, below which directory, with which controllers.

use std::io;
use std::path::{Component, Path, PathBuf};

use dhow_oci::runtime::Resources;
use dhow_types::ErrorKind;

use crate::dir::{self, Dir};
use crate::hierarchy::{Controllers, Hierarchy};
use crate::setting::{self, Access, Setting};
use crate::{Context as _, Error, device, v1, v2};

/// Longest path of a group: the kernel's limit for paths.
const MOST_PATH: usize = 4096;

/// What is to be written, for both versions of control groups.
#[derive(Debug)]
pub(crate) struct Limits {
    v1: Vec<Setting>,
    v2: Vec<Setting>,
    devices: Vec<Access>,
    /// Whether the device rules are a filter in the v2 tree, since no v1 hierarchy has them.
    filter: bool,
    /// Controllers without which a limit cannot be held.
    pub(crate) needed: Controllers,
}

impl Limits {
    /// Works out what `resources` mean on a host with these hierarchies.
    pub(crate) fn new(resources: &Resources, hierarchies: &[Hierarchy]) -> Result<Self, Error> {
        let bound = bound(hierarchies);
        let mut v1 = Vec::new();
        let mut v2 = Vec::new();
        if bound == Controllers::NONE {
            v2 = v2::settings(resources)?;
        } else {
            v1 = v1::settings(resources)?;
            // A hybrid host may have a controller in its v2 tree that no v1 hierarchy holds.
            if v1.iter().any(|setting| !bound.contains(setting.controller)) {
                v1.retain(|setting| bound.contains(setting.controller));
                v2 = v2::settings(resources)?;
                v2.retain(|setting| !bound.contains(setting.controller));
            }
        }
        let devices = setting::device_rules(resources)?;
        let filter = !bound.contains(Controllers::DEVICES);
        let mut needed = v1
            .iter()
            .chain(&v2)
            .fold(Controllers::NONE, |set, setting| set | setting.controller);
        if !devices.is_empty() && !filter && !only_allows_everything(&devices) {
            needed = needed | Controllers::DEVICES;
        }
        Ok(Self {
            v1,
            v2,
            devices,
            filter,
            needed,
        })
    }

    /// Writes what concerns this directory.
    pub(crate) fn apply(&self, dir: &Dir) -> Result<(), Error> {
        if dir.unified {
            for setting in &self.v2 {
                dir.apply(setting)?;
            }
            return if self.filter {
                self.filter_devices(dir)
            } else {
                Ok(())
            };
        }
        for setting in self
            .v1
            .iter()
            .filter(|setting| dir.controllers.contains(setting.controller))
        {
            self.apply_v1(dir, setting)?;
        }
        if dir.controllers.intersects(Controllers::DEVICES) && !self.devices.is_empty() {
            write_device_lines(dir, &self.devices)?;
        }
        Ok(())
    }

    /// Memory and memory-with-swap bound each other: raising both works in one order only, lowering in the other.
    fn apply_v1(&self, dir: &Dir, setting: &Setting) -> Result<(), Error> {
        let outcome = dir.apply(setting);
        if outcome.is_err() && setting.file == "memory.limit_in_bytes" {
            let with_swap = self
                .v1
                .iter()
                .find(|other| other.file == "memory.memsw.limit_in_bytes");
            if let Some(with_swap) = with_swap {
                dir.apply(with_swap)?;
                return dir.apply(setting);
            }
        }
        outcome
    }

    fn filter_devices(&self, dir: &Dir) -> Result<(), Error> {
        if self.devices.is_empty() || only_allows_everything(&self.devices) {
            return Ok(());
        }
        match device::apply(std::os::fd::AsFd::as_fd(dir), &self.devices) {
            // In a user namespace nobody can load the program, and nobody needs to: mknod is refused there, so a
            // container sees only the devices that were bound into it (runc skips the rules for the same reason).
            Err(error) if error.kind() == ErrorKind::PermissionDenied && in_user_namespace() => Ok(()),
            outcome => outcome,
        }
    }
}

/// A privileged container's rules, which need no filter in a fresh group.
fn only_allows_everything(rules: &[Access]) -> bool {
    rules
        .last()
        .is_some_and(|rule| rule.allow && rule.is_everything())
}

fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

fn write_device_lines(dir: &Dir, rules: &[Access]) -> Result<(), Error> {
    let files = [dir.open_write("devices.deny"), dir.open_write("devices.allow")];
    for (allow, line) in v1::device_lines(rules) {
        let file = if allow { "devices.allow" } else { "devices.deny" };
        let outcome = match &files[usize::from(allow)] {
            Ok(fd) => dir::write_fd(fd, &line),
            Err(error) => Err(error.kind().into()),
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && in_user_namespace() => {
                return Ok(());
            }
            outcome => outcome
                .context(|| format!("write {line:?} to {}", dir.at.join(file).display()))
                .map_err(|error| error.with_hint("the parent group may not have the device itself"))?,
        }
    }
    Ok(())
}

/// Directories in which a group of this hierarchy may be: below the mounted root, as dockerd does; for who may not
/// create there, below the own group; and beside it, since a v2 group with processes cannot have controllers below.
pub(crate) fn bases(hierarchy: &Hierarchy) -> Vec<PathBuf> {
    let mut out = vec![hierarchy.root.clone()];
    if hierarchy.own != hierarchy.root {
        let parent = hierarchy
            .own
            .parent()
            .filter(|parent| hierarchy.unified && *parent != hierarchy.root);
        out.extend(parent.map(Path::to_owned));
        out.push(hierarchy.own.clone());
    }
    out
}

/// A group's path relative to a base: plain names only, so that no path leads out of the tree.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn relative(path: &Path) -> Result<PathBuf, Error> {
    let bad = || {
        let message = format!("{:?} is no path of a control group", path.display().to_string());
        Error::new(ErrorKind::InvalidArgument, message).with_hint("write plain names, such as dhow/<id>")
    };
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) if !name.as_encoded_bytes().contains(&b'\n') => out.push(name),
            _ => return Err(bad()),
        }
    }
    if out.as_os_str().is_empty() || out.as_os_str().len() > MOST_PATH {
        return Err(bad());
    }
    Ok(out)
}

/// Makes the directories of a group, the v2 tree first.
pub(crate) fn directories(
    hierarchies: &[Hierarchy],
    path: &Path,
    needed: Controllers,
    made: &mut Vec<Dir>,
) -> Result<(), Error> {
    if let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.unified) {
        let pure_v2 = hierarchies.len() == 1;
        match make(hierarchy, path) {
            Ok((dir, base)) => {
                let wanted = if pure_v2 {
                    needed | Controllers::MEMORY | Controllers::PIDS | Controllers::BLKIO
                } else {
                    needed.without(bound(hierarchies))
                };
                made.push(dir);
                let last = made.len() - 1;
                enable(
                    &mut made[last],
                    &base,
                    path,
                    wanted,
                    needed.without(bound(hierarchies)),
                )?;
            }
            Err(error) if pure_v2 || error.kind() == ErrorKind::AlreadyExists => return Err(error),
            // A hybrid host works without its v2 tree; the freezer then stands in.
            Err(_) => {}
        }
    }
    let statistics = Controllers::MEMORY
        | Controllers::CPUACCT
        | Controllers::PIDS
        | Controllers::BLKIO
        | if made.is_empty() {
            Controllers::FREEZER
        } else {
            Controllers::NONE
        };
    for hierarchy in hierarchies.iter().filter(|hierarchy| !hierarchy.unified) {
        let required = hierarchy.controllers.intersects(needed);
        if !required && !hierarchy.controllers.intersects(statistics) {
            continue;
        }
        match make(hierarchy, path) {
            Ok((dir, _)) => made.push(dir),
            Err(error) if required || error.kind() != ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {}
        }
    }
    let have = made
        .iter()
        .fold(Controllers::NONE, |set, dir| set | dir.controllers);
    let missing = needed.without(have);
    if missing == Controllers::NONE {
        Ok(())
    } else {
        Err(lacking(missing))
    }
}

fn lacking(missing: Controllers) -> Error {
    let message = format!(
        "the {} controller is not available here, so its limit cannot be held",
        missing.name()
    );
    Error::new(ErrorKind::Unsupported, message).with_hint(
        "delegate the controller to this user (systemd: Delegate=yes), enable it in the kernel, or leave the limit out",
    )
}

/// Controllers that v1 hierarchies hold.
fn bound(hierarchies: &[Hierarchy]) -> Controllers {
    hierarchies
        .iter()
        .fold(Controllers::NONE, |set, hierarchy| set | hierarchy.controllers)
}

/// Makes the directory in one hierarchy, below the first base that permits it.
pub(crate) fn make(hierarchy: &Hierarchy, path: &Path) -> Result<(Dir, PathBuf), Error> {
    let mut first = None;
    for base in bases(hierarchy) {
        match Dir::make(hierarchy, &base, path) {
            Ok(dir) => return Ok((dir, base)),
            Err(error) => {
                let denied = matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                );
                first.get_or_insert_with(|| {
                    let at = base.join(path);
                    Error::wrap(error, format!("create the control group {}", at.display()))
                });
                if !denied {
                    break;
                }
            }
        }
    }
    Err(first
        .unwrap_or_else(|| Error::new(ErrorKind::Internal, "a hierarchy has no directory"))
        .with_hint("run as root, or delegate a control group to this user (systemd: Delegate=yes)"))
}

/// Makes sure that a v2 directory has the controllers: what is needed must come, what is merely wanted may not.
pub(crate) fn enable(
    dir: &mut Dir,
    base: &Path,
    path: &Path,
    wanted: Controllers,
    needed: Controllers,
) -> Result<(), Error> {
    if wanted == Controllers::NONE {
        return Ok(());
    }
    dir.controllers = available(dir)?;
    if dir.controllers.contains(wanted) {
        return Ok(());
    }
    let missing = wanted.without(dir.controllers);
    let mut at = base.to_owned();
    for part in std::iter::once(None).chain(path.parent().into_iter().flat_map(Path::components).map(Some)) {
        at.extend(part);
        enable_below(&at, missing).context(|| format!("enable controllers below {}", at.display()))?;
    }
    dir.controllers = available(dir)?;
    let lost = needed.without(dir.controllers);
    if lost == Controllers::NONE {
        Ok(())
    } else {
        Err(lacking(lost))
    }
}

fn available(dir: &Dir) -> Result<Controllers, Error> {
    let text = dir
        .read("cgroup.controllers")
        .context(|| format!("read the controllers of {}", dir.at.display()))?;
    Ok(Controllers::parse(text.split_ascii_whitespace()))
}

fn enable_below(at: &Path, wanted: Controllers) -> io::Result<()> {
    let offered = std::fs::read_to_string(at.join("cgroup.controllers"))?;
    let have = std::fs::read_to_string(at.join("cgroup.subtree_control"))?;
    let offered = Controllers::parse(offered.split_ascii_whitespace());
    let lacking = wanted.without(Controllers::parse(have.split_ascii_whitespace()));
    let words = lacking.without(lacking.without(offered)).enable_words();
    if words.is_empty() {
        return Ok(());
    }
    let file = at.join("cgroup.subtree_control");
    match std::fs::write(&file, &words) {
        // Processes in a group that is not the real root keep its controllers from going down. In a container the
        // mounted root is such a group, full of the container's own processes: they move one down, as every
        // container engine inside a container has them do.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            evacuate(at)?;
            std::fs::write(&file, &words)
        }
        outcome => outcome,
    }
}

/// Moves the processes of `at` into a leaf below it.
fn evacuate(at: &Path) -> io::Result<()> {
    let leaf = at.join("dhow-host");
    match std::fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // New processes appear while old ones move; a bounded number of rounds, since forks end up in the leaf.
    for _ in 0..16 {
        let pids = dir::pids(&std::fs::read_to_string(at.join("cgroup.procs"))?);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            match std::fs::write(leaf.join("cgroup.procs"), pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Ok(())
}
