//! `os-release(5)`.

use crate::Os;
use crate::kind::{Said, plain, utf8};

pub(crate) fn release(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut os = Os {
        id: "linux".to_owned(),
        ..Os::default()
    };
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let Some(value) = plain(&unquoted(value)) else {
            continue;
        };
        match key {
            "ID" => os.id = value.to_ascii_lowercase(),
            "VERSION_ID" => os.version = value,
            "VERSION_CODENAME" => os.codename = value,
            "PRETTY_NAME" => os.pretty = value,
            "ID_LIKE" => {
                os.like = value
                    .split_ascii_whitespace()
                    .map(str::to_ascii_lowercase)
                    .collect();
            }
            _ => {}
        }
    }
    Ok(Said {
        os: Some(os),
        ..Said::default()
    })
}

/// A value as a shell would read it: one pair of quotes, `\` before what it would treat in another way.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            char => out.push(char),
        }
    }
    out
}
