//! The two words of docker's `daemon.json` that are about registries.

use std::path::Path;

use serde::Deserialize;

use super::{MAX_RULES, bad, clip};
use crate::{Error, place};

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// Places for the images of Docker Hub.
    pub(crate) mirrors: Vec<DaemonMirror>,
    /// Registries as `host`, `host:port` or a block of addresses.
    pub(crate) insecure: Vec<String>,
}

/// A mirror: scheme, `host[:port]`, path of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DaemonMirror {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) root: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

/// Parses the file; whatever else docker reads in it is docker's.
///
/// # Errors
/// `InvalidArgument` with the place in the file.
pub(crate) fn parse(text: &str, source: &Path) -> Result<Daemon, Error> {
    if text.trim().is_empty() {
        return Ok(Daemon::default());
    }
    let text: Text = serde_json::from_str(text).map_err(|error| bad(source, &error.to_string()))?;
    if text.registry_mirrors.len() > MAX_RULES || text.insecure_registries.len() > MAX_RULES {
        return Err(bad(
            source,
            &format!("there are more than {MAX_RULES} registries"),
        ));
    }
    let mirrors = text.registry_mirrors.iter().map(|url| mirror(url, source));
    let insecure = text.insecure_registries.iter().map(|entry| {
        // Docker takes an address with a scheme too.
        let entry = entry.split_once("://").map_or(entry.as_str(), |(_, rest)| rest);
        entry.trim_end_matches('/').to_owned()
    });
    Ok(Daemon {
        mirrors: mirrors.collect::<Result<_, _>>()?,
        insecure: insecure.collect(),
    })
}

fn mirror(url: &str, source: &Path) -> Result<DaemonMirror, Error> {
    let refuse = || {
        bad(
            source,
            &format!("mirror {:?} is no http or https address", clip(url)),
        )
    };
    let uri = place::parse(url).map_err(|_| refuse())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    if uri.query().is_some() || !uri.path().bytes().all(plain) {
        return Err(refuse());
    }
    Ok(DaemonMirror {
        https: place::is_https(&uri),
        host: place::host_and_port(&uri).to_ascii_lowercase(),
        root: format!("{}/v2", uri.path().trim_end_matches('/')),
    })
}
