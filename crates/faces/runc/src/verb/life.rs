//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::process::ExitCode;

use dhow_runtime::container::{Container, Status, Target};

use crate::args::{Given, Until, on};
use crate::notify::{Readiness, Supervisor};
use crate::{Context, Failure, Verb, is_missing};

pub(crate) const START: Verb = Verb {
    name: "start",
    about: "execute the program of a created container",
    words: "<container-id>",
    flags: &[],
    until: Until::End,
    count: (1, 1),
    run: start,
};

pub(crate) const KILL: Verb = Verb {
    name: "kill",
    about: "send a signal (default: SIGTERM) to the container's first process",
    words: "<container-id> [signal]",
    flags: &[on("all", Some('a'), "send it to every process of the container")],
    until: Until::End,
    count: (1, 2),
    run: kill,
};

pub(crate) const DELETE: Verb = Verb {
    name: "delete",
    about: "delete a container that is not running",
    words: "<container-id>",
    flags: &[on(
        "force",
        Some('f'),
        "kill it first; one that is not there is deleted",
    )],
    until: Until::End,
    count: (1, 1),
    run: delete,
};

pub(crate) const PAUSE: Verb = Verb {
    name: "pause",
    about: "freeze all processes of a container",
    words: "<container-id>",
    flags: &[],
    until: Until::End,
    count: (1, 1),
    run: |context, given| {
        open(context, given)?.pause()?;
        Ok(ExitCode::SUCCESS)
    },
};

pub(crate) const RESUME: Verb = Verb {
    name: "resume",
    about: "let the processes of a paused container go on",
    words: "<container-id>",
    flags: &[],
    until: Until::End,
    count: (1, 1),
    run: |context, given| {
        open(context, given)?.resume()?;
        Ok(ExitCode::SUCCESS)
    },
};

/// The container that the first word names.
pub(crate) fn open(context: &Context, given: &Given) -> Result<Container, Failure> {
    let id = given.words.first().map_or("", String::as_str);
    Ok(Container::open(&context.root, id)?)
}

fn start(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    let word = match Supervisor::find()? {
        Some(supervisor) if container.status()? == Status::Created => container
            .listen_for_readiness()?
            .map(|socket| (socket, supervisor)),
        _ => None,
    };
    container.start()?;
    if let Some((socket, supervisor)) = word
        && let Some((pid, pidfd)) = container.pidfd()?
    {
        Readiness::new(socket, supervisor, pid.cast_unsigned()).wait(&pidfd)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn kill(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    let word = given.words.get(1).map_or("TERM", String::as_str);
    let signal = signal(word).ok_or_else(|| Failure::new(format!("unknown signal \"{word}\"")))?;
    let all = given.is_on("all");
    let target = if all { Target::All } else { Target::First };
    match container.kill(signal, target) {
        // A stopped container has no process that the signal did not reach.
        Err(error) if all && error.to_string() == "container not running" => {}
        done => done?,
    }
    Ok(ExitCode::SUCCESS)
}

fn delete(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let id = given.words.first().map_or("", String::as_str);
    let force = given.is_on("force");
    let container = match Container::open_to_delete(&context.root, id) {
        Err(error) if force && is_missing(error.kind()) => return Ok(ExitCode::SUCCESS),
        opened => opened?,
    };
    match container.delete(force) {
        Err(error) if force && is_missing(error.kind()) => {}
        outcome => {
            // The container is gone; as with runc, clients hear of a hook that failed at the end.
            if let Some(error) = outcome? {
                return Err(error.into());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal by number, or by name with or without SIG.
fn signal(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse() {
        return Some(number);
    }
    let word = word.to_ascii_uppercase();
    let name = word.strip_prefix("SIG").unwrap_or(&word);
    if let Some(found) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(found.1);
    }
    let offset = |rest: &str| rest.parse::<i32>().ok();
    match name {
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(rest), _) => offset(rest).map(|offset| 34 + offset),
            (_, Some(rest)) => offset(rest).map(|offset| 64 - offset),
            _ => None,
        }
        .filter(|number| (34..=64).contains(number)),
    }
}

const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_and_names() {
        for word in ["9", "KILL", "kill", "SIGKILL", "sigkill"] {
            assert_eq!(signal(word), Some(9), "{word}");
        }
        assert_eq!(signal("RTMIN+3"), Some(37));
        assert_eq!(signal("SIGRTMAX-1"), Some(63));
        for word in ["", "SIG", "NOPE", "RTMIN+31", "RTMAX-99", "9x"] {
            assert_eq!(signal(word), None, "{word}");
        }
    }
}
