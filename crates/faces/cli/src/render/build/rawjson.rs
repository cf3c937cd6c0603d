//! `--progress rawjson`: each event as one line of BuildKit's status (moby/buildkit `client/graph.go`, `SolveStatus`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_engine::{BuildEvent, BuildObserver, BuildStream};
use dhow_types::Digest;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Steps;
use crate::render::note;

/// Writes each event as a line of JSON to standard error.
#[derive(Debug, Default)]
pub(crate) struct RawJson {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: Steps,
    /// What is said again of a step each time: its digest, its name, when it began, whether it came from the cache.
    known: HashMap<u32, (String, String, Timestamp, bool)>,
}

impl RawJson {
    /// Output of the step that failed.
    pub(crate) fn tail(&self, name: &str) -> Vec<(f64, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.steps.tail(name)
    }
}

impl BuildObserver for RawJson {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = state.line(event, Timestamp::now()) {
            note(&line.to_string());
        }
    }
}

impl State {
    fn line(&mut self, event: BuildEvent<'_>, now: Timestamp) -> Option<Value> {
        match event {
            BuildEvent::Started { step, name } => {
                let number = self.steps.begin(step, name).number;
                let digest = Digest::of(format!("{number} {name}").as_bytes()).to_string();
                self.known.insert(step, (digest, name.to_owned(), now, false));
                Some(json!({"vertexes": [self.vertex(step)?]}))
            }
            BuildEvent::Cached { step } => {
                self.known.get_mut(&step)?.3 = true;
                Some(json!({"vertexes": [self.vertex(step)?]}))
            }
            BuildEvent::Output { step, stream, bytes } => {
                if let Some(step) = self.steps.known.get_mut(&step) {
                    step.take(bytes, |_, _| {});
                }
                let number = match stream {
                    BuildStream::Stdout => 1,
                    BuildStream::Stderr => 2,
                };
                let digest = &self.known.get(&step)?.0;
                Some(json!({"logs": [{
                    "vertex": digest, "stream": number, "data": STANDARD.encode(bytes), "timestamp": now.to_string(),
                }]}))
            }
            BuildEvent::Finished { step, error, .. } => {
                if let Some(step) = self.steps.known.get_mut(&step) {
                    step.end(|_, _| {});
                }
                let mut vertex = self.vertex(step)?;
                vertex["completed"] = json!(now.to_string());
                if let Some(error) = error {
                    vertex["error"] = json!(error);
                }
                Some(json!({"vertexes": [vertex]}))
            }
            BuildEvent::Warning { message, .. } => {
                Some(json!({"warnings": [{"level": 1, "short": STANDARD.encode(message)}]}))
            }
            _ => None,
        }
    }

    fn vertex(&self, step: u32) -> Option<Value> {
        let (digest, name, started, cached) = self.known.get(&step)?;
        let mut vertex = json!({"digest": digest, "name": name, "started": started.to_string()});
        if *cached {
            vertex["cached"] = json!(true);
        }
        Some(vertex)
    }
}
