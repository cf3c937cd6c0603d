//! Every back end makes the same of a tar: what is refused, what is in the index, what the tree looks like.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use dhow_layer::{ContentHasher, EntryKind, Layer, Problem};
use dhow_rootpath::Root;

use crate::Place;
use crate::maker::{Header, Maker, header};

/// Numbers that look random, the same every time.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one_of<'a>(&mut self, choice: &[&'a str]) -> &'a str {
        choice[usize::try_from(self.below(choice.len() as u64)).unwrap()]
    }
}

/// Few names, so that entries meet: links in the way, files that become directories and the other way round.
fn name(noise: &mut Noise) -> String {
    let parts = ["a", "b", "l", "d", "up", ".wh.a", ".wh.l", ".wh..wh..opq"];
    let depth = 1 + noise.below(3);
    let path: Vec<&str> = (0..depth)
        .map(|at| {
            // Whiteouts come last in a path, mostly.
            let most = if at + 1 == depth || noise.below(20) == 0 {
                parts.len()
            } else {
                5
            };
            noise.one_of(&parts[..most])
        })
        .collect();
    path.join("/")
}

fn random_header(noise: &mut Noise, path: &str, flag: u8) -> Header {
    let mut made = header(path, flag);
    made.mode = u32::try_from(noise.below(0o10000)).unwrap();
    made.uid = u32::try_from(noise.below(3) * 1000).unwrap();
    made.gid = u32::try_from(noise.below(3) * 70_000).unwrap();
    made.mtime = noise.below(1 << 33);
    made
}

pub(crate) fn random_tar(noise: &mut Noise) -> Vec<u8> {
    let mut tar = Maker::new();
    for _ in 0..2 + noise.below(14) {
        let path = name(noise);
        if noise.below(4) == 0 {
            tar = tar.pax(&[("SCHILY.xattr.user.k", b"value of the attribute")]);
        }
        let target = noise.one_of(&["a", "b", "/a/b", "..", "../../d", "l", "d/a", "up"]);
        tar = match noise.below(9) {
            0 | 1 => {
                let content = vec![b'c'; usize::try_from(noise.below(3000)).unwrap()];
                let mut file = random_header(noise, &path, b'0');
                file.size = content.len() as u64;
                tar.header(&file).body(&content)
            }
            2 | 3 => tar.header(&random_header(noise, &path, b'5')),
            4 | 5 => tar.symlink(&path, target),
            6 => tar.hard_link(&path, &name(noise)),
            7 => {
                let flag = if noise.below(2) == 0 { b'3' } else { b'4' };
                let mut device = random_header(noise, &path, flag);
                device.device = (
                    u32::try_from(noise.below(300)).unwrap(),
                    u32::try_from(noise.below(300)).unwrap(),
                );
                tar.header(&device)
            }
            _ => tar.header(&random_header(noise, &path, b'6')),
        };
    }
    tar.end()
}

/// What can be seen of every name in a tree, from its root.
fn seen(layer: &Layer) -> Vec<(String, String)> {
    let root = layer.open().unwrap();
    let mut all = Vec::new();
    let mut todo = vec![Vec::new()];
    let mut links: std::collections::HashMap<u64, String> = std::collections::HashMap::new();
    while let Some(dir) = todo.pop() {
        for entry in root.read_dir(Path::new(OsStr::from_bytes(&dir))).unwrap() {
            let mut path: Vec<u8> = dir.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            let shown = String::from_utf8_lossy(&path).into_owned();
            let what = describe(&root, &path);
            let stat = root
                .symlink_metadata(Path::new(OsStr::from_bytes(&path)))
                .unwrap();
            if entry.kind == dhow_rootpath::FileKind::Directory {
                todo.push(path);
            } else {
                let first = links.entry(stat.st_ino).or_insert_with(|| shown.clone()).clone();
                all.push((format!("{shown} is"), first));
            }
            all.push((shown, what));
        }
    }
    all.sort();
    all
}

fn same_tree(one: &Layer, other: &Layer, what: &str) {
    let (one, other) = (seen(one), seen(other));
    assert_eq!(one.len(), other.len(), "{what}: more names, or fewer");
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other, "{what}");
    }
}

/// Every extended attribute of a name, as `key=[bytes]`, sorted.
pub(crate) fn attributes(root: &Root, path: &[u8]) -> Vec<String> {
    let shown = Path::new(OsStr::from_bytes(path));
    let (fd, last) = root.parent_of(shown).unwrap();
    let mut magic = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
    magic.extend_from_slice(last.as_bytes());
    let mut list = [0; 4096];
    let count = rustix::fs::llistxattr(magic.as_slice(), &mut list[..]).unwrap_or(0);
    let mut attributes: Vec<String> = list[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
        .map(|name| {
            let mut value = [0; 4096];
            let count =
                rustix::fs::lgetxattr(magic.as_slice(), OsStr::from_bytes(name), &mut value[..]).unwrap();
            format!("{}={:?}", String::from_utf8_lossy(name), &value[..count])
        })
        .collect();
    attributes.sort();
    attributes
}

fn describe(root: &Root, path: &[u8]) -> String {
    let shown = Path::new(OsStr::from_bytes(path));
    let stat = root.symlink_metadata(shown).unwrap();
    let attributes = attributes(root, path);
    let kind = dhow_rootpath::FileKind::of_mode(stat.st_mode);
    let content = match kind {
        dhow_rootpath::FileKind::File => ContentHasher::of(&root.read(shown, 1 << 20).unwrap()).to_string(),
        dhow_rootpath::FileKind::Symlink => root.read_link(shown).unwrap().display().to_string(),
        _ => String::new(),
    };
    let size = if kind == dhow_rootpath::FileKind::Directory {
        0
    } else {
        stat.st_size
    };
    let links = if kind == dhow_rootpath::FileKind::Directory {
        0
    } else {
        stat.st_nlink
    };
    // A whiteout says one thing only: not when, nor whose.
    let time = if (kind, stat.st_rdev) == (dhow_rootpath::FileKind::CharDevice, 0) {
        0
    } else {
        stat.st_mtime
    };
    format!(
        "{:o} {}:{} {size} {time} links {links} device {} {attributes:?} {content}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev
    )
}

/// An image is what the tools of erofs take for one.
fn fsck(layer: &Layer, what: &str) {
    let Ok(checked) = Command::new("fsck.erofs").arg(layer.image().unwrap()).output() else {
        return;
    };
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    if said.contains("blksize 512 isn't supported") {
        // erofs-utils before 1.6.
        return;
    }
    assert!(checked.status.success(), "{what}: {said}");
}

/// An image is written without a mount, so that this is also what a normal user's directories are compared with.
#[test]
fn tangled_tars_have_the_same_index_whoever_unpacks_them() {
    let (directories, images) = (Place::new(), Place::new());
    let root = images.store.root().to_owned();
    let images = dhow_layer::LayerStore::open_with(&root, dhow_layer::Backend::Erofs).unwrap();
    let mut noise = Noise(0x1234_5678_9abc_def1);
    for number in 0..200 {
        let tar = random_tar(&mut noise);
        let other = images.unpack(tar.as_slice(), &dhow_layer::Unpack::default());
        match (directories.unpack(&tar), other) {
            (Ok(one), Ok(other)) => {
                let entries = |layer: &Layer| layer.index().unwrap().entries().collect::<Vec<_>>();
                assert_eq!(entries(&one), entries(&other.layer), "tar {number}");
                assert_eq!(
                    directories.store.verify(&one.diff_id()).unwrap(),
                    [],
                    "tar {number}"
                );
            }
            (Err(one), Err(other)) => assert_eq!(one.kind(), other.kind(), "tar {number}"),
            (one, other) => panic!("tar {number}: {one:?}, but {other:?}"),
        }
    }
}

#[test]
fn a_thousand_tangled_tars_become_the_same_on_every_back_end() {
    let Some(erofs) = Place::erofs() else { return };
    let dirs = Place::new();
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let (mut kept, mut refused) = (0, 0);
    for case in 0..1000 {
        let tar = random_tar(&mut noise);
        let what = format!("case {case}");
        let (one, other) = (dirs.unpack(&tar), erofs.unpack(&tar));
        match (one, other) {
            (Ok(one), Ok(other)) => {
                kept += 1;
                let entries = |layer: &Layer| layer.index().unwrap().entries().collect::<Vec<_>>();
                assert_eq!(entries(&one), entries(&other), "{what}: another index");
                same_tree(&one, &other, &what);
                assert_eq!(
                    (one.size(), one.is_opaque()),
                    (other.size(), other.is_opaque()),
                    "{what}"
                );
                let mut again = Vec::new();
                other.tar().unwrap().read_to_end(&mut again).unwrap();
                assert!(again == tar, "{what}: another tar");
                assert_eq!(erofs.store.verify(&other.diff_id()).unwrap(), [], "{what}");
                if case % 10 == 0 {
                    fsck(&other, &what);
                }
            }
            (Err(one), Err(other)) => {
                refused += 1;
                assert_eq!(one.kind(), other.kind(), "{what}: {one:?} and {other:?}");
            }
            (one, other) => panic!("{what}: {one:?} and {other:?}"),
        }
    }
    assert!(kept > 150 && refused > 150, "{kept} kept, {refused} refused");
    erofs.assert_clean("tangled tars");
    dirs.assert_clean("tangled tars");
}

#[test]
fn large_directories_long_names_and_links_of_every_length_are_whole() {
    let Some(erofs) = Place::erofs() else { return };
    let mut tar = Maker::new();
    for number in 0..3000 {
        tar = tar.file(&format!("many/{number}"), &number.to_string().into_bytes());
    }
    for length in [1, 59, 60, 440, 447, 448, 449, 512, 1000, 4000] {
        let link = "t".repeat(length);
        tar = tar
            .extended(b'K', &[link.as_bytes(), b"\0"].concat())
            .symlink(&format!("link{length}"), "x");
    }
    let long = "n".repeat(255);
    tar = tar
        .extended(b'L', &[long.as_bytes(), b"\0"].concat())
        .file("x", &[7; 100_000]);
    let tar = tar.end();
    let layer = erofs.unpack(&tar).unwrap();
    assert_eq!(erofs.store.verify(&layer.diff_id()).unwrap(), []);
    let place = Place::new();
    same_tree(&place.unpack(&tar).unwrap(), &layer, "large directories");
    fsck(&layer, "large directories");
}

#[test]
fn damage_anywhere_in_an_image_is_found_without_harm() {
    let Some(erofs) = Place::erofs() else { return };
    let tar = Maker::new()
        .dir("d")
        .file("d/f", &[1; 5000])
        .symlink("l", "d")
        .end();
    let layer = erofs.unpack(&tar).unwrap();
    let path = layer.image().unwrap();
    let image = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let length = image.metadata().unwrap().len();
    for at in (0..length).step_by(97).chain([1024, 4096 + 1024]) {
        let mut byte = [0];
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let problems = erofs.store.verify(&layer.diff_id()).unwrap();
        assert!(!problems.is_empty(), "byte {at}");
        image.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(erofs.store.verify(&layer.diff_id()).unwrap(), []);
    let body = 4096 + 512 + 512 + 100;
    image.write_all_at(b"?", body).unwrap();
    let problems = erofs.store.verify(&layer.diff_id()).unwrap();
    let found = |what: &str| {
        problems
            .iter()
            .any(|Problem { path, .. }| path == what.as_bytes())
    };
    assert!(found("d/f"), "the damaged file has its name: {problems:?}");
    for cut in [0, 100, 4096, length / 2] {
        image.set_len(cut).unwrap();
        assert!(
            !erofs.store.verify(&layer.diff_id()).unwrap().is_empty(),
            "cut at {cut}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(!erofs.store.verify(&layer.diff_id()).unwrap().is_empty());
}

#[test]
fn an_image_has_the_disk_that_it_takes() {
    let Some(erofs) = Place::erofs() else { return };
    let layer = erofs
        .unpack(&Maker::new().file("f", &[3; 1 << 20]).end())
        .unwrap();
    let folder = layer.image().unwrap().parent().unwrap().to_owned();
    let mut bytes = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        bytes += std::os::unix::fs::MetadataExt::blocks(&file.unwrap().metadata().unwrap()) * 512;
    }
    assert!(
        layer.disk().abs_diff(bytes) <= 8192,
        "{} and {bytes}",
        layer.disk()
    );
    assert_eq!(layer.index().unwrap().find(b"f").unwrap().kind, EntryKind::File);
}
