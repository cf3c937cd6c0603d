//! Mounts of the spec, their options parsed.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use dhow_oci::runtime::Mount;
use dhow_types::ErrorKind;
use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

use super::{bytes, text};
use crate::Error;

/// One mount, ready to be made.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Where, below the root, without a leading slash; empty for the root itself.
    pub(crate) target: PathBuf,
    pub(crate) source: Source,
    /// Attributes of the mount itself.
    pub(crate) attributes: Attr,
    /// Attributes of it and all below (`rro`).
    pub(crate) recursive: Attr,
    /// Propagation, and whether of all below too.
    pub(crate) propagation: Option<(Propagation, bool)>,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A part of the host's tree.
    Bind {
        path: CString,
        recursive: bool,
        /// The source keeps its peer group, so that mounts propagate from (and to) the host: it is then taken by the parent.
        propagates: bool,
    },
    /// The control groups, whatever the host has.
    Cgroup,
    /// New attributes for what is mounted at the target already.
    Remount,
    /// A new instance of a file system.
    New {
        kind: CString,
        parameters: Vec<Parameter>,
    },
}

/// An option of a file system: `key` or `key=value`.
pub(crate) type Parameter = (CString, Option<CString>);

/// The option that gives every file of a file system this SELinux label.
pub(crate) fn context(label: Option<&str>) -> Result<Vec<Parameter>, Error> {
    label
        .map(|label| Ok((c"context".to_owned(), Some(text(label, "mount label")?))))
        .into_iter()
        .collect()
}

impl MountPlan {
    pub(crate) fn parse(mount: &Mount, label: Option<&str>) -> Result<Self, Error> {
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(unsupported(mount, "an id-mapped mount"));
        }
        let options = Options::parse(mount)?;
        let source = match mount.kind.as_deref() {
            _ if options.remount => Source::Remount,
            _ if options.bind => bind(mount, &options)?,
            Some("bind") => bind(
                mount,
                &Options {
                    bind: true,
                    ..options.clone()
                },
            )?,
            Some("cgroup" | "cgroup2") => Source::Cgroup,
            Some("") | None => {
                let message = format!("mount {} has no type", mount.destination.display());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            Some(kind) => new(kind, mount, &options, label)?,
        };
        if !options.parameters.is_empty() && !matches!(source, Source::New { .. }) {
            let message = format!(
                "mount {}: option {:?} does not apply to this kind of mount",
                mount.destination.display(),
                options.parameters.first().map_or(c"", |(key, _)| key.as_c_str())
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let target = target(&mount.destination)?;
        if target.as_os_str().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a mount cannot cover the root file system",
            ));
        }
        Ok(Self {
            target,
            source,
            attributes: options.attributes,
            recursive: options.recursive,
            propagation: options.propagation,
        })
    }
}

fn unsupported(mount: &Mount, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("mount {}: {what} is not supported", mount.destination.display()),
    )
}

/// A destination as a path below the root. `..` is refused, since what it means depends on links of the image.
pub(crate) fn target(destination: &Path) -> Result<PathBuf, Error> {
    let mut target = PathBuf::new();
    for component in destination.components() {
        match component {
            Component::Normal(name) => target.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let message = format!("path {} has `..` in it", destination.display());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
    }
    // The check for null bytes that every later conversion relies on.
    bytes(target.as_os_str().as_bytes(), "path")?;
    Ok(target)
}

fn bind(mount: &Mount, options: &Options) -> Result<Source, Error> {
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    if !source.is_absolute() {
        let message = format!(
            "bind mount {}: source {} is not absolute",
            mount.destination.display(),
            source.display()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let propagates = options
        .propagation
        .is_some_and(|(flags, _)| flags.intersects(Propagation::SHARED | Propagation::DOWNSTREAM));
    let path = bytes(source.as_os_str().as_bytes(), "mount source")?;
    Ok(Source::Bind {
        path,
        recursive: options.rbind,
        propagates,
    })
}

fn new(kind: &str, mount: &Mount, options: &Options, label: Option<&str>) -> Result<Source, Error> {
    let mut parameters = Vec::with_capacity(options.parameters.len() + 1);
    if let Some(source) = &mount.source {
        parameters.push((
            c"source".to_owned(),
            Some(bytes(source.as_os_str().as_bytes(), "mount source")?),
        ));
    }
    parameters.extend(options.parameters.iter().cloned());
    // The policy labels what the first two show, each thing by itself. The superblock of the third is as old as the IPC
    // namespace, and takes no option any more: its root gets the label (`rootfs::label`).
    let labelled = matches!(kind, "proc" | "sysfs" | "mqueue") || has(&parameters, c"context");
    if !labelled {
        parameters.extend(context(label)?);
    }
    Ok(Source::New {
        kind: text(kind, "mount type")?,
        parameters,
    })
}

fn has(parameters: &[Parameter], key: &std::ffi::CStr) -> bool {
    parameters.iter().any(|(other, _)| other.as_c_str() == key)
}

#[derive(Clone, Debug)]
struct Options {
    attributes: Attr,
    recursive: Attr,
    bind: bool,
    rbind: bool,
    remount: bool,
    propagation: Option<(Propagation, bool)>,
    parameters: Vec<Parameter>,
}

impl Options {
    fn parse(mount: &Mount) -> Result<Self, Error> {
        let mut options = Self {
            attributes: Attr::empty(),
            recursive: Attr::empty(),
            bind: false,
            rbind: false,
            remount: false,
            propagation: None,
            parameters: Vec::new(),
        };
        for option in mount
            .options
            .iter()
            .flat_map(|options| options.split(','))
            .filter(|one| !one.is_empty())
        {
            if options.word(option) {
                continue;
            }
            if matches!(option, "tmpcopyup" | "idmap" | "ridmap" | "copy-symlink") {
                return Err(unsupported(mount, &format!("option {option}")));
            }
            options.parameters.push(match option.split_once('=') {
                Some((key, value)) => (text(key, "mount option")?, Some(text(value, "mount option")?)),
                None => (text(option, "mount option")?, None),
            });
        }
        Ok(options)
    }

    /// Takes a word that mount(8) knows for all file systems.
    fn word(&mut self, word: &str) -> bool {
        if let Some((flags, recursive)) = propagation(word) {
            self.propagation = Some((flags, recursive));
            return true;
        }
        if let Some((flag, raise)) = attribute(word) {
            change(&mut self.attributes, flag, raise);
            return true;
        }
        if let Some((flag, raise)) = word.strip_prefix('r').and_then(attribute) {
            change(&mut self.recursive, flag, raise);
            return true;
        }
        match word {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.rbind) = (true, true),
            "remount" => self.remount = true,
            "defaults" => {}
            // Properties of the superblock, which the new mount API takes as flags of the file system.
            "sync" | "dirsync" | "lazytime" | "mand" => {
                let Ok(flag) = CString::new(word) else {
                    return false;
                };
                self.parameters.push((flag, None));
            }
            "async" | "nolazytime" | "nomand" => {
                let opposite = word.trim_start_matches("no").trim_start_matches('a');
                self.parameters
                    .retain(|(key, _)| key.as_bytes() != opposite.as_bytes());
            }
            _ => return false,
        }
        true
    }
}

fn change(state: &mut Attr, flag: Attr, raise: bool) {
    if Attr::MOUNT_ATTR__ATIME.contains(flag) {
        state.remove(Attr::MOUNT_ATTR__ATIME);
    }
    state.set(flag, raise);
}

/// The attribute a word raises or takes back.
fn attribute(word: &str) -> Option<(Attr, bool)> {
    Some(match word {
        "ro" => (Attr::MOUNT_ATTR_RDONLY, true),
        "rw" => (Attr::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (Attr::MOUNT_ATTR_NOSUID, true),
        "suid" => (Attr::MOUNT_ATTR_NOSUID, false),
        "nodev" => (Attr::MOUNT_ATTR_NODEV, true),
        "dev" => (Attr::MOUNT_ATTR_NODEV, false),
        "noexec" => (Attr::MOUNT_ATTR_NOEXEC, true),
        "exec" => (Attr::MOUNT_ATTR_NOEXEC, false),
        "nosymfollow" => (Attr::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (Attr::MOUNT_ATTR_NOSYMFOLLOW, false),
        "nodiratime" => (Attr::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (Attr::MOUNT_ATTR_NODIRATIME, false),
        "noatime" => (Attr::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (Attr::MOUNT_ATTR_STRICTATIME, true),
        "relatime" => (Attr::MOUNT_ATTR_RELATIME, true),
        "atime" => (Attr::MOUNT_ATTR_NOATIME, false),
        "nostrictatime" => (Attr::MOUNT_ATTR_STRICTATIME, false),
        "norelatime" => (Attr::MOUNT_ATTR_RELATIME, false),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "private" => (Propagation::PRIVATE, false),
        "rprivate" => (Propagation::PRIVATE, true),
        "slave" => (Propagation::DOWNSTREAM, false),
        "rslave" => (Propagation::DOWNSTREAM, true),
        "shared" => (Propagation::SHARED, false),
        "rshared" => (Propagation::SHARED, true),
        "unbindable" => (Propagation::UNBINDABLE, false),
        "runbindable" => (Propagation::UNBINDABLE, true),
        _ => return None,
    })
}
