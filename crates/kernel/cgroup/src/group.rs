use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Resources;
use dhow_types::{ErrorKind, Failures};

use crate::create::{self, Limits, Making};
use crate::dir::Dir;
use crate::hierarchy::{self, Controllers, Hierarchy};
use crate::place::Place;
use crate::{Context as _, Error, Stats, stats, teardown};

/// How often processes that fork while they are moved or killed are looked for again.
const ROUNDS: usize = 64;

/// One control group: a directory in every hierarchy that matters.
#[derive(Debug)]
pub struct Group {
    pub(crate) place: Place,
    pub(crate) hierarchies: Vec<Hierarchy>,
    pub(crate) dirs: Vec<Dir>,
}

/// Whether a container without a group lacks nothing that was asked for.
fn without_group(needed: Controllers, pure_v2: bool, error: Error) -> Result<(), Error> {
    // The devices controller of v1 is asked for in every spec, and a user namespace needs it least.
    let asked = needed.without(Controllers::DEVICES);
    if asked == Controllers::NONE {
        return Ok(());
    }
    let what = if pure_v2 {
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".to_owned()
    } else {
        let name = asked.name();
        format!("cannot set {name} limit: container could not join or create cgroup")
    };
    Err(Error::because(ErrorKind::PermissionDenied, what, error)
        .with_hint("delegate a control group to this user (systemd: Delegate=yes), or leave the limits out"))
}

impl Group {
    /// Makes the group at `path` (`dhow/<id>`) with these limits. Nothing stays when it fails.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there; `Unsupported` when a limit needs a controller that is missing; for a limit
    /// that the kernel refuses the file, the value and the fix.
    pub fn create(path: &Path, resources: &Resources) -> Result<Self, Error> {
        let place = Place::anywhere(path)?;
        let hierarchies = hierarchy::discover()?;
        let limits = Limits::new(resources, &hierarchies)?;
        Self::make(place, hierarchies, &limits, false)
    }

    /// Makes the group of an OCI container where its spec says: in every hierarchy, with every controller. A group
    /// that is there already is taken if nobody is in it. `None` when this user may make no group, and neither a path
    /// nor a limit was asked for: the container runs in the group of its starter then.
    ///
    /// # Errors
    /// As [`create`](Self::create); `FailedPrecondition` for a group with processes and for a frozen one;
    /// `PermissionDenied` where a group is needed and may not be made.
    pub fn create_at(place: &Place, resources: &Resources) -> Result<Option<Self>, Error> {
        let hierarchies = hierarchy::discover_all()?;
        let limits = Limits::new(resources, &hierarchies)?;
        let pure_v2 = create::bound(&hierarchies) == Controllers::NONE;
        let needed = limits.needed;
        match Self::make(place.clone(), hierarchies, &limits, true) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && create::rootless() => {
                if place.said {
                    let what = "unable to apply cgroup configuration: permission denied";
                    return Err(Error::because(ErrorKind::PermissionDenied, what, error));
                }
                without_group(needed, pure_v2, error).map(|()| None)
            }
            outcome => outcome.map(|group| Some(group).filter(|group| !group.dirs.is_empty())),
        }
    }

    /// [`create`](Self::create), or `None` when this user may make no group and no limit was asked for.
    ///
    /// # Errors
    /// As [`create`](Self::create); `PermissionDenied` for a limit without a group.
    pub fn create_if_allowed(path: &Path, resources: &Resources) -> Result<Option<Self>, Error> {
        let place = Place::anywhere(path)?;
        let hierarchies = hierarchy::discover()?;
        let limits = Limits::new(resources, &hierarchies)?;
        let pure_v2 = create::bound(&hierarchies) == Controllers::NONE;
        match Self::make(place, hierarchies, &limits, false) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && create::rootless() => {
                without_group(limits.needed, pure_v2, error).map(|()| None)
            }
            outcome => outcome.map(Some),
        }
    }

    fn make(place: Place, hierarchies: Vec<Hierarchy>, limits: &Limits, oci: bool) -> Result<Self, Error> {
        let mut dirs = Vec::with_capacity(hierarchies.len());
        let making = Making {
            hierarchies: &hierarchies,
            place: &place,
            needed: limits.needed,
            oci,
        };
        let outcome = making
            .directories(&mut dirs)
            .and_then(|()| if oci { unused(&dirs) } else { Ok(()) })
            .and_then(|()| dirs.iter().try_for_each(|dir| limits.apply(dir)));
        match outcome {
            Ok(()) => Ok(Self {
                place,
                hierarchies,
                dirs,
            }),
            Err(error) => {
                let mut failures = Failures::new();
                for dir in dirs.iter().filter(|dir| dir.fresh) {
                    failures.record(
                        "remove the half-made control group",
                        teardown::remove_tree(&dir.at),
                    );
                }
                // The first failure is the one to report; a directory that stays is empty and `delete` takes it.
                drop(failures);
                Err(error)
            }
        }
    }

    /// Its path, relative to where the hierarchies are mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Its directories, one for every hierarchy it is in; on a pure v2 host the one.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|dir| dir.at.as_path())
    }

    /// The directory in the v2 tree, for `CLONE_INTO_CGROUP`; also there on a hybrid host.
    #[must_use]
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified().map(|dir| dir.as_fd())
    }

    /// Files into which a process with one thread writes `0` to put itself in the group; what `CLONE_INTO_CGROUP`
    /// with [`v2_fd`](Self::v2_fd) does not cover. Empty on a pure v2 host. Write before the process gives up its
    /// rights; where it stands in the file system does not matter.
    ///
    /// Measured on Linux 6.18 with v1 controllers: 10 µs a file, where writing another process's id to
    /// `cgroup.procs` took 7 to 17 ms when nobody had done so lately.
    ///
    /// # Errors
    /// When they cannot be opened for writing.
    pub fn entrances(&self) -> Result<Vec<OwnedFd>, Error> {
        self.dirs
            .iter()
            .filter(|dir| !dir.unified)
            .map(|dir| {
                dir.open_write("tasks")
                    .context(|| format!("open {}", dir.at.join("tasks").display()))
            })
            .collect()
    }

    /// Moves a process, with all its threads, into the group.
    ///
    /// # Errors
    /// `NotFound` when the process is gone.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        self.dirs.iter().try_for_each(|dir| add_to(dir, pid))
    }

    /// The processes in the group and in the groups below it.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        let mut found = Vec::new();
        // Any hierarchy knows them all; the v2 tree and one of v1 are asked, so that a process that was put into
        // one kind only is found too.
        let v1 = self.dirs.iter().find(|dir| !dir.unified);
        for dir in self.unified().into_iter().chain(v1) {
            match dir.own_procs() {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                outcome => found.extend(outcome?),
            }
            procs_below(&dir.at, &mut found)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Kills every process in the group and below it; none can escape by forking.
    ///
    /// # Errors
    /// When the group cannot be killed.
    pub fn kill_all(&self) -> Result<(), Error> {
        if let Some(dir) = self.unified() {
            match dir.write("cgroup.kill", "1") {
                // Linux 5.14 and later.
                Ok(()) if self.dirs.len() == 1 => return Ok(()),
                Ok(()) => {}
                // Older kernels have no such file; a group that systemd has removed meanwhile has nobody in it.
                Err(error) if crate::dir::is_gone(&error) => {}
                Err(error) => return Err(error).context(|| format!("kill {}", dir.at.display())),
            }
        }
        if self.procs()?.is_empty() {
            return Ok(());
        }
        // Frozen processes cannot fork away from the kill. Without a freezer the rounds below catch up with them.
        let frozen = self.freezer().is_some_and(|freezer| freezer.set(true).is_ok());
        let outcome = self.kill_rounds(if frozen { 1 } else { ROUNDS });
        if frozen && let Some(freezer) = self.freezer() {
            freezer.set(false)?;
        }
        outcome
    }

    fn kill_rounds(&self, rounds: usize) -> Result<(), Error> {
        let mut seen: Vec<i32> = Vec::new();
        for _ in 0..rounds {
            let pids = self.procs()?;
            if pids.iter().all(|pid| seen.contains(pid)) {
                break;
            }
            pids.iter().try_for_each(|pid| teardown::kill(*pid))?;
            seen = pids;
        }
        Ok(())
    }

    /// Stops every process until [`thaw`](Self::thaw); returns when all are stopped.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn freeze(&self) -> Result<(), Error> {
        self.need_freezer()?.set(true)
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn thaw(&self) -> Result<(), Error> {
        self.need_freezer()?.set(false)
    }

    /// Whether the group itself is frozen; one below a frozen group is not.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn frozen(&self) -> Result<bool, Error> {
        match self.freezer() {
            None => Ok(false),
            Some(Freezer::V2(dir)) => teardown::frozen_v2(dir),
            Some(Freezer::V1(dir)) => teardown::frozen_v1(dir),
        }
    }

    /// Changes the limits that `resources` names; others stay. A controller that the group did not need so far is
    /// added, with the processes that are there.
    ///
    /// # Errors
    /// The file, the value and the fix of a limit that the kernel refuses.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        self.check_usage(resources)?;
        let limits = Limits::new(resources, &self.hierarchies)?;
        let mut added = Vec::new();
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !hierarchy.unified) {
            let there = self
                .dirs
                .iter()
                .any(|dir| !dir.unified && dir.controllers == hierarchy.controllers);
            if hierarchy.controllers.intersects(limits.needed) && !there {
                added.push(self.extend_to(hierarchy)?);
            }
        }
        if let Some(dir) = self.unified() {
            self.enable_more(dir, limits.needed)?;
        }
        self.dirs
            .iter()
            .chain(&added)
            .try_for_each(|dir| limits.apply(dir))?;
        added.iter().try_for_each(|dir| self.move_all_to(dir))
    }

    /// Refuses limits below what is in use, when the spec says `checkBeforeUpdate` (v2, where the kernel would kill).
    ///
    /// # Errors
    /// `FailedPrecondition` in runc's words.
    pub(crate) fn check_usage(&self, resources: &Resources) -> Result<(), Error> {
        let wanted = resources.memory.as_ref();
        let Some(memory) = wanted.filter(|memory| memory.check_before_update == Some(true)) else {
            return Ok(());
        };
        // Without the file nothing is known and nothing is refused.
        let Some(usage) = self
            .unified()
            .and_then(|dir| dir.read("memory.current").ok()?.trim().parse::<u64>().ok())
        else {
            return Ok(());
        };
        for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
            if let Some(limit) = limit
                .and_then(|limit| u64::try_from(limit).ok())
                .filter(|limit| *limit > 0)
                && limit <= usage
            {
                let message = format!("rejecting {what} limit {limit} <= usage {usage}");
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
        }
        Ok(())
    }

    /// The group's directory in a hierarchy that it was not in so far (or that another process has added).
    fn extend_to(&self, hierarchy: &Hierarchy) -> Result<Dir, Error> {
        let making = Making {
            hierarchies: &self.hierarchies,
            place: &self.place,
            needed: hierarchy.controllers,
            oci: true,
        };
        making.directory(hierarchy).map(|(dir, _)| dir)
    }

    fn move_all_to(&self, dir: &Dir) -> Result<(), Error> {
        let mut seen: Vec<i32> = Vec::new();
        for _ in 0..ROUNDS {
            let pids = self.procs()?;
            if pids.iter().all(|pid| seen.contains(pid)) {
                return Ok(());
            }
            for pid in &pids {
                match add_to(dir, *pid) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    outcome => outcome?,
                }
            }
            seen = pids;
        }
        Ok(())
    }

    fn enable_more(&self, dir: &Dir, needed: Controllers) -> Result<(), Error> {
        let bound = self
            .hierarchies
            .iter()
            .fold(Controllers::NONE, |set, hierarchy| set | hierarchy.controllers);
        let needed = needed.without(bound);
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let Some(hierarchy) = hierarchy.filter(|_| needed != Controllers::NONE) else {
            return Ok(());
        };
        let mut again =
            Dir::open(hierarchy, dir.at.clone()).context(|| format!("open {}", dir.at.display()))?;
        let base = self
            .place
            .bases(hierarchy)
            .into_iter()
            .find(|base| base.join(self.place.path()) == dir.at);
        let Some(base) = base else {
            // A group that was found by its directory: its controllers are what its starter enabled.
            return Ok(());
        };
        create::enable(&mut again, &base, self.place.path(), needed, needed)
    }

    /// Quota and period of CPU time, as the v2 file has them; nothing without the controller.
    pub(crate) fn cpu_max(&self) -> String {
        let read = self.unified().map(|dir| dir.read("cpu.max"));
        read.and_then(Result::ok).unwrap_or_default()
    }

    /// Refuses a group in which somebody is, or that is frozen.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        unused(&self.dirs)
    }

    /// Has the v2 group get every controller that there is for it, as those have that this program makes: systemd enables
    /// the ones it knows, which are not hugetlb, rdma and misc.
    pub(crate) fn enable_offered(&self) {
        let root = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        if let (Some(dir), Some(hierarchy)) = (self.unified(), root)
            && let Ok(below) = dir.at.strip_prefix(&hierarchy.root)
        {
            create::enable_offered(&hierarchy.root, below);
        }
    }

    /// What the group uses now. What no controller counts is zero.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn stats(&self) -> Result<Stats, Error> {
        let gone = || format!("read the statistics of {}", self.path().display());
        let mut out = Stats::default();
        for dir in &self.dirs {
            if dir.unified {
                // On a hybrid host the v1 hierarchies count.
                if self.is_pure_v2() {
                    stats::add_v2(dir, &mut out).context(gone)?;
                }
            } else {
                stats::add_v1(dir, &mut out).context(gone)?;
            }
        }
        Ok(out)
    }

    pub(crate) fn is_pure_v2(&self) -> bool {
        create::bound(&self.hierarchies) == Controllers::NONE
    }

    /// How often the OOM killer killed a process of this group.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn oom_count(&self) -> Result<u64, Error> {
        let dir = self
            .dirs
            .iter()
            .find(|dir| dir.controllers.intersects(Controllers::MEMORY) || self.dirs.len() == 1);
        let Some(dir) = dir else { return Ok(0) };
        let file = if dir.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = dir
            .read_if_there(file)
            .context(|| format!("read {}", dir.at.join(file).display()))?;
        Ok(stats::field(&text, "oom_kill").unwrap_or(0))
    }

    /// Removes the group and the groups below it; one that is gone counts as removed. Every hierarchy is swept, also
    /// those into which an update by another process extended the group.
    ///
    /// # Errors
    /// `FailedPrecondition` when processes stay in it.
    pub fn delete(self) -> Result<(), Error> {
        let outcomes: Vec<_> = self.places().iter().map(|at| teardown::remove_tree(at)).collect();
        outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Kills whoever is left in the group and below it, then removes it as [`delete`](Self::delete) does. Usually nobody
    /// is, and nothing is below: then a call for each directory is all, since the kernel keeps one with a process in it.
    ///
    /// # Errors
    /// As [`kill_all`](Self::kill_all) and [`delete`](Self::delete).
    pub fn end(self) -> Result<(), Error> {
        // The v2 tree first: while somebody is left, it can kill all at once.
        let unified = self.unified().map(|dir| dir.at.clone());
        let gone = |at: &PathBuf| match crate::dir::remove(at) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        if unified.iter().chain(&self.places()).all(gone) {
            return Ok(());
        }
        self.kill_all()?;
        self.delete()
    }

    /// Where its directories are or may be.
    fn places(&self) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.dirs.iter().map(|dir| dir.at.clone()).collect();
        for hierarchy in &self.hierarchies {
            // A group that was found by its directories is where they are.
            let bases = self.place.bases(hierarchy).into_iter();
            places.extend(bases.map(|base| base.join(self.place.path())));
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    pub(crate) fn unified(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.unified)
    }

    fn freezer(&self) -> Option<Freezer<'_>> {
        let v1 = || {
            self.dirs
                .iter()
                .find(|dir| !dir.unified && dir.controllers.intersects(Controllers::FREEZER))
        };
        self.unified().map(Freezer::V2).or_else(|| v1().map(Freezer::V1))
    }

    fn need_freezer(&self) -> Result<Freezer<'_>, Error> {
        self.freezer().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("the group {} has no freezer", self.path().display()),
            )
            .with_hint("mount the freezer controller or cgroup v2")
        })
    }
}

enum Freezer<'a> {
    V1(&'a Dir),
    V2(&'a Dir),
}

impl Freezer<'_> {
    fn set(&self, frozen: bool) -> Result<(), Error> {
        match self {
            Self::V1(dir) => teardown::freeze_v1(dir, frozen),
            Self::V2(dir) => teardown::freeze_v2(dir, frozen),
        }
    }
}

fn add_to(dir: &Dir, pid: i32) -> Result<(), Error> {
    let outcome = dir.write("cgroup.procs", &pid.to_string());
    let gone = outcome
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()));
    let outcome = outcome.context(|| format!("write {pid} to {}", dir.at.join("cgroup.procs").display()));
    if gone {
        outcome.map_err(|error| error.with_kind(ErrorKind::NotFound))
    } else {
        outcome
    }
}

fn procs_below(at: &Path, found: &mut Vec<i32>) -> Result<(), Error> {
    for child in crate::dir::children(at).context(|| format!("list {}", at.display()))? {
        match std::fs::read_to_string(child.join("cgroup.procs")) {
            Ok(text) => found.extend(crate::dir::pids(&text)),
            Err(error) if crate::dir::is_gone(&error) => continue,
            // A threaded group has its processes in the group above.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error).context(|| format!("read the processes of {}", child.display())),
        }
        procs_below(&child, found)?;
    }
    Ok(())
}

/// Refuses a group in which somebody is, or that is frozen: the container would be limited with others, or hang.
fn unused(dirs: &[Dir]) -> Result<(), Error> {
    let old = |dir: &&Dir| !dir.fresh && (dir.unified || dir.controllers != Controllers::NONE);
    let mut pids = Vec::new();
    for dir in dirs.iter().filter(old) {
        pids.extend(dir.own_procs()?);
        procs_below(&dir.at, &mut pids)?;
    }
    pids.sort_unstable();
    pids.dedup();
    if !pids.is_empty() {
        let message = format!(
            "container's cgroup is not empty: {} process(es) found",
            pids.len()
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint("another container may have the same cgroupsPath"));
    }
    for dir in dirs.iter().filter(old) {
        let frozen = if dir.unified {
            teardown::frozen_v2(dir)?
        } else {
            dir.controllers.intersects(Controllers::FREEZER) && teardown::frozen_v1(dir)?
        };
        if frozen {
            let message = "container's cgroup unexpectedly frozen";
            return Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint("thaw it first"));
        }
    }
    Ok(())
}
