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
