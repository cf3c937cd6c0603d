//! Wire documents of the OCI and Docker: descriptor, manifest, index, image config, runtime spec.
//!
//! Documents keep the fields that we do not know (`extra`), and whoever stores a document keeps its raw bytes,
//! since its digest is over those. Parsing is bounded by [`MAX_DOCUMENT`]; serde_json bounds the recursion.

#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod manifest;
pub mod media_type;
pub mod runtime;
pub mod usage;

pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use descriptor::Descriptor;
pub use manifest::{Document, Index, Manifest};

dhow_types::define_error! {
    /// A document that is not what it says, or too large.
    pub struct Error;
}

/// Largest manifest, index or config that is read: 4 MiB, the limit that registries share
/// (distribution-spec, "Pushing Manifests").
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Fields of a document that we have no name for; they survive a rewrite.
pub type Extra = serde_json::Map<String, serde_json::Value>;
/// String annotations and labels, in the order of the document.
pub type Labels = std::collections::BTreeMap<String, String>;

/// `null` counts as absent: Go writes nil maps and slices so.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    use serde::Deserialize as _;
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, Error> {
    use dhow_types::ErrorKind;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let message = format!(
            "{what} has {} bytes, more than the {MAX_DOCUMENT} allowed",
            bytes.len()
        );
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("parse {what}"), error))
}
