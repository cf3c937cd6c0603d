//! A walk over a context: a directory is a piece of work, and a directory of very many names is several. A context of a few
//! hundred files is walked by the thread that asks; for more, others help. The order is that of one thread: names sorted,
//! each directory before what is below it.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dhow_types::{Digest, ErrorKind};

use super::{Context, check_depth, names, open_below};
use crate::failure::Error;
use crate::ignore::Matched;
use crate::keys::xattr_digest;
use crate::source::{Item, join};

/// Names that are one piece of work.
const PIECE: usize = 512;
/// Names after which other threads are worth their start.
const ALONE: usize = 1024;

/// A directory whose names are looked at.
struct Place {
    dir: OwnedFd,
    path: Vec<u8>,
    above: Matched,
    depth: usize,
}

/// A piece of work.
enum Task {
    /// All of a directory that is open.
    All(Arc<Place>),
    /// Some names of a directory.
    Names(Arc<Place>, Vec<OsString>),
    /// A directory by its name in another, its path, and what its patterns are.
    Below(Arc<Place>, OsString, Vec<u8>, Matched),
}

/// What a piece of work found.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Extended attributes of the directory itself.
    xattrs: Option<Digest>,
    /// It went away, or became something else.
    gone: bool,
}

enum Entry {
    Item(Item),
    /// A directory, whether a pattern matches it, and the number of the work that is what is below it.
    Directory(Item, bool, usize),
    /// More names of the same directory.
    More(usize),
}

/// All the work of a walk.
#[derive(Default)]
struct Work {
    /// What is to do, with its number.
    tasks: Vec<(usize, Task)>,
    found: Vec<Found>,
    /// How many are at work.
    busy: usize,
    /// Names that were looked at.
    seen: usize,
    failure: Option<Error>,
}

/// What one directory or some names led to: entries whose numbers count from 0, and the work that these are.
#[derive(Default)]
struct Outcome {
    found: Found,
    tasks: Vec<Task>,
    seen: usize,
}

struct Walk<'c> {
    context: &'c Context,
    work: Mutex<Work>,
    change: Condvar,
}

/// Adds what is in a directory of `context`, and all below it.
pub(super) fn walk(
    context: &Context,
    dir: OwnedFd,
    path: &[u8],
    above: Matched,
    out: &mut Vec<Item>,
) -> Result<(), Error> {
    let start = Place {
        dir,
        path: path.to_vec(),
        above,
        depth: 0,
    };
    let walk = Walk {
        context,
        work: Mutex::new(Work {
            tasks: vec![(0, Task::All(Arc::new(start)))],
            found: vec![Found::default()],
            ..Work::default()
        }),
        change: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut others = 1;
        while walk.step() {
            if others < most && walk.wants_others() {
                others += 1;
                scope.spawn(|| while walk.step() {});
            }
        }
    });
    let mut work = walk.work.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = work.failure {
        return Err(failure);
    }
    out.reserve(work.seen);
    flatten(&mut work.found, 0, out);
    Ok(())
}

/// Adds the items of a piece of work, in the order of one thread.
fn flatten(found: &mut [Found], number: usize, out: &mut Vec<Item>) {
    for entry in std::mem::take(&mut found[number].entries) {
        match entry {
            Entry::Item(item) => out.push(item),
            Entry::More(more) => flatten(found, more, out),
            Entry::Directory(mut item, matched, below) => {
                if found[below].gone {
                    continue;
                }
                if let Some(xattrs) = found[below].xattrs {
                    item.xattrs = xattrs;
                }
                let place = out.len();
                out.push(item);
                flatten(found, below, out);
                // A directory that matches is only there for what is excepted below it.
                if matched && out.len() == place + 1 {
                    out.pop();
                }
            }
        }
    }
}

impl Walk<'_> {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is enough to do for one more.
    fn wants_others(&self) -> bool {
        let work = self.work();
        work.seen > ALONE && work.tasks.len() > work.busy
    }

    /// Does one piece of work; false when there will be no more.
    fn step(&self) -> bool {
        let mut work = self.work();
        let (number, task) = loop {
            if work.failure.is_some() {
                return false;
            }
            if let Some(task) = work.tasks.pop() {
                break task;
            }
            if work.busy == 0 {
                return false;
            }
            work = self.change.wait(work).unwrap_or_else(PoisonError::into_inner);
        };
        work.busy += 1;
        drop(work);
        // Until it is dropped, others wait for what this leads to.
        let _busy = Busy(self);
        match self.outcome(task) {
            Ok(outcome) => self.work().add(number, outcome),
            Err(failure) => self.work().failure = Some(failure),
        }
        true
    }

    fn outcome(&self, task: Task) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        match task {
            Task::All(place) => self.all(&place, &mut outcome)?,
            Task::Names(place, names) => self.some(&place, names, &mut outcome)?,
            Task::Below(parent, name, path, above) => {
                let Some(dir) = open_below(&parent.dir, &name, &path)? else {
                    outcome.found.gone = true;
                    return Ok(outcome);
                };
                outcome.found.xattrs = Some(xattr_digest(&crate::xattr::read(dir.as_fd())));
                let place = Place {
                    dir,
                    path,
                    above,
                    depth: parent.depth + 1,
                };
                self.all(&Arc::new(place), &mut outcome)?;
            }
        }
        Ok(outcome)
    }

    fn all(&self, place: &Arc<Place>, outcome: &mut Outcome) -> Result<(), Error> {
        check_depth(place.depth)?;
        let mut names = names(place.dir.as_fd(), &place.path)?;
        while names.len() > PIECE {
            let rest = names.split_off(PIECE);
            outcome.found.entries.push(Entry::More(outcome.tasks.len()));
            outcome.tasks.push(Task::Names(Arc::clone(place), names));
            names = rest;
        }
        if !outcome.tasks.is_empty() {
            outcome.found.entries.push(Entry::More(outcome.tasks.len()));
            outcome.tasks.push(Task::Names(Arc::clone(place), names));
            return Ok(());
        }
        self.some(place, names, outcome)
    }

    fn some(&self, place: &Arc<Place>, names: Vec<OsString>, outcome: &mut Outcome) -> Result<(), Error> {
        let ignore = &self.context.ignore;
        outcome.seen = names.len();
        outcome.found.entries.reserve(names.len());
        for name in names {
            let child = join(&place.path, name.as_bytes());
            let (matched, state) = if ignore.is_empty() {
                (false, Matched::default())
            } else {
                ignore.matches(&child, &place.above)
            };
            if matched && !ignore.may_except_below(&child) {
                continue;
            }
            let Some(item) = self.context.item(place.dir.as_fd(), &name, child)? else {
                continue;
            };
            if item.is_dir() {
                let path = item.path.clone();
                let below = Task::Below(Arc::clone(place), name, path, state);
                let entry = Entry::Directory(item, matched, outcome.tasks.len());
                outcome.found.entries.push(entry);
                outcome.tasks.push(below);
            } else if !matched {
                outcome.found.entries.push(Entry::Item(item));
            }
        }
        Ok(())
    }
}

/// One that is at work; nobody waits for one that panicked.
struct Busy<'w, 'c>(&'w Walk<'c>);

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        let mut work = self.0.work();
        work.busy -= 1;
        if std::thread::panicking() {
            let what = "a thread that walked the build context panicked";
            work.failure = Some(Error::new(ErrorKind::Internal, what));
        }
        drop(work);
        self.0.change.notify_all();
    }
}

impl Work {
    /// Keeps what was found, and gives the work it led to its numbers. What comes first is done first, so that few directories are
    /// open at a time.
    fn add(&mut self, number: usize, outcome: Outcome) {
        let first = self.found.len();
        let count = outcome.tasks.len();
        self.found.resize_with(first + count, Found::default);
        let numbered = outcome.tasks.into_iter().enumerate().rev();
        self.tasks.extend(numbered.map(|(at, task)| (first + at, task)));
        self.seen += outcome.seen;
        self.found[number] = outcome.found;
        for entry in &mut self.found[number].entries {
            match entry {
                Entry::Directory(_, _, below) | Entry::More(below) => *below += first,
                Entry::Item(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::ignore::Patterns;
    use crate::source::Source as _;

    /// Paths below a directory as one thread would list them.
    fn listed(root: &Path, below: &str, out: &mut Vec<String>) {
        let mut names: Vec<String> = fs::read_dir(root.join(below))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in names {
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            out.push(path.clone());
            if root.join(&path).is_dir() {
                listed(root, &path, out);
            }
        }
    }

    fn walked(root: &Path, patterns: &str) -> Result<Vec<String>, Error> {
        let cache = tempfile::tempdir().unwrap();
        let context = Context::without(root, Patterns::parse(patterns).unwrap(), cache.path()).unwrap();
        let mut items = Vec::new();
        context.walk(b"", &mut items)?;
        Ok(items
            .into_iter()
            .map(|item| String::from_utf8(item.path).unwrap())
            .collect())
    }

    /// Directories of many names, many directories, and some that are deep.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (directory, files) in [("long", 2 * PIECE + 7), ("full", PIECE), ("empty", 0)] {
            fs::create_dir(root.path().join(directory)).unwrap();
            (0..files)
                .for_each(|file| fs::write(root.path().join(format!("{directory}/{file}")), "").unwrap());
        }
        for directory in 0..60 {
            let path = root.path().join(format!("many/{directory}/below/it"));
            fs::create_dir_all(&path).unwrap();
            (0..20).for_each(|file| fs::write(path.join(format!("f{file}")), "").unwrap());
        }
        root
    }

    #[test]
    fn several_threads_find_what_one_does_in_its_order() {
        let root = tree();
        let mut expected = Vec::new();
        listed(root.path(), "", &mut expected);
        assert!(expected.len() > 2 * ALONE);
        for _ in 0..20 {
            assert_eq!(walked(root.path(), "").unwrap(), expected);
        }
    }

    #[test]
    fn a_directory_that_is_left_out_is_there_for_what_is_excepted_below_it() {
        let root = tree();
        let patterns = "many\nlong\n!many/7/below/it/f3\nfull/1*";
        let mut expected = Vec::new();
        listed(root.path(), "", &mut expected);
        let kept = [
            "many",
            "many/7",
            "many/7/below",
            "many/7/below/it",
            "many/7/below/it/f3",
        ];
        expected.retain(|path| {
            let out = path.starts_with("many") || path.starts_with("long") || path.starts_with("full/1");
            !out || kept.contains(&path.as_str())
        });
        assert_eq!(walked(root.path(), patterns).unwrap(), expected);
    }

    #[test]
    fn what_fails_in_one_thread_ends_the_walk() {
        let root = tree();
        let mut deep = root.path().join("many/30");
        for _ in 0..super::super::MAX_DEPTH + 5 {
            deep.push("d");
            if fs::create_dir(&deep).is_err() {
                break;
            }
        }
        let failure = walked(root.path(), "").unwrap_err();
        assert!(failure.to_string().contains("directories deep"), "{failure}");
    }
}
