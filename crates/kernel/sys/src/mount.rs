//! Mounts as file descriptors: built detached, attached last, gone when dropped.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    unmount,
};
use rustix::path::Arg as _;

use crate::{Context as _, Error};

/// Longest string that fsconfig takes, without its null (`strndup_user(_value, 256)` in fs/fsopen.c).
const MAX_VALUE: usize = 255;

/// What [`set_attributes`] changes of a mount (mount_setattr(2), Linux 5.12).
#[derive(Debug, Default)]
pub struct Attributes<'a> {
    /// Attributes to raise; together with [`Attributes::clear`] of the whole `ATIME` field it may select a mode.
    pub set: MountAttrBits,
    /// Attributes to lower.
    pub clear: MountAttrBits,
    /// New propagation; none leaves it.
    pub propagation: Option<MountPropagationFlags>,
    /// User namespace whose mapping the mount gets (idmapped mount).
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// Bits of `struct mount_attr`: the kernel's `MOUNT_ATTR_*`.
pub type MountAttrBits = u64;

/// Changes attributes of the mount that `fd` is the root of; `recursive` includes all mounts below it.
///
/// # Errors
/// What the kernel says; `Unsupported` or `InvalidInput` on kernels without the call or attribute.
pub fn set_attributes(fd: impl AsFd, recursive: bool, attributes: &Attributes<'_>) -> io::Result<()> {
    set_attributes_at(fd, c"", recursive, attributes)
}

/// Like [`set_attributes`] for the mount at `path`, relative to `dir`; an empty path means `dir` itself.
///
/// # Errors
/// As [`set_attributes`].
pub fn set_attributes_at(
    dir: impl AsFd,
    path: &CStr,
    recursive: bool,
    attributes: &Attributes<'_>,
) -> io::Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation.map_or(0, |flags| u64::from(flags.bits())),
        userns_fd: 0,
    };
    if let Some(namespace) = attributes.user_namespace {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    }
    let mut flags = libc::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` is null-terminated, `attr` is a valid mount_attr of the size given, both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw mut attr,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::check(result).map(drop)
}

/// A layer below an overlay.
#[derive(Clone, Copy, Debug)]
pub enum Lower<'a> {
    /// A directory.
    Path(&'a Path),
    /// The root of a detached mount, which the overlay keeps (Linux 6.15).
    Mount(BorrowedFd<'a>),
}

/// A detached, read-only mount of the erofs image in the regular file `image` (Linux 6.12, without a loop device; needs
/// the rights of the initial user namespace). The kernel trusts what it reads there: only for images made by ourselves.
/// `label` is the SELinux label of all its files (`context=`), which have none of their own.
///
/// # Errors
/// The kernel's words with the kind of its errno; `InvalidArgument` for a label on a kernel without SELinux.
pub fn erofs(image: impl AsFd, label: Option<&str>) -> Result<OwnedFd, Error> {
    let context = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(io::Error::from)
        .context(|| "fsopen erofs")?;
    // Not its own name, which may be longer than a string of fsconfig.
    let source = format!("/proc/self/fd/{}", image.as_fd().as_raw_fd());
    let labelled = label.map_or(Ok(()), |label| fsconfig_set_string(&context, c"context", label));
    explained(&context, "erofs", "context", labelled)?;
    for (step, done) in [
        ("source", fsconfig_set_string(&context, c"source", source)),
        ("ro", fsconfig_set_flag(&context, c"ro")),
        ("create", fsconfig_create(&context)),
    ] {
        explained(&context, "erofs", step, done)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(io::Error::from)
        .context(|| "fsmount erofs")
}

/// A detached mount of a new file system: `options` are its own, flags (`("ro", None)`) and strings.
///
/// # Errors
/// The kernel's words with the kind of its errno; `InvalidArgument` for a kind or an option that it does not know.
pub fn filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Error> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(io::Error::from)
        .context(|| format!("fsopen {kind}"))?;
    for (name, value) in options {
        let done = match value {
            Some(value) => fsconfig_set_string(&context, *name, *value),
            None => fsconfig_set_flag(&context, *name),
        };
        explained(&context, kind, name, done)?;
    }
    explained(&context, kind, "create", fsconfig_create(&context))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(io::Error::from)
        .context(|| format!("fsmount {kind}"))
}

/// The ids of an idmapped overlay ([`overlay_mapped`]).
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a> {
    /// The user namespace whose mappings all layers get.
    pub users: BorrowedFd<'a>,
    /// What its user 0 is outside: files that overlayfs itself makes are this one's.
    pub uid: u32,
    /// What its group 0 is outside.
    pub gid: u32,
}

/// A detached overlay mount. `lower` is ordered top first; `upper` and `work` make it writable; `extra` are further
/// options, each a flag (`("volatile", None)`) or a string.
///
/// Layers are given one by one (`lowerdir+`, Linux 6.8), so their number is bounded by overlayfs alone (500); older
/// kernels get one `lowerdir` string of 255 bytes, which is enough for some 70 layers.
///
/// # Errors
/// The kernel's words with the kind of its errno; `Unsupported` when an old kernel would need a longer string.
pub fn overlay(
    lower: &[&Path],
    upper: Option<&Path>,
    work: Option<&Path>,
    extra: &[(&str, Option<&str>)],
) -> Result<OwnedFd, Error> {
    let lower: Vec<Lower<'_>> = lower.iter().map(|path| Lower::Path(path)).collect();
    overlay_of(&lower, upper, work, extra)
}

/// As [`overlay`], with mounts among the lower layers.
///
/// # Errors
/// As [`overlay`]; `Unsupported` when the kernel takes no detached mounts.
pub fn overlay_of(
    lower: &[Lower<'_>],
    upper: Option<&Path>,
    work: Option<&Path>,
    extra: &[(&str, Option<&str>)],
) -> Result<OwnedFd, Error> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(io::Error::from)
        .context(|| "fsopen overlay")?;
    explained(
        &context,
        "overlay",
        "source",
        fsconfig_set_string(&context, c"source", c"overlay"),
    )?;
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        if let Some(path) = path {
            explained(&context, "overlay", key, set_path(&context, key, path))?;
        }
    }
    for (key, value) in extra {
        let done = match value {
            Some(value) => fsconfig_set_string(&context, *key, *value),
            None => fsconfig_set_flag(&context, *key),
        };
        explained(&context, "overlay", key, done)?;
    }
    lower_and_create(&context, lower)?;
    mounted(&context, work)
}

/// The mount of an overlay, which is writable if it has a work directory. The kernel makes one read-only when it cannot fill that
/// directory, such as for want of room, and says so in its log alone (`ovl_make_workdir` in fs/overlayfs/super.c): what is
/// wrong there is asked again.
fn mounted(context: &OwnedFd, work: Option<&Path>) -> Result<OwnedFd, Error> {
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(io::Error::from)
        .context(|| "fsmount overlay")?;
    let Some(work) = work else { return Ok(mount) };
    let flags = rustix::fs::fstatvfs(&mount).map_err(io::Error::from);
    let flags = flags.context(|| "ask whether the overlay is writable")?.f_flag;
    if !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(mount);
    }
    let probe = work.join("probe");
    let made = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    let why = made.err().unwrap_or_else(|| Errno::ROFS.into());
    Err(why).context(|| format!("make the overlay's work directory in {}", work.display()))
}

/// As [`overlay_of`], with the ids of all layers mapped (Linux 5.19): what is owned by user 0 on disk is owned by user 0 of
/// the namespace, and so is what is written. `changes` is the directory that `upper` and `work` are in.
///
/// An overlay cannot be mapped itself, so its layers are, each as a mount of its own. Those are put over the directories in a
/// mount namespace of a child, which looks them up there: before Linux 6.15 a layer had to be attached somewhere.
///
/// # Errors
/// As [`overlay_of`]; `Unsupported` or `InvalidArgument` where the kernel or the file system maps no ids.
pub fn overlay_mapped(
    lower: &[Lower<'_>],
    changes: Option<(&Path, &Path, &Path)>,
    extra: &[(&str, Option<&str>)],
    ids: Ids<'_>,
) -> Result<OwnedFd, Error> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(io::Error::from)
        .context(|| "fsopen overlay")?;
    let mut options = vec![Setting::text(c"source", b"overlay")?];
    let mut covers = Vec::with_capacity(lower.len() + 1);
    if let Some((folder, upper, work)) = changes {
        covers.push((
            mapped_clone(folder, ids)?,
            c_string(folder.as_os_str().as_bytes())?,
        ));
        for (key, path) in [(c"upperdir", upper), (c"workdir", work)] {
            options.push(Setting::path(key, path)?);
        }
    }
    for (name, value) in extra {
        let key = c_string(name.as_bytes())?;
        options.push(Setting(
            key,
            value.map(|value| c_string(value.as_bytes())).transpose()?,
        ));
    }
    let one_by_one = kernel() >= (6, 8);
    let mut names = Vec::new();
    for layer in lower {
        match layer {
            Lower::Path(path) => {
                let cover = mapped_clone(path, ids)?;
                // Once it is attached, its descriptor is as good a name as its path, and never too long.
                names.push(cover.as_raw_fd().to_string());
                covers.push((cover, c_string(path.as_os_str().as_bytes())?));
            }
            Lower::Mount(mount) => {
                map_ids(mount, ids.users).context(|| "map the ids of a layer")?;
                names.push(mount.as_raw_fd().to_string());
            }
        }
    }
    if one_by_one {
        for name in &names {
            options.push(Setting::text(c"lowerdir+", name.as_bytes())?);
        }
    } else {
        paths(lower)?;
        options.push(Setting::text(c"lowerdir", names.join(":").as_bytes())?);
    }
    let done = in_a_child(|| {
        crate::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).map_err(errno_of)?;
        rustix::mount::mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        for (cover, path) in &covers {
            move_mount(
                cover,
                c"",
                CWD,
                path.as_c_str(),
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
        }
        rustix::process::chdir(c"/proc/self/fd")?;
        crate::process::set_fs_ids(ids.uid, ids.gid).map_err(errno_of)?;
        for Setting(key, value) in &options {
            match value {
                Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
                None => fsconfig_set_flag(&context, key.as_c_str())?,
            }
        }
        fsconfig_create(&context)
    });
    explained(&context, "overlay", "create", done)?;
    mounted(&context, changes.map(|(_, _, work)| work))
}

/// A key of fsconfig with its string, or a flag.
struct Setting(CString, Option<CString>);

impl Setting {
    fn text(key: &CStr, value: &[u8]) -> Result<Self, Error> {
        if value.len() > MAX_VALUE {
            let message = format!(
                "{}: {} bytes are too long for a mount",
                key.to_string_lossy(),
                value.len()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self(key.to_owned(), Some(c_string(value)?)))
    }

    fn path(key: &CStr, path: &Path) -> Result<Self, Error> {
        Self::text(key, path.as_os_str().as_bytes())
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::new(ErrorKind::InvalidArgument, "a name with a null byte"))
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// A detached mount of a directory with its ids mapped.
fn mapped_clone(dir: &Path, ids: Ids<'_>) -> Result<OwnedFd, Error> {
    let what = || format!("map the ids of {}", dir.display());
    let mount = clone_of(dir, false).context(what)?;
    map_ids(&mount, ids.users).map(|()| mount).context(what)
}

/// Maps the ids of the mount that `mount` is the root of.
///
/// # Errors
/// What the kernel says: `EINVAL` from a file system that maps none.
pub fn map_ids(mount: impl AsFd, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = Attributes {
        user_namespace: Some(users),
        ..Attributes::default()
    };
    set_attributes(mount, false, &attributes)
}

/// Gives the lower directories, top first, and makes the file system.
fn lower_and_create(context: &OwnedFd, lower: &[Lower<'_>]) -> Result<(), Error> {
    // Before overlayfs knew the new mount API (Linux 6.5), every key was accepted, and `lowerdir+` failed only at the end.
    if kernel() < (6, 5) {
        return lower_string(context, &paths(lower)?);
    }
    for (index, layer) in lower.iter().enumerate() {
        let done = match layer {
            Lower::Path(path) => set_path(context, "lowerdir+", path),
            Lower::Mount(mount) => fsconfig_set_fd(context, "lowerdir+", mount),
        };
        match done {
            Err(Errno::INVAL) if index == 0 => return lower_string(context, &paths(lower)?),
            done => explained(context, "overlay", "lowerdir+", done)?,
        }
    }
    explained(context, "overlay", "create", fsconfig_create(context))
}

/// The layers as directories, for kernels that take nothing else.
fn paths<'a>(lower: &[Lower<'a>]) -> Result<Vec<&'a Path>, Error> {
    let path = |layer: &Lower<'a>| match layer {
        Lower::Path(path) => Ok(*path),
        Lower::Mount(_) => {
            let message = "an overlay over detached mounts needs Linux 6.15";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    };
    lower.iter().map(path).collect()
}

/// Major and minor number of the running kernel.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|sign: char| !sign.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The same by the one string of kernels before 6.8; `:` and `\` in names are escaped. Where the string would be too
/// long, it names descriptors.
fn lower_string(context: &OwnedFd, lower: &[&Path]) -> Result<(), Error> {
    let mut joined = Vec::new();
    for path in lower {
        if !joined.is_empty() {
            joined.push(b':');
        }
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                joined.push(b'\\');
            }
            joined.push(*byte);
        }
    }
    if joined.len() > MAX_VALUE {
        return lower_descriptors(context, lower);
    }
    explained(
        context,
        "overlay",
        "lowerdir",
        fsconfig_set_string(context, c"lowerdir", &joined[..]),
    )?;
    explained(context, "overlay", "create", fsconfig_create(context))
}

/// The same with the layers named by descriptors, as `10:11:12`, relative to `/proc/self/fd`. The kernel looks the names
/// up from the working directory of the caller, which is no one's to change in a process with threads: a child does it.
fn lower_descriptors(context: &OwnedFd, lower: &[&Path]) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let mut layers = Vec::with_capacity(lower.len());
    let mut names = String::new();
    for path in lower {
        let layer = rustix::fs::open(*path, flags, Mode::empty())
            .map_err(io::Error::from)
            .context(|| format!("open the layer {}", path.display()))?;
        if !names.is_empty() {
            names.push(':');
        }
        names.push_str(&layer.as_raw_fd().to_string());
        layers.push(layer);
    }
    let names = CString::new(names).unwrap_or_default();
    if names.as_bytes().len() > MAX_VALUE {
        let message = format!("overlay of {} layers needs Linux 6.8", lower.len());
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let done = in_a_child(|| {
        rustix::process::chdir(c"/proc/self/fd")?;
        fsconfig_set_string(context, c"lowerdir", names.as_c_str())?;
        fsconfig_create(context)
    });
    explained(context, "overlay", "create", done)
}

/// Runs `work` in a child that shares open files, and nothing else, with this process. `work` may make system calls
/// only: a lock that another thread held stays locked in the child.
fn in_a_child(work: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    // SAFETY: the child makes system calls only, and leaves by _exit: neither memory of other threads nor handlers matter.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = work().err().map_or(0, Errno::raw_os_error);
        // SAFETY: no memory is touched. An errno of Linux is below 134 and fits an exit status.
        unsafe { libc::_exit(code) };
    }
    let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Err(Errno::AGAIN);
    };
    let ended = loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            ended => break ended?,
        }
    };
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code)),
        None => Err(Errno::INTR),
    }
}

/// A path as a string where it fits, else as a descriptor (Linux 6.13).
fn set_path(context: &OwnedFd, key: &str, path: &Path) -> rustix::io::Result<()> {
    if path.as_os_str().len() <= MAX_VALUE {
        return fsconfig_set_string(context, key, path);
    }
    let fd = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    fsconfig_set_fd(context, key, fd)
}

/// Adds what the kernel wrote into the log of a file system context to a failure.
fn explained(context: &OwnedFd, kind: &str, step: &str, done: rustix::io::Result<()>) -> Result<(), Error> {
    let Err(errno) = done else { return Ok(()) };
    let mut message = format!("fsconfig {kind} {step}");
    let mut line = [0_u8; 512];
    // Each read takes one line of the log, `e text` for an error; ENODATA ends it.
    while let Ok(length) = rustix::io::read(context, &mut line[..]) {
        let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
        message.push_str(": ");
        message.push_str(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start());
    }
    Err(Error::wrap(io::Error::from(errno), message))
}

/// A detached mount of the directory `dir` alone: what is mounted below it is not there, what is mounted on it is seen by
/// nobody else, and files in it are what they say (set-user-id, devices), whatever the mount that `dir` is on forbids, as
/// far as this process may say so (Linux 5.12).
///
/// # Errors
/// What the kernel says.
pub fn clone_of(dir: &Path, read_only: bool) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags as Flags, open_tree};
    let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_SYMLINK_NOFOLLOW;
    let mount = dir.into_with_c_str(|dir| open_tree(CWD, dir, flags))?;
    let own = Attributes {
        set: if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        propagation: Some(MountPropagationFlags::PRIVATE),
        ..Attributes::default()
    };
    set_attributes(&mount, false, &own)?;
    let free = Attributes {
        clear: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        ..Attributes::default()
    };
    match set_attributes(&mount, false, &free) {
        // Locked by the user namespace above: then its owner said so.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(mount),
        done => done.map(|()| mount),
    }
}

/// Attaches a detached mount over the existing `target`.
///
/// # Errors
/// What the kernel says.
pub fn attach(mount: impl AsFd, target: &Path) -> io::Result<()> {
    target.into_with_c_str(|target| {
        move_mount(
            mount.as_fd(),
            c"",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Attaches a detached mount over the existing entry `name` of `dir`; an empty name means `dir` itself. A symlink
/// as last component is not followed.
///
/// # Errors
/// What the kernel says.
pub fn attach_at(mount: impl AsFd, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if name.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    Ok(move_mount(mount.as_fd(), c"", dir.as_fd(), name, flags)?)
}

/// Detaches the top mount at `target`, lazily; a symlink is not followed.
///
/// # Errors
/// What the kernel says; `InvalidInput` when nothing is mounted there.
pub fn detach(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether mounts can be made here; says so when not.
    fn privileged() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("skipped: mounts need root");
        }
        root
    }

    #[test]
    fn an_overlay_is_made_detached_with_the_top_layer_first() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        // Names with the characters that the one-string form would have to escape.
        let (top, bottom, upper, work) = (dir("to:p"), dir("bott\\om"), dir("upper"), dir("work"));
        std::fs::write(top.join("both"), "top").unwrap();
        std::fs::write(bottom.join("both"), "bottom").unwrap();
        std::fs::write(bottom.join("below"), "bottom").unwrap();
        let mount = overlay(&[&top, &bottom], Some(&upper), Some(&work), &[]).unwrap();
        let read = |name: &str| {
            let file = rustix::fs::openat(&mount, name, OFlags::RDONLY, Mode::empty()).unwrap();
            std::io::read_to_string(std::fs::File::from(file)).unwrap()
        };
        assert_eq!((read("both"), read("below")), ("top".into(), "bottom".into()));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(upper.to_str().unwrap()), "the mount is attached");
    }

    #[test]
    fn an_overlay_without_room_for_its_work_is_an_error_and_not_read_only() {
        if !privileged() {
            return;
        }
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        // The root, the two directories, and none for what the kernel puts into the second.
        fsconfig_set_string(&context, c"nr_inodes", c"4").unwrap();
        fsconfig_create(&context).unwrap();
        let small = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let place = std::path::PathBuf::from(format!("/proc/self/fd/{}", small.as_raw_fd()));
        let (upper, work) = (place.join("upper"), place.join("work"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        let full = (0..100).any(|number| std::fs::create_dir(upper.join(number.to_string())).is_err());
        assert!(full);
        let error = overlay(&[Path::new("/usr")], Some(&upper), Some(&work), &[]).unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(text.contains("No space left"), "{text}");
    }

    #[test]
    fn many_layers_and_long_names_fit() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let long = scratch.path().join("a".repeat(200)).join("b".repeat(100));
        let layers: Vec<_> = (0..200).map(|number| long.join(number.to_string())).collect();
        for layer in &layers {
            std::fs::create_dir_all(layer).unwrap();
            std::fs::write(layer.join(layer.file_name().unwrap()), "").unwrap();
        }
        let lower: Vec<&Path> = layers.iter().map(std::path::PathBuf::as_path).collect();
        let count = if kernel() < (6, 8) { 50 } else { 200 };
        let mount = overlay(&lower[..count], None, None, &[]).unwrap();
        let entries = rustix::fs::Dir::read_from(
            rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap(),
        );
        // Two more for the directory itself and its parent.
        assert_eq!(entries.unwrap().count(), count + 2);
    }

    #[test]
    fn kernels_before_6_8_get_one_string() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        for (name, count) in [("short", 2), (&*"long".repeat(40), 30)] {
            let layers: Vec<_> = (0..count)
                .map(|number| scratch.path().join(format!("{name}:{number}")))
                .collect();
            for layer in &layers {
                std::fs::create_dir(layer).unwrap();
                std::fs::write(layer.join("which"), layer.as_os_str().as_bytes()).unwrap();
            }
            let lower: Vec<&Path> = layers.iter().map(std::path::PathBuf::as_path).collect();
            let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
            lower_string(&context, &lower).unwrap();
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
            let file = rustix::fs::openat(&mount, "which", OFlags::RDONLY, Mode::empty()).unwrap();
            let top = std::io::read_to_string(std::fs::File::from(file)).unwrap();
            assert_eq!(Path::new(&top), lower[0]);
        }
    }

    #[test]
    fn a_failure_carries_the_words_of_the_kernel() {
        if !privileged() {
            return;
        }
        let error = overlay(
            &[Path::new("/proc/self/no/such"), Path::new("/usr")],
            None,
            None,
            &[],
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let layers = [Path::new("/usr"), Path::new("/etc")];
        let error = overlay(&layers, None, None, &[("nonsense", Some("x"))]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        // Before Linux 6.5 the words go to the kernel's log only.
        if kernel() >= (6, 5) {
            assert!(error.to_string().contains("nonsense"), "{error}");
        }
    }

    #[test]
    fn attributes_are_set_on_a_detached_mount() {
        if !privileged() {
            return;
        }
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let make = |name: &str| rustix::fs::mkdirat(&mount, name, Mode::RWXU);
        make("before").unwrap();
        let readonly = Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(&mount, false, &readonly).unwrap();
        assert_eq!(make("after"), Err(Errno::ROFS));
    }
}
