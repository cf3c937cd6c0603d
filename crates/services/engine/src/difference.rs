//! Whether two images are the same, and where they differ first.

use std::fmt;

use dhow_image::Image;
use dhow_layer::{Entry, Index};
use dhow_oci::ImageConfig;
use dhow_types::DiffId;

use crate::{Context as _, Engine, Error};

/// Where two images differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Nothing but times: of files, of the image, of its history.
    Times,
    /// A path of a layer.
    Path {
        /// What made the layer, as the history says.
        step: String,
        /// The path.
        path: String,
        /// What of it differs.
        what: &'static str,
    },
    /// A part of the config.
    Config(&'static str),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times => f.write_str("times"),
            Self::Path { step, path, what } => write!(f, "{path}: {what} (layer of {step})"),
            Self::Config(part) => write!(f, "{part} of the image's config"),
        }
    }
}

impl Engine {
    /// The first difference of two images; times count last.
    pub(crate) fn first_difference(&self, one: &Image, other: &Image) -> Result<Option<Difference>, Error> {
        if one.id == other.id {
            return Ok(None);
        }
        let (ours, theirs) = (&one.config.rootfs.diff_ids, &other.config.rootfs.diff_ids);
        if ours.len() != theirs.len() {
            return Ok(Some(Difference::Config("the number of layers")));
        }
        let made = one.config.history.iter().filter(|line| !line.empty_layer);
        let mut steps = made.map(|line| line.created_by.clone().unwrap_or_default());
        for (our, their) in ours.iter().zip(theirs) {
            let step = steps.next().unwrap_or_default();
            if our == their {
                continue;
            }
            if let Some((path, what)) = differ(&self.index_of(our)?, &self.index_of(their)?) {
                return Ok(Some(Difference::Path { step, path, what }));
            }
        }
        Ok(Some(
            config(&one.config, &other.config).unwrap_or(Difference::Times),
        ))
    }

    fn index_of(&self, layer: &DiffId) -> Result<Index, Error> {
        let layer = self.store()?.layers.layer(layer);
        let index = layer.and_then(|layer| layer.index());
        index.context(|| "read the index of a layer")
    }
}

/// The first path that two layers do not have alike, times left out.
fn differ(one: &Index, other: &Index) -> Option<(String, &'static str)> {
    let shown = |entry: &Entry| format!("/{}", String::from_utf8_lossy(&entry.path));
    let (mut ours, mut theirs) = (one.entries().peekable(), other.entries().peekable());
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(our), Some(their)) => our.path.cmp(&their.path),
        };
        match order {
            std::cmp::Ordering::Less => return Some((shown(&ours.next()?), "only in the first build")),
            std::cmp::Ordering::Greater => return Some((shown(&theirs.next()?), "only in the second build")),
            std::cmp::Ordering::Equal => {}
        }
        let (our, their) = (ours.next()?, theirs.next()?);
        if let Some(what) = part(&our, &their) {
            return Some((shown(&our), what));
        }
    }
}

fn part(our: &Entry, their: &Entry) -> Option<&'static str> {
    let parts = [
        (our.kind != their.kind, "kind"),
        (our.size != their.size || our.content != their.content, "content"),
        (our.link != their.link, "target of the link"),
        (our.mode != their.mode, "mode"),
        ((our.uid, our.gid) != (their.uid, their.gid), "owner"),
        (our.xattrs != their.xattrs, "extended attributes"),
        (
            (our.major, our.minor) != (their.major, their.minor),
            "device number",
        ),
        (our.opaque != their.opaque, "what it hides of the layers below"),
    ];
    parts.iter().find_map(|(differs, what)| differs.then_some(*what))
}

fn config(one: &ImageConfig, other: &ImageConfig) -> Option<Difference> {
    let without_times = |config: &ImageConfig| {
        let mut config = config.clone();
        config.created = None;
        config.history.iter_mut().for_each(|line| line.created = None);
        config.rootfs.diff_ids.clear();
        config
    };
    let (one, other) = (without_times(one), without_times(other));
    if one.config != other.config {
        return Some(Difference::Config("the settings"));
    }
    if one.history != other.history {
        return Some(Difference::Config("the history"));
    }
    (one != other).then_some(Difference::Config("a part"))
}
