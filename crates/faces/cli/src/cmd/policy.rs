//! `policy test` and `policy show`: what the policies in force say, and what they ask.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::PolicyTest;
use dhow_engine::policies::{Action, Containers, Exception, InForce, LifecycleState, Point, Policy, Rule};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::render::{say, table};
use crate::{CliError, Context, Verb};

pub(crate) const TEST: Verb = Verb {
    name: "test",
    about: "Say what the policies in force say to an image; exit with 1 if they refuse it",
    flags: |command| TestFlags::augment_args(command),
    run: test,
};

pub(crate) const SHOW: Verb = Verb {
    name: "show",
    about: "Show the policies in force, and where they are",
    flags: |command| ShowFlags::augment_args(command),
    run: show,
};

#[derive(Args, Debug)]
struct TestFlags {
    /// Where it is asked: pull (the image in its registry), run, build or push; by default run, or pull of one that is not here
    #[arg(long, value_name = "POINT")]
    at: Vec<Point>,
    /// Format output: table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Args, Debug)]
struct ShowFlags {}

fn test(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: TestFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let local = super::local_image(engine, &flags.image);
    let is_here = engine.image(&local).is_ok();
    let mut points = flags.at.clone();
    if points.is_empty() {
        points.push(if is_here { Point::Run } else { Point::Pull });
    }
    // Pulls last: asking a registry starts a thread, and whoever looks through layers must be alone.
    points.sort_by_key(|point| *point == Point::Pull);
    let mut tests = Vec::new();
    for point in points {
        let name = if point == Point::Pull {
            &flags.image
        } else {
            &local
        };
        tests.push(engine.test_policy(name, point)?);
    }
    let denied = tests.iter().any(denies);
    say(&match flags.format.as_str() {
        "json" => super::sbom::pretty(&Value::Array(tests.iter().map(document).collect())),
        _ => listed(&tests),
    })?;
    Ok(if denied {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn denies(test: &PolicyTest) -> bool {
    let by_containers = matches!(&test.containers, Some((_, Err(_))));
    let by_own = test
        .verdict
        .as_ref()
        .is_some_and(|verdict| verdict.denials().next().is_some());
    by_containers || by_own
}

/// Rule, what becomes of it, and why.
fn rows(test: &PolicyTest) -> Vec<(String, &'static str, String)> {
    let mut rows = Vec::new();
    match &test.containers {
        Some((scope, Ok(()))) => rows.push((format!("policy.json {scope}"), "allow", String::new())),
        Some((scope, Err(why))) => rows.push((format!("policy.json {scope}"), "deny", why.clone())),
        None => {}
    }
    for decision in test.verdict.iter().flat_map(|verdict| &verdict.decisions) {
        let (word, why) = match (&decision.excepted, decision.action) {
            (Some(reason), _) => ("except", format!("{} (excepted: {reason})", decision.why)),
            (None, Action::Warn) => ("warn", decision.why.clone()),
            (None, Action::Deny) => ("deny", decision.why.clone()),
        };
        rows.push((decision.rule.clone(), word, why));
    }
    rows
}

fn listed(tests: &[PolicyTest]) -> String {
    let mut text = "AT\tVERDICT\tRULE\tWHY\n".to_owned();
    for test in tests {
        let point = test.facts.point;
        let rows = rows(test);
        if rows.is_empty() {
            text.push_str(&format!("{point}\tallow\t\t\n"));
        }
        for (rule, word, why) in rows {
            text.push_str(&format!("{point}\t{word}\t{rule}\t{why}\n"));
        }
    }
    table::align(&text)
}

fn document(test: &PolicyTest) -> Value {
    let rows = rows(test).into_iter();
    let rules = rows.map(|(rule, word, why)| json!({"Rule": rule, "Verdict": word, "Why": why}));
    json!({
        "At": test.facts.point.as_str(),
        "Image": test.facts.shown,
        "Denied": denies(test),
        "Rules": rules.collect::<Vec<_>>(),
    })
}

fn show(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let ShowFlags {} = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let mut text = String::new();
    if let Some(policy) = engine.containers_policy()? {
        text.push_str(&shown_containers(policy));
    }
    if let Some(policy) = engine.own_policy()? {
        text.push_str(&shown_own(policy));
    }
    if text.is_empty() {
        "no policy is in force: every image may be pulled and used\n".clone_into(&mut text);
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown_containers(found: &InForce<Containers>) -> String {
    let mut rows = "SCOPE\tREQUIRES\n".to_owned();
    for (scope, requirements) in found.policy.scopes() {
        let words: Vec<&str> = requirements.iter().map(|one| one.as_str()).collect();
        rows.push_str(&format!("{scope}\t{}\n", words.join(", ")));
    }
    format!("{} (pulls)\n{}", found.path.display(), table::align(&rows))
}

fn shown_own(found: &InForce<Policy>) -> String {
    let policy = &found.policy;
    let mut rows = "RULE\tACTION\tAT\tIMAGES\tASKS\n".to_owned();
    for rule in &policy.rules {
        let points: Vec<&str> = rule.at.iter().map(|point| point.as_str()).collect();
        let images: Vec<String> = rule.images.iter().map(ToString::to_string).collect();
        let or_all = |list: String| if list.is_empty() { "all".to_owned() } else { list };
        rows.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            rule.name,
            if rule.action == Action::Deny {
                "deny"
            } else {
                "warn"
            },
            or_all(points.join(",")),
            or_all(images.join(",")),
            asks(rule)
        ));
    }
    let mut text = format!("{}\n{}", found.path.display(), table::align(&rows));
    if !policy.exceptions.is_empty() {
        let mut rows = "EXCEPTION\tIMAGES\tFROM\tUNTIL\tREASON\n".to_owned();
        rows.extend(policy.exceptions.iter().map(exception));
        text.push_str(&table::align(&rows));
    }
    text
}

fn exception(exception: &Exception) -> String {
    let images: Vec<String> = exception.images.iter().map(ToString::to_string).collect();
    let images = if images.is_empty() {
        "all".to_owned()
    } else {
        images.join(",")
    };
    let from = if exception.ids.is_empty() {
        "the rule".to_owned()
    } else {
        exception.ids.join(",")
    };
    let over = Timestamp::now().to_zoned(TimeZone::UTC).date() > exception.until;
    let until = if over {
        format!("{} (over)", exception.until)
    } else {
        exception.until.to_string()
    };
    format!(
        "{}\t{images}\t{from}\t{until}\t{}\n",
        exception.rule, exception.reason
    )
}

/// What a rule asks, in words.
fn asks(rule: &Rule) -> String {
    let mut asks = Vec::new();
    if let Some(names) = &rule.signed_by {
        asks.push(format!("signed by {}", names.join(" or ")));
    }
    if rule.tag_stated {
        asks.push("with a statement of the tag".to_owned());
    }
    if let Some(severity) = rule.severity {
        let fixed = if rule.only_fixed { "fixed " } else { "" };
        asks.push(format!(
            "no {fixed}vulnerability of {} or worse",
            severity.as_str()
        ));
    }
    if let Some(days) = rule.max_age_days {
        asks.push(format!("at most {days} days old"));
    }
    if let Some(bases) = &rule.base {
        let names: Vec<String> = bases.iter().map(ToString::to_string).collect();
        asks.push(format!("made of {}", names.join(" or ")));
    }
    match rule.lifecycle {
        Some(LifecycleState::Deprecated) => asks.push("no end in sight".to_owned()),
        Some(LifecycleState::EndOfLife) => asks.push("not at its end".to_owned()),
        Some(LifecycleState::Revoked) => asks.push("not revoked".to_owned()),
        None => {}
    }
    if let Some(licences) = &rule.denied_licences {
        asks.push(format!("no licence {}", licences.join(" or ")));
    }
    asks.join("; ")
}
