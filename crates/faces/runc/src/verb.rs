//! The verbs.

mod begin;
mod checkpoint;
mod document;
mod events;
mod exec;
mod life;
mod query;
mod update;

use crate::Verb;

pub(crate) use query::owner;

/// The version of the standard that this is written for.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// All of them.
pub(crate) const ALL: &[Verb] = &[
    checkpoint::CHECKPOINT,
    begin::CREATE,
    life::DELETE,
    events::EVENTS,
    exec::EXEC,
    document::FEATURES,
    life::KILL,
    query::LIST,
    life::PAUSE,
    query::PS,
    checkpoint::RESTORE,
    life::RESUME,
    begin::RUN,
    document::SPEC,
    life::START,
    query::STATE,
    update::UPDATE,
];
