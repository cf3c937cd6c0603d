//! From the parts of an archive to images. All is read by now; the diff ids of the configs decide.

use dhow_oci::{Descriptor, Document, ImageConfig, Index, Manifest};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, Platform};

use crate::archive::{ArchiveImage, FULL_NAME, INDEX, MANIFEST, REF_NAME, REPOSITORIES, blob_path};
use crate::attest::{about, index_of, is_attestation};
use crate::documents::{check_config, check_manifest, clip};
use crate::load::{Found, Loader, verify};
use crate::variant::{fits, present};
use crate::{Context as _, Error};

/// Links from link to link: docker writes one.
const MAX_HOPS: usize = 8;

/// An image of the archive, checked.
pub(crate) struct Complete {
    pub(crate) config: ImageConfig,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) manifest: Option<(Manifest, Vec<u8>)>,
    pub(crate) layers: Vec<Found>,
    pub(crate) names: Vec<Reference>,
    pub(crate) said: Option<Said>,
}

/// What the archive has of attestations of an image.
pub(crate) struct Said {
    /// The image's manifest and the attestations, as one index.
    pub(crate) index: Vec<u8>,
    /// It, the manifest in it, and all of the attestations.
    pub(crate) documents: Vec<Vec<u8>>,
}

impl Loader<'_> {
    /// Every image of the archive.
    pub(crate) fn images(&self) -> Result<Vec<Complete>, Error> {
        if let Some(bytes) = self.documents.get(MANIFEST) {
            let list: Vec<ArchiveImage> = serde_json::from_slice(bytes).map_err(|error| {
                Error::because(
                    ErrorKind::InvalidArgument,
                    format!("parse {MANIFEST} of the archive"),
                    error,
                )
            })?;
            let images: Vec<Complete> = list
                .iter()
                .map(|image| self.docker_image(image))
                .collect::<Result<_, _>>()?;
            let Some(wanted) = self.platform else {
                return Ok(images);
            };
            let offered: Vec<Platform> = images.iter().map(|image| image.config.platform()).collect();
            let (images, _): (Vec<_>, Vec<_>) = images
                .into_iter()
                .partition(|image| fits(&image.config.platform(), wanted));
            // Docker lists one platform of an image there; the others are in the index alone.
            if !images.is_empty() {
                return Ok(images);
            }
            if !self.documents.contains_key(INDEX) {
                return Err(self.has_none(wanted, offered));
            }
        }
        if let Some(bytes) = self.documents.get(INDEX) {
            let Document::Index(index) = Document::parse(bytes, None).context(|| format!("read {INDEX}"))?
            else {
                let message = format!("{INDEX} of the archive is no index");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            };
            let mut images = Vec::new();
            for descriptor in &index.manifests {
                images.extend(self.layout_image(descriptor)?);
            }
            if images.is_empty() {
                return Err(match self.platform {
                    Some(wanted) => self.has_none(wanted, Vec::new()),
                    None => Error::new(ErrorKind::NotFound, "the archive has no image for this machine"),
                });
            }
            return Ok(images);
        }
        let error = Error::new(
            ErrorKind::InvalidArgument,
            format!("not an image archive: it has neither {MANIFEST} nor {INDEX}"),
        );
        Err(if self.documents.contains_key(REPOSITORIES) {
            error.with_hint("it was saved by docker before 1.10: load and save it with a newer one")
        } else {
            error.with_hint("for the tar of a root file system use import")
        })
    }

    /// The error for a platform that the archive does not have, with those that it has.
    fn has_none(&self, wanted: &Platform, mut offered: Vec<Platform>) -> Error {
        for bytes in self.documents.values() {
            if let Ok(Document::Index(index)) = Document::parse(bytes, None) {
                let images = index.manifests.iter().filter(|entry| !is_attestation(entry));
                offered.extend(images.filter_map(|entry| entry.platform.clone()));
            }
        }
        offered.sort_by_key(ToString::to_string);
        offered.dedup();
        Error::new(
            ErrorKind::NotFound,
            format!("the archive has no image for {wanted}"),
        )
        .with_hint(present("it has", offered.iter()))
    }

    fn docker_image(&self, image: &ArchiveImage) -> Result<Complete, Error> {
        let config_bytes = self.document(&image.config)?;
        let paths = image.layers.as_deref().unwrap_or_default();
        let layers = paths
            .iter()
            .map(|path| self.layer(path))
            .collect::<Result<Vec<_>, _>>()?;
        let what = format!("image {} of the archive", clip(&image.config));
        let config = check_config(config_bytes, layers.len(), &what)?;
        if let Some(hex) = image.config.strip_suffix(".json")
            && let Ok(promise) = Digest::from_hex(hex)
        {
            verify(&image.config, &promise, &Digest::of(config_bytes))?;
        }
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let names = tags
            .iter()
            .map(|tag| archive_name(tag))
            .collect::<Result<Vec<_>, _>>()?;
        let complete = Complete {
            manifest: self.manifest_for(&Digest::of(config_bytes)),
            said: self.said_of(&Digest::of(config_bytes))?,
            config,
            config_bytes: config_bytes.to_vec(),
            layers,
            names,
        };
        complete.check(&what)
    }

    /// The manifest that the archive's index has for a config, if it is one that a registry could serve: the
    /// manifests that docker writes into archives name uncompressed layers, and are of no use later.
    fn manifest_for(&self, config: &Digest) -> Option<(Manifest, Vec<u8>)> {
        let Ok(Document::Index(index)) = Document::parse(self.documents.get(INDEX)?, None) else {
            return None;
        };
        index.manifests.iter().find_map(|descriptor| {
            let bytes = self.documents.get(&blob_path(&descriptor.digest))?;
            match Document::parse(bytes, None) {
                Ok(Document::Manifest(manifest)) if manifest.config.digest == *config => {
                    let compressed = |layer: &Descriptor| {
                        self.layers
                            .get(&blob_path(&layer.digest))
                            .is_some_and(|found| found.blob.is_some())
                    };
                    manifest
                        .layers
                        .iter()
                        .all(compressed)
                        .then(|| (manifest, bytes.clone()))
                }
                _ => None,
            }
        })
    }

    /// What the indexes of the archive say of the image with this config, as far as it is whole: a larger statement than a
    /// document may be is left out with its attestation.
    fn said_of(&self, config: &Digest) -> Result<Option<Said>, Error> {
        let manifest_at = |digest: &Digest| {
            let bytes = self.documents.get(&blob_path(digest))?;
            match Document::parse(bytes, None) {
                Ok(Document::Manifest(manifest)) => Some((manifest, bytes.clone())),
                _ => None,
            }
        };
        let indexes = self
            .documents
            .values()
            .filter_map(|bytes| match Document::parse(bytes, None) {
                Ok(Document::Index(index)) if index.manifests.iter().any(is_attestation) => {
                    Some((index, bytes))
                }
                _ => None,
            });
        for (index, whole) in indexes {
            let own = index.manifests.iter().find_map(|descriptor| {
                let (manifest, bytes) = manifest_at(&descriptor.digest)?;
                (manifest.config.digest == *config).then_some((descriptor, bytes))
            });
            let Some((own, bytes)) = own else { continue };
            let (mut documents, mut kept) = (vec![bytes], Vec::new());
            for attestation in about(&index, &own.digest) {
                let Some((manifest, bytes)) = manifest_at(&attestation.digest) else {
                    continue;
                };
                let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                let blobs: Option<Vec<_>> = blobs
                    .map(|blob| self.documents.get(&blob_path(&blob.digest)).cloned())
                    .collect();
                if let Some(blobs) = blobs {
                    documents.extend(blobs);
                    documents.push(bytes);
                    kept.push(attestation.clone());
                }
            }
            if !kept.is_empty() {
                let mut bare = own.clone();
                // The names in the archive are none of the image's manifest.
                bare.annotations.clear();
                let index = if *own == bare && index.manifests.len() == 1 + kept.len() {
                    whole.clone()
                } else {
                    index_of(bare, &kept)?.1
                };
                documents.push(index.clone());
                return Ok(Some(Said { index, documents }));
            }
        }
        Ok(None)
    }

    /// The image that a descriptor of the layout's index leads to; `None` when it is none, or none for this machine.
    fn layout_image(&self, top: &Descriptor) -> Result<Option<Complete>, Error> {
        let what = format!("manifest {} of the archive", top.digest.short());
        let bytes = self.document(&blob_path(&top.digest))?;
        let (manifest, bytes) = match Document::parse(bytes, None).context(|| format!("read {what}"))? {
            Document::Manifest(manifest) => (manifest, bytes),
            Document::Index(index) => match self.chosen(&index)? {
                Some(chosen) => chosen,
                None => return Ok(None),
            },
        };
        // Attestations and other artifacts may lie beside the images.
        if manifest.artifact_type.is_some() || top.annotations.contains_key("vnd.docker.reference.type") {
            return Ok(None);
        }
        check_manifest(&manifest, &what)?;
        let config_bytes = self.document(&blob_path(&manifest.config.digest))?;
        let config = check_config(config_bytes, manifest.layers.len(), &what)?;
        if self
            .platform
            .is_some_and(|wanted| !fits(&config.platform(), wanted))
        {
            return Ok(None);
        }
        let layers = manifest
            .layers
            .iter()
            .map(|layer| self.layer(&blob_path(&layer.digest)))
            .collect::<Result<Vec<_>, _>>()?;
        let compressed = layers.iter().all(|layer| layer.blob.is_some());
        let complete = Complete {
            said: self.said_of(&Digest::of(config_bytes))?,
            manifest: compressed.then(|| (manifest, bytes.to_vec())),
            config,
            config_bytes: config_bytes.to_vec(),
            layers,
            names: layout_names(top)?,
        };
        complete.check(&what).map(Some)
    }

    /// The manifest for the wanted machine in an index of the archive, if it is there.
    fn chosen(&self, index: &Index) -> Result<Option<(Manifest, &[u8])>, Error> {
        let wanted = self
            .platform
            .map_or_else(Platform::host, |wanted| wanted.clone().normalized());
        let Some(descriptor) = index.choose(&wanted) else {
            return Ok(None);
        };
        let bytes = self.document(&blob_path(&descriptor.digest))?;
        let parsed = Document::parse(bytes, None).context(|| "read a manifest of the archive")?;
        let Document::Manifest(manifest) = parsed else {
            let message = "the archive has an index where its index says manifest";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let config = self.document(&blob_path(&manifest.config.digest))?;
        let config = check_config(config, manifest.layers.len(), "an image of the archive")?;
        Ok(fits(&config.platform(), &wanted).then_some((manifest, bytes)))
    }

    fn document(&self, path: &str) -> Result<&[u8], Error> {
        let real = self.real(path)?;
        let found = self.documents.get(real).map(Vec::as_slice);
        found.ok_or_else(|| malformed(&format!("{} is missing", clip(path))))
    }

    fn layer(&self, path: &str) -> Result<Found, Error> {
        let real = self.real(path)?;
        let found = self.layers.get(real).cloned();
        found.ok_or_else(|| malformed(&format!("layer {} is missing", clip(path))))
    }

    /// Follows the links of the archive.
    fn real<'b>(&'b self, path: &'b str) -> Result<&'b str, Error> {
        let mut path = path;
        for _ in 0..MAX_HOPS {
            match self.links.get(path) {
                Some(target) => path = target,
                None => return Ok(path),
            }
        }
        Err(malformed(&format!("{} is a chain of links", clip(path))))
    }
}

impl Complete {
    /// The config decides what the layers must be.
    fn check(self, what: &str) -> Result<Self, Error> {
        let promised = &self.config.rootfs.diff_ids;
        let wrong = promised
            .iter()
            .zip(&self.layers)
            .find(|(diff, layer)| **diff != layer.diff);
        if let Some((diff, layer)) = wrong {
            let message = format!(
                "{what}: its config names layer {diff}, the archive has {} there",
                layer.diff
            );
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        Ok(self)
    }
}

fn malformed(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the image archive is malformed: {why}"),
    )
}

/// A name that an archive gives: one with a tag.
fn archive_name(text: &str) -> Result<Reference, Error> {
    let name = Reference::parse(text).context(|| format!("read the name {:?} of the archive", clip(text)))?;
    crate::names::taggable(&name)
}

/// The names of an image of an OCI layout. A bare tag ("latest") is no name: nobody knows of what.
pub(crate) fn layout_names(descriptor: &Descriptor) -> Result<Vec<Reference>, Error> {
    let full = descriptor.annotations.get(FULL_NAME);
    let short = descriptor
        .annotations
        .get(REF_NAME)
        .filter(|name| name.contains(['/', ':']));
    full.or(short)
        .map(|name| archive_name(name))
        .into_iter()
        .collect()
}
