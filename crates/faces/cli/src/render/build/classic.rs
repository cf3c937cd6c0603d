//! The lines of docker's classic builder, which scripts read: `Step 2/5 : RUN make`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dhow_engine::{BuildEvent, BuildObserver, Built};
use dhow_reference::Reference;

use super::Steps;
use super::stepwise::split_title;
use crate::render::{note, say_bytes};

/// Writes each step to standard output, one after the other also where they are built at once.
#[derive(Debug, Default)]
pub(crate) struct Classic {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: Steps,
    /// What is to be said, in the order in which the steps began.
    held: VecDeque<Held>,
}

/// A step, and what of it has not been said.
#[derive(Debug)]
struct Held {
    step: u32,
    runs: bool,
    /// Whether its command has been told of.
    ran: bool,
    cached: bool,
    over: bool,
    text: Vec<u8>,
}

impl Classic {
    /// Begins, with what docker says of this builder.
    pub(crate) fn begin() -> Self {
        note(
            "DEPRECATED: The legacy builder is deprecated and will be removed in a future release.\n            \
             BuildKit is currently disabled; enable it by removing the DOCKER_BUILDKIT=0\n            \
             environment-variable.\n",
        );
        say(b"Sending build context to Docker daemon: it is read in place\n");
        Self::default()
    }

    /// Output of the step that failed.
    pub(crate) fn tail(&self, name: &str) -> Vec<(f64, String)> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .steps
            .tail(name)
    }

    /// The last lines: the image and its names.
    pub(crate) fn end(&self, built: &Built, names: &[Reference]) {
        let mut text = format!("Successfully built {}\n", built.image.id.short());
        for name in names {
            text.push_str(&format!("Successfully tagged {}\n", name.familiar()));
        }
        say(text.as_bytes());
    }
}

/// Who closed the pipe wants no more of it; the build goes on.
fn say(bytes: &[u8]) {
    drop(say_bytes(bytes));
}

impl BuildObserver for Classic {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take(event);
        let text = state.ready();
        say(&text);
    }
}

impl State {
    fn take(&mut self, event: BuildEvent<'_>) {
        match event {
            BuildEvent::Started { step, name } => {
                self.steps.begin(step, name);
                let (stage, count, text) = split_title(name);
                let stage = stage.map_or_else(String::new, |stage| format!("[{stage}] "));
                self.held.push_back(Held {
                    step,
                    runs: text.starts_with("RUN "),
                    ran: false,
                    cached: false,
                    over: false,
                    text: format!("{stage}Step {count} : {text}\n").into_bytes(),
                });
            }
            BuildEvent::Cached { step } => self.with(step, |held| {
                held.cached = true;
                held.text.extend_from_slice(b" ---> Using cache\n");
            }),
            BuildEvent::Output { step, bytes, .. } => {
                self.with(step, |held| {
                    held.run();
                    held.text.extend_from_slice(bytes);
                });
                if let Some(step) = self.steps.known.get_mut(&step) {
                    step.take(bytes, |_, _| {});
                }
            }
            BuildEvent::Finished { step, took, error } => {
                if let Some(step) = self.steps.known.get_mut(&step) {
                    step.end(|_, _| {});
                }
                self.with(step, |held| {
                    held.over = true;
                    if held.runs && !held.cached {
                        held.run();
                        held.text
                            .extend_from_slice(b" ---> Removed intermediate container\n");
                    }
                    if error.is_none() {
                        let text = format!(" ---> done, {:.1}s\n", took.as_secs_f64());
                        held.text.extend_from_slice(text.as_bytes());
                    }
                });
            }
            BuildEvent::Warning { message, .. } => note(&format!("WARNING: {message}")),
            _ => {}
        }
    }

    fn with(&mut self, step: u32, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.held.iter_mut().find(|held| held.step == step) {
            change(held);
        }
    }

    /// What can be said now: all of the oldest step, and of those after it once it is over.
    fn ready(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(first) = self.held.front_mut() {
            out.append(&mut first.text);
            if !first.over {
                break;
            }
            self.held.pop_front();
        }
        out
    }
}

impl Held {
    /// Tells, once, that the command runs.
    fn run(&mut self) {
        if self.runs && !self.ran {
            self.ran = true;
            self.text
                .extend_from_slice(b" ---> Running in an intermediate container\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dhow_engine::BuildStream;

    use super::*;

    #[test]
    fn steps_that_are_built_at_once_are_told_one_after_the_other() {
        let mut state = State::default();
        let mut out = Vec::new();
        let done = |step| BuildEvent::Finished {
            step,
            took: Duration::from_millis(210),
            error: None,
        };
        let output = |step, bytes| BuildEvent::Output {
            step,
            stream: BuildStream::Stdout,
            bytes,
        };
        let events = [
            BuildEvent::Started {
                step: 1,
                name: "[1/2] FROM a",
            },
            done(1),
            BuildEvent::Started {
                step: 2,
                name: "[2/2] RUN make",
            },
            BuildEvent::Started {
                step: 3,
                name: "[app 2/3] COPY a /",
            },
            output(2, b"cc x\n"),
            BuildEvent::Cached { step: 3 },
            done(3),
            output(2, b"ld x\n"),
            done(2),
        ];
        for event in events {
            state.take(event);
            out.append(&mut state.ready());
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Step 1/2 : FROM a\n ---> done, 0.2s\nStep 2/2 : RUN make\n ---> Running in an intermediate container\n\
             cc x\nld x\n ---> Removed intermediate container\n ---> done, 0.2s\n\
             [app] Step 2/3 : COPY a /\n ---> Using cache\n ---> done, 0.2s\n"
        );
    }
}
