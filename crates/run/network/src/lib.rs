//! Networks of containers: bridges, veth pairs, address leases, nf_tables rules, published ports, container DNS.
//!
//! No other program is run and no daemon keeps anything: what is true stands in files, and the kernel's state can be made
//! again from them.
//!
//! ```text
//! networks/.lock                      flock: records are made and rules are changed under it; the kernel frees it
//! networks/.watch                     flock of the process that writes flushed rules again
//! networks/<name>/network.json        immutable; published by rename of the whole directory
//! networks/<name>/leases/<address>    symbolic link to the id of the container that has the address
//! networks/<name>/endpoints/<id>.json one container on this network: written before the link is made
//! ```
//! The time stamp of `networks/` changes with every attach and detach: name servers watch it.
//!
//! What it promises, and who tests it (`tests/`):
//! - A killed attach or detach leaves nothing that [`Networks::release_stale`] does not undo (`crash.rs`).
//! - Into a bridge come only answers and published ports; internal networks have no way out, not even by DNS
//!   (`rules.rs`, `names.rs`; CVE-2024-29018).
//! - Loopback addresses are never taken from a wire, though ports are published on them (`rules.rs`; CVE-2020-8558).
//! - No IPv6 on a network without it (`attach.rs`; CVE-2024-32473); no router advertisements are heard in containers, and a
//!   host that forwards IPv6 for them is no router between its other interfaces (`ipv6.rs`; CVE-2020-13401).
//! - A flushed rule set is written again at once by who watches it ([`Networks::watch`]), else by the next attach or
//!   [`Networks::repair`] (`rules.rs`; CVE-2025-54388).
//! - A port in use is refused in docker's words, because the port is really held (`rules.rs`).
//!
//! Measured (two cores, Linux 6.18, 100 rounds, median): [`sandbox`] 0.8 ms, [`Networks::attach`] with a published port
//! 1.2 to 1.5 ms, [`Networks::retire`] 0.13 ms; the first attach, which makes bridge and rules, 9 to 18 ms. [`Networks::bury`]
//! takes 10 to 30 ms, in which the kernel waits for readers of the link; nobody else has to wait for it.
//!
//! What the packet filter cannot bring to a container a relay does: published ports at `::1`, those on IPv6 for a container
//! without it, and all of a normal user, whose bridges are in a namespace of their own (`user`, `relay`).
//!
//! Known limits: the first attach turns on forwarding for the whole host, and leaves the policy for traffic between the host's
//! other interfaces to the administrator. A container sees its gateway
//! instead of a client that came by root's relay, or from the host itself by that of a normal user; SCTP has none.

#![forbid(unsafe_code)]

mod attach;
mod bridge;
pub mod dns;
mod files;
mod firewall;
mod forwarding;
mod lease;
mod model;
mod namespace;
mod netlink;
mod options;
mod parent;
mod pool;
mod port;
mod published;
mod relay;
mod store;
mod sysctl;
mod user;
mod watch;

pub use attach::Retired;
pub use files::{
    HostEntry, ResolvOptions, host_entries, host_lines, host_resolvers, hosts_file, resolv_conf,
};
pub use model::{
    CreateNetwork, DEFAULT_BRIDGE, Driver, Endpoint, EndpointRequest, HOST, MacAddress, NONE, Network,
    ParseMacError, PortMapping, Protocol, PublishedPort, Subnet, SubnetRequest,
};
pub use namespace::{is_unused, sandbox, sandbox_of};
pub use published::Published;
pub use store::Networks;

dhow_types::define_error! {
    /// Why a network operation failed.
    pub struct Error;
}

/// Readers for the crate `dhow-fuzz`; no part of the interface.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    /// An answer of the kernel.
    #[must_use]
    pub fn netlink(datagram: &[u8]) -> usize {
        crate::netlink::fuzz(datagram)
    }

    /// A question or answer of the domain name system.
    #[must_use]
    pub fn dns(message: &[u8]) -> String {
        crate::dns::fuzz(message)
    }
}
