//! The part of the table of odd archives that is about metadata, and about the stream around the archive.

use super::odd::Case;
use super::{make, with, zstd};
use crate::maker::{header, octal, seal};

/// Numbers, rights, times and attributes at their ends.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn metadata() -> Vec<Case> {
    let mut uid = header("f", b'0').bytes();
    uid[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    seal(&mut uid);
    let mut early = header("f", b'0').bytes();
    early[136..148].copy_from_slice(&[0xff; 12]);
    seal(&mut early);
    let mut sparse = header("s", b'S').bytes();
    sparse[257..265].copy_from_slice(b"ustar  \0");
    octal(&mut sparse[386..398], 4);
    octal(&mut sparse[398..410], 3);
    octal(&mut sparse[483..495], 10);
    octal(&mut sparse[124..136], 3);
    seal(&mut sparse);
    vec![
        (
            "every bit of a mode",
            make().header(&with("f", b'0', |h| h.mode = 0o7777)).end(),
            r#"file 7777 0:0 f """#,
        ),
        (
            "bits beyond a mode",
            make().header(&with("f", b'0', |h| h.mode = 0o107_644)).end(),
            r#"file 7644 0:0 f """#,
        ),
        (
            "no right at all",
            make()
                .header(&with("d", b'5', |h| h.mode = 0))
                .file("d/f", b"1")
                .end(),
            r#"dir 0 0:0 d
                file 644 0:0 d/f "1""#,
        ),
        (
            "a sticky directory of others",
            make()
                .header(&with("t", b'5', |h| (h.mode, h.uid, h.gid) = (0o1777, 7, 8)))
                .end(),
            "dir 1777 7:8 t",
        ),
        (
            "the largest user id",
            make().raw(&uid).end(),
            r#"file 644 4294967294:0 f """#,
        ),
        (
            "a large user id by PAX",
            make()
                .pax(&[("uid", b"4294967294"), ("gid", b"100000")])
                .file("f", b"1")
                .end(),
            r#"file 644 4294967294:100000 f "1""#,
        ),
        (
            "a second before 1970",
            make().raw(&early).end(),
            r#"file 644 0:0 f "" at -1"#,
        ),
        (
            "a time before 1970 by PAX",
            make().pax(&[("mtime", b"-1.5")]).file("f", b"1").end(),
            r#"file 644 0:0 f "1" at -2"#,
        ),
        (
            "a time with a fraction",
            make()
                .pax(&[("mtime", b"1600000000.123456789")])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a time after 2038",
            make().pax(&[("mtime", b"7258118400")]).file("f", b"1").end(),
            r#"file 644 0:0 f "1" at 7258118400"#,
        ),
        (
            "a name of a user that is nobody",
            make()
                .pax(&[("uname", b"mallory"), ("gname", b"\xff")])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "PAX keys that nobody knows",
            make()
                .pax(&[("x", b"y"), ("LIBARCHIVE.creationtime", b"1")])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a comment for all",
            make().extended(b'g', b"11 comment=\n").file("f", b"1").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a PAX value with line ends",
            make()
                .pax(&[("SCHILY.xattr.user.k", b"a\n\n9 path=x\n")])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1" user.k=[97, 10, 10, 57, 32, 112, 97, 116, 104, 61, 120, 10]"#,
        ),
        (
            "a capability",
            make()
                .pax(&[(
                    "SCHILY.xattr.security.capability",
                    b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                )])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1" security.capability=[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"#,
        ),
        (
            "an attribute without a value",
            make().pax(&[("SCHILY.xattr.user.k", b"")]).file("f", b"1").end(),
            r#"file 644 0:0 f "1" user.k=[]"#,
        ),
        (
            "an attribute of zeros",
            make()
                .pax(&[("SCHILY.xattr.user.k", b"\0\0")])
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1" user.k=[0, 0]"#,
        ),
        (
            "a label of the archive",
            make().header(&header("label", b'V')).file("f", b"1").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a directory with a size",
            make()
                .header(&with("d", b'5', |h| h.size = 5))
                .file("f", b"1")
                .end(),
            r#"dir 755 0:0 d
                file 644 0:0 f "1""#,
        ),
        (
            "a link with a size",
            make()
                .header(&with("l", b'2', |h| (h.size, h.link) = (5, b"t".to_vec())))
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1"
                link l -> t"#,
        ),
        (
            "a pipe with a size",
            make()
                .header(&with("p", b'6', |h| h.size = 5))
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1"
                pipe 644 0:0 p"#,
        ),
        (
            "a sparse file",
            make().raw(&sparse).body(b"abc").end(),
            r#"file 644 0:0 s "\\x00\\x00\\x00\\x00abc\\x00\\x00\\x00""#,
        ),
        (
            "a sparse PAX file",
            make()
                .pax(&[("GNU.sparse.map", b"2,1,5,1"), ("GNU.sparse.size", b"8")])
                .file("s", b"xy")
                .end(),
            r#"file 644 0:0 s "\\x00\\x00x\\x00\\x00y\\x00\\x00""#,
        ),
        (
            "the root with an owner",
            make()
                .header(&with("./", b'5', |h| (h.mode, h.uid) = (0o700, 5)))
                .file("f", b"1")
                .end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "parents that are not named",
            make()
                .file("a/b/c/f", b"1")
                .header(&with("a/b", b'5', |h| h.mode = 0o700))
                .end(),
            r#"dir 700 0:0 a/b
                dir 755 0:0 a
                dir 755 0:0 a/b/c
                file 644 0:0 a/b/c/f "1""#,
        ),
    ]
}

/// The stream around the archive.
pub(super) fn streams() -> Vec<Case> {
    let tar = make().file("f", b"1").end();
    let gz = super::gzip;
    vec![
        ("nothing but an end", make().end(), ""),
        ("no end", make().file("f", b"1").0, r#"file 644 0:0 f "1""#),
        (
            "blocks after the end",
            [tar.clone(), vec![0; 10240]].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "garbage after the end",
            [tar.clone(), b"garbage".repeat(100)].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "an archive after the end",
            [tar.clone(), make().file("g", b"2").end()].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "gzip in two members",
            [gz(&tar[..700]), gz(&tar[700..])].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "gzip with an empty member",
            [gz(b""), gz(&tar), gz(b"")].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "gzip with zeros after it",
            [gz(&tar), vec![0; 512]].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "zstd in two frames",
            [zstd(&tar[..700]), zstd(&tar[700..])].concat(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "zstd with a frame to skip",
            [b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(), zstd(&tar)].concat(),
            r#"file 644 0:0 f "1""#,
        ),
    ]
}
