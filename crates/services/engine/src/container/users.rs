//! User namespaces of containers: which ids a container has, and where they come from.
//!
//! The mappings are written down when the container is created and are the same at each start. Ranges of `auto` belong to the
//! containers that have them in their records: one that is removed gives its range back by that.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_image::Image;
use dhow_layer::{IdRow, Owners};
use dhow_oci::runtime::{IdMapping, Process};
use dhow_rootpath::Root;
use dhow_runtime::Stdio;
use dhow_snapshot::{Active, MountIds, Snapshots};
use dhow_types::{ContainerId, ErrorKind};
use rustix::fs::{FileType, FlockOperation, flock};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::create::CreateContainer;
use super::folder::Container;
use super::own_ids::own_ids;
use super::own_root::OwnRoot;
use super::record::MountRecord;
use crate::rootless::{Subordinate, subordinate};
use crate::{Context as _, Engine, Error};

/// The user of `/etc/subuid` whose ids `auto` gives out (podman-run(1)).
const CONTAINERS: &str = "containers";
/// Fewest and most ids of an `auto` container whose size nobody says (containers-storage.conf(5)).
const AUTO_SIZES: (u32, u32) = (1024, 65_536);
/// Who owns nothing: no image needs it mapped.
const NOBODY: u32 = 65_534;
/// Most lines of a map (`UID_GID_MAP_MAX_EXTENTS` in include/linux/user_namespace.h).
const MOST_LINES: usize = 340;

/// Which user namespace a container is to have (`--userns`, `--uidmap`, `--subuidname`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum UsersChoice {
    /// That of the engine.
    #[default]
    Host,
    /// A new one with ids that no other container has.
    Auto(AutoUsers),
    /// A new one in which the caller is who they are.
    KeepId(KeptId),
    /// A new one without the caller, who is no root.
    NoMap,
    /// The one that a file is.
    Namespace(PathBuf),
    /// Another container's, by name or id.
    Container(String),
    /// A new one with these mappings.
    Mapped {
        /// Of users.
        uids: Vec<IdMapping>,
        /// Of groups.
        gids: Vec<IdMapping>,
    },
    /// A new one with all subordinate ids of a user and a group.
    Subordinate {
        /// The name in `/etc/subuid`.
        users: String,
        /// The name in `/etc/subgid`.
        groups: String,
    },
}

/// What may be said of `keep-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptId {
    /// Which user the caller is inside; the same as outside when absent.
    pub uid: Option<u32>,
    /// Which group.
    pub gid: Option<u32>,
    /// How many ids beside the caller's own; all when absent.
    pub size: Option<u32>,
}

/// What may be said of `auto`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AutoUsers {
    /// How many ids; as many as the image needs when absent.
    pub size: Option<u32>,
    /// Mappings of users that are to be there.
    pub uids: Vec<IdMapping>,
    /// Mappings of groups that are to be there.
    pub gids: Vec<IdMapping>,
}

/// The user namespace of a container, as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Users {
    /// Where it comes from.
    pub origin: UsersOrigin,
    /// Its users; unknown of a namespace that is joined by its path.
    pub uids: Vec<IdMapping>,
    /// Its groups.
    pub gids: Vec<IdMapping>,
}

/// Where a user namespace comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsersOrigin {
    /// It is made at each start.
    New,
    /// It is another container's.
    Container(ContainerId),
    /// A file of the host is it.
    Path(PathBuf),
}

/// A user namespace at hand, for one start.
#[derive(Clone, Debug)]
pub(super) struct Entered {
    pub(super) namespace: Arc<OwnedFd>,
    pub(super) is_new: bool,
    pub(super) ids: Ids,
}

/// Ids of a user namespace and those outside that they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ids {
    pub(super) uids: Vec<IdMapping>,
    pub(super) gids: Vec<IdMapping>,
}

impl Ids {
    /// What an owner inside is outside.
    pub(super) fn outside(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        let out = |maps: &[IdMapping], id: u32| {
            maps.iter().find_map(|map| {
                let at = id.checked_sub(map.container_id).filter(|at| *at < map.size)?;
                map.host_id.checked_add(at)
            })
        };
        Some((out(&self.uids, uid)?, out(&self.gids, gid)?))
    }

    /// What an owner outside is inside; the kernel's nobody where it is nobody there.
    pub(super) fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let inward = |maps: &[IdMapping], id: u32| {
            let found = maps.iter().find_map(|map| {
                let at = id.checked_sub(map.host_id).filter(|at| *at < map.size)?;
                map.container_id.checked_add(at)
            });
            found.unwrap_or(NOBODY)
        };
        (inward(&self.uids, uid), inward(&self.gids, gid))
    }

    /// What the owners of an image's files are outside.
    pub(super) fn owners(&self) -> Owners {
        let rows = |maps: &[IdMapping]| {
            maps.iter()
                .map(|map| IdRow {
                    from: map.container_id,
                    to: map.host_id,
                    count: map.size,
                })
                .collect()
        };
        Owners {
            uids: rows(&self.uids),
            gids: rows(&self.gids),
        }
    }

    /// What root inside is outside.
    pub(super) fn root(&self) -> Result<(u32, u32), Error> {
        self.outside((0, 0)).ok_or_else(|| {
            let message = "the user namespace of a container must have a user 0 and a group 0";
            Error::new(ErrorKind::InvalidArgument, message).with_hint("such as --uidmap 0:100000:65536")
        })
    }
}

impl Ids {
    /// The same without the namespace, for what has the ids outside on disk.
    pub(super) fn see(&self, snapshots: &Snapshots, active: Active) -> Result<Active, Error> {
        let seen = snapshots.with_owners(active, &self.owners());
        seen.context(|| "prepare the container's files for its user namespace")
    }
}

impl Users {
    pub(super) fn ids(&self) -> Ids {
        Ids {
            uids: self.uids.clone(),
            gids: self.gids.clone(),
        }
    }

    fn new(uids: Vec<IdMapping>, gids: Vec<IdMapping>) -> Result<Self, Error> {
        let users = Self {
            origin: UsersOrigin::New,
            uids: checked(uids, "user")?,
            gids: checked(gids, "group")?,
        };
        users.ids().root()?;
        Ok(users)
    }
}

impl Entered {
    /// Gives pipes to the user of a process.
    pub(super) fn give(&self, process: Option<&Process>, stdio: &Stdio) {
        if let (
            Some(process),
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
        ) = (process, stdio)
        {
            let user = (process.user.uid, process.user.gid);
            give_streams(&self.ids, user, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        }
    }

    /// The container's own files as its users see them: mapped when they are mounted, or copied where the engine is a normal
    /// user's, whose kernel maps none.
    pub(super) fn see(&self, snapshots: &Snapshots, active: Active) -> Result<Active, Error> {
        if keeps_ids_outside() {
            return self.ids.see(snapshots, active);
        }
        let (uid, gid) = self.ids.root()?;
        Ok(active.mapped(MountIds {
            users: Arc::clone(&self.namespace),
            uid,
            gid,
        }))
    }

    /// Gives the files that the engine wrote for the container, in its folder, to their owners inside, where no mount does.
    pub(super) fn give_files(
        &self,
        folders: &[PathBuf],
        files: &[dhow_bundle::GeneratedFile],
    ) -> Result<(), Error> {
        if !keeps_ids_outside() {
            return Ok(());
        }
        // Another container's are that one's.
        let own =
            |file: &&dhow_bundle::GeneratedFile| folders.iter().any(|folder| file.source.starts_with(folder));
        for file in files.iter().filter(own) {
            let what = || format!("give {} to the container", file.source.display());
            let status = rustix::fs::stat(&file.source)
                .map_err(std::io::Error::from)
                .context(what)?;
            if let Some((uid, gid)) = self.ids.outside((status.st_uid, status.st_gid)) {
                std::os::unix::fs::chown(&file.source, Some(uid), Some(gid)).context(what)?;
            }
        }
        Ok(())
    }

    /// Does something to files as the namespace's root, which has a name on its mounts, where the host's has none.
    pub(super) fn as_root<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let (uid, gid) = self.ids.root()?;
        dhow_sys::process::with_fs_ids(uid, gid, work).context(|| "act as root of the container")
    }
}

impl Engine {
    /// Keeps others from taking the same ids until the container is written down.
    pub(super) fn lock_ids(&self, wanted: &CreateContainer) -> Result<Option<File>, Error> {
        if !matches!(wanted.users, UsersChoice::Auto(_)) {
            return Ok(None);
        }
        let path = self.settings().run.join("users.lock");
        let what = || format!("lock {}", path.display());
        let lock = File::create(&path).context(what)?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .context(what)?;
        Ok(Some(lock))
    }

    /// What was asked for, with the ids that it means.
    pub(super) fn resolve_users(
        &self,
        wanted: &CreateContainer,
        image: &Image,
    ) -> Result<Option<Users>, Error> {
        let choice = &wanted.users;
        if *choice == UsersChoice::Host {
            return Ok(None);
        }
        if *choice == UsersChoice::NoMap && crate::rootless::is_rootful() {
            let message = "nomap is only supported in rootless mode";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if keeps_ids_outside() {
            refuse_what_wants_mapped_mounts(wanted)?;
        }
        match choice {
            UsersChoice::Host => Ok(None),
            UsersChoice::NoMap => {
                let own = |file| own_ids(file, "nomap").map(|own| own.without_caller());
                Users::new(own("uid_map")?, own("gid_map")?).map(Some)
            }
            UsersChoice::Auto(auto) => self.auto_users(auto, wanted, image).map(Some),
            UsersChoice::KeepId(kept) if !crate::rootless::is_rootful() => {
                let own = |file, id: Option<u32>| {
                    own_ids(file, "keep-id").map(|own| own.with_caller(id.unwrap_or(own.caller), kept.size))
                };
                Users::new(own("uid_map", kept.uid)?, own("gid_map", kept.gid)?).map(Some)
            }
            UsersChoice::KeepId(kept) if *kept != KeptId::default() => {
                let message =
                    "keep-id takes no uid, gid and size of root, whose own ids are kept as they are";
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
            UsersChoice::KeepId(_) => {
                let own = |name: &str| {
                    let path = Path::new("/proc/self").join(name);
                    let text =
                        std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
                    Ok::<_, Error>(same_inside(&text))
                };
                Users::new(own("uid_map")?, own("gid_map")?).map(Some)
            }
            UsersChoice::Mapped { uids, gids } => Users::new(uids.clone(), gids.clone()).map(Some),
            UsersChoice::Subordinate { .. } if keeps_ids_outside() => {
                let message = "the ids that /etc/subuid and /etc/subgid give a normal user are all in the user's own namespace";
                Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint("map them with --uidmap: 0 is the user, 1 the first of them"))
            }
            UsersChoice::Subordinate { users, groups } => {
                let all = |file: &str, name: &str| Ok::<_, Error>(one_by_one(&ranges_of(file, name)?));
                Users::new(all("/etc/subuid", users)?, all("/etc/subgid", groups)?).map(Some)
            }
            UsersChoice::Container(other) => {
                let other = self.containers().find(other)?;
                Ok(other.config.extras.users.map(|users| Users {
                    origin: UsersOrigin::Container(other.config.id),
                    ..users
                }))
            }
            UsersChoice::Namespace(path) => {
                user_namespace(path)?;
                Ok(Some(Users {
                    origin: UsersOrigin::Path(path.clone()),
                    uids: Vec::new(),
                    gids: Vec::new(),
                }))
            }
        }
    }

    /// The container's user namespace for a start: made, or opened.
    pub(super) fn enter_users(&self, users: Option<&Users>) -> Result<Option<Entered>, Error> {
        let Some(users) = users else { return Ok(None) };
        let what = || "prepare the container's user namespace";
        let ids = users.ids();
        let (namespace, ids) = match &users.origin {
            UsersOrigin::New => (
                dhow_runtime::user_namespace(&ids.uids, &ids.gids).context(what)?,
                ids,
            ),
            UsersOrigin::Container(id) => (self.namespace_of(id, "user")?, ids),
            UsersOrigin::Path(path) => {
                let namespace = user_namespace(path)?;
                let (uids, gids) = dhow_runtime::id_maps_of(&namespace).context(what)?;
                (namespace, Ids { uids, gids })
            }
        };
        ids.root()?;
        Ok(Some(Entered {
            namespace: Arc::new(namespace),
            is_new: users.origin == UsersOrigin::New,
            ids,
        }))
    }

    fn auto_users(&self, auto: &AutoUsers, wanted: &CreateContainer, image: &Image) -> Result<Users, Error> {
        let size = match auto.size {
            Some(size) => size,
            None => self.size_of_users(wanted, image)?,
        };
        let taken: Vec<Users> = self
            .containers()
            .list()?
            .into_iter()
            .filter_map(|container| container.config.extras.users)
            // One with all ids of a normal user, such as by `keep-id`, leaves none to be apart from it.
            .filter(|users| crate::rootless::is_rootful() || !has_all(users))
            .collect();
        let of = |users: fn(&Users) -> &Vec<IdMapping>| -> Vec<IdMapping> {
            taken.iter().flat_map(|one| users(one).iter().cloned()).collect()
        };
        let ranges = |file: &str, own: &str| {
            match crate::rootless::is_rootful() {
            true => ranges_of(file, CONTAINERS).map_err(|error| {
                error.with_hint(format!(
                    "--userns auto takes its ids from there: add a line such as {CONTAINERS}:2147483647:2147483648 to {file}"
                ))
            }),
            // All but the caller's own.
            false => own_ids(own, "auto").map(|own| vec![Subordinate { first: 1, count: own.others }]),
        }
        };
        let (users, groups) = (
            ranges("/etc/subuid", "uid_map")?,
            ranges("/etc/subgid", "gid_map")?,
        );
        let uids = allot(&users, size, &auto.uids, &of(|users| &users.uids))?;
        let gids = allot(&groups, size, &auto.gids, &of(|users| &users.gids))?;
        Users::new(uids, gids)
    }

    /// How many ids an image needs: as many as its accounts and the owners of its files have, and the container's user.
    fn size_of_users(&self, wanted: &CreateContainer, image: &Image) -> Result<u32, Error> {
        let layers = &image.config.rootfs.diff_ids;
        let mut most = wanted
            .user
            .iter()
            .flat_map(|user| user.split(':'))
            .filter_map(|part| part.parse().ok())
            .max()
            .unwrap_or(0);
        if !layers.is_empty() {
            most = most.max(self.with_view(layers, "ids", |root| Ok(highest_account(root)))?);
        }
        let store = self.store()?;
        for diff in layers {
            let what = || "look at the owners of the image's files";
            let index = store
                .layers
                .sound(diff)
                .and_then(|layer| layer.index())
                .context(what)?;
            let owners = index.entries().flat_map(|entry| [entry.uid, entry.gid]);
            most = owners.filter(|id| *id != NOBODY).fold(most, u32::max);
        }
        let size = most.saturating_add(1).max(AUTO_SIZES.0);
        if size > AUTO_SIZES.1 {
            let message = format!(
                "the image has a user or group {most}, and a user namespace has {} ids unless its size is said",
                AUTO_SIZES.1
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint(format!("--userns auto:size={size}")));
        }
        Ok(size)
    }
}

impl Engine {
    /// The ids that a container's own files have on disk in place of those inside, if they have.
    pub(super) fn ids_on_disk(&self, container: &Container) -> Option<Ids> {
        let users = container.config.extras.users.as_ref();
        users.filter(|_| keeps_ids_outside()).map(Users::ids)
    }

    /// The ids of a running container's user namespace.
    pub(super) fn ids_of(&self, container: &Container) -> Result<Option<Ids>, Error> {
        let Some(users) = &container.config.extras.users else {
            return Ok(None);
        };
        if let UsersOrigin::Path(_) = users.origin {
            let namespace = self.namespace_of(&container.config.id, "user")?;
            let (uids, gids) =
                dhow_runtime::id_maps_of(&namespace).context(|| "look into the user namespace")?;
            return Ok(Some(Ids { uids, gids }));
        }
        Ok(Some(users.ids()))
    }
}

/// Gives pipes to the user whose program they are for, so that it can open them again (`/dev/stdout`): from inside the user
/// namespace nobody has the right to.
pub(super) fn give_streams(ids: &Ids, user: (u32, u32), streams: [std::os::fd::BorrowedFd<'_>; 3]) {
    let Some((uid, gid)) = ids.outside(user) else {
        return;
    };
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    for stream in streams {
        let is_pipe = rustix::fs::fstat(stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // One of a file system that is read-only is the host's business.
            _ = rustix::fs::fchown(stream, Some(uid), Some(gid));
        }
    }
}

/// Whether a mount's owners are ids of the container's user namespace.
pub(super) fn is_mapped(mount: &MountRecord) -> bool {
    mount
        .options
        .iter()
        .any(|option| matches!(option.as_str(), "idmap" | "ridmap"))
}

/// The highest id in the image's accounts; what cannot be read has none.
fn highest_account(root: &Root) -> u32 {
    const MOST: u64 = 4 << 20;
    let ids = |path: &str| {
        let text = root.read(Path::new(path), MOST).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let id = |line: &str| line.split(':').nth(2).and_then(|id| id.parse::<u32>().ok());
        text.lines().filter_map(id).filter(|id| *id != NOBODY).max()
    };
    ids("/etc/passwd")
        .into_iter()
        .chain(ids("/etc/group"))
        .max()
        .unwrap_or(0)
}

/// Whether a container has all ids of the user's namespace, but the user's own perhaps.
fn has_all(users: &Users) -> bool {
    let all = |maps: &[IdMapping], file: &str| {
        let count: u64 = maps.iter().map(|map| u64::from(map.size)).sum();
        own_ids(file, "auto").is_ok_and(|own| count >= u64::from(own.others))
    };
    all(&users.uids, "uid_map") || all(&users.gids, "gid_map")
}

/// Whether a container's own files have the ids outside on disk: nobody but the host's root can mount them with others.
pub(super) fn keeps_ids_outside() -> bool {
    !crate::rootless::is_rootful()
}

/// Refuses what only mounts with mapped ids can do.
fn refuse_what_wants_mapped_mounts(wanted: &CreateContainer) -> Result<(), Error> {
    let asked = matches!(
        &wanted.extras.root,
        Some(OwnRoot::Folder { overlay, mapped, .. }) if *overlay || *mapped
    );
    if !asked {
        return Ok(());
    }
    let message = "--rootfs FOLDER:idmap and FOLDER:O in a user namespace of its own need mounts whose ids are mapped, which only \
                   the host's root can make";
    Err(Error::new(ErrorKind::Unsupported, message)
        .with_hint("give the folder's files the owners that they are to have, and leave the option away"))
}

/// Takes ids that nobody has from those of `containers`. `forced` mappings are kept, and their ids given to nobody else.
fn allot(
    ranges: &[Subordinate],
    size: u32,
    forced: &[IdMapping],
    taken: &[IdMapping],
) -> Result<Vec<IdMapping>, Error> {
    let forced_inside = |id: u32| {
        forced
            .iter()
            .find(|map| id.checked_sub(map.container_id).is_some_and(|at| at < map.size))
    };
    // The runs of ids inside that no forced mapping has.
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut next = 0_u32;
    while next < size {
        if let Some(map) = forced_inside(next) {
            next = map.container_id.saturating_add(map.size);
            continue;
        }
        let starts = forced
            .iter()
            .map(|map| map.container_id)
            .filter(|start| *start > next);
        let end = starts.min().unwrap_or(size).min(size);
        runs.push((next, end - next));
        next = end;
    }
    let needed = runs.iter().map(|(_, length)| length).sum();
    let busy: Vec<&IdMapping> = taken.iter().chain(forced).collect();
    let mut first = free_range(ranges, &busy, needed).ok_or_else(|| {
        let message = format!(
            "not enough unused IDs in user namespace: there are no {needed} in a row that no container has"
        );
        Error::new(ErrorKind::ResourceExhausted, message).with_hint(
            "remove containers that have some, ask for fewer with auto:size=, or give more in /etc/subuid and /etc/subgid",
        )
    })?;
    let mut maps = forced.to_vec();
    for (container_id, length) in runs {
        maps.push(IdMapping {
            container_id,
            host_id: first,
            size: length,
        });
        first += length;
    }
    maps.sort_by_key(|map| map.container_id);
    Ok(maps)
}

/// The first id of the lowest free row of `needed`.
fn free_range(ranges: &[Subordinate], busy: &[&IdMapping], needed: u32) -> Option<u32> {
    let mut lowest: Vec<u32> = ranges
        .iter()
        .filter_map(|range| {
            let end = range.first.checked_add(range.count)?;
            let mut at = range.first;
            loop {
                let last = at.checked_add(needed).filter(|last| *last <= end)?;
                let overlaps =
                    |map: &&&IdMapping| map.host_id < last && map.host_id.saturating_add(map.size) > at;
                match busy
                    .iter()
                    .filter(overlaps)
                    .map(|map| map.host_id.saturating_add(map.size))
                    .max()
                {
                    Some(after) => at = after,
                    None => return Some(at),
                }
            }
        })
        .collect();
    lowest.sort_unstable();
    lowest.first().copied()
}

/// The ranges of a name; at least one.
fn ranges_of(file: &str, name: &str) -> Result<Vec<Subordinate>, Error> {
    let ranges = subordinate(file, name)?;
    if ranges.is_empty() {
        let message = format!("no subordinate ids for {name:?} in {file}");
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    }
    Ok(ranges)
}

/// Ranges one after the other, from 0 on.
fn one_by_one(ranges: &[Subordinate]) -> Vec<IdMapping> {
    let mut next = 0_u32;
    let mut maps = Vec::with_capacity(ranges.len());
    for range in ranges {
        let size = range.count.min(u32::MAX - next);
        maps.push(IdMapping {
            container_id: next,
            host_id: range.first,
            size,
        });
        next += size;
    }
    maps
}

/// The ids of a map of `/proc`, as themselves.
fn same_inside(text: &str) -> Vec<IdMapping> {
    let map = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        let first = numbers.next()??;
        Some(IdMapping {
            container_id: first,
            host_id: first,
            size: numbers.nth(1)??,
        })
    };
    text.lines().filter_map(map).collect()
}

/// Refuses mappings that the kernel would, with better words.
fn checked(maps: Vec<IdMapping>, what: &str) -> Result<Vec<IdMapping>, Error> {
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} mappings: {why}"),
        ))
    };
    if maps.len() > MOST_LINES {
        return refuse(format!("the kernel takes {MOST_LINES}, and not {}", maps.len()));
    }
    for (at, map) in maps.iter().enumerate() {
        let shown = format!("{}:{}:{}", map.container_id, map.host_id, map.size);
        let ends = |first: u32| first.checked_add(map.size).is_some();
        if map.size == 0 || !ends(map.container_id) || !ends(map.host_id) {
            return refuse(format!("{shown} is no range of ids"));
        }
        let meet = |a: u32, b: u32, other: &IdMapping| {
            a < b.saturating_add(other.size) && b < a.saturating_add(map.size)
        };
        for other in maps.iter().take(at) {
            if meet(map.container_id, other.container_id, other) || meet(map.host_id, other.host_id, other) {
                return refuse(format!("{shown} overlaps another one"));
            }
        }
    }
    Ok(maps)
}

/// The user namespace that a file of the host is.
fn user_namespace(path: &Path) -> Result<OwnedFd, Error> {
    let file = super::shared::namespace_at(path, UnshareFlags::NEWUSER, "user")?;
    let what = || format!("join the user namespace {}", path.display());
    let own = File::open("/proc/self/ns/user").context(what)?;
    let identity =
        |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    if identity(file.as_fd()) == identity(own.as_fd()) {
        let message = format!("{}: it is the host's own: that is --userns host", what());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn ids_go_in_and_out() {
        let ids = Ids {
            uids: vec![map(0, 100_000, 10), map(1000, 5, 1)],
            gids: vec![map(0, 200_000, 10)],
        };
        assert_eq!(ids.outside((3, 9)), Some((100_003, 200_009)));
        assert_eq!(ids.outside((1000, 0)), Some((5, 200_000)));
        assert_eq!(ids.outside((10, 0)), None);
        assert_eq!(ids.inside((5, 200_001)), (1000, 1));
        assert_eq!(ids.inside((0, 0)), (NOBODY, NOBODY));
    }

    #[test]
    fn the_lowest_free_row_is_taken_and_forced_ids_are_left_out() {
        let ranges = [
            Subordinate {
                first: 1000,
                count: 100,
            },
            Subordinate {
                first: 5000,
                count: 1000,
            },
        ];
        let first =
            |busy: &[IdMapping], needed| free_range(&ranges, &busy.iter().collect::<Vec<_>>(), needed);
        assert_eq!(first(&[], 100), Some(1000));
        assert_eq!(first(&[], 101), Some(5000));
        assert_eq!(first(&[map(0, 1000, 50)], 50), Some(1050));
        assert_eq!(first(&[map(0, 1000, 50)], 51), Some(5000));
        assert_eq!(first(&[map(0, 5000, 10), map(0, 1000, 100)], 990), Some(5010));
        assert_eq!(first(&[map(0, 5000, 10), map(0, 1000, 100)], 991), None);
    }

    #[test]
    fn mappings_that_the_kernel_would_refuse_are_refused() {
        assert!(checked(vec![map(0, 1, 0)], "user").is_err());
        assert!(checked(vec![map(0, u32::MAX, 2)], "user").is_err());
        assert!(checked(vec![map(0, 10, 5), map(4, 100, 1)], "user").is_err());
        assert!(checked(vec![map(0, 10, 5), map(5, 14, 1)], "user").is_err());
        assert!(checked(vec![map(0, 10, 5), map(5, 15, 1)], "user").is_ok());
        let many = (0..=340).map(|at| map(at, at, 1)).collect();
        assert!(checked(many, "user").is_err());
    }

    #[test]
    fn the_own_map_is_kept_as_it_is() {
        assert_eq!(
            same_inside("         0          0 4294967295\n"),
            [map(0, 0, u32::MAX)]
        );
    }
}
