//! Which places are asked for an image, and how: one model of what four kinds of files say.
//!
//! - `registries.conf` with its drop-in folder (podman, skopeo): rewriting, mirrors and blocks by prefix.
//! - `certs.d/<host>/hosts.toml` (containerd): the places of one registry, each with its own trust.
//! - `certs.d/<host>/{*.crt,*.cert,*.key}` (docker, podman): whom to trust, and who we are.
//! - `daemon.json` (docker): mirrors of Docker Hub, insecure registries.
//!
//! The person's own files stand before the system's. A name is rewritten by the longest prefix; then the mirrors of
//! the prefix come first, docker's mirrors next, then the places of `hosts.toml`, and the registry itself last.
//! A mirror gets its own credentials only, and every byte it sends is checked as the registry's would be.

mod conf;
mod daemon;
mod files;
mod hosts;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use dhow_reference::Reference;
use dhow_types::ErrorKind;

pub(crate) use conf::{Conf, Only};
pub(crate) use daemon::Daemon;
pub(crate) use files::HostFiles;
pub use files::RegistryFiles;
use hosts::HostPlace;

use crate::{Error, place};

/// Registries, mirrors of one, hosts of one file: more of them are a mistake.
const MAX_RULES: usize = 1000;

/// What the files say, without those of single hosts, which are read when a host is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    pub(crate) conf: Conf,
    pub(crate) daemon: Daemon,
    /// Files that were read, in the order in which they were.
    sources: Vec<PathBuf>,
}

/// What may be asked of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the four words of hosts.toml")]
pub(crate) struct Can {
    /// What has a digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
    pub(crate) referrers: bool,
}

impl Can {
    pub(crate) const ALL: Self = Self {
        pull: true,
        resolve: true,
        push: true,
        referrers: true,
    };
    pub(crate) const NONE: Self = Self {
        pull: false,
        resolve: false,
        push: false,
        referrers: false,
    };
    pub(crate) const READ: Self = Self {
        push: false,
        ..Self::ALL
    };
}

/// Whom to trust in a TLS connection, and who we are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    pub(crate) any_certificate: bool,
    /// Authorities besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificates with their keys.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
}

impl Wire {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A place to ask for one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`, or `docker.io`.
    pub(crate) host: String,
    /// The scheme, where a file says one.
    pub(crate) https: Option<bool>,
    /// Path of the API.
    pub(crate) root: String,
    /// The repository, by the name that it has there.
    pub(crate) repository: String,
    /// The registry that a mirror stands for, which it may want to know (containerd's `ns`).
    pub(crate) namespace: Option<String>,
    pub(crate) insecure: bool,
    pub(crate) wire: Wire,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) can: Can,
    pub(crate) only: Only,
    /// Not the registry itself.
    pub(crate) mirror: bool,
}

impl Endpoint {
    /// A registry of which no file says anything.
    pub(crate) fn plain(host: &str, repository: &str) -> Self {
        Self {
            host: host.to_owned(),
            https: None,
            root: "/v2".to_owned(),
            repository: repository.to_owned(),
            namespace: None,
            insecure: false,
            wire: Wire::default(),
            headers: Vec::new(),
            can: Can::ALL,
            only: Only::All,
            mirror: false,
        }
    }
}

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// What a tag means.
    Resolve,
    /// Something by its digest.
    Pull,
    /// Lists of the registry itself.
    List,
    Push,
}

impl Registries {
    /// The places to ask, best first. `host_files` reads the folder of a host.
    ///
    /// # Errors
    /// `PermissionDenied` for a registry that is blocked, `InvalidArgument` when rewriting makes no name.
    pub(crate) fn endpoints(
        &self,
        reference: &Reference,
        host_files: &mut dyn FnMut(&str) -> Result<HostFiles, Error>,
    ) -> Result<Vec<Endpoint>, Error> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let mut places = Vec::new();
        let mut own = Endpoint::plain(registry, repository);
        if let Some((rule, length)) = self.conf.matching(registry, repository) {
            if rule.blocked {
                let message = format!("registry {} is blocked in {}", rule.prefix, rule.source.display());
                return Err(Error::new(ErrorKind::PermissionDenied, message));
            }
            let name = format!("{registry}/{repository}");
            for mirror in &rule.mirrors {
                let mut place = moved(&mirror.location, &name[length..])?;
                (place.insecure, place.only) = (mirror.insecure, mirror.only);
                (place.mirror, place.can) = (true, Can::READ);
                let files = host_files(&place.host)?;
                dress(&mut place, &files);
                places.push(place);
            }
            if !rule.location.is_empty() {
                own = moved(&rule.location, &name[length..])?;
            }
            own.insecure = rule.insecure;
        }
        if own.host == "docker.io" {
            for mirror in &self.daemon.mirrors {
                let mut place = Endpoint::plain(&mirror.host, &own.repository);
                (place.https, place.mirror, place.can) = (Some(mirror.https), true, Can::READ);
                mirror.root.clone_into(&mut place.root);
                dress(&mut place, &host_files(&mirror.host)?);
                places.push(place);
            }
        }
        let files = host_files(&own.host)?;
        match &files.hosts {
            None => {
                dress(&mut own, &files);
                places.push(own);
            }
            Some(hosts) => {
                for place in &hosts.places {
                    places.push(from_hosts(&own, place, &files, host_files)?);
                }
            }
        }
        Ok(places)
    }

    /// Whether the person said that this host may speak in clear text or show any certificate.
    pub(crate) fn is_insecure(&self, host: &str, port: u16) -> bool {
        self.daemon.insecure.iter().any(|entry| covers(entry, host, port))
    }

    /// Files that were read, in the order in which they were.
    #[must_use]
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// Mirrors of Docker Hub in docker's `daemon.json`, as URLs.
    #[must_use]
    pub fn hub_mirrors(&self) -> Vec<String> {
        let scheme = |https| if https { "https" } else { "http" };
        let url = |mirror: &daemon::DaemonMirror| {
            format!(
                "{}://{}{}/",
                scheme(mirror.https),
                mirror.host,
                mirror.root.trim_end_matches("/v2")
            )
        };
        self.daemon.mirrors.iter().map(url).collect()
    }

    /// Insecure registries of docker's `daemon.json`.
    #[must_use]
    pub fn insecure(&self) -> &[String] {
        &self.daemon.insecure
    }

    /// Programs that `registries.conf` wants asked for credentials.
    pub(crate) fn helpers(&self) -> impl Iterator<Item = &str> {
        // The first is the files themselves (containers-registries.conf(5)).
        self.conf
            .helpers
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "containers-auth.json")
    }

    /// One line for each rule of `registries.conf`: `docker.io -> r.example/hub (blocked), mirrors: m.example`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.conf.rules.iter().map(line).collect()
    }

    /// Registries that podman would search for short names, and Dhow does not.
    #[must_use]
    pub fn search(&self) -> &[String] {
        &self.conf.search
    }
}

fn line(rule: &conf::Rule) -> String {
    let mut line = rule.prefix.clone();
    if !rule.location.is_empty() {
        line.push_str(&format!(" -> {}", rule.location));
    }
    for (flag, word) in [(rule.blocked, " (blocked)"), (rule.insecure, " (insecure)")] {
        line.push_str(if flag { word } else { "" });
    }
    let mirrors: Vec<String> = rule
        .mirrors
        .iter()
        .map(|mirror| {
            let only = match mirror.only {
                Only::All => "",
                Only::Digests => " (digests only)",
                Only::Tags => " (tags only)",
            };
            format!(
                "{}{}{only}",
                mirror.location,
                if mirror.insecure { " (insecure)" } else { "" }
            )
        })
        .collect();
    if !mirrors.is_empty() {
        line.push_str(&format!(", mirrors: {}", mirrors.join(", ")));
    }
    line
}

/// A location with the rest of a name behind it.
fn moved(location: &str, rest: &str) -> Result<Endpoint, Error> {
    let name = format!("{location}{rest}");
    let (host, repository) = name.split_once('/').unwrap_or((&name, ""));
    if !dhow_reference::valid_repository(repository) || repository.len() > dhow_reference::MAX_REPOSITORY {
        let message = format!(
            "the registry configuration makes {:?} of the name, which is none",
            clip(&name)
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(Endpoint::plain(host, repository))
}

/// What the folder of a host says of that host itself.
fn dress(place: &mut Endpoint, files: &HostFiles) {
    place.wire.ca.extend(files.ca.iter().cloned());
    place.wire.client.extend(files.client.iter().cloned());
    if let Some(own) = files
        .hosts
        .as_ref()
        .and_then(|hosts| hosts.places.iter().find(|place| place.own))
    {
        place.wire.any_certificate |= own.wire.any_certificate;
        place.wire.ca.extend(own.wire.ca.iter().cloned());
        place.wire.client.extend(own.wire.client.iter().cloned());
    }
}

fn from_hosts(
    own: &Endpoint,
    place: &HostPlace,
    files: &HostFiles,
    host_files: &mut dyn FnMut(&str) -> Result<HostFiles, Error>,
) -> Result<Endpoint, Error> {
    let mut endpoint = own.clone();
    let elsewhere = !place.host.is_empty() && place.host != own.host;
    endpoint.https = place.https;
    place.root.clone_into(&mut endpoint.root);
    (endpoint.can, endpoint.headers) = (place.can, place.headers.clone());
    endpoint.wire = place.wire.clone();
    endpoint.mirror = !place.own;
    if elsewhere {
        place.host.clone_into(&mut endpoint.host);
        // What was said of the registry was not said of this place.
        endpoint.insecure = false;
        // containerd tells a place that is not the registry which registry it stands for.
        endpoint.namespace = Some(own.host.clone()).filter(|_| !place.own);
        let theirs = host_files(&place.host)?;
        endpoint.wire.ca.extend(theirs.ca);
        endpoint.wire.client.extend(theirs.client);
    } else {
        endpoint.wire.ca.extend(files.ca.iter().cloned());
        endpoint.wire.client.extend(files.client.iter().cloned());
    }
    Ok(endpoint)
}

/// Whether an entry of `insecure-registries` covers a host: by name, with or without port, or as a block of literal
/// addresses. Names are not looked up for it: what DNS says today must not decide on trust.
pub(crate) fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry.contains('/') {
        return crate::proxy::in_block(entry, host);
    }
    let Ok(named) = place::parse(&format!("http://{entry}/")) else {
        return false;
    };
    named.port_u16().is_none_or(|named| named == port) && place::host(&named).eq_ignore_ascii_case(host)
}

/// Whether this is a host, with or without a port.
fn valid_authority(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.bytes().all(letters) && place::parse(&format!("https://{text}/")).is_ok()
}

fn bad(source: &Path, why: &str) -> Error {
    let message = format!("read {}: {why}", source.display());
    Error::new(ErrorKind::InvalidArgument, message)
}

/// The parser's words with the line; the text itself, which may hold the secret of a header, is not shown.
fn toml_failure(source: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    bad(source, &format!("line {line}: {}", clip(error.message())))
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
