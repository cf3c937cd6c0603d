//! Push: every layer gets to the registry in the cheapest way, then the config, then the manifest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dhow_content::ContentStore as _;
use dhow_layer::{Compression, Layer, compress};
use dhow_meta::{BlobRecord, Lease};
use dhow_oci::{Descriptor, Document, MAX_DOCUMENT, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::Client;
use dhow_types::{DiffId, Digest, ErrorKind, Observer, Progress};

use crate::annotation::AnnotationPlace;
use crate::attest::{Saying, made};
use crate::image::Image;
use crate::names::taggable;
use crate::parallel::{Metered, Stop, each};
use crate::pipe::pipe;
use crate::save::{describe, index_document};
use crate::types::{PushForm, Pushed};
use crate::{Context as _, Error, Store};

/// How often a layer is compressed and sent before its failure is the push's.
const ATTEMPTS: usize = 3;

/// One push under way.
struct Pusher<'a> {
    store: &'a Store,
    client: &'a Client,
    target: Reference,
    image: Image,
    /// The manifest that the image came with: kept when the registry gets the same blobs, so that digests are stable.
    original: Option<Original>,
    form: &'a PushForm,
    observer: &'a dyn Observer,
}

pub(crate) struct Original {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
}

/// A layer to bring to the registry, and the blob that the original manifest has for it.
struct Job<'a> {
    diff: DiffId,
    original: Option<&'a Descriptor>,
    short: String,
}

impl Store {
    /// Pushes the image that `reference` names to the registry that it names.
    ///
    /// A layer that the repository has is not sent; one that another repository of the same registry has is
    /// mounted; the others are compressed while they are sent. What a pull brought or an earlier push made is
    /// pushed with the same digest, as far as the registry holds the same blobs.
    ///
    /// # Errors
    /// `NotFound` when there is no such image here, `InvalidArgument` for a reference with a digest, and what the
    /// registry client reports.
    pub fn push(
        &self,
        client: &Client,
        reference: &Reference,
        observer: &dyn Observer,
    ) -> Result<Pushed, Error> {
        self.push_as(client, reference, &PushForm::default(), observer)
    }

    /// The same in a form.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub fn push_as(
        &self,
        client: &Client,
        reference: &Reference,
        form: &PushForm,
        observer: &dyn Observer,
    ) -> Result<Pushed, Error> {
        if reference.digest().is_some() {
            let message = format!("cannot push a digest reference: {}", reference.familiar());
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("push a tag"));
        }
        let target = taggable(reference)?;
        self.refresh()?;
        let Some(id) = self.meta.tagged(&target.canonical())? else {
            let message = format!(
                "an image does not exist locally with the tag: {}",
                target.familiar()
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let mut image = self.image(&id)?;
        if let Some(platform) = &form.platform {
            image = self.image_for(image, Some(&target), platform)?;
        }
        let lease = Lease::acquire(&self.root)?;
        lease.pin_many(&crate::commit::pins_of(&image.id, &image.record.layers))?;
        if let Some(manifest) = &image.record.manifest {
            lease.pin(manifest)?;
        }
        let original = self.original(&image);
        let pusher = Pusher {
            store: self,
            client,
            target,
            image,
            original,
            form,
            observer,
        };
        pusher.run(&lease)
    }

    /// Pushes images for several machines with what is said of each, and then the index of all under this name. They need not be recorded here, and
    /// nothing of it is noted; the caller keeps their layers from the sweeper.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub fn push_images(
        &self,
        client: &Client,
        images: &[Image],
        name: &Reference,
        form: &PushForm,
        say: &Saying<'_>,
        observer: &dyn Observer,
    ) -> Result<Pushed, Error> {
        let target = taggable(name)?;
        let what = || format!("push the manifest list of {}", target.familiar());
        let mut manifests = Vec::new();
        for image in images {
            let pusher = Pusher {
                store: self,
                client,
                target: target.clone(),
                image: image.clone(),
                original: None,
                form,
                observer,
            };
            let layers = pusher.push_layers()?;
            pusher.push_config()?;
            let (kind, bytes) = pusher.manifest(layers)?;
            pusher.push_beside(&kind, &bytes).context(what)?;
            let mut manifest = Descriptor::of(&kind, &bytes);
            manifest.platform = Some(image.config.platform());
            describe(&mut manifest, &form.annotations);
            manifests.push(manifest);
        }
        for made in made(&manifests, say)? {
            for (blob, bytes) in &made.blobs {
                client
                    .push_blob(&target, blob, &mut bytes.as_slice())
                    .context(what)?;
            }
            let beside = target.clone().without_tag().with_digest(made.descriptor.digest);
            let kind = &made.descriptor.media_type;
            client
                .push_manifest(&beside, kind, &made.manifest)
                .context(what)?;
            manifests.push(made.descriptor);
        }
        let bytes = serde_json::to_vec(&index_document(manifests, &form.annotations))
            .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest list", error))?;
        let pushed = client.push_manifest(&target, media_type::OCI_INDEX, &bytes);
        pushed.context(what)?;
        Ok(Pushed {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        })
    }

    /// The stored manifest of an image, if it is whole and about this image.
    pub(crate) fn original(&self, image: &Image) -> Option<Original> {
        let bytes = self
            .content
            .read(image.record.manifest.as_ref()?, MAX_DOCUMENT)
            .ok()?;
        let declared = Some(image.record.media_type.as_str()).filter(|kind| !kind.is_empty());
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, declared) else {
            return None;
        };
        let fits = manifest.config.digest == image.id.0 && manifest.layers.len() == image.record.layers.len();
        fits.then(|| Original {
            media_type: declared.unwrap_or(manifest.media_type()).to_owned(),
            manifest,
            bytes,
        })
    }
}

impl Pusher<'_> {
    fn run(&self, lease: &Lease) -> Result<Pushed, Error> {
        self.say(&format!("The push refers to repository [{}]", self.target.name()));
        let layers = self.push_layers()?;
        self.push_config()?;
        let (kind, bytes) = self.manifest(layers)?;
        let manifest = Digest::of(&bytes);
        lease.pin(&manifest)?;
        let index = match self.form.platform {
            Some(_) => None,
            None => self.push_attestations(&Descriptor::of(&kind, &bytes), lease)?,
        };
        let what = || format!("push the manifest of {}", self.target.familiar());
        if index.is_some() {
            self.push_beside(&kind, &bytes).context(what)?;
        }
        let (top_kind, top) = index
            .as_ref()
            .map_or((&kind, &bytes), |(kind, bytes)| (kind, bytes));
        self.client
            .push_manifest(&self.target, top_kind, top)
            .context(what)?;
        let (digest, size) = (Digest::of(top), top.len() as u64);
        self.remember(&digest, &manifest, &kind, &[&bytes, top])?;
        self.say(&format!(
            "{}: digest: {digest} size: {size}",
            self.target.tag().unwrap_or_default()
        ));
        Ok(Pushed { digest, size })
    }

    /// Pushes a manifest under its digest alone.
    fn push_beside(&self, kind: &str, bytes: &[u8]) -> Result<(), dhow_transport::Error> {
        let beside = self.target.clone().without_tag().with_digest(Digest::of(bytes));
        self.client.push_manifest(&beside, kind, bytes).map(drop)
    }

    /// Pushes what is said of the image, all but the index that lists it with the manifest: that is given.
    fn push_attestations(
        &self,
        manifest: &Descriptor,
        lease: &Lease,
    ) -> Result<Option<(String, Vec<u8>)>, Error> {
        let digests = crate::attest::preferring(&self.image.digests, &[self.target.name()]);
        let Some(attested) = self.store.attested(&self.image.id, &digests)? else {
            return Ok(None);
        };
        for held in &attested.attestations {
            let short = held.descriptor.digest.short();
            let what = || format!("push attestation {short} of {}", self.target.familiar());
            lease.pin(&held.descriptor.digest)?;
            for blob in held.blobs() {
                lease.pin(&blob.digest)?;
                if !self.has(&blob.digest)? {
                    let mut reader = self.store.content.open(&blob.digest).context(what)?;
                    self.client
                        .push_blob(&self.target, blob, &mut reader)
                        .context(what)?;
                }
            }
            let bytes = self
                .store
                .content
                .read(&held.descriptor.digest, MAX_DOCUMENT)
                .context(what)?;
            self.push_beside(&held.descriptor.media_type, &bytes)
                .context(what)?;
        }
        let (kind, bytes) = attested.index_for(manifest.clone())?;
        lease.pin(&Digest::of(&bytes))?;
        Ok(Some((kind, bytes)))
    }

    fn say(&self, line: &str) {
        self.observer.observe(Progress::Message(line));
    }

    /// Brings every layer there; gives their descriptors in the order of the image.
    fn push_layers(&self) -> Result<Vec<Descriptor>, Error> {
        let jobs: Vec<Job<'_>> = self
            .image
            .record
            .layers
            .iter()
            .enumerate()
            .map(|(position, diff)| Job {
                diff: *diff,
                original: self
                    .original
                    .as_ref()
                    .and_then(|original| original.manifest.layers.get(position)),
                short: diff.short(),
            })
            .collect();
        let key = |job: &Job<'_>| (job.diff, job.original.map(|blob| blob.digest));
        let mut seen = std::collections::HashSet::new();
        let once: Vec<&Job<'_>> = jobs.iter().filter(|job| seen.insert(key(job))).collect();
        for job in &once {
            self.observer.observe(Progress::Begin {
                id: &job.short,
                what: "Preparing",
                total: None,
            });
        }
        let placed = Mutex::new(HashMap::new());
        each(&once, |job, stop| {
            let descriptor = self.place(job, stop)?;
            placed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(key(job), descriptor);
            Ok(())
        })?;
        let placed = placed.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(jobs
            .iter()
            .filter_map(|job| placed.get(&key(job)).cloned())
            .collect())
    }

    /// Brings one layer there in the cheapest way.
    fn place(&self, job: &Job<'_>, stop: &Stop) -> Result<Descriptor, Error> {
        let end = |status: &str| {
            self.observer.observe(Progress::End {
                id: &job.short,
                status,
            });
        };
        let mut known: Vec<Descriptor> = job.original.cloned().into_iter().collect();
        for blob in self.store.meta.blobs_of(&job.diff)? {
            if known.iter().all(|other| other.digest != blob.digest) {
                known.push(Descriptor::new(&blob.media_type, blob.digest, blob.size));
            }
        }
        known.retain(|blob| self.form.takes(blob));
        for blob in &known {
            if self.has(&blob.digest)? {
                end("Layer already exists");
                return Ok(blob.clone());
            }
        }
        for blob in &known {
            if let Some(from) = self.mount(&blob.digest)? {
                end(&format!("Mounted from {from}"));
                return Ok(blob.clone());
            }
        }
        let sent = self.send(job, stop)?;
        self.store.meta.record_blob(&sent, Some(&self.target.name()))?;
        end("Pushed");
        // Compressed again to the very bytes that the original manifest names: its descriptor stays as it is.
        Ok(match job.original {
            Some(original) if original.digest == sent.digest => original.clone(),
            _ => Descriptor::new(&sent.media_type, sent.digest, sent.size),
        })
    }

    /// Whether the repository has a blob. Some registries forbid the question to those who may push: then the
    /// blob is sent, and the answer to that counts.
    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        match self.client.has_blob(&self.target, digest) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
            other => other.context(|| format!("look for blob {} in {}", digest.short(), self.target.name())),
        }
    }

    /// Mounts a blob from another repository of the same registry, if it is known to be in one; says from which.
    fn mount(&self, digest: &Digest) -> Result<Option<String>, Error> {
        for home in self.store.meta.homes_of(digest)? {
            let Some((registry, repository)) = home.split_once('/') else {
                continue;
            };
            if registry != self.target.registry() || repository == self.target.repository() {
                continue;
            }
            // A repository that is gone or forbidden by now is no reason to fail: the blob can be sent.
            if matches!(self.client.mount_blob(&self.target, digest, repository), Ok(true)) {
                return Ok(Some(repository.to_owned()));
            }
        }
        Ok(None)
    }

    fn send(&self, job: &Job<'_>, stop: &Stop) -> Result<BlobRecord, Error> {
        let what = || format!("push layer {} of {}", job.short, self.target.familiar());
        let layer = self.store.layers.layer(&job.diff).context(what)?;
        let mut attempt = 1;
        loop {
            self.observer.observe(Progress::Begin {
                id: &job.short,
                what: "Pushing",
                total: Some(layer.tar_size()),
            });
            match self.stream(&layer, job, stop) {
                // The body of a request cannot be sent twice by the client, but it can be made twice here.
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && attempt < ATTEMPTS && !stop.requested() =>
                {
                    attempt += 1;
                }
                other => {
                    let (digest, size) = other.map_err(|error| Error::wrap(error, what()))?;
                    let media_type = match self.form.compression {
                        Compression::Gzip if self.docker() => media_type::DOCKER_LAYER_GZIP,
                        _ => self.form.media_type(),
                    };
                    return Ok(BlobRecord {
                        diff: job.diff,
                        digest,
                        size,
                        media_type: media_type.to_owned(),
                    });
                }
            }
        }
    }

    /// Compresses a layer in a thread of its own while this one sends.
    fn stream(&self, layer: &Layer, job: &Job<'_>, stop: &Stop) -> Result<(Digest, u64), Error> {
        let tar = layer.tar().context(|| "read the layer")?;
        let mut tar = Metered::new(tar, &job.short, self.observer, stop, None);
        let (mut inlet, mut outlet) = pipe();
        let (compressed, sent) = std::thread::scope(|scope| {
            let compressor = scope.spawn(move || {
                let outcome = compress(&mut tar, &mut inlet, self.form.compression);
                match outcome {
                    Ok(_) => {
                        inlet.finish();
                        Ok(())
                    }
                    Err(_) if inlet.abandoned() => Ok(()),
                    Err(error) => Err(error),
                }
            });
            let sent = self.client.push_stream(&self.target, &mut outlet);
            // A compressor that waits for room must see that nobody reads any more.
            drop(outlet);
            (compressor.join(), sent)
        });
        match compressed {
            Ok(outcome) => outcome.context(|| "compress the layer")?,
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the compressor of the layer panicked",
                ));
            }
        }
        sent.context(|| "send the layer")
    }

    fn push_config(&self) -> Result<(), Error> {
        let id = &self.image.id;
        if self.has(&id.0)? {
            return Ok(());
        }
        let bytes = self.store.bytes_of(&self.image)?;
        let descriptor = Descriptor::new(self.config_type(), id.0, bytes.len() as u64);
        self.client
            .push_blob(&self.target, &descriptor, &mut bytes.as_slice())
            .context(|| format!("push the config of {}", self.target.familiar()))
    }

    /// Whether the image came with Docker's media types; those stay.
    fn docker(&self) -> bool {
        self.original
            .as_ref()
            .is_some_and(|original| original.media_type == media_type::DOCKER_MANIFEST)
    }

    fn config_type(&self) -> &'static str {
        if self.docker() {
            media_type::DOCKER_CONFIG
        } else {
            media_type::OCI_CONFIG
        }
    }

    /// The manifest to push: the original one if the registry has its very blobs, else a new one.
    fn manifest(&self, layers: Vec<Descriptor>) -> Result<(String, Vec<u8>), Error> {
        if layers.len() != self.image.record.layers.len() {
            return Err(Error::new(
                ErrorKind::Internal,
                "a layer was lost on the way to the registry",
            ));
        }
        if let Some(original) = &self.original {
            let same = original
                .manifest
                .layers
                .iter()
                .zip(&layers)
                .all(|(was, is)| was.digest == is.digest);
            if same {
                return Ok((original.media_type.clone(), original.bytes.clone()));
            }
        }
        let bytes = self.store.bytes_of(&self.image)?;
        // Docker's types have no name for zstd.
        let docker = self.docker() && layers.iter().all(|layer| !layer.media_type.ends_with("zstd"));
        let config_type = if docker {
            media_type::DOCKER_CONFIG
        } else {
            media_type::OCI_CONFIG
        };
        let config = Descriptor::new(config_type, self.image.id.0, bytes.len() as u64);
        let layers = layers.into_iter().map(|layer| in_family(layer, docker)).collect();
        let mut manifest = Manifest::new(config, layers);
        if docker {
            manifest.media_type = Some(media_type::DOCKER_MANIFEST.to_owned());
        } else if let Some(original) = &self.original {
            manifest.annotations.clone_from(&original.manifest.annotations);
        }
        if !docker {
            let said = &self.form.annotations;
            let platform = self.image.config.platform();
            manifest
                .annotations
                .extend(said.of(AnnotationPlace::Manifest, &platform));
        }
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest", error))?;
        Ok((manifest.media_type().to_owned(), bytes))
    }

    /// Keeps the manifest, so that the next push of this image has the same digest, and notes under which digest the
    /// registry has the image.
    fn remember(
        &self,
        top: &Digest,
        manifest: &Digest,
        kind: &str,
        documents: &[&[u8]],
    ) -> Result<(), Error> {
        for bytes in documents {
            self.store.content.put(bytes).context(|| "store the manifest")?;
        }
        let pinned = self.target.clone().without_tag().with_digest(*top);
        let staged = self.store.stage_name(&pinned, &self.image.id)?;
        self.store.edit(|edit| {
            // Removed while it was pushed: then there is nothing to remember.
            let Some(mut record) = edit.image(&self.image.id)? else {
                return Ok(());
            };
            record.manifest = Some(*manifest);
            kind.clone_into(&mut record.media_type);
            edit.put_image(&record)?;
            self.store.give_name(edit, &staged)
        })
    }
}

/// A manifest names its layers in the words of its own family.
pub(crate) fn in_family(mut layer: Descriptor, docker: bool) -> Descriptor {
    let kind = match (layer.media_type.as_str(), docker) {
        (media_type::OCI_LAYER_GZIP, true) => media_type::DOCKER_LAYER_GZIP,
        (media_type::OCI_LAYER, true) => media_type::DOCKER_LAYER,
        (media_type::DOCKER_LAYER_GZIP, false) => media_type::OCI_LAYER_GZIP,
        (media_type::DOCKER_LAYER, false) => media_type::OCI_LAYER,
        _ => return layer,
    };
    kind.clone_into(&mut layer.media_type);
    layer
}
