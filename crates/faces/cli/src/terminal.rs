//! The person's terminal: its size, and raw mode that always ends.

use std::io::IsTerminal as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal in raw mode; dropped, it is as before.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Puts standard input into raw mode; `None` when it is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // If the terminal is gone, so is its mode.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

/// A terminal that does not show what is typed; dropped, it does again.
#[derive(Debug)]
pub(crate) struct Hidden {
    before: Termios,
}

impl Hidden {
    /// Hides what is typed; `None` when standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).ok()?;
        Some(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // If the terminal is gone, so is its mode.
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}

/// Rows and columns of the terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout())
        .or_else(|_| tcgetwinsize(std::io::stdin()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Whether colour and redrawing make sense on standard error.
pub(crate) fn is_lively() -> bool {
    takes_colour(&std::io::stderr())
}

/// Whether colour and redrawing make sense on standard output.
pub(crate) fn is_lively_output() -> bool {
    takes_colour(&std::io::stdout())
}

/// Whether this stream is a terminal that takes colour, and the person wants it.
pub(crate) fn takes_colour(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}
