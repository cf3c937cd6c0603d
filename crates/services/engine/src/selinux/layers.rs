//! The label of layers: what containers may read and execute, and none may write.
//!
//! A container sees its root with a label of its own (`context=` of the overlay). But overlayfs maps the layer's file into
//! memory, not its own (`ovl_mmap` in fs/overlayfs/file.c), and when such memory is protected the kernel asks for that
//! file's label (`selinux_file_mprotect`): a layer without a label for containers lets no dynamic program start, since the
//! loader protects what it relocated. Tools with a policy package have file contexts for their stores, and every file is
//! born with the label of its folder. Here the folder of layers gets that label, too; what came otherwise (layers from
//! before, and those captured from a container's changes) is labelled when a container first uses it.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::{contexts_text, label_folder, set};
use crate::{Context as _, Error};

/// Where the kernel says whether its policy knows a context.
const CHECK: &str = "/sys/fs/selinux/context";

/// Marks the folder of layers of a store, so that new ones are born with the label. Without SELinux it costs one call.
pub(crate) fn mark(root: &Path) -> Result<(), Error> {
    if !dhow_runtime::lsm::selinux_enabled() {
        return Ok(());
    }
    let Some(label) = label() else { return Ok(()) };
    let folder = root.join("layers");
    match fs::symlink_metadata(&folder) {
        Ok(_) if !carries(&folder, &label) => permitted(set(&folder, &label), &folder),
        _ => Ok(()),
    }
}

/// Sees to it that containers may read what is below these folders.
pub(crate) fn make_readable<'a>(folders: impl Iterator<Item = &'a Path>) -> Result<(), Error> {
    let Some(label) = label() else { return Ok(()) };
    for folder in folders.filter(|folder| !carries(folder, &label)) {
        permitted(label_all(folder, &label), folder)?;
    }
    Ok(())
}

/// Labels a plain copy, which is no file system of its own that could have a label as a whole. What the container makes in
/// it later is born with the label of its folder.
pub(crate) fn make_own(folder: &Path, label: &str) -> Result<(), Error> {
    if carries(folder, label) {
        return Ok(());
    }
    permitted(label_all(folder, label), folder)
}

/// The policy's label of files that containers share and cannot write, else that of containers' files; none where the
/// kernel's policy knows neither.
fn label() -> Option<String> {
    let text = contexts_text()?;
    let known = |label: &String| {
        let check = fs::OpenOptions::new().write(true).open(CHECK);
        check
            .and_then(|mut check| check.write_all(label.as_bytes()))
            .is_ok()
    };
    ["ro_file", "file"]
        .iter()
        .filter_map(|key| super::context(&text, key))
        .map(|context| format!("{}:s0", context.join(":")))
        .find(known)
}

/// Whether a file has this label, whoever made it: a file is born with the user of its maker, and no rule asks for that.
pub(super) fn carries(path: &Path, label: &str) -> bool {
    let mut found = [0_u8; 4096];
    let Ok(length) = rustix::fs::lgetxattr(path, c"security.selinux", &mut found[..]) else {
        return false;
    };
    let found = found.get(..length).unwrap_or_default();
    let found = found.strip_suffix(b"\0").unwrap_or(found);
    let tail = |text: &[u8]| {
        let at = text.iter().position(|byte| *byte == b':')?;
        text.get(at..).map(<[u8]>::to_vec)
    };
    tail(found).is_some() && tail(found) == tail(label.as_bytes())
}

/// Labels a folder with all below; itself last, since its label tells that the rest was done.
pub(super) fn label_all(path: &Path, label: &str) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty())?;
    let device = rustix::fs::fstat(&folder)?.st_dev;
    label_folder(&folder, device, label, 0)?;
    set(path, label)
}

/// A store that may not be labelled (another's, or one that is only read) is used as it is: the policy may let containers
/// read it all the same, and says so itself if it does not.
fn permitted(done: rustix::io::Result<()>, path: &Path) -> Result<(), Error> {
    match done {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno)).context(|| format!("label {}", path.display())),
    }
}
