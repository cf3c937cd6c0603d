//! Keeps what work says about itself.

use std::sync::{Mutex, PoisonError};

use dhow_types::{Observer, Progress};

/// An observer that writes every report down as one line; `Advance` is left out, since it depends on timing.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All lines so far: `<id>: <what>`, or the message.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a line contains `text`.
    #[must_use]
    pub fn saw(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

impl Observer for Recorder {
    fn observe(&self, progress: Progress<'_>) {
        let line = match progress {
            Progress::Begin { id, what, .. } => format!("{id}: {what}"),
            Progress::End { id, status } => format!("{id}: {status}"),
            Progress::Message(text) => text.to_owned(),
            Progress::Warning(text) => format!("warning: {text}"),
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
