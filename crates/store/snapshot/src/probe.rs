//! What this host can do.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_rootpath::Root;
use dhow_sys::mount;

use crate::{Context, Error};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A directory of the store for a moment.
struct Scratch(PathBuf);

impl Scratch {
    fn make(root: &Path, parts: &[&str]) -> Result<Self, Error> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        // The sweep takes it for one of a dead process' when it is left.
        let dir = root
            .join("tmp")
            .join(format!("probe-{}-snapshot-{serial}", std::process::id()));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let scratch = Self(dir);
        for part in parts {
            let path = scratch.0.join(part);
            builder
                .create(&path)
                .context(|| format!("make the directory {}", path.display()))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) {
            let removed = Root::open(parent).and_then(|root| root.remove_all(Path::new(name)));
            // What is left is swept.
            drop(removed);
        }
    }
}

/// Mounts an overlay as snapshots need it, and tries what layers below it need: a whiteout.
pub(crate) fn overlay(root: &Path) -> Result<(), Error> {
    let scratch = Scratch::make(root, &["lower", "upper", "work"])?;
    let path = |part: &str| scratch.0.join(part);
    let whiteout = path("lower").join("gone");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &whiteout,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .map_err(io::Error::from)
    .context(|| "make a whiteout")?;
    let mut options = vec![("index", Some("off")), ("metacopy", Some("off"))];
    if dhow_layer::privileged() {
        options.push(("redirect_dir", Some("off")));
    } else {
        options.push(("userxattr", None));
    }
    let (lower, upper, work) = (path("lower"), path("upper"), path("work"));
    let mounted =
        mount::overlay(&[&lower], Some(&upper), Some(&work), &options).context(|| "mount an overlay")?;
    let probe = Root::from_fd(mounted);
    probe
        .write(Path::new("probe"), b"", 0o600, None)
        .context(|| "write to an overlay")
}

/// Whether a plain copy can be mounted.
pub(crate) fn copy(root: &Path) -> bool {
    mount::clone_of(&root.join("snapshots"), true).is_ok()
}
