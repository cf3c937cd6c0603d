//! The files that the engine writes for a container: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dhow_bundle::GeneratedFile;
use dhow_network::{Endpoint, HostEntry, ResolvOptions};
use dhow_types::ErrorKind;

use super::extras;
use super::folder::write_file;
use super::record::{Config, MountRecord, NetworkMode};
use crate::{Context as _, Engine, Error};

/// Largest `/etc/hosts` that is changed while its container runs.
const LARGEST_HOSTS: u64 = 1 << 20;

impl Engine {
    /// Writes the three files and says where to bind them.
    pub(super) fn generate_files(
        &self,
        config: &Config,
        endpoints: &[Endpoint],
        own_resolver: bool,
        servers: &[String],
    ) -> Result<Vec<GeneratedFile>, Error> {
        let folder = self.containers().folder(&config.id);
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let hosts = hosts(config, endpoints, &|endpoint| {
            let networks = self.networks()?;
            networks.host(endpoint).context(|| "resolve host-gateway")
        })?;
        let mut options = resolv_options(config, own_resolver)?;
        if options.servers.is_empty() {
            options.servers = servers.iter().filter_map(|server| server.parse().ok()).collect();
        }
        if config.network == NetworkMode::Networks {
            options.forwarder = self.networks()?.resolver();
        }
        let resolv =
            dhow_network::resolv_conf(&host, &options).context(|| "write the container's resolv.conf")?;
        let hostname = format!("{}\n", config.request.hostname);
        let mut files = Vec::with_capacity(3);
        let extras = &config.extras;
        let wanted = [
            ("hosts", hosts, !extras.no_hosts),
            ("resolv.conf", resolv, true),
            ("hostname", hostname, !extras.no_hostname),
        ];
        for (name, content, _) in wanted.into_iter().filter(|(_, _, wanted)| *wanted) {
            let path = match self.file_of_network(config, name) {
                Some(path) => path,
                None => {
                    let path = folder.join(name);
                    write_file(&path, content.as_bytes())?;
                    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                        .context(|| format!("make {} readable", path.display()))?;
                    path
                }
            };
            let destination = PathBuf::from("/etc").join(name);
            let mounted = config
                .mounts
                .iter()
                .any(|mount| Path::new(&mount.destination) == destination);
            if !mounted {
                files.push(GeneratedFile {
                    source: path,
                    destination,
                    read_only: false,
                });
            }
        }
        self.name_in_shared_hosts(config, true)?;
        files.extend(self.containerenv_file(config)?);
        files.extend(self.secret_files(config)?);
        Ok(files)
    }

    /// Tells the `/etc/hosts` of a running container of a place in a network that came or went. Only its own line changes, since
    /// the container may have written others, and in the file itself, which is what is mounted there.
    pub(super) fn change_hosts(
        &self,
        config: &Config,
        gone: Option<IpAddr>,
        come: Option<IpAddr>,
    ) -> Result<(), Error> {
        if config.extras.no_hosts {
            return Ok(());
        }
        let is_gone = |line: &str| {
            let first = line.split_whitespace().next();
            gone.is_some_and(|gone| first == Some(gone.to_string().as_str()))
        };
        let line = come.map(|ip| format!("{ip}\t{}\n", own_names(config).join(" ")));
        self.edit_hosts(&config.id, is_gone, line)
    }

    /// Tells those who share a container's network of one who came to it or went, by its name, as podman does.
    pub(super) fn name_in_shared_hosts(&self, config: &Config, here: bool) -> Result<(), Error> {
        let NetworkMode::Container(owner) = &config.network else {
            return Ok(());
        };
        if config.extras.names.is_none() || config.extras.no_hosts {
            return Ok(());
        }
        let line = format!("127.0.0.1\t{}\n", config.name);
        let _edit = self.containers().edit(owner)?;
        self.edit_hosts(owner, |other| other == line, here.then(|| line.clone()))
    }

    fn edit_hosts(
        &self,
        id: &dhow_types::ContainerId,
        is_gone: impl Fn(&str) -> bool,
        come: Option<String>,
    ) -> Result<(), Error> {
        let path = self.containers().folder(id).join("hosts");
        let what = || format!("change {}", path.display());
        let mut file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.context(what)?,
        };
        if file.metadata().context(what)?.len() > LARGEST_HOSTS {
            // The container has made something else of it.
            return Ok(());
        }
        let mut text = String::new();
        (&mut file)
            .take(LARGEST_HOSTS)
            .read_to_string(&mut text)
            .context(what)?;
        let mut new: String = text.split_inclusive('\n').filter(|line| !is_gone(line)).collect();
        new.push_str(&come.unwrap_or_default());
        // Never empty meanwhile: the new text is as long as the old one, or its end is cut off after it is there.
        file.write_all_at(new.as_bytes(), 0).context(what)?;
        file.set_len(new.len() as u64).context(what)
    }

    /// Who has another container's network has its names, too.
    fn file_of_network(&self, config: &Config, name: &str) -> Option<PathBuf> {
        let NetworkMode::Container(other) = &config.network else {
            return None;
        };
        let path = self.containers().folder(other).join(name);
        (name != "hostname" && path.exists()).then_some(path)
    }

    /// The file that says that this is a container, unless the person has put something else there.
    fn containerenv_file(&self, config: &Config) -> Result<Option<GeneratedFile>, Error> {
        let destination = PathBuf::from(extras::CONTAINERENV);
        let covers =
            |mount: &MountRecord| mount.kind != "tmpfs" && destination.starts_with(&mount.destination);
        if !config.extras.containerenv || config.mounts.iter().any(covers) {
            return Ok(None);
        }
        let source = self.containers().folder(&config.id).join("containerenv");
        write_file(&source, extras::containerenv(config).as_bytes())?;
        std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .context(|| format!("make {} readable", source.display()))?;
        Ok(Some(GeneratedFile {
            source,
            destination,
            read_only: false,
        }))
    }
}

fn hosts(
    config: &Config,
    endpoints: &[Endpoint],
    host: &dyn Fn(&Endpoint) -> Result<Option<IpAddr>, Error>,
) -> Result<String, Error> {
    let mut entries = Vec::new();
    for line in &config.extra_hosts {
        // `name:address`, and since docker 28 also `name=address`, which an IPv6 address needs.
        let (name, address) = line
            .split_once('=')
            .or_else(|| line.split_once(':'))
            .ok_or_else(|| bad_host(line))?;
        let outward = endpoints.iter().find(|endpoint| endpoint.gateway.is_some());
        let host = match outward {
            Some(endpoint) if address == "host-gateway" => host(endpoint)?,
            _ => None,
        };
        let address = match (address, host) {
            ("host-gateway", Some(host)) => host,
            (text, _) => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| bad_host(line))?,
        };
        entries.push(HostEntry {
            ip: address,
            names: vec![name.to_owned()],
        });
    }
    // Plugins may have given none.
    let own = endpoints
        .iter()
        .map(|endpoint| endpoint.ip)
        .filter(|ip| !ip.is_unspecified());
    let own: Vec<IpAddr> = own.map(IpAddr::from).collect();
    let names = own_names(config);
    if let Some(podman) = &config.extras.names {
        let own = own.into_iter().map(|ip| HostEntry {
            ip,
            names: names.clone(),
        });
        let outward = endpoints.iter().find(|endpoint| endpoint.gateway.is_some());
        let there = match (outward, &config.network) {
            (Some(endpoint), _) => match host(endpoint) {
                // Nobody asked for it by name.
                Err(error) if error.kind() == ErrorKind::Unsupported => None,
                there => there?.or(endpoint.gateway.map(IpAddr::from)),
            },
            (None, NetworkMode::Host) => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            _ => None,
        };
        return podman.hosts(entries, own.collect(), there);
    }
    entries.extend(own.into_iter().map(|ip| HostEntry {
        ip,
        names: names.clone(),
    }));
    if config.network == NetworkMode::Host {
        entries.push(HostEntry {
            ip: std::net::Ipv4Addr::new(127, 0, 1, 1).into(),
            names,
        });
    }
    dhow_network::hosts_file(&entries).context(|| "write the container's hosts file")
}

/// What a container calls itself.
fn own_names(config: &Config) -> Vec<String> {
    let hostname = config.request.hostname.clone();
    let domain = &config.request.domainname;
    let whole = (!domain.is_empty()).then(|| format!("{hostname}.{domain}"));
    // Podman's has its name, too.
    let name = config.extras.names.is_some() && config.name != hostname;
    let name = name.then(|| config.name.clone());
    whole.into_iter().chain([hostname]).chain(name).collect()
}

fn bad_host(line: &str) -> Error {
    let message = format!("invalid --add-host {line:?}: write name:address");
    Error::new(ErrorKind::InvalidArgument, message)
}

fn resolv_options(config: &Config, own_resolver: bool) -> Result<ResolvOptions, Error> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("invalid --dns {text:?}: it is not an address"),
            )
        })
    };
    Ok(ResolvOptions {
        servers: config.dns.iter().map(parse).collect::<Result<_, _>>()?,
        search: config.dns_search.clone(),
        options: config.dns_options.clone(),
        embedded: own_resolver,
        host_network: config.network == NetworkMode::Host,
        podman: config.extras.names.is_some(),
        forwarder: None,
    })
}
