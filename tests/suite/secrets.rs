//! Secrets: in the container, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

const CONTENT: &str = "s3cret-of-this-test";

/// Files below the root that have the content in them.
fn traces(world: &World) -> Vec<String> {
    let found = std::process::Command::new("grep")
        .args(["-rlaF", CONTENT])
        .arg(world.root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_gets_a_secret_as_a_file_and_as_a_variable() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world.feed(&["secret", "create", "key", "-"], CONTENT).ok();
    assert_eq!(id.len(), 25);
    let ran = world.sh(
        "--network none --secret key --secret key,target=/etc/k,uid=7,gid=8,mode=0440 --secret key,type=env,target=TOKEN",
        "cat /run/secrets/key; echo; stat -c %u:%g:%a /etc/k; echo $TOKEN; echo x > /run/secrets/key || echo kept",
    );
    let lines = ran.exits(0).prints("kept").ok();
    assert_eq!(lines, format!("{CONTENT}\n7:8:440\n{CONTENT}\nkept"));
    // It went with the container, but for the secret itself.
    let left = traces(&world);
    assert_eq!(left.len(), 1, "{left:?}");
    let mode = fs::metadata(&left[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_written_down_of_a_container_does_not_show_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.file("content", CONTENT);
    world
        .dhow(&["secret", "create", "-l", "a=b", "key", file.to_str().unwrap()])
        .exits(0);
    world
        .say("run -d --name cc --network none --secret key,type=env --secret key busybox sleep 600")
        .ok();
    assert_eq!(world.say("exec cc sh -c").exits_any().code, 2);
    assert_eq!(world.dhow(&["exec", "cc", "sh", "-c", "echo $key"]).ok(), CONTENT);
    for line in [
        "inspect cc",
        "secret inspect key",
        "events --since 1 --stream=false",
        "ps --no-trunc",
        "logs cc",
    ] {
        let all = world.say(line).all();
        assert!(!all.contains(CONTENT), "{line}: {all}");
    }
    world.say("commit cc image").exits(0);
    let image = world.say("inspect image").ok() + &world.say("history --no-trunc image").ok();
    assert!(!image.contains(CONTENT), "{image}");
    // A secret that is replaced or gone changes nothing for those who have it.
    let old = world.say("secret inspect --format {{.ID}} key").ok();
    world
        .feed(&["secret", "create", "key", "-"], "other")
        .one_error(1)
        .says("secret name in use");
    let new = world
        .feed(&["secret", "create", "--replace", "key", "-"], "other")
        .ok();
    assert_ne!(old, new);
    assert_eq!(world.say("secret rm key").ok(), new);
    world.say("restart -t 0 cc").ok();
    assert_eq!(
        world.dhow(&["exec", "cc", "cat", "/run/secrets/key"]).ok(),
        CONTENT
    );
    world.say("rm -f cc").ok();
    world.say("rmi -f image").exits(0);
    assert_eq!(traces(&world), Vec::<String>::new());
}

#[test]
fn secrets_are_listed_found_and_refused() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.feed(&["secret", "create", "one", "-"], "1").exits(0);
    world
        .feed(&["secret", "create", "-l", "x=y", "two", "-"], "2")
        .exits(0);
    assert_eq!(world.say("secret ls --format {{.Name}}").ok(), "one\ntwo");
    assert_eq!(
        world.say("secret ls --format {{.Name}} --filter label=x").ok(),
        "two"
    );
    assert_eq!(
        world
            .say("secret inspect --showsecret --format {{.SecretData}} two")
            .ok(),
        "2"
    );
    world.say("secret exists one").exits(0);
    world.say("secret exists three").exits(1);
    world
        .feed(&["secret", "create", "empty", "-"], "")
        .one_error(1)
        .says("larger than 0");
    world
        .feed(&["secret", "create", "large", "-"], vec![b'x'; 512_001])
        .one_error(1)
        .says("512000");
    world.feed(&["secret", "create", "../up", "-"], "x").exits(1);
    world
        .say("run --secret three busybox true")
        .one_error(125)
        .says("no such secret");
    world
        .say("run --secret one,mode=9 busybox true")
        .one_error(125)
        .says("mode=9");
    world.say("secret rm --all").exits(0);
    assert_eq!(world.say("secret ls -q").ok(), "");
}
