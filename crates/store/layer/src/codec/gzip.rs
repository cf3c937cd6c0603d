use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, SyncSender};

use dhow_types::ErrorKind;
use flate2::Crc;

use super::deflate::Deflate;
use super::fill;
use crate::{Context, Error};

/// Input of one block. The blocks are part of the format of our output: another size gives other bytes.
const BLOCK: usize = 256 << 10;

/// How much of the block before is the dictionary of a block: the whole window of deflate.
const WINDOW: usize = 32 << 10;

/// Method deflate, no flags, no time, no extra flags, "unknown" operating system: nothing of this machine.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block on its way through.
struct Job {
    number: usize,
    /// The window before, then the block.
    bytes: Vec<u8>,
    dictionary: usize,
    last: bool,
}

/// A block that is done.
struct Done {
    number: usize,
    compressed: Vec<u8>,
    crc: Crc,
}

/// One gzip member, its blocks deflated at the same time; each block ends on a byte border and sees the end of the
/// block before as its dictionary, as in pigz, so little is lost and any inflate reads it.
pub(super) fn compress(
    threads: usize,
    mut input: impl Read + Send,
    output: &mut impl Write,
) -> Result<u64, Error> {
    let (job_sender, job_receiver) = mpsc::sync_channel::<Job>(threads);
    let (done_sender, done_receiver) = mpsc::channel::<Done>();
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

fn work(jobs: &Mutex<Receiver<Job>>, done: &mpsc::Sender<Done>) {
    let mut deflate = Deflate::new();
    loop {
        let job = match jobs.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => return,
        };
        let Ok(job) = job else { return };
        let mut crc = Crc::new();
        crc.update(&job.bytes[job.dictionary..]);
        let compressed = deflate.compress(&job.bytes, job.dictionary, job.last);
        if done
            .send(Done {
                number: job.number,
                compressed,
                crc,
            })
            .is_err()
        {
            return;
        }
    }
}

fn run(
    most: usize,
    input: &mut impl Read,
    output: &mut impl Write,
    jobs: SyncSender<Job>,
    done: &Receiver<Done>,
) -> Result<u64, Error> {
    let mut sink = Ordered {
        output,
        waiting: Vec::new(),
        next: 0,
        crc: Crc::new(),
        bytes: 0,
    };
    sink.write(&HEADER)?;
    let mut window = Vec::new();
    let mut block = read_block(input)?;
    let mut sent = 0;
    loop {
        // The last block must know that it is the last.
        let following = if block.len() < BLOCK {
            Vec::new()
        } else {
            read_block(input)?
        };
        let last = following.is_empty();
        let dictionary = window.len();
        let tail = block.len().saturating_sub(WINDOW);
        let mut bytes = window;
        bytes.extend_from_slice(&block);
        window = block[tail..].to_vec();
        if jobs
            .send(Job {
                number: sent,
                bytes,
                dictionary,
                last,
            })
            .is_err()
        {
            return Err(Error::new(ErrorKind::Internal, "the compression threads ended"));
        }
        sent += 1;
        while sent - sink.next >= most {
            sink.take(done)?;
        }
        if last {
            break;
        }
        block = following;
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

fn read_block(input: &mut impl Read) -> Result<Vec<u8>, Error> {
    let mut block = vec![0; BLOCK];
    let count = fill(input, &mut block).context(|| "read what is to be compressed")?;
    block.truncate(count);
    Ok(block)
}

/// Writes blocks in their order.
struct Ordered<'a, W> {
    output: &'a mut W,
    waiting: Vec<Done>,
    next: usize,
    crc: Crc,
    bytes: u64,
}

impl<W: Write> Ordered<'_, W> {
    /// Waits for one more block, then writes all that are due.
    fn take(&mut self, done: &Receiver<Done>) -> Result<(), Error> {
        let ended = || Error::new(ErrorKind::Internal, "the compression threads ended");
        self.waiting.push(done.recv().map_err(|_| ended())?);
        while let Some(at) = self.waiting.iter().position(|block| block.number == self.next) {
            let block = self.waiting.swap_remove(at);
            self.write(&block.compressed)?;
            self.crc.combine(&block.crc);
            self.next += 1;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written: io::Result<()> = self.output.write_all(bytes);
        written.context(|| "write a compressed stream")?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
