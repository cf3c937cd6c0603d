use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_types::ErrorKind;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// A root with a secret beside it that nothing may reach.
struct Place {
    dir: tempfile::TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), b"secret").unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        Self { dir, root }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn outside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("outside")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

#[test]
fn links_and_dots_stay_inside() {
    let place = Place::new();
    std::fs::create_dir_all(place.host("a/b")).unwrap();
    std::fs::write(place.host("a/file"), b"inside").unwrap();
    symlink("/a", place.host("absolute")).unwrap();
    symlink("../../../../a", place.host("a/b/climbing")).unwrap();
    symlink(place.dir.path().join("outside"), place.host("leaving")).unwrap();
    for path in [
        "a/file",
        "/a/file",
        "absolute/file",
        "a/b/climbing/file",
        "../../a/file",
        "a/b/../../../a/file",
    ] {
        assert_eq!(place.root.read(p(path), 100).unwrap(), b"inside", "{path}");
    }
    for path in [
        "leaving/secret",
        "../outside/secret",
        "/../outside/secret",
        "a/../../outside/secret",
    ] {
        assert_eq!(
            place.root.read(p(path), 100).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{path}"
        );
        assert!(!place.root.exists(p(path)).unwrap());
    }
}

#[test]
fn magic_links_are_refused() {
    let root = Root::open(p("/proc/self")).unwrap();
    for path in ["root/etc", "cwd", "fd/0", "exe"] {
        assert!(root.resolve(p(path)).is_err(), "{path}");
    }
}

#[test]
fn real_paths_are_without_links_and_dots() {
    let place = Place::new();
    std::fs::create_dir_all(place.host("usr/lib/x")).unwrap();
    symlink("usr/lib", place.host("lib")).unwrap();
    symlink("/lib/x", place.host("usr/up")).unwrap();
    for (path, real) in [
        ("lib/x", "usr/lib/x"),
        ("/usr/up", "usr/lib/x"),
        ("usr/up/..", "usr/lib"),
        ("lib/./x/../x", "usr/lib/x"),
        ("/", ""),
        ("../..", ""),
    ] {
        assert_eq!(place.root.real_path(p(path)).unwrap(), p(real), "{path}");
    }
    symlink("loop", place.host("loop")).unwrap();
    assert_eq!(
        place.root.real_path(p("loop")).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        place.root.resolve(p("loop")).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        place.root.real_path(p("nowhere")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_path_to_make_is_after_links_that_lead_to_nothing_yet() {
    let place = Place::new();
    std::fs::create_dir(place.host("etc")).unwrap();
    symlink("/tmp/foo/bar", place.host("jump")).unwrap();
    symlink("/jump/baz/hosts", place.host("etc/hosts")).unwrap();
    symlink("../../../up", place.host("etc/up")).unwrap();
    symlink("loop", place.host("loop")).unwrap();
    for (path, made) in [
        ("etc/hosts", "tmp/foo/bar/baz/hosts"),
        ("/etc/up/x", "up/x"),
        ("etc/new/../other", "etc/other"),
        ("", ""),
    ] {
        assert_eq!(place.root.path_to_make(p(path)).unwrap(), p(made), "{path}");
        assert_eq!(place.root.real_path(p(path)).is_ok(), path.is_empty(), "{path}");
    }
    let error = place.root.path_to_make(p("loop/x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_directory_takes_over_the_group_id_bit_unless_it_gets_an_owner() {
    let place = Place::new();
    std::fs::create_dir(place.host("shared")).unwrap();
    std::fs::set_permissions(place.host("shared"), std::fs::Permissions::from_mode(0o7755)).unwrap();
    let mode = |path: &str| place.host(path).metadata().unwrap().mode() & 0o7777;
    place.root.create_dir_all(p("shared/a/b"), 0o755, None).unwrap();
    assert_eq!((mode("shared/a"), mode("shared/a/b")), (0o2755, 0o2755));
    let own = std::fs::metadata(place.host("shared")).unwrap();
    let owner = Some((own.uid(), own.gid()));
    place.root.create_dir_all(p("shared/c"), 0o755, owner).unwrap();
    assert_eq!(mode("shared/c"), 0o755);
}

#[test]
fn directories_are_made_with_the_exact_mode_and_existing_ones_are_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.host("old")).unwrap();
    std::fs::set_permissions(place.host("old"), std::fs::Permissions::from_mode(0o711)).unwrap();
    symlink("/old", place.host("way")).unwrap();
    place.root.create_dir_all(p("way/a/b"), 0o1777, None).unwrap();
    let mode = |path: &str| place.host(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("old"), mode("old/a"), mode("old/a/b")),
        (0o711, 0o1777, 0o1777)
    );
    place.root.create_dir_all(p("way/a/b"), 0o700, None).unwrap();
    assert_eq!(mode("old/a/b"), 0o1777);
    std::fs::write(place.host("file"), b"").unwrap();
    let error = place.root.create_dir_all(p("file/x"), 0o755, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    symlink("missing", place.host("dangling")).unwrap();
    assert!(place.root.create_dir_all(p("dangling/x"), 0o755, None).is_err());
    assert!(
        place.root.create_dir_all(p("new/../../x"), 0o755, None).is_ok(),
        "the way back exists by then"
    );
    assert_eq!(place.outside(), ["secret"]);
}

#[test]
fn files_replace_links_and_never_write_through_them() {
    let place = Place::new();
    let secret = place.dir.path().join("outside/secret");
    symlink(&secret, place.host("link")).unwrap();
    place.root.write(p("link"), b"new", 0o4755, None).unwrap();
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    let made = place.host("link").symlink_metadata().unwrap();
    assert!(made.is_file());
    assert_eq!(made.mode() & 0o7777, 0o4755);
    std::fs::create_dir(place.host("dir")).unwrap();
    assert_eq!(
        place.root.write(p("dir"), b"", 0o644, None).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        place
            .root
            .write(p("no/parent"), b"", 0o644, None)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    for nothing in ["/", "", "..", "a/.."] {
        let error = place.root.write(p(nothing), b"", 0o644, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{nothing:?}");
    }
}

#[test]
fn pipes_and_devices_are_not_opened_as_files() {
    let place = Place::new();
    place
        .root
        .mknod(p("pipe"), FileKind::Fifo, 0o644, (0, 0), None)
        .unwrap();
    assert_eq!(
        place.root.open_file(p("pipe")).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        place.root.open_file(p("/")).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    let error = place
        .root
        .mknod(p("x"), FileKind::File, 0o644, (0, 0), None)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        place.host("pipe").symlink_metadata().unwrap().mode() & 0o7777,
        0o644
    );
}

#[test]
fn reads_are_bounded() {
    let place = Place::new();
    std::fs::write(place.host("f"), b"12345").unwrap();
    assert_eq!(place.root.read(p("f"), 5).unwrap(), b"12345");
    assert_eq!(
        place.root.read(p("f"), 4).unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
}

#[test]
fn hard_links_are_made_to_links_themselves() {
    let place = Place::new();
    symlink("/outside", place.host("l")).unwrap();
    place.root.hard_link(p("l"), p("m")).unwrap();
    assert_eq!(place.root.read_link(p("m")).unwrap(), p("/outside"));
    std::fs::create_dir(place.host("d")).unwrap();
    assert!(place.root.hard_link(p("d"), p("e")).is_err());
    assert!(place.root.hard_link(p("../outside/secret"), p("s")).is_err());
}

#[test]
fn directories_are_listed_sorted_with_kinds() {
    let place = Place::new();
    std::fs::create_dir(place.host("b")).unwrap();
    std::fs::write(place.host("a"), b"").unwrap();
    symlink("a", place.host("c")).unwrap();
    let names: Vec<_> = place
        .root
        .read_dir(p("/"))
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.kind))
        .collect();
    let expected = [
        ("a", FileKind::File),
        ("b", FileKind::Directory),
        ("c", FileKind::Symlink),
    ];
    assert_eq!(names, expected.map(|(name, kind)| (name.into(), kind)));
    assert_eq!(
        place.root.read_dir(p("a")).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
}

#[test]
fn remove_takes_trees_and_links_but_not_what_they_lead_to() {
    let place = Place::new();
    std::fs::create_dir_all(place.host("t/a/b")).unwrap();
    std::fs::write(place.host("t/a/f"), b"").unwrap();
    symlink(place.dir.path().join("outside"), place.host("t/out")).unwrap();
    symlink("t", place.host("link")).unwrap();
    place.root.remove_all(p("link")).unwrap();
    assert!(place.host("t").exists());
    place.root.remove_all(p("t")).unwrap();
    place.root.remove_all(p("t")).unwrap();
    place.root.remove_all(p("missing/way/x")).unwrap();
    assert!(!place.host("t").exists());
    assert_eq!(place.outside(), ["secret"]);
}

#[test]
fn what_is_put_into_a_tree_while_it_is_removed_goes_with_it() {
    let place = Place::new();
    for _ in 0..300 {
        std::fs::create_dir_all(place.host("t/below")).unwrap();
        std::thread::scope(|scope| {
            // Fewer than the rounds, and as late as they can.
            scope.spawn(|| {
                (0..20).all(|file| std::fs::write(place.host(&format!("t/below/{file}")), b"").is_ok())
            });
            scope.spawn(|| place.root.remove_all(p("t")).unwrap());
        });
        assert!(!place.host("t").exists());
    }
}

#[test]
fn remove_stops_at_a_mount_point() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped remove_stops_at_a_mount_point: it needs root");
        return;
    }
    let place = Place::new();
    let target = place.host("t/mounted");
    std::fs::create_dir_all(&target).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &target, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
    std::fs::write(target.join("kept"), b"").unwrap();
    let removed = place.root.remove_all(p("t"));
    let kept = target.join("kept").exists();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert!(kept);
    place.root.remove_all(p("t")).unwrap();
}

/// Exchanges a directory of the root with a link that leads out, as fast as it can, while `work` runs.
fn while_swapping(place: &Place, work: impl Fn()) {
    std::fs::create_dir_all(place.host("dir/inner")).unwrap();
    std::fs::write(place.host("dir/secret"), b"inside").unwrap();
    symlink(place.dir.path().join("outside"), place.host("swap")).unwrap();
    let (dir, swap) = (place.host("dir"), place.host("swap"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if renameat_with(CWD, &dir, CWD, &swap, RenameFlags::EXCHANGE).is_err() {
                    // One of the two was removed meanwhile.
                    std::thread::yield_now();
                }
            }
        });
        // So that a failed assertion ends the other thread as well.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(cause) = outcome {
            std::panic::resume_unwind(cause);
        }
    });
}

#[test]
fn a_directory_swapped_for_a_link_never_lets_a_read_out() {
    let place = Place::new();
    let seen = std::cell::Cell::new(0);
    while_swapping(&place, || {
        for _ in 0..20_000 {
            match place.root.read(p("dir/secret"), 100) {
                Ok(bytes) => {
                    assert_eq!(bytes, b"inside");
                    seen.set(seen.get() + 1);
                }
                Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
            }
        }
    });
    assert!(seen.get() > 0, "the directory was there at times");
}

#[test]
fn a_directory_swapped_for_a_link_never_lets_a_write_out() {
    let place = Place::new();
    while_swapping(&place, || {
        for round in 0..3_000 {
            let name = format!("dir/inner/new-{round}");
            drop(place.root.create_dir_all(p("dir/inner/deep/er"), 0o755, None));
            drop(place.root.write(p(&name), b"x", 0o644, None));
            drop(place.root.write(p("dir/written"), b"x", 0o644, None));
            drop(place.root.symlink(p("x"), p("dir/link"), None));
            drop(
                place
                    .root
                    .mknod(p("dir/pipe"), FileKind::Fifo, 0o4777, (0, 0), None),
            );
            drop(place.root.hard_link(p("dir/secret"), p("dir/hard")));
            drop(place.root.remove_all(p(&name)));
            drop(place.root.remove_all(p("dir/inner")));
        }
    });
    assert_eq!(place.outside(), ["secret"]);
    let secret = place.dir.path().join("outside/secret");
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(secret.metadata().unwrap().nlink(), 1);
}

#[test]
fn a_tree_whose_parts_are_swapped_for_links_is_removed_without_leaving() {
    let place = Place::new();
    while_swapping(&place, || {
        for _ in 0..2_000 {
            drop(place.root.remove_all(p("dir")));
            drop(place.root.create_dir_all(p("dir/inner"), 0o755, None));
            drop(symlink(place.dir.path().join("outside"), place.host("swap")));
        }
    });
    assert_eq!(place.outside(), ["secret"]);
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    /// Where a path leads according to a model that knows nothing of the kernel.
    fn model(links: &[(String, String)], path: &str) -> Option<String> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut real: Vec<String> = Vec::new();
        let mut steps = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => (),
            }
            real.push(part);
            let here = real.join("/");
            let Some((_, target)) = links.iter().find(|(name, _)| *name == here) else {
                continue;
            };
            steps += 1;
            if steps > 40 {
                return None;
            }
            real.pop();
            if target.starts_with('/') {
                real.clear();
            }
            todo.extend(target.split('/').rev().map(str::to_owned));
        }
        Some(real.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn paths_lead_where_the_model_says(
            links in prop::collection::vec(("[xyz]", "(/|\\.\\./)?([abxyz]|\\.\\.)(/([abxyz]|\\.\\.)){0,2}"), 0..4),
            path in "/?([abxyz]|\\.\\.)(/([abxyz]|\\.\\.)){0,4}",
        ) {
            let place = Place::new();
            for dir in ["a/a/a", "a/b/a", "b/a/b", "b/b/a", "a/a/b", "a/b/b", "b/a/a", "b/b/b"] {
                std::fs::create_dir_all(place.host(dir)).unwrap();
            }
            let mut made: Vec<(String, String)> = Vec::new();
            for (name, target) in links {
                if symlink(&target, place.host(&name)).is_ok() {
                    made.push((name, target));
                }
            }
            let expected = model(&made, &path).filter(|real| place.host(real).exists());
            match (place.root.real_path(p(&path)), place.root.resolve(p(&path))) {
                (Ok(real), Ok(fd)) => {
                    // A missing component before `..` fails in the kernel, and the model does not see it.
                    prop_assert_eq!(Some(real.to_str().unwrap().to_owned()), expected);
                    let by_fd = rustix::fs::fstat(&fd).unwrap();
                    let by_name = place.host(real.to_str().unwrap()).symlink_metadata().unwrap();
                    prop_assert_eq!(by_fd.st_ino, by_name.ino());
                }
                (real, fd) => prop_assert!(real.is_err() && fd.is_err(), "{:?} {:?}", real, fd),
            }
        }
    }
}

#[test]
fn large_trees_are_removed_by_several_threads_and_links_in_them_not_followed() {
    let place = Place::new();
    let tree = place.dir.path().join("root/large");
    let outside = place.dir.path().join("kept");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), b"x").unwrap();
    for dir in 0..40 {
        let dir = tree.join(dir.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
        for file in 0..90 {
            std::fs::write(dir.join(file.to_string()), b"x").unwrap();
        }
    }
    let mut deep = tree.join("deep");
    for _ in 0..100 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), b"x").unwrap();
    place.root.remove_all_at_once(p("large")).unwrap();
    assert!(!tree.exists());
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"x");
    // What is not there, and what is no directory.
    place.root.remove_all_at_once(p("large")).unwrap();
    place.root.symlink(&outside, p("link"), None).unwrap();
    place.root.remove_all_at_once(p("link")).unwrap();
    assert!(outside.join("file").exists());
}
