//! What a captured snapshot leaves, its empty frame, deleted beside the steps that follow: some ten system calls of the file
//! system that no step waits for.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use dhow_snapshot::Withdrawn;

/// A thread that deletes, begun with the first frame; waited for when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Option<(Sender<Withdrawn>, JoinHandle<()>)>>);

impl Frames {
    /// Deletes a frame, soon. What cannot be deleted lies in the trash, and is swept with it.
    pub(crate) fn delete(&self, frame: Withdrawn) {
        let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (sender, receiver) = channel::<Withdrawn>();
            let work = move || receiver.into_iter().for_each(|frame| drop(frame.delete()));
            *thread = std::thread::Builder::new()
                .name("frames".to_owned())
                .spawn(work)
                .ok()
                .map(|handle| (sender, handle));
        }
        let left = match &*thread {
            Some((sender, _)) => sender.send(frame).err().map(|unsent| unsent.0),
            None => Some(frame),
        };
        drop(thread);
        if let Some(frame) = left {
            drop(frame.delete());
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let thread = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, handle)) = thread {
            drop(sender);
            drop(handle.join());
        }
    }
}
