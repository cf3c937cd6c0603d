//! Images from images: append, rebase, squash, flatten, set.

use std::fs;

use dhow_testkit::{Tar, gzip};
use serde_json::Value;

use crate::world::World;

fn layers(world: &World, image: &str) -> Vec<String> {
    let text = world.inspect(image, "{{json .RootFS.Layers}}");
    serde_json::from_str(&text).unwrap()
}

fn config(world: &World, image: &str) -> Value {
    serde_json::from_str(&world.inspect(image, "{{json .Config}}")).unwrap()
}

/// All paths of an image with modes, owners, sizes and targets.
fn tree(world: &World, image: &str) -> String {
    let script = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc/hosts' \
                  ! -path '/etc/resolv.conf' ! -path '/etc/hostname' -exec stat -c '%n %f %u:%g %s %N' {} + | grep -v '^/ ' | sort";
    world.sh_in(image, script)
}

fn built(world: &World, name: &str, text: &str) {
    world.feed(&["build", "-q", "-t", name, "-"], text).ok();
}

#[test]
fn tars_and_folders_are_appended_as_layers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let tar = Tar::new()
        .directory("opt", 0o755)
        .file("opt/one", 0o640, b"1")
        .file("etc/.wh.group", 0o644, b"")
        .finish();
    let digest = dhow_types::Digest::of(&tar).to_string();
    let path = world.file("one.tar.gz", gzip(&tar));
    world.file("tree/sub/two", "2");
    std::os::unix::fs::symlink("sub/two", world.path("tree/link")).unwrap();
    std::os::unix::fs::chown(world.path("tree/sub/two"), Some(1234), Some(5)).unwrap();
    let folder = world.path("tree").display().to_string();
    let args = [
        "image",
        "append",
        "-t",
        "more",
        "--to",
        "/srv/data",
        "busybox",
        &path.display().to_string(),
        &folder,
    ];
    let id = world.dhow(&args).ok();
    assert_eq!(world.inspect("more", "{{.Id}}"), id);
    let found = layers(&world, "more");
    assert_eq!(found.len(), 3);
    assert_eq!(found[..1], layers(&world, "busybox"));
    assert_eq!(found[1], digest, "a tar is the layer as it is");
    let script = "cat /opt/one /srv/data/link; stat -c '%a %u:%g' /opt/one /srv/data/sub/two; ls /etc/group 2>&1; true";
    let seen = world.sh_in("more", script);
    assert!(seen.starts_with("12640 0:0\n644 0:0\n"), "{seen}");
    assert!(seen.contains("No such file"), "{seen}");
    assert_eq!(config(&world, "more"), config(&world, "busybox"));
    world
        .feed(&["image", "append", "-t", "in", "busybox", "-"], tar)
        .ok();
    assert_eq!(layers(&world, "in")[1], digest);
    let hostile = Tar::new().file("../up", 0o644, b"x").finish();
    world
        .feed(&["image", "append", "busybox", "-"], hostile)
        .one_error(1)
        .says("up");
    world
        .say("image append nothing /dev/null")
        .one_error(1)
        .says("no such image");
    world
        .say("image append busybox /no/such")
        .one_error(1)
        .says("/no/such");
    world.clean();
}

#[test]
fn an_image_is_set_without_touching_its_layers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    built(
        &world,
        "app",
        "FROM busybox\nENV A=1 B=2\nLABEL l=1 m=2\nEXPOSE 80\nCMD [\"x\"]\n",
    );
    let flags = "image set -t set:1 -e A=9 -e C=3 --unset-env B --label l=5 --unset-label m -u ada -w /data \
                 --exposed-ports 443,53/udp --annotation a=b";
    let mut args: Vec<&str> = flags.split_whitespace().collect();
    args.extend(["--entrypoint", "[\"sh\",\"-c\"]", "--cmd", "echo $A $C"]);
    args.extend(["--change", "STOPSIGNAL SIGUSR1", "app"]);
    world.dhow(&args).ok();
    assert_eq!(layers(&world, "set:1"), layers(&world, "app"));
    assert_eq!(world.say("run --rm --network none set:1").ok(), "9 3");
    let config = config(&world, "set:1");
    assert_eq!(config["Labels"], serde_json::json!({"l": "5"}));
    assert_eq!(config["User"], "ada");
    assert_eq!(config["WorkingDir"], "/data");
    assert_eq!(config["StopSignal"], "SIGUSR1");
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["443/tcp", "53/udp"]);
    assert!(!config["Env"].to_string().contains("B="), "{config}");
    world
        .dhow(&[
            "image",
            "set",
            "-t",
            "bare",
            "--entrypoint",
            "",
            "--cmd",
            "",
            "set:1",
        ])
        .ok();
    let bare = self::config(&world, "bare");
    assert!(bare["Entrypoint"].is_null() && bare["Cmd"].is_null(), "{bare}");
    world
        .dhow(&["image", "set", "-t", "arm", "--platform", "linux/arm64", "app"])
        .ok();
    assert_eq!(world.inspect("arm", "{{.Architecture}}"), "arm64");
    let archive = world.dhow(&["save", "bare"]).exits(0).bytes;
    let text = String::from_utf8_lossy(&archive);
    assert!(
        text.contains("\"annotations\":{\"a\":\"b\"}"),
        "annotations go along"
    );
    world
        .say("image set --exposed-ports many app")
        .one_error(1)
        .says("many");
    world
        .say("image set --entrypoint [x app")
        .one_error(1)
        .says("entrypoint");
    world.clean();
}

const APP: &str = "FROM base:1
ENV OWN=1
RUN mkdir /app && echo a > /app/a && ln /app/a /app/b && rm /etc/gone && echo mine > /etc/mine
RUN rm -r /app/a /data && mkdir /data && echo new > /data/new && echo kept > /keep/f
";

fn bases(world: &World, second: &str) {
    built(
        world,
        "base:1",
        "FROM busybox\nENV V=1 PATH=/bin\nLABEL from=base\nRUN mkdir /keep; echo 1 > /etc/version; echo x > /etc/gone; echo p > /etc/passwd2\n",
    );
    built(world, "base:2", second);
    built(world, "app", APP);
}

#[test]
fn an_image_is_put_on_another_base() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    bases(
        &world,
        "FROM busybox\nENV V=2 PATH=/bin NEW=n\nLABEL from=second\nRUN mkdir /keep; echo 2 > /etc/version; echo x > /etc/gone; echo p > /etc/passwd2; touch /etc/brand-new\n",
    );
    world
        .dhow(&[
            "image",
            "rebase",
            "--old-base",
            "base:1",
            "--new-base",
            "base:2",
            "-t",
            "rebased",
            "app",
        ])
        .ok();
    let (app, rebased) = (layers(&world, "app"), layers(&world, "rebased"));
    assert_eq!(rebased[..2], layers(&world, "base:2"));
    assert_eq!(rebased[2..], app[2..], "its own layers are as they were");
    assert_eq!(
        world.sh_in("rebased", "cat /etc/version /etc/mine /data/new; ls /etc/brand-new; ls /etc/gone /app/a 2>/dev/null; echo $V $NEW $OWN"),
        "2\nmine\nnew\n/etc/brand-new\n2 n 1"
    );
    assert_eq!(config(&world, "rebased")["Labels"]["from"], "second");
    // What a build on the new base gives.
    built(&world, "again", &APP.replace("base:1", "base:2"));
    assert_eq!(tree(&world, "again"), tree(&world, "rebased"));
    assert_eq!(config(&world, "again")["Env"], config(&world, "rebased")["Env"]);
    let history = world.say("history --no-trunc rebased").ok();
    assert!(
        history.contains("brand-new") && history.contains("echo mine"),
        "{history}"
    );
    world
        .say("image rebase --old-base base:2 --new-base base:1 app")
        .one_error(1)
        .says("not built on base:2");
    world.clean();
}

#[test]
fn a_rebase_is_refused_where_the_layers_meet_what_the_bases_differ_in() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (second, path) in [
        ("RUN mkdir /keep; echo changed > /etc/gone", "/etc/gone"),
        (
            "RUN mkdir /keep; echo x > /etc/gone; echo theirs > /etc/mine",
            "/etc/mine",
        ),
        ("RUN mkdir -m 700 /keep; echo x > /etc/gone", "/keep"),
        ("RUN ln -s tmp /keep; echo x > /etc/gone", "/keep/f"),
        ("RUN mkdir /keep; echo x > /etc/gone; touch /data/more", "/data"),
    ] {
        bases(&world, &format!("FROM busybox\n{second}\n"));
        let args = [
            "image",
            "rebase",
            "--old-base",
            "base:1",
            "--new-base",
            "base:2",
            "-t",
            "r",
            "app",
        ];
        let ran = world.dhow(&args).one_error(1);
        assert!(ran.stderr.contains(&format!("{path}: ")), "{path}: {ran:?}");
        assert!(ran.stderr.contains("--force"), "{ran:?}");
        let forced = world.dhow(&[&args[..], &["--force"]].concat()).exits(0);
        assert!(
            forced.stderr.contains(&format!("{path}: ")),
            "it is said: {forced:?}"
        );
        world.say("rmi r").ok();
    }
}

#[test]
fn several_layers_become_one_with_the_same_files() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    bases(&world, "FROM busybox\n");
    let whole = tree(&world, "app");
    let app = layers(&world, "app");
    assert_eq!(app.len(), 4);
    world.say("image squash -t all app").ok();
    world.say("image squash --from base:1 -t own app").ok();
    world
        .dhow(&["image", "squash", "--from", &app[1], "-t", "from", "app"])
        .ok();
    world.say("image flatten -t flat app").ok();
    for (image, count) in [("all", 1), ("own", 3), ("from", 2), ("flat", 1)] {
        assert_eq!(layers(&world, image).len(), count, "{image}");
        assert_eq!(tree(&world, image), whole, "{image}");
        assert_eq!(config(&world, image), config(&world, "app"), "{image}");
    }
    assert_eq!(layers(&world, "own")[..2], app[..2]);
    assert_eq!(
        layers(&world, "all"),
        layers(&world, "flat"),
        "the same files are the same layer"
    );
    assert_eq!(world.say("history -q flat").ok().lines().count(), 1);
    assert!(world.say("history --no-trunc own").ok().contains("echo mine"));
    // It deletes of the base what the layers deleted, also when the base comes back below it.
    let exported = world.path("own.tar").display().to_string();
    world.dhow(&["save", "-o", &exported, "own"]).ok();
    let other = World::new().unwrap();
    other.dhow(&["load", "-i", &exported]).ok();
    assert_eq!(tree(&other, "own"), whole);
    world
        .say("image squash --from nothing app")
        .one_error(1)
        .says("no such image");
    world.say("image squash --from base:2 app").exits(0);
    world
        .say("image squash --from app app")
        .one_error(1)
        .says("neither a layer");
    drop(fs::remove_file(exported));
    world.clean();
}
