//! Programs that say what they were made of: Go's build information, and the list of crates that cargo-auditable adds.

use std::io::Read as _;

use serde::Deserialize;

use crate::elf::Elf;
use crate::kind::{Said, known, plain};
use crate::{Kind, Package, ReadAt};

/// Smallest program that may say something, in bytes: Go's have a megabyte.
pub(crate) const LEAST: u64 = 16 << 10;

/// Largest list of modules or crates, in bytes.
const MOST: u64 = 16 << 20;

pub(crate) fn program(path: &str, file: &dyn ReadAt, size: u64) -> Result<Said, String> {
    let Some(elf) = Elf::read(file) else {
        return Ok(Said::default());
    };
    let mut packages = Vec::new();
    if elf.has(b".go.buildinfo") {
        packages.extend(go(&elf)?);
    }
    if let Some(section) = elf.section(b".dep-v0", MOST) {
        packages.extend(crates(&section)?);
    }
    packages.extend(known::program(path, file, size));
    packages.sort();
    packages.dedup();
    Ok(Said::packages(packages))
}

/// Go's build information (`debug/buildinfo`).
fn go(elf: &Elf<'_>) -> Result<Vec<Package>, String> {
    let bytes = elf
        .section(b".go.buildinfo", MOST)
        .ok_or("its build information is cut off, or too large")?;
    if !bytes.starts_with(b"\xff Go buildinf:") || bytes.len() < 32 {
        return Err("its build information does not begin as Go's does".to_owned());
    }
    let (version, modules) = if bytes[15] & 2 != 0 {
        // Go 1.18 and later: both strings stand here.
        let (version, rest) = counted(&bytes[32..]).ok_or("its build information is cut off")?;
        let modules = counted(rest)
            .map(|(modules, _)| modules.to_vec())
            .unwrap_or_default();
        (version.to_vec(), modules)
    } else {
        let width = usize::from(bytes[14]);
        if width != 4 && width != 8 {
            return Err("its build information has pointers of a strange size".to_owned());
        }
        let string = |at: usize| -> Option<Vec<u8>> {
            let header = elf.number(&bytes, at, width)?;
            let header = elf.memory(header, 2 * width as u64, 16)?;
            elf.memory(
                elf.number(&header, 0, width)?,
                elf.number(&header, width, width)?,
                MOST,
            )
        };
        let version = string(16).ok_or("its build information points nowhere")?;
        (version, string(16 + width).unwrap_or_default())
    };
    let version = String::from_utf8_lossy(&version);
    let mut packages = Vec::new();
    // "go1.22.3 X:nocoverageredesign", "devel go1.23-abc".
    let release = version
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("go"));
    if let Some(release) = release.and_then(plain) {
        packages.push(Package::new(Kind::Golang, "stdlib", release));
    }
    // Sixteen bytes before and behind tell a running program's debugger where it is.
    let text = modules
        .get(16..modules.len().saturating_sub(16))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    for line in text.lines() {
        let mut words = line.split('\t');
        let (kind, path, version) = (words.next(), words.next(), words.next());
        let (Some(path), Some(version)) = (path.and_then(plain), version.and_then(plain)) else {
            continue;
        };
        let module = Package::new(Kind::Golang, path, version);
        match kind {
            // The program's own module has a version only when it was installed by one.
            Some("mod") if module.version == "(devel)" => {}
            Some("mod" | "dep") => packages.push(module),
            // Stands for the one before.
            Some("=>") => {
                packages.pop();
                packages.push(module);
            }
            _ => {}
        }
    }
    Ok(packages)
}

/// Bytes behind their count (unsigned LEB128), and the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        length |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at * 7).ok()?)?;
        if byte & 0x80 == 0 {
            let rest = &bytes[at + 1..];
            return rest.split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

#[derive(Deserialize)]
struct Audit {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    root: bool,
}

/// cargo-auditable's format: JSON, packed by zlib.
fn crates(section: &[u8]) -> Result<Vec<Package>, String> {
    let mut json = Vec::new();
    let mut inflated = flate2::read::ZlibDecoder::new(section).take(MOST + 1);
    inflated
        .read_to_end(&mut json)
        .map_err(|error| format!("its list of crates is damaged: {error}"))?;
    if json.len() as u64 > MOST {
        return Err("its list of crates is too large".to_owned());
    }
    let audit: Audit =
        serde_json::from_slice(&json).map_err(|error| format!("its list of crates is no JSON: {error}"))?;
    Ok(audit
        .packages
        .into_iter()
        // What was used to build it is not in it.
        .filter(|package| package.kind != "build" || package.root)
        .filter_map(|package| {
            Some(Package::new(
                Kind::Cargo,
                plain(&package.name)?,
                plain(&package.version)?,
            ))
        })
        .collect())
}
