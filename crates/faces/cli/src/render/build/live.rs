//! On a terminal: steps that are over scroll away, running ones stay below with their last lines.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhow_engine::{BuildEvent, BuildObserver};
use dhow_types::{Observer, Progress as Report, human_size};

use super::{Steps, harmless};

/// Lines of output below a running step.
const SHOWN: usize = 6;
/// Between two drawings.
const TICK: Duration = Duration::from_millis(100);

/// Draws a build on standard error.
#[derive(Debug, Default)]
pub(crate) struct Live {
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    steps: Steps,
    /// Running steps, oldest first.
    running: Vec<u32>,
    /// Pieces of base images that are on their way: bytes so far and in all.
    pulls: HashMap<String, (u64, u64)>,
    /// Lines that are to stay above.
    finished: Vec<String>,
    /// How many lines were drawn last.
    drawn: usize,
    ticking: bool,
}

impl Live {
    /// Output of the step that failed.
    pub(crate) fn tail(&self, name: &str) -> Vec<(f64, String)> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .steps
            .tail(name)
    }

    /// Takes an event without drawing it.
    pub(crate) fn keep(&self, event: BuildEvent<'_>) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(event);
    }

    /// The last drawing: nothing runs any more.
    pub(crate) fn finish(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.clear();
        state.pulls.clear();
        state.draw();
    }

    /// Draws while nothing happens, for the seconds that run. The thread starts with the first event: what must be
    /// forked is forked by then.
    fn tick(&self, state: &mut State) {
        if std::mem::replace(&mut state.ticking, true) {
            return;
        }
        let (state, ended) = (Arc::clone(&self.state), Arc::clone(&self.ended));
        let thread = move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if !ended.load(Ordering::Relaxed) {
                    state.draw();
                }
            }
        };
        // Without the thread, only the seconds stand still.
        drop(std::thread::Builder::new().name("draw".to_owned()).spawn(thread));
    }
}

impl BuildObserver for Live {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take(event);
        self.tick(&mut state);
    }
}

impl Observer for Live {
    fn observe(&self, report: Report<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Begin { id, total, .. } => {
                state.pulls.insert(id.to_owned(), (0, total.unwrap_or(0)));
            }
            Report::Advance { id, current } => {
                if let Some(piece) = state.pulls.get_mut(id) {
                    piece.0 = current;
                }
            }
            Report::End { id, .. } => {
                state.pulls.remove(id);
            }
            Report::Warning(text) => state.finished.push(format!("WARNING: {}", harmless(text))),
            _ => {}
        }
        self.tick(&mut state);
    }
}

impl State {
    fn take(&mut self, event: BuildEvent<'_>) {
        match event {
            BuildEvent::Started { step, name } => {
                self.steps.begin(step, name);
                self.running.push(step);
            }
            BuildEvent::Cached { step } => self.end(step, |name| format!("=> CACHED {name}")),
            BuildEvent::Output { step, bytes, .. } => {
                if let Some(step) = self.steps.known.get_mut(&step) {
                    step.take(bytes, |_, _| {});
                }
            }
            BuildEvent::Finished { step, took, error } => {
                let seconds = took.as_secs_f64();
                let mark = if error.is_some() { "ERROR " } else { "" };
                self.end(step, |name| format!("=> {mark}{name}  {seconds:.1}s"));
            }
            BuildEvent::Warning { message, .. } => {
                self.finished.push(format!("WARNING: {}", harmless(message)))
            }
            _ => {}
        }
    }

    fn end(&mut self, id: u32, line: impl FnOnce(&str) -> String) {
        self.running.retain(|running| *running != id);
        if let Some(step) = self.steps.known.get_mut(&id).filter(|step| !step.over) {
            step.over = true;
            step.end(|_, _| {});
            self.finished.push(line(&harmless(&step.name)));
        }
    }

    fn draw(&mut self) {
        let (rows, columns) = crate::terminal::size().unwrap_or((24, 80));
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in self.finished.drain(..) {
            out.push_str(&format!("\x1b[K{line}\n"));
        }
        let lines = self.current(usize::from(rows).saturating_sub(2));
        for line in &lines {
            let cut: String = line
                .chars()
                .take(usize::from(columns).saturating_sub(1))
                .collect();
            out.push_str(&format!("\x1b[K{cut}\n"));
        }
        self.drawn = lines.len();
        out.push_str("\x1b[J");
        // A terminal that is gone needs no drawing.
        drop(std::io::stderr().write_all(out.as_bytes()));
    }

    /// What runs now, in at most so many lines.
    fn current(&self, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for step in self.running.iter().filter_map(|id| self.steps.known.get(id)) {
            let seconds = step.begun.elapsed().as_secs_f64();
            lines.push(format!("=> {}  {seconds:.1}s", harmless(&step.name)));
            let skip = step.lines.len().saturating_sub(SHOWN);
            lines.extend(
                step.lines
                    .iter()
                    .skip(skip)
                    .map(|(_, line)| format!("=> # {}", harmless(line))),
            );
        }
        if !self.pulls.is_empty() {
            let (done, all) = self
                .pulls
                .values()
                .fold((0, 0), |sum, piece| (sum.0 + piece.0, sum.1 + piece.1));
            lines.push(format!("=> pulling {} / {}", human_size(done), human_size(all)));
        }
        lines.truncate(most);
        lines
    }
}
