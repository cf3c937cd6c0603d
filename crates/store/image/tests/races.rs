//! Works that meet in one store.

use std::sync::atomic::{AtomicBool, Ordering};

use dhow_content::ContentStore as _;

use crate::{World, base};

#[test]
fn a_sweep_never_gets_in_the_way_of_what_is_being_made() {
    let world = World::new();
    let tar = base();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    world.store.layers.sweep().unwrap();
                }
            });
        }
        let made = (0..400_u32).try_for_each(|number| {
            let blob = world.store.content.put(&number.to_le_bytes());
            blob.map_err(|error| crate::chain(&error))?;
            let how = dhow_layer::Unpack::default();
            let layer = world.store.layers.unpack(tar.blob.as_slice(), &how);
            layer.map(drop).map_err(|error| crate::chain(&error))
        });
        over.store(true, Ordering::Relaxed);
        assert_eq!(made, Ok(()));
    });
}
