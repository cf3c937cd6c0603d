//! Many at once: 32 loops of pull, run and removal on one root, none of which may fail or leave anything.
//!
//! `DHOW_CHURN_SECONDS` says for how long; `DHOW_CHURN_LOOPS` how many there are.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};

use super::{Traces, how_many, stored, tar_of};
use crate::samples::noise;
use crate::world::{Ran, World};

/// What one loop is told to do again and again; every name of its own ends in its number.
fn deed(world: &World, registry: &FakeRegistry, number: usize, round: usize) -> (&'static str, Ran) {
    let own = registry.name(&format!("own{}:1", number % 8));
    let shared = registry.name("shared:1");
    match (number + round) % 6 {
        0 => ("pull", world.dhow(&["pull", &own])),
        1 => ("pull of one for all", world.dhow(&["pull", &shared])),
        2 => (
            "run",
            world.dhow(&["run", "--rm", "--network", "none", "busybox", "true"]),
        ),
        3 => (
            "run of a pull",
            world.dhow(&["run", "--rm", "--network", "none", &own, "cat", "/id"]),
        ),
        4 => ("tag", world.dhow(&["tag", "busybox", &format!("tag{number}:1")])),
        _ => ("rmi", world.dhow(&["rmi", "-f", &own, &format!("tag{number}:1")])),
    }
}

/// Whether a failure is only the truth: of several that remove one image, or that run it while it goes, one is late.
fn late(what: &str, ran: &Ran) -> bool {
    let said = ran.stderr.to_lowercase();
    let gone = said.contains("no such image") || said.contains("is being used by");
    gone && ["rmi", "run of a pull"].contains(&what)
}

#[test]
fn many_pulls_runs_and_removals_at_once_do_not_fail_nor_leave_anything() {
    let Some(world) = World::with_run_in_memory() else {
        return;
    };
    let traces = Traces::of(&world);
    let before = stored(&world);
    let registry = FakeRegistry::start();
    let base = Layer::gzip(tar_of("base"));
    for number in 0..8 {
        let own = Tar::new().file("id", 0o644, format!("own {number}").as_bytes());
        let own = own.file("noise", 0o644, &noise(50_000, number));
        let layers = vec![base.clone(), Layer::gzip(own.finish())];
        registry.put_image(&format!("own{number}"), "1", &TinyImage::oci(layers));
    }
    registry.put_image("shared", "1", &TinyImage::oci(vec![base]));
    let loops = how_many("DHOW_CHURN_LOOPS", 32);
    let until = Instant::now() + Duration::from_secs(how_many("DHOW_CHURN_SECONDS", 4) as u64);
    let (counts, lates) = (Mutex::new(BTreeMap::<&str, usize>::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..loops {
            let (world, registry, counts, lates) = (&world, &registry, &counts, &lates);
            scope.spawn(move || {
                for round in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let (what, ran) = deed(world, registry, number, round);
                    if late(what, &ran) {
                        lates.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let ran = ran.exits(0);
                        assert!(
                            what != "run of a pull" || ran.stdout == format!("own {}", number % 8),
                            "{ran:?}"
                        );
                    }
                    *counts.lock().unwrap().entry(what).or_default() += 1;
                }
            });
        }
    });
    eprintln!(
        "{loops} loops: {:?}, of which {lates:?} were late",
        counts.into_inner().unwrap()
    );
    crate::world::eventually("all ends", || world.processes().is_empty());
    world.say("system check --deep").ok();
    world.say("images -a").ok();
    for number in 0..loops {
        world.dhow(&["rmi", "-f", &format!("tag{number}:1")]).exits_any();
        world
            .dhow(&["rmi", "-f", &registry.name(&format!("own{}:1", number % 8))])
            .exits_any();
    }
    world.dhow(&["rmi", "-f", &registry.name("shared:1")]).exits_any();
    world.say("system prune -f").ok();
    world.clean();
    traces.assert_none(&world, "after all of it");
    assert_eq!(stored(&world), before, "a leak");
    assert_eq!(world.containers(), Vec::<String>::new());
}
