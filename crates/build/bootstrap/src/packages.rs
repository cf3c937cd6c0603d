//! `Packages` indices: what a suite offers, one paragraph per binary package.

use std::collections::HashMap;
use std::io::BufRead;

use dhow_types::{Digest, ErrorKind};

use crate::control::{Paragraph, Paragraphs};
use crate::depends::{is_name, is_version};
use crate::release::is_plain_path;
use crate::{Context, Error, version};

/// Debian 12 `main` has 64 thousand; this bounds memory.
const MAX_PACKAGES: usize = 2_000_000;
/// No package of Debian is larger than this.
const MAX_DEB: u64 = 16 << 30;

/// One package that can be had.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name.
    pub name: Box<str>,
    /// Version.
    pub version: Box<str>,
    /// Architecture, or `all`.
    pub architecture: Box<str>,
    /// Whether dpkg refuses to live without it.
    pub essential: bool,
    /// `required`, `important`, `standard`, `optional`, `extra`.
    pub priority: Box<str>,
    /// Raw relations; parsed when they are needed, as most packages are never looked at.
    pub pre_depends: Option<Box<str>>,
    /// Raw `Depends`.
    pub depends: Option<Box<str>>,
    /// Raw `Provides`.
    pub provides: Option<Box<str>>,
    /// Raw `Conflicts`.
    pub conflicts: Option<Box<str>>,
    /// Raw `Breaks`.
    pub breaks: Option<Box<str>>,
    /// URL of its `.deb`.
    pub url: Box<str>,
    /// Bytes of its `.deb`.
    pub size: u64,
    /// SHA-256 of its `.deb`.
    pub digest: Digest,
}

/// All packages for one architecture: of each name the newest version, or the one that was asked for.
#[derive(Debug, Default)]
pub struct Universe {
    packages: HashMap<Box<str>, Package>,
    /// Versions that were asked for, by name.
    pins: HashMap<Box<str>, Box<str>>,
}

/// `name=version` as apt takes it (apt-get(8)); a name alone asks for no version.
pub(crate) fn name_of(wanted: &str) -> &str {
    wanted.split_once('=').map_or(wanted, |(name, _)| name)
}

impl Universe {
    /// An empty one, which takes no other versions than these of packages that are asked for as `name=version`.
    #[must_use]
    pub fn pinned(wanted: &[String]) -> Self {
        let pins = wanted.iter().filter_map(|one| one.split_once('='));
        Self {
            packages: HashMap::new(),
            pins: pins
                .map(|(name, version)| (name.into(), version.into()))
                .collect(),
        }
    }

    /// Adds the paragraphs of one index whose files are below `base`; returns how many there were. Of two versions the
    /// newer stays; of two equal ones the first, so that the order of the sources decides.
    ///
    /// # Errors
    /// When a paragraph lacks a field, or a path or hash in it is malformed.
    pub fn add(&mut self, index: impl BufRead, base: &str, architecture: &str) -> Result<usize, Error> {
        let mut stream = Paragraphs::new(index);
        let mut count = 0;
        while let Some(text) = stream.next_text()? {
            count += 1;
            if count > MAX_PACKAGES {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "more packages than can be true",
                ));
            }
            let paragraph = Paragraph::parse(text)?;
            let name = paragraph.need("Package")?;
            let version = paragraph
                .need("Version")
                .context(|| format!("index entry of {name}"))?;
            let newer = self
                .packages
                .get(name)
                .is_none_or(|known| version::compare(version, &known.version).is_gt());
            let other = self.pins.get(name).is_some_and(|pin| **pin != *version);
            if !newer || other {
                continue;
            }
            let package = read(&paragraph, base).context(|| format!("index entry of {name}"))?;
            if matches!(&*package.architecture, "all") || *package.architecture == *architecture {
                self.packages.insert(package.name.clone(), package);
            }
        }
        Ok(count)
    }

    /// Adds what another universe has; of equal versions the one that is here already stays.
    pub fn merge(&mut self, other: Self) {
        for (name, package) in other.packages {
            let newer = self
                .packages
                .get(&name)
                .is_none_or(|known| version::compare(&package.version, &known.version).is_gt());
            if newer {
                self.packages.insert(name, package);
            }
        }
    }

    /// The package of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)
    }

    /// All packages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }
}

fn read(paragraph: &Paragraph<'_>, base: &str) -> Result<Package, Error> {
    let bad = |what: &str, value: &str| {
        Error::new(ErrorKind::InvalidArgument, format!("malformed {what}: {value:?}"))
    };
    let own = |field: &str| paragraph.get(field).map(Box::from);
    let (name, version) = (paragraph.need("Package")?, paragraph.need("Version")?);
    if !is_name(name) {
        return Err(bad("name", name));
    }
    if !is_version(version) {
        return Err(bad("version", version));
    }
    let architecture = paragraph.need("Architecture")?;
    if !is_name(architecture) {
        return Err(bad("architecture", architecture));
    }
    let path = paragraph.need("Filename")?;
    let path = path.strip_prefix("./").unwrap_or(path);
    if !is_plain_path(path) {
        return Err(bad("file name", path));
    }
    let (size, hex) = (paragraph.need("Size")?, paragraph.need("SHA256")?);
    let size = size
        .parse()
        .ok()
        .filter(|size| *size <= MAX_DEB)
        .ok_or_else(|| bad("size", size))?;
    Ok(Package {
        name: name.into(),
        version: version.into(),
        architecture: architecture.into(),
        essential: paragraph.get("Essential") == Some("yes"),
        priority: paragraph.get("Priority").unwrap_or("optional").into(),
        pre_depends: own("Pre-Depends"),
        depends: own("Depends"),
        provides: own("Provides"),
        conflicts: own("Conflicts"),
        breaks: own("Breaks"),
        url: format!("{}/{}", base.trim_end_matches('/'), quote(path)).into(),
        size,
        digest: Digest::from_hex(hex).map_err(|_| bad("SHA256", hex))?,
    })
}

/// A path as part of a URL: pool paths hold `+` and `~` at most, which may stand as they are; `%` may not.
fn quote(path: &str) -> String {
    path.replace('%', "%25")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "Package: aa\nVersion: 1.0\nArchitecture: amd64\nEssential: yes\nPriority: required\n\
        Depends: libc6\nFilename: pool/main/a/aa/aa_1.0_amd64.deb\nSize: 10\n\
        SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nDescription: x\n";

    /// A universe of packages from short texts: `name version | extra fields separated by |`.
    pub(crate) fn universe(lines: &[&str]) -> Universe {
        let mut text = String::new();
        for line in lines {
            let mut parts = line.split('|').map(str::trim);
            let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
            text.push_str(&format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            ));
            text.push_str(&format!(
                "Filename: pool/{name}.deb\nSize: 1\nSHA256: {}\n",
                "0".repeat(64)
            ));
            for field in parts {
                text.push_str(&field.replace(" or ", " | "));
                text.push('\n');
            }
            text.push('\n');
        }
        let mut universe = Universe::default();
        universe
            .add(text.as_bytes(), "http://host/debian", "amd64")
            .unwrap();
        universe
    }

    #[test]
    fn a_version_that_was_asked_for_is_taken_and_no_other() {
        let newer = ONE.replace("Version: 1.0", "Version: 2.0");
        let mut universe = Universe::pinned(&["aa=1.0".to_owned(), "bb".to_owned()]);
        universe.add(newer.as_bytes(), "http://one", "amd64").unwrap();
        assert!(universe.get("aa").is_none());
        universe.add(ONE.as_bytes(), "http://two", "amd64").unwrap();
        universe.add(newer.as_bytes(), "http://one", "amd64").unwrap();
        assert_eq!(&*universe.get("aa").unwrap().version, "1.0");
    }

    #[test]
    fn the_newest_version_across_indices_wins_whatever_the_order() {
        let newer = ONE.replace("1.0", "1.0+deb12u1");
        for (first, second) in [(ONE, newer.as_str()), (newer.as_str(), ONE)] {
            let mut universe = Universe::default();
            universe.add(first.as_bytes(), "http://one", "amd64").unwrap();
            universe.add(second.as_bytes(), "http://two/", "amd64").unwrap();
            assert_eq!(&*universe.get("aa").unwrap().version, "1.0+deb12u1");
            assert_eq!(universe.iter().count(), 1);
        }
    }

    #[test]
    fn a_package_of_another_architecture_is_left_out() {
        let mut universe = Universe::default();
        assert_eq!(universe.add(ONE.as_bytes(), "http://one", "arm64").unwrap(), 1);
        assert!(universe.get("aa").is_none());
    }

    #[test]
    fn the_url_is_below_the_base() {
        let mut universe = Universe::default();
        universe
            .add(ONE.as_bytes(), "http://one/debian/", "amd64")
            .unwrap();
        assert_eq!(
            &*universe.get("aa").unwrap().url,
            "http://one/debian/pool/main/a/aa/aa_1.0_amd64.deb"
        );
    }

    #[test]
    fn malformed_entries_are_refused() {
        for (from, to) in [
            ("Package: aa", "Package: ../aa"),
            ("Version: 1.0", "Version: 1 0"),
            ("pool/main", "pool/../../main"),
            ("Size: 10", "Size: -1"),
            ("Size: 10", "Size: 99999999999999"),
            ("SHA256: e3", "SHA256: zz"),
            ("Architecture: amd64\n", ""),
        ] {
            let mut universe = Universe::default();
            let text = ONE.replacen(from, to, 1);
            assert!(
                universe.add(text.as_bytes(), "http://one", "amd64").is_err(),
                "{to}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_broken_index_is_an_error_and_never_a_panic(at in 0..ONE.len(), byte in any::<u8>()) {
            let mut bytes = ONE.as_bytes().to_vec();
            bytes[at] = byte;
            let mut universe = Universe::default();
            if universe.add(bytes.as_slice(), "http://one", "amd64").is_ok() {
                prop_assert!(universe.iter().all(|package| package.url.starts_with("http://one/")));
            }
        }
    }
}
