use dhow_types::ErrorKind;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::Error;
use crate::facts::{Facts, Known, Lifecycle, Point};
use crate::pattern::matches;
use crate::policy::{Action, LifecycleState, Policy, Rule};

/// Most names in one message.
const MOST_NAMED: usize = 5;
/// Seconds of a day.
const DAY: i64 = 86_400;

/// What a rule says to an image that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule.
    pub rule: String,
    /// What happens.
    pub action: Action,
    /// What is wrong.
    pub why: String,
    /// Why it is let through all the same.
    pub excepted: Option<String>,
}

/// What a policy says to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every rule that is broken, in the order of the policy.
    pub decisions: Vec<Decision>,
}

impl Verdict {
    /// What refuses the image.
    pub fn denials(&self) -> impl Iterator<Item = &Decision> {
        self.counting().filter(|decision| decision.action == Action::Deny)
    }

    /// What is only said.
    pub fn warnings(&self) -> impl Iterator<Item = &Decision> {
        self.counting().filter(|decision| decision.action == Action::Warn)
    }

    fn counting(&self) -> impl Iterator<Item = &Decision> {
        self.decisions
            .iter()
            .filter(|decision| decision.excepted.is_none())
    }

    /// The error of an image that is refused.
    ///
    /// # Errors
    /// `PermissionDenied` with every rule that refuses it.
    pub fn check(&self, facts: &Facts) -> Result<(), Error> {
        let denials: Vec<String> = self.denials().map(ToString::to_string).collect();
        if denials.is_empty() {
            return Ok(());
        }
        let message = format!(
            "policy denies {} of {}: {}",
            facts.point,
            facts.shown,
            denials.join("; ")
        );
        Err(Error::new(ErrorKind::PermissionDenied, message).with_hint(
            "dhow policy test shows every rule; an exception in the policy has a reason and an end",
        ))
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.why)
    }
}

/// What is wrong, with the names that an exception may have.
struct Broken {
    action: Action,
    /// What is wrong with each, or with the whole image when there is no name.
    parts: Vec<(Option<String>, String)>,
    what: &'static str,
}

/// What a policy says to an image.
#[must_use]
pub fn evaluate(policy: &Policy, facts: &Facts) -> Verdict {
    let mut decisions = Vec::new();
    for rule in policy.fitting(facts.point, facts.name.as_ref()) {
        for broken in judge(rule, facts) {
            decisions.extend(decide(policy, rule, facts, broken));
        }
    }
    Verdict { decisions }
}

/// Takes from what is wrong what exceptions let through: one decision of what is left, one of what is let through.
fn decide(policy: &Policy, rule: &Rule, facts: &Facts, broken: Broken) -> Vec<Decision> {
    let today = day(facts.now);
    let exceptions: Vec<_> = policy
        .exceptions
        .iter()
        .filter(|exception| {
            exception.is_for(rule, facts.name.as_ref()) && today.is_some_and(|today| today <= exception.until)
        })
        .collect();
    let mut left = Vec::new();
    let mut excepted: Vec<(&str, Vec<String>)> = Vec::new();
    for (id, why) in broken.parts {
        let fitting = exceptions.iter().find(|exception| {
            exception.ids.is_empty() || id.as_ref().is_some_and(|id| exception.ids.contains(id))
        });
        match fitting {
            Some(exception) => match excepted
                .iter_mut()
                .find(|(reason, _)| *reason == exception.reason)
            {
                Some((_, all)) => all.push(why),
                None => excepted.push((&exception.reason, vec![why])),
            },
            None => left.push(why),
        }
    }
    let made = |parts: Vec<String>, excepted: Option<&str>| Decision {
        rule: rule.name.clone(),
        action: broken.action,
        why: listed(broken.what, &parts),
        excepted: excepted.map(str::to_owned),
    };
    let mut decisions = Vec::new();
    if !left.is_empty() {
        decisions.push(made(left, None));
    }
    decisions.extend(
        excepted
            .into_iter()
            .map(|(reason, parts)| made(parts, Some(reason))),
    );
    decisions
}

fn listed(what: &str, parts: &[String]) -> String {
    let mut text = parts
        .iter()
        .take(MOST_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if parts.len() > MOST_NAMED {
        text.push_str(&format!(" and {} more", parts.len() - MOST_NAMED));
    }
    format!("{what}{text}")
}

fn judge(rule: &Rule, facts: &Facts) -> Vec<Broken> {
    let mut all = Vec::new();
    let whole = |why: String| Broken {
        action: rule.action,
        parts: vec![(None, why)],
        what: "",
    };
    if let Some(wanted) = &rule.signed_by {
        match &facts.signers {
            Known::Is(signers) if wanted.iter().any(|name| signers.contains(name)) => {}
            Known::Is(_) => all.push(whole(format!("it is not signed by {}", wanted.join(" or ")))),
            unknown => all.push(whole(not_known("who signed it", unknown))),
        }
    }
    if rule.tag_stated
        && facts.point == Point::Pull
        && let Some(why) = tag(rule, facts)
    {
        all.push(whole(why));
    }
    // What is in an image, and what is said of it, is judged when it is used: a pull has not got it yet.
    if facts.point != Point::Pull {
        all.extend(judge_content(rule, facts));
    }
    all
}

/// What is wrong with where the tag points to.
fn tag(rule: &Rule, facts: &Facts) -> Option<String> {
    let tag = match &facts.tag {
        Known::Is(Some(tag)) => tag,
        // By digest: there is no tag that could have been moved.
        Known::Is(None) => return None,
        unknown => return Some(not_known("what is stated of its tag", unknown)),
    };
    let wanted = rule.signed_by.as_deref().unwrap_or_default();
    let theirs = tag
        .stated
        .iter()
        .filter(|one| wanted.iter().any(|name| one.signers.contains(name)));
    let Some(newest) = theirs.max_by_key(|one| one.counter) else {
        return Some(format!(
            "{} did not state that its tag points to it",
            wanted.join(" or ")
        ));
    };
    if let Some(seen) = tag.seen.filter(|seen| *seen > newest.counter) {
        return Some(format!(
            "its tag was moved back: statement {} was seen here, this is {}",
            seen, newest.counter
        ));
    }
    if newest.expires <= facts.now {
        let when =
            Timestamp::from_second(newest.expires).map_or_else(|_| String::new(), |at| format!(" on {at}"));
        return Some(format!("the statement that its tag points to it expired{when}"));
    }
    None
}

fn judge_content(rule: &Rule, facts: &Facts) -> Vec<Broken> {
    let mut all = Vec::new();
    let whole = |why: String| Broken {
        action: rule.action,
        parts: vec![(None, why)],
        what: "",
    };
    if let Some(state) = rule.lifecycle {
        match &facts.lifecycle {
            Known::Is(Some(lifecycle)) => all.extend(ended(rule, state, lifecycle, facts.now)),
            Known::Is(None) => {}
            unknown => all.push(whole(not_known("how long its life is", unknown))),
        }
    }
    if let Some(days) = rule.max_age_days {
        match &facts.created {
            Known::Is(created) if facts.now.saturating_sub(*created) <= i64::from(days) * DAY => {}
            Known::Is(created) => {
                let age = facts.now.saturating_sub(*created) / DAY;
                all.push(whole(format!("it is {age} days old, {days} are allowed")));
            }
            unknown => all.push(whole(not_known("when it was made", unknown))),
        }
    }
    if let Some(bases) = &rule.base {
        match &facts.bases {
            Known::Is(found)
                if bases
                    .iter()
                    .any(|pattern| found.iter().any(|base| pattern.fits(Some(base)))) => {}
            Known::Is(_) => {
                let wanted: Vec<String> = bases.iter().map(ToString::to_string).collect();
                all.push(whole(format!("it is not made of {}", wanted.join(" or "))));
            }
            unknown => all.push(whole(not_known("what it was made of", unknown))),
        }
    }
    if rule.asks_for_vulnerabilities() {
        match &facts.vulnerabilities {
            Known::Is(found) => {
                let bad = found.iter().filter(|one| rule.is_broken_by(one));
                let parts = bad.map(|one| {
                    let used = if one.exploited { ", used by attackers" } else { "" };
                    let why = format!("{} in {} ({}{used})", one.id, one.package, one.severity.as_str());
                    (Some(one.id.clone()), why)
                });
                all.push(Broken {
                    action: rule.action,
                    parts: parts.collect(),
                    what: "it has ",
                });
            }
            unknown => all.push(whole(not_known("its vulnerabilities", unknown))),
        }
    }
    if let Some(denied) = &rule.denied_licences {
        match &facts.licences {
            Known::Is(found) => {
                let bad = found
                    .iter()
                    .filter(|one| denied.iter().any(|pattern| has_licence(pattern, &one.licence)));
                let parts = bad.map(|one| {
                    (
                        Some(one.package.clone()),
                        format!("{} under {}", one.package, one.licence),
                    )
                });
                all.push(Broken {
                    action: rule.action,
                    parts: parts.collect(),
                    what: "it has ",
                });
            }
            unknown => all.push(whole(not_known("its licences", unknown))),
        }
    }
    all.retain(|broken| !broken.parts.is_empty());
    all
}

/// Whether one of the licences in an expression (`MIT OR GPL-2.0`) is as a pattern says.
fn has_licence(pattern: &str, expression: &str) -> bool {
    let words = expression.split(|c: char| c.is_whitespace() || "(),;/|&".contains(c));
    std::iter::once(expression)
        .chain(words)
        .any(|word| matches(pattern, word))
}

fn not_known<T>(what: &str, unknown: &Known<T>) -> String {
    match unknown {
        Known::Unknown(why) => format!("{what} is not known: {why}"),
        Known::NotAsked | Known::Is(_) => format!("{what} is not known"),
    }
}

fn ended(rule: &Rule, state: LifecycleState, lifecycle: &Lifecycle, now: i64) -> Option<Broken> {
    let found = match lifecycle {
        Lifecycle { revoked: true, .. } => LifecycleState::Revoked,
        Lifecycle { end_of_life, .. } if *end_of_life <= now => LifecycleState::EndOfLife,
        _ => LifecycleState::Deprecated,
    };
    if found < state {
        return None;
    }
    let when = day(lifecycle.end_of_life).map_or_else(String::new, |day| format!(" on {day}"));
    let mut why = match found {
        LifecycleState::Revoked => "it was called back".to_owned(),
        LifecycleState::EndOfLife => format!("its life ended{when}"),
        LifecycleState::Deprecated => format!("its life ends{when}"),
    };
    if let Some(reason) = &lifecycle.reason {
        why.push_str(&format!(" ({reason})"));
    }
    if let Some(successor) = &lifecycle.successor {
        why.push_str(&format!("; {successor} takes its place"));
    }
    let action = if lifecycle.signed {
        rule.action
    } else {
        Action::Warn
    };
    if !lifecycle.signed {
        why.push_str("; nobody who is trusted signed that");
    }
    Some(Broken {
        action,
        parts: vec![(None, why)],
        what: "",
    })
}

fn day(at: i64) -> Option<Date> {
    let at = Timestamp::from_second(at).ok()?;
    Some(at.to_zoned(TimeZone::UTC).date())
}
