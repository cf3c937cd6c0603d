//! The folder of a container: its name, its lock, its files.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_oci::runtime::Spec;
use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::{Context as _, Error};

const CONFIG: &str = "config.json";
const SOCKET: &str = "start";
/// Longest id: that of a file name.
const LONGEST_ID: usize = 255;
/// How long the work of another command on the same container is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's folder, held by descriptor.
#[derive(Debug)]
pub(crate) struct Folder {
    id: String,
    path: PathBuf,
    dir: OwnedFd,
}

/// The exclusive right to change a container, until dropped.
#[derive(Debug)]
#[must_use = "the lock is free again when this is dropped"]
pub(crate) struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        match flock(&self.0, FlockOperation::Unlock) {
            // Closing alone would not do: a container's first process may have a copy of the descriptor.
            Ok(()) | Err(_) => {}
        }
    }
}

/// Refuses what cannot be an id: letters, digits and `_+-.` alone, and no name that means a folder.
fn check(id: &str) -> Result<(), Error> {
    if id.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "container id cannot be empty",
        ));
    }
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let wrong = |why: &str| {
        let message = format!("invalid container ID format: {why}");
        Err(Error::new(ErrorKind::InvalidArgument, message))
    };
    if let Some(other) = id.chars().find(|c| !c.is_ascii() || !sound(*c as u8)) {
        return wrong(&format!("invalid character {other:?}"));
    }
    if id.len() > LONGEST_ID {
        return wrong(&format!("longer than {LONGEST_ID} characters"));
    }
    if matches!(id, "." | "..") {
        return wrong("the name of a folder");
    }
    Ok(())
}

/// Whether a container of this id is there, whole or not.
///
/// # Errors
/// `InvalidArgument` for what is no id.
pub fn exists(root: &Path, id: &str) -> Result<bool, Error> {
    match Folder::open(root, id) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The ids of all containers in `root`, in order.
///
/// # Errors
/// `NotFound` when there is no such folder.
pub fn list(root: &Path) -> Result<Vec<String>, Error> {
    let entries = std::fs::read_dir(root).context(|| format!("open {}", root.display()))?;
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("read {}", root.display()))?;
        let name = entry.file_name();
        let id = name.to_str().filter(|id| check(id).is_ok());
        if let (Some(id), true) = (id, entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            ids.push(id.to_owned());
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Folder {
    /// Reserves an id by making its folder, and locks it.
    pub(crate) fn make(root: &Path, id: &str) -> Result<(Self, Lock), Error> {
        check(id)?;
        let at = || format!("make the folder of containers {}", root.display());
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(root).context(at)?;
        let path = root.join(id);
        match mkdirat(CWD, &path, Mode::from_raw_mode(0o711)) {
            Err(Errno::EXIST) => {
                let message = "container with given ID already exists";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            made => made
                .map_err(io::Error::from)
                .context(|| format!("make {}", path.display()))?,
        }
        let folder = Self::open(root, id)?;
        let lock = folder.lock()?;
        Ok((folder, lock))
    }

    /// The folder of an id.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self, Error> {
        check(id)?;
        let path = root.join(id);
        match openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(gone()),
            opened => Ok(Self {
                id: id.to_owned(),
                dir: opened
                    .map_err(io::Error::from)
                    .context(|| format!("open {}", path.display()))?,
                path,
            }),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn owner(&self) -> Result<u32, Error> {
        let stat = fstat(&self.dir).map_err(io::Error::from);
        Ok(stat
            .context(|| format!("ask about {}", self.path.display()))?
            .st_uid)
    }

    /// Takes the lock, once who holds it is done.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(lock) = self.lock_now(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let message = "another command works on the container";
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Whether another command holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.lock_now(FlockOperation::NonBlockingLockShared), Ok(None))
    }

    /// A lock belongs to an opening of the folder, not to the process: each gets its own. One that was removed meanwhile
    /// cannot be locked.
    fn lock_now(&self, kind: FlockOperation) -> Result<Option<Lock>, Error> {
        let opened = openat(&self.dir, c".", DIRECTORY, Mode::empty());
        let own = match opened {
            Err(Errno::NOENT) => return Err(gone()),
            opened => opened.map_err(io::Error::from).context(|| "open the folder")?,
        };
        match flock(&own, kind) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            done => done.map_err(io::Error::from).context(|| "lock the container")?,
        }
        let stat = fstat(&own)
            .map_err(io::Error::from)
            .context(|| "ask about the folder")?;
        if stat.st_nlink == 0 {
            return Err(gone());
        }
        Ok(Some(Lock(own)))
    }

    /// Writes a file so that it is there whole or not at all, once it is [published](Self::publish).
    pub(crate) fn draft(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let temporary = format!(".{name}");
        let write = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = openat(&self.dir, temporary.as_str(), flags, Mode::from_raw_mode(0o600))?;
            io::Write::write_all(&mut File::from(file), bytes)
        };
        write().context(|| format!("write {}", self.path.join(name).display()))
    }

    /// Puts a file in its place that was written as a draft.
    pub(crate) fn publish(&self, name: &str) -> Result<(), Error> {
        renameat(&self.dir, format!(".{name}").as_str(), &self.dir, name)
            .map_err(io::Error::from)
            .context(|| format!("write {}", self.path.join(name).display()))
    }

    /// Reads a file; none when it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened
                .map_err(io::Error::from)
                .context(|| format!("open {}", self.path.join(name).display()))?,
        };
        let size = fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let size = size.min(dhow_oci::MAX_DOCUMENT).saturating_add(1);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut file = File::from(file).take(dhow_oci::MAX_DOCUMENT + 1);
        file.read_to_end(&mut bytes)
            .context(|| format!("read {}", self.path.join(name).display()))?;
        Ok(Some(bytes))
    }

    /// Keeps the spec of a container whose folder was just made. It is read by who finds a record or a control group, and
    /// both come later.
    pub(crate) fn write_config(&self, bytes: &[u8]) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = openat(&self.dir, CONFIG, flags, Mode::from_raw_mode(0o600))?;
            io::Write::write_all(&mut File::from(file), bytes)
        };
        write().context(|| format!("write {}", self.path.join(CONFIG).display()))
    }

    pub(crate) fn spec(&self) -> Result<Spec, Error> {
        let Some(bytes) = self.read(CONFIG)? else {
            return Err(Error::new(ErrorKind::NotFound, "container has no config.json"));
        };
        Spec::parse(&bytes).context(|| "read the container's spec")
    }

    /// The address of the socket, by way of a descriptor: never longer than the kernel takes.
    fn address(&self) -> Result<SocketAddrUnix, Error> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", self.dir.as_raw_fd());
        SocketAddrUnix::new(path.as_str())
            .map_err(io::Error::from)
            .context(|| "name the container's socket")
    }

    /// The socket on which `start` is waited for.
    pub(crate) fn listen(&self) -> Result<OwnedFd, Error> {
        let (socket, address) = (socket()?, self.address()?);
        let open = || -> rustix::io::Result<()> {
            bind(&socket, &address)?;
            listen(&socket, 1)
        };
        open()
            .map_err(io::Error::from)
            .context(|| "listen on the container's socket")?;
        Ok(socket)
    }

    /// A connection to the process that waits; none when there is none.
    pub(crate) fn connect(&self) -> Result<Option<OwnedFd>, Error> {
        let socket = socket()?;
        match connect(&socket, &self.address()?) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
            done => done
                .map(|()| Some(socket))
                .map_err(io::Error::from)
                .context(|| "connect to the container's process"),
        }
    }

    /// Nobody can start the container any more.
    pub(crate) fn forget_socket(&self) {
        match unlinkat(&self.dir, SOCKET, AtFlags::empty()) {
            // What is left refuses connections, and goes with the folder.
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes the folder with what is in it. The spec goes last: it names the control group.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.forget_socket();
        for name in [super::record::FILE, CONFIG] {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                // What cannot be removed keeps the folder, which is told next.
                Ok(()) | Err(_) => {}
            }
        }
        let removed = match unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => std::fs::remove_dir_all(&self.path),
            removed => removed.map_err(io::Error::from),
        };
        let removed = match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        removed.context(|| format!("remove {}", self.path.display()))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn socket() -> Result<OwnedFd, Error> {
    let made = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    made.map_err(io::Error::from).context(|| "make a socket")
}

/// runc's word for it, which clients know.
fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "container does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_file_name_of_harmless_letters() {
        for sound in ["a", "web-1", "A_b+c.d", "...", &"x".repeat(255)] {
            assert!(check(sound).is_ok(), "{sound}");
        }
        for wrong in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "../x",
            "a b",
            "é",
            "a\0",
            "a\n",
            &"x".repeat(256),
        ] {
            assert_eq!(check(wrong).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn an_id_is_taken_once_and_its_lock_is_freed_with_its_holder() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("deep/er");
        let (folder, lock) = Folder::make(&root, "one").unwrap();
        assert_eq!(
            Folder::make(&root, "one").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        let other = Folder::open(&root, "one").unwrap();
        assert!(other.is_locked());
        drop(lock);
        assert!(!other.is_locked());
        drop(other.lock().unwrap());
        assert_eq!(list(&root).unwrap(), ["one"]);
        folder.remove().unwrap();
        assert_eq!(other.lock().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!exists(&root, "one").unwrap());
    }

    #[test]
    fn a_socket_is_reached_below_a_path_of_any_length() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("x".repeat(200)).join("y".repeat(200));
        let (folder, _lock) = Folder::make(&root, "one").unwrap();
        assert!(folder.connect().unwrap().is_none());
        let listener = folder.listen().unwrap();
        assert!(folder.connect().unwrap().is_some());
        drop(listener);
        assert!(folder.connect().unwrap().is_none());
    }
}
