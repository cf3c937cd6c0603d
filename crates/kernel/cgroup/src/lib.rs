//! Control groups, version 1 and 2: create, limit, read, freeze, kill, delete.
//!
//! A [`Group`] is one directory per mounted hierarchy, held by file descriptor. On a v2 host that is one directory;
//! on a v1 or hybrid host it is one for every controller that the limits or the statistics need, and one in the
//! (controller-less) v2 tree, where `cgroup.kill` and `CLONE_INTO_CGROUP` live.
//!
//! What to write is computed first, by pure functions (modules `v1`, `v2`, `device`); the writes themselves are a loop
//! over directory file descriptors. An engine's path is taken below the mounted root of each hierarchy, as dockerd with the
//! cgroupfs driver does; who may not create there (rootless, delegated trees) gets it below the own group.
//! What an OCI spec asks for is a [`Place`], read as runc reads it; where systemd owns the tree, a [`systemd::Unit`].
//!
//! **Cost rule**: moving *another* process (`cgroup.procs`) takes the kernel's global thread-group lock for writing,
//! which waits for an RCU grace period; a single thread moving *itself* by writing `0` to v1 `tasks` takes no lock
//! (kernel `cgroup_procs_write_start`). So a starting container joins through [`Group::entrances`], not
//! [`Group::add`].

#![forbid(unsafe_code)]

mod create;
mod device;
mod devices_v1;
mod dir;
mod find;
mod group;
mod hierarchy;
mod place;
mod setting;
mod stats;
pub mod systemd;
mod teardown;
mod usage;
mod v1;
mod v2;

pub use create::{read_only, rootless};
pub use find::list;
pub use group::Group;
pub use place::{Place, SubGroups};
pub use stats::{BlockIo, Cpu, Memory, Pids, Stats, host_cpu_time};

dhow_types::define_error! {
    /// A control group that could not be made, changed, read or removed.
    pub struct Error;
}

/// Readers for the crate `dhow-fuzz`; no part of the interface.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    /// A mount table and a membership file; what was found, as text.
    #[must_use]
    pub fn mount_table(mountinfo: &str, membership: &str) -> String {
        format!("{:?}", crate::hierarchy::parse(mountinfo, membership))
    }

    /// A message from the bus; what was found, as text.
    #[must_use]
    pub fn bus_message(bytes: &[u8]) -> String {
        crate::systemd::read_message(bytes)
    }

    /// The files that statistics are read from.
    #[must_use]
    pub fn statistics(text: &str) -> String {
        let (memory, cpu) = (crate::stats::memory_v2(text), crate::stats::cpu_v2(text));
        let (old, io) = (crate::stats::memory_v1(text), crate::stats::block_io_v2(text));
        format!(
            "{memory:?}{cpu:?}{old:?}{io:?}{:?}",
            crate::stats::block_io_v1(text, text)
        )
    }

    /// Limits of a spec as what would be written.
    #[must_use]
    pub fn limits(resources: &dhow_oci::runtime::Resources) -> String {
        format!(
            "{:?}{:?}",
            crate::v1::settings(resources),
            crate::v2::settings(resources)
        )
    }
}
