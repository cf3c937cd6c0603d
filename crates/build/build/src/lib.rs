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
//!      tmp/build-<pid>-<n>/mount     where a source of `RUN --mount` is mounted
//!      locks/build-<3 hex digits>    flock: one process at a time makes the result of a key
//!      cache/ctx/<hash>              hashes of context files by (dev, ino, size, mtime, ctime)
//!      cache/url/<hash>              tag and digest of a file of a web server
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

mod add;
mod agent;
mod archive;
mod base;
mod cache;
mod cache_mounts;
mod checked;
mod chmod;
mod context;
mod copy;
mod digests;
mod download;
mod entitled;
mod epoch;
mod failure;
mod frames;
mod history;
mod ignore;
mod keys;
mod layer_step;
mod lint;
mod metadata;
mod mounts;
mod origin;
mod outside;
mod parents;
mod plan;
mod remote;
mod request;
mod run;
mod schedule;
mod source;
mod stage;
mod state;
mod step;
mod stubs;
mod tree;
mod users;
mod why;
mod write;
mod xattr;

pub use cache::step_of;
pub use cache_mounts::{CacheMount, MountData, MountName, cache_mounts, data_of};
pub use checked::{Checked, check, outline, targets};
pub use failure::{Error, Failed, Place};
#[doc(hidden)]
pub use ignore::compare;
pub use lint::{Outline, Parameter, Rule, Target, Wanted, Warning};
pub use remote::{GitSource, Material};
pub use request::{Entitlements, Filter, Limit, Sandbox};
pub use request::{Ignore, NamedContext, Request, Secret};
pub use step::{
    Answer, BuildObserver, Download, Event, Executor, GitAccess, Images, MountSource, NoObserver, RunStep,
    StepMount, StepResult, Stream,
};

pub use dhow_dockerfile::{Network, Security};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dhow_dockerfile::Span;
use dhow_image::{Image, Store};
use dhow_meta::Lease;

use crate::failure::{Context as _, Trouble};
use crate::lint::Choice;
use crate::plan::Plan;
use crate::schedule::{Build, Parts};
use crate::state::State;

/// The field of an image's config that has the results of its steps ([`Request::inline_cache`]).
pub const INLINE_CACHE: &str = "org.dhow.buildcache.v1";

/// What a build gave.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// How it went.
    pub stats: Stats,
    /// What docker's rules say of the Dockerfile ([`check`]).
    pub warnings: Vec<Warning>,
    /// What its steps gave, when that was to be told.
    pub results: Vec<StepResult>,
    /// The images that it was made of, by the names that they have in the Dockerfile, sorted.
    pub bases: Vec<(String, Image)>,
    /// What else from elsewhere it was made of, sorted.
    pub materials: Vec<Material>,
    /// The cache mounts that its steps had.
    pub mounts: BTreeSet<MountName>,
    /// Keeps the layers from the sweeper where neither the index nor the cache does as long as they are needed.
    _lease: Option<Arc<Lease>>,
}

impl Built {
    /// The name of its folder among those of other platforms: `linux_arm_v7`.
    #[must_use]
    pub fn platform_folder(&self) -> String {
        self.image.config.platform().to_string().replace('/', "_")
    }
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
    store: &Store,
    images: &dyn Images,
    executor: &dyn Executor,
    request: &Request,
    observer: &dyn BuildObserver,
) -> Result<Built, Failed> {
    go(store, images, executor, request, observer)
        .map_err(|trouble| trouble.into_failed(&request.dockerfile_name))
}

fn go(
    store: &Store,
    images: &dyn Images,
    executor: &dyn Executor,
    request: &Request,
    observer: &dyn BuildObserver,
) -> Result<Built, Trouble> {
    let file = checked::parse(request)?;
    let choice = Choice::new(&file, request)?;
    if choice.error {
        let warnings = check(store, images, request)
            .map_err(|failed| Trouble::from(failed.error))?
            .warnings;
        if !warnings.is_empty() {
            return Err(checked::refused(&warnings).into());
        }
    }
    let plan = Plan::new(&file, request)?;
    let lease = Lease::acquire(store.root()).context(|| "keep the layers of the build")?;
    lease
        .pin_everything()
        .context(|| "keep the layers of the build")?;
    let file = &file;
    let parts = Parts {
        store,
        images,
        executor,
        request,
        observer,
        file,
        plan: &plan,
    };
    // All stages have the time in them: it is asked for before any of them begins.
    let mut dated = plan.clone();
    dated.epoch = epoch::ask(parts)?;
    let build = Build::new(Parts {
        plan: &dated,
        ..parts
    })?;
    let result = build.run();
    if let Err(error) = build.save_hashes() {
        // The next build reads the files again: slower, not wrong.
        build.warn(&error.to_string(), Span::default());
    }
    if build.kept.load(Ordering::Relaxed) > 0 {
        why::trim(store.root());
    }
    let state = result?;
    // Now the bases are in the store, and nothing has to be asked for.
    let ignore = build.context.as_ref().map(context::Context::ignored);
    let found = checked::findings(
        file,
        request,
        &choice,
        ignore,
        Some(&plan.reached),
        &|name, platform| checked::known(store, name, platform),
    );
    let results = std::mem::take(&mut *schedule::lock(&build.results));
    let image = commit(store, request, &state, &results)?;
    let mut bases = std::mem::take(&mut *schedule::lock(&build.bases));
    bases.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Built {
        bases,
        materials: std::mem::take(&mut *schedule::lock(&build.materials))
            .into_iter()
            .collect(),
        image,
        warnings: found.warnings,
        stats: Stats {
            steps: build.steps.load(Ordering::Relaxed),
            cached: build.cached.load(Ordering::Relaxed),
        },
        results,
        mounts: std::mem::take(&mut *schedule::lock(&build.mounts)),
        _lease: (!request.record || request.tell_results).then(|| Arc::new(lease)),
    })
}

/// Writes the image and its names, if they are wanted.
fn commit(store: &Store, request: &Request, state: &State, results: &[StepResult]) -> Result<Image, Error> {
    let mut config = state.image.clone();
    config.config.labels.extend(request.labels.clone());
    if request.inline_cache {
        let own = results
            .iter()
            .filter(|result| config.rootfs.diff_ids.contains(&result.layer));
        let mut own: Vec<&StepResult> = own.collect();
        // Stages end in any order: the image must not depend on it.
        own.sort_by(|one, other| one.keys.cmp(&other.keys));
        let records = serde_json::to_value(own).map_err(|error| {
            Error::because(dhow_types::ErrorKind::Internal, "write the inline cache", error)
        })?;
        config.extra.insert(INLINE_CACHE.to_owned(), records);
    }
    if !request.record {
        return store.unrecorded(config).context(|| "describe the image");
    }
    let id = store
        .commit_on(config, &request.tags, state.parent)
        .context(|| "write the image")?;
    if !request.annotations.is_empty() {
        store
            .annotate(&id, &request.annotations)
            .context(|| "write the annotations of the image")?;
    }
    store
        .sync_what_is_new(&request.tags)
        .context(|| "write the image to disk")?;
    store.image(&id).context(|| "read the image")
}
