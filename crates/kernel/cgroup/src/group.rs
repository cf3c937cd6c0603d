use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Resources;
use dhow_types::{ErrorKind, Failures};

use crate::create::{self, Limits};
use crate::dir::Dir;
use crate::hierarchy::{self, Controllers, Hierarchy};
use crate::{Context as _, Cpu, Error, Memory, Pids, Stats, stats, teardown};

/// How often processes that fork while they are moved or killed are looked for again.
const ROUNDS: usize = 64;

/// One control group: a directory in every hierarchy that matters.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
    dirs: Vec<Dir>,
}

impl Group {
    /// Makes the group at `path` (`dhow/<id>`) with these limits. Nothing stays when it fails.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there; `Unsupported` when a limit needs a controller that is missing; for a limit
    /// that the kernel refuses the file, the value and the fix.
    pub fn create(path: &Path, resources: &Resources) -> Result<Self, Error> {
        let relative = create::relative(path)?;
        let hierarchies = hierarchy::discover()?;
        let limits = Limits::new(resources, &hierarchies)?;
        let mut dirs = Vec::with_capacity(hierarchies.len());
        let outcome = create::directories(&hierarchies, &relative, limits.needed, &mut dirs)
            .and_then(|()| dirs.iter().try_for_each(|dir| limits.apply(dir)));
        match outcome {
            Ok(()) => Ok(Self {
                path: relative,
                hierarchies,
                dirs,
            }),
            Err(error) => {
                let mut failures = Failures::new();
                for dir in &dirs {
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

    /// The existing group at `path`.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let relative = create::relative(path)?;
        let hierarchies = hierarchy::discover()?;
        let mut dirs = Vec::with_capacity(hierarchies.len());
        for hierarchy in &hierarchies {
            for base in create::bases(hierarchy) {
                let at = base.join(&relative);
                match Dir::open(hierarchy, at) {
                    Ok(dir) => {
                        dirs.push(dir);
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error)
                            .context(|| format!("open the control group {}", relative.display()));
                    }
                }
            }
        }
        if dirs.is_empty() {
            let message = format!("no control group {}", relative.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(Self {
            path: relative,
            hierarchies,
            dirs,
        })
    }

    /// Its path, relative to where the hierarchies are mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
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

    /// Whether the group is frozen.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn frozen(&self) -> Result<bool, Error> {
        match self.freezer() {
            None => Ok(false),
            Some(Freezer::V2(dir)) => dir
                .open_read("cgroup.events")
                .and_then(|events| teardown::is_frozen_v2(&events))
                .context(|| format!("read cgroup.events of {}", dir.at.display())),
            Some(Freezer::V1(dir)) => {
                let state = dir.read("freezer.state");
                Ok(state
                    .context(|| format!("read the state of {}", dir.at.display()))?
                    .trim()
                    != "THAWED")
            }
        }
    }

    /// Changes the limits that `resources` names; others stay. A controller that the group did not need so far is
    /// added, with the processes that are there.
    ///
    /// # Errors
    /// The file, the value and the fix of a limit that the kernel refuses.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
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

    /// The group's directory in a hierarchy that it was not in so far (or that another process has added).
    fn extend_to(&self, hierarchy: &Hierarchy) -> Result<Dir, Error> {
        match create::make(hierarchy, &self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => create::bases(hierarchy)
                .into_iter()
                .find_map(|base| Dir::open(hierarchy, base.join(&self.path)).ok())
                .ok_or(error),
            outcome => outcome.map(|(dir, _)| dir),
        }
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
        let base = create::bases(hierarchy)
            .into_iter()
            .find(|base| base.join(&self.path) == dir.at);
        create::enable(
            &mut again,
            base.as_deref().unwrap_or(&hierarchy.root),
            &self.path,
            needed,
            needed,
        )
    }

    /// What the group uses now. What no controller counts is zero.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn stats(&self) -> Result<Stats, Error> {
        let gone = || format!("read the statistics of {}", self.path.display());
        let mut out = Stats::default();
        for dir in &self.dirs {
            if dir.unified {
                self.add_v2(dir, &mut out)
            } else {
                add_v1(dir, &mut out)
            }
            .context(gone)?;
        }
        Ok(out)
    }

    fn add_v2(&self, dir: &Dir, out: &mut Stats) -> io::Result<()> {
        if self.hierarchies.len() > 1 {
            return Ok(());
        }
        let memory = dir.read_if_there("memory.stat")?;
        if !memory.is_empty() {
            let events = dir.read_if_there("memory.events")?;
            out.memory = Memory {
                usage: stats::number(&dir.read_if_there("memory.current")?),
                peak: stats::limit(&dir.read_if_there("memory.peak")?),
                limit: stats::limit(&dir.read_if_there("memory.max")?),
                swap: stats::number(&dir.read_if_there("memory.swap.current")?),
                oom_kills: stats::field(&events, "oom_kill").unwrap_or(0),
                ..stats::memory_v2(&memory)
            };
        }
        out.cpu = stats::cpu_v2(&dir.read("cpu.stat")?);
        out.block_io = stats::block_io_v2(&dir.read_if_there("io.stat")?);
        out.pids = pids(dir)?;
        Ok(())
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
        let mut places: Vec<PathBuf> = self.dirs.iter().map(|dir| dir.at.clone()).collect();
        for hierarchy in &self.hierarchies {
            places.extend(
                create::bases(hierarchy)
                    .into_iter()
                    .map(|base| base.join(&self.path)),
            );
        }
        places.sort_unstable();
        places.dedup();
        let outcomes: Vec<_> = places.iter().map(|at| teardown::remove_tree(at)).collect();
        outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    fn unified(&self) -> Option<&Dir> {
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
                format!("the group {} has no freezer", self.path.display()),
            )
            .with_hint("mount the freezer controller or cgroup v2")
        })
    }
}

/// Paths of the groups directly below `parent`, in whatever hierarchy they are; none when there is no such group.
///
/// # Errors
/// When a hierarchy cannot be read.
pub fn list(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    let parent = create::relative(parent)?;
    let mut found = Vec::new();
    for hierarchy in hierarchy::discover()? {
        for base in create::bases(&hierarchy) {
            let at = base.join(&parent);
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
    let outcome = outcome.context(|| format!("move process {pid} into {}", dir.at.display()));
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // A threaded group has its processes in the group above.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error).context(|| format!("read the processes of {}", child.display())),
        }
        procs_below(&child, found)?;
    }
    Ok(())
}

fn pids(dir: &Dir) -> io::Result<Pids> {
    Ok(Pids {
        current: stats::number(&dir.read_if_there("pids.current")?),
        limit: stats::limit(&dir.read_if_there("pids.max")?),
    })
}

fn add_v1(dir: &Dir, out: &mut Stats) -> io::Result<()> {
    let has = |controller| dir.controllers.intersects(controller);
    if has(Controllers::MEMORY) {
        out.memory = Memory {
            usage: stats::number(&dir.read("memory.usage_in_bytes")?),
            peak: stats::limit(&dir.read("memory.max_usage_in_bytes")?),
            limit: stats::limit(&dir.read("memory.limit_in_bytes")?),
            oom_kills: stats::field(&dir.read("memory.oom_control")?, "oom_kill").unwrap_or(0),
            ..stats::memory_v1(&dir.read("memory.stat")?)
        };
    }
    if has(Controllers::CPUACCT) {
        out.cpu.usage = stats::number(&dir.read("cpuacct.usage")?);
        out.cpu.user = stats::number(&dir.read_if_there("cpuacct.usage_user")?);
        out.cpu.system = stats::number(&dir.read_if_there("cpuacct.usage_sys")?);
    }
    if has(Controllers::CPU) {
        let text = dir.read("cpu.stat")?;
        let get = |name| stats::field(&text, name).unwrap_or(0);
        let (periods, throttled_periods, throttled) =
            (get("nr_periods"), get("nr_throttled"), get("throttled_time"));
        out.cpu = Cpu {
            periods,
            throttled_periods,
            throttled,
            ..out.cpu
        };
    }
    if has(Controllers::PIDS) {
        out.pids = pids(dir)?;
    }
    if has(Controllers::BLKIO) {
        let bytes = dir.read_if_there("blkio.throttle.io_service_bytes_recursive")?;
        let operations = dir.read_if_there("blkio.throttle.io_serviced_recursive")?;
        out.block_io = stats::block_io_v1(&bytes, &operations);
    }
    Ok(())
}
