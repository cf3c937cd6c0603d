//! `events`: what happened, told by no daemon.

use crate::world::World;

/// Actions of one kind, oldest first.
fn actions(world: &World, filters: &str) -> Vec<String> {
    let text = world
        .say(&format!(
            "events --since 1 --stream=false --format {{{{.Action}}}} {filters}"
        ))
        .ok();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_containers_life_is_told_in_dockers_words_and_order() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create inner").ok();
    world
        .say("run -d --name one --network inner --label tier=front busybox sleep 600")
        .ok();
    world.say("exec one true").ok();
    world.say("pause one").ok();
    world.say("unpause one").ok();
    world.say("rename one two").ok();
    world.say("stop -t 0 two").ok();
    world.say("rm two").ok();
    assert_eq!(
        actions(&world, "-f type=container"),
        [
            "create",
            "start",
            "exec_create: true",
            "exec_start: true",
            "exec_die",
            "pause",
            "unpause",
            "rename",
            "kill",
            "kill",
            "die",
            "stop",
            "destroy"
        ]
    );
    assert_eq!(
        actions(&world, "-f type=network"),
        ["create", "connect", "disconnect"]
    );
    assert_eq!(
        actions(&world, "-f label=tier=front -f event=die -f event=start"),
        ["start", "die"]
    );
    assert!(actions(&world, "-f label=tier=back").is_empty());
    let died = world
        .say("events --since 1 --stream=false -f event=die --format {{.Actor.Attributes.exitCode}},{{.Actor.Attributes.name}},{{.from}}")
        .ok();
    assert_eq!(died, "137,two,busybox");
}

#[test]
fn a_container_that_goes_by_itself_dies_before_it_is_destroyed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.sh("--rm --network none --name brief", "exit 3").exits(3);
    assert_eq!(
        actions(&world, "-f container=brief"),
        ["create", "start", "die", "destroy"]
    );
}

#[test]
fn whoever_waits_hears_of_it_at_once_and_stops_at_its_time() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("volume create before").ok();
    let until = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 3;
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            world
                .say(&format!(
                    "events --until {until} -f type=volume --format {{{{.Action}}}}-{{{{.Actor.ID}}}}"
                ))
                .ok()
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        world.say("volume create mine").ok();
        world.say("volume rm mine").ok();
        assert_eq!(follower.join().unwrap(), "create-mine\ndestroy-mine");
    });
}

#[test]
fn images_and_wrong_questions() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("tag busybox other:1").ok();
    world.say("rmi other:1").ok();
    let told = actions(&world, "-f type=image");
    assert_eq!(told[told.len() - 2..], ["tag", "untag"]);
    world
        .say("events --since 20 --until 10")
        .one_error(1)
        .says("`since` time cannot be after `until` time");
    world
        .say("events --filter colour=red")
        .one_error(1)
        .says("invalid filter 'colour'");
    let line = world.say("events --since 1 --stream=false -f event=tag").ok();
    assert!(
        line.contains(" image tag sha256:") && line.ends_with("(name=other:1)"),
        "{line}"
    );
}
