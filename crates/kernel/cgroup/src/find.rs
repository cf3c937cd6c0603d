//! Groups that are there: found by path, by their directories, by a process, below another one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::dir::Dir;
use crate::hierarchy::{self, Hierarchy};
use crate::place::{Place, SubGroups};
use crate::{Context as _, Error, Group};

impl Group {
    /// The existing group at `path`.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::find(Place::anywhere(path)?, hierarchy::discover()?)
    }

    /// The existing group at a place, in all hierarchies.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open_at(place: &Place) -> Result<Self, Error> {
        Self::find(place.clone(), hierarchy::discover_all()?)
    }

    fn find(place: Place, hierarchies: Vec<Hierarchy>) -> Result<Self, Error> {
        let mut dirs = Vec::with_capacity(hierarchies.len());
        for hierarchy in &hierarchies {
            for base in place.bases(hierarchy) {
                match Dir::open(hierarchy, base.join(place.path())) {
                    Ok(dir) => {
                        dirs.push(dir);
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error)
                            .context(|| format!("open the control group {}", place.path().display()));
                    }
                }
            }
        }
        Self::some(place, hierarchies, dirs)
    }

    fn some(place: Place, hierarchies: Vec<Hierarchy>, dirs: Vec<Dir>) -> Result<Self, Error> {
        if dirs.is_empty() {
            let message = format!("no control group {}", place.path().display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(Self {
            place,
            hierarchies,
            dirs,
        })
    }

    /// The group whose directories [`paths`](Self::paths) said; those that are gone are left out.
    ///
    /// # Errors
    /// `NotFound` when none is there.
    pub fn from_paths(paths: &BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        let hierarchies = hierarchy::discover_all()?;
        let mut dirs = Vec::with_capacity(paths.len());
        for hierarchy in &hierarchies {
            let Some(at) = paths
                .get(&hierarchy.label)
                .filter(|at| at.starts_with(&hierarchy.root))
            else {
                continue;
            };
            match Dir::open(hierarchy, at.clone()) {
                Ok(dir) => dirs.push(dir),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).context(|| format!("open the control group {}", at.display()));
                }
            }
        }
        let first = paths.values().next().map_or(Path::new("/"), PathBuf::as_path);
        let place = Place::absolute(first)?;
        Self::some(place, hierarchies, dirs)
    }

    /// Its directories by hierarchy: the controllers or the name of a v1 hierarchy as `/proc/<pid>/cgroup` has them,
    /// nothing for the v2 tree. What a runtime keeps in its state to find the group again.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let path = |dir: &Dir| (dir.label.clone(), dir.at.clone());
        self.dirs.iter().map(path).collect()
    }

    /// The group in which a process is now: where another one goes that belongs to it, when the container has made
    /// groups of its own below and the kernel lets nobody into the group above.
    ///
    /// # Errors
    /// `NotFound` when the process is gone.
    pub fn of_process(pid: i32) -> Result<Self, Error> {
        let file = format!("/proc/{pid}/cgroup");
        let membership = std::fs::read_to_string(&file).context(|| format!("read {file}"))?;
        let hierarchies = hierarchy::discover_all()?;
        let mut dirs = Vec::with_capacity(hierarchies.len());
        for hierarchy in &hierarchies {
            let at = hierarchy.place_of(&membership);
            if let Some(at) = at {
                let opened = Dir::open(hierarchy, at.clone());
                dirs.push(opened.context(|| format!("open the control group {}", at.display()))?);
            }
        }
        let first = dirs.first().map_or_else(PathBuf::new, |dir| dir.at.clone());
        Self::some(Place::absolute(&first)?, hierarchies, dirs)
    }

    /// The groups below this one that `exec --cgroup` names; they must be there.
    ///
    /// # Errors
    /// `NotFound` when they are not; `InvalidArgument` for a controller that is in no hierarchy.
    pub fn below(&self, sub: &SubGroups) -> Result<Self, Error> {
        let mut dirs = Vec::with_capacity(self.dirs.len());
        for (controller, _) in &sub.by_controller {
            let known = |dir: &Dir| dir.label.split(',').any(|label| label == controller);
            if !self.dirs.iter().any(known) {
                let shown: String = controller.chars().take(64).collect();
                let message = format!("unknown controller {shown} in SubCgroupPaths");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        for dir in &self.dirs {
            let own = sub
                .by_controller
                .iter()
                .find(|(controller, _)| dir.label.split(',').any(|label| label == controller));
            let path = own.map_or(&sub.everywhere, |(_, path)| path);
            let opened = dir.below(path);
            let entrance = || dir.at.join(path).join("cgroup.procs");
            dirs.push(opened.context(|| format!("error adding pid to {}", entrance().display()))?);
        }
        Ok(Self {
            place: self.place.clone(),
            hierarchies: self.hierarchies.clone(),
            dirs,
        })
    }

    /// Gives the v2 group to a user, who may then make groups in it: for a container with a user namespace whose
    /// control groups are writable (kernel `cgroup-v2.rst`, "Delegation"). No other hierarchy can be given safely.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<(), Error> {
        let Some(dir) = self.unified() else { return Ok(()) };
        let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let files =
            files.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        for name in std::iter::once(".").chain(files.lines()) {
            match dir.give(name, uid) {
                // Files of controllers that are not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => {
                    outcome.context(|| format!("give {} to user {uid}", dir.at.join(name).display()))?
                }
            }
        }
        Ok(())
    }
}

/// Paths of the groups directly below `parent`, in whatever hierarchy they are; none when there is no such group.
///
/// # Errors
/// When a hierarchy cannot be read.
pub fn list(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    let place = Place::anywhere(parent)?;
    let parent = place.path();
    let mut found = Vec::new();
    for hierarchy in hierarchy::discover()? {
        for base in place.bases(&hierarchy) {
            let at = base.join(parent);
            let below = crate::dir::children(&at).context(|| format!("list {}", at.display()))?;
            found.extend(
                below
                    .iter()
                    .filter_map(|path| path.file_name())
                    .map(|name| parent.join(name)),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
