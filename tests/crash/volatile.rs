//! A disk with a write cache that a power cut empties.
//!
//! A FUSE file system with one file (its root is the file), served by a thread of the test; a loop device over it has the
//! file system under test. Every write that the kernel sends to the disk and every flush (a FUSE_FSYNC: the loop device
//! sends one for each REQ_OP_FLUSH, and the block layer one after each FUA write) is kept in order. A power cut at any
//! place of that record gives a disk that has all that was flushed, and of the rest nothing, a beginning, or any
//! sectors: a disk may write its cache in any order, and 512 bytes are what it writes as a whole.
//!
//! The protocol is that of include/uapi/linux/fuse.h, version 7.31.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

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

/// Most bytes of one write.
const MOST: u32 = 1 << 20;
const SECTOR: usize = 512;

/// The disk, from the first write to the last.
pub(super) struct Disk {
    folder: PathBuf,
    record: Arc<Mutex<Vec<Event>>>,
    server: Option<JoinHandle<()>>,
    device: String,
}

impl Disk {
    /// A disk with this content in `folder`, which should be in memory: `first` is what is on it.
    pub(super) fn attach(folder: &Path, first: &Path) -> Self {
        let file = folder.join("disk");
        fs::write(&file, b"").unwrap();
        let now = folder.join("now");
        copy(first, &now);
        let backing = OpenOptions::new().read(true).write(true).open(&now).unwrap();
        let fuse = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", fuse.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "dhow-test",
            &file,
            "fuse",
            MountFlags::NODEV | MountFlags::NOSUID,
            options.as_c_str(),
        )
        .unwrap();
        let record = Arc::new(Mutex::new(Vec::new()));
        let mut served = Served {
            fuse,
            backing,
            record: Arc::clone(&record),
        };
        let server = Some(std::thread::spawn(move || served.serve()));
        let device = said("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self {
            folder: folder.to_owned(),
            record,
            server,
            device,
        }
    }

    /// `/dev/loop<n>`.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// How many events there were: a place in the record.
    pub(super) fn place(&self) -> usize {
        locked(&self.record).len()
    }

    /// Takes the disk away and gives its record.
    pub(super) fn detach(mut self) -> Vec<Event> {
        self.end();
        std::mem::take(&mut *locked(&self.record))
    }

    fn end(&mut self) {
        let Some(server) = self.server.take() else { return };
        drop(Command::new("losetup").args(["--detach", &self.device]).status());
        // The loop device lets go of its file a moment later; the server ends when the last user is gone.
        let file = self.folder.join("disk");
        unmount(&file, UnmountFlags::DETACH).unwrap_or(());
        drop(server.join());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

fn locked(record: &Mutex<Vec<Event>>) -> MutexGuard<'_, Vec<Event>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
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

const NOT_THERE: i32 = 38;
const NOT_SUPPORTED: i32 = 95;

/// The file system's side of `/dev/fuse`.
struct Served {
    fuse: File,
    backing: File,
    record: Arc<Mutex<Vec<Event>>>,
}

impl Served {
    fn serve(&mut self) {
        let mut request = vec![0; MOST as usize + (64 << 10)];
        loop {
            let length = match self.fuse.read(&mut request) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => {
                    continue;
                }
                // ENODEV: the file system is unmounted.
                Err(_) => return,
            };
            let Some(answer) = self.answer(&request[..length]) else {
                continue;
            };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(errno) => (-errno, Vec::new()),
            };
            let mut reply = Vec::with_capacity(16 + body.len());
            reply.extend_from_slice(&(16 + u32::try_from(body.len()).unwrap()).to_ne_bytes());
            reply.extend_from_slice(&i32::to_ne_bytes(error));
            reply.extend_from_slice(&request[8..16]);
            reply.extend_from_slice(&body);
            // An interrupted request has no place for its answer any more.
            drop(self.fuse.write(&reply));
        }
    }

    /// The body of the answer or an errno; none when there must be no answer.
    fn answer(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let body = &request[40..];
        Some(match word(request, 4) {
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => return None,
            // GETATTR, SETATTR
            3 | 4 => Ok(self.attributes()),
            // OPEN: all I/O is direct, so that each write comes as it is.
            14 => Ok(words(&[0, 0, 1, 0])),
            // READ
            15 => {
                let mut bytes = vec![0; word(body, 16) as usize];
                let count = self.backing.read_at(&mut bytes, long(body, 8)).unwrap();
                bytes.truncate(count);
                Ok(bytes)
            }
            // WRITE
            16 => {
                let (offset, size) = (long(body, 8), word(body, 16));
                let bytes = body[40..40 + size as usize].to_vec();
                self.backing.write_all_at(&bytes, offset).unwrap();
                locked(&self.record).push(Event::Write(offset, bytes));
                Ok(words(&[size, 0]))
            }
            // RELEASE, FLUSH (of close), DESTROY
            18 | 25 | 38 => Ok(Vec::new()),
            // FSYNC
            20 => {
                locked(&self.record).push(Event::Flush);
                Ok(Vec::new())
            }
            // INIT: version 7.31, FUSE_BIG_WRITES and FUSE_MAX_PAGES
            26 => Ok(words(&[
                7,
                31,
                0,
                1 << 5 | 1 << 22,
                64 << 16 | 64,
                MOST,
                1,
                MOST >> 12,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ])),
            // FALLOCATE: without it the loop device has no discard.
            43 => Err(NOT_SUPPORTED),
            _ => Err(NOT_THERE),
        })
    }

    fn attributes(&self) -> Vec<u8> {
        let size = self.backing.metadata().unwrap().len();
        let mut out = vec![0; 104];
        out[16..24].copy_from_slice(&1_u64.to_ne_bytes());
        out[24..32].copy_from_slice(&size.to_ne_bytes());
        out[32..40].copy_from_slice(&(size / 512).to_ne_bytes());
        // Mode of a file, one link, blocks of 4096 bytes.
        out[76..80].copy_from_slice(&0o100_600_u32.to_ne_bytes());
        out[80..84].copy_from_slice(&1_u32.to_ne_bytes());
        out[96..100].copy_from_slice(&4096_u32.to_ne_bytes());
        out
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
