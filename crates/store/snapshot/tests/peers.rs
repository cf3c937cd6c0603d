//! What containerd's and umoci's own tests unpack, as data: the same archives over the same layers, and what the stack shows.
//!
//! Written again from containerd's `pkg/archive/tar_test.go` (`TestBreakouts`, `TestApplyTar`) and umoci's
//! `oci/layer/tar_extract_test.go` and `unpack_test.go`, by their names there; [`CASES`] says for each what we make of it. It differs
//! from theirs where they guess what a broken archive means, and we refuse it: a hard link that climbs out of the root (they cut the
//! path off: `HardlinkDirectRelative`, `Hardlink`), or that names a file of a layer below (`SymlinkOverrideDirectory`), the root
//! as a link (`SymlinkParentDirectory`, `SymlinkEmptyFilename`), a name that climbs out (`DotDotPrefix`), a file as a directory in
//! one layer (`NonDirParent`), a directory with a whiteout's name (`WhiteoutDirectoryName`). And a whiteout hides nothing of its own layer
//! (image-spec `layer.md`, "Whiteouts"): `OpaqueWhiteoutConvert` keeps the file `before`. What those files test besides, and where it is tested here:
//!
//! | theirs | here |
//! |---|---|
//! | containerd `TestTarWithXattr` | `hostile/odd.rs`: a capability, an attribute without a value, a label of the archive |
//! | containerd `TestPrefixHeaderReadable` | `hostile/metadata.rs`, `dhow-layer`'s `tar/tests.rs`: names in the prefix of a header |
//! | containerd `TestDiffApply`, `TestBaseDiff`, umoci `TestTarGenerate*` | `dhow-layer`'s `capture.rs`, `changes_over_a_stack_become_a_layer_that_shows_them_again` |
//! | containerd `TestOverlayApply`, umoci `TestUnpackEntry_OverlayfsRootfs_*` | every case here: on directories a whiteout is what overlayfs takes for one |
//! | umoci `TestUnpackEntryMap` | ids are those of the archive; a mapping is the mount's or the namespace's |
//! | umoci `TestLayerCompressionCheck` | `dhow-layer`'s `codec/tests.rs`: bytes are sniffed, media types are not asked |

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use dhow_layer::{Capture, Unpack};

use crate::{EMPTY, Kind, Place, tar};

/// Layers, lowest first, of names and what they are (see [`crate::entry`]).
type Layers = &'static [&'static [(&'static str, &'static str)]];

/// What stands for an archive that is refused.
const REFUSED: &str = "refused";

/// Name, layers, and what the stack shows, a name for each piece between `; `.
#[rustfmt::skip]
const CASES: &[(&str, Layers, &str)] = &[
    ("containerd SymlinkAbsolute", &[&[("etc", "dir:755"), ("localetc", "link:/etc"), ("/localetc/unbroken", "x")]], "dir etc; file etc/unbroken x; link localetc /etc"),
    ("containerd SymlinkUpAndOut", &[&[("etc", "dir:755"), ("dummy", "dir:755"), ("localetc", "link:/dummy/../etc"), ("/localetc/unbroken", "x")]], "dir dummy; dir etc; file etc/unbroken x; link localetc /dummy/../etc"),
    ("containerd SymlinkMultipleAbsolute", &[&[("etc", "dir:755"), ("dummy", "dir:755"), ("/dummy/etc", "link:/etc"), ("localetc", "link:/dummy/etc"), ("/dummy/etc/unbroken", "x")]], "dir dummy; dir etc; file etc/unbroken x; link dummy/etc /etc; link localetc /dummy/etc"),
    ("containerd SymlinkMultipleRelative", &[&[("etc", "dir:755"), ("dummy", "dir:755"), ("/dummy/etc", "link:/etc"), ("localetc", "link:./dummy/etc"), ("/dummy/etc/unbroken", "x")]], "dir dummy; dir etc; file etc/unbroken x; link dummy/etc /etc; link localetc ./dummy/etc"),
    ("containerd SymlinkEmptyFile", &[&[("etc", "dir:755"), ("etc/emptied", "notempty"), ("localetc", "link:/etc"), ("/localetc/emptied", "")]], "dir etc; file etc/emptied; link localetc /etc"),
    ("containerd HardlinkRelative", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("breakouts", "dir:755"), ("breakouts/d1", "link:../../etc"), ("breakouts/mypasswd", "hard:/breakouts/d1/passwd")]], "dir breakouts; dir etc; file etc/passwd all; link breakouts/d1 ../../etc; same breakouts/mypasswd etc/passwd"),
    ("containerd HardlinkDownAndOut", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("breakouts", "dir:755"), ("downandout", "dir:755"), ("breakouts/d1", "link:../downandout/../../etc"), ("breakouts/mypasswd", "hard:/breakouts/d1/passwd")]], "dir breakouts; dir downandout; dir etc; file etc/passwd all; link breakouts/d1 ../downandout/../../etc; same breakouts/mypasswd etc/passwd"),
    ("containerd HardlinkAbsolute", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:/etc"), ("localpasswd", "hard:/localetc/passwd")]], "dir etc; file localpasswd all; link localetc /etc; same etc/passwd localpasswd"),
    ("containerd HardlinkRelativeLong", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:../../../../../../../etc"), ("localpasswd", "hard:/localetc/passwd")]], "dir etc; file localpasswd all; link localetc ../../../../../../../etc; same etc/passwd localpasswd"),
    ("containerd HardlinkRelativeUpAndOut", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:upandout/../../../etc"), ("localpasswd", "hard:/localetc/passwd")]], "dir etc; file localpasswd all; link localetc upandout/../../../etc; same etc/passwd localpasswd"),
    ("containerd HardlinkDirectRelative", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localpasswd", "hard:../../../../../etc/passwd")]], REFUSED),
    ("containerd HardlinkDirectAbsolute", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localpasswd", "hard:/etc/passwd")]], "dir etc; file localpasswd all; same etc/passwd localpasswd"),
    ("containerd SymlinkParentDirectory", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("..", "link:/etc/"), ("localpasswd", "hard:/etc/passwd")]], REFUSED),
    ("containerd SymlinkEmptyFilename", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("", "link:/etc/"), ("localpasswd", "hard:/etc/passwd")]], REFUSED),
    ("containerd SymlinkParentRelative", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc/sub/..", "link:/etc/"), ("/localetc/localpasswd", "hard:/etc/passwd")]], "dir etc; file etc/localpasswd all; link localetc /etc/; same etc/passwd etc/localpasswd"),
    ("containerd SymlinkSlashEnded", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc/", "dir:770"), ("/localetc/localpasswd", "hard:/etc/passwd")]], "dir etc; dir localetc; file localetc/localpasswd all; same etc/passwd localetc/localpasswd"),
    ("containerd SymlinkOverrideDirectory", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "dir:755")], &[("localetc", "link:/etc"), ("/localetc/localpasswd", "hard:/etc/passwd")]], REFUSED),
    ("containerd SymlinkOverrideDirectory, with a file", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "dir:755")], &[("localetc", "link:/etc"), ("/localetc/own", "x")]], "dir etc; file etc/own x; file etc/passwd all; link localetc /etc"),
    ("containerd SymlinkOverrideDirectoryRelative, with a file", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "dir:755")], &[("localetc", "link:../../etc"), ("/localetc/own", "x")]], "dir etc; file etc/own x; file etc/passwd all; link localetc ../../etc"),
    ("containerd DirectoryOverrideSymlink, with a file", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:/etc")], &[("/localetc/", "dir:755"), ("/localetc/own", "x")]], "dir etc; dir localetc; file etc/passwd all; file localetc/own x"),
    ("containerd DirectoryOverrideSymlinkAndHardlink", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:etc"), ("/localetc/localpasswd", "hard:/etc/passwd")], &[("/localetc/", "dir:755"), ("/localetc/localpasswd", "different")]], "dir etc; dir localetc; file etc/localpasswd all; file localetc/localpasswd different; same etc/passwd etc/localpasswd"),
    ("containerd WhiteoutRootParent", &[&[("etc", "dir:755"), ("etc/passwd", "all")], &[(".wh...", "")]], REFUSED),
    ("containerd WhiteoutParent", &[&[("etc", "dir:755"), ("etc/passwd", "all")], &[("etc/.wh...", "")]], REFUSED),
    ("containerd WhiteoutRoot", &[&[("etc", "dir:755"), ("etc/passwd", "all")], &[(".wh..", "")]], REFUSED),
    ("containerd WhiteoutCurrentDirectory", &[&[("etc", "dir:755"), ("etc/passwd", "all")], &[("etc/.wh..", "")]], REFUSED),
    ("containerd WhiteoutSymlink", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:/etc")], &[(".wh.localetc", "")]], "dir etc; file etc/passwd all"),
    ("containerd WhiteoutSymlinkPath", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("etc/whitedout", "x"), ("localetc", "link:/etc")], &[("localetc/.wh.whitedout", "")]], "dir etc; file etc/passwd all; link localetc /etc"),
    ("containerd WhiteoutDirectoryName", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("etc/whitedout", "x"), ("localetc", "link:/etc")], &[(".wh.etc/somefile", "non-empty")]], REFUSED),
    ("containerd WhiteoutDeadSymlinkParent", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:/dne")], &[("localetc/.wh.etc", "")]], "dir etc; file etc/passwd all; link localetc /dne"),
    ("containerd WhiteoutRelativePath", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("localetc", "link:/dne")], &[("dne/../.wh.etc", "")]], "link localetc /dne"),
    ("containerd SymlinkOverridePath", &[&[("foo", "dir:755"), ("foo/tmp", "dir:755"), ("foo/tmp/b", "012"), ("foo", "link:/"), ("foo/tmp/b", "345"), ("foo", "dir:755"), ("foo/tmp", "dir:755"), ("foo/tmp/b", "678")]], "dir foo; dir foo/tmp; dir tmp; file foo/tmp/b 678; file tmp/b 345"),
    ("containerd HardlinkSymlinkBeforeCreateTarget", &[&[("etc", "dir:755"), ("localpasswd", "link:/etc/passwd"), ("localpasswd-dup", "hard:localpasswd"), ("/etc/passwd", "after")]], "dir etc; file etc/passwd after; link localpasswd /etc/passwd; same localpasswd-dup localpasswd"),
    ("containerd HardlinkSymlinkRelative", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("passwdlink", "link:../../../../../etc/passwd"), ("localpasswd", "hard:/passwdlink")]], "dir etc; file etc/passwd all; link localpasswd ../../../../../etc/passwd; same passwdlink localpasswd"),
    ("containerd HardlinkSymlinkAbsolute", &[&[("etc", "dir:755"), ("etc/passwd", "all"), ("passwdlink", "link:/etc/passwd"), ("localpasswd", "hard:/passwdlink")]], "dir etc; file etc/passwd all; link localpasswd /etc/passwd; same passwdlink localpasswd"),
    ("containerd HardlinkSymlinkChmod", &[&[("/outside/also", "link:/outside/perm400"), ("sketchylink", "hard:/outside/also")]], "dir outside; link sketchylink /outside/perm400; same outside/also sketchylink"),
    ("containerd DirectoryCreation", &[&[("etc", "dir:755")], &[("/etc/subdir", "dir:755"), ("/etc/subdir2/", "dir:755"), ("/etc/subdir2/more", "dir:755"), ("/other/noparent-1/1", "dir:755"), ("/other/noparent-2/2/", "dir:755")]], "dir etc; dir etc/subdir; dir etc/subdir2; dir etc/subdir2/more; dir other; dir other/noparent-1; dir other/noparent-1/1; dir other/noparent-2; dir other/noparent-2/2"),
    ("umoci SanitiseScoping GarbagePrefix", &[&[("/../file", "x")]], "file file x"),
    ("umoci SanitiseScoping DotDotPrefix", &[&[("../file", "x")]], REFUSED),
    ("umoci SymlinkScoping RootPrefix", &[&[("link", "link:/"), ("link/file", "x")]], "file file x; link link /"),
    ("umoci SymlinkScoping RootPrefix, in a layer of its own", &[&[("link", "link:/")], &[("link/file", "x")]], "file file x; link link /"),
    ("umoci SymlinkScoping GarbagePrefix1", &[&[("link", "link:/../"), ("link/file", "x")]], "file file x; link link /../"),
    ("umoci SymlinkScoping GarbagePrefix2", &[&[("link", "link:/../../../../../../../../../../../../../../../"), ("link/file", "x")]], "file file x; link link /../../../../../../../../../../../../../../../"),
    ("umoci SymlinkScoping GarbagePrefix3", &[&[("link", "link:/./.././.././.././.././.././.././.././.././../"), ("link/file", "x")]], "file file x; link link /./.././.././.././.././.././.././.././.././../"),
    ("umoci SymlinkScoping DotDotPrefix", &[&[("link", "link:.."), ("link/file", "x")]], "file file x; link link .."),
    ("umoci SymlinkScoping DotDotPrefix, in a layer of its own", &[&[("link", "link:..")], &[("link/file", "x")]], "file file x; link link .."),
    ("umoci NonDirParent", &[&[("nondir", "x"), ("nondir/foo/bar/baz", "y")]], REFUSED),
    ("umoci NonDirParent, in a layer of its own", &[&[("nondir", "x")], &[("nondir/foo/bar/baz", "y")]], "dir nondir; dir nondir/foo; dir nondir/foo/bar; file nondir/foo/bar/baz y"),
    ("umoci ParentDir", &[&[("a/b/c/file", "x")]], "dir a; dir a/b; dir a/b/c; file a/b/c/file x"),
    ("umoci EmptyWhiteoutName-Root", &[&[("etc", "dir:755"), ("etc/passwd", "all")], &[(".wh.", "")]], REFUSED),
    ("umoci EmptyWhiteoutName", &[&[("some/path", "dir:755")], &[("some/path/.wh.", "")]], REFUSED),
    ("umoci FileInRoot", &[&[("rootpath", "x")], &[(".wh.rootpath", "")]], ""),
    ("umoci HiddenFileInRoot", &[&[(".hiddenroot", "x")], &[(".wh..hiddenroot", "")]], ""),
    ("umoci FileInSubdir", &[&[("some/path/file", "x")], &[("some/path/.wh.file", "")]], "dir some; dir some/path"),
    ("umoci HiddenFileInSubdir", &[&[("another/path/.hiddenfile", "x")], &[("another/path/.wh..hiddenfile", "")]], "dir another; dir another/path"),
    ("umoci DirInRoot", &[&[("rootpath", "dir:755"), ("rootpath/file", "x")], &[(".wh.rootpath", "")]], ""),
    ("umoci HiddenDirInRoot", &[&[(".hiddenroot", "dir:755"), (".hiddenroot/file", "x")], &[(".wh..hiddenroot", "")]], ""),
    ("umoci DirInSubdir", &[&[("some/path/dir", "dir:755"), ("some/path/dir/file", "x")], &[("some/path/.wh.dir", "")]], "dir some; dir some/path"),
    ("umoci HiddenDirInSubdir", &[&[("another/path/.hiddendir", "dir:755"), ("another/path/.hiddendir/file", "x")], &[("another/path/.wh..hiddendir", "")]], "dir another; dir another/path"),
    ("umoci Opaque EmptyDir", &[&[("dir", "dir:755")], &[("dir/.wh..wh..opq", "")]], "dir dir"),
    ("umoci Opaque OneLevel", &[&[("dir", "dir:755"), ("dir/file", "x"), ("dir/link", "link:.."), ("dir/badlink", "link:./nothing"), ("dir/fifo", "pipe")], &[("dir/.wh..wh..opq", ""), ("dir/link", "link:.."), ("dir/badlink", "link:./nothing")]], "dir dir; link dir/badlink ./nothing; link dir/link .."),
    ("umoci Opaque OneLevelNoUpper", &[&[("dir", "dir:755"), ("dir/file", "x"), ("dir/link", "link:.."), ("dir/badlink", "link:./nothing"), ("dir/fifo", "pipe")], &[("dir/.wh..wh..opq", "")]], "dir dir"),
    ("umoci Opaque TwoLevel", &[&[("dir", "dir:755"), ("dir/file", "x"), ("dir/link", "link:.."), ("dir/badlink", "link:./nothing"), ("dir/dir", "dir:755"), ("dir/dir/file", "x"), ("dir/dir/link", "link:../badlink"), ("dir/dir/verybadlink", "link:../../../../../../../../../../../../etc/shadow"), ("dir/dir/verybadlink2", "link:/../../../../../../../../../../../../etc/shadow")], &[("dir/.wh..wh..opq", ""), ("dir/file", "x"), ("dir/dir", "dir:755"), ("dir/dir/file", "x"), ("dir/dir/verybadlink", "link:../../../../../../../../../../../../etc/shadow")]], "dir dir; dir dir/dir; file dir/dir/file x; file dir/file x; link dir/dir/verybadlink ../../../../../../../../../../../../etc/shadow"),
    ("umoci Opaque TwoLevelNoUpper", &[&[("dir", "dir:755"), ("dir/file", "x"), ("dir/link", "link:.."), ("dir/badlink", "link:./nothing"), ("dir/dir", "dir:755"), ("dir/dir/file", "x"), ("dir/dir/link", "link:../badlink"), ("dir/dir/verybadlink", "link:../../../../../../../../../../../../etc/shadow"), ("dir/dir/verybadlink2", "link:/../../../../../../../../../../../../etc/shadow")], &[("dir/.wh..wh..opq", "")]], "dir dir"),
    ("umoci Opaque MultiLevel", &[&[("dir", "dir:755"), ("dir/level1_file", "x"), ("dir/level1_link", "link:.."), ("dir/level1a", "dir:755"), ("dir/level1a/level2_file", "x"), ("dir/level1a/level2_link", "link:../../../"), ("dir/level1a/level2a", "dir:755"), ("dir/level1a/level2a/level3_fileA", "x"), ("dir/level1a/level2a/level3_fileB", "x"), ("dir/level1a/level2b", "dir:755"), ("dir/level1a/level2b/level3_fileA", "x"), ("dir/level1a/level2b/level3_fileB", "x"), ("dir/level1a/level2b/level3", "dir:755"), ("dir/level1a/level2b/level3/level4", "dir:755"), ("dir/level1b", "dir:755"), ("dir/level1b/level2_fileA", "x"), ("dir/level1b/level2_fileB", "x"), ("dir/level1b/level2", "dir:755"), ("dir/level1b/level2/level3_file", "x")], &[("dir/.wh..wh..opq", ""), ("dir/level1_file", "x"), ("dir/level1a", "dir:755"), ("dir/level1a/level2_link", "link:../../../"), ("dir/level1a/level2b", "dir:755"), ("dir/level1a/level2b/level3_fileA", "x")]], "dir dir; dir dir/level1a; dir dir/level1a/level2b; file dir/level1_file x; file dir/level1a/level2b/level3_fileA x; link dir/level1a/level2_link ../../../"),
    ("umoci Opaque MultiLevelNoUpper", &[&[("dir", "dir:755"), ("dir/level1_file", "x"), ("dir/level1_link", "link:.."), ("dir/level1a", "dir:755"), ("dir/level1a/level2_file", "x"), ("dir/level1a/level2_link", "link:../../../"), ("dir/level1a/level2a", "dir:755"), ("dir/level1a/level2a/level3_fileA", "x"), ("dir/level1a/level2a/level3_fileB", "x"), ("dir/level1a/level2b", "dir:755"), ("dir/level1a/level2b/level3_fileA", "x"), ("dir/level1a/level2b/level3_fileB", "x"), ("dir/level1a/level2b/level3", "dir:755"), ("dir/level1a/level2b/level3/level4", "dir:755"), ("dir/level1b", "dir:755"), ("dir/level1b/level2_fileA", "x"), ("dir/level1b/level2_fileB", "x"), ("dir/level1b/level2", "dir:755"), ("dir/level1b/level2/level3_file", "x")], &[("dir/.wh..wh..opq", "")]], "dir dir"),
    ("umoci Opaque MissingUpperAncestor", &[&[("dir", "dir:755"), ("dir/some", "dir:755"), ("dir/some/dir", "dir:755"), ("dir/some/dir/somewhere", "x"), ("dir/another", "dir:755"), ("dir/another/dir", "dir:755"), ("dir/another/dir/somewhere", "x")], &[("dir/.wh..wh..opq", ""), ("dir/some/dir/somewhere", "x")]], "dir dir; dir dir/some; dir dir/some/dir; file dir/some/dir/somewhere x"),
    ("umoci Opaque UpperWhiteout", &[&[("dir", "dir:755"), ("dir/fileA", "x"), ("dir/fileB", "x"), ("dir/fileC", "x")], &[("dir/.wh..wh..opq", ""), ("dir/.wh.fileB", ""), ("dir/fileA", "x"), ("dir/fileB", "x"), ("dir/.wh.fileA", ""), ("dir/.wh.fileC", "")]], "dir dir; file dir/fileA x; file dir/fileB x"),
    ("umoci Opaque UpperDirWhiteout", &[&[("dir", "dir:755"), ("dir/file", "x"), ("dir/dir1", "dir:755"), ("dir/dir1/file", "x"), ("dir/dir1/link", "link:../badlink"), ("dir/dir1/verybadlink", "link:../../etc/shadow"), ("dir/dir2", "dir:755"), ("dir/dir2/file", "x"), ("dir/dir2/link", "link:../badlink")], &[("dir/.wh..wh..opq", ""), ("dir/.wh.dir2", ""), ("dir/dir1", "dir:755"), ("dir/dir1/file", "x"), ("dir/dir1/verybadlink", "link:../../etc/shadow"), ("dir/.wh.dir1", ""), ("dir/dir2", "dir:755"), ("dir/dir2/file", "x")]], "dir dir; dir dir/dir1; dir dir/dir2; file dir/dir1/file x; file dir/dir2/file x; link dir/dir1/verybadlink ../../etc/shadow"),
    ("umoci Hardlink", &[&[("regular", "x"), ("hard link", "hard:/regular"), ("link", "link:../../../regular"), ("hard link to symlink", "hard:../../../link")]], REFUSED),
    ("umoci Hardlink, inside", &[&[("regular", "x"), ("hard link", "hard:/regular"), ("link", "link:../../../regular"), ("hard link to symlink", "hard:/link")]], "file hard link x; link hard link to symlink ../../../regular; same link hard link to symlink; same regular hard link"),
    ("umoci Overlayfs Whiteout_MissingDirs OpaqueNoParent", &[&[("opaque-noparent/a/b/c/old", "x")], &[("opaque-noparent/a/b/c/.wh..wh..opq", "")]], "dir opaque-noparent; dir opaque-noparent/a; dir opaque-noparent/a/b; dir opaque-noparent/a/b/c"),
    ("umoci Overlayfs Whiteout_MissingDirs WhiteoutNoParent", &[&[("whiteout-noparent/a/b/c", "x")], &[("whiteout-noparent/a/b/.wh.c", "")]], "dir whiteout-noparent; dir whiteout-noparent/a; dir whiteout-noparent/a/b"),
    ("umoci Overlayfs Whiteout_MissingDirs WhiteoutNoParent, of nothing", &[&[("f", "x")], &[("whiteout-noparent/a/b/.wh.c", "")]], "dir whiteout-noparent; dir whiteout-noparent/a; dir whiteout-noparent/a/b; file f x"),
    ("umoci Overlayfs Whiteout_MissingDirs OpaqueNonDir", &[&[("opaque-nondir", "x"), ("opaque-nondir/.wh..wh..opq", "")]], REFUSED),
    ("umoci Overlayfs Whiteout_MissingDirs OpaqueWhiteout", &[&[("opaque-whiteout/old", "x")], &[(".wh.opaque-whiteout", ""), ("opaque-whiteout/.wh..wh..opq", "")]], "dir opaque-whiteout"),
    ("umoci Overlayfs Whiteout_Nested OpaqueInnerPlain", &[&[("opaque-innerplain/foo/bar/baz/before", "x"), ("opaque-innerplain/a/b/c/d/e/f/after", "x")], &[("opaque-innerplain/foo/bar/baz/.wh.before", ""), ("opaque-innerplain/regfile", "x"), ("opaque-innerplain/.wh..wh..opq", ""), ("opaque-innerplain/a/b/c/d/e/f/.wh.after", ""), ("opaque-innerplain/a/b/c/d/regfile", "x")]], "dir opaque-innerplain; dir opaque-innerplain/a; dir opaque-innerplain/a/b; dir opaque-innerplain/a/b/c; dir opaque-innerplain/a/b/c/d; dir opaque-innerplain/a/b/c/d/e; dir opaque-innerplain/a/b/c/d/e/f; dir opaque-innerplain/foo; dir opaque-innerplain/foo/bar; dir opaque-innerplain/foo/bar/baz; file opaque-innerplain/a/b/c/d/regfile x; file opaque-innerplain/regfile x"),
    ("umoci Overlayfs Whiteout_Nested OpaqueNested", &[&[("opaque-nested/a/b/c/d/old", "x"), ("opaque-nested/a/old", "x")], &[("opaque-nested/a/b/c/d/.wh..wh..opq", ""), ("opaque-nested/a/b/.wh..wh..opq", ""), ("opaque-nested/.wh..wh..opq", "")]], "dir opaque-nested; dir opaque-nested/a; dir opaque-nested/a/b; dir opaque-nested/a/b/c; dir opaque-nested/a/b/c/d"),
    ("umoci Overlayfs OpaqueWhiteoutConvert", &[&[("autoconvert-opaquedir/old", "x")], &[("autoconvert-opaquedir/before", "x"), (".wh.autoconvert-opaquedir", ""), ("autoconvert-opaquedir/foo/bar", "x"), ("autoconvert-opaquedir/abc/def", "x")]], "dir autoconvert-opaquedir; dir autoconvert-opaquedir/abc; dir autoconvert-opaquedir/foo; file autoconvert-opaquedir/abc/def x; file autoconvert-opaquedir/before x; file autoconvert-opaquedir/foo/bar x"),
];

/// A tree in one line: kind, name, and what it holds.
fn shown(root: &Path) -> String {
    let mut pieces = Vec::new();
    let mut first: HashMap<(u64, u64), String> = HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let mut paths: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                pieces.push(format!("listed only {name}"));
                continue;
            };
            let kind = metadata.file_type();
            let other = first
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| name.clone());
            pieces.push(if kind.is_dir() {
                todo.push(path);
                format!("dir {name}")
            } else if *other != name {
                format!("same {name} {other}")
            } else if kind.is_symlink() {
                format!("link {name} {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_fifo() {
                format!("pipe {name}")
            } else {
                format!("file {name} {}", std::fs::read_to_string(&path).unwrap())
                    .trim_end()
                    .to_owned()
            });
        }
    }
    pieces.sort();
    pieces.join("; ")
}

pub(crate) fn the_archives_of_containerds_and_umocis_tests_show_what_is_said(kind: Kind) {
    let Some(place) = Place::new("the archives of peers", kind) else {
        return;
    };
    let mut wrong = Vec::new();
    for (number, (name, layers, wanted)) in CASES.iter().enumerate() {
        let stack: Result<Vec<_>, _> = layers
            .iter()
            .map(|entries| {
                let tar = tar(entries);
                let unpacked = place.layers.unpack(tar.as_slice(), &Unpack::default());
                unpacked.map(|unpacked| unpacked.layer.diff_id())
            })
            .collect();
        let found = match stack {
            Err(_) => REFUSED.to_owned(),
            Ok(stack) => {
                let view = place.snapshots.view(&format!("case-{number}"), &stack).unwrap();
                let mounted = view.mount(&place.mnt()).unwrap();
                let found = shown(mounted.path());
                mounted.unmount().unwrap();
                let active = place.snapshots.prepare("untouched", &stack).unwrap().volatile();
                let mounted = active.mount(&place.mnt()).unwrap();
                assert_eq!(shown(mounted.path()), found, "{name}: written to");
                mounted.unmount().unwrap();
                let layer = place.snapshots.capture(active, &Capture::default()).unwrap();
                assert_eq!(layer.diff_id().to_string(), EMPTY, "{name}: nothing was changed");
                found
            }
        };
        if found != *wanted {
            wrong.push(format!("{name}: {found}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{} cases", CASES.len());
}
