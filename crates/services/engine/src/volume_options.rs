//! Volumes that are not a folder of ours: a folder of the host, or a file system that is mounted while a container has it
//! (the local driver's `type`, `device` and `o`, as docker and podman have them).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, flock, statx};
use rustix::mount::MountAttrFlags;

use crate::container::{Config, make_folder};
use crate::{Context as _, Engine, Error, Volume};

/// What is behind a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A folder of ours.
    Folder,
    /// A folder of the host.
    Bind(PathBuf),
    /// A file system.
    Mounted {
        /// Its kind: `tmpfs`, `nfs`, `ext4`.
        kind: String,
        /// Its own options.
        options: Vec<(String, Option<String>)>,
        /// What holds for the mount.
        attributes: MountAttrFlags,
    },
}

impl Backing {
    /// What the options mean.
    ///
    /// # Errors
    /// `InvalidArgument` for an option that nobody knows, or a device that is not there.
    pub(crate) fn of(options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let bad = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        if let Some(name) = options
            .keys()
            .find(|name| !matches!(name.as_str(), "type" | "device" | "o"))
        {
            return bad(format!(
                "invalid option {name:?} for driver 'local': use type, device and o"
            ));
        }
        let text = |name: &str| options.get(name).map_or("", String::as_str);
        let (kind, device) = (text("type"), text("device"));
        let words: Vec<&str> = text("o")
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        if kind == "bind" || words.iter().any(|word| matches!(*word, "bind" | "rbind")) {
            let path = PathBuf::from(device);
            if !path.is_absolute() || !path.exists() {
                return bad(format!(
                    "invalid volume option device for driver 'local': faccessat {device}: no such file or directory"
                ));
            }
            return Ok(Self::Bind(path));
        }
        match kind {
            "" | "none" if device.is_empty() && words.is_empty() => Ok(Self::Folder),
            "" | "none" => bad("a volume of the driver 'local' needs a type beside device and o".to_owned()),
            _ => Ok(Self::mounted(kind, device, &words)),
        }
    }

    fn mounted(kind: &str, device: &str, words: &[&str]) -> Self {
        let mut attributes = MountAttrFlags::empty();
        let mut options = Vec::new();
        if !device.is_empty() {
            options.push(("source".to_owned(), Some(device.to_owned())));
        }
        for word in words {
            match *word {
                "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
                "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
                "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
                "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
                "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
                "rw" | "exec" | "suid" | "dev" | "defaults" => {}
                word => options.push(match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        Self::Mounted {
            kind: kind.to_owned(),
            options,
            attributes,
        }
    }
}

impl Engine {
    /// Mounts what the container's volumes are, where nobody has done so yet. The mounts are the host's, since others that
    /// have the volume see the same; they go with the last container.
    pub(crate) fn hold_volumes(&self, config: &Config) -> Result<(), Error> {
        for name in config.mounts.iter().filter_map(|mount| mount.name.as_deref()) {
            // One that was removed by force has nothing to mount.
            if let Ok(volume) = self.volume(name) {
                self.mount_volume(&volume)?;
            }
        }
        Ok(())
    }

    /// Mounts a volume; where its content is.
    ///
    /// # Errors
    /// What the kernel says of the file system.
    pub fn mount_volume(&self, volume: &Volume) -> Result<PathBuf, Error> {
        let Backing::Mounted {
            kind,
            options,
            attributes,
        } = volume.backing()?
        else {
            return Ok(volume.data.clone());
        };
        let what = || format!("mount volume {}", volume.name);
        let _lock = self.volumes_lock()?;
        if is_mounted(&volume.data) {
            return Ok(volume.data.clone());
        }
        let options: Vec<(&str, Option<&str>)> = options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let mount = dhow_sys::mount::filesystem(&kind, &options, attributes).context(what)?;
        dhow_sys::mount::attach(&mount, &volume.data).context(what)?;
        Ok(volume.data.clone())
    }

    /// Unmounts a volume that no running container has; whether it was mounted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unmount_volume(&self, volume: &Volume) -> Result<bool, Error> {
        if !matches!(volume.backing(), Ok(Backing::Mounted { .. })) {
            return Ok(false);
        }
        let _lock = self.volumes_lock()?;
        let used = self
            .volume_users(&volume.name)?
            .iter()
            .any(|user| user.state.pid != 0);
        if used || !is_mounted(&volume.data) {
            return Ok(false);
        }
        dhow_sys::mount::detach(&volume.data).context(|| format!("unmount volume {}", volume.name))?;
        Ok(true)
    }

    /// Unmounts what the container was the last one to have. What cannot be unmounted now is unmounted with the volume's
    /// removal.
    pub(crate) fn let_volumes_go(&self, config: &Config) {
        for name in config.mounts.iter().filter_map(|mount| mount.name.as_deref()) {
            if let Ok(volume) = self.volume(name) {
                drop(self.unmount_volume(&volume));
            }
        }
    }

    fn volumes_lock(&self) -> Result<std::os::fd::OwnedFd, Error> {
        make_folder(&self.settings().run)?;
        let path = self.settings().run.join("volumes.lock");
        let what = || format!("lock {}", path.display());
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .context(what)?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .context(what)?;
        Ok(file.into())
    }
}

fn is_mounted(path: &Path) -> bool {
    let root = StatxAttributes::MOUNT_ROOT;
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Backing, Error> {
        Backing::of(
            &pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn options_say_what_is_behind_a_volume() {
        assert_eq!(of(&[]).unwrap(), Backing::Folder);
        let bind = Backing::Bind("/".into());
        assert_eq!(of(&[("type", "bind"), ("device", "/")]).unwrap(), bind);
        assert_eq!(
            of(&[("type", "none"), ("o", "bind,ro"), ("device", "/")]).unwrap(),
            bind
        );
        let tmpfs = of(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,noexec")]).unwrap();
        let expected = Backing::Mounted {
            kind: "tmpfs".to_owned(),
            options: vec![
                ("source".to_owned(), Some("tmpfs".to_owned())),
                ("size".to_owned(), Some("1m".to_owned())),
            ],
            attributes: MountAttrFlags::MOUNT_ATTR_NOEXEC,
        };
        assert_eq!(tmpfs, expected);
        let nfs = of(&[("type", "nfs"), ("device", ":/data"), ("o", "addr=10.0.0.1,rw")]).unwrap();
        assert!(
            matches!(nfs, Backing::Mounted { options, .. } if options[0] == ("source".to_owned(), Some(":/data".to_owned())))
        );
        for bad in [
            &[("size", "1m")][..],
            &[("type", "bind"), ("device", "/no/such/place")],
            &[("device", "/x")],
            &[("o", "size=1")],
        ] {
            assert_eq!(of(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }
}
