//! Archives that nobody should have made: each gives its error, or is kept harmless, and leaves nothing.

mod cases;
mod metadata;
mod odd;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use dhow_layer::{Layer, Limits, Unpack};
use dhow_types::{DiffId, Digest, ErrorKind};

pub(crate) use self::cases::refused;
pub(crate) use self::odd::odd;
use crate::Place;
use crate::maker::{Header, Maker, header, octal, seal};

fn make() -> Maker {
    Maker::new()
}

fn with(name: &str, flag: u8, change: impl FnOnce(&mut Header)) -> Header {
    let mut made = header(name, flag);
    change(&mut made);
    made
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    dhow_layer::compress(bytes, &mut out, dhow_layer::Compression::Gzip).unwrap();
    out
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    dhow_layer::compress(bytes, &mut out, dhow_layer::Compression::Zstd).unwrap();
    out
}

#[test]
fn unpack_refuses_hostile_archives_and_leaves_nothing() {
    let cases = refused();
    assert!(cases.len() >= 60);
    for place in Place::each() {
        for (name, tar, kind) in &cases {
            let error = place.unpack(tar).expect_err(name);
            assert_eq!(error.kind(), *kind, "{name}: {}", chain(&error));
            assert_eq!(place.store.list().unwrap(), [], "{name}: a layer was published");
            place.assert_clean(name);
        }
    }
}

/// A tree as lines, one for each name: what it is, its rights and owner, its name, and what it holds.
fn shown(layer: &Layer) -> Vec<String> {
    use dhow_rootpath::FileKind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
    let root = layer.open().unwrap();
    let index = layer.index().unwrap();
    let unmarked = |path: &std::path::Path| {
        let entry = index.find(path.as_os_str().as_encoded_bytes());
        !layer.is_marked() && entry.is_some_and(|entry| entry.kind == dhow_layer::EntryKind::Whiteout)
    };
    let mut lines = Vec::new();
    let mut first: std::collections::HashMap<u64, String> = std::collections::HashMap::new();
    let mut todo = vec![std::path::PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let mut entries = root.read_dir(&dir).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = dir.join(&entry.name);
            let stat = root.symlink_metadata(&path).unwrap();
            let mut name = path.as_os_str().as_encoded_bytes().escape_ascii().to_string();
            if name.len() > 40 {
                name = format!("{}... of {} bytes", &name[..8], path.as_os_str().len());
            }
            let other = first.entry(stat.st_ino).or_insert_with(|| name.clone());
            let rights = format!("{:o} {}:{}", stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
            let attributes =
                crate::backends::attributes(&root, path.as_os_str().as_encoded_bytes()).join(" ");
            let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            let time = if stat.st_mtime == 1_600_000_000 {
                String::new()
            } else {
                format!(" at {}", stat.st_mtime)
            };
            let line = match entry.kind {
                _ if entry.kind != Directory && *other != name => format!("same {name} = {other}"),
                File if unmarked(&path) => format!("gone {name}"),
                CharDevice if device == (0, 0) => format!("gone {name}"),
                File => {
                    let content = root.read(&path, 1 << 20).unwrap().escape_ascii().to_string();
                    format!("file {rights} {name} {content:?}{time}")
                }
                Directory => format!("dir {rights} {name}"),
                Symlink => {
                    let target = root.read_link(&path).unwrap();
                    format!(
                        "link {name} -> {}",
                        target.as_os_str().as_encoded_bytes().escape_ascii()
                    )
                }
                CharDevice => format!("char {rights} {name} {device:?}"),
                BlockDevice => format!("block {rights} {name} {device:?}"),
                Fifo => format!("pipe {rights} {name}"),
                Socket => format!("socket {name}"),
            };
            lines.push(format!("{line} {attributes}").trim_end().to_owned());
            if entry.kind == Directory {
                todo.push(path);
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn odd_archives_become_exactly_these_trees_on_every_back_end() {
    if !crate::is_root("odd_archives_become_exactly_these_trees_on_every_back_end") {
        return;
    }
    let cases = odd();
    let (kept, refused) = (cases.len(), refused().len());
    eprintln!("{refused} archives are refused, {kept} are odd and kept");
    assert!(kept + refused >= 200);
    let mut wrong = Vec::new();
    for place in &Place::each() {
        let back_end = place.back_end();
        for (name, stream, tree) in &cases {
            let layer = match place.unpack(stream) {
                Ok(layer) => layer,
                Err(error) => {
                    wrong.push(format!("{name} on {back_end}: {}", chain(&error)));
                    continue;
                }
            };
            let wanted: Vec<String> = tree
                .lines()
                .map(|line| line.trim().to_owned())
                .filter(|line| !line.is_empty())
                .collect();
            let found = shown(&layer);
            if found != wanted {
                wrong.push(format!("{name} on {back_end}:\n{}", found.join("\n")));
            }
            assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), [], "{name}");
            // What comes back has the diff id that it is stored under.
            let mut tar = Vec::new();
            std::io::Read::read_to_end(&mut layer.tar().unwrap(), &mut tar).unwrap();
            assert_eq!(DiffId(Digest::of(&tar)), layer.diff_id(), "{name}");
            place.assert_clean(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Names a file with what [`indexes`] gave to another user.
pub(crate) const INDEXES: &str = "DHOW_TEST_INDEXES";

/// What is in the index of each odd archive, whose tar comes back byte for byte.
pub(crate) fn indexes(place: &Place) -> String {
    let mut text = String::new();
    for (name, stream, _) in odd() {
        let layer = place
            .unpack(&stream)
            .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), [], "{name}");
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut layer.tar().unwrap(), &mut tar).unwrap();
        assert_eq!(DiffId(Digest::of(&tar)), layer.diff_id(), "{name}");
        place.assert_clean(name);
        let entries: Vec<_> = layer.index().unwrap().entries().collect();
        text.push_str(&format!("{name}: {entries:?}\n"));
    }
    text
}

#[test]
fn odd_archives_have_the_same_index_on_every_back_end_and_for_everybody() {
    let places = Place::each();
    let first = indexes(&places[0]);
    for place in &places[1..] {
        assert_eq!(indexes(place), first);
    }
    if let Some(path) = std::env::var_os(INDEXES) {
        assert_eq!(first, std::fs::read_to_string(path).unwrap());
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", cause.unwrap_or_default())
}

fn fs(layer: &Layer, path: &str) -> std::path::PathBuf {
    layer.fs().join(path)
}

#[test]
fn absolute_names_are_taken_relative_to_the_root() {
    let place = Place::new();
    let tar = make()
        .file("/etc/x", b"1")
        .file("//y", b"2")
        .dir("/a/./b//")
        .file("/../z", b"3")
        .end();
    let layer = place.unpack(&tar).unwrap();
    for (path, content) in [("etc/x", "1"), ("y", "2"), ("z", "3")] {
        assert_eq!(std::fs::read_to_string(fs(&layer, path)).unwrap(), content);
    }
    assert!(fs(&layer, "a/b").is_dir());
    place.assert_clean("absolute names");
}

#[test]
fn files_behind_absolute_and_climbing_links_stay_inside() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    let tar = make()
        .symlink("abs", outside.to_str().unwrap())
        .file("abs/secret", b"overwritten?")
        .symlink("up", "../../../../../outside")
        .file("up/secret", b"overwritten?")
        .symlink("dots", "..")
        .file("dots/here", b"in the root")
        .end();
    let layer = place.unpack(&tar).unwrap();
    place.assert_clean("links");
    let inner = outside.strip_prefix("/").unwrap().join("secret");
    assert_eq!(std::fs::read(layer.fs().join(inner)).unwrap(), b"overwritten?");
    assert_eq!(
        std::fs::read(fs(&layer, "outside/secret")).unwrap(),
        b"overwritten?"
    );
    assert_eq!(std::fs::read(fs(&layer, "here")).unwrap(), b"in the root");
    let index = layer.index().unwrap();
    assert!(
        index.find(b"outside/secret").is_some(),
        "the index has the real path"
    );
    assert!(index.find(b"up/secret").is_none());
    assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), []);
}

#[test]
fn a_link_that_a_file_replaces_is_not_written_through() {
    let place = Place::new();
    let secret = place.dir.path().join("outside/secret");
    let tar = make()
        .symlink("f", secret.to_str().unwrap())
        .file("f", b"mine")
        .symlink("d", place.dir.path().join("outside").to_str().unwrap())
        .header(&with("d", b'5', |h| h.mode = 0o6777))
        .end();
    let layer = place.unpack(&tar).unwrap();
    place.assert_clean("replaced links");
    assert_eq!(std::fs::read(fs(&layer, "f")).unwrap(), b"mine");
    assert!(fs(&layer, "d").symlink_metadata().unwrap().is_dir());
}

#[test]
fn set_user_id_bits_through_a_link_do_not_reach_what_it_leads_to() {
    let place = Place::new();
    let secret = place.dir.path().join("outside/secret");
    let tar = make()
        .header(&with("l", b'2', |h| {
            h.link = secret.to_str().unwrap().as_bytes().to_vec();
            h.mode = 0o6777;
        }))
        .hard_link("m", "l")
        .end();
    let layer = place.unpack(&tar).unwrap();
    place.assert_clean("mode of links");
    assert!(
        fs(&layer, "m")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_symlink()
    );
}

#[test]
fn a_device_zero_zero_is_a_whiteout() {
    if !crate::is_root("a_device_zero_zero_is_a_whiteout") {
        return;
    }
    let place = Place::new();
    let layer = place.unpack(&make().header(&header("gone", b'3')).end()).unwrap();
    let entry = layer.index().unwrap().find(b"gone").unwrap();
    assert_eq!(entry.kind, dhow_layer::EntryKind::Whiteout);
}

#[test]
fn devices_and_pipes_are_made_as_they_are_told() {
    if !crate::is_root("devices_and_pipes_are_made_as_they_are_told") {
        return;
    }
    let place = Place::new();
    let tar = make()
        .header(&with("null", b'3', |h| (h.device, h.mode) = ((1, 3), 0o666)))
        .header(&with("disk", b'4', |h| h.device = (8, 1)))
        .header(&with("pipe", b'6', |h| h.mode = 0o600))
        .end();
    let layer = place.unpack(&tar).unwrap();
    let null = fs(&layer, "null").symlink_metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(
        (null.rdev(), null.permissions().mode() & 0o7777),
        (rustix::fs::makedev(1, 3), 0o666)
    );
    assert!(
        fs(&layer, "disk")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_block_device()
    );
    assert!(
        fs(&layer, "pipe")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), []);
}

#[test]
fn a_wrong_diff_id_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let expected = Some(DiffId(Digest::of(b"something else")));
    let how = Unpack {
        expected,
        ..Unpack::default()
    };
    let error = place
        .store
        .unpack(make().file("a", b"x").end().as_slice(), &how)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert_eq!(place.store.list().unwrap(), []);
    place.assert_clean("wrong diff id");
}

#[test]
fn a_decompression_bomb_is_stopped_early() {
    let place = Place::new();
    let zeros = with("zeros", b'0', |h| h.size = 64 << 20);
    let bomb = make().header(&zeros).body(&vec![0; 64 << 20]).end();
    let limits = Limits {
        ratio: 100,
        ratio_free: 8 << 20,
        ..Limits::default()
    };
    for (name, stream) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        let how = Unpack {
            limits: limits.clone(),
            ..Unpack::default()
        };
        let error = place.store.unpack(stream.as_slice(), &how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{name}");
        place.assert_clean(name);
    }
}

/// Says how much of a stream was asked for.
struct Asked<'a>(&'a [u8], &'a std::sync::atomic::AtomicUsize);

impl std::io::Read for Asked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = std::io::Read::read(&mut self.0, buf)?;
        self.1.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Ok(count)
    }
}

#[test]
fn a_bomb_of_known_size_is_stopped_long_before_its_end() {
    let place = Place::new();
    let zeros = with("zeros", b'0', |h| h.size = 256 << 20);
    // Deflate makes 1 byte of some 1000 zeros.
    let bomb = gzip(&make().header(&zeros).body(&vec![0; 256 << 20]).end());
    let limits = Limits {
        ratio_free_sized: 16 << 20,
        ..Limits::default()
    };
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let how = |size| Unpack {
        size,
        limits: limits.clone(),
        ..Unpack::default()
    };
    let size = Some(bomb.len() as u64);
    let error = place.store.unpack(Asked(&bomb, &asked), &how(size)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("decompression bomb"), "{why}");
    // A fifth of it is a ratio of 200 of the whole; input is read some way ahead.
    assert!(asked.into_inner() < bomb.len() / 2 + (128 << 10));
    place.assert_clean("bomb of known size");
}

#[test]
fn an_honest_layer_of_zeros_is_no_bomb() {
    let place = Place::new();
    let limits = Limits {
        ratio_free: 160 << 20,
        ratio_free_sized: 16 << 20,
        ..Limits::default()
    };
    // Zeros come first, a thousand to one, and then something that does not compress: together it is 100 to 1.
    let zeros = with("zeros", b'0', |h| h.size = 128 << 20);
    let mut seed = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    let mixed = gzip(
        &make()
            .header(&zeros)
            .body(&vec![0; 128 << 20])
            .file("noise", &noise)
            .end(),
    );
    // And 64 MiB of nothing but zeros, with the limits that everybody has.
    let pure = gzip(
        &make()
            .header(&with("z", b'0', |h| h.size = 64 << 20))
            .body(&vec![0; 64 << 20])
            .end(),
    );
    assert!(pure.len() < (64 << 20) / 900, "{}", pure.len());
    for (name, stream, limits) in [("mixed", &mixed, limits), ("pure", &pure, Limits::default())] {
        let how = Unpack {
            size: Some(stream.len() as u64),
            limits,
            ..Unpack::default()
        };
        let made = place.store.unpack(stream.as_slice(), &how).unwrap();
        assert!(made.fresh, "{name}");
        assert!(
            !place.store.unpack(stream.as_slice(), &how).unwrap().fresh,
            "{name}"
        );
    }
}

#[test]
fn every_limit_holds() {
    let place = Place::new();
    let tar = make().file("a", &[1; 3000]).file("b/c", &[2; 3000]).end();
    let base = Limits::default();
    for (name, limits) in [
        (
            "entries",
            Limits {
                entries: 1,
                ..base.clone()
            },
        ),
        (
            "total",
            Limits {
                total: 5000,
                ..base.clone()
            },
        ),
        (
            "archive",
            Limits {
                archive: 5000,
                ..base.clone()
            },
        ),
    ] {
        let how = Unpack {
            limits,
            ..Unpack::default()
        };
        let error = place.store.unpack(tar.as_slice(), &how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{name}");
        place.assert_clean(name);
    }
}

#[test]
fn the_maps_of_all_sparse_files_have_a_bound_together() {
    let place = Place::new();
    let sparse = |name: &str| {
        let mut block = header(name, b'S').bytes();
        block[257..265].copy_from_slice(b"ustar  \0");
        for (field, value) in [
            (386..398, 4096),
            (398..410, 512),
            (483..495, 8192),
            (124..136, 512),
        ] {
            octal(&mut block[field], value);
        }
        seal(&mut block);
        block
    };
    let two = make()
        .raw(&sparse("a"))
        .raw(&[1; 512])
        .raw(&sparse("b"))
        .raw(&[2; 512]);
    let two = two.end();
    let unpack = |pieces: u64| {
        let limits = Limits {
            pieces,
            ..Limits::default()
        };
        let how = Unpack {
            limits,
            ..Unpack::default()
        };
        place.store.unpack(two.as_slice(), &how)
    };
    let error = unpack(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{}", chain(&error));
    assert!(
        chain(&error).contains("pieces of sparse files"),
        "{}",
        chain(&error)
    );
    place.assert_clean("pieces");
    assert!(unpack(2).unwrap().fresh);
}

#[test]
fn a_reader_that_fails_leaves_nothing_and_keeps_its_reason() {
    struct Broken(usize);
    impl std::io::Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::ConnectionReset,
                    "the peer hung up",
                ));
            }
            let block = header("a", b'5').bytes();
            let count = buf.len().min(512);
            buf[..count].copy_from_slice(&block[..count]);
            Ok(count)
        }
    }
    let place = Place::new();
    let error = place.store.unpack(Broken(0), &Unpack::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert!(chain(&error).contains("hung up"));
    place.assert_clean("broken reader");
}

#[test]
fn a_reader_that_panics_leaves_nothing() {
    struct Panics;
    impl std::io::Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            std::panic::resume_unwind(Box::new("as told"))
        }
    }
    let place = Place::new();
    let store = place.store.clone();
    let outcome = std::panic::catch_unwind(move || store.unpack(Panics, &Unpack::default()).map(drop));
    assert!(outcome.is_err());
    place.assert_clean("panic");
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn flipped_bytes_never_panic_nor_leave_the_store(
            flips in prop::collection::vec((0_usize..6000, any::<u8>()), 1..6),
        ) {
            let place = Place::new();
            let mut tar = make()
                .dir("d")
                .file("d/f", b"content")
                .symlink("l", "d")
                .pax(&[("path", b"l/long"), ("SCHILY.xattr.user.a", b"v")])
                .file("x", b"y")
                .hard_link("h", "d/f")
                .file("d/.wh.gone", b"")
                .file(".wh..wh..opq", b"")
                .end();
            for (at, value) in flips {
                let at = at % tar.len();
                tar[at] = value;
                // Keep the header worth reading: with a wrong checksum all cases would be one.
                let block = at / 512 * 512;
                if let Some(header) = tar.get_mut(block..block + 512)
                    && &header[257..262] == b"ustar"
                {
                    let mut sealed: [u8; 512] = header.try_into().unwrap();
                    seal(&mut sealed);
                    header.copy_from_slice(&sealed);
                }
            }
            if let Ok(layer) = place.unpack(&tar) {
                prop_assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), []);
                let mut again = Vec::new();
                std::io::Read::read_to_end(&mut layer.tar().unwrap(), &mut again).unwrap();
                prop_assert!(again == tar);
            }
            place.assert_clean("flipped bytes");
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
            let place = Place::new();
            drop(place.unpack(&noise));
            place.assert_clean("noise");
        }
    }
}
