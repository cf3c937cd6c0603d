//! Java archives: `pom.properties` of Maven, else the manifest, else the name of the file. Archives in archives too.

use crate::kind::{Said, plain, utf8};
use crate::zip::Zip;
use crate::{Kind, Package, ReadAt};

/// How deep archives lie in archives: a war in an ear has jars.
const DEEPEST: u32 = 4;
/// Bytes of all archives within one file.
const MOST_INNER: u64 = 256 << 20;
/// Largest `pom.properties` or manifest.
const MOST_TEXT: u64 = 1 << 20;

pub(crate) fn archive(path: &str, file: &dyn ReadAt, size: u64) -> Result<Said, String> {
    let mut left = MOST_INNER;
    let mut packages = Vec::new();
    look(path, file, size, 0, &mut left, &mut packages)?;
    packages.sort();
    packages.dedup();
    Ok(Said::packages(packages))
}

fn is_archive(name: &str) -> bool {
    [".jar", ".war", ".ear", ".hpi", ".jpi"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn look(
    path: &str,
    bytes: &dyn ReadAt,
    size: u64,
    depth: u32,
    left: &mut u64,
    packages: &mut Vec<Package>,
) -> Result<(), String> {
    let zip = Zip::open(bytes, size)?;
    let mut own = Vec::new();
    let mut manifest = None;
    for member in &zip.members {
        let name = &member.name;
        if name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties") {
            own.extend(pom(&utf8(&zip.read(member, MOST_TEXT)?)));
        } else if name == "META-INF/MANIFEST.MF" {
            manifest = Some(zip.read(member, MOST_TEXT)?);
        } else if is_archive(name) {
            if depth == DEEPEST {
                return Err(format!(
                    "{name}: archives lie more than {DEEPEST} deep in each other"
                ));
            }
            let inner = zip.read(member, *left)?;
            *left -= inner.len() as u64;
            let length = inner.len() as u64;
            // What is no archive inside is not the whole's fault.
            if let Err(why) = look(name, &inner, length, depth + 1, left, packages)
                && why.contains("deep in each other")
            {
                return Err(why);
            }
        }
    }
    if own.is_empty() {
        own.extend(by_manifest(path, manifest.as_deref()));
    }
    packages.append(&mut own);
    Ok(())
}

/// `pom.properties` as Maven's archiver writes it.
fn pom(text: &str) -> Option<Package> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='))
            .and_then(plain)
    };
    let (group, artifact, version) = (value("groupId")?, value("artifactId")?, value("version")?);
    Some(Package::new(Kind::Maven, format!("{group}:{artifact}"), version))
}

/// What the manifest says (JAR File Specification, "Main Attributes"), and the name of the file where it does not.
fn by_manifest(path: &str, manifest: Option<&[u8]>) -> Option<Package> {
    let text = manifest.map(utf8).unwrap_or_default();
    // A long value goes on behind a blank at the beginning of the next line.
    let text = text.replace("\r\n", "\n").replace("\n ", "");
    // Sections of single entries come behind an empty line.
    let main = text.split("\n\n").next().unwrap_or_default();
    let value = |key: &str| {
        main.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .and_then(plain)
    };
    let (name, version) = by_name(path);
    let version = [
        "Implementation-Version",
        "Bundle-Version",
        "Specification-Version",
    ]
    .into_iter()
    .find_map(value)
    .or(version)?;
    let artifact = name.or_else(|| value("Implementation-Title"))?;
    let group = value("Implementation-Vendor-Id").or_else(|| {
        let symbolic = value("Bundle-SymbolicName")?;
        let symbolic = symbolic.split(';').next()?.to_owned();
        let group = symbolic.strip_suffix(&artifact)?.strip_suffix('.')?;
        plain(group)
    });
    let name = match group {
        Some(group) => format!("{group}:{artifact}"),
        None => artifact,
    };
    Some(Package::new(Kind::Maven, name, version))
}

/// `artifact-1.2.3.jar`: the version begins at the first `-` before a digit.
fn by_name(path: &str) -> (Option<String>, Option<String>) {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let cut = stem
        .match_indices('-')
        .find(|(at, _)| stem.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit));
    match cut {
        Some((at, _)) => (plain(&stem[..at]), plain(&stem[at + 1..])),
        None => (plain(stem), None),
    }
}
