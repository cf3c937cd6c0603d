//! A container whose processes CRIU makes again from files.
//!
//! The root file system and what is bound into it are mounted for CRIU in a mount namespace that nobody else sees: nothing of
//! that is left when this program or CRIU is killed, and removing the container's folder can never reach into the root.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_cgroup::Group;
use dhow_cgroup::systemd::StandIn;
use dhow_oci::runtime::{Spec, State};
use dhow_sys::mount::attach_at;
use dhow_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags as Propagation, mount_change};
use rustix::thread::UnshareFlags;

use super::Container;
use super::checkpoint::{DESCRIPTORS, absolute, hierarchies, namespace_key};
use super::create::{Begun, Bundle, Options, now, prepare_whole, rootfs, warnings};
use super::criu::{self, Folders, Images, Kind, Message, Response, Session, external_mount};
use super::driver::{self, Made as MadeGroup};
use super::folder::{Folder, Lock};
use super::record::{self, Record};
use super::resctrl;
use super::vital::{self, Vital};
use crate::create::Stdio;
use crate::hooks::{self, Stage, Surroundings};
use crate::init::target::{self, Kind as Made, Links};
use crate::plan::{MountPlan, Source};
use crate::{Context as _, Error, Namespace, Plan};

/// The folder in the container's where its root is mounted for CRIU.
const ROOT: &str = "criu-root";
const LOG: &str = "restore.log";
/// Largest list of standard streams that is read: three names.
const LARGEST_DESCRIPTORS: u64 = 64 << 10;

/// How a container is made from files.
#[derive(Debug, Default)]
pub struct Restore {
    /// What it has in common with a checkpoint.
    pub images: Images,
    /// Another profile of AppArmor or SELinux, as `type:name`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context of mounts.
    pub lsm_mount_context: Option<String>,
}

/// Makes a container from a checkpoint; its first process is a child of the caller.
///
/// # Errors
/// `NotFound` for a checkpoint that is not there, `FailedPrecondition` without CRIU, `DataLoss` for files that are damaged,
/// `Internal` with the errors of its log. Nothing of the container is left then.
pub fn restore(
    root: &Path,
    id: &str,
    bundle: &Bundle,
    options: Options,
    asked: &Restore,
) -> Result<Begun, Error> {
    // It said that it is ready, if ever, before it was written to files.
    let options = Options {
        notify: None,
        ..options
    };
    let plan = prepare_whole(root, id, bundle, &options)?;
    let pipes = {
        let folders = Folders::open(&asked.images, LOG)?;
        pipes(folders.images.as_fd())?
    };
    let (folder, lock) = Folder::make(root, id)?;
    let made = folder
        .write_config(&bundle.config)
        .and_then(|()| driver::make(&bundle.spec, id, &plan, &options));
    let MadeGroup { group, stand_in } = match made {
        Ok(made) => made,
        Err(error) => {
            // The first failure is the one to tell; what cannot be removed is seen by `delete`.
            return match folder.remove() {
                Ok(()) | Err(_) => Err(error),
            };
        }
    };
    let mut revival = Revival {
        record: Record {
            oci_version: bundle.spec.oci_version.clone(),
            created: now(),
            bundle: bundle.path.clone(),
            rootfs: rootfs(bundle),
            cgroup_paths: group.as_ref().map(Group::paths).unwrap_or_default(),
            annotations: bundle.spec.annotations.clone(),
            own_processes: plan.new.contains(UnshareFlags::NEWPID),
            creating: true,
            restored: true,
            systemd: options.systemd,
            ..Record::default()
        },
        plan: &plan,
        spec: &bundle.spec,
        folder,
        lock: Some(lock),
        group,
        stand_in,
        hooks: options.hooks,
        terminal: None,
    };
    let outcome = revival.revive(asked, &pipes, options.stdio);
    revival.finish(outcome)
}

/// A container on its way back into the world.
struct Revival<'a> {
    plan: &'a Plan,
    spec: &'a Spec,
    folder: Folder,
    /// Free from the moment the record is there.
    lock: Option<Lock>,
    group: Option<Group>,
    /// Keeps a systemd unit alive until there are processes in it.
    stand_in: Option<StandIn>,
    record: Record,
    /// What hooks run with.
    hooks: Surroundings,
    terminal: Option<OwnedFd>,
}

impl Revival<'_> {
    fn revive(&mut self, asked: &Restore, pipes: &[(usize, String)], stdio: Stdio) -> Result<OwnedFd, Error> {
        let place = self.folder.path().join(ROOT);
        std::fs::create_dir(&place).context(|| format!("make {}", place.display()))?;
        let place = std::fs::canonicalize(&place).context(|| format!("find {}", place.display()))?;
        let joined = joined(self.plan)?;
        let kept: Vec<BorrowedFd<'_>> = joined.iter().map(|(_, fd)| fd.as_fd()).collect();
        let apart = Apart::new()?;
        let started = (|| {
            // CRIU mounts in its working directory, which must be of its own namespace.
            let folders = Folders::open(&asked.images, LOG)?;
            mount_root(&self.record.rootfs, &place, self.plan)?;
            Ok((Session::start(streams(stdio), &kept)?, folders))
        })();
        // First of all this program goes back.
        apart.leave()?;
        let (session, folders) = started?;
        let mut options = criu::options(&asked.images, &folders, &place, &self.record.annotations);
        self.own_options(&mut options, asked)?;
        for (key, fd) in &joined {
            inherit(
                &mut options,
                key,
                u64::try_from(fd.as_raw_fd()).unwrap_or_default(),
            );
        }
        for (at, pipe) in pipes {
            inherit(&mut options, pipe, *at as u64);
        }
        drop(joined);
        if let Some(group) = &self.group {
            group
                .add(session.pid())
                .context(|| "put criu into the control group")?;
            group_roots(&mut options, session.pid())?;
        }
        for entrance in resctrl::enter(&self.folder, self.plan.class.as_ref())? {
            // What CRIU restores is born in its class.
            let pid = session.pid().to_string();
            rustix::io::write(&entrance, pid.as_bytes())
                .map_err(std::io::Error::from)
                .context(|| "put criu into the class of service")?;
        }
        drop(self.stand_in.take());
        session.ask(Kind::Restore, Some(&options), Some(&folders), |said, fds| {
            self.hear(said, fds)
        })?;
        let gone = || Error::new(ErrorKind::FailedPrecondition, "the restored process is gone");
        let pidfd = vital::pidfd(self.record.pid, self.record.start)?.ok_or_else(gone)?;
        std::fs::remove_dir(&place).context(|| format!("remove {}", place.display()))?;
        Ok(pidfd)
    }

    fn own_options(&self, options: &mut Message, asked: &Restore) -> Result<(), Error> {
        options.flag(6, true).flag(26, true);
        for (field, text) in [(53, &asked.lsm_profile), (63, &asked.lsm_mount_context)] {
            if let Some(text) = text {
                options.text(field, text);
            }
        }
        join(options, self.plan)?;
        external_mounts(options, self.plan, self.group.as_ref());
        Ok(())
    }

    fn hear(&mut self, said: &Response, mut fds: Vec<OwnedFd>) -> Result<(), Error> {
        match said.script.as_str() {
            "setup-namespaces" => {
                self.note(said.pid)?;
                if self.plan.new.contains(UnshareFlags::NEWNET) {
                    loopback(said.pid)?;
                }
                let state = State {
                    id: self.folder.id().to_owned(),
                    ..self.record.state()
                };
                for stage in [Stage::Prestart, Stage::CreateRuntime] {
                    let around = self.hooks.around();
                    hooks::run(stage, stage.of(&self.plan.hooks), &state, around, None)?;
                }
            }
            "orphan-pts-master" => self.terminal = fds.pop(),
            "post-restore" => {
                // From here on it runs, whatever becomes of this program.
                self.record.creating = false;
                self.note(said.pid)?;
                drop(self.lock.take());
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes down which process it is.
    fn note(&mut self, pid: i32) -> Result<(), Error> {
        self.record.pid = pid;
        self.record.start = Vital::now(pid).map_or(0, |vital| vital.start);
        record::write(&self.folder, &self.record)
    }

    /// The container, or the failure with everything undone.
    fn finish(mut self, outcome: Result<OwnedFd, Error>) -> Result<Begun, Error> {
        match outcome {
            Ok(pidfd) => Ok(Begun {
                pid: self.record.pid,
                pidfd,
                terminal: self.terminal.take(),
                notify: None,
                warnings: warnings(self.plan, self.spec, self.group.is_some()),
                container: Container {
                    folder: self.folder,
                    record: Some(self.record),
                    kept: None,
                },
            }),
            Err(error) => {
                let mut failures = dhow_types::Failures::new();
                if let Some(group) = self.group.take() {
                    failures.record("kill the processes", group.kill_all());
                    drop(self.stand_in.take());
                    let systemd = self.record.systemd.as_ref();
                    let removed = driver::remove(systemd, self.spec, self.folder.id(), group);
                    failures.record("remove the control group", removed);
                }
                failures.record("leave resctrl", resctrl::leave(&self.folder));
                failures.record("remove the folder", self.folder.remove());
                match failures.into_result() {
                    // What else failed matters less than why it had to be undone; what is left is seen by `delete`.
                    Ok(()) | Err(_) => Err(error),
                }
            }
        }
    }
}

fn streams(stdio: Stdio) -> [std::process::Stdio; 3] {
    match stdio {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => [stdin.into(), stdout.into(), stderr.into()],
        // It comes from the images, and its master by way of a notification.
        Stdio::Terminal => [(); 3].map(|()| std::process::Stdio::null()),
    }
}

/// The pipes and the host's files that were standard streams, with their number. The list comes with the images: it may say anything.
fn pipes(images: BorrowedFd<'_>) -> Result<Vec<(usize, String)>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(images, DESCRIPTORS, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(LARGEST_DESCRIPTORS).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    named_pipes(&read().context(|| format!("read {DESCRIPTORS} of the checkpoint"))?)
}

fn named_pipes(bytes: &[u8]) -> Result<Vec<(usize, String)>, Error> {
    let names: Vec<String> = serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("{DESCRIPTORS} of the checkpoint is damaged");
        Error::because(ErrorKind::DataLoss, message, error)
    })?;
    let is_outside = |name: &str| {
        let rest = name.strip_prefix("pipe:[").or(name.strip_prefix("file["));
        let number = rest.and_then(|rest| rest.strip_suffix(']'));
        let sound = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(sound))
    };
    let mut streams: Vec<(usize, String)> = Vec::new();
    for (at, name) in names.into_iter().take(3).enumerate() {
        // One name stands for all descriptors of what it names.
        if is_outside(&name) && streams.iter().all(|(_, other)| *other != name) {
            streams.push((at, name));
        }
    }
    Ok(streams)
}

/// A descriptor of CRIU's that takes the place of what has this name in the images.
fn inherit(options: &mut Message, key: &str, fd: u64) {
    let mut pair = Message::default();
    pair.text(1, key).number(2, fd);
    options.message(27, &pair);
}

/// The joined namespaces that CRIU gets as descriptors, with their names in the images.
fn joined(plan: &Plan) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
    let open = |(kind, path): &(Namespace, PathBuf)| {
        let (_, key) = namespace_key(*kind)?;
        let opened =
            File::open(path).context(|| format!("open the {} namespace {}", kind.name(), path.display()));
        Some(opened.map(|file| (key, file.into())))
    };
    plan.join.iter().filter_map(open).collect()
}

/// The namespaces that CRIU joins by itself.
fn join(options: &mut Message, plan: &Plan) -> Result<(), Error> {
    for (kind, path) in &plan.join {
        let name = match kind {
            _ if namespace_key(*kind).is_some() => continue,
            Namespace::Mount => "mnt",
            Namespace::Cgroup => {
                let message = "criu cannot restore a container into a cgroup namespace that is there already";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            other => other.name(),
        };
        let mut join = Message::default();
        join.text(1, name).text(2, path.as_os_str().as_bytes());
        options.message(39, &join);
    }
    Ok(())
}

/// What the mounts from outside are now, by their names in the images.
fn external_mounts(options: &mut Message, plan: &Plan, group: Option<&Group>) {
    for mount in &plan.mounts {
        match &mount.source {
            Source::Bind(bind) => external_mount(options, &absolute(&mount.target), bind.path.as_bytes()),
            Source::Cgroup(_) => {
                for (name, own) in hierarchies(group) {
                    let key = absolute(&mount.target.join(name));
                    external_mount(options, &key, own.as_os_str().as_bytes());
                }
            }
            Source::Remount | Source::New { .. } => {}
        }
    }
    let null = Path::new("dev/null");
    if !plan.masked.is_empty() && !plan.nodes.iter().any(|node| node.target == null) {
        external_mount(options, b"/dev/null", b"/dev/null");
    }
    for node in &plan.nodes {
        external_mount(options, &absolute(&node.target), node.host.as_bytes());
    }
}

/// Where the groups of the images go: into the one in which CRIU itself is.
fn group_roots(options: &mut Message, pid: i32) -> Result<(), Error> {
    let file = format!("/proc/{pid}/cgroup");
    let membership = std::fs::read_to_string(&file).context(|| format!("read {file}"))?;
    for (controller, path) in places(&membership) {
        let mut root = Message::default();
        root.text(1, controller).text(2, path);
        options.message(25, &root);
    }
    Ok(())
}

/// Controllers, or `name=...`, or nothing for version 2, with their path (cgroups(7), `/proc/<pid>/cgroup`).
fn places(membership: &str) -> impl Iterator<Item = (&str, &str)> {
    membership.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next());
        path.into_iter()
            .flat_map(move |path| controllers.split(',').map(move |controller| (controller, path)))
    })
}

/// CRIU makes the network namespace empty, and leaves its only device down.
fn loopback(pid: i32) -> Result<(), Error> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context(|| "open the network namespace")?;
    dhow_sys::namespace::within_net(&namespace, dhow_sys::namespace::loopback_up)
        .and_then(|done| done)
        .context(|| "bring the loopback device up")
}

/// A mount namespace of this program's own, for a while.
struct Apart {
    home: OwnedFd,
    root: OwnedFd,
    here: OwnedFd,
}

impl Apart {
    fn new() -> Result<Self, Error> {
        let enter = || -> io::Result<Self> {
            let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let apart = Self {
                home: File::open("/proc/self/ns/mnt")?.into(),
                root: rustix::fs::open(c"/", folder, Mode::empty())?,
                here: rustix::fs::open(c".", folder, Mode::empty())?,
            };
            dhow_sys::namespace::unshare(UnshareFlags::NEWNS)?;
            match mount_change("/", Propagation::DOWNSTREAM | Propagation::REC) {
                // In a chroot that is no mount, nothing propagates from what is mounted below it.
                Err(rustix::io::Errno::INVAL) => {}
                done => done?,
            }
            Ok(apart)
        };
        enter().context(|| "make a mount namespace for criu")
    }

    fn leave(self) -> Result<(), Error> {
        let leave = || -> io::Result<()> {
            dhow_sys::namespace::enter(&self.home)?;
            rustix::process::fchdir(&self.root)?;
            rustix::process::chroot(".")?;
            Ok(rustix::process::fchdir(&self.here)?)
        };
        leave().context(|| "come back from criu's mount namespace")
    }
}

/// Mounts the root file system where CRIU wants it, and makes what the container's mounts need to be mounted on.
fn mount_root(rootfs: &Path, place: &Path, plan: &Plan) -> Result<(), Error> {
    let at = || format!("mount {} for criu", rootfs.display());
    let path = rootfs.as_os_str();
    let path = std::ffi::CString::new(path.as_bytes())
        .map_err(io::Error::from)
        .context(at)?;
    let tree = target::copy_tree(CWD, &path, true)
        .map_err(io::Error::from)
        .context(at)?;
    dhow_sys::mount::attach(&tree, place).context(at)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(place, flags, Mode::empty())
        .map_err(io::Error::from)
        .context(at)?;
    let made: Vec<&PathBuf> = plan
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, Source::New { .. } | Source::Cgroup(_)))
        .map(|mount| &mount.target)
        .collect();
    for (index, mount) in plan.mounts.iter().enumerate() {
        // In a file system that CRIU makes again, it makes what is in it too.
        let inside = made
            .iter()
            .any(|above| mount.target.starts_with(above) && mount.target != **above);
        if !inside && !matches!(mount.source, Source::Remount | Source::Cgroup(_)) {
            mountpoint(root.as_fd(), mount, index)
                .context(|| format!("make the mount point /{}", mount.target.display()))?;
        }
    }
    Ok(())
}

/// Makes what the mount goes on, and binds what is bound there: the mounts after it may go below.
fn mountpoint(root: BorrowedFd<'_>, mount: &MountPlan, index: usize) -> io::Result<()> {
    let links = if mount.on_link {
        Links::NotLast
    } else {
        Links::Inside
    };
    let tree = match &mount.source {
        Source::Bind(bind) => Some(target::copy_source(CWD, bind)?),
        _ => None,
    };
    let kind = match &tree {
        Some(tree) => {
            let mode = rustix::fs::fstat(tree)?.st_mode;
            if rustix::fs::FileType::from_raw_mode(mode).is_dir() {
                Made::Directory
            } else {
                Made::File
            }
        }
        None => Made::Directory,
    };
    let place = target::open_or_make(root, &mount.target, links, kind, index)
        .map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
    match tree {
        Some(tree) => attach_at(&tree, &place, c""),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_among_the_streams_is_taken_from_the_caller() {
        let pipes = named_pipes(br#"["/dev/null", "pipe:[42]", "pipe:[7]", "pipe:[8]"]"#).unwrap();
        assert_eq!(pipes, [(1, "pipe:[42]".to_owned()), (2, "pipe:[7]".to_owned())]);
        let files = named_pipes(br#"["file[1a:2f]", "file[1a:2f]", "/log"]"#).unwrap();
        assert_eq!(files, [(0, "file[1a:2f]".to_owned())]);
        let odd = named_pipes(br#"["pipe:[]", "pipe:[4/../x]", "socket:[3]"]"#).unwrap();
        assert_eq!(odd, []);
        for wrong in [&b""[..], b"{}", b"[1]", b"[\"pipe:[1]\"", b"\xff"] {
            assert_eq!(named_pipes(wrong).unwrap_err().kind(), ErrorKind::DataLoss);
        }
    }

    #[test]
    fn a_list_of_streams_is_a_file_of_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let fd = super::super::enter::open_root(folder.path()).unwrap();
        assert_eq!(pipes(fd.as_fd()).unwrap_err().kind(), ErrorKind::NotFound);
        let outside = folder.path().join("outside");
        std::fs::write(&outside, "[]").unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join(DESCRIPTORS)).unwrap();
        pipes(fd.as_fd()).unwrap_err();
    }

    #[test]
    fn groups_go_where_criu_is_by_controller() {
        let found: Vec<_> = places("4:cpu,cpuacct:/a:b\n1:name=systemd:/c\n0::/d\nodd\n").collect();
        let wanted = [
            ("cpu", "/a:b"),
            ("cpuacct", "/a:b"),
            ("name=systemd", "/c"),
            ("", "/d"),
        ];
        assert_eq!(found, wanted);
    }
}
