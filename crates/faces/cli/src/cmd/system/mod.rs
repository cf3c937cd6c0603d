//! The verbs of `system`.

pub(crate) mod check;
pub(crate) mod connection;
pub(crate) mod df;
pub(crate) mod layers;
pub(crate) mod snapshots;
pub(crate) mod teardown;
