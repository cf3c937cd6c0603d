//! What killed processes leave in the kernel and in the run folder: control groups, and the folders of build steps.
//!
//! Groups of one root lie below a parent of its own, so that this root can tell which of them are nobody's. A step of
//! a build has a folder `RUN/step-<id>` that its process keeps locked: a folder without a lock is that of a dead step,
//! and whatever still runs in the group of that id is to be killed.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_cgroup::Group;
use dhow_image::Finding;
use dhow_types::{ContainerId, Digest, ErrorKind};
use rustix::fs::FlockOperation;

use crate::container::{make_folder, process_start};
use crate::{Context as _, Engine, Error, SystemCheck};

/// The root whose groups have the plain parent; those of others carry a hash, as their networks do.
const DEFAULT_ROOT: &str = "/var/lib/dhow";
/// What the folder of a step begins with.
const STEP: &str = "step-";
/// What it begins with until it is locked.
const UNLOCKED: &str = ".step-";

/// File in it with the step's control group, when that is not where this root's are.
pub(crate) const CGROUP: &str = "cgroup";

/// The folder of a build step, locked while its process lives.
#[derive(Debug)]
pub(crate) struct StepFolder {
    pub(crate) path: PathBuf,
    lock: OwnedFd,
    /// Another process has it from here on.
    handed_over: bool,
}

impl StepFolder {
    /// Makes it: under another name first, so that nobody sees it without its lock.
    pub(crate) fn make(run: &Path, id: &ContainerId) -> Result<Self, Error> {
        let path = run.join(format!("{STEP}{}", id.short()));
        let hidden = run.join(format!("{UNLOCKED}{}-{}", std::process::id(), id.short()));
        let what = || format!("make the folder {}", path.display());
        make_folder(&hidden)?;
        let lock = lock(&hidden).context(what)?;
        std::fs::rename(&hidden, &path).context(what)?;
        Ok(Self::taken_over(path, lock))
    }

    /// One that another process made, and whose lock came from there.
    pub(crate) fn taken_over(path: PathBuf, lock: OwnedFd) -> Self {
        Self {
            path,
            lock,
            handed_over: false,
        }
    }

    /// Its lock, for another process.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Leaves it to the process that got the lock.
    pub(crate) fn hand_over(mut self) {
        self.handed_over = true;
    }
}

impl Drop for StepFolder {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        // What stays has lost its lock and is swept later.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

fn lock(folder: &Path) -> std::io::Result<OwnedFd> {
    let folder = File::open(folder)?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder.into())
}

/// Something that nobody will miss.
enum Leftover {
    /// A folder in the run folder, and the groups of its step.
    Step(PathBuf, Vec<PathBuf>),
    /// A group without processes.
    Group(PathBuf),
}

impl Leftover {
    fn what(&self) -> String {
        match self {
            Self::Step(folder, _) => format!("a build step was killed: {}", folder.display()),
            Self::Group(path) => format!("control group {} belongs to nobody", path.display()),
        }
    }

    fn remove(&self) -> Result<(), Error> {
        match self {
            Self::Step(folder, groups) => {
                groups.iter().try_for_each(|path| remove_group(path))?;
                std::fs::remove_dir_all(folder).context(|| format!("remove {}", folder.display()))
            }
            Self::Group(path) => remove_group(path),
        }
    }
}

fn remove_group(path: &Path) -> Result<(), Error> {
    let removed = Group::open(path).and_then(|group| {
        group.kill_all()?;
        group.delete()
    });
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.context(|| format!("remove the control group {}", path.display())),
    }
}

impl Engine {
    /// The group below which the groups of this root are.
    pub(crate) fn cgroup_parent(&self) -> String {
        let root = &self.settings().root;
        if root == Path::new(DEFAULT_ROOT) {
            return "dhow".to_owned();
        }
        let hash = Digest::of(root.as_os_str().as_encoded_bytes());
        format!("dhow-{}", &hash.hex()[..8])
    }

    /// Reports what killed processes left, and removes it with `repair`.
    pub(crate) fn check_leftovers(&self, repair: bool, found: &mut SystemCheck) -> Result<(), Error> {
        for leftover in self.leftovers()? {
            let healed = repair && leftover.remove().is_ok();
            found.findings.push(Finding {
                what: leftover.what(),
                healed: healed.then(|| "removed".to_owned()),
            });
        }
        Ok(())
    }

    /// Takes away what builds left that were killed. Nobody asked for it, so what does not go is left to
    /// `system check`, which says why.
    pub(crate) fn sweep_builds(&self) {
        for leftover in self.leftovers().unwrap_or_default() {
            drop(leftover.remove());
        }
        let Ok(store) = self.store() else { return };
        let root = &self.settings().root;
        if names(&root.join("tmp")).any(|name| dead_build(&name)) {
            drop(store.layers.sweep());
        }
        for key in names(&root.join("snapshots")).filter(|name| dead_build(name)) {
            drop(store.snapshots.remove(&key));
        }
    }

    /// Whether a build step of this id runs, or is about to.
    pub(crate) fn is_living_step(&self, id: &ContainerId) -> bool {
        let folder = self.settings().run.join(format!("{STEP}{}", id.short()));
        matches!(lock(&folder), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Removes the parent of this root's groups, when there is nothing in it.
    pub(crate) fn remove_cgroup_parent(&self) -> Result<(), Error> {
        let parent = PathBuf::from(self.cgroup_parent());
        let there = dhow_cgroup::list(&parent).context(|| "list the control groups")?;
        if there.is_empty() {
            remove_group(&parent)
        } else {
            Ok(())
        }
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        // The groups first: whoever makes one has a container or a step's folder before.
        let parent = PathBuf::from(self.cgroup_parent());
        let mut groups = dhow_cgroup::list(&parent).context(|| "list the control groups")?;
        let run = &self.settings().run;
        let mut out = Vec::new();
        for name in names(run) {
            let folder = run.join(&name);
            if let Some(short) = name.strip_prefix(STEP) {
                let (mut own, others): (Vec<_>, _) = groups.into_iter().partition(|path| begins(path, short));
                groups = others;
                if let Ok(path) = std::fs::read_to_string(folder.join(CGROUP)) {
                    own.push(PathBuf::from(path));
                }
                if lock(&folder).is_ok() {
                    out.push(Leftover::Step(folder, own));
                }
            } else if dead_maker(&name, UNLOCKED) || dead_build(&name) {
                out.push(Leftover::Step(folder, Vec::new()));
            }
        }
        for path in groups {
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let owned = id.is_none_or(|id: ContainerId| self.containers().folder(&id).exists());
            // Processes may be those of another root, from a time when all roots shared one parent.
            if !owned && Group::open(&path).is_ok_and(|group| group.procs().is_ok_and(|pids| pids.is_empty()))
            {
                out.push(Leftover::Group(path));
            }
        }
        Ok(out)
    }
}

fn begins(path: &Path, short: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    !short.is_empty() && name.is_some_and(|name| name.starts_with(short))
}

/// Whether this is a name `build-<pid>-...` of a process that is no more.
pub(crate) fn dead_build(name: &str) -> bool {
    dead_maker(name, "build-")
}

fn dead_maker(name: &str, prefix: &str) -> bool {
    let maker = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.split('-').next()?.parse::<i32>().ok());
    maker.is_some_and(|maker| process_start(maker).is_none())
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
