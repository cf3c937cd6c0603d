//! Landlock: a process gives up rights to files, ports and other processes for good (landlock(7)).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// Version of the interface that the kernel has; it counts from 1 (Linux 5.13).
///
/// # Errors
/// ENOSYS for a kernel built without Landlock, EOPNOTSUPP for one that was started without it.
pub fn abi() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = ptr::null::<Handled>();
    // SAFETY: no memory is passed: this flag wants a null pointer and no size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    crate::check(result).map(|version| u32::try_from(version).unwrap_or(u32::MAX))
}

/// What a ruleset denies unless a rule allows it (`struct landlock_ruleset_attr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Handled {
    /// `LANDLOCK_ACCESS_FS_*`.
    pub files: u64,
    /// `LANDLOCK_ACCESS_NET_*`.
    pub network: u64,
    /// `LANDLOCK_SCOPE_*`: denied without exception.
    pub scoped: u64,
}

/// A ruleset on its way to be applied.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// An empty ruleset.
    ///
    /// # Errors
    /// E2BIG and `InvalidInput` for what the kernel's version does not know, ENOMSG when nothing is handled.
    pub fn new(handled: &Handled) -> io::Result<Self> {
        // SAFETY: the kernel reads as many bytes as `Handled` has; what an older one does not know must be zero, which it checks.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const *handled,
                size_of::<Handled>(),
                0,
            )
        };
        let fd = RawFd::try_from(crate::check(result)?).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: a successful call returns a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Allows `access` to the file, or to the directory and all that is below it.
    ///
    /// # Errors
    /// `InvalidInput` for rights that are not handled, or are not a file's; EBADFD for a descriptor of no real file.
    pub fn allow_beneath(&self, access: u64, path: BorrowedFd<'_>) -> io::Result<()> {
        #[repr(C, packed)]
        struct Beneath {
            access: u64,
            parent: i32,
        }
        let rule = Beneath {
            access,
            parent: path.as_raw_fd(),
        };
        self.add(1, (&raw const rule).cast())
    }

    /// Allows `access` to a TCP port.
    ///
    /// # Errors
    /// `InvalidInput` for rights that are not handled.
    pub fn allow_port(&self, access: u64, port: u16) -> io::Result<()> {
        let rule = [access, u64::from(port)];
        self.add(2, (&raw const rule).cast())
    }

    fn add(&self, kind: u32, rule: *const u8) -> io::Result<()> {
        // SAFETY: both callers pass a rule in the form that the kernel reads for this kind, alive until the call is over.
        let result = unsafe { libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), kind, rule, 0) };
        crate::check(result).map(drop)
    }

    /// Restricts the caller, and all that it will become and start.
    ///
    /// # Errors
    /// `PermissionDenied` without no_new_privs, E2BIG under sixteen of them already.
    pub fn restrict_self(self) -> io::Result<()> {
        // SAFETY: integers only.
        let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        crate::check(result).map(drop)
    }
}
