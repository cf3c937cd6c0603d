//! The container's root: mounts built detached, attached to targets opened in the root, then pivot_root.
//!
//! All of it happens before the pivot, while the host's tree is still there as the source of binds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::mount::{Attributes, attach_at, set_attributes, set_attributes_at};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags as Attr, MountPropagationFlags as Propagation, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::bind::change;
use super::target::{self, Kind, Links};
use super::{Network, Setup, beneath, bind, copyup, dev, groups, hide, terminal};
use crate::create::Rootfs;
use crate::plan::{MountPlan, Parameter, Plan, Source};
use crate::report::{At, Failure, Step};

/// Builds the root and moves into it; returns the master of the terminal, if the process has one.
pub(crate) fn enter(setup: &Setup<'_>, network: &Network<'_>) -> Result<Option<OwnedFd>, Failure> {
    let plan = setup.plan;
    rustix::process::umask(Mode::empty());
    let private = private_mounts();
    let kept = bind::with_propagation(setup)?;
    if plan.own_mounts {
        cut_from_the_host(plan.slave_root)?;
    }
    let (directory, copy);
    let (root, place) = match setup.rootfs {
        Rootfs::Mount(mount) => (mount.as_fd(), None),
        Rootfs::Shown(mount, path) => {
            directory = open_root(path).at(Step::RootFilesystem)?;
            (mount.as_fd(), Some(directory.as_fd()))
        }
        Rootfs::Path(path) => {
            directory = open_root(path).at(Step::RootFilesystem)?;
            copy = target::copy_tree(directory.as_fd(), c"", true).at(Step::RootFilesystem)?;
            (copy.as_fd(), Some(directory.as_fd()))
        }
    };
    let mut laid = Laid::default();
    let cover;
    let root = match plan.mounts.first().filter(|mount| covers(mount)) {
        Some(mount) => {
            cover = cover_of(setup, &kept, root, mount)?;
            if is_filled(mount) {
                laid.filled.push((0, cover.try_clone().at(Step::Mount)?));
            }
            cover.as_fd()
        }
        None => root,
    };
    let shown = place.filter(|_| super::staged::has_hooks_before_pivot(setup));
    if plan.own_mounts {
        match shown {
            // Hooks enter this namespace and look for the root where the host has it, as with runc.
            Some(place) => attach_at(root, place, c"").at(Step::RootFilesystem)?,
            // Over the host's root: a directory that is always there, and this namespace ends with the pivot anyway.
            None => attach_at(root, CWD, c"/").at(Step::RootFilesystem)?,
        }
    } else {
        set_attributes(root, true, &private).at(Step::Propagation)?;
        over_itself(setup.rootfs, root).at(Step::RootFilesystem)?;
    }
    // In the order of the spec, which it demands (config.md, "Mounts").
    mounts(setup, &kept, root, network, &mut laid)?;
    if plan.fill_dev {
        dev::fill(root, plan, setup.nodes)?;
    }
    network.enter()?;
    sysctls(plan, &laid.anchors)?;
    let terminal = match &plan.program {
        program if program.terminal => Some(terminal::open(root, program, plan.fill_dev, true)?),
        _ => None,
    };
    hide::paths(root, plan, &laid.anchors)?;
    super::staged::before_pivot(setup, root)?;
    close_to_writers(root, plan, &laid.filled)?;
    leave_host(root, plan, shown.is_some())?;
    Ok(terminal)
}

/// Makes the root the process's own, which lies at its own path when it was shown to hooks.
fn leave_host(root: BorrowedFd<'_>, plan: &Plan, shown: bool) -> Result<(), Failure> {
    if plan.no_pivot && plan.own_mounts {
        if shown {
            attach_at(root, CWD, c"/").at(Step::Pivot)?;
        }
        beneath::clear(root).at(Step::Pivot)?;
    }
    pivot(root, plan.no_pivot || !plan.own_mounts).at(Step::Pivot)?;
    if let Some((propagation, recursive)) = plan.root_propagation {
        set_attributes_at(CWD, c"/", recursive, &propagating(propagation)).at(Step::RootPropagation)?;
    }
    Ok(())
}

fn private_mounts() -> Attributes<'static> {
    propagating(Propagation::PRIVATE)
}

/// What is mounted from now on in this namespace does not reach the host; what is mounted there comes in, if `slave`.
fn cut_from_the_host(slave: bool) -> Result<(), Failure> {
    // Copies of slaves are slaves of the same masters, which are the host's.
    let wanted = if slave {
        propagating(Propagation::DOWNSTREAM)
    } else {
        private_mounts()
    };
    set_attributes_at(CWD, c"/", true, &wanted).at(Step::Propagation)
}

fn propagating(propagation: Propagation) -> Attributes<'static> {
    Attributes {
        propagation: Some(propagation),
        ..Attributes::default()
    }
}

/// Makes read-only what had to be written until now: by the mounts below it, the nodes of /dev, the hooks.
fn close_to_writers(root: BorrowedFd<'_>, plan: &Plan, filled: &[(usize, OwnedFd)]) -> Result<(), Failure> {
    let readonly = Attributes {
        set: bits(Attr::MOUNT_ATTR_RDONLY),
        ..Attributes::default()
    };
    for (index, mount) in filled {
        set_attributes(mount, false, &readonly).at_index(Step::Mount, *index)?;
    }
    if plan.readonly_root {
        make_directory(root, plan).at(Step::WorkingDirectory)?;
        set_attributes(root, false, &readonly).at(Step::ReadOnlyRoot)?;
    }
    Ok(())
}

/// Whether a mount takes the place of the whole root.
fn covers(mount: &MountPlan) -> bool {
    mount.target.as_os_str().is_empty() && !matches!(mount.source, Source::Remount)
}

fn cover_of(
    setup: &Setup<'_>,
    kept: &bind::Trees,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
) -> Result<OwnedFd, Failure> {
    match &mount.source {
        Source::Bind(source) => {
            let tree = bind::prepared(setup, kept, root, mount, source, 0)?;
            tree.as_ref().try_clone().at(Step::Mount)
        }
        _ => Ok(new(setup.plan, root, mount, 0)?.mount),
    }
}

/// The working directory, if it is missing, before the root can no longer be written. What is wrong with it is told when it
/// is entered.
fn make_directory(root: BorrowedFd<'_>, plan: &Plan) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(plan.program.cwd.to_bytes()));
    if target::open(root, path, Links::Inside).is_err_and(|errno| errno == Errno::NOENT) {
        match target::rootpath(root)?.create_dir_all(path, 0o755, None) {
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// The directory of the root: opened once, whatever becomes of its name.
fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Without a mount namespace the root is seen on the host, where it comes from.
fn over_itself(rootfs: &Rootfs, root: BorrowedFd<'_>) -> std::io::Result<()> {
    match rootfs {
        Rootfs::Path(path) => dhow_sys::mount::attach(root, path),
        Rootfs::Mount(_) | Rootfs::Shown(..) => Err(Errno::INVAL.into()),
    }
}

/// `pivot_root(".", ".")` stacks the old root over the new one, where the lazy unmount takes it away (pivot_root(2)).
fn pivot(root: BorrowedFd<'_>, only_chroot: bool) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    if only_chroot {
        rustix::process::chroot(c".")?;
        return rustix::process::chdir(c"/");
    }
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// A procfs or sysfs of this container: what lies in it is reached by its descriptor and not by the name that it was
/// mounted under, which whoever can write the root could lead elsewhere meanwhile (CVE-2023-28642, CVE-2025-52881).
pub(crate) struct Anchor<'a> {
    /// Where it was mounted, below the root.
    pub(crate) target: &'a Path,
    pub(crate) mount: OwnedFd,
    /// Whether another mount of the spec lies over it, so that the name means that one.
    pub(crate) covered: bool,
    procfs: bool,
}

/// What later steps need of the mounts that were made.
#[derive(Default)]
struct Laid<'a> {
    anchors: Vec<Anchor<'a>>,
    /// Those that become read-only once everything is in them, with their index in the plan.
    filled: Vec<(usize, OwnedFd)>,
}

/// Makes the mounts that are wanted, in order.
fn mounts<'a>(
    setup: &Setup<'a>,
    kept: &bind::Trees,
    root: BorrowedFd<'_>,
    network: &Network<'_>,
    laid: &mut Laid<'a>,
) -> Result<(), Failure> {
    let mounts = setup.plan.mounts.iter().enumerate();
    for (index, mount) in mounts.filter(|(_, mount)| !covers(mount)) {
        for anchor in &mut laid.anchors {
            anchor.covered |=
                !matches!(mount.source, Source::Remount) && anchor.target.starts_with(&mount.target);
        }
        match &mount.source {
            Source::New { kind, .. } => {
                if kind.as_c_str() == c"sysfs" {
                    // The parent makes the network namespace meanwhile, and sysfs shows the one it is mounted in.
                    network.enter()?;
                }
                let made = new(setup.plan, root, mount, index)?;
                attach_at(&made.mount, &made.target, c"").at_index(Step::Mount, index)?;
                let procfs = kind.as_c_str() == c"proc";
                if procfs || kind.as_c_str() == c"sysfs" {
                    laid.anchors.push(Anchor {
                        target: &mount.target,
                        mount: made.mount,
                        covered: false,
                        procfs,
                    });
                } else if is_filled(mount) {
                    laid.filled.push((index, made.mount));
                }
            }
            Source::Bind(source) => bind::mount(setup, kept, root, mount, source, index)?,
            Source::Cgroup(options) => groups::mount(setup, root, mount, options, index)?,
            Source::Remount => remount(root, mount, index)?,
        }
    }
    Ok(())
}

/// Writes the settings through the descriptor of a procfs that this process just made: no path of the image leads to
/// it, nothing that is mounted over a part of it is entered and no link in it followed (CVE-2019-16884, CVE-2025-52881).
fn sysctls(plan: &Plan, anchors: &[Anchor<'_>]) -> Result<(), Failure> {
    use rustix::fs::{ResolveFlags, openat2};
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    let made;
    let procfs = match anchors.iter().rfind(|anchor| anchor.procfs) {
        // With users it may be a copy of the host's.
        Some(procfs) if !plan.has_users() => procfs.mount.as_fd(),
        _ => {
            made = filesystem(c"proc", &[], Attr::empty(), None).at(Step::Sysctl)?;
            made.as_fd()
        }
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for (index, sysctl) in plan.sysctls.iter().enumerate() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(procfs, sysctl.file.as_c_str(), flags, Mode::empty(), resolve);
        rustix::io::write(file.at_index(Step::Sysctl, index)?, &sysctl.value)
            .at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

/// Whether a new file system is to be read-only, but not before it holds what belongs into it: the targets of mounts below
/// it, the nodes of /dev, copies of what it covers.
fn is_filled(mount: &MountPlan) -> bool {
    let Source::New { kind, .. } = &mount.source else {
        return false;
    };
    let readonly = mount.attributes.raised.contains(Attr::MOUNT_ATTR_RDONLY);
    readonly && (kind.as_c_str() == c"tmpfs" || mount.target == Path::new("dev"))
}

struct Made {
    target: OwnedFd,
    mount: OwnedFd,
}

/// A new file system for its target, not attached yet.
fn new(plan: &Plan, root: BorrowedFd<'_>, mount: &MountPlan, index: usize) -> Result<Made, Failure> {
    let Source::New { kind, parameters } = &mount.source else {
        return Err(Failure {
            step: Step::Mount,
            index: 0,
            errno: Errno::INVAL.raw_os_error(),
        });
    };
    let kind = kind.as_c_str();
    let special = kind == c"proc" || kind == c"sysfs";
    // Devices will be made below /dev: through a link they would land elsewhere (CVE-2026-41579).
    let links = if special || mount.target == Path::new("dev") {
        Links::Refused
    } else {
        Links::Inside
    };
    let (place, mode) = if kind == c"tmpfs" && !parameters.iter().any(|(key, _)| key.as_c_str() == c"mode") {
        existing_mode(root, mount, links, index)?
    } else {
        (
            target::open_or_make(root, &mount.target, links, Kind::Directory, index)?,
            None,
        )
    };
    let mut attributes = mount.attributes.raised;
    attributes.set(
        Attr::MOUNT_ATTR_RDONLY,
        attributes.contains(Attr::MOUNT_ATTR_RDONLY) && !is_filled(mount),
    );
    let made = filesystem(kind, parameters, attributes, mode);
    let made = match made {
        // Not in a user namespace that does not own the network or process id namespace: the host's, as it is.
        Err(Errno::PERM) if special && plan.has_users() => {
            let host = if kind == c"proc" { c"/proc" } else { c"/sys" };
            let copy = target::copy_tree(CWD, host, true).at_index(Step::Mount, index)?;
            bind::own_attributes(&copy, mount.attributes, true).at_index(Step::Mount, index)?;
            change(&copy, mount).at_index(Step::Mount, index)?;
            return Ok(Made {
                target: place,
                mount: copy,
            });
        }
        made => made.at_index(Step::Mount, index)?,
    };
    if kind == c"mqueue" {
        match label(&made, &plan.context) {
            // Its root is from when the IPC namespace was made, by somebody whom a user namespace that is joined may not know, and
            // who alone may label it. It keeps the policy's own label, which lets the container do less.
            Err(Errno::PERM) if plan.has_users() => {}
            labelled => labelled.at_index(Step::Mount, index)?,
        }
    }
    if mount.copy_up {
        copyup::fill(&place, &made).at_index(Step::CopyUp, index)?;
    }
    change(&made, mount).at_index(Step::Mount, index)?;
    Ok(Made {
        target: place,
        mount: made,
    })
}

/// Gives the root of a file system that takes no `context=` the container's SELinux label.
fn label(made: &OwnedFd, context: &[Parameter]) -> rustix::io::Result<()> {
    let Some((_, Some(label))) = context.first() else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(made, c".", flags, Mode::empty())?;
    let name = c"security.selinux";
    match rustix::fs::fsetxattr(root, name, label.to_bytes(), rustix::fs::XattrFlags::empty()) {
        // The policy has this kind of file system labelled as a whole.
        Err(Errno::NOTSUP) => Ok(()),
        set => set,
    }
}

/// A tmpfs over a directory of the image takes its mode over, as with runc: /run stays 755, /tmp 1777.
fn existing_mode(
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    links: Links,
    index: usize,
) -> Result<(OwnedFd, Option<u32>), Failure> {
    match target::open(root, &mount.target, links) {
        Err(Errno::NOENT) => {
            let made = target::open_or_make(root, &mount.target, links, Kind::Directory, index)?;
            Ok((made, None))
        }
        opened => {
            let opened = opened.at_index(Step::MountTarget, index)?;
            let stat = rustix::fs::fstat(&opened).at_index(Step::MountTarget, index)?;
            Ok((opened, Some(stat.st_mode & 0o7777)))
        }
    }
}

/// A detached mount of a new file system.
pub(crate) fn filesystem(
    kind: &std::ffi::CStr,
    parameters: &[Parameter],
    attributes: Attr,
    mode: Option<u32>,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(&context, key.as_c_str())?,
        }
    }
    if let Some(mode) = mode {
        fsconfig_set_string(&context, c"mode", format!("{mode:o}"))?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub(crate) fn bits(attributes: Attr) -> u64 {
    u64::from(attributes.bits())
}

/// New attributes for a mount that is there: what is not given is taken back, as mount(8) does.
fn remount(root: BorrowedFd<'_>, mount: &MountPlan, index: usize) -> Result<(), Failure> {
    let place = target::open(root, &mount.target, Links::Inside).at_index(Step::MountTarget, index)?;
    bind::own_attributes(&place, mount.attributes, false).at_index(Step::Mount, index)?;
    change(&place, mount).at_index(Step::Mount, index)
}
