//! Until when releases of distributions and languages get fixes.

use std::collections::BTreeMap;

use dhow_types::ErrorKind;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value;

use crate::Error;
use crate::statement::parse_date;

/// Most releases that an imported table has.
const MAX_RELEASES: usize = 100_000;

/// The end of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The first day without regular fixes; none when there is no date yet.
    pub end: Option<Date>,
    /// The first day without those of long-term or paid support, where there is such.
    pub extended: Option<Date>,
}

/// Releases by product (`ID` of os-release(5), or the name of a language) and number.
#[derive(Clone, Debug, Default)]
pub struct Table {
    releases: BTreeMap<(String, String), Release>,
}

/// What the vendors have announced, as known in August 2026: product, release, end, end of extended support.
const KNOWN: &[(&str, &str, &str, Option<&str>)] = &[
    // Debian.
    ("debian", "13", "2028-08-09", Some("2030-06-30")),
    ("debian", "12", "2026-07-11", Some("2028-06-30")),
    ("debian", "11", "2024-08-14", Some("2026-08-31")),
    ("debian", "10", "2022-09-10", Some("2024-06-30")),
    ("debian", "9", "2020-07-18", Some("2022-07-01")),
    ("debian", "8", "2018-06-17", Some("2020-06-30")),
    // Ubuntu.
    ("ubuntu", "26.04", "2031-04-30", Some("2036-04-30")),
    ("ubuntu", "25.10", "2026-07-01", None),
    ("ubuntu", "25.04", "2026-01-17", None),
    ("ubuntu", "24.10", "2025-07-10", None),
    ("ubuntu", "24.04", "2029-05-31", Some("2036-05-31")),
    ("ubuntu", "23.10", "2024-07-12", None),
    ("ubuntu", "22.04", "2027-04-01", Some("2032-04-09")),
    ("ubuntu", "20.04", "2025-05-31", Some("2030-04-02")),
    ("ubuntu", "18.04", "2023-05-31", Some("2028-04-01")),
    ("ubuntu", "16.04", "2021-04-02", Some("2026-04-02")),
    ("ubuntu", "14.04", "2019-04-02", Some("2024-04-02")),
    // Alpine Linux.
    ("alpine", "3.24", "2028-06-01", None),
    ("alpine", "3.23", "2027-11-01", None),
    ("alpine", "3.22", "2027-05-01", None),
    ("alpine", "3.21", "2026-11-01", None),
    ("alpine", "3.20", "2026-04-01", None),
    ("alpine", "3.19", "2025-11-01", None),
    ("alpine", "3.18", "2025-05-09", None),
    ("alpine", "3.17", "2024-11-22", None),
    ("alpine", "3.16", "2024-05-23", None),
    ("alpine", "3.15", "2023-11-01", None),
    ("alpine", "3.14", "2023-05-01", None),
    ("alpine", "3.13", "2022-11-01", None),
    ("alpine", "3.12", "2022-05-01", None),
    // Fedora Linux.
    ("fedora", "44", "2027-06-02", None),
    ("fedora", "43", "2026-12-09", None),
    ("fedora", "42", "2026-05-27", None),
    ("fedora", "41", "2025-12-15", None),
    ("fedora", "40", "2025-05-13", None),
    ("fedora", "39", "2024-11-26", None),
    ("fedora", "38", "2024-05-21", None),
    ("fedora", "37", "2023-12-05", None),
    ("fedora", "36", "2023-05-16", None),
    ("fedora", "35", "2022-12-13", None),
    // Red Hat Enterprise Linux.
    ("rhel", "10", "2035-05-31", Some("2039-05-31")),
    ("rhel", "9", "2032-05-31", Some("2036-05-31")),
    ("rhel", "8", "2029-05-31", Some("2033-05-31")),
    ("rhel", "7", "2024-06-30", Some("2029-05-31")),
    ("rhel", "6", "2020-11-30", Some("2024-06-30")),
    // CentOS.
    ("centos", "8", "2021-12-31", None),
    ("centos", "7", "2024-06-30", None),
    ("centos", "6", "2020-11-30", None),
    // Rocky Linux.
    ("rocky", "10", "2035-05-31", None),
    ("rocky", "9", "2032-05-31", None),
    ("rocky", "8", "2029-05-31", None),
    // AlmaLinux OS.
    ("almalinux", "10", "2035-05-31", None),
    ("almalinux", "9", "2032-05-31", None),
    ("almalinux", "8", "2029-05-31", None),
    // Amazon Linux.
    ("amzn", "2023", "2029-06-30", None),
    ("amzn", "2", "2026-06-30", None),
    // openSUSE.
    ("opensuse-leap", "16.0", "2027-10-31", None),
    ("opensuse-leap", "15.6", "2026-04-30", None),
    ("opensuse-leap", "15.5", "2024-12-31", None),
    ("opensuse-leap", "15.4", "2023-12-07", None),
    ("opensuse-leap", "15.3", "2022-12-31", None),
    // Go.
    ("go", "1.25", "2026-08-19", None),
    ("go", "1.24", "2026-02-10", None),
    ("go", "1.23", "2025-08-12", None),
    ("go", "1.22", "2025-02-11", None),
    ("go", "1.21", "2024-08-13", None),
    ("go", "1.20", "2024-02-06", None),
    ("go", "1.19", "2023-09-06", None),
    ("go", "1.18", "2023-02-01", None),
    // Node.js.
    ("nodejs", "26", "2029-04-30", None),
    ("nodejs", "25", "2026-06-01", None),
    ("nodejs", "24", "2028-04-30", None),
    ("nodejs", "23", "2025-06-01", None),
    ("nodejs", "22", "2027-04-30", None),
    ("nodejs", "21", "2024-06-01", None),
    ("nodejs", "20", "2026-04-30", None),
    ("nodejs", "19", "2023-06-01", None),
    ("nodejs", "18", "2025-04-30", None),
    ("nodejs", "17", "2022-06-01", None),
    ("nodejs", "16", "2023-09-11", None),
    ("nodejs", "15", "2021-06-01", None),
    ("nodejs", "14", "2023-04-30", None),
    ("nodejs", "13", "2020-06-01", None),
    ("nodejs", "12", "2022-04-30", None),
    // Python.
    ("python", "3.14", "2030-10-31", None),
    ("python", "3.13", "2029-10-31", None),
    ("python", "3.12", "2028-10-31", None),
    ("python", "3.11", "2027-10-31", None),
    ("python", "3.10", "2026-10-31", None),
    ("python", "3.9", "2025-10-31", None),
    ("python", "3.8", "2024-10-07", None),
    ("python", "3.7", "2023-06-27", None),
    ("python", "3.6", "2021-12-23", None),
    ("python", "3.5", "2020-09-30", None),
    ("python", "3.4", "2019-03-18", None),
    ("python", "3.3", "2017-09-29", None),
    ("python", "2.7", "2020-01-01", None),
    // PHP.
    ("php", "8.5", "2029-12-31", None),
    ("php", "8.4", "2028-12-31", None),
    ("php", "8.3", "2027-12-31", None),
    ("php", "8.2", "2026-12-31", None),
    ("php", "8.1", "2025-12-31", None),
    ("php", "8.0", "2023-11-26", None),
    ("php", "7.4", "2022-11-28", None),
    ("php", "7.3", "2021-12-06", None),
    ("php", "7.2", "2020-11-30", None),
    ("php", "7.1", "2019-12-01", None),
    ("php", "7.0", "2019-01-10", None),
    ("php", "5.6", "2018-12-31", None),
    // Ruby.
    ("ruby", "4.0", "2029-03-31", None),
    ("ruby", "3.4", "2028-03-31", None),
    ("ruby", "3.3", "2027-03-31", None),
    ("ruby", "3.2", "2026-03-31", None),
    ("ruby", "3.1", "2025-03-26", None),
    ("ruby", "3.0", "2024-04-23", None),
    ("ruby", "2.7", "2023-03-31", None),
    ("ruby", "2.6", "2022-03-31", None),
    ("ruby", "2.5", "2021-03-31", None),
    ("ruby", "2.4", "2020-03-31", None),
    // PostgreSQL.
    ("postgresql", "18", "2030-11-14", None),
    ("postgresql", "17", "2029-11-08", None),
    ("postgresql", "16", "2028-11-09", None),
    ("postgresql", "15", "2027-11-11", None),
    ("postgresql", "14", "2026-11-12", None),
    ("postgresql", "13", "2025-11-13", None),
    ("postgresql", "12", "2024-11-21", None),
    ("postgresql", "11", "2023-11-09", None),
    ("postgresql", "10", "2022-11-10", None),
    ("postgresql", "9.6", "2021-11-11", None),
    // OpenSSL.
    ("openssl", "4.0", "2027-05-14", None),
    ("openssl", "3.6", "2026-11-01", None),
    ("openssl", "3.5", "2030-04-08", None),
    ("openssl", "3.4", "2026-10-22", None),
    ("openssl", "3.3", "2026-04-09", None),
    ("openssl", "3.2", "2025-11-23", None),
    ("openssl", "3.1", "2025-03-14", None),
    ("openssl", "3.0", "2026-09-07", None),
    ("openssl", "1.1.1", "2023-09-11", None),
    ("openssl", "1.1.0", "2019-09-11", None),
    ("openssl", "1.0.2", "2019-12-31", None),
    ("openssl", "1.0.1", "2016-12-31", None),
    ("openssl", "1.0.0", "2015-12-31", None),
    ("openssl", "0.9.8", "2015-12-31", None),
];

/// How others call what os-release(5) has under another name.
const NAMES: &[(&str, &str)] = &[
    ("alpine-linux", "alpine"),
    ("rocky-linux", "rocky"),
    ("amazon-linux", "amzn"),
    ("opensuse", "opensuse-leap"),
    ("oracle-linux", "ol"),
];

/// A release as endoflife.date writes it: its data, and the forms of its interface (v0 and v1).
#[derive(Deserialize)]
struct Written {
    #[serde(alias = "releaseCycle", alias = "cycle")]
    name: Value,
    #[serde(default, alias = "eolFrom")]
    eol: Value,
    #[serde(default, alias = "eoesFrom", alias = "extendedSupport")]
    eoes: Value,
}

impl Table {
    /// The one that is part of this program.
    #[must_use]
    pub fn built_in() -> Self {
        let date = |text: &str| text.parse().ok();
        let releases = KNOWN.iter().map(|(product, release, end, extended)| {
            let key = ((*product).to_owned(), (*release).to_owned());
            let value = Release {
                end: date(end),
                extended: extended.and_then(date),
            };
            (key, value)
        });
        Self {
            releases: releases.collect(),
        }
    }

    /// Takes in a table of endoflife.date: one product (`{"result": {"name": ..., "releases": [...]}}`, or a list of releases with
    /// the product as `name`), or an object of many. What it says stands in the place of what was known of the same release; gives
    /// the number of releases.
    ///
    /// # Errors
    /// `InvalidArgument` for another form, and for dates that are none; `ResourceExhausted` for more than 100,000 releases.
    pub fn import(&mut self, name: &str, bytes: &[u8]) -> Result<usize, Error> {
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the table of ends", error))?;
        let mut found = Vec::new();
        match &document {
            Value::Array(_) => read_product(name, &document, &mut found)?,
            Value::Object(map) => match map
                .get("result")
                .or_else(|| map.get("releases").map(|_| &document))
            {
                Some(product) => {
                    let name = product.get("name").and_then(Value::as_str).unwrap_or(name);
                    let releases = product.get("releases").unwrap_or(&Value::Null);
                    read_product(name, releases, &mut found)?;
                }
                None => {
                    for (name, product) in map {
                        let releases = product.get("releases").unwrap_or(product);
                        read_product(name, releases, &mut found)?;
                    }
                }
            },
            _ => return Err(invalid("the table of ends is neither a list nor an object")),
        }
        let count = found.len();
        self.releases.extend(found);
        Ok(count)
    }

    /// The release of a product that a version is of: `12.5` of Debian is of `12`, `3.20.1` of Alpine of `3.20`.
    #[must_use]
    pub fn release(&self, product: &str, version: &str) -> Option<(&str, Release)> {
        let mut number = version;
        loop {
            let key = (product.to_owned(), number.to_owned());
            if let Some(((_, release), value)) = self.releases.get_key_value(&key) {
                return Some((release, *value));
            }
            number = number.rsplit_once('.')?.0;
        }
    }

    /// Lines that [`Table::parse`] reads: product, release, end, extended end.
    #[must_use]
    pub fn encode(&self) -> String {
        let shown = |date: Option<Date>| date.map_or_else(|| "-".to_owned(), |date| date.to_string());
        let lines = self.releases.iter().map(|((product, release), value)| {
            format!(
                "{product}\t{release}\t{}\t{}\n",
                shown(value.end),
                shown(value.extended)
            )
        });
        lines.collect()
    }

    /// Adds lines of [`Table::encode`]; one that is none is passed over.
    pub fn parse(&mut self, text: &str) {
        for line in text.lines().take(MAX_RELEASES) {
            let mut parts = line.split('\t');
            let (Some(product), Some(release), Some(end), Some(extended)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let value = Release {
                end: end.parse().ok(),
                extended: extended.parse().ok(),
            };
            self.releases
                .insert((product.to_owned(), release.to_owned()), value);
        }
    }
}

fn read_product(
    name: &str,
    releases: &Value,
    found: &mut Vec<((String, String), Release)>,
) -> Result<(), Error> {
    let Value::Array(releases) = releases else {
        return Err(invalid(format!("{name}: it has no list of releases")));
    };
    let known = NAMES.iter().find(|(other, _)| *other == name);
    let product = known.map_or(name, |(_, ours)| ours);
    for release in releases {
        let written = Written::deserialize(release).map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                format!("read a release of {name}"),
                error,
            )
        })?;
        let number = match &written.name {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(invalid(format!("{name}: a release has no name"))),
        };
        let value = Release {
            end: date(&written.eol)?,
            extended: date(&written.eoes)?,
        };
        if product.contains(['\t', '\n']) || number.contains(['\t', '\n']) {
            return Err(invalid("a name in the table of ends has a line break"));
        }
        found.push(((product.to_owned(), number), value));
        if found.len() > MAX_RELEASES {
            let message = format!("the table of ends has more than {MAX_RELEASES} releases");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
    }
    Ok(())
}

/// A date; `false` and `null` say that there is none, `true` that it was some day.
fn date(value: &Value) -> Result<Option<Date>, Error> {
    match value {
        Value::String(text) => parse_date(text).map(Some),
        Value::Bool(true) => Ok(Some(Date::constant(1970, 1, 1))),
        Value::Null | Value::Bool(false) => Ok(None),
        other => Err(invalid(format!("{other} is no date"))),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
