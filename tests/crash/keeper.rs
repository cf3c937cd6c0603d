//! A process that serves the disk of a power test, and that clears up when the test is killed.
//!
//! A program that waits for a disk which it serves itself cannot be killed: its threads wait for each other. So the disk
//! is served by this test program started a second time, in a process group of its own: it never uses the disk. It has a
//! pipe from the test, which ends when the test does, in whatever way. Then it takes away the mounts and loop devices
//! below its folder, and ends; with it the kernel gives up what still waits for the disk.
//!
//! The protocol is that of include/uapi/linux/fuse.h, version 7.31.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::volatile::said;
use crate::world::mounts;

/// Names the folder to keep, for the process.
const KEPT: &str = "DHOW_TEST_KEPT";

/// How long those who still use a killed test's disk have.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes before an event's own in the record: its place, and how many they are.
pub(super) const HEAD: usize = 16;

/// The place of a flush.
pub(super) const FLUSH: u64 = u64::MAX;

/// Most bytes of one write.
const MOST: u32 = 1 << 20;

/// The process, from the test's side.
pub(super) struct Keeper(Child);

impl Keeper {
    /// Keeps what is mounted below `folder`; the disk is to be in `folder/memory`.
    pub(super) fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--exact",
            "crash::keeper::what_a_killed_test_leaves_goes",
        ]);
        command.env(KEPT, folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Begins to serve the disk.
    pub(super) fn serve(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"serve\n").unwrap();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "a process that the power tests start"]
fn what_a_killed_test_leaves_goes() {
    let folder = PathBuf::from(std::env::var_os(KEPT).expect("the power tests start it"));
    for line in std::io::stdin().lock().lines() {
        assert_eq!(line.unwrap(), "serve");
        let memory = folder.join("memory");
        std::thread::spawn(move || {
            Served::mount(&memory).serve();
            File::create(memory.join("ended")).unwrap();
        });
    }
    // Of a test that ended by itself nothing is there.
    let deadline = Instant::now() + PATIENCE;
    while clear(&folder) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes away what is mounted below a folder and the loop devices over its files; whether there was any.
fn clear(folder: &Path) -> bool {
    let folder = folder.to_str().unwrap();
    // Before the disk is unmounted: then the name of its file is lost.
    let devices = said(
        "losetup",
        &["--list", "--noheadings", "--output", "NAME,BACK-FILE"],
    );
    let points = mounts(folder);
    for point in &points {
        unmount(point.as_str(), UnmountFlags::DETACH).unwrap_or(());
    }
    let mut ours = devices.lines().filter(|line| line.contains(folder)).peekable();
    let found = ours.peek().is_some() || !points.is_empty();
    for device in ours.filter_map(|line| line.split_whitespace().next()) {
        drop(
            Command::new("losetup")
                .args(["--detach", device])
                .stderr(Stdio::null())
                .status(),
        );
    }
    found
}

const NOT_THERE: i32 = 38;
const NOT_SUPPORTED: i32 = 95;

/// The file system's side of `/dev/fuse`.
struct Served {
    fuse: File,
    backing: File,
    record: File,
}

impl Served {
    /// Mounts `folder/disk`, whose bytes are in `folder/now`; each event goes to the end of `folder/record`.
    fn mount(folder: &Path) -> Self {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).unwrap();
        let fuse = open(Path::new("/dev/fuse"));
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", fuse.as_raw_fd());
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        let disk = folder.join("disk");
        mount("dhow-test", &disk, "fuse", flags, options.as_c_str()).unwrap();
        let backing = open(&folder.join("now"));
        // What says that it is mounted comes last.
        let record = File::create_new(folder.join("record")).unwrap();
        Self {
            fuse,
            backing,
            record,
        }
    }

    fn note(&mut self, offset: u64, bytes: &[u8]) {
        let mut event = Vec::with_capacity(HEAD + bytes.len());
        event.extend_from_slice(&offset.to_ne_bytes());
        event.extend_from_slice(&(bytes.len() as u64).to_ne_bytes());
        event.extend_from_slice(bytes);
        self.record.write_all(&event).unwrap();
    }

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
                self.note(offset, &bytes);
                Ok(words(&[size, 0]))
            }
            // RELEASE, FLUSH (of close), DESTROY
            18 | 25 | 38 => Ok(Vec::new()),
            // FSYNC
            20 => {
                self.note(FLUSH, &[]);
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
