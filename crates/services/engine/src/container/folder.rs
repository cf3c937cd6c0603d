//! Containers as folders: reserve a name, write, read, find, list.

use std::cmp::Reverse;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use dhow_types::{ContainerId, ErrorKind, validate_name};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::brief::{Listed, Record};
use super::program::{LOST, lives, process_start, settle};
use super::record::{Config, State, Status};
use super::summary::{Stamps, Summary};
use crate::names::{NameFolder, Owner};
use crate::{Context as _, Error};

/// Largest record that is read.
const MAX_RECORD: u64 = 4 << 20;

/// Bytes that are made ready for a record: most are shorter.
const USUAL_RECORD: usize = 8 << 10;

/// Containers that one thread reads at least, when all are read.
const LEAST_SHARE: usize = 64;

/// The summary of a list is written anew when one in so many was not in it, or is gone.
const RENEWAL: usize = 8;

/// How long a monitor may take to write down how its container ended, once that has.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What the folder's name begins with while its maker, whose process id follows, is not done.
const UNFINISHED: &str = ".new-";

/// All containers of one root.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
    run: PathBuf,
}

/// A container as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Container<C = Config> {
    /// What was asked for.
    pub config: C,
    /// What became of it.
    pub state: State,
}

impl Containers {
    pub(crate) fn new(root: &Path, run: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: run.to_owned(),
        }
    }

    pub(crate) fn folder(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// Folder of what does not outlive a boot.
    pub(crate) fn run_folder(&self, id: &ContainerId) -> PathBuf {
        self.run.join(id.as_str())
    }

    pub(crate) fn socket(&self, id: &ContainerId) -> PathBuf {
        self.run_folder(id).join("attach.sock")
    }

    pub(crate) fn log(&self, config: &Config) -> PathBuf {
        log_file(&self.folder(&config.id), config)
    }

    /// Writes a new container: the folder first, whole and by rename, then the name, so that a name always has its
    /// container. `fill` puts more into the folder before anybody sees it.
    pub(crate) fn create(
        &self,
        config: &Config,
        fill: &dyn Fn(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        validate_name(&config.name)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "create container", error))?;
        let folder = self.folder(&config.id);
        let unfinished = folder.with_file_name(format!(
            "{UNFINISHED}{}-{}",
            std::process::id(),
            config.id.short()
        ));
        make_folder(&unfinished)?;
        let written = write_json(&unfinished.join("config.json"), config)
            .and_then(|()| write_json(&unfinished.join("state.json"), &State::default()))
            .and_then(|()| fill(&unfinished))
            .and_then(|()| {
                fs::rename(&unfinished, &folder).context(|| format!("make the folder {}", folder.display()))
            })
            .and_then(|()| self.reserve(&config.name, &config.id));
        if written.is_err() {
            // The folder has no name, so nobody can have seen it.
            drop(fs::remove_dir_all(&unfinished));
            drop(fs::remove_dir_all(&folder));
        }
        written
    }

    /// Folders of containers whose makers were killed before they were done.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("containers"));
        let dead = |name: &str| {
            let maker = name
                .strip_prefix(UNFINISHED)
                .and_then(|rest| rest.split('-').next()?.parse().ok());
            maker.is_some_and(|maker| process_start(maker).is_none())
        };
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_str().is_some_and(dead))
            .map(|entry| entry.path())
            .collect()
    }

    /// Whether a container's name is reserved for it.
    pub(crate) fn has_name(&self, container: &Container) -> bool {
        self.names().owner(&container.config.name).as_ref() == Some(&container.config.id)
    }

    pub(crate) fn names(&self) -> NameFolder {
        NameFolder::new(self.root.join("names"))
    }

    pub(crate) fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), Error> {
        match self.names().reserve(name, id, |owner| self.owner(owner))? {
            Some(owner) => Err(taken(name, &owner)),
            None => Ok(()),
        }
    }

    /// How the owner of a name is. Whoever removes a container holds its lock until the name is gone.
    pub(crate) fn owner(&self, id: &ContainerId) -> Owner {
        if self.folder(id).join("config.json").exists() {
            return Owner::There;
        }
        if self.is_looked_after(id) {
            Owner::Leaving
        } else {
            Owner::Gone
        }
    }

    /// Gives a container another name.
    pub(crate) fn rename(&self, container: &Container, name: &str) -> Result<(), Error> {
        validate_name(name)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "rename container", error))?;
        self.reserve(name, &container.config.id)?;
        let config = Config {
            name: name.to_owned(),
            ..container.config.clone()
        };
        self.write_config(&config)?;
        // The old name may be another's.
        self.names().release(&container.config.name, &config.id)
    }

    /// Takes a container's folder away: by rename first, so that it is gone at once and whole.
    pub(crate) fn remove(&self, container: &Container) -> Result<(), Error> {
        self.discard(&container.config.id, Some(&container.config.name))
    }

    /// The same, of one that may have lost its name with its config.
    pub(crate) fn discard(&self, id: &ContainerId, name: Option<&str>) -> Result<(), Error> {
        let gone = match dhow_layer::hide(&self.folder(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            gone => {
                Some(gone.map_err(|error| Error::wrap(error, format!("remove container {}", id.short())))?)
            }
        };
        if let Some(name) = name {
            self.names().release(name, id)?;
        }
        drop(fs::remove_dir_all(self.run_folder(id)));
        match gone.map_or(Ok(()), fs::remove_dir_all) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::wrap(
                error,
                format!("delete the folder of container {}", id.short()),
            )),
            _ => Ok(()),
        }
    }

    /// Waits for, and holds, the right to change a container's records beside its monitor. It is asked for only by
    /// what reads a record and writes it again.
    pub(crate) fn edit(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        let folder = self.folder(id);
        let what = || format!("lock {}", folder.display());
        let file = OwnedFd::from(fs::File::open(&folder).context(what)?);
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(std::io::Error::from(errno)).context(what),
            }
        }
    }

    /// Changes the state record. The caller holds the container's lock or its [`Containers::edit`].
    pub(crate) fn change_state(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut State),
    ) -> Result<(), Error> {
        let mut state = self.load_state(id)?;
        change(&mut state);
        self.write_state(id, &state)
    }

    /// Replaces what was asked for: a change that a person made later. A power cut leaves the old one or the new one:
    /// without it, nobody could say what the container is.
    pub(crate) fn write_config(&self, config: &Config) -> Result<(), Error> {
        let path = self.folder(&config.id).join("config.json");
        let what = || format!("write {}", path.display());
        let bytes =
            serde_json::to_vec(config).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        replace_file(&path, &bytes, Durable::Yes)
    }

    /// Replaces the state record. The caller holds the container's lock.
    pub(crate) fn write_state(&self, id: &ContainerId, state: &State) -> Result<(), Error> {
        write_json(&self.folder(id).join("state.json"), state)
    }

    pub(crate) fn load_state(&self, id: &ContainerId) -> Result<State, Error> {
        match read_json(&self.folder(id).join("state.json")) {
            Err(error) if error.kind() == ErrorKind::DataLoss => Ok(lost_state()),
            state => state,
        }
    }

    /// Whether a power cut took what the state record said. No container survives one, so it is read as ended.
    pub(crate) fn lost_state(&self, id: &ContainerId) -> bool {
        let state = read_json::<State>(&self.folder(id).join("state.json"));
        state.is_err_and(|error| error.kind() == ErrorKind::DataLoss)
    }

    pub(crate) fn load(&self, id: &ContainerId) -> Result<Container, Error> {
        let folder = self.folder(id);
        let config: Config =
            read_json(&folder.join("config.json")).map_err(|error| no_such(id.as_str(), error))?;
        Ok(Container {
            state: settle(self.load_state(id)?),
            config,
        })
    }

    /// As [`Self::load`], and waits a moment for the monitor of one that has just ended to write down how.
    fn look(&self, id: &ContainerId) -> Result<Container, Error> {
        let patience = Instant::now() + LAST_WORDS;
        loop {
            let container = self.load(id)?;
            // So it looks whose process is gone while its record says that it runs.
            let lost = container.state.status == Status::Exited && container.state.exit_code == LOST;
            if !lost || Instant::now() >= patience {
                return Ok(container);
            }
            if self.load_state(id)?.status == Status::Exited || !self.is_looked_after(id) {
                // What is written now is the last word; it may have been written since it was read.
                return self.load(id);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether more may be written to a container's log: its program runs, or has ended and its monitor has not said so yet, which it does
    /// when it has written all that there was.
    pub(super) fn is_logging(&self, id: &ContainerId) -> bool {
        self.load_state(id).is_ok_and(|state| {
            let over = !matches!(
                state.status,
                Status::Running | Status::Paused | Status::Restarting
            );
            !over && (lives(&state) || self.is_looked_after(id))
        })
    }

    /// Whether somebody has the container's lock. Who only looks makes nothing: it may be going at this moment.
    fn is_looked_after(&self, id: &ContainerId) -> bool {
        let lock = fs::File::open(self.run_folder(id).join("lock"));
        lock.is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Every container, newest first. One that vanishes meanwhile is left out, and so is one whose config a power cut
    /// took: `system check` tells of it.
    ///
    /// # Errors
    /// What reading the folder said.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let mut all = self.each(&self.ids()?, |id, records| {
            let (config, recorded) = records.both(id)?;
            self.as_it_stands(id, config, recorded)
        })?;
        sort(&mut all, |one| one);
        Ok(all)
    }

    /// The same, with what lists show of each: it is read in a third of the time, and what did not change since the last
    /// list of many in less.
    ///
    /// # Errors
    /// As [`Containers::list`].
    pub fn brief(&self) -> Result<Vec<Listed>, Error> {
        let now = SystemTime::now();
        let (ids, summary) = self.ids_and_summary()?;
        let many = ids.len() > LEAST_SHARE;
        let mut all = self.each(&ids, |id, records| {
            let stamps = if many { records.stamps(id) } else { None };
            let recalled = stamps.and_then(|stamps| summary.recall(id, &stamps));
            let known = recalled.is_some();
            let (config, recorded) = match recalled {
                Some(recalled) => recalled,
                None => records.both(id)?,
            };
            let status = recorded.status;
            let container = self.as_it_stands(id, config, recorded)?;
            // What is not as it was written down is looked at again the next time.
            let stamps = stamps.filter(|_| container.state.status == status);
            Ok(Noted {
                container,
                known,
                stamps,
            })
        })?;
        let unknown = all.iter().filter(|one| !one.known).count();
        let left = summary.len().saturating_sub(all.len());
        if many && (unknown + left) * RENEWAL >= all.len() {
            let noted = all.iter().filter_map(|one| Some((&one.container, one.stamps?)));
            // The next list reads the records then.
            drop(Summary::write(&self.run, now, &noted.collect::<Vec<_>>()));
        }
        sort(&mut all, |one| &one.container);
        Ok(all.into_iter().map(|one| one.container).collect())
    }

    /// The ids, and what is kept of so many; both are read at once where that is much.
    fn ids_and_summary(&self) -> Result<(Vec<ContainerId>, Summary), Error> {
        if !Summary::is_long(&self.run) {
            let ids = self.ids()?;
            let summary = match ids.len() > LEAST_SHARE {
                true => Summary::read(&self.run),
                false => Summary::default(),
            };
            return Ok((ids, summary));
        }
        std::thread::scope(|scope| {
            let ids = scope.spawn(|| self.ids());
            let summary = Summary::read(&self.run);
            let ids = ids
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((ids, summary))
        })
    }

    /// What `one` makes of each container, without those that vanish meanwhile or whose config a power cut took.
    fn each<T: Send>(
        &self,
        ids: &[ContainerId],
        one: impl Fn(&ContainerId, &mut Records<'_>) -> Result<T, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.root.join("containers");
        let top = fs::File::open(&path).context(|| format!("open {}", path.display()))?;
        // A thread costs as much as a few containers. Each takes a few at a time, since others may have the processor.
        let next = AtomicUsize::new(0);
        let work = |most: usize| {
            let mut records = Records::new(top.as_fd(), &path);
            // They are large: none is moved to make room.
            let mut all = Vec::with_capacity(most);
            loop {
                let first = next.fetch_add(LEAST_SHARE / 4, Ordering::Relaxed);
                let Some(rest) = ids.get(first..).filter(|rest| !rest.is_empty()) else {
                    return Ok::<_, Error>(all);
                };
                for id in &rest[..rest.len().min(LEAST_SHARE / 4)] {
                    match one(id, &mut records) {
                        Ok(made) => all.push(made),
                        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        };
        let helpers = if ids.len() <= LEAST_SHARE {
            0
        } else {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            threads.min(ids.len().div_ceil(LEAST_SHARE)) - 1
        };
        std::thread::scope(|scope| {
            let share = ids.len().div_ceil(helpers + 1);
            let parts: Vec<_> = (0..helpers).map(|_| scope.spawn(move || work(share))).collect();
            let mut all = work(ids.len())?;
            for part in parts {
                match part.join() {
                    Ok(more) => all.extend(more?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(all)
        })
    }

    /// A container of these records, as [`Self::look`] has it.
    fn as_it_stands<C>(&self, id: &ContainerId, config: C, recorded: State) -> Result<Container<C>, Error> {
        let ended = recorded.status == Status::Exited;
        let state = settle(recorded);
        if state.status == Status::Exited && !ended {
            // Its monitor may be about to write down how it ended.
            let state = self.look(id)?.state;
            return Ok(Container { config, state });
        }
        Ok(Container { config, state })
    }

    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let entries = match fs::read_dir(self.root.join("containers")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::wrap(error, "list containers")),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }

    /// The container of this name, id or beginning of an id.
    ///
    /// # Errors
    /// `NotFound` in docker's words; `InvalidArgument` when several ids begin so.
    pub fn find(&self, wanted: &str) -> Result<Container, Error> {
        let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
        let missing = || Error::new(ErrorKind::NotFound, format!("No such container: {wanted}"));
        if wanted.is_empty() || wanted.contains('/') {
            return Err(missing());
        }
        if let Ok(id) = wanted.parse::<ContainerId>() {
            return self.look(&id);
        }
        if let Some(id) = self.names().owner(wanted) {
            return self.look(&id).map_err(|_| missing());
        }
        let mut matching = self
            .ids()?
            .into_iter()
            .filter(|id| id.as_str().starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(id), None) => self.look(&id),
            (Some(_), Some(_)) => {
                let message = format!("multiple containers begin with {wanted:?}");
                Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("give more of the id"))
            }
            (None, _) => Err(missing()),
        }
    }

    /// Takes the container's lock without waiting: `None` when its monitor or another command has it.
    pub(crate) fn try_lock(&self, id: &ContainerId) -> Result<Option<OwnedFd>, Error> {
        let file = self.lock_file(id)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::wrap(std::io::Error::from(errno), "lock the container")),
        }
    }

    fn lock_file(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        let folder = self.run_folder(id);
        make_folder(&folder)?;
        let path = folder.join("lock");
        let file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        file.map(OwnedFd::from)
            .context(|| format!("open the lock {}", path.display()))
    }

    /// Waits until whoever holds the container's lock has let it go, and takes it.
    pub(crate) fn lock(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        let file = self.lock_file(id)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::wrap(std::io::Error::from(errno), "lock the container")),
            }
        }
    }
}

/// The newest file of a container's log, below its folder. Docker's driver `json-file` calls it after the container, and
/// those who collect logs look for that.
#[must_use]
pub fn log_file(folder: &Path, config: &Config) -> PathBuf {
    let named = folder.join(format!("{}-json.log", config.id));
    let plain = folder.join("log.json");
    if config.log.driver == "k8s-file" {
        // Podman's name for it.
        return folder.join("ctr.log");
    }
    // A container from before the files had that name keeps what it has.
    if config.log.driver == "json-file" && (named.exists() || !plain.exists()) {
        named
    } else {
        plain
    }
}

fn taken(name: &str, owner: &ContainerId) -> Error {
    let message = format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    );
    Error::new(ErrorKind::AlreadyExists, message)
}

fn no_such(id: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return Error::new(ErrorKind::NotFound, format!("No such container: {id}"));
    }
    error
}

/// What stands for a record that a power cut took.
fn lost_state() -> State {
    State {
        status: Status::Exited,
        exit_code: LOST,
        error: "its state was lost in a power cut".to_owned(),
        ..State::default()
    }
}

/// One of a list, and what its summary has to know of it.
struct Noted {
    container: Listed,
    /// Whether the summary had it.
    known: bool,
    /// How its records looked before they were read; none when that tells nothing of how it stands.
    stamps: Option<Stamps>,
}

/// Newest first. They are large: sorted by their keys they are moved once.
fn sort<T, C: Record>(all: &mut [T], container: impl Fn(&T) -> &Container<C>) {
    all.sort_by_cached_key(|one| Reverse(container(one).config.created().to_owned()));
}

/// Reads many records below one folder: it is looked up once, and so is the memory for them.
struct Records<'a> {
    top: BorrowedFd<'a>,
    path: &'a Path,
    name: String,
    bytes: Vec<u8>,
}

impl<'a> Records<'a> {
    fn new(top: BorrowedFd<'a>, path: &'a Path) -> Self {
        Self {
            top,
            path,
            name: String::new(),
            bytes: Vec::with_capacity(USUAL_RECORD),
        }
    }

    /// How the records of a container look from outside, before they are read.
    fn stamps(&mut self, id: &ContainerId) -> Option<Stamps> {
        Stamps::of(self.top, id, &mut self.name)
    }

    fn both<C: DeserializeOwned>(&mut self, id: &ContainerId) -> Result<(C, State), Error> {
        let config = self.read(id, "config.json")?;
        match self.read(id, "state.json") {
            Err(error) if error.kind() == ErrorKind::DataLoss => Ok((config, lost_state())),
            recorded => Ok((config, recorded?)),
        }
    }

    fn read<T: DeserializeOwned>(&mut self, id: &ContainerId, file: &str) -> Result<T, Error> {
        self.name.clear();
        self.name.extend([id.as_str(), "/", file]);
        let what = || format!("read {}/{}", self.path.display(), self.name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.top, self.name.as_str(), flags, Mode::empty());
        let file = opened.map_err(std::io::Error::from).context(what)?;
        self.bytes.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.bytes);
        rustix::io::read(&file, spare)
            .map_err(std::io::Error::from)
            .context(what)?;
        // Most records are no larger. They are never written in place, so a read that leaves room was the last.
        if self.bytes.len() == self.bytes.capacity() {
            let mut rest = std::io::Read::take(fs::File::from(file), MAX_RECORD);
            std::io::Read::read_to_end(&mut rest, &mut self.bytes).context(what)?;
        }
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Error::because(ErrorKind::DataLoss, what(), error))
    }
}

pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make the folder {}", path.display()))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let what = || format!("read {}", path.display());
    let mut file = fs::File::open(path).context(what)?;
    // Most records are no larger. They are never written in place, so a read that leaves room was the last.
    let mut first = [0_u8; 8 << 10];
    let read = std::io::Read::read(&mut file, &mut first).context(what)?;
    let parsed = if read < first.len() {
        serde_json::from_slice(&first[..read])
    } else {
        let mut bytes = first.to_vec();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_RECORD), &mut bytes).context(what)?;
        serde_json::from_slice(&bytes)
    };
    parsed.map_err(|error| Error::because(ErrorKind::DataLoss, what(), error))
}

/// Writes a record beside its place and renames it there: a reader sees the old one or the new one.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let bytes =
        serde_json::to_vec(value).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
    write_file(path, &bytes)
}

pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace_file(path, bytes, Durable::No)
}

/// Whether the bytes must be on the disk before the rename: after it, a power cut may leave a file without content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

fn replace_file(path: &Path, bytes: &[u8], durable: Durable) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = write_beside(&beside, bytes, durable).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.context(what)
}

fn write_beside(path: &Path, bytes: &[u8], durable: Durable) -> std::io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // A rename over an existing file makes ext4 flush blocks whose allocation it had put off (`auto_da_alloc`), which
    // takes 2 ms; blocks that are allocated already are not flushed. Other file systems may refuse: no harm.
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::KEEP_SIZE,
        0,
        bytes.len() as u64,
    )
    .ok();
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_replaced_whole_and_unreadable_ones_are_data_loss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write_json(&path, &State::default()).unwrap();
        assert_eq!(read_json::<State>(&path).unwrap(), State::default());
        fs::write(&path, "{").unwrap();
        assert_eq!(read_json::<State>(&path).unwrap_err().kind(), ErrorKind::DataLoss);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_log_goes_on_until_the_monitor_has_said_how_the_program_ended() {
        let root = tempfile::tempdir().unwrap();
        let containers = super::super::brief::tests::containers(root.path(), 1);
        let id = super::super::brief::tests::config(0).id;
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut state = State {
            status: Status::Running,
            pid,
            pid_start: process_start(pid).unwrap(),
            ..State::default()
        };
        child.kill().unwrap();
        child.wait().unwrap();
        containers.write_state(&id, &state).unwrap();
        // Nobody is there who could write.
        assert!(!containers.is_logging(&id));
        let lock = containers.try_lock(&id).unwrap().unwrap();
        assert!(containers.is_logging(&id));
        assert_eq!(containers.load(&id).unwrap().state.status, Status::Exited);
        state.status = Status::Exited;
        containers.write_state(&id, &state).unwrap();
        assert!(!containers.is_logging(&id));
        drop(lock);
    }
}
