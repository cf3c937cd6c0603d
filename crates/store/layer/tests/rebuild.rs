//! The exact tar comes back, whoever packed it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use dhow_layer::tar::Writer;
use dhow_layer::{Compression, Entry, EntryKind, Layer};
use dhow_types::Digest;

use crate::Place;
use crate::maker::Maker;

fn tar_of(layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    layer.tar().unwrap().read_to_end(&mut tar).unwrap();
    tar
}

fn assert_comes_back(place: &Place, what: &str, tar: &[u8]) -> Layer {
    let layer = place
        .unpack(tar)
        .unwrap_or_else(|error| panic!("{what}: {error}: {:?}", std::error::Error::source(&error)));
    assert!(tar_of(&layer) == tar, "{what}: another tar came back");
    assert_eq!(layer.diff_id().0, Digest::of(tar), "{what}");
    assert_eq!(layer.tar_size(), tar.len() as u64, "{what}");
    assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), [], "{what}");
    place.assert_clean(what);
    layer
}

/// A tree with what tars are made of.
fn tree(dir: &std::path::Path) {
    use std::os::unix::fs::symlink;
    std::fs::create_dir_all(dir.join("usr/lib/deep/er")).unwrap();
    std::fs::write(dir.join("usr/lib/file"), b"content").unwrap();
    std::fs::write(dir.join("usr/lib/empty"), b"").unwrap();
    std::fs::write(dir.join("usr/lib/deep/er/big"), vec![7; 700_001]).unwrap();
    std::fs::write(dir.join("n".repeat(200)), b"long name").unwrap();
    std::fs::write(dir.join("ünïcode"), b"u").unwrap();
    symlink("usr/lib", dir.join("lib")).unwrap();
    symlink("x".repeat(180), dir.join("long-link")).unwrap();
    std::fs::hard_link(dir.join("usr/lib/file"), dir.join("usr/other")).unwrap();
    let holes = std::fs::File::create(dir.join("holes")).unwrap();
    holes.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"island", 3 << 20).unwrap();
}

#[test]
fn tars_of_gnu_tar_come_back_in_every_format() {
    let places = Place::each();
    let source = tempfile::tempdir().unwrap();
    tree(source.path());
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=oldgnu", "--blocking-factor=1"],
        &["--format=gnu", "--numeric-owner", "--blocking-factor=100"],
    ] {
        let made = Command::new("tar")
            .args(options)
            .arg("-cf-")
            .arg("-C")
            .arg(source.path())
            .arg(".")
            .output();
        let made = match made {
            Ok(made) if made.status.success() => made.stdout,
            _ => {
                eprintln!("skipped {options:?}: this tar cannot");
                continue;
            }
        };
        for place in &places {
            let layer = assert_comes_back(place, &format!("{options:?}"), &made);
            let tree = layer.open().unwrap();
            let read = |path: &str| tree.read(Path::new(path), 6 << 20).unwrap();
            assert!(
                read("holes") == std::fs::read(source.path().join("holes")).unwrap(),
                "{options:?}: other holes"
            );
            assert_eq!(read("usr/other"), b"content");
        }
    }
}

#[test]
fn tars_of_the_tar_crate_come_back() {
    let place = Place::new();
    let source = tempfile::tempdir().unwrap();
    tree(source.path());
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("root", source.path()).unwrap();
    assert_comes_back(&place, "the tar crate", &builder.into_inner().unwrap());
}

#[test]
fn tars_with_odd_ends_and_repetitions_come_back() {
    let place = Place::new();
    let make = Maker::new;
    let odd = |tail: &[u8]| [make().file("a", b"x").0, tail.to_vec()].concat();
    let twice = make()
        .dir("d")
        .file("d/f", &[1; 2000])
        .hard_link("d/g", "d/f")
        .file("d/f", &[2; 3000])
        .hard_link("d/f2", "d/g")
        .file("d", b"now a file")
        .dir("d")
        .file("d/f", b"at last")
        .end();
    for (what, tar) in [
        ("no end marker", odd(b"")),
        ("one zero block", odd(&[0; 512])),
        ("much padding", odd(&[0; 20_480])),
        (
            "something after the end",
            [odd(&[0; 1024]), b"appended by a strange packer".to_vec()].concat(),
        ),
        ("nothing", Vec::new()),
        ("only the end", vec![0; 1024]),
        ("entries that replace each other", twice),
        (
            "entries of AUFS",
            make()
                .dir(".wh..wh.plnk")
                .file(".wh..wh.plnk/1.2", b"kept by aufs")
                .end(),
        ),
        ("a body in a whiteout", make().file("a/.wh.b", b"odd").end()),
        (
            "a global header",
            make()
                .extended(b'g', b"19 comment=by git\n")
                .file("a", b"x")
                .end(),
        ),
        ("a root entry", make().dir("./").file("./a", b"x").end()),
        ("a directory with a size", {
            let mut h = crate::maker::header("d", b'5');
            h.size = 4096;
            make().header(&h).file("a", b"x").end()
        }),
    ] {
        assert_comes_back(&place, what, &tar);
    }
}

#[test]
fn what_replaces_itself_ends_as_the_last_entry_says() {
    let place = Place::new();
    let tar = Maker::new()
        .file("f", b"first")
        .hard_link("g", "f")
        .file("f", b"second")
        .file("d", b"a file")
        .dir("d")
        .file("d/x", b"x")
        .symlink("d", "f")
        .end();
    let layer = assert_comes_back(&place, "replacements", &tar);
    assert_eq!(std::fs::read(layer.fs().join("f")).unwrap(), b"second");
    assert_eq!(std::fs::read(layer.fs().join("g")).unwrap(), b"first");
    let index = layer.index().unwrap();
    let paths: Vec<_> = index.entries().map(|entry| (entry.path, entry.kind)).collect();
    assert_eq!(
        paths,
        [
            (b"d".to_vec(), EntryKind::Symlink),
            (b"f".to_vec(), EntryKind::File),
            (b"g".to_vec(), EntryKind::File),
        ]
    );
    assert_eq!(
        index.find(b"g").unwrap().content,
        Some(dhow_layer::ContentHasher::of(b"first"))
    );
}

#[test]
fn every_compression_unpacks_to_the_same_layer() {
    let place = Place::new();
    let tar = Maker::new().file("a", &[5; 300_000]).dir("d").end();
    let plain = place.unpack(&tar).unwrap().diff_id();
    let gzip = compressed(&tar, Compression::Gzip);
    let zstd = compressed(&tar, Compression::Zstd);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let (first, second) = tar.split_at(1000);
    let members = [
        compressed(first, Compression::Gzip),
        compressed(second, Compression::Gzip),
    ]
    .concat();
    let padded = [gzip.clone(), vec![0; 512]].concat();
    let frames = [
        b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(),
        compressed(first, Compression::Zstd),
        compressed(second, Compression::Zstd),
    ]
    .concat();
    for (what, stream, compression) in [
        ("gzip", gzip, Compression::Gzip),
        ("gzip of two members", members, Compression::Gzip),
        ("gzip with padding", padded, Compression::Gzip),
        ("zstd", zstd, Compression::Zstd),
        ("zstd frames", frames, Compression::Zstd),
        ("bzip2", bzip2.finish().unwrap(), Compression::Bzip2),
        ("xz", xz.finish().unwrap(), Compression::Xz),
    ] {
        let unpacked = place
            .store
            .unpack(stream.as_slice(), &dhow_layer::Unpack::default())
            .unwrap();
        assert_eq!(
            (unpacked.layer.diff_id(), unpacked.compression),
            (plain, compression),
            "{what}"
        );
    }
}

fn compressed(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    let written = dhow_layer::compress(bytes, &mut out, compression).unwrap();
    assert_eq!(written, out.len() as u64);
    out
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Entries with names from a small set, so that they meet and replace each other.
    fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
        let name = prop::sample::select(vec![
            "a",
            "b",
            "c",
            "a/b",
            "a/c",
            "b/a",
            "b/c/d",
            "a/.wh.b",
            "b/.wh..wh..opq",
        ]);
        let kind = prop::sample::select(vec![
            EntryKind::File,
            EntryKind::Directory,
            EntryKind::Symlink,
            EntryKind::Hardlink,
            EntryKind::Fifo,
        ]);
        let one = (
            name,
            kind,
            prop::collection::vec(any::<u8>(), 0..2000),
            0_u32..0o10000,
            any::<i32>(),
            "[abc./]{1,4}",
        );
        let one = one.prop_map(|(name, kind, content, mode, mtime, link)| {
            let mut entry = Entry::new(name.as_bytes(), kind, crate::readable(mode));
            entry.mtime = i64::from(mtime);
            match kind {
                EntryKind::File => entry.size = content.len() as u64,
                EntryKind::Symlink | EntryKind::Hardlink => entry.link = link.into_bytes(),
                _ => (),
            }
            (entry, content)
        });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_unpacks_comes_back_and_verifies(entries in entries()) {
            let place = Place::new();
            let mut writer = Writer::new(Vec::new());
            for (entry, content) in &entries {
                writer.append(entry, content.as_slice()).unwrap();
            }
            let tar = writer.finish().unwrap();
            if let Ok(layer) = place.unpack(&tar) {
                let shown: Vec<_> = entries
                    .iter()
                    .map(|(entry, _)| (entry.kind, text(&entry.path), text(&entry.link)))
                    .collect();
                prop_assert!(tar_of(&layer) == tar, "{:?}", shown);
                prop_assert_eq!(place.store.verify(&layer.diff_id()).unwrap(), [], "{:?}", shown);
            }
            place.assert_clean("arbitrary");
        }
    }
}
