use std::io::Write as _;

use dhow_layer::tar::Writer;
use dhow_layer::{Compression, Entry, EntryKind, Extent, LayerStore, Unpack};
use dhow_types::ErrorKind;

use crate::kind::tests::{elf, go_info, zip};
use crate::{Delta, Layer, Scanner};

fn link(path: &str, kind: EntryKind, target: &str) -> Entry {
    Entry {
        link: target.into(),
        ..Entry::new(path, kind, 0o755)
    }
}

fn file(path: &str, mode: u32, content: &[u8]) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, EntryKind::File, mode);
    entry.size = content.len() as u64;
    (entry, content.to_vec())
}

fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (entry, content) in entries {
        tar.append(entry, content.as_slice()).unwrap();
    }
    tar.finish().unwrap()
}

/// A layer that says something in every way, under names that come about in every way.
fn telling() -> Vec<u8> {
    let filled = |text: &str| [text.as_bytes(), &vec![0; 20_000]].concat();
    let mut go = elf(&[(
        ".go.buildinfo",
        &go_info("go1.22.3", "dep\texample.org/a\tv1.2.3\n"),
    )]);
    go.extend(vec![0; 40_000]);
    let mut busybox = elf(&[]);
    busybox.extend(filled("\0BusyBox v1.36.1 (2024)\0"));
    let inner = zip(&[(
        "META-INF/maven/g/b/pom.properties",
        b"groupId=g\nartifactId=b\nversion=2\n",
    )]);
    let jar = zip(&[
        ("inner.jar", &inner),
        ("META-INF/MANIFEST.MF", b"Implementation-Version: 3\n\n"),
    ]);
    let status =
        |version: &str| format!("Package: curl\nStatus: install ok installed\nVersion: {version}\n\n");
    tar(&[
        file("usr/lib/os-release", 0o644, b"ID=debian\nVERSION_ID=12\n"),
        (
            link("etc/os-release", EntryKind::Hardlink, "usr/lib/os-release"),
            vec![],
        ),
        file("var/lib/dpkg/status", 0o644, status("1").as_bytes()),
        file("var/lib/dpkg/status", 0o644, status("2").as_bytes()),
        file(
            "var/lib/dpkg/info/curl.list",
            0o644,
            b"/usr/bin/curl\n/usr/bin/go\n",
        ),
        (link("lib", EntryKind::Symlink, "usr/lib"), vec![]),
        file(
            "lib/python3/a-1.dist-info/METADATA",
            0o644,
            b"Name: a\nVersion: 1\n\n",
        ),
        file("usr/bin/go", 0o755, &go),
        file("usr/local/bin/other", 0o755, &go),
        (
            link("usr/local/bin/again", EntryKind::Hardlink, "usr/local/bin/other"),
            vec![],
        ),
        file("opt/plain-text", 0o644, b"{\"name\":\"n\",\"version\":\"7\"}"),
        (
            link(
                "srv/node_modules/n/package.json",
                EntryKind::Hardlink,
                "opt/plain-text",
            ),
            vec![],
        ),
        file("bin/busybox", 0o755, &busybox),
        file("bin/script", 0o755, &filled("#!/bin/sh\n")),
        file("opt/app.jar", 0o644, &jar),
        file("opt/broken.jar", 0o644, b"no archive"),
        file("gone/METADATA", 0o644, b"a file that becomes a directory"),
        file("gone.dist-info/METADATA", 0o644, b"Name: gone\nVersion: 1\n\n"),
        (link("gone.dist-info", EntryKind::Symlink, "opt"), vec![]),
        (Entry::new("srv/.wh.deleted", EntryKind::File, 0o644), vec![]),
    ])
}

/// What is found when the layer is unpacked.
fn unpacked(stream: &[u8]) -> Delta {
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::open(dir.path()).unwrap();
    let layer = store.unpack(stream, &Unpack::default()).unwrap().layer;
    let (index, root) = (layer.index().unwrap(), layer.open().unwrap());
    let files = Layer {
        index: &index,
        root: &root,
    };
    Scanner.delta(&files).unwrap()
}

fn lying(stream: &[u8]) -> Result<Delta, crate::Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 1000]).unwrap();
    file.write_all(stream).unwrap();
    Scanner.lying_delta(&Extent::new(file, 1000, stream.len() as u64))
}

fn packed(stream: &[u8], compression: Compression) -> Vec<u8> {
    let mut packed = Vec::new();
    dhow_layer::compress(stream, &mut packed, compression).unwrap();
    packed
}

#[test]
fn a_layer_says_the_same_where_it_lies_as_when_it_is_unpacked() {
    let layer = telling();
    let wanted = unpacked(&layer);
    let said: Vec<&str> = wanted.records.iter().map(|record| record.path.as_str()).collect();
    assert_eq!(
        said,
        [
            "bin/busybox",
            "etc/os-release",
            "opt/app.jar",
            "srv/node_modules/n/package.json",
            "usr/bin/go",
            "usr/lib/os-release",
            "usr/lib/python3/a-1.dist-info/METADATA",
            "usr/local/bin/other",
            "var/lib/dpkg/info/curl.list",
            "var/lib/dpkg/status",
        ]
    );
    assert_eq!(wanted.problems.len(), 1, "{:?}", wanted.problems);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let found = lying(&packed(&layer, compression)).unwrap();
        assert_eq!(found, wanted, "{compression:?}");
    }
}

#[test]
fn a_damaged_layer_is_refused_where_it_lies() {
    let layer = telling();
    let mut cut = packed(&layer, Compression::Gzip);
    let end = cut.len() - 3;
    cut[end] ^= 1;
    assert_eq!(lying(&cut).unwrap_err().kind(), ErrorKind::DataLoss);
    cut.truncate(2000);
    assert_eq!(lying(&cut).unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(lying(&layer[..9000]).unwrap_err().kind(), ErrorKind::DataLoss);
}
