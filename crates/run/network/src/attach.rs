//! Putting a container on a network and taking it off.
//!
//! Attach reserves (address, host ports), records (the endpoint file), then acts (link, addresses, routes, rules).
//! Killed between any two steps it leaves a record or a lease that names the container, from which
//! [`Networks::release_stale`] undoes the rest. Detach is a list of steps: all are tried, what is gone is done.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use dhow_types::{ContainerId, ErrorKind, Failures};
use ipnet::IpNet;
use rustix::io::Errno;

use crate::bridge::{self, Bridge};
use crate::firewall::Firewall;
use crate::model::{Driver, Endpoint, EndpointRequest, MacAddress, Network, PublishedPort, Subnet};
use crate::netlink::{Batch, Socket, route};
use crate::options::OPTION_HOST_IP;
use crate::store::{
    Durable, FORMAT, Networks, delete_link, endpoint_path, random, read_endpoints, read_record, write_record,
};
use crate::user::errand;
use crate::{Context as _, Error, namespace, port, sysctl};

/// The interface of a container on one network.
const FIRST: &str = "eth0";
/// More interfaces than this in one container are a mistake.
pub(crate) const MAX_INTERFACES: u32 = 64;

/// How long a burial may take.
const BURIAL: Duration = Duration::from_secs(2);

/// An endpoint whose detach is half done: nobody reaches it any more, its link and its address are still there.
#[derive(Debug)]
#[must_use = "bury it, or its address stays leased until release_stale"]
pub struct Retired {
    endpoint: Endpoint,
    /// Closing a socket that has deleted elements waits until their memory is freed (`nft_rcv_nl_event`): 8 ms
    /// measured. Kept until the removal of the link has waited anyway.
    firewall: Option<Firewall>,
}

impl Networks {
    /// Puts the namespace on the network. The descriptors hold the published ports of the host for as long
    /// as they are open. Single-threaded callers only: enters the namespace and comes back.
    ///
    /// # Errors
    /// `AlreadyExists` for a port or address in use, `InvalidArgument`, those of the kernel; nothing is left behind.
    pub fn attach(
        &self,
        network: &Network,
        netns: BorrowedFd<'_>,
        request: &EndpointRequest<'_>,
    ) -> Result<(Endpoint, Vec<OwnedFd>), Error> {
        if !matches!(network.driver, Driver::Bridge | Driver::Macvlan | Driver::Ipvlan) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "network {} cannot be attached to: its driver is {}",
                    network.name, network.driver
                ),
            ));
        }
        let asked = request.ip.is_some() || request.ip6.is_some();
        let patience = Instant::now() + BURIAL;
        // What was taken and is free now came back meanwhile; if it is something else that is taken, it is so again.
        let mut once = true;
        let (lock, (mut endpoint, held)) = loop {
            let lock = self.lock()?;
            match self.reserve(network, request) {
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && asked
                        && Instant::now() < patience
                        && self
                            .is_being_given_back(network, request)
                            .unwrap_or_else(|| std::mem::take(&mut once)) => {}
                reserved => break (lock, reserved?),
            }
            // A burial takes the lock, too.
            drop(lock);
            std::thread::sleep(Duration::from_millis(2));
        };
        let outcome = match &self.user {
            None if network.is_on_parent() => {
                drop(lock);
                self.plug_on_parent(network, netns, &mut endpoint, request.interface)
                    .and_then(|number| self.rewrite(network, &endpoint, number))
            }
            None => self.prepare(network, &endpoint).and_then(|bridge| {
                drop(lock);
                self.plug(network, bridge, netns, &mut endpoint, request.interface)
            }),
            Some(user) => user.ensure(self).and_then(|place| {
                drop(lock);
                // In another process, whose copy of the endpoint learns the interface.
                endpoint.interface = errand(place.as_fd(), || {
                    let lock = self.lock()?;
                    let bridge = self.prepare(network, &endpoint)?;
                    drop(lock);
                    let mut plugged = endpoint.clone();
                    self.plug(network, bridge, netns, &mut plugged, request.interface)?;
                    Ok(plugged.interface)
                })?;
                Ok(())
            }),
        };
        match outcome {
            Ok(()) => {
                self.announce()?;
                Ok((endpoint, held))
            }
            Err(error) => {
                // The first failure is the one to report; what cannot be undone now is undone by release_stale.
                drop(self.detach(&endpoint));
                Err(error)
            }
        }
    }

    /// Publishes ports of a place that the container left at one that it still has, as far as the packet filter can: what comes
    /// by IPv6 may need a relay, and theirs knows the place that they were made for. Gives those that it took.
    ///
    /// # Errors
    /// Those of the kernel and the disk.
    pub fn move_ports(
        &self,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, Error> {
        let moved: Vec<_> = ports
            .iter()
            .filter(|port| port.host_ip.is_ipv4())
            .cloned()
            .collect();
        if self.user.is_some() || endpoint.veth.is_empty() || moved.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let what = || format!("move published ports to network {}", endpoint.network);
        let directory = self.path(&endpoint.network).join("endpoints");
        let name = format!("{}.json", endpoint.container);
        let Some(mut record) = read_record::<Endpoint>(&directory.join(&name))? else {
            return Ok(Vec::new());
        };
        let alone = Endpoint {
            ports: moved.clone(),
            ..record.clone()
        };
        record.ports.extend(moved.iter().cloned());
        // The record first: what is in the packet filter is taken back by it.
        write_record(&directory, &name, &record, Durable::No)?;
        let mut firewall = self.firewall()?;
        firewall.publish(&alone).context(what)?;
        firewall.forget_flows(&alone).context(what)?;
        Ok(moved)
    }

    /// Takes the endpoint away: rules, record, link, addresses. All steps are tried; what is gone counts as done.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut failures = Failures::new();
        match self.retire(endpoint) {
            Ok(retired) => failures.record("remove the link", self.bury(retired)),
            Err(error) => {
                failures.record("retire the endpoint", Err(error));
                let (endpoint, firewall) = (endpoint.clone(), None);
                failures.record("remove the link", self.bury(Retired { endpoint, firewall }));
            }
        }
        failures.into_result().context(|| {
            format!(
                "detach container {} from network {}",
                endpoint.container.short(),
                endpoint.network
            )
        })
    }

    /// The quick first half of [`Networks::detach`], for a container that has ended: its ports are no longer published
    /// and its record is gone, so its end can be told. [`Networks::bury`] does the rest, for which the kernel
    /// needs 10 ms and more (several RCU grace periods). Between the two the address stays leased.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn retire(&self, endpoint: &Endpoint) -> Result<Retired, Error> {
        let mut failures = Failures::new();
        let mut firewall = None;
        if !endpoint.ports.is_empty() {
            failures.record(
                "unpublish the ports",
                self.unpublish(endpoint).map(|used| firewall = used),
            );
        }
        // A later endpoint of the same container (a restart) is not ours to remove.
        let path = endpoint_path(&self.path(&endpoint.network), endpoint.container.as_str());
        let renewed = read_record::<Endpoint>(&path)
            .is_ok_and(|record| record.is_some_and(|r| r.veth != endpoint.veth));
        if !renewed {
            failures.record("remove the record", std::fs::remove_file(&path));
        }
        failures.record("announce it", self.announce());
        failures.into_result().context(|| {
            format!(
                "retire container {} from network {}",
                endpoint.container.short(),
                endpoint.network
            )
        })?;
        Ok(Retired {
            endpoint: endpoint.clone(),
            firewall,
        })
    }

    /// The second half of [`Networks::detach`]: removes the link, then gives the addresses back.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn bury(&self, retired: Retired) -> Result<(), Error> {
        let Retired { endpoint, firewall } = retired;
        let mut failures = Failures::new();
        failures.record("remove the link", self.unplug(&endpoint));
        let path = endpoint_path(&self.path(&endpoint.network), endpoint.container.as_str());
        let renewed = read_record::<Endpoint>(&path)
            .ok()
            .flatten()
            .map(|record| (record.ip, record.ip6));
        let leases = self.leases(&endpoint.network);
        if renewed.is_none_or(|(ip, _)| ip != endpoint.ip) {
            failures.record(
                "release the address",
                leases.release(endpoint.ip.into(), &endpoint.container),
            );
        }
        if let Some(ip) = endpoint.ip6
            && renewed.is_none_or(|(_, ip6)| ip6 != Some(ip))
        {
            failures.record(
                "release the IPv6 address",
                leases.release(ip.into(), &endpoint.container),
            );
        }
        drop(firewall);
        failures.into_result().context(|| {
            format!(
                "remove container {}'s link from network {}",
                endpoint.container.short(),
                endpoint.network
            )
        })
    }

    /// Gives an address back that a container leased, and was killed before it was on the network.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn give_back(&self, network: &str, container: &ContainerId, ip: IpAddr) -> Result<(), Error> {
        if endpoint_path(&self.path(network), container.as_str()).exists() {
            return Ok(());
        }
        self.leases(network).release(ip, container)
    }

    /// Detaches what containers left that are gone; also leases of an attach that was killed. `claim` is asked for each
    /// id: `None` says that it lives or may be attaching now; else what it gives is held until its place is gone, to keep
    /// it from coming back meanwhile. It is asked after the record was read, so whoever attaches later is not touched.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn release_stale<G>(&self, claim: impl Fn(&str) -> Option<G>) -> Result<Vec<Endpoint>, Error> {
        let mut failures = Failures::new();
        let mut gone = Vec::new();
        for name in self.names()? {
            let path = self.path(&name);
            for endpoint in read_endpoints(&path)? {
                if let Some(_claimed) = claim(endpoint.container.as_str()) {
                    failures.record("detach a container that is gone", self.detach(&endpoint));
                    gone.push(endpoint);
                }
            }
            failures.record(
                "remove records that were never whole",
                remove_unfinished(&path, &claim),
            );
            failures.record(
                "release addresses of containers that are gone",
                self.leases(&name).release_claimed(&claim),
            );
        }
        failures
            .into_result()
            .context(|| "release what ended containers left on their networks")?;
        Ok(gone)
    }

    /// Leases, host ports and the record.
    fn reserve(
        &self,
        network: &Network,
        request: &EndpointRequest<'_>,
    ) -> Result<(Endpoint, Vec<OwnedFd>), Error> {
        match self.record(&network.name)? {
            Some(record) if record.id == network.id => {}
            _ => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("network {} not found", network.name),
                ));
            }
        }
        let directory = self.path(&network.name);
        if endpoint_path(&directory, request.container.as_str()).exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "endpoint with name {} already exists in network {}",
                    request.name, network.name
                ),
            ));
        }
        if network.is_on_parent() && !request.ports.is_empty() {
            let message = format!(
                "cannot publish ports on network {}: its containers are reached by their own addresses ({})",
                network.name, network.driver
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let host_ip = match network.options.get(OPTION_HOST_IP) {
            Some(text) => text.parse().ok(),
            None => None,
        };
        let reach = port::Reach {
            dual: network.v6().is_some(),
            filter: self.user.is_none() && !network.is_filtered(),
        };
        let (mut ports, held) = port::reserve(request.ports, host_ip, reach)?;
        if self.user.is_none() && !network.is_on_parent() && !network.is_filtered() {
            // What comes by IPv6 may need a relay, and theirs knows the place that they were made for.
            let kept = request.held.iter().filter(|port| port.host_ip.is_ipv4());
            ports.extend(kept.cloned());
        }
        let mut leased = Vec::new();
        let outcome = self.lease(network, request, &mut leased).and_then(|endpoint| {
            let endpoint = Endpoint { ports, ..endpoint };
            let name = format!("{}.json", request.container);
            write_record(&directory.join("endpoints"), &name, &endpoint, Durable::No)?;
            Ok(endpoint)
        });
        if outcome.is_err() {
            for ip in leased {
                // What stays is released with the container by release_stale.
                drop(self.leases(&network.name).release(ip, request.container));
            }
        }
        outcome.map(|endpoint| (endpoint, held))
    }

    /// Whether an address that was asked for is that of one that has retired: it comes back when the kernel has let the link
    /// go. None when nobody has it now. Under the lock, so that nobody is between a lease and its record.
    fn is_being_given_back(&self, network: &Network, request: &EndpointRequest<'_>) -> Option<bool> {
        let leases = self.leases(&network.name);
        let directory = self.path(&network.name);
        let wanted = [request.ip.map(IpAddr::V4), request.ip6.map(IpAddr::V6)];
        let owners = wanted.into_iter().flatten().filter_map(|ip| leases.owner(ip));
        let retired = owners.map(|owner| !endpoint_path(&directory, &owner).exists());
        retired.reduce(|all, one| all && one)
    }

    fn lease(
        &self,
        network: &Network,
        request: &EndpointRequest<'_>,
        leased: &mut Vec<IpAddr>,
    ) -> Result<Endpoint, Error> {
        let leases = self.leases(&network.name);
        let v4 = network.v4().ok_or_else(|| {
            Error::new(
                ErrorKind::DataLoss,
                format!("network {} has no IPv4 range", network.name),
            )
        })?;
        let ip = match request.ip.map(IpAddr::V4) {
            Some(ip) => leases.claim(v4, ip, request.container).map(|()| ip)?,
            None => leases.next(v4, request.container)?,
        };
        leased.push(ip);
        let ip = v4_of(ip);
        // A host that was started without IPv6 has none for a network from before that.
        let v6 = network.v6().filter(|_| sysctl::has_ipv6());
        let ip6 = match (v6, request.ip6) {
            (None, None) => None,
            (Some(subnet), None) => {
                let twin = leases.claim_twin(subnet, ip, request.container)?;
                let twin = twin.map_or_else(|| leases.next(subnet, request.container), Ok)?;
                leased.push(twin);
                Some(v6_of(twin))
            }
            (Some(subnet), Some(wanted)) => {
                leases.claim(subnet, wanted.into(), request.container)?;
                leased.push(wanted.into());
                Some(wanted)
            }
            (None, Some(ip)) => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("invalid endpoint settings: no configured subnet contains IP address {ip}"),
                ));
            }
        };
        let suffix = random::<4>()?;
        let routed = network.default_route && !network.internal;
        let gateway = |subnet: &Subnet| routed.then_some(subnet.gateway);
        Ok(Endpoint {
            format: FORMAT,
            network: network.name.clone(),
            network_id: network.id.clone(),
            device: network.device.clone(),
            container: request.container.clone(),
            name: request.name.to_owned(),
            aliases: request.aliases.to_vec(),
            hostname: request.hostname.to_owned(),
            veth: match network.is_on_parent() {
                true => String::new(),
                false => format!("veth{:08x}", u32::from_ne_bytes(suffix)),
            },
            interface: FIRST.to_owned(),
            ip,
            prefix: v4.subnet.prefix_len(),
            gateway: gateway(v4).map(v4_of),
            ip6,
            prefix6: v6.map_or(0, |subnet| subnet.subnet.prefix_len()),
            gateway6: v6.and_then(gateway).map(v6_of),
            mac: request.mac.unwrap_or_else(|| MacAddress::of(ip)),
            ports: Vec::new(),
            filtered: network.is_filtered(),
        })
    }

    /// Bridge, forwarding and rules. Under the lock.
    fn prepare(&self, network: &Network, endpoint: &Endpoint) -> Result<(Socket, Bridge), Error> {
        let mut socket = Socket::route().context(|| "open a routing socket")?;
        let bridge = bridge::ensure(&mut socket, network)?;
        let mut firewall = self.firewall()?;
        if firewall
            .is_whole(Some(network))
            .context(|| "look at the packet filter")?
        {
            firewall
                .publish(endpoint)
                .context(|| "publish the container's ports")?;
        } else if firewall.is_whole(None).context(|| "look at the packet filter")? {
            firewall
                .add_network(network)
                .context(|| format!("add the rules of network {}", network.name))?;
            firewall
                .publish(endpoint)
                .context(|| "publish the container's ports")?;
        } else {
            self.rebuild(&mut firewall)?;
        }
        self.ensure_forwarding(network, &mut firewall)?;
        firewall
            .forget_flows(endpoint)
            .context(|| "forget what conntrack knows of the ports")?;
        Ok((socket, bridge))
    }

    /// The pair of interfaces, with everything that is set on them.
    fn plug(
        &self,
        network: &Network,
        (mut socket, bridge): (Socket, Bridge),
        netns: BorrowedFd<'_>,
        endpoint: &mut Endpoint,
        wished: Option<&str>,
    ) -> Result<(), Error> {
        let number = add_pair(&mut socket, bridge, netns, endpoint, wished)?;
        self.rewrite(network, endpoint, number)?;
        // The host's end is a port of the bridge and needs no address, not even a link-local one.
        sysctl::write_if_there(&format!("ipv6/conf/{}/disable_ipv6", endpoint.veth), "1")?;
        let mut batch = Batch::new();
        let port = route::Port {
            isolated: !network.icc,
            // With br_netfilter the bridge itself carries a DNATed packet to its container, also back to its sender.
            hairpin: sysctl::is("bridge/bridge-nf-call-iptables", "1"),
        };
        route::set_port_up(&mut batch, &endpoint.veth, port);
        socket
            .demand(&mut batch, &mut |_, _| ())
            .context(|| format!("set {} up", endpoint.veth))?;
        namespace::within(netns, || configure(endpoint, number))
    }

    /// Records the name that the interface got, when it is not the usual one.
    fn rewrite(&self, network: &Network, endpoint: &Endpoint, number: u32) -> Result<(), Error> {
        if number == 0 && endpoint.interface == FIRST {
            return Ok(());
        }
        let directory = self.path(&network.name).join("endpoints");
        let name = format!("{}.json", endpoint.container);
        write_record(&directory, &name, endpoint, Durable::No)
    }

    fn unpublish(&self, endpoint: &Endpoint) -> Result<Option<Firewall>, Error> {
        let _lock = self.lock()?;
        let unpublish = || {
            let mut firewall = self.firewall()?;
            firewall
                .unpublish(endpoint)
                .context(|| "remove the ports from the packet filter")?;
            Ok(firewall)
        };
        match self.user {
            None => unpublish().map(Some),
            Some(_) => self.there(|| unpublish().map(drop)).map(|_| None),
        }
    }

    /// Removes the link where the bridges are.
    fn unplug(&self, endpoint: &Endpoint) -> Result<(), Error> {
        if endpoint.veth.is_empty() {
            return Ok(());
        }
        if self.user.is_none() {
            return delete_link(&endpoint.veth);
        }
        let _lock = self.lock()?;
        self.there(|| delete_link(&endpoint.veth)).map(drop)
    }

    /// Tells the name servers, which watch the time stamp of the directory, that some membership changed.
    fn announce(&self) -> Result<(), Error> {
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(
            rustix::fs::CWD,
            &self.directory,
            &times,
            rustix::fs::AtFlags::empty(),
        )
        .map_err(std::io::Error::from)
        .context(|| "announce the change to name servers")
    }
}

/// Adds the pair under the first free `ethN` of the container; says which.
fn add_pair(
    socket: &mut Socket,
    bridge: Bridge,
    netns: BorrowedFd<'_>,
    endpoint: &mut Endpoint,
    wished: Option<&str>,
) -> Result<u32, Error> {
    for number in 0..MAX_INTERFACES {
        endpoint.interface = wished.map_or_else(|| format!("eth{number}"), str::to_owned);
        let mut batch = Batch::new();
        let pair = route::Pair {
            host: &endpoint.veth,
            bridge: bridge.index,
            mtu: bridge.mtu,
            netns,
            interface: &endpoint.interface,
            mac: endpoint.mac,
        };
        route::add_pair(&mut batch, &pair);
        match socket.demand(&mut batch, &mut |_, _| ()) {
            Ok(()) => return Ok(number),
            Err(error) if route::is(&error, Errno::EXIST) && wished.is_none() => {}
            Err(error) if route::is(&error, Errno::XFULL) => {
                // `BR_PORT_BITS` 10, and no port has the number 0.
                let message = format!(
                    "network {} is full: a bridge of the kernel has 1023 ports",
                    endpoint.network
                );
                return Err(Error::new(ErrorKind::ResourceExhausted, message)
                    .with_hint("put further containers on another network: dhow network create NAME"));
            }
            Err(error) => {
                return Err(error)
                    .context(|| format!("create the pair {} and {}", endpoint.veth, endpoint.interface));
            }
        }
    }
    Err(Error::new(
        ErrorKind::ResourceExhausted,
        format!("container {} has too many interfaces", endpoint.container.short()),
    ))
}

/// Inside the container's namespace: addresses, up, the way out. Of several networks the first attached has the default
/// route; the others follow with a higher metric and take over when it goes.
pub(crate) fn configure(endpoint: &Endpoint, number: u32) -> Result<(), Error> {
    let interface = &endpoint.interface;
    let mut socket = Socket::route().context(|| "open a routing socket in the container")?;
    let index = route::link(&mut socket, interface)
        .context(|| format!("look for {interface} in the container"))?
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("{interface} is not in the container"),
            )
        })?
        .index;
    // Each of these is looked up anew in a new namespace, which takes as long as a request: only what is needed. A new namespace
    // has IPv6 on, and the address of ours is not looked for among the neighbours.
    let (key, value) = match endpoint.ip6 {
        Some(_) => ("accept_ra", "0"),
        None => ("disable_ipv6", "1"),
    };
    let sysctls = sysctl::View::new();
    sysctls.write_if_there(&format!("ipv6/conf/{interface}/{key}"), value)?;
    let what = || format!("configure {interface} in the container");
    let mut give_addresses = || -> Result<std::io::Result<()>, Error> {
        let mut batch = Batch::new();
        let own = [
            Some((IpAddr::V4(endpoint.ip), endpoint.prefix)),
            endpoint.ip6.map(|ip| (IpAddr::V6(ip), endpoint.prefix6)),
        ];
        for (ip, prefix) in own.into_iter().flatten() {
            let net = IpNet::new(ip, prefix).map_err(|error| {
                Error::because(ErrorKind::Internal, "address and prefix do not fit", error)
            })?;
            route::add_address(&mut batch, index, net);
        }
        route::set_up(&mut batch, index);
        Ok(socket.demand(&mut batch, &mut |_, _| ()))
    };
    match give_addresses()? {
        // In this namespace IPv6 was turned off (`addrconf_add_ifaddr`); the address of IPv4 is there already.
        Err(error) if endpoint.ip6.is_some() && route::is(&error, Errno::ACCESS) => {
            sysctls.write(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
            match give_addresses()? {
                Err(error) if !route::is(&error, Errno::EXIST) => return Err(error).context(what),
                _ => {}
            }
        }
        given => given.context(what)?,
    }
    // 1024 is what the kernel gives an IPv6 route that names none.
    let gateways = [
        (endpoint.gateway.map(IpAddr::V4), number),
        (endpoint.gateway6.map(IpAddr::V6), 1024 + number),
    ];
    for (gateway, metric) in gateways {
        if let Some(gateway) = gateway {
            add_way_out(&mut socket, index, gateway, metric).context(what)?;
        }
    }
    Ok(())
}

/// A default route, behind those that are there.
fn add_way_out(socket: &mut Socket, index: u32, gateway: IpAddr, first: u32) -> std::io::Result<()> {
    for metric in first..first + MAX_INTERFACES {
        let mut batch = Batch::new();
        route::add_default_route(&mut batch, index, gateway, metric);
        match socket.demand(&mut batch, &mut |_, _| ()) {
            // An interface with a name of its own has its route already.
            Err(error) if route::is(&error, Errno::EXIST) => {}
            other => return other,
        }
    }
    Err(Errno::EXIST.into())
}

/// A lease of an IPv4 subnet is an IPv4 address.
fn v4_of(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

/// A lease of an IPv6 subnet is an IPv6 address.
const fn v6_of(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}
/// Removes what was being written for a container that is gone when its writer was killed ([`write_record`]).
fn remove_unfinished<G>(network: &std::path::Path, claim: impl Fn(&str) -> Option<G>) -> Result<(), Error> {
    let directory = network.join("endpoints");
    let what = || format!("list {}", directory.display());
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(what)?,
    };
    for entry in entries {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        let container = name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(".json"));
        // Claimed, nobody else can be writing it.
        if let Some(_claimed) = container.and_then(&claim) {
            std::fs::remove_file(entry.path()).context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}
