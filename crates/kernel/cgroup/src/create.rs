//! Making a group: which hierarchies, below which directory, with which controllers.

use std::io;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::{CpuLimit, Resources};
use dhow_types::ErrorKind;

use crate::dir::{self, Dir};
use crate::hierarchy::{self, Controllers, Hierarchy};
use crate::place::Place;
use crate::setting::{self, Access, Setting};
use crate::{Context as _, Error, device, devices_v1, v1, v2};

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
                v2 = v2::settings(&unbound(resources, bound))?;
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
            dir.apply(self.v2.iter())?;
            return if self.filter {
                self.filter_devices(dir)
            } else {
                Ok(())
            };
        }
        dir.apply(
            self.v1
                .iter()
                .filter(|setting| dir.controllers.intersects(setting.controller)),
        )?;
        if dir.controllers.intersects(Controllers::DEVICES) && !self.devices.is_empty() {
            devices_v1::apply(dir, &self.devices)?;
        }
        Ok(())
    }

    fn filter_devices(&self, dir: &Dir) -> Result<(), Error> {
        if self.devices.is_empty() || only_allows_everything(&self.devices) {
            return Ok(());
        }
        match device::apply(std::os::fd::AsFd::as_fd(dir), &self.devices) {
            // A user can load no program, and needs none: mknod is refused to their containers, which see only the
            // devices that were bound into them (runc skips the rules for the same reason).
            Err(error) if error.kind() == ErrorKind::PermissionDenied && rootless() => Ok(()),
            outcome => outcome,
        }
    }
}

/// A privileged container's rules, which need no filter in a fresh group.
pub(crate) fn only_allows_everything(rules: &[Access]) -> bool {
    rules
        .last()
        .is_some_and(|rule| rule.allow && rule.is_everything())
}

/// Whether the rights of the host's root are nothing that this process can be expected to have.
#[must_use]
pub fn rootless() -> bool {
    !rustix::process::geteuid().is_root() || in_user_namespace()
}

/// Whether every hierarchy is mounted read-only here, as inside of most containers: not even root makes a group then.
#[must_use]
pub fn read_only() -> bool {
    use rustix::fs::{Access, access};
    let sealed =
        |hierarchy: &Hierarchy| access(&hierarchy.root, Access::WRITE_OK) == Err(rustix::io::Errno::ROFS);
    hierarchy::discover_all().is_ok_and(|all| all.iter().all(sealed))
}

/// Whether ids are mapped here: root is not the machine's.
pub(crate) fn in_user_namespace() -> bool {
    dhow_sys::file::read_text("/proc/self/uid_map", dir::MOST_BYTES)
        .is_ok_and(|map| map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

/// The limits of controllers that no v1 hierarchy holds.
fn unbound(resources: &Resources, bound: Controllers) -> Resources {
    let mut out = resources.clone();
    let has = |controller| bound.contains(controller);
    out.memory = out.memory.filter(|_| !has(Controllers::MEMORY));
    out.pids = out.pids.filter(|_| !has(Controllers::PIDS));
    out.block_io = out.block_io.filter(|_| !has(Controllers::BLKIO));
    out.network = out
        .network
        .filter(|_| !has(Controllers::NET_CLS) || !has(Controllers::NET_PRIO));
    if let Some(cpu) = &mut out.cpu {
        if has(Controllers::CPUSET) {
            (cpu.cpus, cpu.mems) = (None, None);
        }
        if has(Controllers::CPU) {
            *cpu = CpuLimit {
                cpus: cpu.cpus.take(),
                mems: cpu.mems.take(),
                ..CpuLimit::default()
            };
        }
    }
    out
}

/// A group that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making<'a> {
    pub(crate) hierarchies: &'a [Hierarchy],
    pub(crate) place: &'a Place,
    /// Controllers without which it is of no use.
    pub(crate) needed: Controllers,
    /// Whether it is to be in every hierarchy with every controller, and may be there already: what other programs
    /// expect of an OCI runtime.
    pub(crate) oci: bool,
}

impl Making<'_> {
    /// Makes the directories of the group, the v2 tree first.
    pub(crate) fn directories(&self, made: &mut Vec<Dir>) -> Result<(), Error> {
        let bound = bound(self.hierarchies);
        if let Some(hierarchy) = self.hierarchies.iter().find(|hierarchy| hierarchy.unified) {
            let pure_v2 = bound == Controllers::NONE;
            match self.directory(hierarchy) {
                Ok((dir, base)) => {
                    let required = self.needed.without(bound);
                    let wanted = match (self.oci, pure_v2) {
                        (true, _) => Controllers::OF_V2.without(bound),
                        (false, true) => {
                            required | Controllers::MEMORY | Controllers::PIDS | Controllers::BLKIO
                        }
                        (false, false) => required,
                    };
                    made.push(dir);
                    let last = made.len() - 1;
                    if self.oci {
                        domain(&made[last], required)?;
                    }
                    enable(&mut made[last], &base, self.place.path(), wanted, required)?;
                }
                Err(error) if pure_v2 || error.kind() == ErrorKind::AlreadyExists => return Err(error),
                // A hybrid host works without its v2 tree; the freezer then stands in.
                Err(_) => {}
            }
        }
        self.v1_directories(made)?;
        let have = made
            .iter()
            .fold(Controllers::NONE, |set, dir| set | dir.controllers);
        let missing = self.needed.without(have);
        if missing == Controllers::NONE {
            Ok(())
        } else {
            Err(lacking(missing))
        }
    }

    fn v1_directories(&self, made: &mut Vec<Dir>) -> Result<(), Error> {
        let statistics = Controllers::MEMORY
            | Controllers::CPUACCT
            | Controllers::PIDS
            | Controllers::BLKIO
            | if made.is_empty() {
                Controllers::FREEZER
            } else {
                Controllers::NONE
            };
        let asked = self.oci && self.place.said;
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !hierarchy.unified) {
            let required = hierarchy.controllers.intersects(self.needed);
            if !required && !self.oci && !hierarchy.controllers.intersects(statistics) {
                continue;
            }
            match self.directory(hierarchy) {
                Ok((dir, _)) => made.push(dir),
                Err(error) if required || asked || error.kind() != ErrorKind::PermissionDenied => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The directory in one hierarchy, below the first base that permits it.
    pub(crate) fn directory(&self, hierarchy: &Hierarchy) -> Result<(Dir, PathBuf), Error> {
        let path = self.place.path();
        let mut first = None;
        for base in self.place.bases(hierarchy) {
            let outcome = match Dir::make(hierarchy, &base, path) {
                Err(error) if self.oci && error.kind() == io::ErrorKind::AlreadyExists => {
                    Dir::take_over(hierarchy, &base, path)
                }
                outcome => outcome,
            };
            match outcome {
                Ok(dir) => return Ok((dir, base)),
                Err(error) => {
                    let denied = matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    );
                    let at = base.join(path);
                    let error = Error::wrap(error, format!("create the control group {}", at.display()));
                    if !denied {
                        return Err(error);
                    }
                    first.get_or_insert(error.with_kind(ErrorKind::PermissionDenied));
                }
            }
        }
        Err(first
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "a hierarchy has no directory"))
            .with_hint("run as root, or delegate a control group to this user (systemd: Delegate=yes)"))
    }
}

/// Sees to it that a v2 group below one with processes of its own can be entered: it must be threaded, which only some
/// controllers allow (kernel `cgroup-v2.rst`, "Threads").
fn domain(dir: &Dir, required: Controllers) -> Result<(), Error> {
    let kind = dir
        .read_if_there("cgroup.type")
        .context(|| format!("read the type of {}", dir.at.display()))?;
    let kind = kind.trim();
    let threaded = Controllers::CPU | Controllers::CPUSET | Controllers::PIDS | Controllers::PERF_EVENT;
    let refused = |state: &str| {
        let message = format!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in {state}",
            dir.at.display().to_string()
        );
        Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint("choose a group that is not below one with processes"))
    };
    match kind {
        "domain invalid" if required.without(threaded) == Controllers::NONE => dir
            .write("cgroup.type", "threaded")
            .context(|| format!("make {} threaded", dir.at.display())),
        "domain invalid" => refused("an invalid state"),
        "threaded" | "domain threaded" if required.without(threaded) != Controllers::NONE => {
            refused(&format!("{kind} mode"))
        }
        _ => Ok(()),
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
pub(crate) fn bound(hierarchies: &[Hierarchy]) -> Controllers {
    hierarchies
        .iter()
        .fold(Controllers::NONE, |set, hierarchy| set | hierarchy.controllers)
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

/// Enables in a v2 tree what controllers the directories from `root` down can give to the group `below`, which somebody
/// else made with fewer. Nothing depends on them: what is refused is left, and cannot be had further down either.
pub(crate) fn enable_offered(root: &Path, below: &Path) {
    let mut at = root.to_owned();
    for part in std::iter::once(None).chain(below.parent().into_iter().flat_map(Path::components).map(Some)) {
        at.extend(part);
        let enabled = words_for(&at, Controllers::OF_V2).and_then(|words| {
            if words.is_empty() {
                return Ok(());
            }
            std::fs::write(at.join("cgroup.subtree_control"), words)
        });
        if enabled.is_err() {
            return;
        }
    }
}

/// What to write to enable below `at` those that it has and does not hand down yet.
fn words_for(at: &Path, wanted: Controllers) -> io::Result<String> {
    let read = |file: &str| dhow_sys::file::read_text(at.join(file), dir::MOST_BYTES);
    let (offered, have) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let offered = Controllers::parse(offered.split_ascii_whitespace());
    let lacking = wanted.without(Controllers::parse(have.split_ascii_whitespace()));
    Ok(lacking.without(lacking.without(offered)).enable_words())
}

fn enable_below(at: &Path, wanted: Controllers) -> io::Result<()> {
    let words = words_for(at, wanted)?;
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
