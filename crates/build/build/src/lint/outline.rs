//! `build --call outline` and `--call targets`: what a Dockerfile can be built with.

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{Dockerfile, Expand, Instruction, Mount, MountKind, Op, Span};

use super::walk::{Scope, begin, expand};
use super::{Around, Choice, Findings};
use crate::failure::Trouble;
use crate::plan::{Base, Plan};

/// What one target can be built with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The stage's name; `None` when it has none.
    pub name: Option<String>,
    /// The comment above it, when it describes it.
    pub description: String,
    /// Build arguments, in the order of the file.
    pub args: Vec<Parameter>,
    /// Secrets.
    pub secrets: Vec<Wanted>,
    /// Ssh agents.
    pub ssh: Vec<Wanted>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The comment above it, when it describes it.
    pub description: String,
    /// Its value without a `--build-arg`, or with the given one.
    pub value: String,
    /// Where it is declared.
    pub at: Span,
}

/// A secret or agent that some command mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub name: String,
    /// Whether the command cannot do without.
    pub required: bool,
    /// Where it is mounted first.
    pub at: Span,
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; `None` when it has none.
    pub name: Option<String>,
    /// Whether it is built when no target is named.
    pub default: bool,
    /// The comment above it, when it describes it.
    pub description: String,
    /// Its base, as written.
    pub base: String,
    /// Its platform, as written.
    pub platform: Option<String>,
    /// Where.
    pub at: Span,
}

/// The comment that begins with the name of what it describes.
pub(crate) fn description(comments: &[String], name: &str) -> String {
    let after = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(after).unwrap_or_default()
}

/// The stages of a file.
pub(crate) fn targets(file: &Dockerfile) -> Vec<Target> {
    let stages = &file.stages;
    let last = stages.len().saturating_sub(1);
    let target = |(index, stage): (usize, &dhow_dockerfile::Stage)| Target {
        name: stage.name.clone(),
        default: index == last,
        description: stage
            .name
            .as_deref()
            .map_or_else(String::new, |name| description(&stage.comments, name)),
        base: stage.base.clone(),
        platform: stage.platform.clone(),
        at: stage.at,
    };
    stages.iter().enumerate().map(target).collect()
}

/// What is known of one stage.
#[derive(Clone, Debug, Default)]
struct Known {
    all: BTreeMap<String, (Parameter, BTreeSet<String>)>,
    used: BTreeSet<String>,
    secrets: BTreeMap<String, Wanted>,
    ssh: BTreeMap<String, Wanted>,
}

/// What the target can be built with.
pub(crate) fn outline(around: &Around<'_>) -> Result<Outline, Trouble> {
    let plan = Plan::new(around.file, around.request)?;
    let settings = Expand {
        escape: around.file.escape,
        ..Expand::default()
    };
    let globals = globals(around, &settings)?;
    let mut ends: Vec<Scope> = Vec::new();
    let mut known: Vec<Known> = Vec::new();
    for (index, stage) in around.file.stages.iter().enumerate() {
        let nothing = &mut Findings::default();
        let mut scope = begin(around, &Choice::default(), nothing, &plan, &ends, index);
        let mut here = Known {
            all: globals.clone(),
            ..Known::default()
        };
        for word in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
            here.used.extend(expand(&settings, word, &plan.globals)?.set);
        }
        for instruction in plan.instructions(index, &stage.instructions) {
            here.read(around, &plan, &settings, &mut scope, instruction)
                .map_err(|trouble| trouble.moved(instruction.at))?;
        }
        ends.push(scope);
        known.push(here);
    }
    let stage = &around.file.stages[plan.target];
    let mut found = Outline {
        name: stage.name.clone(),
        description: stage
            .name
            .as_deref()
            .map_or_else(String::new, |name| description(&stage.comments, name)),
        ..Outline::default()
    };
    gather(around, &plan, &known, &mut found)?;
    Ok(found)
}

/// The arguments before the first `FROM`, with those that their values use.
fn globals(
    around: &Around<'_>,
    settings: &Expand,
) -> Result<BTreeMap<String, (Parameter, BTreeSet<String>)>, Trouble> {
    let mut values = Plan::begin_without_arguments(around.file, around.request)?.globals;
    let mut all: BTreeMap<String, (Parameter, BTreeSet<String>)> = BTreeMap::new();
    for instruction in &around.file.args {
        let Op::Arg(definitions) = &instruction.op else {
            continue;
        };
        for definition in definitions {
            let name = definition.name.as_str();
            let (mut value, mut uses) = (None, BTreeSet::new());
            if let Some(given) = around.request.build_args.get(name) {
                value = Some(given.clone());
            } else if let Some(default) = &definition.default {
                let noted = expand(settings, default, &values)
                    .map_err(|error| Trouble::from(error).moved(instruction.at))?;
                (value, uses) = (Some(noted.text), noted.set);
                uses.remove(name);
            }
            if let Some(value) = &value {
                values.insert(name.to_owned(), value.clone());
            }
            let parameter = Parameter {
                name: name.to_owned(),
                description: description(&instruction.comments, name),
                value: value.unwrap_or_default(),
                at: instruction.at,
            };
            // One that is said again may have used others before.
            if let Some((_, before)) = all.get(name) {
                uses.extend(BTreeSet::clone(before));
            }
            all.insert(name.to_owned(), (parameter, uses));
        }
    }
    Ok(all)
}

impl Known {
    fn read(
        &mut self,
        around: &Around<'_>,
        plan: &Plan,
        settings: &Expand,
        scope: &mut Scope,
        instruction: &Instruction,
    ) -> Result<(), Trouble> {
        match &instruction.op {
            Op::Env(pairs) => {
                let mut new = Vec::new();
                for pair in pairs {
                    let key = expand(settings, &pair.key, &scope.values)?.text;
                    new.push((key, expand(settings, &pair.value, &scope.values)?.text));
                }
                scope.values.extend(new);
            }
            Op::Arg(definitions) => {
                for definition in definitions {
                    let name = &definition.name;
                    let given = around.request.build_args.get(name).cloned();
                    let inherited = given.is_none() && definition.default.is_none();
                    let value = match (given, &definition.default) {
                        (Some(value), _) => Some(value),
                        (None, Some(default)) => Some(expand(settings, default, &scope.values)?.text),
                        (None, None) => plan.globals.get(name).cloned(),
                    };
                    self.used.insert(name.clone());
                    if !(inherited && value.is_some()) {
                        let parameter = Parameter {
                            name: name.clone(),
                            description: description(&instruction.comments, name),
                            value: value.clone().unwrap_or_default(),
                            at: instruction.at,
                        };
                        self.all.insert(name.clone(), (parameter, BTreeSet::new()));
                    }
                    if let Some(value) = value {
                        scope.values.entry(name.clone()).or_insert(value);
                    }
                }
            }
            Op::Run(run) => {
                for flag in &run.mounts {
                    let parsed = Mount::parse(&flag.text, &mut |value| {
                        expand(settings, value, &scope.values)
                            .map(|noted| noted.text)
                            .map_err(|error| error.message)
                    });
                    let mount =
                        parsed.map_err(|(message, _)| Trouble::from(crate::failure::invalid(message)))?;
                    self.mount(mount, instruction.at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn mount(&mut self, mount: Mount, at: Span) {
        let required = mount.required;
        let wanted = |name: String| Wanted { name, required, at };
        match mount.kind {
            MountKind::Secret => {
                let of_target = mount
                    .target
                    .as_deref()
                    .and_then(|target| target.rsplit('/').next());
                let of_target = of_target.map(str::to_owned);
                let id = mount.id.or(mount.source).or(of_target).unwrap_or_default();
                self.secrets.entry(id.clone()).or_insert_with(|| wanted(id));
            }
            MountKind::Ssh => {
                let id = mount.id.unwrap_or_else(|| "default".to_owned());
                self.ssh.entry(id.clone()).or_insert_with(|| wanted(id));
            }
            _ => {}
        }
    }

    /// Arguments, and those that their values use.
    fn mark(&self) -> BTreeSet<&String> {
        let mut marked = BTreeSet::new();
        let mut todo: Vec<&String> = self.used.iter().collect();
        while let Some(name) = todo.pop() {
            if marked.insert(name)
                && let Some((_, uses)) = self.all.get(name)
            {
                todo.extend(uses);
            }
        }
        marked
    }
}

/// Puts together what the target and the stages that it needs have; a name counts where it comes first.
fn gather(around: &Around<'_>, plan: &Plan, known: &[Known], found: &mut Outline) -> Result<(), Trouble> {
    let mut seen = BTreeSet::new();
    let mut todo = std::collections::VecDeque::from([plan.target]);
    let (mut args, mut secrets, mut ssh) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    while let Some(index) = todo.pop_front() {
        if !seen.insert(index) {
            continue;
        }
        let here = &known[index];
        for name in here.mark() {
            if let Some((parameter, _)) = here.all.get(name)
                && args.insert(name)
            {
                found.args.push(parameter.clone());
            }
        }
        found.secrets.extend(
            here.secrets
                .values()
                .filter(|wanted| secrets.insert(&wanted.name))
                .cloned(),
        );
        found.ssh.extend(
            here.ssh
                .values()
                .filter(|wanted| ssh.insert(&wanted.name))
                .cloned(),
        );
        if let Base::Stage(base) = plan.stages[index].base {
            todo.push_back(base);
        }
        for instruction in plan.instructions(index, &around.file.stages[index].instructions) {
            todo.extend(plan.sources(index, instruction)?);
        }
    }
    found.args.sort_by_key(|parameter| parameter.at.start);
    found.secrets.sort_by_key(|wanted| wanted.at.start);
    found.ssh.sort_by_key(|wanted| wanted.at.start);
    Ok(())
}
