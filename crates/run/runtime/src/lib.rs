//! The OCI runtime as a library: create, start, exec, kill and wait for containers, in the caller's own process.
//!
//! # Story
//! [`Plan::prepare`] checks a runtime spec and compiles all of it: strings for execve, mounts, capability masks, the
//! seccomp program. [`create`] clones the container's first process into its new namespaces; that process ([`mod@init`])
//! walks the plan, reports that it is ready and waits. [`Created::start`] lets it execve. [`run`] does both with one
//! wait less. [`exec`] adds a process to a running container. A failure in the child comes back as a step, a subject
//! and an errno, and becomes an [`Error`] with runc's wording.
//!
//! # What it promises
//! - The host's binary is out of the container's reach (CVE-2019-5736). The child is a copy of the caller and not dumpable
//!   from its birth (with a user namespace: from the moment its id maps are written), so nobody can open its program; and
//!   what it executes is a sealed stub ([`dhow_sys::stub`]), which executes the program: `/proc/self/exe` as an entry point
//!   finds the stub. What [`exec`] brings in is the stub's child: a container that may trace sees nothing else (CVE-2016-9962).
//!   The caller must be single-threaded; one with threads is refused.
//! - Everything in the root file system is reached by file descriptor and resolved by the kernel inside the root
//!   (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579); every mount is built detached and attached to a descriptor.
//! - procfs is written only through the descriptor of an instance made for it, without entering mounts or following
//!   links (CVE-2019-16884, CVE-2025-52881); labels of AppArmor and SELinux through the host's, opened before anything of
//!   the container is entered ([`mod@lsm`]).
//! - No descriptor of the host survives execve, and the working directory is inside the root (CVE-2024-21626).
//! - What a spec asks for and this runtime cannot do is an `Unsupported` error, never passed over.
//!
//! # What it leaves to others
//! The caller makes the root file system, the control group ([`dhow_cgroup::Group`]) and network namespaces, and
//! reaps the processes ([`wait`]). `HOME` and numeric users come resolved in the spec.

#![forbid(unsafe_code)]

mod agent;
pub mod container;
mod create;
mod exec;
mod given;
mod hooks;
mod idmap;
mod init;
mod landlock;
pub mod lsm;
mod netdev;
mod nodes;
mod parent;
mod plan;
mod report;
mod wait;
mod within;

pub use create::{
    Create, Created, Namespace, Rootfs, Running, Stdio, create, run, run_known, run_with_hooks,
};
pub use exec::{Exec, exec};
pub use given::{mounted_in, part_of};
pub use hooks::{HookFailure, Surroundings, run_last_hooks};
pub use idmap::{namespace as user_namespace, of as id_maps_of, write as write_id_maps};
pub use landlock::ANNOTATION as LANDLOCK;
pub use plan::{Plan, Settings};
pub use wait::{ExitStatus, kill, wait};

dhow_types::define_error! {
    /// A container that could not be made, started, entered or waited for.
    ///
    /// A program that is not there has kind `NotFound` (docker's exit code 127), one that may not be executed
    /// `PermissionDenied` (126).
    pub struct Error;
}
