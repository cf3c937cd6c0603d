//! Lock files of Poetry, uv, pip and Pipenv.

use serde_json::Value;

use super::{json, package, said, tables, text, value};
use crate::Kind;
use crate::kind::{Said, utf8};

/// `[[package]]` of Poetry and uv.
pub(super) fn packages(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let tables = tables(&text, "package");
    let delivered = tables.iter().filter(|table| {
        let source = value(table, "source").unwrap_or_default();
        // The tree itself.
        let own = ["virtual", "editable", "directory"]
            .iter()
            .any(|word| source.contains(&format!("{{ {word} =")));
        !own && value(table, "category").is_none_or(|category| category != "dev")
    });
    Ok(said(delivered.map(|table| {
        package(Kind::Pypi, value(table, "name")?, value(table, "version")?)
    })))
}

/// PEP 751.
pub(super) fn pylock(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let tables = tables(&text, "packages");
    Ok(said(tables.iter().map(|table| {
        package(Kind::Pypi, value(table, "name")?, value(table, "version")?)
    })))
}

pub(super) fn pipfile(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document = json(bytes)?;
    let default = document.get("default").and_then(Value::as_object);
    Ok(said(default.into_iter().flatten().map(|(name, one)| {
        package(Kind::Pypi, name, text(one, "version").strip_prefix("==")?)
    })))
}

/// `name==version`; what leaves the version open says nothing.
pub(super) fn requirements(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    Ok(said(text.lines().map(|line| {
        let line = line.split(['#', ';']).next()?.trim();
        let (name, version) = line.split_once("==")?;
        let version = version
            .trim_start_matches('=')
            .split([' ', '\\', ','])
            .find(|word| !word.is_empty())?;
        // Extras: `name[extra]==1`.
        let name = name.split('[').next()?.trim();
        let plain = |text: &str| {
            text.chars()
                .all(|char| char.is_ascii_alphanumeric() || ".-_+!".contains(char))
        };
        (plain(name) && plain(version))
            .then(|| package(Kind::Pypi, name, version))
            .flatten()
    })))
}
