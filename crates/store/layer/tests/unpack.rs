//! What unpacking makes of an archive.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use dhow_layer::{EntryKind, LayerStore, Unpack};
use dhow_types::ErrorKind;

use crate::Place;
use crate::maker::{Maker, header};

#[test]
fn modes_owners_times_and_attributes_are_those_of_the_archive() {
    if !crate::is_root("modes_owners_times_and_attributes_are_those_of_the_archive") {
        return;
    }
    let place = Place::new();
    let mut su = header("bin/su", b'0');
    (su.mode, su.uid, su.gid, su.mtime) = (0o4755, 7, 8, 1_234_567_890);
    let mut tmp = header("tmp", b'5');
    (tmp.mode, tmp.mtime) = (0o1777, 1_111_111_111);
    let mut mail = header("mail", b'5');
    (mail.mode, mail.gid) = (0o2775, 8);
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Maker::new()
        .header(&su)
        .header(&tmp)
        .header(&mail)
        .file("mail/box", b"m")
        .dir("mail/sub")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability.as_slice()),
            ("SCHILY.xattr.user.note", b"n"),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
            ("mtime", b"1500000000.75"),
        ])
        .file("bin/ping", b"p")
        .end();
    let layer = place.unpack(&tar).unwrap();
    let stat = |path: &str| layer.fs().join(path).symlink_metadata().unwrap();
    assert_eq!(stat("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(
        (stat("bin/su").uid(), stat("bin/su").gid(), stat("bin/su").mtime()),
        (7, 8, 1_234_567_890)
    );
    assert_eq!(
        (stat("tmp").mode() & 0o7777, stat("tmp").mtime()),
        (0o1777, 1_111_111_111)
    );
    assert_eq!((stat("mail").mode() & 0o7777, stat("mail").gid()), (0o2775, 8));
    assert_eq!(
        (stat("mail/box").gid(), stat("mail/sub").gid()),
        (0, 0),
        "nothing is inherited"
    );
    assert_eq!(stat("mail/sub").mode() & 0o7777, 0o755);
    assert_eq!(stat("bin/ping").mtime(), 1_500_000_000);
    let mut value = [0; 64];
    let ping = layer.fs().join("bin/ping");
    let length = rustix::fs::lgetxattr(&ping, "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..length], capability);
    assert!(rustix::fs::lgetxattr(&ping, "security.selinux", &mut value[..]).is_err());
    assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), []);
}

#[test]
fn a_layer_has_the_label_of_the_folder_of_layers() {
    let place = Place::new();
    let (name, label) = ("security.selinux", b"system_u:object_r:container_ro_file_t:s0");
    let home = place.store.root().join("layers");
    // Without SELinux the attribute is stored as it is given, by root alone.
    if Path::new("/sys/fs/selinux/enforce").exists()
        || rustix::fs::lsetxattr(&home, name, label, rustix::fs::XattrFlags::empty()).is_err()
    {
        eprintln!("skipped: needs the right to give labels, on a host without SELinux");
        return;
    }
    let layer = place.unpack(&Maker::new().file("a", b"a").end()).unwrap();
    let mut found = [0; 64];
    let length = rustix::fs::lgetxattr(layer.fs().parent().unwrap(), name, &mut found[..]).unwrap();
    assert_eq!(&found[..length], label);
}

#[test]
fn an_image_is_mounted_with_the_label_asked_for() {
    let Some(place) = Place::erofs() else { return };
    if Path::new("/sys/fs/selinux/enforce").exists() {
        eprintln!("skipped: this host has SELinux");
        return;
    }
    let layer = place.unpack(&Maker::new().file("a", b"a").end()).unwrap();
    assert!(layer.mount(None).unwrap().is_some());
    // No kernel without SELinux knows the option: it got there.
    let refused = layer
        .mount(Some("system_u:object_r:container_file_t:s0"))
        .unwrap_err();
    assert_eq!(
        refused.kind(),
        dhow_types::ErrorKind::InvalidArgument,
        "{refused}"
    );
}

#[test]
fn the_root_is_0755_root_whatever_the_archive_says() {
    let place = Place::new();
    let mut root = header("./", b'5');
    (root.mode, root.uid) = (0o700, 1000);
    let layer = place.unpack(&Maker::new().header(&root).end()).unwrap();
    assert_eq!(
        layer.fs().metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert!(layer.index().unwrap().is_empty());
}

#[test]
fn whiteouts_and_opaque_marks_take_the_form_of_overlayfs() {
    if !crate::is_root("whiteouts_and_opaque_marks_take_the_form_of_overlayfs") {
        return;
    }
    let place = Place::new();
    let tar = Maker::new()
        .file("d/.wh.gone", b"")
        .file("o/new", b"n")
        .file("o/.wh..wh..opq", b"")
        .file(".wh.replaced", b"")
        .dir("replaced")
        .dir("kept")
        .file(".wh.kept", b"")
        .file(".wh.way", b"")
        .file("way/in", b"i")
        .end();
    let layer = place.unpack(&tar).unwrap();
    let index = layer.index().unwrap();
    assert_eq!(index.find(b"d/gone").unwrap().kind, EntryKind::Whiteout);
    let gone = layer.fs().join("d/gone").symlink_metadata().unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
    for (dir, opaque) in [
        ("o", true),
        ("replaced", true),
        ("kept", true),
        ("way", true),
        ("d", false),
    ] {
        assert_eq!(index.find(dir.as_bytes()).unwrap().opaque, opaque, "{dir}");
        let mut value = [0; 8];
        let mark = rustix::fs::lgetxattr(layer.fs().join(dir), "trusted.overlay.opaque", &mut value[..]);
        assert_eq!(mark.is_ok_and(|length| &value[..length] == b"y"), opaque, "{dir}");
    }
    assert!(index.find(b"o").unwrap().implied);
    assert_eq!(layer.implied(), 3, "d, o and way");
    assert!(!layer.is_opaque());
    let all = place
        .unpack(&Maker::new().file(".wh..wh..opq", b"").end())
        .unwrap();
    assert!(all.is_opaque());
}

#[test]
fn the_index_has_contents_links_and_sizes() {
    let place = Place::new();
    let tar = Maker::new()
        .file("a", b"hello")
        .hard_link("b", "a")
        .hard_link("c", "b")
        .symlink("l", "a")
        .end();
    let layer = place.unpack(&tar).unwrap();
    let index = layer.index().unwrap();
    assert_eq!(
        index.find(b"a").unwrap().content,
        Some(dhow_layer::ContentHasher::of(b"hello"))
    );
    for name in [b"b", b"c"] {
        let entry = index.find(name).unwrap();
        assert_eq!(
            (entry.kind, entry.link.as_slice()),
            (EntryKind::Hardlink, &b"a"[..])
        );
    }
    assert_eq!(layer.size(), 5);
    assert!(layer.disk() >= 4096);
    assert_eq!(layer.fs().join("a").metadata().unwrap().nlink(), 3);
}

#[test]
fn two_writers_of_one_layer_both_win() {
    let place = Place::new();
    let tar = Maker::new().file("a", &[1; 100_000]).end();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.unpack(&tar).unwrap().diff_id()))
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(place.store.list().unwrap(), [ids[0]]);
    place.assert_clean("two writers");
}

#[test]
fn a_removed_layer_is_gone_at_once_and_its_files_after_a_sweep() {
    let place = Place::new();
    let id = place
        .unpack(&Maker::new().file("a", b"x").end())
        .unwrap()
        .diff_id();
    place.store.remove(&id).unwrap();
    assert!(!place.store.contains(&id));
    assert_eq!(place.store.remove(&id).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(place.store.layer(&id).unwrap_err().kind(), ErrorKind::NotFound);
    place.store.sweep().unwrap();
    let trash = place.dir.path().join("store/trash");
    assert_eq!(std::fs::read_dir(trash).unwrap().count(), 0);
}

#[test]
fn verify_finds_each_kind_of_damage() {
    let place = Place::new();
    let tar = Maker::new()
        .file("same", b"s")
        .file("content", b"aaaa")
        .file("size", b"aaaa")
        .file("gone", b"x")
        .file("mode", b"x")
        .file("kind", b"x")
        .symlink("link", "same")
        .file("one", b"x")
        .hard_link("two", "one")
        .dir("d")
        .end();
    let layer = place.unpack(&tar).unwrap();
    let at = |name: &str| layer.fs().join(name);
    std::fs::write(at("content"), b"aaab").unwrap();
    std::fs::write(at("size"), b"").unwrap();
    std::fs::remove_file(at("gone")).unwrap();
    std::fs::set_permissions(at("mode"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(at("kind")).unwrap();
    std::fs::create_dir(at("kind")).unwrap();
    std::fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", at("link")).unwrap();
    std::fs::remove_file(at("two")).unwrap();
    std::fs::write(at("two"), b"x").unwrap();
    std::fs::write(at("d/stranger"), b"x").unwrap();
    let mut found: Vec<String> = place
        .store
        .verify(&layer.diff_id())
        .unwrap()
        .into_iter()
        .map(|problem| String::from_utf8(problem.path).unwrap())
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "content",
            "d/stranger",
            "gone",
            "kind",
            "link",
            "mode",
            "size",
            "two"
        ]
    );
}

#[test]
fn a_damaged_index_is_told_from_a_missing_layer() {
    let place = Place::new();
    let layer = place.unpack(&Maker::new().file("a", b"x").end()).unwrap();
    let index = layer.fs().parent().unwrap().join("index");
    let mut bytes = std::fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&index, bytes).unwrap();
    assert_eq!(layer.index().unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(
        place.store.verify(&layer.diff_id()).unwrap_err().kind(),
        ErrorKind::DataLoss
    );
}

#[test]
fn sync_marks_layers_durable_and_others_of_an_earlier_boot_are_suspect() {
    let place = Place::new();
    let layer = place.unpack(&Maker::new().file("a", b"x").end()).unwrap();
    let state = layer.fs().parent().unwrap().join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    assert!(text.contains("durable 0"));
    assert_eq!(place.store.suspects().unwrap(), [], "the same boot");
    let boot = text.lines().find(|line| line.starts_with("boot ")).unwrap();
    std::fs::write(&state, text.replace(boot, "boot 00000000-earlier")).unwrap();
    assert_eq!(place.store.suspects().unwrap(), [layer.diff_id()]);
    std::fs::write(&state, "").unwrap();
    assert_eq!(
        place.store.suspects().unwrap(),
        [layer.diff_id()],
        "as a power cut leaves it"
    );
    std::fs::write(&state, text).unwrap();
    place.store.sync().unwrap();
    assert!(std::fs::read_to_string(&state).unwrap().contains("durable 1"));
    let again = LayerStore::open(&place.dir.path().join("store")).unwrap();
    assert_eq!(again.layer(&layer.diff_id()).unwrap().size(), 1);
}

/// A sync is not for what others left: it does not look at them, and never says of another boot's layer that it is whole.
#[test]
fn a_sync_costs_what_it_is_asked_for_and_vouches_for_nothing_of_another_boot() {
    let place = Place::new();
    let old = place.unpack(&Maker::new().file("a", b"old").end()).unwrap();
    let state = |layer: &dhow_layer::Layer| layer.fs().parent().unwrap().join("state");
    let text = std::fs::read_to_string(state(&old)).unwrap();
    let boot = text.lines().find(|line| line.starts_with("boot ")).unwrap();
    std::fs::write(state(&old), text.replace(boot, "boot 00000000-earlier")).unwrap();
    // One of a process of this boot that was killed before it came to its sync.
    let left = place.unpack(&Maker::new().file("a", b"left").end()).unwrap();
    let store = LayerStore::open(&place.dir.path().join("store")).unwrap();
    let new = Maker::new().file("a", b"new").end();
    let new = store.unpack(new.as_slice(), &Unpack::default()).unwrap().layer;
    store.layer(&old.diff_id()).unwrap();
    store.sync().unwrap();
    let durable = |layer| {
        std::fs::read_to_string(state(layer))
            .unwrap()
            .contains("durable 1")
    };
    assert!(durable(&new));
    assert!(!durable(&left), "nobody asked for it");
    assert!(!durable(&old), "whether it is whole is not known");
    assert_eq!(store.suspects().unwrap(), [old.diff_id()]);
    // Whoever takes up what is left makes it durable with what is its own.
    store.layer(&left.diff_id()).unwrap();
    store.sync().unwrap();
    assert!(durable(&left));
}
