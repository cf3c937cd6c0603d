//! Directories become layers.

use std::fs::{File, FileTimes};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dhow_layer::{Capture, EntryKind, Layer};
use dhow_types::ErrorKind;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};

use crate::Place;

/// The layer of an empty tar, which docker knows under this name as well.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn upper(place: &Place, name: &str) -> PathBuf {
    let path = place
        .dir
        .path()
        .join("store")
        .join("snapshots-of-the-test")
        .join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn forget_uppers(place: &Place) {
    std::fs::remove_dir_all(place.dir.path().join("store/snapshots-of-the-test")).unwrap();
}

fn tar_of(layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    layer.tar().unwrap().read_to_end(&mut tar).unwrap();
    tar
}

fn at(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

fn fill(dir: &Path) {
    std::fs::create_dir_all(dir.join("b/c")).unwrap();
    std::fs::write(dir.join("b/c/file"), vec![3; 100_000]).unwrap();
    std::fs::write(dir.join("a"), b"aa").unwrap();
    std::fs::hard_link(dir.join("a"), dir.join("b/hard")).unwrap();
    std::fs::write(dir.join("b-"), b"sorts between b and b/c").unwrap();
    symlink("/etc/passwd", dir.join("link")).unwrap();
    std::fs::set_permissions(dir.join("b/c"), std::fs::Permissions::from_mode(0o2700)).unwrap();
    for path in ["a", "b-", "b/c/file", "b/c", "b"] {
        at(&dir.join(path), 1_500_000_000);
    }
    let time = rustix::fs::Timespec {
        tv_sec: 1_500_000_000,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        CWD,
        dir.join("link"),
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

#[test]
fn an_empty_directory_is_the_canonical_empty_layer() {
    let place = Place::new();
    let layer = place.store.capture(&upper(&place, "u")).unwrap();
    assert_eq!(layer.diff_id().to_string(), EMPTY);
    assert_eq!(tar_of(&layer), vec![0; 1024]);
    assert_eq!(layer.size(), 0);
}

#[test]
fn equal_trees_give_equal_layers_and_unpack_to_themselves() {
    let place = Place::new();
    let (one, two) = (upper(&place, "one"), upper(&place, "two"));
    fill(&one);
    fill(&two);
    let first = place.store.capture(&one).unwrap();
    assert!(!one.exists(), "it moved");
    let second = place.store.capture(&two).unwrap();
    assert_eq!(first.diff_id(), second.diff_id());
    let tar = tar_of(&first);
    assert_eq!(dhow_types::Digest::of(&tar), first.diff_id().0);
    assert_eq!(first.tar_size(), tar.len() as u64);
    assert_eq!(place.store.verify(&first.diff_id()).unwrap(), []);

    let other = Place::new();
    let unpacked = other.unpack(&tar).unwrap();
    assert_eq!(unpacked.diff_id(), first.diff_id());
    let entries = |layer: &Layer| layer.index().unwrap().entries().collect::<Vec<_>>();
    assert_eq!(entries(&unpacked), entries(&first));
    assert_eq!(
        other.store.capture(&unpacked.fs()).unwrap().diff_id(),
        first.diff_id()
    );
    forget_uppers(&place);
    place.assert_clean("capture");
}

#[test]
fn gnu_tar_reads_what_a_capture_writes() {
    let place = Place::new();
    let tree = upper(&place, "u");
    fill(&tree);
    std::fs::write(tree.join("l".repeat(200)), b"long").unwrap();
    let layer = place.store.capture(&tree).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut tar = std::process::Command::new("tar")
        .args(["-xf-", "-C"])
        .arg(out.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::copy(&mut layer.tar().unwrap(), tar.stdin.as_mut().unwrap()).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(std::fs::read(out.path().join("l".repeat(200))).unwrap(), b"long");
    assert_eq!(std::fs::read(out.path().join("b/hard")).unwrap(), b"aa");
    assert_eq!(out.path().join("a").metadata().unwrap().nlink(), 2);
    // GNU tar gives the set-group-id bit to nobody but root.
    let mode = out.path().join("b/c").metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode & 0o777, 0o700);
    assert!(mode == 0o2700 || !dhow_layer::privileged());
}

#[test]
fn what_overlayfs_wrote_becomes_whiteouts_and_nothing_else() {
    if !crate::is_root("what_overlayfs_wrote_becomes_whiteouts_and_nothing_else") {
        return;
    }
    let place = Place::new();
    let tree = upper(&place, "u");
    std::fs::create_dir(tree.join("opaque")).unwrap();
    std::fs::write(tree.join("opaque/f"), b"f").unwrap();
    std::fs::write(tree.join("copied"), b"up").unwrap();
    mknodat(
        CWD,
        tree.join("gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    let set = |path: &str, key: &str, value: &[u8]| {
        lsetxattr(tree.join(path), key, value, XattrFlags::empty()).unwrap();
    };
    set("opaque", "trusted.overlay.opaque", b"y");
    set("copied", "trusted.overlay.origin", b"handle");
    set("opaque", "trusted.overlay.impure", b"y");
    set("copied", "user.mine", b"kept");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let layer = place.store.capture(&tree).unwrap();
    let index = layer.index().unwrap();
    let names: Vec<_> = index
        .entries()
        .map(|entry| String::from_utf8(entry.path).unwrap())
        .collect();
    assert_eq!(names, ["copied", "gone", "opaque", "opaque/f"]);
    assert_eq!(index.find(b"gone").unwrap().kind, EntryKind::Whiteout);
    assert!(index.find(b"opaque").unwrap().opaque);
    assert_eq!(
        index.find(b"copied").unwrap().xattrs,
        [(b"user.mine".to_vec(), b"kept".to_vec())]
    );
    let mut list = [0; 1000];
    let length = rustix::fs::llistxattr(layer.fs().join("copied"), &mut list[..]).unwrap();
    assert_eq!(&list[..length], b"user.mine\0");
    assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), []);

    let mut reader = dhow_layer::tar::Reader::new(layer.tar().unwrap());
    let mut in_tar = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        in_tar.push(String::from_utf8(entry.path).unwrap());
    }
    assert_eq!(
        in_tar,
        ["copied", ".wh.gone", "opaque", "opaque/.wh..wh..opq", "opaque/f"]
    );

    let other = Place::new();
    let unpacked = other.unpack(&tar_of(&layer)).unwrap();
    assert_eq!(
        unpacked.index().unwrap().find(b"gone").unwrap().kind,
        EntryKind::Whiteout
    );
    assert!(unpacked.index().unwrap().find(b"opaque").unwrap().opaque);
}

#[test]
fn capture_refuses_what_is_only_a_reference_and_leaves_it_where_it_was() {
    if !crate::is_root("capture_refuses_what_is_only_a_reference_and_leaves_it_where_it_was") {
        return;
    }
    let place = Place::new();
    let tree = upper(&place, "u");
    std::fs::create_dir(tree.join("moved")).unwrap();
    lsetxattr(
        tree.join("moved"),
        "trusted.overlay.redirect",
        b"/old",
        XattrFlags::empty(),
    )
    .unwrap();
    assert_eq!(
        place.store.capture(&tree).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
    assert!(tree.join("moved").exists());
    std::fs::remove_dir(tree.join("moved")).unwrap();
    std::fs::write(tree.join(".wh.odd"), b"").unwrap();
    assert_eq!(
        place.store.capture(&tree).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    forget_uppers(&place);
    place.assert_clean("refused capture");
}

#[test]
fn later_times_are_clamped_in_the_layer_and_on_its_files() {
    let place = Place::new();
    let (one, two) = (upper(&place, "one"), upper(&place, "two"));
    for tree in [&one, &two] {
        std::fs::write(tree.join("new"), b"x").unwrap();
        std::fs::write(tree.join("old"), b"x").unwrap();
        at(&tree.join("old"), 1_000_000_000);
    }
    at(&two.join("new"), 1_900_000_000);
    let how = Capture {
        clamp: Some(1_400_000_000),
        ..Capture::default()
    };
    let layer = place.store.capture_with(&one, &how).unwrap();
    assert_eq!(
        layer.diff_id(),
        place.store.capture_with(&two, &how).unwrap().diff_id()
    );
    let index = layer.index().unwrap();
    assert_eq!(index.find(b"new").unwrap().mtime, 1_400_000_000);
    assert_eq!(index.find(b"old").unwrap().mtime, 1_000_000_000);
    assert_eq!(layer.fs().join("new").metadata().unwrap().mtime(), 1_400_000_000);
}

#[test]
fn a_small_capture_is_fast() {
    let place = Place::new();
    let mut times: Vec<Duration> = (0..20)
        .map(|round| {
            let tree = upper(&place, &round.to_string());
            for file in 0..3 {
                std::fs::write(
                    tree.join(file.to_string()),
                    format!("{round} {:?}", SystemTime::now()),
                )
                .unwrap();
            }
            let start = Instant::now();
            place.store.capture(&tree).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    // The goal is 2 ms of optimised code on a quiet machine; this is neither.
    assert!(times[0] < Duration::from_millis(20), "{:?}", times[0]);
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_captured_tree_unpacks_to_the_same_entries(
            files in prop::collection::btree_map(
                "[a-c]{1,2}(/[a-c]{1,3}){0,3}",
                (prop::collection::vec(any::<u8>(), 0..3000), 0_u32..0o1000, 0_u64..2_000_000_000),
                0..12,
            ),
        ) {
            let place = Place::new();
            let tree = upper(&place, "u");
            for (path, (content, mode, mtime)) in &files {
                let path = tree.join(path);
                // A name may be a directory already, or go through a file: then it is another test.
                if std::fs::create_dir_all(path.parent().unwrap()).is_err() || std::fs::write(&path, content).is_err() {
                    continue;
                }
                at(&path, *mtime);
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(crate::readable(*mode))).unwrap();
            }
            let layer = place.store.capture(&tree).unwrap();
            let other = Place::new();
            let unpacked = other.unpack(&tar_of(&layer)).unwrap();
            prop_assert_eq!(unpacked.diff_id(), layer.diff_id());
            let entries = |layer: &Layer| layer.index().unwrap().entries().collect::<Vec<_>>();
            prop_assert_eq!(entries(&unpacked), entries(&layer));
            prop_assert_eq!(other.store.verify(&unpacked.diff_id()).unwrap(), []);
        }
    }
}
