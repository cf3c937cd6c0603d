//! Device nodes of the container.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Device;
use dhow_types::ErrorKind;
use rustix::fs::{Dev, FileType, makedev};
use rustix::process::{Gid, Uid};

use super::{bytes, mount};
use crate::Error;

/// A device node to make.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where, below the root.
    pub(crate) target: PathBuf,
    /// The same name when the node sits in /dev itself, as nearly all do.
    pub(crate) in_dev: Option<CString>,
    /// Where the host has it: the source where nodes cannot be made.
    pub(crate) host: CString,
    pub(crate) kind: FileType,
    pub(crate) number: Dev,
    pub(crate) mode: u32,
    pub(crate) owner: Option<(Uid, Gid)>,
    /// Whether the spec says mode or owner: the host's own node may have others.
    pub(crate) asked: bool,
}

/// Nodes that every container has (runtime-spec, "Default Devices"), by name and minor number of major 1, or 5 for tty.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The nodes of the spec and the default ones it leaves out.
pub(crate) fn nodes(devices: &[Device]) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::with_capacity(devices.len() + DEFAULT.len());
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if !devices.iter().any(|device| device.path == path) {
            nodes.push(node(
                &path,
                FileType::CharacterDevice,
                makedev(major, minor),
                0o666,
                None,
            )?);
        }
    }
    // The terminals' multiplexer is a link to that of the container's own /dev/pts ("Default Devices"), also where the spec
    // lists the device: that of the host would be another's, and without an owner in a user namespace.
    let multiplexer =
        |device: &Device| device.path == Path::new("/dev/ptmx") && (device.major, device.minor) == (5, 2);
    for device in devices.iter().filter(|device| !multiplexer(device)) {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                let message = format!("device {}: unknown type {other:?}", device.path.display());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        let number = |number: i64| {
            u32::try_from(number).map_err(|_| {
                let message = format!(
                    "device {}: {number} is not a device number",
                    device.path.display()
                );
                Error::new(ErrorKind::InvalidArgument, message)
            })
        };
        let dev = if kind == FileType::Fifo {
            0
        } else {
            makedev(number(device.major)?, number(device.minor)?)
        };
        let owner = match (device.uid.unwrap_or(0), device.gid.unwrap_or(0)) {
            (0, 0) => None,
            (uid, gid) => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
        };
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        nodes.push(Node {
            asked: device.file_mode.is_some() || device.uid.is_some() || device.gid.is_some(),
            ..node(&device.path, kind, dev, mode, owner)?
        });
    }
    Ok(nodes)
}

fn node(
    path: &Path,
    kind: FileType,
    number: Dev,
    mode: u32,
    owner: Option<(Uid, Gid)>,
) -> Result<Node, Error> {
    let target = mount::target(path)?;
    let in_dev = target
        .strip_prefix("dev")
        .ok()
        .filter(|name| name.components().count() == 1);
    let in_dev = in_dev
        .map(|name| bytes(name.as_os_str().as_bytes(), "device name"))
        .transpose()?;
    let host = bytes(path.as_os_str().as_bytes(), "device path")?;
    Ok(Node {
        target,
        in_dev,
        host,
        kind,
        number,
        mode,
        owner,
        asked: false,
    })
}
