//! Namespaces of another container.

use crate::world::World;

fn namespace(world: &World, container: &str, kind: &str) -> String {
    world
        .say(&format!("exec {container} readlink /proc/self/ns/{kind}"))
        .ok()
}

#[test]
fn each_namespace_can_be_another_containers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --network none --ipc shareable --hostname first --name one busybox sleep 1000")
        .ok();
    world
        .say(
            "run -d --network container:one --pid container:one --ipc container:one --uts container:one --cgroupns \
             container:one --name two busybox sleep 1001",
        )
        .ok();
    for kind in ["net", "pid", "ipc", "uts", "cgroup"] {
        assert_eq!(
            namespace(&world, "one", kind),
            namespace(&world, "two", kind),
            "{kind}"
        );
    }
    assert_ne!(namespace(&world, "one", "mnt"), namespace(&world, "two", "mnt"));
    assert_eq!(world.say("exec two hostname").ok(), "first");
    let processes = world.say("exec one ps").ok();
    assert!(processes.contains("sleep 1001"), "{processes}");
    // Memory goes with the IPC namespace.
    world.say("exec one sh -c echo>/dev/shm/word").ok();
    world.say("exec two test -e /dev/shm/word").exits(0);
    let id = world.inspect("one", "{{.Id}}");
    let told = world.inspect(
        "two",
        "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.UTSMode}}",
    );
    assert_eq!(told, [(); 3].map(|()| format!("container:{id}")).join(" "));
    world.say("rm -f two").ok();
    assert_eq!(world.inspect("one", "{{.State.Status}}"), "running");
    world.say("rm -f one").ok();
    world.clean();
}

#[test]
fn a_private_ipc_namespace_and_one_that_does_not_run_are_refused() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --network none --name private busybox sleep 1000")
        .ok();
    world
        .say("run --network none --ipc container:private busybox true")
        .exits(125)
        .says("non-shareable IPC");
    world
        .say("run --network none --pid container:nobody busybox true")
        .exits(125)
        .says("No such container");
    // Podman lets others in unless it is told not to, and starts what a container needs.
    world
        .podman("create --network none --name donor busybox sleep 1000")
        .ok();
    assert_eq!(
        world
            .podman("inspect --format {{.HostConfig.IpcMode}} donor")
            .ok(),
        "shareable"
    );
    world
        .say("run --rm --network none --ipc container:donor busybox true")
        .exits(125)
        .says("does not run");
    world
        .podman("create --network none --ipc container:donor --name guest busybox sleep 1000")
        .ok();
    world.podman("start guest").ok();
    assert_eq!(
        namespace(&world, "donor", "ipc"),
        namespace(&world, "guest", "ipc")
    );
    // Podman refuses to take away what another one needs.
    world
        .podman("rm -f donor")
        .exits(125)
        .says("has dependent containers which must be removed before it");
    assert_eq!(world.podman("rm -f -t 0 --depend donor").ok().lines().count(), 2);
}

#[test]
fn without_ipc_there_is_no_shared_memory() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run --rm --network none --ipc none busybox test -e /dev/shm")
        .exits(1);
}
