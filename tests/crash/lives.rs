//! `kill -9` at the n-th system call of the verbs of a container's life, of the command and of all that it starts: monitor, first
//! process, helpers of the network.
//!
//! After each, a neighbour goes on; whatever is said to run does; the dead container can be removed, and the same one, with its
//! name, address, port and volume, started at once; then nothing of it is left: no process, mount, group, rule, address or name.
//! `DHOW_LIFE_POINTS` says how many points of each verb are tried.

use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::traced::{choose, points, traced};
use super::{how_many, words};
use crate::kills::{groups_in, parents_of_groups};
use crate::world::{PATIENCE, World, eventually, free_port, program};

/// The last of the networks, of which each test has its own.
static NETWORKS: AtomicU8 = AtomicU8::new(60);

struct Bench {
    world: World,
    /// The container's, by which rules and leases are known.
    address: String,
    port: u16,
    groups: Vec<std::path::PathBuf>,
    /// Mounts, groups and processes of the neighbour alone.
    before: Vec<String>,
}

impl Bench {
    fn new() -> Option<Self> {
        if !program("strace") || !program("nft") {
            return None;
        }
        let world = World::with_run_in_memory()?;
        let groups = parents_of_groups(&world);
        let network = format!("10.211.{}", NETWORKS.fetch_add(1, Ordering::Relaxed));
        world
            .say(&format!("network create --subnet {network}.0/24 sea"))
            .ok();
        world.say("volume create data").ok();
        world
            .say("run -d --name neighbour --network sea busybox sleep 100000")
            .ok();
        let mut bench = Self {
            world,
            address: format!("{network}.9"),
            port: free_port(),
            groups,
            before: Vec::new(),
        };
        // The first one makes what stays as long as anybody publishes a port.
        bench.make("run -d");
        bench.remove("at the beginning");
        bench.before = bench.things();
        Some(bench)
    }

    /// `create` or `run -d` of the container.
    fn words(&self, verb: &str) -> Vec<String> {
        words(&format!(
            "{verb} --name victim --network sea --ip {} -p 127.0.0.1:{}:80 -v data:/data busybox sleep 100000",
            self.address, self.port
        ))
    }

    #[track_caller]
    fn make(&self, verb: &str) {
        self.world.dhow(&self.words(verb)).ok();
    }

    /// Takes it away, if it is there.
    #[track_caller]
    fn remove(&self, what: &str) {
        let removed = self.world.say("rm -f victim");
        let gone = removed.code == 0 || removed.stderr.contains("No such container");
        assert!(gone, "{what}: {removed:?}");
    }

    /// All that this root has in the kernel, and folders of containers.
    fn things(&self) -> Vec<String> {
        let root = self.world.root().to_string_lossy().into_owned();
        let mut all = crate::world::mounts(&root);
        all.extend(
            groups_in(&self.groups)
                .iter()
                .map(|group| group.display().to_string()),
        );
        let mut watched = false;
        for process in self.world.processes() {
            let pid = process.split(' ').next().unwrap_or_default();
            let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm")) else {
                continue;
            };
            // One keeps an eye on the rules as long as there are any: the neighbour's.
            if name.trim() == "dhow-net" && !watched {
                watched = true;
                continue;
            }
            all.push(format!("process {}", name.trim()));
        }
        for place in ["containers", "snapshots", "names", "tmp", "trash", "leases"] {
            let names = crate::world::names(&self.world.root().join(place));
            all.extend(names.iter().map(|name| format!("{place}/{name}")));
        }
        let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        all.extend(
            rules
                .lines()
                .filter(|line| line.contains(&self.address))
                .map(|line| line.trim().to_owned()),
        );
        all.sort();
        all
    }

    /// The neighbour is there, and what is said of the victim is so.
    #[track_caller]
    fn is_as_it_says(&self, what: &str) {
        assert_eq!(
            self.world.say("exec neighbour echo here").ok(),
            "here",
            "{what}: the neighbour"
        );
        let says = || {
            let status = self.world.say("inspect --format {{.State.Status}} victim");
            (status.code == 0).then(|| status.stdout.trim().to_owned())
        };
        if says().as_deref() == Some("running") {
            let alive = self.world.say("exec victim echo alive");
            // It may just be ending: then it says so at once.
            let ended = || says().as_deref() != Some("running");
            assert!(
                alive.stdout.trim() == "alive" || ended(),
                "{what}: it is said to run: {alive:?}"
            );
        }
    }

    /// Kills a verb at so many of its points, and looks at what is left each time.
    fn kill(&self, name: &str, prepare: &dyn Fn(&Self), words: &[String]) {
        prepare(self);
        let all = points(&self.world, name, words);
        self.remove(name);
        let chosen = choose(&all, how_many("DHOW_LIFE_POINTS", 6));
        for (round, (call, at)) in (1..).zip(&chosen) {
            prepare(self);
            let later = if round % 2 == 0 { "+" } else { "" };
            let what = format!("{name} killed at {call} {at}{later}");
            let inject = format!("inject={call}:signal=KILL:when={at}{later}");
            let only = format!("trace={call}");
            let options = ["-o", "/dev/null", "-e", &only, "-e", &inject];
            traced(&self.world, &options, words);
            self.is_as_it_says(&what);
            self.remove(&what);
            let again = self.world.dhow(&self.words("run -d"));
            assert_eq!(again.code, 0, "{what}: again: {again:?}");
            assert_eq!(
                self.world.say("exec victim echo again").ok(),
                "again",
                "{what}: again"
            );
            self.remove(&what);
            self.world.clean_or_healed();
            // A container that was killed before its name was reserved may have got it back.
            self.remove(&what);
            // What was killed may have to be waited for.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let mut left = self.things();
                left.retain(|one| !self.before.contains(one));
                if left.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "{what}: {left:?} is left");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        eprintln!("{name}: {} of {} points.", chosen.len(), all.len());
    }
}

#[test]
fn a_create_that_is_killed_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.kill("create", &|_| {}, &bench.words("create"));
}

#[test]
fn a_run_that_is_killed_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.kill("run -d", &|_| {}, &bench.words("run -d"));
}

#[test]
fn a_start_that_is_killed_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.kill("start", &|bench| bench.make("create"), &words("start victim"));
}

#[test]
fn a_stop_and_a_restart_that_are_killed_leave_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.kill("stop", &|bench| bench.make("run -d"), &words("stop -t 0 victim"));
    bench.kill(
        "restart",
        &|bench| bench.make("run -d"),
        &words("restart -t 0 victim"),
    );
}

#[test]
fn an_rm_that_is_killed_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.kill("rm -f", &|bench| bench.make("run -d"), &words("rm -f victim"));
}

#[test]
fn an_exec_that_is_killed_leaves_its_container_alone() {
    let Some(bench) = Bench::new() else { return };
    let sleeps = |bench: &Bench| {
        bench.make("run -d");
        eventually("it runs", || bench.world.say("exec victim true").code == 0);
    };
    bench.kill("exec", &sleeps, &words("exec victim true"));
}
