//! System calls of SQLite that are ours.
//!
//! As root, SQLite gives the log the owner of the database each time that it opens it, that is in every command
//! (`robustFchown` of os_unix.c). The log mostly has it, and the call changes its inode all the same: it may wait for a disk
//! that is just writing the block of that inode, and whoever is about to commit waits with it (16 ms, seen with 32 commands
//! at work).
//!
//! The time of the last access is that of the last look at the log, where it is older than the last change: in nearly every
//! command. It changes the inode as well, and nobody wants to know it.
//!
//! And SQLite has the log and what it shares with others beside the database, and takes no word for another place.

#![allow(unsafe_code, reason = "SQLite's table of system calls is C")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::{Once, PoisonError, RwLock};

use rusqlite::ffi;
use rustix::fs::{Gid, Uid, fchown, fstat};

use crate::{home, log};

/// Files that are in another place than SQLite thinks.
static MOVED: RwLock<Vec<(CString, CString)>> = RwLock::new(Vec::new());

/// Has the log of a database, and what goes with it, in this folder, or beside the database; while the database is not open.
pub(crate) fn place_log(database: &Path, folder: Option<&Path>) -> io::Result<()> {
    let folder_of = database.parent().unwrap_or(Path::new("."));
    // SQLite asks for files by their whole paths, without links (`unixFullPathname`).
    let whole = std::fs::canonicalize(folder_of)?.join(database.file_name().unwrap_or_default());
    let mut moved = MOVED.write().unwrap_or_else(PoisonError::into_inner);
    for suffix in ["-wal", "-shm"] {
        let from = CString::new(log::beside(&whole, suffix).into_os_string().into_vec())?;
        moved.retain(|(there, _)| *there != from);
        if let Some(folder) = folder {
            let to = CString::new(home::in_memory(folder, suffix).into_os_string().into_vec())?;
            moved.push((from, to));
        }
    }
    Ok(())
}

/// `open(2)` without a change of the access time, where the file is.
extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite calls this with a string.
    let name = unsafe { CStr::from_ptr(path) };
    let moved = MOVED.read().unwrap_or_else(PoisonError::into_inner);
    let found = moved.iter().find(|(from, _)| from.as_c_str() == name);
    let path = found.map_or(path, |(_, to)| to.as_ptr());
    // SAFETY: the path is a string: that of SQLite, or one that nobody changes as long as the list is read.
    unsafe { dhow_sys::file::open_without_atime(path, flags, mode) }
}

/// `fchown(2)`, unless the file has this owner.
extern "C" fn give(fd: c_int, uid: u32, gid: u32) -> c_int {
    if fd < 0 {
        return -1;
    }
    // SAFETY: SQLite calls this with a file that it has just opened, and closes it later.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    match fstat(file) {
        Ok(now) if now.st_uid == uid && now.st_gid == gid => 0,
        _ if uid == u32::MAX || gid == u32::MAX => -1,
        _ => fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_or(-1, |()| 0),
    }
}

/// From the first call on, SQLite leaves the owner of a log alone that has the right one, and the access times of its files,
/// and finds those that were moved.
pub(crate) fn replace() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let give: extern "C" fn(c_int, u32, u32) -> c_int = give;
        // SAFETY: both are pointers to functions of the C ABI. SQLite keeps such of any type in one table, and calls that of
        // this name as what it is (sqlite3.c, `osFchown`).
        let give: unsafe extern "C" fn() = unsafe { std::mem::transmute(give) };
        let open: extern "C" fn(*const c_char, c_int, c_int) -> c_int = open;
        // SAFETY: likewise (`osOpen`, which gives it a string).
        let open: unsafe extern "C" fn() = unsafe { std::mem::transmute(open) };
        // SAFETY: asks for the default VFS, which there is as long as the process.
        let vfs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        // SAFETY: the pointer is null, or that of the VFS.
        let set = unsafe { vfs.as_ref() }.and_then(|vfs| vfs.xSetSystemCall);
        for (name, call) in [(c"fchown", give), (c"open", open)] {
            if let Some(set) = set {
                // SAFETY: it sets one pointer of a table that is read at each call: who opens a file at this moment calls the
                // one or the other.
                unsafe { set(vfs, name.as_ptr(), Some(call)) };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown};

    use crate::Meta;

    #[test]
    fn the_log_is_touched_only_when_it_has_another_owner() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root's logs get another owner");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, log) = (dir.path().join("meta.db"), dir.path().join("meta.db-wal"));
        let look = || {
            let meta = Meta::open(&path).unwrap();
            assert_eq!(meta.fact("x").unwrap(), None);
            let log = std::fs::metadata(&log).unwrap();
            (
                log.uid(),
                log.gid(),
                log.ctime(),
                log.ctime_nsec(),
                log.atime_nsec(),
            )
        };
        // Something in the log, so that it is read.
        Meta::open(&path)
            .unwrap()
            .edit(|edit| edit.set_fact("y", 1))
            .unwrap();
        let first = look();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(look(), first);
        chown(&log, Some(1234), Some(1234)).unwrap();
        let given = look();
        assert_eq!((given.0, given.1), (first.0, first.1));
    }
}
