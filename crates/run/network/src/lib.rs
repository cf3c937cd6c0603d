//! Networks of containers: bridges, veth pairs, address leases, nf_tables rules, published ports, container DNS.

#![forbid(unsafe_code)]

pub mod dns;
mod files;
mod model;
mod store;

pub use files::{HostEntry, ResolvOptions, host_resolvers, hosts_file, resolv_conf};
pub use model::{
    CreateNetwork, DEFAULT_BRIDGE, Driver, Endpoint, EndpointRequest, HOST, MacAddress, NONE, Network,
    ParseMacError, PortMapping, Protocol, PublishedPort, Subnet, SubnetRequest,
};
pub use store::{Networks, sandbox};

dhow_types::define_error! {
    /// Why a network operation failed.
    pub struct Error;
}
