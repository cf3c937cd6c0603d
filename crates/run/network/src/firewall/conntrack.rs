//! UDP has no connections, so conntrack keeps sending a client that never falls silent to where its first datagram went:
//! to a container that is gone, or to the host itself from before the port was published (moby 8795). When a UDP
//! port changes hands, what is known of it is forgotten.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::netlink::{ACK, Attributes, Batch, DUMP, Socket};
use crate::{Protocol, PublishedPort};

const SUBSYSTEM: u16 = 1 << 8;
const CT_NEW: u16 = SUBSYSTEM;
const CT_GET: u16 = SUBSYSTEM | 1;
const CT_DELETE: u16 = SUBSYSTEM | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `NLA_F_NESTED`, which the kernel demands of a tuple that is sent back.
const NESTED: u16 = 0x8000;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Forgets the flows to the UDP ports among `ports`. Looks at the whole table, but only when there are any.
pub(super) fn forget(socket: &mut Socket, ports: &[PublishedPort]) -> io::Result<()> {
    let udp: Vec<&PublishedPort> = ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .collect();
    for family in [AF_INET, AF_INET6] {
        if !udp
            .iter()
            .any(|port| port.host_ip.is_ipv4() == (family == AF_INET))
        {
            continue;
        }
        let mut batch = Batch::new();
        batch.request(CT_GET, DUMP, &[family, 0, 0, 0], |_| ());
        let mut flows: Vec<Vec<u8>> = Vec::new();
        let dumped = socket.demand(&mut batch, &mut |kind, payload| {
            if kind == CT_NEW
                && let Some(tuple) = Attributes::after(payload, 4).find(CTA_TUPLE_ORIG)
                && udp.iter().any(|port| leads_to(tuple, port))
            {
                flows.push(tuple.to_vec());
            }
        });
        match dumped {
            // Without ctnetlink in the kernel there is nothing to be done about it.
            Err(error) if crate::netlink::route::is(&error, Errno::INVAL) => return Ok(()),
            other => other?,
        }
        for flow in flows {
            let mut batch = Batch::new();
            batch.request(CT_DELETE, ACK, &[family, 0, 0, 0], |message| {
                message.raw(CTA_TUPLE_ORIG | NESTED, &flow)
            });
            match socket.demand(&mut batch, &mut |_, _| ()) {
                Err(error) if crate::netlink::route::is(&error, Errno::NOENT) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Whether the first datagram of this flow went to the port.
fn leads_to(tuple: &[u8], port: &PublishedPort) -> bool {
    let parts = Attributes::new(tuple);
    let (Some(ip), Some(proto)) = (parts.find(CTA_TUPLE_IP), parts.find(CTA_TUPLE_PROTO)) else {
        return false;
    };
    let (ip, proto) = (Attributes::new(ip), Attributes::new(proto));
    let to = match port.host_ip {
        IpAddr::V4(_) => ip
            .find(CTA_IP_V4_DST)
            .and_then(|raw| raw.first_chunk().map(|raw: &[u8; 4]| IpAddr::from(*raw))),
        IpAddr::V6(_) => ip
            .find(CTA_IP_V6_DST)
            .and_then(|raw| raw.first_chunk().map(|raw: &[u8; 16]| IpAddr::from(*raw))),
    };
    proto.find(CTA_PROTO_NUM) == Some(&[port.protocol.number()])
        && proto.find(CTA_PROTO_DST_PORT) == Some(&port.host_port.to_be_bytes())
        && to.is_some_and(|to| port.host_ip.is_unspecified() || to == port.host_ip)
}
