//! Keeping a client's address: the relay's socket towards the container has it, though it is not of the user's network
//! namespace. What the container answers is for that address and would leave by the uplink, so it is marked on its way back
//! and delivered here (the kernel's `tproxy.rst`). All of it is in that namespace, in which the user is root.
//!
//! Addresses that are of the namespace (the host's own, which pasta gives its device) are not kept: one cannot be at both ends.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use crate::firewall::mark_answers;
use crate::netlink::{Batch, Socket, route};

/// On what the relay sends, and on its connections.
const THERE: u32 = 0xd401;
/// On what comes back.
const BACK: u32 = 0xd402;
/// The routing table in which everything is here.
const TABLE: u8 = 212;
/// Index of the loopback interface.
const LOOPBACK: u32 = 1;

/// Whether clients' addresses can be kept, by family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    v4: bool,
    v6: bool,
}

impl Sources {
    /// In the network namespace in which the relay is. What the kernel lacks is not kept.
    pub(super) fn prepare() -> Self {
        if mark_answers(THERE, BACK).is_err() {
            return Self::default();
        }
        Self {
            v4: lead_back(false).is_ok(),
            v6: lead_back(true).is_ok(),
        }
    }

    /// Gives a socket towards `target` the address of the client, and for datagrams its port, if it can have it.
    pub(super) fn give(self, socket: impl AsFd, client: SocketAddr, target: SocketAddr, port: u16) {
        let kept = match (client, target) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => self.v4,
            (SocketAddr::V6(_), SocketAddr::V6(_)) => self.v6,
            _ => false,
        };
        if !kept || is_here(client.ip()) {
            return;
        }
        if dhow_sys::socket::take_any_address(&socket, client.is_ipv6(), THERE).is_ok() {
            // Without, it has the gateway's.
            _ = rustix::net::bind(&socket, &SocketAddr::new(client.ip(), port));
        }
    }
}

fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

fn lead_back(v6: bool) -> io::Result<()> {
    let mut socket = Socket::route()?;
    let mut batch = Batch::new();
    route::add_local_table(&mut batch, v6, TABLE, LOOPBACK);
    route::add_mark_rule(&mut batch, v6, BACK, TABLE);
    let refused = socket.exchange(&mut batch, &mut |_, _| ())?;
    // The relay of another container has done it.
    match refused
        .iter()
        .find(|refusal| refusal.errno != rustix::io::Errno::EXIST)
    {
        Some(refusal) => Err(refusal.errno.into()),
        None => Ok(()),
    }
}
