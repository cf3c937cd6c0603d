use dhow_oci::runtime::Seccomp;
use dhow_types::ErrorKind;

use crate::Error;

/// Architecture of the kernel that a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit x86.
    X86_64,
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Program {
    /// Instructions, at most 4096, as `seccomp(2)` takes them.
    pub filter: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`; the listener flag is set when [`notify`](Self::notify) is.
    pub flags: u32,
    /// Whether a rule asks an agent (`SCMP_ACT_NOTIFY`), so that loading the filter returns a listener.
    pub notify: bool,
}

/// Compiles a profile for `arch`.
///
/// # Errors
/// `InvalidArgument` for actions, operators, architectures or flags that do not exist, `ResourceExhausted` for a
/// profile that does not fit in 4096 instructions.
pub fn compile(profile: &Seccomp, arch: Arch) -> Result<Program, Error> {
    let _ = (profile, arch);
    Err(Error::new(
        ErrorKind::Unsupported,
        "the compiler is not written yet",
    ))
}
