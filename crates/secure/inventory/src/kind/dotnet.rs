//! .NET: `*.deps.json` of an application (runtime configuration files of the .NET host).

use serde_json::Value;

use crate::kind::{Said, plain};
use crate::{Kind, Package};

pub(crate) fn deps(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let libraries = document.get("libraries").and_then(Value::as_object);
    let mut packages: Vec<Package> = libraries
        .ok_or("it has no libraries")?
        .iter()
        // The others are projects of the application itself.
        .filter(|(_, library)| library.get("type").and_then(Value::as_str) == Some("package"))
        .filter_map(|(key, _)| {
            let (name, version) = key.split_once('/')?;
            Some(Package::new(Kind::Nuget, plain(name)?, plain(version)?))
        })
        .collect();
    packages.sort();
    packages.dedup();
    Ok(Said::packages(packages))
}
