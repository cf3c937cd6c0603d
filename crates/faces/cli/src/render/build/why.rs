//! `--why`: each step, and why it was done.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dhow_engine::{BuildEvent, BuildObserver};

use super::harmless;
use crate::render::note;

/// Collects what became of each step.
#[derive(Debug, Default)]
pub(crate) struct Why(Mutex<BTreeMap<u32, (String, Option<String>)>>);

impl Why {
    /// Says it all on standard error, steps in the order of their beginnings.
    pub(crate) fn tell(&self) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, verdict) in steps.values() {
            if let Some(verdict) = verdict {
                note(&format!("{}\n    {}", harmless(name), harmless(verdict)));
            }
        }
    }
}

impl BuildObserver for Why {
    fn observe(&self, event: BuildEvent<'_>) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, verdict) = match event {
            BuildEvent::Started { step, name } => {
                steps.insert(step, (name.to_owned(), None));
                return;
            }
            BuildEvent::Cached { step } => (step, "cached".to_owned()),
            BuildEvent::Missed { step, why } => (step, format!("not cached: {why}")),
            _ => return,
        };
        if let Some((_, known)) = steps.get_mut(&step) {
            *known = Some(verdict);
        }
    }
}
