//! AppArmor profile and SELinux labels of a process.
//!
//! Both are set by writing to files of procfs, and a write to a file that only looks like one of them sets nothing: a
//! container would run unconfined (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881). So the files are opened at once when
//! the process is born, while all it can reach is the host's, and only if they are procfs's own, with nothing mounted
//! over them. The descriptors serve until execve; no path of the container is ever asked.
//!
//! The label is taken on by the stub that executes the program ([`dhow_sys::stub`]). SELinux wants the file that a label is
//! entered by to be an entry point of it, so the stub gets the label of the container's root. An AppArmor profile must
//! be one for containers (`flags=(attach_disconnected)`), as those of docker, podman and this engine are.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_oci::runtime::Process;
use dhow_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::Error;
use crate::report::{At, Failure, Step};

/// Longest name or label: what fits in a page with the word before it.
const LONGEST: usize = 4000;

/// The word before an AppArmor profile's name.
const EXEC: &[u8] = b"exec ";

/// What a process is to become at its next execve.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// The command for AppArmor: `exec <profile>`.
    apparmor: Option<Vec<u8>>,
    /// SELinux label.
    selinux: Option<Vec<u8>>,
}

impl Labels {
    /// The labels of a process, if the host can apply them.
    ///
    /// # Errors
    /// `Unsupported` in runc's words where the host has not that module enabled.
    pub(crate) fn prepare(process: &Process) -> Result<Option<Self>, Error> {
        let apparmor = process
            .apparmor_profile
            .as_deref()
            .filter(|name| !name.is_empty());
        let selinux = selinux(process.selinux_label.as_deref())?;
        let apparmor = match apparmor {
            // Unconfined is what everybody is where there is no AppArmor.
            Some("unconfined") if !apparmor_enabled() => None,
            Some(_) if !apparmor_enabled() => {
                let message = "apparmor: config provided but apparmor not supported";
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint("boot with apparmor=1, or leave process.apparmorProfile out"));
            }
            Some(name) => {
                checked("apparmor profile", name)?;
                Some([EXEC, name.as_bytes()].concat())
            }
            None => None,
        };
        let labels = Self {
            apparmor,
            selinux: selinux.map(|label| label.as_bytes().to_vec()),
        };
        Ok((labels.apparmor.is_some() || labels.selinux.is_some()).then_some(labels))
    }

    /// The profile or label that a step applies, as the spec names it.
    pub(crate) fn named(&self, step: Step) -> Option<String> {
        let name = match step {
            Step::AppArmor => self.apparmor.as_deref()?.strip_prefix(EXEC)?,
            Step::Selinux => self.selinux.as_deref()?,
            _ => return None,
        };
        Some(format!("{:?}", String::from_utf8_lossy(name)))
    }
}

/// A label of SELinux, if there is one and the host has SELinux.
///
/// # Errors
/// `Unsupported` in runc's words where it has not.
pub(crate) fn selinux(label: Option<&str>) -> Result<Option<&str>, Error> {
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok(None);
    };
    checked("selinux label", label)?;
    if selinux_enabled() {
        return Ok(Some(label));
    }
    let message = "selinux label is specified in config, but selinux is disabled or not supported";
    Err(Error::new(ErrorKind::Unsupported, message)
        .with_hint("boot with selinux=1, or leave process.selinuxLabel out"))
}

/// The label that file systems of the container get, and what is to be said where the host has no SELinux: nothing reads
/// the label there, and what would confine the process by it is refused by [`selinux`]. mount(8) leaves `context=` out
/// then, and so does crun.
///
/// # Errors
/// `InvalidArgument` for a text that is no label.
pub(crate) fn mount_label(label: Option<&str>) -> Result<(Option<&str>, Option<String>), Error> {
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok((None, None));
    };
    checked("mount label", label)?;
    if selinux_enabled() {
        return Ok((Some(label), None));
    }
    let warning = format!("mount label {label:?} is left out: SELinux is disabled or not supported");
    Ok((None, Some(warning)))
}

fn checked(what: &str, text: &str) -> Result<(), Error> {
    if text.len() > LONGEST || text.bytes().any(|byte| byte.is_ascii_control()) {
        let start: String = text.chars().take(64).collect();
        let message = format!("{what} {start:?} is too long or has control characters");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// Whether AppArmor confines processes of this host.
#[must_use]
pub fn apparmor_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
        && Path::new("/sys/kernel/security/apparmor").exists()
}

/// Whether the kernel has this AppArmor profile and lets this process take it on. Everybody may ask so, where the list of
/// profiles is for those alone who may load one (apparmor `procattr.c`, `permprofile`).
#[must_use]
pub fn apparmor_allows(profile: &str) -> bool {
    let ask = || {
        checked("apparmor profile", profile).ok()?;
        let file = attribute(Path::new("/proc"), "apparmor/current").ok()?;
        rustix::io::write(&file, format!("permprofile {profile}").as_bytes()).ok()
    };
    apparmor_enabled() && ask().is_some()
}

/// Whether SELinux labels processes of this host, enforcing or not.
#[must_use]
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The files of procfs that labels are written to.
#[derive(Debug)]
pub(crate) struct Attributes {
    apparmor: Option<OwnedFd>,
    selinux: Option<OwnedFd>,
}

/// The SELinux label that the stub's file gets, where it needs one.
pub(crate) type StubLabel = Option<Vec<u8>>;

impl Attributes {
    /// Opens what `labels` need, in a process that has entered nothing of the container yet; gives keys that the process
    /// makes its label.
    pub(crate) fn open(labels: Option<&Labels>) -> Result<Option<Self>, Failure> {
        let Some(labels) = labels else { return Ok(None) };
        let procfs = Path::new("/proc");
        let apparmor = match &labels.apparmor {
            Some(_) => Some(
                attribute(procfs, "apparmor/exec")
                    // Before Linux 5.8 the file of the first module is all there is.
                    .or_else(|errno| match errno {
                        Errno::NOENT => attribute(procfs, "exec"),
                        _ => Err(errno),
                    })
                    .at(Step::AppArmor)?,
            ),
            None => None,
        };
        let selinux = match &labels.selinux {
            Some(label) => {
                let keys = attribute(procfs, "keycreate").at(Step::Selinux)?;
                rustix::io::write(&keys, label).at(Step::Selinux)?;
                Some(attribute(procfs, "exec").at(Step::Selinux)?)
            }
            None => None,
        };
        Ok(Some(Self { apparmor, selinux }))
    }

    /// All of them.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.apparmor.iter().chain(&self.selinux).map(AsFd::as_fd)
    }

    /// Writes the labels that the next execve takes on; the label that the stub's file must have for that.
    pub(crate) fn apply(&self, labels: &Labels) -> Result<StubLabel, Failure> {
        if let (Some(file), Some(command)) = (&self.apparmor, &labels.apparmor) {
            rustix::io::write(file, command).at(Step::AppArmor)?;
        }
        let (Some(file), Some(label)) = (&self.selinux, &labels.selinux) else {
            return Ok(None);
        };
        let mut root = vec![0_u8; LONGEST];
        // A root that has no label leaves the stub as it is made.
        let length = rustix::fs::getxattr(c"/", c"security.selinux", &mut root).ok();
        rustix::io::write(file, label).at(Step::Selinux)?;
        Ok(length.map(|length| {
            root.truncate(length);
            root
        }))
    }
}

/// Opens a file of `thread-self/attr` of a procfs for writing. Nothing that is mounted over a part of it is entered, and
/// what is no procfs is ENOTSUP.
fn attribute(procfs: &Path, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let procfs = rustix::fs::openat(CWD, procfs, flags, Mode::empty())?;
    if rustix::fs::fstatfs(&procfs)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::NOTSUP);
    }
    // `thread-self` is a link of procfs itself, and leads to a place below.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let path = format!("thread-self/attr/{name}");
    openat2(procfs, path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_nobody_loaded_is_allowed_to_nobody() {
        assert!(!apparmor_allows("dhow-none-of-this-name"));
        assert!(!apparmor_allows("a\nb"));
    }

    #[test]
    fn a_file_of_the_right_name_outside_of_procfs_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("thread-self/attr");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("exec"), "").unwrap();
        assert_eq!(attribute(scratch.path(), "exec").unwrap_err(), Errno::NOTSUP);
        std::os::unix::fs::symlink("/proc", scratch.path().join("link")).unwrap();
        assert!(attribute(&scratch.path().join("link"), "exec").is_err());
    }

    #[test]
    fn a_file_that_is_mounted_over_the_attribute_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        // A mount namespace of this thread's own, in which nothing spreads.
        let thread = std::thread::spawn(|| {
            dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let private = dhow_sys::mount::Attributes {
                propagation: Some(rustix::mount::MountPropagationFlags::PRIVATE),
                ..dhow_sys::mount::Attributes::default()
            };
            dhow_sys::mount::set_attributes_at(CWD, c"/", true, &private).unwrap();
            assert!(
                attribute(Path::new("/proc"), "exec").is_ok(),
                "procfs is as it should be"
            );
            let scratch = tempfile::NamedTempFile::new().unwrap();
            let target = format!(
                "/proc/self/task/{}/attr",
                rustix::thread::gettid().as_raw_nonzero()
            );
            for (over, what) in [
                (format!("{target}/exec"), scratch.path().to_owned()),
                (target, std::env::temp_dir()),
            ] {
                rustix::mount::mount_bind(&what, &over).unwrap();
                assert_eq!(
                    attribute(Path::new("/proc"), "exec").unwrap_err(),
                    Errno::XDEV,
                    "{over}"
                );
                rustix::mount::unmount(&over, rustix::mount::UnmountFlags::DETACH).unwrap();
            }
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_name_that_would_be_two_words_of_a_command_is_refused() {
        for name in ["a\nb", "a\0b", &"x".repeat(5000)] {
            assert_eq!(
                checked("profile", name).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
        }
        checked("profile", "containers-default-0.57.4-apparmor1//&unconfined").unwrap();
        checked("label", "system_u:system_r:container_t:s0:c1,c2").unwrap();
    }
}
