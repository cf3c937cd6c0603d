//! Why a step was not in the cache: what each step was made of the last time is kept beside the cache and compared.
//!
//! `ROOT/cache/why/<hash of context, Dockerfile, stage and number>` holds one step: its definition key in the first line,
//! then one input a line as a JSON array of what it is, its name and its value. Written by rename; a file that cannot be
//! read counts as none. It only ever tells: nothing is decided by it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dhow_types::{DiffId, Digest};

use crate::base;
use crate::failure::{Context as _, Error, Halt};
use crate::keys::KeyWriter;
use crate::plan::Base;
use crate::source::Item;
use crate::stage::Stage;

/// Most files of one step that are told apart; the rest is one input.
const MAX_ITEMS: usize = 10_000;
/// Longest value that is kept as it is.
const MAX_VALUE: usize = 400;
/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;
/// Most steps that are kept; the oldest go.
const MAX_STEPS: usize = 4096;
/// What the name of a variable has in it whose value is not told.
const SECRETIVE: [&str; 8] = [
    "PASS",
    "SECRET",
    "TOKEN",
    "KEY",
    "AUTH",
    "CREDENTIAL",
    "PWD",
    "PRIVATE",
];

/// What a file of a step is called.
pub(crate) const FILE: &str = "file";
/// An argument of the build.
pub(crate) const ARGUMENT: &str = "build argument";
/// A variable of the image.
pub(crate) const VARIABLE: &str = "variable";
/// What stands in the Dockerfile.
const INSTRUCTION: &str = "instruction";
/// What the step starts from.
const BELOW: &str = "below";

/// What a step is made of, in the order in which it is compared.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    list: Vec<(String, String, String)>,
    items: usize,
    rest: Option<KeyWriter>,
}

impl Inputs {
    /// The instruction as it stands there.
    pub(crate) fn instruction(&mut self, text: &str) -> &mut Self {
        self.add(INSTRUCTION, "", text)
    }

    /// Something with a value that a person understands.
    pub(crate) fn add(&mut self, what: &str, name: &str, value: &str) -> &mut Self {
        let clear = !SECRETIVE
            .iter()
            .any(|part| name.to_ascii_uppercase().contains(part));
        let value = if clear && value.len() <= MAX_VALUE {
            value.to_owned()
        } else {
            // Told apart, and not told.
            format!("#{}", Digest::of(value.as_bytes()).hex())
        };
        self.list.push((what.to_owned(), name.to_owned(), value));
        self
    }

    /// Something that only its hash tells apart.
    pub(crate) fn hashed(&mut self, what: &str, name: &str, value: &Digest) -> &mut Self {
        let value = format!("#{}", &value.hex()[..24]);
        self.list.push((what.to_owned(), name.to_owned(), value));
        self
    }

    /// A file under the name that it gets.
    pub(crate) fn item(&mut self, what: &str, name: &[u8], item: &Item) {
        self.items += 1;
        if self.items > MAX_ITEMS {
            self.rest
                .get_or_insert_with(|| KeyWriter::new("rest"))
                .item(name, item);
            return;
        }
        let mut key = KeyWriter::new("item");
        key.item(b"", item);
        self.hashed(what, &String::from_utf8_lossy(name), &key.finish());
    }

    fn finish(&mut self) {
        if let Some(rest) = self.rest.take() {
            let name = format!("(after the first {MAX_ITEMS})");
            self.hashed(FILE, &name, &rest.finish());
        }
    }
}

/// What was kept of a step.
struct Kept {
    definition: String,
    list: Vec<(String, String, String)>,
}

impl Stage<'_, '_> {
    /// What the step starts from: last, since it is another one whenever a step before it was.
    pub(crate) fn below(&self, stack: &[DiffId], inputs: &mut Inputs) {
        let build = self.build;
        let name = match &build.plan.stages[self.index].base {
            Base::Image(name) => {
                let image = build.store.resolve(name).ok();
                let is_base = image.is_some_and(|image| image.record.layers == stack);
                is_base.then(|| format!("the base image {}", base::full_name(name)))
            }
            Base::Stage(index) => {
                let state = build.stage(*index).ok();
                let is_base = state.is_some_and(|state| state.stack() == stack);
                is_base.then(|| format!("stage {}", build.plan.name_of(*index)))
            }
            Base::Named(_) => Some("the named context that stands for the base".to_owned()),
            Base::Scratch => None,
        };
        let name = name.unwrap_or_else(|| "the step before".to_owned());
        let mut key = KeyWriter::new("below");
        key.stack(stack);
        inputs.hashed(BELOW, &name, &key.finish());
    }

    /// Where this step's inputs are kept.
    fn kept_at(&self) -> PathBuf {
        let (build, request) = (self.build, self.build.request);
        let tmp = build.store.root().join("tmp");
        // A context that was unpacked for this build has another path each time: the name is what stays.
        let place = request.context.as_ref().filter(|path| !path.starts_with(&tmp));
        let mut key = KeyWriter::new("why");
        match place {
            Some(path) => key.bytes(path.as_os_str().as_encoded_bytes()),
            None => key.option(request.tags.first().map(|tag| tag.name()).as_deref()),
        };
        key.text(&request.dockerfile_name);
        key.text(&build.plan.stages[self.index].platform.to_string());
        key.text(&build.plan.name_of(self.index))
            .number(self.step_in_stage() as u64);
        folder(build.store.root()).join(&key.finish().hex()[..32])
    }

    /// In one line why the step is not in the cache.
    pub(crate) fn why(&self, definition: &Digest, collect: Collect<'_>) -> String {
        if self.is_uncached() {
            return "the cache was not to be used".to_owned();
        }
        let Some(kept) = read(&self.kept_at()) else {
            return "it was not built here before".to_owned();
        };
        if kept.definition == definition.hex() {
            return "its result is no longer in the cache".to_owned();
        }
        let mut inputs = Inputs::default();
        match collect(&mut inputs) {
            Ok(()) => {
                inputs.finish();
                difference(&kept.list, &inputs.list)
            }
            Err(_) => "its inputs cannot be read".to_owned(),
        }
    }

    /// Keeps what the step is made of, unless that is what is kept already.
    pub(crate) fn keep_inputs(&self, definition: &Digest, collect: Collect<'_>) {
        let path = self.kept_at();
        if first_line(&path).as_deref() == Some(&definition.hex()) {
            return;
        }
        let mut inputs = Inputs::default();
        if collect(&mut inputs).is_err() {
            return;
        }
        inputs.finish();
        // It only tells: a build does not fail because of it.
        if write(&path, definition, &inputs).is_ok() {
            self.build.kept.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Collects the inputs of a step.
pub(crate) type Collect<'a> = &'a dyn Fn(&mut Inputs) -> Result<(), Halt>;

fn folder(root: &Path) -> PathBuf {
    root.join("cache/why")
}

fn first_line(path: &Path) -> Option<String> {
    let mut line = String::new();
    File::open(path).ok()?.take(64).read_to_string(&mut line).ok()?;
    Some(line)
}

fn read(path: &Path) -> Option<Kept> {
    let mut lines = BufReader::new(File::open(path).ok()?.take(MAX_FILE)).lines();
    let definition = lines.next()?.ok()?;
    let list = lines.map(|line| serde_json::from_str(&line.ok()?).ok());
    Some(Kept {
        definition,
        list: list.collect::<Option<_>>()?,
    })
}

fn write(path: &Path, definition: &Digest, inputs: &Inputs) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let mut text = definition.hex();
    text.push('\n');
    for input in &inputs.list {
        let line = serde_json::to_string(input)
            .map_err(|error| Error::because(dhow_types::ErrorKind::Internal, what(), error))?;
        text.push_str(&line);
        text.push('\n');
    }
    if text.len() as u64 > MAX_FILE {
        return Err(Error::new(dhow_types::ErrorKind::ResourceExhausted, what()));
    }
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .context(what)?;
    }
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let staged = path.with_extension(format!("{}-{serial}", std::process::id()));
    let written = File::create(&staged).and_then(|mut file| file.write_all(text.as_bytes()));
    let renamed = written.and_then(|()| fs::rename(&staged, path));
    if renamed.is_err() {
        drop(fs::remove_file(&staged));
    }
    renamed.context(what)
}

/// Keeps the number of files within bounds: the older half goes when there are too many.
pub(crate) fn trim(root: &Path) {
    let entries = fs::read_dir(folder(root)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    if files.len() <= MAX_STEPS {
        return;
    }
    files.sort();
    for (_, path) in files.iter().take(files.len() - MAX_STEPS / 2) {
        drop(fs::remove_file(path));
    }
}

/// The first input that is not as it was, in words.
fn difference(old: &[(String, String, String)], new: &[(String, String, String)]) -> String {
    let known: HashMap<(&str, &str), &str> = old
        .iter()
        .map(|(what, name, value)| ((what.as_str(), name.as_str()), value.as_str()))
        .collect();
    let now: HashMap<(&str, &str), &str> = new
        .iter()
        .map(|(what, name, value)| ((what.as_str(), name.as_str()), value.as_str()))
        .collect();
    // What is gone is told before what is below, which is last.
    let own = |what: &str| what != BELOW;
    for (what, name, value) in new.iter().filter(|(what, ..)| own(what)) {
        match known.get(&(what.as_str(), name.as_str())) {
            Some(was) if was == value => {}
            Some(was) => return changed(what, name, was, value),
            None => return format!("{} is new", called(what, name)),
        }
    }
    let gone = old.iter().filter(|(what, ..)| own(what));
    for (what, name, _) in gone {
        if !now.contains_key(&(what.as_str(), name.as_str())) {
            return format!("{} is gone", called(what, name));
        }
    }
    let below = |list: &[(String, String, String)]| list.iter().find(|(what, ..)| what == BELOW).cloned();
    match (below(old), below(new)) {
        (Some((_, was, _)), Some((_, is, _))) if was != is => format!("it follows on {is}, and did on {was}"),
        (Some((_, _, was)), Some((_, name, is))) if was != is && name == "the step before" => {
            "the step before has another result".to_owned()
        }
        (Some((_, _, was)), Some((_, name, is))) if was != is => format!("{name} is another one"),
        _ => "its inputs are the same, but not how they are told apart".to_owned(),
    }
}

fn called(what: &str, name: &str) -> String {
    match (what, name) {
        (what, "") => format!("the {what}"),
        (what, name) => format!("{what} {name}"),
    }
}

fn changed(what: &str, name: &str, was: &str, is: &str) -> String {
    if what == INSTRUCTION && !was.starts_with('#') {
        return format!("the instruction is another one: it was {was}");
    }
    if was.starts_with('#') || is.starts_with('#') {
        return format!("{} has changed", called(what, name));
    }
    format!("{} was {was:?} and is {is:?}", called(what, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(list: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        let mut inputs = Inputs::default();
        for (what, name, value) in list {
            inputs.add(what, name, value);
        }
        inputs.list
    }

    #[test]
    fn the_first_difference_is_told_and_secrets_are_not() {
        let old = inputs(&[
            (INSTRUCTION, "", "RUN make"),
            (ARGUMENT, "COLOUR", "red"),
            (ARGUMENT, "API_TOKEN", "hush"),
            (FILE, "gone.c", "1"),
            (BELOW, "the step before", "1"),
        ]);
        let told = |new: &[(&str, &str, &str)]| difference(&old, &inputs(new));
        let same = [
            (INSTRUCTION, "", "RUN make"),
            (ARGUMENT, "COLOUR", "red"),
            (ARGUMENT, "API_TOKEN", "hush"),
            (FILE, "gone.c", "1"),
            (BELOW, "the step before", "1"),
        ];
        let with = |at: usize, input: (&'static str, &'static str, &'static str)| {
            let mut list = same;
            list[at] = input;
            told(&list)
        };
        assert_eq!(
            with(0, (INSTRUCTION, "", "RUN cc")),
            "the instruction is another one: it was RUN make"
        );
        assert_eq!(
            with(1, (ARGUMENT, "COLOUR", "blue")),
            "build argument COLOUR was \"red\" and is \"blue\""
        );
        assert_eq!(
            with(2, (ARGUMENT, "API_TOKEN", "other")),
            "build argument API_TOKEN has changed"
        );
        assert_eq!(with(3, (FILE, "new.c", "1")), "file new.c is new");
        assert_eq!(
            with(4, (BELOW, "the step before", "2")),
            "the step before has another result"
        );
        assert_eq!(
            with(4, (BELOW, "stage one", "2")),
            "it follows on stage one, and did on the step before"
        );
        assert_eq!(told(&[same[0], same[1], same[2], same[4]]), "file gone.c is gone");
        assert!(old.iter().all(|(.., value)| !value.contains("hush")));
    }

    #[test]
    fn what_is_kept_is_read_again_and_a_damaged_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("why/step");
        let mut kept = Inputs::default();
        kept.instruction("RUN x\ny")
            .add(VARIABLE, "A", &"long".repeat(200));
        write(&path, &Digest::of(b"k"), &kept).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found.list, kept.list);
        assert_eq!(first_line(&path).as_deref(), Some(found.definition.as_str()));
        fs::write(&path, "ff\n[1]\n").unwrap();
        assert!(read(&path).is_none());
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(read(&path).is_none());
        assert!(read(Path::new("/nonexistent")).is_none());
    }
}
