//! Networks of CNI plugins: here a script that makes a pair of interfaces and notes what it was told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::world::{Ran, World, eventually, finish, program};

const PLUGIN: &str = r#"#!/bin/sh
config=$(cat)
echo "$CNI_COMMAND${CNI_NETNS:+:here} $CNI_IFNAME $config" >>@/log
host=cni${CNI_CONTAINERID%"${CNI_CONTAINERID#???????}"}
case $CNI_COMMAND in
ADD)
    if [ -e @/broken ]; then
        echo '{"cniVersion":"1.0.0","code":100,"msg":"out of order"}'
        exit 1
    fi
    ip link add "$host" type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS" &&
        nsenter --net="$CNI_NETNS" ip addr add 10.213.9.2/24 dev "$CNI_IFNAME" &&
        nsenter --net="$CNI_NETNS" ip link set "$CNI_IFNAME" up && ip link set "$host" up || exit 1
    echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'"$CNI_IFNAME"'","mac":"02:00:00:00:00:09","sandbox":"'"$CNI_NETNS"'"}],
        "ips":[{"address":"10.213.9.2/24","interface":0}],"dns":{"nameservers":["10.213.9.53"]}}'
    ;;
CHECK)
    nsenter --net="$CNI_NETNS" ip addr show dev "$CNI_IFNAME" | grep -q 10.213.9.2 && exit 0
    echo '{"cniVersion":"1.0.0","code":101,"msg":"its address is gone"}'
    exit 1
    ;;
DEL)
    [ -z "$CNI_NETNS" ] || nsenter --net="$CNI_NETNS" true || exit 1
    ip link del "$host" 2>/dev/null || true
    ;;
esac
"#;

struct Toy {
    world: World,
    folder: PathBuf,
}

impl Toy {
    fn new() -> Option<Self> {
        let world = World::with_busybox()?;
        if !program("ip") || !program("nsenter") {
            return None;
        }
        let folder = world.path("cni-of-the-host");
        for part in ["net.d", "bin"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let list = r#"{"cniVersion":"1.0.0","name":"toynet","plugins":[{"type":"toy","capabilities":{"portMappings":true}}]}"#;
        fs::write(folder.join("net.d/10-toy.conflist"), list).unwrap();
        let plugin = folder.join("bin/toy");
        fs::write(&plugin, PLUGIN.replace('@', folder.to_str().unwrap())).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { world, folder })
    }

    fn say(&self, line: &str) -> Ran {
        let mut command = self.world.command(&line.split_whitespace().collect::<Vec<_>>());
        command
            .env("NETCONFPATH", self.folder.join("net.d"))
            .env("CNI_PATH", self.folder.join("bin"));
        finish(command, Vec::new())
    }

    /// Commands that the plugin got since the last time, and the last one's configuration.
    fn told(&self) -> (Vec<String>, serde_json::Value) {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        drop(fs::remove_file(self.folder.join("log")));
        let first = |line: &str| line.split(' ').next().unwrap().to_owned();
        let config = text.lines().last().and_then(|line| line.splitn(3, ' ').nth(2));
        let config = config.map_or_else(Default::default, |config| serde_json::from_str(config).unwrap());
        (text.lines().map(first).collect(), config)
    }

    fn records(&self) -> usize {
        fs::read_dir(self.world.root().join("cni")).map_or(0, Iterator::count)
    }
}

#[test]
fn a_container_joins_and_leaves_a_network_that_a_list_of_plugins_describes() {
    let Some(toy) = Toy::new() else { return };
    toy.say("network ls").prints("toynet").prints("cni");
    assert_eq!(toy.say("network inspect --format {{.Driver}} toynet").ok(), "cni");
    toy.say("run -d --name web --network toynet -p 127.0.0.1:18099:80 busybox sleep 1000")
        .ok();
    let (commands, config) = toy.told();
    assert_eq!(commands, ["ADD:here"]);
    assert_eq!(
        config["runtimeConfig"]["portMappings"],
        serde_json::json!([{"hostPort": 18099, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}])
    );
    let seen = toy.say("exec web ip addr show eth0").ok();
    assert!(seen.contains("10.213.9.2/24"), "{seen}");
    let resolv = toy.say("exec web cat /etc/resolv.conf").ok();
    assert!(resolv.contains("nameserver 10.213.9.53"), "{resolv}");
    let hosts = toy.say("exec web cat /etc/hosts").ok();
    assert!(hosts.contains("10.213.9.2\t"), "{hosts}");
    let place =
        "{{.NetworkSettings.Networks.toynet.IPAddress}} {{.NetworkSettings.Networks.toynet.MacAddress}}";
    assert_eq!(
        toy.say(&format!("inspect --format {} web", place.replace(' ', "_")))
            .ok(),
        "10.213.9.2_02:00:00:00:00:09"
    );
    assert_eq!(toy.say("port web 80").ok(), "127.0.0.1:18099");
    // By a restart it leaves and joins; what its list says now does not matter to what was made before.
    toy.say("restart -t 0 web").ok();
    assert_eq!(toy.told().0, ["DEL:here", "ADD:here"]);
    fs::write(toy.folder.join("net.d/10-toy.conflist"), "{}").unwrap();
    toy.say("rm -f web").ok();
    assert_eq!(toy.records(), 0);
    let (commands, config) = toy.told();
    assert_eq!(commands, ["DEL:here"]);
    assert_eq!(config["prevResult"]["ips"][0]["address"], "10.213.9.2/24");
    toy.world.clean();
}

#[test]
fn a_plugin_that_fails_is_told_to_take_back_and_its_words_are_shown() {
    let Some(toy) = Toy::new() else { return };
    fs::write(toy.folder.join("broken"), "").unwrap();
    toy.say("run --rm --network toynet busybox true")
        .exits(125)
        .says("out of order");
    assert_eq!(toy.told().0, ["ADD:here", "DEL:here"]);
    assert_eq!(toy.records(), 0);
    toy.say("run --rm --network toynet --ip 10.213.9.7 busybox true")
        .exits(125)
        .says("no plugin of network toynet takes ips");
    toy.say("run --rm --network toynet -p 80 busybox true")
        .exits(125)
        .says("has no certain port of the host");
    toy.say("network rm toynet").exits(1).says("10-toy.conflist");
    toy.say("network create --driver cni xx")
        .exits(1)
        .says("conflist");
    toy.say("network prune -f").ok();
    toy.say("network ls").prints("toynet");
    toy.say("run -d --name other busybox sleep 1000").ok();
    toy.say("network connect toynet other")
        .exits(1)
        .says("when it starts");
    toy.say("rm -f other").ok();
    fs::write(toy.folder.join("net.d/20-broken.conflist"), "{").unwrap();
    toy.say("run --rm --network nowhere busybox true")
        .exits(125)
        .says("network nowhere not found")
        .says("20-broken.conflist");
    fs::remove_file(toy.folder.join("bin/toy")).unwrap();
    toy.say("run --rm --network toynet busybox true")
        .exits(125)
        .says("failed to find CNI plugin");
}

#[test]
fn a_check_of_the_system_asks_plugins_whether_all_is_as_they_made_it() {
    let Some(toy) = Toy::new() else { return };
    toy.say("run -d --name web --network toynet busybox sleep 1000")
        .ok();
    toy.told();
    toy.say("system check").ok();
    let (commands, config) = toy.told();
    assert_eq!(commands, ["CHECK:here"]);
    assert_eq!(config["prevResult"]["ips"][0]["address"], "10.213.9.2/24");
    let pid = toy.world.inspect("web", "{{.State.Pid}}");
    let gone = std::process::Command::new("nsenter")
        .args(["--net", "-t", pid.trim(), "ip", "addr", "flush", "dev", "eth0"])
        .status();
    assert!(gone.unwrap().success());
    let ran = toy.say("system check");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout
            .contains("interface eth0 is not as its plugins made it")
            && ran.stdout.contains("its address is gone"),
        "{ran:?}"
    );
    // One that does not run has none.
    toy.say("stop -t 0 web").ok();
    toy.say("system check").ok();
    toy.say("start web").ok();
    toy.say("system check").ok();
    toy.say("rm -f web").ok();
    toy.world.clean();
}

#[test]
fn what_a_killed_monitor_left_to_plugins_is_taken_back() {
    let Some(toy) = Toy::new() else { return };
    for way in ["rm -f web", "network prune -f"] {
        toy.say("run -d --name web --network toynet busybox sleep 1000")
            .ok();
        let pid = toy.say("inspect --format {{.State.Pid}} web").ok();
        let parent = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let parent = parent
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned();
        for process in [&parent, &pid] {
            let process = rustix::process::Pid::from_raw(process.parse().unwrap()).unwrap();
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        eventually("the program is gone", || {
            toy.say("inspect --format {{.State.Running}} web").stdout.trim() == "false"
        });
        drop(toy.told());
        assert_eq!(toy.records(), 1);
        toy.say(way).ok();
        assert_eq!(toy.told().0, ["DEL"], "{way}");
        assert_eq!(toy.records(), 0, "{way}");
        drop(toy.say("rm -f web"));
    }
}
