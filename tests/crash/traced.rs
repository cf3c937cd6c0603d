//! Commands under strace, which kills what enters a chosen system call.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{PATIENCE, World, wait};

/// How long strace may take to let go of what it traces.
const LEAVE: Duration = Duration::from_secs(5);

/// Calls that change something on disk or in the kernel: half of the points are theirs.
const CHANGES: &[&str] = &[
    "chmod",
    "clone",
    "clone3",
    "connect",
    "copy_file_range",
    "fallocate",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "flock",
    "fork",
    "fsconfig",
    "fsetxattr",
    "fsmount",
    "fsync",
    "ftruncate",
    "link",
    "linkat",
    "lsetxattr",
    "mkdir",
    "mkdirat",
    "mknodat",
    "mount",
    "move_mount",
    "open",
    "openat",
    "openat2",
    "pwrite64",
    "pwritev",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendmsg",
    "sendto",
    "setxattr",
    "symlinkat",
    "syncfs",
    "umount2",
    "unlink",
    "unlinkat",
    "utimensat",
    "vfork",
    "write",
    "writev",
];

/// Runs a command under strace until the command itself has ended: what it left in the background goes on without. Its exit code, or
/// none when something was left.
pub(super) fn traced(world: &World, options: &[&str], words: &[String]) -> Option<i32> {
    let plain = world.command(words);
    let mut command = Command::new("strace");
    // With -I 2 it listens to signals also where it writes to a file.
    command.args(["-f", "-qq", "-I", "2"]).args(options);
    command.arg(plain.get_program()).args(plain.get_args());
    for (key, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let log = fs::File::create(world.path("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut strace = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&strace);
    let children = format!("/proc/{0}/task/{0}/children", strace.id());
    let deadline = Instant::now() + PATIENCE;
    let program = fs::canonicalize(plain.get_program()).unwrap();
    let is_it = |child: &str| fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == program);
    // The command itself, once it is known: at first strace has other children, which try what the kernel can do.
    let mut itself: Option<String> = None;
    loop {
        if let Some(status) = strace.try_wait().unwrap() {
            return Some(status.code().unwrap_or(-1));
        }
        assert!(Instant::now() < deadline, "what may be killed ends: {words:?}");
        let listed = fs::read_to_string(&children).unwrap_or_default();
        match &itself {
            None => {
                itself = listed
                    .split_whitespace()
                    .find(|child| is_it(child))
                    .map(str::to_owned)
            }
            // As long as it is listed, strace has still to learn of its end.
            Some(itself) if listed.split_whitespace().any(|child| child == itself) => {}
            Some(_) => {
                // It lets go of the others, which go on.
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or(());
                if wait(&mut strace, LEAVE).is_none() {
                    strace.kill().unwrap();
                    strace.wait().unwrap();
                }
                return None;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The points of a command: each call by name with how often the process that does it most often does it.
pub(super) fn points(world: &World, name: &str, words: &[String]) -> Vec<(String, usize)> {
    let trace = world.path("calls");
    let code = traced(world, &["-o", &trace.display().to_string()], words);
    let said = || fs::read_to_string(world.path("log")).unwrap();
    assert_eq!(code.unwrap_or(0), 0, "{name}: {}", said());
    let mut counts = BTreeMap::<(String, String), usize>::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or_default();
        let call = rest.trim_start().split('(').next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !call.is_empty() && call.bytes().all(plain) && call != "execve" {
            *counts.entry((call.to_owned(), pid.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::<String, usize>::new();
    for ((call, _), count) in counts {
        let most = most.entry(call).or_default();
        *most = count.max(*most);
    }
    assert!(!most.is_empty(), "{name}: it calls nothing");
    most.into_iter()
        .flat_map(|(call, count)| (1..=count).map(move |at| (call.clone(), at)))
        .collect()
}

/// So many of the points: half of them of calls that change something, spread evenly over each half.
pub(super) fn choose(all: &[(String, usize)], count: usize) -> Vec<(String, usize)> {
    let changes = |point: &&(String, usize)| CHANGES.contains(&point.0.as_str());
    let (first, second): (Vec<_>, Vec<_>) = all.iter().partition(changes);
    let half = (count / 2)
        .max(count.saturating_sub(second.len()))
        .min(first.len());
    let spread = |points: &[&(String, usize)], count: usize| -> Vec<(String, usize)> {
        let count = count.min(points.len());
        // From the middle of each part, so that a small sample is not all first calls.
        (0..count)
            .map(|at| points[(2 * at + 1) * points.len() / (2 * count)].clone())
            .collect()
    };
    let mut chosen = spread(&first, half);
    chosen.extend(spread(&second, count - half));
    chosen
}
