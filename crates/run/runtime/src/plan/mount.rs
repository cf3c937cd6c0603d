//! Mounts of the spec, their options parsed.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use dhow_oci::runtime::{IdMapping, Mount};
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
    pub(crate) attributes: Attributes,
    /// Attributes of it and all below (`rro`): those to raise and those to take back.
    pub(crate) recursive: Option<(Attr, Attr)>,
    /// Propagation, and whether of all below too.
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// Whether a link at the target is mounted on itself, and not followed.
    pub(crate) on_link: bool,
    /// Whether a new tmpfs gets what is at the target.
    pub(crate) copy_up: bool,
    /// What of it is left out, for the caller's log.
    pub(crate) warning: Option<String>,
}

/// Attributes of one mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// To raise.
    pub(crate) raised: Attr,
    /// Asked not to be there.
    pub(crate) lowered: Attr,
    /// Whether any is named at all: a bind whose spec names none keeps those of its source.
    pub(crate) named: bool,
    /// Whether one about access times is raised, `relatime` among them, which has no bit.
    pub(crate) times: bool,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A part of the host's tree.
    Bind(Bind),
    /// The control groups, whatever the host has; with flags of version 2, for the kernel to judge.
    Cgroup(Vec<Parameter>),
    /// New attributes for what is mounted at the target already.
    Remount,
    /// A new instance of a file system.
    New {
        kind: CString,
        parameters: Vec<Parameter>,
    },
}

/// The source of a bind mount.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) path: CString,
    /// The same below the root, for a path that leads into it: what the mounts before have put there counts.
    pub(crate) inside: Option<PathBuf>,
    pub(crate) recursive: bool,
    /// The source keeps its peer group, so that mounts propagate from (and to) the host: it is copied before anything else.
    pub(crate) propagates: bool,
    /// Whether a link at the end of the path is bound itself.
    pub(crate) link: bool,
    /// Whether a link at the end of the path is made again at the target.
    pub(crate) copy_link: bool,
    pub(crate) ids: Option<Ids>,
}

impl Bind {
    /// Whether the child copies the source before it makes its copy of the host's tree private. With a user namespace of
    /// its own that copy is a slave of the host's from the start, and without a tree of its own there is none: the
    /// parent copies the source then.
    pub(crate) fn is_kept(&self, plan: &super::Plan) -> bool {
        self.propagates && plan.own_mounts && !plan.has_users() && self.inside.is_none() && !self.copy_link
    }

    /// Whether the source is `/` with all that is mounted on it.
    pub(crate) fn covers_root(&self) -> bool {
        self.recursive && self.path.to_bytes().iter().all(|byte| b"/.".contains(byte))
    }
}

/// Ids of an id-mapped mount.
#[derive(Debug)]
pub(crate) struct Ids {
    /// Those of the spec; empty for those of the container's user namespace.
    pub(crate) uids: Vec<IdMapping>,
    pub(crate) gids: Vec<IdMapping>,
    /// Whether the mounts below get them too.
    pub(crate) recursive: bool,
}

/// Where the paths of a spec begin.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// What relative sources are relative to.
    pub(crate) bundle: Option<&'a Path>,
    /// The root file system, by an absolute path.
    pub(crate) root: Option<PathBuf>,
    /// Whether the container has a user namespace.
    pub(crate) users: bool,
}

/// What may be mounted over inside of /proc, as with runc: files that tools like lxcfs replace, none of which confines.
const IN_PROC: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

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
    pub(crate) fn parse(mount: &Mount, label: Option<&str>, places: &Places<'_>) -> Result<Self, Error> {
        let options = Options::parse(mount)?;
        let source = match mount.kind.as_deref() {
            _ if options.remount => Source::Remount,
            _ if options.bind => bind(mount, &options, places)?,
            Some("bind") => bind(mount, &options, places)?,
            Some("cgroup" | "cgroup2") => Source::Cgroup(options.parameters.clone()),
            Some("" | "none") | None => return Err(wrong(mount, "it has no type")),
            Some(kind) => new(kind, mount, &options, label)?,
        };
        let is_bind = matches!(source, Source::Bind(_));
        let foreign = |(_, value): &&Parameter| match source {
            Source::New { .. } => false,
            // What mount(2) gets of these for a bind is its last argument, which the kernel does not look at; a word
            // without a value may be a flag that is spelled wrong.
            Source::Bind(_) => value.is_none(),
            // Those of version 2 are flags (kernel `cgroup-v2.rst`, "Mounting"), of which it knows more and more.
            Source::Cgroup(_) => value.is_some(),
            Source::Remount => true,
        };
        if let Some((key, _)) = options.parameters.iter().find(foreign) {
            let key = key.to_string_lossy();
            return Err(wrong(
                mount,
                &format!("option {key:?} does not apply to this kind of mount"),
            ));
        }
        if options.ids.is_some() && !is_bind {
            return Err(wrong(
                mount,
                "id-mapped mounts are only supported for bind-mounts",
            ));
        }
        let copy_up = options.copy_up;
        if copy_up && !matches!(&source, Source::New { kind, .. } if kind.as_c_str() == c"tmpfs") {
            return Err(wrong(mount, "option tmpcopyup is for tmpfs alone"));
        }
        let target = target(&mount.destination)?;
        let target = match places.root.as_ref().and_then(|root| root.strip_prefix("/").ok()) {
            // A destination that begins with the path of the root on the host is taken as meant inside, as with runc.
            Some(root) => match target.strip_prefix(root) {
                Ok(inside) if !root.as_os_str().is_empty() => inside.to_owned(),
                _ => target,
            },
            None => target,
        };
        let in_proc = target.starts_with("proc") && target != Path::new("proc");
        if in_proc && !IN_PROC.iter().any(|allowed| target == Path::new(allowed)) {
            return Err(wrong(mount, "it cannot be mounted because it is inside /proc"));
        }
        Ok(Self {
            warning: is_bind
                .then(|| without_effect(mount, &options.parameters))
                .flatten(),
            target,
            source,
            attributes: options.attributes,
            recursive: options.recursive,
            propagation: options.propagation,
            on_link: options.on_link,
            copy_up,
        })
    }
}

/// What is said about options that a bind mount does not have: they are for the file system, which is mounted already.
fn without_effect(mount: &Mount, parameters: &[Parameter]) -> Option<String> {
    let keys: Vec<_> = parameters.iter().map(|(key, _)| key.to_string_lossy()).collect();
    (!keys.is_empty()).then(|| {
        format!(
            "mount {}: a bind mount does not take the options of a file system: [{}]",
            mount.destination.display(),
            keys.join(" ")
        )
    })
}

fn wrong(mount: &Mount, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("mount {}: {what}", mount.destination.display()),
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

fn bind(mount: &Mount, options: &Options, places: &Places<'_>) -> Result<Source, Error> {
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    let joined = match places.bundle {
        Some(bundle) if !source.is_absolute() && !source.as_os_str().is_empty() => Some(bundle.join(source)),
        _ => None,
    };
    let source = joined.as_deref().unwrap_or(source);
    if !source.is_absolute() {
        return Err(wrong(
            mount,
            &format!("source {} is not absolute", source.display()),
        ));
    }
    let propagates = options
        .propagation
        .is_some_and(|(flags, _)| flags.intersects(Propagation::SHARED | Propagation::DOWNSTREAM));
    let inside = places
        .root
        .as_ref()
        .and_then(|root| source.strip_prefix(root).ok());
    Ok(Source::Bind(Bind {
        path: bytes(source.as_os_str().as_bytes(), "mount source")?,
        inside: inside.map(target).transpose()?,
        recursive: options.rbind,
        propagates,
        link: options.link,
        copy_link: options.copy_link,
        ids: ids(mount, options, places)?,
    }))
}

fn ids(mount: &Mount, options: &Options, places: &Places<'_>) -> Result<Option<Ids>, Error> {
    let Some(recursive) = options.ids else {
        return Ok(None);
    };
    let (uids, gids) = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    if uids.is_empty() != gids.is_empty() {
        return Err(wrong(
            mount,
            "id-mapped mounts must have both uid and gid mappings specified",
        ));
    }
    if uids.is_empty() && !places.users {
        let message =
            "an id-mapped mount needs mappings, or a user namespace of the container's to take them from";
        return Err(wrong(mount, message));
    }
    Ok(Some(Ids {
        uids,
        gids,
        recursive,
    }))
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

#[derive(Debug)]
struct Options {
    attributes: Attributes,
    recursive: Option<(Attr, Attr)>,
    bind: bool,
    rbind: bool,
    remount: bool,
    copy_up: bool,
    copy_link: bool,
    link: bool,
    on_link: bool,
    /// An id-mapped mount, and whether of all below too.
    ids: Option<bool>,
    propagation: Option<(Propagation, bool)>,
    parameters: Vec<(CString, Option<CString>)>,
}

impl Options {
    fn parse(mount: &Mount) -> Result<Self, Error> {
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        let mut options = Self {
            attributes: Attributes {
                raised: Attr::empty(),
                lowered: Attr::empty(),
                named: false,
                times: false,
            },
            recursive: None,
            bind: false,
            rbind: false,
            remount: false,
            copy_up: false,
            copy_link: false,
            link: false,
            on_link: false,
            ids: mapped.then_some(false),
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
            self.attributes.change(flag, raise);
            return true;
        }
        if let Some((flag, raise)) = word.strip_prefix('r').and_then(attribute) {
            change(
                self.recursive.get_or_insert((Attr::empty(), Attr::empty())),
                flag,
                raise,
            );
            return true;
        }
        match word {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.rbind) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "copy-symlink" => self.copy_link = true,
            "src-nofollow" => self.link = true,
            "dest-nofollow" => self.on_link = true,
            "idmap" => self.ids = Some(false),
            "ridmap" => self.ids = Some(true),
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

/// The bits of the one field that says when access times are written; `relatime` is zero in it.
fn is_mode(flag: Attr) -> bool {
    Attr::MOUNT_ATTR__ATIME.contains(flag)
}

impl Attributes {
    fn change(&mut self, flag: Attr, raise: bool) {
        self.named = true;
        self.times |= raise && (is_mode(flag) || flag == Attr::MOUNT_ATTR_NODIRATIME);
        if is_mode(flag) {
            self.raised.remove(Attr::MOUNT_ATTR__ATIME);
        }
        self.raised.set(flag, raise);
        self.lowered.set(flag, !raise);
    }
}

/// The kernel takes a change of that field only as a whole (mount_setattr(2)).
fn change((raised, lowered): &mut (Attr, Attr), flag: Attr, raise: bool) {
    if is_mode(flag) {
        raised.remove(Attr::MOUNT_ATTR__ATIME);
        *lowered |= Attr::MOUNT_ATTR__ATIME;
        if raise {
            *raised |= flag;
        }
    } else {
        raised.set(flag, raise);
        lowered.set(flag, !raise);
    }
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
