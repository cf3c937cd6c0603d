//! Progress of long work: bars on a terminal, a line for each event in a pipe, as docker writes them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{note, say_line};
use dhow_types::Observer;
use dhow_types::Progress as Report;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows reports.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    lively: bool,
    to_output: bool,
    bars: MultiProgress,
    open: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress {
    /// Shows everything, or nothing but warnings, on standard error: for verbs whose data are something else.
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            lively: crate::terminal::is_lively(),
            to_output: false,
            bars: MultiProgress::new(),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// The same on standard output, where docker has it for `pull` and `push`. Warnings stay on standard error.
    pub(crate) fn on_output(quiet: bool) -> Self {
        Self {
            lively: crate::terminal::is_lively_output(),
            to_output: true,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            ..Self::new(quiet)
        }
    }

    /// Leaves what was shown and ends the drawing.
    pub(crate) fn finish(&self) {
        for (_, bar) in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            bar.abandon();
        }
    }

    fn bar(&self, total: Option<u64>) -> ProgressBar {
        // The templates are constants of ours; a wrong one would show in the first test.
        let style = match total {
            Some(_) => ProgressStyle::with_template("{prefix:12}: {msg:18} {wide_bar} {bytes}/{total_bytes}"),
            None => ProgressStyle::with_template("{prefix:12}: {msg}"),
        };
        let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn line(&self, text: &str) {
        if self.lively {
            // Above the bars; a terminal that is gone needs no line.
            drop(self.bars.println(text));
        } else if self.to_output {
            // Who closed the pipe wants no more lines; the work goes on.
            drop(say_line(text));
        } else {
            note(text);
        }
    }
}

impl Observer for Progress {
    fn observe(&self, report: Report<'_>) {
        if let Report::Warning(text) = report {
            let text = format!("WARNING: {text}");
            if self.lively {
                self.line(&text);
            } else {
                note(&text);
            }
            return;
        }
        if self.quiet {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Begin { id, what, total } if self.lively => {
                let bar = open.entry(id.to_owned()).or_insert_with(|| self.bar(total));
                bar.set_prefix(id.to_owned());
                bar.set_message(what.to_owned());
                bar.set_length(total.unwrap_or(0));
                bar.set_position(0);
            }
            Report::Advance { id, current } if self.lively => {
                if let Some(bar) = open.get(id) {
                    bar.set_position(current);
                }
            }
            Report::End { id, status } if self.lively => {
                let bar = open.entry(id.to_owned()).or_insert_with(|| self.bar(None));
                if let Ok(style) = ProgressStyle::with_template("{prefix:12}: {msg}") {
                    bar.set_style(style);
                }
                bar.set_prefix(id.to_owned());
                bar.abandon_with_message(status.to_owned());
            }
            // What has a length is shown as a bar or not at all.
            Report::Begin {
                id,
                what,
                total: None,
            }
            | Report::End { id, status: what } => {
                self.line(&format!("{id}: {what}"));
            }
            Report::Message(text) => self.line(text),
            _ => {}
        }
    }
}
