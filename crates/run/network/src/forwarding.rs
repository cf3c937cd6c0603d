//! Whether the host forwards for its networks, and what it is not to forward only because of them.
//!
//! Forwarding of IPv6 is one switch for the whole host, and a network of ours turns it on where nobody else did. What could
//! not be forwarded until then, from one interface to another of those that were there, is not to be forwarded after it
//! either: their names are written down (`networks/.closed6`, for this boot) and kept apart by the packet filter. Interfaces
//! that are made later are their makers' affair.

use serde::{Deserialize, Serialize};

use crate::firewall::Firewall;
use crate::model::Network;
use crate::store::{Durable, Networks, read_record, write_record};
use crate::{Context as _, Error, sysctl};

/// Below the folder of the networks.
const CLOSED6: &str = ".closed6";
const SWITCH6: &str = "ipv6/conf/all/forwarding";

/// Between which interfaces nothing was forwarded before we turned it on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Closed {
    /// The boot in which that was so.
    boot: String,
    interfaces: Vec<String>,
}

impl Networks {
    /// Lets the host route for a network that has a way out. Under the lock, once the rules are there.
    pub(crate) fn ensure_forwarding(&self, network: &Network, firewall: &mut Firewall) -> Result<(), Error> {
        if network.internal {
            return Ok(());
        }
        sysctl::ensure("ipv4/ip_forward", "1")?;
        if network.v6().is_none() || !sysctl::has_ipv6() || sysctl::is(SWITCH6, "1") {
            return Ok(());
        }
        let closed = self.close()?;
        firewall
            .close6(&closed)
            .context(|| "keep interfaces of the host apart")?;
        keep_router_advertisements()?;
        sysctl::write(SWITCH6, "1")
    }

    /// The interfaces that the packet filter keeps apart.
    pub(crate) fn closed6(&self) -> Vec<String> {
        // Without a record that can be read nothing is known of a time before.
        let closed: Closed = read_record(&self.path(CLOSED6))
            .ok()
            .flatten()
            .unwrap_or_default();
        match boot() {
            Some(boot) if boot == closed.boot => closed.interfaces,
            _ => Vec::new(),
        }
    }

    /// Writes down which they are. Those of an earlier time in this boot stay: what came since is not ours to close.
    fn close(&self) -> Result<Vec<String>, Error> {
        let known = self.closed6();
        let Some(boot) = boot().filter(|_| known.is_empty()) else {
            return Ok(known);
        };
        let own: Vec<String> = self
            .records()?
            .into_iter()
            .map(|network| network.device)
            .collect();
        let mut interfaces = interfaces();
        interfaces.retain(|name| name != "lo" && !name.starts_with("veth") && !own.contains(name));
        interfaces.sort();
        let closed = Closed { boot, interfaces };
        write_record(&self.directory, CLOSED6, &closed, Durable::No)?;
        Ok(closed.interfaces)
    }
}

/// This boot's id.
fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The interfaces that know IPv6, in the thread's namespace.
fn interfaces() -> Vec<String> {
    let listing = std::fs::read_dir("/proc/sys/net/ipv6/conf");
    let names = listing.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !matches!(name.as_str(), "all" | "default"))
        .collect()
}

/// A host that forwards IPv6 stops to listen to router advertisements unless told otherwise, and may lose its own
/// default route so (kernel `ip-sysctl.rst`, accept_ra: 2 overrules forwarding).
fn keep_router_advertisements() -> Result<(), Error> {
    let mut names = interfaces();
    names.push("default".to_owned());
    for name in names {
        let key = format!("ipv6/conf/{name}/accept_ra");
        if sysctl::is(&key, "1") && sysctl::is(&format!("ipv6/conf/{name}/forwarding"), "0") {
            sysctl::write_if_there(&key, "2")?;
        }
    }
    Ok(())
}
