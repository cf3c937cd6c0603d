//! The black-box suite: the built binary, from outside, as a person or a script meets it.
//!
//! It runs `dist/dhow` (`cargo xtask dist` makes it), or what `DHOW_BIN` names. Each test has a root folder of its own
//! ([`World`](world::World)) and removes all that it made, also after a failure. Tests that need root say so and pass
//! when there is none; those with `unprivileged` in their name run as a normal user. Only module `bootstrap` uses the
//! network, for the mirror in the host's own package sources.
//!
//! - `world`: the harness; `recipe`: small builds; `web`: a web server; `yard`: bundles for the runtime's command line; `samples`: busybox as an image, tars, OCI layouts; `served`: our own registry
//! - `crash` (tests/crash): kills, power cuts, full disks; a sample here, the long run by `tests/crash/run`
//! - all other modules: one capability each

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on ends by a panic"
)]

#[path = "../crash/mod.rs"]
mod crash;
mod recipe;
mod samples;
mod served;
mod web;
mod world;
mod yard;

mod algebra;
mod boot;
mod bootstrap;
mod build;
mod build_args;
mod build_cache;
mod build_check;
mod build_copies;
mod build_epochs;
mod build_flags;
mod build_git;
mod build_kept;
mod build_outputs;
mod build_platforms;
mod build_provenance;
mod build_remote;
mod build_runs;
mod build_sources;
mod build_stages;
mod cni;
mod contexts;
mod copies;
mod cp;
mod devices;
mod disk;
mod docker_ways;
mod events;
mod exit;
mod flags;
mod hostile;
mod images;
mod init;
mod interop;
mod kills;
mod lifecycle;
mod limits;
mod lineage;
mod logdrivers;
mod lsm;
mod lying;
mod mounts;
mod network;
mod network_faults;
mod network_wishes;
mod patch;
mod patch_proof;
mod platforms;
mod podman;
mod podman_build;
mod podman_network;
mod podman_run;
mod podman_update;
mod podman_volumes;
mod podman_ways;
mod pods;
mod policies;
mod pulls;
mod registries;
mod registry;
mod run;
mod runtime;
mod runtime_agent;
mod runtime_birth;
mod runtime_crun;
mod runtime_host;
mod runtime_kills;
mod runtime_nested;
mod runtime_rootless;
mod scanning;
mod screen;
mod seccomp;
mod secrets;
mod security;
mod shared;
mod siblings;
mod signatures;
mod story;
mod unprivileged;
mod unprivileged_network;
mod unprivileged_users;
mod usage;
mod users;
mod volumes;
mod wishes;
mod working;
