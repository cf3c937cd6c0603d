//! A container's processes, written to files by CRIU.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use dhow_cgroup::Group;
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, renameat, unlinkat};

use super::criu::{self, Folders, Images, Kind, Message, Session, external_mount, options};
use super::{Container, Record, Status, enter};
use crate::init::target::{self, Links};
use crate::plan::Source;
use crate::{Context as _, Error, Namespace, Plan, Settings};

/// The conventional place of all hierarchies.
const GROUPS: &str = "/sys/fs/cgroup";
/// Magic number of the version 2 file system (`include/uapi/linux/magic.h`).
const CGROUP2: u64 = 0x6367_7270;
/// The file with the names of the first process's standard streams, beside the images; runc's name and form.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// How a container is written to files.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// What it has in common with a restore.
    pub images: Images,
    /// Folder of an earlier pre-dump, relative to that of the images.
    pub parent: Option<PathBuf>,
    /// Whether the container runs on.
    pub leave_running: bool,
    /// Whether TCP connections that are being opened are left out.
    pub tcp_skip_in_flight: bool,
    /// Whether a file that is open but has no name gets one.
    pub link_remap: bool,
    /// Whether only memory is written, while the container runs.
    pub pre_dump: bool,
    /// Address and port of a page server, which gets the memory.
    pub page_server: Option<(String, u16)>,
    /// Gets a null byte once lazy pages can be asked for.
    pub status: Option<OwnedFd>,
}

impl Container {
    /// Writes its processes to files. They are gone then, unless asked otherwise; the container is left to be deleted.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that does not run, and without CRIU; `Unsupported` for what it cannot do; `Internal` with the
    /// errors of its log.
    pub fn checkpoint(&self, asked: &Checkpoint) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        let status = self.status()?;
        let (Status::Running | Status::Paused, Some(record), Some((pid, _init))) =
            (status, &self.record, self.pidfd()?)
        else {
            let message = format!("Container cannot be checkpointed in {} state", status.word());
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        let spec = self.spec()?;
        let settings = Settings {
            bundle: Some(record.bundle.clone()),
            ..Settings::default()
        };
        let plan = Plan::prepare(&spec, &settings)?;
        if asked.pre_dump {
            criu::require("MemTrack", |features| features.tracks_memory)?;
        }
        if asked.images.lazy_pages {
            criu::require("LazyPages", |features| features.lazy_pages)?;
        }
        criu::make(&asked.images.path)?;
        let folders = Folders::open(&asked.images, "dump.log")?;
        let mut options = options(&asked.images, &folders, &record.rootfs, &spec.annotations);
        own_options(&mut options, asked, pid)?;
        freezer(&mut options, record);
        for (kind, path) in &plan.join {
            external_namespace(&mut options, *kind, path)?;
        }
        if !asked.pre_dump {
            mounts(&mut options, &plan, record, pid)?;
            let names = [0, 1, 2].map(|at| stream(&mut options, pid, at));
            write_descriptors(folders.images.as_fd(), &names)?;
        }
        let kind = if asked.pre_dump { Kind::PreDump } else { Kind::Dump };
        let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
        Session::start(streams, &[])?.ask(kind, Some(&options), Some(&folders), |said, _| {
            match (said.script.as_str(), &asked.status) {
                ("status-ready", Some(status)) => rustix::io::write(status, &[0])
                    .map(drop)
                    .map_err(io::Error::from)
                    .context(|| "say that pages are ready"),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }
}

fn own_options(options: &mut Message, asked: &Checkpoint, pid: i32) -> Result<(), Error> {
    options
        .number(2, u64::try_from(pid).unwrap_or_default())
        .flag(3, asked.leave_running)
        .flag(18, asked.link_remap)
        .flag(46, asked.tcp_skip_in_flight);
    if let Some((address, port)) = &asked.page_server {
        let mut server = Message::default();
        server.text(1, address).number(2, u64::from(*port));
        options.message(11, &server);
    }
    if let Some(parent) = &asked.parent {
        if parent.is_absolute() {
            let message = "the parent of a checkpoint must be relative to it";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        options.text(14, parent.as_os_str().as_bytes()).flag(15, true);
    }
    Ok(())
}

/// The group by which all processes are stopped at once: the freezer of version 1, or the one group of version 2.
fn freezer(options: &mut Message, record: &Record) {
    let of = |name: &str| {
        let mut paths = record.cgroup_paths.iter();
        paths.find(|(label, _)| label.split(',').any(|controller| controller == name))
    };
    let only = || of("").filter(|_| record.cgroup_paths.len() == 1);
    if let Some((_, path)) = of("freezer").or_else(only) {
        options.text(44, path.as_os_str().as_bytes());
    }
}

/// The name under which a joined namespace is known to CRIU, runc's; none for kinds that it cannot leave out.
pub(crate) const fn namespace_key(kind: Namespace) -> Option<(&'static str, &'static str)> {
    match kind {
        Namespace::Network => Some(("net", "extRootNetNS")),
        Namespace::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

fn external_namespace(options: &mut Message, kind: Namespace, path: &Path) -> Result<(), Error> {
    if let Some((name, key)) = namespace_key(kind) {
        let inode = std::fs::metadata(path)
            .context(|| format!("ask about namespace {}", path.display()))?
            .ino();
        options.text(37, format!("{name}[{inode}]:{key}"));
    }
    Ok(())
}

/// Names the mounts that come from outside. Their key is where they are, with links followed; their name in the images what
/// the spec says, by which a restore finds them again.
fn mounts(options: &mut Message, plan: &Plan, record: &Record, pid: i32) -> Result<(), Error> {
    let root = enter::open_root(Path::new(&format!("/proc/{pid}/root")))
        .context(|| "open the container's root file system")?;
    let mut add = |path: &Path, links: Links, name: &[u8]| {
        // What is not there any more is no mount either.
        if let Some((place, _)) = place(root.as_fd(), path, links) {
            external_mount(options, &place, name);
        }
    };
    let group = Group::from_paths(&record.cgroup_paths).ok();
    for mount in &plan.mounts {
        match &mount.source {
            Source::Bind(_) => {
                let links = if mount.on_link {
                    Links::NotLast
                } else {
                    Links::Inside
                };
                add(&mount.target, links, &absolute(&mount.target));
            }
            Source::Cgroup(_) => {
                for (name, _) in hierarchies(group.as_ref()) {
                    let path = mount.target.join(name);
                    add(&path, Links::Inside, &absolute(&path));
                }
            }
            Source::Remount | Source::New { .. } => {}
        }
    }
    for node in &plan.nodes {
        add(&node.target, Links::NotLast, &absolute(&node.target));
    }
    for path in &plan.masked {
        if place(root.as_fd(), path, Links::Inside).is_some_and(|(_, directory)| !directory) {
            add(path, Links::Inside, b"/dev/null");
        }
    }
    Ok(())
}

/// A path below the root as one from it.
pub(crate) fn absolute(path: &Path) -> Vec<u8> {
    let mut bytes = b"/".to_vec();
    bytes.extend_from_slice(path.as_os_str().as_bytes());
    bytes
}

/// Where a path of the container leads, as an absolute path in it, and whether to a directory.
fn place(root: BorrowedFd<'_>, path: &Path, links: Links) -> Option<(Vec<u8>, bool)> {
    let name = |fd: BorrowedFd<'_>| {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        readlinkat(rustix::fs::CWD, link, Vec::new()).ok()
    };
    let found = target::open(root, path, links).ok()?;
    let directory = FileType::from_raw_mode(fstat(&found).ok()?.st_mode).is_dir();
    let (root, found) = (name(root)?, name(found.as_fd())?);
    let root = Path::new(OsStr::from_bytes(root.as_bytes()));
    let found = Path::new(OsStr::from_bytes(found.as_bytes()));
    Some((absolute(found.strip_prefix(root).ok()?), directory))
}

/// The directories of version 1 that a container sees, each by the name of its hierarchy; nothing on version 2, where it is one
/// file system of its own.
pub(crate) fn hierarchies(group: Option<&Group>) -> Vec<(PathBuf, PathBuf)> {
    let magic = rustix::fs::statfs(GROUPS).map(|stat| stat.f_type);
    if magic.is_ok_and(|magic| u64::try_from(magic).ok() == Some(CGROUP2)) {
        return Vec::new();
    }
    let named = |own: &Path| {
        let name = own.strip_prefix(GROUPS).ok()?.iter().next()?;
        Some((PathBuf::from(name), own.to_owned()))
    };
    group
        .into_iter()
        .flat_map(Group::directories)
        .filter_map(named)
        .collect()
}

/// The name by which a standard stream is known in the images: that of a pipe, of a file of the host, or none that matters.
/// A file of the host (/dev/null, a log) is no file of the container's mounts: it is left out, and the restore brings its own.
fn stream(options: &mut Message, pid: i32, at: i32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{at}")).unwrap_or_default();
    match outside(pid, at) {
        Some(name) if link.is_absolute() => {
            options.text(37, &name);
            name
        }
        _ => link.to_string_lossy().into_owned(),
    }
}

/// CRIU's name of a file on a mount that is none of the container's: mount and inode, in hexadecimal.
fn outside(pid: i32, at: i32) -> Option<String> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{at}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    if mounts.lines().any(|line| line.split(' ').next() == Some(mount)) {
        return None;
    }
    let inode = std::fs::metadata(format!("/proc/{pid}/fd/{at}")).ok()?.ino();
    Some(format!("file[{:x}:{inode:x}]", mount.parse::<u64>().ok()?))
}

/// Writes what the first process has as standard streams: a restore puts its own in their place.
fn write_descriptors(images: BorrowedFd<'_>, names: &[String; 3]) -> Result<(), Error> {
    let temporary = ".descriptors.json";
    let write = || -> io::Result<()> {
        let bytes = serde_json::to_vec(names)?;
        match unlinkat(images, temporary, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            done => done?,
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(images, temporary, flags, Mode::from_raw_mode(0o600))?;
        io::Write::write_all(&mut std::fs::File::from(file), &bytes)?;
        Ok(renameat(images, temporary, images, DESCRIPTORS)?)
    };
    write().context(|| format!("write {DESCRIPTORS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(options: &Message, part: &[u8]) -> bool {
        options.bytes().windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn what_is_asked_for_is_in_the_options() {
        let mut asked = Checkpoint {
            parent: Some("../parent".into()),
            leave_running: true,
            link_remap: true,
            page_server: Some(("127.0.0.1".to_owned(), 27277)),
            ..Checkpoint::default()
        };
        let mut options = Message::default();
        own_options(&mut options, &asked, 42).unwrap();
        assert!(has(&options, b"\x10\x2a\x18\x01\x90\x01\x01"));
        assert!(has(&options, b"\x5a\x0f\x0a\x09127.0.0.1\x10\x8d\xd5\x01"));
        assert!(has(&options, b"\x72\x09../parent\x78\x01"));
        asked.parent = Some("/parent".into());
        let error = own_options(&mut options, &asked, 42).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn the_freezer_is_found_among_controllers_and_alone() {
        let record = |labels: &[&str]| Record {
            cgroup_paths: labels
                .iter()
                .map(|label| ((*label).to_owned(), Path::new("/g").join(label)))
                .collect(),
            ..Record::default()
        };
        let freezer = |labels: &[&str]| {
            let mut options = Message::default();
            super::freezer(&mut options, &record(labels));
            options.bytes().get(3..).map(<[u8]>::to_vec)
        };
        assert_eq!(
            freezer(&["", "cpu", "freezer"]).as_deref(),
            Some(&b"/g/freezer"[..])
        );
        assert_eq!(freezer(&["a,freezer"]).as_deref(), Some(&b"/g/a,freezer"[..]));
        assert_eq!(freezer(&[""]).as_deref(), Some(&b"/g/"[..]));
        assert_eq!(freezer(&["", "cpu"]), None);
        assert_eq!(freezer(&[]), None);
    }

    #[test]
    fn a_place_is_where_links_lead_inside_the_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("real/conf")).unwrap();
        std::os::unix::fs::symlink("/real/conf", folder.path().join("conf")).unwrap();
        let root = enter::open_root(folder.path()).unwrap();
        let place = |path: &str, links| super::place(root.as_fd(), Path::new(path), links);
        assert_eq!(place("conf", Links::Inside), Some((b"/real/conf".to_vec(), true)));
        assert_eq!(place("conf", Links::NotLast), Some((b"/conf".to_vec(), false)));
        assert_eq!(place("nope", Links::Inside), None);
    }

    #[test]
    fn streams_are_written_over_whatever_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        let images = folder.path().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(&outside, "kept").unwrap();
        for name in [DESCRIPTORS, ".descriptors.json"] {
            std::os::unix::fs::symlink(&outside, images.join(name)).unwrap();
        }
        let fd = enter::open_root(&images).unwrap();
        write_descriptors(fd.as_fd(), &["pipe:[1]", "/dev/null", ""].map(str::to_owned)).unwrap();
        let names: Vec<String> =
            serde_json::from_slice(&std::fs::read(images.join(DESCRIPTORS)).unwrap()).unwrap();
        assert_eq!(names.len(), 3);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "kept");
    }
}
