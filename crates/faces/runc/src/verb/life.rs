//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::process::ExitCode;

use dhow_runtime::container::{self, Container, Status, Target};
use dhow_sys::pattern::Pattern;

use crate::args::{Flag, Given, Until, on};
use crate::notify::Readiness;
use crate::{Context, Failure, Verb, crun, is_missing};

const REGEX: Flag = on(
    "regex",
    Some('r'),
    "the id is an extended regular expression: all containers in whose id it is found",
);

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
    flags: &[
        on("all", Some('a'), "send it to every process of the container"),
        REGEX,
    ],
    until: Until::End,
    count: (1, 2),
    run: kill,
};

pub(crate) const DELETE: Verb = Verb {
    name: "delete",
    about: "delete a container that is not running",
    words: "<container-id>",
    flags: &[
        on(
            "force",
            Some('f'),
            "kill it first; one that is not there is deleted",
        ),
        REGEX,
    ],
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
    let id = given.words.first().map_or("", String::as_str);
    let mut container = Container::open_made(&context.root, id)?;
    let annotations = container.record().map(|record| record.annotations.clone());
    let hooks = crun::surroundings(context, &annotations.unwrap_or_default())?;
    let word = match crun::readiness(context)?.1 {
        Some(supervisor) if container.status()? == Status::Created => container
            .listen_for_readiness()?
            .map(|socket| (socket, supervisor)),
        _ => None,
    };
    if let Err(error) = container.start(&hooks) {
        if context.is_crun() && error.to_string().starts_with("error running poststart hook") {
            // As crun, and the standard ("Lifecycle", step 9); runc leaves it to be deleted.
            crun::warn_of_hooks(context, container.delete(true, &hooks)?);
        }
        return Err(error.into());
    }
    if let Some((socket, supervisor)) = word
        && let Some((pid, pidfd)) = container.pidfd()?
    {
        Readiness::new(socket, supervisor, pid.cast_unsigned()).wait(&pidfd)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something to the container that is named, or to all that are meant. Of several none is left out because of
/// another: the first failure is told at the end.
fn each(
    context: &Context,
    given: &Given,
    mut one: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let word = given.words.first().map_or("", String::as_str);
    if !given.is_on("regex") {
        return one(word).map(|()| ExitCode::SUCCESS);
    }
    let pattern = Pattern::new(word)
        .map_err(|error| Failure::from(error).during(&format!("invalid regular expression {word}")))?;
    let ids = container::list(&context.root)?;
    let failures = ids.iter().filter(|id| pattern.matches(id)).filter_map(|id| {
        let failure = one(id).err()?;
        Some(failure.during(&format!("container {id}")))
    });
    match failures.collect::<Vec<_>>().into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn kill(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let word = given.words.get(1).map_or("TERM", String::as_str);
    let all = given.is_on("all");
    let target = if all { Target::All } else { Target::First };
    each(context, given, |id| {
        let container = Container::open(&context.root, id)?;
        let signal = signal(word).ok_or_else(|| Failure::new(format!("unknown signal \"{word}\"")))?;
        match container.kill(signal, target) {
            // A stopped container has no process that the signal did not reach.
            Err(error) if all && error.to_string() == "container not running" => Ok(()),
            done => Ok(done?),
        }
    })
}

fn delete(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let force = given.is_on("force");
    each(context, given, |id| delete_one(context, id, force))
}

fn delete_one(context: &Context, id: &str, force: bool) -> Result<(), Failure> {
    let container = match Container::open_to_delete(&context.root, id) {
        Err(error) if force && is_missing(error.kind()) => return Ok(()),
        opened => opened?,
    };
    let hooks = crun::last_surroundings(context, container.record());
    let failures = match container.delete(force, &hooks) {
        Err(error) if force && is_missing(error.kind()) => return Ok(()),
        outcome => outcome?,
    };
    // The container is gone all the same: the standard wants a warning. Clients of runc hear of it.
    if !context.is_runc() {
        crun::warn_of_hooks(context, failures);
        return Ok(());
    }
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error.into()),
        None => Ok(()),
    }
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
