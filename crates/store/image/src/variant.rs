//! Images of one name for several machines: those that an index lists and that are here.
//!
//! A name leads to one image. The index that it was pulled by is kept, and with it what it lists: an image of another
//! platform that came by the same index is found there, whether it has a name or not.

use std::collections::HashSet;

use dhow_content::ContentStore as _;
use dhow_oci::{Descriptor, Document, Index, MAX_DOCUMENT, Manifest};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId, Platform};

use crate::attest::{is_attestation, preferring};
use crate::documents::clip;
use crate::image::Image;
use crate::types::{Removed, Use};
use crate::{Context as _, Error, Store};

/// Platforms that a message names at most.
const NAMED: usize = 16;

/// An image for one platform, of those that a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The machine that it is for: as its index says, or else its config.
    pub platform: Platform,
    /// Its manifest, when one is known.
    pub manifest: Option<Digest>,
    /// The image; none when only the index knows of it.
    pub image: Option<ImageId>,
    /// Bytes in a registry: manifest, config and compressed layers; 0 as far as they are not known.
    pub content: u64,
}

impl Store {
    /// The image that `name` means for a platform: its own, or another that is here of the same index, which then has the name,
    /// and what its repository calls it, beside its own. An id means its own image alone. Without a platform it is
    /// [`Store::resolve`].
    ///
    /// # Errors
    /// As [`Store::resolve`]; `NotFound` with the platforms that are here when none is for this one.
    pub fn resolve_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let (id, reference) = self.find(name)?;
        let image = self.image(&id)?;
        match platform {
            None => Ok(image),
            Some(platform) => self.image_for(image, reference.as_ref(), platform),
        }
    }

    /// The same for an image that was found by this name, or by its id.
    pub(crate) fn image_for(
        &self,
        image: Image,
        name: Option<&Reference>,
        platform: &Platform,
    ) -> Result<Image, Error> {
        let variants = self.variants_by(&image, name)?;
        match chosen(&variants, platform) {
            Some(id) if id == image.id => Ok(image),
            Some(id) => {
                let mut other = self.image(&id)?;
                if let Some(name) = name {
                    take_names(&mut other, &image, name);
                }
                Ok(other)
            }
            None => Err(without(&shown(&image, name), platform, &variants)),
        }
    }

    /// The images of an index that `image` is of, in its order, also those that are not here; of one that came by no index,
    /// itself.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn variants(&self, image: &Image) -> Result<Vec<Variant>, Error> {
        let names = image.names.iter().filter_map(|name| Reference::parse(name).ok());
        let said = names.filter_map(|name| self.pulled_by(&name));
        let digests = image.digests.iter().map(|(_, digest)| *digest);
        let index = said
            .chain(digests)
            .find_map(|digest| self.index_with(image, &digest));
        self.listed(image, index)
    }

    /// The same by the index that a name means; by none for an id.
    fn variants_by(&self, image: &Image, name: Option<&Reference>) -> Result<Vec<Variant>, Error> {
        let index = name.and_then(|name| self.index_by(image, name));
        self.listed(image, index.map(|(_, index)| index))
    }

    /// The index that a name means: that of its digest, the one that it was pulled by, or else one of its repository before
    /// others.
    pub(crate) fn index_by(&self, image: &Image, name: &Reference) -> Option<(Digest, Index)> {
        let found = |digest: Digest| Some((digest, self.index_with(image, &digest)?));
        if let Some(digest) = name.digest() {
            return found(*digest);
        }
        let digests = preferring(&image.digests, &[name.name()]);
        let digests = digests.iter().map(|(_, digest)| *digest);
        let mut indexes = self.pulled_by(name).into_iter().chain(digests);
        indexes.find_map(found)
    }

    /// The index with this digest, if it is one that lists the image.
    fn index_with(&self, image: &Image, digest: &Digest) -> Option<Index> {
        let Document::Index(index) = self.parsed(digest)? else {
            return None;
        };
        let lists = index.manifests.iter().any(|descriptor| {
            self.manifest_of(descriptor)
                .is_some_and(|manifest| manifest.config.digest == image.id.0)
        });
        lists.then_some(index)
    }

    fn listed(&self, image: &Image, index: Option<Index>) -> Result<Vec<Variant>, Error> {
        let Some(index) = index else {
            let manifest = self.original(image);
            let content = manifest.map_or(0, |original| {
                weight(&original.manifest).saturating_add(original.bytes.len() as u64)
            });
            return Ok(vec![Variant {
                platform: image.config.platform(),
                manifest: image.record.manifest,
                image: Some(image.id),
                content,
            }]);
        };
        let mut variants = Vec::new();
        for descriptor in index.manifests.iter().filter(|entry| !is_attestation(entry)) {
            let manifest = self.manifest_of(descriptor);
            let id = manifest.as_ref().map(|manifest| ImageId(manifest.config.digest));
            let record = id.map(|id| self.meta.image(&id)).transpose()?.flatten();
            let platform = match (&descriptor.platform, &record) {
                (Some(platform), _) => platform.clone(),
                (None, Some(record)) => self.config(&record.id)?.platform(),
                (None, None) => continue,
            };
            variants.push(Variant {
                platform,
                manifest: Some(descriptor.digest),
                image: record.map(|record| record.id),
                content: manifest.map_or(0, |manifest| weight(&manifest).saturating_add(descriptor.size)),
            });
        }
        Ok(variants)
    }

    /// Bytes of the files of images together, with a layer that several have counted once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn size_together(&self, images: &[ImageId]) -> Result<u64, Error> {
        let mut layers = HashSet::new();
        for id in images {
            layers.extend(self.meta.image(id)?.into_iter().flat_map(|record| record.layers));
        }
        layers.iter().try_fold(0_u64, |sum, diff| {
            let layer = self.layers.layer(diff);
            let layer = layer.context(|| format!("look at layer {}", diff.short()))?;
            Ok(sum.saturating_add(layer.size()))
        })
    }

    /// Removes the images of a name for these platforms; the name stays with those that are left of its index, and goes
    /// with the last.
    ///
    /// # Errors
    /// As [`Store::remove`]; `NotFound` for a platform that is not here.
    pub fn remove_for(
        &self,
        name: &str,
        platforms: &[Platform],
        force: bool,
        uses: &[Use],
    ) -> Result<Vec<Removed>, Error> {
        let mut removed = Vec::new();
        for platform in platforms {
            removed.extend(self.remove_variant(name, platform, force, uses)?);
        }
        if removed.iter().any(|step| matches!(step, Removed::Deleted(_))) {
            self.sweep(uses)?;
        }
        Ok(removed)
    }

    fn remove_variant(
        &self,
        name: &str,
        platform: &Platform,
        force: bool,
        uses: &[Use],
    ) -> Result<Vec<Removed>, Error> {
        let (id, reference) = self.find(name)?;
        let image = self.image(&id)?;
        let variants = self.variants_by(&image, reference.as_ref())?;
        let Some(chosen) = chosen(&variants, platform) else {
            return Err(without(&shown(&image, reference.as_ref()), platform, &variants));
        };
        let users: Vec<&Use> = uses.iter().filter(|user| user.image == chosen).collect();
        if chosen != id {
            let other = self.image(&chosen)?;
            if !force && !other.names.is_empty() {
                let message = format!(
                    "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                    chosen.short()
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            return self.remove_by_id(&other, force, &users);
        }
        let Some(reference) = reference else {
            return self.remove_by_id(&image, force, &users);
        };
        let others: Vec<&Variant> = variants
            .iter()
            .filter(|variant| variant.image.is_some_and(|other| other != id))
            .collect();
        let host = Platform::host();
        let heir = others.iter().find(|variant| host.accepts(&variant.platform));
        match heir.or_else(|| others.first()).and_then(|variant| variant.image) {
            None => self.remove_by_name(&image, &reference, force, &users),
            Some(heir) => self.hand_over(&image, &reference, &heir, force, &users),
        }
    }

    /// Gives a name, and the index in its repository, to another image of that index; the one that had it goes when it has
    /// no other name.
    fn hand_over(
        &self,
        image: &Image,
        name: &Reference,
        heir: &ImageId,
        force: bool,
        users: &[&Use],
    ) -> Result<Vec<Removed>, Error> {
        self.may_go_by_name(image, name, force, users)?;
        let repository = name.name();
        let pinned = image.digests.iter().filter(|(repo, _)| *repo == repository);
        let names: Vec<Reference> = pinned
            .map(|(_, digest)| name.clone().without_tag().with_digest(*digest))
            .collect();
        let mut staged = self.stage_names(&names, heir)?;
        if name.digest().is_none() {
            staged.push(self.stage_name_by(name, heir, self.pulled_by(name).as_ref())?);
        }
        self.edit(|edit| {
            if edit.image(heir)?.is_none() {
                let message = format!("image {} was removed meanwhile", heir.short());
                return Err(Error::new(ErrorKind::NotFound, message).with_hint("ask again"));
            }
            self.give_names(edit, &staged)?;
            let named = !edit.tags_of(&image.id)?.is_empty() || !edit.digests_of(&image.id)?.is_empty();
            if named || !users.is_empty() {
                return Ok(vec![Removed::Untagged(name.familiar())]);
            }
            edit.remove_image(&image.id)?;
            Ok(vec![Removed::Deleted(image.id)])
        })
    }

    pub(crate) fn manifest_of(&self, descriptor: &Descriptor) -> Option<Manifest> {
        match self.parsed(&descriptor.digest)? {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        }
    }

    fn parsed(&self, digest: &Digest) -> Option<Document> {
        let bytes = self.content.read(digest, MAX_DOCUMENT).ok()?;
        Document::parse(&bytes, None).ok()
    }
}

/// Gives an image what this name says of another of the same index: what is known by them is known of both.
fn take_names(other: &mut Image, image: &Image, name: &Reference) {
    let canonical = name.canonical();
    if name.tag().is_some() && !other.names.contains(&canonical) {
        other.names.push(canonical);
    }
    let repository = name.name();
    for pinned in image.digests.iter().filter(|(repo, _)| *repo == repository) {
        if !other.digests.contains(pinned) {
            other.digests.push(pinned.clone());
        }
    }
}

/// The one that is here for a platform; the exact one before one that runs there as well.
fn chosen(variants: &[Variant], platform: &Platform) -> Option<ImageId> {
    let here = || variants.iter().filter(|variant| variant.image.is_some());
    let exact = here().find(|variant| variant.platform == *platform);
    let found = exact.or_else(|| here().find(|variant| fits(&variant.platform, platform)));
    found.and_then(|variant| variant.image)
}

/// Whether an image for `offered` may be taken where `wanted` is asked for; one that names no machine runs on any.
pub(crate) fn fits(offered: &Platform, wanted: &Platform) -> bool {
    let system = offered.os.is_empty() || offered.os == wanted.os;
    let machine = Platform {
        os: wanted.os.clone(),
        ..offered.clone()
    };
    system && (offered.architecture.is_empty() || wanted.clone().normalized().accepts(&machine.normalized()))
}

/// Bytes that a manifest names.
fn weight(manifest: &Manifest) -> u64 {
    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
    blobs.fold(0, |sum, blob| sum.saturating_add(blob.size))
}

fn shown(image: &Image, name: Option<&Reference>) -> String {
    name.map_or_else(|| image.id.short(), Reference::familiar)
}

/// Docker's words, and what there is instead.
fn without(name: &str, platform: &Platform, variants: &[Variant]) -> Error {
    let message = format!(
        "image with reference {name} was found but does not provide the specified platform ({platform})"
    );
    let here = variants.iter().filter(|variant| variant.image.is_some());
    Error::new(ErrorKind::NotFound, message)
        .with_hint(present("it is here for", here.map(|variant| &variant.platform)))
}

/// What there is, for a hint that begins so.
pub(crate) fn present<'a>(begin: &str, platforms: impl Iterator<Item = &'a Platform>) -> String {
    let platforms: Vec<String> = platforms
        .filter(|platform| !platform.os.is_empty())
        .map(|platform| clip(&platform.to_string()))
        .take(NAMED)
        .collect();
    if platforms.is_empty() {
        return format!("{begin} no platform that is named");
    }
    format!("{begin} {}", platforms.join(", "))
}
