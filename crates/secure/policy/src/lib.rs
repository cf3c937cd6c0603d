//! Verdicts on images. Pure: no files, no clock, no cryptography.
//!
//! Two files are understood:
//! - [`Containers`]: `policy.json` of podman, skopeo and CRI-O (containers-policy.json(5)): which signatures an image must
//!   have to be pulled;
//! - [`Policy`]: ours, richer: rules by image about signers, severity, age, base, end of life and licence, that warn or
//!   deny, with exceptions that have a reason and an end.
//!
//! One function decides, [`evaluate`], wherever it is asked: at pull, run, build, push, in a registry or for an
//! orchestrator. Whoever asks brings the [`Facts`]; [`Policy::needs`] says which are wanted, so that nobody gathers what no
//! rule looks at. A fact that is wanted and not known breaks the rule: it is never taken for good.

#![forbid(unsafe_code)]

mod containers;
mod evaluate;
mod facts;
mod pattern;
mod policy;

pub use containers::{Containers, Fulcio, IdentityMatch, Key, Pki, Requirement};
pub use evaluate::{Decision, Verdict, evaluate};
pub use facts::{Facts, Known, Licence, Lifecycle, Point, Severity, TagFact, TagFacts, Vulnerability};
pub use pattern::ImagePattern;
pub use policy::{Action, Exception, LifecycleState, Needs, Policy, Retirers, Rule, SignerDocument};

/// Largest policy file.
pub const MAX_FILE: u64 = 1 << 20;

dhow_types::define_error! {
    /// A policy that is none.
    pub struct Error;
}
