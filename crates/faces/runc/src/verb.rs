//! The verbs.

mod begin;
mod document;
mod events;
mod exec;
mod life;
mod query;
mod update;

use crate::args::Until;
use crate::{Failure, Verb};

/// The version of the standard that this is written for.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// All of them.
pub(crate) const ALL: &[Verb] = &[
    absent("checkpoint", "checkpoint a running container"),
    begin::CREATE,
    life::DELETE,
    events::EVENTS,
    exec::EXEC,
    document::FEATURES,
    life::KILL,
    query::LIST,
    life::PAUSE,
    query::PS,
    absent("restore", "restore a container from a checkpoint"),
    life::RESUME,
    begin::RUN,
    document::SPEC,
    life::START,
    query::STATE,
    update::UPDATE,
];

/// A verb of runc that is not there yet.
const fn absent(name: &'static str, about: &'static str) -> Verb {
    Verb {
        name,
        about,
        words: "",
        flags: &[],
        until: Until::Words(0),
        count: (0, usize::MAX),
        run: |_, _| Err(Failure::new("checkpoint and restore are not supported")),
    }
}
