//! SELinux labels of containers: a type that the policy confines, and a pair of categories that no other container has.
//!
//! ```text
//! ROOT/mcs/<c1>,<c2>   the id, made by O_EXCL: the reservation of the pair
//! ```

use std::ffi::CStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_bundle::{NamespaceMode, Request, SelinuxLabels};
use dhow_types::{ContainerId, ErrorKind};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags, openat};
use rustix::io::Errno;

use crate::{Context as _, Error};

pub(crate) mod layers;

/// Categories of the usual policies are 0 to 1023.
const CATEGORIES: u32 = 1024;
/// How long a reservation without a container is left alone: its container may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);
/// Folders of the host that no volume relabels, with all below the last ones only (containers-selinux has such a list
/// too): a wrong label there can keep the host from booting. CVE-2021-43816 was such a relabelling.
const NOT_OURS: [&str; 21] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/lost+found",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
];
/// Deepest tree that is relabelled.
const DEEPEST: usize = 512;

/// What is asked of a bind's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relabel {
    /// They stay as they are.
    #[default]
    No,
    /// `z`: every container may use them.
    Shared,
    /// `Z`: this container alone may.
    Private,
}

/// `--security-opt label=...`, all of them.
#[derive(Default)]
struct Choice<'a> {
    disable: bool,
    user: Option<&'a str>,
    role: Option<&'a str>,
    kind: Option<&'a str>,
    level: Option<&'a str>,
    file_kind: Option<&'a str>,
}

impl<'a> Choice<'a> {
    fn parse(options: &'a [String]) -> Result<Self, Error> {
        let mut choice = Self::default();
        for option in options {
            let word = |value: &'a str| {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.,:".contains(&byte);
                (!value.is_empty() && value.bytes().all(plain)).then_some(value)
            };
            let (name, value) = option.split_once(':').unwrap_or((option, ""));
            let field = match name {
                "disable" if value.is_empty() => {
                    choice.disable = true;
                    continue;
                }
                "user" => &mut choice.user,
                "role" => &mut choice.role,
                "type" => &mut choice.kind,
                "level" => &mut choice.level,
                "filetype" => &mut choice.file_kind,
                _ => return Err(bad(option)),
            };
            *field = Some(word(value).ok_or_else(|| bad(option))?);
        }
        Ok(choice)
    }

    fn names_something(&self) -> bool {
        [self.user, self.role, self.kind, self.level, self.file_kind]
            .iter()
            .any(Option::is_some)
    }
}

fn bad(option: &str) -> Error {
    let shown: String = option.chars().take(64).collect();
    let message = format!("bad label option {shown:?}");
    Error::new(ErrorKind::InvalidArgument, message)
        .with_hint("use label=disable, or label=user:, role:, type:, level: or filetype: with a value")
}

/// The labels of a new container, with a pair of categories reserved for it; none where SELinux is off, for privileged
/// containers and for those that share the host's processes or IPC, as with docker.
///
/// # Errors
/// `InvalidArgument` for an option that does not exist, `Unsupported` for a label on a host without SELinux.
pub(crate) fn labels(
    root: &Path,
    id: &ContainerId,
    options: &[String],
    request: &Request,
) -> Result<Option<SelinuxLabels>, Error> {
    let choice = Choice::parse(options)?;
    let shares = [&request.namespaces.pid, &request.namespaces.ipc].contains(&&NamespaceMode::Host);
    if choice.disable || ((request.privileged || shares) && !choice.names_something()) {
        return Ok(None);
    }
    let policy = dhow_runtime::lsm::selinux_enabled().then(|| contexts(request.own_cgroups));
    let policy = policy.flatten();
    let Some((process, files)) = policy else {
        if choice.names_something() {
            let message = "a selinux label is asked for, but selinux is disabled or not supported";
            return Err(
                Error::new(ErrorKind::Unsupported, message).with_hint("leave it out, or use label=disable")
            );
        }
        return Ok(None);
    };
    let level = match choice.level {
        Some(level) => level.to_owned(),
        None => format!("s0:{}", reserve(root, id)?),
    };
    let field = |chosen: Option<&str>, usual: &str| chosen.unwrap_or(usual).to_owned();
    let [user, role, kind] = process;
    let process = [
        field(choice.user, &user),
        field(choice.role, &role),
        field(choice.kind, &kind),
        level.clone(),
    ];
    let [user, role, kind] = files;
    let mount = [
        field(choice.user, &user),
        role,
        field(choice.file_kind, &kind),
        level,
    ];
    Ok(Some(SelinuxLabels {
        process: process.join(":"),
        mount: mount.join(":"),
    }))
}

/// User, role and type that the installed policy has for processes and files of containers.
fn contexts(systemd: bool) -> Option<([String; 3], [String; 3])> {
    let text = contexts_text()?;
    Some((of_processes(&text, systemd)?, context(&text, "file")?))
}

/// A systemd has a type of its own where the policy knows one (`container_init_t`): the usual one writes in no control group.
fn of_processes(text: &str, systemd: bool) -> Option<[String; 3]> {
    let own = systemd.then(|| context(text, "init_process")).flatten();
    own.or_else(|| context(text, "process"))
}

/// What the installed policy says of containers (`lxc_contexts(5)`).
fn contexts_text() -> Option<String> {
    let config = fs::read_to_string("/etc/selinux/config").ok()?;
    let name = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("SELINUXTYPE="))?;
    let path = format!(
        "/etc/selinux/{}/contexts/lxc_contexts",
        name.trim().replace('/', "")
    );
    fs::read_to_string(path).ok()
}

/// The line `key = "user:role:type:level"`, without its level.
fn context(text: &str, key: &str) -> Option<[String; 3]> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })?;
    let mut parts = value.split(':').map(str::to_owned);
    Some([
        parts.next()?,
        parts.next()?,
        parts.next().filter(|kind| !kind.is_empty())?,
    ])
}

/// Reserves two categories that no container of this root has: `c12,c345`.
fn reserve(root: &Path, id: &ContainerId) -> Result<String, Error> {
    let folder = root.join("mcs");
    fs::create_dir_all(&folder).context(|| format!("make {}", folder.display()))?;
    for _ in 0..256 {
        let random = crate::container::random_bytes()?;
        let Some((low, high)) = pair(&random) else {
            continue;
        };
        let name = format!("c{low},c{high}");
        let file = folder.join(&name);
        forget_stale(root, &file);
        match fs::File::create_new(&file).and_then(|mut made| made.write_all(id.as_str().as_bytes())) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("reserve {}", file.display())),
        }
    }
    let message = "no free pair of SELinux categories was found";
    Err(Error::new(ErrorKind::ResourceExhausted, message)
        .with_hint("remove containers, or name a level: label=level:s0:c1,c2"))
}

/// Two different categories, the lower one first.
fn pair(random: &[u8]) -> Option<(u32, u32)> {
    let number =
        |at: usize| Some((u32::from(*random.get(at)?) << 8 | u32::from(*random.get(at + 1)?)) % CATEGORIES);
    let (one, two) = (number(0)?, number(2)?);
    (one != two).then(|| (one.min(two), one.max(two)))
}

/// Takes a reservation back whose container is gone: its creator was killed before there was one.
fn forget_stale(root: &Path, file: &Path) {
    let old = fs::metadata(file)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > ON_ITS_WAY));
    if !old {
        return;
    }
    let id = fs::read_to_string(file).unwrap_or_default();
    let lives = id
        .trim()
        .parse::<ContainerId>()
        .is_ok_and(|id| root.join("containers").join(id.as_str()).exists());
    if !lives {
        // Somebody else may have done so.
        drop(fs::remove_file(file));
    }
}

/// Gives the categories of a container back; those of a level that a person named were never reserved.
pub(crate) fn release(root: &Path, id: &ContainerId, labels: &SelinuxLabels) -> Result<(), Error> {
    let Some(categories) = labels.process.splitn(5, ':').nth(4) else {
        return Ok(());
    };
    if categories.contains('/') {
        return Ok(());
    }
    let file = root.join("mcs").join(categories);
    if fs::read_to_string(&file).is_ok_and(|owner| owner.trim() == id.as_str()) {
        fs::remove_file(&file).context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}

/// Gives the categories of a container to the one that takes its place.
pub(crate) fn pass_on(
    root: &Path,
    old: &ContainerId,
    new: &ContainerId,
    labels: &SelinuxLabels,
) -> Result<(), Error> {
    let Some(categories) = labels.process.splitn(5, ':').nth(4) else {
        return Ok(());
    };
    let file = root.join("mcs").join(categories);
    if categories.contains('/') || fs::read_to_string(&file).is_ok_and(|owner| owner.trim() != old.as_str()) {
        return Ok(());
    }
    match fs::write(&file, new.as_str()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("write {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The label of files that every container may use.
pub(crate) fn shared(label: &str) -> String {
    let fields: Vec<&str> = label.splitn(4, ':').take(3).collect();
    format!("{}:s0", fields.join(":"))
}

/// Labels a file or a whole folder. Links are labelled themselves, not followed; other file systems are left out.
///
/// # Errors
/// `PermissionDenied` for folders that are the host's.
pub(crate) fn relabel(path: &Path, label: &str) -> Result<(), Error> {
    let path = &fs::canonicalize(path).context(|| format!("find {}", path.display()))?;
    if NOT_OURS.iter().any(|host| Path::new(host) == path)
        || path.starts_with("/usr")
        || path.starts_with("/boot")
    {
        let message = format!("SELinux relabeling of {} is not allowed", path.display());
        return Err(
            Error::new(ErrorKind::PermissionDenied, message).with_hint("leave z and Z out of this volume")
        );
    }
    label_tree(path, label)
        .map_err(std::io::Error::from)
        .context(|| format!("label {}", path.display()))
}

fn label_tree(path: &Path, label: &str) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty())?;
    set(&reached(&top, c""), label)?;
    let stat = rustix::fs::fstat(&top)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let folder = openat(
            &top,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        label_folder(&folder, stat.st_dev, label, 0)?;
    }
    Ok(())
}

fn label_folder(folder: &OwnedFd, device: u64, label: &str, depth: usize) -> rustix::io::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match openat(folder.as_fd(), name, flags, Mode::empty()) {
            Ok(below) => Some(below),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => None,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if let Some(below) = &below
            && rustix::fs::fstat(below)?.st_dev != device
        {
            continue;
        }
        match set(&reached(folder, name), label) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(below) = below {
            label_folder(&below, device, label, depth + 1)?;
        }
    }
    Ok(())
}

/// A path to a name in an open folder (or to what is open itself), for calls that take no descriptor.
fn reached(folder: &OwnedFd, name: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    if !name.is_empty() {
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
    }
    path
}

fn set(path: &Path, label: &str) -> rustix::io::Result<()> {
    let name = c"security.selinux";
    let whole = path.parent() == Some(Path::new("/proc/self/fd"));
    let done = if whole {
        // The link of the descriptor is to be followed, and leads no farther.
        rustix::fs::setxattr(path, name, label.as_bytes(), XattrFlags::empty())
    } else {
        rustix::fs::lsetxattr(path, name, label.as_bytes(), XattrFlags::empty())
    };
    match done {
        // A file system that has no labels needs none.
        Err(Errno::NOTSUP) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
#[path = "selinux/tests.rs"]
mod tests;
