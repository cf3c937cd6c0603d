//! Archives that nobody should have made: each gives its error, or is kept harmless, and leaves nothing.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use dhow_layer::{Layer, Limits, Unpack};
use dhow_types::{DiffId, Digest, ErrorKind};

use crate::Place;
use crate::maker::{Header, Maker, header, octal, record, seal};

fn make() -> Maker {
    Maker::new()
}

fn with(name: &str, flag: u8, change: impl FnOnce(&mut Header)) -> Header {
    let mut made = header(name, flag);
    change(&mut made);
    made
}

/// Cases that must fail, with the kind of the failure.
#[expect(clippy::too_many_lines, reason = "a table")]
fn refused() -> Vec<(&'static str, Vec<u8>, ErrorKind)> {
    use ErrorKind::{DataLoss, InvalidArgument, ResourceExhausted, Unsupported};
    let long = "x".repeat(300);
    let deep = "d/".repeat(3000);
    let mut bad_sum = header("a", b'0').bytes();
    bad_sum[0] = b'b';
    let mut negative_size = header("a", b'0').bytes();
    negative_size[124..136].copy_from_slice(&[0xff; 12]);
    seal(&mut negative_size);
    let mut huge_size = header("a", b'0').bytes();
    huge_size[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut huge_size);
    let mut no_number = header("a", b'0').bytes();
    no_number[124..130].copy_from_slice(b"zzzzzz");
    seal(&mut no_number);
    let mut big_uid = header("a", b'0').bytes();
    big_uid[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    seal(&mut big_uid);
    let mut sparse = header("s", b'S').bytes();
    sparse[257..265].copy_from_slice(b"ustar  \0");
    let sparse_with = |offset: u64, length: u64, real: u64| {
        let mut block = sparse;
        octal(&mut block[386..398], offset);
        octal(&mut block[398..410], length);
        octal(&mut block[483..495], real);
        octal(&mut block[124..136], length);
        seal(&mut block);
        block
    };
    let terabyte = {
        let mut block = sparse_with(0, 512, 0);
        block[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        seal(&mut block);
        block
    };
    vec![
        (
            "a relative name out of the root",
            make().file("../evil", b"x").end(),
            InvalidArgument,
        ),
        (
            "a name out of the root after a way in",
            make().file("a/../../evil", b"x").end(),
            InvalidArgument,
        ),
        (
            "a directory out of the root",
            make().dir("../../evil").end(),
            InvalidArgument,
        ),
        (
            "a PAX name out of the root",
            make().pax(&[("path", b"../evil")]).file("a", b"x").end(),
            InvalidArgument,
        ),
        (
            "a GNU long name out of the root",
            make().extended(b'L', b"../evil\0").file("a", b"x").end(),
            InvalidArgument,
        ),
        (
            "a whiteout of ..",
            make().file(".wh...", b"").end(),
            InvalidArgument,
        ),
        (
            "a whiteout of .",
            make().file(".wh..", b"").end(),
            InvalidArgument,
        ),
        (
            "a whiteout of nothing",
            make().file("a/.wh.", b"").end(),
            InvalidArgument,
        ),
        (
            "a whiteout of a whiteout",
            make().file(".wh..wh.x/.wh.y", b"").file("a/.wh..wh.b", b"").end(),
            InvalidArgument,
        ),
        (
            "a directory with a whiteout name",
            make().file("a/.wh.b/c", b"").end(),
            InvalidArgument,
        ),
        (
            "a hard link out of the root",
            make().hard_link("a", "../../outside/secret").end(),
            InvalidArgument,
        ),
        (
            "a hard link to an absolute name that is not there",
            make().hard_link("a", "/etc/passwd").end(),
            Unsupported,
        ),
        (
            "a hard link to a file of a lower layer",
            make().hard_link("a", "b").end(),
            Unsupported,
        ),
        (
            "a hard link to the root",
            make().hard_link("a", "/").end(),
            InvalidArgument,
        ),
        (
            "a hard link to itself",
            make().file("a", b"x").hard_link("a", "a").end(),
            InvalidArgument,
        ),
        (
            "a hard link to a directory",
            make().dir("d").hard_link("a", "d").end(),
            InvalidArgument,
        ),
        (
            "a hard link to a whiteout",
            make().file(".wh.w", b"").hard_link("a", "w").end(),
            InvalidArgument,
        ),
        (
            "a hard link through a link out of the root",
            make()
                .symlink("l", "/../../outside")
                .hard_link("a", "l/secret")
                .end(),
            Unsupported,
        ),
        (
            "a hard link to a device in the middle",
            make().file("f", b"x").hard_link("a", "f/../../../x").end(),
            InvalidArgument,
        ),
        (
            "the root as a file",
            make().file("./", b"x").end(),
            InvalidArgument,
        ),
        (
            "the root as a link",
            make().symlink(".", "/etc").end(),
            InvalidArgument,
        ),
        (
            "a file as a directory",
            make().file("f", b"x").file("f/g", b"y").end(),
            InvalidArgument,
        ),
        (
            "a loop of links as a directory",
            make().symlink("a", "b").symlink("b", "a").file("a/x", b"").end(),
            InvalidArgument,
        ),
        (
            "a component that is too long",
            make().pax(&[("path", long.as_bytes())]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a path that is too long",
            make().pax(&[("path", deep.as_bytes())]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a zero byte in a PAX name",
            make().pax(&[("path", b"a\0b")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a symbolic link to nothing",
            make().symlink("a", "").end(),
            InvalidArgument,
        ),
        (
            "a symbolic link whose target is too long",
            make()
                .pax(&[("linkpath", deep.as_bytes())])
                .symlink("a", "b")
                .end(),
            InvalidArgument,
        ),
        ("a wrong checksum", make().raw(&bad_sum).end(), InvalidArgument),
        (
            "no tar at all",
            b"this is not a tar archive, but it is long enough".repeat(20),
            InvalidArgument,
        ),
        (
            "a single zero block in the middle",
            make().file("a", b"").raw(&[0; 512]).file("b", b"").end(),
            InvalidArgument,
        ),
        (
            "a negative size",
            make().raw(&negative_size).end(),
            InvalidArgument,
        ),
        (
            "a size of eight exabytes",
            make().raw(&huge_size).end(),
            ResourceExhausted,
        ),
        (
            "a size that is no number",
            make().raw(&no_number).end(),
            InvalidArgument,
        ),
        (
            "a user id beyond 32 bits",
            make().raw(&big_uid).end(),
            InvalidArgument,
        ),
        (
            "an unknown type",
            make().header(&header("a", b'Q')).end(),
            Unsupported,
        ),
        (
            "a part of a multi-volume archive",
            make().header(&header("a", b'M')).end(),
            Unsupported,
        ),
        (
            "an end inside a header",
            make().file("a", b"x").raw(&[b'x'; 100]).0,
            DataLoss,
        ),
        (
            "an end inside a body",
            make()
                .header(&with("a", b'0', |h| h.size = 5000))
                .raw(&[1; 1000])
                .0,
            DataLoss,
        ),
        (
            "an end inside an extended header",
            make().header(&with("p", b'x', |h| h.size = 600)).raw(&[1; 512]).0,
            DataLoss,
        ),
        (
            "an end after an extended header",
            make().pax(&[("path", b"a")]).0,
            DataLoss,
        ),
        (
            "an extended header of a gigabyte",
            make().header(&with("p", b'x', |h| h.size = 1 << 30)).end(),
            ResourceExhausted,
        ),
        (
            "a long name of a gigabyte",
            make().header(&with("p", b'L', |h| h.size = 1 << 30)).end(),
            ResourceExhausted,
        ),
        (
            "extended headers without end",
            Maker(make().extended(b'L', b"a").0.repeat(5000)).end(),
            ResourceExhausted,
        ),
        (
            "a PAX record that is too short",
            make().extended(b'x', b"3 a\n").file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX record longer than its header",
            make().extended(b'x', b"99 path=a\n").file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX record without a line end",
            make().extended(b'x', b"8 path=a").file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX record of length zero",
            make().extended(b'x', b"0 path=a\n").file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX record without a key",
            make().extended(b'x', b"5 =a\n").file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a negative PAX size",
            make().pax(&[("size", b"-1")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX size that runs over the end",
            make().pax(&[("size", b"5000")]).file("a", b"x").end(),
            DataLoss,
        ),
        (
            "a PAX user id that is no number",
            make().pax(&[("uid", b"root")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a redirect for overlayfs",
            make()
                .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
                .dir("d")
                .end(),
            InvalidArgument,
        ),
        (
            "an opaque mark for overlayfs",
            make()
                .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")])
                .dir("d")
                .end(),
            InvalidArgument,
        ),
        (
            "another trusted attribute",
            make()
                .pax(&[("SCHILY.xattr.trusted.x", b"y")])
                .file("f", b"")
                .end(),
            InvalidArgument,
        ),
        (
            "attributes of a megabyte",
            make()
                .pax(&[("SCHILY.xattr.user.x", &[b'a'; 300_000])])
                .file("f", b"")
                .end(),
            ResourceExhausted,
        ),
        (
            "an attribute name that is too long",
            make()
                .extended(b'x', &record(&format!("SCHILY.xattr.user.{long}"), b"v"))
                .file("f", b"")
                .end(),
            InvalidArgument,
        ),
        (
            "a sparse file of a terabyte",
            make().raw(&terabyte).raw(&[1; 512]).end(),
            ResourceExhausted,
        ),
        (
            "a sparse piece beyond the end",
            make().raw(&sparse_with(100, 512, 200)).raw(&[1; 512]).end(),
            InvalidArgument,
        ),
        (
            "a sparse map that overflows",
            make()
                .raw(&sparse_with(0o77_777_777_777, 0o77_777_777_777, 10))
                .end(),
            InvalidArgument,
        ),
        (
            "a sparse PAX file without a size",
            make().pax(&[("GNU.sparse.map", b"0,1")]).file("s", b"x").end(),
            InvalidArgument,
        ),
        (
            "a sparse PAX map of odd length",
            make()
                .pax(&[("GNU.sparse.map", b"0,1,2"), ("GNU.sparse.size", b"10")])
                .file("s", b"x")
                .end(),
            InvalidArgument,
        ),
        (
            "a sparse PAX map that does not add up",
            make()
                .pax(&[("GNU.sparse.map", b"0,3"), ("GNU.sparse.size", b"10")])
                .file("s", b"x")
                .end(),
            InvalidArgument,
        ),
        (
            "a sparse PAX file of a terabyte",
            make()
                .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1099511627776")])
                .file("s", b"x")
                .end(),
            ResourceExhausted,
        ),
        (
            "a sparse map of a million pieces",
            make()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"10"),
                ])
                .file("s", &[b"1000000\n".as_slice(), &[b'1'; 600]].concat())
                .end(),
            ResourceExhausted,
        ),
        (
            "a sparse file of a version to come",
            make()
                .pax(&[("GNU.sparse.major", b"7"), ("GNU.sparse.realsize", b"10")])
                .file("s", b"x")
                .end(),
            Unsupported,
        ),
        (
            "a truncated gzip stream",
            {
                let mut gz = gzip(&make().file("a", &[7; 100_000]).end());
                gz.truncate(gz.len() - 9);
                gz
            },
            DataLoss,
        ),
        (
            "a gzip stream with a wrong checksum",
            {
                let mut gz = gzip(&make().file("a", b"x").end());
                let at = gz.len() - 6;
                gz[at] ^= 1;
                gz
            },
            DataLoss,
        ),
        (
            "garbage after a gzip stream",
            [gzip(&make().file("a", b"x").end()), b"garbage".to_vec()].concat(),
            DataLoss,
        ),
        (
            "a truncated zstd stream",
            {
                let mut z = zstd(&make().file("a", &[7; 100_000]).end());
                z.truncate(z.len() - 5);
                z
            },
            DataLoss,
        ),
        (
            "a damaged xz stream",
            b"\xfd7zXZ\0\x00\x04garbage garbage garbage garbage".to_vec(),
            DataLoss,
        ),
        (
            "a damaged bzip2 stream",
            b"BZh9garbage garbage garbage garbage garbage".to_vec(),
            DataLoss,
        ),
    ]
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
    let place = Place::new();
    let cases = refused();
    assert!(cases.len() >= 60);
    for (name, tar, kind) in cases {
        let error = place.unpack(&tar).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {}", chain(&error));
        assert_eq!(place.store.list().unwrap(), [], "{name}: a layer was published");
        place.assert_clean(name);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
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
            expected: None,
            limits: limits.clone(),
        };
        let error = place.store.unpack(stream.as_slice(), &how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{name}");
        place.assert_clean(name);
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
            expected: None,
            limits,
        };
        let error = place.store.unpack(tar.as_slice(), &how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{name}");
        place.assert_clean(name);
    }
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
