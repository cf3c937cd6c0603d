//! Programs: execveat without an allocation: the vectors are made before the clone.

use std::ffi::{CString, c_char};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr;

/// Strings and the null-terminated array of pointers to them that execve takes.
pub struct Vector {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Vector {
    /// Keeps the strings and points at them.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.strings).finish()
    }
}

/// Replaces the program of this process by the file `program`; returns only when that failed.
#[must_use]
pub fn execveat(program: impl AsFd, argv: &Vector, envp: &Vector) -> io::Error {
    let (argv, envp) = (argv.pointers.as_ptr(), envp.pointers.as_ptr());
    let (fd, path) = (program.as_fd().as_raw_fd(), c"".as_ptr());
    // SAFETY: every pointer of the two vectors is a null-terminated string that lives as long as its owner, which the
    // borrows keep alive (a `CString` keeps its bytes in place when it moves); both arrays end in null.
    unsafe { libc::syscall(libc::SYS_execveat, fd, path, argv, envp, libc::AT_EMPTY_PATH) };
    io::Error::last_os_error()
}
