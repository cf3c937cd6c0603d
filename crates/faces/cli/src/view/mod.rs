//! Docker's words for what the engine knows: pure functions from records to rows and JSON.

pub(crate) mod container;
pub(crate) mod container_json;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod podman;
pub(crate) mod podman_info;
pub(crate) mod port;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// Labels as lists show them: `a=1,b=2`.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

/// A text in Go's double quotes (`strconv.Quote`).
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() => {
                out.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
