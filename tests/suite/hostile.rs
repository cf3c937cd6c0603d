//! Archives that nobody should accept: one clear error, exit code 1, nothing left.

use std::fs;
use std::io::Write;

use dhow_testkit::{Tar, gzip};

use crate::samples::{busybox_tar, docker_archive, oci_archive};
use crate::world::{Ran, World};

/// A header of a file that claims to be of this size, with binary numbers; nothing follows.
fn claims(size: u64) -> Vec<u8> {
    let mut header = Tar::new().file("big", 0o644, b"").finish();
    header.truncate(512);
    header[124] = 0x80;
    header[125..128].fill(0);
    header[128..136].copy_from_slice(&size.to_be_bytes());
    seal(&mut header);
    header
}

/// An old GNU sparse entry: `real` bytes by name, none by body.
fn sparse(real: u64) -> Vec<u8> {
    let mut header = Tar::new().entry("sparse", b'S', 0o644, "", b"").finish();
    header.truncate(512);
    header[257..265].copy_from_slice(b"ustar  \0");
    header[345..].fill(0);
    header[483] = 0x80;
    header[487..495].copy_from_slice(&real.to_be_bytes());
    seal(&mut header);
    header
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A pax header with one record before a file.
fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    Tar::new()
        .entry("pax", b'x', 0o644, "", format!("{length}{rest}").as_bytes())
        .file("f", 0o644, b"x")
        .finish()
}

/// Must be refused.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let file = |name: &str| Tar::new().file(name, 0o644, b"x").finish();
    let cut = |tar: Vec<u8>, length: usize| tar[..length].to_vec();
    let big = Tar::new().file("f", 0o644, &[7; 5000]).finish();
    let mut sum = file("f");
    sum[148] ^= 1;
    let mut octal = file("f");
    octal[124..135].copy_from_slice(b"99999999999");
    seal(&mut octal[..512]);
    vec![
        ("a name that climbs", file("../../up")),
        ("a name that climbs in the middle", file("a/../../../up")),
        (
            "a hard link that climbs",
            Tar::new().hardlink("l", "../../etc/shadow").finish(),
        ),
        (
            "a hard link to nothing",
            Tar::new().hardlink("l", "nothing").finish(),
        ),
        (
            "a hard link to a folder",
            Tar::new().directory("d", 0o755).hardlink("l", "d").finish(),
        ),
        ("a hard link to itself", Tar::new().hardlink("l", "l").finish()),
        (
            "a whiteout that climbs",
            Tar::new().file(".wh..", 0o644, b"").finish(),
        ),
        (
            "a whiteout of nothing",
            Tar::new().file("a/.wh.", 0o644, b"").finish(),
        ),
        ("an end in a header", cut(big.clone(), 300)),
        ("an end in a body", cut(big, 2000)),
        ("a wrong checksum", sum),
        ("a size that is no number", octal),
        ("a terabyte that does not come", claims(1 << 40)),
        ("more than a file can be", claims(u64::MAX)),
        ("a sparse file of a terabyte", sparse(1 << 40)),
        ("a sparse file of exabytes", sparse(1 << 62)),
        ("noise", crate::samples::noise(20_000, 3)),
        ("noise in gzip", gzip(&crate::samples::noise(20_000, 4))),
        ("text", b"this is no archive".repeat(100)),
        ("gzip that is cut", cut(gzip(&busybox_tar()), 200_000)),
        ("a gzip head alone", b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec()),
        ("a zstd head alone", b"\x28\xb5\x2f\xfd\x04".to_vec()),
        ("an xz head alone", b"\xfd7zXZ\0".to_vec()),
        ("a pax size that is no number", pax("size", "-1")),
        ("a pax path that climbs", pax("path", "../../../up")),
        ("a pax size beyond the end", pax("size", "99999999999999")),
        (
            "an unknown kind of entry",
            Tar::new().entry("f", b'Q', 0o644, "", b"").finish(),
        ),
        ("a name with a NUL by pax", pax("path", "a\0b")),
        (
            "a long name that is endless",
            Tar::new()
                .entry("@", b'L', 0o644, "", &vec![b'a'; 3_000_000])
                .finish(),
        ),
    ]
}

#[test]
fn a_hostile_tar_is_refused_once_and_leaves_nothing() {
    World::of_each_back_end().iter().for_each(hostile_tars);
}

fn hostile_tars(world: &World) {
    let mut wrong = Vec::new();
    for (what, tar) in refused() {
        let ran = world.feed(&["import", "-", "bad"], tar);
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("dhow: "))
            .count();
        if ran.code != 1 || errors != 1 || ran.stderr.contains("panicked") {
            wrong.push(format!("{what}: exit {}: {}", ran.code, ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing(world);
    assert!(!world.path("up").exists() && !world.root().join("up").exists());
}

#[test]
fn an_odd_tar_stays_inside() {
    World::of_each_back_end().iter().for_each(odd_tars);
}

fn odd_tars(world: &World) {
    let bin = busybox_tar();
    let base = || Tar::new().raw(&bin[..bin.len() - 1024]);
    let outside = world.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let out = outside.display().to_string();
    let cases = [
        ("absolute names", base().file("/abs", 0o644, b"x").finish()),
        (
            "an absolute link out, then a file through it",
            base().symlink("way", &out).file("way/x", 0o644, b"x").finish(),
        ),
        (
            "a relative link out",
            base()
                .symlink("way", "../../../../../../tmp")
                .file("way/dhow-escaped", 0o644, b"x")
                .finish(),
        ),
        (
            "an absolute hard link",
            base().file("f", 0o644, b"x").hardlink("l", "/f").finish(),
        ),
        (
            "a link over a folder",
            base()
                .directory("d", 0o755)
                .symlink("d", &out)
                .file("d/x", 0o644, b"x")
                .finish(),
        ),
    ];
    for (what, tar) in cases {
        let ran = world.feed(&["import", "-", "odd"], tar);
        assert!(
            ran.code == 0 || ran.stderr.starts_with("dhow: "),
            "{what}: {ran:?}"
        );
        if ran.code == 0 {
            world.say("run --rm --network none odd true").exits(0);
        }
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{what}: a file came out"
        );
        assert!(
            !std::path::Path::new("/abs").exists() && !std::path::Path::new("/tmp/dhow-escaped").exists(),
            "{what}"
        );
        world.clean();
    }
}

#[test]
fn devices_in_an_image_give_no_access_to_the_hosts() {
    World::of_each_back_end().iter().for_each(devices_in_images);
}

fn devices_in_images(world: &World) {
    let bin = busybox_tar();
    let mut device = Tar::new().entry("disk", b'4', 0o666, "", b"").finish();
    device.truncate(512);
    // The memory of the kernel as a character device: 1, 1.
    device[156] = b'3';
    device[329..337].copy_from_slice(b"0000001\0");
    device[337..345].copy_from_slice(b"0000001\0");
    seal(&mut device);
    let tar = Tar::new().raw(&bin[..bin.len() - 1024]).raw(&device).finish();
    let ran = world.feed(&["import", "-", "device"], tar);
    if ran.code == 0 {
        world
            .say("run --rm --network none device head -c 1 /disk")
            .exits(1);
    } else {
        ran.one_error(1);
    }
    world.clean();
}

#[test]
fn a_bomb_is_refused() {
    let Some(world) = World::new() else { return };
    // A megabyte of zeros is a kilobyte of gzip: eight megabytes become eight gigabytes after the end of a whole
    // archive, where they cost no disk but would cost time without a bound.
    let mut bomb = gzip(&busybox_tar());
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zeros.write_all(&vec![0; 1 << 20]).unwrap();
    let zeros = zeros.finish().unwrap();
    for _ in 0..8192 {
        bomb.extend_from_slice(&zeros);
    }
    let ran = world.feed(&["import", "-", "bomb"], bomb).one_error(1);
    assert!(!ran.stderr.contains("o space left"), "{ran:?}");
    nothing(&world);
}

/// What `load` must refuse.
fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let layer = busybox_tar();
    let oci = |what: &'static str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        oci_archive("bad:1", &layer, &|name, bytes| {
            if name == what { change(bytes) } else { bytes }
        })
    };
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let replaced = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replacen(from, to, 1)
                .into_bytes()
        }
    };
    let manifest = |text: &str| Tar::new().file("manifest.json", 0o644, text.as_bytes()).finish();
    let docker = docker_archive("bad:1", &layer);
    let hostile = docker_archive("bad:1", &Tar::new().file("../../up", 0o644, b"x").finish());
    vec![
        ("a layer of another digest", oci("layer", &flip)),
        ("a config of another digest", oci("config", &flip)),
        ("a manifest of another digest", oci("manifest", &flip)),
        ("an index that is no JSON", oci("index", &|_| b"{".to_vec())),
        ("a digest of an unknown kind", oci("index", &replaced("sha256:", "md5:"))),
        ("a digest that is a path", oci("index", &replaced("sha256:", "sha256:../../"))),
        ("no manifest for this machine", oci("index", &replaced("\"manifests\":[{", "\"manifests\":[],\"x\":[{"))),
        ("no blob at all", Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", 0o644, br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":3}]}"#).finish()),
        ("an archive that is cut", docker[..docker.len() / 2].to_vec()),
        ("a manifest of docker that is no list", manifest("{}")),
        ("a manifest of docker that climbs", manifest(r#"[{"Config":"../../../etc/passwd","RepoTags":["bad:1"],"Layers":[]}]"#)),
        ("a manifest of docker with a bad name", manifest(r#"[{"Config":"c.json","RepoTags":["Bad Name"],"Layers":[]}]"#)),
        ("a manifest that names what is not there", manifest(r#"[{"Config":"c.json","RepoTags":["bad:1"],"Layers":["x"]}]"#)),
        ("a layer that climbs", hostile),
        ("a tar of something else", Tar::new().file("hello", 0o644, b"x").finish()),
        ("nothing", Vec::new()),
        ("deep JSON", manifest(&"[".repeat(200_000))),
        ("a manifest of 40 MB", manifest(&format!("[{}]", " ".repeat(40 << 20)))),
    ]
}

#[test]
fn a_hostile_archive_is_refused_once_and_leaves_nothing() {
    World::of_each_back_end().iter().for_each(hostile_archives);
}

fn hostile_archives(world: &World) {
    let mut wrong = Vec::new();
    for (what, tar) in archives() {
        let ran = world.feed(&["load"], tar);
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("dhow: "))
            .count();
        if ran.code != 1 || errors != 1 || ran.stderr.contains("panicked") || ran.stdout.contains("Loaded") {
            wrong.push(format!("{what}: exit {}: {}{}", ran.code, ran.stdout, ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing(world);
}

#[test]
fn a_hostile_passwd_in_an_image_is_no_more_than_an_error() {
    World::of_each_back_end().iter().for_each(hostile_passwds);
}

fn hostile_passwds(world: &World) {
    let bin = busybox_tar();
    let base = || Tar::new().raw(&bin[..bin.len() - 1024]);
    let run = |tar: Vec<u8>| -> Ran {
        world.feed(&["import", "-", "odd"], tar).ok();
        world.say("run --rm --network none -u eve odd id -u")
    };
    run(base()
        .symlink("etc/passwd", "/proc/self/root/etc/shadow")
        .finish())
    .one_error(125);
    run(base()
        .file("etc/passwd", 0o644, b"eve:x:99999999999:0::/:/bin/sh\n")
        .finish())
    .one_error(125);
    run(base().file("etc/passwd", 0o644, &b"x".repeat(20 << 20)).finish()).one_error(125);
    run(base().entry("etc/passwd", b'6', 0o644, "", b"").finish()).one_error(125);
    assert_eq!(
        run(base()
            .file(
                "etc/passwd",
                0o644,
                b"\xff\xfe:::\n:::::\neve:x:77:0::/:/bin/sh\n"
            )
            .finish())
        .ok(),
        "77"
    );
    world.clean();
}

#[track_caller]
fn nothing(world: &World) {
    assert_eq!(world.say("images -qa").ok(), "");
    world.clean();
    // Whole layers of what was refused later may stay for the next try; a prune takes them.
    world.say("system prune -af").exits(0);
    for place in ["tmp", "layers", "blobs/sha256", "snapshots"] {
        let left: Vec<_> = crate::world::names(&world.root().join(place))
            .into_iter()
            .filter(|name| !name.starts_with('.'))
            .filter(|name| {
                crate::world::names(&world.root().join(place).join(name)).len() + usize::from(name.len() > 2)
                    > 0
            })
            .collect();
        assert_eq!(left, Vec::<String>::new(), "left in {place}");
    }
}
