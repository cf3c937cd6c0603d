//! An error as a person sees it: said once, with the way out.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use dhow_types::Failure;

use crate::dialect;
use crate::render::note;

/// What ends a verb.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    hints: Vec<String>,
    code: u8,
    /// Whether the code was chosen for this failure; else the dialect says what a failure exits with.
    chosen: bool,
    /// Whether the message has been shown already, as by a build that draws its own.
    silent: bool,
}

impl CliError {
    /// A failure of the command line's own.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            code: 1,
            chosen: false,
            silent: false,
        }
    }

    /// Wrong usage: a message of several lines, and its exit code.
    pub(crate) fn usage(message: String, code: u8) -> Self {
        Self {
            code,
            ..Self::plain(message)
        }
    }

    /// Nothing more to say: only the exit code.
    pub(crate) fn exit(code: u8) -> Self {
        Self {
            message: String::new(),
            hints: Vec::new(),
            code,
            chosen: true,
            silent: true,
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self.chosen = true;
        self
    }

    /// The same with a way out.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same as the cause of something larger.
    pub(crate) fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The whole message.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The exit code.
    #[cfg(test)]
    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    /// Whether this only ends a command whose reader went away.
    pub(crate) const fn is_quiet_success(&self) -> bool {
        self.silent && self.code == 0
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        ExitCode::from(self.shown())
    }

    /// The same with the code as a number.
    pub(crate) fn shown(self) -> u8 {
        let dialect = dialect::spoken();
        if !self.silent {
            note(&dialect.failure(&self.message));
            // Podman has none: scripts compare its one line.
            let hints = !dialect.is_podman() || std::io::stderr().is_terminal();
            for hint in self.hints.iter().filter(|_| hints) {
                note(&format!("hint: {hint}"));
            }
        }
        if self.chosen {
            self.code
        } else {
            dialect.failure_code(self.code)
        }
    }
}

impl<E: Failure> From<E> for CliError {
    fn from(error: E) -> Self {
        let kind = error.kind();
        let hints = error.hint().map(str::to_owned).into_iter().collect();
        Self {
            message: chain(&error),
            hints,
            code: kind.exit_code(),
            chosen: false,
            silent: false,
        }
    }
}

/// The chain of causes as one line. A cause that repeats what was said is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    let mut last = text.clone();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if more != last && !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        last = more;
        cause = inner.source();
    }
    text
}
