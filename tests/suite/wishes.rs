//! What users of docker look for in records and in what is said: details of logs, what `info` and `inspect` know.

use serde_json::Value;

use crate::world::{Ran, World, eventually, finish, program};

fn json(ran: Ran) -> Value {
    let text = ran.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn logs_say_what_was_chosen_of_their_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for driver in ["json-file", "local"] {
        let line = format!(
            "run --name {driver} --network none --log-driver {driver} --log-opt env=MODE,none --log-opt labels=tier \
             --log-opt env-regex=^T --log-opt tag={{{{.Name}}}}/x -e MODE=fast=1 -e TERMS=a,b -e SECRET=no --label tier=front \
             busybox echo hello"
        );
        assert_eq!(world.say(&line).ok(), "hello");
        let details = format!("MODE=fast%3D1,TERMS=a%2Cb,tag={driver}%2Fx,tier=front");
        assert_eq!(
            world.say(&format!("logs --details {driver}")).ok(),
            format!("{details} hello")
        );
        let stamped = world.say(&format!("logs -t --details {driver}")).ok();
        assert!(stamped.ends_with(&format!("Z {details} hello")), "{stamped}");
        assert_eq!(world.say(&format!("logs {driver}")).ok(), "hello");
    }
    let path = world.inspect("json-file", "{{.LogPath}}");
    let record: Value = serde_json::from_str(std::fs::read_to_string(path).unwrap().trim()).unwrap();
    assert_eq!(record["attrs"]["MODE"], "fast=1");
    world
        .say("run --name none --network none busybox echo hello")
        .ok();
    assert_eq!(world.say("logs --details none").exits(0).stdout, " hello\n");
    for bad in ["env-regex=(", "tag={{.Nope}}", "labls=x", "mode=often"] {
        let args = [
            "create",
            "--log-driver",
            "json-file",
            "--log-opt",
            bad,
            "busybox",
            "true",
        ];
        world.dhow(&args).exits(125).says(bad.split('=').next().unwrap());
    }
}

#[test]
fn info_says_what_the_host_can_limit() {
    let Some(world) = World::new() else { return };
    let info = json(world.say("info --format json"));
    for name in [
        "MemoryLimit",
        "CpuCfsQuota",
        "CpuCfsPeriod",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
    ] {
        assert_eq!(info[name], true, "{name}");
    }
    let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(info["IPv4Forwarding"], forwards.trim() == "1");
    let version_1 = info["CgroupVersion"] == "1";
    let file = "/sys/fs/cgroup/memory/memory.oom_control";
    assert_eq!(
        info["OomKillDisable"],
        version_1 && std::path::Path::new(file).exists()
    );
    assert!(info["SwapLimit"].is_boolean() && info["BridgeNfIptables"].is_boolean());
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
}

#[test]
fn checks_that_do_not_run_are_remembered() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let check = |flags: &str| {
        let mut args = vec!["create", "--name", "some"];
        args.extend(flags.split(' '));
        args.extend(["busybox", "true"]);
        world.dhow(&args).ok();
        let check = json(world.dhow(&["inspect", "--format", "{{json .Config.Healthcheck}}", "some"]));
        world.say("start -a some").ok();
        let state = world.inspect("some", "{{json .State}}");
        assert!(!state.contains("Health\""), "{state}");
        world.say("rm some").ok();
        check
    };
    assert_eq!(check("--no-healthcheck"), serde_json::json!({"Test": ["NONE"]}));
    let idle = check("--health-interval 30s --health-retries 5");
    assert_eq!(
        (&idle["Interval"], &idle["Retries"]),
        (&30_000_000_000_u64.into(), &5.into())
    );
    assert_eq!(check("--network none"), Value::Null);
}

#[test]
fn limits_of_real_time_are_kept_and_checked() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("create --name some --cpu-rt-runtime 950000 --cpu-rt-period 1000000 busybox true")
        .ok();
    let kept = world.inspect(
        "some",
        "{{.HostConfig.CPURealtimeRuntime}} {{.HostConfig.CpuRealtimePeriod}}",
    );
    assert_eq!(kept, "950000 1000000");
    world
        .say("run --rm --cpu-rt-runtime 2000000 --cpu-rt-period 1000000 busybox true")
        .exits(125)
        .says("cannot be higher");
}

#[test]
fn a_bridge_has_dockers_name() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create some").ok();
    let id = world.say("network inspect -f {{.Id}} some").ok();
    world
        .say("network create -o com.docker.network.bridge.name=dhow-wish own")
        .ok();
    for (network, device) in [
        ("some", format!("br-{}", &id[..12])),
        ("own", "dhow-wish".to_owned()),
    ] {
        world
            .say(&format!("run --rm --network {network} busybox true"))
            .ok();
        let folder = format!("/sys/class/net/{device}/bridge");
        assert!(std::path::Path::new(&folder).exists(), "{device}");
        world.say(&format!("network rm {network}")).ok();
        assert!(!std::path::Path::new(&folder).exists(), "{device}");
    }
}

#[test]
fn the_hosts_file_of_what_runs_knows_its_networks() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create other").ok();
    world
        .say("run -d --name some --hostname host busybox sleep 1000")
        .ok();
    let hosts = || world.say("exec some cat /etc/hosts").ok();
    let own = "echo 192.0.2.9 mine >> /etc/hosts";
    world.dhow(&["exec", "some", "sh", "-c", own]).ok();
    let before = hosts();
    world.say("network connect other some").ok();
    let ip = world.inspect("some", "{{.NetworkSettings.Networks.other.IPAddress}}");
    assert!(hosts().contains(&format!("{ip}\thost")), "{}", hosts());
    world.say("network disconnect other some").ok();
    assert_eq!(hosts(), before);
    assert!(before.contains("192.0.2.9 mine"));
    // Its name where it has the host's.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(
        world.sh("--uts host --network none", "cat /etc/hostname").ok(),
        name.trim()
    );
    let pid = world.inspect("some", "{{.State.Pid}}");
    assert_eq!(
        world.inspect("some", "{{.NetworkSettings.SandboxKey}}"),
        format!("/proc/{pid}/ns/net")
    );
}

#[test]
fn who_leaves_a_container_gets_dockers_exit_code_by_dockers_name() {
    let Some(world) = World::with_busybox().filter(|_| program("script")) else {
        return;
    };
    let links = world.path("names");
    std::fs::create_dir_all(&links).unwrap();
    for (name, code) in [("docker", 1), ("dhow", 0)] {
        let link = links.join(name);
        std::os::unix::fs::symlink(crate::world::binary(), &link).unwrap();
        world
            .say(&format!("run -dit --name {name} --network none busybox sh"))
            .ok();
        let attach = format!(
            "{} --root {} attach {name}",
            link.display(),
            world.root().display()
        );
        let mut command = std::process::Command::new("sh");
        let keys = "sleep 1; printf '\\020\\021'; sleep 2";
        command.args(["-c", &format!("({keys}) | script -qec '{attach}' /dev/null")]);
        let ran = finish(command, Vec::new());
        assert_eq!(ran.code, code, "{ran:?}");
        eventually("it runs on", || {
            world.inspect(name, "{{.State.Running}}") == "true"
        });
    }
}
