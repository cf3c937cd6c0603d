//! Who has which address. A lease is a symbolic link `leases/<address>` whose target is the container's id: made by one
//! system call that fails when it exists, with its content from the first moment on. There is no state to renumber
//! and nothing half-written to repair.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use dhow_types::{ContainerId, ErrorKind};
use ipnet::IpNet;

use crate::{Context as _, Error, Subnet};

/// The leases of one network.
#[derive(Debug)]
pub(crate) struct Leases {
    directory: PathBuf,
}

impl Leases {
    pub(crate) fn of(network: &Path) -> Self {
        Self {
            directory: network.join("leases"),
        }
    }

    fn path(&self, ip: IpAddr) -> PathBuf {
        self.directory.join(ip.to_string())
    }

    fn take(&self, ip: IpAddr, container: &ContainerId) -> Result<bool, Error> {
        match std::os::unix::fs::symlink(container.as_str(), self.path(ip)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).context(|| format!("lease address {ip}")),
        }
    }

    /// Takes this address.
    pub(crate) fn claim(&self, subnet: &Subnet, ip: IpAddr, container: &ContainerId) -> Result<(), Error> {
        if !subnet.subnet.contains(&ip) || is_reserved(subnet, ip) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "invalid endpoint settings: address {ip} is not a free host address of subnet {}",
                    subnet.subnet
                ),
            ));
        }
        if self.take(ip, container)? {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("address {ip} is already in use"),
            ))
        }
    }

    /// Takes the address of a wide IPv6 range that ends as this one of IPv4, which its lease makes free but for those who asked for
    /// it by itself. Nothing has to be looked for, and who knows one address of a container knows the other.
    pub(crate) fn claim_twin(
        &self,
        subnet: &Subnet,
        ip: Ipv4Addr,
        container: &ContainerId,
    ) -> Result<Option<IpAddr>, Error> {
        let IpNet::V6(range) = subnet.ip_range.unwrap_or(subnet.subnet) else {
            return Ok(None);
        };
        if range.prefix_len() > 96 {
            return Ok(None);
        }
        let twin = IpAddr::V6((u128::from(range.network()) | u128::from(u32::from(ip))).into());
        Ok((!is_reserved(subnet, twin) && self.take(twin, container)?).then_some(twin))
    }

    /// Takes a free address: where there is room, the one behind the last that was given, so that what still knows one that
    /// was left (caches of names, open connections) does not meet another container there; else the lowest. Under the lock.
    pub(crate) fn next(&self, subnet: &Subnet, container: &ContainerId) -> Result<IpAddr, Error> {
        let range = subnet.ip_range.unwrap_or(subnet.subnet);
        if !is_roomy(range) {
            return self.first_free(subnet, range, hosts(range, None), container);
        }
        let last = Last::of(&self.directory, range);
        let taken = self.first_free(subnet, range, hosts(range, last.read(range)), container)?;
        last.write(taken)?;
        Ok(taken)
    }

    fn first_free(
        &self,
        subnet: &Subnet,
        range: IpNet,
        hosts: impl Iterator<Item = IpAddr>,
        container: &ContainerId,
    ) -> Result<IpAddr, Error> {
        let mut candidates = hosts.filter(|ip| !is_reserved(subnet, *ip));
        // The common case first: nothing is read when the first is free.
        if let Some(first) = candidates.next()
            && self.take(first, container)?
        {
            return Ok(first);
        }
        // Their names tell: whose they are would be a system call for each.
        let taken: HashSet<IpAddr> = self.names()?.into_iter().collect();
        // At most one candidate more than there are leases is looked at; then a free one is found or there is none.
        for ip in candidates {
            if !taken.contains(&ip) && self.take(ip, container)? {
                return Ok(ip);
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!("no free address is left in {range}"),
        ))
    }

    /// Gives an address back, if this container has it.
    pub(crate) fn release(&self, ip: IpAddr, container: &ContainerId) -> Result<(), Error> {
        let path = self.path(ip);
        match std::fs::read_link(&path) {
            Ok(owner) if owner.as_os_str() == container.as_str() => {
                std::fs::remove_file(&path).context(|| format!("release address {ip}"))
            }
            _ => Ok(()),
        }
    }

    /// Who has an address.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<String> {
        let owner = std::fs::read_link(self.path(ip)).ok()?;
        Some(owner.to_string_lossy().into_owned())
    }

    /// Every lease: address and container. Foreign files are skipped.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, String)>, Error> {
        let names = self.names()?.into_iter();
        Ok(names.filter_map(|ip| Some((ip, self.owner(ip)?))).collect())
    }

    /// The addresses that somebody has.
    fn names(&self) -> Result<Vec<IpAddr>, Error> {
        let what = || format!("list {}", self.directory.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory).context(what)? {
            let name = entry.context(what)?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(names)
    }

    /// Gives back what containers hold that are gone: for which `claim` gives something, which is held meanwhile.
    pub(crate) fn release_claimed<G>(&self, claim: &impl Fn(&str) -> Option<G>) -> Result<(), Error> {
        for (ip, owner) in self.all()? {
            if let Some(_claimed) = claim(&owner) {
                let path = self.path(ip);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).context(|| format!("release address {ip}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The addresses that no container may have: that of the bridge, of the net itself, of the broadcast.
fn is_reserved(subnet: &Subnet, ip: IpAddr) -> bool {
    ip == subnet.gateway
        || ip == subnet.subnet.network()
        || (ip.is_ipv4() && ip == subnet.subnet.broadcast())
        || subnet.reserved.values().any(|taken| *taken == ip)
}

/// Host addresses of a range, those behind `after` first, then from the lowest on, without building a list (an IPv6 range has
/// 2^64).
fn hosts(range: IpNet, after: Option<IpAddr>) -> Box<dyn Iterator<Item = IpAddr>> {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let (first, last) = (number(range.network()), number(range.broadcast()));
    let begin = after.map_or(first, |after| number(after).saturating_add(1));
    let all = (begin..=last).chain(first..begin.min(last.saturating_add(1)));
    match range {
        // A number of the range fits.
        IpNet::V4(_) => Box::new(all.map(|raw| IpAddr::V4(u32::try_from(raw).unwrap_or(0).into()))),
        IpNet::V6(_) => Box::new(all.map(|raw| IpAddr::V6(Ipv6Addr::from(raw)))),
    }
}

/// Whether a range has room for addresses that nobody has for a while: from 254 on.
fn is_roomy(range: IpNet) -> bool {
    range.max_prefix_len() - range.prefix_len() >= 8
}

/// The last address that was given: a symbolic link beside the folder of leases. It is a hint: without it, or
/// with a wrong one, other addresses are looked at first.
struct Last(PathBuf);

impl Last {
    fn of(leases: &Path, range: IpNet) -> Self {
        Self(leases.with_file_name(if range.addr().is_ipv4() { "last4" } else { "last6" }))
    }

    fn read(&self, range: IpNet) -> Option<IpAddr> {
        let link = std::fs::read_link(&self.0).ok()?;
        let last = link.to_str()?.parse().ok()?;
        range.contains(&last).then_some(last)
    }

    fn write(&self, ip: IpAddr) -> Result<(), Error> {
        let what = || format!("write {}", self.0.display());
        let next = self.0.with_extension("next");
        let made = || std::os::unix::fs::symlink(ip.to_string(), &next);
        match made() {
            // Of one who was killed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&next).and_then(|()| made())
            }
            made => made,
        }
        .context(what)?;
        std::fs::rename(&next, &self.0).context(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(subnet: &str, gateway: &str, range: Option<&str>) -> (tempfile::TempDir, Leases, Subnet) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("leases")).unwrap();
        let subnet = Subnet {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            ip_range: range.map(|range| range.parse().unwrap()),
            reserved: Default::default(),
        };
        let leases = Leases::of(directory.path());
        (directory, leases, subnet)
    }

    #[test]
    fn leases_go_from_the_lowest_skip_the_gateway_and_end() {
        let (_keep, leases, subnet) = fixture("10.1.0.0/29", "10.1.0.1", None);
        let id = ContainerId::from_random([1; 32]);
        let got: Vec<String> = (0..5)
            .map(|_| leases.next(&subnet, &id).unwrap().to_string())
            .collect();
        assert_eq!(got, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(
            leases.next(&subnet, &id).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
        leases.release("10.1.0.4".parse().unwrap(), &id).unwrap();
        assert_eq!(leases.next(&subnet, &id).unwrap().to_string(), "10.1.0.4");
    }

    #[test]
    fn the_address_of_ipv6_ends_as_that_of_ipv4_where_it_can() {
        let (_keep, leases, subnet) = fixture("fd00:1::/64", "fd00:1::1", None);
        let id = ContainerId::from_random([1; 32]);
        let twin = |subnet: &Subnet, ip: [u8; 4]| leases.claim_twin(subnet, ip.into(), &id).unwrap();
        assert_eq!(
            twin(&subnet, [10, 1, 0, 2]),
            Some("fd00:1::a01:2".parse().unwrap())
        );
        assert_eq!(twin(&subnet, [10, 1, 0, 2]), None, "somebody has it");
        assert_eq!(twin(&subnet, [0, 0, 0, 1]), None, "the gateway's");
        let narrow = Subnet {
            ip_range: Some("fd00:1::/112".parse().unwrap()),
            ..subnet
        };
        assert_eq!(twin(&narrow, [10, 1, 0, 3]), None);
        let v4 = fixture("10.1.0.0/16", "10.1.0.1", None).2;
        assert_eq!(twin(&v4, [10, 1, 0, 3]), None);
    }

    #[test]
    fn with_room_an_address_that_was_left_is_given_again_last() {
        let (keep, leases, subnet) = fixture("10.1.0.0/24", "10.1.0.1", None);
        let id = ContainerId::from_random([1; 32]);
        let next = || leases.next(&subnet, &id).unwrap().to_string();
        assert_eq!([next(), next()], ["10.1.0.2", "10.1.0.3"]);
        leases.release("10.1.0.2".parse().unwrap(), &id).unwrap();
        leases.release("10.1.0.3".parse().unwrap(), &id).unwrap();
        assert_eq!(next(), "10.1.0.4");
        // What a kill left is in nobody's way, and no wrong hint is.
        std::os::unix::fs::symlink("x", keep.path().join("last4.next")).unwrap();
        assert_eq!(next(), "10.1.0.5");
        let hint = keep.path().join("last4");
        std::fs::remove_file(&hint).unwrap();
        std::os::unix::fs::symlink("10.9.9.9", &hint).unwrap();
        assert_eq!(next(), "10.1.0.2");
        // At the end it begins again.
        std::fs::remove_file(&hint).unwrap();
        std::os::unix::fs::symlink("10.1.0.254", &hint).unwrap();
        assert_eq!(next(), "10.1.0.3");
        assert_eq!(leases.all().unwrap().len(), 4);
    }

    #[test]
    fn what_no_lease_is_named_like_is_passed_over_also_without_an_owner() {
        let (keep, leases, subnet) = fixture("10.1.0.0/29", "10.1.0.1", None);
        let id = ContainerId::from_random([1; 32]);
        leases.next(&subnet, &id).unwrap();
        std::fs::write(keep.path().join("leases/README"), "").unwrap();
        // Something else of that name: it is nobody's lease, and the address is not free.
        std::fs::write(keep.path().join("leases/10.1.0.3"), "").unwrap();
        assert_eq!(leases.next(&subnet, &id).unwrap().to_string(), "10.1.0.4");
        let all: Vec<String> = leases
            .all()
            .unwrap()
            .into_iter()
            .map(|(ip, _)| ip.to_string())
            .collect();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(!all.contains(&"10.1.0.3".to_owned()));
    }

    #[test]
    fn addresses_of_others_are_given_to_nobody() {
        let (_keep, leases, mut subnet) = fixture("10.1.0.0/29", "10.1.0.1", None);
        subnet
            .reserved
            .insert("router".into(), "10.1.0.2".parse().unwrap());
        let id = ContainerId::from_random([1; 32]);
        assert_eq!(leases.next(&subnet, &id).unwrap().to_string(), "10.1.0.3");
        let refused = leases.claim(&subnet, "10.1.0.2".parse().unwrap(), &id);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn lease_is_only_released_by_its_container() {
        let (_keep, leases, subnet) = fixture("10.1.0.0/24", "10.1.0.1", Some("10.1.0.128/25"));
        let (one, two) = (
            ContainerId::from_random([1; 32]),
            ContainerId::from_random([2; 32]),
        );
        let ip = leases.next(&subnet, &one).unwrap();
        assert_eq!(ip.to_string(), "10.1.0.128");
        leases.release(ip, &two).unwrap();
        assert_eq!(
            leases.claim(&subnet, ip, &two).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        leases
            .release_claimed(&|owner: &str| (owner == one.as_str()).then_some(()))
            .unwrap();
        leases.claim(&subnet, ip, &two).unwrap();
    }

    #[test]
    fn reserved_and_foreign_addresses_are_refused() {
        let (_keep, leases, subnet) = fixture("10.1.0.0/24", "10.1.0.1", None);
        let id = ContainerId::from_random([1; 32]);
        for bad in ["10.1.0.0", "10.1.0.1", "10.1.0.255", "10.2.0.1"] {
            let refused = leases.claim(&subnet, bad.parse().unwrap(), &id).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn ipv6_leases_do_not_enumerate_the_range() {
        let (_keep, leases, subnet) = fixture("fd00:1::/64", "fd00:1::1", None);
        let id = ContainerId::from_random([1; 32]);
        assert_eq!(leases.next(&subnet, &id).unwrap().to_string(), "fd00:1::2");
        assert_eq!(leases.next(&subnet, &id).unwrap().to_string(), "fd00:1::3");
    }
}
