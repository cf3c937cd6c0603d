//! Pull: name, manifest, config, layers, record, name in the store.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use dhow_content::ContentStore as _;
use dhow_layer::{Compression, Unpack};
use dhow_meta::{BlobRecord, ImageRecord, Lease};
use dhow_oci::{Descriptor, Document, ImageConfig, Index, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{DiffId, Digest, ErrorKind, ImageId, Observer, Platform, Progress};

use crate::attest::{about, check_size};
use crate::commit::pins_of;
use crate::documents::{check_config, check_manifest, first_positions, runs_on};
use crate::names::single;
use crate::parallel::{Metered, Stop, each};
use crate::staged::StagedName;
use crate::types::{Pull, Pulled};
use crate::{Context as _, Error, Store};

/// One pull under way.
struct Puller<'a> {
    store: &'a Store,
    client: &'a Client,
    /// With a tag or a digest, never both.
    name: Reference,
    how: &'a Pull,
    observer: &'a dyn Observer,
}

/// An image as the registry describes it; its documents are checked, its layers are not here yet.
struct Described {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    manifest_digest: Digest,
    media_type: String,
    config: ImageConfig,
    config_bytes: Vec<u8>,
    id: ImageId,
}

/// A layer to fetch.
struct Missing<'a> {
    diff: DiffId,
    blob: &'a Descriptor,
    short: String,
}

impl Store {
    /// Pulls an image: asks the registry what the name points to, and fetches what is not here.
    ///
    /// Layers come in parallel, each straight from the socket into its directory; both hashes are verified before
    /// it becomes visible. A pull that is killed or fails leaves whole layers at most, which the next pull takes up.
    ///
    /// # Errors
    /// `NotFound` when the registry has no such image or none for the platform, `Unsupported` for what is no image,
    /// `InvalidArgument` for malformed documents and layers, `DataLoss` when bytes are not what was promised, and
    /// what the registry client reports.
    pub fn pull(
        &self,
        client: &Client,
        reference: &Reference,
        how: &Pull,
        observer: &dyn Observer,
    ) -> Result<Pulled, Error> {
        self.pull_admitted(client, reference, how, observer, &|_| Ok(()))
    }

    /// The same, after `admit` was shown what the name points to: that is what is pulled, or nothing.
    ///
    /// # Errors
    /// As [`Store::pull`]; what `admit` said.
    pub fn pull_admitted(
        &self,
        client: &Client,
        reference: &Reference,
        how: &Pull,
        observer: &dyn Observer,
        admit: &dyn Fn(&Fetched) -> Result<(), Error>,
    ) -> Result<Pulled, Error> {
        let puller = Puller {
            store: self,
            client,
            name: single(reference),
            how,
            observer,
        };
        puller.run(admit)
    }
}

impl Puller<'_> {
    fn run(&self, admit: &dyn Fn(&Fetched) -> Result<(), Error>) -> Result<Pulled, Error> {
        self.store.refresh()?;
        let shown = self.name.familiar();
        let pin = self.name.tag().map_or_else(
            || self.name.digest().map_or_else(String::new, ToString::to_string),
            str::to_owned,
        );
        let top = self
            .client
            .manifest(&self.name)
            .context(|| format!("pull {shown}"))?;
        admit(&top)?;
        self.say(&format!("{pin}: Pulling from {}", self.name.repository()));
        // After an unclean boot a layer may be there in name only: it is fetched again, instead of surviving.
        for diff in self.store.heal_suspects()? {
            let warning = format!(
                "layer {} was damaged by a power cut and is fetched again if needed",
                diff.short()
            );
            self.observer.observe(Progress::Warning(&warning));
        }
        let lease = Lease::acquire(&self.store.root)?;
        let (record, fetched) = match self.known(&top, &lease)? {
            Some(record) => (record, None),
            None => {
                let (record, blobs) = self.fetch(&top, &lease)?;
                (record, Some(blobs))
            }
        };
        let id = record.id;
        let holder = self.holder(&top, &record)?;
        // The name stays where it is, and something was downloaded all the same.
        let beside = holder != id && fetched.is_some();
        let mut updated = self.publish(&top, record.clone(), fetched, holder)?;
        // This machine's may have come meanwhile, and been published before.
        let now = self.holder(&top, &record)?;
        if now != holder {
            updated = self.publish(&top, record, None, now)?;
        }
        let status = if updated || beside {
            format!("Downloaded newer image for {shown}")
        } else {
            format!("Image is up to date for {shown}")
        };
        self.say(&format!("Digest: {}", top.descriptor.digest));
        self.say(&format!("Status: {status}"));
        Ok(Pulled {
            image: id,
            digest: top.descriptor.digest,
            updated,
            status,
        })
    }

    fn say(&self, line: &str) {
        self.observer.observe(Progress::Message(line));
    }

    /// The image that is meant, when it is here by what the name points to, whole, and for the right machine.
    fn known(&self, top: &Fetched, lease: &Lease) -> Result<Option<ImageRecord>, Error> {
        let of = self
            .store
            .meta
            .by_digest(&self.name.name(), &top.descriptor.digest)?;
        let Some(id) = of else {
            return Ok(None);
        };
        if let Some(record) = self.whole(&id, lease)? {
            return Ok(Some(record));
        }
        match self.listed(top, &self.wanted()) {
            Some(other) if other != id => self.whole(&other, lease),
            _ => Ok(None),
        }
    }

    /// An image that is here with all of its layers, and for the right machine.
    fn whole(&self, id: &ImageId, lease: &Lease) -> Result<Option<ImageRecord>, Error> {
        let Some(mut record) = self.store.meta.image(id)? else {
            return Ok(None);
        };
        lease.pin_many(&pins_of(id, &record.layers))?;
        if let Some(manifest) = record.manifest {
            lease.pin(&manifest)?;
            let size = self.store.content.size(&manifest);
            record.manifest = size.context(|| "look for the manifest")?.map(|_| manifest);
        }
        let whole = record.layers.iter().all(|diff| self.store.layers.contains(diff));
        let Ok(config) = self.store.config(id) else {
            return Ok(None);
        };
        Ok((whole && runs_on(&config, &self.wanted())).then_some(record))
    }

    /// The image that an index lists for a platform, as far as its manifest is here.
    fn listed(&self, top: &Fetched, platform: &Platform) -> Option<ImageId> {
        let manifest = self.store.manifest_of(index_in(top)?.choose(platform)?)?;
        Some(ImageId(manifest.config.digest))
    }

    /// The image that the name is to be of: what was pulled, unless that is for another machine and this one's is here, too.
    fn holder(&self, top: &Fetched, pulled: &ImageRecord) -> Result<ImageId, Error> {
        let host = Platform::host();
        let own = match &self.how.platform {
            Some(wanted) if !self.how.takes_name && !host.accepts(wanted) => self.listed(top, &host),
            _ => None,
        };
        match own {
            Some(own) if self.store.meta.image(&own)?.is_some() => Ok(own),
            _ => Ok(pulled.id),
        }
    }

    fn wanted(&self) -> Platform {
        self.how.platform.clone().unwrap_or_else(Platform::host)
    }

    /// Fetches documents and layers; everything is stored when this returns, but no record or name.
    fn fetch(&self, top: &Fetched, lease: &Lease) -> Result<(ImageRecord, Vec<BlobRecord>), Error> {
        let image = self.describe(top)?;
        let diffs = &image.config.rootfs.diff_ids;
        // Pin first, look second: what is found below cannot be swept any more.
        lease.pin_many(&pins_of(&image.id, diffs))?;
        lease.pin(&image.manifest_digest)?;
        let blobs = self.fetch_layers(&image)?;
        let content = &self.store.content;
        content
            .put(&image.config_bytes)
            .context(|| "store the image config")?;
        content
            .put(&image.manifest_bytes)
            .context(|| "store the manifest")?;
        // The index too: it is what the name means, and it lists attestations and other platforms.
        if top.descriptor.digest != image.manifest_digest {
            lease.pin(&top.descriptor.digest)?;
            content.put(&top.bytes).context(|| "store the index")?;
            self.keep_attestations(top, &image.manifest_digest, lease);
        }
        let mut record = self.store.record_of(&image.id, &image.config)?;
        record.manifest = Some(image.manifest_digest);
        record.media_type = image.media_type;
        Ok((record, blobs))
    }

    /// Fetches what the index says of the image. One that cannot be had is told, and no reason to be without the image.
    fn keep_attestations(&self, top: &Fetched, manifest: &Digest, lease: &Lease) {
        let Some(index) = index_in(top) else { return };
        for attestation in about(&index, manifest) {
            if let Err(error) = self.keep_attestation(attestation, lease) {
                let (short, shown) = (attestation.digest.short(), self.name.familiar());
                let warning = format!("attestation {short} of {shown} is not kept: {}", causes(&error));
                self.observer.observe(Progress::Warning(&warning));
            }
        }
    }

    fn keep_attestation(&self, attestation: &Descriptor, lease: &Lease) -> Result<(), Error> {
        let content = &self.store.content;
        let fetched = self
            .client
            .manifest_at(&self.name, &attestation.digest)
            .context(|| "pull its manifest")?;
        let Document::Manifest(manifest) =
            Document::parse(&fetched.bytes, None).context(|| "read its manifest")?
        else {
            let message = "it is an index where its index says manifest";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        check_size(&manifest)?;
        lease.pin(&attestation.digest)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            lease.pin(&blob.digest)?;
            let here = content.size(&blob.digest).context(|| "look for a blob of it")?;
            if here != Some(blob.size) {
                let reader = self
                    .client
                    .blob(&self.name, blob)
                    .context(|| "pull a blob of it")?;
                self.store.put_blob(blob, reader)?;
            }
        }
        content
            .put(&fetched.bytes)
            .context(|| "store its manifest")
            .map(drop)
    }

    /// From what the name points to, to a checked manifest and config.
    fn describe(&self, top: &Fetched) -> Result<Described, Error> {
        let shown = self.name.familiar();
        let parse = |fetched: &Fetched| {
            let declared = Some(fetched.descriptor.media_type.as_str()).filter(|kind| !kind.is_empty());
            Document::parse(&fetched.bytes, declared).context(|| format!("read the manifest of {shown}"))
        };
        let (fetched, manifest) = match parse(top)? {
            Document::Manifest(manifest) => (top.clone(), manifest),
            Document::Index(index) => {
                let fetched = self.choose(&index)?;
                match parse(&fetched)? {
                    Document::Manifest(manifest) => (fetched, manifest),
                    Document::Index(_) => {
                        let message =
                            format!("{shown} is malformed: its index says manifest where there is an index");
                        return Err(Error::new(ErrorKind::InvalidArgument, message));
                    }
                }
            }
        };
        check_manifest(&manifest, &shown)?;
        let config_bytes = self.fetch_config(&manifest.config)?;
        let config = check_config(&config_bytes, manifest.layers.len(), &shown)?;
        self.check_platform(&config)?;
        let media_type = if media_type::is_manifest(&fetched.descriptor.media_type) {
            fetched.descriptor.media_type.clone()
        } else {
            manifest.media_type().to_owned()
        };
        Ok(Described {
            id: ImageId(manifest.config.digest),
            manifest,
            manifest_digest: fetched.descriptor.digest,
            manifest_bytes: fetched.bytes,
            media_type,
            config,
            config_bytes,
        })
    }

    fn choose(&self, index: &Index) -> Result<Fetched, Error> {
        let (shown, wanted) = (self.name.familiar(), self.wanted());
        let Some(chosen) = index.choose(&wanted) else {
            let message =
                format!("no matching manifest for {wanted} in the manifest list entries of {shown}");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint(offered(index)));
        };
        let fetched = self
            .client
            .manifest_at(&self.name, &chosen.digest)
            .context(|| format!("pull the manifest of {shown} for {wanted}"))?;
        if fetched.bytes.len() as u64 != chosen.size {
            let length = fetched.bytes.len();
            let message = format!(
                "manifest {} of {shown} has {length} bytes, its index says {}",
                chosen.digest, chosen.size
            );
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        Ok(fetched)
    }

    fn fetch_config(&self, config: &Descriptor) -> Result<Vec<u8>, Error> {
        let what = || format!("pull the config of {}", self.name.familiar());
        let reader = self.client.blob(&self.name, config).context(what)?;
        let mut bytes = Vec::with_capacity(usize::try_from(config.size).unwrap_or(0));
        // The reader verifies length and digest; the limit holds if it should ever not.
        match reader.take(config.size + 1).read_to_end(&mut bytes) {
            Ok(_) if Digest::of(&bytes) == config.digest => Ok(bytes),
            Ok(_) => Err(Error::new(
                ErrorKind::DataLoss,
                format!("{}: wrong bytes came", what()),
            )),
            Err(error) => Err(reading_failure(error, what())),
        }
    }

    fn check_platform(&self, config: &ImageConfig) -> Result<(), Error> {
        let wanted = self.wanted();
        if runs_on(config, &wanted) {
            return Ok(());
        }
        let (shown, actual) = (self.name.familiar(), config.platform());
        if self.how.platform.is_some() {
            let message = format!(
                "image {shown} was found but does not match the specified platform: wanted {wanted}, actual {actual}"
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let warning = format!("{shown} is for {actual}, this machine is {wanted}");
        self.observer.observe(Progress::Warning(&warning));
        Ok(())
    }

    /// Fetches the layers that are not here; gives what is now known of their blobs.
    fn fetch_layers(&self, image: &Described) -> Result<Vec<BlobRecord>, Error> {
        let diffs = &image.config.rootfs.diff_ids;
        let mut missing = Vec::new();
        let mut blobs = Vec::new();
        for position in first_positions(diffs) {
            let (diff, blob) = (diffs[position], &image.manifest.layers[position]);
            let short = blob.digest.short();
            if !self.store.layers.contains(&diff) {
                self.observer.observe(Progress::Begin {
                    id: &short,
                    what: "Pulling fs layer",
                    total: None,
                });
                missing.push(Missing { diff, blob, short });
                continue;
            }
            self.observer.observe(Progress::End {
                id: &short,
                status: "Already exists",
            });
            // That this blob holds this layer is only the manifest's word, unless it was seen before.
            let seen = self.store.meta.blobs_of(&diff)?;
            blobs.extend(seen.into_iter().filter(|known| known.digest == blob.digest));
        }
        // The largest first: the last worker to finish then waits for a small one.
        missing.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
        let fetched = Mutex::new(blobs);
        each(&missing, |layer, stop| {
            let record = self.fetch_layer(layer, stop)?;
            fetched
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(record);
            Ok(())
        })?;
        Ok(fetched.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn fetch_layer(&self, layer: &Missing<'_>, stop: &Stop) -> Result<BlobRecord, Error> {
        let what = || format!("pull layer {} of {}", layer.short, self.name.familiar());
        self.observer.observe(Progress::Begin {
            id: &layer.short,
            what: "Downloading",
            total: Some(layer.blob.size),
        });
        let reader = self.client.blob(&self.name, layer.blob).context(what)?;
        let mut metered = Metered::new(reader, &layer.short, self.observer, stop, Some("Extracting"));
        let unpack = Unpack {
            expected: Some(layer.diff),
            // The reader holds the registry to it.
            size: Some(layer.blob.size),
            limits: self.how.limits.clone(),
        };
        let outcome = self.store.layers.unpack_buffered(&mut metered, &unpack);
        if let Some(error) = metered.take_failure() {
            return Err(reading_failure(error, what()));
        }
        let unpacked = outcome.context(what)?;
        // The layer is good by its own hash; the blob is known to be good only at its end.
        if let Err(error) = io::copy(&mut metered, &mut io::sink()) {
            return Err(reading_failure(metered.take_failure().unwrap_or(error), what()));
        }
        self.observer.observe(Progress::End {
            id: &layer.short,
            status: "Pull complete",
        });
        Ok(BlobRecord {
            diff: layer.diff,
            digest: layer.blob.digest,
            size: layer.blob.size,
            media_type: honest_media_type(&layer.blob.media_type, unpacked.compression),
        })
    }

    /// Records image, blobs and names, all at once; whether the name points to another image than before.
    fn publish(
        &self,
        top: &Fetched,
        mut record: ImageRecord,
        fetched: Option<Vec<BlobRecord>>,
        holder: ImageId,
    ) -> Result<bool, Error> {
        let id = record.id;
        let repo = self.name.name();
        let by = index_in(top).map(|_| &top.descriptor.digest);
        let top = &top.descriptor.digest;
        let (names, updated) = self.to_give(top, &holder, by)?;
        if names.is_empty() && fetched.is_none() {
            return Ok(false);
        }
        let stage = |(name, by): &Given<'_>| self.store.stage_name_by(name, &holder, *by);
        let staged: Vec<StagedName> = names.iter().map(stage).collect::<Result<_, _>>()?;
        self.store.edit(|edit| {
            let old = edit.image(&id)?;
            // One that was here when it was looked for may have been removed since; all of it is pinned.
            if fetched.is_some() || old.is_none() {
                record.parent = old.and_then(|old| old.parent);
                edit.put_image(&record)?;
            }
            for blob in fetched.iter().flatten() {
                edit.record_blob(blob, Some(&repo))?;
            }
            match edit.image(&holder)? {
                Some(_) => self.store.give_names(edit, &staged),
                // This machine's image was removed meanwhile.
                None => names
                    .iter()
                    .try_for_each(|(name, by)| self.store.write_name(edit, name, &id, *by)),
            }
        })?;
        Ok(updated)
    }

    /// Of the name and its digest, what does not lead to this image yet, the name also when it does not say its index; and
    /// whether the name leads elsewhere.
    fn to_give<'a>(
        &self,
        top: &Digest,
        holder: &ImageId,
        by: Option<&'a Digest>,
    ) -> Result<(Vec<Given<'a>>, bool), Error> {
        let meta = &self.store.meta;
        let mut names = Vec::with_capacity(2);
        let pinned = meta.by_digest(&self.name.name(), top)? == Some(*holder);
        if !pinned {
            names.push((self.name.clone().without_tag().with_digest(*top), None));
        }
        if self.name.tag().is_none() {
            return Ok((names, !pinned));
        }
        let updated = meta.tagged(&self.name.canonical())? != Some(*holder);
        if updated || by.is_some() && self.store.pulled_by(&self.name).as_ref() != by {
            names.push((self.name.clone(), by));
        }
        Ok((names, updated))
    }
}

/// A name, and the index that it stands for.
type Given<'a> = (Reference, Option<&'a Digest>);

/// The index that a registry answered with, if it is one.
fn index_in(top: &Fetched) -> Option<Index> {
    let declared = Some(top.descriptor.media_type.as_str()).filter(|kind| !kind.is_empty());
    match Document::parse(&top.bytes, declared) {
        Ok(Document::Index(index)) => Some(index),
        _ => None,
    }
}

/// An error with its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What the index offers, for the hint.
fn offered(index: &Index) -> String {
    let platforms: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|manifest| manifest.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(|platform| crate::documents::clip(&platform.to_string()))
        .take(16)
        .collect();
    if platforms.is_empty() {
        "the list names no platform".to_owned()
    } else {
        format!("it has {}", platforms.join(", "))
    }
}

/// The registry client hides its own error, with its kind and hint, in the I/O error of a reader.
pub(crate) fn reading_failure(error: io::Error, what: String) -> Error {
    match error.downcast::<dhow_transport::Error>() {
        Ok(inner) => Error::wrap(inner, what),
        Err(error) => Error::wrap(error, what),
    }
}

/// Layers are told by their bytes, not by their media type. One that says gzip and is not is pushed on under the
/// type that it said, or its manifest would change.
fn honest_media_type(declared: &str, found: Compression) -> String {
    if !declared.is_empty() {
        return declared.to_owned();
    }
    match found {
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::None => media_type::OCI_LAYER,
        _ => media_type::OCI_LAYER_GZIP,
    }
    .to_owned()
}
