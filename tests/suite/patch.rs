//! A vulnerability is mended in the image that brought it, and what derives from it inherits that.

use serde_json::{Value, json};

use crate::served::Served;
use crate::world::World;

/// Does to its database what apt-get does: `libssl3` becomes fixed, `curl` has nothing newer, `zlib` is delivered broken.
const APT: &str = r#"#!/bin/sh
case " $* " in
*" update "*) exit 0;;
*" --print-uris "*libssl3*)
    echo "'http://me:secret@deb.example/libssl3.deb' libssl3_3.0.18-1~deb12u1_amd64.deb 7 SHA256:$(printf %064d 7)"
    exit 0;;
*" --print-uris "*) exit 0;;
esac
for name in "$@"; do
    case $name in
        libssl3) new='3.0.18-1~deb12u1';;
        zlib) new='1.3';;
        *) continue;;
    esac
    sed -i "/^Package: $name\$/,/^\$/s/^Version: .*/Version: $new/" /var/lib/dpkg/status
    echo "$name $new" > /usr/lib/$name.so
    (cd / && md5sum usr/lib/$name.so) > /var/lib/dpkg/info/$name.md5sums
done
case " $* " in *" zlib "*) echo cut > /usr/lib/zlib.so;; esac
echo lists > /var/lib/apt/lists/some
"#;

fn stanza(name: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\nDescription: {name}\n of a test\n\n"
    )
}

pub(crate) fn osv(cve: &str, package: &str, fixed: Option<&str>) -> Value {
    let mut events = vec![json!({"introduced": "0"})];
    events.extend(fixed.map(|fixed| json!({"fixed": fixed})));
    json!({
        "id": format!("DEBIAN-{cve}"), "modified": "2026-01-01T00:00:00Z", "upstream": [cve],
        "affected": [{"package": {"ecosystem": "Debian:12", "name": package},
            "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    })
}

/// `base` has libssl3 and zlib, `middle` adds curl, `app` a file, `pinned` a libssl3.so of its own.
pub(crate) fn family() -> Option<World> {
    let world = World::with_busybox()?;
    let base = [stanza("libssl3", "3.0.17-1~deb12u2"), stanza("zlib", "1.2")].concat();
    world.file("status1", &base);
    world.file(
        "status2",
        format!("{base}{}", stanza("curl", "7.88.1-10+deb12u5")),
    );
    world.file("os-release", "ID=debian\nVERSION_ID=12\n");
    world.file("apt-get", APT);
    world.file("own", "mine\n");
    let images = [
        (
            "base",
            "FROM busybox\nCOPY --chmod=755 apt-get /usr/bin/apt-get\nCOPY os-release /etc/os-release\n\
             RUN mkdir -p /usr/lib /var/lib/apt/lists /var/cache/apt /var/log/apt /var/lib/dpkg/info && \
             echo old > /usr/lib/libssl3.so\nCOPY status1 /var/lib/dpkg/status\nONBUILD RUN echo once >> /triggered\n",
        ),
        (
            "middle",
            "FROM base\nCOPY status2 /var/lib/dpkg/status\nRUN echo tool > /usr/lib/curl.so\nENV A=1\n",
        ),
        (
            "app",
            "FROM middle\nCOPY own /srv/own\nUSER 1000\nCMD [\"cat\", \"/usr/lib/libssl3.so\"]\n",
        ),
        ("twin", "FROM middle\nENV B=2\n"),
        ("pinned", "FROM middle\nCOPY own /usr/lib/libssl3.so\n"),
    ];
    for (name, text) in images {
        world.file("Dockerfile", text);
        let folder = world.path("").display().to_string();
        world
            .dhow(&["build", "-q", "--network", "none", "-t", name, &folder])
            .exits(0);
    }
    let advisories = [
        osv("CVE-2026-1", "libssl3", Some("3.0.18-1~deb12u1")),
        osv("CVE-2026-2", "curl", Some("7.99")),
        osv("CVE-2026-3", "zlib", Some("1.3")),
        osv("CVE-2026-4", "curl", None),
    ];
    world.file("osv.json", json!(advisories).to_string());
    world
        .dhow(&["scan", "import", &world.path("osv.json").display().to_string()])
        .exits(0);
    Some(world)
}

pub(crate) fn json_of(world: &World, args: &[&str]) -> Value {
    let ran = world.dhow(args).exits(0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn layers(world: &World, image: &str) -> Vec<String> {
    let inspected = json_of(world, &["inspect", image]);
    let layers = inspected[0]["RootFS"]["Layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| layer.as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn images(world: &World) -> String {
    world
        .dhow(&[
            "images",
            "-a",
            "--no-trunc",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.ID}}",
        ])
        .exits(0)
        .stdout
}

fn assert_planned(world: &World) {
    let plan = json_of(
        world,
        &[
            "patch",
            "--dry-run",
            "--cascade",
            "--format",
            "json",
            "CVE-2026-1",
        ],
    );
    let steps: Vec<(&str, &str, usize)> = plan["Plan"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            (
                step["Image"].as_str().unwrap(),
                step["Follows"].as_str().unwrap_or("-"),
                step["Upgrades"].as_array().unwrap().len(),
            )
        })
        .collect();
    assert_eq!(steps[0], ("base:latest", "-", 1));
    assert!(steps.contains(&("twin:latest", "middle:latest", 0)), "{steps:?}");
    assert_eq!(steps.len(), 5);
}

fn assert_made(done: &Value) {
    for one in done["Patched"].as_array().unwrap() {
        assert_eq!(
            one["Changes"],
            json!([{"Package": "libssl3", "Old": "3.0.17-1~deb12u2", "New": "3.0.18-1~deb12u1"}]),
            "{one}"
        );
    }
    let of = |image: &str| {
        let mut patched = done["Patched"].as_array().unwrap().iter();
        patched.find(|one| one["Image"] == image).unwrap().clone()
    };
    assert_eq!(of("base:latest")["How"], "upgraded");
    assert_eq!(of("middle:latest")["How"], "followed");
    assert_eq!(of("middle:latest")["MergedLayers"], 1);
    assert_eq!(of("app:latest")["MergedLayers"], 0);
    // It has a library of its own, so nobody knows what it would be on the new base.
    assert_eq!(of("pinned:latest")["How"], "upgraded above the old base");
    let conflicts = of("pinned:latest")["Conflicts"].to_string();
    assert!(conflicts.contains("/usr/lib/libssl3.so"), "{conflicts}");
}

fn assert_nothing_is_left_in_them(world: &World) {
    // Triggers are for those who build on it, not for the patch.
    world
        .say("run --rm --network none base test ! -e /triggered")
        .exits(0);
    world
        .dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            "twin",
            "sh",
            "-c",
            "cat /triggered; echo $A$B",
        ])
        .exits(0)
        .prints("once\n12\n");
    // What the package manager left behind is no part of it.
    world
        .say("run --rm --network none base ls /var/lib/apt/lists")
        .exits(0)
        .prints("");
}

#[test]
fn a_patch_mends_the_image_that_brought_it_and_all_inherit_it() {
    let Some(world) = family() else { return };
    let before = layers(&world, "app");
    assert_planned(&world);
    world
        .say("run -d --network none --name old middle sleep 1000")
        .exits(0);
    let done = world
        .dhow(&[
            "patch",
            "--cascade",
            "--smoke",
            "test 1 -lt 2 && test \"$(cat <<'END'\nword\nEND\n)\" = word",
            "--format",
            "json",
            "CVE-2026-1",
        ])
        .exits(0)
        .says("container old still has the old middle:latest");
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_made(&done);
    // Nobody has it any more but what was superseded.
    let impact = json_of(&world, &["impact", "--format", "json", "CVE-2026-1"]);
    for hit in impact.as_array().unwrap() {
        let name = hit["Image"].as_str().unwrap();
        assert!(name.contains("-superseded-"), "{hit}");
    }
    let ran = world.say("run --rm --network none app").exits(0);
    assert_eq!(ran.stdout, "libssl3 3.0.18-1~deb12u1\n");
    // The application's own layer is the same, and what the middle added is there still.
    let after = layers(&world, "app");
    assert_eq!(after.last(), before.last());
    let packages = json_of(&world, &["sbom", "--format", "json", "app"]);
    let names: Vec<&str> = packages["Packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["Name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["curl", "libssl3", "zlib", "busybox"]);
    assert_nothing_is_left_in_them(&world);
    let tree = world.say("tree app").exits(0);
    assert!(tree.stdout.contains("└── middle:latest"), "{tree:?}");
    // A second time there is nothing left to do.
    world
        .say("patch --cascade CVE-2026-1")
        .exits(0)
        .says("nothing to do");
    world.say("rm -f old").exits(0);
    world.clean();
}

#[test]
fn without_cascade_only_the_line_of_the_image_is_patched() {
    let Some(world) = family() else { return };
    let pinned = layers(&world, "pinned");
    let plan = world
        .say("patch --dry-run CVE-2026-1")
        .exits(0)
        .says("app:latest derives from an image that is patched");
    assert_eq!(plan.stdout.lines().count(), 2, "{plan:?}");
    // All of an image that can be mended: what cannot is said, and a package that comes broken ends it.
    let before = images(&world);
    world
        .say("patch app")
        .one_error(1)
        .says("CVE-2026-4 in curl")
        .says("curl");
    assert_eq!(images(&world), before);
    world
        .say("patch CVE-2026-1 --smoke false")
        .one_error(1)
        .says("false");
    assert_eq!(images(&world), before);
    // Those before it came out well, and go again.
    world
        .dhow(&[
            "patch",
            "--cascade",
            "CVE-2026-1",
            "--smoke",
            "test ! -e /srv/own",
        ])
        .one_error(1)
        .says("app:latest: try");
    assert_eq!(images(&world), before);
    world.say("patch CVE-2026-1").exits(0);
    assert_eq!(layers(&world, "pinned"), pinned);
    world.clean();
}

#[test]
fn an_image_that_does_not_come_out_as_planned_takes_nobodys_place() {
    let Some(world) = family() else { return };
    let before = images(&world);
    world
        .say("patch --cascade CVE-2026-3")
        .one_error(1)
        .says("files are not what their packages say: /usr/lib/zlib.so");
    world
        .say("patch --cascade CVE-2026-2")
        .one_error(1)
        .says("it still has CVE-2026-2 in curl");
    world
        .say("patch CVE-2026-4")
        .exits(0)
        .says("no version of it mends this");
    world.say("patch CVE-1900-1").one_error(1).says("nothing named");
    assert_eq!(images(&world), before);
    world.clean();
}

/// The arguments of a container that ends at once.
pub(crate) fn run(image: &str) -> [&str; 6] {
    ["run", "--rm", "--network", "none", image, "true"]
}

fn assert_collected(world: &World) {
    // What nothing uses goes, and nothing else.
    world.say("retire --date 2020-01-01 child").exits(0);
    world.say("retire --date 2020-01-01 busybox").exits(0);
    world.say("lifecycle gc").exits(0).prints("");
    world.say("rm -f old").exits(0);
    let gone = world.say("lifecycle gc --dry-run").exits(0);
    assert_eq!(gone.stdout.lines().count(), 2, "{gone:?}");
    world.say("lifecycle gc --after 30000").exits(0).prints("");
    world.say("lifecycle gc").exits(0);
    world.say("images -q").exits(0).prints("");
}

#[test]
fn a_retired_image_is_used_with_a_warning_and_a_revoked_one_not() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("Dockerfile", "FROM busybox\nRUN echo > /x\n");
    let folder = world.path("").display().to_string();
    let build = ["build", "-q", "--network", "none", "-t", "child", &folder];
    world.dhow(&build).exits(0);
    world
        .say("run -d --network none --name old child sleep 1000")
        .exits(0);
    assert_eq!(world.dhow(&run("busybox")).exits(0).stderr, "");
    world
        .say("retire --date 2999-01-01 --successor busybox:2 busybox")
        .exits(0)
        .prints("busybox: it is deprecated, and ends on 2999-01-01; use busybox:2 instead\n");
    world.dhow(&run("busybox")).exits(0).says("it is deprecated");
    world
        .dhow(&[
            "retire",
            "--date",
            "2020-02-29",
            "--reason",
            "it is old",
            "busybox",
        ])
        .exits(0);
    world
        .dhow(&run("busybox"))
        .exits(0)
        .says("image busybox: it has been at its end of life since 2020-02-29: it is old");
    world
        .dhow(&build)
        .exits(0)
        .says("image busybox: it has been at its end of life");
    // Who runs what stands on it is found, too.
    let ps = json_of(&world, &["lifecycle", "ps", "--format", "json"]);
    assert_eq!(ps[0]["Name"], "old");
    assert_eq!(ps[0]["Statement"]["About"], "busybox:latest");
    assert_eq!(ps[0]["Statement"]["State"], "end-of-life");
    world
        .dhow(&[
            "retire",
            "--revoke",
            "--reason",
            "it steals",
            "--successor",
            "other",
            "busybox",
        ])
        .exits(0);
    world
        .dhow(&run("busybox"))
        .one_error(125)
        .says("it has been revoked since")
        .says("use other");
    world.dhow(&build).exits(1).says("it has been revoked");
    let ls = world.say("lifecycle ls").exits(0);
    assert!(ls.stdout.contains("revoked"), "{ls:?}");
    world.say("retire --undo busybox").exits(0);
    assert_eq!(world.dhow(&run("busybox")).exits(0).stderr, "");
    world.say("retire --undo busybox").one_error(1);
    assert_collected(&world);
    world.clean();
}

#[test]
fn a_statement_travels_with_the_image_through_a_registry() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    let name = served.name("app:1");
    let name = name.as_str();
    world.dhow(&["tag", "busybox", name]).exits(0);
    world
        .dhow(&["retire", "--push", name])
        .one_error(1)
        .says("push it first");
    world.dhow(&["push", "-q", name]).exits(0);
    world
        .dhow(&[
            "retire",
            "--push",
            "--date",
            "2020-01-01",
            "--revoke",
            "--reason",
            "CVE-1",
            name,
        ])
        .exits(0)
        .says("attached to");
    let Some(theirs) = World::new() else { return };
    let other = |args: &[&str]| theirs.dhow(args);
    // Whoever can write to a registry can only warn.
    other(&["pull", name])
        .exits(0)
        .says("it has been revoked since 2020-01-01: CVE-1");
    other(&run(name))
        .exits(0)
        .says("it has been revoked since 2020-01-01: CVE-1");
    // Who says something here keeps it.
    other(&["retire", "--undo", name]).exits(0);
    other(&["retire", "--date", "2999-01-01", name]).exits(0);
    other(&["pull", name]).exits(0).says("2999-01-01");
    theirs.clean();
    world.clean();
}

#[test]
fn a_rollout_replaces_the_containers_of_what_was_patched() {
    let Some(world) = family() else { return };
    let started = |name: &str, image: &str, command: &str| {
        world
            .dhow(&[
                "run",
                "-d",
                "--network",
                "none",
                "-v",
                "kept:/kept",
                "--stop-signal",
                "KILL",
                "--name",
                name,
                image,
                "sh",
                "-c",
                command,
            ])
            .exits(0);
    };
    started(
        "good",
        "middle",
        "hostname; cat /usr/lib/libssl3.so >> /kept/good; exec sleep 1000",
    );
    // On the new image it ends at once.
    started("bad", "app", "grep old /usr/lib/libssl3.so && exec sleep 1000");
    world.say("create --network none --name idle base true").exits(0);
    let ids = |name: &str| world.inspect(name, "{{.Id}} {{.Image}} {{.State.Status}}");
    let (good, bad, idle) = (ids("good"), ids("bad"), ids("idle"));
    world
        .say("patch --cascade --rollout CVE-2026-1")
        .exits(1)
        .says("the new bad does not come up: it is exited with code 1")
        .says("1 of 3 containers still have old images");
    assert_eq!(ids("bad"), bad, "it runs as before");
    assert_ne!(ids("idle"), idle);
    let now = ids("good");
    assert_ne!(now, good);
    let patched = world.inspect("middle", "{{.Id}}");
    assert!(now.ends_with(&format!("{patched} running")), "{now} {patched}");
    let said = world.say("exec good cat /kept/good").exits(0);
    assert_eq!(said.stdout, "old\nlibssl3 3.0.18-1~deb12u1\n");
    assert_eq!(world.inspect("good", "{{.Config.Image}}"), "middle:latest");
    let hostname = world.inspect("good", "{{.Config.Hostname}}");
    assert!(now.starts_with(&hostname), "{hostname} {now}");
    let ps = json_of(&world, &["lifecycle", "ps", "--format", "json"]);
    let names: Vec<&str> = ps
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["Name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bad"]);
    assert_eq!(world.say("ps -aq").exits(0).stdout.lines().count(), 3);
    world.say("rm -f good bad idle").exits(0);
    world.say("volume rm kept").exits(0);
    world.clean();
}

#[test]
fn a_rollout_that_is_killed_is_undone_by_the_next() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("Dockerfile", "FROM busybox\nRUN echo > /next\n");
    let folder = world.path("").display().to_string();
    world
        .dhow(&["build", "-q", "--network", "none", "-t", "next", &folder])
        .exits(0);
    let start =
        "run -d --network none --stop-signal KILL --health-cmd false --health-start-period 100s --name";
    world.say(&format!("{start} web busybox sleep 1000")).exits(0);
    world.say("create --network none --name idle next true").exits(0);
    world.say("retire --successor next busybox").exits(0);
    let id = || world.inspect("web", "{{.Id}} {{.State.Status}}");
    let old = id();
    // It waits for a health that never comes.
    let mut rollout = world.command(&["lifecycle", "rollout"]).spawn().unwrap();
    crate::world::eventually("the new one runs", || {
        let name = world
            .dhow(&["inspect", "-f", "{{.Id}} {{.State.Status}}", "web"])
            .stdout;
        name.contains("running") && name.trim() != old
    });
    rollout.kill().unwrap();
    rollout.wait().unwrap();
    assert_ne!(id(), old);
    world.say("lifecycle rollout idle").exits(0);
    assert_eq!(id(), old);
    assert_eq!(world.say("ps -aq").exits(0).stdout.lines().count(), 2);
    let left = std::fs::read_dir(world.path("r/replacing")).unwrap().count();
    assert_eq!(left, 0);
    world.say("rm -f web idle").exits(0);
    world.clean();
}
