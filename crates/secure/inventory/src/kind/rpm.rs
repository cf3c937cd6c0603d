//! Red Hat's rpm: headers of installed packages (rpm's "V4 package format", header structure), kept in SQLite (rpm 4.16), in
//! SUSE's `ndb`, or in Berkeley DB.

use rusqlite::{Connection, MAIN_DB};

use crate::kind::{Asked, Said, berkeley, plain};
use crate::{Kind, Package, Source};

/// Largest header, and most entries of one (rpm's own limits, `hdrchkTags` and `hdrchkData`).
const MOST_HEADER: usize = 256 << 20;
const MOST_ENTRIES: usize = 65_535;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENCE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE_RPM: u32 = 1044;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;

/// `rpmdb.sqlite`: the table `Packages` has a header in each row.
pub(crate) fn sqlite(_: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    if !bytes.starts_with(b"SQLite format 3\0") || bytes.len() < 100 {
        return Err("it is no SQLite database".to_owned());
    }
    let mut bytes = bytes.to_vec();
    // It says that a log may lie beside it, which a database in memory cannot have (SQLite file format, 1.3.3).
    bytes[18..20].fill(1);
    let failed = |error: rusqlite::Error| format!("its database is damaged: {error}");
    let mut connection = Connection::open_in_memory().map_err(failed)?;
    let length = bytes.len();
    connection
        .deserialize_read_exact(MAIN_DB, bytes.as_slice(), length, true)
        .map_err(failed)?;
    let mut statement = connection
        .prepare("SELECT blob FROM Packages ORDER BY hnum")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut said = Said::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let blob = row.get_ref(0).map_err(failed)?;
        add(
            &mut said,
            blob.as_blob().map_err(|error| error.to_string())?,
            asked,
        )?;
    }
    Ok(sorted(said))
}

/// `Packages.db` (rpm's `lib/backend/ndb/rpmpkg.c`): slots of 16 bytes in the first pages say where the headers are.
pub(crate) fn ndb(_: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    const PAGE: usize = 4096;
    const SLOT: usize = 16;
    const BLOCK: usize = 16;
    let word = |at: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(field.try_into().ok()?) as usize)
    };
    if !bytes.starts_with(b"RpmP") {
        return Err("it is no database of rpm's".to_owned());
    }
    let pages = word(12).ok_or("its head is cut off")?;
    let end = pages
        .checked_mul(PAGE)
        .filter(|end| *end <= bytes.len())
        .ok_or("its slots are cut off")?;
    let mut said = Said::default();
    // The head takes the place of two slots.
    for slot in (2 * SLOT..end).step_by(SLOT) {
        let (Some(number), Some(block)) = (word(slot + 4), word(slot + 8)) else {
            break;
        };
        if bytes.get(slot..slot + 4) != Some(b"Slot") || number == 0 || block == 0 {
            continue;
        }
        let at = block.checked_mul(BLOCK).ok_or("a slot points nowhere")?;
        if bytes.get(at..at.saturating_add(4)) != Some(b"BlbS") || word(at + 4) != Some(number) {
            return Err("a slot points to nothing".to_owned());
        }
        let length = word(at + 12).ok_or("a header is cut off")?;
        let blob = (at + 16)
            .checked_add(length)
            .and_then(|end| bytes.get(at + 16..end))
            .ok_or("a header is cut off")?;
        add(&mut said, blob, asked)?;
    }
    Ok(sorted(said))
}

/// `Packages` in Berkeley DB, as rpm had it before 4.16: a hash from numbers to headers.
pub(crate) fn berkeley(_: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    let mut said = Said::default();
    berkeley::pairs(bytes, &mut |key, header| {
        // Number 0 counts the packages that there ever were.
        if key.len() == 4 && key != [0; 4] {
            add(&mut said, header, asked)?;
        }
        Ok(())
    })?;
    Ok(sorted(said))
}

fn sorted(mut said: Said) -> Said {
    said.packages.sort();
    said.packages.dedup();
    said
}

fn add(said: &mut Said, blob: &[u8], asked: Asked<'_>) -> Result<(), String> {
    let header = Header::read(blob)?;
    let text = |tag| header.strings(tag).next().and_then(plain);
    let (Some(name), Some(version), Some(release)) = (text(NAME), text(VERSION), text(RELEASE)) else {
        return Err("a package has no name or no version".to_owned());
    };
    // Keys of those who sign packages are kept like packages.
    if name == "gpg-pubkey" {
        return Ok(());
    }
    let epoch = header
        .numbers(EPOCH)
        .next()
        .filter(|epoch| *epoch > 0)
        .map_or_else(String::new, |epoch| format!("{epoch}:"));
    let mut package = Package::new(Kind::Rpm, name, format!("{epoch}{version}-{release}"));
    package.arch = text(ARCH);
    package.licence = text(LICENCE);
    // Advisories name packages as they are installed; what they were built from is for people.
    package.source = text(SOURCE_RPM).and_then(|file| source(&file, &package.name));
    let directories: Vec<String> = header.strings(DIR_NAMES).map(str::to_owned).collect();
    for (base, directory) in header.strings(BASE_NAMES).zip(header.numbers(DIR_INDEXES)) {
        if let Some(directory) = directories.get(directory as usize) {
            let path = format!("{}{base}", directory.trim_start_matches('/'));
            if asked(&path) {
                said.owns.push((path, package.name.clone()));
            }
        }
    }
    said.packages.push(package);
    Ok(())
}

fn source(file: &str, name: &str) -> Option<Source> {
    source_of(file).filter(|source| source.name != name)
}

/// `openssl-3.0.7-24.el9.src.rpm`: name, version, release.
pub(crate) fn source_of(file: &str) -> Option<Source> {
    let stem = file
        .strip_suffix(".src.rpm")
        .or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let mut parts = stem.rsplitn(3, '-');
    let (release, version, source) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Source {
        name: source.to_owned(),
        version: format!("{version}-{release}"),
    })
}

/// A header: a count of entries and of bytes, the entries (tag, type, place, count), the bytes.
struct Header<'a> {
    entries: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(blob: &'a [u8]) -> Result<Self, String> {
        let cut = || "a header is cut off".to_owned();
        let word = |at: usize| -> Option<usize> {
            Some(u32::from_be_bytes(blob.get(at..at + 4)?.try_into().ok()?) as usize)
        };
        let (count, bytes) = (word(0).ok_or_else(cut)?, word(4).ok_or_else(cut)?);
        if count > MOST_ENTRIES || bytes > MOST_HEADER {
            return Err("a header is too large".to_owned());
        }
        let entries_end = 8 + count * 16;
        Ok(Self {
            entries: blob.get(8..entries_end).ok_or_else(cut)?,
            store: blob.get(entries_end..entries_end + bytes).ok_or_else(cut)?,
        })
    }

    /// Type, bytes from the place on, count.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8], usize)> {
        self.entries.chunks_exact(16).find_map(|entry| {
            let word = |at: usize| Some(u32::from_be_bytes(entry.get(at..at + 4)?.try_into().ok()?));
            (word(0)? == tag).then_some(())?;
            let place = usize::try_from(word(8)?).ok()?;
            Some((word(4)?, self.store.get(place..)?, word(12)? as usize))
        })
    }

    /// Texts of a tag: types 6 (one), 8 (a list) and 9 (in several languages).
    fn strings(&self, tag: u32) -> impl Iterator<Item = &'a str> + use<'a> {
        let (kind, bytes, count) = self.find(tag).unwrap_or((0, &[], 0));
        let count = match kind {
            6 => 1,
            8 | 9 => count,
            _ => 0,
        };
        bytes
            .split(|byte| *byte == 0)
            .take(count)
            .filter_map(|text| std::str::from_utf8(text).ok())
    }

    /// Numbers of a tag of type 4 (32 bits).
    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'a> {
        let (kind, bytes, count) = self.find(tag).unwrap_or((0, &[], 0));
        let count = if kind == 4 { count } else { 0 };
        bytes
            .chunks_exact(4)
            .take(count)
            .filter_map(|word| Some(u32::from_be_bytes(word.try_into().ok()?)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rusqlite::{Connection, MAIN_DB};

    use super::{berkeley, ndb, sqlite};
    use crate::kind::berkeley::tests::hash_of;
    use crate::scan::is_evidence;

    /// A header of texts and numbers.
    fn header(texts: &[(u32, &[&str])], numbers: &[(u32, &[u32])]) -> Vec<u8> {
        let (mut entries, mut store) = (Vec::new(), Vec::new());
        let mut entry = |tag: u32, kind: u32, place: usize, count: usize| {
            for word in [
                tag,
                kind,
                u32::try_from(place).unwrap(),
                u32::try_from(count).unwrap(),
            ] {
                entries.extend(word.to_be_bytes());
            }
        };
        for (tag, all) in numbers {
            entry(*tag, 4, store.len(), all.len());
            all.iter().for_each(|number| store.extend(number.to_be_bytes()));
        }
        for (tag, all) in texts {
            entry(*tag, if all.len() == 1 { 6 } else { 8 }, store.len(), all.len());
            for text in *all {
                store.extend(text.as_bytes());
                store.push(0);
            }
        }
        let count = u32::try_from(entries.len() / 16).unwrap();
        let size = u32::try_from(store.len()).unwrap();
        [&count.to_be_bytes()[..], &size.to_be_bytes(), &entries, &store].concat()
    }

    fn packages() -> Vec<Vec<u8>> {
        let openssl: &[(u32, &[&str])] = &[
            (1000, &["openssl-libs"]),
            (1001, &["3.0.7"]),
            (1002, &["24.el9"]),
            (1014, &["ASL 2.0"]),
            (1022, &["x86_64"]),
            (1044, &["openssl-3.0.7-24.el9.src.rpm"]),
            (1117, &["tool", "README"]),
            (1118, &["/usr/bin/", "/usr/share/doc/"]),
        ];
        let key: &[(u32, &[&str])] = &[(1000, &["gpg-pubkey"]), (1001, &["1"]), (1002, &["2"])];
        vec![
            header(openssl, &[(1003, &[1]), (1116, &[0, 1])]),
            header(key, &[]),
        ]
    }

    fn in_sqlite(blobs: &[Vec<u8>]) -> Vec<u8> {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
            .unwrap();
        for blob in blobs {
            connection
                .execute("INSERT INTO Packages (blob) VALUES (?1)", [blob])
                .unwrap();
        }
        let mut bytes = connection.serialize(MAIN_DB).unwrap().to_vec();
        // As rpm leaves it.
        bytes[18..20].fill(2);
        bytes
    }

    pub(in crate::kind) fn in_ndb(blobs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(b"RpmP");
        bytes[12..16].copy_from_slice(&1_u32.to_le_bytes());
        for (at, blob) in blobs.iter().enumerate() {
            let number = u32::try_from(at + 1).unwrap();
            let block = u32::try_from(bytes.len() / 16).unwrap();
            let slot = 32 + at * 16;
            bytes[slot..slot + 4].copy_from_slice(b"Slot");
            bytes[slot + 4..slot + 8].copy_from_slice(&number.to_le_bytes());
            bytes[slot + 8..slot + 12].copy_from_slice(&block.to_le_bytes());
            bytes.extend(b"BlbS");
            bytes.extend(number.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(u32::try_from(blob.len()).unwrap().to_le_bytes());
            bytes.extend(blob);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        bytes
    }

    #[test]
    fn headers_are_read_from_either_database() {
        for said in [
            sqlite("rpmdb.sqlite", &in_sqlite(&packages()), &is_evidence).unwrap(),
            ndb("Packages.db", &in_ndb(&packages()), &is_evidence).unwrap(),
            berkeley("Packages", &in_berkeley(&packages(), false), &is_evidence).unwrap(),
            berkeley("Packages", &in_berkeley(&packages(), true), &is_evidence).unwrap(),
        ] {
            assert_eq!(said.packages.len(), 1);
            let package = &said.packages[0];
            assert_eq!(
                (package.name.as_str(), package.version.as_str()),
                ("openssl-libs", "1:3.0.7-24.el9")
            );
            assert_eq!(package.source(), ("openssl", "3.0.7-24.el9"));
            assert_eq!(
                said.owns,
                [("usr/bin/tool".to_owned(), "openssl-libs".to_owned())]
            );
        }
    }

    #[test]
    fn damaged_databases_are_refused() {
        let asked = &is_evidence;
        let bytes = in_sqlite(&packages());
        assert!(sqlite("x", &bytes[..bytes.len() / 2], asked).is_err());
        assert!(sqlite("x", b"none", asked).is_err());
        assert!(ndb("x", b"none", asked).is_err());
        let mut bytes = in_ndb(&packages());
        bytes.truncate(4100);
        assert!(ndb("x", &bytes, asked).is_err());
        assert!(berkeley("x", b"none", asked).is_err());
        // A header that says that it is larger than it is.
        let mut blobs = packages();
        blobs[0][4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(sqlite("x", &in_sqlite(&blobs), asked).is_err());
        assert!(berkeley("x", &in_berkeley(&blobs, false), asked).is_err());
    }

    fn in_berkeley(blobs: &[Vec<u8>], big: bool) -> Vec<u8> {
        let count = u32::try_from(blobs.len()).unwrap();
        let mut pairs = vec![(vec![0; 4], count.to_ne_bytes().to_vec())];
        for (at, blob) in blobs.iter().enumerate() {
            let number = u32::try_from(at + 1).unwrap();
            pairs.push((number.to_ne_bytes().to_vec(), blob.clone()));
        }
        hash_of(&pairs, big)
    }
}
