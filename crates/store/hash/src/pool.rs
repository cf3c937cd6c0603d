//! Who hashes which stream: as many workers as help, on a processor with SHA instructions one for a few streams, which are
//! hashed two at a time, on others one for each. A worker ends with its last stream, and is joined: a process without streams
//! has no thread of ours, and may fork.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use dhow_sys::sha256::Lanes;

use crate::lane::Lane;
use crate::worker::Worker;

/// Streams of a worker before there is another, where two are hashed at once: two layers, with a blob and a tar each.
const SHARED: usize = 4;

struct Slot {
    worker: Arc<Worker>,
    streams: usize,
    thread: JoinHandle<()>,
}

static POOL: Mutex<Vec<Slot>> = Mutex::new(Vec::new());

fn slots() -> MutexGuard<'static, Vec<Slot>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new stream: who hashes it, and which it is there.
pub(crate) fn begin() -> io::Result<(Arc<Worker>, u64)> {
    let lanes = Lanes::detect();
    let mut slots = slots();
    let workers = slots.len();
    let least = slots.iter_mut().min_by_key(|slot| slot.streams);
    let slot = match least {
        Some(slot) if lanes.is_some() && (slot.streams < SHARED || workers >= most()) => slot,
        _ => {
            let worker = Arc::new(Worker::default());
            let there = Arc::clone(&worker);
            let thread = thread::Builder::new().name("dhow-hash".to_owned());
            let thread = thread.spawn(move || there.run())?;
            slots.push_mut(Slot {
                worker,
                streams: 0,
                thread,
            })
        }
    };
    slot.streams += 1;
    Ok((Arc::clone(&slot.worker), slot.worker.add(Lane::new(lanes))))
}

/// One stream less. With the last of a worker this waits for its end.
pub(crate) fn end(worker: &Arc<Worker>) {
    let mut slots = slots();
    let Some(at) = slots.iter().position(|slot| Arc::ptr_eq(&slot.worker, worker)) else {
        return;
    };
    slots[at].streams -= 1;
    if slots[at].streams == 0 {
        let slot = slots.swap_remove(at);
        drop(slots);
        slot.worker.close();
        // What it died of is told to those who had a stream.
        drop(slot.thread.join());
    }
}

/// Workers that are of use beside those who inflate.
fn most() -> usize {
    thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1))
}
