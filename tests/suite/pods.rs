//! Pods.

use crate::world::World;

fn namespace(world: &World, container: &str, kind: &str) -> String {
    world
        .say(&format!("exec {container} readlink /proc/self/ns/{kind}"))
        .ok()
}

#[test]
fn containers_of_a_pod_share_network_ipc_and_host_name_and_no_image_is_pulled_for_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("pod exists web").exits(1).silent();
    let id = world
        .say("pod create --name web --network none --label tier=front")
        .ok();
    world.say("pod exists web").exits(0).silent();
    assert_eq!(world.say("images -q").ok().lines().count(), 1);
    world.say("run -d --pod web --name one busybox sleep 1000").ok();
    world.say("run -d --pod web --name two busybox sleep 1001").ok();
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(
            namespace(&world, "one", kind),
            namespace(&world, "two", kind),
            "{kind}"
        );
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(
            namespace(&world, "one", kind),
            namespace(&world, "two", kind),
            "{kind}"
        );
    }
    assert_eq!(world.say("exec two hostname").ok(), "web");
    world.say("exec one touch /dev/shm/word").ok();
    world.say("exec two test -e /dev/shm/word").exits(0);
    let told = world
        .podman("pod ps --format {{.Name}},{{.Status}},{{.NumberOfContainers}},{{.Labels}}")
        .ok();
    assert_eq!(told, "web,Running,3,map[tier:front]");
    let told = world
        .podman("pod inspect --format {{.SharedNamespaces}},{{.NumContainers}},{{.State}} web")
        .ok();
    assert_eq!(told, "[ipc net uts],3,Running");
    assert_eq!(
        world
            .podman("ps --filter name=one --format {{.Pod}},{{.PodName}}")
            .ok(),
        format!("{},web", &id[..12])
    );
    world
        .say("pod rm web")
        .exits(1)
        .says("not all containers could be removed from pod");
    world.say("pod rm --force web").ok();
    assert_eq!(world.say("ps -aq").ok(), "");
    world.say("pod exists web").exits(1);
    world.clean();
}

#[test]
fn a_pod_goes_through_its_life_with_all_its_containers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("pod create --network none --name life").ok();
    world
        .say("create --pod life --name member --stop-timeout 1 busybox sleep 1000")
        .ok();
    let status = || world.podman("pod ps --format {{.Status}}").ok();
    assert_eq!(status(), "Created");
    for (verb, then) in [
        ("start", "Running"),
        ("pause", "Paused"),
        ("unpause", "Running"),
        ("stop", "Exited"),
        ("restart", "Running"),
        ("kill", "Exited"),
    ] {
        world.say(&format!("pod {verb} life")).ok();
        crate::world::eventually(verb, || status() == then);
    }
    // A member brings the pod's own container with it.
    world.say("start member").ok();
    assert_eq!(status(), "Running");
    world.say("stop member").ok();
    assert_eq!(status(), "Degraded");
    let infra = world
        .podman("pod inspect --format {{.InfraContainerID}} life")
        .ok();
    world
        .say(&format!("rm -f {infra}"))
        .exits(1)
        .says("cannot be removed without removing the pod");
    world.say(&format!("rm -f --depend {infra}")).ok();
    assert_eq!(world.podman("pod ps -q").ok(), "");
    world.clean();
}

#[test]
fn a_pod_without_a_waiting_container_only_groups() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("pod create --infra=false --name group --memory 256m")
        .ok();
    world
        .say("run -d --network none --pod group --name aa busybox sleep 1000")
        .ok();
    world
        .say("run -d --network none --pod group --name bb busybox sleep 1000")
        .ok();
    assert_ne!(namespace(&world, "aa", "ipc"), namespace(&world, "bb", "ipc"));
    let group = world.podman("pod inspect --format {{.CgroupPath}} group").ok();
    let limit = ["memory/", ""]
        .map(|controller| format!("/sys/fs/cgroup/{controller}{group}/memory."))
        .into_iter()
        .find_map(|start| {
            let read = |name: &str| std::fs::read_to_string(format!("{start}{name}")).ok();
            read("limit_in_bytes").or_else(|| read("max"))
        });
    assert_eq!(limit.unwrap().trim(), "268435456");
    world.say("pod stop -t 0 group").ok();
    let left = ["memory/", ""].map(|controller| format!("/sys/fs/cgroup/{controller}{group}"));
    crate::world::eventually("the group is gone", || {
        left.iter().all(|path| !std::path::Path::new(path).exists())
    });
    world.say("pod rm group").ok();
    world.clean();
}

#[test]
fn a_pod_is_made_with_its_first_container_and_is_gone_when_that_cannot_be() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = "run --rm --network none";
    assert_eq!(
        world.say(&format!("{run} --pod new:first busybox hostname")).ok(),
        "first"
    );
    assert_eq!(
        world.say(&format!("{run} --pod first busybox hostname")).ok(),
        "first"
    );
    world
        .say(&format!("{run} --pod first --hostname other busybox hostname"))
        .exits(125)
        .says("cannot set hostname when joining the pod UTS namespace");
    world.say("create --name taken busybox true").ok();
    world
        .say(&format!("{run} --pod new:second --name taken busybox true"))
        .exits(125);
    world.say("pod exists second").exits(1);
    world
        .say("pod create first")
        .exits(1)
        .says("name \"first\" is in use: pod already exists");
    world
        .say("pod create --share bogus")
        .exits(125)
        .says("invalid kernel namespace to share: bogus");
    world
        .say("pod create --privileged x")
        .exits(125)
        .says("--privileged");
    world.say("pod rm first").ok();
    world.say("pod rm nothing").exits(1).says("no such pod");
    world.say("pod rm --force nothing").ok();
    world.clean();
}

#[test]
fn the_exit_policy_stops_a_pod_whose_containers_have_ended() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (policy, then) in [("continue", "Degraded"), ("stop", "Exited")] {
        world
            .say(&format!(
                "pod create --network none --exit-policy {policy} --name {policy}"
            ))
            .ok();
        world.say(&format!("run --pod {policy} busybox true")).ok();
        let status = || {
            world
                .podman(&format!("pod inspect --format {{{{.State}}}} {policy}"))
                .ok()
        };
        crate::world::eventually(then, || status() == then);
    }
    world.say("pod rm --all --force").ok();
    world.clean();
}

#[test]
fn processes_can_be_shared_and_the_waiting_one_gives_nothing_away() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("pod create --network none --share +pid --name seen")
        .ok();
    world
        .say("run -d --pod seen --cap-add SYS_PTRACE --name in busybox sleep 1000")
        .ok();
    let processes = world.say("exec in ps").ok();
    assert!(
        processes.contains("/pause") && processes.contains("sleep 1000"),
        "{processes}"
    );
    // It is a file of its own in a root of its own, and has no rights.
    assert_eq!(world.say("exec in readlink /proc/1/exe").ok(), "/pause");
    let there = world.say("exec in ls /proc/1/root/").ok();
    assert!(!there.contains("bin"), "{there}");
    let rights = world.say("exec in grep CapEff /proc/1/status").ok();
    assert!(rights.ends_with("0000000000000000"), "{rights}");
    world.say("pod rm -f seen").ok();
    world.clean();
}
