//! What is beneath a root that a process only moved into with chroot(2), since it could not change its root (`--no-pivot`, for
//! hosts whose root is the initramfs).
//!
//! The host's mounts stay in the namespace then, out of reach but not out of the kernel's sight: with a procfs among them
//! that nothing masks, a user namespace inside may mount another such, and write what the masked paths protect. So they go.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use dhow_sys::mount::attach_at;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};

use super::rootfs::filesystem;

/// Takes the mounts of the host away that are beneath `root`, which lies over the root of this process.
///
/// Those of a more privileged user namespace cannot be taken away; what shows the kernel's state is covered among them.
pub(crate) fn clear(root: BorrowedFd<'_>) -> std::io::Result<()> {
    let own = statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mounts = beneath(&table, own);
    // The last one first: it may be below another one, or over it.
    for mount in mounts.iter().rev() {
        let point = mount.point.as_c_str();
        match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::PERM) if mount.reveals => {
                let cover = filesystem(c"tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY, None)?;
                attach_at(&cover, CWD, point)?;
            }
            Err(Errno::INVAL | Errno::PERM | Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A line of the table.
#[derive(Debug)]
struct Mount {
    id: u64,
    parent: u64,
    point: CString,
    /// Whether it is a whole procfs or sysfs.
    reveals: bool,
}

/// The mounts of a table (proc(5), `mountinfo`) that are neither `own`, nor below it, nor the root of the process.
fn beneath(table: &[u8], own: u64) -> Vec<Mount> {
    let lines = table.split(|byte| *byte == b'\n');
    let mut mounts: Vec<Mount> = lines.filter_map(line).collect();
    // The table is in the order in which mounts were made, which is not that of the tree.
    let mut inside = vec![own];
    let mut next = 0;
    while let Some(id) = inside.get(next).copied() {
        inside.extend(
            mounts
                .iter()
                .filter(|mount| mount.parent == id && mount.id != id)
                .map(|mount| mount.id),
        );
        next += 1;
    }
    mounts.retain(|mount| !inside.contains(&mount.id) && mount.point.as_c_str() != c"/");
    mounts
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let mut fields = fields.skip(1);
    let (part, point) = (fields.next()?, fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        parent,
        point: CString::new(unescape(point)).ok()?,
        reveals: part == b"/" && matches!(kind, b"proc" | b"sysfs"),
    })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *byte == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*byte));
        rest = match code {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_the_root_nor_below_it_is_beneath() {
        let table = b"19 30 0:7 / /taken rw - tmpfs tmpfs rw
20 1 0:2 / / rw - rootfs rootfs rw
21 20 0:5 / /proc rw,nosuid shared:3 - proc proc rw
22 21 0:5 /sys /proc/sys ro - proc proc rw
23 20 0:6 / /sys rw - sysfs sysfs rw
24 20 8:1 / /mnt/a\\040b\\134c rw - ext4 /dev/vda rw
30 20 8:1 /box / rw - ext4 /dev/vda rw
31 30 0:9 / /proc rw - proc proc rw
32 31 0:9 /sys /proc/sys ro - proc proc rw
short
";
        let found: Vec<(String, bool)> = beneath(table, 30)
            .into_iter()
            .map(|mount| (mount.point.into_string().unwrap(), mount.reveals))
            .collect();
        let wanted = [
            ("/proc", true),
            ("/proc/sys", false),
            ("/sys", true),
            ("/mnt/a b\\c", false),
        ];
        let wanted = wanted.map(|(point, reveals)| (point.to_owned(), reveals));
        assert_eq!(found, wanted);
    }
}
