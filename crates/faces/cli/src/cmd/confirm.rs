//! The question before something is lost.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use dhow_engine::Signals;
use rustix::event::{PollFd, PollFlags};

use crate::{CliError, dialect};

/// INT and TERM.
const SIGNALS: [i32; 2] = [2, 15];
/// Longest answer that is read.
const LONGEST: usize = 64;

/// Asks before something is lost. In a pipe only `--force` will do, unless the program is in docker's place, which asks there,
/// too: no answer is a no.
///
/// # Errors
/// When there is nobody to ask. Ctrl-C ends the command and nothing is lost: with 0, as docker does.
pub(super) fn confirmed(warning: &str, force: bool) -> Result<bool, CliError> {
    if force {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() && !dialect::is_docker() {
        return Err(
            CliError::plain("this would remove things, and there is nobody to ask").with_hint("give --force"),
        );
    }
    let signals = Signals::watch(&SIGNALS)?;
    say(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ));
    match answer(&signals)? {
        Some(answer) => Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")),
        None => {
            say("\n");
            Err(CliError::exit(0))
        }
    }
}

/// A person who is gone needs no question.
fn say(text: &str) {
    let mut out = std::io::stderr();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// The first line of standard input; none when a signal came first.
fn answer(signals: &Signals) -> Result<Option<String>, CliError> {
    // Past the buffer of the standard library, which would hold what no poll sees.
    let input = std::io::stdin();
    let mut line = Vec::new();
    while line.len() < LONGEST && !line.ends_with(b"\n") {
        let mut fds = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::new(&input, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            // An interrupted wait is begun again.
            Err(rustix::io::Errno::INTR) => continue,
            waited => drop(waited.map_err(std::io::Error::from)?),
        }
        if !fds[0].revents().is_empty() {
            // One that is still pending would end this command when it is not held back any more.
            drop(signals.take());
            return Ok(None);
        }
        let mut byte = [0];
        if rustix::io::read(&input, &mut byte).map_err(std::io::Error::from)? == 0 {
            break;
        }
        line.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}
