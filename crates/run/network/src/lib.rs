//! Networks of containers: bridges, veth pairs, address leases, nf_tables rules, published ports, container DNS.

#![forbid(unsafe_code)]

mod attach;
mod bridge;
pub mod dns;
mod files;
mod firewall;
mod lease;
mod model;
mod namespace;
mod netlink;
mod pool;
mod port;
mod store;
mod sysctl;

pub use files::{HostEntry, ResolvOptions, host_resolvers, hosts_file, resolv_conf};
pub use model::{
    CreateNetwork, DEFAULT_BRIDGE, Driver, Endpoint, EndpointRequest, HOST, MacAddress, NONE, Network,
    ParseMacError, PortMapping, Protocol, PublishedPort, Subnet, SubnetRequest,
};
pub use namespace::sandbox;
pub use store::Networks;

dhow_types::define_error! {
    /// Why a network operation failed.
    pub struct Error;
}
