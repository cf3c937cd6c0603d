use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use dhow_layer::EntryKind;

use crate::bench::{Bench, bench, chain};

fn prepared() -> Option<Bench> {
    let bench = bench()?;
    bench.file("a.txt", "A");
    bench.file("b.txt", "B");
    bench.file("dir/x", "X");
    bench.file("dir/sub/y", "Y");
    bench.file("other/z", "Z");
    Some(bench)
}

/// The paths that `instructions` add to `FROM scratch`, with what they are.
fn copied(bench: &Bench, instructions: &str) -> Vec<String> {
    let built = bench.build(&format!("FROM scratch\n{instructions}\n"));
    let tree = bench.tree(&built.image);
    tree.into_iter()
        .filter(|(_, what)| !what.starts_with('d'))
        .map(|(path, what)| format!("{path}={}", what.split(' ').nth(3).unwrap_or_default()))
        .collect()
}

#[test]
fn sources_and_destinations_follow_the_rules() {
    let Some(bench) = prepared() else { return };
    let table: &[(&str, &[&str])] = &[
        ("COPY a.txt /x", &["x=A"]),
        ("COPY a.txt /x/", &["x/a.txt=A"]),
        ("COPY a.txt .", &["a.txt=A"]),
        ("COPY a.txt x/y/z", &["x/y/z=A"]),
        ("COPY a.txt b.txt /d/", &["d/a.txt=A", "d/b.txt=B"]),
        ("COPY dir /d", &["d/sub/y=Y", "d/x=X"]),
        ("COPY dir/ /d/", &["d/sub/y=Y", "d/x=X"]),
        ("COPY dir /", &["sub/y=Y", "x=X"]),
        ("COPY dir other /d/", &["d/sub/y=Y", "d/x=X", "d/z=Z"]),
        ("COPY *.txt /d/", &["d/a.txt=A", "d/b.txt=B"]),
        ("COPY d* /d", &["d/sub/y=Y", "d/x=X"]),
        ("COPY */x /d/", &["d/x=X"]),
        ("COPY [ab].txt /d/", &["d/a.txt=A", "d/b.txt=B"]),
        ("COPY ?.none /d/", &[]),
        ("COPY /a.txt ../../b.txt /d/", &["d/a.txt=A", "d/b.txt=B"]),
        ("WORKDIR /w\nCOPY a.txt .\nCOPY a.txt ../v", &["v=A", "w/a.txt=A"]),
        ("COPY [\"a.txt\", \"/with space/\"]", &["with space/a.txt=A"]),
        ("ENV n=a.txt d=/q\nCOPY $n ${d}/", &["q/a.txt=A"]),
        ("COPY --exclude=sub --exclude=*.none dir /d", &["d/x=X"]),
        ("COPY --exclude=** --exclude=!sub/y dir /d", &["d/sub/y=Y"]),
        (
            "COPY --parents dir/sub/y other /d/",
            &["d/dir/sub/y=Y", "d/other/z=Z"],
        ),
        ("COPY --parents ./dir/./sub/y /d/", &["d/sub/y=Y"]),
        ("COPY --parents **/y /d/", &["d/dir/sub/y=Y"]),
        (
            "COPY <<one <<\"two\" /d/\nhi $PATH2\none\nhi $x\ntwo",
            &["d/one=hi", "d/two=hi"],
        ),
    ];
    for (instructions, wanted) in table {
        assert_eq!(copied(&bench, instructions), *wanted, "{instructions}");
    }
    bench.assert_clean();
}

#[test]
fn what_cannot_be_copied_is_an_error_with_its_place() {
    let Some(bench) = prepared() else { return };
    bench.file(".dockerignore", "dir\n");
    let table = [
        (
            "COPY none /x",
            "failed to compute cache key: \"/none\": not found",
        ),
        (
            "COPY dir /x",
            "\"/dir\": not found | the file is there, but .dockerignore leaves it out",
        ),
        ("COPY a.txt /x\nCOPY other /x", "cannot copy to non-directory: /x"),
        (
            "COPY other /o\nCOPY other /d/z\nCOPY other/z /d/",
            "cannot replace to directory /d/z with file",
        ),
        ("COPY --chmod=999 a.txt /x", "invalid chmod parameter: '999'"),
        ("COPY --chown=nobody a.txt /x", "unable to find user nobody"),
        (
            "COPY --from=$x a.txt /x",
            "--from expands to nothing | give the argument a value: ARG name=stage",
        ),
        ("COPY --parents none/y /x/", "\"/none/y\": not found"),
        (
            "ADD http://example.com/x /x",
            "download http://example.com/x: 404",
        ),
        ("COPY https://example.com/x /x", "source can't be a URL for COPY"),
        (
            "ADD --checksum=sha256:00 a.txt /x",
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "ADD --keep-git-dir=false https://example.com/x.git?keep-git-dir /x",
            "keep-git-dir conflicts with that of https://example.com/x.git",
        ),
        ("COPY ${a?} /x", "a: is not allowed to be unset"),
        ("COPY a[ /x", "syntax error in pattern \"a[\""),
    ];
    for (instructions, message) in table {
        let failed = bench.fails(&format!("FROM scratch\n{instructions}\n"));
        assert!(
            chain(&failed).contains(message),
            "{instructions}: {}",
            chain(&failed)
        );
        let place = failed.place.as_ref().unwrap();
        assert!(place.span.start >= "FROM scratch\n".len(), "{instructions}");
        bench.assert_clean();
    }
}

#[test]
fn owners_and_modes_come_from_flags_sources_and_the_image() {
    let Some(bench) = prepared() else { return };
    fs::set_permissions(
        bench.context.path().join("a.txt"),
        fs::Permissions::from_mode(0o4750),
    )
    .unwrap();
    std::os::unix::fs::chown(bench.context.path().join("a.txt"), Some(1234), Some(1234)).unwrap();
    fs::set_permissions(
        bench.context.path().join("a.txt"),
        fs::Permissions::from_mode(0o4750),
    )
    .unwrap();
    let built = bench.build(
        "FROM base:1\nUSER app\nCOPY a.txt /plain\nCOPY --chown=app a.txt /named/\nCOPY --chown=app:staff a.txt /group\n\
         COPY --chown=7 a.txt /number\nCOPY --chmod=600 a.txt /octal\nCOPY --chmod=u=rwX,go=rX dir /symbolic\n\
         COPY --chown=app --link a.txt /linked\nCOPY --chown=7:8 --chmod=640 <<x /inline\nbody\nx\nWORKDIR /home/app/w\n\
         FROM base:1\nCOPY --from=0 /number /kept\nCOPY --from=0 /home/app /home/\n",
    );
    let first = {
        let mut request = bench.request("");
        request.dockerfile = "FROM base:1\nUSER app\nCOPY a.txt /plain\nCOPY --chown=app a.txt /named/\nCOPY --chown=app:staff a.txt /group\n\
         COPY --chown=7 a.txt /number\nCOPY --chmod=600 a.txt /octal\nCOPY --chmod=u=rwX,go=rX dir /symbolic\n\
         COPY --chown=app --link a.txt /linked\nCOPY --chown=7:8 --chmod=640 <<x /inline\nbody\nx\nWORKDIR /home/app/w\n"
            .into();
        bench.tree(&bench.built(&request).image)
    };
    assert_eq!(first["plain"], "f 4750 0:0 A");
    assert_eq!(first["named"], "d 755 1000:1001 ");
    assert_eq!(first["named/a.txt"], "f 4750 1000:1001 A");
    assert_eq!(first["group"], "f 4750 1000:50 A");
    assert_eq!(first["number"], "f 4750 7:7 A");
    assert_eq!(first["octal"], "f 600 0:0 A");
    assert_eq!(first["symbolic/sub"], "d 755 0:0 ");
    assert_eq!(first["symbolic/x"], "f 644 0:0 X");
    assert_eq!(first["linked"], "f 4750 1000:1001 A");
    assert_eq!(first["inline"], "f 640 7:8 body\n");
    assert_eq!(first["home/app/w"], "d 755 1000:1001 ");
    let last = bench.tree(&built.image);
    assert_eq!(last["kept"], "f 4750 7:7 A");
    assert_eq!(last["home/w"], "d 755 1000:1001 ");
}

#[test]
fn links_are_followed_in_source_paths_and_destinations_but_kept_in_trees() {
    let Some(bench) = prepared() else { return };
    symlink("dir", bench.context.path().join("to-dir")).unwrap();
    symlink("../a.txt", bench.context.path().join("dir/up")).unwrap();
    symlink("/dir/x", bench.context.path().join("abs")).unwrap();
    assert_eq!(copied(&bench, "COPY to-dir/x abs /d/"), ["d/abs=X", "d/x=X"]);
    assert_eq!(
        copied(&bench, "COPY dir /d"),
        ["d/sub/y=Y", "d/up=../a.txt", "d/x=X"]
    );
    let built = bench.build("FROM base:1\nRUN link /srv /short\nCOPY a.txt /short/\nCOPY b.txt /short/old\n");
    let tree = bench.tree(&built.image);
    assert_eq!(tree["srv/a.txt"], "f 644 0:0 A");
    assert_eq!(tree["srv/old"], "f 644 0:0 B");
    assert_eq!(tree["short"].split(' ').next_back(), Some("/srv"));
    // A linked copy does not look at what is below.
    let built = bench.build("FROM base:1\nRUN link /srv /short\nCOPY --link a.txt /short/\n");
    let tree = bench.tree(&built.image);
    assert_eq!(tree["short/a.txt"], "f 644 0:0 A");
    assert!(!tree.contains_key("srv/a.txt"));
}

#[test]
fn hard_links_fifos_and_times_are_kept() {
    let Some(bench) = prepared() else { return };
    let at = |name: &str| bench.context.path().join(name);
    fs::hard_link(at("dir/x"), at("dir/x2")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("dir/pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(at("dir/x")).unwrap().set_modified(time).unwrap();
    fs::File::open(at("dir/sub")).unwrap().set_modified(time).unwrap();
    let built = bench.build("FROM scratch\nCOPY dir /d\n");
    let top = built.image.config.rootfs.diff_ids[0];
    let index = bench.store.layers.layer(&top).unwrap().index().unwrap();
    let kind = |path: &str| index.find(path.as_bytes()).unwrap().kind;
    let kinds = [kind("d/x"), kind("d/x2")];
    assert!(kinds.contains(&dhow_layer::EntryKind::Hardlink), "{kinds:?}");
    assert_eq!(kind("d/pipe"), dhow_layer::EntryKind::Fifo);
    assert_eq!(index.find(b"d/sub").unwrap().mtime, 1_000_000_000);
    let file = index
        .entries()
        .find(|entry| entry.path.starts_with(b"d/x"))
        .unwrap();
    assert_eq!(file.mtime, 1_000_000_000);
}

#[test]
fn the_destination_has_the_time_of_the_folder_that_is_copied_last() {
    let Some(bench) = prepared() else { return };
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let set = |name: &str, seconds| {
        let file = fs::File::open(bench.context.path().join(name)).unwrap();
        file.set_modified(at(seconds)).unwrap();
    };
    set("dir", 1_000_000_000);
    set("other", 1_100_000_000);
    set("", 1_200_000_000);
    let built = bench.build(
        "FROM base:1\nCOPY dir /new/one\nCOPY dir other /two/\nCOPY dir a.txt /three/\nCOPY . /four\nCOPY other /srv\n",
    );
    let time = |layer: usize, path: &str| {
        let layer = built.image.config.rootfs.diff_ids[layer];
        let index = bench.store.layers.layer(&layer).unwrap().index().unwrap();
        index.find(path.as_bytes()).unwrap().mtime
    };
    assert_eq!(time(1, "new/one"), 1_000_000_000);
    assert_eq!(time(2, "two"), 1_100_000_000);
    assert_eq!(time(5, "srv"), 1_100_000_000);
    for (layer, path) in [(1, "new"), (3, "three"), (4, "four")] {
        assert!(time(layer, path) > 1_700_000_000, "{path} has that of the build");
    }
}

#[test]
fn add_unpacks_archives_by_content_and_copies_everything_else() {
    let Some(bench) = prepared() else { return };
    let mut archive = dhow_layer::tar::Writer::new(Vec::new());
    let mut file = dhow_layer::Entry::new("in/file", dhow_layer::EntryKind::File, 0o640);
    (file.size, file.uid, file.gid, file.mtime) = (4, 11, 12, 1_000);
    archive.append(&file, &b"body"[..]).unwrap();
    let mut link = dhow_layer::Entry::new("in/link", dhow_layer::EntryKind::Symlink, 0o777);
    link.link = b"/etc".to_vec();
    archive.append(&link, &b""[..]).unwrap();
    let mut through = dhow_layer::Entry::new("in/link/through", dhow_layer::EntryKind::File, 0o644);
    through.size = 1;
    archive.append(&through, &b"T"[..]).unwrap();
    let bytes = archive.finish().unwrap();
    fs::write(bench.context.path().join("leading"), &bytes).unwrap();
    let bytes = &bytes[..bytes.len() - 2048];
    fs::write(bench.context.path().join("plain.bin"), bytes).unwrap();
    let mut zipped = Vec::new();
    dhow_layer::compress(bytes, &mut zipped, dhow_layer::Compression::Gzip).unwrap();
    fs::write(bench.context.path().join("zipped"), &zipped).unwrap();
    let mut text = Vec::new();
    dhow_layer::compress(&b"just text"[..], &mut text, dhow_layer::Compression::Gzip).unwrap();
    fs::write(bench.context.path().join("text.gz"), &text).unwrap();

    let built = bench.build(
        "FROM base:1\nADD plain.bin /p\nADD zipped /z/\nADD --chown=5 zipped /c\nADD --unpack=false zipped /raw\nADD text.gz /t\nADD a.txt dir /many/\nADD --chown=5 leading /\n",
    );
    let tree = bench.tree(&built.image);
    assert_eq!(tree["p/in/file"], "f 640 11:12 body");
    assert_eq!(tree["z/in/file"], "f 640 11:12 body");
    assert_eq!(tree["c/in/file"], "f 640 5:5 body");
    // The absolute link of the archive leads into the image, not into the host.
    assert_eq!(tree["etc/through"], "f 644 5:5 T");
    assert!(tree["raw"].starts_with("f 644"));
    assert!(tree["t"].starts_with("f 644"));
    assert_eq!(tree["many/a.txt"], "f 644 0:0 A");
    // Nor does it lead out of the place where the archive is unpacked.
    let failed = bench.fails("FROM base:1\nADD leading /l/\n");
    assert!(
        chain(&failed).contains("unpack the archive \"leading\": make \"in/link/through\""),
        "{}",
        chain(&failed)
    );
    assert!(!std::path::Path::new("/etc/through").exists());
    bench.assert_clean();
}

#[test]
fn an_archive_takes_the_place_of_what_is_there_but_directories_become_one() {
    let Some(bench) = prepared() else { return };
    let entries = [
        ("", EntryKind::Directory, ""),
        ("one", EntryKind::File, "file"),
        ("two", EntryKind::Directory, ""),
        ("two/new", EntryKind::File, "new"),
        ("three", EntryKind::Symlink, "one"),
        ("four", EntryKind::Hardlink, "one"),
        ("five", EntryKind::Directory, ""),
        ("kept", EntryKind::Directory, ""),
    ];
    bench.archive("all.tar", &entries);
    let built = bench.build(
        "FROM base:1\nRUN write /d/one/deep x; write /d/two x; mkdir /d/three; mkdir /d/four; link /srv /d/five; write /d/kept/it x\n\
         ADD all.tar /d\n",
    );
    let tree = bench.tree(&built.image);
    assert_eq!(tree["d/one"], "f 755 0:0 file");
    assert_eq!(tree["d/two/new"], "f 755 0:0 new");
    assert!(tree["d/three"].starts_with('l') && tree["d/four"].starts_with('f'));
    assert_eq!(tree["d/five"], "d 755 0:0 ");
    assert!(
        tree.contains_key("d/kept/it") && tree.contains_key("srv/old") && !tree.contains_key("d/one/deep")
    );
    let top = built.image.config.rootfs.diff_ids.last().unwrap();
    let index = bench.store.layers.layer(top).unwrap().index().unwrap();
    assert_eq!(index.find(b"d/two").unwrap().mtime, 1_000);
    bench.assert_clean();
}

#[test]
fn a_link_of_an_archive_that_leads_up_stays_where_it_is_unpacked() {
    let Some(bench) = prepared() else { return };
    bench.archive(
        "up.tar",
        &[
            ("up", EntryKind::Symlink, ".."),
            ("up/etc/mine", EntryKind::File, "mine"),
        ],
    );
    let tree = bench.tree(&bench.build("FROM base:1\nADD up.tar /d/\n").image);
    assert_eq!(tree["d/etc/mine"], "f 755 0:0 mine");
    assert!(!tree.contains_key("etc/mine"));
}

#[test]
fn hard_links_of_a_stage_stay_links_within_one_source() {
    let Some(bench) = prepared() else { return };
    let names = [
        ("f", EntryKind::File, "same"),
        ("g", EntryKind::Hardlink, "f"),
        ("h", EntryKind::Hardlink, "f"),
        ("other", EntryKind::File, "same"),
    ];
    bench.archive("names.tar", &names);
    let built = bench.build(
        "FROM base:1 AS made\nADD names.tar /d/\nFROM scratch\nCOPY --from=made /d /whole\nCOPY --from=made /d/f /d/g /apart/\n",
    );
    let linked = |layer: usize| -> Vec<String> {
        let layer = built.image.config.rootfs.diff_ids[layer];
        let index = bench.store.layers.layer(&layer).unwrap().index().unwrap();
        let links = index.entries().filter(|entry| entry.kind == EntryKind::Hardlink);
        links
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .collect()
    };
    assert_eq!(linked(0), ["whole/g", "whole/h"]);
    assert_eq!(linked(1), Vec::<String>::new());
    let tree = bench.tree(&built.image);
    assert!(
        ["whole/f", "whole/h", "whole/other", "apart/g"]
            .iter()
            .all(|path| tree[*path] == "f 755 0:0 same")
    );
}

#[test]
fn several_sources_and_one_place_are_as_buildkit_has_them_and_warned_of() {
    let Some(bench) = prepared() else { return };
    let table: &[(&str, &[&str], bool)] = &[
        ("COPY a.txt b.txt /x", &["x=B"], true),
        ("COPY *.txt /x", &["x=B"], true),
        ("COPY dir other /d", &["d/sub/y=Y", "d/x=X", "d/z=Z"], true),
        (
            "COPY dir /d\nCOPY a.txt b.txt /d",
            &["d/a.txt=A", "d/b.txt=B", "d/sub/y=Y", "d/x=X"],
            false,
        ),
        ("COPY a.txt b.txt /x/", &["x/a.txt=A", "x/b.txt=B"], false),
    ];
    for (instructions, wanted, warned) in table {
        bench.log.take();
        assert_eq!(copied(&bench, instructions), *wanted, "{instructions}");
        let log = bench.log.take();
        let said = log
            .iter()
            .any(|line| line.starts_with("warning COPY has more than one source"));
        assert_eq!(said, *warned, "{instructions}: {log:?}");
    }
}

#[test]
fn add_fails_on_what_begins_as_an_archive_and_cannot_be_unpacked() {
    let Some(bench) = prepared() else { return };
    let header = |name: &str, size: u64| {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = b'0';
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    };
    let body = |byte: u8| vec![byte; 512];
    let zip = |bytes: &[u8]| {
        let mut zipped = Vec::new();
        dhow_layer::compress(bytes, &mut zipped, dhow_layer::Compression::Gzip).unwrap();
        zipped
    };
    let whole = [
        header("a", 512),
        body(b'x'),
        header("b", 1 << 20),
        body(b'y').repeat(2048),
    ]
    .concat();
    let zipped = zip(&whole);
    let mut flipped = zipped.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 0xff;
    for (name, bytes) in [
        ("hostile", [header("../../up", 1), body(b'x')].concat()),
        (
            "second",
            [header("a", 512), body(b'x'), header("../up", 1), body(b'x')].concat(),
        ),
        ("cut", whole[..700].to_vec()),
        ("garbled", [header("a", 512), body(b'x'), body(b'z')].concat()),
        ("cut.tar.gz", zipped[..zipped.len() - 20].to_vec()),
        ("flipped.tar.gz", flipped),
    ] {
        fs::write(bench.context.path().join("bad"), &bytes).unwrap();
        let failed = bench.fails("FROM base:1\nADD bad /x/\n");
        assert!(
            chain(&failed).contains("unpack the archive \"bad\""),
            "{name}: {}",
            chain(&failed)
        );
        bench.assert_clean();
    }
    // What is no archive by its header is a file, as for docker: nothing, an empty archive, a cut header.
    for bytes in [
        body(0).repeat(2),
        whole[..300].to_vec(),
        zip(b"text"),
        zipped[..20].to_vec(),
    ] {
        fs::write(bench.context.path().join("bad"), &bytes).unwrap();
        let built = bench.build("FROM base:1\nADD bad /x/\n");
        assert!(bench.tree(&built.image)["x/bad"].starts_with("f 644"));
    }
}

#[test]
fn an_existing_directory_keeps_what_it_has_and_nested_ones_take_the_source_over() {
    let Some(bench) = prepared() else { return };
    let built = bench.build("FROM base:1\nRUN mkdir /d/sub; chmod 700 /d; chmod 700 /d/sub\nCOPY dir /d\n");
    let tree = bench.tree(&built.image);
    assert_eq!(tree["d"], "d 700 0:0 ");
    assert_eq!(tree["d/sub"], "d 755 0:0 ");
}

#[test]
fn a_wildcard_that_matches_nothing_is_no_second_source() {
    let Some(bench) = prepared() else { return };
    let image = bench.build("FROM scratch\nCOPY none* a.txt /x\n").image;
    assert!(bench.tree(&image)["x"].starts_with('f'));
}

#[test]
fn attributes_of_files_travel_from_contexts_and_stages() {
    let Some(bench) = prepared() else { return };
    let file = fs::File::open(bench.context.path().join("a.txt")).unwrap();
    // cap_net_bind_service=ep, as version 2 of linux/capability.h has it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, value) in [("security.capability", &capability[..]), ("user.a", b"test")] {
        rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let built =
        bench.build("FROM scratch AS one\nCOPY a.txt /x\nFROM scratch\nCOPY --from=one /x /y\nCOPY . /z\n");
    let attributes = |layer: usize, path: &[u8]| {
        let layer = built.image.config.rootfs.diff_ids[layer];
        let index = bench.store.layers.layer(&layer).unwrap().index().unwrap();
        index.find(path).unwrap().xattrs
    };
    let wanted = [
        (b"security.capability".to_vec(), capability.to_vec()),
        (b"user.a".to_vec(), b"test".to_vec()),
    ];
    assert_eq!(attributes(0, b"y"), wanted);
    assert_eq!(attributes(1, b"z/a.txt"), wanted);
}
