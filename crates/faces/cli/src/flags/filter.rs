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

/// Longest regular expression of a name.
const LONGEST_PATTERN: usize = 4096;

/// What a `name` filter looks for: docker's are regular expressions that fit anywhere in a name (moby `filters.Args.Match`),
/// and most are plain parts of one.
#[derive(Debug)]
pub(crate) struct NamePattern(Pattern);

#[derive(Debug)]
enum Pattern {
    Part { start: bool, text: String, end: bool },
    Expression(regex_lite::Regex),
}

impl NamePattern {
    fn parse(text: &str) -> Result<Self, CliError> {
        let (start, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
        // Docker's names of containers begin with a slash, and may be given so.
        let part = rest.strip_prefix('/').unwrap_or(rest);
        if !part.contains([
            '[', ']', '(', ')', '*', '+', '?', '|', '{', '}', '\\', '.', '^', '$',
        ]) {
            let text = part.to_owned();
            return Ok(Self(Pattern::Part { start, text, end }));
        }
        let expression = if start {
            format!("^{rest}").replacen("^/", "^", 1)
        } else {
            rest.to_owned()
        };
        let expression = if end { expression + "$" } else { expression };
        if expression.len() > LONGEST_PATTERN {
            return Err(CliError::plain(
                "invalid filter 'name': the expression is too long",
            ));
        }
        let parsed = regex_lite::Regex::new(&expression);
        let parsed =
            parsed.map_err(|error| CliError::plain(format!("invalid filter 'name={text}': {error}")))?;
        Ok(Self(Pattern::Expression(parsed)))
    }

    fn fits(&self, name: &str) -> bool {
        match &self.0 {
            Pattern::Expression(expression) => expression.is_match(name),
            Pattern::Part {
                start: true,
                text,
                end: true,
            } => name == text,
            Pattern::Part {
                start: true,
                text,
                end: false,
            } => name.starts_with(text.as_str()),
            Pattern::Part {
                start: false,
                text,
                end: true,
            } => name.ends_with(text.as_str()),
            Pattern::Part {
                start: false,
                text,
                end: false,
            } => name.contains(text.as_str()),
        }
    }
}

impl Filters {
    /// The patterns of the `name` filters.
    pub(crate) fn names(&self) -> Result<NamePatterns, CliError> {
        self.patterns("name")
    }

    /// The patterns of these filters.
    pub(crate) fn patterns(&self, filter: &str) -> Result<NamePatterns, CliError> {
        let patterns = self.values(filter).map(NamePattern::parse);
        Ok(NamePatterns(patterns.collect::<Result<_, _>>()?))
    }

    /// Whether an id begins with any value of the `id` filter; nothing begins with an empty one.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        self.has_id_of("id", id)
    }

    /// The same of another filter. What is no beginning of an id is an expression.
    pub(crate) fn has_id_of(&self, filter: &str, id: &str) -> bool {
        self.any(filter, |wanted| {
            match wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                true => !wanted.is_empty() && id.starts_with(&wanted.to_ascii_lowercase()),
                false => NamePattern::parse(wanted).is_ok_and(|pattern| pattern.fits(id)),
            }
        })
    }
}

/// The `name` filters of a command.
#[derive(Debug)]
pub(crate) struct NamePatterns(Vec<NamePattern>);

impl NamePatterns {
    /// Whether any of them fits; true without one.
    pub(crate) fn fit(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.fits(name))
    }
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
            assert_eq!(
                NamePattern::parse(pattern).unwrap().fits("web"),
                fits,
                "{pattern}"
            );
        }
    }

    #[test]
    fn names_are_found_by_regular_expressions() {
        for (pattern, fits) in [
            ("w.*b", true),
            (".*e.*", true),
            ("^/(web|db)$", true),
            ("^w.$", false),
            ("^we+b$", true),
            ("x|y", false),
        ] {
            assert_eq!(
                NamePattern::parse(pattern).unwrap().fits("web"),
                fits,
                "{pattern}"
            );
        }
        assert!(NamePattern::parse("we(b").unwrap_err().message().contains("we(b"));
        assert!(NamePattern::parse(&"(".repeat(5000)).is_err());
    }

    #[test]
    fn an_empty_id_is_nobodys() {
        let filters = Filters::parse(&["id=".to_owned()], &["id"]).unwrap();
        assert!(!filters.has_id("abc"));
        assert!(Filters::default().has_id("abc"));
    }
}
