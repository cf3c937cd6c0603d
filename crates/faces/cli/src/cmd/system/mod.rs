//! The verbs of `system`.

pub(crate) mod check;
pub(crate) mod df;
pub(crate) mod layers;
pub(crate) mod teardown;
