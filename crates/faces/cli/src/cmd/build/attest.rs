//! `--attest`, `--provenance`, `--sbom`.

use std::time::SystemTime;

use dhow_engine::{About, Bills, BuildRequest, Built, Provenance};
use dhow_reference::Reference;
use serde_json::Value;

use super::BuildFlags;
use crate::{CliError, Context};

/// What is to be said of the image.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) provenance: Option<Provenance>,
    /// What is in it.
    pub(crate) contents: bool,
}

impl Wanted {
    /// Reads the flags; the last word of them counts.
    pub(crate) fn of(flags: &BuildFlags) -> Result<Self, CliError> {
        Self::read(&flags.attest, flags.provenance.as_deref(), flags.sbom.as_deref())
    }

    pub(crate) fn nothing(&self) -> bool {
        self.provenance.is_none() && !self.contents
    }

    fn read(attest: &[String], provenance: Option<&str>, contents: Option<&str>) -> Result<Self, CliError> {
        let mut found = Self::default();
        for text in attest {
            let bad = |why: &str| CliError::plain(format!("invalid --attest {text:?}: {why}"));
            let fields = crate::flags::csv(text);
            let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
            let rest = fields.iter().filter(|field| !field.starts_with("type="));
            let rest = rest.map(String::as_str);
            match kind {
                Some("provenance") => found.provenance = read(rest).map_err(|why| bad(&why))?,
                Some("sbom") => found.contents = contents_of(rest).map_err(|why| bad(&why))?,
                Some(other) => {
                    let why = format!("attestations of type {other:?} are not made: provenance and sbom are");
                    return Err(bad(&why));
                }
                None => return Err(bad("type is required")),
            }
        }
        if let Some(text) = provenance {
            let bad = |why: String| CliError::plain(format!("invalid --provenance {text:?}: {why}"));
            let fields = crate::flags::csv(text);
            found.provenance = match text {
                "true" | "1" => Some(least()),
                "false" | "0" => None,
                _ => read(fields.iter().map(String::as_str)).map_err(bad)?,
            };
        }
        if let Some(text) = contents {
            let bad = |why: String| CliError::plain(format!("invalid --sbom {text:?}: {why}"));
            let fields = crate::flags::csv(text);
            found.contents = match text {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => contents_of(fields.iter().map(String::as_str)).map_err(bad)?,
            };
        }
        Ok(found)
    }
}

/// What is to be said of a build that goes on.
pub(crate) struct Saying {
    wanted: Wanted,
    bills: Option<Bills>,
    begun: SystemTime,
}

/// What is said of what was built.
pub(crate) struct Said {
    provenance: Option<Provenance>,
    contents: Vec<Value>,
}

impl Saying {
    /// Before anything is built: this process must be single-threaded still.
    pub(crate) fn begin(context: &Context, wanted: Wanted) -> Result<Self, CliError> {
        let bills = wanted
            .contents
            .then(|| context.engine()?.bills().map_err(CliError::from));
        Ok(Self {
            bills: bills.transpose()?,
            wanted,
            begun: SystemTime::now(),
        })
    }

    /// When it is built.
    pub(crate) fn end(self, built: &[Built], names: &[Reference]) -> Result<Said, CliError> {
        let mut provenance = self.wanted.provenance;
        if let Some(provenance) = &mut provenance {
            provenance.times = (self.begun, SystemTime::now());
        }
        let contents = self.bills.map(|bills| bills.of(built, names)).transpose()?;
        Ok(Said {
            provenance,
            contents: contents.unwrap_or_default(),
        })
    }
}

impl Said {
    pub(crate) fn about<'a>(&'a self, requests: &'a [BuildRequest]) -> About<'a> {
        About {
            requests,
            provenance: self.provenance.as_ref(),
            contents: &self.contents,
        }
    }
}

fn contents_of<'a>(fields: impl Iterator<Item = &'a str>) -> Result<bool, String> {
    let mut wanted = true;
    for field in fields {
        match field.split_once('=').unwrap_or((field, "")) {
            ("disabled", value) => wanted = !matches!(value, "true" | "1" | ""),
            ("generator", _) => {
                return Err("no image is run for it: dhow looks through the layers itself".to_owned());
            }
            (other, _) => return Err(format!("it has no {other} here")),
        }
    }
    Ok(wanted)
}

fn least() -> Provenance {
    Provenance {
        all: false,
        builder: String::new(),
        times: (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH),
    }
}

fn read<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Option<Provenance>, String> {
    let mut found = least();
    let mut disabled = false;
    for field in fields {
        match field.split_once('=').unwrap_or((field, "")) {
            ("mode", "min") => found.all = false,
            ("mode", "max") => found.all = true,
            ("mode", other) => return Err(format!("mode={other}: write min or max")),
            ("builder-id", id) => id.clone_into(&mut found.builder),
            ("disabled", value) => disabled = matches!(value, "true" | "1" | ""),
            ("version", "v1") => {}
            ("version", other) => return Err(format!("version={other}: only v1 is made")),
            (other, _) => return Err(format!("it has no {other} here")),
        }
    }
    Ok(Some(found).filter(|_| !disabled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_nothing_is_the_default() {
        let all = |attest: &[&str], flag: Option<&str>| {
            let attest: Vec<String> = attest.iter().map(|text| (*text).to_owned()).collect();
            Wanted::read(&attest, flag, None).map(|found| found.provenance.map(|found| found.all))
        };
        assert_eq!(all(&[], None).unwrap(), None);
        assert_eq!(all(&[], Some("true")).unwrap(), Some(false));
        assert_eq!(all(&[], Some("mode=max")).unwrap(), Some(true));
        assert_eq!(all(&["type=provenance,mode=max"], None).unwrap(), Some(true));
        assert_eq!(all(&["type=provenance,mode=max"], Some("false")).unwrap(), None);
        assert_eq!(all(&["type=provenance,disabled=true"], None).unwrap(), None);
        for bad in [
            "type=vex",
            "type=sbom,generator=a",
            "mode=max",
            "type=provenance,mode=most",
            "type=provenance,colour=red",
        ] {
            assert!(all(&[bad], None).is_err(), "{bad}");
        }
        assert!(all(&[], Some("version=v0.2")).is_err());
        let contents = |attest: &[&str], flag: Option<&str>| {
            let attest: Vec<String> = attest.iter().map(|text| (*text).to_owned()).collect();
            Wanted::read(&attest, None, flag).unwrap().contents
        };
        assert!(!contents(&[], None));
        assert!(contents(&["type=sbom"], None) && contents(&[], Some("true")));
        assert!(!contents(&["type=sbom"], Some("false")) && !contents(&["type=sbom,disabled=true"], None));
    }
}
