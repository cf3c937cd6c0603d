//! `build --check`: docker's rules about a Dockerfile that works but is not wise.
//!
//! The rules about the text need the text only. Those about variables walk each stage as a build does, with the
//! environment of the base image: where that is not known, what would depend on it is not said.

mod outline;
mod rule;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{CheckDirective, Dockerfile, Instruction, Span, Stage};
use dhow_oci::ImageConfig;
use dhow_types::Platform;

pub use outline::{Outline, Parameter, Target, Wanted};
pub(crate) use outline::{outline, targets};
pub use rule::Rule;

use crate::failure::{Error, Trouble};
use crate::ignore::Patterns;
use crate::request::Request;

/// What a rule has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// Docker's sentence with the words that it is about.
    pub detail: String,
    /// Where in the Dockerfile.
    pub at: Span,
}

/// Which rules are checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    skip: Vec<String>,
    experimental: Vec<String>,
    /// Whether a warning fails the build.
    pub(crate) error: bool,
}

impl Choice {
    /// What the build argument says, or else the directive.
    pub(crate) fn new(file: &Dockerfile, request: &Request) -> Result<Self, Error> {
        let from_argument = match request.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
            Some(text) => Some(CheckDirective::parse(text).map_err(crate::failure::invalid)?),
            None => None,
        };
        let mut choice = Self::default();
        if let Some(directive) = from_argument.as_ref().or(file.check.as_ref()) {
            choice.add(directive);
            choice.error = directive.error;
        }
        Ok(choice)
    }

    fn add(&mut self, directive: &CheckDirective) {
        self.skip.extend_from_slice(&directive.skip);
        self.experimental.extend_from_slice(&directive.experimental);
    }

    /// The same with what the comments above an instruction say.
    fn with_comments(&self, comments: &[String]) -> Self {
        let mut choice = self.clone();
        let found = comments
            .iter()
            .find_map(|comment| CheckDirective::of_comment(comment));
        if let Some(directive) = found {
            choice.add(&directive);
        }
        choice
    }

    fn wants(&self, rule: Rule) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == "all" || name == rule.name());
        if rule.experimental() {
            names(&self.experimental)
        } else {
            !names(&self.skip)
        }
    }
}

/// What is known around the file.
pub(crate) struct Around<'a> {
    pub(crate) file: &'a Dockerfile,
    pub(crate) request: &'a Request,
    /// The config of a base image by name, when it can be had.
    pub(crate) base: &'a dyn Fn(&str, &Platform) -> Option<ImageConfig>,
    /// What is no part of the context.
    pub(crate) ignore: Option<&'a Patterns>,
    /// Stages that are built; all when `None`.
    pub(crate) reached: Option<&'a BTreeSet<usize>>,
}

/// Everything that the rules have to say, and the first error of the file.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) warnings: Vec<Warning>,
    /// Arguments before the first `FROM`, also those without a value.
    declared: BTreeSet<String>,
    pub(crate) trouble: Option<Box<Trouble>>,
}

impl Findings {
    fn say(&mut self, choice: &Choice, rule: Rule, at: Span, detail: String) {
        if choice.wants(rule) {
            self.warnings.push(Warning { rule, detail, at });
        }
    }
}

/// The keyword as it was written.
fn keyword(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Checks a file.
pub(crate) fn check(around: &Around<'_>, choice: &Choice) -> Findings {
    let mut found = lines(around.file, choice);
    check_names(&mut found, choice, &around.file.stages);
    check_casing(&mut found, choice, &around.file.stages);
    walk::stages(around, choice, &mut found);
    found
}

/// What can be said of each instruction by itself, up to the first one that is wrong.
pub(crate) fn lines_before(file: &Dockerfile, choice: &Choice, error: Span) -> Vec<Warning> {
    let mut warnings = lines(file, choice).warnings;
    warnings.retain(|warning| warning.at.start < error.start);
    warnings
}

fn lines(file: &Dockerfile, choice: &Choice) -> Findings {
    let mut found = Findings::default();
    for warning in &file.warnings {
        let detail = "Empty continuation line".to_owned();
        found.say(choice, Rule::NoEmptyContinuation, warning.at, detail);
    }
    for instruction in &file.args {
        describe_arguments(&mut found, choice, instruction);
        if let dhow_dockerfile::Op::Arg(definitions) = &instruction.op {
            let names = definitions.iter().map(|definition| definition.name.clone());
            found.declared.extend(names);
        }
    }
    for stage in &file.stages {
        check_from(&mut found, choice, stage);
        for instruction in &stage.instructions {
            check_text(&mut found, choice, instruction);
        }
    }
    found
}

/// What can be said of a `FROM` line by itself.
fn check_from(found: &mut Findings, choice: &Choice, stage: &Stage) {
    let choice = choice.with_comments(&stage.comments);
    let Some(name) = &stage.name else { return };
    let words: Vec<&str> = stage.text.split_whitespace().collect();
    let [from, .., as_word, written] = words.as_slice() else {
        return;
    };
    if *written != written.to_lowercase() {
        let detail = format!("Stage name '{written}' should be lowercase");
        found.say(&choice, Rule::StageNameCasing, stage.at, detail);
    }
    let fits = match (*from == from.to_lowercase(), *from == from.to_uppercase()) {
        (true, _) => *as_word == as_word.to_lowercase(),
        (false, true) => *as_word == as_word.to_uppercase(),
        // The other rule about casing speaks of it.
        (false, false) => true,
    };
    if !fits {
        let detail = format!("'{as_word}' and '{from}' keywords' casing do not match");
        found.say(&choice, Rule::FromAsCasing, stage.at, detail);
    }
    describe(found, &choice, "FROM", &[name], &stage.comments, stage.at);
}

fn check_text(found: &mut Findings, choice: &Choice, instruction: &Instruction) {
    match &instruction.op {
        dhow_dockerfile::Op::Maintainer(_) => {
            let choice = choice.with_comments(&instruction.comments);
            let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
            found.say(&choice, Rule::MaintainerDeprecated, instruction.at, detail);
        }
        dhow_dockerfile::Op::Arg(_) => describe_arguments(found, choice, instruction),
        _ => {}
    }
}

fn describe_arguments(found: &mut Findings, choice: &Choice, instruction: &Instruction) {
    if let dhow_dockerfile::Op::Arg(definitions) = &instruction.op {
        let choice = choice.with_comments(&instruction.comments);
        let names: Vec<&String> = definitions.iter().map(|definition| &definition.name).collect();
        describe(
            found,
            &choice,
            "ARG",
            &names,
            &instruction.comments,
            instruction.at,
        );
    }
}

/// The last comment above a definition begins with its name.
fn describe(
    found: &mut Findings,
    choice: &Choice,
    kind: &str,
    names: &[&String],
    comments: &[String],
    at: Span,
) {
    let (Some(comment), Some(first)) = (comments.last(), names.first()) else {
        return;
    };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| *name == word) {
        return;
    }
    let shown = if names.len() > 1 {
        "<arg_key>"
    } else {
        first.as_str()
    };
    let detail = format!("Comment for {kind} should follow the format: `# {shown} <description>`");
    found.say(choice, Rule::InvalidDefinitionDescription, at, detail);
}

fn check_names(found: &mut Findings, choice: &Choice, stages: &[Stage]) {
    let mut seen = BTreeSet::new();
    for stage in stages {
        let Some(name) = &stage.name else { continue };
        if matches!(name.as_str(), "context" | "scratch") {
            let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
            found.say(choice, Rule::ReservedStageName, stage.at, detail);
        }
        if !seen.insert(name) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            found.say(choice, Rule::DuplicateStageName, stage.at, detail);
        }
    }
}

fn check_casing(found: &mut Findings, choice: &Choice, stages: &[Stage]) {
    let keywords: Vec<(&str, Span)> = stages
        .iter()
        .flat_map(|stage| {
            let own = stage
                .instructions
                .iter()
                .map(|instruction| (&instruction.text, instruction.at));
            std::iter::once((&stage.text, stage.at)).chain(own)
        })
        .map(|(text, at)| (keyword(text), at))
        .collect();
    let lower = keywords
        .iter()
        .filter(|(word, _)| *word == word.to_lowercase())
        .count();
    let upper = keywords
        .iter()
        .filter(|(word, _)| *word == word.to_uppercase())
        .count();
    for (word, at) in keywords {
        let (wanted, casing) = if lower > upper {
            (word.to_lowercase(), "lowercase")
        } else {
            (word.to_uppercase(), "uppercase")
        };
        if word != wanted {
            let detail = format!("Command '{word}' should match the case of the command majority ({casing})");
            found.say(choice, Rule::ConsistentInstructionCasing, at, detail);
        }
    }
}

/// The option that differs from `word` by one or two letters, as docker guesses (`util/suggest`).
fn nearest<'a>(word: &str, options: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let mut best = None;
    for option in options {
        if option == word {
            return None;
        }
        let distance = distance(word, option);
        if distance < best.map_or(3, |(least, _)| least) {
            best = Some((distance, option.as_str()));
        }
    }
    best.map(|(_, option)| option)
}

/// Levenshtein's distance, or 3 for whatever is more.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 || a.len() > 256 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()].min(3)
}

/// Values by name.
pub(crate) type Values = BTreeMap<String, String>;
