//! Making images of what is in the store: commit, tag, import; and records from documents.

use std::collections::HashMap;
use std::io::{BufWriter, Read, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_content::ContentStore as _;
use dhow_layer::{Inflated, Unpack};
use dhow_meta::{ImageRecord, Lease};
use dhow_oci::{Descriptor, Document, History, ImageConfig, Labels, MAX_DOCUMENT, Manifest, media_type};
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind, ImageId};

use crate::foreign::{self, Told};
use crate::image::Image;
use crate::names::taggable;
use crate::pipe::pipe;
use crate::push::in_family;
use crate::types::{Import, Imported, Packing};
use crate::{Context as _, Error, Store};

/// Overlayfs takes 500 lower directories (kernel `fs/overlayfs/params.h`, `OVL_MAX_STACK`).
pub(crate) const MAX_LAYERS: usize = 500;

/// A manifest in the media types of docker, or of OCI.
fn of_family(mut manifest: Manifest, docker: bool) -> Manifest {
    let (kind, config) = match docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    manifest.media_type = Some(kind.to_owned());
    config.clone_into(&mut manifest.config.media_type);
    let layers = manifest.layers.into_iter();
    manifest.layers = layers.map(|layer| in_family(layer, docker)).collect();
    manifest
}

impl Store {
    /// Makes an image of a config and the stored layers that it names, and tags it.
    ///
    /// The caller keeps the layers from the sweeper with a lease until this returns.
    ///
    /// # Errors
    /// `FailedPrecondition` when a layer is not in the store, `InvalidArgument` for more than 500 layers or a tag
    /// with a digest.
    pub fn commit(&self, config: ImageConfig, tags: &[Reference]) -> Result<ImageId, Error> {
        self.commit_on(config, tags, None)
    }

    /// As [`Store::commit`], and says on which image it was made.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_on(
        &self,
        config: ImageConfig,
        tags: &[Reference],
        parent: Option<ImageId>,
    ) -> Result<ImageId, Error> {
        let names = tags.iter().map(taggable).collect::<Result<Vec<_>, _>>()?;
        let bytes = config.to_bytes().context(|| "write the image config")?;
        let id = ImageId(Digest::of(&bytes));
        let lease = Lease::acquire(&self.root)?;
        lease.pin_many(&pins_of(&id, &config.rootfs.diff_ids))?;
        let mut record = self.record_of(&id, &config)?;
        record.parent = parent;
        self.content.put(&bytes).context(|| "store the image config")?;
        let staged = self.stage_names(&names, &id)?;
        self.edit(|edit| {
            // The same build again gives the same image: what is known of its manifest stays.
            if let Some(old) = edit.image(&id)? {
                record.manifest = old.manifest;
                record.media_type.clone_from(&old.media_type);
                record.parent = record.parent.or(old.parent);
            }
            edit.put_image(&record)?;
            self.give_names(edit, &staged)
        })?;
        Ok(id)
    }

    /// An image that is not recorded: to be written somewhere else. The caller keeps its layers from the sweeper.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn unrecorded(&self, config: ImageConfig) -> Result<Image, Error> {
        let bytes = config.to_bytes().context(|| "write the image config")?;
        let id = ImageId(Digest::of(&bytes));
        Ok(Image {
            id,
            record: self.record_of(&id, &config)?,
            config,
            names: Vec::new(),
            digests: Vec::new(),
        })
    }

    /// Writes down what an image's manifest says of it. A push and an archive have it in theirs.
    ///
    /// # Errors
    /// `NotFound`; failures of the store.
    pub fn annotate(&self, id: &ImageId, annotations: &Labels) -> Result<(), Error> {
        let image = self.image(id)?;
        let mut manifest = match self.original(&image) {
            Some(_) if annotations.is_empty() => return Ok(()),
            Some(original) => original.manifest,
            None => self.first_manifest(&image)?,
        };
        if manifest.media_type() == media_type::DOCKER_MANIFEST {
            // Docker's manifests have no annotations.
            manifest = of_family(manifest, false);
        }
        manifest.annotations.extend(annotations.clone());
        self.keep_manifest(id, &manifest)
    }

    /// Gives an image's manifest docker's media types, or those of OCI. A push writes it so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when docker has no word for what the manifest says; failures of the store.
    pub fn set_family(&self, id: &ImageId, docker: bool) -> Result<(), Error> {
        let image = self.image(id)?;
        let manifest = match self.original(&image) {
            Some(original) if (original.media_type == media_type::DOCKER_MANIFEST) == docker => {
                return Ok(());
            }
            Some(original) => original.manifest,
            None => self.first_manifest(&image)?,
        };
        if docker && !manifest.annotations.is_empty() {
            let message = "a manifest in docker's format has no annotations";
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("leave the annotations out, or choose the format oci"));
        }
        self.keep_manifest(id, &of_family(manifest, docker))
    }

    /// The manifest of an image that never had one.
    fn first_manifest(&self, image: &Image) -> Result<Manifest, Error> {
        let layers = image.record.layers.iter().map(|diff| {
            let layer = self.layers.layer(diff).context(|| "look at a layer")?;
            Ok(Descriptor::new(media_type::OCI_LAYER, diff.0, layer.tar_size()))
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let config = self.config_bytes(&image.id)?;
        Ok(Manifest::new(
            Descriptor::of(media_type::OCI_CONFIG, &config),
            layers,
        ))
    }

    fn keep_manifest(&self, id: &ImageId, manifest: &Manifest) -> Result<(), Error> {
        let bytes = serde_json::to_vec(manifest)
            .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest", error))?;
        let digest = Digest::of(&bytes);
        let lease = Lease::acquire(&self.root)?;
        lease.pin(&digest)?;
        self.content.put(&bytes).context(|| "store the manifest")?;
        self.edit(|edit| {
            let Some(mut record) = edit.image(id)? else {
                return Err(crate::image::no_such_image(&id.to_string()));
            };
            record.manifest = Some(digest);
            record.media_type = manifest.media_type().to_owned();
            Ok(edit.put_image(&record)?)
        })
    }

    /// What the manifest of an image says of it; nothing for one that never had a manifest.
    pub fn annotations(&self, image: &Image) -> Labels {
        self.original(image)
            .map(|original| original.manifest.annotations)
            .unwrap_or_default()
    }

    /// Gives an image one more name, taking the name from another image if that had it; the disk has it then.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a name with a digest.
    pub fn tag(&self, id: &ImageId, name: &Reference) -> Result<(), Error> {
        let name = taggable(name)?;
        let staged = self.stage_name(&name, id)?;
        self.edit(|edit| {
            if edit.image(id)?.is_none() {
                return Err(crate::image::no_such_image(&id.to_string()));
            }
            self.give_name(edit, &staged)
        })?;
        // Without the index's lock: that waits for no disk.
        self.sync_name(&name)
    }

    /// Gives names from one image to another, each `(name, from, to)`: all of them at once, or none. A name given from an image to the same
    /// one is a further name of it. Only where the file of one cannot get its place after that, on a disk that fails or has no
    /// room for it, is that name as before and an error, and the others are moved.
    ///
    /// # Errors
    /// `FailedPrecondition` when a name does not belong to the image that it is to be taken from; `NotFound`; `InvalidArgument` for a
    /// name with a digest.
    pub fn move_names(&self, moves: &[(Reference, ImageId, ImageId)]) -> Result<(), Error> {
        let mut staged = Vec::with_capacity(moves.len());
        for (name, _, to) in moves {
            staged.push(self.stage_name(&taggable(name)?, to)?);
        }
        self.edit(|edit| {
            for (name, from, to) in moves {
                if edit.image(to)?.is_none() {
                    return Err(crate::image::no_such_image(&to.to_string()));
                }
                if from != to && edit.tagged(&taggable(name)?.canonical())? != Some(*from) {
                    let message = format!("{} is no more the image that it was", name.familiar());
                    return Err(Error::new(ErrorKind::FailedPrecondition, message));
                }
            }
            self.give_names(edit, &staged)
        })
    }

    /// Makes an image of one layer: a root file system as a tar of any known compression, or in the archive of an App
    /// Container image or of one of LXC and LXD, with the settings that those have.
    ///
    /// # Errors
    /// As unpacking a layer: `InvalidArgument` for a malformed or hostile archive, `ResourceExhausted` beyond a limit;
    /// `Unsupported` for an image that depends on others.
    pub fn import(&self, input: impl Read + Send, how: &Import) -> Result<Imported, Error> {
        let lease = Lease::acquire(&self.root)?;
        lease.pin_everything()?;
        let (layer, told) = match how.packing {
            Packing::Plain => (self.root_layer(input, how)?, Told::default()),
            // It is sniffed compressed and handed on so, since only who unpacks it knows a bomb.
            Packing::Auto => match foreign::sniff(input, &how.limits) {
                (Packing::Plain, input) => (self.root_layer(input, how)?, Told::default()),
                (packing, input) => self.foreign_layer(input, packing, how)?,
            },
            packing => self.foreign_layer(input, packing, how)?,
        };
        let left_out = told.left_out.clone();
        let mut config = how.base_config(told);
        let created = config.created.get_or_insert_with(now_rfc3339).clone();
        config.rootfs.diff_ids.push(layer);
        config.history.push(History {
            created: Some(created),
            comment: Some(how.message.clone()).filter(|message| !message.is_empty()),
            ..History::default()
        });
        let image = self.commit(config, &how.tags)?;
        Ok(Imported { image, left_out })
    }

    fn root_layer(&self, input: impl Read + Send, how: &Import) -> Result<DiffId, Error> {
        let unpack = Unpack {
            expected: None,
            size: None,
            limits: how.limits.clone(),
        };
        let unpacked = self.layers.unpack(input, &unpack);
        Ok(unpacked
            .context(|| "unpack the root file system")?
            .layer
            .diff_id())
    }

    /// Takes the root file system out of an archive in a thread of its own while this one unpacks it.
    fn foreign_layer(
        &self,
        input: impl Read + Send,
        packing: Packing,
        how: &Import,
    ) -> Result<(DiffId, Told), Error> {
        let input = std::io::BufReader::with_capacity(128 << 10, input);
        let tar = Inflated::new(input, "archive", None, &how.limits).context(|| "read the archive")?;
        let (mut inlet, outlet) = pipe();
        std::thread::scope(|scope| {
            let unwrapper = scope.spawn(move || {
                let mut buffered = BufWriter::with_capacity(64 << 10, &mut inlet);
                let told = foreign::unwrap(tar, packing, &how.limits, &mut buffered);
                let flushed = buffered.flush();
                drop(buffered);
                match (told, flushed) {
                    (Ok(told), Ok(())) => {
                        inlet.finish();
                        Ok(Some(told))
                    }
                    // That the reader went away is the echo of its own failure.
                    _ if inlet.abandoned() => Ok(None),
                    (Err(error), _) => Err(error),
                    (Ok(_), Err(error)) => Err(Error::wrap(error, "write the root file system")),
                }
            });
            let layer = self.root_layer(outlet, how);
            let panicked = || Error::new(ErrorKind::Internal, "the reader of the archive panicked");
            let told = unwrapper.join().map_err(|_| panicked())??;
            Ok((layer?, told.ok_or_else(panicked)?))
        })
    }

    /// The record of an image whose layers are all here.
    pub(crate) fn record_of(&self, id: &ImageId, config: &ImageConfig) -> Result<ImageRecord, Error> {
        let diffs = &config.rootfs.diff_ids;
        if diffs.len() > MAX_LAYERS {
            let message = format!(
                "an image of {} layers: overlayfs takes at most {MAX_LAYERS}",
                diffs.len()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let mut size = 0_u64;
        for diff in diffs {
            let layer = self.layers.layer(diff).map_err(|error| {
                let made = Error::wrap(
                    error,
                    format!("find layer {} of image {}", diff.short(), id.short()),
                );
                if made.kind() == ErrorKind::NotFound {
                    made.with_kind(ErrorKind::FailedPrecondition)
                } else {
                    made
                }
            })?;
            size = size.saturating_add(layer.size());
        }
        Ok(ImageRecord {
            id: *id,
            manifest: None,
            media_type: String::new(),
            created: config.created.as_deref().map_or(0, seconds),
            layers: diffs.clone(),
            size,
            platform: config.platform().to_string(),
            parent: None,
        })
    }

    /// The record of an image from its config blob and layers alone; `manifests` maps configs to manifests.
    pub(crate) fn derive_record(
        &self,
        id: &ImageId,
        manifests: Option<&HashMap<Digest, (Digest, String)>>,
    ) -> Result<ImageRecord, Error> {
        let config = self.config(id)?;
        let mut record = self.record_of(id, &config)?;
        if let Some((digest, media_type)) = manifests.and_then(|manifests| manifests.get(&id.0)) {
            record.manifest = Some(*digest);
            record.media_type.clone_from(media_type);
        }
        Ok(record)
    }

    /// Every stored manifest by the config that it names. Reads all blobs: for the rebuild of a lost index.
    pub(crate) fn manifests_by_config(&self) -> Result<HashMap<Digest, (Digest, String)>, Error> {
        let mut found = HashMap::new();
        for digest in self.content.list().context(|| "list the blobs")? {
            let Ok(bytes) = self.content.read(&digest, MAX_DOCUMENT) else {
                continue;
            };
            if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None) {
                let media_type = manifest.media_type().to_owned();
                found.insert(manifest.config.digest, (digest, media_type));
            }
        }
        Ok(found)
    }
}

/// What a lease keeps for an image: its config and its layers.
pub(crate) fn pins_of(id: &ImageId, layers: &[DiffId]) -> Vec<Digest> {
    std::iter::once(id.0)
        .chain(layers.iter().map(|diff| diff.0))
        .collect()
}

/// Seconds since 1970 of an RFC 3339 time; 0 for anything else, as for an image without a time.
pub(crate) fn seconds(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

pub(crate) fn now_rfc3339() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(elapsed.as_secs()).unwrap_or(0);
    let nanosecond = i32::try_from(elapsed.subsec_nanos()).unwrap_or(0);
    jiff::Timestamp::new(second, nanosecond).map_or_else(|_| String::new(), |time| time.to_string())
}
