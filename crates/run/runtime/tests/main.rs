//! The runtime on the real kernel, as root, with busybox in a directory as the image.
//!
//! Each test runs in a process of its own, forked from this single-threaded one: the runtime refuses callers with
//! threads, as libtest's tests are. `--list` and name filters work as usual.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod cases;
mod fixture;

use std::path::Path;
use std::process::exit;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, waitpid};

/// Longest time that one test may take, in seconds, besides that of a race.
const PATIENCE: u64 = 60;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let tests = cases::all();
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in &tests {
            println!("{name}: test");
        }
        return;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: these tests need root");
        return;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("skipped: these tests need /bin/busybox, statically linked (package busybox-static)");
        return;
    }
    let patience = Timespec {
        tv_sec: i64::try_from(PATIENCE + fixture::race_seconds()).unwrap(),
        tv_nsec: 0,
    };
    let mut failed = Vec::new();
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        match dhow_sys::clone::fork().unwrap() {
            None => {
                let passed = std::panic::catch_unwind(test).is_ok();
                exit(i32::from(!passed));
            }
            Some(pid) => {
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
                if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)).unwrap() == 0 {
                    println!("test {name} hangs");
                    dhow_runtime::kill(std::os::fd::AsFd::as_fd(&pidfd), 9).unwrap();
                }
                let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
                let passed = status.exit_status() == Some(0);
                println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                if !passed {
                    failed.push(name);
                }
            }
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        exit(1);
    }
}
