//! An image looked at where it lies: what it is, and where the bytes of its layers are. Nothing is copied, and no layer is read: that
//! layers have the digests which the image says is found out by who loads it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dhow_layer::tar::is_archive;
use dhow_layer::{Compression, Extent, Survey};
use dhow_meta::ImageRecord;
use dhow_oci::{Descriptor, Document, ImageConfig, Manifest};
use dhow_reference::Reference;
use dhow_transport::Fetched;
use dhow_types::{Digest, ErrorKind, ImageId, Platform};

use super::archive::{Tape, wanted};
use super::layout::{self, Files, Layout, small};
use super::{Copy, Location, MAX_BYTES, Source as _, chosen};
use crate::archive::{ArchiveImage, INDEX, MANIFEST, blob_path, promised};
use crate::commit::{MAX_LAYERS, seconds};
use crate::documents::{check_config, check_manifest, clip};
use crate::load::verify;
use crate::{Context as _, Error, Image};

/// An image in an archive or a layout.
#[derive(Debug)]
pub struct LyingImage {
    /// It, as it would be in a store: its layers are what its config says. Its size is that of its layers where they lie.
    pub image: Image,
    /// Its layers, the lowest first.
    pub layers: Vec<Extent>,
}

impl LyingImage {
    fn of(config: ImageConfig, id: Digest, names: Vec<Reference>, layers: Vec<Extent>) -> Self {
        let record = ImageRecord {
            id: ImageId(id),
            manifest: None,
            media_type: String::new(),
            created: config.created.as_deref().map_or(0, seconds),
            layers: config.rootfs.diff_ids.clone(),
            size: layers.iter().map(Extent::size).sum(),
            platform: config.platform().to_string(),
            parent: None,
        };
        let image = Image {
            id: record.id,
            names: names
                .into_iter()
                .map(|name| name.or_latest().canonical())
                .collect(),
            digests: Vec::new(),
            config,
            record,
        };
        Self { image, layers }
    }

    /// The image at a place, for a platform where there are several.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `InvalidArgument` for malformed documents, `DataLoss` for a document that has not its
    /// digest, or a layer that has not its length, `Unsupported` for a registry and a compressed archive.
    pub fn at(place: &Location, platform: &Platform) -> Result<Self, Error> {
        let found = match place {
            Location::Registry(_) => {
                let message = "an image in a registry is not looked at from here";
                return Err(Error::new(ErrorKind::Unsupported, message).with_hint("pull it first"));
            }
            Location::Layout(folder, name) => of_layout(&layout::open(folder, name.as_deref())?, platform),
            Location::LayoutArchive(file, name) => {
                let layout = Layout::new(Tape::open(file)?, name.as_deref());
                layout.and_then(|layout| of_layout(&layout, platform))
            }
            Location::DockerArchive(file, name) => of_docker(&Tape::open(file)?, name.as_ref()),
        };
        found.context(|| format!("read {place}"))
    }

    /// The image in an archive of either kind; none when the file is no archive.
    ///
    /// # Errors
    /// As [`LyingImage::at`].
    pub fn in_file(path: &Path, platform: &Platform) -> Result<Option<Self>, Error> {
        let what = || format!("read {}", path.display());
        let mut head = Vec::new();
        let begin = File::open(path).and_then(|file| file.take(512).read_to_end(&mut head));
        begin.context(what)?;
        if Compression::sniff(&head) == Compression::None && !is_archive(&head) {
            return Ok(None);
        }
        let tape = Tape::open(path)?;
        // As load has it.
        let found = if tape.has(MANIFEST) {
            of_docker(&tape, None)
        } else if tape.has(INDEX) {
            Layout::new(tape, None).and_then(|layout| of_layout(&layout, platform))
        } else {
            let message = format!("not an image archive: it has neither {MANIFEST} nor {INDEX}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        found.context(what).map(Some)
    }
}

fn of_layout<F: Files>(layout: &Layout<F>, platform: &Platform) -> Result<LyingImage, Error> {
    let how = Copy {
        platform: Some(platform.clone()),
        ..Copy::default()
    };
    let top = layout.top()?;
    let names = layout.names_of(&top.descriptor.digest);
    let document = chosen(layout, top, &how)?;
    let manifest = manifest_of(&document)?;
    let what = document.descriptor.digest.to_string();
    check_manifest(&manifest, &what)?;
    let path = blob_path(&manifest.config.digest);
    let bytes = small(layout.files(), &path)?;
    verify(&path, &manifest.config.digest, &Digest::of(&bytes))?;
    let config = check_config(&bytes, manifest.layers.len(), &what)?;
    let extents = manifest.layers.iter().map(|layer| {
        let extent = layout.files().extent(&blob_path(&layer.digest))?;
        if extent.size() == layer.size {
            return Ok(extent);
        }
        let message = format!(
            "layer {} has {} bytes, its manifest says {}",
            layer.digest,
            extent.size(),
            layer.size
        );
        Err(Error::new(ErrorKind::DataLoss, message))
    });
    let extents = extents.collect::<Result<Vec<Extent>, Error>>()?;
    let mut found = LyingImage::of(config, manifest.config.digest, names, extents);
    found.image.record.manifest = Some(document.descriptor.digest);
    found.image.record.media_type = document.descriptor.media_type;
    Ok(found)
}

fn manifest_of(document: &Fetched) -> Result<Manifest, Error> {
    match super::parse(document)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is an index in an index", document.descriptor.digest),
        )),
    }
}

fn of_docker(tape: &Tape, name: Option<&Reference>) -> Result<LyingImage, Error> {
    let images: Vec<ArchiveImage> = serde_json::from_slice(&small(tape, MANIFEST)?)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("parse {MANIFEST}"), error))?;
    let image = wanted(&images, name)?;
    let bytes = small(tape, &image.config)?;
    let digest = Digest::of(&bytes);
    let by_name = image.config.strip_suffix(".json");
    let promise = by_name.and_then(|hex| Digest::from_hex(hex).ok());
    if let Some(promise) = promise.or_else(|| promised(&image.config)) {
        verify(&image.config, &promise, &digest)?;
    }
    let paths = image.layers.as_deref().unwrap_or_default();
    let config = check_config(&bytes, paths.len(), &clip(&image.config))?;
    if paths.len() > MAX_LAYERS {
        let message = format!("the image has more than {MAX_LAYERS} layers");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let extents = paths.iter().map(|path| tape.extent(path));
    let extents = extents.collect::<Result<Vec<Extent>, Error>>()?;
    let tags = image.repo_tags.as_deref().unwrap_or_default();
    let names = tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect();
    let mut found = LyingImage::of(config, digest, names, extents);
    if let Some(descriptor) = registry_manifest(tape, &digest) {
        found.image.record.manifest = Some(descriptor.digest);
        found.image.record.media_type = descriptor.media_type;
    }
    Ok(found)
}

/// The manifest that the archive's index has for a config, when all of its layers are compressed: load keeps such.
fn registry_manifest(tape: &Tape, config: &Digest) -> Option<Descriptor> {
    let Ok(Document::Index(index)) = Document::parse(&small(tape, INDEX).ok()?, None) else {
        return None;
    };
    let mut left = MAX_BYTES;
    index.manifests.into_iter().find(|descriptor| {
        left = left.saturating_sub(descriptor.size);
        let path = blob_path(&descriptor.digest);
        let fits = left > 0
            && tape
                .extent(&path)
                .is_ok_and(|extent| extent.size() == descriptor.size);
        let bytes = if fits {
            small(tape, &path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let packed = |layer: &Descriptor| {
            let extent = tape.extent(&blob_path(&layer.digest));
            extent.is_ok_and(|extent| Survey::is_packed(&extent).unwrap_or(false))
        };
        Digest::of(&bytes) == descriptor.digest
            && matches!(
                Document::parse(&bytes, None),
                Ok(Document::Manifest(manifest))
                    if manifest.config.digest == *config && manifest.layers.iter().all(packed)
            )
    })
}
