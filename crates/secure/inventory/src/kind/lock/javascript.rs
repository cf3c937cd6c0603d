//! Lock files of npm, Yarn, pnpm and Bun.

use serde_json::Value;

use super::{DEEPEST, json, package, said, text};
use crate::kind::{Said, utf8};
use crate::{Kind, Package};

/// Version 1 nests `dependencies`; 2 and 3 have `packages` by their folders.
pub(super) fn npm(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document = json(bytes)?;
    let mut packages = Vec::new();
    if let Some(all) = document.get("packages").and_then(Value::as_object) {
        for (folder, one) in all {
            let Some((_, own)) = folder.rsplit_once("node_modules/") else {
                continue;
            };
            // An alias has its own name beside the folder's.
            let name = Some(text(one, "name"))
                .filter(|name| !name.is_empty())
                .unwrap_or(own);
            if !is_dev(one) && one.get("link") != Some(&Value::Bool(true)) {
                packages.push(package(Kind::Npm, name, text(one, "version")));
            }
        }
    } else {
        nested(&document, 0, &mut packages)?;
    }
    Ok(said(packages))
}

fn is_dev(one: &Value) -> bool {
    one.get("dev") == Some(&Value::Bool(true))
}

fn nested(value: &Value, depth: usize, packages: &mut Vec<Option<Package>>) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!(
            "its dependencies lie more than {DEEPEST} deep in each other"
        ));
    }
    for (name, one) in value
        .get("dependencies")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if !is_dev(one) {
            packages.push(package(Kind::Npm, name, text(one, "version")));
            nested(one, depth + 1, packages)?;
        }
    }
    Ok(())
}

/// Blocks: a line with names and what was asked for, then, indented, `version "1.2.3"` (Yarn 1) or `version: 1.2.3` (later).
pub(super) fn yarn(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut packages = Vec::new();
    let mut name: Option<String> = None;
    for line in text.lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if !line.starts_with(' ') {
            // Of several they are all of one package; a scope begins with `@`, too.
            let first = line.trim_end_matches(':').split(',').next().unwrap_or_default();
            let first = first.trim().trim_matches('"');
            let at = first.get(1..).and_then(|rest| rest.find('@')).map(|at| at + 1);
            name = at.map(|at| first[..at].to_owned());
            // The tree itself, and folders of it.
            if ["@workspace:", "@link:", "@file:"]
                .iter()
                .any(|own| first.contains(own))
            {
                name = None;
            }
            continue;
        }
        let Some(version) = line.strip_prefix("  version") else {
            continue;
        };
        let version = version.trim_start_matches(':').trim().trim_matches('"');
        if let Some(name) = name.take() {
            packages.push(package(Kind::Npm, &name, version));
        }
    }
    Ok(said(packages))
}

/// Keys of `packages`: `/name/1.0.0` (5), `/name@1.0.0` (6), `name@1.0.0` (9), with what its peers are in brackets behind.
pub(super) fn pnpm(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut within = false;
    let mut packages: Vec<Option<Package>> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            if !line.is_empty() {
                within = line == "packages:";
            }
            continue;
        }
        if !within {
            continue;
        }
        if line == "    dev: true" {
            packages.pop();
            continue;
        }
        let key = line.strip_prefix("  ").filter(|key| !key.starts_with(' '));
        if let Some(key) = key.and_then(|key| key.split_once(':').map(|_| key.trim_end_matches(" {}"))) {
            packages.push(pnpm_key(key.trim_end_matches(':').trim_matches(['\'', '"'])));
        }
    }
    Ok(said(packages))
}

fn pnpm_key(key: &str) -> Option<Package> {
    let key = key.split('(').next().unwrap_or(key);
    let key = key.strip_prefix('/').unwrap_or(key);
    let scoped = usize::from(key.starts_with('@'));
    let (name, version) = match key.get(scoped..)?.find('@') {
        Some(at) => (&key[..scoped + at], &key[scoped + at + 1..]),
        None => key.rsplit_once('/')?,
    };
    // Peers of version 5: `1.0.0_react@17.0.0`.
    let version = version.split('_').next().unwrap_or(version);
    version
        .starts_with(|char: char| char.is_ascii_digit())
        .then(|| package(Kind::Npm, name, version))
        .flatten()
}

/// Lines of `packages`: `"name": ["name@1.0.0", ...`. The file is JSON with commas at the ends of lists.
pub(super) fn bun(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut within = false;
    let mut packages = Vec::new();
    for line in text.lines() {
        if line.trim_end() == "  \"packages\": {" {
            within = true;
        } else if line.starts_with("  }") {
            within = false;
        } else if within && let Some((_, rest)) = line.split_once("\": [\"") {
            let resolved = rest.split('"').next().unwrap_or_default();
            if let Some((name, version)) = resolved.rsplit_once('@') {
                let digits = version.starts_with(|char: char| char.is_ascii_digit());
                packages.push(digits.then(|| package(Kind::Npm, name, version)).flatten());
            }
        }
    }
    Ok(said(packages))
}
