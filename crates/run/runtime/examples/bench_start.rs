//! Measures the start of a container: `bench_start <rootfs directory> [rounds]`, as root.
//!
//! One round is overlay mount, group, clone, the whole default bundle (docker's mounts, masks, capabilities, seccomp
//! filter), execve of /bin/true, wait, removal of the group. The parts are printed as medians in microseconds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program, not product code"
)]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_cgroup::Group;
use dhow_oci::runtime::Resources;
use dhow_runtime::{Create, Plan, Rootfs, Settings, run, wait};

fn main() {
    let mut args = std::env::args().skip(1);
    let rootfs = args
        .next()
        .expect("usage: bench_start <rootfs directory> [rounds]");
    let rounds: usize = args.next().map_or(200, |rounds| rounds.parse().unwrap());
    let grouped = std::env::var_os("BENCH_NO_GROUP").is_none();
    let scratch = tempfile::tempdir().unwrap();
    let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let settings = Settings {
        seccomp_cache: Some(scratch.path().join("cache")),
        ..dhow_runtime::Settings::default()
    };
    let spec = fixture::default_spec(&["true"]);
    let names = ["plan", "mount", "group", "run", "wait", "remove", "total"];
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds); names.len()];
    for round in 0..rounds {
        let mut marks = vec![Instant::now()];
        let plan = Plan::prepare(&spec, &settings).unwrap();
        marks.push(Instant::now());
        // What a container that is thrown away gets: its unmount need not wait for the disk.
        drop(std::fs::remove_dir_all(work.join("work/incompat")));
        let options = [("volatile", None)];
        let mount =
            dhow_sys::mount::overlay(&[Path::new(&rootfs)], Some(&upper), Some(&work), &options).unwrap();
        marks.push(Instant::now());
        let path = format!("dhow-bench/{}-{round}", std::process::id());
        let group = grouped.then(|| Group::create(Path::new(&path), &Resources::default()).unwrap());
        marks.push(Instant::now());
        let stdio = fixture::null_stdio();
        let create = Create {
            plan: &plan,
            rootfs: Rootfs::Mount(mount),
            stdio,
            group: group.as_ref(),
            namespaces: Vec::new(),
            state: None,
        };
        let running = run(create).unwrap();
        marks.push(Instant::now());
        assert_eq!(wait(running.pidfd.as_fd()).unwrap().code(), 0);
        marks.push(Instant::now());
        if let Some(group) = group {
            group.delete().unwrap();
        }
        marks.push(Instant::now());
        for (slot, pair) in times.iter_mut().zip(marks.windows(2)) {
            slot.push(pair[1] - pair[0]);
        }
        times.last_mut().unwrap().push(marks[marks.len() - 1] - marks[0]);
    }
    for (name, mut times) in names.iter().zip(times) {
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 100].as_micros();
        println!(
            "{name:>8} p10 {:>6}  median {:>6}  p90 {:>6} us",
            at(10),
            at(50),
            at(90)
        );
    }
}
