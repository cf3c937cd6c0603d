//! Extended attributes of what is copied: `user.*` and file capabilities. The others say something about this host
//! (labels, overlay's own marks, ACLs of its users).

use std::os::fd::BorrowedFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, flistxattr_query, fsetxattr};

use crate::failure::{Context as _, Error};

/// Most bytes of the names and of one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 64 << 10;

/// The attributes that travel with a file, sorted. A file system without any has none.
pub(crate) fn read(file: BorrowedFd<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    // Most files have none: ask for the size first. (A list that is asked for with an empty buffer is empty.)
    match flistxattr_query(file) {
        Ok(length) if length > 0 => {}
        _ => return Vec::new(),
    }
    let mut list = vec![0; MAX];
    let Ok(length) = flistxattr(file, &mut list[..]) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0) {
        if !travels(name) {
            continue;
        }
        let mut value = vec![0; MAX];
        if let Ok(name_text) = std::str::from_utf8(name)
            && let Ok(length) = fgetxattr(file, name_text, &mut value[..])
        {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    found
}

fn travels(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

/// Sets attributes on a file.
///
/// # Errors
/// When the file system refuses one.
pub(crate) fn write(file: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
    for (name, value) in xattrs.iter().filter(|(name, _)| travels(name)) {
        let shown = String::from_utf8_lossy(name);
        fsetxattr(file, shown.as_ref(), value, XattrFlags::empty())
            .map_err(std::io::Error::from)
            .context(|| format!("set the extended attribute {shown}"))?;
    }
    Ok(())
}
