use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::{Entry, EntryKind, Limits};

fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, body) in entries {
        writer.append(entry, body.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(tar);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        entries.push((entry, body));
    }
    entries
}

fn with(path: &[u8], kind: EntryKind, change: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = Entry::new(path, kind, 0o644);
    change(&mut entry);
    entry
}

#[test]
fn extreme_entries_come_back() {
    let long = b"d/".repeat(120).strip_suffix(b"/").unwrap().to_vec();
    let entries = vec![
        (with(&long, EntryKind::Directory, |_| ()), vec![]),
        (
            with(b"new\nline=\xff\xfe", EntryKind::File, |e| e.size = 3),
            b"abc".to_vec(),
        ),
        (with(b"times", EntryKind::File, |e| e.mtime = -5), vec![]),
        (with(b"later", EntryKind::File, |e| e.mtime = 1 << 40), vec![]),
        (
            with(b"ids", EntryKind::Fifo, |e| {
                (e.uid, e.gid) = (u32::MAX, 3_000_000)
            }),
            vec![],
        ),
        (
            with(b"link", EntryKind::Symlink, |e| e.link = vec![b'x'; 3000]),
            vec![],
        ),
        (
            with(b"hard", EntryKind::Hardlink, |e| e.link.clone_from(&long)),
            vec![],
        ),
        (
            with(b"dev", EntryKind::BlockDevice, |e| {
                (e.major, e.minor) = (259, 1_048_575)
            }),
            vec![],
        ),
        (
            with(b"attr", EntryKind::File, |e| {
                e.xattrs = vec![(b"user.a".to_vec(), b"1\n2=\0".to_vec())]
            }),
            vec![],
        ),
    ];
    assert_eq!(read(&written(&entries)), entries);
}

#[test]
fn the_tar_crate_reads_what_the_writer_writes() {
    let entries = vec![
        (
            with(&[b'n'; 300], EntryKind::File, |e| e.size = 5),
            b"hello".to_vec(),
        ),
        (
            with(b"dir", EntryKind::Directory, |e| {
                (e.mode, e.uid) = (0o1777, 9_999_999)
            }),
            vec![],
        ),
        (
            with(b"l", EntryKind::Symlink, |e| e.link = b"../x".to_vec()),
            vec![],
        ),
    ];
    let tar = written(&entries);
    let mut archive = tar::Archive::new(tar.as_slice());
    let theirs: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            let path = entry.path_bytes().into_owned();
            (
                path,
                entry.header().mode().unwrap(),
                entry.link_name_bytes().map(|link| link.into_owned()),
                body,
            )
        })
        .collect();
    assert_eq!(theirs[0], (vec![b'n'; 300], 0o644, None, b"hello".to_vec()));
    assert_eq!(theirs[1], (b"dir/".to_vec(), 0o1777, None, vec![]));
    assert_eq!(theirs[2], (b"l".to_vec(), 0o644, Some(b"../x".to_vec()), vec![]));
}

#[test]
fn the_canonical_form_never_changes() {
    // Stored layers depend on these bytes: another result here means that their diff ids could not be made again.
    let entries = vec![
        (
            with(b"etc", EntryKind::Directory, |e| {
                (e.mode, e.mtime) = (0o755, 1_700_000_000)
            }),
            vec![],
        ),
        (with(b"etc/gone", EntryKind::Whiteout, |e| e.mode = 0), vec![]),
        (
            with(&[b'p'; 150], EntryKind::File, |e| {
                (e.size, e.uid, e.mtime) = (3, 5_000_000, -1)
            }),
            b"abc".to_vec(),
        ),
        (
            with(b"x", EntryKind::File, |e| {
                e.xattrs = vec![(b"user.k".to_vec(), b"v".to_vec())]
            }),
            vec![],
        ),
        (with(b"z", EntryKind::Directory, |e| e.opaque = true), vec![]),
    ];
    let digest = dhow_types::Digest::of(&written(&entries));
    assert_eq!(
        digest.to_string(),
        "sha256:0eb9a34afefe7485781a6587a670fa85116eecb67660a39503f150e26bd07c04"
    );
}

#[test]
fn a_body_that_is_too_short_is_refused() {
    let mut writer = Writer::new(Vec::new());
    let entry = with(b"f", EntryKind::File, |e| e.size = 10);
    let error = writer.append(&entry, &b"short"[..]).unwrap_err();
    assert_eq!(error.kind(), dhow_types::ErrorKind::DataLoss);
}

#[test]
fn bodies_are_bounded_when_asked_for_as_a_whole() {
    let tar = written(&[(with(b"f", EntryKind::File, |e| e.size = 100), vec![1; 100])]);
    let mut reader = Reader::new(tar.as_slice());
    reader.next_entry().unwrap();
    assert_eq!(
        reader.body(99).unwrap_err().kind(),
        dhow_types::ErrorKind::ResourceExhausted
    );
    assert_eq!(reader.body(100).unwrap(), vec![1; 100]);
}

#[test]
fn numbers_of_every_dialect_are_read() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"644     ", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"644\0junk", Some(0o644)),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
        (b"\xff\xff\xff\xff\xff\xff\xff\x00", Some(-256)),
        (b"9999999\0", None),
        (b"-644\0\0\0\0", None),
        (b"64 4\0\0\0\0", None),
    ] {
        assert_eq!(header::number(field), value, "{field:?}");
    }
    assert_eq!(
        header::number(&[
            0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
        ]),
        None
    );
}

#[test]
fn names_are_cleaned_as_docker_does() {
    let limits = Limits::default();
    for (raw, clean_name) in [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("/a/../b", "b"),
        ("/../../a", "a"),
        ("a/./b/..", "a"),
        ("./", ""),
        ("/", ""),
        ("a/..", ""),
    ] {
        assert_eq!(
            clean(raw.as_bytes(), &limits).unwrap(),
            clean_name.as_bytes(),
            "{raw}"
        );
    }
    for raw in ["..", "../a", "a/../..", "a/../../b", "./.."] {
        assert!(clean(raw.as_bytes(), &limits).is_err(), "{raw}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        path in "[a-zA-Z0-9._/ -]{1,300}",
        kind in prop::sample::select(vec![EntryKind::File, EntryKind::Directory, EntryKind::Symlink, EntryKind::Fifo]),
        numbers in (0_u32..0o10000, any::<u32>(), any::<u32>(), any::<i32>()),
        link in "[a-z/.]{1,200}",
        xattrs in prop::collection::btree_map("user\\.[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..50), 0..3),
        body in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let Ok(path) = clean(path.as_bytes(), &Limits::default()) else { return Ok(()) };
        prop_assume!(!path.is_empty());
        let mut entry = Entry::new(path, kind, numbers.0);
        (entry.uid, entry.gid, entry.mtime) = (numbers.1, numbers.2, i64::from(numbers.3));
        entry.xattrs = xattrs.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect();
        let body = if kind == EntryKind::File { body } else { Vec::new() };
        entry.size = body.len() as u64;
        if kind == EntryKind::Symlink {
            entry.link = link.into_bytes();
        }
        let entries = vec![(entry, body)];
        prop_assert_eq!(read(&written(&entries)), entries);
    }

    #[test]
    fn readers_never_panic(noise in prop::collection::vec(any::<u8>(), 0..4000), cut in 0_usize..4000) {
        let mut reader = Reader::new(noise.as_slice());
        while let Ok(Some(_)) = reader.next_entry() {}
        let mut tar = written(&[(with(b"a", EntryKind::File, |e| e.size = 700), vec![1; 700])]);
        for (at, byte) in noise.iter().enumerate().take(20) {
            let at = (usize::from(*byte) * 31 + at * 7) % tar.len();
            tar[at] ^= byte;
        }
        tar.truncate(cut.max(1));
        let mut reader = Reader::new(tar.as_slice());
        let mut sink = Vec::new();
        while let Ok(Some(_)) = reader.next_entry() {
            if std::io::Read::by_ref(&mut reader).take(1 << 20).read_to_end(&mut sink).is_err() {
                break;
            }
        }
    }
}
