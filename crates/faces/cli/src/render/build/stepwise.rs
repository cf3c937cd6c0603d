//! Buildah's lines: `STEP 2/5: RUN make`, what the command writes, and at the end the image.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dhow_engine::{BuildEvent, BuildObserver};

use super::Steps;
use crate::CliError;
use crate::render::{note, say_bytes};

/// Writes each event to standard output, or to a file.
#[derive(Debug)]
pub(crate) struct Stepwise {
    steps: Mutex<Steps>,
    file: Option<File>,
}

impl Stepwise {
    /// To standard output.
    pub(crate) fn new() -> Self {
        Self {
            steps: Mutex::default(),
            file: None,
        }
    }

    /// To a file (`--logfile`), which is made anew.
    pub(crate) fn to_file(path: &Path) -> Result<Self, CliError> {
        let file = File::create(path)
            .map_err(|error| CliError::plain(format!("opening logfile {}: {error}", path.display())))?;
        Ok(Self {
            file: Some(file),
            ..Self::new()
        })
    }

    /// Output of the step that failed.
    pub(crate) fn tail(&self, name: &str) -> Vec<(f64, String)> {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tail(name)
    }

    /// Says something. Who closed the pipe wants no more of it; the build goes on.
    pub(crate) fn say(&self, bytes: &[u8]) {
        match self.file.as_ref() {
            Some(file) => drop((&mut &*file).write_all(bytes)),
            None => drop(say_bytes(bytes)),
        }
    }
}

impl BuildObserver for Stepwise {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            BuildEvent::Started { step, name } => {
                steps.begin(step, name);
                self.say(format!("{}\n", title(name)).as_bytes());
            }
            BuildEvent::Cached { .. } => self.say(b"--> Using cache\n"),
            BuildEvent::Output { step, bytes, .. } => {
                self.say(bytes);
                if let Some(step) = steps.known.get_mut(&step) {
                    step.take(bytes, |_, _| {});
                }
            }
            BuildEvent::Finished { step, .. } => {
                if let Some(step) = steps.known.get_mut(&step) {
                    step.end(|_, _| {});
                }
            }
            BuildEvent::Warning { message, .. } => note(&format!("WARNING: {message}")),
            _ => {}
        }
    }
}

/// `[1/2] FROM a` is `STEP 1/2: FROM a`, and `[app 1/2] FROM a` is `[app] STEP 1/2: FROM a`.
fn title(name: &str) -> String {
    match split_title(name) {
        (Some(stage), count, text) => format!("[{stage}] STEP {count}: {text}"),
        (None, "", text) => format!("STEP: {text}"),
        (None, count, text) => format!("STEP {count}: {text}"),
    }
}

/// The stage, the count and the instruction of a step's name.
pub(super) fn split_title(name: &str) -> (Option<&str>, &str, &str) {
    let Some((counted, text)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return (None, "", name);
    };
    match counted.rsplit_once(' ') {
        // A step below ten has a blank before its number, when there are more.
        Some((stage, count)) => (Some(stage.trim()).filter(|stage| !stage.is_empty()), count, text),
        None => (None, counted, text),
    }
}

/// The instruction of a step's name, as it is in an error.
pub(crate) fn instruction(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_titles_are_buildahs() {
        for (ours, theirs) in [
            ("[1/2] FROM a", "STEP 1/2: FROM a"),
            ("[ 2/12] RUN x", "STEP 2/12: RUN x"),
            ("[app 2/3] COPY . /", "[app] STEP 2/3: COPY . /"),
            ("[app  2/13] COPY [a] /", "[app] STEP 2/13: COPY [a] /"),
        ] {
            assert_eq!(title(ours), theirs);
        }
        assert_eq!(instruction("[app 2/3] COPY . /"), "COPY . /");
    }
}
