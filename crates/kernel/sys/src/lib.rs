//! The only unsafe code: system calls that no library wraps safely.
//!
//! rustix covers most of what the house needs, and what it covers safely is used directly. Here is the rest, one file per topic:
//!
//! | file | what |
//! |---|---|
//! | [`beside`] | two pieces of work at once, between forks |
//! | [`clone`] | fork and clone3 of a single-threaded process, with pidfd, new namespaces and a cgroup |
//! | [`cpu`] | code compiled for what the processor has |
//! | [`exec`], [`stub`] | execve with vectors that were built before the clone, never from this program directly |
//! | [`fd`] | close-on-exec for everything, file descriptors over a socket |
//! | [`landlock`] | rulesets of files, ports and scopes |
//! | [`file`] | files that the kernel writes as they are read, the way of others to the disk |
//! | [`mount`] | detached overlay mounts, mount attributes, attach and detach |
//! | [`namespace`] | unshare, enter, a fresh network namespace |
//! | [`pattern`] | POSIX regular expressions |
//! | [`process`] | signals, session keyring, seccomp filter |
//! | [`sched`] | CPUs, scheduling, I/O priority, memory policy, execution domain |
//! | [`sha256`] | several streams hashed at once by SHA instructions |
//! | [`signal`] | signals read from a descriptor |
//! | [`background`] | what stays behind after a fork |
//!
//! The functions that run between clone and exec return `std::io::Error` made from an errno: such an error owns no
//! memory, so the child never needs the allocator for a failure. [`Error`] is for the calls whose failure the kernel
//! explains in words.

#![expect(
    unsafe_code,
    reason = "this crate is the one place for it; every block says why it is sound"
)]

pub mod background;
pub mod beside;
pub mod bpf;
pub mod clone;
pub mod cpu;
pub mod exec;
pub mod fd;
pub mod file;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod pattern;
pub mod pause;
pub mod process;
pub mod sched;
pub mod sha256;
pub mod signal;
pub mod socket;
pub mod stub;

dhow_types::define_error! {
    /// A system call that failed, with the call and what the kernel said about it.
    pub struct Error;
}

/// Turns the result of a raw system call into an `io::Result`.
fn check(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
