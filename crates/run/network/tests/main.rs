//! End to end, as root, in namespaces of their own: the host that these tests change is a namespace with a fake
//! uplink to an "outside" namespace. Threads, not processes, since a network namespace belongs to a thread.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panic and say what they skip"
)]

mod world;

mod attach;
mod crash;
mod ipv6;
mod names;
mod records;
mod rules;
