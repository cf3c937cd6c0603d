//! `SOURCE_DATE_EPOCH`: a number, or where the number comes from (frontend 1.25): `context`, a stage that is one remote
//! source and nothing else, or a named context of that kind.

use std::io::{Read, Seek as _, SeekFrom};

use dhow_dockerfile::{Dockerfile, Op};
use dhow_layer::tar::{Reader, is_archive};
use dhow_layer::{EntryKind, decoder};

use crate::cache::cancelled;
use crate::download::Downloaded;
use crate::failure::{Context as _, Error, Halt, Trouble, invalid};
use crate::outside;
use crate::plan::{Base, Plan};
use crate::remote::{self, GitSource};
use crate::request::{NamedContext, Request};
use crate::schedule::{Build, Parts};

/// The argument.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";
/// Years up to 9999 can be written as RFC 3339.
const LAST: i64 = 253_402_300_799;

/// What the argument says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing, or a number.
    #[default]
    Number,
    /// What has been found out already.
    Found,
    /// The time of this URL or repository, still to be asked for.
    Remote(String),
}

/// Reads the argument: the time, when it is known, and how it was said.
pub(crate) fn read(
    plan: &Plan,
    file: &Dockerfile,
    request: &Request,
) -> Result<(Option<i64>, Said), Trouble> {
    let given = request.build_args.get(NAME).or_else(|| plan.globals.get(NAME));
    let Some(text) = given.map(|text| text.trim()).filter(|text| !text.is_empty()) else {
        return Ok((request.source_date_epoch, Said::Number));
    };
    if text == "context" {
        return Ok((request.context_time.map(|time| time.clamp(0, LAST)), Said::Found));
    }
    if let Ok(seconds) = text.parse::<i64>() {
        if !(0..=LAST).contains(&seconds) {
            return Err(invalid(format!("{NAME}={text} is out of range")).into());
        }
        return Ok((Some(seconds), Said::Number));
    }
    if let Some(Base::Named(context)) = plan.named(text, &plan.platform) {
        return match context {
            NamedContext::Http(source) | NamedContext::Git(source) => Ok((None, Said::Remote(source))),
            _ => Ok((None, Said::Found)),
        };
    }
    let lower = text.to_lowercase();
    let named = |name: &Option<String>| name.as_deref() == Some(&lower);
    let Some(index) = plan.names.iter().rposition(named) else {
        let error = invalid(format!("invalid {NAME}: {text}"));
        let hint =
            "write the seconds since 1970, context, or the name of a stage or context with one remote source";
        return Err(error.with_hint(hint).into());
    };
    Ok((None, Said::Remote(only_source(plan, file, index)?)))
}

/// The one source of a stage that is nothing else.
fn only_source(plan: &Plan, file: &Dockerfile, index: usize) -> Result<String, Trouble> {
    let stage = &file.stages[index];
    let refused = || {
        let error = invalid(format!("{NAME} stage does not meet source-only requirements"));
        let hint = "it must be FROM scratch and one ADD of one URL or git repository";
        Trouble::from(error.with_hint(hint)).at(stage.at)
    };
    let [instruction] = stage.instructions.as_slice() else {
        return Err(refused());
    };
    let Op::Add(copy) = &instruction.op else {
        return Err(refused());
    };
    let ([path], true, &Base::Scratch) = (
        copy.paths.as_slice(),
        copy.files.is_empty(),
        &plan.stages[index].base,
    ) else {
        return Err(refused());
    };
    let path = plan.expand(file.escape, path)?;
    if remote::is_http(&path) || remote::is_git(&path) {
        return Ok(path);
    }
    Err(refused())
}

/// The time of the build, when it has to be asked for first.
pub(crate) fn ask(parts: Parts<'_>) -> Result<Option<i64>, Trouble> {
    let Said::Remote(source) = &parts.plan.epoch_said else {
        return Ok(parts.plan.epoch);
    };
    of_remote(&Build::new(parts)?, source).map_err(|halt| match halt {
        Halt::Here(trouble) => *trouble,
        Halt::Elsewhere => cancelled().into(),
    })
}

/// Asks how old a source is.
fn of_remote(build: &Build<'_>, source: &str) -> Result<Option<i64>, Halt> {
    let time = if remote::is_git(source) {
        let source = GitSource::parse(source)?;
        let commit = outside::commit(build, &source)?;
        Some(outside::commit_time(build, &source, &commit)?)
    } else {
        let downloaded = Downloaded::fetch(build, source, &remote::file_name(source), None)?;
        match downloaded.modified {
            Some(time) => i64::try_from(time).ok(),
            None => newest(downloaded.open(build)?)?,
        }
    };
    Ok(time.map(|time| time.clamp(0, LAST)))
}

/// The time of the newest file in an archive; `None` for what is no archive.
fn newest(mut file: std::fs::File) -> Result<Option<i64>, Error> {
    let what = || "read the archive";
    let Ok((_, mut stream)) = decoder(&mut file) else {
        return Ok(None);
    };
    let mut head = Vec::new();
    if (&mut stream).take(512).read_to_end(&mut head).is_err() || !is_archive(&head) {
        return Ok(None);
    }
    drop(stream);
    file.seek(SeekFrom::Start(0)).context(what)?;
    let (_, stream) = decoder(file).context(what)?;
    let mut archive = Reader::new(stream);
    let mut found = None;
    while let Some(entry) = archive.next_entry().context(what)? {
        if entry.kind != EntryKind::Directory {
            found = found.max(Some(entry.mtime));
        }
    }
    Ok(found)
}
