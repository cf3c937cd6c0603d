//! A thread with some streams. Of those that have pieces it takes two in turn and hashes as much of both as they have in
//! common; so a slow stream never holds up another.
//!
//! To wake somebody is a system call of both and a change of threads. So the thread is woken when half as many pieces wait
//! as may, and more often finds two streams then; and who waits for room is woken when half of it is free.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dhow_types::Digest;

use crate::lane::{self, Lane};
use crate::stream::{Entry, Piece, Until};

/// Bytes of a stream that are hashed by themselves before the worker looks whether another has some now.
const ALONE: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Worker {
    inner: Mutex<Inner>,
    /// Said to the thread: pieces have come, or there will be none.
    ready: Condvar,
}

#[derive(Default)]
struct Inner {
    streams: BTreeMap<u64, Entry>,
    /// Streams that there were.
    begun: u64,
    /// Who had the last turn.
    last: u64,
    /// The thread waits until it is told.
    idle: bool,
    closed: bool,
    /// The thread died of a piece.
    dead: bool,
}

/// A stream that the thread has in hand.
struct Held {
    id: u64,
    lane: Lane,
    /// What is hashed, until it is given back.
    piece: Option<Box<dyn Piece>>,
    /// Bytes of it that are done.
    at: usize,
    /// Its length, once it was given back.
    given: u64,
}

impl Worker {
    pub(crate) fn add(&self, lane: Lane) -> u64 {
        let mut inner = self.lock();
        inner.begun += 1;
        let id = inner.begun;
        inner.streams.insert(id, Entry::new(lane));
        id
    }

    pub(crate) fn push(&self, id: u64, piece: Box<dyn Piece>, most: usize) {
        let mut inner = self.lock();
        let due = loop {
            let entry = inner.living(id);
            if entry.queue.len() < most {
                entry.queue.push_back(piece);
                break entry.queue.len() >= most.div_ceil(2);
            }
            let done = entry.until(Until::Left(most / 2));
            inner = wait(&done, inner);
        };
        if due {
            self.wake(inner);
        }
    }

    pub(crate) fn finish(&self, id: u64) -> (Digest, u64) {
        // What was left until now is hashed.
        self.wake(self.lock());
        let mut inner = self.lock();
        loop {
            let entry = inner.living(id);
            if entry.queue.is_empty()
                && entry.begun.is_none()
                && let Some(lane) = entry.lane.take()
            {
                return (lane.finish(), entry.total);
            }
            let done = entry.until(Until::Ended);
            inner = wait(&done, inner);
        }
    }

    /// Tells the thread that there is something to do, if it has to be told.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        if idle {
            self.ready.notify_one();
        }
    }

    /// Drops a stream, with what the thread has not in hand.
    pub(crate) fn forget(&self, id: u64) {
        let entry = self.lock().streams.remove(&id);
        // Its pieces are somebody's: not under the lock.
        drop(entry);
    }

    /// No stream will come any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// What the thread does.
    pub(crate) fn run(&self) {
        let _died = Died(self);
        let mut inner = self.lock();
        loop {
            let mut hand = inner.take_turns();
            if hand.is_empty() {
                if inner.closed {
                    return;
                }
                inner.idle = true;
                inner = wait(&self.ready, inner);
                inner.idle = false;
                continue;
            }
            drop(inner);
            hash(&mut hand);
            inner = self.lock();
            let (mut gone, mut told) = (Vec::new(), Vec::new());
            for held in hand {
                gone.extend(inner.put_back(held, &mut told));
            }
            if !gone.is_empty() || !told.is_empty() {
                // Those who are told go on at once, and what is gone is somebody's.
                drop(inner);
                gone.clear();
                told.iter().for_each(|done| done.notify_all());
                inner = self.lock();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A stream that nobody has dropped.
    ///
    /// # Panics
    /// When the thread died.
    fn living(&mut self, id: u64) -> &mut Entry {
        let dead = self.dead;
        assert!(!dead, "a piece of a stream has panicked");
        let Some(entry) = self.streams.get_mut(&id) else {
            panic!("a stream that is gone is used");
        };
        entry
    }

    /// Up to two streams that have something to hash, beginning behind who was last.
    fn take_turns(&mut self) -> Vec<Held> {
        let behind = self.streams.range(self.last + 1..);
        let turns = behind.chain(self.streams.range(..=self.last));
        let ready = turns.filter(|(_, entry)| entry.begun.is_some() || !entry.queue.is_empty());
        let ready: Vec<u64> = ready.map(|(id, _)| *id).take(2).collect();
        self.last = ready.last().copied().unwrap_or(self.last);
        ready.into_iter().filter_map(|id| self.take(id)).collect()
    }

    fn take(&mut self, id: u64) -> Option<Held> {
        let entry = self.streams.get_mut(&id)?;
        let next = || Some((entry.queue.pop_front()?, 0));
        let (piece, at) = entry.begun.take().or_else(next)?;
        Some(Held {
            id,
            lane: entry.lane.take()?,
            piece: Some(piece),
            at,
            given: 0,
        })
    }

    /// Puts back what was in hand, and adds whom to tell of it; whatever nobody wants any more is returned.
    fn put_back(&mut self, held: Held, told: &mut Vec<Arc<Condvar>>) -> Option<Held> {
        let Some(entry) = self.streams.get_mut(&held.id) else {
            return Some(held);
        };
        entry.lane = Some(held.lane);
        entry.begun = held.piece.map(|piece| (piece, held.at));
        entry.total += held.given;
        told.extend(entry.told());
        None
    }
}

/// Hashes of one stream a part, of two as much as both have; gives back the pieces that are done.
fn hash(hand: &mut [Held]) {
    match &mut *hand {
        [first, second] => together([first, second]),
        alone => {
            for held in alone {
                let bytes = left(held.piece.as_deref(), held.at);
                let bytes = &bytes[..bytes.len().min(ALONE)];
                held.lane.update(bytes);
                held.at += bytes.len();
            }
        }
    }
    for held in hand {
        if let Some(piece) = held.piece.take_if(|piece| piece.bytes().len() == held.at) {
            held.given = held.at as u64;
            piece.hashed();
        }
    }
}

fn together<const N: usize>(mut hand: [&mut Held; N]) {
    let parts = hand.each_mut().map(|held| {
        let bytes = left(held.piece.as_deref(), held.at);
        (&mut held.lane, bytes)
    });
    let done = lane::together(parts);
    for (held, done) in hand.into_iter().zip(done) {
        held.at += done;
    }
}

/// What is left of a piece.
fn left(piece: Option<&dyn Piece>, at: usize) -> &[u8] {
    piece.map_or(&[], |piece| &piece.bytes()[at..])
}

fn wait<'a>(on: &Condvar, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
    on.wait(inner).unwrap_or_else(PoisonError::into_inner)
}

/// Tells those who wait that nothing comes any more, when the thread dies of a piece.
struct Died<'a>(&'a Worker);

impl Drop for Died<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.dead = std::thread::panicking();
        inner.streams.values().for_each(|entry| entry.done.notify_all());
    }
}
