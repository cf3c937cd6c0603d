//! Limits of the control group, and what happens at them.

use crate::world::World;

/// A value of the container's own control group, from inside, on v1 or v2.
fn limit(world: &World, flags: &str, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    world.sh(&format!("--network none {flags}"), &script).ok()
}

#[test]
fn limits_are_in_the_files_of_the_control_group() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        limit(
            &world,
            "--memory 64m",
            "memory/memory.limit_in_bytes",
            "memory.max"
        ),
        "67108864"
    );
    assert_eq!(
        limit(&world, "--pids-limit 55", "pids/pids.max", "pids.max"),
        "55"
    );
    let quota = limit(&world, "--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let shares = limit(&world, "--cpu-shares 512", "cpu/cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "20", "{shares}");
    assert_eq!(
        limit(&world, "--cpuset-cpus 0", "cpuset/cpuset.cpus", "cpuset.cpus"),
        "0"
    );
    assert_eq!(world.sh("--network none --cpuset-cpus 0", "nproc").ok(), "1");
}

#[test]
fn a_process_limit_holds() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ran = world.sh(
        "--network none --pids-limit 5",
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; true",
    );
    assert!(ran.stderr.contains("can't fork"), "{ran:?}");
}

#[test]
fn ulimits_and_shm_size_hold() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world
            .sh("--network none --ulimit nofile=100:200", "ulimit -Sn; ulimit -Hn")
            .ok(),
        "100\n200"
    );
    assert!(
        world
            .sh("--network none --shm-size 3m", "df -k /dev/shm")
            .ok()
            .contains("3072")
    );
    assert_eq!(
        world
            .sh("--oom-score-adj 300", "cat /proc/self/oom_score_adj")
            .ok(),
        "300"
    );
}

#[test]
fn an_out_of_memory_kill_is_told() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    world
        .dhow(&[
            "run",
            "--name",
            "greedy",
            "--network",
            "none",
            "-m",
            "16m",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .exits(137);
    assert_eq!(
        world.inspect("greedy", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    world
        .say("run --name modest --network none -m 16m busybox true")
        .exits(0);
    assert_eq!(world.inspect("modest", "{{.State.OOMKilled}}"), "false");
}

#[test]
fn stats_show_the_use_and_the_limit() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name live --network none -m 32m busybox sleep 100")
        .ok();
    let stats = world.say("stats --no-stream live").ok();
    assert!(
        stats.lines().next().unwrap().contains("MEM USAGE / LIMIT"),
        "{stats}"
    );
    assert!(stats.contains("32MiB") && stats.contains("live"), "{stats}");
    assert_eq!(world.inspect("live", "{{.HostConfig.Memory}}"), "33554432");
}
