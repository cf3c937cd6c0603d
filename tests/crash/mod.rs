//! What survives: kills at every system call, power cuts, full disks, many at once.
//!
//! By default each test is a sample of a few seconds, so that the suite and CI run all of it; `tests/crash/run` is the
//! long run. README.md beside this file says what each part does, and what it does not show.
//!
//! - `churn`: many commands on one root at once
//! - `kill_points`: `kill -9` at the n-th system call of every verb that writes to the store
//! - `lives`: the same of every verb of a container's life
//! - `space`: no bytes or no inodes left, at every step
//! - `power`: power cuts, on a disk (`volatile`) that loses what was not flushed

mod churn;
mod keeper;
mod kill_points;
mod lives;
mod power;
mod space;
mod traced;
mod volatile;

use std::path::PathBuf;

use dhow_testkit::Tar;

use crate::kills::{groups_in, parents_of_groups};
use crate::samples::busybox_tar;
use crate::world::{World, names};

/// A number that the long run sets, or that of the sample.
fn how_many(variable: &str, sample: usize) -> usize {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(sample)
}

/// What may be left of a killed command before the next collection of garbage, and nothing else: no mount, no group,
/// no lease, nothing half-made. Called after `system check`, which deletes what the dead left.
struct Traces {
    groups: Vec<PathBuf>,
}

impl Traces {
    /// Starts a container once, to learn where this root's groups are.
    fn of(world: &World) -> Self {
        Self {
            groups: parents_of_groups(world),
        }
    }

    #[track_caller]
    fn assert_none(&self, world: &World, what: &str) {
        let mut left = crate::world::mounts(&world.root().to_string_lossy());
        let run = world.root().join("run");
        left.retain(|point| *point != run.to_string_lossy());
        let groups = groups_in(&self.groups);
        left.extend(groups.iter().map(|group| group.display().to_string()));
        for place in ["tmp", "trash", "leases", "run"] {
            let here = names(&world.root().join(place)).into_iter();
            left.extend(
                here.filter(|name| place != "run" || name.contains("step-") || name.contains("build-"))
                    .map(|name| format!("{place}/{name}")),
            );
        }
        assert_eq!(left, Vec::<String>::new(), "{what}: left");
    }
}

/// Layers and blobs by name: after a collection of garbage they are what they were.
fn stored(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for place in ["layers", "blobs/sha256", "snapshots", "refs"] {
        let folder = world.root().join(place);
        for name in names(&folder) {
            let deeper = names(&folder.join(&name));
            if place == "refs" || place == "snapshots" {
                all.push(format!("{place}/{name}"));
            } else {
                all.extend(deeper.iter().map(|entry| format!("{place}/{name}/{entry}")));
            }
        }
    }
    all.sort();
    all
}

/// A root file system with busybox and a file `/id`.
fn tar_of(id: &str) -> Vec<u8> {
    let bin = busybox_tar();
    let head = Tar::new().raw(&bin[..bin.len() - 1024]);
    head.file("id", 0o644, id.as_bytes()).finish()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Makes the container `changed` of an image, which has run this script: what is to be committed.
fn change(world: &World, image: &str, script: &str) {
    world.say("rm -f changed").exits_any();
    let run = words("run --name changed --network none");
    let rest = [image, "sh", "-c", script].map(str::to_owned);
    world.dhow(&[run, rest.to_vec()].concat()).ok();
}
