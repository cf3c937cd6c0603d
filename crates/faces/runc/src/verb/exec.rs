//! `exec`.

use std::path::Path;
use std::process::ExitCode;

use dhow_cgroup::SubGroups;
use dhow_oci::runtime::Process;
use dhow_runtime::container::{Container, Entry};
use dhow_runtime::{Settings, Stdio};

use super::begin::check_terminal;
use super::life::open;
use crate::args::{Given, Until, on, value, values};
use crate::foreground::Foreground;
use crate::streams::{self, Passed, Receiver};
use crate::{Context, Failure, Verb};

pub(crate) const EXEC: Verb = Verb {
    name: "exec",
    about: "execute another process in a container",
    words: "<container-id> <command> [command options]  || -p process.json <container-id>",
    flags: &[
        value(
            "console-socket",
            None,
            "socket that receives the master of the terminal",
        ),
        value(
            "pidfd-socket",
            None,
            "socket that receives a pidfd of the process",
        ),
        value("cwd", None, "working directory in the container"),
        values("env", Some('e'), "set an environment variable"),
        on("tty", Some('t'), "give it a terminal"),
        value("user", Some('u'), "user id, or uid:gid"),
        values("additional-gids", Some('g'), "one more group"),
        value("process", Some('p'), "file with the process as in the spec"),
        on("detach", Some('d'), "detach from the process"),
        value("pid-file", None, "write the process id to this file"),
        value("process-label", None, "SELinux label of the process"),
        value("apparmor", None, "AppArmor profile of the process"),
        on("no-new-privs", None, "set no_new_privs"),
        values("cap", Some('c'), "add a capability"),
        value(
            "preserve-fds",
            None,
            "pass this many descriptors, from 3 on, to the process",
        ),
        values("cgroup", None, "sub-cgroup to run in: [controllers:]path"),
        on("ignore-paused", None, "also in a paused container"),
    ],
    until: Until::Words(2),
    count: (1, usize::MAX),
    run: |context, given| {
        exec(context, given).map_err(|failure| failure.during("exec failed").with_code(255))
    },
};

fn exec(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let passed = Passed::of(given, 0, context.opened)?;
    let container = open(context, given)?;
    let mut process = process(&container, given)?;
    let detached = given.is_on("detach");
    let path = |long: &str| given.text(long).map(streams::absolute).transpose();
    let (pid_file, console) = (path("pid-file")?, path("console-socket")?);
    check_terminal(process.terminal, detached, console.is_some())?;
    let groups = match given.values("cgroup") {
        [] => None,
        groups => Some(SubGroups::parse(groups)?),
    };
    let console = console.as_deref().map(Receiver::connect).transpose()?;
    let pidfd = path("pidfd-socket")?
        .as_deref()
        .map(Receiver::connect)
        .transpose()?;
    let terminal = process.terminal;
    told_as_runc(context, &process);
    let foreground = if detached {
        None
    } else {
        let foreground = Foreground::new(terminal)?;
        foreground.size(&mut process);
        Some(foreground)
    };
    let settings = Settings {
        kept_fds: passed.count(),
        bare_newlines: !detached,
        ..Settings::default()
    };
    let entry = Entry {
        process,
        stdio: if terminal {
            Stdio::Terminal
        } else {
            streams::inherited()?
        },
        settings: &settings,
        groups,
        in_paused: given.is_on("ignore-paused"),
    };
    let running = container
        .exec(entry)
        .map_err(|error| Failure::of_process(error).during("unable to start container process"))?;
    let handed = || -> Result<(), Failure> {
        if let (Some(console), Some(terminal)) = (console, &running.terminal) {
            console.send("/dev/ptmx", terminal)?;
        }
        if let Some(pidfd) = pidfd {
            pidfd.send("pidfd", &running.pidfd)?;
        }
        match &pid_file {
            Some(path) => streams::write_pid(path, running.pid),
            None => Ok(()),
        }
    };
    if let Err(failure) = handed() {
        use std::os::fd::AsFd as _;
        // A process that nobody knows of must not stay.
        drop(dhow_runtime::kill(running.pidfd.as_fd(), libc::SIGKILL));
        return Err(failure);
    }
    match foreground {
        Some(foreground) => Ok(ExitCode::from(foreground.wait(
            &running.pidfd,
            running.terminal,
            None,
        )?)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The process as the file says, or the container's own with what the options change.
fn process(container: &Container, given: &Given) -> Result<Process, Failure> {
    if let Some(path) = given.text("process") {
        let bytes = streams::read_document(streams::open(Path::new(path))?, path)?;
        return serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("parse {path}: {error}")));
    }
    let Some(mut process) = container.spec()?.process else {
        return Err(Failure::new("process property must not be empty"));
    };
    let args = given.words.get(1..).unwrap_or_default();
    if args.is_empty() {
        return Err(Failure::new("exec args cannot be empty"));
    }
    process.args = args.to_vec();
    if let Some(cwd) = given.text("cwd") {
        process.cwd = cwd.into();
    }
    if let Some(profile) = given.text("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if let Some(label) = given.text("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    add_capabilities(&mut process, given.values("cap"));
    for variable in given.values("env") {
        let name = variable.split('=').next().unwrap_or_default();
        // A program that looks for the first of two would miss the new one.
        process.env.retain(|old| old.split('=').next() != Some(name));
        process.env.push(variable.clone());
    }
    process.terminal = given.is_on("tty");
    if given.value("no-new-privs").is_some() {
        process.no_new_privileges = given.is_on("no-new-privs");
    }
    if let Some(user) = given.text("user") {
        let number = |text: &str, what: &str| {
            text.parse()
                .map_err(|error| Failure::new(format!("bad {what}: parsing \"{text}\": {error}")))
        };
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user, None),
        };
        if let Some(gid) = gid {
            process.user.gid = number(gid, "gid")?;
        }
        process.user.uid = number(uid, "uid")?;
    }
    for gid in given.values("additional-gids") {
        let gid = gid
            .parse()
            .map_err(|_| Failure::new(format!("additional-gids must be a positive number {gid}")))?;
        process.user.additional_gids.push(gid);
    }
    Ok(process)
}

/// Lines of runc's debug log that its clients' tests read.
fn told_as_runc(context: &Context, process: &Process) {
    context.log.debug(|| "nsexec container setup".to_owned());
    context.log.debug(|| "child process in init()".to_owned());
    let affinity = process.exec_cpu_affinity.as_ref();
    if let Some(cpus) = affinity.and_then(|affinity| affinity.initial.as_deref()) {
        context.log.debug(|| format!("nsexec: affinity: {}", mask(cpus)));
    }
    context.log.debug(|| "setns_init: about to exec".to_owned());
}

/// A list of CPUs such as `0-1,3` as one number, in hexadecimal digits.
fn mask(cpus: &str) -> String {
    let mut digits = vec![0_u8; 1];
    for part in cpus.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            continue;
        };
        for cpu in first..=last.min(8191) {
            digits.resize(digits.len().max(cpu / 4 + 1), 0);
            if let Some(digit) = digits.get_mut(cpu / 4) {
                *digit |= 1 << (cpu % 4);
            }
        }
    }
    let digits = digits.iter().rev().map(|digit| format!("{digit:x}"));
    format!("0x{}", digits.collect::<String>())
}

fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_default();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend_from_slice(names);
    }
    // Ambient ones need inheritable ones, which are not added.
    if !sets.inheritable.is_empty() {
        sets.ambient.extend_from_slice(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_a_mask() {
        for (cpus, expected) in [
            ("0", "0x1"),
            ("1", "0x2"),
            ("0-1", "0x3"),
            ("0,2-4", "0x1d"),
            ("", "0x0"),
        ] {
            assert_eq!(mask(cpus), expected, "{cpus}");
        }
    }
}
