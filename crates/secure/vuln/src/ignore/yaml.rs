//! Ignore files of others in YAML: Trivy's `.trivyignore.yaml` and the `ignore` of Grype's `.grype.yaml`. What else such a file has is about other
//! things than findings; a condition of a rule that is not known here is an error, since without it the rule would be about more.

use dhow_types::{ErrorKind, Purl};
use serde::Deserialize;

use super::{MOST, Rule, is_day};
use crate::Error;
use crate::feed::line;

/// What a finding's fix has to be like, in Grype's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FixState {
    /// There is a version that mends it.
    Fixed,
    /// There is none yet.
    NotFixed,
    /// There will be none.
    WontFix,
    /// Nobody has looked yet.
    Unknown,
}

#[derive(Deserialize)]
struct File {
    /// Trivy's.
    vulnerabilities: Option<Vec<TrivyRule>>,
    /// Grype's.
    ignore: Option<Vec<GrypeRule>>,
}

/// Trivy's documentation, "Filtering", `.trivyignore.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrivyRule {
    id: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    purls: Vec<String>,
    #[serde(default)]
    expired_at: Option<String>,
    #[serde(default)]
    statement: String,
}

/// Grype's documentation, "Specifying matches to ignore".
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GrypeRule {
    #[serde(default)]
    vulnerability: Option<String>,
    /// Here a vulnerability is known by all of its names in any case.
    #[serde(default, rename = "include-aliases")]
    _include_aliases: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    fix_state: Option<FixState>,
    #[serde(default)]
    package: GrypePackage,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GrypePackage {
    name: Option<String>,
    version: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    location: Option<String>,
}

/// Syft's types of packages, and those of package URLs.
const TYPES: &[(&str, &str)] = &[
    ("alpm", "alpm"),
    ("apk", "apk"),
    ("binary", "generic"),
    ("deb", "deb"),
    ("dotnet", "nuget"),
    ("gem", "gem"),
    ("go-module", "golang"),
    ("java-archive", "maven"),
    ("jenkins-plugin", "maven"),
    ("npm", "npm"),
    ("php-composer", "composer"),
    ("python", "pypi"),
    ("rpm", "rpm"),
    ("rust-crate", "cargo"),
];

fn bad(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the ignore file: {why}"))
}

pub(super) fn read(text: &str) -> Result<Vec<Rule>, Error> {
    let file: File = serde_saphyr::from_str(text)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the ignore file", error))?;
    let mut rules = Vec::new();
    if file.vulnerabilities.is_none() && file.ignore.is_none() {
        return Err(bad(
            "it has neither `vulnerabilities` (Trivy) nor `ignore` (Grype)",
        ));
    }
    let mut add = |rule: Rule| {
        rules.push(rule);
        match rules.len() > MOST {
            true => Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("the ignore file has more than {MOST} rules"),
            )),
            false => Ok(()),
        }
    };
    for rule in file.vulnerabilities.unwrap_or_default() {
        trivy(rule, &mut add)?;
    }
    for rule in file.ignore.unwrap_or_default() {
        add(grype(rule)?)?;
    }
    Ok(rules)
}

/// A rule fits where one of its paths and one of its package URLs does.
fn trivy(rule: TrivyRule, add: &mut impl FnMut(Rule) -> Result<(), Error>) -> Result<(), Error> {
    if rule.id.is_empty() || rule.id == "*" {
        return Err(bad("a rule has no `id`"));
    }
    let until = rule.expired_at.map(|text| {
        // The day of a point in time.
        let day = text.split(['T', ' ']).next().unwrap_or_default();
        match is_day(day) {
            true => Ok(day.to_owned()),
            false => Err(bad(format!("{text:?} is no day: write 2027-01-31"))),
        }
    });
    let until = until.transpose()?;
    let one = |text: &String| Purl::parse(text).ok_or_else(|| bad(format!("{text:?} is no package URL")));
    let purls: Vec<Purl> = rule.purls.iter().map(one).collect::<Result<_, _>>()?;
    let any = |list: usize| list.max(1);
    for path in 0..any(rule.paths.len()) {
        for purl in 0..any(purls.len()) {
            add(Rule {
                id: rule.id.clone(),
                reason: line(&rule.statement),
                until: until.clone(),
                path: rule.paths.get(path).map(|path| place(path)),
                purl: purls.get(purl).cloned(),
                ..Rule::default()
            })?;
        }
    }
    Ok(())
}

fn grype(rule: GrypeRule) -> Result<Rule, Error> {
    let kind = rule.package.kind.map(|kind| {
        let known = TYPES.iter().find(|(syft, _)| *syft == kind);
        known
            .map(|(_, purl)| (*purl).to_owned())
            .ok_or_else(|| bad(format!("{kind:?} is no type of a package here")))
    });
    let made = Rule {
        id: rule.vulnerability.unwrap_or_else(|| "*".to_owned()),
        reason: line(&rule.reason),
        package: rule.package.name,
        path: rule.package.location.as_deref().map(place),
        version: rule.package.version,
        kind: kind.transpose()?,
        fix: rule.fix_state,
        ..Rule::default()
    };
    if made.id == "*" && !made.is_narrow() {
        return Err(bad("a rule is about everything"));
    }
    Ok(made)
}

/// A path as an image has it; `**` is what `*` is here.
fn place(path: &str) -> String {
    path.trim_start_matches('/').replace("**", "*")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Asked, read_yaml};
    use crate::{Purl, State};

    fn about(text: &str, fixed: bool) -> bool {
        let purls = [Purl::parse("pkg:pypi/setuptools@58.1.0").unwrap()];
        let asked = Asked {
            vulnerability: vec!["CVE-2022-40897", "PYSEC-2022-43012"],
            packages: ["setuptools", "setuptools"],
            path: "usr/local/lib/python3.9/site-packages/setuptools-58.1.0.dist-info/METADATA",
            state: State::Affected,
            purls: &purls,
            fixed,
        };
        read_yaml(text).unwrap().iter().any(|rule| rule.is_about(&asked))
    }

    #[test]
    fn rules_of_trivy_and_grype_are_read_with_all_their_conditions() {
        for (text, fits) in [
            ("vulnerabilities: [{id: CVE-2022-40897}]", true),
            (
                "vulnerabilities: [{id: CVE-2022-1}, {id: CVE-2022-40897, paths: [a, usr/**/METADATA]}]",
                true,
            ),
            ("vulnerabilities: [{id: CVE-2022-40897, paths: [a]}]", false),
            (
                "vulnerabilities: [{id: CVE-2022-40897, purls: ['pkg:pypi/x', 'pkg:pypi/setuptools']}]",
                true,
            ),
            (
                "vulnerabilities: [{id: CVE-2022-40897, paths: ['usr/*'], purls: ['pkg:pypi/x']}]",
                false,
            ),
            ("misconfigurations: [{id: AVD-1}]\nvulnerabilities: []", false),
            ("output: json\nignore: [{vulnerability: PYSEC-2022-43012}]", true),
            (
                "ignore: [{package: {name: setuptools, type: python, version: 58.1.0}}]",
                true,
            ),
            ("ignore: [{package: {name: setuptools, version: '58'}}]", false),
            ("ignore: [{package: {type: npm}}]", false),
            ("ignore: [{package: {location: '/usr/local/lib/**'}}]", true),
            ("ignore: [{fix-state: fixed}]", true),
            ("ignore: [{fix-state: not-fixed}]", false),
            (
                "ignore: [{fix-state: wont-fix, vulnerability: CVE-2022-40897}]",
                false,
            ),
        ] {
            assert_eq!(about(text, true), fits, "{text}");
        }
        assert!(about("ignore: [{fix-state: not-fixed}]", false));
        let rules = read_yaml(
            "vulnerabilities:\n  - id: CVE-1\n    expired_at: 2026-12-31\n    statement: not called\n",
        )
        .unwrap();
        assert_eq!(rules[0].reason, "not called");
        assert!(rules[0].counts_on("2026-12-31") && !rules[0].counts_on("2027-01-01"));
    }

    #[test]
    fn what_a_rule_says_and_is_not_known_is_an_error() {
        for (text, why) in [
            ("ignore: [{namespace: x, vulnerability: CVE-1}]", "namespace"),
            ("ignore: [{vex-status: fixed}]", "vex-status"),
            ("ignore: [{package: {language: python}}]", "language"),
            ("ignore: [{package: {type: elf}}]", "no type"),
            ("ignore: [{reason: all}]", "everything"),
            ("vulnerabilities: [{id: '*'}]", "no `id`"),
            ("vulnerabilities: [{id: CVE-1, purls: [x]}]", "no package URL"),
            ("vulnerabilities: [{id: CVE-1, expired_at: soon}]", "no day"),
            ("licenses: []", "neither"),
            ("- a", "read the ignore file"),
        ] {
            let error = read_yaml(text).unwrap_err();
            let said = format!(
                "{error}: {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            assert!(said.contains(why), "{text}: {said}");
        }
        let many = format!(
            "vulnerabilities: [{{id: CVE-1, paths: [{0}], purls: [{1}]}}]",
            "a,".repeat(1000),
            "'pkg:npm/a',".repeat(1000)
        );
        assert!(read_yaml(&many).is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nignore: []\n";
        assert!(read_yaml(bomb).is_err());
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in "\\PC{0,200}") {
            drop(read_yaml(&text));
        }
    }
}
