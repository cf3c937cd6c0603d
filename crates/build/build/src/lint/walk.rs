//! The rules about stages and variables: each stage is walked as a build does it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{
    Copy, Expand, Form, Heredoc, Instruction, Mount, Op, Pair, Quotes, Span, Stage, SyntaxError,
};
use dhow_reference::Reference;
use dhow_types::Platform;

use super::{Around, Choice, Findings, Rule, Values, keyword, nearest};
use crate::failure::{Trouble, invalid};
use crate::plan::{Base, Plan};
use crate::request::NamedContext;

/// A word after its expansion, and the variables in it.
pub(crate) struct Noted {
    pub(crate) text: String,
    pub(crate) set: BTreeSet<String>,
    pub(crate) unset: BTreeSet<String>,
}

/// Expands a word and notes its variables.
pub(crate) fn expand(settings: &Expand, word: &str, values: &Values) -> Result<Noted, SyntaxError> {
    let asked = RefCell::new((BTreeSet::new(), BTreeSet::new()));
    let text = settings.word(word, &|name| {
        let value = values.get(name).cloned();
        let mut asked = asked.borrow_mut();
        let side = if value.is_some() {
            &mut asked.0
        } else {
            &mut asked.1
        };
        side.insert(name.to_owned());
        value
    })?;
    let (set, unset) = asked.into_inner();
    Ok(Noted { text, set, unset })
}

/// Walks the stages of a file.
pub(super) fn stages(around: &Around<'_>, choice: &Choice, found: &mut Findings) {
    check_defaults(around, choice, found);
    if let Err(trouble) = walk(around, choice, found) {
        found.trouble.get_or_insert(Box::new(trouble));
    }
}

fn walk(around: &Around<'_>, choice: &Choice, found: &mut Findings) -> Result<(), Trouble> {
    let settings = Expand {
        escape: around.file.escape,
        ..Expand::default()
    };
    let globals = Plan::begin(around.file, around.request, &around.request.build_args)?.globals;
    for stage in &around.file.stages {
        let choice = choice.with_comments(&stage.comments);
        check_base(found, &choice, &settings, stage, &globals)
            .map_err(|error| Trouble::from(error).moved(stage.at))?;
    }
    let plan = Plan::new(around.file, around.request)?;
    let mut ends: Vec<Scope> = Vec::new();
    for (index, stage) in around.file.stages.iter().enumerate() {
        let mut scope = begin(around, choice, found, &plan, &ends, index);
        if around.reached.is_none_or(|reached| reached.contains(&index)) {
            let mut walker = Walker {
                around,
                globals: &plan.globals,
                settings,
                found,
                scope: &mut scope,
                once: BTreeMap::new(),
            };
            for instruction in &stage.instructions {
                let choice = choice.with_comments(&instruction.comments);
                walker
                    .instruction(&choice, instruction)
                    .map_err(|trouble| trouble.moved(instruction.at))?;
            }
        }
        ends.push(scope);
    }
    Ok(())
}

/// With the defaults of all arguments, each base must have a name that can be one.
fn check_defaults(around: &Around<'_>, choice: &Choice, found: &mut Findings) {
    let settings = Expand {
        escape: around.file.escape,
        ..Expand::default()
    };
    // What fails here fails again, and is told, with the arguments of the build.
    let Ok(plan) = Plan::begin(around.file, around.request, &BTreeMap::new()) else {
        return;
    };
    for stage in &around.file.stages {
        let Ok(base) = expand(&settings, &stage.base, &plan.globals) else {
            return;
        };
        if Reference::parse(&base.text).is_err() {
            let detail = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base
            );
            found.say(choice, Rule::InvalidDefaultArgInFrom, stage.at, detail);
        }
    }
}

/// Variables and platform of a `FROM`.
fn check_base(
    found: &mut Findings,
    choice: &Choice,
    settings: &Expand,
    stage: &Stage,
    globals: &Values,
) -> Result<(), SyntaxError> {
    let base = expand(settings, &stage.base, globals)?;
    let mut unset = base.unset;
    let platform = match &stage.platform {
        Some(platform) => Some((platform, expand(settings, platform, globals)?)),
        None => None,
    };
    let undeclared = |found: &mut Findings, unset: &BTreeSet<String>| {
        for name in unset {
            // An argument without a value is declared all the same.
            let guess = nearest(name, globals.keys())
                .map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            let detail = format!("FROM argument '{name}' is not declared{guess}");
            found.say(choice, Rule::UndefinedArgInFrom, stage.at, detail);
        }
    };
    unset.retain(|name| !found.declared.contains(name));
    undeclared(found, &unset);
    let Some((written, mut noted)) = platform else {
        return Ok(());
    };
    noted.unset.retain(|name| !found.declared.contains(name));
    undeclared(found, &noted.unset);
    if noted.unset.is_empty()
        && noted.set.len() == 1
        && noted.set.contains("TARGETPLATFORM")
        && globals.get("TARGETPLATFORM") == Some(&noted.text)
    {
        let detail = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        found.say(choice, Rule::RedundantTargetPlatform, stage.at, detail);
    }
    if noted.set.is_empty()
        && noted.unset.is_empty()
        && let Ok(platform) = noted.text.parse::<Platform>()
    {
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let detail = format!(
                "FROM --platform flag should not use constant value {:?}",
                noted.text
            );
            found.say(choice, Rule::FromPlatformFlagConstDisallowed, stage.at, detail);
        }
    }
    Ok(())
}

/// What a stage knows at one point.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Environment, and arguments with a value.
    pub(super) values: Values,
    /// Arguments.
    declared: BTreeSet<String>,
    /// Whether a shell was chosen.
    shell: bool,
    /// Whether a working directory was chosen in this file.
    workdir: bool,
    /// Whether the base is not known, and with it what it defines.
    unknown: bool,
}

/// What a stage begins with.
pub(super) fn begin(
    around: &Around<'_>,
    choice: &Choice,
    found: &mut Findings,
    plan: &Plan,
    ends: &[Scope],
    index: usize,
) -> Scope {
    let planned = &plan.stages[index];
    let stage = &around.file.stages[index];
    let name = match &planned.base {
        Base::Stage(base) => return ends.get(*base).cloned().unwrap_or_default(),
        Base::Image(name) | Base::Named(NamedContext::Image(name)) => name,
        Base::Scratch => return Scope::of_env(&[]),
        Base::Named(NamedContext::Local(_) | NamedContext::Git(_) | NamedContext::Http(_)) => {
            return Scope::of_env(&[]);
        }
        Base::Named(NamedContext::Layout { .. }) => return Scope::unknown(),
    };
    // A stage that is not built has no base yet.
    if around.reached.is_some_and(|reached| !reached.contains(&index)) {
        return Scope::unknown();
    }
    let Some(config) = (around.base)(name, &planned.platform) else {
        return Scope::unknown();
    };
    let actual = config.platform();
    let expected = &planned.platform;
    let differs = actual.os != expected.os || actual.architecture != expected.architecture;
    if differs && !actual.architecture.is_empty() {
        let detail = format!(
            "Base image {name} was pulled with platform {:?}, expected {:?} for current build",
            actual.to_string(),
            expected.to_string()
        );
        let choice = choice.with_comments(&stage.comments);
        found.say(&choice, Rule::InvalidBaseImagePlatform, stage.at, detail);
    }
    Scope {
        shell: config
            .config
            .shell
            .as_ref()
            .is_some_and(|shell| !shell.is_empty()),
        ..Scope::of_env(&config.config.env)
    }
}

impl Scope {
    fn unknown() -> Self {
        Self {
            unknown: true,
            ..Self::of_env(&[])
        }
    }

    fn of_env(env: &[String]) -> Self {
        let mut values: Values = env
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // A build gives each image a path.
        values
            .entry("PATH".to_owned())
            .or_insert_with(|| crate::state::DEFAULT_PATH.to_owned());
        Self {
            values,
            ..Self::default()
        }
    }
}

struct Walker<'a, 'f> {
    around: &'a Around<'a>,
    globals: &'a Values,
    settings: Expand,
    found: &'f mut Findings,
    scope: &'f mut Scope,
    /// Where `CMD`, `ENTRYPOINT` and `HEALTHCHECK` stood last, and how they were written.
    once: BTreeMap<&'static str, Span>,
}

impl Walker<'_, '_> {
    fn instruction(&mut self, choice: &Choice, instruction: &Instruction) -> Result<(), Trouble> {
        let at = instruction.at;
        let written = keyword(&instruction.text);
        match &instruction.op {
            Op::Env(pairs) | Op::Label(pairs) => {
                let env = matches!(instruction.op, Op::Env(_));
                self.pairs(choice, at, written, pairs, env)?;
            }
            Op::Arg(definitions) => {
                for definition in definitions {
                    self.secret(choice, at, "ARG", &definition.name);
                    self.argument(choice, at, &definition.name, definition.default.as_deref())?;
                }
            }
            Op::Add(copy) => self.copy(choice, at, copy, true)?,
            Op::Copy(copy) => self.copy(choice, at, copy, false)?,
            Op::Run(run) => {
                for flag in &run.mounts {
                    let mut unset = BTreeSet::new();
                    let values = &self.scope.values;
                    let settings = self.settings;
                    let parsed = Mount::parse(&flag.text, &mut |value| {
                        let noted = expand(&settings, value, values).map_err(|error| error.message)?;
                        // What is not known here may have a value when it is built.
                        let unknown = noted.text.is_empty() && !noted.unset.is_empty();
                        unset.extend(noted.unset);
                        Ok(if unknown { value.to_owned() } else { noted.text })
                    });
                    parsed.map_err(|(message, _)| Trouble::from(invalid(message)).at(flag.at))?;
                    self.undefined(choice, at, unset);
                }
            }
            Op::Cmd(command) | Op::Entrypoint(command) => {
                self.only_once(choice, instruction, written);
                if matches!(command.form, Form::Shell(_)) && !self.scope.shell {
                    let detail = format!(
                        "JSON arguments recommended for {written} to prevent unintended behavior related to OS signals"
                    );
                    self.found.say(choice, Rule::JSONArgsRecommended, at, detail);
                }
            }
            Op::Healthcheck(_) => self.only_once(choice, instruction, written),
            Op::Shell(_) => self.scope.shell = true,
            Op::Workdir(path) => self.workdir(choice, at, path)?,
            Op::User(word) | Op::StopSignal(word) => drop(self.expand(choice, at, word)?),
            Op::Volume(paths) => {
                for path in paths {
                    self.expand(choice, at, path)?;
                }
            }
            Op::Expose(ports) => self.expose(choice, at, ports)?,
            Op::Maintainer(_) | Op::Onbuild(_) => {}
        }
        Ok(())
    }

    fn expand(&mut self, choice: &Choice, at: Span, word: &str) -> Result<String, Trouble> {
        let noted = expand(&self.settings, word, &self.scope.values)?;
        self.undefined(choice, at, noted.unset);
        Ok(noted.text)
    }

    fn undefined(&mut self, choice: &Choice, at: Span, unset: BTreeSet<String>) {
        if self.scope.unknown {
            return;
        }
        for name in unset.iter().filter(|name| !self.scope.declared.contains(*name)) {
            let guess = nearest(name, self.scope.values.keys())
                .map_or_else(String::new, |near| format!(" (did you mean ${near}?)"));
            let detail = format!("Usage of undefined variable '${name}'{guess}");
            self.found.say(choice, Rule::UndefinedVar, at, detail);
        }
    }

    fn pairs(
        &mut self,
        choice: &Choice,
        at: Span,
        written: &str,
        pairs: &[Pair],
        env: bool,
    ) -> Result<(), Trouble> {
        let mut new = Vec::new();
        for pair in pairs {
            let key = self.expand(choice, at, &pair.key)?;
            let value = self.expand(choice, at, &pair.value)?;
            new.push((key, value));
        }
        for (pair, (key, _)) in pairs.iter().zip(&new) {
            if pair.legacy {
                let detail = format!(
                    "\"{written} key=value\" should be used instead of legacy \"{written} key value\" format"
                );
                self.found.say(choice, Rule::LegacyKeyValueFormat, at, detail);
            }
            if env {
                self.secret(choice, at, "ENV", key);
            }
        }
        if env {
            self.scope.values.extend(new);
        }
        Ok(())
    }

    fn argument(
        &mut self,
        choice: &Choice,
        at: Span,
        name: &str,
        default: Option<&str>,
    ) -> Result<(), Trouble> {
        let given = self.around.request.build_args.get(name).cloned();
        let value = match (given, default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(self.expand(choice, at, default)?),
            (None, None) => self.globals.get(name).cloned(),
        };
        self.scope.declared.insert(name.to_owned());
        if let Some(value) = value {
            self.scope.values.entry(name.to_owned()).or_insert(value);
        }
        Ok(())
    }

    /// Part of a name between underscores, in whatever case, that tells of a secret (`dockerfile2llb/validations.go`).
    fn secret(&mut self, choice: &Choice, at: Span, keyword: &str, name: &str) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&["public", "file", "version"]) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            self.found.say(choice, Rule::SecretsUsedInArgOrEnv, at, detail);
        }
    }

    fn copy(&mut self, choice: &Choice, at: Span, copy: &Copy, add: bool) -> Result<(), Trouble> {
        let flags = [&copy.chown, &copy.chmod, &copy.checksum, &copy.from];
        for word in flags.into_iter().flatten().chain(&copy.excludes) {
            self.expand(choice, at, word)?;
        }
        let mut sources = Vec::new();
        for path in &copy.paths {
            sources.push(self.expand(choice, at, path)?);
        }
        self.expand(choice, at, &copy.destination)?;
        for body in copy.files.iter().filter(|body| body.expand) {
            self.body(choice, at, body)?;
        }
        if copy.from.is_none() {
            for source in sources {
                self.ignored(choice, at, &source, add);
            }
        }
        Ok(())
    }

    fn body(&mut self, choice: &Choice, at: Span, body: &Heredoc) -> Result<(), Trouble> {
        let settings = Expand {
            escape: '\\',
            quotes: Quotes::Literal,
            limit: 32 << 20,
            ..Expand::default()
        };
        let noted = expand(&settings, &body.body(), &self.scope.values)?;
        self.undefined(choice, at, noted.unset);
        Ok(())
    }

    /// Not told when there are exceptions: something below may be one.
    fn ignored(&mut self, choice: &Choice, at: Span, source: &str, add: bool) {
        let Some(patterns) = self.around.ignore.filter(|patterns| !patterns.has_exceptions()) else {
            return;
        };
        if crate::remote::is_http(source) || crate::remote::is_git(source) {
            return;
        }
        let source = crate::ignore::clean(source);
        // The context itself is left out only by what leaves out everything.
        let out = if source == "." || source == "/" {
            patterns.leaves_out_everything()
        } else {
            patterns.matches_with_parents(source.as_bytes()).0
        };
        if out {
            let verb = if add { "Add" } else { "Copy" };
            let detail = format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore");
            self.found.say(choice, Rule::CopyIgnoredFile, at, detail);
        }
    }

    fn only_once(&mut self, choice: &Choice, instruction: &Instruction, written: &str) {
        if let Some(before) = self.once.insert(instruction.op.keyword(), instruction.at) {
            let detail = format!(
                "Multiple {written} instructions should not be used in the same stage because only the last one will be used"
            );
            self.found
                .say(choice, Rule::MultipleInstructionsDisallowed, before, detail);
        }
    }

    fn workdir(&mut self, choice: &Choice, at: Span, path: &str) -> Result<(), Trouble> {
        let path = self.expand(choice, at, path)?;
        if !self.scope.workdir && !path.starts_with('/') {
            let detail =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.found.say(choice, Rule::WorkdirRelativePath, at, detail);
        }
        self.scope.workdir = true;
        Ok(())
    }

    fn expose(&mut self, choice: &Choice, at: Span, ports: &[String]) -> Result<(), Trouble> {
        for word in ports {
            let values = &self.scope.values;
            for port in self.settings.words(word, &|name| values.get(name).cloned())? {
                crate::metadata::parse_ports(&port)?;
                let (rest, protocol) = port.split_once('/').unwrap_or((&port, ""));
                if protocol != protocol.to_lowercase() {
                    let detail =
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    self.found.say(choice, Rule::ExposeProtoCasing, at, detail);
                }
                if rest.contains(':') {
                    let detail = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    self.found.say(choice, Rule::ExposeInvalidFormat, at, detail);
                }
            }
        }
        Ok(())
    }
}
