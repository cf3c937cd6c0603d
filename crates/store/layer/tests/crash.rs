//! What a process leaves that was killed, and that the next takes it away.

use std::fs::{File, FileTimes};
use std::time::{Duration, SystemTime};

use crate::Place;

#[test]
fn sweep_removes_what_the_dead_left_and_nothing_of_the_living() {
    let place = Place::new();
    let tmp = place.dir.path().join("store/tmp");
    let dead = tmp.join("layer-4194304-0");
    std::fs::create_dir_all(dead.join("fs/usr")).unwrap();
    std::fs::write(dead.join("fs/usr/half"), b"x").unwrap();
    std::fs::write(tmp.join("blob-4194304-0"), b"x").unwrap();
    // The process is the first number of the name, and number 1 always lives.
    std::fs::create_dir(tmp.join("build-4194304-1-1")).unwrap();
    // Made a moment ago by a living process that has not locked it yet.
    let fresh = tmp.join(format!("layer-{}-999", std::process::id()));
    std::fs::create_dir(&fresh).unwrap();
    // Old, and locked.
    let held = tmp.join("layer-4194304-1");
    std::fs::create_dir(&held).unwrap();
    let lock = File::open(&held).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lock.set_times(FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(3600)))
        .unwrap();
    place.store.sweep().unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&tmp)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    left.sort();
    let mut living = [held, fresh];
    living.sort();
    assert_eq!(left, living);
}

#[test]
fn a_layer_whose_remover_was_killed_is_found_and_deleted() {
    let place = Place::new();
    let layer = place
        .unpack(&crate::maker::Maker::new().file("f", b"x").end())
        .unwrap();
    let dir = layer.fs().parent().unwrap().to_owned();
    place.store.remove(&layer.diff_id()).unwrap();
    let part = dir.parent().unwrap();
    let names = || std::fs::read_dir(part).unwrap().count();
    assert_eq!((dir.exists(), names()), (false, 1), "not beside where it was");
    // Another process, which does not know of it.
    let next = dhow_layer::LayerStore::open(place.store.root()).unwrap();
    assert_eq!(next.list().unwrap(), []);
    assert_eq!(next.sweep().unwrap(), 1);
    assert_eq!(names(), 0);
    // Who removed it finds nothing to do.
    assert_eq!(place.store.sweep().unwrap(), 0);
}

#[test]
fn sweep_unmounts_what_the_dead_had_mounted() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounts need root");
        return;
    }
    let place = Place::new();
    let tmp = place.dir.path().join("store/tmp");
    let point = tmp.join("build-4194304-0-0").join(dhow_layer::MOUNT_POINT);
    std::fs::create_dir_all(&point).unwrap();
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"none", &point, c"tmpfs", none, None::<&std::ffi::CStr>).unwrap();
    std::fs::write(point.join("file"), b"x").unwrap();
    place.store.sweep().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(tmp.to_str().unwrap()), "{mounts}");
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}

/// Each notes the same layers as durable; a state is the old one or the new one at every moment.
#[test]
fn many_syncs_at_once_never_show_half_a_state() {
    let place = Place::new();
    let layers: Vec<_> = (0..4)
        .map(|at| {
            place
                .unpack(&crate::maker::Maker::new().file("f", &[at]).end())
                .unwrap()
        })
        .collect();
    let state = |layer: &dhow_layer::Layer| layer.fs().parent().unwrap().join("state");
    let fresh: Vec<_> = layers
        .iter()
        .map(|layer| std::fs::read(state(layer)).unwrap())
        .collect();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (place, layers, fresh) = (&place, &layers, &fresh);
            scope.spawn(move || {
                while started.elapsed() < Duration::from_millis(800) {
                    for (layer, fresh) in layers.iter().zip(fresh) {
                        place.store.layer(&layer.diff_id()).unwrap();
                        // Not durable again, as a layer that came a moment ago.
                        let beside = place
                            .dir
                            .path()
                            .join(format!("outside/{:?}", std::thread::current().id()));
                        std::fs::write(&beside, fresh).unwrap();
                        std::fs::rename(&beside, state(layer)).unwrap();
                    }
                    place.store.sync().unwrap();
                }
            });
        }
    });
    place.assert_clean("many syncs");
}
