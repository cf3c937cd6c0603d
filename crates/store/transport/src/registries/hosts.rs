//! `hosts.toml` of containerd (its `docs/hosts.md`): for one registry, where else its images are, and how each of
//! these places is spoken to.

use std::path::{Path, PathBuf};

use super::{Can, MAX_RULES, Wire, bad, clip, toml_failure};
use crate::{Error, place};

/// Headers that a file may add to the requests to one place.
const MAX_HEADERS: usize = 64;

/// What a `hosts.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// The places, in the order of the file; the registry itself, or what stands for it, comes last.
    pub(crate) places: Vec<HostPlace>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPlace {
    /// `host[:port]`; empty means the registry that the file is for.
    pub(crate) host: String,
    /// The scheme, where the file says one.
    pub(crate) https: Option<bool>,
    /// Path of the API: `/v2`.
    pub(crate) root: String,
    pub(crate) can: Can,
    pub(crate) wire: Wire,
    pub(crate) headers: Vec<(String, String)>,
    /// The registry itself, not another place for it.
    pub(crate) own: bool,
}

/// Parses a file that lies in `folder`, to which the paths in it are relative.
///
/// # Errors
/// `InvalidArgument` with the place in the file.
pub(crate) fn parse(text: &str, source: &Path) -> Result<Hosts, Error> {
    let folder = source.parent().unwrap_or(Path::new("/"));
    let table: toml::Table = toml::from_str(text).map_err(|error| toml_failure(source, text, &error))?;
    let reading = Reading { source, folder };
    let mut places = Vec::new();
    if let Some(hosts) = table.get("host") {
        let hosts = hosts.as_table().ok_or_else(|| bad(source, "host is no table"))?;
        if hosts.len() > MAX_RULES {
            return Err(bad(source, &format!("there are more than {MAX_RULES} hosts")));
        }
        for (url, settings) in hosts {
            let settings = settings
                .as_table()
                .ok_or_else(|| bad(source, "a host is no table"))?;
            places.push(reading.place(url, settings, false)?);
        }
    }
    let server = reading.text(&table, "server")?.unwrap_or_default();
    places.push(reading.place(&server, &table, true)?);
    Ok(Hosts { places })
}

struct Reading<'a> {
    source: &'a Path,
    folder: &'a Path,
}

impl Reading<'_> {
    fn place(&self, url: &str, settings: &toml::Table, own: bool) -> Result<HostPlace, Error> {
        let plain_root = self.flag(settings, "override_path")?;
        let (https, host, path) = if url.is_empty() {
            (None, String::new(), String::new())
        } else {
            self.split(url)?
        };
        let path = path.trim_end_matches('/');
        let root = if plain_root || path.ends_with("/v2") {
            path.to_owned()
        } else {
            format!("{path}/v2")
        };
        Ok(HostPlace {
            host,
            https,
            root,
            can: self.capabilities(settings)?,
            wire: Wire {
                any_certificate: self.flag(settings, "skip_verify")?,
                ca: self.paths(settings, "ca")?,
                client: self.client(settings)?,
            },
            headers: self.headers(settings)?,
            own,
        })
    }

    /// Scheme, authority and path of a place; a bare host is TLS, as with containerd.
    fn split(&self, url: &str) -> Result<(Option<bool>, String, String), Error> {
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        };
        let refuse = || {
            bad(
                self.source,
                &format!("{:?} is no http or https address", clip(url)),
            )
        };
        let uri = place::parse(&whole).map_err(|_| refuse())?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
        if uri.query().is_some() || !uri.path().bytes().all(plain) {
            return Err(refuse());
        }
        let authority = place::host_and_port(&uri).to_ascii_lowercase();
        Ok((Some(place::is_https(&uri)), authority, uri.path().to_owned()))
    }

    fn capabilities(&self, settings: &toml::Table) -> Result<Can, Error> {
        let Some(value) = settings.get("capabilities") else {
            return Ok(Can::ALL);
        };
        let mut can = Can::NONE;
        for word in self.list(value, "capabilities")? {
            match word.as_str() {
                "pull" => can.pull = true,
                "resolve" => can.resolve = true,
                "push" => can.push = true,
                "referrers" => can.referrers = true,
                other => {
                    let message = format!(
                        "capability {:?}: it is one of pull, resolve, push, referrers",
                        clip(other)
                    );
                    return Err(bad(self.source, &message));
                }
            }
        }
        Ok(can)
    }

    /// `client`: one file with certificate and key, several of them, or pairs.
    fn client(&self, settings: &toml::Table) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        let whole = |text: &str| (self.folder.join(text), self.folder.join(text));
        let wrong = || {
            bad(
                self.source,
                "client is a file, a list of files or a list of [certificate, key]",
            )
        };
        match settings.get("client") {
            None => Ok(Vec::new()),
            Some(toml::Value::String(text)) => Ok(vec![whole(text)]),
            Some(toml::Value::Array(entries)) => entries
                .iter()
                .map(|entry| match entry {
                    toml::Value::String(text) => Ok(whole(text)),
                    toml::Value::Array(pair) => match pair.as_slice() {
                        [toml::Value::String(one)] => Ok(whole(one)),
                        [toml::Value::String(certificate), toml::Value::String(key)] if key.is_empty() => {
                            Ok(whole(certificate))
                        }
                        [toml::Value::String(certificate), toml::Value::String(key)] => {
                            Ok((self.folder.join(certificate), self.folder.join(key)))
                        }
                        _ => Err(wrong()),
                    },
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    fn headers(&self, settings: &toml::Table) -> Result<Vec<(String, String)>, Error> {
        let Some(value) = settings.get("header") else {
            return Ok(Vec::new());
        };
        let table = value
            .as_table()
            .ok_or_else(|| bad(self.source, "header is no table"))?;
        let mut headers = Vec::new();
        for (name, value) in table {
            for text in self.list(value, "header")? {
                let sound = hyper::header::HeaderName::try_from(name).is_ok()
                    && hyper::header::HeaderValue::try_from(&text).is_ok();
                if !sound {
                    return Err(bad(
                        self.source,
                        &format!("header {:?} cannot be sent", clip(name)),
                    ));
                }
                headers.push((name.to_ascii_lowercase(), text));
            }
        }
        if headers.len() > MAX_HEADERS {
            return Err(bad(
                self.source,
                &format!("there are more than {MAX_HEADERS} headers"),
            ));
        }
        Ok(headers)
    }

    fn paths(&self, settings: &toml::Table, name: &str) -> Result<Vec<PathBuf>, Error> {
        let Some(value) = settings.get(name) else {
            return Ok(Vec::new());
        };
        Ok(self
            .list(value, name)?
            .iter()
            .map(|path| self.folder.join(path))
            .collect())
    }

    /// A text or a list of texts.
    fn list(&self, value: &toml::Value, name: &str) -> Result<Vec<String>, Error> {
        let wrong = || {
            bad(
                self.source,
                &format!("{name} is neither a text nor a list of texts"),
            )
        };
        match value {
            toml::Value::String(text) => Ok(vec![text.clone()]),
            toml::Value::Array(entries) => {
                let texts = entries
                    .iter()
                    .map(|entry| entry.as_str().map(str::to_owned).ok_or_else(wrong));
                texts.collect()
            }
            _ => Err(wrong()),
        }
    }

    fn text(&self, settings: &toml::Table, name: &str) -> Result<Option<String>, Error> {
        match settings.get(name) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(bad(self.source, &format!("{name} is no text"))),
        }
    }

    fn flag(&self, settings: &toml::Table, name: &str) -> Result<bool, Error> {
        match settings.get(name) {
            None => Ok(false),
            Some(toml::Value::Boolean(value)) => Ok(*value),
            Some(_) => Err(bad(self.source, &format!("{name} is neither true nor false"))),
        }
    }
}
