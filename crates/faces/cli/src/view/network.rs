//! Networks as `network ls` and `inspect` show them.

use dhow_engine::{Network, NetworkView};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::labels;
use crate::dialect;
use crate::render::{Fields, Row, time};

/// All fields of a network in a list.
pub(crate) const FIELDS: Fields = &[
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

/// The usual columns.
pub(crate) const TABLE: [&str; 4] = ["ID", "Name", "Driver", "Scope"];
/// Podman's.
pub(crate) const PODMAN_TABLE: [&str; 3] = ["ID", "Name", "Driver"];

/// One network as a row.
pub(crate) fn row(network: &Network, whole: bool) -> Row {
    let created = Timestamp::from_second(network.created).map_or_else(|_| String::new(), time::long);
    Row::new([
        ("CreatedAt", created.into()),
        ("Driver", network.driver.to_string().into()),
        (
            "ID",
            if whole {
                network.id.as_str()
            } else {
                network.id.short()
            }
            .into(),
        ),
        (
            "IPv4",
            (network.v4().is_some() || network.subnets.is_empty())
                .to_string()
                .into(),
        ),
        ("IPv6", network.v6().is_some().to_string().into()),
        ("Internal", network.internal.to_string().into()),
        ("Labels", labels(&network.labels).into()),
        ("Name", dialect::spoken().network_name(&network.name).into()),
        ("Scope", "local".into()),
    ])
    .with_labels(&network.labels)
}

/// One network with who is on it (moby `api/types/network.Inspect`).
pub(crate) fn inspect(view: &NetworkView) -> Value {
    let network = &view.network;
    let created =
        Timestamp::from_second(network.created).map_or_else(|_| String::new(), |time| time.to_string());
    let ranges: Vec<Value> = network
        .subnets
        .iter()
        .map(|subnet| {
            let mut range = Map::new();
            range.insert("Subnet".to_owned(), subnet.subnet.to_string().into());
            if let Some(part) = &subnet.ip_range {
                range.insert("IPRange".to_owned(), part.to_string().into());
            }
            range.insert("Gateway".to_owned(), subnet.gateway.to_string().into());
            if !subnet.reserved.is_empty() {
                let taken = subnet
                    .reserved
                    .iter()
                    .map(|(name, ip)| (name.clone(), ip.to_string().into()));
                range.insert("AuxiliaryAddresses".to_owned(), Value::Object(taken.collect()));
            }
            range.into()
        })
        .collect();
    let containers: Map<String, Value> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let v6 = endpoint
                .ip6
                .map_or_else(String::new, |ip| format!("{ip}/{}", endpoint.prefix6));
            let value = json!({
                "Name": endpoint.name,
                "EndpointID": "",
                "MacAddress": endpoint.mac.to_string(),
                "IPv4Address": format!("{}/{}", endpoint.ip, endpoint.prefix),
                "IPv6Address": v6,
            });
            (endpoint.container.to_string(), value)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id.as_str(),
        "Created": created,
        "Scope": "local",
        "Driver": network.driver.to_string(),
        "EnableIPv4": true,
        "EnableIPv6": network.v6().is_some(),
        "IPAM": {"Driver": "default", "Options": null, "Config": ranges},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    })
}
