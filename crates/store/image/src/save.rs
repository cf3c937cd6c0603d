//! Save: images as one tar that docker (old and new), podman, skopeo and containerd load.
//!
//! Documents come first and layers last, so that a reader that does not seek knows what it gets.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::path::Path;

use dhow_content::ContentStore as _;
use dhow_layer::tar::Writer;
use dhow_layer::{Compression, Entry, EntryKind, Layer, compress};
use dhow_meta::Lease;
use dhow_oci::{Descriptor, Extra, Index, Manifest, media_type};
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind, Hasher, Platform};
use serde::Serialize;

use crate::annotation::{AnnotationPlace, Annotations};
use crate::archive::{
    ArchiveImage, FULL_NAME, INDEX, LAYOUT, LAYOUT_BYTES, MANIFEST, REF_NAME, REPOSITORIES, blob_path,
};
use crate::attest::{Saying, index_of, made, preferring};
use crate::image::Image;
use crate::{Context as _, Error, Store};

/// The pipe or file behind is written in pieces of this size.
const BUFFER: usize = 256 << 10;

/// How images are written into an archive or a layout.
#[derive(Clone, Debug)]
pub struct ArchiveForm {
    /// Whether what docker before 25 reads (`manifest.json`, `repositories`) is in it besides the OCI layout.
    pub docker: bool,
    /// How layers are compressed.
    pub layers: Compression,
    /// What the manifest says besides what the image's own manifest says, and what an index says.
    pub annotations: Annotations,
}

impl Default for ArchiveForm {
    fn default() -> Self {
        Self {
            docker: true,
            layers: Compression::None,
            annotations: Annotations::default(),
        }
    }
}

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
    layers: Vec<PackedBlob>,
}

/// A blob that is ready to be written, such as a compressed layer.
#[derive(Debug)]
pub struct PackedBlob {
    /// What it is, compressed so.
    pub descriptor: Descriptor,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Its exact tar.
    Plain(Layer),
    /// What was compressed, in a file without a name.
    Packed(File),
    /// A document.
    Bytes(Vec<u8>),
}

impl PackedBlob {
    /// Its bytes, from the beginning.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn open(&self) -> Result<Box<dyn Read + Send + '_>, Error> {
        let what = || format!("read layer {}", self.descriptor.digest.short());
        match &self.body {
            Body::Plain(layer) => Ok(Box::new(layer.tar().context(what)?)),
            Body::Packed(file) => {
                let mut file = file;
                file.rewind().context(what)?;
                Ok(Box::new(file))
            }
            Body::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
        }
    }

    /// A document.
    #[must_use]
    pub fn of(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            body: Body::Bytes(bytes),
        }
    }
}

impl Store {
    /// Writes images as one archive. A name without a tag means all tags of that repository; an id means the image
    /// without a name. Layers are exact, uncompressed tars.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `InvalidArgument` for none at all; failures of the output.
    pub fn save(&self, names: &[&str], output: &mut dyn Write) -> Result<(), Error> {
        self.save_for(names, None, output)
    }

    /// The same with the images that the names have for one platform.
    ///
    /// # Errors
    /// As [`Store::save`]; `NotFound` when a name has none for it.
    pub fn save_for(
        &self,
        names: &[&str],
        platform: Option<&Platform>,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "no image to save is named",
            ));
        }
        let chosen = self.choose(names, platform)?;
        let lease = Lease::acquire(&self.root)?;
        for one in &chosen {
            lease.pin_many(&crate::commit::pins_of(&one.image.id, &one.image.record.layers))?;
        }
        let form = ArchiveForm::default();
        let documents = self.documents(&chosen, &form)?;
        self.write_archive(documents, &form, output)
    }

    /// Writes one image as an archive under these names, which it need not have here; its manifest's descriptor. The
    /// caller keeps its layers from the sweeper.
    ///
    /// # Errors
    /// Failures of the store and of the output; `Unsupported` for a compression that layers do not have.
    pub fn write_image(
        &self,
        image: &Image,
        names: &[Reference],
        form: &ArchiveForm,
        output: &mut dyn Write,
    ) -> Result<Descriptor, Error> {
        let documents = self.documents(&[one(image, names)], form)?;
        let manifest = documents.manifest()?;
        self.write_archive(documents, form, output)?;
        Ok(manifest)
    }

    /// Writes images for several machines as one archive: an OCI layout with one index under these names, and its
    /// descriptor. The caller keeps their layers from the sweeper.
    ///
    /// # Errors
    /// As [`Store::write_image`].
    pub fn write_images(
        &self,
        images: &[Image],
        names: &[Reference],
        form: &ArchiveForm,
        say: &Saying<'_>,
        output: &mut dyn Write,
    ) -> Result<Descriptor, Error> {
        let (documents, index) = self.indexed(images, names, form, say)?;
        let form = ArchiveForm {
            docker: false,
            ..form.clone()
        };
        self.write_archive(documents, &form, output)?;
        Ok(index)
    }

    /// The same into an OCI layout, beside what is there.
    ///
    /// # Errors
    /// As [`Store::write_image`].
    pub fn write_images_layout(
        &self,
        images: &[Image],
        names: &[Reference],
        form: &ArchiveForm,
        say: &Saying<'_>,
        folder: &Path,
    ) -> Result<Descriptor, Error> {
        let (documents, index) = self.indexed(images, names, form, say)?;
        self.lay_out(documents, folder)?;
        Ok(index)
    }

    /// The documents of several images below one index.
    fn indexed(
        &self,
        images: &[Image],
        names: &[Reference],
        form: &ArchiveForm,
        say: &Saying<'_>,
    ) -> Result<(Documents, Descriptor), Error> {
        let chosen: Vec<Chosen> = images.iter().map(|image| one(image, &[])).collect();
        let mut documents = self.documents(&chosen, form)?;
        let mut manifests = std::mem::take(&mut documents.index);
        for manifest in &mut manifests {
            describe(manifest, &form.annotations);
        }
        for made in made(&manifests, say)? {
            let blobs = made.blobs.into_iter();
            documents
                .blobs
                .extend(blobs.map(|(blob, bytes)| (blob.digest, bytes)));
            documents.blobs.push((made.descriptor.digest, made.manifest));
            manifests.push(made.descriptor);
        }
        let bytes = json(&index_document(manifests, &form.annotations))?;
        let mut index = Descriptor::of(media_type::OCI_INDEX, &bytes);
        index.annotations = form.annotations.of_all(AnnotationPlace::IndexDescriptor);
        documents.blobs.push((index.digest, bytes));
        documents.index = named(&index, names);
        Ok((documents, index))
    }

    /// Writes one image into an OCI layout, beside what is there; its manifest's descriptor. The caller keeps its layers
    /// from the sweeper.
    ///
    /// # Errors
    /// As [`Store::write_image`].
    pub fn write_layout(
        &self,
        image: &Image,
        names: &[Reference],
        form: &ArchiveForm,
        folder: &Path,
    ) -> Result<Descriptor, Error> {
        let documents = self.documents(&[one(image, names)], form)?;
        let manifest = documents.manifest()?;
        self.lay_out(documents, folder)?;
        Ok(manifest)
    }

    fn lay_out(&self, documents: Documents, folder: &Path) -> Result<(), Error> {
        let layout = crate::copy::LayoutFolder::open(folder)?;
        for part in &documents.layers {
            layout.put(part)?;
        }
        for (digest, size) in &documents.stored {
            let open = || {
                let body = self.content.open(digest);
                let body = body.context(|| format!("read attestation {}", digest.short()))?;
                Ok(Box::new(body) as Box<dyn Read + Send>)
            };
            layout.take(&Descriptor::new("", *digest, *size), &mut { open })?;
        }
        for (digest, bytes) in &documents.blobs {
            let blob = Descriptor::new("", *digest, bytes.len() as u64);
            layout.take(&blob, &mut || Ok(Box::new(bytes.as_slice())))?;
        }
        layout.list(documents.index)
    }

    /// A layer as it is to be written. The caller keeps it from the sweeper.
    ///
    /// # Errors
    /// `NotFound`; failures of the store; `Unsupported` for a compression that layers do not have.
    pub fn pack(&self, diff: &DiffId, compression: Compression) -> Result<PackedBlob, Error> {
        let what = || format!("save layer {}", diff.short());
        let layer = self.layers.layer(diff).context(what)?;
        let kind = match compression {
            Compression::None => {
                let descriptor = Descriptor::new(media_type::OCI_LAYER, diff.0, layer.tar_size());
                let body = Body::Plain(layer);
                return Ok(PackedBlob { descriptor, body });
            }
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER_GZIP,
        };
        self.pack_stream(layer.tar().context(what)?, kind, compression)
            .context(what)
    }

    /// Compresses a stream into a blob of this media type.
    ///
    /// # Errors
    /// Failures of the stream and of the store; `Unsupported` for a compression that is not written.
    pub fn pack_stream(
        &self,
        input: impl Read + Send,
        kind: &str,
        compression: Compression,
    ) -> Result<PackedBlob, Error> {
        let what = || "compress a blob";
        // Its digest stands in documents that come before it: it is compressed once, into a file that nobody else sees.
        let path = self.staging("packed");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.context(what)?;
        std::fs::remove_file(&path).context(what)?;
        let (digest, size) = squeeze(input, &file, compression).context(what)?;
        Ok(PackedBlob {
            descriptor: Descriptor::new(kind, digest, size),
            body: Body::Packed(file),
        })
    }

    fn choose(&self, names: &[&str], platform: Option<&Platform>) -> Result<Vec<Chosen>, Error> {
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
                let (_, name) = self.find(text)?;
                // A digest is no name that a loader could give.
                let image = self.resolve_for(text, platform)?;
                add(image, name.filter(|name| name.tag().is_some()));
            }
            for name in all {
                add(self.resolve_for(&name.canonical(), platform)?, Some(name));
            }
        }
        Ok(chosen)
    }

    /// All tags that a repository (`host/path`) has here, by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tags_in(&self, repository: &str) -> Result<Vec<Reference>, Error> {
        self.refresh()?;
        let tags = self.meta.tags()?.into_iter().map(|(name, _)| name);
        let own = tags.filter(|name| name.rsplit_once(':').is_some_and(|(repo, _)| repo == repository));
        own.map(|name| Reference::parse(&name).context(|| format!("read the name {name:?} of the index")))
            .collect()
    }

    fn documents(&self, chosen: &[Chosen], form: &ArchiveForm) -> Result<Documents, Error> {
        let mut documents = Documents::default();
        let mut parts: BTreeMap<DiffId, Descriptor> = BTreeMap::new();
        let mut stored: HashSet<Digest> = HashSet::new();
        for one in chosen {
            for diff in &one.image.record.layers {
                if !parts.contains_key(diff) {
                    let part = self.pack(diff, form.layers)?;
                    parts.insert(*diff, part.descriptor.clone());
                    documents.layers.push(part);
                }
            }
            let config = self.bytes_of(&one.image)?;
            let layers: Vec<Descriptor> = one
                .image
                .record
                .layers
                .iter()
                .filter_map(|diff| parts.get(diff).cloned())
                .collect();
            let mut manifest = Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), layers.clone());
            manifest.annotations = self.annotations(&one.image);
            let said = form
                .annotations
                .of(AnnotationPlace::Manifest, &one.image.config.platform());
            manifest.annotations.extend(said);
            let manifest = json(&manifest)?;
            let described = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
            documents.name(one, described.clone());
            self.add_attestations(one, &described, &mut documents)?;
            documents.images.push(ArchiveImage {
                config: blob_path(&one.image.id.0),
                repo_tags: Some(one.names.iter().map(Reference::familiar).collect::<Vec<_>>())
                    .filter(|names| !names.is_empty()),
                layers: Some(layers.iter().map(|layer| blob_path(&layer.digest)).collect()),
                layer_sources: one
                    .image
                    .record
                    .layers
                    .iter()
                    .map(|diff| diff.0)
                    .zip(layers)
                    .collect(),
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
        let repositories: Vec<String> = one.names.iter().map(Reference::name).collect();
        let digests = preferring(&one.image.digests, &repositories);
        let Some(attested) = self.attested(&one.image.id, &digests)? else {
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

    /// The config of an image, also of one that is not recorded.
    pub(crate) fn bytes_of(&self, image: &Image) -> Result<Vec<u8>, Error> {
        let bytes = image.config.to_bytes().context(|| "write the image config")?;
        if Digest::of(&bytes) == image.id.0 {
            return Ok(bytes);
        }
        self.config_bytes(&image.id)
    }

    fn write_archive(
        &self,
        documents: Documents,
        form: &ArchiveForm,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut tar = Writer::new(BufWriter::with_capacity(BUFFER, output));
        let index = index_document(documents.index, &Annotations::default());
        let mut files = vec![
            (LAYOUT.to_owned(), LAYOUT_BYTES.to_vec()),
            (INDEX.to_owned(), json(&index)?),
        ];
        if form.docker {
            files.push((MANIFEST.to_owned(), json(&documents.images)?));
            if !documents.repositories.is_empty() {
                files.push((REPOSITORIES.to_owned(), json(&documents.repositories)?));
            }
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
        for part in documents.layers {
            let place = blob_path(&part.descriptor.digest);
            append(&mut tar, &place, part.descriptor.size, part.open()?)?;
        }
        let mut buffer = tar.finish().context(|| "end the archive")?;
        buffer.flush().context(|| "write the archive")
    }
}

/// Adds to an entry of an index what is said of it.
pub(crate) fn describe(manifest: &mut Descriptor, annotations: &Annotations) {
    if let Some(platform) = &manifest.platform {
        let said = annotations.of(AnnotationPlace::ManifestDescriptor, platform);
        manifest.annotations.extend(said);
    }
}

pub(crate) fn index_document(manifests: Vec<Descriptor>, annotations: &Annotations) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: annotations.of_all(AnnotationPlace::Index),
        extra: Extra::new(),
    }
}

/// The entries of an archive's index for one document under its names.
fn named(document: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    let under = |name: &Reference| {
        let mut named = document.clone();
        let tag = name.tag().unwrap_or_default();
        named.annotations.insert(FULL_NAME.to_owned(), name.canonical());
        named.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        named
    };
    if names.is_empty() {
        return vec![document.clone()];
    }
    names.iter().map(under).collect()
}

fn one(image: &Image, names: &[Reference]) -> Chosen {
    Chosen {
        image: image.clone(),
        names: names.to_vec(),
    }
}

/// Compresses a stream into a file; digest and length of what is in it.
fn squeeze(input: impl Read + Send, file: &File, compression: Compression) -> Result<(Digest, u64), Error> {
    let what = || "write a temporary file";
    let mut hashed = Hashed {
        output: BufWriter::with_capacity(BUFFER, file),
        hasher: Hasher::new(),
    };
    let size = compress(input, &mut hashed, compression).context(what)?;
    hashed.output.flush().context(what)?;
    Ok((hashed.hasher.finish(), size))
}

/// Hashes what passes by.
struct Hashed<W> {
    output: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Documents {
    /// The manifest of the first image, without the names.
    fn manifest(&self) -> Result<Descriptor, Error> {
        let missing = || Error::new(ErrorKind::Internal, "an archive without an image");
        let mut manifest = self.index.first().cloned().ok_or_else(missing)?;
        manifest.annotations.clear();
        Ok(manifest)
    }

    /// Names a manifest in the index and in `repositories`.
    fn name(&mut self, one: &Chosen, mut manifest: Descriptor) {
        manifest.platform = Some(one.image.config.platform()).filter(|platform| !platform.os.is_empty());
        self.index.extend(named(&manifest, &one.names));
        for name in &one.names {
            let tag = name.tag().unwrap_or_default();
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
