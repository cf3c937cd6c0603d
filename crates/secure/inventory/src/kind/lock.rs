//! Lock files of source trees: what a package manager would install. In an image they say nothing of what is there.
//!
//! What is only needed to work on the source (`dev`) is left out where the file says so.

mod javascript;
mod maven;
mod python;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::kind::{Said, plain, utf8};
use crate::scan::Parse;
use crate::{Kind, Package};

/// Deepest folder of dependencies that is looked into.
const DEEPEST: usize = 64;

/// Who reads a lock file of this name.
pub(crate) fn reader(name: &[u8]) -> Option<Parse> {
    let parse: Parse = match name {
        b"Cargo.lock" => cargo,
        b"package-lock.json" | b"npm-shrinkwrap.json" => javascript::npm,
        b"yarn.lock" => javascript::yarn,
        b"pnpm-lock.yaml" => javascript::pnpm,
        b"bun.lock" => javascript::bun,
        b"poetry.lock" | b"uv.lock" => python::packages,
        b"pylock.toml" => python::pylock,
        b"Pipfile.lock" => python::pipfile,
        b"Gemfile.lock" => gemfile,
        b"composer.lock" => composer,
        b"go.mod" => go,
        b"gradle.lockfile" => gradle,
        b"build.sbt.lock" => sbt,
        b"pom.xml" => maven::pom,
        b"packages.lock.json" => nuget,
        b"Directory.Packages.props" => props,
        name if name.starts_with(b"requirements") && name.ends_with(b".txt") => python::requirements,
        name if name.starts_with(b"pylock.") && name.ends_with(b".toml") => python::pylock,
        _ => return None,
    };
    Some(parse)
}

fn said(packages: impl IntoIterator<Item = Option<Package>>) -> Said {
    let mut packages: Vec<Package> = packages.into_iter().flatten().collect();
    packages.sort();
    packages.dedup();
    Said::packages(packages)
}

fn package(kind: Kind, name: &str, version: &str) -> Option<Package> {
    Some(Package::new(kind, plain(name)?, plain(version)?))
}

/// The beginning of a foreign text, for a message.
fn shown(text: &str) -> &str {
    let end = text.char_indices().nth(40).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Tables of a list in TOML, each as what stands at its beginning: `name`, `version` and `source` of `[[package]]`. Tables in it, and
/// values of more than a line, are passed over.
fn tables<'t>(text: &'t str, head: &str) -> Vec<Vec<(&'t str, &'t str)>> {
    let head = format!("[[{head}]]");
    let mut tables: Vec<Vec<(&str, &str)>> = Vec::new();
    let mut within = false;
    for line in text.lines() {
        let line = line.trim_end();
        if line.starts_with('[') {
            within = line == head;
            if within {
                tables.push(Vec::new());
            }
            continue;
        }
        let Some(table) = tables
            .last_mut()
            .filter(|_| within && !line.starts_with([' ', '\t', ']']))
        else {
            continue;
        };
        if let Some((key, value)) = line.split_once('=') {
            table.push((key.trim(), value.trim()));
        }
    }
    tables
}

/// A value of such a table: of text what is within the quotes.
fn value<'t>(table: &[(&'t str, &'t str)], key: &str) -> Option<&'t str> {
    let (_, value) = table.iter().find(|(known, _)| *known == key)?;
    Some(value.trim_matches('"'))
}

fn cargo(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let tables = tables(&text, "package");
    // What has no source is the tree's own.
    let foreign = tables.iter().filter(|table| value(table, "source").is_some());
    Ok(said(foreign.map(|table| {
        package(Kind::Cargo, value(table, "name")?, value(table, "version")?)
    })))
}

/// `GEM` and `PATH` sections: `    name (version)`, with what each needs indented further.
fn gemfile(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut specs = false;
    let mut packages = Vec::new();
    for line in text.lines() {
        match line {
            "  specs:" => specs = true,
            line if !line.starts_with(' ') => specs = false,
            line if specs => {
                let Some(entry) = line.strip_prefix("    ").filter(|entry| !entry.starts_with(' ')) else {
                    continue;
                };
                if let Some((name, version)) = entry.split_once(" (") {
                    // `1.13.0-x86_64-linux`: the platform is no part of the version.
                    let version = version
                        .trim_end_matches(')')
                        .split('-')
                        .next()
                        .unwrap_or_default();
                    packages.push(package(Kind::Gem, name, version));
                }
            }
            _ => {}
        }
    }
    Ok(said(packages))
}

fn composer(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document = json(bytes)?;
    let packages = document.get("packages").and_then(Value::as_array);
    let packages = packages.ok_or("it has no packages")?;
    Ok(said(packages.iter().map(|one| {
        package(
            Kind::Composer,
            text(one, "name"),
            text(one, "version").trim_start_matches('v'),
        )
    })))
}

/// `require` and `replace`; from Go 1.17 on it has all modules that are compiled in.
fn go(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut block = "";
    let mut required: Vec<(String, String)> = Vec::new();
    let mut replaced: Vec<Replacement> = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        match words.first() {
            None => continue,
            Some(&")") => block = "",
            Some(word) if words.last() == Some(&"(") => block = word,
            Some(_) => {
                let verb = if block.is_empty() { words.remove(0) } else { block };
                match (verb, words.as_slice()) {
                    ("require", [path, version]) => {
                        required.push(((*path).to_owned(), (*version).to_owned()))
                    }
                    ("replace", words) => replaced.extend(replacement(words)),
                    _ => {}
                }
            }
        }
    }
    Ok(said(required.into_iter().map(|(path, version)| {
        let other = replaced
            .iter()
            .find(|(old, of, _)| *old == path && of.as_ref().is_none_or(|of| *of == version));
        match other {
            // A folder of the tree itself.
            Some((_, _, None)) => None,
            Some((_, _, Some((path, version)))) => package(Kind::Golang, path, version),
            None => package(Kind::Golang, &path, &version),
        }
    })))
}

/// A module, the version that it is about, and what stands in its place: none for a folder.
type Replacement = (String, Option<String>, Option<(String, String)>);

/// `old [version] => new [version]`.
fn replacement(words: &[&str]) -> Option<Replacement> {
    let at = words.iter().position(|word| *word == "=>")?;
    let (old, new) = (&words[..at], &words[at + 1..]);
    let of = old.get(1).map(|version| (*version).to_owned());
    let new = match new {
        [path, version] => Some(((*path).to_owned(), (*version).to_owned())),
        _ => None,
    };
    Some(((*old.first()?).to_owned(), of, new))
}

/// `group:artifact:version=configurations`.
fn gradle(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    Ok(said(text.lines().map(|line| {
        let coordinates = line.trim().split('=').next()?;
        let mut parts = coordinates.split(':');
        let (group, artifact, version) = (parts.next()?, parts.next()?, parts.next()?);
        package(Kind::Maven, &format!("{group}:{artifact}"), version)
    })))
}

fn sbt(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document = json(bytes)?;
    let dependencies = document.get("dependencies").and_then(Value::as_array);
    let dependencies = dependencies.ok_or("it has no dependencies")?;
    Ok(said(dependencies.iter().map(|one| {
        let configurations = one.get("configurations").and_then(Value::as_array);
        // What is needed to test it alone is not delivered.
        let only_test =
            configurations.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one == "test"));
        let name = format!("{}:{}", text(one, "org"), text(one, "name"));
        (!only_test)
            .then(|| package(Kind::Maven, &name, text(one, "version")))
            .flatten()
    })))
}

fn nuget(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let document = json(bytes)?;
    let frameworks = document.get("dependencies").and_then(Value::as_object);
    let frameworks = frameworks.ok_or("it has no dependencies")?;
    let all = frameworks.values().filter_map(Value::as_object).flatten();
    let foreign = all.filter(|(_, one)| text(one, "type") != "Project");
    Ok(said(foreign.map(|(name, one)| {
        package(Kind::Nuget, name, text(one, "resolved"))
    })))
}

/// `<PackageVersion Include="NAME" Version="VERSION" />`.
fn props(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let elements = text.split('<').filter(|element| {
        ["PackageVersion ", "PackageReference "]
            .iter()
            .any(|name| element.starts_with(name))
    });
    Ok(said(elements.map(|element| {
        let attribute = |name: &str| {
            let (_, rest) = element.split_once(&format!(" {name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let version = attribute("Version")?;
        // `$(Variable)`: what it is, the build knows.
        let name = attribute("Include").or_else(|| attribute("Update"))?;
        (!version.starts_with('$'))
            .then(|| package(Kind::Nuget, name, version))
            .flatten()
    })))
}
