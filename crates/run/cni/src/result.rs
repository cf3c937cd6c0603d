//! What plugins say.

use std::net::IpAddr;

use dhow_types::ErrorKind;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, invalid, shown};

/// Addresses, interfaces, servers or domains of a result at most.
const MOST: usize = 64;

/// What a container got, as far as the engine wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Its addresses, with the lengths of their prefixes.
    pub addresses: Vec<IpNet>,
    /// The first gateway of each family.
    pub gateways: Vec<IpAddr>,
    /// Hardware address of its interface; empty when no plugin said it.
    pub mac: String,
    /// Who answers for names there.
    pub dns: Dns,
}

/// What a result says of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of servers; what is no address is left out.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Domains to look in.
    pub search: Vec<String>,
    /// Words for the resolver.
    pub options: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(rename = "cniVersion")]
    version: String,
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    dns: Dns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: String,
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    interface: Option<usize>,
}

impl Added {
    /// Reads a result. `interface` is the one in the container that was asked for.
    pub(crate) fn parse(result: &Value, interface: &str) -> Result<Self, Error> {
        if !result.is_object() {
            return Err(invalid("a plugin gave no result"));
        }
        let wire: Wire = serde_json::from_value(result.clone())
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "a plugin gave no result", error))?;
        if !wire.version.is_empty() && !crate::list::VERSIONS.contains(&wire.version.as_str()) {
            return Err(invalid(format!(
                "a plugin gave a result of version {:?}",
                shown(&wire.version)
            )));
        }
        let dns = &wire.dns;
        let lengths = [
            wire.interfaces.len(),
            wire.ips.len(),
            dns.nameservers.len(),
            dns.search.len(),
            dns.options.len(),
        ];
        if lengths.iter().any(|length| *length > MOST) {
            return Err(invalid(format!(
                "a plugin gave a result of more than {MOST} parts"
            )));
        }
        let own = |at: usize| {
            let found = wire.interfaces.get(at);
            found.is_some_and(|one| one.name == interface && !one.sandbox.is_empty())
        };
        let mut added = Self {
            dns: wire.dns.clone(),
            ..Self::default()
        };
        if let Some(at) = (0..wire.interfaces.len()).find(|at| own(*at)) {
            added.mac = shown(&wire.interfaces[at].mac);
        }
        // An address that names no interface is of the one that was asked for.
        for ip in wire.ips.iter().filter(|ip| ip.interface.is_none_or(own)) {
            added.addresses.push(ip.address);
            if let Some(gateway) = ip.gateway
                && !added
                    .gateways
                    .iter()
                    .any(|known| known.is_ipv4() == gateway.is_ipv4())
            {
                added.gateways.push(gateway);
            }
        }
        Ok(added)
    }
}

#[cfg(test)]
mod unit {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_containers_own_addresses_are_found_in_old_and_new_results() {
        let new = json!({"cniVersion": "1.0.0",
            "interfaces": [{"name": "cni0", "mac": "aa"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                    {"address": "10.9.9.9/16", "interface": 0}, {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 1}],
            "dns": {"nameservers": ["10.1.0.1"]}});
        let added = Added::parse(&new, "eth0").unwrap();
        assert_eq!(
            added.addresses,
            ["10.1.0.5/16".parse().unwrap(), "fd00::5/64".parse().unwrap()]
        );
        assert_eq!(added.gateways.len(), 2);
        assert_eq!(
            (added.mac.as_str(), added.dns.nameservers.len()),
            ("02:00:00:00:00:01", 1)
        );
        let old = json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.5/16"}]});
        assert_eq!(Added::parse(&old, "eth0").unwrap().addresses.len(), 1);
        assert_eq!(Added::parse(&json!({}), "eth0").unwrap(), Added::default());
    }

    #[test]
    fn what_is_no_result_is_refused() {
        let many: Vec<Value> = (0..100).map(|_| json!({"address": "10.0.0.1/8"})).collect();
        for bad in [
            json!([]),
            json!("x"),
            json!({"ips": "x"}),
            json!({"ips": [{"address": "10.0.0.1"}]}),
            json!({"ips": [{"address": "10.0.0.1/99"}]}),
            json!({"cniVersion": "7.0.0"}),
            json!({"ips": many}),
        ] {
            assert!(Added::parse(&bad, "eth0").is_err(), "{bad}");
        }
    }
}
