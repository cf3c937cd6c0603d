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
    // A host that was started without IPv6 has none for a network from before that.
    let has_v6 = network.v6().is_some() && sysctl::has_ipv6();
    if !has_v6 {
        // No link-local address, no router solicitation, no reachability that nobody asked for (CVE-2024-32473).
        sysctl::write_if_there(&format!("ipv6/conf/{device}/disable_ipv6"), "1")?;
    } else {
        // Also where the administrator turned IPv6 off for what is new: this network was asked to have it.
        sysctl::write(&format!("ipv6/conf/{device}/disable_ipv6"), "0")?;
        // Until the search for duplicates of the link-local address ends (2 s) nothing can be forwarded to a container.
        sysctl::write_if_there(&format!("ipv6/conf/{device}/accept_dad"), "0")?;
    }
    // Connections of the host to 127.0.0.1:<published port> leave by the bridge with a loopback source until
    // postrouting; the table's raw chain keeps loopback addresses off the wires, which makes this safe.
    sysctl::write(&format!("ipv4/conf/{device}/route_localnet"), "1")?;
    let mut batch = Batch::new();
    route::set_mtu(&mut batch, index, mtu);
    for subnet in &network.subnets {
        if subnet.subnet.addr().is_ipv6() && !has_v6 {
            continue;
        }
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
