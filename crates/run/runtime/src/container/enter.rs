//! One more process in a container that has a folder.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_cgroup::{Group, SubGroups};
use dhow_oci::runtime::Process;
use dhow_types::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use super::{Container, Status, resctrl};
use crate::exec::Joined;
use crate::{Context as _, Error, Exec, Running, Settings, Stdio};

/// Largest user database that is read for a home directory.
const LARGEST_PASSWD: u64 = 4 << 20;

/// What [`Container::exec`] is asked for.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The program and its rights.
    pub process: Process,
    /// Standard streams.
    pub stdio: Stdio,
    /// How it is compiled.
    pub settings: &'a Settings,
    /// Whether it is begun in a paused container too, where it stays frozen until that is resumed.
    pub in_paused: bool,
    /// Groups below the container's to be in, in place of that.
    pub groups: Option<SubGroups>,
}

impl Container {
    /// Starts a process in the container. It is a child of the caller.
    ///
    /// # Errors
    /// `FailedPrecondition` for a container that is stopped or paused; `NotFound` and `PermissionDenied` for the program.
    pub fn exec(&self, entry: Entry<'_>) -> Result<Running, Error> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::FailedPrecondition, message));
        match self.status()? {
            Status::Stopped => return wrong("cannot exec in a stopped container"),
            Status::Paused if !entry.in_paused => {
                return wrong("cannot exec in a paused container (use --ignore-paused to override)");
            }
            Status::Creating => return wrong("cannot exec in a container that is being created"),
            _ => {}
        }
        let Some((pid, init)) = self.pidfd()? else {
            return wrong("cannot exec in a stopped container");
        };
        let mut process = entry.process;
        set_home(&mut process, || {
            open_root(Path::new(&format!("/proc/{pid}/root")))
        });
        let (spec, state) = (self.spec()?, self.state()?);
        let group = match (self.group()?, &entry.groups) {
            (Some(group), Some(below)) => Some(group.below(below).context(|| "enter the sub-cgroup")?),
            (None, Some(_)) => return wrong("container has no control group of its own"),
            // Its first process moved, and somebody removed what it left: nobody runs outside of all limits for that.
            (None, None)
                if self
                    .record()
                    .is_some_and(|record| !record.cgroup_paths.is_empty()) =>
            {
                let beside = Group::of_process(pid);
                Some(beside.context(|| "find the control group of the container's first process")?)
            }
            (group, None) => group,
        };
        let joined = Joined {
            classes: resctrl::entrances(&self.folder)?,
            group_chosen: entry.groups.is_some(),
        };
        let exec = Exec {
            init: init.as_fd(),
            process: &process,
            seccomp: spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
            linux: spec.linux.as_ref(),
            annotations: Some(&spec.annotations),
            group: group.as_ref(),
            stdio: entry.stdio,
            settings: entry.settings,
            state: Some(&state),
        };
        crate::exec::exec_in(&exec, &joined)
    }
}

/// The root of a file system, to look for names in.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Sets HOME, if the spec does not, to what the container's user database says, as runc does; "/" for a user who is
/// not in it.
pub(crate) fn set_home(process: &mut Process, root: impl FnOnce() -> io::Result<OwnedFd>) {
    // Of several the last counts, as for the program.
    let last = process
        .env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("HOME="));
    let given = last.is_some_and(|value| !value.is_empty());
    if given {
        return;
    }
    let home = root().and_then(|root| passwd(root.as_fd())).ok();
    let home = home.and_then(|passwd| home_of(&passwd, process.user.uid));
    process.env.retain(|variable| !variable.starts_with("HOME="));
    process
        .env
        .push(format!("HOME={}", home.as_deref().unwrap_or("/")));
}

/// The container's user database. It is the image's: links stay inside, and nothing but a file is read (CVE-2024-9676).
fn passwd(root: BorrowedFd<'_>) -> io::Result<String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat2(root, c"etc/passwd", flags, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(LARGEST_PASSWD)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The home of a user: the sixth field of the first line with the id in the third (passwd(5)).
fn home_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))?;
    let home = *line.get(5)?;
    (home.starts_with('/') && !home.contains('\0')).then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_the_containers_users_unless_it_is_given() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let file = root.path().join("etc/passwd");
        std::fs::write(
            &file,
            "root:x:0:0:r:/root:/bin/sh\nodd:x:7\nu:x:5:5::/home/u:/bin/sh\n",
        )
        .unwrap();
        let home = |env: &[&str], uid| {
            let mut process = Process {
                env: env.iter().map(|variable| (*variable).to_owned()).collect(),
                ..Process::default()
            };
            process.user.uid = uid;
            set_home(&mut process, || open_root(root.path()));
            process.env
        };
        assert_eq!(home(&["A=b"], 0), ["A=b", "HOME=/root"]);
        assert_eq!(home(&["HOME="], 5), ["HOME=/home/u"]);
        assert_eq!(home(&["HOME=/x"], 0), ["HOME=/x"]);
        assert_eq!(home(&[], 7), ["HOME=/"]);
        assert_eq!(home(&[], 99), ["HOME=/"]);
        // A pipe in place of the file does not hold the runtime up.
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &file,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(home(&[], 0), ["HOME=/"]);
        // Nor does a link lead out.
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert_eq!(home(&[], 0), ["HOME=/"]);
    }
}
