//! What `network create` may ask of a driver.

use std::collections::BTreeMap;

use dhow_types::ErrorKind;

use crate::{Driver, Error};

const OPTION_MTU: &str = "com.docker.network.driver.mtu";
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Whose rules published ports go by: `published` for ours alone, `host` for those of the host's input, too.
pub(crate) const OPTION_FIREWALL: &str = "com.dhow.firewall";
/// Address of the host for ports that name none.
pub(crate) const OPTION_HOST_IP: &str = "com.docker.network.bridge.host_binding_ipv4";

/// The driver that a word means.
pub(crate) fn driver(word: Option<&str>) -> Result<Driver, Error> {
    match word {
        None | Some("" | "default" | "bridge") => Ok(Driver::Bridge),
        Some("macvlan") => Ok(Driver::Macvlan),
        Some("ipvlan") => Ok(Driver::Ipvlan),
        Some(driver @ ("host" | "null" | "none")) => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("only one instance of \"{driver}\" network is allowed"),
        )),
        Some("cni") => Err(Error::new(
            ErrorKind::Unsupported,
            "networks of CNI plugins are made by their lists",
        )
        .with_hint("put a .conflist into /etc/cni/net.d, or a folder that NETCONFPATH names; containers join it by its name")),
        Some("overlay") => Err(
            Error::new(ErrorKind::Unsupported, "network driver overlay is not supported")
                .with_hint("use --driver bridge, macvlan or ipvlan, or --network host"),
        ),
        Some(driver) => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "could not find network driver {:?}",
                driver.chars().take(64).collect::<String>()
            ),
        )),
    }
}

/// The driver options that are obeyed; another is an error, since a wish that is dropped in silence surprises later.
#[derive(Debug)]
pub(crate) struct Options {
    /// The bridge device, or the host's interface.
    pub(crate) interface: Option<String>,
    pub(crate) mode: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) default_route: bool,
}

impl Options {
    /// In docker's words and podman's.
    pub(crate) fn parse(driver: Driver, given: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut options = Self {
            interface: None,
            mode: match driver {
                Driver::Macvlan => "bridge".to_owned(),
                Driver::Ipvlan => "l2".to_owned(),
                _ => String::new(),
            },
            mtu: None,
            icc: true,
            masquerade: true,
            default_route: true,
        };
        let bridged = driver == Driver::Bridge;
        for (key, value) in given {
            let bad = || {
                let short: String = value.chars().take(64).collect();
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("invalid value {short:?} of network option {key}"),
                )
            };
            match key.as_str() {
                OPTION_MTU | "mtu" => options.mtu = mtu(value).ok_or_else(bad)?,
                OPTION_BRIDGE if bridged => options.interface = Some(device_name(value).ok_or_else(bad)?),
                "parent" if !bridged => options.interface = Some(device_name(value).ok_or_else(bad)?),
                "mode" | "macvlan_mode" | "ipvlan_mode" if !bridged => {
                    options.mode = mode(driver, value).ok_or_else(bad)?;
                }
                OPTION_ICC if bridged => options.icc = parse_bool(value).ok_or_else(bad)?,
                OPTION_MASQUERADE if bridged => options.masquerade = parse_bool(value).ok_or_else(bad)?,
                OPTION_HOST_IP if bridged => {
                    value.parse::<std::net::Ipv4Addr>().map_err(|_| bad())?;
                }
                OPTION_FIREWALL if bridged => {
                    if !matches!(value.as_str(), "published" | "host") {
                        return Err(bad());
                    }
                }
                // Podman's word; networks are always apart here.
                "isolate" if bridged && (value == "strict" || parse_bool(value) == Some(true)) => {}
                "no_default_route" => options.default_route = !parse_bool(value).ok_or_else(bad)?,
                _ => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("network option \"{key}={value}\" of driver {driver} is not supported"),
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// IPv4 demands 68 (RFC 791); a veth takes no more than 65535. Docker takes 0 for "not set".
fn mtu(text: &str) -> Option<Option<u32>> {
    match text.parse().ok()? {
        0 => Some(None),
        mtu @ 68..=65535 => Some(Some(mtu)),
        _ => None,
    }
}

fn mode(driver: Driver, text: &str) -> Option<String> {
    let known: &[&str] = match driver {
        Driver::Macvlan => &["bridge", "private", "vepa", "passthru"],
        Driver::Ipvlan => &["l2", "l3", "l3s"],
        _ => &[],
    };
    known.contains(&text).then(|| text.to_owned())
}

/// A name that the kernel takes for a device and that is no path (`dev_valid_name`).
pub(crate) fn device_name(name: &str) -> Option<String> {
    let good = (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !matches!(name, "." | ".." | "all" | "default" | "lo");
    good.then(|| name.to_owned())
}

/// Go's `strconv.ParseBool`, with which docker reads these.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
