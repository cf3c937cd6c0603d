//! The socket by which a container's program says that it is ready (sd_notify(3)): a folder of the container's own, bound into
//! it. The supervisor's socket itself stays outside: what goes to it passes through the command that started the container.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use dhow_oci::runtime::{Mount, Spec};
use rustix::fs::{CWD, Mode, chmodat, mkdirat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::Container;
use super::folder::Folder;
use crate::{Context as _, Error};

const FOLDER: &str = "notify";
const SOCKET: &str = "notify.sock";

/// Adds folder and variable to a spec.
pub(super) fn add(spec: &mut Spec, root: &Path, id: &str, inside: &Path) {
    spec.mounts.push(Mount {
        destination: inside.to_owned(),
        source: Some(root.join(id).join(FOLDER)),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"]
            .map(str::to_owned)
            .into(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process
            .env
            .retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
        let socket = inside.join(SOCKET);
        process.env.push(format!("NOTIFY_SOCKET={}", socket.display()));
    }
}

/// Makes the folder, which any user of the container may enter.
pub(super) fn make(folder: &Folder) -> Result<(), Error> {
    let made = mkdirat(folder.as_fd(), FOLDER, Mode::from_raw_mode(0o755));
    made.map_err(io::Error::from)
        .context(|| "make the folder of the notification socket")
}

/// The socket on which the program's word comes; none in a container that was made without.
pub(super) fn listen(folder: &Folder) -> Result<Option<OwnedFd>, Error> {
    let open = || -> io::Result<Option<OwnedFd>> {
        // By way of a descriptor: the path may be longer than the kernel takes.
        let path = format!("/proc/self/fd/{}/{FOLDER}/{SOCKET}", folder.as_fd().as_raw_fd());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        match bind(&socket, &SocketAddrUnix::new(path.as_str())?) {
            Err(Errno::NOENT) => return Ok(None),
            bound => bound?,
        }
        chmodat(
            CWD,
            path.as_str(),
            Mode::from_raw_mode(0o777),
            rustix::fs::AtFlags::empty(),
        )?;
        Ok(Some(socket))
    };
    open().context(|| "listen on the notification socket")
}

impl Container {
    /// The socket on which the container's program will say that it is ready, to be asked for before
    /// [`start`](Self::start); none unless it was created with [`Options::notify`](super::Options::notify).
    ///
    /// # Errors
    /// When it cannot be made, also because it is there already.
    pub fn listen_for_readiness(&self) -> Result<Option<OwnedFd>, Error> {
        listen(&self.folder)
    }
}
