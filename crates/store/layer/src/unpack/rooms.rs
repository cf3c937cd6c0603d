//! Rooms for parts of tars, which pass from one layer to the next: fresh memory is cleared first, by the kernel and again by
//! us. A third of the page faults of a pull of many layers were of that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::codec::{Room, new_room};

struct Spare {
    rooms: Vec<Box<Room>>,
    /// Layers that are being unpacked.
    users: usize,
}

static SPARE: Mutex<Spare> = Mutex::new(Spare {
    rooms: Vec::new(),
    users: 0,
});

fn spare() -> MutexGuard<'static, Spare> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the rooms of one layer come from. They are kept while any layer is unpacked, and no longer.
pub(super) struct Rooms(());

impl Rooms {
    pub(super) fn new() -> Self {
        spare().users += 1;
        Self(())
    }

    /// A room, with whatever was in it.
    pub(super) fn take(&self) -> Box<Room> {
        let kept = spare().rooms.pop();
        kept.unwrap_or_else(new_room)
    }

    /// Gives rooms back.
    pub(super) fn give(&self, rooms: impl Iterator<Item = Box<Room>>) {
        spare().rooms.extend(rooms);
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        let mut spare = spare();
        spare.users -= 1;
        if spare.users == 0 {
            let rooms = std::mem::take(&mut spare.rooms);
            drop((spare, rooms));
        }
    }
}
