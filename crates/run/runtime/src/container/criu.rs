//! CRIU (<https://criu.org>), which writes processes to files and makes them again: called as `criu swrk`, its service for one
//! request, because that alone hands over the terminal of what it restores, and asks before it goes on.

mod wire;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dhow_oci::Labels;
use dhow_types::ErrorKind;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

pub(crate) use wire::{Kind, Message, Response};

use crate::{Context as _, Error};

/// Largest message of CRIU.
const LARGEST: usize = 64 << 10;
/// How much of the end of a log is looked through.
const LOOKED_THROUGH: i64 = 256 << 10;
/// How many errors of a log are told.
const TOLD: usize = 4;

/// What CRIU does with control groups, `criu_cg_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupMode {
    /// Leaves them alone.
    Ignore = 0,
    /// Restores the settings of groups that it makes itself.
    Soft = 3,
    /// Restores all settings.
    Full = 4,
    /// Wants all groups to be there, with these settings.
    Strict = 5,
    /// As CRIU sees fit (soft).
    #[default]
    Default = 6,
}

impl GroupMode {
    /// The mode of runc's option; none for a word that is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "" => Self::Default,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            "ignore" => Self::Ignore,
            _ => return None,
        })
    }
}

/// What a checkpoint and a restore have in common.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Folder of the images, absolute.
    pub path: PathBuf,
    /// Folder of logs, absolute; that of the images without.
    pub work: Option<PathBuf>,
    /// Whether TCP connections may be open.
    pub tcp_established: bool,
    /// Whether Unix sockets may lead out of the container.
    pub ext_unix_sk: bool,
    /// Whether the session's leader may be outside.
    pub shell_job: bool,
    /// Whether files may be locked.
    pub file_locks: bool,
    /// Whether memory that a later image has is punched out of an earlier one.
    pub auto_dedup: bool,
    /// Whether memory follows after the processes.
    pub lazy_pages: bool,
    /// What becomes of control groups.
    pub groups: GroupMode,
    /// CRIU's configuration file, unless an annotation names another; without, runc's.
    pub config: Option<PathBuf>,
}

/// `CLONE_NEWNET`: a network namespace is made again, but nothing in it.
const EMPTY_NETWORK: u64 = 0x4000_0000;
/// CRIU's configuration for runtimes, unless an annotation names another.
const CONFIG: &str = "/etc/criu/runc.conf";
/// The annotation that names another, or none.
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// The folders of a request, open.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) images: OwnedFd,
    work: Option<OwnedFd>,
    log: &'static str,
    shown: PathBuf,
}

impl Folders {
    pub(crate) fn open(images: &Images, log: &'static str) -> Result<Self, Error> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(io::Error::from)
                .context(|| format!("open {}", path.display()))
        };
        let work = images
            .work
            .as_deref()
            .map(|path| make(path).and_then(|()| open(path)));
        Ok(Self {
            images: open(&images.path)?,
            work: work.transpose()?,
            log,
            shown: images.work.as_ref().unwrap_or(&images.path).join(log),
        })
    }

    /// What went wrong, as the last lines of the log that are about errors.
    fn told(&self) -> Option<String> {
        let folder = self.work.as_ref().unwrap_or(&self.images);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(folder, self.log, flags, Mode::empty()).ok()?;
        let mut file = File::from(file);
        if file.seek(SeekFrom::End(-LOOKED_THROUGH)).is_err() {
            file.rewind().ok()?;
        }
        let mut bytes = Vec::new();
        let most = LOOKED_THROUGH.unsigned_abs();
        file.take(most).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
        let last = errors.get(errors.len().saturating_sub(TOLD)..)?;
        (!last.is_empty()).then(|| last.join("; "))
    }
}

/// Makes a folder that nobody else reads, unless it is there.
pub(crate) fn make(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make {}", path.display()))
}

/// The options that every request has.
pub(crate) fn options(images: &Images, folders: &Folders, root: &Path, annotations: &Labels) -> Message {
    let number = |fd: &OwnedFd| u64::try_from(fd.as_raw_fd()).unwrap_or_default();
    let mut options = Message::default();
    options
        .number(1, number(&folders.images))
        .flag(4, images.ext_unix_sk)
        .flag(5, images.tcp_established)
        .flag(7, images.shell_job)
        .flag(8, images.file_locks)
        .number(9, 4)
        .text(10, folders.log)
        .flag(12, true)
        .text(13, root.as_os_str().as_encoded_bytes())
        .flag(16, images.auto_dedup)
        .flag(24, true)
        .number(34, images.groups as u64)
        .number(38, EMPTY_NETWORK)
        .flag(48, images.lazy_pages)
        .flag(50, true);
    if let Some(work) = &folders.work {
        options.number(17, number(work));
    }
    match annotations.get(CONFIG_ANNOTATION).map(String::as_str) {
        Some("") => {}
        Some(path) => drop(options.text(51, path)),
        None => {
            let config = images.config.as_deref().unwrap_or(Path::new(CONFIG));
            options.text(51, config.as_os_str().as_encoded_bytes());
        }
    }
    options
}

/// A mount that CRIU does not look into: `key` names it in the images, or where it is; `value` the other.
pub(crate) fn external_mount(options: &mut Message, key: &[u8], value: &[u8]) {
    let mut pair = Message::default();
    pair.text(1, key).text(2, value);
    options.message(23, &pair);
}

/// CRIU, waiting for a request.
#[derive(Debug)]
pub(crate) struct Session {
    socket: Option<OwnedFd>,
    child: Child,
}

impl Session {
    /// Starts CRIU with standard streams for what it restores, and further descriptors under their own numbers.
    pub(crate) fn start(streams: [Stdio; 3], kept: &[BorrowedFd<'_>]) -> Result<Self, Error> {
        let (own, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)
        .context(|| "make a socket")?;
        dhow_sys::fd::cloexec_from(3).context(|| "prepare the descriptors of criu")?;
        for fd in kept.iter().copied().chain([theirs.as_fd()]) {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())
                .map_err(io::Error::from)
                .context(|| "prepare the descriptors of criu")?;
        }
        let [stdin, stdout, stderr] = streams;
        let spawned = Command::new("criu")
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        match spawned {
            Ok(child) => Ok(Self {
                socket: Some(own),
                child,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "checkpoint and restore need criu, which is not installed";
                Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint("install the package criu"))
            }
            Err(error) => Err(error).context(|| "start criu"),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn receive(&self) -> Result<(Response, Vec<OwnedFd>), Error> {
        let lost = || Error::new(ErrorKind::Internal, "criu ended without an answer");
        let socket = self.socket.as_ref().ok_or_else(lost)?;
        let mut bytes = vec![0; LARGEST];
        let (count, fds) = dhow_sys::fd::receive(socket, &mut bytes).context(|| "hear criu")?;
        if count == 0 {
            return Err(lost());
        }
        let response = bytes.get(..count).and_then(Response::parse);
        let unknown = || Error::new(ErrorKind::Internal, "criu said what nobody understands");
        Ok((response.ok_or_else(unknown)?, fds))
    }

    fn send(&self, message: &Message) -> Result<(), Error> {
        match &self.socket {
            Some(socket) => dhow_sys::fd::send(socket, message.bytes(), &[])
                .map(drop)
                .context(|| "ask criu"),
            None => Ok(()),
        }
    }

    /// Asks for one thing, and hears all notifications on the way to it.
    pub(crate) fn ask(
        mut self,
        kind: Kind,
        options: Option<&Message>,
        folders: Option<&Folders>,
        mut notified: impl FnMut(&Response, Vec<OwnedFd>) -> Result<(), Error>,
    ) -> Result<Response, Error> {
        self.send(&wire::request(kind, options))?;
        let last = loop {
            let (response, fds) = self.receive().map_err(|error| explain(error, folders))?;
            if !response.success {
                let what = if response.is(Kind::Notify) {
                    Kind::Notify
                } else {
                    kind
                };
                let mut message = format!("criu failed: type {} errno {}", what.name(), response.errno);
                if !response.message.is_empty() {
                    message.push_str(&format!(": {}", response.message));
                }
                return Err(explain(Error::new(ErrorKind::Internal, message), folders));
            }
            if !response.is(Kind::Notify) {
                break response;
            }
            notified(&response, fds)?;
            self.send(&wire::heard())?;
        };
        drop(self.socket.take());
        let status = self.child.wait().context(|| "wait for criu")?;
        // After a pre-dump it waits for the dump that follows, and calls it a failure that none does.
        if !status.success() && kind != Kind::PreDump {
            let error = Error::new(ErrorKind::Internal, format!("criu failed: {status}"));
            return Err(explain(error, folders));
        }
        Ok(last)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without its client it gives up, undoes what it has begun, and ends.
        drop(self.socket.take());
        match self.child.wait() {
            // Reaped before, or by somebody else.
            Ok(_) | Err(_) => {}
        }
    }
}

/// The failure with what the log says.
fn explain(error: Error, folders: Option<&Folders>) -> Error {
    let Some(folders) = folders else {
        return error;
    };
    let hint = format!("its log is {}", folders.shown.display());
    match folders.told() {
        Some(told) => Error::new(error.kind(), format!("{error}: {told}")).with_hint(hint),
        None => error.with_hint(hint),
    }
}

/// Asks what this CRIU can do on this kernel.
pub(crate) fn features() -> Result<Response, Error> {
    let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
    Session::start(streams, &[])?
        .ask(Kind::FeatureCheck, None, None, |_, _| Ok(()))
        .context(|| "CRIU feature check failed")
}

/// Refuses what this CRIU cannot do on this kernel, in runc's words.
pub(crate) fn require(name: &str, has: impl FnOnce(&Response) -> bool) -> Result<(), Error> {
    if has(&features()?) {
        return Ok(());
    }
    let message = format!("criu is missing features: [{name}]");
    Err(Error::new(ErrorKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_control_groups_have_runcs_names() {
        assert_eq!(GroupMode::parse(""), Some(GroupMode::Default));
        assert_eq!(GroupMode::parse("ignore"), Some(GroupMode::Ignore));
        assert_eq!(GroupMode::parse("strict").map(|mode| mode as u64), Some(5));
        assert_eq!(GroupMode::parse("lax"), None);
    }

    #[test]
    fn the_options_name_the_folders_and_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images {
            path: folder.path().to_owned(),
            work: Some(folder.path().join("a/logs")),
            ..Images::default()
        };
        let folders = Folders::open(&images, "dump.log").unwrap();
        let has = |annotations: &[(&str, &str)], part: &[u8]| {
            let labels: Labels = annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            let options = options(&images, &folders, Path::new("/r"), &labels);
            options.bytes().windows(part.len()).any(|window| window == part)
        };
        assert!(has(&[], b"/etc/criu/runc.conf"));
        assert!(has(&[], b"\x6a\x02/r"));
        assert!(!has(&[("org.criu.config", "")], b".conf"));
        assert!(has(&[("org.criu.config", "/x.conf")], b"/x.conf"));
        // A log is looked at, whatever lies there in its place.
        std::fs::write(
            folder.path().join("a/logs/dump.log"),
            "one\nError (a): b\nError (c): d\n",
        )
        .unwrap();
        assert_eq!(folders.told().unwrap(), "Error (a): b; Error (c): d");
        std::fs::remove_file(folder.path().join("a/logs/dump.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("a/logs/dump.log")).unwrap();
        assert_eq!(folders.told(), None);
    }
}
