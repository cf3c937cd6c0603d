//! Relations between packages (deb-control(5), policy 7): `a (>= 1) | b:any [amd64], c`.

use std::cmp::Ordering;
use std::fmt;

use dhow_types::ErrorKind;

use crate::Error;
use crate::version;

/// How a version must relate to the one named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=` (and the old `<`)
    EarlierOrEqual,
    /// `=`
    Exactly,
    /// `>=` (and the old `>`)
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` relates so to `bound`.
    #[must_use]
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let order = version::compare(version, bound);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Exactly => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

/// One named package of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Name of a package, real or virtual.
    pub name: String,
    /// What follows the colon: `any`, `native` or an architecture.
    pub qualifier: Option<String>,
    /// The version that it must have.
    pub version: Option<(Operator, String)>,
    /// Architectures on which the relation counts (`false`) or does not (`true`: `!`); none means everywhere.
    pub architectures: Vec<(bool, String)>,
}

impl Relation {
    /// Whether a package with this version satisfies the version part.
    #[must_use]
    pub fn admits(&self, version: &str) -> bool {
        self.version
            .as_ref()
            .is_none_or(|(operator, bound)| operator.holds(version, bound))
    }

    /// Whether the relation counts on `architecture`.
    #[must_use]
    pub fn counts_on(&self, architecture: &str) -> bool {
        let named = self.architectures.iter().any(|(_, name)| {
            name == architecture || name == "any" || (name == "linux-any" && !architecture.contains('-'))
        });
        match self.architectures.first() {
            None => true,
            Some((negated, _)) => named != *negated,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = &self.version {
            let sign = match operator {
                Operator::Earlier => "<<",
                Operator::EarlierOrEqual => "<=",
                Operator::Exactly => "=",
                Operator::LaterOrEqual => ">=",
                Operator::Later => ">>",
            };
            write!(f, " ({sign} {version})")?;
        }
        Ok(())
    }
}

/// Alternatives of which one must hold.
pub type Clause = Vec<Relation>;

/// The clauses of a `Depends`, `Pre-Depends`, `Provides`, `Conflicts` or `Breaks` value.
///
/// # Errors
/// When the text breaks the grammar; build profiles have no place in a binary package.
pub fn parse(text: &str) -> Result<Vec<Clause>, Error> {
    let mut clauses = Vec::new();
    for clause in text.split(',') {
        if clause.trim().is_empty() {
            continue;
        }
        clauses.push(
            clause
                .split('|')
                .map(relation)
                .collect::<Result<Clause, Error>>()?,
        );
    }
    Ok(clauses)
}

/// A name as policy 5.6.1 has it: two or more of `[a-z0-9+.-]`, the first a letter or digit. Upper case occurs in
/// virtual names and old packages.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.len() <= 255
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
}

/// A version: digits, letters and `. + - ~ :` (deb-version(7)).
pub(crate) fn is_version(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= 255
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'~' | b':'))
}

fn relation(text: &str) -> Result<Relation, Error> {
    let bad = || {
        let start: String = text.trim().chars().take(80).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            format!("not a relation of packages: {start:?}"),
        )
    };
    let rest = text.trim();
    let end = rest.find([' ', '\t', '\n', '(', '[', '<']).unwrap_or(rest.len());
    let (word, mut rest) = (&rest[..end], rest[end..].trim_start());
    let (name, qualifier) = match word.split_once(':') {
        Some((name, qualifier)) if is_name(qualifier) => (name, Some(qualifier.to_owned())),
        Some(_) => return Err(bad()),
        None => (word, None),
    };
    if !is_name(name) {
        return Err(bad());
    }
    let mut version = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (inside, after) = inner.split_once(')').ok_or_else(bad)?;
        version = Some(constraint(inside).ok_or_else(bad)?);
        rest = after.trim_start();
    }
    let mut architectures = Vec::new();
    if let Some(inner) = rest.strip_prefix('[') {
        let (inside, after) = inner.split_once(']').ok_or_else(bad)?;
        for word in inside.split_whitespace() {
            let (negated, word) = word.strip_prefix('!').map_or((false, word), |word| (true, word));
            if !is_name(word) {
                return Err(bad());
            }
            architectures.push((negated, word.to_owned()));
        }
        if architectures
            .iter()
            .any(|(negated, _)| *negated != architectures[0].0)
        {
            return Err(bad());
        }
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        return Err(bad());
    }
    Ok(Relation {
        name: name.to_owned(),
        qualifier,
        version,
        architectures,
    })
}

fn constraint(text: &str) -> Option<(Operator, String)> {
    let text = text.trim();
    let end = text.find(|c| !matches!(c, '<' | '>' | '=')).unwrap_or(text.len());
    let operator = match &text[..end] {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Exactly,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    let version = text[end..].trim();
    is_version(version).then(|| (operator, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn alternatives_versions_qualifiers_and_architectures_are_read() {
        let clauses =
            parse("libc6 (>= 2.36), debconf:any (>=0.5)|debconf-2.0 , xx [!i386 !arm64], ").unwrap();
        assert_eq!(clauses.len(), 3);
        assert_eq!(clauses[0][0].to_string(), "libc6 (>= 2.36)");
        assert_eq!(clauses[1].len(), 2);
        assert_eq!(clauses[1][0].qualifier.as_deref(), Some("any"));
        assert!(clauses[2][0].counts_on("amd64"));
        assert!(!clauses[2][0].counts_on("i386"));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn operators_compare_as_debian_versions() {
        let one = |text: &str| parse(text).unwrap().remove(0).remove(0);
        assert!(one("aa (<< 1.0)").admits("1.0~rc1"));
        assert!(!one("aa (>> 1.0)").admits("1.0"));
        assert!(one("aa (= 1:2-3)").admits("1:2-3"));
        assert!(one("aa (< 1.0)").admits("1.0"));
        assert!(one("aa").admits("anything"));
    }

    #[test]
    fn broken_relations_are_refused() {
        for bad in [
            "a",
            "aa (1.0)",
            "aa (>= )",
            "aa (>= 1",
            "aa [i386",
            "aa <!nocheck>",
            "aa bb",
            "aa | ",
            "../x",
            "aa:",
            "aa (>= 1) extra",
            "aa [!i386 amd64]",
            "aa (== 1)",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-c(|)<>=\\[\\]!:, 0-9.]{0,40}") {
            if let Ok(clauses) = parse(&text) {
                let printed: Vec<String> = clauses
                    .iter()
                    .map(|clause| clause.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
                    .collect();
                // Printing drops only the architecture list.
                let again = parse(&printed.join(", ")).unwrap();
                prop_assert_eq!(again.len(), clauses.len());
            }
        }
    }
}
