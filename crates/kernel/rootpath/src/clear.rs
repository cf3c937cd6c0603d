//! Large trees, whose removal waits for the disk more than for a processor.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, unlinkat};

use crate::{Error, FileKind, Root};

/// Names that one thread takes at once, and directories that they are in at most: each is an open file until it is done.
const NAMES: usize = 64;
const DIRECTORIES: usize = 8;

/// Threads that unlink. More than there are processors: each waits, where the disk is told at once what is free (ext4 without
/// a journal and with `discard` asks it for every file), or for a block that is being written to the journal.
const THREADS: usize = 8;

/// Deepest directory whose names are given to threads; what is deeper is removed by the one.
const DEPTH: usize = 64;

/// Names that are none of directories, with the directory of each.
#[derive(Default)]
struct Batch {
    parts: Vec<(Arc<OwnedFd>, Vec<OsString>)>,
    names: usize,
}

impl Batch {
    /// A name that cannot be unlinked is met again by who removes the tree.
    fn unlink(&self) {
        for (dir, names) in &self.parts {
            for name in names {
                unlinkat(dir, name, AtFlags::empty()).unwrap_or(());
            }
        }
    }

    fn is_full(&self) -> bool {
        self.names >= NAMES || self.parts.len() >= DIRECTORIES
    }
}

impl Root {
    /// As [`Root::remove_all`], with several threads at the files of a large tree; they are gone when it returns.
    ///
    /// # Errors
    /// As [`Root::remove_all`].
    pub fn remove_all_at_once(&self, path: &Path) -> Result<(), Error> {
        // Links are not followed, mounts not entered; what fails here is left to the second pass, which says so.
        if let Ok((parent, name)) = self.parent_of(path)
            && let Some(dir) = open(&parent, &name)
        {
            clear(dir);
        }
        self.remove_all(path)
    }
}

fn open(parent: &OwnedFd, name: &OsString) -> Option<Arc<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    openat2(parent.as_fd(), name, flags, Mode::empty(), resolve)
        .ok()
        .map(Arc::new)
}

/// Unlinks all that is no directory in `dir` and below.
fn clear(dir: Arc<OwnedFd>) {
    let (sender, receiver) = sync_channel::<Batch>(THREADS);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let mut started = 0;
        let mut rest = Batch::default();
        let mut give = |dir: &Arc<OwnedFd>, names: Vec<OsString>| {
            rest.names += names.len();
            rest.parts.push((Arc::clone(dir), names));
            if rest.is_full() {
                let full = std::mem::take(&mut rest);
                if started < THREADS {
                    let thread = std::thread::Builder::new().spawn_scoped(scope, || work(&receiver));
                    started += usize::from(thread.is_ok());
                }
                match started {
                    // No more threads are to be had.
                    0 => full.unlink(),
                    _ => drop(sender.send(full)),
                }
            }
        };
        walk(&dir, 0, &mut give);
        // Of a small tree this is all, and no other thread was needed.
        rest.unlink();
        drop(sender);
    });
}

fn work(receiver: &Mutex<Receiver<Batch>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        batch.unlink();
    }
}

fn walk(dir: &Arc<OwnedFd>, depth: usize, give: &mut dyn FnMut(&Arc<OwnedFd>, Vec<OsString>)) {
    let listed = dir.try_clone().ok();
    let Some(Ok(entries)) = listed.map(|list| crate::read::list(list, Path::new("."))) else {
        return;
    };
    let mut names = Vec::new();
    for entry in entries {
        if entry.kind == FileKind::Directory {
            if depth < DEPTH
                && let Some(inner) = open(dir, &entry.name)
            {
                walk(&inner, depth + 1, give);
            }
            continue;
        }
        names.push(entry.name);
        if names.len() == NAMES {
            give(dir, std::mem::take(&mut names));
        }
    }
    if !names.is_empty() {
        give(dir, names);
    }
}
