//! A disk with a write cache that a power cut empties.
//!
//! A FUSE file system with one file (its root is the file), served by the [`Keeper`]; a loop device over it has the
//! file system under test. Every write that the kernel sends to the disk and every flush (a FUSE_FSYNC: the loop device
//! sends one for each REQ_OP_FLUSH, and the block layer one after each FUA write) is kept in order. A power cut at any
//! place of that record gives a disk that has all that was flushed, and of the rest nothing, a beginning, or any
//! sectors: a disk may write its cache in any order, and 512 bytes are what it writes as a whole.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use super::keeper::{FLUSH, HEAD, Keeper};
use crate::world::eventually;

/// What the disk was told, in order.
pub(super) enum Event {
    /// Bytes at a place; they are in the cache.
    Write(u64, Vec<u8>),
    /// All writes before it are safe.
    Flush,
}

/// What becomes of the writes after the last flush.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost {
    /// All of them are lost.
    All,
    /// The later ones are lost, from any sector on.
    Tail,
    /// Any of their sectors are lost.
    Some,
}

const SECTOR: usize = 512;

/// The disk, from the first write to the last.
pub(super) struct Disk {
    folder: PathBuf,
    device: Option<String>,
}

impl Disk {
    /// A disk with this content in the keeper's `folder`, which should be in memory: `first` is what is on it.
    pub(super) fn attach(keeper: &mut Keeper, folder: &Path, first: &Path) -> Self {
        let file = folder.join("disk");
        fs::write(&file, b"").unwrap();
        copy(first, &folder.join("now"));
        keeper.serve();
        eventually("the disk is served", || folder.join("record").exists());
        let device = said("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self {
            folder: folder.to_owned(),
            device: Some(device),
        }
    }

    /// `/dev/loop<n>`.
    pub(super) fn device(&self) -> &str {
        self.device.as_deref().unwrap()
    }

    /// How many events there were: a place in the record.
    pub(super) fn place(&self) -> usize {
        let record = File::open(self.folder.join("record")).unwrap();
        let mut at = 0;
        let mut events = 0;
        while let Some((_, length)) = head(&record, at) {
            at += (HEAD + length) as u64;
            events += 1;
        }
        events
    }

    /// Takes the disk away and gives its record.
    pub(super) fn detach(mut self) -> Vec<Event> {
        self.end();
        let path = self.folder.join("record");
        eventually("the disk is gone", || self.folder.join("ended").exists());
        let record = File::open(&path).unwrap();
        let mut at = 0;
        let mut events = Vec::new();
        while let Some((offset, length)) = head(&record, at) {
            let mut bytes = vec![0; length];
            record.read_exact_at(&mut bytes, at + HEAD as u64).unwrap();
            at += (HEAD + length) as u64;
            events.push(match offset {
                FLUSH => Event::Flush,
                offset => Event::Write(offset, bytes),
            });
        }
        drop(fs::remove_file(path));
        events
    }

    fn end(&mut self) {
        let Some(device) = self.device.take() else { return };
        drop(Command::new("losetup").args(["--detach", &device]).status());
        // The loop device lets go of its file a moment later; the server ends when the last user is gone.
        unmount(self.folder.join("disk"), UnmountFlags::DETACH).unwrap_or(());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

/// Place and length of the event that is written at `at`; none where there is none, or only a part of one yet.
fn head(record: &File, at: u64) -> Option<(u64, usize)> {
    let mut head = [0; HEAD];
    record.read_exact_at(&mut head, at).ok()?;
    let offset = u64::from_ne_bytes(head[..8].try_into().unwrap());
    let length = usize::try_from(u64::from_ne_bytes(head[8..].try_into().unwrap())).unwrap();
    let whole = record.metadata().unwrap().len() >= at + (HEAD + length) as u64;
    whole.then_some((offset, length))
}

/// Copies a file with holes where it has zeros.
pub(super) fn copy(from: &Path, to: &Path) {
    said(
        "cp",
        &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()],
    );
}

/// What a program prints; fails with what it says when it fails.
#[track_caller]
pub(super) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The disk after a power cut at each of some places, made one after the other from the first on.
pub(super) struct Cuts {
    record: Vec<Event>,
    /// Has all that was flushed before `at`.
    safe: File,
    path: PathBuf,
    at: usize,
}

impl Cuts {
    /// `first` is what was on the disk before the record; it is changed.
    pub(super) fn of(record: Vec<Event>, first: &Path) -> Self {
        let safe = OpenOptions::new().read(true).write(true).open(first).unwrap();
        Self {
            record,
            safe,
            path: first.to_owned(),
            at: 0,
        }
    }

    /// Number of flushes in the record.
    pub(super) fn flushes(&self) -> usize {
        self.record
            .iter()
            .filter(|event| matches!(event, Event::Flush))
            .count()
    }

    /// Makes `cut` the disk after a power cut at `place`, which must not be before that of the last call.
    pub(super) fn cut(&mut self, place: usize, lost: Lost, random: &mut Random, cut: &Path) {
        let flushed = self.record[..place]
            .iter()
            .rposition(|event| matches!(event, Event::Flush));
        let flushed = flushed.map_or(self.at, |at| at.max(self.at));
        for event in &self.record[self.at..flushed] {
            if let Event::Write(offset, bytes) = event {
                self.safe.write_all_at(bytes, *offset).unwrap();
            }
        }
        self.at = flushed;
        // A new file each time: the loop device of the last one may still be about to let go of its own.
        drop(fs::remove_file(cut));
        copy(&self.path, cut);
        let cut = OpenOptions::new().write(true).open(cut).unwrap();
        let cached: Vec<(u64, &[u8])> = self.record[flushed..place]
            .iter()
            .filter_map(|event| match event {
                Event::Write(offset, bytes) => Some((*offset, bytes.as_slice())),
                Event::Flush => None,
            })
            .flat_map(|(offset, bytes)| (offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)))
            .collect();
        let kept = random.below(cached.len() as u64 + 1);
        // Of some caches nearly all is written, of others nearly nothing.
        let share = random.below(100);
        for (at, (offset, sector)) in cached.into_iter().enumerate() {
            let keep = match lost {
                Lost::All => false,
                Lost::Tail => (at as u64) < kept,
                Lost::Some => random.below(100) < share,
            };
            if keep {
                cut.write_all_at(sector, offset).unwrap();
            }
        }
    }
}

/// Numbers that look random, the same every time.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}
