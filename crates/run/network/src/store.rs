use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use dhow_types::{ContainerId, Digest, ErrorKind, Failures, NetworkId, validate_name};
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::firewall::Firewall;
use crate::lease::Leases;
use crate::model::{CreateNetwork, DEFAULT_BRIDGE, Driver, Endpoint, HOST, NONE, Network};
use crate::netlink::{Batch, Socket, route};
use crate::options::{self, Options, driver};
use crate::pool::{self, Prefix6, Taken};
use crate::user::{UserNamespace, errand};
use crate::{Context as _, Error, sysctl};

/// The root of which the devices and the table have plain names; others carry a hash, so that several roots can be
/// used on one host.
const DEFAULT_ROOT: &str = "/var/lib/dhow";
/// Longest record that is read.
const MAX_RECORD: u64 = 1 << 20;
/// The bits that unique local ranges have in common.
const PREFIX6: &str = ".prefix6";
/// Version of the records.
pub(crate) const FORMAT: u32 = 1;

/// The networks under one root.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) directory: PathBuf,
    pub(crate) table: String,
    /// Device of the default network.
    device: String,
    /// Where the search for a free range begins: other roots do not begin at the same place.
    start: usize,
    /// Where the bridges of a normal user are; none when they are where this process is.
    pub(crate) user: Option<UserNamespace>,
}

/// The lock under which records are made and the packet filter is changed; the kernel ends it with its holder.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

impl Networks {
    /// The networks under `root`/networks.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let directory = root.join("networks");
        if !directory.is_dir() {
            fs::create_dir_all(&directory).context(|| format!("create {}", directory.display()))?;
        }
        let hash = Digest::of(root.as_os_str().as_encoded_bytes());
        let short = &hash.hex()[..8];
        let plain = root == Path::new(DEFAULT_ROOT);
        Ok(Self {
            directory,
            table: if plain {
                "dhow".to_owned()
            } else {
                format!("dhow-{short}")
            },
            device: if plain {
                "dhow0".to_owned()
            } else {
                format!("dhow{short}")
            },
            start: if plain {
                0
            } else {
                usize::from(hash.as_bytes()[4]) << 8 | usize::from(hash.as_bytes()[5])
            },
            user: None,
        })
    }

    /// The same for a normal user, whose bridges are in a network namespace of that user. `folder` is where processes that
    /// are in their user namespace are written down, as `PID-START`: one more is, that holds this namespace.
    ///
    /// # Errors
    /// As [`Networks::open`].
    pub fn open_for_user(root: &Path, folder: &Path) -> Result<Self, Error> {
        let mut networks = Self::open(root)?;
        // In a network of its own, root of a user namespace has the rights of root.
        if !crate::namespace::may_come_back() {
            networks.user = Some(UserNamespace::new(folder.to_owned()));
        }
        Ok(networks)
    }

    /// Does the kernel's part of something where the bridges are; none without a place for them, where nothing can be.
    /// Under the lock, and for single-threaded callers.
    pub(crate) fn there<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match &self.user {
            None => work().map(Some),
            Some(user) => match user.existing()? {
                Some(netns) => errand(netns.as_fd(), work).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Creates a network; the bridge device is made at the first attach.
    ///
    /// # Errors
    /// `AlreadyExists` for a name in use, `InvalidArgument`, `PermissionDenied` for an overlapping range,
    /// `Unsupported` for other drivers.
    pub fn create(&self, wanted: &CreateNetwork) -> Result<Network, Error> {
        if matches!(wanted.name.as_str(), DEFAULT_BRIDGE | HOST | NONE) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("operation is not permitted on predefined {} network", wanted.name),
            ));
        }
        validate_name(&wanted.name)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "invalid network name", error))?;
        let driver = driver(wanted.driver.as_deref())?;
        let options = Options::parse(driver, &wanted.options)?;
        let _lock = self.lock()?;
        let others = self.records()?;
        if others.iter().any(|other| other.name == wanted.name) {
            return Err(exists(&wanted.name));
        }
        let id = random_id()?;
        let wished = match &wanted.interface {
            Some(name) => Some(options::device_name(name).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("invalid interface name {name:?}"),
                )
            })?),
            None => options.interface,
        };
        let prefix6 = match self.is_dual(driver, wanted)? {
            true => Some(self.prefix6()?),
            false => None,
        };
        let mut taken = taken(&others)?;
        let (device, parent) = match driver {
            Driver::Bridge => (bridge_device(wished, &others, &id)?, String::new()),
            _ => {
                // Its range is that of the wire, to which the host has a route.
                taken.routes.clear();
                (String::new(), self.parent(driver, wished)?)
            }
        };
        let network = Network {
            format: FORMAT,
            name: wanted.name.clone(),
            driver,
            device,
            parent,
            mode: options.mode,
            names: !wanted.nameless,
            default_route: options.default_route,
            created: now(),
            subnets: pool::choose(&wanted.subnets, prefix6, &id, &taken, self.start)?,
            internal: wanted.internal,
            attachable: wanted.attachable,
            labels: wanted.labels.clone(),
            options: wanted.options.clone(),
            mtu: options.mtu,
            masquerade: options.masquerade,
            icc: options.icc,
            dns: wanted.dns.clone(),
            id,
        };
        if !network.dns.is_empty() && !network.has_names() {
            let message = format!(
                "a network of the driver {} has no name server that could ask others",
                network.driver
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("give its containers the servers with --dns"));
        }
        self.publish(&network)?;
        Ok(network)
    }

    /// Whether a new network has an IPv6 range of our choice.
    fn is_dual(&self, driver: Driver, wanted: &CreateNetwork) -> Result<bool, Error> {
        let mut ranges = wanted.subnets.iter().filter_map(|wish| wish.subnet);
        if wanted.ipv6 == Some(false) && ranges.any(|range| range.addr().is_ipv6()) {
            let message = "an IPv6 subnet is named, and IPv6 is refused";
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("leave out --ipv6=false, or the subnet"));
        }
        // Who names ranges counts on these alone: clients of docker look whether there is but one.
        let usual = driver == Driver::Bridge && wanted.subnets.is_empty() && sysctl::host_wants_ipv6();
        Ok(wanted.ipv6.unwrap_or(usual))
    }

    /// The bits that all unique local ranges of this root have in common: drawn once. Under the lock.
    fn prefix6(&self) -> Result<Prefix6, Error> {
        let path = self.directory.join(PREFIX6);
        // What a power cut left of it is no reason to have no networks; those that there are keep their ranges.
        if let Ok(Some(prefix)) = read_record(&path) {
            return Ok(prefix);
        }
        let drawn: Prefix6 = random()?;
        write_record(&self.directory, PREFIX6, &drawn, Durable::Yes)?;
        Ok(drawn)
    }

    /// The host's interface for macvlan and ipvlan: that of the default route when none is named.
    fn parent(&self, driver: Driver, wished: Option<String>) -> Result<String, Error> {
        if self.user.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("network driver {driver} needs an interface of the host, which is root's"),
            )
            .with_hint("use --driver bridge, or run as root"));
        }
        let mut socket = Socket::route().context(|| "open a routing socket")?;
        let found = match &wished {
            Some(name) => route::link(&mut socket, name).context(|| format!("look for interface {name}"))?,
            None => route::uplink(&mut socket).context(|| "look for the interface of the default route")?,
        };
        match (found, wished) {
            (Some(link), _) => Ok(link.name),
            (None, Some(name)) => Err(Error::new(
                ErrorKind::NotFound,
                format!("the host has no interface {name}"),
            )
            .with_hint(
                "see `ip link`; one for a VLAN is made by: ip link add link eth0 name eth0.50 type vlan id 50",
            )),
            (None, None) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("network driver {driver} needs an interface, and there is no default route"),
            )
            .with_hint("name it with --opt parent=INTERFACE")),
        }
    }

    /// Every network by name, with `bridge`, `host` and `none`.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<Network>, Error> {
        self.default_bridge()?;
        let mut all = self.records()?;
        all.push(pseudo(HOST, Driver::Host));
        all.push(pseudo(NONE, Driver::Null));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The network with this name, id or unambiguous id prefix.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for an ambiguous prefix.
    pub fn find(&self, name: &str) -> Result<Network, Error> {
        match name {
            DEFAULT_BRIDGE => return self.default_bridge(),
            HOST => return Ok(pseudo(HOST, Driver::Host)),
            NONE => return Ok(pseudo(NONE, Driver::Null)),
            _ => {}
        }
        if validate_name(name).is_ok()
            && let Some(network) = self.record(name)?
        {
            return Ok(network);
        }
        let hex = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit());
        let mut matches = if hex { self.list()? } else { Vec::new() };
        matches.retain(|network| network.id.as_str().starts_with(name));
        match matches.len() {
            0 => Err(Error::new(
                ErrorKind::NotFound,
                format!("network {name} not found"),
            )),
            1 => Ok(matches.remove(0)),
            count => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("network {name} is ambiguous ({count} matches found based on ID prefix)"),
            )),
        }
    }

    /// The network `bridge`, created at its first use.
    ///
    /// # Errors
    /// As [`Networks::create`].
    pub fn default_bridge(&self) -> Result<Network, Error> {
        if let Some(network) = self.record(DEFAULT_BRIDGE)? {
            return Ok(network);
        }
        let _lock = self.lock()?;
        if let Some(network) = self.record(DEFAULT_BRIDGE)? {
            return Ok(network);
        }
        let others = self.records()?;
        let network = Network {
            format: FORMAT,
            id: random_id()?,
            name: DEFAULT_BRIDGE.to_owned(),
            driver: Driver::Bridge,
            device: self.device.clone(),
            parent: String::new(),
            mode: String::new(),
            names: false,
            default_route: true,
            created: now(),
            subnets: vec![pool::default_range(&taken(&others)?, self.start)?],
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            mtu: None,
            masquerade: true,
            icc: true,
            dns: Vec::new(),
        };
        self.publish(&network)?;
        Ok(network)
    }

    /// Removes a network without endpoints, with its device and rules.
    ///
    /// # Errors
    /// `FailedPrecondition` while it has endpoints, `PermissionDenied` for a predefined one, `NotFound`.
    pub fn remove(&self, name: &str) -> Result<Network, Error> {
        let network = self.find(name)?;
        if network.is_predefined() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("{} is a pre-defined network and cannot be removed", network.name),
            ));
        }
        let _lock = self.lock()?;
        if !self.endpoints(&network)?.is_empty() {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "error while removing network: network {} has active endpoints",
                    network.name
                ),
            )
            .with_hint("stop or disconnect its containers first"));
        }
        let mut failures = Failures::new();
        let gone = self.there(|| {
            let mut failures = Failures::new();
            if !network.device.is_empty() {
                failures.record("remove its rules", self.forget(&network));
                failures.record("remove its device", delete_link(&network.device));
            }
            failures
                .into_result()
                .context(|| "remove what the kernel has of it")
        });
        failures.record("remove rules and device", gone.map(drop));
        let directory = self.path(&network.name);
        // The record goes first and by rename: a half-removed network is none.
        let grave = self.directory.join(format!(".removed-{}", network.id));
        failures.record("remove its record", fs::rename(&directory, &grave));
        failures.record("remove its directory", fs::remove_dir_all(&grave));
        failures
            .into_result()
            .context(|| format!("remove network {}", network.name))?;
        Ok(network)
    }

    /// The containers on a network. A record that is being taken away is skipped.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn endpoints(&self, network: &Network) -> Result<Vec<Endpoint>, Error> {
        read_endpoints(&self.path(&network.name))
    }

    /// The endpoints of one container, on whatever networks.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn endpoints_of(&self, container: &ContainerId) -> Result<Vec<Endpoint>, Error> {
        let mut all = Vec::new();
        for name in self.names()? {
            if let Some(endpoint) = read_record(&endpoint_path(&self.path(&name), container.as_str()))? {
                all.push(endpoint);
            }
        }
        Ok(all)
    }

    /// Whether rules are missing that containers on networks need: somebody flushed them.
    ///
    /// # Errors
    /// A record that cannot be read; those of the kernel.
    pub fn is_damaged(&self) -> Result<bool, Error> {
        for network in self.records()? {
            // Without anybody on it, the next attach makes what it needs.
            if !network.device.is_empty() && !self.endpoints(&network)?.is_empty() {
                let _lock = self.lock()?;
                let whole = self.there(|| {
                    let whole = self.firewall()?.is_whole(Some(&network));
                    whole.context(|| "look at the packet filter")
                })?;
                return Ok(whole == Some(false));
            }
        }
        Ok(false)
    }

    /// Makes the rules again from the records when they were flushed; says whether it was needed.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn repair(&self) -> Result<bool, Error> {
        let _lock = self.lock()?;
        let repaired = self.there(|| {
            let mut firewall = self.firewall()?;
            if firewall.is_whole(None).context(|| "look at the packet filter")? {
                return Ok(false);
            }
            self.rebuild(&mut firewall)?;
            Ok(true)
        })?;
        Ok(repaired == Some(true))
    }

    /// Removes every device and rule of this root (records stay).
    ///
    /// # Errors
    /// The steps that failed.
    pub fn teardown(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut failures = Failures::new();
        if let Some(user) = &self.user {
            return user.end();
        }
        failures.record("remove the table", self.firewall()?.delete());
        for network in self
            .records()?
            .iter()
            .filter(|network| !network.device.is_empty())
        {
            failures.record("remove a bridge", delete_link(&network.device));
        }
        failures
            .into_result()
            .context(|| "remove the networks' devices and rules")
    }

    pub(crate) fn firewall(&self) -> Result<Firewall, Error> {
        Firewall::open(&self.table).context(|| "open a socket to the packet filter")
    }

    /// Writes the table from the records. Under the lock.
    pub(crate) fn rebuild(&self, firewall: &mut Firewall) -> Result<(), Error> {
        let networks = self.records()?;
        let mut endpoints = Vec::new();
        for network in &networks {
            endpoints.extend(self.endpoints(network)?);
        }
        firewall
            .rebuild(&networks, &endpoints, &self.closed6())
            .context(|| format!("write nf_tables table inet {}", self.table))
            .map_err(|error| {
                error.with_hint("the kernel needs nf_tables with nat, fib and masquerade (nft_chain_nat, nft_fib_inet, nft_masq)")
            })
    }

    fn forget(&self, network: &Network) -> Result<(), Error> {
        let mut firewall = self.firewall()?;
        if firewall.is_whole(None).context(|| "look at the packet filter")? {
            firewall.remove_network(network).context(|| "remove the rules")?;
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> Result<Locked, Error> {
        let path = self.directory.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Locked { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(std::io::Error::from(errno)).context(|| format!("lock {}", path.display()));
                }
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn leases(&self, network: &str) -> Leases {
        Leases::of(&self.path(network))
    }

    pub(crate) fn record(&self, name: &str) -> Result<Option<Network>, Error> {
        read_record(&self.path(name).join("network.json"))
    }

    /// Names of the directories that may hold a network.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let what = || format!("list {}", self.directory.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).context(what)? {
            if let Some(name) = entry.context(what)?.file_name().to_str()
                && validate_name(name).is_ok()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn records(&self) -> Result<Vec<Network>, Error> {
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(self.record(&name)?);
        }
        Ok(all)
    }

    /// Makes the directory of a new network under another name and renames it: there is never half a network.
    fn publish(&self, network: &Network) -> Result<(), Error> {
        let staging = self.directory.join(format!(".new-{}", network.id));
        let made = || -> Result<(), Error> {
            for part in ["endpoints", "leases"] {
                let path = staging.join(part);
                fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
            }
            write_record(&staging, "network.json", network, Durable::Yes)?;
            match rustix::fs::renameat_with(
                rustix::fs::CWD,
                &staging,
                rustix::fs::CWD,
                self.path(&network.name),
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Ok(()) => {}
                Err(rustix::io::Errno::EXIST) => return Err(exists(&network.name)),
                Err(errno) => {
                    return Err(std::io::Error::from(errno))
                        .context(|| format!("publish network {}", network.name));
                }
            }
            let directory = File::open(&self.directory).context(|| "open the networks' directory")?;
            directory.sync_all().context(|| "sync the networks' directory")
        };
        let outcome = made();
        if outcome.is_err() {
            // Best effort: what is left begins with a dot and is no network.
            drop(fs::remove_dir_all(&staging));
        }
        outcome
    }
}

fn bridge_device(wished: Option<String>, others: &[Network], id: &NetworkId) -> Result<String, Error> {
    match wished {
        Some(name) if others.iter().any(|other| other.device == name) => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("bridge device {name} belongs to another network"),
        )),
        Some(name) => Ok(name),
        // Docker's name, which people and tools look for. Records of older networks say `dh-`, and keep it.
        None => Ok(format!("br-{}", id.short())),
    }
}

fn exists(name: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("network with name {name} already exists"),
    )
}

fn pseudo(name: &str, driver: Driver) -> Network {
    Network {
        format: FORMAT,
        id: NetworkId::from_random(*Digest::of(format!("dhow network {name}").as_bytes()).as_bytes()),
        name: name.to_owned(),
        driver,
        device: String::new(),
        parent: String::new(),
        mode: String::new(),
        names: false,
        default_route: false,
        created: 0,
        subnets: Vec::new(),
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        mtu: None,
        masquerade: false,
        icc: true,
        dns: Vec::new(),
    }
}

fn taken(others: &[Network]) -> Result<Taken, Error> {
    let mut socket = Socket::route().context(|| "open a routing socket")?;
    let routes = route::routes(&mut socket).context(|| "read the host's routes")?;
    Ok(Taken {
        networks: others
            .iter()
            .flat_map(|other| &other.subnets)
            .map(|subnet| subnet.subnet)
            .collect(),
        routes: routes
            .into_iter()
            .map(|route| route.destination)
            .filter(|net| net.prefix_len() != 0)
            .collect(),
    })
}

/// Removes an interface; one that is not there is done.
pub(crate) fn delete_link(name: &str) -> Result<(), Error> {
    let mut batch = Batch::new();
    route::delete_link(&mut batch, name);
    match Socket::route().and_then(|mut socket| socket.demand(&mut batch, &mut |_, _| ())) {
        Err(error) if route::is(&error, rustix::io::Errno::NODEV) => Ok(()),
        other => other.context(|| format!("remove interface {name}")),
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut raw = [0; N];
    rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| "read random bytes")?;
    Ok(raw)
}

fn random_id() -> Result<NetworkId, Error> {
    Ok(NetworkId::from_random(random()?))
}

fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a record must outlive a crash of the machine. An endpoint does not outlive it anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    No,
}

/// Writes a record beside its name and renames it there.
pub(crate) fn write_record(
    directory: &Path,
    name: &str,
    record: &impl Serialize,
    durable: Durable,
) -> Result<(), Error> {
    let what = || format!("write {}", directory.join(name).display());
    let bytes =
        serde_json::to_vec(record).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
    let staging = directory.join(format!(".{name}"));
    let mut file = File::create(&staging).context(what)?;
    file.write_all(&bytes).context(what)?;
    if durable == Durable::Yes {
        file.sync_all().context(what)?;
    }
    fs::rename(&staging, directory.join(name)).context(what)
}

/// Reads a record; `None` when it is not there.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let what = || format!("read {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(what)?,
    };
    // Room for a usual record, so that one read gets it.
    let mut bytes = Vec::with_capacity(2048);
    file.take(MAX_RECORD).read_to_end(&mut bytes).context(what)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::because(
            ErrorKind::DataLoss,
            format!("{} is damaged", path.display()),
            error,
        )
    })
}

pub(crate) fn endpoint_path(network: &Path, container: &str) -> PathBuf {
    network.join("endpoints").join(format!("{container}.json"))
}

pub(crate) fn read_endpoints(network: &Path) -> Result<Vec<Endpoint>, Error> {
    let directory = network.join("endpoints");
    let what = || format!("list {}", directory.display());
    let listing = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(what)?,
    };
    let mut all = Vec::new();
    for entry in listing {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.ends_with(".json") && !name.starts_with('.'))
        {
            match read_record(&entry.path()) {
                Ok(endpoint) => all.extend(endpoint),
                // A power cut took what it said, and with it the container's place: its address goes back with those
                // of all that are gone.
                Err(error) if error.kind() == ErrorKind::DataLoss => drop(fs::remove_file(entry.path())),
                Err(error) => return Err(error),
            }
        }
    }
    all.sort_by(|a: &Endpoint, b: &Endpoint| a.container.cmp(&b.container));
    Ok(all)
}
