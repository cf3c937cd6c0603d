//! What somebody says about one image.

use std::collections::BTreeMap;

use dhow_types::ErrorKind;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The artifact type under which Microsoft's tools attach the end of life of an image (go-infra, .NET's image builder).
pub const KIND_MICROSOFT: &str = "application/vnd.microsoft.artifact.lifecycle";

/// The same without a vendor's name, as the ORAS project discussed it.
pub const KIND_NEUTRAL: &str = "application/vnd.artifact.lifecycle";

/// Largest statement that is read, in bytes.
pub const MAX_STATEMENT: usize = 64 << 10;

const DATE_MICROSOFT: &str = "vnd.microsoft.artifact.lifecycle.end-of-life.date";
const DATE: &str = "vnd.artifact.lifecycle.end-of-life.date";
const SUCCESSOR: &str = "vnd.artifact.lifecycle.successor";
const REASON: &str = "vnd.artifact.lifecycle.reason";
const REVOKED: &str = "vnd.artifact.lifecycle.revoked";

/// Longest text of a statement that is shown or kept.
const MAX_TEXT: usize = 1024;

/// That an image is not to be used any more from a day on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The first day on which it is not to be used.
    pub date: Date,
    /// What to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It does harm: it is not to be used even by who takes old images on purpose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// Whether it is known who said so: whoever administers this machine, or a signature. What is not signed can only warn, or
    /// anybody who can write to a registry could keep others from running their images.
    #[serde(default)]
    pub signed: bool,
    /// Who signed it, by the name that the policy has for them; none for what was said on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a statement means on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It ends in this many days.
    Deprecated(i32),
    /// It has ended.
    Ended,
    /// It does harm.
    Revoked,
}

impl Standing {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deprecated(_) => "deprecated",
            Self::Ended => "end-of-life",
            Self::Revoked => "revoked",
        }
    }
}

impl Statement {
    /// What it means on this day.
    #[must_use]
    pub fn on(&self, today: Date) -> Standing {
        if today < self.date {
            let days = today.until(self.date).map_or(0, |span| span.get_days());
            return Standing::Deprecated(days);
        }
        if self.revoked {
            Standing::Revoked
        } else {
            Standing::Ended
        }
    }

    /// In words, for whoever uses the image: `end-of-life since 2026-01-01: CVE-...; use app:2 instead`.
    #[must_use]
    pub fn told(&self, today: Date) -> String {
        let mut text = match self.on(today) {
            Standing::Deprecated(_) => format!("it is deprecated, and ends on {}", self.date),
            Standing::Ended => format!("it has been at its end of life since {}", self.date),
            Standing::Revoked => format!("it has been revoked since {}", self.date),
        };
        if let Some(reason) = &self.reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        if let Some(successor) = &self.successor {
            text.push_str("; use ");
            text.push_str(successor);
            text.push_str(" instead");
        }
        if let Some(by) = &self.by {
            text.push_str(" (signed by ");
            text.push_str(by);
            text.push(')');
        }
        text
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Texts, a date and flags: there is nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The stored form, read back.
    ///
    /// # Errors
    /// `DataLoss` for what is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::DataLoss, "read the statement about an image", error))
    }

    /// As annotations of a manifest of `kind`, one of [`KIND_MICROSOFT`] and [`KIND_NEUTRAL`].
    #[must_use]
    pub fn annotations(&self, kind: &str) -> BTreeMap<String, String> {
        let date = if kind == KIND_MICROSOFT {
            DATE_MICROSOFT
        } else {
            DATE
        };
        let mut all = BTreeMap::from([(date.to_owned(), self.date.to_string())]);
        all.extend(self.successor.clone().map(|text| (SUCCESSOR.to_owned(), text)));
        all.extend(self.reason.clone().map(|text| (REASON.to_owned(), text)));
        all.extend(self.revoked.then(|| (REVOKED.to_owned(), "true".to_owned())));
        all
    }

    /// What annotations of a manifest say; nobody signed it yet.
    ///
    /// # Errors
    /// `InvalidArgument` for annotations without a date, or with one that is none.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self, Error> {
        let date = annotations
            .get(DATE_MICROSOFT)
            .or_else(|| annotations.get(DATE))
            .ok_or_else(|| invalid("a statement about an image has no date"))?;
        let text = |key: &str| {
            annotations.get(key).map(|text| {
                let plain = text.chars().filter(|character| !character.is_control());
                plain.take(MAX_TEXT).collect::<String>()
            })
        };
        Ok(Self {
            date: parse_date(date)?,
            successor: text(SUCCESSOR),
            reason: text(REASON),
            revoked: annotations.get(REVOKED).is_some_and(|value| value == "true"),
            signed: false,
            by: None,
        })
    }
}

/// `yyyy-mm-dd`, also as the beginning of a time (RFC 3339), of which the day counts.
pub(crate) fn parse_date(text: &str) -> Result<Date, Error> {
    let day = text.get(..10).unwrap_or(text);
    let rest = text.get(10..).unwrap_or_default();
    if (rest.is_empty() || rest.starts_with(['T', 't', ' ']))
        && let Ok(date) = day.parse()
    {
        return Ok(date);
    }
    let shown: String = text.chars().take(40).collect();
    Err(invalid(format!("{shown:?} is no date, such as 2026-12-31")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
