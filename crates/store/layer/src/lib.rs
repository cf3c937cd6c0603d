//! Layers: tar streams to trees and back.
//!
//! # Promise
//! A layer is stored once, under its [`DiffId`] (the hash of its uncompressed tar), whatever image it came with and
//! whatever lies below it. It becomes visible by one rename, after its hash was verified; a failure at any point leaves
//! nothing. Its [`Index`] is made in the same pass; [`Layer::tar`] gives back the exact bytes.
//!
//! # On disk
//! ```text
//! ROOT/layers/XX/<hex of diff id>/fs/      the tree, whiteouts in overlayfs form
//!                                 index    every entry, sorted by path (see `Index`)
//!                                 split    tar headers and padding; absent when the tar is in canonical form
//!                                 lost/    contents that the tar overwrote itself; absent when there are none
//!                                 state    boot id of the writer, durable flag, sizes
//!                                 image    instead of fs, split and lost: an erofs image around the tar (see `erofs`)
//! ROOT/tmp/                               layers in the making: named after the process that makes them
//! ROOT/trash/                             layers to be deleted
//! ```
//!
//! # Locks
//! None. Two writers of one layer race to the rename; the second throws its copy away.

#![forbid(unsafe_code)]

mod capture;
mod codec;
mod column;
mod entry;
mod erofs;
mod hash;
mod index;
mod inflated;
pub mod owners;
mod split;
mod staging;
mod state;
mod store;
mod stream;
pub mod tar;
mod unpack;
mod varint;
mod verify;
mod window;

pub use codec::{Compression, compress, decoder};
pub use entry::{Entry, EntryKind};
pub use hash::ContentHasher;
pub use index::{Entries, Index};
pub use inflated::Inflated;
pub use owners::{IdRow, Owners};
pub use staging::{MOUNT_POINT, hide, is_gone};
pub use state::boot_id;
pub use store::{Backend, Capture, Layer, LayerStore, Problem, Scratch, Unpack, Unpacked};
pub use stream::TarStream;
pub use unpack::{Extent, Survey, Surveyed};

dhow_types::define_error! {
    /// What failed on which layer or archive.
    pub struct Error;
}

/// Whether this process is root of the initial user namespace: only then can files be given away, devices be made, and
/// overlayfs be told things by `trusted.*` attributes. Otherwise what fails of these is in the index only.
#[must_use]
pub fn privileged() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| {
        let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
        rustix::process::geteuid().is_root() && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
    })
}

/// Bounds on what an archive may hold. The defaults are far above every image seen in the wild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries in one archive.
    pub entries: u64,
    /// Bytes of one path or link target.
    pub path: usize,
    /// Bytes of one name in a path (`NAME_MAX`).
    pub name: usize,
    /// Bytes of all files together, holes included.
    pub total: u64,
    /// Bytes of holes of all sparse files together: they cost time to hash, though no disk.
    pub holes: u64,
    /// Pieces of all sparse files together.
    pub pieces: u64,
    /// Bytes of the archive after decompression.
    pub archive: u64,
    /// Bytes of the extended headers (PAX, GNU long names, sparse maps) of one entry.
    pub header: usize,
    /// Bytes of all extended attributes of one entry.
    pub xattrs: usize,
    /// Most bytes out for one byte of compressed input, once the output is beyond [`Limits::ratio_free`] or
    /// [`Limits::ratio_free_sized`]. Layers of programs and data stay below 20; only fill (zeros, one byte again and
    /// again) comes near deflate's own bound of 1032, or zstd's of some 30,000.
    pub ratio: u64,
    /// Output up to this size is never taken for a decompression bomb: a file of zeros is a fair thing to ship. It
    /// holds when the size of the stream is not known. What was read so far says little then, since fill may come
    /// before what does not compress.
    pub ratio_free: u64,
    /// The same when the size of the whole stream is known. The ratio is then that of the whole layer, whatever the
    /// order of its files, so an honest layer is refused only when it is hardly anything but fill, and more of it
    /// than this.
    pub ratio_free_sized: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            path: 4096,
            name: 255,
            total: 512 << 30,
            holes: 16 << 30,
            pieces: 1_000_000,
            archive: 512 << 30,
            header: 1 << 20,
            xattrs: 128 << 10,
            ratio: 200,
            ratio_free: 4 << 30,
            ratio_free_sized: 1 << 30,
        }
    }
}
