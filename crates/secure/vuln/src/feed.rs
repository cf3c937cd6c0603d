//! Advisory data as its sources give it.

mod debian;
mod osv;
mod secdb;

use serde_json::Value;

use dhow_types::ErrorKind;

use crate::{Advisory, Error};

/// Largest document of a feed, in bytes: Debian's tracker has 70 MB.
const MAX_FEED: usize = 1 << 30;

/// Longest text that is kept of an advisory, in bytes.
const LONGEST: usize = 400;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// OSV records (<https://ossf.github.io/osv-schema/>): one, a list, or one a line.
    Osv,
    /// Debian's security tracker, `data/json`.
    DebianTracker,
    /// Alpine's secdb, and of others who use its form.
    Secdb,
    /// How likely each CVE is attacked: FIRST's EPSS, `epss_scores-DATE.csv`, also packed by gzip.
    Epss,
    /// CISA's catalogue of vulnerabilities that are used by attackers, JSON or CSV.
    Kev,
}

/// The advisories of a document, whichever kind it is of; and for each that was refused, why.
///
/// # Errors
/// `InvalidArgument` when it is none of the known kinds.
pub fn read(bytes: &[u8]) -> Result<(Feed, Vec<Advisory>, Vec<String>), Error> {
    if bytes.len() > MAX_FEED {
        let message = format!("the document has {} bytes, more than {MAX_FEED}", bytes.len());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let document: Value = match serde_json::from_slice(bytes) {
        Ok(document) => document,
        Err(error) => return lines(bytes).ok_or_else(|| no_json(&error)),
    };
    let mut refused = Vec::new();
    match &document {
        Value::Array(list) if list.iter().all(osv::is_record) => {
            let advisories = osv::records(list, &mut refused);
            Ok((Feed::Osv, advisories, refused))
        }
        record if osv::is_record(record) => {
            let advisories = osv::records(std::slice::from_ref(record), &mut refused);
            Ok((Feed::Osv, advisories, refused))
        }
        Value::Object(object) if object.contains_key("packages") && object.contains_key("distroversion") => {
            let advisories = secdb::advisories(&document, &mut refused)?;
            Ok((Feed::Secdb, advisories, refused))
        }
        Value::Object(object) if debian::is_tracker(object) => {
            let advisories = debian::advisories(object, &mut refused);
            Ok((Feed::DebianTracker, advisories, refused))
        }
        _ => Err(unknown()),
    }
}

/// One record a line.
fn lines(bytes: &[u8]) -> Option<(Feed, Vec<Advisory>, Vec<String>)> {
    let mut records = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let record: Value = serde_json::from_slice(line).ok()?;
        if !osv::is_record(&record) {
            return None;
        }
        records.push(record);
    }
    let mut refused = Vec::new();
    let advisories = osv::records(&records, &mut refused);
    (!records.is_empty()).then_some((Feed::Osv, advisories, refused))
}

fn no_json(error: &serde_json::Error) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the document is no JSON: {error}"),
    )
}

fn unknown() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the document is of no known kind").with_hint(
        "known: OSV records, Debian's tracker (data/json), secdb of Alpine, Wolfi and Chainguard, EPSS, KEV",
    )
}

/// The beginning of a text, on one line.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if out.len() + word.len() >= LONGEST {
            out.push('…');
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|char| !char.is_control()));
    }
    out
}

/// A name without anything that a terminal or a table would take for something else.
pub(crate) fn name(text: &str) -> Option<String> {
    let fits =
        !text.is_empty() && text.len() <= 512 && !text.chars().any(|char| char.is_control() || char == ' ');
    fits.then(|| text.to_owned())
}
