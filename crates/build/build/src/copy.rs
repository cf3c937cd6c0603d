//! `COPY` and `ADD`.

use std::collections::BTreeMap;
use std::sync::Arc;

use dhow_dockerfile::{Copy, Instruction, Quotes, Span};
use dhow_layer::Layer;
use dhow_rootpath::Root;
use dhow_types::{DiffId, Digest};

use crate::add::{self, Remote};
use crate::cache::Outcome;
use crate::chmod::Chmod;
use crate::failure::{Context as _, Error, Halt, Trouble, invalid};
use crate::ignore::Patterns;
use crate::keys::KeyWriter;
use crate::layer_step::{LayerStep, Scratch};
use crate::origin::{Origin, hash_items, pick_inputs, pick_key, stack_key, with_source};
use crate::outside::Outside;
use crate::parents::with_parents;
use crate::run::owner_in;
use crate::source::{Pick, Source as _, pick, resolve};
use crate::stage::{Stage, unplaced};
use crate::tree::StackSource;
use crate::why::Inputs;
use crate::write::{Destination, Writer};
use crate::{archive, remote, users};

/// A `COPY` or `ADD` with all variables expanded.
#[derive(Debug)]
struct Job {
    /// The instruction.
    at: Span,
    add: bool,
    /// Whether archives are unpacked.
    unpack: bool,
    paths: Vec<String>,
    /// What of `paths` is elsewhere, by its index.
    remotes: BTreeMap<usize, Remote>,
    /// Here-documents: name and body.
    files: Vec<(String, String)>,
    destination: Destination,
    origin: Origin,
    chown: Option<String>,
    chmod: Option<(String, Chmod)>,
    excludes: Vec<String>,
    parents: bool,
    link: bool,
}

impl Job {
    fn how(&self) -> Result<Pick, Error> {
        Ok(Pick {
            excludes: Patterns::compile(&self.excludes)?,
        })
    }

    /// The history's text.
    fn text(&self, written: &str) -> String {
        let mut text = if self.add { "ADD" } else { "COPY" }.to_owned();
        if self.parents {
            text.push_str(" --parents");
        }
        if let Some(chown) = &self.chown {
            text.push_str(" --chown=");
            text.push_str(chown);
        }
        if let Some((chmod, _)) = &self.chmod {
            text.push_str(" --chmod=");
            text.push_str(chmod);
        }
        for path in &self.paths {
            text.push(' ');
            text.push_str(path);
        }
        for (name, _) in &self.files {
            text.push_str(" <<");
            text.push_str(name);
        }
        format!("{text} {written} # buildkit")
    }

    fn write_key(&self, key: &mut KeyWriter) {
        key.number(u64::from(self.add)).number(u64::from(self.unpack));
        key.number(u64::from(self.parents)).number(u64::from(self.link));
        key.texts(&self.paths);
        for (name, body) in &self.files {
            key.text(name).text(body);
        }
        key.text(&self.destination.to_string());
        key.option(self.chown.as_deref());
        key.option(self.chmod.as_ref().map(|(text, _)| text.as_str()));
        key.texts(&self.excludes);
    }
}

impl Stage<'_, '_> {
    /// `COPY`, or `ADD`.
    pub(crate) fn copy(&mut self, instruction: &Instruction, copy: &Copy, add: bool) -> Result<(), Halt> {
        let job = self.job(instruction, copy, add)?;
        let shown = self.shown(instruction);
        let title = self.title(&shown);
        self.counted(&title, instruction.at, |stage, number| {
            let text = job.text(&stage.expand(&copy.destination)?);
            let outcome = stage.copy_layer(number, job)?;
            Ok(stage.state.add_layer(outcome.layer, text, outcome.created)?)
        })
    }

    fn job(&self, instruction: &Instruction, copy: &Copy, add: bool) -> Result<Job, Halt> {
        let words = |words: &[String]| -> Result<Vec<String>, Trouble> {
            words.iter().map(|word| self.expand(word)).collect()
        };
        let paths = words(&copy.paths)?;
        let remotes = if add {
            let checksum = copy
                .checksum
                .as_deref()
                .map(|text| self.expand(text))
                .transpose()?;
            add::remotes(&paths, copy, checksum.as_deref())
                .map_err(|error| Trouble::from(error).at(instruction.flag_at("checksum")))?
        } else if paths
            .iter()
            .any(|path| remote::is_http(path) || remote::is_git(path))
        {
            return Err(invalid("source can't be a URL for COPY").into());
        } else {
            BTreeMap::new()
        };
        let chmod = copy.chmod.as_deref().map(|text| self.expand(text)).transpose()?;
        let chmod = match chmod.filter(|text| !text.is_empty()) {
            Some(text) => {
                let parsed = Chmod::parse(&text)
                    .map_err(|error| Trouble::from(error).at(instruction.flag_at("chmod")))?;
                Some((text, parsed))
            }
            None => None,
        };
        let chown = copy.chown.as_deref().map(|text| self.expand(text)).transpose()?;
        let destination = self.expand(&copy.destination)?;
        Ok(Job {
            at: instruction.at,
            add,
            unpack: copy.unpack.unwrap_or(add),
            paths,
            remotes,
            files: self.inline_files(copy)?,
            destination: Destination::relative(&destination, self.state.cwd()),
            origin: match &copy.from {
                None => Origin::Context,
                Some(from) => self.copy_origin(instruction, from)?,
            },
            chown: chown.filter(|text| !text.is_empty()),
            chmod,
            excludes: words(&copy.excludes)?,
            parents: copy.parents,
            link: copy.link,
        })
    }

    fn copy_origin(&self, instruction: &Instruction, from: &str) -> Result<Origin, Halt> {
        let at = instruction.flag_at("from");
        // Docker refuses variables here; buildah knows them. The stage that is meant runs when it is asked for, if the
        // plan did not see it.
        let from = &self.expand(from).map_err(|trouble| trouble.at(at))?;
        if from.is_empty() {
            let error =
                invalid("--from expands to nothing").with_hint("give the argument a value: ARG name=stage");
            return Err(Trouble::from(error).at(at).into());
        }
        self.origin_of(from).map_err(|halt| halt.at(at))
    }

    /// Bodies of here-documents: variables are expanded unless the delimiter was quoted.
    fn inline_files(&self, copy: &Copy) -> Result<Vec<(String, String)>, Trouble> {
        copy.files
            .iter()
            .map(|heredoc| {
                let body = heredoc.body();
                if !heredoc.expand {
                    return Ok((heredoc.name.clone(), body));
                }
                let settings = dhow_dockerfile::Expand {
                    escape: '\\',
                    quotes: Quotes::Literal,
                    limit: 32 << 20,
                    ..dhow_dockerfile::Expand::default()
                };
                let body = settings
                    .word(&body, &|name| self.state.lookup(name))
                    .map_err(unplaced)?;
                Ok((heredoc.name.clone(), body))
            })
            .collect()
    }

    fn copy_layer(&self, number: u32, mut job: Job) -> Result<Outcome, Halt> {
        // A linked copy does not look at what is below: names of owners are looked up now.
        let stack: &[DiffId] = if job.link { &[] } else { self.state.stack() };
        if job.link
            && let Some(chown) = job.chown.as_ref().filter(|chown| !users::is_numeric(chown))
        {
            let (uid, gid) = self.owner_below(chown)?;
            job.chown = Some(format!("{uid}:{gid}"));
        }
        let base_key = || {
            let mut key = KeyWriter::new("copy");
            job.write_key(&mut key);
            key.option(self.build.plan.epoch.map(|epoch| epoch.to_string()).as_deref());
            key
        };
        let how = job.how()?;
        let picked = |by_content| self.picked_key(&job, &how, by_content);
        let definition = || -> Result<Digest, Halt> {
            let mut key = base_key();
            key.text("stack").stack(stack).digest(&picked(false)?);
            Ok(key.finish())
        };
        let content = || -> Result<Digest, Halt> {
            let mut key = base_key();
            key.text("tree").digest(&self.build.trees.tree(stack)?.merkle());
            key.digest(&picked(true)?);
            Ok(key.finish())
        };
        let step = LayerStep {
            definition: definition()?,
            content: &content,
            again: &definition,
            inputs: &|inputs| self.copy_inputs(&job, &how, stack, inputs),
        };
        self.layer(number, &step, || self.copy_files(&job, &how, stack))
    }

    fn picked_key(&self, job: &Job, how: &Pick, by_content: bool) -> Result<Digest, Halt> {
        if job.parents {
            return self.parents_key(job, how, by_content);
        }
        if job.remotes.is_empty() {
            return pick_key(self, &job.origin, &job.paths, how, by_content);
        }
        let mut key = KeyWriter::new("remotes");
        for (index, path) in job.paths.iter().enumerate() {
            match job.remotes.get(&index) {
                Some(remote) => remote.write_key(self.build, &mut key)?,
                None => drop(key.digest(&pick_key(
                    self,
                    &job.origin,
                    std::slice::from_ref(path),
                    how,
                    by_content,
                )?)),
            }
        }
        Ok(key.finish())
    }

    /// A layer of all files of a tree, for a stage that begins with it.
    pub(crate) fn copy_base(&mut self, number: u32, tree: Arc<Outside>, shown: &str) -> Result<(), Halt> {
        let job = Job {
            at: self.build.file.stages[self.index].at,
            add: false,
            unpack: false,
            paths: vec!["/".to_owned()],
            remotes: BTreeMap::new(),
            files: Vec::new(),
            destination: Destination::new("/", true),
            origin: Origin::Outside(tree),
            chown: None,
            chmod: None,
            excludes: Vec::new(),
            parents: false,
            link: false,
        };
        let outcome = self.copy_layer(number, job)?;
        Ok(self
            .state
            .add_layer(outcome.layer, format!("FROM {shown}"), outcome.created)?)
    }

    fn copy_inputs(&self, job: &Job, how: &Pick, stack: &[DiffId], inputs: &mut Inputs) -> Result<(), Halt> {
        inputs.instruction(&job.text(&job.destination.to_string()));
        for (name, body) in &job.files {
            inputs.add("here-document", name, body);
        }
        let epoch = self.build.plan.epoch.map(|epoch| epoch.to_string());
        inputs.add("SOURCE_DATE_EPOCH", "", &epoch.unwrap_or_default());
        if job.parents {
            inputs.hashed("set of files", "", &self.parents_key(job, how, false)?);
        } else {
            let mut here = Vec::new();
            for (index, path) in job.paths.iter().enumerate() {
                let Some(remote) = job.remotes.get(&index) else {
                    here.push(path.clone());
                    continue;
                };
                let mut key = KeyWriter::new("remote");
                remote.write_key(self.build, &mut key)?;
                inputs.hashed("remote source", path, &key.finish());
            }
            pick_inputs(self, &job.origin, &here, how, inputs)?;
        }
        self.below(stack, inputs);
        Ok(())
    }

    fn owner_below(&self, chown: &str) -> Result<(u32, u32), Error> {
        let view = StackSource {
            tree: self.build.trees.tree(self.state.stack())?,
            layers: &self.build.store.layers,
        };
        let read = |path: &[u8]| -> Result<Vec<u8>, Error> {
            let Some(item) = resolve(&view, path)?.filter(|item| !item.is_dir()) else {
                return Ok(Vec::new());
            };
            let (file, _) = view.open(&item)?;
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, users::MAX_FILE), &mut bytes)
                .context(|| "read the users of the image")?;
            Ok(bytes)
        };
        users::owner(chown, &read(b"etc/passwd")?, &read(b"etc/group")?)
    }

    fn copy_files(&self, job: &Job, how: &Pick, stack: &[DiffId]) -> Result<Layer, Halt> {
        let scratch = Scratch::prepare(self.build, stack)?;
        let mount = scratch
            .active()?
            .mount_detached()
            .context(|| "mount a step's snapshot")?;
        let root = Root::from_fd(mount);
        let owner = job
            .chown
            .as_ref()
            .map(|chown| owner_in(&root, chown))
            .transpose()?;
        let mut writer = Writer::new(root, self.build);
        writer.owner = owner;
        writer.chmod = job.chmod.as_ref().map(|(_, chmod)| chmod.clone());
        let destination = &job.destination;
        let mut picks = Vec::new();
        for (index, path) in job.paths.iter().enumerate() {
            let here = !job.parents && !job.remotes.contains_key(&index);
            picks.push(if here {
                with_source(self, &job.origin, |source| {
                    Ok(pick(source, &job.origin.located(path), how)?)
                })?
            } else {
                Vec::new()
            });
        }
        let picked = picks.iter().map(Vec::len).sum::<usize>() + job.remotes.len() + job.files.len();
        self.warn_of_one_place(job, picked, &writer)?;
        for ((index, path), picks) in job.paths.iter().enumerate().zip(picks) {
            if let Some(remote) = job.remotes.get(&index) {
                remote.copy(self.build, how, &mut writer, destination)?;
                continue;
            }
            with_source(self, &job.origin, |source| {
                if job.parents {
                    let path = job.origin.located(path);
                    return writer.copy_parents(&with_parents(source, &path, how)?, source, destination);
                }
                for picked in picks {
                    self.build.check()?;
                    if job.unpack && archive::unpack(source, &picked.top, &mut writer, destination)? {
                        continue;
                    }
                    writer.copy(source, &picked, destination)?;
                }
                Ok(())
            })?;
        }
        for (name, body) in &job.files {
            writer.inline(name, body.as_bytes(), destination)?;
        }
        writer.finish()?;
        drop(writer);
        Ok(scratch.capture()?)
    }

    /// Several sources want a directory to go to, says docker's reference. BuildKit does not insist: directories become
    /// one, and of files the last one stays. What a wildcard does not match does not count.
    fn warn_of_one_place(&self, job: &Job, sources: usize, writer: &Writer<'_>) -> Result<(), Error> {
        if sources < 2 || job.destination.slash || writer.is_dir(&job.destination)? {
            return Ok(());
        }
        let keyword = if job.add { "ADD" } else { "COPY" };
        let message = format!(
            "{keyword} has more than one source and its destination does not end with a /: of several files the last one stays; \
             write {}/",
            job.destination
        );
        self.build.warn(&message, job.at);
        Ok(())
    }

    fn parents_key(&self, job: &Job, how: &Pick, by_content: bool) -> Result<Digest, Halt> {
        if let (Origin::Stack(stack), false) = (&job.origin, by_content) {
            return Ok(stack_key(stack));
        }
        with_source(self, &job.origin, |source| {
            let mut key = KeyWriter::new("parents");
            for path in &job.paths {
                let mut found = with_parents(source, &job.origin.located(path), how)?;
                hash_items(source, &mut found)?;
                for (name, item) in &found {
                    key.item(name, item);
                }
            }
            Ok(key.finish())
        })
    }
}
