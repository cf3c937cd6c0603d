//! `--filter name=value`.

use crate::CliError;

/// The filters of a command. The same name more than once means "any of them", but every label must be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads the flags; a name that is not among `known` is an error.
    pub(crate) fn parse(flags: &[String], known: &[&str]) -> Result<Self, CliError> {
        let mut filters = Vec::new();
        for flag in flags {
            let Some((name, value)) = flag.split_once('=') else {
                return Err(CliError::plain(format!(
                    "invalid filter {flag:?}: write name=value"
                )));
            };
            let name = name.trim().to_lowercase();
            // `label!=x` is split as `label!` and `x`.
            if !known.contains(&name.as_str()) {
                return Err(CliError::plain(format!("invalid filter '{name}'"))
                    .with_hint(format!("known here: {}", known.join(", "))));
            }
            filters.push((name, value.trim().to_owned()));
        }
        Ok(Self(filters))
    }

    /// Values of one filter.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the filter was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Whether any value of this filter fits; true without one.
    pub(crate) fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(fits)
    }

    /// Whether every `label` filter, and no `label!` filter, holds.
    pub(crate) fn labels<'a>(&self, find: impl Fn(&str) -> Option<&'a String>) -> bool {
        let holds = |wanted: &str| match wanted.split_once('=') {
            Some((name, value)) => find(name).is_some_and(|found| found == value),
            None => find(wanted).is_some(),
        };
        self.values("label").all(holds) && !self.values("label!").any(holds)
    }

    /// A value that must be true or false.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, CliError> {
        let Some(value) = self.values(name).last() else {
            return Ok(None);
        };
        match value {
            "1" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "false" | "False" | "FALSE" => Ok(Some(false)),
            other => Err(CliError::plain(format!(
                "invalid filter '{name}={other}': it is true or false"
            ))),
        }
    }
}

/// Whether a name fits docker's pattern: part of it, or the whole between `^` and `$`.
pub(crate) fn name_fits(pattern: &str, name: &str) -> Result<bool, CliError> {
    if pattern.contains(['[', ']', '(', ')', '*', '+', '?', '|', '{', '}', '\\']) {
        let message = format!("filter name={pattern}: regular expressions are not supported");
        return Err(CliError::plain(message).with_hint("use a part of the name, or the whole as ^name$"));
    }
    let (start, rest) = pattern
        .strip_prefix('^')
        .map_or((false, pattern), |rest| (true, rest));
    let (end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    Ok(match (start, end) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_filters_are_named() {
        let error = Filters::parse(&["colour=red".to_owned()], &["id", "name"]).unwrap_err();
        assert_eq!(error.message(), "invalid filter 'colour'");
        assert!(Filters::parse(&["id".to_owned()], &["id"]).is_err());
    }

    #[test]
    fn the_same_filter_twice_means_either_but_labels_must_all_hold() {
        let flags = ["id=a", "id=b", "label=x=1", "label=y", "label!=z"].map(str::to_owned);
        let filters = Filters::parse(&flags, &["id", "label", "label!"]).unwrap();
        assert!(filters.any("id", |value| value == "b"));
        assert!(!filters.any("id", |value| value == "c"));
        assert!(filters.any("name", |_| false));
        let labels: std::collections::BTreeMap<String, String> =
            [("x".to_owned(), "1".to_owned()), ("y".to_owned(), String::new())].into();
        assert!(filters.labels(|name| labels.get(name)));
        assert!(!filters.labels(|name| if name == "z" {
            labels.get("x")
        } else {
            labels.get(name)
        }));
        assert!(!filters.labels(|name| if name == "y" { None } else { labels.get(name) }));
    }

    #[test]
    fn names_fit_by_part_or_between_anchors() {
        for (pattern, fits) in [
            ("e", true),
            ("^web$", true),
            ("^/web$", true),
            ("^we", true),
            ("^e", false),
            ("b$", true),
            ("we$", false),
        ] {
            assert_eq!(name_fits(pattern, "web").unwrap(), fits, "{pattern}");
        }
        assert!(name_fits("w.*b", "web").is_err());
    }
}
