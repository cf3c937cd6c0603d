//! One directory of a group: making it, and reading and writing the files in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::hierarchy::{Controllers, Hierarchy};
use crate::setting::{Missing, Setting};
use crate::{Context as _, Error};

/// Largest control file that is read: `cgroup.procs` of a group with some 500 000 processes.
pub(crate) const MOST_BYTES: usize = 4 << 20;

/// A group's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    pub(crate) at: PathBuf,
    pub(crate) controllers: Controllers,
    pub(crate) unified: bool,
    /// See [`Hierarchy::label`].
    pub(crate) label: String,
    /// Whether this process made it, and it goes when the rest cannot be made.
    pub(crate) fresh: bool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens the directory `at` of `hierarchy`.
    pub(crate) fn open(hierarchy: &Hierarchy, at: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&at, flags, Mode::empty())?;
        let controllers = hierarchy.controllers;
        Ok(Self {
            fd,
            at,
            controllers,
            unified: hierarchy.unified,
            label: hierarchy.label.clone(),
            fresh: false,
        })
    }

    /// Makes the directory `path` below `base`, with the directories between.
    pub(crate) fn make(hierarchy: &Hierarchy, base: &Path, path: &Path) -> io::Result<Self> {
        let at = base.join(path);
        let mode = Mode::from_raw_mode(0o755);
        let cpuset = hierarchy.controllers.intersects(Controllers::CPUSET);
        let made = match rustix::fs::mkdir(&at, mode) {
            Err(Errno::NOENT) => {
                make_parents(base, path, mode, cpuset)?;
                rustix::fs::mkdir(&at, mode)
            }
            outcome => outcome,
        };
        made?;
        let opened = if cpuset { inherit_cpuset(base, &at) } else { Ok(()) }
            .and_then(|()| Self::open(hierarchy, at.clone()));
        if opened.is_err() && rustix::fs::rmdir(&at).is_err() {
            // The first failure is the one to report; `delete` sweeps what is left.
            return opened;
        }
        opened.map(|dir| Self { fresh: true, ..dir })
    }

    /// Opens the directory `path` below `base` that was there before.
    pub(crate) fn take_over(hierarchy: &Hierarchy, base: &Path, path: &Path) -> io::Result<Self> {
        let at = base.join(path);
        if hierarchy.controllers.intersects(Controllers::CPUSET) {
            inherit_cpuset(base, &at)?;
        }
        Self::open(hierarchy, at)
    }

    /// The groups `path` below this one, which must be there.
    pub(crate) fn below(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let name = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(Self {
            fd: rustix::fs::openat(&self.fd, name, flags, Mode::empty())?,
            at: self.at.join(path),
            controllers: self.controllers,
            unified: self.unified,
            label: self.label.clone(),
            fresh: false,
        })
    }

    /// Writes `value` into `file`, which must exist.
    pub(crate) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write_at(self.fd.as_fd(), file, value)
    }

    /// A file opened for writing.
    pub(crate) fn open_write(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(
            &self.fd,
            file,
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?)
    }

    /// A file opened for reading.
    pub(crate) fn open_read(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(
            &self.fd,
            file,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?)
    }

    /// All of a file.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        read_all(&self.open_read(file)?).map_err(|error| {
            if is_gone(&error) {
                io::Error::new(io::ErrorKind::NotFound, error)
            } else {
                error
            }
        })
    }

    /// All of a file; nothing when the kernel does not have it.
    pub(crate) fn read_if_there(&self, file: &str) -> io::Result<String> {
        match self.read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            outcome => outcome,
        }
    }

    /// Writes settings. The kernel holds some against each other (quota and period, memory and memory with swap), and
    /// which one must come first depends on the old values: what it calls invalid is written again after the rest.
    pub(crate) fn apply<'a>(&self, settings: impl Iterator<Item = &'a Setting>) -> Result<(), Error> {
        let mut again = Vec::new();
        for setting in settings {
            match self.put(setting) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => again.push(setting),
                Err(error) => return Err(self.refused(setting, error)),
            }
        }
        again
            .into_iter()
            .try_for_each(|setting| self.put(setting).map_err(|error| self.refused(setting, error)))
    }

    /// Writes one setting, or what stands for it when the file does not exist.
    fn put(&self, setting: &Setting) -> io::Result<()> {
        let outcome = if setting.keeps_first {
            let old = self.read(&setting.file)?;
            let first = old.split_ascii_whitespace().next().unwrap_or("max");
            self.write(&setting.file, &format!("{first} {}", setting.value))
        } else {
            self.write(&setting.file, &setting.value)
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match &setting.missing {
                Missing::Pass => Ok(()),
                Missing::Other(file, value) => self.write(file, value),
                // Without swap accounting the file is missing. Without swap that is no loss: the limit of memory
                // holds by itself.
                Missing::Refuse if setting.is_about_swap() && host_has_no_swap() => Ok(()),
                Missing::Refuse => Err(error),
            },
            outcome => outcome,
        }
    }

    fn refused(&self, setting: &Setting, error: io::Error) -> Error {
        let file = self.at.join(&setting.file);
        let missing = error.kind() == io::ErrorKind::NotFound;
        if error.kind() == io::ErrorKind::ResourceBusy && setting.file == "memory.limit_in_bytes" {
            let number = |file| crate::stats::number(&self.read_if_there(file).unwrap_or_default());
            let message = format!(
                "unable to set memory limit to {} (current usage: {}, peak usage: {})",
                setting.value,
                number("memory.usage_in_bytes"),
                number("memory.max_usage_in_bytes"),
            );
            return Error::wrap(error, message).with_hint(setting.fix());
        }
        let wrapped = Error::wrap(error, format!("write {:?} to {}", setting.value, file.display()));
        if missing {
            let hint = format!("this kernel has no {} here; leave the limit out", setting.file);
            return wrapped.with_kind(ErrorKind::Unsupported).with_hint(hint);
        }
        wrapped.with_hint(setting.fix())
    }

    /// Gives a file to a user.
    pub(crate) fn give(&self, file: &str, uid: u32) -> io::Result<()> {
        let owner = rustix::fs::Uid::from_raw(uid);
        Ok(rustix::fs::chownat(
            &self.fd,
            file,
            Some(owner),
            None,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// The processes of this directory alone. Numbers of processes outside our PID namespace read as 0 and are
    /// left out.
    pub(crate) fn own_procs(&self) -> Result<Vec<i32>, Error> {
        let text = self
            .read("cgroup.procs")
            .context(|| format!("read {}", self.at.join("cgroup.procs").display()))?;
        Ok(pids(&text))
    }
}

/// Whether a group is not there, or no more: what was opened before somebody else removed it answers `ENODEV` (kernel
/// `cgroup_kn_lock_live`). Of a written setting that can mean something else: that a device does not exist.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Names of the directories in a directory of a hierarchy; gone means none.
pub(crate) fn children(at: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

pub(crate) fn pids(text: &str) -> Vec<i32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

fn write_at(dir: BorrowedFd<'_>, file: &str, value: &str) -> io::Result<()> {
    let fd = rustix::fs::openat(
        dir,
        file,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    write_fd(&fd, value)
}

/// One write: control files take a value whole or not at all.
pub(crate) fn write_fd(fd: &OwnedFd, value: &str) -> io::Result<()> {
    let written = loop {
        match rustix::io::write(fd, value.as_bytes()) {
            Err(Errno::INTR) => {}
            outcome => break outcome?,
        }
    };
    if written == value.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

pub(crate) fn read_all(fd: &OwnedFd) -> io::Result<String> {
    dhow_sys::file::rest_of_text(fd, MOST_BYTES)
}

fn make_parents(base: &Path, path: &Path, mode: Mode, cpuset: bool) -> io::Result<()> {
    let Some(parents) = path.parent() else {
        return Ok(());
    };
    let mut at = base.to_owned();
    for part in parents {
        at.push(part);
        match rustix::fs::mkdir(&at, mode) {
            Ok(()) if cpuset => {
                inherit_cpuset(base, &at)?;
                // What is made in it is born with its CPUs. To write them into each looks at all of its siblings and plans
                // the scheduling of the host anew, which takes the longer the more containers there are. A kernel that
                // refuses leaves the slow way.
                drop(std::fs::write(at.join("cgroup.clone_children"), "1"));
            }
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty, unless its parent hands down what it has, and no process can enter an empty one: each takes
/// what its parent has (kernel `cgroup-v1/cpusets.rst`, section 1.4).
fn inherit_cpuset(base: &Path, leaf: &Path) -> io::Result<()> {
    const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
    let read = |at: &Path, file: &str| dhow_sys::file::read_text(at.join(file), MOST_BYTES);
    let mut empty = Vec::with_capacity(FILES.len());
    for file in FILES {
        if read(leaf, file)?.trim().is_empty() {
            empty.push(file);
        }
    }
    let Ok(below) = leaf.strip_prefix(base) else {
        return Ok(());
    };
    for file in empty {
        let mut at = base.to_owned();
        for part in below {
            let parent = at.clone();
            at.push(part);
            if at == leaf || read(&at, file)?.trim().is_empty() {
                std::fs::write(at.join(file), read(&parent, file)?.trim())?;
            }
        }
    }
    Ok(())
}

fn host_has_no_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() <= 1)
}

/// Removes an empty directory of a hierarchy.
pub(crate) fn remove(at: &Path) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(rustix::fs::CWD, at, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_group_that_was_removed_while_its_file_was_open_is_gone() {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"];
        let place = mounts.iter().find_map(|mount| {
            let place = Path::new(mount).join(format!("dhow-gone-{}", std::process::id()));
            std::fs::create_dir(&place).ok()?;
            let file = std::fs::File::open(place.join("cgroup.procs"));
            if file.is_err() {
                drop(std::fs::remove_dir(&place));
            }
            Some((place, file.ok()?))
        });
        let Some((place, mut file)) = place else {
            eprintln!("skipped: no control group can be made here");
            return;
        };
        std::fs::remove_dir(&place).unwrap();
        let error = file.read_to_string(&mut String::new()).unwrap_err();
        assert!(is_gone(&error), "{error:?}");
        assert!(is_gone(&std::fs::File::open(place).unwrap_err()));
        assert!(!is_gone(&io::Error::from_raw_os_error(22)));
    }
}
