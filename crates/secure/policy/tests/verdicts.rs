use std::collections::BTreeSet;

use dhow_policy::{
    Action, Facts, ImagePattern, Known, Licence, Lifecycle, Point, Policy, Severity, TagFact, TagFacts,
    Verdict, Vulnerability, evaluate,
};
use dhow_reference::Reference;
use dhow_types::ErrorKind;
use proptest::prelude::*;

/// 2026-11-29, 12:00.
const NOW: i64 = 1_795_953_600;
const DAY: i64 = 86_400;

fn facts(point: Point, name: &str) -> Facts {
    Facts::new(point, Some(Reference::parse(name).unwrap()), name, NOW)
}

fn policy(rule: &str) -> Policy {
    let text = format!(
        "version = 1\n[signer.ada]\nkeys = [\"/k/ada.pub\"]\n[[rule]]\nname = \"r\"\naction = \"deny\"\n{rule}\n"
    );
    Policy::parse(&text).unwrap_or_else(|error| panic!("{rule}: {error:?}"))
}

fn denied(verdict: &Verdict) -> Vec<String> {
    verdict.denials().map(|decision| decision.why.clone()).collect()
}

fn vulnerable(id: &str, severity: Severity, fixed: bool) -> Vulnerability {
    Vulnerability {
        id: id.to_owned(),
        severity,
        package: "openssl".to_owned(),
        fixed,
        exploited: false,
        epss: None,
    }
}

#[test]
fn what_attackers_use_breaks_a_rule_whatever_its_severity() {
    let mut used = vulnerable("CVE-1", Severity::Low, false);
    used.exploited = true;
    let mut likely = vulnerable("CVE-2", Severity::Low, true);
    likely.epss = Some(50_000);
    let found = Facts {
        vulnerabilities: Known::Is(vec![used, likely, vulnerable("CVE-3", Severity::Medium, true)]),
        ..facts(Point::Run, "r.example/a:1")
    };
    let (used, likely) = (
        "CVE-1 in openssl (low, used by attackers)",
        "CVE-2 in openssl (low)",
    );
    for (rule, parts) in [
        ("known-exploited = true", vec![used]),
        ("epss = 0.5", vec![likely]),
        ("epss = 0.51", vec![]),
        ("epss = 0.5\nknown-exploited = true", vec![used, likely]),
        (
            "epss = 0.5\nknown-exploited = true\nonly-fixed = true",
            vec![likely],
        ),
        (
            "epss = 0.5\nseverity = \"medium\"",
            vec![likely, "CVE-3 in openssl (medium)"],
        ),
    ] {
        let wanted: Vec<String> = match parts.len() {
            0 => Vec::new(),
            _ => vec![format!("it has {}", parts.join(", "))],
        };
        assert_eq!(denied(&evaluate(&policy(rule), &found)), wanted, "{rule}");
    }
    let unknown = facts(Point::Run, "r.example/a:1");
    assert_eq!(
        denied(&evaluate(&policy("known-exploited = true"), &unknown)).len(),
        1
    );
}

#[test]
fn who_must_sign_is_one_of_the_named_and_what_is_not_known_is_not_taken_for_good() {
    let policy = policy("signed-by = [\"ada\"]");
    for (signers, count) in [
        (Known::Is(BTreeSet::from(["ada".to_owned()])), 0),
        (Known::Is(BTreeSet::from(["bob".to_owned()])), 1),
        (Known::Is(BTreeSet::new()), 1),
        (Known::Unknown("the registry does not answer".to_owned()), 1),
        (Known::NotAsked, 1),
    ] {
        let facts = Facts {
            signers,
            ..facts(Point::Pull, "r.example/a:1")
        };
        let verdict = evaluate(&policy, &facts);
        assert_eq!(denied(&verdict).len(), count, "{verdict:?}");
        assert_eq!(verdict.check(&facts).is_err(), count == 1);
    }
    let facts = facts(Point::Run, "a");
    let error = evaluate(&policy, &facts).check(&facts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error.to_string().starts_with("policy denies run of a: rule r: "),
        "{error}"
    );
}

#[test]
fn vulnerabilities_count_from_the_severity_on_and_without_those_that_are_excepted() {
    let facts = |found: Vec<Vulnerability>| Facts {
        vulnerabilities: Known::Is(found),
        ..facts(Point::Run, "r.example/a:1")
    };
    let found = facts(vec![
        vulnerable("CVE-1", Severity::Critical, false),
        vulnerable("CVE-2", Severity::High, true),
        vulnerable("CVE-3", Severity::Medium, true),
    ]);
    let high = policy("severity = \"high\"");
    let both = "it has CVE-1 in openssl (critical), CVE-2 in openssl (high)";
    assert_eq!(denied(&evaluate(&high, &found)), [both]);
    let fixed = policy("severity = \"high\"\nonly-fixed = true");
    assert_eq!(
        denied(&evaluate(&fixed, &found)),
        ["it has CVE-2 in openssl (high)"]
    );
    assert!(evaluate(&high, &facts(Vec::new())).decisions.is_empty());
    let excepted = |until: &str| {
        let exception = "[[exception]]\nrule = \"r\"\nids = [\"CVE-1\"]\nreason = \"not reachable\"";
        policy(&format!("severity = \"high\"\n{exception}\nuntil = \"{until}\""))
    };
    let verdict = evaluate(&excepted("2026-11-29"), &found);
    assert_eq!(denied(&verdict), ["it has CVE-2 in openssl (high)"]);
    assert_eq!(verdict.decisions[1].excepted.as_deref(), Some("not reachable"));
    // The day after, it counts again.
    assert_eq!(denied(&evaluate(&excepted("2026-11-28"), &found)), [both]);
    let many = (0..9).map(|n| vulnerable(&format!("CVE-{n}"), Severity::High, true));
    let many = facts(many.collect());
    assert!(denied(&evaluate(&high, &many))[0].ends_with("and 4 more"));
}

#[test]
fn an_exception_without_names_is_from_the_whole_rule_for_its_images() {
    let exception = "[[exception]]\nrule = \"r\"\nimages = [\"r.example/old/*\"]\nreason = \"frozen\"\nuntil = \"2027-01-31\"";
    let policy = policy(&format!("max-age-days = 30\n{exception}"));
    let aged = |name: &str, days: i64| Facts {
        created: Known::Is(NOW - days * DAY),
        ..facts(Point::Run, name)
    };
    assert!(denied(&evaluate(&policy, &aged("r.example/a:1", 30))).is_empty());
    let old = evaluate(&policy, &aged("r.example/a:1", 31));
    assert_eq!(denied(&old), ["it is 31 days old, 30 are allowed"]);
    assert!(denied(&evaluate(&policy, &aged("r.example/old/a:1", 400))).is_empty());
}

#[test]
fn the_end_of_a_life_warns_before_denies_after_and_only_warns_when_nobody_signed_it() {
    let ends = |at: i64, revoked: bool, signed: bool| Facts {
        lifecycle: Known::Is(Some(Lifecycle {
            end_of_life: at,
            revoked,
            successor: Some("r.example/a:2".to_owned()),
            reason: Some("old".to_owned()),
            signed,
        })),
        ..facts(Point::Run, "r.example/a:1")
    };
    let ended = policy("lifecycle = \"end-of-life\"");
    assert!(
        evaluate(&ended, &ends(NOW + DAY, false, true))
            .decisions
            .is_empty()
    );
    let verdict = evaluate(&ended, &ends(NOW, false, true));
    assert_eq!(
        denied(&verdict),
        ["its life ended on 2026-11-29 (old); r.example/a:2 takes its place"]
    );
    assert_eq!(denied(&evaluate(&ended, &ends(NOW + DAY, true, true))).len(), 1);
    let deprecated = policy("lifecycle = \"deprecated\"");
    assert_eq!(
        denied(&evaluate(&deprecated, &ends(NOW + DAY, false, true))).len(),
        1
    );
    let revoked = policy("lifecycle = \"revoked\"");
    assert!(
        evaluate(&revoked, &ends(NOW - DAY, false, true))
            .decisions
            .is_empty()
    );
    // Anybody could have put it there.
    let verdict = evaluate(&ended, &ends(NOW - DAY, true, false));
    assert!(denied(&verdict).is_empty());
    assert_eq!(verdict.warnings().count(), 1);
    let none = Facts {
        lifecycle: Known::Is(None),
        ..facts(Point::Run, "r.example/a:1")
    };
    assert!(evaluate(&ended, &none).decisions.is_empty());
}

#[test]
fn a_tag_must_be_stated_in_time_by_who_may_and_never_go_back() {
    let policy = policy("signed-by = [\"ada\"]\ntag-stated = true");
    let ada = BTreeSet::from(["ada".to_owned()]);
    let stated = |signer: &str, counter: u64, expires: i64| TagFact {
        signers: BTreeSet::from([signer.to_owned()]),
        counter,
        expires,
    };
    let asked = |tag: Known<Option<TagFacts>>| {
        let facts = Facts {
            signers: Known::Is(ada.clone()),
            tag,
            ..facts(Point::Pull, "r.example/a:1")
        };
        denied(&evaluate(&policy, &facts)).join(", ")
    };
    let with = |stated: Vec<TagFact>, seen: Option<u64>| asked(Known::Is(Some(TagFacts { stated, seen })));
    assert_eq!(with(vec![stated("ada", 7, NOW + 1)], None), "");
    assert_eq!(with(vec![stated("ada", 7, NOW + 1)], Some(7)), "");
    // Bob's newer one neither helps nor harms.
    assert_eq!(
        with(vec![stated("ada", 7, NOW + 1), stated("bob", 9, NOW - 1)], None),
        ""
    );
    assert!(with(vec![stated("bob", 7, NOW + 1)], None).contains("did not state"));
    assert!(with(Vec::new(), None).contains("did not state"));
    assert!(with(vec![stated("ada", 7, NOW)], None).contains("expired on 2026-11-29"));
    assert!(with(vec![stated("ada", 6, NOW + 1)], Some(7)).contains("moved back"));
    assert!(asked(Known::NotAsked).contains("not known"));
    assert_eq!(asked(Known::Is(None)), "");
}

#[test]
fn bases_and_licences_are_compared_as_patterns() {
    let base = policy("base = [\"debian:12*\", \"r.example/base/**\"]");
    let made_of = |bases: &[&str]| Facts {
        bases: Known::Is(bases.iter().map(|name| Reference::parse(name).unwrap()).collect()),
        ..facts(Point::Push, "r.example/a:1")
    };
    for (bases, good) in [
        (&["debian:12"][..], true),
        (&["debian:12.5"], true),
        (&["debian:11"], false),
        (&["r.example/base/x/y:1"], true),
        (&["alpine:3", "debian:12-slim"], true),
        (&["evil.example/library/debian:12"], false),
        (&[], false),
    ] {
        assert_eq!(
            denied(&evaluate(&base, &made_of(bases))).is_empty(),
            good,
            "{bases:?}"
        );
    }
    let licence = policy("denied-licences = [\"AGPL-*\", \"SSPL-1.0\"]");
    let under = |licence: &str| Facts {
        licences: Known::Is(vec![Licence {
            package: "db".to_owned(),
            licence: licence.to_owned(),
        }]),
        ..facts(Point::Run, "r.example/a:1")
    };
    for (text, good) in [
        ("MIT", true),
        ("AGPL-3.0-only", false),
        ("(MIT OR AGPL-3.0-only)", false),
        ("LGPL-2.1", true),
        ("SSPL-1.0", false),
    ] {
        assert_eq!(
            denied(&evaluate(&licence, &under(text))).is_empty(),
            good,
            "{text}"
        );
    }
}

#[test]
fn a_pull_asks_for_nothing_that_is_in_the_image() {
    let policy = policy("signed-by = [\"ada\"]\nseverity = \"low\"\nmax-age-days = 1");
    let name = Reference::parse("r.example/a:1").unwrap();
    let needs = policy.needs(Point::Pull, Some(&name));
    assert!(needs.signers && !needs.vulnerabilities && !needs.created);
    let needs = policy.needs(Point::Run, Some(&name));
    assert!(needs.signers && needs.vulnerabilities && needs.created && !needs.licences);
    let signed = Facts {
        signers: Known::Is(BTreeSet::from(["ada".to_owned()])),
        ..facts(Point::Pull, "r.example/a:1")
    };
    assert!(evaluate(&policy, &signed).decisions.is_empty());
}

#[test]
fn a_rule_counts_for_its_images_and_at_its_points_and_may_only_warn() {
    let policy = Policy::parse(
        r#"{"version": 1, "signer": {"ada": {"keys": ["/k"]}}, "rule": [
            {"name": "w", "action": "warn", "images": ["r.example/**"], "at": ["run"], "signed-by": ["ada"]}]}"#,
    )
    .unwrap();
    let asked = |point: Point, name: &str| evaluate(&policy, &facts(point, name));
    let verdict = asked(Point::Run, "r.example/x/y:1");
    assert_eq!(verdict.decisions[0].action, Action::Warn);
    assert!(verdict.check(&facts(Point::Run, "x")).is_ok());
    assert!(asked(Point::Pull, "r.example/x/y:1").decisions.is_empty());
    assert!(asked(Point::Run, "other.example/x:1").decisions.is_empty());
    let nameless = Facts::new(Point::Run, None, "sha256:0", NOW);
    assert!(evaluate(&policy, &nameless).decisions.is_empty());
}

#[test]
fn a_policy_that_protects_less_than_it_seems_to_is_none() {
    let rule = |body: &str| format!("version = 1\n[[rule]]\nname = \"r\"\naction = \"deny\"\n{body}\n");
    let exception = |body: &str| rule(&format!("severity = \"high\"\n[[exception]]\n{body}"));
    for (bad, why) in [
        (String::new(), "version"),
        ("version = 2".to_owned(), "version"),
        ("version = 1\nrules = []".to_owned(), "rules"),
        (rule(""), "asks for nothing"),
        (rule("severty = \"high\""), "severty"),
        (rule("signed-by = [\"bob\"]"), "not in the policy"),
        (rule("base = []"), "empty"),
        (
            rule("severity = \"high\"\ntag-stated = true"),
            "without signed-by",
        ),
        (rule("only-fixed = true\nmax-age-days = 1"), "without severity"),
        (rule("epss = 50"), "not from 0 to 1"),
        (rule("severity = \"bad\""), "bad"),
        (rule("max-age-days = 99999"), "days"),
        (
            exception("rule = \"x\"\nreason = \"y\"\nuntil = \"2027-01-01\""),
            "does not have",
        ),
        (
            exception("rule = \"r\"\nreason = \" \"\nuntil = \"2027-01-01\""),
            "without a reason",
        ),
        (exception("rule = \"r\"\nreason = \"y\""), "until"),
        (
            exception("rule = \"r\"\nreason = \"y\"\nuntil = \"soon\""),
            "no day",
        ),
        (
            rule("severity = \"high\"") + "[[rule]]\nname = \"r\"\naction = \"warn\"\nmax-age-days = 1",
            "two rules",
        ),
        ("version = 1\n[signer.ada]".to_owned(), "without keys"),
        (
            "version = 1\n[[lifecycle]]\nsigned-by = [\"bob\"]".to_owned(),
            "who is not in it",
        ),
        (
            "version = 1\n[[lifecycle]]\nsigned-by = []".to_owned(),
            "nobody may sign",
        ),
        (
            "version = 1\n[signer.ada]\nkeys = [\"ada.pub\"]".to_owned(),
            "not absolute",
        ),
        (
            "version = 1\n[signer.ci]\ntrusted-root = \"/r\"\nidentity = \"x\"".to_owned(),
            "without identity and issuer",
        ),
    ] {
        let error = Policy::parse(&bad).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error} {cause:?}");
        assert!(text.contains(why), "{bad}: {text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "(version = 1\n)?(\\[\\[rule\\]\\]\n)?[ -~\n]{0,120}") {
        drop(Policy::parse(&text));
    }

    #[test]
    fn a_pattern_that_is_a_name_fits_that_name_and_stars_cost_no_more(name in "[a-z]{1,8}\\.[a-z]{2}/[a-z]{1,8}/[a-z]{1,8}", stars in "[a*]{1,200}") {
        let reference = Reference::parse(&format!("{name}:1")).unwrap();
        let fits = |pattern: &str| ImagePattern::parse(pattern).unwrap().fits(Some(&reference));
        let (host, _) = name.split_once('/').unwrap();
        for pattern in [name.clone(), format!("{name}:1"), "*".to_owned(), format!("{host}/**")] {
            prop_assert!(fits(&pattern), "{}", pattern);
        }
        for pattern in [format!("{name}:2"), format!("{host}/*")] {
            prop_assert!(!fits(&pattern), "{}", pattern);
        }
        // In bounded time, whatever the stars.
        let started = std::time::Instant::now();
        drop(ImagePattern::parse(&stars).map(|pattern| pattern.fits(Some(&reference))));
        prop_assert!(started.elapsed().as_secs() < 5);
    }
}

#[test]
fn whoever_may_retire_images_may_so_for_those_that_are_named() {
    let policy = Policy::parse(
        "version = 1\n[signer.ada]\nkeys = [\"/k/a\"]\n[signer.bob]\nkeys = [\"/k/b\"]\n\
         [[lifecycle]]\nimages = [\"r.example/a/**\"]\nsigned-by = [\"ada\"]\n[[lifecycle]]\nsigned-by = [\"bob\"]\n",
    )
    .unwrap();
    let may = |name: &str| {
        let name = Reference::parse(name).unwrap();
        policy
            .retirers(&name)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(may("r.example/a/app:1"), ["ada", "bob"]);
    assert_eq!(may("r.example/b/app:1"), ["bob"]);
}
