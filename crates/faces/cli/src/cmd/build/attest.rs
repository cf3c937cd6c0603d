//! `--attest`, `--provenance`.

use std::time::SystemTime;

use dhow_engine::Provenance;

use crate::CliError;

/// What is to be said of the image; the last word of the flags counts.
pub(crate) fn wanted(attest: &[String], provenance: Option<&str>) -> Result<Option<Provenance>, CliError> {
    let mut found = None;
    for text in attest {
        let bad = |why: &str| CliError::plain(format!("invalid --attest {text:?}: {why}"));
        let fields = crate::flags::csv(text);
        let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
        match kind {
            Some("provenance") => {}
            Some(other) => {
                return Err(bad(&format!(
                    "attestations of type {other:?} are not made: provenance is"
                )));
            }
            None => return Err(bad("type is required")),
        }
        let rest = fields.iter().filter(|field| !field.starts_with("type="));
        found = read(rest.map(String::as_str)).map_err(|why| bad(&why))?;
    }
    if let Some(text) = provenance {
        let bad = |why: String| CliError::plain(format!("invalid --provenance {text:?}: {why}"));
        let fields = crate::flags::csv(text);
        found = match text {
            "true" | "1" => Some(least()),
            "false" | "0" => None,
            _ => read(fields.iter().map(String::as_str)).map_err(bad)?,
        };
    }
    Ok(found)
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
            wanted(&attest, flag).map(|found| found.map(|found| found.all))
        };
        assert_eq!(all(&[], None).unwrap(), None);
        assert_eq!(all(&[], Some("true")).unwrap(), Some(false));
        assert_eq!(all(&[], Some("mode=max")).unwrap(), Some(true));
        assert_eq!(all(&["type=provenance,mode=max"], None).unwrap(), Some(true));
        assert_eq!(all(&["type=provenance,mode=max"], Some("false")).unwrap(), None);
        assert_eq!(all(&["type=provenance,disabled=true"], None).unwrap(), None);
        for bad in [
            "type=sbom",
            "mode=max",
            "type=provenance,mode=most",
            "type=provenance,colour=red",
        ] {
            assert!(all(&[bad], None).is_err(), "{bad}");
        }
        assert!(all(&[], Some("version=v0.2")).is_err());
    }
}
