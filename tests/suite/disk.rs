//! A full disk: a clear error, nothing left, and it goes on when there is room again.

use std::path::PathBuf;
use std::process::Command;

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};

use crate::samples::{busybox_tar, noise};
use crate::world::World;

/// A tmpfs of 20 MB with a root folder in it.
struct Small {
    world: World,
    place: PathBuf,
    /// Keeps the folder of the mount point.
    _outer: World,
}

impl Small {
    fn new() -> Option<Self> {
        let outer = World::new()?;
        let place = outer.path("small");
        std::fs::create_dir_all(&place).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=20m", "dhow-test"])
            .arg(&place)
            .status();
        if !status.unwrap().success() {
            eprintln!("skipped: no tmpfs can be mounted here");
            return None;
        }
        Some(Self {
            world: World::at(place.join("r")),
            place,
            _outer: outer,
        })
    }

    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.place).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Nothing of a failed deed stays: not much more is used than before, and the store is whole.
    #[track_caller]
    fn as_before(&self, before: u64) {
        self.world.clean();
        assert!(
            self.used() < before + 1_000_000,
            "{} bytes were used, and now {}",
            before,
            self.used()
        );
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Its containers go before the disk under them.
        let ids = self.world.containers();
        if !ids.is_empty() {
            let mut args = vec!["rm".to_owned(), "-f".to_owned()];
            args.extend(ids);
            drop(self.world.dhow(&args));
        }
        drop(self.world.say("system teardown"));
        rustix::mount::unmount(&self.place, rustix::mount::UnmountFlags::DETACH).unwrap_or(());
    }
}

#[test]
fn an_import_that_does_not_fit_leaves_nothing() {
    let Some(small) = Small::new() else { return };
    small.world.import_busybox("busybox");
    let before = small.used();
    let big = Tar::new().file("big", 0o644, &noise(30_000_000, 1)).finish();
    small
        .world
        .feed(&["import", "-", "big"], big.clone())
        .one_error(1)
        .says("no space left");
    small.as_before(before);
    small
        .world
        .feed(&["import", "-", "big"], dhow_testkit::gzip(&big))
        .one_error(1)
        .says("no space left");
    small.as_before(before);
    assert_eq!(
        small.world.say("run --rm --network none busybox echo fine").ok(),
        "fine"
    );
}

#[test]
fn a_bomb_ends_at_the_end_of_the_disk_and_leaves_nothing() {
    let Some(small) = Small::new() else { return };
    small.world.import_busybox("busybox");
    let before = small.used();
    let bomb = Tar::new().file("zeros", 0o644, &vec![0; 64 << 20]).finish();
    let bomb = dhow_testkit::gzip(&bomb);
    assert!(bomb.len() < 1 << 20, "it is small until it is unpacked");
    small
        .world
        .feed(&["import", "-", "bomb"], bomb)
        .one_error(1)
        .says("no space left");
    small.as_before(before);
}

#[test]
fn a_pull_that_does_not_fit_leaves_nothing() {
    let Some(small) = Small::new() else { return };
    small.world.import_busybox("busybox");
    let registry = FakeRegistry::start();
    let big = Tar::new().file("big", 0o644, &noise(30_000_000, 2)).finish();
    registry.put_image(
        "big",
        "1",
        &TinyImage::oci(vec![Layer::gzip(busybox_tar()), Layer::gzip(big)]),
    );
    let before = small.used();
    small
        .world
        .dhow(&["pull", &registry.name("big:1")])
        .exits(1)
        .prints("Pulling fs layer")
        .says("no space left");
    // The layer that did fit may stay for the next try until it is pruned.
    small.world.say("system prune -f").exits(0);
    small.as_before(before);
}

#[test]
fn a_build_that_does_not_fit_leaves_nothing() {
    let Some(small) = Small::new() else { return };
    small.world.import_busybox("busybox");
    let before = small.used();
    let text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=40\n";
    let ran = small.world.feed(&["build", "-t", "big", "-"], text).exits(1);
    assert!(ran.stderr.to_lowercase().contains("no space left"), "{ran:?}");
    small.world.say("builder prune -af").exits(0);
    small.as_before(before);
    assert_eq!(small.world.say("images -q big").ok(), "");
}

#[test]
fn a_container_on_a_full_disk_gets_an_error_and_can_be_removed() {
    let Some(small) = Small::new() else { return };
    small.world.import_busybox("busybox");
    small
        .world
        .dhow(&[
            "run",
            "--name",
            "filler",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "yes > /fill",
        ])
        .exits(1);
    let ran = small.world.say("run --rm --network none busybox true");
    assert!(
        ran.code == 0 || (ran.code == 125 && ran.stderr.to_lowercase().contains("no space left")),
        "{ran:?}"
    );
    small.world.say("ps -a").exits(0).prints("filler");
    small.world.say("rm -f filler").ok();
    assert_eq!(
        small.world.say("run --rm --network none busybox echo fine").ok(),
        "fine"
    );
    small.world.clean();
}
