//! Inside a container: port 53 of the name server's address leads to the ports that the server really has, so that a
//! program of the container may have port 53 of every address for itself (a DNS server in a container is common).
//!
//! Without NAT: the ports are rewritten in the packets, so conntrack is not switched on in the container for this. The way
//! there is rewritten before conntrack (should the container use it) and the way back behind it; it sees one flow.

use std::io;
use std::net::Ipv4Addr;

use super::encode::{self, Hook, Meta, R1, Step};
use crate::Protocol;
use crate::netlink::{Batch, Socket};

const TABLE: &str = "dhow-dns";
const PORT: [u8; 2] = 53u16.to_be_bytes();
/// Places of the ports in a transport header.
const SOURCE: u32 = 0;
const DESTINATION: u32 = 2;
/// Places of source and destination in an IPv4 header.
const FROM: u32 = 12;
const TO: u32 = 16;

/// Sends what goes to port 53 of `address` in the thread's namespace to these ports of it.
pub(crate) fn redirect_dns(address: Ipv4Addr, udp: u16, tcp: u16) -> io::Result<()> {
    let hook = |priority| {
        Some(Hook {
            kind: "filter",
            number: 3,
            priority,
        })
    };
    let mut batch = Batch::new();
    encode::transaction(&mut batch, |batch| {
        encode::new_table(batch, TABLE);
        encode::delete_table(batch, TABLE);
        encode::new_table(batch, TABLE);
        encode::new_chain(batch, TABLE, "there", hook(-400));
        encode::new_chain(batch, TABLE, "back", hook(400));
        for (protocol, port, sum) in [(Protocol::Udp, udp, 6), (Protocol::Tcp, tcp, 16)] {
            let port = port.to_be_bytes();
            rule(
                batch,
                "there",
                address,
                protocol,
                (TO, DESTINATION),
                (PORT, port),
                sum,
            );
            rule(
                batch,
                "back",
                address,
                protocol,
                (FROM, SOURCE),
                (port, PORT),
                sum,
            );
        }
    });
    Socket::netfilter()?.demand(&mut batch, &mut |_, _| ())
}

/// Where the header at `place` has the address, the port there becomes another.
fn rule(
    batch: &mut Batch,
    chain: &str,
    address: Ipv4Addr,
    protocol: Protocol,
    place: (u32, u32),
    (old, new): ([u8; 2], [u8; 2]),
    sum: u32,
) {
    encode::new_rule(
        batch,
        TABLE,
        chain,
        &[
            Step::Meta(Meta::Family, R1),
            Step::Equal(&[2]),
            Step::Network(place.0, 4, R1),
            Step::Equal(&address.octets()),
            Step::Meta(Meta::Protocol, R1),
            Step::Equal(&[protocol.number()]),
            Step::Transport(place.1, 2, R1),
            Step::Equal(&old),
            Step::Load(&new),
            Step::WriteTransport(place.1, sum),
        ],
    );
}
