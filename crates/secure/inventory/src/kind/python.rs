//! Python: `METADATA` and `PKG-INFO` (Core metadata specifications).

use crate::kind::{Said, plain, utf8};
use crate::{Kind, Package};

pub(crate) fn metadata(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let (mut name, mut version, mut licence, mut expression) = (None, None, None, None);
    // The description comes behind the first empty line.
    for line in text.lines().take_while(|line| !line.trim_end().is_empty()) {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let slot = match key.to_ascii_lowercase().as_str() {
            "name" => &mut name,
            "version" => &mut version,
            "license" => &mut licence,
            "license-expression" => &mut expression,
            _ => continue,
        };
        if slot.is_none() {
            *slot = plain(value);
        }
    }
    let (Some(name), Some(version)) = (name, version) else {
        return Err("it has no Name or no Version".to_owned());
    };
    Ok(Said::packages(vec![Package {
        licence: expression.or(licence).filter(|licence| licence != "UNKNOWN"),
        ..Package::new(Kind::Pypi, name, version)
    }]))
}
