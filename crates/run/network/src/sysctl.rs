use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use dhow_types::ErrorKind;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{Context as _, Error};

/// Writes `/proc/sys/net/<key>` of the namespace that the thread is in. The keys are built from device names that
/// this crate made or checked.
pub(crate) fn write(key: &str, value: &str) -> Result<(), Error> {
    put(key, value).context(|| format!("set net/{key} to {value}"))
}

/// As [`write`]; a key that is not there is done. For IPv6, which a kernel may lack.
pub(crate) fn write_if_there(key: &str, value: &str) -> Result<(), Error> {
    match write(key, value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes `value` unless it is there already: a write to a forwarding switch walks every interface, and `/proc/sys`
/// may be read-only where an administrator has set all this before.
pub(crate) fn ensure(key: &str, value: &str) -> Result<(), Error> {
    if is(key, value) { Ok(()) } else { write(key, value) }
}

/// A `/proc/sys` in which nobody else looks names up. The kernel keeps one entry of the same name for each network namespace that
/// was looked at through one mount of proc, all in one list, and compares them one by one (`proc_sys_compare` in
/// fs/proc/proc_sysctl.c, Linux 6.18): beside 1,000 containers a name in the host's takes 0.36 ms, in a new mount 0.015 ms.
pub(crate) struct View(Option<OwnedFd>);

impl View {
    /// Of the process ids that this process sees; the host's own where proc may not be mounted (a user namespace that does not own
    /// them).
    pub(crate) fn new() -> Self {
        let mounted = || {
            let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, quiet)
        };
        Self(mounted().ok())
    }

    /// As the function of the same name.
    pub(crate) fn write(&self, key: &str, value: &str) -> Result<(), Error> {
        let Some(proc) = &self.0 else {
            return write(key, value);
        };
        let put = || -> io::Result<()> {
            let path = format!("sys/net/{key}");
            let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            File::from(file).write_all(value.as_bytes())
        };
        put().context(|| format!("set net/{key} to {value}"))
    }

    /// As the function of the same name.
    pub(crate) fn write_if_there(&self, key: &str, value: &str) -> Result<(), Error> {
        match self.write(key, value) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}

fn put(key: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path(key))?
        .write_all(value.as_bytes())
}

/// Whether the kernel knows IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether the administrator left it on.
pub(crate) fn host_wants_ipv6() -> bool {
    has_ipv6() && !is("ipv6/conf/all/disable_ipv6", "1")
}

/// Whether the key is there and has this short value.
pub(crate) fn is(key: &str, value: &str) -> bool {
    let mut now = [0; 16];
    File::open(path(key))
        .and_then(|mut file| file.read(&mut now))
        .is_ok_and(|length| now[..length].trim_ascii_end() == value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_its_own_sets_what_the_namespace_of_the_thread_has() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root makes a network namespace here");
            return;
        }
        let key = "ipv4/conf/lo/accept_local";
        let at_home = is(key, "1");
        std::thread::spawn(move || {
            dhow_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let view = View::new();
            assert!(view.0.is_some());
            for value in ["1", "0", "1"] {
                view.write(key, value).unwrap();
                assert!(is(key, value));
            }
            View(None).write(key, "0").unwrap();
            assert!(is(key, "0"));
            view.write_if_there("ipv4/conf/nobody/accept_local", "1").unwrap();
            assert!(view.write("ipv4/conf/lo/accept_local", "x").is_err());
        })
        .join()
        .unwrap();
        assert_eq!(is(key, "1"), at_home);
    }
}
