//! The verbs.

mod begin;
mod exec;
mod life;
mod query;

use crate::Verb;

/// The version of the standard that this is written for.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// All of them.
pub(crate) const ALL: &[Verb] = &[
    begin::CREATE,
    life::DELETE,
    exec::EXEC,
    life::KILL,
    query::LIST,
    life::PAUSE,
    query::PS,
    life::RESUME,
    begin::RUN,
    life::START,
    query::STATE,
];
