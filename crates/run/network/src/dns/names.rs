//! The names of the networks that one container is on, read from the endpoint records when a time stamp says that
//! they changed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dhow_types::ContainerId;

use crate::model::{Endpoint, Network};
use crate::store::{endpoint_path, read_endpoints, read_record};

/// A directory that changed so shortly ago may change again under the same time stamp, since the kernel's
/// clock for files ticks every few milliseconds: what was read then is read again.
const TICK: Duration = Duration::from_millis(50);

/// When a directory was last changed, and whether that can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    changed: Option<SystemTime>,
    settled: bool,
}

impl Stamp {
    /// Looked up before the content is read, or a change in between would be missed.
    pub(super) fn of(path: &Path) -> Self {
        let changed = std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok();
        let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        Self {
            changed,
            settled: age.is_some_and(|age| age > TICK),
        }
    }

    pub(super) fn holds(self, now: Self) -> bool {
        self.settled && self.changed == now.changed
    }
}

/// One network of the container.
#[derive(Debug)]
struct Watched {
    network: Network,
    directory: PathBuf,
    stamp: Stamp,
    entries: Vec<Entry>,
}

/// The names of one endpoint.
#[derive(Debug)]
struct Entry {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Entry {
    fn of(endpoint: Endpoint) -> Self {
        let mut names = vec![endpoint.name];
        names.extend(endpoint.aliases);
        names.push(endpoint.container.short().to_owned());
        names.push(endpoint.hostname);
        names.retain(|name| !name.is_empty());
        let addresses = [Some(IpAddr::V4(endpoint.ip)), endpoint.ip6.map(IpAddr::V6)];
        Self {
            names,
            addresses: addresses.into_iter().flatten().collect(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// What the container may find by name.
#[derive(Debug)]
pub(super) struct Names {
    directory: PathBuf,
    container: ContainerId,
    stamp: Stamp,
    networks: Vec<Watched>,
}

impl Names {
    /// The names for this container of the store at `root`.
    pub(super) fn new(root: &Path, container: &ContainerId) -> Self {
        Self {
            directory: root.join("networks"),
            container: container.clone(),
            stamp: Stamp::default(),
            networks: Vec::new(),
        }
    }

    /// Reads again what has changed: two stat(2) for a container on one network when nothing has.
    pub(super) fn refresh(&mut self) {
        let now = Stamp::of(&self.directory);
        if !self.stamp.holds(now) {
            self.rescan();
            self.stamp = now;
        }
        for watched in &mut self.networks {
            let now = Stamp::of(&watched.directory.join("endpoints"));
            if watched.network.has_names() && !watched.stamp.holds(now) {
                // An unreadable record makes its names unknown, not the server useless.
                let endpoints = read_endpoints(&watched.directory).unwrap_or_default();
                watched.entries = endpoints.into_iter().map(Entry::of).collect();
                watched.stamp = now;
            }
        }
    }

    /// On which networks is the container?
    fn rescan(&mut self) {
        let mut old = std::mem::take(&mut self.networks);
        let Ok(listing) = std::fs::read_dir(&self.directory) else {
            return;
        };
        let mut found: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
        found.sort();
        for directory in found {
            if !endpoint_path(&directory, self.container.as_str()).exists() {
                continue;
            }
            if let Some(index) = old.iter().position(|watched| watched.directory == directory) {
                self.networks.push(old.swap_remove(index));
            } else if let Ok(Some(network)) = read_record::<Network>(&directory.join("network.json")) {
                self.networks.push(Watched {
                    network,
                    directory,
                    stamp: Stamp::default(),
                    entries: Vec::new(),
                });
            }
        }
    }

    /// Whether questions may leave: some network of the container has a way out (CVE-2024-29018).
    pub(super) fn may_forward(&self) -> bool {
        self.networks.iter().any(|watched| !watched.network.internal)
    }

    /// The addresses behind a name; `None` when no container has it.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = Vec::new();
        let mut known = false;
        for watched in &self.networks {
            let (host, network) = name.rsplit_once('.').unwrap_or((name, ""));
            let local = network
                .eq_ignore_ascii_case(&watched.network.name)
                .then_some(host);
            for entry in &watched.entries {
                if entry.is_called(name) || local.is_some_and(|host| entry.is_called(host)) {
                    known = true;
                    found.extend(
                        entry
                            .addresses
                            .iter()
                            .filter(|ip| !found.contains(*ip))
                            .copied()
                            .collect::<Vec<_>>(),
                    );
                }
            }
        }
        known.then_some(found)
    }

    /// The name behind an address: `<container>.<network>`, as docker says it.
    pub(super) fn name_of(&self, ip: IpAddr) -> Option<String> {
        self.networks.iter().find_map(|watched| {
            let entry = watched
                .entries
                .iter()
                .find(|entry| entry.addresses.contains(&ip))?;
            Some(format!("{}.{}", entry.names.first()?, watched.network.name))
        })
    }

    /// Whether the address lies in a network of the container, so that nobody outside could know it.
    pub(super) fn is_ours(&self, ip: IpAddr) -> bool {
        self.networks
            .iter()
            .flat_map(|watched| &watched.network.subnets)
            .any(|subnet| subnet.subnet.contains(&ip))
    }
}
