//! User namespaces of a normal user's containers, which are made in that of the user.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::unprivileged::Nobody;
use crate::world::{Ran, eventually};

/// The user outside.
const NOBODY: u32 = 65_534;

fn sh(nobody: &Nobody, flags: &str, script: &str) -> Ran {
    sh_in(nobody, "box", flags, script)
}

fn sh_in(nobody: &Nobody, image: &str, flags: &str, script: &str) -> Ran {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags.split_whitespace());
    args.extend([image, "sh", "-c", script]);
    nobody.dhow(&args)
}

/// A tar of these: path, mode, owner and group; a folder's path ends in a slash.
fn tar_of(entries: &[(&str, u32, u64, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, uid, gid) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(match path.ends_with('/') {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*gid);
        header.set_size(0);
        builder.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The entries of a tar with their owners.
fn owners_in(tar: &[u8]) -> Vec<(String, u64, u64)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let path = path.trim_end_matches('/').to_owned();
        (path, entry.header().uid().unwrap(), entry.header().gid().unwrap())
    });
    entries.collect()
}

fn lines(ran: Ran) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    ran.ok().lines().map(words).collect()
}

/// An image of the tar on top of busybox.
fn image(nobody: &Nobody, name: &str, tar: Vec<u8>) {
    let folder = nobody.world.path("home").join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("layer.tar"), tar).unwrap();
    fs::write(folder.join("Dockerfile"), "FROM box\nADD layer.tar /\n").unwrap();
    nobody
        .say(&format!("build -q -t {name} {}", folder.display()))
        .exits(0);
}

/// Folders of copies of layers for other owners.
fn copies(nobody: &Nobody) -> usize {
    let layers = nobody.world.path("home/.local/share/dhow/layers");
    let names = |path: &std::path::Path| {
        crate::world::names(path)
            .into_iter()
            .map(|name| path.join(name))
            .collect::<Vec<_>>()
    };
    names(&layers)
        .iter()
        .flat_map(|part| names(part))
        .map(|layer| crate::world::names(&layer.join("owners")).len())
        .sum()
}

#[test]
fn unprivileged_a_container_has_a_user_namespace_of_its_own() {
    let Some(nobody) = Nobody::with_ids() else { return };
    let tar = tar_of(&[("w/", 0o2755, 33, 34), ("w/set", 0o4755, 35, 36)]);
    image(&nobody, "owned", tar);
    let mine = nobody.world.path("home/mine");
    fs::create_dir(&mine).unwrap();
    std::os::unix::fs::chown(&mine, Some(NOBODY), Some(NOBODY)).unwrap();
    let bind = format!("-v {}:/mine", mine.display());
    let script = "cat /proc/self/uid_map; echo $(id -u) $(id -g); stat -c '%a %u:%g' / /bin /etc/hosts /w /w/set; \
                  stat -c %u:%g /mine; touch /tmp/t; stat -c %u:%g /tmp/t";
    let seen = |flags: &str| lines(sh_in(&nobody, "owned", &format!("{bind} {flags}"), script));
    let files = ["755 0:0", "755 0:0", "644 0:0", "2755 33:34", "4755 35:36"];
    assert_eq!(
        seen("--userns keep-id"),
        [
            &["0 1 65534", "65534 0 1", "65535 65535 2", "65534 65534"],
            &files[..],
            &["65534:65534", "65534:65534"]
        ]
        .concat()
    );
    assert_eq!(
        seen("--userns keep-id:uid=1000,gid=50,size=2000"),
        [
            &["0 1 1000", "1000 0 1", "1001 1001 1000", "1000 50"],
            &files[..],
            &["1000:50", "1000:50"]
        ]
        .concat()
    );
    assert_eq!(
        seen("--userns keep-id --user 0"),
        [
            &["0 1 65534", "65534 0 1", "65535 65535 2", "0 0"],
            &files[..],
            &["65534:65534", "0:0"]
        ]
        .concat()
    );
    // The user is nobody in these.
    for (flags, map) in [
        ("--userns nomap", "0 1 65536"),
        ("--userns auto", "0 1 1024"),
        ("--userns auto:size=300", "0 1 300"),
        ("--uidmap 0:7:100", "0 7 100"),
    ] {
        assert_eq!(
            seen(flags),
            [&[map, "0 0"], &files[..], &["65534:65534", "0:0"]].concat(),
            "{flags}"
        );
    }
    nobody
        .feed(&["secret", "create", "word", "-"], b"x".to_vec())
        .ok();
    let secret = "--userns keep-id --secret word --secret word,target=other,uid=7,gid=8,mode=0400";
    let seen_secret = sh(&nobody, secret, "cd /run/secrets; stat -c '%a %u:%g' word other");
    assert_eq!(seen_secret.ok(), "444 0:0\n400 7:8");
    // What is written to a folder of the host belongs to whom the user is inside.
    let user = format!("{bind} --userns keep-id:uid=1000,gid=50");
    sh(&nobody, &user, "touch /mine/new").ok();
    let status = fs::metadata(mine.join("new")).unwrap();
    assert_eq!((status.uid(), status.gid()), (NOBODY, NOBODY));
    nobody.say("system check").ok();
}

/// Programs ask for the name of their user: where the image knows none, the host's is added.
#[test]
fn unprivileged_who_is_kept_has_a_name() {
    let Some(nobody) = Nobody::with_ids() else { return };
    let name = |id: &str| {
        let ran = std::process::Command::new("getent").args([id, "65534"]).output();
        let line = String::from_utf8(ran.unwrap().stdout).unwrap();
        line.split(':').next().unwrap().to_owned()
    };
    let (user, group) = (name("passwd"), name("group"));
    let script = "id -un; id -gn; echo $HOME; stat -c '%a %u:%g' /etc/passwd /etc/group";
    let seen = sh(&nobody, "--userns keep-id -w /tmp", script).ok();
    assert_eq!(seen, format!("{user}\n{group}\n/tmp\n644 0:0\n644 0:0"));
    let line = "grep -c :65534: /etc/passwd";
    nobody
        .dhow(&[
            "run",
            "--name",
            "con",
            "--network",
            "none",
            "--userns",
            "keep-id",
            "box",
            "sh",
            "-c",
            line,
        ])
        .prints("1");
    assert_eq!(nobody.say("start -a con").ok(), "1");
    // Whom the image has keeps that name; others are nobody's to name.
    assert_eq!(
        sh(&nobody, "--userns keep-id:uid=1000,gid=1000", "id -un").ok(),
        "ada"
    );
    assert_eq!(
        sh(&nobody, "--userns nomap", &format!("{line} || true")).ok(),
        "0"
    );
}

#[test]
fn unprivileged_what_a_mapped_container_wrote_has_the_ids_inside_wherever_it_goes() {
    let Some(nobody) = Nobody::with_ids() else { return };
    nobody
        .say("run -d --name con --network none --userns keep-id -v data:/data box sleep 600")
        .ok();
    let exec = |user: &str, script: &str| {
        nobody
            .dhow(&["exec", "--user", user, "con", "sh", "-c", script])
            .ok()
    };
    exec(
        "0",
        "mkdir /w && chmod 777 /w && rm /bin/stty && chown 9:10 /home",
    );
    assert_eq!(
        exec("7:8", "echo 7 >/w/seven; stat -c %u:%g /w/seven /data/seed"),
        "7:8\n0:0"
    );
    let there = tar_of(&[("there", 0o644, 11, 12)]);
    nobody.feed(&["cp", "-", "con:/w"], there).ok();
    let owners = "stat -c %u:%g / /w /w/seven /w/there /home";
    let all = "0:0\n0:0\n7:8\n11:12\n9:10";
    assert_eq!(exec("0", owners), all);
    let listed = |ran: &Ran| owners_in(&ran.bytes);
    let out = nobody.say("cp con:/w/there -").exits(0);
    assert_eq!(listed(&out), [("there".to_owned(), 11, 12)]);

    // When it does not run, and when it runs again.
    nobody.say("stop -t 0 con").ok();
    let out = nobody.say("cp con:/w -").exits(0);
    let folder = [
        ("w".to_owned(), 0, 0),
        ("w/seven".to_owned(), 7, 8),
        ("w/there".to_owned(), 11, 12),
    ];
    assert_eq!(listed(&out), folder);
    let more = tar_of(&[("more", 0o644, 13, 14)]);
    nobody.feed(&["cp", "-", "con:/w"], more).ok();
    nobody.say("start con").ok();
    assert_eq!(
        exec("0", &format!("{owners}; stat -c %u:%g /w/more")),
        format!("{all}\n13:14")
    );

    nobody.say("diff con").prints("D /bin/stty").prints("A /w/seven");
    nobody.say("commit con made").ok();
    let script = format!("{owners}; ls /bin/stty 2>/dev/null || echo gone");
    for flags in ["", "--userns nomap", "--userns keep-id"] {
        let seen = sh_in(&nobody, "made", flags, &script).ok();
        assert_eq!(seen, format!("{all}\ngone"), "{flags}");
    }
    let exported = listed(&nobody.say("export con").exits(0));
    assert!(exported.contains(&("w/seven".to_owned(), 7, 8)), "{exported:?}");
    assert!(exported.contains(&("home".to_owned(), 9, 10)), "{exported:?}");

    // Others come into it also when its monitor is gone.
    let pid = nobody.say("inspect -f {{.State.Pid}} con").ok();
    let monitor = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let monitor = monitor
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap();
    let monitor = rustix::process::Pid::from_raw(monitor.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    eventually("the monitor is gone", || {
        rustix::process::test_kill_process(monitor).is_err()
    });
    assert_eq!(exec("0", "id -u"), "0");
    nobody.say("rm -f con").ok();
    nobody.say("system check").ok();
}

/// A directory that a layer does not name looks as the layers below say, also in a copy with other owners.
#[test]
fn unprivileged_a_directory_that_is_implied_keeps_its_owner() {
    let Some(nobody) = Nobody::with_ids() else { return };
    let layers = [
        crate::samples::busybox_tar(),
        tar_of(&[("deep/", 0o1777, 5, 6)]),
        tar_of(&[("deep/f", 0o600, 7, 8)]),
    ];
    let archive = crate::samples::docker_archive_of("above", &layers);
    nobody.feed(&["load"], archive).ok();
    let script = "stat -c '%a %u:%g' /deep /deep/f";
    for flags in ["", "--userns nomap"] {
        let seen = sh_in(&nobody, "above", flags, script);
        assert_eq!(seen.ok(), "1777 5:6\n600 7:8", "{flags}");
    }
}

#[test]
fn unprivileged_auto_gives_ids_that_no_other_container_of_the_kind_has() {
    let Some(nobody) = Nobody::with_ids() else { return };
    nobody
        .say("create --name kept --network none --userns keep-id box true")
        .ok();
    let map = |name: &str, flags: &str| {
        nobody
            .say(&format!(
                "create --name {name} --network none {flags} box cat /proc/self/uid_map"
            ))
            .ok();
        let ran = nobody.say(&format!("start -a {name}"));
        lines(ran).join("; ")
    };
    assert_eq!(map("aa", "--userns auto:size=2000"), "0 1 2000");
    assert_eq!(map("bb", "--userns auto"), "0 2001 1024");
    nobody.say("rm aa").ok();
    assert_eq!(map("cc", "--userns auto:size=1500"), "0 1 1500");
    nobody
        .say("create --network none --userns auto:size=65000 box true")
        .one_error(125)
        .says("not enough unused IDs");
}

#[test]
fn unprivileged_a_layer_is_copied_once_for_each_mapping_and_goes_with_them() {
    let Some(nobody) = Nobody::with_ids() else { return };
    sh(&nobody, "", "true").ok();
    assert_eq!(copies(&nobody), 0);
    sh(&nobody, "--userns keep-id", "true").ok();
    sh(&nobody, "--userns keep-id", "true").ok();
    assert_eq!(copies(&nobody), 1);
    sh(&nobody, "--userns nomap", "true").ok();
    assert_eq!(copies(&nobody), 2);
    // What no container has goes when it is asked for.
    nobody
        .say("create --name con --network none --userns nomap box true")
        .ok();
    nobody.say("image prune -f").exits(0);
    assert_eq!(copies(&nobody), 1);
    nobody.say("start -a con").ok();
    nobody.say("rm con").ok();
    let before = nobody.say("system df --format {{.Size}}").ok();
    let ran = nobody.say("image prune -f").exits(0);
    assert!(!ran.stdout.contains("reclaimed space: 0B"), "{ran:?}");
    assert_ne!(nobody.say("system df --format {{.Size}}").ok(), before);
    assert_eq!(copies(&nobody), 0);
    sh(&nobody, "--userns nomap", "true").ok();
    assert_eq!(copies(&nobody), 1);
    nobody.say("rmi box").ok();
    assert_eq!(copies(&nobody), 0);
    nobody.say("system check").ok();
}

#[test]
fn unprivileged_what_a_user_namespace_cannot_have_is_said() {
    let Some(nobody) = Nobody::with_ids() else { return };
    let tar = tar_of(&[("far", 0o644, 5000, 5000)]);
    image(&nobody, "far", tar);
    for (flags, image, said) in [
        ("--userns auto:size=100", "far", "far belongs to 5000:5000"),
        (
            "--userns keep-id -v data:/data:idmap",
            "box",
            "only the host's root has",
        ),
        ("--subuidname nobody", "box", "--uidmap"),
        ("--uidmap 5:1:10", "box", "must have a user 0"),
        ("--uidmap 0:70000:10", "box", "uid_map"),
        (
            "--userns keep-id:uid=x",
            "box",
            "is none of uid=N, gid=N and size=N",
        ),
    ] {
        sh_in(&nobody, image, flags, "true").one_error(125).says(said);
    }
    let folder = nobody.world.path("home").display().to_string();
    nobody
        .say(&format!(
            "run --rm --network none --userns keep-id --rootfs {folder}:idmap true"
        ))
        .one_error(125)
        .says("only the host's root can make");
    // A user who has no further ids.
    fs::write(nobody.world.path("ranges"), "other:1:5\n").unwrap();
    eventually("the namespace of before is gone", || {
        let ran = sh(&nobody, "--userns keep-id", "true");
        ran.code == 125 && ran.stderr.contains("/etc/subuid") && ran.stderr.contains("needs further ids")
    });
}
