//! Images over the store: the facade of floor 2.
//!
//! An image is a config and the layers that it names; its id is the digest of the config. This crate composes
//! content (configs and manifests), layers, snapshots, the index and the registry client into the verbs that
//! faces and engine use: pull, push, commit, tag, remove, save, load, import, prune, check.
//!
//! # On disk
//! ```text
//! ROOT/store.json          {"format":1}
//!      blobs/              configs and manifests (content)
//!      layers/             unpacked layers (layer)
//!      snapshots/          stacks with changes (snapshot)
//!      refs/<name>         one file for each tag and each repo digest: `<image id>\n<canonical name>\n`
//!      manifests/          lists of manifests in the making, one file each
//!      meta.db             the index (meta): made again from the files when lost
//!      leases/ locks/      what living processes keep (meta)
//!      tmp/ trash/         in the making; to be deleted
//! ```
//!
//! # What holds
//! - Names are files: `refs/` is the truth of names after a power cut or without an index. A command changes a name in
//!   the index, writes down there what the file is to say, and changes the file when the index is free again; who is
//!   killed in between leaves that to the next (see `due`). The index remembers the state of `refs/` that it agrees with:
//!   when that is another one, and nobody is at it, the names are read again.
//! - Order of every mutation: lease, layers, blobs, record, name. Killed anywhere, what is left is unreferenced
//!   and goes with the next sweep; a name never points to something incomplete.
//! - A blob that is stored under a digest has it, a layer under a diff id has it; a manifest is kept byte for
//!   byte, so that what was pulled is pushed with the same digest.
//! - Locks: none while bytes move. A sweep (see `dhow_meta`) is announced for renames only, and in the way of nobody who
//!   needs nothing of it.

#![forbid(unsafe_code)]

mod annotation;
mod archive;
mod attest;
mod check;
mod commit;
mod copy;
mod documents;
mod due;
mod foreign;
mod image;
mod load;
mod loaded;
mod manifest_list;
mod names;
mod parallel;
mod pipe;
mod pull;
mod push;
mod remove;
mod save;
mod sibling;
mod staged;
mod store;
mod sweep;
mod types;
mod variant;

pub use annotation::{AnnotationPlace, Annotations};
pub use attest::{Attestation, Saying, Statement};
pub use copy::{Copied, Copy, LayoutFolder, Location, LyingImage, copy};
pub use image::{HistoryLine, Image, Summary};
pub use manifest_list::{Annotate, ManifestList, ManifestLists, Member};
pub use save::{ArchiveForm, PackedBlob};
pub use store::Store;
pub use types::{
    Check, DiskUsage, Finding, Import, Imported, LabelFilter, LayerUsage, Loaded, Packing, Prune, Pruned,
    Pull, Pulled, PushForm, Pushed, Removal, Removed, Report, Swept, Usage, Use,
};
pub use variant::Variant;

dhow_types::define_error! {
    /// What failed on which image.
    pub struct Error;
}

impl From<dhow_meta::Error> for Error {
    fn from(source: dhow_meta::Error) -> Self {
        Self::wrap(source, "use the index of images")
    }
}
