//! Save: images as one tar that docker (old and new), podman, skopeo and containerd load.
//!
//! Documents come first and layers last, so that a reader that does not seek knows what it gets.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufWriter, Read, Write};

use dhow_content::ContentStore as _;
use dhow_layer::tar::Writer;
use dhow_layer::{Entry, EntryKind, Layer};
use dhow_meta::Lease;
use dhow_oci::{Descriptor, Extra, Index, Labels, Manifest, media_type};
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind};
use serde::Serialize;

use crate::archive::{
    ArchiveImage, FULL_NAME, INDEX, LAYOUT, LAYOUT_BYTES, MANIFEST, REF_NAME, REPOSITORIES, blob_path,
};
use crate::attest::index_of;
use crate::image::Image;
use crate::{Context as _, Error, Store};

/// The pipe or file behind is written in pieces of this size.
const BUFFER: usize = 256 << 10;

/// An image with the names that go into the archive.
struct Chosen {
    image: Image,
    names: Vec<Reference>,
}

/// Everything of the archive that is not a layer.
#[derive(Default)]
struct Documents {
    index: Vec<Descriptor>,
    images: Vec<ArchiveImage>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    blobs: Vec<(Digest, Vec<u8>)>,
    /// Blobs of the store that go in as they are: attestations.
    stored: Vec<(Digest, u64)>,
    /// Each layer once, in the order of first use.
    layers: Vec<(Layer, u64)>,
}

impl Store {
    /// Writes images as one archive. A name without a tag means all tags of that repository; an id means the image
    /// without a name. Layers are exact, uncompressed tars.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `InvalidArgument` for none at all; failures of the output.
    pub fn save(&self, names: &[&str], output: &mut dyn Write) -> Result<(), Error> {
        if names.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "no image to save is named",
            ));
        }
        let chosen = self.choose(names)?;
        let lease = Lease::acquire(&self.root)?;
        for one in &chosen {
            lease.pin_many(&crate::commit::pins_of(&one.image.id, &one.image.record.layers))?;
        }
        let documents = self.documents(&chosen)?;
        self.write_archive(documents, output)
    }

    fn choose(&self, names: &[&str]) -> Result<Vec<Chosen>, Error> {
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut add = |image: Image, name: Option<Reference>| {
            let position = chosen
                .iter()
                .position(|one| one.image.id == image.id)
                .unwrap_or_else(|| {
                    chosen.push(Chosen {
                        image,
                        names: Vec::new(),
                    });
                    chosen.len() - 1
                });
            if let Some(name) = name
                && !chosen[position].names.contains(&name)
            {
                chosen[position].names.push(name);
            }
        };
        for text in names {
            let all = match Reference::parse(text) {
                Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => {
                    self.tags_in(&reference.name())?
                }
                _ => Vec::new(),
            };
            if all.is_empty() {
                let (id, name) = self.find(text)?;
                // A digest is no name that a loader could give.
                add(self.image(&id)?, name.filter(|name| name.tag().is_some()));
            }
            for name in all {
                add(self.resolve(&name.canonical())?, Some(name));
            }
        }
        Ok(chosen)
    }

    /// All tags of a repository.
    fn tags_in(&self, repository: &str) -> Result<Vec<Reference>, Error> {
        self.refresh()?;
        let tags = self.meta.tags()?.into_iter().map(|(name, _)| name);
        let own = tags.filter(|name| name.rsplit_once(':').is_some_and(|(repo, _)| repo == repository));
        own.map(|name| Reference::parse(&name).context(|| format!("read the name {name:?} of the index")))
            .collect()
    }

    fn documents(&self, chosen: &[Chosen]) -> Result<Documents, Error> {
        let mut documents = Documents::default();
        let mut sizes: BTreeMap<DiffId, u64> = BTreeMap::new();
        let mut stored: HashSet<Digest> = HashSet::new();
        for one in chosen {
            for diff in &one.image.record.layers {
                if !sizes.contains_key(diff) {
                    let layer = self
                        .layers
                        .layer(diff)
                        .context(|| format!("save layer {}", diff.short()))?;
                    let size = layer.tar_size();
                    sizes.insert(*diff, size);
                    documents.layers.push((layer, size));
                }
            }
            let config = self.config_bytes(&one.image.id)?;
            let layers: Vec<Descriptor> = one
                .image
                .record
                .layers
                .iter()
                .map(|diff| {
                    let size = sizes.get(diff).copied().unwrap_or(0);
                    Descriptor::new(media_type::OCI_LAYER, diff.0, size)
                })
                .collect();
            let manifest = Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), layers.clone());
            let manifest = json(&manifest)?;
            let described = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
            documents.name(one, described.clone());
            self.add_attestations(one, &described, &mut documents)?;
            documents.images.push(ArchiveImage {
                config: blob_path(&one.image.id.0),
                repo_tags: Some(one.names.iter().map(Reference::familiar).collect::<Vec<_>>())
                    .filter(|names| !names.is_empty()),
                layers: Some(layers.iter().map(|layer| blob_path(&layer.digest)).collect()),
                layer_sources: layers.into_iter().map(|layer| (layer.digest, layer)).collect(),
            });
            for bytes in [config, manifest] {
                let digest = Digest::of(&bytes);
                if stored.insert(digest) {
                    documents.blobs.push((digest, bytes));
                }
            }
        }
        Ok(documents)
    }

    /// What is said of an image goes along, about the manifest that the image has in the archive.
    fn add_attestations(
        &self,
        one: &Chosen,
        manifest: &Descriptor,
        documents: &mut Documents,
    ) -> Result<(), Error> {
        let Some(attested) = self.attested(&one.image.id, &one.image.digests)? else {
            return Ok(());
        };
        let held: Vec<Descriptor> = attested
            .attestations
            .iter()
            .map(|held| held.descriptor.clone())
            .collect();
        let (index, _) = index_of(manifest.clone(), &held)?;
        documents.index.extend(index.manifests.into_iter().skip(1));
        let blobs = attested.attestations.iter().flat_map(|held| held.blobs());
        for blob in held.iter().chain(blobs) {
            let known = (blob.digest, blob.size);
            if !documents.stored.contains(&known) {
                documents.stored.push(known);
            }
        }
        Ok(())
    }

    fn write_archive(&self, documents: Documents, output: &mut dyn Write) -> Result<(), Error> {
        let mut tar = Writer::new(BufWriter::with_capacity(BUFFER, output));
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: documents.index,
            subject: None,
            annotations: Labels::new(),
            extra: Extra::new(),
        };
        let mut files = vec![
            (LAYOUT.to_owned(), LAYOUT_BYTES.to_vec()),
            (INDEX.to_owned(), json(&index)?),
            (MANIFEST.to_owned(), json(&documents.images)?),
        ];
        if !documents.repositories.is_empty() {
            files.push((REPOSITORIES.to_owned(), json(&documents.repositories)?));
        }
        for (name, bytes) in files {
            append(&mut tar, &name, bytes.len() as u64, bytes.as_slice())?;
        }
        for directory in ["blobs", "blobs/sha256"] {
            tar.append(&Entry::new(directory, EntryKind::Directory, 0o755), io::empty())
                .context(|| format!("write {directory} to the archive"))?;
        }
        for (digest, bytes) in documents.blobs {
            append(
                &mut tar,
                &blob_path(&digest),
                bytes.len() as u64,
                bytes.as_slice(),
            )?;
        }
        for (digest, size) in documents.stored {
            let body = self.content.open(&digest);
            let body = body.context(|| format!("read attestation {}", digest.short()))?;
            append(&mut tar, &blob_path(&digest), size, body)?;
        }
        for (layer, size) in documents.layers {
            let body = layer
                .tar()
                .context(|| format!("read layer {}", layer.diff_id().short()))?;
            append(&mut tar, &blob_path(&layer.diff_id().0), size, body)?;
        }
        let mut buffer = tar.finish().context(|| "end the archive")?;
        buffer.flush().context(|| "write the archive")
    }
}

impl Documents {
    /// Names a manifest in the index and in `repositories`.
    fn name(&mut self, one: &Chosen, mut manifest: Descriptor) {
        manifest.platform = Some(one.image.config.platform()).filter(|platform| !platform.os.is_empty());
        if one.names.is_empty() {
            self.index.push(manifest.clone());
        }
        for name in &one.names {
            let tag = name.tag().unwrap_or_default();
            let mut named = manifest.clone();
            named.annotations.insert(FULL_NAME.to_owned(), name.canonical());
            named.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
            self.index.push(named);
            if let Some(top) = one.image.record.layers.last() {
                let tags = self.repositories.entry(name.familiar_name()).or_default();
                tags.insert(tag.to_owned(), top.hex());
            }
        }
    }
}

fn append<W: Write>(tar: &mut Writer<W>, name: &str, size: u64, body: impl Read) -> Result<(), Error> {
    let mut entry = Entry::new(name, EntryKind::File, 0o644);
    entry.size = size;
    tar.append(&entry, body)
        .context(|| format!("write {name} to the archive"))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::because(ErrorKind::Internal, "write the archive's index", error))
}
