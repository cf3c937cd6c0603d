//! Load: archives of docker (old and new) and OCI layouts, in one pass and without a temporary file.
//!
//! A layer is unpacked when it comes by, whatever it will turn out to belong to; documents are kept in memory,
//! bounded. When the archive is at its end, images are put together and checked (see `loaded`).

use std::collections::HashMap;
use std::io::{self, Cursor, Read};

use dhow_content::ContentStore as _;
use dhow_layer::tar::{Reader, is_archive};
use dhow_layer::{Compression, Entry, EntryKind, Unpack, decoder};
use dhow_meta::{BlobRecord, Lease};
use dhow_oci::MAX_DOCUMENT;
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind, Hasher, ImageId, Observer, Platform, Progress};

use crate::archive::promised;
use crate::documents::clip;
use crate::loaded::Complete;
use crate::parallel::{Metered, Stop};
use crate::types::Loaded;
use crate::{Context as _, Error, Store};

/// Bytes of all documents of an archive together.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Entries that are not layers, and links.
const MAX_ENTRIES: usize = 100_000;
/// As much of a file as tells what it is: one block of a tar.
const HEAD: u64 = 512;

/// A layer of the archive that is now in the store.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) diff: DiffId,
    /// The compressed blob, when it was one and was verified.
    pub(crate) blob: Option<(Digest, u64)>,
}

/// What was read of an archive.
pub(crate) struct Loader<'a> {
    store: &'a Store,
    observer: &'a dyn Observer,
    /// The machine that images are wanted for; none means all that the archive names, and this machine's of those for several.
    pub(crate) platform: Option<&'a Platform>,
    pub(crate) documents: HashMap<String, Vec<u8>>,
    bytes: u64,
    pub(crate) layers: HashMap<String, Found>,
    pub(crate) links: HashMap<String, String>,
    /// Layers that were not in the store before.
    made: Vec<DiffId>,
}

impl Store {
    /// Loads every image of an archive, compressed or not: `docker save` of any version since 1.10, `podman save`,
    /// and OCI layouts.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such archive or is malformed, `DataLoss` when bytes do not have the digest
    /// that is promised, `ResourceExhausted` beyond bounds. Then no image of the archive is loaded.
    pub fn load(&self, input: impl Read + Send, observer: &dyn Observer) -> Result<Vec<Loaded>, Error> {
        self.load_for(input, None, observer)
    }

    /// The same with the images for one platform alone.
    ///
    /// # Errors
    /// As [`Store::load`]; `NotFound` when the archive has none for it.
    pub fn load_for(
        &self,
        input: impl Read + Send,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Vec<Loaded>, Error> {
        let lease = Lease::acquire(&self.root)?;
        // What the archive holds is known only at its end.
        lease.pin_everything()?;
        let mut loader = Loader {
            store: self,
            observer,
            platform,
            documents: HashMap::new(),
            bytes: 0,
            layers: HashMap::new(),
            links: HashMap::new(),
            made: Vec::new(),
        };
        let loaded = loader.read(input).and_then(|()| {
            let images = loader.images()?;
            images.into_iter().map(|image| self.keep(image)).collect()
        });
        if loaded.is_err() {
            // What the archive brought is of use to nobody; what fails here goes with the next sweep.
            drop(lease);
            drop(self.release(&loader.made));
        }
        loaded
    }

    fn keep(&self, image: Complete) -> Result<Loaded, Error> {
        let id = ImageId(Digest::of(&image.config_bytes));
        let mut record = self.record_of(&id, &image.config)?;
        self.content
            .put(&image.config_bytes)
            .context(|| "store the image config")?;
        let manifest = match &image.manifest {
            Some((manifest, bytes)) => {
                let digest = self.content.put(bytes).context(|| "store the manifest")?;
                Some((digest, manifest))
            }
            None => None,
        };
        let said = image.said.as_ref().filter(|_| !image.names.is_empty());
        for bytes in said.iter().flat_map(|said| &said.documents) {
            self.content.put(bytes).context(|| "store an attestation")?;
        }
        let mut names = image.names.clone();
        if let Some(said) = said {
            let index = Digest::of(&said.index);
            let pinned = image.names.iter().cloned();
            names.extend(pinned.map(|name| name.without_tag().with_digest(index)));
        }
        let staged = self.stage_names(&names, &id)?;
        self.edit(|edit| {
            if let Some(old) = edit.image(&id)? {
                record.parent = old.parent;
                record.manifest = old.manifest;
                record.media_type = old.media_type;
            }
            if let Some((digest, manifest)) = &manifest {
                record.manifest = Some(*digest);
                manifest.media_type().clone_into(&mut record.media_type);
                for (layer, blob) in image.layers.iter().zip(&manifest.layers) {
                    if layer.blob == Some((blob.digest, blob.size)) {
                        let known = BlobRecord {
                            diff: layer.diff,
                            digest: blob.digest,
                            size: blob.size,
                            media_type: blob.media_type.clone(),
                        };
                        edit.record_blob(&known, None)?;
                    }
                }
            }
            edit.put_image(&record)?;
            self.give_names(edit, &staged)
        })?;
        Ok(Loaded {
            image: id,
            names: image.names.iter().map(Reference::familiar).collect(),
        })
    }
}

impl Loader<'_> {
    fn read(&mut self, input: impl Read + Send) -> Result<(), Error> {
        let (_, stream) = decoder(input).context(|| "read the archive")?;
        let mut tar = Reader::new(stream);
        while let Some(entry) = tar.next_entry().context(|| "read the archive")? {
            if self.documents.len() + self.links.len() + self.layers.len() > MAX_ENTRIES {
                return Err(too_much("entries"));
            }
            let Ok(path) = String::from_utf8(entry.path.clone()) else {
                continue;
            };
            match entry.kind {
                EntryKind::File => self.read_file(path, &entry, &mut tar)?,
                EntryKind::Symlink | EntryKind::Hardlink => self.read_link(path, &entry),
                _ => {}
            }
        }
        Ok(())
    }

    /// Docker before 25 wrote a layer that comes twice as a link to the first.
    fn read_link(&mut self, path: String, entry: &Entry) {
        if let Some(target) = link_target(&path, entry) {
            self.links.insert(path, target);
        }
    }

    fn read_file(&mut self, path: String, entry: &Entry, body: &mut (impl Read + Send)) -> Result<(), Error> {
        let mut head = Vec::with_capacity(512);
        let what = || format!("read {} of the archive", clip(&path));
        (&mut *body).take(HEAD).read_to_end(&mut head).context(what)?;
        let compression = Compression::sniff(&head);
        if !named_as_document(&path) && (compression != Compression::None || looks_like_tar(&head)) {
            let found = self.read_layer(&path, entry.size, compression, head, body)?;
            self.layers.insert(path, found);
            return Ok(());
        }
        // What is neither a layer nor small is nothing that an image could be made of.
        if entry.size > MAX_DOCUMENT {
            return Ok(());
        }
        self.bytes += entry.size;
        if self.bytes > MAX_DOCUMENTS {
            return Err(too_much("bytes of documents"));
        }
        body.take(MAX_DOCUMENT).read_to_end(&mut head).context(what)?;
        if let Some(digest) = promised(&path) {
            verify(&path, &digest, &Digest::of(&head))?;
        }
        self.documents.insert(path, head);
        Ok(())
    }

    fn read_layer(
        &mut self,
        path: &str,
        size: u64,
        compression: Compression,
        head: Vec<u8>,
        body: &mut (impl Read + Send),
    ) -> Result<Found, Error> {
        let promise = promised(path);
        if let Some(found) = promise.and_then(|digest| self.already_here(&digest, compression, size)) {
            return Ok(found);
        }
        let what = || format!("load layer {} of the archive", clip(path));
        let (id, stop) = (short_name(path), Stop::default());
        self.observer.observe(Progress::Begin {
            id: &id,
            what: "Loading layer",
            total: Some(size),
        });
        let metered = Metered::new(Cursor::new(head).chain(body), &id, self.observer, &stop, None);
        // An uncompressed layer's own hash is computed anyway.
        let hasher = promise
            .filter(|_| compression != Compression::None)
            .map(|_| Hasher::new());
        let mut stream = Hashing {
            inner: metered,
            hasher,
        };
        let how = Unpack {
            size: Some(size),
            ..Unpack::default()
        };
        let unpacked = self.store.layers.unpack(&mut stream, &how);
        let unpacked = match (unpacked, stream.inner.take_failure()) {
            (_, Some(error)) => return Err(Error::wrap(error, what())),
            (outcome, None) => outcome.context(what)?,
        };
        if unpacked.fresh {
            self.made.push(unpacked.layer.diff_id());
        }
        io::copy(&mut stream, &mut io::sink()).context(what)?;
        let diff = unpacked.layer.diff_id();
        let mut blob = None;
        if let Some(promise) = promise {
            let actual = stream.hasher.map_or(diff.0, Hasher::finish);
            verify(path, &promise, &actual)?;
            blob = (compression != Compression::None).then_some((actual, size));
        }
        self.observer.observe(Progress::End {
            id: &id,
            status: "Loaded layer",
        });
        Ok(Found { diff, blob })
    }

    /// A layer of the store that this blob is known to hold: then its bytes are not read at all. The image gets
    /// what the store has under that hash, whatever the archive holds.
    fn already_here(&self, digest: &Digest, compression: Compression, size: u64) -> Option<Found> {
        let plain = compression == Compression::None;
        let diff = if plain {
            Some(DiffId(*digest))
        } else {
            self.store.meta.by_blob(digest).ok()?
        };
        let diff = diff.filter(|diff| self.store.layers.contains(diff))?;
        Some(Found {
            diff,
            blob: (!plain).then_some((*digest, size)),
        })
    }
}

/// Hashes what is read, if asked to.
struct Hashing<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..count]);
        }
        Ok(count)
    }
}

fn too_much(of: &str) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        format!("the image archive has too many {of}"),
    )
}

pub(crate) fn verify(path: &str, promised: &Digest, actual: &Digest) -> Result<(), Error> {
    if promised == actual {
        return Ok(());
    }
    let message = format!("{} of the archive is damaged: its bytes are {actual}", clip(path));
    Err(Error::new(ErrorKind::DataLoss, message))
}

/// Documents whose bytes could be taken for something else by accident.
fn named_as_document(path: &str) -> bool {
    path.ends_with(".json")
        || matches!(
            path.rsplit('/').next(),
            Some("json" | "VERSION" | "oci-layout" | "repositories")
        )
}

/// Whether these are the first bytes of a tar, or of an empty one: its end marker.
fn looks_like_tar(head: &[u8]) -> bool {
    is_archive(head) || head.len() as u64 == HEAD && head.iter().all(|byte| *byte == 0)
}

/// The path in the archive that a link of it leads to.
pub(crate) fn link_target(path: &str, entry: &Entry) -> Option<String> {
    let target = String::from_utf8(entry.link.clone()).ok()?;
    Some(if entry.kind == EntryKind::Symlink {
        beside(path, &target)
    } else {
        target
    })
}

/// The path that a relative link beside `path` means.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// What identifies a layer to a person: the start of its hash, from whichever part of the path holds it.
fn short_name(path: &str) -> String {
    let named = path.split('/').rfind(|part| part.len() >= 64).unwrap_or(path);
    named.chars().take(12).collect()
}
