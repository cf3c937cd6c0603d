//! One stage from its `FROM` to its end.

use std::time::Instant;

use dhow_dockerfile::{Expand, Instruction, Op, Quotes, Span, SyntaxError, Unset, parse_trigger};
use dhow_image::Image;

use crate::failure::{Error, Halt, Trouble, invalid};
use crate::origin::Origin;
use crate::plan::{Base, From as Source};
use crate::request::NamedContext;
use crate::schedule::Build;
use crate::state::State;
use crate::step::Event;
use crate::{base, metadata, outside};

/// A stage at work.
pub(crate) struct Stage<'a, 'b> {
    pub(crate) build: &'a Build<'b>,
    pub(crate) index: usize,
    pub(crate) state: State,
    /// Whether `CMD` was set in this stage: `ENTRYPOINT` clears only an inherited one.
    pub(crate) cmd_set: bool,
    /// Number of steps that are counted in names, and of those that were begun.
    total: usize,
    begun: usize,
    /// Triggers of the base, which are no text of this file; their errors are shown at the `FROM`.
    in_trigger: bool,
    /// Name of the step at work.
    pub(crate) current: String,
}

/// Runs a stage to its end.
pub(crate) fn run(build: &Build<'_>, index: usize) -> Result<State, Halt> {
    let (mut stage, triggers) = begin(build, index)?;
    let from_at = build.file.stages[index].at;
    let triggers = triggers
        .iter()
        .map(|text| trigger(text).map_err(|trouble| Halt::from(trouble.at(from_at))))
        .collect::<Result<Vec<Instruction>, Halt>>()?;
    stage.total += counted(&triggers);
    stage.in_trigger = true;
    for instruction in &triggers {
        stage.instruction(instruction, from_at)?;
    }
    stage.in_trigger = false;
    for instruction in build
        .plan
        .instructions(index, &build.file.stages[index].instructions)
    {
        stage.instruction(instruction, instruction.at)?;
    }
    Ok(stage.state)
}

/// Gets the base and counts the steps.
fn begin<'a, 'b>(build: &'a Build<'b>, index: usize) -> Result<(Stage<'a, 'b>, Vec<String>), Halt> {
    let planned = &build.plan.stages[index];
    let from = &build.file.stages[index];
    let mut stage = Stage {
        build,
        index,
        state: State::scratch(&planned.platform),
        cmd_set: false,
        total: counted(build.plan.instructions(index, &from.instructions)),
        begun: 0,
        in_trigger: false,
        current: String::new(),
    };
    let triggers = match &planned.base {
        Base::Scratch => Vec::new(),
        Base::Stage(base) => {
            let base = build.stage(*base)?;
            let (state, triggers) = State::from_stage(&base);
            stage.state = state;
            triggers
        }
        Base::Image(name) => stage.begin_image(&base::full_name(name), from.at, |build| {
            base::image(build, name, &planned.platform)
        })?,
        Base::Named(context) => stage.begin_named(context, from.at)?,
    };
    for (name, value) in &build.request.env {
        stage.state.set_env(name, value);
    }
    if let Some(epoch) = build.plan.epoch {
        stage.state.set_epoch(epoch)?;
    }
    Ok((stage, triggers))
}

/// How many instructions have a number in their names.
fn counted(instructions: &[Instruction]) -> usize {
    let has_number = |instruction: &&Instruction| {
        matches!(
            instruction.op,
            Op::Add(_) | Op::Copy(_) | Op::Run(_) | Op::Workdir(_)
        )
    };
    instructions.iter().filter(has_number).count()
}

fn trigger(text: &str) -> Result<Instruction, Trouble> {
    parse_trigger(text).map_err(|errors| {
        let first = errors.into_iter().next();
        let message = first.map_or_else(String::new, |error| error.message);
        Trouble::from(invalid(format!(
            "the base image has a malformed ONBUILD trigger {:?}: {message}",
            text.chars().take(128).collect::<String>()
        )))
    })
}

impl Stage<'_, '_> {
    /// Begins with an image; gives its triggers.
    fn begin_image(
        &mut self,
        shown: &str,
        at: Span,
        get: impl FnOnce(&Build<'_>) -> Result<Image, Error>,
    ) -> Result<Vec<String>, Halt> {
        self.total += 1;
        let title = self.title(&format!("FROM {shown}"));
        let image = self.counted(&title, at, |stage, _| {
            let _permit = stage.build.permit();
            Ok(get(stage.build)?)
        })?;
        let (state, triggers) = State::from_image(&image);
        self.state = state;
        Ok(triggers)
    }

    /// Begins with what `--build-context` puts in the place of the base.
    fn begin_named(&mut self, context: &NamedContext, at: Span) -> Result<Vec<String>, Halt> {
        let build = self.build;
        let platform = &build.plan.stages[self.index].platform;
        match context {
            NamedContext::Image(name) => self.begin_image(&base::full_name(name), at, |build| {
                base::image(build, name, platform)
            }),
            NamedContext::Layout { path, name } => {
                let shown = format!("oci-layout://{}", path.display());
                self.begin_image(&shown, at, |build| {
                    base::layout(build, path, name.as_deref(), platform)
                })
            }
            NamedContext::Local(_) | NamedContext::Git(_) | NamedContext::Http(_) => {
                self.total += 1;
                let title = self.title(&format!("FROM {}", context.shown()));
                self.counted(&title, at, |stage, number| {
                    let Some(tree) = outside::named(stage.build, context)? else {
                        return Err(invalid("a named context is no tree of files").into());
                    };
                    stage.copy_base(number, tree, &context.shown())
                })?;
                Ok(Vec::new())
            }
        }
    }

    /// The name of the next counted step.
    pub(crate) fn title(&mut self, text: &str) -> String {
        self.begun += 1;
        let label = &self.build.plan.stages[self.index].label;
        let space = if label.is_empty() { "" } else { " " };
        let width = self.total.max(1).to_string().len();
        let trigger = if self.in_trigger { "ONBUILD " } else { "" };
        format!(
            "[{label}{space}{:width$}/{}] {trigger}{text}",
            self.begun, self.total
        )
    }

    /// Runs a step and tells the observer about it; the step is given its number.
    pub(crate) fn counted<T>(
        &mut self,
        title: &str,
        at: Span,
        work: impl FnOnce(&mut Self, u32) -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        let at = self.place(at);
        self.build.check().map_err(|halt| halt.at(at))?;
        let step = self.build.step_number();
        let observer = self.build.observer;
        title.clone_into(&mut self.current);
        observer.observe(Event::Started { step, name: title });
        let start = Instant::now();
        let result = work(self, step).map_err(|halt| halt.at(at).in_step(title));
        let message = match &result {
            Err(Halt::Here(trouble)) => Some(trouble.error.to_string()),
            Err(Halt::Elsewhere) => Some("another stage failed".to_owned()),
            Ok(_) => None,
        };
        observer.observe(Event::Finished {
            step,
            took: start.elapsed(),
            error: message.as_deref(),
        });
        result
    }

    /// A place in the file: triggers have none of their own.
    fn place(&self, at: Span) -> Span {
        if self.in_trigger {
            self.build.file.stages[self.index].at
        } else {
            at
        }
    }

    fn instruction(&mut self, instruction: &Instruction, at: Span) -> Result<(), Halt> {
        self.build.check()?;
        let result = match &instruction.op {
            Op::Run(run) => self.run(instruction, run),
            Op::Copy(copy) => self.copy(instruction, copy, false),
            Op::Add(copy) => self.copy(instruction, copy, true),
            Op::Workdir(path) => self.workdir(instruction, path),
            _ => metadata::apply(self, instruction).map_err(Halt::from),
        };
        result.map_err(|halt| halt.at(at))
    }

    /// The number of the step in its stage.
    pub(crate) const fn step_in_stage(&self) -> usize {
        self.begun
    }

    /// How words of this file are expanded.
    pub(crate) fn settings(&self) -> Expand {
        Expand {
            escape: self.build.file.escape,
            ..Expand::default()
        }
    }

    /// Expands one word; its errors are shown at the instruction.
    pub(crate) fn expand(&self, word: &str) -> Result<String, Trouble> {
        self.settings()
            .word(word, &|name| self.state.lookup(name))
            .map_err(unplaced)
    }

    /// The text of an instruction for the name of a step: known variables replaced, quotes kept.
    pub(crate) fn shown(&self, instruction: &Instruction) -> String {
        self.shown_without(instruction, &[])
    }

    /// The same with stars for variables whose values are nobody's business.
    pub(crate) fn shown_without(&self, instruction: &Instruction, secret: &[String]) -> String {
        let settings = Expand {
            quotes: Quotes::Keep,
            unset: Unset::Keep,
            ..self.settings()
        };
        let lookup = |name: &str| {
            let stars = || "****".to_owned();
            let hidden = secret.iter().any(|known| known == name);
            if hidden {
                Some(stars())
            } else {
                self.state.lookup(name)
            }
        };
        let text = settings
            .word(&instruction.text, &lookup)
            .unwrap_or_else(|_| instruction.text.clone());
        match text.split_once(char::is_whitespace) {
            Some((_, rest)) => format!("{} {rest}", instruction.op.keyword()),
            None => text,
        }
    }

    /// The files of what `--from` names.
    pub(crate) fn origin_of(&self, name: &str) -> Result<Origin, Halt> {
        let platform = &self.build.plan.stages[self.index].platform;
        let image = match self.build.plan.find_from(self.index, name)? {
            Source::Stage(index) => {
                // Triggers can name stages that the plan did not see.
                self.build.plan.check_source(self.index, index, false)?;
                let state = self.build.stage(index)?;
                return Ok(Origin::Stack(state.stack().to_vec()));
            }
            Source::Scratch => return Ok(Origin::Stack(Vec::new())),
            Source::Image(name) | Source::Named(NamedContext::Image(name)) => {
                base::image(self.build, &name, platform)?
            }
            Source::Named(NamedContext::Layout { path, name }) => {
                base::layout(self.build, &path, name.as_deref(), platform)?
            }
            Source::Named(context) => {
                let tree = outside::named(self.build, &context)?;
                let tree = tree.ok_or_else(|| invalid("a named context is no tree of files"))?;
                return Ok(Origin::Outside(tree));
            }
        };
        Ok(Origin::Stack(image.config.rootfs.diff_ids))
    }
}

/// An error of an expansion: its place is in the word, not in the file.
pub(crate) fn unplaced(error: SyntaxError) -> Trouble {
    let mut trouble = Trouble::from(error);
    trouble.span = None;
    trouble
}
