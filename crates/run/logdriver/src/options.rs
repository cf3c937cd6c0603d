//! What the drivers' options have in common: the tag, chosen labels and variables.

use std::collections::BTreeMap;

use dhow_types::ErrorKind;
use regex_lite::Regex;

use crate::{Error, Facts, Options};

/// Options that every driver has (moby `loginfo.go`), and the ones of the log that stays here.
const COMMON: &[&str] = &[
    "cache-disabled",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "max-file",
    "max-size",
    "mode",
    "tag",
];

/// An option whose value is none.
pub(crate) fn bad(name: &str, value: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("invalid log option {name}={value}: {why}"),
    )
}

/// Whether all options are known: those in common, and the driver's `own`.
pub(crate) fn known(driver: &str, options: &Options, own: &[&str]) -> Result<(), Error> {
    for (name, value) in options {
        if !COMMON.contains(&name.as_str()) && !own.contains(&name.as_str()) {
            let message = format!("unknown log opt '{name}' for {driver} log driver");
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint(format!(
                "it has {}, {}",
                own.join(", "),
                COMMON.join(", ")
            )));
        }
        let good = match name.as_str() {
            // A file here takes every line at once; the service reads from it in its own time.
            "mode" => value == "non-blocking",
            "cache-disabled" => value == "false",
            "max-size" => value.parse::<dhow_types::ByteSize>().is_ok(),
            "max-file" => value.parse::<u32>().is_ok_and(|count| count > 0),
            _ => true,
        };
        if !good {
            let why = match name.as_str() {
                "mode" => "a container never waits for a log service here, so there is non-blocking only",
                "cache-disabled" => "the log is always kept here, too, for `logs`",
                _ => "it is a size or a number",
            };
            return Err(bad(name, value, why));
        }
    }
    Ok(())
}

/// A switch.
pub(crate) fn switch(options: &Options, name: &str) -> Result<bool, Error> {
    match options.get(name).map(String::as_str) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(bad(name, other, "it is true or false")),
    }
}

/// The tag: a template of docker's, `{{.ID}}` when none is given (moby `daemon/logger/loggerutils/log_tag.go`).
pub(crate) fn tag(options: &Options, facts: &Facts, default: &str) -> Result<String, Error> {
    let template = options.get("tag").map_or(default, String::as_str);
    let wrong = || {
        bad(
            "tag",
            template,
            "fields are {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageName}}, {{.ImageID}}, {{.ImageFullID}}, {{.Command}}, \
             {{.DaemonName}}",
        )
    };
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (field, after) = after.split_once("}}").ok_or_else(wrong)?;
        let image_id = facts.image_id.strip_prefix("sha256:").unwrap_or(&facts.image_id);
        out.push_str(match field.trim() {
            ".ID" => facts.short_id(),
            ".FullID" => &facts.id,
            ".Name" => &facts.name,
            ".ImageName" => &facts.image_name,
            ".ImageID" => image_id.get(..12).unwrap_or(image_id),
            ".ImageFullID" => &facts.image_id,
            ".Command" => &facts.command,
            ".DaemonName" => "dhow",
            _ => return Err(wrong()),
        });
        rest = after;
    }
    Ok(out + rest)
}

/// Labels and variables that the options choose, by name.
pub(crate) fn chosen(options: &Options, facts: &Facts) -> Result<BTreeMap<String, String>, Error> {
    let listed = |name: &str| -> Vec<&str> {
        let text = options.get(name).map_or("", String::as_str);
        text.split(',').filter(|one| !one.is_empty()).collect()
    };
    let expression = |name: &str| -> Result<Option<Regex>, Error> {
        let Some(text) = options.get(name) else {
            return Ok(None);
        };
        let parsed = Regex::new(text);
        parsed
            .map(Some)
            .map_err(|error| bad(name, text, &error.to_string()))
    };
    let variables = facts.env.iter().filter_map(|one| one.split_once('='));
    let labels = facts
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut out = BTreeMap::new();
    let (names, fits) = (listed("labels"), expression("labels-regex")?);
    out.extend(
        labels
            .filter(|(name, _)| names.contains(name) || fits.as_ref().is_some_and(|fits| fits.is_match(name)))
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let (names, fits) = (listed("env"), expression("env-regex")?);
    out.extend(
        variables
            .filter(|(name, _)| names.contains(name) || fits.as_ref().is_some_and(|fits| fits.is_match(name)))
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    Ok(out)
}

/// What every line of a container's log carries: chosen labels and variables, and the tag if one is asked for (moby
/// `daemon/logger/jsonfilelog`).
///
/// # Errors
/// `InvalidArgument` for an expression or a template that is none.
pub fn attributes(options: &Options, facts: &Facts) -> Result<BTreeMap<String, String>, Error> {
    let mut all = chosen(options, facts)?;
    if options.contains_key("tag") {
        all.insert("tag".to_owned(), tag(options, facts, "")?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn facts() -> Facts {
        Facts {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            labels: [
                ("tier".to_owned(), "front".to_owned()),
                ("team.a".to_owned(), "x".to_owned()),
            ]
            .into(),
            env: vec!["MODE=fast".to_owned(), "SECRET=no".to_owned(), "odd".to_owned()],
            ..Facts::default()
        }
    }

    #[test]
    fn a_tag_is_filled_in_and_what_is_no_field_is_an_error() {
        let filled = |text: &str| tag(&options(&[("tag", text)]), &facts(), "{{.ID}}");
        assert_eq!(tag(&Options::new(), &facts(), "{{.ID}}").unwrap(), "0123456789ab");
        assert_eq!(
            filled("a {{ .Name }}/{{.FullID}}!").unwrap(),
            "a web/0123456789abcdef!"
        );
        for wrong in ["{{.Nope}}", "{{.ID", "{{if .ID}}x{{end}}"] {
            assert!(filled(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        assert!(chosen(&Options::new(), &facts()).unwrap().is_empty());
        let wanted = options(&[
            ("labels", "tier,none"),
            ("env-regex", "^MO"),
            ("labels-regex", "^team"),
        ]);
        let told = chosen(&wanted, &facts()).unwrap();
        let names: Vec<_> = told.keys().map(String::as_str).collect();
        assert_eq!(names, ["MODE", "team.a", "tier"]);
        assert!(chosen(&options(&[("env-regex", "(")]), &facts()).is_err());
    }

    #[test]
    fn unknown_options_and_promises_that_do_not_hold_are_errors() {
        let check = |name: &str, value: &str| known("syslog", &options(&[(name, value)]), &["syslog-format"]);
        assert!(check("syslog-format", "rfc5424").is_ok());
        assert!(check("max-size", "10k").is_ok());
        assert!(check("mode", "non-blocking").is_ok());
        assert!(check("mode", "blocking").is_err());
        assert!(check("cache-disabled", "true").is_err());
        let error = check("gelf-address", "x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown log opt 'gelf-address' for syslog log driver"
        );
    }
}
