//! `--progress plain`: docker's numbered lines.

use std::sync::{Mutex, PoisonError};

use dhow_engine::{BuildEvent, BuildObserver};

use super::Steps;
use crate::render::note;

/// Writes each event as a line to standard error.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    steps: Mutex<Steps>,
}

impl Plain {
    /// Output of the step that failed.
    pub(crate) fn tail(&self, name: &str) -> Vec<(f64, String)> {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tail(name)
    }
}

impl BuildObserver for Plain {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        lines(&mut steps, event, &mut |line| note(line));
    }
}

/// The lines of one event.
fn lines(steps: &mut Steps, event: BuildEvent<'_>, say: &mut dyn FnMut(&str)) {
    match event {
        BuildEvent::Started { step, name } => {
            let step = steps.begin(step, name);
            say(&format!("#{} {name}", step.number));
        }
        BuildEvent::Cached { step } => {
            if let Some(step) = steps.known.get_mut(&step) {
                step.over = true;
                say(&format!("#{} CACHED\n", step.number));
            }
        }
        BuildEvent::Output { step, bytes, .. } => {
            if let Some(step) = steps.known.get_mut(&step) {
                let number = step.number;
                step.take(bytes, |at, line| say(&format!("#{number} {at:.3} {line}")));
            }
        }
        BuildEvent::Finished { step, took, error } => {
            if let Some(step) = steps.known.get_mut(&step).filter(|step| !step.over) {
                let number = step.number;
                step.end(|at, line| say(&format!("#{number} {at:.3} {line}")));
                say(&match error {
                    None => format!("#{number} DONE {:.1}s\n", took.as_secs_f64()),
                    Some(error) => format!("#{number} ERROR: {error}\n"),
                });
            }
        }
        BuildEvent::Warning { message, .. } => say(&format!("WARNING: {message}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dhow_engine::BuildStream;

    use super::*;

    #[test]
    fn the_lines_are_dockers() {
        let mut steps = Steps::default();
        let mut out = Vec::new();
        let events = [
            BuildEvent::Started {
                step: 7,
                name: "[1/2] FROM debian",
            },
            BuildEvent::Cached { step: 7 },
            BuildEvent::Finished {
                step: 7,
                took: Duration::ZERO,
                error: None,
            },
            BuildEvent::Started {
                step: 9,
                name: "[2/2] RUN make",
            },
            BuildEvent::Output {
                step: 9,
                stream: BuildStream::Stdout,
                bytes: b"cc x\nlast",
            },
            BuildEvent::Finished {
                step: 9,
                took: Duration::from_millis(210),
                error: Some("exit code: 2"),
            },
        ];
        for event in events {
            lines(&mut steps, event, &mut |line| out.push(line.to_owned()));
        }
        // The seconds depend on the clock.
        let plain: Vec<_> = out
            .iter()
            .map(|line| line.replace(|c: char| c.is_ascii_digit() || c == '.', ""))
            .collect();
        assert_eq!(
            plain,
            [
                "# [/] FROM debian",
                "# CACHED\n",
                "# [/] RUN make",
                "#  cc x",
                "#  last",
                "# ERROR: exit code: \n"
            ]
        );
        assert!(out[0].starts_with("#1 ") && out[3].starts_with("#2 0.0"));
        assert_eq!(steps.tail("[2/2] RUN make").len(), 2);
    }
}
