//! `kill -9` at the n-th system call of every verb that writes to the store.
//!
//! strace delivers the signal when a process of the command enters the n-th call of a name; every other time it does so
//! for all later ones too, so that whatever the command forked dies as well. After each: `system check` is clean or
//! heals, every name runs with the content that it had or was to get, nothing is left of the dead, and the verb works.
//! `DHOW_KILL_POINTS` says how many points of each verb are tried, spread evenly; the sample is a few.

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};
use std::collections::{BTreeMap, BTreeSet};

use super::traced::{choose, points, traced};
use super::{Traces, change, how_many, stored, tar_of, words};
use crate::samples::{docker_archive, noise};
use crate::world::{World, program};

/// A verb: how the world is made ready for it, its words, and the name that it gives or takes.
struct Verb<'a> {
    name: &'static str,
    prepare: &'a dyn Fn(u32),
    words: &'a dyn Fn(u32) -> Vec<String>,
    /// A name, and the content of its file `/id` that it has once the verb of this round is through; none: it is gone.
    result: (String, &'a dyn Fn(u32) -> Option<String>),
}

struct Bench {
    world: World,
    traces: Traces,
    /// Names that are there all the time, with the content of their `/id`.
    kept: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Option<Self> {
        if !program("strace") {
            return None;
        }
        let world = World::with_run_in_memory()?;
        let traces = Traces::of(&world);
        world.feed(&["import", "-", "kept:1"], tar_of("kept")).ok();
        let kept = BTreeMap::from([("kept:1".to_owned(), "kept".to_owned())]);
        Some(Self { world, traces, kept })
    }

    /// The points of a verb.
    fn points(&self, verb: &Verb<'_>) -> Vec<(String, usize)> {
        (verb.prepare)(0);
        points(&self.world, verb.name, &(verb.words)(0))
    }

    /// What every name runs as: checked against what it may be.
    #[track_caller]
    fn names_run(&self, may_be: &BTreeMap<String, BTreeSet<String>>, what: &str) {
        let listed = self.world.say("images --format {{.Repository}}:{{.Tag}}").ok();
        let listed: BTreeSet<&str> = listed.lines().collect();
        for name in self.kept.keys() {
            assert!(listed.contains(name.as_str()), "{what}: {name} is gone");
        }
        for name in listed {
            let id = || {
                self.world
                    .dhow(&["run", "--rm", "--network", "none", name, "cat", "/id"])
                    .ok()
            };
            match (self.kept.get(name), may_be.get(name)) {
                (Some(kept), _) => assert_eq!(id(), *kept, "{what}: {name}"),
                (None, Some(some)) => {
                    let id = id();
                    assert!(some.contains(&id), "{what}: {name} is {id}");
                }
                (None, None) => {}
            }
        }
    }

    /// Kills the verb at so many of its points, and looks at what is left each time.
    fn kill(&self, verb: &Verb<'_>) {
        let all = self.points(verb);
        let chosen = choose(&all, how_many("DHOW_KILL_POINTS", 8));
        let baseline = {
            self.collect(verb);
            stored(&self.world)
        };
        let mut before: Option<String> = None;
        for (round, (call, at)) in (1..).zip(&chosen) {
            (verb.prepare)(round);
            let later = if round % 2 == 0 { "+" } else { "" };
            let what = format!("{} killed at {call} {at}{later}", verb.name);
            let inject = format!("inject={call}:signal=KILL:when={at}{later}");
            let only = format!("trace={call}");
            let options = ["-o", "/dev/null", "-e", &only, "-e", &inject];
            traced(&self.world, &options, &(verb.words)(round));
            crate::world::eventually("its children end, too", || self.world.processes().is_empty());
            self.world.clean_or_healed();
            self.traces.assert_none(&self.world, &what);
            let (name, result) = &verb.result;
            let after = result(round);
            let may_be: BTreeSet<String> = [before.take(), after.clone(), Some(format!("victim {round}"))]
                .into_iter()
                .flatten()
                .collect();
            self.names_run(&BTreeMap::from([(name.clone(), may_be)]), &what);
            self.world.dhow(&(verb.words)(round)).exits_any();
            match &after {
                Some(id) => assert_eq!(self.world.sh_in(name, "cat /id"), *id, "{what}: again"),
                None => assert_eq!(self.world.dhow(&["images", "-q", name]).ok(), "", "{what}: again"),
            }
            before = after;
        }
        self.collect(verb);
        self.world.clean();
        self.world.dhow(&["system", "check", "--deep"]).ok();
        assert_eq!(stored(&self.world), baseline, "{}: a leak", verb.name);
        eprintln!("{}: {} of {} points.", verb.name, chosen.len(), all.len());
    }

    /// Takes away what the verb gave, and then all that nobody needs.
    fn collect(&self, verb: &Verb<'_>) {
        self.world.dhow(&["rmi", "-f", &verb.result.0]).exits_any();
        self.world.say("system prune -f").ok();
        self.world.say("builder prune -af").ok();
    }
}

#[test]
fn a_pull_killed_at_a_system_call_is_taken_up_again() {
    let Some(bench) = Bench::new() else { return };
    let registry = FakeRegistry::start();
    let more = Tar::new()
        .file("noise", 0o644, &noise(400_000, 5))
        .directory("d", 0o755);
    let more = (0..20).fold(more, |tar, at| {
        tar.file(&format!("d/{at}"), 0o644, &noise(900, at))
    });
    let image = TinyImage::oci(vec![Layer::gzip(tar_of("pulled")), Layer::gzip(more.finish())]);
    registry.put_image("box", "1", &image);
    let name = registry.name("box:1");
    bench.kill(&Verb {
        name: "pull",
        prepare: &|_| drop(bench.world.dhow(&["rmi", "-f", &name]).exits_any()),
        words: &|_| vec!["pull".to_owned(), name.clone()],
        result: (name.clone(), &|_| Some("pulled".to_owned())),
    });
}

#[test]
fn a_load_killed_at_a_system_call_is_taken_up_again() {
    let Some(bench) = Bench::new() else { return };
    let archive = |round: u32| docker_archive("loaded:1", &tar_of(&format!("loaded {round}")));
    bench.kill(&Verb {
        name: "load",
        // The name stays from the round before: it is moved, never lost.
        prepare: &|round| drop(bench.world.file("archive", archive(round))),
        words: &|_| words(&format!("load -i {}", bench.world.path("archive").display())),
        result: ("loaded:1".to_owned(), &|round| Some(format!("loaded {round}"))),
    });
}

#[test]
fn a_build_killed_at_a_system_call_is_taken_up_again() {
    let Some(bench) = Bench::new() else { return };
    let text = "FROM busybox AS base\nRUN --network=none echo step > /step\nCOPY id /id\nFROM base\n\
                RUN --network=none --mount=type=bind,from=base,target=/m cat /m/id > /copy\n";
    bench.world.file("ctx/Dockerfile", text);
    bench.kill(&Verb {
        name: "build",
        prepare: &|round| drop(bench.world.file("ctx/id", format!("built {round}"))),
        words: &|_| words(&format!("build -t built:1 {}", bench.world.path("ctx").display())),
        result: ("built:1".to_owned(), &|round| Some(format!("built {round}"))),
    });
}

#[test]
fn a_commit_killed_at_a_system_call_is_taken_up_again() {
    let Some(bench) = Bench::new() else { return };
    bench.kill(&Verb {
        name: "commit",
        prepare: &|round| change(&bench.world, "busybox", &format!("echo committed {round} > /id")),
        words: &|_| words("commit changed committed:1"),
        result: ("committed:1".to_owned(), &|round| {
            Some(format!("committed {round}"))
        }),
    });
}

#[test]
fn an_rmi_killed_at_a_system_call_is_taken_up_again() {
    let Some(bench) = Bench::new() else { return };
    let import = |round: u32| {
        let tar = tar_of(&format!("victim {round}"));
        bench.world.feed(&["import", "-", "victim:1"], tar).ok();
    };
    bench.kill(&Verb {
        name: "rmi",
        prepare: &import,
        words: &|_| words("rmi -f victim:1"),
        result: ("victim:1".to_owned(), &|_| None),
    });
}

/// A stopped container, an image that lost its name, and a cached step: what a prune takes.
fn rubbish(world: &World, round: u32) {
    world
        .feed(&["import", "-", "moved:1"], tar_of(&format!("moved {round} a")))
        .ok();
    world
        .feed(&["import", "-", "moved:1"], tar_of(&format!("moved {round} b")))
        .ok();
    world.say("run --network none busybox touch /x").ok();
    world.file("ctx/id", format!("rubbish {round}"));
    world.file("ctx/Dockerfile", "FROM busybox\nCOPY id /id\nCOPY id /id2\n");
    let folder = world.path("ctx").display().to_string();
    world.dhow(&["build", "-t", "moved:1", &folder]).exits(0);
}

#[test]
fn a_prune_killed_at_a_system_call_takes_nothing_that_is_named() {
    let Some(bench) = Bench::new() else { return };
    bench.kill(&Verb {
        name: "system prune",
        prepare: &|round| rubbish(&bench.world, round),
        words: &|_| words("system prune -f"),
        result: ("moved:1".to_owned(), &|round| Some(format!("rubbish {round}"))),
    });
}
