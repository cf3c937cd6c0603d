use std::net::{IpAddr, Ipv4Addr};

use dhow_types::ErrorKind;
use ipnet::IpNet;

use crate::model::{MacAddress, Network};
use crate::netlink::{Batch, Socket, route};
use crate::{Context as _, Error, sysctl};

/// Where there is no default route to ask.
const ETHERNET_MTU: u32 = 1500;

/// A bridge that is there and up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bridge {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// Finds the network's bridge or makes it. Under the lock. "Up" is the last step of making it, so a bridge that is
/// down is one whose making was cut short, and is made again.
pub(crate) fn ensure(socket: &mut Socket, network: &Network) -> Result<Bridge, Error> {
    let device = &network.device;
    let what = || format!("look for bridge {device}");
    if let Some(link) = route::link(socket, device).context(what)? {
        if link.kind != "bridge" {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("interface {device} of the host is no bridge"),
            )
            .with_hint(
                "remove or rename it, or choose another with the option com.docker.network.bridge.name",
            ));
        }
        if link.up {
            return Ok(Bridge {
                index: link.index,
                mtu: link.mtu,
            });
        }
        crate::store::delete_link(device)?;
    }
    make(socket, network).context(|| format!("create bridge {device}"))
}

fn make(socket: &mut Socket, network: &Network) -> Result<Bridge, Error> {
    let device = &network.device;
    let mtu = match network.mtu {
        Some(mtu) => mtu,
        None => route::uplink_mtu(socket)
            .context(|| "read the uplink's MTU")?
            .unwrap_or(ETHERNET_MTU),
    };
    let gateway = network.v4().and_then(|subnet| match subnet.gateway {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let mut batch = Batch::new();
    route::add_bridge(
        &mut batch,
        device,
        MacAddress::of(gateway.unwrap_or(Ipv4Addr::UNSPECIFIED)),
    );
    socket
        .demand(&mut batch, &mut |_, _| ())
        .context(|| "add the interface")?;
    let index = route::link(socket, device)
        .context(|| "look it up")?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the interface vanished"))?
        .index;
    if network.v6().is_none() {
        // No link-local address, no router solicitation, no reachability that nobody asked for (CVE-2024-32473).
        sysctl::write_if_there(&format!("ipv6/conf/{device}/disable_ipv6"), "1")?;
    } else {
        // Until the search for duplicates of the link-local address ends (2 s) nothing can be forwarded to a container.
        sysctl::write_if_there(&format!("ipv6/conf/{device}/accept_dad"), "0")?;
    }
    // Connections of the host to 127.0.0.1:<published port> leave by the bridge with a loopback source until
    // postrouting; the table's raw chain keeps loopback addresses off the wires, which makes this safe.
    sysctl::write(&format!("ipv4/conf/{device}/route_localnet"), "1")?;
    let mut batch = Batch::new();
    route::set_mtu(&mut batch, index, mtu);
    for subnet in &network.subnets {
        let net = IpNet::new(subnet.gateway, subnet.subnet.prefix_len())
            .map_err(|error| Error::because(ErrorKind::Internal, "gateway and prefix do not fit", error))?;
        route::add_address(&mut batch, index, net);
    }
    route::set_up(&mut batch, index);
    socket
        .demand(&mut batch, &mut |_, _| ())
        .context(|| "give it its addresses")?;
    Ok(Bridge { index, mtu })
}

/// Lets the host route for a network that has a way out.
pub(crate) fn ensure_forwarding(network: &Network) -> Result<(), Error> {
    if network.internal {
        return Ok(());
    }
    sysctl::ensure("ipv4/ip_forward", "1")?;
    if network.v6().is_some() {
        keep_router_advertisements()?;
        sysctl::ensure("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A host that forwards IPv6 stops to listen to router advertisements unless told otherwise, and may lose its own
/// default route so (kernel `ip-sysctl.rst`, accept_ra: 2 overrules forwarding).
fn keep_router_advertisements() -> Result<(), Error> {
    let Ok(interfaces) = std::fs::read_dir("/proc/sys/net/ipv6/conf") else {
        return Ok(());
    };
    for interface in interfaces.flatten() {
        let Ok(name) = interface.file_name().into_string() else {
            continue;
        };
        let key = format!("ipv6/conf/{name}/accept_ra");
        if name != "all" && sysctl::is(&key, "1") && sysctl::is(&format!("ipv6/conf/{name}/forwarding"), "0")
        {
            sysctl::write_if_there(&key, "2")?;
        }
    }
    Ok(())
}
