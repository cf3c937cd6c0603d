//! Snapshots as their callers see them: real overlay mounts on real directories.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, one that cannot run says so"
)]

mod copied;
mod peers;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use dhow_layer::tar::Writer;
use dhow_layer::{Backend, Capture, Entry, EntryKind, LayerStore, Unpack};
use dhow_snapshot::{Form, Snapshots};
use dhow_types::{DiffId, Digest, ErrorKind};

const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// One suite, on every back end.
macro_rules! on_every_back_end {
    ($($test:ident)*) => {
        mod directories {
            $(#[test] fn $test() { super::$test(super::Kind::Directories); })*
        }
        mod erofs {
            $(#[test] fn $test() { super::$test(super::Kind::Erofs); })*
        }
        mod copies {
            $(#[test] fn $test() { super::$test(super::Kind::Copies); })*
        }
        mod copies_of_erofs {
            $(#[test] fn $test() { super::$test(super::Kind::CopiesOfErofs); })*
        }
        mod copies_on_an_overlay {
            $(#[test] fn $test() { super::$test(super::Kind::CopiesOnAnOverlay); })*
        }
    };
}

on_every_back_end! {
    changes_over_a_stack_become_a_layer_that_shows_them_again
    ids_of_a_user_namespace_are_those_of_the_layers_on_disk
    an_untouched_snapshot_is_the_canonical_empty_layer
    empty_stacks_single_layers_and_repeated_layers_can_be_mounted
    two_hundred_layers_can_be_mounted_and_too_many_are_refused
    an_opaque_root_hides_all_layers_below
    implied_directories_look_as_the_layers_below_say
    a_patch_never_follows_a_link_of_a_layer_on_the_host
    keys_are_plain_names_and_taken_once
    missing_layers_and_cut_lists_are_told
    a_volatile_snapshot_can_be_mounted_again
    the_archives_of_containerds_and_umocis_tests_show_what_is_said
}

use peers::the_archives_of_containerds_and_umocis_tests_show_what_is_said;

/// Layers as directories with `user.overlay.*`, and overlayfs in a user namespace.
#[test]
fn a_normal_user_passes_the_suite_in_a_namespace_of_their_own() {
    eprintln!(
        "{}",
        dhow_testkit::as_nobody(&["directories::", "copies::"], true, &[])
    );
}

/// What is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directories,
    Erofs,
    /// Plain copies of layers that are directories.
    Copies,
    CopiesOfErofs,
    /// The store is on a file system that overlayfs takes no changes to, and that has no whiteouts: another overlay.
    CopiesOnAnOverlay,
}

impl Kind {
    fn backend(self) -> Backend {
        match self {
            Self::Erofs | Self::CopiesOfErofs => Backend::Erofs,
            Self::Directories | Self::Copies | Self::CopiesOnAnOverlay => Backend::Directories,
        }
    }

    fn copies(self) -> bool {
        matches!(self, Self::Copies | Self::CopiesOfErofs | Self::CopiesOnAnOverlay)
    }
}

struct Place {
    layers: LayerStore,
    snapshots: Snapshots,
    /// Before what it is mounted over.
    _overlay: Option<Overlay>,
    dir: tempfile::TempDir,
    root: PathBuf,
}

/// An overlay that is unmounted at the end.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(dir: &Path) -> Self {
        let part = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (lower, upper, work, root) = (part("lower"), part("upper"), part("work"), part("root"));
        let mount = dhow_sys::mount::overlay(&[&lower], Some(&upper), Some(&work), &[]).unwrap();
        dhow_sys::mount::attach(&mount, &root).unwrap();
        Self(root)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        dhow_sys::mount::detach(&self.0).unwrap();
    }
}

impl Place {
    /// Nothing when this process may not mount.
    fn new(test: &str, kind: Kind) -> Option<Self> {
        // Root of a namespace may mount, too.
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped {test}: it needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let overlay = (kind == Kind::CopiesOnAnOverlay).then(|| Overlay::mount(dir.path()));
        let root = overlay
            .as_ref()
            .map_or(dir.path(), |overlay| &overlay.0)
            .to_owned();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let layers = LayerStore::open_with(&root, kind.backend()).unwrap();
        if kind.backend() == Backend::Erofs
            && let Err(error) = layers.probe_erofs()
        {
            eprintln!("skipped {test} on erofs: {error}");
            return None;
        }
        let snapshots = Snapshots::open(&root, layers.clone()).unwrap();
        match kind {
            Kind::CopiesOnAnOverlay => {
                assert_eq!(snapshots.probe(), Form::Copy);
                assert_eq!(
                    snapshots.make_as(Form::Overlay).unwrap_err().kind(),
                    ErrorKind::Unsupported
                );
                snapshots.make_as(Form::Copy).unwrap();
            }
            _ if kind.copies() => snapshots.make_as(Form::Copy).unwrap(),
            _ => assert_eq!(snapshots.probe(), Form::Overlay),
        }
        Some(Self {
            layers,
            snapshots,
            _overlay: overlay,
            dir,
            root,
        })
    }

    fn layer(&self, entries: &[(&str, &str)]) -> DiffId {
        self.layers
            .unpack(tar(entries).as_slice(), &Unpack::default())
            .unwrap()
            .layer
            .diff_id()
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, what) in entries {
        let (entry, body) = entry(path, what);
        writer.append(&entry, body.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// `dir:MODE`, `link:TARGET`, `hard:TARGET`, `pipe`, or the content of a file.
fn entry(path: &str, what: &str) -> (Entry, String) {
    if what == "pipe" {
        return (Entry::new(path.as_bytes(), EntryKind::Fifo, 0o644), String::new());
    }
    if let Some(target) = what.strip_prefix("hard:") {
        let mut entry = Entry::new(path.as_bytes(), EntryKind::Hardlink, 0o644);
        entry.link = target.as_bytes().to_vec();
        return (entry, String::new());
    }
    if let Some(mode) = what.strip_prefix("dir:") {
        let mode = u32::from_str_radix(mode, 8).unwrap();
        return (
            Entry::new(path.as_bytes(), EntryKind::Directory, mode),
            String::new(),
        );
    }
    if let Some(target) = what.strip_prefix("link:") {
        let mut entry = Entry::new(path.as_bytes(), EntryKind::Symlink, 0o777);
        entry.link = target.as_bytes().to_vec();
        return (entry, String::new());
    }
    let mut entry = Entry::new(path.as_bytes(), EntryKind::File, 0o644);
    entry.size = what.len() as u64;
    (entry, what.to_owned())
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A process that waits in a user namespace of its own.
struct Waiting(std::process::Child);

impl Waiting {
    /// With these first ids of 1000 on the host; none where it cannot be made.
    fn new(first: u32) -> Option<Self> {
        let mut command = std::process::Command::new("unshare");
        let waiting = Self(command.args(["--user", "sleep", "60"]).spawn().ok()?);
        let file = |name: &str| PathBuf::from(format!("/proc/{}/{name}", waiting.0.id()));
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        for _ in 0..500 {
            if std::fs::read_link(file("ns/user")).is_ok_and(|namespace| namespace != own) {
                let map = format!("0 {first} 1000");
                std::fs::write(file("uid_map"), &map).unwrap();
                std::fs::write(file("gid_map"), &map).unwrap();
                return Some(waiting);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }

    fn namespace(&self) -> std::os::fd::OwnedFd {
        std::fs::File::open(format!("/proc/{}/ns/user", self.0.id()))
            .unwrap()
            .into()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn ids_of_a_user_namespace_are_those_of_the_layers_on_disk(kind: Kind) {
    let Some(place) = Place::new("ids_of_a_user_namespace_are_those_of_the_layers_on_disk", kind) else {
        return;
    };
    // A user maps no ids of the host's file system, and an overlay maps none of its own.
    if !dhow_layer::privileged() || kind == Kind::CopiesOnAnOverlay {
        return;
    }
    let Some(waiting) = Waiting::new(500_000) else {
        eprintln!("skipped: it needs unshare");
        return;
    };
    let base = place.layer(&[("etc", "dir:755"), ("etc/a", "a"), ("etc/b", "b")]);
    let active = place.snapshots.prepare("mapped", &[base]).unwrap();
    let ids = dhow_snapshot::MountIds {
        users: std::sync::Arc::new(waiting.namespace()),
        uid: 500_000,
        gid: 500_000,
    };
    let mounted = active.clone().mapped(ids).mount(&place.mnt()).unwrap();
    let at = |path: &str| mounted.path().join(path);
    let owner = |path: PathBuf| {
        let status = std::fs::symlink_metadata(path).unwrap();
        (status.uid(), status.gid())
    };
    assert_eq!(owner(at("")), (500_000, 500_000));
    assert_eq!(owner(at("etc/a")), (500_000, 500_000));
    // The host's root is nobody there: it cannot make anything, but can change what is there, by the hand of the other root.
    assert!(std::fs::write(at("new"), "").is_err());
    std::fs::write(at("etc/a"), "changed").unwrap();
    std::os::unix::fs::chown(at("etc/b"), Some(500_007), Some(500_008)).unwrap();
    assert_eq!(owner(at("etc/b")), (500_007, 500_008));
    assert!(std::os::unix::fs::chown(at("etc/b"), Some(7), None).is_err());
    mounted.unmount().unwrap();
    let mounted = active.mount(&place.mnt()).unwrap();
    assert_eq!(owner(mounted.path().join("etc/a")), (0, 0));
    assert_eq!(owner(mounted.path().join("etc/b")), (7, 8));
    assert_eq!(std::fs::read(mounted.path().join("etc/a")).unwrap(), b"changed");
}

fn changes_over_a_stack_become_a_layer_that_shows_them_again(kind: Kind) {
    let Some(place) = Place::new("changes_over_a_stack_become_a_layer_that_shows_them_again", kind) else {
        return;
    };
    let base = place.layer(&[
        ("etc", "dir:755"),
        ("etc/a", "a"),
        ("etc/b", "b"),
        ("old", "dir:755"),
        ("old/x", "x"),
    ]);
    let active = place.snapshots.prepare("step", &[base]).unwrap().volatile();
    let mounted = active.mount(&place.mnt()).unwrap();
    let at = |path: &str| mounted.path().join(path);
    assert_eq!(std::fs::read(at("etc/a")).unwrap(), b"a");
    std::fs::remove_file(at("etc/a")).unwrap();
    std::fs::write(at("etc/c"), b"c").unwrap();
    std::fs::remove_dir_all(at("old")).unwrap();
    std::fs::create_dir(at("old")).unwrap();
    std::fs::write(at("old/new"), b"n").unwrap();
    symlink("c", at("etc/link")).unwrap();
    let created = std::fs::metadata(at("")).unwrap();
    assert_eq!((created.mode() & 0o7777, created.uid()), (0o755, 0));
    mounted.unmount().unwrap();
    let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
    let names_of: Vec<_> = layer
        .index()
        .unwrap()
        .entries()
        .map(|entry| (String::from_utf8(entry.path).unwrap(), entry.kind, entry.opaque))
        .collect();
    assert_eq!(
        names_of,
        [
            ("etc".into(), EntryKind::Directory, false),
            ("etc/a".into(), EntryKind::Whiteout, false),
            ("etc/c".into(), EntryKind::File, false),
            ("etc/link".into(), EntryKind::Symlink, false),
            // Nobody can see of a copy that a directory is not the one that was there.
            ("old".into(), EntryKind::Directory, !kind.copies()),
            ("old/new".into(), EntryKind::File, false),
        ]
        .into_iter()
        .chain(
            kind.copies()
                .then(|| ("old/x".into(), EntryKind::Whiteout, false))
        )
        .collect::<Vec<_>>()
    );
    assert_eq!(
        place.snapshots.list().unwrap(),
        Vec::<String>::new(),
        "the snapshot is spent"
    );

    let view = place.snapshots.view("look", &[base, layer.diff_id()]).unwrap();
    let mounted = view.mount(&place.mnt()).unwrap();
    assert_eq!(names(&mounted.path().join("etc")), ["b", "c", "link"]);
    assert_eq!(names(&mounted.path().join("old")), ["new"]);
    assert!(
        std::fs::write(mounted.path().join("x"), b"").is_err(),
        "a view is read-only"
    );
    assert_eq!(
        place
            .snapshots
            .capture(view, &Capture::default())
            .unwrap_err()
            .kind(),
        ErrorKind::FailedPrecondition
    );
}

fn an_untouched_snapshot_is_the_canonical_empty_layer(kind: Kind) {
    let Some(place) = Place::new("an_untouched_snapshot_is_the_canonical_empty_layer", kind) else {
        return;
    };
    let base = place.layer(&[("tmp/x", "implied"), ("f", "f")]);
    let active = place.snapshots.prepare("idle", &[base]).unwrap();
    active.mount(&place.mnt()).unwrap().unmount().unwrap();
    let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
    assert_eq!(layer.diff_id().to_string(), EMPTY);
}

fn empty_stacks_single_layers_and_repeated_layers_can_be_mounted(kind: Kind) {
    let Some(place) = Place::new(
        "empty_stacks_single_layers_and_repeated_layers_can_be_mounted",
        kind,
    ) else {
        return;
    };
    let a = place.layer(&[("a", "a")]);
    let b = place.layer(&[("b", "b")]);
    for (key, stack, expected) in [
        ("none", &[][..], &[][..]),
        ("one", &[a], &["a"]),
        ("twice", &[a, a], &["a"]),
        ("again", &[a, b, a], &["a", "b"]),
    ] {
        for writable in [true, false] {
            let make = |key: &str| {
                if writable {
                    place.snapshots.prepare(key, stack)
                } else {
                    place.snapshots.view(key, stack)
                }
            };
            let active = make(key).unwrap();
            let mounted = active.mount(&place.mnt()).unwrap();
            assert_eq!(names(mounted.path()), expected, "{key}");
            assert_eq!(
                std::fs::write(mounted.path().join("new"), b"").is_ok(),
                writable,
                "{key}"
            );
            mounted.unmount().unwrap();
            assert_eq!(place.snapshots.stack(key).unwrap(), stack);
            place.snapshots.remove(key).unwrap();
        }
    }
}

fn two_hundred_layers_can_be_mounted_and_too_many_are_refused(kind: Kind) {
    let Some(place) = Place::new("two_hundred_layers_can_be_mounted_and_too_many_are_refused", kind) else {
        return;
    };
    let stack: Vec<DiffId> = (0..200)
        .map(|n| place.layer(&[(&format!("f{n}"), "x")]))
        .collect();
    let active = place.snapshots.prepare("many", &stack).unwrap();
    let mounted = active.mount(&place.mnt()).unwrap();
    assert_eq!(names(mounted.path()).len(), 200);
    mounted.unmount().unwrap();
    let more: Vec<DiffId> = (200..501)
        .map(|n| place.layer(&[(&format!("f{n}"), "x")]))
        .collect();
    let toomany = place.snapshots.prepare("toomany", &[stack, more].concat());
    if kind.copies() {
        // What overlayfs cannot, a copy can.
        let mounted = toomany.unwrap().volatile().mount(&place.mnt()).unwrap();
        assert_eq!(names(mounted.path()).len(), 501);
        return;
    }
    let error = toomany.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(place.snapshots.list().unwrap(), ["many"]);
}

fn an_opaque_root_hides_all_layers_below(kind: Kind) {
    let Some(place) = Place::new("an_opaque_root_hides_all_layers_below", kind) else {
        return;
    };
    let below = place.layer(&[("below", "x")]);
    let hides = place.layer(&[(".wh..wh..opq", ""), ("middle", "x")]);
    let top = place.layer(&[("top", "x")]);
    let view = place.snapshots.view("v", &[below, hides, top]).unwrap();
    let mounted = view.mount(&place.mnt()).unwrap();
    assert_eq!(names(mounted.path()), ["middle", "top"]);
}

fn implied_directories_look_as_the_layers_below_say(kind: Kind) {
    let Some(place) = Place::new("implied_directories_look_as_the_layers_below_say", kind) else {
        return;
    };
    let base = place.layer(&[
        ("tmp", "dir:1777"),
        ("tmp/base", "b"),
        ("home", "dir:751"),
        ("home/secret", "dir:700"),
        ("usr", "dir:755"),
        ("usr/lib", "dir:711"),
        ("usr/lib/base.so", "b"),
        ("lib", "link:usr/lib"),
    ]);
    // No directory is named: ko, jib, bazel and hand-made layers are so.
    let app = place.layer(&[
        ("tmp/x", "x"),
        ("home/secret/y", "y"),
        ("lib/app.so", "app"),
        ("lib/sub/deep.so", "deep"),
        ("own/z", "z"),
    ]);
    let top = place.layer(&[("usr/lib/.wh.app.so", ""), ("usr/lib/top.so", "t")]);
    for (key, stack, libraries) in [
        ("app", vec![base, app], vec!["app.so", "base.so", "sub"]),
        ("top", vec![base, app, top], vec!["base.so", "sub", "top.so"]),
    ] {
        place.snapshots.prepare(key, &stack).unwrap();
        // As another process opens it later.
        let active = place.snapshots.active(key).unwrap();
        let mounted = active.mount(&place.mnt()).unwrap();
        let mode = |path: &str| {
            mounted
                .path()
                .join(path)
                .symlink_metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(
            (mode("tmp"), mode("home"), mode("home/secret"), mode("own")),
            (0o1777, 0o751, 0o700, 0o755)
        );
        assert_eq!(names(&mounted.path().join("tmp")), ["base", "x"]);
        assert_eq!(
            std::fs::read_link(mounted.path().join("lib")).unwrap(),
            Path::new("usr/lib")
        );
        for lower in ["lib", "usr", "usr/lib", "home"] {
            let lower = mounted.path().join(lower).symlink_metadata().unwrap();
            assert!(lower.mtime() == 0 || key == "top", "the time of the lower entry");
        }
        assert_eq!(names(&mounted.path().join("usr/lib")), libraries, "{key}");
        assert_eq!(
            mode("usr/lib"),
            if key == "app" { 0o711 } else { mode("usr/lib") }
        );
        assert_eq!(
            std::fs::read(mounted.path().join("usr/lib/sub/deep.so")).unwrap(),
            b"deep"
        );
        mounted.unmount().unwrap();
        let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
        assert_eq!(layer.diff_id().to_string(), EMPTY, "patches are no changes");
    }
}

fn a_patch_never_follows_a_link_of_a_layer_on_the_host(kind: Kind) {
    let Some(place) = Place::new("a_patch_never_follows_a_link_of_a_layer_on_the_host", kind) else {
        return;
    };
    let victim = place.dir.path().join("victim");
    std::fs::create_dir_all(victim.join("a")).unwrap();
    std::fs::set_permissions(victim.join("a"), std::fs::Permissions::from_mode(0o711)).unwrap();
    let target = format!("link:{}", victim.display());
    let inner = victim.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
    let base = place.layer(&[
        ("lib", &target),
        ("lib-x", &target),
        (&inner, "dir:700"),
        (&format!("{inner}/a"), "dir:1777"),
    ]);
    let evil = place.layer(&[("lib/a/b", "x"), ("lib-x/a/c", "x"), ("lib/a/d/e", "x")]);
    drop(place.snapshots.prepare("p", &[base, evil]));
    assert_eq!(victim.join("a").metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(names(&victim.join("a")), Vec::<String>::new());
}

fn keys_are_plain_names_and_taken_once(kind: Kind) {
    let Some(place) = Place::new("keys_are_plain_names_and_taken_once", kind) else {
        return;
    };
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "../x",
        ".empty",
        "-x",
        "a b",
        &"x".repeat(256),
    ] {
        assert_eq!(
            place.snapshots.prepare(bad, &[]).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
        assert_eq!(
            place.snapshots.remove(bad).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
    }
    place.snapshots.prepare("good", &[]).unwrap();
    assert_eq!(
        place.snapshots.prepare("good", &[]).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(place.snapshots.list().unwrap(), ["good"]);
    place.snapshots.remove("good").unwrap();
    place.snapshots.remove("good").unwrap();
    assert_eq!(
        place.snapshots.active("good").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(names(&place.root.join("trash")), Vec::<String>::new());
}

fn missing_layers_and_cut_lists_are_told(kind: Kind) {
    let Some(place) = Place::new("missing_layers_and_cut_lists_are_told", kind) else {
        return;
    };
    let nobody = DiffId(Digest::of(b"nobody"));
    assert_eq!(
        place.snapshots.prepare("p", &[nobody]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(place.snapshots.list().unwrap(), Vec::<String>::new());
    let base = place.layer(&[("a", "a")]);
    place.snapshots.prepare("q", &[base]).unwrap();
    let list = place.root.join("snapshots/q/stack");
    let text = std::fs::read_to_string(&list).unwrap();
    for end in 0..text.len() {
        std::fs::write(&list, &text[..end]).unwrap();
        assert_eq!(
            place.snapshots.active("q").unwrap_err().kind(),
            ErrorKind::DataLoss,
            "cut at {end}"
        );
    }
    std::fs::write(&list, &text).unwrap();
    place.layers.remove(&base).unwrap();
    assert_eq!(
        place.snapshots.active("q").unwrap_err().kind(),
        ErrorKind::DataLoss
    );
}

fn a_volatile_snapshot_can_be_mounted_again(kind: Kind) {
    let Some(place) = Place::new("a_volatile_snapshot_can_be_mounted_again", kind) else {
        return;
    };
    let active = place.snapshots.prepare("v", &[]).unwrap().volatile();
    for round in 0..3 {
        let mounted = active.mount(&place.mnt()).unwrap();
        std::fs::write(mounted.path().join(round.to_string()), b"").unwrap();
        mounted.unmount().unwrap();
    }
    assert_eq!(names(active.written().unwrap()), ["0", "1", "2"]);
    let detached = active.mount_detached().unwrap();
    assert!(rustix::fs::statat(&detached, "2", rustix::fs::AtFlags::empty()).is_ok());
}
