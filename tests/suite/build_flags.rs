//! What a build allows and limits: entitlements, resource limits, control groups, stages without the cache.

use crate::world::{Ran, World};

fn build(world: &World, flags: &[&str], text: &str) -> Ran {
    let mut args = vec!["build", "--progress", "plain", "-t", "f"];
    args.extend(flags);
    args.push("-");
    world.feed(&args, text)
}

#[test]
fn a_step_gets_more_than_the_sandbox_only_when_the_builder_allows_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let host = "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /net\n";
    build(&world, &[], host)
        .exits(1)
        .says("network.host is not allowed")
        .says("--allow network.host");
    let own = std::fs::read_link("/proc/self/ns/net")
        .unwrap()
        .display()
        .to_string();
    for flags in [&["--allow", "network.host"][..], &["--network", "host"]] {
        build(&world, flags, host).exits(0);
        assert_eq!(world.sh_in("f", "cat /net"), own);
    }
    let insecure = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status > /caps\n";
    let ran = build(&world, &[], insecure)
        .exits(1)
        .says("security.insecure is not allowed");
    assert!(
        ran.stderr
            .lines()
            .any(|line| line.contains(">>>") && line.contains("insecure")),
        "{ran:?}"
    );
    build(&world, &["--allow", "network.host"], insecure)
        .exits(1)
        .says("security.insecure");
    build(&world, &["--allow", "security.insecure"], insecure).exits(0);
    let caps = world.sh_in("f", "cut -f 2 /caps");
    assert!(caps.starts_with("000001ffffffffff") || caps.len() == 16, "{caps}");
    build(&world, &["--allow", "everything"], host)
        .exits(125)
        .says("everything");
    world.clean();
}

#[test]
fn steps_have_the_limits_and_the_control_group_that_were_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox\nRUN sh -c 'ulimit -n; ulimit -c' > /limits; cat /proc/self/cgroup > /group; df -k /dev/shm | tail -n 1 > /shm\n";
    let parent = format!("dhow-blackbox-{}", std::process::id());
    let flags = [
        "--ulimit",
        "nofile=77:88",
        "--ulimit",
        "core=0",
        "--shm-size",
        "8m",
        "--cgroup-parent",
        &parent,
    ];
    build(&world, &flags, text).exits(0);
    assert_eq!(world.sh_in("f", "cat /limits"), "77\n0");
    assert!(world.sh_in("f", "cat /shm").contains(" 8192 "));
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = world.sh_in("f", "cat /group");
    assert_ne!(
        group, own,
        "the step has a group of its own, or a namespace of it"
    );
    build(&world, &["--ulimit", "nofile=9:8"], text)
        .exits(1)
        .says("nofile=9:8");
    for group in crate::world::groups(&parent) {
        let left = std::fs::read_dir(&group)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir());
        assert_eq!(left.count(), 0, "{group}");
        std::fs::remove_dir(&group).unwrap();
    }
    world.clean();
}

#[test]
fn no_registry_is_asked_when_none_is_to_be() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for flag in ["--pull=never", "--pull=missing", "--pull=false"] {
        build(&world, &[flag], "FROM busybox\n").exits(0);
    }
    let absent = "FROM 127.0.0.1:9/no/such:1\n";
    build(&world, &["--pull=never"], absent)
        .exits(1)
        .says("none is to be pulled");
    let asked = build(&world, &["--pull"], absent).exits(1);
    assert!(
        asked.stderr.contains("127.0.0.1:9") && !asked.stderr.contains("none is to be"),
        "{asked:?}"
    );
    build(&world, &["--pull=perhaps"], absent)
        .exits(125)
        .says("perhaps");
}

#[test]
fn stages_that_are_named_are_built_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN cat /proc/sys/kernel/random/uuid > /2\nFROM two\nCOPY --from=one /1 /1\n";
    build(&world, &[], text).exits(0);
    let before = world.sh_in("f", "cat /2");
    let cached = |ran: &Ran| ran.stderr.matches("CACHED").count();
    assert_eq!(cached(&build(&world, &[], text).exits(0)), 3);
    let ran = build(&world, &["--no-cache-filter", "one"], text).exits(0);
    assert_eq!(cached(&ran), 2, "{ran:?}");
    assert_eq!(world.sh_in("f", "cat /2"), before);
    build(&world, &["--no-cache-filter", "one,Two"], text).exits(0);
    assert_ne!(world.sh_in("f", "cat /2"), before);
}

#[test]
fn steps_may_use_no_more_than_they_were_given() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let value =
        |v1: &str, v2: &str| format!("(cd /sys/fs/cgroup; cat {v1} 2>/dev/null || cut -d ' ' -f 1 {v2})");
    let text = format!(
        "FROM busybox\nRUN nproc > /found; {} >> /found; {} >> /found\n",
        value("memory/memory.limit_in_bytes", "memory.max"),
        value("cpu/cpu.cfs_quota_us", "cpu.max"),
    );
    let flags = "--memory 64m --cpu-quota 50000 --cpu-period 100000 --cpuset-cpus 0 -c 512";
    let flags: Vec<&str> = flags.split(' ').collect();
    build(&world, &flags, &text).exits(0);
    assert_eq!(world.sh_in("f", "cat /found"), "1\n67108864\n50000");
    // What a step may use is no part of what it makes.
    build(&world, &[], &text).exits(0).says("CACHED");
    let hungry = "FROM busybox\nRUN head -c 100m /dev/zero | tail -c 90m > /dev/null\n";
    build(&world, &["-m", "16m", "--memory-swap", "16m"], hungry)
        .exits(1)
        .says("137");
    build(&world, &["--cpus", "-1"], &text).exits(125);
    build(&world, &["--cpu-quota", "some"], &text).exits(125);
}

#[test]
fn nothing_of_the_steps_is_left_when_the_build_has_ended() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let left = || -> Vec<String> {
        let names = std::fs::read_dir(world.root().join("run")).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.contains("step-")).collect()
    };
    // One that has its whole output already when it ends, one that is still writing when it fails, and several at once.
    for (text, code) in [
        ("FROM busybox\nRUN true\nRUN seq 100000\n", 0),
        ("FROM busybox\nRUN yes & sleep 0.2; exit 3\n", 1),
        (
            "FROM busybox AS a\nRUN sleep 0.1\nFROM busybox AS b\nRUN sleep 0.2\nFROM busybox\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n",
            0,
        ),
        ("FROM busybox\nLABEL a=b\n", 0),
    ] {
        build(&world, &[], text).exits(code);
        assert_eq!(left(), Vec::<String>::new(), "{text}");
    }
    world.clean();
}

#[test]
fn variables_of_the_builder_are_in_the_image_unless_an_instruction_says_otherwise() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox AS base\nENV B=file\nFROM base\nENV C=file\nRUN echo $A $B $C > /seen\n";
    let flags = [
        "--network",
        "none",
        "--env",
        "A=one two",
        "--env=B=flag",
        "--env",
        "C=flag",
        "--env",
        "NO_SUCH_NAME_",
    ];
    build(&world, &flags, text).exits(0);
    assert_eq!(
        world.sh_in("f", "cat /seen; echo $A"),
        "one two flag file\none two"
    );
    assert_eq!(
        world
            .inspect("f", "{{join .Config.Env \"|\"}}")
            .matches("A=")
            .count(),
        1
    );
    assert!(!world.say("history --no-trunc f").ok().contains("one two"));
    // They are what the step depends on.
    let flags = ["--network", "none", "--env", "A=other"];
    build(&world, &flags, text).exits(0);
    assert_eq!(world.sh_in("f", "cat /seen"), "other file file");
    build(&world, &["--env", "=x"], text)
        .exits(1)
        .says("invalid environment variable");
}

#[test]
fn steps_are_in_the_groups_that_were_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox\nRUN echo staff:x:50: >> /etc/group\nUSER 7:8\nRUN id -G > /tmp/groups\n";
    let flags = ["--network", "none", "--group-add", "staff", "--group-add", "60"];
    // The file of the step counts, as it is before it.
    build(&world, &flags, text)
        .exits(1)
        .says("unable to find group staff");
    let (before, after) = text.split_at(text.find("USER").unwrap());
    build(&world, &["--network", "none"], before).exits(0);
    world.say("tag f base").ok();
    let text = format!("FROM base\n{after}");
    build(&world, &flags, &text).exits(0);
    assert_eq!(world.sh_in("f", "cat /tmp/groups"), "8 50 60");
    build(&world, &["--network", "none"], &text).exits(0);
    assert_eq!(world.sh_in("f", "cat /tmp/groups"), "8");
    for flag in ["--rm", "--force-rm", "--rm=true", "--force-rm=true"] {
        build(&world, &["--network", "none", flag], &text).exits(0);
    }
    for flag in ["--rm=false", "--force-rm=false"] {
        build(&world, &[flag], &text).exits(1).says(&format!(
            "{flag} is not supported: a build keeps no intermediate containers"
        ));
    }
}
