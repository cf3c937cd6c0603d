//! The container's /dev: nodes and links.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::mount::attach_at;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, makedev};
use rustix::io::Errno;

use super::target::{self, Kind, Links};
use crate::nodes::{self, Made};
use crate::plan::{Node, Plan};
use crate::report::{At, Failure, Step};

/// Links that every container has (runtime-spec, "Dev symbolic links"); the kernel's core image for tools that look.
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
    (c"/proc/kcore", c"core"),
];

/// Opens /dev of the root, which must be a directory, not a link (CVE-2026-41579).
pub(crate) fn open(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    match target::open(root, Path::new("dev"), Links::Refused) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(root, c"dev", Mode::from_raw_mode(0o755)).at(Step::DeviceDirectory)?;
            target::open(root, Path::new("dev"), Links::Refused).at(Step::DeviceDirectory)
        }
        opened => opened.at(Step::DeviceDirectory),
    }
}

/// Makes the nodes and links; `made` are nodes that are there, by index.
pub(crate) fn fill(root: BorrowedFd<'_>, plan: &Plan, made: Option<&Made>) -> Result<(), Failure> {
    let dev = open(root)?;
    let made = match made {
        Some(made) => nodes::take(made, dev.as_fd())?,
        None => Vec::new(),
    };
    for (index, node) in plan.nodes.iter().enumerate() {
        let way = match made.iter().find(|(of, _)| *of == index) {
            Some((_, tree)) => Way::Attach(tree),
            None if plan.has_users() => Way::Bind,
            None => Way::Make,
        };
        match &node.in_dev {
            Some(name) => make(dev.as_fd(), name, node, way, index)?,
            None => elsewhere(root, node, way, index)?,
        }
    }
    for (content, name) in LINKS {
        match rustix::fs::symlinkat(content, &dev, name) {
            Err(Errno::EXIST) => replace_link(dev.as_fd(), content, name).at(Step::DeviceLink)?,
            done => done.at(Step::DeviceLink)?,
        }
    }
    Ok(())
}

/// How a node comes to its place.
#[derive(Clone, Copy)]
enum Way<'a> {
    Make,
    /// In a user namespace nodes cannot be made, or work (SB_I_NODEV): the host's own are bound.
    Bind,
    /// The parent made it for this container.
    Attach(&'a OwnedFd),
}

/// What the image has under the name goes away, unless it is the same link.
fn replace_link(dev: BorrowedFd<'_>, content: &CStr, name: &CStr) -> rustix::io::Result<()> {
    if rustix::fs::readlinkat(dev, name, Vec::new()).is_ok_and(|found| found.as_c_str() == content) {
        return Ok(());
    }
    rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
    rustix::fs::symlinkat(content, dev, name)
}

fn elsewhere(root: BorrowedFd<'_>, node: &Node, way: Way<'_>, index: usize) -> Result<(), Failure> {
    let parent = node.target.parent().unwrap_or(Path::new(""));
    let parent = match target::open(root, parent, Links::Inside) {
        Err(Errno::NOENT) => {
            let rooted = target::rootpath(root).at_index(Step::Device, index)?;
            rooted
                .create_dir_all(parent, 0o755, None)
                .at_index(Step::Device, index)?
        }
        opened => opened.at_index(Step::Device, index)?,
    };
    let name = node.target.file_name().unwrap_or_default();
    let name = std::ffi::CString::new(name.as_encoded_bytes()).map_err(|_| Errno::INVAL);
    make(
        parent.as_fd(),
        &name.at_index(Step::Device, index)?,
        node,
        way,
        index,
    )
}

fn make(parent: BorrowedFd<'_>, name: &CStr, node: &Node, way: Way<'_>, index: usize) -> Result<(), Failure> {
    match way {
        Way::Attach(tree) => return attach(parent, name, tree, index),
        Way::Bind if node.kind != FileType::Fifo => return bind(parent, name, node, index),
        Way::Bind | Way::Make => {}
    }
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(parent, name, node.kind, mode, node.number) {
        Ok(()) => own(parent, name, node).at_index(Step::Device, index),
        Err(Errno::EXIST) => {
            let stat =
                rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).at_index(Step::Device, index)?;
            if FileType::from_raw_mode(stat.st_mode) == node.kind && stat.st_rdev == node.number {
                return Ok(());
            }
            // The image has something else under the name of a device, such as a link or a file.
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).at_index(Step::Device, index)?;
            rustix::fs::mknodat(parent, name, node.kind, mode, node.number).at_index(Step::Device, index)?;
            own(parent, name, node).at_index(Step::Device, index)
        }
        Err(Errno::PERM) => bind(parent, name, node, index),
        Err(errno) => Err(errno).at_index(Step::Device, index),
    }
}

fn own(parent: BorrowedFd<'_>, name: &CStr, node: &Node) -> rustix::io::Result<()> {
    let Some((uid, gid)) = node.owner else {
        return Ok(());
    };
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Binds the host's node, if it is the device that is wanted.
fn bind(parent: BorrowedFd<'_>, name: &CStr, node: &Node, index: usize) -> Result<(), Failure> {
    let tree = target::copy_tree(CWD, &node.host, false).at_index(Step::Device, index)?;
    let stat = rustix::fs::fstat(&tree).at_index(Step::Device, index)?;
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != node.number {
        return Err(Errno::NODEV).at_index(Step::Device, index);
    }
    attach(parent, name, &tree, index)
}

/// Puts a node over a file, which is made for it.
fn attach(parent: BorrowedFd<'_>, name: &CStr, tree: &OwnedFd, index: usize) -> Result<(), Failure> {
    match target::empty_file(parent, name) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).at_index(Step::Device, index),
    }
    let place = target::open(parent, Path::new(&*name.to_string_lossy()), Links::Refused);
    attach_at(tree, place.at_index(Step::Device, index)?, c"").at_index(Step::Device, index)
}

/// Whether a status is that of a character device of these numbers.
pub(crate) fn is_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(major, minor)
}

/// Puts the terminal at /dev/console.
pub(crate) fn console(root: BorrowedFd<'_>, terminal: &OwnedFd) -> Result<(), Failure> {
    let dev = open(root)?;
    let tree = target::copy_tree(terminal.as_fd(), c"", false).at(Step::Console)?;
    let name = Path::new("console");
    let place =
        target::open_or_make(dev.as_fd(), name, Links::Refused, Kind::File, 0).map_err(|failure| {
            Failure {
                step: Step::Console,
                ..failure
            }
        })?;
    attach_at(&tree, &place, c"").at(Step::Console)
}
