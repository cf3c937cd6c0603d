//! PHP: composer's `vendor/composer/installed.json`.

use serde_json::Value;

use crate::kind::{Said, plain};
use crate::{Kind, Package};

pub(crate) fn installed(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    // Composer 2 has an object around the list of composer 1.
    let list = document.get("packages").unwrap_or(&document);
    let list = list.as_array().ok_or("it has no list of packages")?;
    let mut packages: Vec<Package> = list
        .iter()
        .filter_map(|package| {
            let text = |key: &str| package.get(key).and_then(Value::as_str).and_then(plain);
            let licences: Vec<&str> = package
                .get("license")
                .and_then(Value::as_array)
                .map(|all| all.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            let version = text("version")?;
            Some(Package {
                licence: plain(&licences.join(" OR ")),
                // As advisories have it.
                ..Package::new(
                    Kind::Composer,
                    text("name")?.to_ascii_lowercase(),
                    version.strip_prefix('v').unwrap_or(&version),
                )
            })
        })
        .collect();
    packages.sort();
    packages.dedup();
    Ok(Said::packages(packages))
}
