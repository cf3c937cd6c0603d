//! Copy: an image from one place to another, byte for byte, without unpacking it: registry, OCI layout, archive.
//!
//! Nothing of the store is touched. Every blob is verified while it passes: length and digest. Blobs come before the
//! manifests that name them and the manifest with the name last, so that a copy that is broken off leaves nothing
//! that has a name.

mod archive;
mod layout;
mod location;
mod look;
mod read;
mod registry;

use std::collections::HashSet;
use std::io::Read;

use dhow_oci::{Descriptor, Document, Index, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{Digest, ErrorKind, Observer, Platform, Progress};

pub use layout::Folder as LayoutFolder;
pub use location::Location;
pub use look::LyingImage;

use crate::parallel::{Metered, Stop, each};
use crate::{Context as _, Error};

/// Documents of one image, indexes in indexes, bytes of all documents together.
const MAX_DOCUMENTS: usize = 2000;
const MAX_DEPTH: usize = 4;
const MAX_BYTES: u64 = 256 << 20;

/// What to copy.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Every platform of an index, and the index itself, with all that it lists: attestations too.
    pub all: bool,
    /// The platform to take from an index; this machine's when there is none.
    pub platform: Option<Platform>,
    /// What refers to the image: signatures, bills of materials.
    pub referrers: bool,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Digest of the manifest or index that has the name now.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// How many manifests, and blobs that were not there before.
    pub documents: usize,
    /// See `documents`.
    pub blobs: usize,
}

/// Where an image comes from.
trait Source: Sync {
    /// What the name means.
    fn top(&self) -> Result<Fetched, Error>;
    /// A manifest or index by its digest, verified.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error>;
    /// A blob, verified while it is read.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error>;
    /// Manifests that refer to one.
    fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error>;
    /// The repository, where blobs may be mounted from.
    fn repository(&self) -> Option<&Reference> {
        None
    }
}

/// Opens a blob when its turn comes.
type Open<'a> = &'a mut dyn FnMut() -> Result<Box<dyn Read + Send + 'a>, Error>;

/// Where an image goes.
trait Sink: Sync {
    /// Takes a blob, unless it is there; whether it was not.
    fn blob(&self, descriptor: &Descriptor, from: Option<&Reference>, open: Open<'_>) -> Result<bool, Error>;
    /// Takes a manifest or index; the named one comes last.
    fn manifest(&self, document: &Fetched, named: bool) -> Result<(), Error>;
    /// Makes visible what was taken.
    fn finish(&self) -> Result<(), Error>;
}

/// What is to be copied, children before parents.
#[derive(Default)]
struct Plan {
    documents: Vec<Fetched>,
    blobs: Vec<Descriptor>,
    seen: HashSet<Digest>,
    bytes: u64,
}

/// Copies an image.
///
/// # Errors
/// `NotFound` when it is not there or has not the platform, `InvalidArgument` for malformed documents, `DataLoss` for
/// bytes that are not what was promised, `AlreadyExists` for an archive that is there, `Unsupported` for what the target
/// cannot hold, and what the registry client and the file system say.
pub fn copy(
    client: &Client,
    from: &Location,
    to: &Location,
    how: &Copy,
    observer: &dyn Observer,
) -> Result<Copied, Error> {
    let source = open_source(client, from).context(|| format!("read {from}"))?;
    let top = source.top().context(|| format!("read {from}"))?;
    let top = chosen(source.as_ref(), top, how).context(|| format!("read {from}"))?;
    let mut plan = Plan::default();
    plan.add(source.as_ref(), top.clone(), 0)
        .context(|| format!("read {from}"))?;
    if how.referrers {
        plan.add_referrers(source.as_ref())
            .context(|| format!("read what refers to {from}"))?;
    }
    let sink = open_sink(client, to, &top).context(|| format!("write {to}"))?;
    let copied = plan
        .carry_out(source.as_ref(), sink.as_ref(), &top, observer)
        .context(|| format!("write {to}"))?;
    Ok(copied)
}

fn open_source<'a>(client: &'a Client, from: &Location) -> Result<Box<dyn Source + 'a>, Error> {
    Ok(match from {
        Location::Registry(name) => Box::new(registry::Repository::new(client, name)),
        Location::Layout(folder, name) => Box::new(layout::open(folder, name.as_deref())?),
        Location::LayoutArchive(file, name) => Box::new(archive::open_layout(file, name.as_deref())?),
        Location::DockerArchive(file, name) => Box::new(archive::open_docker(file, name.as_ref())?),
    })
}

fn open_sink<'a>(client: &'a Client, to: &Location, top: &Fetched) -> Result<Box<dyn Sink + 'a>, Error> {
    Ok(match to {
        Location::Registry(name) => Box::new(registry::Target::new(client, name, top)?),
        Location::Layout(folder, name) => Box::new(layout::Folder::create(folder, name.clone())?),
        Location::LayoutArchive(file, name) => Box::new(archive::Archive::create(file, name.clone(), None)?),
        Location::DockerArchive(file, name) => {
            if is_index(top) {
                let message = "a docker archive holds single images, and this is a list of them";
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint("leave out --all, or write an oci-archive"));
            }
            let names = name.iter().map(Reference::familiar).collect();
            Box::new(archive::Archive::create(
                file,
                name.as_ref().map(Reference::canonical),
                Some(names),
            )?)
        }
    })
}

/// Takes one image out of an index, unless all are wanted.
fn chosen(source: &dyn Source, top: Fetched, how: &Copy) -> Result<Fetched, Error> {
    let Document::Index(index) = parse(&top)? else {
        return Ok(top);
    };
    if how.all {
        return Ok(top);
    }
    let wanted = how.platform.clone().unwrap_or_else(Platform::host);
    let Some(descriptor) = index.choose(&wanted) else {
        let message = format!("no matching manifest for {wanted} in the manifest list entries");
        return Err(Error::new(ErrorKind::NotFound, message)
            .with_hint("--platform names another, --all takes them all"));
    };
    source.manifest(descriptor)
}

fn parse(document: &Fetched) -> Result<Document, Error> {
    let declared = Some(document.descriptor.media_type.as_str()).filter(|kind| !kind.is_empty());
    Document::parse(&document.bytes, declared)
        .context(|| format!("read the manifest {}", document.descriptor.digest))
}

fn is_index(document: &Fetched) -> bool {
    matches!(parse(document), Ok(Document::Index(_)))
}

impl Plan {
    fn add(&mut self, source: &dyn Source, document: Fetched, depth: usize) -> Result<(), Error> {
        if !self.seen.insert(document.descriptor.digest) {
            return Ok(());
        }
        self.bytes += document.bytes.len() as u64;
        if depth > MAX_DEPTH || self.documents.len() >= MAX_DOCUMENTS || self.bytes > MAX_BYTES {
            let message = "the image has more manifests, or deeper ones, than an image has";
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        match parse(&document)? {
            Document::Manifest(manifest) => self.add_blobs(&manifest),
            Document::Index(index) => self.add_children(source, &index, depth)?,
        }
        self.documents.push(document);
        Ok(())
    }

    fn add_blobs(&mut self, manifest: &Manifest) {
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            // What may not be distributed is fetched from its maker by whoever runs it (image-spec `layer.md`).
            let foreign =
                blob.media_type.contains("nondistributable") || blob.media_type.contains(".foreign.");
            if !foreign && self.seen.insert(blob.digest) {
                self.blobs.push(blob.clone());
            }
        }
    }

    fn add_children(&mut self, source: &dyn Source, index: &Index, depth: usize) -> Result<(), Error> {
        for child in &index.manifests {
            if self.seen.contains(&child.digest) {
                continue;
            }
            let document = source.manifest(child)?;
            let (found, promised) = (document.bytes.len() as u64, child.size);
            if found != promised {
                let message = format!(
                    "manifest {} has {found} bytes, its index says {promised}",
                    child.digest
                );
                return Err(Error::new(ErrorKind::DataLoss, message));
            }
            self.add(source, document, depth + 1)?;
        }
        Ok(())
    }

    fn add_referrers(&mut self, source: &dyn Source) -> Result<(), Error> {
        let mut at = 0;
        // Signatures of signatures too: the list grows while it is walked, within the bounds of `add`.
        while at < self.documents.len() {
            for found in source.referrers(&self.documents[at].descriptor.digest)? {
                let document = source.manifest(&found)?;
                self.add(source, document, 0)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn carry_out(
        &self,
        source: &dyn Source,
        sink: &dyn Sink,
        top: &Fetched,
        observer: &dyn Observer,
    ) -> Result<Copied, Error> {
        let fresh = std::sync::atomic::AtomicUsize::new(0);
        each(&self.blobs, |blob, stop| {
            if move_blob(source, sink, blob, stop, observer)? {
                fresh.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })?;
        let named = |document: &&Fetched| document.descriptor.digest == top.descriptor.digest;
        for document in self.documents.iter().filter(|document| !named(document)) {
            sink.manifest(document, false)?;
        }
        sink.manifest(top, true)?;
        sink.finish()?;
        Ok(Copied {
            digest: top.descriptor.digest,
            media_type: top.descriptor.media_type.clone(),
            documents: self.documents.len(),
            blobs: fresh.into_inner(),
        })
    }
}

fn move_blob(
    source: &dyn Source,
    sink: &dyn Sink,
    blob: &Descriptor,
    stop: &Stop,
    observer: &dyn Observer,
) -> Result<bool, Error> {
    let short = blob.digest.short();
    let what = || format!("copy blob {}", blob.digest);
    let mut open = || {
        observer.observe(Progress::Begin {
            id: &short,
            what: "Copying",
            total: Some(blob.size),
        });
        let reader = source.blob(blob)?;
        let metered = Metered::new(reader, &short, observer, stop, None);
        Ok(Box::new(metered.transparent()) as Box<dyn Read + Send>)
    };
    let fresh = sink.blob(blob, source.repository(), &mut open).context(what)?;
    let status = if fresh { "Copied" } else { "Already exists" };
    observer.observe(Progress::End { id: &short, status });
    Ok(fresh)
}

/// A descriptor as it is written into an index.
fn entry(document: &Fetched) -> Descriptor {
    let bytes = &document.bytes;
    let kind = match document.descriptor.media_type.as_str() {
        "" => media_type::OCI_MANIFEST,
        kind => kind,
    };
    Descriptor::of(kind, bytes)
}
