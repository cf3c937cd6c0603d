//! Signatures and statements about images: made, read, verified. No files, no network, no clock.
//!
//! Three forms are written and read:
//! - cosign's *simple signing* ([`simple`]): a payload that names the manifest, its signature in an annotation;
//! - Sigstore's *bundle* 0.3 ([`bundle`]): an in-toto [`Statement`] in a DSSE envelope, with the key's hint, or with a
//!   certificate and what a log says of it;
//! - the Notary Project's *JWS* and *COSE* ([`notation`]), with a chain of certificates.
//!
//! A [`TagStatement`] says, with an end, what a tag points to.
//!
//! What this crate promises:
//! - A signature counts for the manifest that it names, whatever it is found beside: one of another image is refused.
//! - How it is checked follows from the key, never from what the document says of itself.
//! - Everything foreign is bounded: sizes, numbers of keys, certificates, log entries, subjects, time of scrypt.
//! - A short-lived certificate counts when it lived at a time that somebody else vouches for: a log's promise or a time
//!   stamp; its log entry must be of this very signature. What is missing to judge that is said.
//! - Whoever verifies says whom to trust ([`Trust`]). There is no default: nobody is trusted by not being named.
//!
//! - It is in a certificate log of the trusted root, where that names some (signed certificate timestamps).
//!
//! Not checked: revocation.

#![forbid(unsafe_code)]

pub mod bundle;
mod cbor;
mod clock;
mod der;
mod key;
mod life;
mod log;
pub mod notation;
mod pem;
mod root;
mod sealed;
pub mod simple;
mod statement;
mod tag;
mod transparency;
mod verify;
mod x509;

pub use key::{PrivateKey, PublicKey};
pub use life::{LIFECYCLE, LifecycleStatement};
pub use root::TrustedRoot;
pub use statement::{SIGNED, Statement, predicate_type};
pub use tag::{TAG, TagStatement};
pub use verify::{Form, Found, Identity, Pattern, Pki, Signer, Target, Trust, Verified, keys};
pub use x509::Certificate;

dhow_types::define_error! {
    /// What is wrong with a key or a signature, or missing.
    pub struct Error;
}

#[cfg(test)]
mod tests;
