//! Networks without a bridge: a container's interface lies on one of the host (macvlan, ipvlan) and is seen on its wire. There is
//! nothing to route, to filter or to publish, and nothing in the host's namespace; the interface ends with the container's.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use dhow_types::ErrorKind;
use rustix::io::Errno;

use crate::attach::{MAX_INTERFACES, configure};
use crate::model::{Driver, Endpoint, Network};
use crate::netlink::{Batch, Socket, route};
use crate::store::Networks;
use crate::{Context as _, Error, namespace};

/// How long the kernel may take to clean up after a container.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

impl Networks {
    /// The interface, with everything that is set on it; its number among those of the container.
    pub(crate) fn plug_on_parent(
        &self,
        network: &Network,
        netns: BorrowedFd<'_>,
        endpoint: &mut Endpoint,
        wished: Option<&str>,
    ) -> Result<u32, Error> {
        let parent = &network.parent;
        let mut socket = Socket::route().context(|| "open a routing socket")?;
        let link = route::link(&mut socket, parent)
            .context(|| format!("look for interface {parent}"))?
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::FailedPrecondition,
                    format!(
                        "the host has no interface {parent} any more, which network {} is on",
                        network.name
                    ),
                )
            })?;
        let mode = mode(network);
        for number in 0..MAX_INTERFACES {
            endpoint.interface = wished.map_or_else(|| format!("eth{number}"), str::to_owned);
            let mut batch = Batch::new();
            route::add_upper(
                &mut batch,
                &route::Upper {
                    kind: &network.driver.to_string(),
                    mode: &mode,
                    parent: link.index,
                    netns,
                    interface: &endpoint.interface,
                    mac: (network.driver == Driver::Macvlan).then_some(endpoint.mac),
                    mtu: network.mtu,
                },
            );
            match socket.demand(&mut batch, &mut |_, _| ()) {
                Ok(()) => {
                    namespace::within(netns, || {
                        wait_for_hardware_address(&endpoint.interface)?;
                        configure(endpoint, number)
                    })?;
                    return Ok(number);
                }
                Err(error) if route::is(&error, Errno::EXIST) && wished.is_none() => {}
                Err(error) => return Err(refused(network, error)),
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!("container {} has too many interfaces", endpoint.container.short()),
        ))
    }

    /// Takes the interface out of a container that lives on. Single-threaded callers only.
    ///
    /// # Errors
    /// Those of the kernel; what is gone is done.
    pub fn unplug_from_parent(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        if !endpoint.veth.is_empty() {
            return Ok(());
        }
        namespace::within(netns, || crate::store::delete_link(&endpoint.interface))
    }
}

/// Sets the interface up, which the kernel refuses while another on the parent has its hardware address
/// (`macvlan_addr_busy`): that of the container's last start is gone only when the kernel has cleaned its namespace up.
fn wait_for_hardware_address(interface: &str) -> Result<(), Error> {
    let what = || format!("set {interface} up in the container");
    let mut socket = Socket::route().context(|| "open a routing socket in the container")?;
    let index = route::link(&mut socket, interface)
        .context(what)?
        .map_or(0, |link| link.index);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut batch = Batch::new();
        route::set_up(&mut batch, index);
        match socket.demand(&mut batch, &mut |_, _| ()) {
            Err(error) if route::is(&error, Errno::ADDRINUSE) && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if route::is(&error, Errno::ADDRINUSE) => {
                return Err(error).context(what).map_err(|error| {
                    error.with_hint("something else on the host's interface has its hardware address")
                });
            }
            other => return other.context(what),
        }
    }
}

/// The numbers of `enum macvlan_mode` (32 bits) and `enum ipvlan_mode` (16 bits) in `include/uapi/linux/if_link.h`.
fn mode(network: &Network) -> Vec<u8> {
    let macvlan = |mode: u32| mode.to_ne_bytes().to_vec();
    let ipvlan = |mode: u16| mode.to_ne_bytes().to_vec();
    match (network.driver, network.mode.as_str()) {
        (Driver::Ipvlan, "l3") => ipvlan(1),
        (Driver::Ipvlan, "l3s") => ipvlan(2),
        (Driver::Ipvlan, _) => ipvlan(0),
        (_, "private") => macvlan(1),
        (_, "vepa") => macvlan(2),
        (_, "passthru") => macvlan(8),
        _ => macvlan(4),
    }
}

fn refused(network: &Network, error: std::io::Error) -> Error {
    let (driver, parent) = (network.driver, &network.parent);
    let message = format!("create a {driver} interface on {parent}");
    if route::is(&error, Errno::OPNOTSUPP) {
        return Error::because(ErrorKind::Unsupported, message, error).with_hint(format!(
            "the kernel of this host has no {driver}: modprobe {driver}, or use another driver"
        ));
    }
    Error::wrap(error, message)
}
