//! Views of images: resolve, list, history.

use std::collections::HashMap;

use dhow_content::ContentStore as _;
use dhow_meta::ImageRecord;
use dhow_oci::{ImageConfig, MAX_DOCUMENT};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::names::single;
use crate::{Context as _, Error, Store};

/// An image with its config and its names.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Digest of the config.
    pub id: ImageId,
    /// What the index knows of it.
    pub record: ImageRecord,
    /// Its config.
    pub config: ImageConfig,
    /// Its tags, canonical.
    pub names: Vec<String>,
    /// Its repo digests: `host/repository` and the digest there.
    pub digests: Vec<(String, Digest)>,
}

/// An image as a list shows it: without its config, so without a file to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the index knows of it.
    pub record: ImageRecord,
    /// Its tags, canonical.
    pub names: Vec<String>,
    /// Its repo digests.
    pub digests: Vec<(String, Digest)>,
    /// The named images of the same index, when it has no tag: it is what their names have for another machine.
    pub named_by: Vec<ImageId>,
    /// Whether neither it nor one of those has a tag.
    pub dangling: bool,
}

/// One line of `docker history`, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image of this line, when it is a local one (`<missing>` otherwise).
    pub id: Option<ImageId>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of files that its layer added; 0 without a layer.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// Tags of that image, canonical.
    pub names: Vec<String>,
}

impl Summary {
    /// Whether it is here only as what names of others mean for another machine.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        !self.named_by.is_empty() && self.names.is_empty() && self.digests.is_empty()
    }
}

impl Image {
    /// Its tags as people write them: `debian:12`.
    #[must_use]
    pub fn repo_tags(&self) -> Vec<String> {
        self.names.iter().map(|name| familiar(name)).collect()
    }

    /// Its repo digests as people write them: `debian@sha256:...`.
    #[must_use]
    pub fn repo_digests(&self) -> Vec<String> {
        self.digests
            .iter()
            .map(|(repo, digest)| familiar(&format!("{repo}@{digest}")))
            .collect()
    }
}

/// What a text may mean.
pub(crate) enum Wanted {
    /// An id, whole or its start; and the name that it could be instead.
    Id(String),
    /// A name with a tag or a digest.
    Name(Reference),
}

impl Store {
    /// The image that `name` means: a name with tag or digest, an id, or the start of an id.
    ///
    /// # Errors
    /// `NotFound` ("no such image: X"), `InvalidArgument` for a malformed name and for a start that several ids have.
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let (id, _) = self.find(name)?;
        self.image(&id)
    }

    /// The image with this id.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when its config is damaged.
    pub fn image(&self, id: &ImageId) -> Result<Image, Error> {
        let record = self
            .meta
            .image(id)?
            .ok_or_else(|| no_such_image(&id.to_string()))?;
        Ok(Image {
            id: *id,
            config: self.config_of_recorded(id)?,
            names: self.meta.tags_of(id)?,
            digests: self.meta.digests_of(id)?,
            record,
        })
    }

    /// The config of an image whose record was just seen. Another command may have removed the image since: then that is
    /// the answer, and not that the store is damaged.
    fn config_of_recorded(&self, id: &ImageId) -> Result<ImageConfig, Error> {
        let config = self.config(id);
        match config {
            Err(error) if error.kind() == ErrorKind::DataLoss => match self.meta.image(id)? {
                None => Err(no_such_image(&id.to_string())),
                // Removed and here again, or damaged indeed.
                Some(_) => self.config(id),
            },
            other => other,
        }
    }

    /// All images with their configs, newest first.
    ///
    /// # Errors
    /// `DataLoss` when a config is damaged.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        for summary in self.summaries()? {
            let config = match self.config_of_recorded(&summary.record.id) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            images.push(Image {
                id: summary.record.id,
                config,
                record: summary.record,
                names: summary.names,
                digests: summary.digests,
            });
        }
        Ok(images)
    }

    /// All images, newest first, by three queries, however many there are; where some have no tag, also by what names were pulled by.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>, Error> {
        self.refresh()?;
        let mut names: HashMap<ImageId, Vec<String>> = HashMap::new();
        for (name, id) in self.meta.tags()? {
            names.entry(id).or_default().push(name);
        }
        let mut digests: HashMap<ImageId, Vec<(String, Digest)>> = HashMap::new();
        for (repo, digest, id) in self.meta.digests()? {
            digests.entry(id).or_default().push((repo, digest));
        }
        let view = |record: ImageRecord| {
            let names = names.remove(&record.id).unwrap_or_default();
            Summary {
                dangling: names.is_empty(),
                names,
                digests: digests.remove(&record.id).unwrap_or_default(),
                named_by: Vec::new(),
                record,
            }
        };
        let mut summaries: Vec<Summary> = self.meta.images()?.into_iter().map(view).collect();
        self.find_siblings(&mut summaries);
        Ok(summaries)
    }

    /// The tags that each image has and had, canonical: first those that it has, then the others, the newest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn names_history(&self) -> Result<HashMap<ImageId, Vec<String>>, Error> {
        let mut names: HashMap<ImageId, Vec<String>> = HashMap::new();
        for (name, id) in self.meta.tags()?.into_iter().chain(self.meta.past_tags()?) {
            let known = names.entry(id).or_default();
            if !known.contains(&name) {
                known.push(name);
            }
        }
        Ok(names)
    }

    /// How an image came to be, newest first.
    ///
    /// # Errors
    /// `NotFound` when one of its layers is missing.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryLine>, Error> {
        let mut layers = image.config.rootfs.diff_ids.iter();
        let mut lines = Vec::with_capacity(image.config.history.len());
        for entry in &image.config.history {
            // A history with more layers than there are is the maker's mistake, not the reader's.
            let layer = if entry.empty_layer { None } else { layers.next() };
            let size = match layer {
                Some(diff) => self.layers.layer(diff).context(|| "read the history")?.size(),
                None => 0,
            };
            lines.push(HistoryLine {
                id: None,
                created: entry.created.clone(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                size,
                comment: entry.comment.clone().unwrap_or_default(),
                names: Vec::new(),
            });
        }
        lines.reverse();
        if let Some(first) = lines.first_mut() {
            first.id = Some(image.id);
            first.names.clone_from(&image.names);
        }
        Ok(lines)
    }

    /// The id that `name` means, and the name if it was one.
    pub(crate) fn find(&self, name: &str) -> Result<(ImageId, Option<Reference>), Error> {
        self.refresh()?;
        let wanted = parse_wanted(name)?;
        if let Wanted::Name(reference) = &wanted {
            let found = match reference.digest() {
                Some(digest) => self.meta.by_digest(&reference.name(), digest)?,
                None => self.meta.tagged(&reference.canonical())?,
            };
            if let Some(id) = found {
                return Ok((id, Some(reference.clone())));
            }
        }
        let (prefix, shown) = match &wanted {
            Wanted::Id(hex) => (hex.as_str(), name.to_owned()),
            Wanted::Name(reference) => (name, reference.familiar()),
        };
        match self.meta.by_prefix(prefix)?.as_slice() {
            [] => Err(no_such_image(&shown)),
            [id] => Ok((*id, None)),
            many => {
                let message = format!("{name} is the start of {} image ids", many.len());
                Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("write more of the id"))
            }
        }
    }

    /// The config of an image, verified.
    pub(crate) fn config(&self, id: &ImageId) -> Result<ImageConfig, Error> {
        let bytes = self.config_bytes(id)?;
        ImageConfig::parse(&bytes).context(|| format!("read the config of image {}", id.short()))
    }

    pub(crate) fn config_bytes(&self, id: &ImageId) -> Result<Vec<u8>, Error> {
        self.content.read(&id.0, MAX_DOCUMENT).map_err(|error| {
            let made = Error::wrap(error, format!("read the config of image {}", id.short()));
            // The record says that it is there: that it is not is damage, not a wrong question.
            made.with_kind(ErrorKind::DataLoss)
                .with_hint("run dhow system check --repair, then pull the image again")
        })
    }
}

/// Reads what a person typed for an image.
pub(crate) fn parse_wanted(name: &str) -> Result<Wanted, Error> {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if let Some(rest) = name.strip_prefix("sha256:")
        && hex(rest)
    {
        return Ok(Wanted::Id(rest.to_owned()));
    }
    // A name may look like hexadecimal ("cafe"): only 64 of them are always an id, as in docker.
    if name.len() == 64 && hex(name) {
        return Ok(Wanted::Id(name.to_owned()));
    }
    let reference = Reference::parse(name).context(|| format!("find image {:?}", clipped(name)))?;
    Ok(Wanted::Name(single(&reference)))
}

fn clipped(name: &str) -> String {
    name.chars().take(128).collect()
}

pub(crate) fn no_such_image(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no such image: {name}"))
}

/// The familiar form of a canonical name; the name itself if it is none, since it came from the index.
pub(crate) fn familiar(canonical: &str) -> String {
    Reference::parse(canonical).map_or_else(|_| canonical.to_owned(), |reference| reference.familiar())
}
