//! What docker's default filter costs: to build and compile, to take from the cache, and at each call.
//!
//! `cargo run --release -p dhow-seccomp --example bench_filter`. A call that is always allowed is answered from the
//! kernel's own bitmap (Linux 5.11) and costs no more with the filter than with one of a single instruction; one whose
//! arguments count runs the program: arch, binary search over numbers, the argument.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement")]

use std::time::{Duration, Instant};

use dhow_seccomp::{Arch, Cache, compile, default_profile};

const ROUNDS: u32 = 200_000;

/// The median of `times` runs.
fn median(times: usize, mut work: impl FnMut()) -> Duration {
    let mut all: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    all.sort();
    all[times / 2]
}

/// Nanoseconds of one call each, in a thread with this filter: always allowed; allowed after a look at the argument.
fn calls(filter: Option<Vec<libc::sock_filter>>) -> (u128, u128) {
    let thread = std::thread::spawn(move || {
        if let Some(filter) = filter {
            rustix::thread::set_no_new_privs(true).unwrap();
            dhow_sys::process::install_filter(&filter, dhow_sys::process::FILTER_SPEC_ALLOW).unwrap();
        }
        let per_call = |call: &dyn Fn()| {
            let whole = median(9, || (0..ROUNDS).for_each(|_| call()));
            whole.as_nanos() / u128::from(ROUNDS)
        };
        let plain = per_call(&|| {
            std::hint::black_box(rustix::process::getppid());
        });
        let argument = per_call(&|| {
            // A type that does not exist: the domain has passed the filter, and nothing is made.
            let family = rustix::net::AddressFamily::UNIX;
            let kind = rustix::net::SocketType::from_raw(0xff);
            drop(std::hint::black_box(rustix::net::socket(family, kind, None)));
        });
        (plain, argument)
    });
    thread.join().unwrap()
}

fn main() {
    let capabilities: Vec<String> = ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned).into();
    let build = || default_profile(Arch::host(), &capabilities, (6, 1));
    let profile = build();
    let program = compile(&profile, Arch::host()).unwrap();
    println!("instructions: {}", program.filter.len());
    println!("build the profile: {:?}", median(501, || drop(build())));
    let compiled = median(501, || drop(compile(&profile, Arch::host()).unwrap()));
    println!("compile it: {compiled:?}");
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    cache.compile(&profile, Arch::host()).unwrap();
    let cached = median(501, || drop(cache.compile(&profile, Arch::host()).unwrap()));
    println!("take it from the cache: {cached:?}");
    let allow_all = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    for (name, filter) in [
        ("no filter", None),
        ("one instruction", Some(vec![allow_all])),
        ("docker's", Some(program.filter)),
    ] {
        let (plain, argument) = calls(filter);
        println!("{name}: always allowed (getppid) {plain} ns, allowed by argument (socket) {argument} ns");
    }
}
