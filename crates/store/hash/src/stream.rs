//! Streams that other threads hash.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar};

use dhow_types::Digest;

use crate::lane::Lane;
use crate::pool;
use crate::worker::Worker;

/// Bytes on their way.
pub trait Piece: Send + 'static {
    /// What is hashed of it: nothing, for a word that only keeps its place among the others.
    fn bytes(&self) -> &[u8];

    /// Takes it back. Called once, in the order of the stream, by the thread that hashes: must not wait.
    fn hashed(self: Box<Self>);
}

/// A stream that another thread hashes.
///
/// Dropped without an end it is forgotten, with the pieces that were not hashed yet.
pub struct Stream {
    worker: Arc<Worker>,
    id: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a worker knows of a stream.
pub(crate) struct Entry {
    /// Its hash; the worker has it in hand when it is not here.
    pub(crate) lane: Option<Lane>,
    /// A piece that is hashed in part, and how many of its bytes.
    pub(crate) begun: Option<(Box<dyn Piece>, usize)>,
    pub(crate) queue: VecDeque<Box<dyn Piece>>,
    /// Bytes of the pieces that were given back.
    pub(crate) total: u64,
    /// What somebody waits for, who is told by `done`.
    until: Option<Until>,
    pub(crate) done: Arc<Condvar>,
}

/// What one waits for who has a stream.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// No more than so many pieces wait.
    Left(usize),
    /// None waits, and none is hashed.
    Ended,
}

impl Entry {
    pub(crate) fn new(lane: Lane) -> Self {
        Self {
            lane: Some(lane),
            begun: None,
            queue: VecDeque::new(),
            total: 0,
            until: None,
            done: Arc::default(),
        }
    }

    /// By what one is told of it.
    pub(crate) fn until(&mut self, until: Until) -> Arc<Condvar> {
        self.until = Some(until);
        Arc::clone(&self.done)
    }

    /// Whom to tell, when it is so.
    pub(crate) fn told(&mut self) -> Option<Arc<Condvar>> {
        let due = match self.until? {
            Until::Left(most) => self.queue.len() <= most,
            Until::Ended => self.queue.is_empty() && self.begun.is_none(),
        };
        if due {
            self.until = None;
        }
        due.then(|| Arc::clone(&self.done))
    }
}

impl Stream {
    /// A stream without bytes.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn begin() -> io::Result<Self> {
        pool::begin().map(|(worker, id)| Self { worker, id })
    }

    /// Adds a piece. Waits while as many as `most` are behind the one that is being hashed.
    ///
    /// Pieces may be left until half of `most` are there or the stream is at its end: who needs one back before that pushes
    /// with `most` of 1 or 2.
    ///
    /// # Panics
    /// When `most` is 0, or a piece of any stream has panicked.
    pub fn push(&self, piece: Box<dyn Piece>, most: usize) {
        assert!(most > 0, "a stream that takes no piece");
        self.worker.push(self.id, piece, most);
    }

    /// The digest of all, and how many bytes it is of. Every piece has been given back then.
    ///
    /// # Panics
    /// When a piece of any stream has panicked.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        self.worker.finish(self.id)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.worker.forget(self.id);
        pool::end(&self.worker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    struct Part(Vec<u8>, Option<Sender<usize>>);

    impl Piece for Part {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn hashed(self: Box<Self>) {
            if let Some(sender) = self.1 {
                sender.send(self.0.len()).unwrap();
            }
        }
    }

    /// A piece that is given back only when somebody says so.
    struct Slow(Receiver<()>);

    impl Piece for Slow {
        fn bytes(&self) -> &[u8] {
            b"slow"
        }

        fn hashed(self: Box<Self>) {
            self.0.recv().unwrap();
        }
    }

    fn part(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 31 + seed).to_le_bytes()[0]).collect()
    }

    #[test]
    fn many_streams_at_once_have_the_digests_of_each() {
        std::thread::scope(|scope| {
            for seed in 0..9 {
                scope.spawn(move || {
                    let stream = Stream::begin().unwrap();
                    let mut whole = Vec::new();
                    for round in 0..40 {
                        let bytes = part((seed * 7919 + round * 10_007) % 200_000, seed + round);
                        whole.extend_from_slice(&bytes);
                        stream.push(Box::new(Part(bytes, None)), 1 + seed % 3);
                    }
                    assert_eq!(stream.finish(), (Digest::of(&whole), whole.len() as u64));
                });
            }
        });
    }

    #[test]
    fn pieces_are_given_back_in_their_order_and_before_the_end() {
        let (sender, receiver) = channel();
        let stream = Stream::begin().unwrap();
        for length in [3, 0, 200_000, 64, 1] {
            stream.push(Box::new(Part(part(length, 1), Some(sender.clone()))), 9);
        }
        let (_, total) = stream.finish();
        assert_eq!(total, 200_068);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3, 0, 200_000, 64, 1]);
    }

    #[test]
    fn pieces_are_left_until_there_are_half_as_many_as_may_be() {
        let (sender, receiver) = channel();
        let stream = Stream::begin().unwrap();
        let push = |length| stream.push(Box::new(Part(part(length, 1), Some(sender.clone()))), 8);
        (1..4).for_each(push);
        let early = receiver.recv_timeout(Duration::from_millis(30));
        // A thread that was just made has not begun to wait, and takes what there is.
        let took = early.is_ok();
        push(4);
        if !took {
            assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(1));
        }
        push(5);
        let (_, total) = stream.finish();
        assert_eq!(total, 1 + 2 + 3 + 4 + 5);
    }

    #[test]
    fn a_stream_without_bytes_has_the_digest_of_none() {
        assert_eq!(Stream::begin().unwrap().finish(), (Digest::of(b""), 0));
    }

    #[test]
    fn of_a_stream_that_is_dropped_nothing_more_is_hashed() {
        let ((go, slow), (sender, receiver)) = (channel(), channel());
        let (stream, other) = (Stream::begin().unwrap(), Stream::begin().unwrap());
        stream.push(Box::new(Slow(slow)), 2);
        stream.push(Box::new(Part(part(9, 9), Some(sender))), 2);
        // The other keeps the thread.
        drop(stream);
        go.send(()).unwrap_or_default();
        other.push(Box::new(Part(part(5, 5), None)), 9);
        assert_eq!(other.finish(), (Digest::of(&part(5, 5)), 5));
        assert_eq!(receiver.recv().ok(), None);
    }

    #[test]
    fn who_pushes_waits_for_the_pieces_before() {
        let (go, slow) = channel();
        let pushed = AtomicUsize::new(0);
        let stream = Stream::begin().unwrap();
        stream.push(Box::new(Slow(slow)), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for length in [1, 2, 3] {
                    stream.push(Box::new(Part(part(length, 0), None)), 1);
                    pushed.fetch_add(1, Ordering::SeqCst);
                }
            });
            std::thread::sleep(Duration::from_millis(30));
            assert!(pushed.load(Ordering::SeqCst) <= 1);
            go.send(()).unwrap();
        });
        let (_, total) = stream.finish();
        assert_eq!(total, 4 + 6);
    }
}
