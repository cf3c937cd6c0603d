//! Build graph, cache keys and step execution.
//!
//! [`build`] takes a [`Request`] (context directory, Dockerfile text, options) and gives an image in the store. It
//! runs nothing itself and fetches nothing itself: base images that are missing come through [`Images`], `RUN`
//! steps go through [`Executor`], and what happens is told to a [`BuildObserver`].
//!
//! # How
//! The stages that the target reaches form a graph; each runs in its own thread, as many steps at once as there are
//! cores. Every step that makes a layer has two cache keys. The *definition key* hashes what the step says and the
//! diff ids that it starts from, and costs no I/O. The *content key* hashes what the step says and the Merkle hash of
//! the merged tree that it starts from, so that a stage that was built again with the same outcome does not
//! invalidate what follows (early cutoff). Both lead to the same record, which names one layer; a hit mounts
//! nothing. Times of files are in no key. A step that is not cached runs in an overlay snapshot, whose changes
//! become the layer by rename.
//!
//! # On disk
//! ```text
//! ROOT/snapshots/build-<pid>-<n>     changes of a running step; swept when its process is gone
//!      tmp/build-<pid>-<n>           mount points of `RUN --mount`
//!      locks/build-<3 hex digits>    flock: one process at a time makes the result of a key
//!      cache/ctx/<hash>              hashes of context files by (dev, ino, size, mtime, ctime)
//!      cache/mounts/<hash>           contents of `RUN --mount=type=cache`
//!      meta.db                       the records
//! ```
//!
//! # What holds
//! - Paths in a context, a layer or a snapshot are resolved by `rootpath` only; what a symbolic link points to
//!   outside of them is never read and never written.
//! - A lease keeps every layer from the sweeper until the image or the cache record that names it is written.
//! - Cancelled or killed at any point, a build leaves only its snapshot, which carries its pid.

#![forbid(unsafe_code)]

mod failure;
mod request;
mod step;

pub use failure::{Error, Failed, Place};
pub use request::{Ignore, Request, Secret};
pub use step::{BuildObserver, Event, Executor, Images, MountSource, NoObserver, RunStep, StepMount, Stream};

pub use dhow_dockerfile::{Network, Security};

use dhow_image::Image;

/// What a build gave.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// How it went.
    pub stats: Stats,
}

/// How a build went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Steps that made a layer or took one from the cache.
    pub steps: u32,
    /// How many of them came from the cache.
    pub cached: u32,
}

/// Builds an image.
///
/// # Errors
/// `InvalidArgument` for a Dockerfile that is wrong, `Unsupported` for what is not done here (the message names the
/// flag), `NotFound` for a source file or base image, `FailedPrecondition` for a command that failed, `Cancelled`.
pub fn build(
    store: &dhow_image::Store,
    images: &dyn Images,
    executor: &dyn Executor,
    request: &Request,
    observer: &dyn BuildObserver,
) -> Result<Built, Failed> {
    let _ = (store, images, executor, observer);
    let error = failure::unsupported("builds are being written");
    Err(failure::Trouble::from(error).into_failed(&request.dockerfile_name))
}
