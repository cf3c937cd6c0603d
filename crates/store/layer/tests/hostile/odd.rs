//! The table of archives that are odd, and kept: each with exactly the tree that comes of it.

use super::metadata::{metadata, streams};
use super::{make, with};
use crate::maker::{Maker, header};

/// One name in a tree, as [`super::shown`] writes it, for each line.
pub(crate) type Case = (&'static str, Vec<u8>, &'static str);

/// Names: absolute, climbing inside, of any bytes, long.
#[expect(clippy::too_many_lines, reason = "a table")]
fn names() -> Vec<Case> {
    let long = "n".repeat(255);
    vec![
        (
            "an absolute name",
            make().file("/etc/x", b"1").end(),
            r#"dir 755 0:0 etc
                file 644 0:0 etc/x "1""#,
        ),
        (
            "slashes and dots",
            make().dir("/a/./b//").file("a//./f", b"1").end(),
            r#"dir 755 0:0 a
                dir 755 0:0 a/b
                file 644 0:0 a/f "1""#,
        ),
        (
            "a climb at the root",
            make().file("/../z", b"1").end(),
            r#"file 644 0:0 z "1""#,
        ),
        (
            "a climb that stays inside",
            make().dir("a").dir("b").file("a/../b/f", b"1").end(),
            r#"dir 755 0:0 a
                dir 755 0:0 b
                file 644 0:0 b/f "1""#,
        ),
        (
            "a line end in a name",
            make().file("a\nb", b"1").end(),
            r#"file 644 0:0 a\nb "1""#,
        ),
        (
            "controls in a name",
            make().file("a\x01\x1b[31m\x7f", b"1").end(),
            r#"file 644 0:0 a\x01\x1b[31m\x7f "1""#,
        ),
        (
            "a backslash and a colon",
            make().file("c:\\x", b"1").end(),
            r#"file 644 0:0 c:\\x "1""#,
        ),
        (
            "blanks alone",
            make().file(" ", b"1").file("  /  ", b"2").end(),
            r#"dir 755 0:0
                file 644 0:0   "1"
                file 644 0:0   /   "2""#,
        ),
        (
            "bytes that are no UTF-8",
            make()
                .header(&with("", b'0', |h| h.name = b"\xff\xfe".to_vec()))
                .end(),
            r#"file 644 0:0 \xff\xfe """#,
        ),
        (
            "a name of 255 bytes",
            make()
                .extended(b'L', &[long.as_bytes(), b"\0"].concat())
                .file("x", b"1")
                .end(),
            r#"file 644 0:0 nnnnnnnn... of 255 bytes "1""#,
        ),
        (
            "a PAX name over a GNU name",
            make()
                .extended(b'L', b"gnu\0")
                .pax(&[("path", b"pax")])
                .file("x", b"1")
                .end(),
            r#"file 644 0:0 gnu "1""#,
        ),
        (
            "a GNU name after a PAX name",
            make()
                .pax(&[("path", b"pax")])
                .extended(b'L', b"gnu\0")
                .file("x", b"1")
                .end(),
            r#"file 644 0:0 gnu "1""#,
        ),
        (
            "two GNU names",
            make()
                .extended(b'L', b"one\0")
                .extended(b'L', b"two\0")
                .file("x", b"1")
                .end(),
            r#"file 644 0:0 two "1""#,
        ),
        (
            "a GNU name without an end",
            make().extended(b'L', b"gnu").file("x", b"1").end(),
            r#"file 644 0:0 gnu "1""#,
        ),
        (
            "a GNU name with more after its end",
            make().extended(b'L', b"gnu\0/../../x\0").file("x", b"1").end(),
            r#"file 644 0:0 gnu "1""#,
        ),
        (
            "a name of a dot in the middle",
            make().file("./x", b"1").file("y/.", b"").end(),
            r#"file 644 0:0 x "1"
                file 644 0:0 y """#,
        ),
        (
            "a directory by its slash",
            make().header(&with("d/", b'0', |h| h.mode = 0o700)).end(),
            r#"file 700 0:0 d """#,
        ),
        (
            "an old header without a kind",
            make().header(&with("v7", 0, |_| ())).end(),
            r#"file 644 0:0 v7 """#,
        ),
        (
            "a contiguous file",
            make().header(&with("f", b'7', |h| h.size = 1)).body(b"1").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "three dots",
            make().file(".../x", b"1").end(),
            r#"dir 755 0:0 ...
                file 644 0:0 .../x "1""#,
        ),
        (
            "names that differ in case",
            make().file("A", b"1").file("a", b"2").end(),
            r#"file 644 0:0 A "1"
                file 644 0:0 a "2""#,
        ),
        (
            "two forms of one letter",
            make().file("\u{e9}", b"1").file("e\u{301}", b"2").end(),
            r#"file 644 0:0 \xc3\xa9 "1"
                file 644 0:0 e\xcc\x81 "2""#,
        ),
    ]
}

/// Entries that meet: files, directories and links of one name.
#[expect(clippy::too_many_lines, reason = "a table")]
fn twice() -> Vec<Case> {
    vec![
        (
            "a file twice",
            make().file("f", b"1").file("f", b"22").end(),
            r#"file 644 0:0 f "22""#,
        ),
        (
            "a file over a directory",
            make().file("d/a/b", b"1").file("d", b"2").end(),
            r#"file 644 0:0 d "2""#,
        ),
        (
            "a directory over a file",
            make().file("f", b"1").dir("f").file("f/g", b"2").end(),
            r#"dir 755 0:0 f
                file 644 0:0 f/g "2""#,
        ),
        (
            "a directory twice",
            make()
                .dir("d")
                .file("d/f", b"1")
                .header(&with("d", b'5', |h| h.mode = 0o700))
                .end(),
            r#"dir 700 0:0 d
                file 644 0:0 d/f "1""#,
        ),
        (
            "a directory over a link to one",
            make()
                .dir("d")
                .file("d/f", b"1")
                .symlink("l", "d")
                .dir("l")
                .file("l/g", b"2")
                .end(),
            r#"dir 755 0:0 d
                dir 755 0:0 l
                file 644 0:0 d/f "1"
                file 644 0:0 l/g "2""#,
        ),
        (
            "a link over a directory",
            make().file("d/f", b"1").symlink("d", "/etc").end(),
            "link d -> /etc",
        ),
        (
            "a link over a file",
            make().file("f", b"1").symlink("f", "/etc/shadow").end(),
            "link f -> /etc/shadow",
        ),
        (
            "a file over a link",
            make().file("t", b"1").symlink("l", "t").file("l", b"2").end(),
            r#"file 644 0:0 l "2"
                file 644 0:0 t "1""#,
        ),
        (
            "a file over a link out",
            make().symlink("l", "/outside/secret").file("l", b"2").end(),
            r#"file 644 0:0 l "2""#,
        ),
        (
            "a file over one of two links",
            make().file("a", b"1").hard_link("b", "a").file("b", b"2").end(),
            r#"file 644 0:0 a "1"
                file 644 0:0 b "2""#,
        ),
        (
            "a hard link over a file",
            make().file("a", b"1").file("b", b"2").hard_link("b", "a").end(),
            r#"file 644 0:0 a "1"
                same b = a"#,
        ),
        (
            "a hard link over a directory",
            make().file("a", b"1").file("d/x", b"2").hard_link("d", "a").end(),
            r#"file 644 0:0 a "1"
                same d = a"#,
        ),
        (
            "a pipe over a file",
            make().file("p", b"1").header(&header("p", b'6')).end(),
            "pipe 644 0:0 p",
        ),
        (
            "a device over a directory",
            make()
                .file("d/x", b"1")
                .header(&with("d", b'3', |h| h.device = (1, 3)))
                .end(),
            "char 644 0:0 d (1, 3)",
        ),
        (
            "a file over a device",
            make()
                .header(&with("d", b'4', |h| h.device = (8, 0)))
                .file("d", b"1")
                .end(),
            r#"file 644 0:0 d "1""#,
        ),
        (
            "the same link twice",
            make().symlink("l", "a").symlink("l", "b").end(),
            "link l -> b",
        ),
        (
            "a source that goes after its link",
            make().file("a", b"1").hard_link("b", "a").dir("a").end(),
            r#"dir 755 0:0 a
                file 644 0:0 b "1""#,
        ),
        (
            "a hundred of one name",
            Maker(
                (0..100)
                    .fold(make(), |tar, at| tar.file("f", format!("{at}").as_bytes()))
                    .0,
            )
            .end(),
            r#"file 644 0:0 f "99""#,
        ),
    ]
}

/// Links: out of the root, in every component, in loops; hard ones to all that may be.
#[expect(clippy::too_many_lines, reason = "a table")]
fn links() -> Vec<Case> {
    vec![
        (
            "a file through an absolute link",
            make().symlink("l", "/out").file("l/f", b"1").end(),
            r#"dir 755 0:0 out
                file 644 0:0 out/f "1"
                link l -> /out"#,
        ),
        (
            "a file through a climbing link",
            make().symlink("l", "../../../out").file("l/f", b"1").end(),
            r#"dir 755 0:0 out
                file 644 0:0 out/f "1"
                link l -> ../../../out"#,
        ),
        (
            "a file through a link to the root",
            make().symlink("l", "/").file("l/f", b"1").end(),
            r#"file 644 0:0 f "1"
                link l -> /"#,
        ),
        (
            "a file through links in every component",
            make()
                .symlink("a", "/b")
                .symlink("b", "c")
                .symlink("c", "../../d")
                .file("a/e/f", b"1")
                .end(),
            r#"dir 755 0:0 d
                dir 755 0:0 d/e
                file 644 0:0 d/e/f "1"
                link a -> /b
                link b -> c
                link c -> ../../d"#,
        ),
        (
            "a file through a link in a link",
            make()
                .dir("x")
                .symlink("x/up", "..")
                .symlink("l", "x/up/x/up")
                .file("l/f", b"1")
                .end(),
            r#"dir 755 0:0 x
                file 644 0:0 f "1"
                link l -> x/up/x/up
                link x/up -> .."#,
        ),
        (
            "a file through proc",
            make().symlink("l", "/proc/self/root").file("l/f", b"1").end(),
            r#"dir 755 0:0 proc
                dir 755 0:0 proc/self
                dir 755 0:0 proc/self/root
                file 644 0:0 proc/self/root/f "1"
                link l -> /proc/self/root"#,
        ),
        (
            "a directory through a link",
            make().symlink("l", "/d").dir("l/e").end(),
            "dir 755 0:0 d
                dir 755 0:0 d/e
                link l -> /d",
        ),
        (
            "a link through a link",
            make().symlink("l", "/d").symlink("l/m", "/x").end(),
            "dir 755 0:0 d
                link d/m -> /x
                link l -> /d",
        ),
        (
            "a pipe through a link",
            make().symlink("l", "/d").header(&header("l/p", b'6')).end(),
            "dir 755 0:0 d
                link l -> /d
                pipe 644 0:0 d/p",
        ),
        (
            "a whiteout through a link",
            make().symlink("l", "/d").file("l/.wh.x", b"").end(),
            "dir 755 0:0 d
                gone d/x
                link l -> /d",
        ),
        (
            "an opaque mark through a link",
            make().symlink("l", "/d").file("l/.wh..wh..opq", b"").end(),
            "dir 755 0:0 d trusted.overlay.opaque=[121]
                link l -> /d",
        ),
        (
            "a loop that nobody follows",
            make().symlink("a", "b").symlink("b", "a").end(),
            "link a -> b
                link b -> a",
        ),
        ("a link to itself", make().symlink("a", "a").end(), "link a -> a"),
        (
            "a link whose target has a line end",
            make().symlink("a", "b\nc").end(),
            r#"link a -> b\nc"#,
        ),
        (
            "a hard link to a link",
            make().symlink("a", "/etc/shadow").hard_link("b", "a").end(),
            "link a -> /etc/shadow
                same b = a",
        ),
        (
            "a hard link through a link",
            make()
                .file("d/f", b"1")
                .symlink("l", "/d")
                .hard_link("h", "l/f")
                .end(),
            r#"dir 755 0:0 d
                file 644 0:0 h "1"
                link l -> /d
                same d/f = h"#,
        ),
        (
            "a hard link at an absolute name",
            make().file("f", b"1").hard_link("h", "/f").end(),
            r#"file 644 0:0 f "1"
                same h = f"#,
        ),
        (
            "a hard link made through a link",
            make()
                .file("f", b"1")
                .symlink("l", "../../d")
                .hard_link("l/h", "f")
                .end(),
            r#"dir 755 0:0 d
                file 644 0:0 f "1"
                link l -> ../../d
                same d/h = f"#,
        ),
        (
            "a chain of hard links",
            make()
                .file("a", b"1")
                .hard_link("b", "a")
                .hard_link("c", "b")
                .end(),
            r#"file 644 0:0 a "1"
                same b = a
                same c = a"#,
        ),
        (
            "a hard link to a pipe",
            make().header(&header("p", b'6')).hard_link("q", "p").end(),
            "pipe 644 0:0 p
                same q = p",
        ),
        (
            "a hard link to a device",
            make()
                .header(&with("n", b'3', |h| h.device = (1, 3)))
                .hard_link("m", "n")
                .end(),
            "char 644 0:0 m (1, 3)
                same n = m",
        ),
        (
            "a hard link with other rights",
            make()
                .file("a", b"1")
                .header(&with("b", b'1', |h| {
                    h.link = b"a".to_vec();
                    h.mode = 0o4777;
                }))
                .end(),
            r#"file 644 0:0 a "1"
                same b = a"#,
        ),
    ]
}

/// Whiteouts and opaque marks.
#[expect(clippy::too_many_lines, reason = "a table")]
fn whiteouts() -> Vec<Case> {
    vec![
        (
            "a whiteout",
            make().file("d/.wh.f", b"").end(),
            "dir 755 0:0 d
                gone d/f",
        ),
        (
            "a whiteout before its file",
            make().file(".wh.f", b"").file("f", b"1").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a whiteout after its file",
            make().file("f", b"1").file(".wh.f", b"").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "a whiteout of a directory with files",
            make().file("d/f", b"1").file(".wh.d", b"").end(),
            r#"dir 755 0:0 d trusted.overlay.opaque=[121]
                file 644 0:0 d/f "1""#,
        ),
        (
            "a file below a whiteout",
            make().file(".wh.d", b"").file("d/f", b"1").end(),
            r#"dir 755 0:0 d trusted.overlay.opaque=[121]
                file 644 0:0 d/f "1""#,
        ),
        (
            "a whiteout with content",
            make().file(".wh.f", b"content").end(),
            "gone f",
        ),
        (
            "a whiteout that is a directory",
            make().dir(".wh.d").end(),
            "gone d",
        ),
        (
            "a whiteout that is a link",
            make().symlink(".wh.l", "/etc").end(),
            "gone l",
        ),
        (
            "a whiteout twice",
            make().file(".wh.f", b"").file(".wh.f", b"").end(),
            "gone f",
        ),
        (
            "a whiteout of a name of dots",
            make().file(".wh....", b"").end(),
            "gone ...",
        ),
        (
            "an opaque mark first",
            make().file("d/.wh..wh..opq", b"").file("d/f", b"1").end(),
            r#"dir 755 0:0 d trusted.overlay.opaque=[121]
                file 644 0:0 d/f "1""#,
        ),
        (
            "an opaque mark last",
            make().file("d/f", b"1").file("d/.wh..wh..opq", b"").end(),
            r#"dir 755 0:0 d trusted.overlay.opaque=[121]
                file 644 0:0 d/f "1""#,
        ),
        (
            "an opaque root",
            make().file(".wh..wh..opq", b"").file("f", b"1").end(),
            r#"file 644 0:0 f "1""#,
        ),
        (
            "an opaque mark twice",
            make()
                .file("d/.wh..wh..opq", b"")
                .file("d/.wh..wh..opq", b"")
                .end(),
            "dir 755 0:0 d trusted.overlay.opaque=[121]",
        ),
        (
            "marks of aufs",
            make()
                .file(".wh..wh.plnk", b"")
                .file(".wh..wh.aufs", b"")
                .dir(".wh..wh.orph")
                .end(),
            "",
        ),
        (
            "a device of nothing",
            make().header(&header("gone", b'3')).end(),
            "gone gone",
        ),
        (
            "almost a whiteout",
            make()
                .file(".wh", b"1")
                .file("x.wh.y", b"2")
                .file(".WH.z", b"3")
                .end(),
            r#"file 644 0:0 .WH.z "3"
                file 644 0:0 .wh "1"
                file 644 0:0 x.wh.y "2""#,
        ),
    ]
}

pub(crate) fn odd() -> Vec<Case> {
    [names(), twice(), links(), whiteouts(), metadata(), streams()].concat()
}
