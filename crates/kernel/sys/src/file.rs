//! Files that the kernel writes as they are read (of procfs, sysfs and control groups), and the way of others to their disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// What is asked for at once: such a file gives at most a page a call (kernel `fs/seq_file.c`).
const CHUNK: usize = 4096;

/// All of a file. Such a file says that its size is 0, so the standard library begins with 32 bytes and doubles them:
/// six calls for what this reads in two.
///
/// # Errors
/// As open and read; `FileTooLarge` for one of more than `most` bytes.
pub fn read(path: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
    let fd = openat(
        CWD,
        path.as_ref(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rest(&fd, most)
}

/// What is left to read of an open one.
///
/// # Errors
/// As [`read`].
pub fn rest(fd: impl AsFd, most: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(CHUNK);
    loop {
        if out.len() > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        out.reserve(CHUNK);
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut out)) {
            Ok(0) => return Ok(out),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The same of a file of text.
///
/// # Errors
/// As [`read`]; `InvalidData` for what is no UTF-8.
pub fn read_text(path: impl AsRef<Path>, most: usize) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The same of an open file of text.
///
/// # Errors
/// As [`read_text`].
pub fn rest_of_text(fd: impl AsFd, most: usize) -> io::Result<String> {
    String::from_utf8(rest(fd, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Has the kernel begin to write `length` bytes of a file from `from` on to its disk, and does not wait for it: what is
/// flushed later is then mostly there. Nothing is promised by this, so that no failure of it matters.
pub fn begin_writing(file: impl AsFd, from: u64, length: u64) {
    let place = |number: u64| libc::off64_t::try_from(number).unwrap_or(libc::off64_t::MAX);
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is borrowed.
    unsafe {
        libc::sync_file_range(
            file.as_fd().as_raw_fd(),
            place(from),
            place(length),
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
}

/// open(2) for a library in C that is to leave the access time of what it reads alone (`O_NOATIME`, which only the owner of a
/// file may ask for, and root): -1 with `errno` set when it fails.
///
/// # Safety
/// The path is a string of C.
pub unsafe extern "C" fn open_without_atime(
    path: *const libc::c_char,
    flags: libc::c_int,
    mode: libc::c_int,
) -> libc::c_int {
    // SAFETY: the caller says that the path is a string; the kernel judges the numbers.
    let file = unsafe { libc::open(path, flags | libc::O_NOATIME, mode) };
    if file >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
        return file;
    }
    // SAFETY: as above.
    unsafe { libc::open(path, flags, mode) }
}

/// Opens a file to read it, and leaves its access time alone where this user may say so: who sets one may wait for the disk.
///
/// # Errors
/// What the kernel says.
pub fn open_quietly(path: impl AsRef<Path>) -> io::Result<File> {
    let open = |flags| File::options().read(true).custom_flags(flags).open(path.as_ref());
    match open(libc::O_NOATIME) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(0),
        outcome => outcome,
    }
}

/// Locks one byte of a file alone, whether the file has it or not; waits for whoever has it. Free again when the open file
/// is closed, also by the end of the process (`F_OFD_SETLKW`, fcntl(2), Linux 3.15).
///
/// # Errors
/// What the kernel says; `InvalidInput` beyond 2^63.
pub fn lock_byte(file: impl AsFd, at: u64) -> io::Result<()> {
    // SAFETY: a structure of numbers, of which zero is a value for each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let invalid = |_| io::ErrorKind::InvalidInput;
    lock.l_type = libc::c_short::try_from(libc::F_WRLCK).map_err(invalid)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(invalid)?;
    lock.l_start = libc::off_t::try_from(at).map_err(invalid)?;
    lock.l_len = 1;
    loop {
        // SAFETY: the structure lives through the call, which reads it; the descriptor is open as long as `file` is borrowed.
        let done = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLKW, &lock) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_size_is_read_whole_and_no_larger_than_said() {
        let scratch = tempfile::tempdir().unwrap();
        let large = scratch.path().join("large");
        std::fs::write(&large, vec![b'x'; 3 * CHUNK + 5]).unwrap();
        assert_eq!(read(&large, 1 << 20).unwrap().len(), 3 * CHUNK + 5);
        let kind = |outcome: io::Result<Vec<u8>>| outcome.unwrap_err().kind();
        assert_eq!(kind(read(&large, CHUNK)), io::ErrorKind::FileTooLarge);
        assert_eq!(
            kind(read(scratch.path().join("gone"), 1)),
            io::ErrorKind::NotFound
        );
        let status = read_text("/proc/self/status", 1 << 20).unwrap();
        assert!(status.starts_with("Name:") && status.ends_with('\n'), "{status}");
        std::fs::write(&large, b"\xff").unwrap();
        assert_eq!(
            read_text(&large, 9).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn a_byte_is_locked_against_other_opens_and_free_when_its_file_is_closed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let open = || {
            let mut how = std::fs::OpenOptions::new();
            how.read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .unwrap()
        };
        let (first, other) = (open(), open());
        lock_byte(&first, u64::MAX >> 1).unwrap();
        lock_byte(&other, 7).unwrap();
        let (sent, got) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            lock_byte(&other, u64::MAX >> 1).unwrap();
            sent.send(()).unwrap();
        });
        assert!(got.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        drop(first);
        got.recv().unwrap();
        waits.join().unwrap();
        assert_eq!(
            lock_byte(open(), u64::MAX).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn what_is_opened_without_it_has_no_other_access_time() {
        use std::io::Read as _;
        use std::os::fd::{FromRawFd as _, OwnedFd};
        use std::os::unix::fs::MetadataExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, "x").unwrap();
        // Before the time of the last change, so that every mount would set it (relatime).
        let long_ago = std::fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
        std::fs::File::open(&path).unwrap().set_times(long_ago).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a string of C.
        let raw = unsafe { open_without_atime(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) };
        assert!(raw >= 0);
        // SAFETY: it was just opened, and nobody else has it.
        let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(raw) });
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.metadata().unwrap().atime()), ("x", 0));
        super::open_quietly(&path)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!((text.as_str(), file.metadata().unwrap().atime()), ("xx", 0));
        let gone = std::ffi::CString::new(scratch.path().join("none").to_str().unwrap()).unwrap();
        // SAFETY: the name is a string of C.
        let none = unsafe { open_without_atime(gone.as_ptr(), libc::O_RDONLY, 0) };
        let why = io::Error::last_os_error();
        assert_eq!((none, why.kind()), (-1, io::ErrorKind::NotFound));
    }
}
