//! What only plain copies have to show: which changes are found, and what is left of a copy that was not finished.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use dhow_layer::{Capture, EntryKind};
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::{EMPTY, Kind, Place, names};

/// Sets the time of a file to what the layers of these tests say.
fn of_1970(path: &Path) {
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Captures what `change` does to a copy of these entries: path, kind, and what a hard link leads to.
fn changed(base: &[(&str, &str)], change: impl Fn(&Path)) -> Option<Vec<(String, EntryKind, String)>> {
    let place = Place::new("changes of a copy", Kind::Copies)?;
    let base = place.layer(base);
    let active = place.snapshots.prepare("c", &[base]).unwrap().volatile();
    let mounted = active.mount(&place.mnt()).unwrap();
    change(mounted.path());
    mounted.unmount().unwrap();
    let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let index = layer.index().unwrap();
    let entries = index.entries();
    Some(
        entries
            .map(|entry| (text(entry.path), entry.kind, text(entry.link)))
            .collect(),
    )
}

fn files(names: &[&str]) -> Vec<(String, EntryKind, String)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), EntryKind::File, String::new()))
        .collect()
}

#[test]
fn a_file_of_the_same_size_and_time_is_a_change_when_its_content_is_another() {
    let Some(found) = changed(&[("a", "one"), ("b", "two"), ("c", "three")], |root| {
        let file = fs::OpenOptions::new().write(true).open(root.join("b")).unwrap();
        file.write_all_at(b"TWO", 0).unwrap();
        of_1970(&root.join("b"));
        // Written, and the same as before: whatever it was for, no layer could say it.
        fs::write(root.join("c"), "three").unwrap();
        of_1970(&root.join("c"));
    }) else {
        return;
    };
    assert_eq!(found, files(&["b"]));
}

#[test]
fn a_file_is_read_unless_its_change_time_is_that_of_the_copy_and_old_enough() {
    let Some(place) = Place::new("stamps", Kind::Copies) else {
        return;
    };
    let base = place.layer(&[("a", "one"), ("b", "two")]);
    let found = |late: bool, cut: bool| {
        let active = place.snapshots.prepare("c", &[base]).unwrap().volatile();
        let stamps = place.root.join("snapshots/c/stamps");
        let mut bytes = fs::read(&stamps).unwrap();
        if late {
            // As if the copy had taken longer: now a time that is the same says that nothing was done.
            bytes[8..16].copy_from_slice(&i64::MAX.to_le_bytes());
        }
        if cut {
            bytes.pop();
        }
        fs::write(&stamps, bytes).unwrap();
        let tree = active.copy().unwrap();
        let file = fs::OpenOptions::new().write(true).open(tree.join("b")).unwrap();
        file.write_all_at(b"TWO", 0).unwrap();
        of_1970(&tree.join("b"));
        let changes = active.changes().unwrap().unwrap();
        place.snapshots.remove("c").unwrap();
        changes.written.into_iter().collect::<Vec<_>>()
    };
    for (late, cut) in [(false, false), (true, false), (true, true)] {
        assert_eq!(found(late, cut), [b"b"], "late {late}, cut {cut}");
    }
    // That they are asked at all: an unread file is taken for what it was.
    let active = place.snapshots.prepare("c", &[base]).unwrap().volatile();
    let tree = active.copy().unwrap();
    fs::write(tree.join("b"), "TWO").unwrap();
    of_1970(&tree.join("b"));
    let stat = rustix::fs::statx(
        CWD,
        tree.join("b"),
        AtFlags::empty(),
        rustix::fs::StatxFlags::CTIME,
    )
    .unwrap();
    let stamps = place.root.join("snapshots/c/stamps");
    let mut bytes = fs::read(&stamps).unwrap();
    bytes[8..16].copy_from_slice(&i64::MAX.to_le_bytes());
    let at = bytes[28..]
        .chunks(20)
        .position(|record| record[..8] == stat.stx_ino.to_le_bytes())
        .unwrap();
    let record = &mut bytes[28 + at * 20..48 + at * 20];
    record[8..16].copy_from_slice(&stat.stx_ctime.tv_sec.to_le_bytes());
    record[16..].copy_from_slice(&stat.stx_ctime.tv_nsec.to_le_bytes());
    fs::write(&stamps, bytes).unwrap();
    assert_eq!(active.changes().unwrap().unwrap().written.len(), 0);
}

#[test]
fn owner_mode_time_attributes_and_targets_are_changes() {
    let base = [
        ("mode", "x"),
        ("time", "x"),
        ("mark", "x"),
        ("link", "link:a"),
        ("pipe", "pipe"),
        ("same", "x"),
    ];
    let Some(found) = changed(&base, |root| {
        fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::File::open(root.join("time"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1))
            .unwrap();
        rustix::fs::setxattr(
            root.join("mark"),
            "user.mark",
            b"1",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::remove_file(root.join("link")).unwrap();
        symlink("b", root.join("link")).unwrap();
        of_1970(&root.join("link"));
        fs::remove_file(root.join("pipe")).unwrap();
        fs::write(root.join("pipe"), "").unwrap();
        of_1970(&root.join("pipe"));
        std::os::unix::fs::chown(root.join("same"), Some(0), Some(0)).unwrap();
    }) else {
        return;
    };
    let names: Vec<_> = found
        .iter()
        .map(|(name, kind, _)| (name.as_str(), *kind))
        .collect();
    assert_eq!(
        names,
        [
            ("link", EntryKind::Symlink),
            ("mark", EntryKind::File),
            ("mode", EntryKind::File),
            ("pipe", EntryKind::File),
            ("time", EntryKind::File),
        ]
    );
}

#[test]
fn what_is_gone_is_deleted_once_and_what_replaces_it_is_there() {
    let base = [
        ("dir", "dir:755"),
        ("dir/sub", "dir:755"),
        ("dir/sub/file", "x"),
        ("now-file", "dir:755"),
        ("now-file/in", "x"),
        ("now-dir", "x"),
    ];
    let Some(found) = changed(&base, |root| {
        fs::remove_dir_all(root.join("dir/sub")).unwrap();
        fs::remove_dir_all(root.join("now-file")).unwrap();
        fs::write(root.join("now-file"), "x").unwrap();
        fs::remove_file(root.join("now-dir")).unwrap();
        fs::create_dir(root.join("now-dir")).unwrap();
        fs::write(root.join("now-dir/in"), "x").unwrap();
    }) else {
        return;
    };
    let found: Vec<_> = found
        .iter()
        .map(|(name, kind, _)| (name.as_str(), *kind))
        .collect();
    assert_eq!(
        found,
        [
            ("dir", EntryKind::Directory),
            ("dir/sub", EntryKind::Whiteout),
            ("now-dir", EntryKind::Directory),
            ("now-dir/in", EntryKind::File),
            ("now-file", EntryKind::File),
        ]
    );
}

#[test]
fn links_of_a_file_stay_together() {
    let base = [
        ("a", "a"),
        ("b", "hard:a"),
        ("c", "c"),
        ("d", "hard:c"),
        ("e", "e"),
        ("f", "hard:e"),
        ("g", "hard:e"),
        ("h", "h"),
    ];
    let Some(found) = changed(&base, |root| {
        assert_eq!(
            fs::metadata(root.join("a")).unwrap().nlink(),
            2,
            "a copy of its own"
        );
        // One more name; one name less, which changes no other; one written to, of which all are names; one taken apart.
        fs::hard_link(root.join("h"), root.join("h2")).unwrap();
        fs::remove_file(root.join("b")).unwrap();
        fs::write(root.join("d"), "D").unwrap();
        fs::remove_file(root.join("g")).unwrap();
        fs::write(root.join("g"), "e").unwrap();
        fs::set_permissions(root.join("g"), fs::Permissions::from_mode(0o644)).unwrap();
        of_1970(&root.join("g"));
    }) else {
        return;
    };
    let named = |name: &str, kind, link: &str| (name.to_owned(), kind, link.to_owned());
    assert_eq!(
        found,
        [
            named("b", EntryKind::Whiteout, ""),
            named("c", EntryKind::File, ""),
            named("d", EntryKind::Hardlink, "c"),
            named("e", EntryKind::File, ""),
            named("f", EntryKind::Hardlink, "e"),
            named("g", EntryKind::File, ""),
            named("h", EntryKind::File, ""),
            named("h2", EntryKind::Hardlink, "h"),
        ]
    );
}

#[test]
fn what_is_written_to_a_copy_is_in_no_layer_and_a_view_has_the_layers_own_files() {
    let Some(place) = Place::new("what is written to a copy", Kind::Copies) else {
        return;
    };
    let base = place.layer(&[("a", "a"), ("b", "hard:a")]);
    let own = place.layers.layer(&base).unwrap().fs().join("a");
    let active = place.snapshots.prepare("c", &[base]).unwrap().volatile();
    let mounted = active.mount(&place.mnt()).unwrap();
    let there = fs::metadata(mounted.path().join("a")).unwrap();
    assert_ne!(there.ino(), fs::metadata(&own).unwrap().ino());
    fs::write(mounted.path().join("a"), "changed").unwrap();
    mounted.unmount().unwrap();
    assert_eq!(fs::read(&own).unwrap(), b"a");
    assert_eq!(place.layers.verify(&base).unwrap(), []);
    let view = place.snapshots.view("v", &[base]).unwrap();
    let mounted = view.mount(&place.mnt()).unwrap();
    assert_eq!(
        fs::metadata(mounted.path().join("a")).unwrap().ino(),
        fs::metadata(&own).unwrap().ino()
    );
    assert!(fs::write(mounted.path().join("a"), "x").is_err());
    mounted.unmount().unwrap();
    place.snapshots.remove("v").unwrap();
    assert_eq!(place.layers.verify(&base).unwrap(), []);
}

#[test]
fn holes_stay_holes_and_large_files_are_whole() {
    let Some(place) = Place::new("holes", Kind::Copies) else {
        return;
    };
    let scratch = place.layers.scratch("test").unwrap();
    let upper = scratch.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let file = fs::File::create(upper.join("holes")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(&vec![7; 300_000], 8 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    let base = place.layers.capture(&upper).unwrap().diff_id();
    let own = place.layers.layer(&base).unwrap().fs().join("holes");
    let active = place.snapshots.prepare("c", &[base]).unwrap().volatile();
    let copy = active.copy().unwrap().join("holes");
    assert!(fs::metadata(&copy).unwrap().blocks() <= fs::metadata(&own).unwrap().blocks() + 8);
    assert!(fs::read(&copy).unwrap() == fs::read(&own).unwrap());
    let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
    assert_eq!(layer.diff_id().to_string(), EMPTY);
}

#[test]
fn a_copy_that_was_not_finished_is_made_again() {
    let Some(place) = Place::new("an unfinished copy", Kind::Copies) else {
        return;
    };
    let base = place.layer(&[("a", "a")]);
    let dir = place.root.join("snapshots/c");
    // Killed on the way.
    place.snapshots.prepare("c", &[base]).unwrap();
    fs::remove_file(dir.join("stack")).unwrap();
    fs::write(dir.join("tree/a"), "").unwrap();
    assert_eq!(
        place.snapshots.active("c").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let active = place.snapshots.prepare("c", &[base]).unwrap();
    assert_eq!(fs::read(dir.join("tree/a")).unwrap(), b"a");
    // A power cut before it was on the disk.
    fs::write(dir.join("copied"), "another boot").unwrap();
    fs::write(dir.join("tree/a"), "").unwrap();
    assert_eq!(
        place.snapshots.active("c").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    place.snapshots.prepare("c", &[base]).unwrap();
    assert_eq!(fs::read(dir.join("tree/a")).unwrap(), b"a");
    // One that was: its changes are what nobody else has.
    let mounted = active.mount(&place.mnt()).unwrap();
    fs::write(mounted.path().join("own"), "x").unwrap();
    mounted.unmount().unwrap();
    assert_eq!(fs::read_to_string(dir.join("copied")).unwrap(), "durable");
    assert_eq!(
        place.snapshots.prepare("c", &[base]).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(names(&dir.join("tree")), ["a", "own"]);
}

#[test]
fn a_layer_that_only_its_index_deletes_from_is_copied_also_where_overlays_are_the_rule() {
    let Some(place) = Place::new("an unmarked layer", Kind::CopiesOnAnOverlay) else {
        return;
    };
    let base = place.layer(&[("a", "a"), ("dir", "dir:755"), ("dir/x", "x")]);
    let top = place.layer(&[(".wh.a", ""), ("dir", "dir:755"), ("dir/.wh..wh..opq", "")]);
    assert!(!place.layers.layer(&top).unwrap().is_marked());
    assert_eq!(place.layers.verify(&top).unwrap(), []);
    fs::remove_file(place.root.join("snapshots/.copy")).unwrap();
    let active = place.snapshots.prepare("c", &[base, top]).unwrap();
    assert!(active.copy().is_some());
    let mounted = active.mount(&place.mnt()).unwrap();
    assert_eq!(names(mounted.path()), ["dir"]);
    assert_eq!(names(&mounted.path().join("dir")), Vec::<String>::new());
}

/// Numbers that look random, the same every time.
struct Noise(u64);

impl Noise {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one_of<'a>(&mut self, choice: &[&'a str]) -> &'a str {
        choice[usize::try_from(self.below(choice.len() as u64)).unwrap()]
    }
}

/// A layer of few names, so that those of several layers meet. Links come in the lowest of two: what a link in a third made of
/// a layer below, overlayfs is not told.
fn tangled(noise: &mut Noise, links: bool) -> Vec<(String, String)> {
    let names = ["a", "b", "l", "d"];
    let mut entries = Vec::new();
    for _ in 0..1 + noise.below(8) {
        let depth = 1 + noise.below(3);
        let mut path: Vec<String> = (0..depth).map(|_| noise.one_of(&names).to_owned()).collect();
        let what = match noise.below(9) {
            0 | 1 => format!("content {}", noise.below(3)),
            2 | 3 => format!("dir:{}", noise.one_of(&["755", "1777", "700"])),
            4 if links && path.len() == 1 => format!("link:{}", noise.one_of(&["/a", "/b/a", "/d", "/d/b"])),
            5 => format!("hard:{}", noise.one_of(&["a", "b/a", "l", "d/b"])),
            6 => "pipe".to_owned(),
            7 => {
                let last = path.pop().unwrap();
                path.push(format!(".wh.{last}"));
                String::new()
            }
            _ => {
                path.push(".wh..wh..opq".to_owned());
                String::new()
            }
        };
        entries.push((path.join("/"), what));
    }
    entries
}

/// A tree as lines.
fn shown(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first = std::collections::HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for name in names(&dir) {
            let path = dir.join(name);
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            // Overlayfs lists a whiteout where nothing was to be deleted.
            let Ok(stat) = path.symlink_metadata() else {
                continue;
            };
            let kind = stat.file_type();
            let what = if kind.is_dir() {
                todo.push(path);
                "dir".to_owned()
            } else {
                let original = first.entry(stat.ino()).or_insert_with(|| shown.clone()).clone();
                let content = if kind.is_file() {
                    fs::read_to_string(&path).unwrap()
                } else if kind.is_symlink() {
                    fs::read_link(&path).unwrap().display().to_string()
                } else {
                    "other".to_owned()
                };
                format!("{content:?} as {original}")
            };
            lines.push(format!("{shown} {:o} {what}", stat.mode()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn tangled_stacks_look_the_same_as_overlays_and_as_copies() {
    let (Some(overlays), Some(copies)) = (
        Place::new("tangled stacks", Kind::Directories),
        Place::new("tangled stacks", Kind::Copies),
    ) else {
        return;
    };
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut compared, mut wrong) = (0, Vec::new());
    while compared < 250 {
        let links = noise.below(2) == 0;
        let most = if links { 2 } else { 2 + noise.below(4) };
        let layers: Vec<_> = (0..most)
            .map(|at| tangled(&mut noise, links && at == 0))
            .collect();
        let look = |place: &Place| {
            let unpack = |entries: &Vec<(String, String)>| {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(path, what)| (path.as_str(), what.as_str()))
                    .collect();
                let how = dhow_layer::Unpack::default();
                let unpacked = place.layers.unpack(crate::tar(&entries).as_slice(), &how);
                unpacked.map(|unpacked| unpacked.layer.diff_id()).ok()
            };
            let stack: Vec<_> = layers.iter().map(unpack).collect::<Option<_>>()?;
            let view = match place.snapshots.view("v", &stack) {
                Ok(view) => view,
                Err(error) => return Some(vec![format!("{error:?}")]),
            };
            let mounted = view.mount(&place.mnt()).unwrap();
            let lines = shown(mounted.path());
            mounted.unmount().unwrap();
            place.snapshots.remove("v").unwrap();
            Some(lines)
        };
        let Some(overlay) = look(&overlays) else { continue };
        compared += 1;
        let copy = look(&copies).unwrap();
        if overlay != copy {
            wrong.push(format!("{layers:?}\noverlay {overlay:#?}\ncopy {copy:#?}"));
        }
    }
    wrong.sort_by_key(String::len);
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(6)].join("\n")
    );
}
