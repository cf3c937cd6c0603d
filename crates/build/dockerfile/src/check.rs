use dhow_types::Span;

use crate::syntax;

/// The `# check=skip=A,B;error=true` directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckDirective {
    /// Where.
    pub at: Span,
    /// Rules that are not checked; `all` for none at all.
    pub skip: Vec<String>,
    /// Experimental rules that are checked; `all` for every one.
    pub experimental: Vec<String>,
    /// Whether a warning fails the build.
    pub error: bool,
}

impl CheckDirective {
    /// Reads `skip=A,B;experimental=C;error=true`; what follows a space is a comment.
    ///
    /// # Errors
    /// Which option is no such.
    pub fn parse(value: &str) -> Result<Self, String> {
        let mut check = Self::default();
        let value = value.trim().split(' ').next().unwrap_or_default();
        if value.is_empty() {
            return Ok(check);
        }
        let list = |rules: &str| {
            rules
                .trim()
                .split(',')
                .map(|rule| rule.trim().to_owned())
                .collect()
        };
        for part in value.splitn(3, ';') {
            let invalid = || format!("invalid check option {part:?}");
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            match (key.trim(), value.trim()) {
                ("skip", rules) => check.skip = list(rules),
                ("experimental", rules) => check.experimental = list(rules),
                ("error", "1" | "t" | "T" | "true" | "TRUE" | "True") => check.error = true,
                ("error", "0" | "f" | "F" | "false" | "FALSE" | "False") => check.error = false,
                _ => return Err(invalid()),
            }
        }
        Ok(check)
    }

    /// Reads a comment above an instruction, `check=skip=A`; `None` when it is another one, or wrong.
    #[must_use]
    pub fn of_comment(comment: &str) -> Option<Self> {
        let directive = syntax::directive(comment, "")?;
        (directive.name == "check").then(|| Self::parse(directive.value).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_up_to_a_space() {
        let check = CheckDirective::parse("skip=A,B;error=true;experimental=all // why").unwrap();
        assert_eq!(check.skip, ["A", "B"]);
        assert_eq!(check.experimental, ["all"]);
        assert!(check.error);
        assert!(!CheckDirective::parse("error=0").unwrap().error);
        for bad in ["skip", "error=maybe", "colour=red", "skip=A;"] {
            assert!(CheckDirective::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_comment_is_a_directive_when_it_says_so() {
        assert_eq!(
            CheckDirective::of_comment("check=skip=all").unwrap().skip,
            ["all"]
        );
        for other in ["escape=`", "check", "check=colour=red", "why check=skip=all"] {
            assert_eq!(CheckDirective::of_comment(other), None, "{other}");
        }
    }
}
