use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, SyncSender};

use dhow_types::ErrorKind;
use flate2::Crc;

use super::deflate::{Compressed, Deflate};
use super::fill;
use crate::{Context, Error};

/// Input of one block. The blocks are part of the format of our output: another size gives other bytes.
const BLOCK: usize = 256 << 10;

/// How much of the block before is the dictionary of a block: the whole window of deflate.
const WINDOW: usize = 32 << 10;

/// Method deflate, no flags, no time, no extra flags, "unknown" operating system: nothing of this machine.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block on its way through, and the buffers that go with it: they come back, since the kernel clears each page of a
/// new one when it is touched first.
#[derive(Default)]
struct Job {
    number: usize,
    /// The window before, then the block, then whatever an earlier one left.
    bytes: Vec<u8>,
    dictionary: usize,
    /// Bytes of the block.
    length: usize,
    last: bool,
    /// What it was compressed to, once it was.
    compressed: Compressed,
    crc: Crc,
}

impl Job {
    fn block(&self) -> &[u8] {
        &self.bytes[self.dictionary..self.dictionary + self.length]
    }

    /// Reads the block that follows the one of `before`; none at the end.
    fn following(mut self, before: Option<&Self>, input: &mut impl Read) -> Result<Option<Self>, Error> {
        self.bytes.resize(WINDOW + BLOCK, 0);
        let window = before.map_or(&[][..], |job| {
            let block = job.block();
            &block[block.len().saturating_sub(WINDOW)..]
        });
        self.dictionary = window.len();
        self.bytes[..window.len()].copy_from_slice(window);
        let room = &mut self.bytes[window.len()..window.len() + BLOCK];
        self.length = fill(input, room).context(|| "read what is to be compressed")?;
        Ok((self.length > 0).then_some(self))
    }
}

/// One gzip member, its blocks deflated at the same time; each block ends on a byte border and sees the end of the
/// block before as its dictionary, as in pigz, so little is lost and any inflate reads it.
pub(super) fn compress(
    threads: usize,
    mut input: impl Read + Send,
    output: &mut impl Write,
) -> Result<u64, Error> {
    let (job_sender, job_receiver) = mpsc::sync_channel::<Job>(threads);
    let (done_sender, done_receiver) = mpsc::channel::<Job>();
    let job_receiver = Mutex::new(job_receiver);
    std::thread::scope(|scope| {
        let jobs = &job_receiver;
        for _ in 0..threads {
            let done = done_sender.clone();
            scope.spawn(move || work(jobs, &done));
        }
        drop(done_sender);
        // At most this many blocks are between reading and writing, so memory is bounded.
        run(threads * 3, &mut input, output, job_sender, &done_receiver)
    })
}

fn work(jobs: &Mutex<Receiver<Job>>, done: &mpsc::Sender<Job>) {
    let mut deflate = Deflate::new();
    loop {
        let job = match jobs.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => return,
        };
        let Ok(mut job) = job else { return };
        job.crc = Crc::new();
        job.crc
            .update(&job.bytes[job.dictionary..job.dictionary + job.length]);
        let bytes = &job.bytes[..job.dictionary + job.length];
        deflate.compress(bytes, job.dictionary, job.last, &mut job.compressed);
        if done.send(job).is_err() {
            return;
        }
    }
}

fn run(
    most: usize,
    input: &mut impl Read,
    output: &mut impl Write,
    jobs: SyncSender<Job>,
    done: &Receiver<Job>,
) -> Result<u64, Error> {
    let mut sink = Ordered {
        output,
        waiting: Vec::new(),
        spare: Vec::new(),
        next: 0,
        crc: Crc::new(),
        bytes: 0,
    };
    sink.write(&HEADER)?;
    // A stream of nothing is one block of nothing.
    let mut job = Job::default().following(None, input)?.unwrap_or_default();
    let mut sent = 0;
    loop {
        // The last block must know that it is the last.
        let following = if job.length < BLOCK {
            None
        } else {
            sink.spare().following(Some(&job), input)?
        };
        job.number = sent;
        job.last = following.is_none();
        jobs.send(job)
            .map_err(|_| Error::new(ErrorKind::Internal, "the compression threads ended"))?;
        sent += 1;
        while sent - sink.next >= most {
            sink.take(done)?;
        }
        match following {
            Some(following) => job = following,
            None => break,
        }
    }
    drop(jobs);
    while sink.next < sent {
        sink.take(done)?;
    }
    let (sum, amount) = (sink.crc.sum(), sink.crc.amount());
    sink.write(&sum.to_le_bytes())?;
    sink.write(&amount.to_le_bytes())?;
    Ok(sink.bytes)
}

/// Writes blocks in their order.
struct Ordered<'a, W> {
    output: &'a mut W,
    waiting: Vec<Job>,
    /// Blocks that were written, for their buffers.
    spare: Vec<Job>,
    next: usize,
    crc: Crc,
    bytes: u64,
}

impl<W: Write> Ordered<'_, W> {
    /// Waits for one more block, then writes all that are due.
    fn take(&mut self, done: &Receiver<Job>) -> Result<(), Error> {
        let ended = || Error::new(ErrorKind::Internal, "the compression threads ended");
        self.waiting.push(done.recv().map_err(|_| ended())?);
        while let Some(at) = self.waiting.iter().position(|block| block.number == self.next) {
            let block = self.waiting.swap_remove(at);
            self.write(block.compressed.bytes())?;
            self.crc.combine(&block.crc);
            self.next += 1;
            self.spare.push(block);
        }
        Ok(())
    }

    fn spare(&mut self) -> Job {
        self.spare.pop().unwrap_or_default()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written: io::Result<()> = self.output.write_all(bytes);
        written.context(|| "write a compressed stream")?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
