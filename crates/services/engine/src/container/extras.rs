//! What podman's users ask of a container and docker has no word for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use dhow_bundle::Request;
use dhow_monitor::HealthLog;
use dhow_network::HostEntry;
use dhow_oci::Healthcheck;
use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::own_root::OwnRoot;
use super::record::Config;
use super::shared::{IpcMode, Shared};
use super::users::{Entered, Users};
use crate::{Context as _, Error};

/// It is asked for when the container is created, and kept with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Whether the image goes away with the container, unless another has it (`--rmi`).
    pub remove_image: bool,
    /// Seconds that one run may take (`--timeout`).
    pub timeout: Option<u64>,
    /// A file that gets the program's process id at each start (`--pidfile`).
    pub pidfile: Option<PathBuf>,
    /// A file that gets the monitor's process id at each start (`--conmon-pidfile`).
    pub monitor_pidfile: Option<PathBuf>,
    /// A file with the container's id, which goes away with it (`--cidfile`).
    pub cidfile: Option<PathBuf>,
    /// Whether `/run/.containerenv` tells the program where it runs.
    pub containerenv: bool,
    /// Whether `/etc/mtab` is made where the image has none.
    pub mtab: bool,
    /// Whether the image keeps its own `/etc/hostname` (`--no-hostname`).
    pub no_hostname: bool,
    /// Whether the image keeps its own `/etc/hosts` (`--no-hosts`).
    pub no_hosts: bool,
    /// Whether the working directory must be there: else it is made.
    pub needs_workdir: bool,
    /// The root file system that is of no image.
    pub root: Option<OwnRoot>,
    /// The pod that it belongs to, by id.
    pub pod: Option<String>,
    /// Whether it is the pod's waiting container.
    pub infra: bool,
    /// Namespaces of other containers that it is in.
    pub shared: Vec<Shared>,
    /// Whether others may share its IPC namespace.
    pub ipc: IpcMode,
    /// Whether its program is a systemd.
    pub systemd: bool,
    /// The check that comes before all others (`--health-startup-*`).
    pub startup: Option<StartupHealth>,
    /// What of health checks is kept (`--health-max-log-*`); docker's when absent.
    pub health_log: Option<HealthLog>,
    /// The command that made it.
    pub command_line: Vec<String>,
    /// What the runtime was called by who asked for it (`--runtime`): this program, or a copy of it.
    pub runtime: Option<String>,
    /// How podman writes the files of names; docker's way when absent.
    pub names: Option<Names>,
    /// The time zone by its name (`--tz`): a mount shows its file, unless the image has it itself.
    pub zone: Option<String>,
    /// Folders that say which hooks it has (`--hooks-dir`).
    pub hook_folders: Vec<PathBuf>,
    /// Its own user namespace; that of the engine when absent.
    pub users: Option<Users>,
    /// Who the caller is in it, when they are who they are.
    pub account: Option<Account>,
    /// A folder that gets the results of health checks, too (`--health-log-destination`).
    pub health_folder: Option<PathBuf>,
    /// Devices by the Container Device Interface, `vendor.com/class=name`.
    pub cdi: Vec<String>,
    /// Where their files are looked for (`--cdi-spec-dir`); the usual folders when there are none.
    pub cdi_folders: Vec<PathBuf>,
}

/// A check of the start, in an image's words, with how often it must be good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartupHealth {
    /// What to run, how often, and how many failures it may have in a row.
    pub check: Healthcheck,
    /// How often it must be good; 0 means once.
    pub successes: u64,
}

/// How podman writes `/etc/hosts` (containers.conf(5)); its `/etc/resolv.conf` begins with the search domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// The file of the host whose names the container knows, too (`base_hosts_file`).
    pub base: Option<PathBuf>,
    /// Whether the container knows the host as `host.containers.internal`.
    pub host: bool,
    /// Under this address instead of the one that its network has for it (`host_containers_internal_ip`).
    pub host_address: Option<IpAddr>,
}

/// Names of the host in a container.
const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.docker.internal"];
/// Largest file with names.
const LARGEST_BASE: u64 = 1 << 20;

impl Names {
    /// The whole file. `asked` are the names of `--add-host`, `own` the container's, `host` where it reaches the host.
    pub(super) fn hosts(
        &self,
        asked: Vec<HostEntry>,
        own: Vec<HostEntry>,
        host: Option<IpAddr>,
    ) -> Result<String, Error> {
        let mut entries = asked;
        let knows = |entries: &[HostEntry], name: &str| {
            entries
                .iter()
                .any(|entry| entry.names.iter().any(|known| known == name))
        };
        for entry in self.base_entries()? {
            if !entry
                .names
                .iter()
                .any(|name| knows(&entries, name) && name != "localhost")
            {
                entries.push(entry);
            }
        }
        for loopback in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let is_loopback = |entry: &HostEntry| entry.ip == loopback;
            if !entries.iter().any(is_loopback) {
                entries.push(named(loopback, &["localhost"]));
            }
        }
        let host = self.host_address.or(host).filter(|_| self.host);
        entries.extend(host.map(|host| {
            let free: Vec<&str> = HOST_NAMES
                .into_iter()
                .filter(|name| !knows(&entries, name))
                .collect();
            named(host, &free)
        }));
        let unknown = |entry: &HostEntry| !entry.names.iter().any(|name| knows(&entries, name));
        let own: Vec<HostEntry> = own.into_iter().filter(unknown).collect();
        entries.extend(own);
        dhow_network::host_lines(&entries).context(|| "write the container's hosts file")
    }

    fn base_entries(&self) -> Result<Vec<HostEntry>, Error> {
        use std::io::Read as _;
        let Some(path) = &self.base else {
            return Ok(Vec::new());
        };
        let mut text = String::new();
        match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.and_then(|file| file.take(LARGEST_BASE).read_to_string(&mut text)),
        }
        .context(|| format!("read {}", path.display()))?;
        Ok(dhow_network::host_entries(&text))
    }
}

fn named(ip: IpAddr, names: &[&str]) -> HostEntry {
    HostEntry {
        ip,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Where the program finds out that it is in a container.
pub(super) const CONTAINERENV: &str = "/run/.containerenv";

impl Extras {
    /// What is wrong with it by itself.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.root.as_ref().map(OwnRoot::check).transpose()?;
        let Some(folder) = &self.health_folder else {
            return Ok(());
        };
        if folder.is_absolute() && folder.is_dir() {
            return Ok(());
        }
        let message = format!(
            "HealthCheck Log {:?} destination error: it is not a folder of this host",
            folder.display().to_string()
        );
        Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("use local, or the path of a folder"))
    }
}

/// What `/run/.containerenv` says: nothing, but to a privileged container who it is (podman-run(1)).
pub(super) fn containerenv(config: &Config) -> String {
    if !config.request.privileged {
        return String::new();
    }
    format!(
        "engine=\"podman-{}\"\nname={:?}\nid={:?}\nimage={:?}\nimageid={:?}\nrootless={}\n",
        env!("CARGO_PKG_VERSION"),
        config.name,
        config.id.as_str(),
        config.image_name,
        config.image.hex().to_string(),
        u8::from(!crate::rootless::is_rootful()),
    )
}

/// Refuses a working directory that neither the image has nor a mount makes.
pub(super) fn check_workdir(config: &Config, root: &Root) -> Result<(), Error> {
    let cwd = &config.request.cwd;
    if !config.extras.needs_workdir || cwd.as_os_str().is_empty() {
        return Ok(());
    }
    let made = config.mounts.iter().any(|mount| {
        let target = Path::new(&mount.destination);
        cwd.starts_with(target) || target.starts_with(cwd)
    });
    if made {
        return Ok(());
    }
    match root.metadata(cwd) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let message = format!(
                "workdir {:?} does not exist on container {}",
                cwd.display().to_string(),
                config.id
            );
            Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("name a folder of the image, or mount one there"))
        }
        Err(error) => Err(error).context(|| format!("look at {}", cwd.display())),
    }
}

/// Removes the file with the container's id, if it still is that file.
pub(super) fn remove_cidfile(config: &Config) -> Result<(), Error> {
    let Some(path) = &config.extras.cidfile else {
        return Ok(());
    };
    let what = || format!("remove {}", path.display());
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.context(what)?,
    };
    let mut id = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, 128), &mut id).context(what)?;
    if id.trim_end() != config.id.as_str() {
        return Ok(());
    }
    std::fs::remove_file(path).context(what)
}

/// Makes the file that older programs read for what is mounted, if there is none.
pub(super) fn make_mtab(config: &Config, root: &Root, users: Option<&Entered>) -> Result<(), Error> {
    let path = Path::new("/etc/mtab");
    let absent = |path: &Path| matches!(root.symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
    if !config.extras.mtab || config.request.read_only || absent(Path::new("/etc")) || !absent(path) {
        return Ok(());
    }
    let make = || root.symlink(Path::new("/proc/mounts"), path, None);
    match users {
        Some(users) => users.as_root(make)?,
        None => make(),
    }
    .context(|| "make /etc/mtab")
}

/// Where the time zone of a program is.
const LOCAL_TIME: &str = "/etc/localtime";

/// Leads `/etc/localtime` to the time zone that is asked for, when the image has it: programs read its name there. Then nothing
/// needs to be mounted.
pub(super) fn link_zone(
    config: &Config,
    request: &mut Request,
    root: &Root,
    users: Option<&Entered>,
) -> Result<(), Error> {
    let Some(zone) = config.extras.zone.as_ref().filter(|_| !config.request.read_only) else {
        return Ok(());
    };
    let what = || format!("link the time zone {zone}");
    let file = Path::new("/usr/share/zoneinfo").join(zone);
    let is_file = root
        .metadata(&file)
        .is_ok_and(|status| FileKind::of_mode(status.st_mode) == FileKind::File);
    if !is_file {
        return Ok(());
    }
    let (link, target) = (
        Path::new(LOCAL_TIME),
        Path::new("../usr/share/zoneinfo").join(zone),
    );
    let make = || match root.read_link(link) {
        Ok(there) if there == target => Ok(()),
        _ => root
            .remove_all(link)
            .and_then(|()| root.symlink(&target, link, None)),
    };
    match users {
        Some(users) => users.as_root(make)?,
        None => make(),
    }
    .context(what)?;
    request.mounts.retain(|mount| mount.destination() != link);
    Ok(())
}

/// Writes a process id where the person wants it.
pub(super) fn write_pid(file: Option<&PathBuf>, pid: i32) -> Result<(), Error> {
    match file {
        Some(path) => std::fs::write(path, pid.to_string())
            .context(|| format!("write the process id to {}", path.display())),
        None => Ok(()),
    }
}
