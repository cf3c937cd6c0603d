//! `Release` files: what a suite offers and the hashes of its indices (Debian wiki "DebianRepository/Format").

use std::collections::HashMap;

use dhow_types::{Digest, ErrorKind};

use crate::Error;
use crate::control::Paragraph;

/// How far a `Release` may be dated after the clock: hosts run a little late, and time zones are got wrong.
const CLOCK_TOLERANCE: i64 = 36 * 3600;
/// Debian's own has 700 per architecture and component set; this leaves room and bounds memory.
const MAX_FILES: usize = 200_000;

/// Size and hash of one index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
}

/// The signed heart of a suite.
#[derive(Clone, Debug)]
pub struct Release {
    /// Who publishes it: `Debian`.
    pub origin: String,
    /// Label: `Debian`, `Debian-Security`.
    pub label: String,
    /// Name by role: `stable`, `oldstable-updates`.
    pub suite: String,
    /// Name by code: `bookworm`.
    pub codename: String,
    /// Version of the distribution, when it has one.
    pub version: Option<String>,
    /// Seconds since 1970 when it was made.
    pub date: i64,
    /// Seconds since 1970 after which it must not be used.
    pub valid_until: Option<i64>,
    /// Components without a directory in front (`updates/main` is `main`).
    pub components: Vec<String>,
    /// Architectures.
    pub architectures: Vec<String>,
    /// Whether the index of each architecture has the packages for all architectures too.
    pub all_in_each: bool,
    /// Whether files can be had under `by-hash/SHA256/<hex>`, which cannot change between index and file.
    pub by_hash: bool,
    files: HashMap<String, Listed>,
}

/// Why a `Release` cannot be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// Its `Valid-Until` has passed.
    Expired,
    /// It is dated after the clock.
    NotYet,
}

impl Release {
    /// Reads the text that the signature covers.
    ///
    /// # Errors
    /// When a field is missing, a date or hash is malformed, a path leaves the suite's directory, or there is no
    /// SHA-256 (weaker hashes are not used).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let paragraph = Paragraph::parse(text)?;
        let own = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let words = |name: &str| -> Vec<String> {
            let value = paragraph.get(name).unwrap_or_default();
            value
                .split_whitespace()
                .map(|word| word.rsplit('/').next().unwrap_or(word).to_owned())
                .collect()
        };
        let valid_until = paragraph.get("Valid-Until").map(date).transpose()?;
        Ok(Self {
            origin: own("Origin"),
            label: own("Label"),
            suite: own("Suite"),
            codename: own("Codename"),
            version: paragraph.get("Version").map(str::to_owned),
            date: date(paragraph.need("Date")?)?,
            valid_until,
            components: words("Components"),
            architectures: words("Architectures"),
            all_in_each: paragraph
                .get("No-Support-for-Architecture-all")
                .is_some_and(|value| value.split_whitespace().any(|word| word == "Packages")),
            by_hash: paragraph
                .get("Acquire-By-Hash")
                .is_some_and(|value| value.eq_ignore_ascii_case("yes")),
            files: files(paragraph.need("SHA256")?)?,
        })
    }

    /// Size and hash of a file, by its path below the suite's directory.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<Listed> {
        self.files.get(path).copied()
    }

    /// Whether the release may be used at `now`.
    ///
    /// # Errors
    /// Which of the two dates forbids it.
    pub fn check_dates(&self, now: i64) -> Result<(), Staleness> {
        if self.date > now.saturating_add(CLOCK_TOLERANCE) {
            return Err(Staleness::NotYet);
        }
        match self.valid_until {
            Some(until) if until < now => Err(Staleness::Expired),
            _ => Ok(()),
        }
    }
}

fn files(value: &str) -> Result<HashMap<String, Listed>, Error> {
    let bad = |line: &str| {
        let start: String = line.chars().take(120).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            format!("release file: not a line of SHA256: {start:?}"),
        )
    };
    let mut files = HashMap::new();
    for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (Some(hex), Some(size), Some(path), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad(line));
        };
        let digest = Digest::from_hex(hex).map_err(|_| bad(line))?;
        let size = size.parse().map_err(|_| bad(line))?;
        if !is_plain_path(path) || files.len() == MAX_FILES {
            return Err(bad(line));
        }
        files.insert(path.to_owned(), Listed { size, digest });
    }
    Ok(files)
}

/// Whether a path stays below where it is joined to and needs no quoting in a URL.
pub(crate) fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 1024
        && path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'?' | b'#' | b'"'))
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Reads `Sat, 11 Jul 2026 10:16:37 UTC`, the only form that apt and dak write.
fn date(text: &str) -> Result<i64, Error> {
    let bad = || {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("release file: not a date: {text:?}"),
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, zone] = words[..] else {
        return Err(bad());
    };
    if !matches!(zone, "UTC" | "GMT" | "+0000" | "Z") {
        return Err(bad());
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = (1..)
        .zip(MONTHS)
        .find(|(_, name)| *name == month)
        .ok_or_else(bad)?
        .0;
    let clock: Vec<i8> = time
        .split(':')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    let [hour, minute, second] = clock[..] else {
        return Err(bad());
    };
    let (year, day) = (year.parse().map_err(|_| bad())?, day.parse().map_err(|_| bad())?);
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| bad())?;
    let stamp = civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?;
    Ok(stamp.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Origin: Debian\nLabel: Debian-Security\nSuite: oldstable-security\nCodename: bookworm-security\n\
        Date: Wed, 18 Nov 2026 22:17:41 UTC\nValid-Until: Wed, 25 Nov 2026 22:17:41 UTC\nAcquire-By-Hash: yes\n\
        Architectures: amd64 arm64\nComponents: updates/main updates/contrib\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n";

    #[test]
    fn a_release_is_read() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.codename, "bookworm-security");
        assert_eq!(release.components, ["main", "contrib"]);
        assert!(release.by_hash);
        assert_eq!(release.date, 1_795_040_261);
        assert_eq!(release.file("main/binary-amd64/Packages").unwrap().size, 0);
        assert_eq!(release.file("main/binary-i386/Packages"), None);
    }

    #[test]
    fn a_release_is_good_from_its_date_to_its_end() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.check_dates(release.date), Ok(()));
        assert_eq!(release.check_dates(release.date - 3600), Ok(()));
        assert_eq!(
            release.check_dates(release.date - CLOCK_TOLERANCE - 1),
            Err(Staleness::NotYet)
        );
        assert_eq!(release.check_dates(release.date + 7 * 86400), Ok(()));
        assert_eq!(
            release.check_dates(release.date + 7 * 86400 + 1),
            Err(Staleness::Expired)
        );
    }

    #[test]
    fn paths_out_of_the_suite_and_bad_lines_are_refused() {
        for (from, to) in [
            ("main/binary-amd64/Packages", "../../etc/passwd"),
            ("main/binary-amd64/Packages", "/etc/passwd"),
            ("main/binary-amd64/Packages", "a b"),
            ("e3b0", "E3B0"),
            ("        0 main", "        x main"),
            ("SHA256:", "MD5Sum:"),
            ("18 Nov 2026", "18 Nov 20260"),
            ("18 Nov 2026", "31 Nov 2026"),
            ("22:17:41 UTC\nValid", "22:17:41 CET\nValid"),
        ] {
            assert!(Release::parse(&TEXT.replace(from, to)).is_err(), "{to}");
        }
    }

    proptest! {
        #[test]
        fn a_broken_release_is_an_error_and_never_a_panic(at in 0..TEXT.len(), byte in 32_u8..127) {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(release) = Release::parse(std::str::from_utf8(&bytes).unwrap()) {
                prop_assert!(release.files.keys().all(|path| is_plain_path(path)));
            }
        }
    }
}
