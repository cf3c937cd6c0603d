//! How answers look: tables, templates, progress.

mod progress;

pub(crate) use progress::Progress;
