//! From the text to the graph of stages: global arguments, bases, what the target reaches.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{Dockerfile, Expand, Instruction, Mount, Op, suggest};
use dhow_types::{ErrorKind, Platform};

use crate::epoch::{self, Said};
use crate::failure::{Error, Trouble, invalid};
use crate::request::{NamedContext, Request};

/// Where a stage begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Image(String),
    /// What `--build-context` puts in the name's place.
    Named(NamedContext),
    Scratch,
    Stage(usize),
}

/// What `--from` names.
pub(crate) type From = Base;

/// One stage as far as the text says.
#[derive(Clone, Debug)]
pub(crate) struct PlannedStage {
    pub(crate) base: Base,
    /// Its name in the names of steps; empty when there is only one stage.
    pub(crate) label: String,
    /// Platform of its base.
    pub(crate) platform: Platform,
    /// Whether a named context stands for it: its instructions are not run.
    pub(crate) replaced: bool,
}

/// The graph.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<PlannedStage>,
    pub(crate) target: usize,
    /// Stages that the target needs, the target included.
    pub(crate) reached: BTreeSet<usize>,
    /// Arguments from before the first `FROM`, and those that every build has.
    pub(crate) globals: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, and how it was said.
    pub(crate) epoch: Option<i64>,
    pub(crate) epoch_said: Said,
    pub(crate) names: Vec<Option<String>>,
    /// What names stand for instead.
    contexts: BTreeMap<String, NamedContext>,
    /// Of the image.
    pub(crate) platform: Platform,
}

impl Plan {
    /// The plan without its stages: the arguments before the first `FROM`, with these build arguments.
    pub(crate) fn begin(
        file: &Dockerfile,
        request: &Request,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Self, Trouble> {
        let names: Vec<Option<String>> = file.stages.iter().map(|stage| stage.name.clone()).collect();
        let target = target(&names, request.target.as_deref())?;
        let platform = wanted_platform(request);
        let target_name = names[target].clone();
        let mut plan = Self {
            stages: Vec::new(),
            target,
            reached: BTreeSet::new(),
            globals: predefined(build_args, &platform, target_name.as_deref()),
            epoch: None,
            epoch_said: Said::default(),
            names,
            contexts: request.contexts.clone(),
            platform,
        };
        plan.read_globals(file, build_args)?;
        Ok(plan)
    }

    /// The plan with the arguments that every build has, and no others.
    pub(crate) fn begin_without_arguments(file: &Dockerfile, request: &Request) -> Result<Self, Trouble> {
        let platform = wanted_platform(request);
        let mut plan = Self::begin(file, request, &request.build_args)?;
        let target = plan.names[plan.target].clone();
        plan.globals = predefined(&request.build_args, &platform, target.as_deref());
        Ok(plan)
    }

    /// Makes the plan of a file for a request.
    pub(crate) fn new(file: &Dockerfile, request: &Request) -> Result<Self, Trouble> {
        let mut plan = Self::begin(file, request, &request.build_args)?;
        plan.read_stages(file)?;
        (plan.epoch, plan.epoch_said) = epoch::read(&plan, file, request)?;
        plan.check_order(file)?;
        plan.reach(file)?;
        Ok(plan)
    }

    pub(crate) fn expand(&self, escape: char, word: &str) -> Result<String, dhow_dockerfile::SyntaxError> {
        let settings = Expand {
            escape,
            ..Expand::default()
        };
        settings.word(word, &|name| self.globals.get(name).cloned())
    }

    fn read_globals(
        &mut self,
        file: &Dockerfile,
        build_args: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        for instruction in &file.args {
            let Op::Arg(definitions) = &instruction.op else {
                continue;
            };
            for definition in definitions {
                let value = match (build_args.get(&definition.name), &definition.default) {
                    (Some(value), _) => value.clone(),
                    (None, Some(default)) => self
                        .expand(file.escape, default)
                        .map_err(|error| Trouble::from(error).at_instruction(instruction))?,
                    (None, None) => continue,
                };
                self.globals.insert(definition.name.clone(), value);
            }
        }
        Ok(())
    }

    fn read_stages(&mut self, file: &Dockerfile) -> Result<(), Trouble> {
        let only_one = file.stages.len() == 1;
        for (index, stage) in file.stages.iter().enumerate() {
            let at_stage = |error: dhow_dockerfile::SyntaxError| {
                let mut trouble = Trouble::from(error);
                trouble.span = Some(stage.at);
                trouble
            };
            let base = self.expand(file.escape, &stage.base).map_err(at_stage)?;
            if base.is_empty() {
                let error = invalid(format!("base name ({}) should not be blank", stage.base))
                    .with_hint("give the argument a default: ARG name=value before FROM");
                return Err(Trouble::from(error).at(stage.at));
            }
            let earlier = self.names[..index]
                .iter()
                .rposition(|name| name.as_deref() == Some(&base.to_lowercase()));
            let platform = match &stage.platform {
                None => self.platform.clone(),
                Some(text) => self
                    .platform_of(file.escape, text)
                    .map_err(|trouble| trouble.at(stage.at))?,
            };
            let own = stage.name.as_deref().and_then(|name| self.named(name, &platform));
            let replaced = own.is_some();
            let base = match (own, earlier) {
                // A context with the name of the stage takes the place of all that the stage says.
                (Some(context), _) => context,
                (None, Some(earlier)) => Base::Stage(earlier),
                (None, None) => self.outside(&base, &platform),
            };
            let label = match (&stage.name, only_one) {
                (_, true) => String::new(),
                (Some(name), false) => name.clone(),
                (None, false) => format!("stage-{index}"),
            };
            self.stages.push(PlannedStage {
                base,
                label,
                platform,
                replaced,
            });
        }
        Ok(())
    }

    /// `FROM --platform=`.
    fn platform_of(&self, escape: char, written: &str) -> Result<Platform, Trouble> {
        let unset = RefCell::new(None);
        let settings = Expand {
            escape,
            ..Expand::default()
        };
        let text = settings.word(written, &|name| {
            let value = self.globals.get(name).cloned();
            if value.is_none() {
                unset.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            value
        });
        let text = text.map_err(crate::stage::unplaced)?;
        let wrong = |error: Error| {
            let unset = unset.borrow();
            let near = unset
                .as_deref()
                .and_then(|name| suggest(name, self.globals.keys().map(String::as_str)));
            Trouble::from(match near {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error,
            })
        };
        if text.is_empty() {
            let message = format!("empty platform value from expression {written}");
            return Err(wrong(invalid(message)));
        }
        let platform = text.parse::<Platform>().map(Platform::normalized);
        platform.map_err(|error| {
            let what = format!("failed to parse platform {written}");
            wrong(Error::because(ErrorKind::InvalidArgument, what, error))
        })
    }

    /// What `--build-context` puts in a name's place; what it says for this platform goes first.
    pub(crate) fn named(&self, name: &str, platform: &Platform) -> Option<Base> {
        if self.contexts.is_empty()
            || name.eq_ignore_ascii_case("scratch")
            || name.eq_ignore_ascii_case("context")
        {
            return None;
        }
        let key = NamedContext::key(name);
        let own = self.contexts.get(&NamedContext::key_for(&key, platform));
        match own.or_else(|| self.contexts.get(&key))? {
            NamedContext::Image(image) if image == "scratch" => Some(Base::Scratch),
            context => Some(Base::Named(context.clone())),
        }
    }

    /// What a name means that is no stage.
    fn outside(&self, name: &str, platform: &Platform) -> Base {
        match self.named(name, platform) {
            Some(context) => context,
            None if name == "scratch" => Base::Scratch,
            None => Base::Image(name.to_owned()),
        }
    }

    /// What `--from=name` means in stage `current`.
    pub(crate) fn find_from(&self, current: usize, name: &str) -> Result<From, Error> {
        if let Ok(index) = name.parse::<usize>() {
            if index >= self.names.len() {
                return Err(invalid(format!("invalid stage index {index}")));
            }
            return Ok(Base::Stage(index));
        }
        let wanted = name.to_lowercase();
        let is_wanted = |other: &Option<String>| other.as_deref() == Some(&wanted);
        let found = self.names[..current]
            .iter()
            .rposition(is_wanted)
            .or_else(|| self.names.iter().position(is_wanted));
        Ok(match found {
            Some(index) => Base::Stage(index),
            None if wanted == "scratch" => Base::Scratch,
            None => self.outside(name, &self.stages[current].platform),
        })
    }

    /// Stages that the instruction reads.
    pub(crate) fn sources(&self, current: usize, instruction: &Instruction) -> Result<Vec<usize>, Trouble> {
        let mut names = Vec::new();
        match &instruction.op {
            // What a variable means is known when the stage is there.
            Op::Copy(copy) => names.extend(copy.from.clone().filter(|from| !from.contains('$'))),
            Op::Run(run) => {
                for flag in &run.mounts {
                    let mount = Mount::parse(&flag.text, &mut |value| Ok(value.to_owned()));
                    let from = mount.ok().and_then(|mount| mount.from);
                    names.extend(from.filter(|from| !from.contains('$')));
                }
            }
            _ => {}
        }
        let mut found = Vec::new();
        for name in names {
            match self.find_from(current, &name) {
                Ok(Base::Stage(index)) => found.push(index),
                Ok(_) => {}
                Err(error) => return Err(Trouble::from(error).at(instruction.flag_at("from"))),
            }
        }
        Ok(found)
    }

    /// The instructions of a stage that are run.
    pub(crate) fn instructions<'i>(&self, index: usize, written: &'i [Instruction]) -> &'i [Instruction] {
        if self.stages[index].replaced { &[] } else { written }
    }

    pub(crate) fn name_of(&self, index: usize) -> String {
        self.names[index].clone().unwrap_or_else(|| index.to_string())
    }

    /// Only earlier stages can be read; this also makes the graph free of cycles.
    pub(crate) fn check_source(&self, current: usize, source: usize, cycle: bool) -> Result<(), Error> {
        if source < current {
            return Ok(());
        }
        let name = self.name_of(source);
        if source == current || cycle {
            return Err(invalid(format!("circular dependency detected on stage: {name}")));
        }
        Err(invalid(format!(
            "cannot copy from stage {name:?}, it needs to be defined before current stage {:?}",
            self.name_of(current)
        )))
    }

    fn check_order(&self, file: &Dockerfile) -> Result<(), Trouble> {
        let mut edges: Vec<BTreeSet<usize>> = Vec::new();
        for (index, stage) in file.stages.iter().enumerate() {
            let mut to = BTreeSet::new();
            if let Base::Stage(base) = self.stages[index].base {
                to.insert(base);
            }
            for instruction in self.instructions(index, &stage.instructions) {
                to.extend(self.sources(index, instruction)?);
            }
            edges.push(to);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            for instruction in self.instructions(index, &stage.instructions) {
                for source in self.sources(index, instruction)? {
                    let cycle = source > index && leads_to(&edges, source, index);
                    self.check_source(index, source, cycle)
                        .map_err(|error| Trouble::from(error).at(instruction.flag_at("from")))?;
                }
            }
        }
        Ok(())
    }

    fn reach(&mut self, file: &Dockerfile) -> Result<(), Trouble> {
        let mut todo = vec![self.target];
        while let Some(index) = todo.pop() {
            if !self.reached.insert(index) {
                continue;
            }
            if let Base::Stage(base) = self.stages[index].base {
                todo.push(base);
            }
            for instruction in self.instructions(index, &file.stages[index].instructions) {
                todo.extend(self.sources(index, instruction)?);
            }
        }
        Ok(())
    }
}

impl Trouble {
    /// The same at the place of an instruction: a place inside an expanded word says nothing about the file.
    pub(crate) fn at_instruction(mut self, instruction: &Instruction) -> Self {
        self.span = Some(instruction.at);
        self
    }
}

fn leads_to(edges: &[BTreeSet<usize>], from: usize, to: usize) -> bool {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from];
    while let Some(index) = todo.pop() {
        if index == to {
            return true;
        }
        if seen.insert(index) {
            todo.extend(&edges[index]);
        }
    }
    false
}

fn target(names: &[Option<String>], wanted: Option<&str>) -> Result<usize, Error> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
        return Ok(names.len() - 1);
    };
    let lower = wanted.to_lowercase();
    let by_name = names.iter().rposition(|name| name.as_deref() == Some(&lower));
    let by_number = || wanted.parse::<usize>().ok().filter(|index| *index < names.len());
    by_name.or_else(by_number).ok_or_else(|| {
        let error = invalid(format!("target stage {wanted:?} could not be found"));
        match suggest(wanted, names.iter().flatten().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        }
    })
}

fn wanted_platform(request: &Request) -> Platform {
    let wanted = request.platform.clone();
    wanted.map_or_else(Platform::host, Platform::normalized)
}

/// Arguments that every build has; a build argument of that name wins.
fn predefined(
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
    target: Option<&str>,
) -> BTreeMap<String, String> {
    let host = Platform::host();
    let mut found = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", platform)] {
        for (name, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ] {
            found.insert(format!("{prefix}{name}"), value);
        }
    }
    found.insert("TARGETSTAGE".to_owned(), target.unwrap_or("default").to_owned());
    for (name, value) in &mut found {
        if let Some(given) = build_args.get(name) {
            value.clone_from(given);
        }
    }
    found
}
