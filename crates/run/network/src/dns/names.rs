//! The names of the networks that one container is on, read from the endpoint records when a time stamp says that
//! they changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dhow_types::ContainerId;

use crate::model::{Endpoint, Network};
use crate::store::{endpoint_path, read_record};

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
    /// By the names of their files.
    entries: BTreeMap<OsString, Entry>,
}

/// Which record was read: one that is replaced has another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: Option<SystemTime>,
    /// Whether a later one cannot look the same, as with [`Stamp`].
    settled: bool,
}

/// The names of one endpoint.
#[derive(Debug)]
struct Entry {
    version: Version,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Entry {
    fn of(endpoint: Endpoint, version: Version) -> Self {
        let mut names = vec![endpoint.name];
        names.extend(endpoint.aliases);
        names.push(endpoint.container.short().to_owned());
        names.push(endpoint.hostname);
        names.retain(|name| !name.is_empty());
        let addresses = [Some(IpAddr::V4(endpoint.ip)), endpoint.ip6.map(IpAddr::V6)];
        Self {
            version,
            names,
            addresses: addresses.into_iter().flatten().collect(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The endpoints of a network. Of those that are known already only what was replaced is read: among a thousand one comes or goes
/// at a time. A record that cannot be read makes its names unknown, not the server useless.
fn read_entries(directory: &Path, mut known: BTreeMap<OsString, Entry>) -> BTreeMap<OsString, Entry> {
    let listing = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut entries = BTreeMap::new();
    for file in listing {
        let name = file.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") || !bytes.ends_with(b".json") {
            continue;
        }
        // Looked up before the record is read, or a change in between would be missed.
        let Ok(found) = file.metadata() else { continue };
        let changed = found.modified().ok();
        let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        let version = Version {
            inode: found.ino(),
            size: found.len(),
            changed,
            settled: age.is_some_and(|age| age > TICK),
        };
        let entry = match known.remove(&name) {
            Some(entry) if version.settled && entry.version == version => entry,
            _ => match read_record::<Endpoint>(&file.path()) {
                Ok(Some(endpoint)) => Entry::of(endpoint, version),
                _ => continue,
            },
        };
        entries.insert(name, entry);
    }
    entries
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
            let directory = watched.directory.join("endpoints");
            let now = Stamp::of(&directory);
            if watched.network.has_names() && !watched.stamp.holds(now) {
                let known = std::mem::take(&mut watched.entries);
                watched.entries = read_entries(&directory, known);
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
                    entries: BTreeMap::new(),
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
            for entry in watched.entries.values() {
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
                .values()
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

#[cfg(test)]
mod tests {
    use dhow_types::NetworkId;
    use serde_json::json;

    use super::*;

    fn endpoint(folder: &Path, number: u8, name: &str) -> PathBuf {
        let id = ContainerId::from_random([number; 32]);
        let path = folder.join(format!("{id}.json"));
        let record = json!({
            "format": 1, "network": "n", "network_id": NetworkId::from_random([9; 32]), "device": "d", "container": id,
            "name": name, "veth": "v", "interface": "eth0", "ip": format!("10.0.0.{number}"), "prefix": 24,
            "mac": "02:00:00:00:00:01",
        });
        let next = folder.join(".next");
        std::fs::write(&next, record.to_string()).unwrap();
        std::fs::rename(next, &path).unwrap();
        path
    }

    fn names(entries: &BTreeMap<OsString, Entry>) -> Vec<&str> {
        let mut names: Vec<_> = entries.values().map(|entry| entry.names[0].as_str()).collect();
        names.sort();
        names
    }

    #[test]
    fn of_many_endpoints_only_those_that_were_replaced_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let first = endpoint(folder, 1, "one");
        endpoint(folder, 2, "two");
        let gone = endpoint(folder, 3, "three");
        std::thread::sleep(2 * TICK);
        let entries = read_entries(folder, BTreeMap::new());
        assert_eq!(names(&entries), ["one", "three", "two"]);
        // Nobody writes in place: who did would show that it is read again.
        let before = std::fs::metadata(&first).unwrap().modified().unwrap();
        let text = std::fs::read_to_string(&first)
            .unwrap()
            .replace("\"one\"", "\"lie\"");
        std::fs::write(&first, text).unwrap();
        let file = std::fs::File::options().write(true).open(&first).unwrap();
        file.set_modified(before).unwrap();
        endpoint(folder, 2, "new");
        std::fs::remove_file(gone).unwrap();
        std::fs::write(folder.join("x.json"), "{").unwrap();
        std::fs::write(folder.join(".y.json"), "").unwrap();
        endpoint(folder, 4, "four");
        let entries = read_entries(folder, entries);
        assert_eq!(names(&entries), ["four", "new", "one"]);
        assert_eq!(
            names(&read_entries(folder, BTreeMap::new())),
            ["four", "lie", "new"]
        );
        assert!(names(&read_entries(&folder.join("nowhere"), entries)).is_empty());
    }
}
