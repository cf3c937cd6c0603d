//! Node: `package.json` of what lies in a `node_modules`.

use serde_json::Value;

use crate::kind::{Said, plain};
use crate::{Kind, Package};

/// Whether a directory is that of a package: `node_modules/NAME` or `node_modules/@SCOPE/NAME`. What lies deeper are the
/// package's own files, of which tests often have documents of other packages.
pub(crate) fn is_package(dir: &[u8]) -> bool {
    let mut parts = dir.rsplit(|byte| *byte == b'/');
    let (_, parent) = (parts.next(), parts.next());
    let parent = if parent.is_some_and(|parent| parent.starts_with(b"@")) {
        parts.next()
    } else {
        parent
    };
    parent == Some(b"node_modules")
}

pub(crate) fn package(path: &str, bytes: &[u8]) -> Result<Said, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let text = |key: &str| document.get(key).and_then(Value::as_str).and_then(plain);
    let (Some(name), Some(version)) = (text("name"), text("version")) else {
        // A folder of several entry points has such documents without a version.
        return Ok(Said::default());
    };
    let licence = text("license").or_else(|| {
        let licence = document.get("license")?.get("type")?.as_str()?;
        plain(licence)
    });
    debug_assert!(path.ends_with("package.json"), "chosen by its name");
    Ok(Said::packages(vec![Package {
        licence,
        ..Package::new(Kind::Npm, name, version)
    }]))
}
