//! The table of archives that are refused.

use dhow_types::ErrorKind;

use super::{gzip, make, with, zstd};
use crate::maker::{Maker, header, octal, record, seal};

/// Cases that must fail, with the kind of the failure.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn refused() -> Vec<(&'static str, Vec<u8>, ErrorKind)> {
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
            "a device as a directory",
            make()
                .header(&with("d", b'3', |h| h.device = (1, 1)))
                .file("d/x", b"1")
                .end(),
            InvalidArgument,
        ),
        (
            "a link to a file as a directory",
            make().file("f", b"x").symlink("l", "f").file("l/g", b"y").end(),
            InvalidArgument,
        ),
        (
            "a hard link as a directory",
            make().file("f", b"x").hard_link("h", "f").file("h/g", b"y").end(),
            InvalidArgument,
        ),
        (
            "links one after the other without end",
            (0..200)
                .fold(make().symlink("l0", "/d"), |tar, at| {
                    tar.symlink(&format!("l{}", at + 1), &format!("l{at}"))
                })
                .file("l200/f", b"x")
                .end(),
            InvalidArgument,
        ),
        (
            "a thousand directories, one in the other",
            make()
                .pax(&[("path", "d/".repeat(1000).as_bytes())])
                .dir("x")
                .end(),
            InvalidArgument,
        ),
        (
            "a hard link to what a whiteout took",
            make().file("f", b"x").dir("f").hard_link("h", "f").end(),
            InvalidArgument,
        ),
        (
            "a hard link without a target",
            make().hard_link("a", "").end(),
            InvalidArgument,
        ),
        ("a name of nothing", make().file("", b"x").end(), InvalidArgument),
        (
            "a PAX name of nothing",
            make().pax(&[("path", b"")]).file("", b"x").end(),
            InvalidArgument,
        ),
        (
            "a PAX time that is no number",
            make().pax(&[("mtime", b"never")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a PAX group id beyond 32 bits",
            make().pax(&[("gid", b"4294967296")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "a negative PAX user id",
            make().pax(&[("uid", b"-1")]).file("a", b"").end(),
            InvalidArgument,
        ),
        (
            "an attribute of the security of another system",
            make()
                .pax(&[("SCHILY.xattr.trusted.overlay.metacopy", b"")])
                .file("f", b"")
                .end(),
            InvalidArgument,
        ),
        (
            "a whiteout of a path",
            make().pax(&[("path", b".wh.a/../../../b")]).file("x", b"").end(),
            InvalidArgument,
        ),
        (
            "a zstd stream with a wrong checksum",
            {
                let mut z = zstd(&make().file("a", &[7; 100_000]).end());
                let at = z.len() / 2;
                z[at] ^= 0x55;
                z
            },
            DataLoss,
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
