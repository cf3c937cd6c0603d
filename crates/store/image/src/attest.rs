//! Attestations: what BuildKit says of an image beside it (provenance, bills of materials), kept as it came.
//!
//! An index lists them as manifests for no machine, each with the digest of the image's manifest that it is about (BuildKit,
//! `docs/attestations/attestation-storage.md`). A pull keeps those of the platform that it takes; push, save and load take
//! them along. They are never an image to run, and an image is pulled also when they cannot be had. Where its manifest is
//! another one than they were made for, since its layers are compressed otherwise, the index says that they are about
//! that one: config and contents are the same, and what they say themselves stays.
//!
//! What only refers to an image by its `subject` (OCI 1.1 referrers) is in no index. No tool fetches it with a pull, each
//! would be a question to the registry; `copy --referrers` takes it along.
//!
//! The index that ties them to the image is a blob under a repo digest of the image; so the sweep finds what to keep.

use std::io;

use dhow_content::ContentStore as _;
use dhow_meta::Lease;
use dhow_oci::{Descriptor, Document, Extra, Index, Labels, MAX_DOCUMENT, Manifest, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId, Platform};

use crate::image::Image;
use crate::{Context as _, Error, Store};

/// Says of a manifest in an index what it is for another.
const KIND: &str = "vnd.docker.reference.type";
/// The digest of that other.
const ABOUT: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
/// Says of a statement what it is: `https://slsa.dev/provenance/v1`, `https://spdx.dev/Document`.
const PREDICATE: &str = "in-toto.io/predicate-type";
/// A statement (in-toto attestation framework).
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Most attestations of one image, and bytes of the statements of each. BuildKit makes one, of a few megabytes at most.
const MOST: usize = 16;
const MAX_BYTES: u64 = 64 << 20;

/// An attestation of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestation {
    /// Digest and length of its manifest.
    pub manifest: Descriptor,
    /// The manifest that it is about.
    pub about: Digest,
    /// What each statement is, with its digest and length.
    pub statements: Vec<(String, Descriptor)>,
}

/// A statement about an image: its predicate type and its text.
pub type Statement = (&'static str, Vec<u8>);

/// Says of the image at this place of a list, which has this manifest, what is to be said.
pub type Saying<'a> = dyn Fn(usize, &Descriptor) -> Result<Vec<Statement>, Error> + 'a;

/// The attestations of an image that are here.
pub(crate) struct Attested {
    /// The index that lists them.
    index: Index,
    bytes: Vec<u8>,
    /// The image's manifest in it.
    manifest: Descriptor,
    pub(crate) attestations: Vec<Held>,
}

/// An attestation that is here whole.
pub(crate) struct Held {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
}

impl Held {
    /// Everything below its manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        blobs(&self.manifest)
    }
}

fn blobs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

/// The repo digests of an image, those in one of these repositories first: what is said of an image under one name may be
/// another thing than under another.
pub(crate) fn preferring(digests: &[(String, Digest)], repositories: &[String]) -> Vec<(String, Digest)> {
    let mut digests = digests.to_vec();
    digests.sort_by_key(|(repo, _)| !repositories.contains(repo));
    digests
}

/// Whether a manifest in an index is an attestation.
pub(crate) fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .get(KIND)
        .is_some_and(|kind| kind == ATTESTATION)
}

/// The attestations of an index that are about one of its manifests.
pub(crate) fn about<'a>(index: &'a Index, manifest: &Digest) -> Vec<&'a Descriptor> {
    let wanted = manifest.to_string();
    let all = index.manifests.iter().filter(|other| is_attestation(other));
    let own = all.filter(|other| other.annotations.get(ABOUT) == Some(&wanted));
    own.take(MOST).collect()
}

/// Refuses an attestation that is larger than any is.
pub(crate) fn check_size(manifest: &Manifest) -> Result<(), Error> {
    let bytes = blobs(manifest).fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let message = format!("it has {bytes} bytes, the limit is {MAX_BYTES}");
    Err(Error::new(ErrorKind::ResourceExhausted, message))
}

/// The index of one image and what is said of it, and its bytes.
pub(crate) fn index_of(
    mut image: Descriptor,
    attestations: &[Descriptor],
) -> Result<(Index, Vec<u8>), Error> {
    if image.media_type.is_empty() {
        media_type::OCI_MANIFEST.clone_into(&mut image.media_type);
    }
    let about = image.digest.to_string();
    let mut manifests = vec![image];
    for attestation in attestations {
        manifests.push(tied(attestation.clone(), &about));
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: Labels::new(),
        extra: Extra::new(),
    };
    let bytes = serde_json::to_vec(&index)
        .map_err(|error| Error::because(ErrorKind::Internal, "write an index", error))?;
    Ok((index, bytes))
}

/// An attestation as an index lists it, about the manifest with this digest.
fn tied(mut attestation: Descriptor, about: &str) -> Descriptor {
    let mut say =
        |key: &str, value: &str| drop(attestation.annotations.insert(key.to_owned(), value.to_owned()));
    say(KIND, ATTESTATION);
    say(ABOUT, about);
    attestation
}

/// An attestation of statements that are new.
pub(crate) struct Made {
    /// Of its manifest, for no machine.
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Vec<u8>,
    /// All that the manifest names.
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Made {
    fn of(statements: &[Statement]) -> Result<Self, Error> {
        let mut blobs = Vec::new();
        for (kind, statement) in statements {
            let mut layer = Descriptor::of(STATEMENT, statement);
            layer.annotations.insert(PREDICATE.to_owned(), (*kind).to_owned());
            blobs.push((layer, statement.clone()));
        }
        let layers: Vec<Descriptor> = blobs.iter().map(|(layer, _)| layer.clone()).collect();
        let diffs: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = serde_json::json!({"architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diffs}});
        let json = |error| Error::because(ErrorKind::Internal, "write an attestation", error);
        let config = serde_json::to_vec(&config).map_err(json)?;
        let described = Descriptor::of(media_type::OCI_CONFIG, &config);
        let manifest = Manifest::new(described.clone(), layers);
        blobs.push((described, config));
        let manifest = serde_json::to_vec(&manifest).map_err(json)?;
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        descriptor.platform = Some(Platform {
            architecture: "unknown".to_owned(),
            os: "unknown".to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        });
        Ok(Self {
            descriptor,
            manifest,
            blobs,
        })
    }
}

/// What `say` says of each of these manifests of images, ready for the index that lists them.
pub(crate) fn made(manifests: &[Descriptor], say: &Saying<'_>) -> Result<Vec<Made>, Error> {
    let mut all = Vec::new();
    for (place, manifest) in manifests.iter().enumerate() {
        let statements = say(place, manifest)?;
        if !statements.is_empty() {
            let mut one = Made::of(&statements)?;
            one.descriptor = tied(one.descriptor, &manifest.digest.to_string());
            all.push(one);
        }
    }
    Ok(all)
}

impl Attested {
    /// The index for the image with this manifest: the one that it came with, when that lists nothing else.
    pub(crate) fn index_for(&self, manifest: Descriptor) -> Result<(String, Vec<u8>), Error> {
        let listed = self.index.manifests.len() == 1 + self.attestations.len();
        if listed && manifest.digest == self.manifest.digest {
            let kind = self.index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
            return Ok((kind.to_owned(), self.bytes.clone()));
        }
        let mut named = manifest;
        if named.platform.is_none() {
            named.platform.clone_from(&self.manifest.platform);
        }
        let attestations: Vec<Descriptor> = self
            .attestations
            .iter()
            .map(|held| held.descriptor.clone())
            .collect();
        let (_, bytes) = index_of(named, &attestations)?;
        Ok((media_type::OCI_INDEX.to_owned(), bytes))
    }
}

impl Store {
    /// What is said of an image by those who built it, as far as it is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn attestations(&self, image: &Image) -> Result<Vec<Attestation>, Error> {
        let Some(attested) = self.attested(&image.id, &image.digests)? else {
            return Ok(Vec::new());
        };
        let about = attested.manifest.digest;
        let view = |held: Held| {
            let statement = |layer: Descriptor| {
                let kind = layer.annotations.get(PREDICATE).cloned();
                (kind.unwrap_or_else(|| layer.media_type.clone()), layer)
            };
            Attestation {
                manifest: held.descriptor,
                about,
                statements: held.manifest.layers.into_iter().map(statement).collect(),
            }
        };
        Ok(attested.attestations.into_iter().map(view).collect())
    }

    /// The manifest that statements about an image are about: the one that it was pushed, pulled or loaded with, or else
    /// one that is made now.
    ///
    /// # Errors
    /// `NotFound`; failures of the store.
    pub fn subject(&self, id: &ImageId) -> Result<Descriptor, Error> {
        self.annotate(id, &Labels::new())?;
        let image = self.image(id)?;
        let lost = || Error::new(ErrorKind::Internal, "the manifest of an image is gone");
        let original = self.original(&image).ok_or_else(lost)?;
        let mut subject = Descriptor::of(&original.media_type, &original.bytes);
        subject.platform = Some(image.config.platform());
        Ok(subject)
    }

    /// Keeps statements about an image beside it. They go along with push and save; what was
    /// said of it under these names before is replaced.
    ///
    /// # Errors
    /// `InvalidArgument` without a name; `NotFound`; failures of the store.
    pub fn attest(
        &self,
        id: &ImageId,
        names: &[Reference],
        statements: &[Statement],
    ) -> Result<Digest, Error> {
        if names.is_empty() {
            let message = "attestations need a name of the image";
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("name it with --tag"));
        }
        let lease = Lease::acquire(&self.root)?;
        lease.pin_everything()?;
        let subject = self.subject(id)?;
        let store = |bytes: &[u8]| {
            self.content
                .put(bytes)
                .context(|| "store an attestation")
                .map(drop)
        };
        let made = Made::of(statements)?;
        for (_, bytes) in &made.blobs {
            store(bytes)?;
        }
        store(&made.manifest)?;
        let (_, index) = index_of(subject, &[made.descriptor])?;
        store(&index)?;
        let digest = Digest::of(&index);
        self.replace_attested(id, names, &digest)?;
        Ok(digest)
    }

    /// Names the image by an index with attestations, and no more by those of before.
    fn replace_attested(&self, id: &ImageId, names: &[Reference], index: &Digest) -> Result<(), Error> {
        let pinned = |name: &Reference, digest| name.clone().without_tag().with_digest(digest);
        let mut stale = Vec::new();
        for (_, digest) in self
            .image(id)?
            .digests
            .iter()
            .filter(|(_, digest)| digest != index)
        {
            let names = names.iter().map(|name| pinned(name, *digest));
            if let Some((Document::Index(index), _)) = self.document(digest)
                && index.manifests.iter().any(is_attestation)
            {
                stale.extend(names);
            }
        }
        let fresh: Vec<Reference> = names.iter().map(|name| pinned(name, *index)).collect();
        let staged = self.stage_names(&fresh, id)?;
        self.edit(|edit| {
            for name in &stale {
                self.remove_name(edit, name)?;
            }
            self.give_names(edit, &staged)
        })
    }

    /// The attestations of an image that are here whole, by one of its repo digests that is an index.
    pub(crate) fn attested(
        &self,
        id: &ImageId,
        digests: &[(String, Digest)],
    ) -> Result<Option<Attested>, Error> {
        for (_, digest) in digests {
            let Some((Document::Index(index), bytes)) = self.document(digest) else {
                continue;
            };
            let own = index.manifests.iter().find(|manifest| {
                let document = self.document(&manifest.digest);
                matches!(document, Some((Document::Manifest(manifest), _)) if manifest.config.digest == id.0)
            });
            let Some(own) = own.cloned() else { continue };
            let mut attestations = Vec::new();
            for descriptor in about(&index, &own.digest) {
                if let Some((Document::Manifest(manifest), _)) = self.document(&descriptor.digest)
                    && self.has_all(&manifest)?
                {
                    let descriptor = descriptor.clone();
                    attestations.push(Held { descriptor, manifest });
                }
            }
            if !attestations.is_empty() {
                return Ok(Some(Attested {
                    index,
                    bytes,
                    manifest: own,
                    attestations,
                }));
            }
        }
        Ok(None)
    }

    /// Blobs that a named index keeps, besides itself: the manifests that it lists, and all of attestations.
    pub(crate) fn kept_by_index(&self, digest: &Digest) -> Vec<Digest> {
        let Some((Document::Index(index), _)) = self.document(digest) else {
            return Vec::new();
        };
        let mut kept = Vec::new();
        for manifest in &index.manifests {
            kept.push(manifest.digest);
            if is_attestation(manifest)
                && let Some((Document::Manifest(manifest), _)) = self.document(&manifest.digest)
            {
                kept.extend(blobs(&manifest).map(|blob| blob.digest));
            }
        }
        kept
    }

    fn has_all(&self, manifest: &Manifest) -> Result<bool, Error> {
        for blob in blobs(manifest) {
            let size = self.content.size(&blob.digest);
            if size.context(|| "look for an attestation")? != Some(blob.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A manifest or index that is here and readable.
    fn document(&self, digest: &Digest) -> Option<(Document, Vec<u8>)> {
        let bytes = self.content.read(digest, MAX_DOCUMENT).ok()?;
        Some((Document::parse(&bytes, None).ok()?, bytes))
    }

    /// Stores a blob as it comes by; it must be the one that is promised.
    pub(crate) fn put_blob(&self, blob: &Descriptor, mut reader: impl io::Read) -> Result<(), Error> {
        let what = || format!("store blob {}", blob.digest.short());
        let mut ingest = self.content.begin().context(what)?;
        io::copy(&mut reader, &mut ingest).map_err(|error| crate::pull::reading_failure(error, what()))?;
        ingest.commit(Some(&blob.digest)).map(drop).context(what)
    }
}
