//! The build cache elsewhere: an OCI artifact in a registry or in a layout on disk, or inline in an image.
//!
//! Its manifest has the artifact type [`ARTIFACT`]; the config lists results of steps with their keys, and cache mounts. Its
//! layers are the layers of the steps, each with its diff id as an annotation, and the cache mounts as tars. A build that has
//! such a cache asks for a key when its own cache has not got it, and fetches the one layer then.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dhow_build::{Built, INLINE_CACHE, MountName, StepResult};
use dhow_image::{LayoutFolder, PackedBlob, Store};
use dhow_layer::{Compression, Unpack, decoder};
use dhow_oci::{Descriptor, Document, ImageConfig, Index, MAX_DOCUMENT, Manifest, media_type};
use dhow_reference::Reference;
use dhow_rootpath::Root;
use dhow_transport::Client;
use dhow_types::{DiffId, Digest, ErrorKind, Observer, Progress};
use serde::{Deserialize, Serialize};

use crate::container::{restore_tree, write_tree};
use crate::{Context as _, Engine, Error};

/// Type of the artifact.
const ARTIFACT: &str = "application/vnd.dhow.buildcache.v1";
/// Type of its config.
const CONFIG: &str = "application/vnd.dhow.buildcache.config.v1+json";
/// Type of the tar of a cache mount.
const MOUNT: &str = "application/vnd.dhow.buildcache.mount.v1.tar+gzip";
/// Annotation of a layer with its diff id.
const DIFF_ID: &str = "org.dhow.diff-id";
/// Annotation of an index entry with its tag (image-spec `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Most results and mounts of one cache.
const MAX_RECORDS: usize = 100_000;

/// Where a cache is or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A folder with an OCI layout, and the name in it.
    Layout(PathBuf, String),
    /// A registry: a cache of its own, or an image with an inline cache.
    Registry(Reference),
}

impl std::fmt::Display for CachePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout(folder, _) => write!(f, "{}", folder.display()),
            Self::Registry(name) => f.write_str(&name.familiar()),
        }
    }
}

/// How a cache is written.
#[derive(Clone, Debug)]
pub struct CacheExport {
    /// Where.
    pub to: CachePlace,
    /// The results of all steps (BuildKit's `mode=max`), not only of those whose layers the image has.
    pub all: bool,
    /// The contents of the cache mounts, too.
    pub mounts: bool,
}

#[derive(Serialize, Deserialize)]
struct Config {
    version: u32,
    records: Vec<StepResult>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<StoredMount>,
}

#[derive(Serialize, Deserialize)]
struct StoredMount {
    #[serde(flatten)]
    name: MountName,
    blob: Digest,
}

impl Engine {
    /// Writes what builds gave where other builds find it, such as those for several machines; the digest of the cache's
    /// manifest.
    ///
    /// # Errors
    /// What reading the store and writing said.
    pub fn export_cache(&self, built: &[Built], how: &CacheExport) -> Result<Digest, Error> {
        self.write_cache(built, how)
            .context(|| format!("write the build cache to {}", how.to))
    }

    fn write_cache(&self, built: &[Built], how: &CacheExport) -> Result<Digest, Error> {
        let own = |layer| {
            built
                .iter()
                .any(|one| one.image.config.rootfs.diff_ids.contains(layer))
        };
        let all = built.iter().flat_map(|one| &one.results);
        let mut records: Vec<StepResult> = all
            .filter(|record| how.all || own(&record.layer))
            .cloned()
            .collect();
        records.sort_by(|one, other| one.keys.cmp(&other.keys));
        records.dedup_by(|one, other| one.keys == other.keys);
        let target = Target::open(self, &how.to)?;
        let mut layers = Vec::new();
        let mut seen = BTreeSet::new();
        for record in records.iter().filter(|record| seen.insert(record.layer)) {
            let mut layer = target.layer(&record.layer)?;
            layer
                .annotations
                .insert(DIFF_ID.to_owned(), record.layer.to_string());
            layers.push(layer);
        }
        let mut mounts = Vec::new();
        let used: BTreeSet<&MountName> = built.iter().flat_map(|one| &one.mounts).collect();
        for name in used.into_iter().filter(|_| how.mounts) {
            if let Some(packed) = self.pack_mount(name)? {
                target.put(&packed)?;
                let blob = packed.descriptor.digest;
                mounts.push(StoredMount {
                    name: name.clone(),
                    blob,
                });
                layers.push(packed.descriptor);
            }
        }
        let config = PackedBlob::of(
            CONFIG,
            json(&Config {
                version: 1,
                records,
                mounts,
            })?,
        );
        target.put(&config)?;
        let mut manifest = Manifest::new(config.descriptor, layers);
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        target.finish(json(&manifest)?)
    }

    /// The content of a cache mount, if there is one.
    fn pack_mount(&self, name: &MountName) -> Result<Option<PackedBlob>, Error> {
        let store = self.store()?;
        let what = || format!("pack the cache mount {}", name.id);
        let Some(data) = dhow_build::data_of(store.root(), name).context(what)? else {
            return Ok(None);
        };
        let root = Root::open(data.path()).context(what)?;
        let (reader, mut writer) = io::pipe().context(what)?;
        std::thread::scope(|scope| {
            let walked = scope.spawn(move || write_tree(&root, &mut writer));
            let packed = store.pack_stream(reader, MOUNT, Compression::Gzip);
            let panicked = || Error::new(ErrorKind::Internal, "the reader of a cache mount panicked");
            walked.join().map_err(|_| panicked())?.context(what)?;
            packed.map(Some).context(what)
        })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::because(ErrorKind::Internal, "write the cache's documents", error))
}

/// Where blobs go.
enum Target<'e> {
    Layout(&'e Store, LayoutFolder, String),
    Registry(&'e Store, &'e Client, Reference),
}

impl<'e> Target<'e> {
    fn open(engine: &'e Engine, place: &CachePlace) -> Result<Self, Error> {
        let store = engine.store()?;
        Ok(match place {
            CachePlace::Layout(folder, name) => {
                let layout = LayoutFolder::open(folder).context(|| "open the folder")?;
                Self::Layout(store, layout, name.clone())
            }
            CachePlace::Registry(name) => Self::Registry(store, engine.client()?, name.clone()),
        })
    }

    fn put(&self, blob: &PackedBlob) -> Result<(), Error> {
        let what = || format!("write blob {}", blob.descriptor.digest.short());
        match self {
            Self::Layout(_, layout, _) => layout.put(blob).context(what),
            Self::Registry(_, client, name) => {
                if client.has_blob(name, &blob.descriptor.digest).context(what)? {
                    return Ok(());
                }
                let mut reader = blob.open().context(what)?;
                client
                    .push_blob(name, &blob.descriptor, &mut reader)
                    .context(what)
            }
        }
    }

    /// Brings a layer there; its blob.
    fn layer(&self, diff: &DiffId) -> Result<Descriptor, Error> {
        let what = || format!("write layer {}", diff.short());
        let (Self::Layout(store, ..) | Self::Registry(store, ..)) = self;
        if let Self::Registry(_, client, name) = self {
            // A blob that the registry has is not made again.
            for known in store.meta.blobs_of(diff).context(what)? {
                if client.has_blob(name, &known.digest).context(what)? {
                    return Ok(Descriptor::new(&known.media_type, known.digest, known.size));
                }
            }
        }
        let packed = store.pack(diff, Compression::Gzip).context(what)?;
        self.put(&packed)?;
        Ok(packed.descriptor)
    }

    fn finish(self, manifest: Vec<u8>) -> Result<Digest, Error> {
        let what = || "write the manifest";
        let digest = Digest::of(&manifest);
        match self {
            Self::Layout(_, layout, name) => {
                let blob = PackedBlob::of(media_type::OCI_MANIFEST, manifest);
                layout.put(&blob).context(what)?;
                let mut entry = blob.descriptor;
                entry.artifact_type = Some(ARTIFACT.to_owned());
                entry.annotations.insert(REF_NAME.to_owned(), name);
                layout.list(vec![entry]).context(what)?;
            }
            Self::Registry(_, client, name) => {
                let pushed = client.push_manifest(&name, media_type::OCI_MANIFEST, &manifest);
                pushed.context(what)?;
            }
        }
        Ok(digest)
    }
}

/// Most images of one index of which the inline cache is read.
const MAX_IMAGES: usize = 32;

/// Caches elsewhere that a build may take from; read when they are first asked.
pub(crate) struct Imports<'e> {
    engine: &'e Engine,
    places: &'e [CachePlace],
    loaded: OnceLock<Vec<Loaded>>,
    /// Where a cache that cannot be had is told.
    told: &'e dyn Observer,
}

/// One cache, as far as its documents say.
struct Loaded {
    place: CachePlace,
    records: HashMap<Digest, StepResult>,
    layers: HashMap<DiffId, Descriptor>,
    mounts: HashMap<MountName, Descriptor>,
}

impl<'e> Imports<'e> {
    pub(crate) fn new(engine: &'e Engine, places: &'e [CachePlace], told: &'e dyn Observer) -> Self {
        Self {
            engine,
            places,
            loaded: OnceLock::new(),
            told,
        }
    }

    fn all(&self) -> &[Loaded] {
        self.loaded.get_or_init(|| {
            let mut loaded = Vec::new();
            for place in self.places {
                match load(self.engine, place) {
                    Ok(found) => loaded.extend(found),
                    Err(error) => self.warn(&format!("importing cache manifest from {place}"), &error),
                }
            }
            loaded
        })
    }

    fn warn(&self, what: &str, error: &Error) {
        let text = format!("{what}: {}", crate::worker::chain(error));
        self.told.observe(Progress::Warning(&text));
    }

    /// The result of a step by one of its keys, its layer fetched. What cannot be had counts as not there.
    pub(crate) fn find(&self, keys: &[Digest]) -> Option<StepResult> {
        for loaded in self.all() {
            let Some(result) = keys.iter().find_map(|key| loaded.records.get(key)) else {
                continue;
            };
            match self.fetch_layer(loaded, &result.layer) {
                Ok(()) => return Some(result.clone()),
                Err(error) => self.warn(&format!("take a layer from {}", loaded.place), &error),
            }
        }
        None
    }

    fn fetch_layer(&self, loaded: &Loaded, diff: &DiffId) -> Result<(), Error> {
        let store = self.engine.store()?;
        if store.layers.contains(diff) {
            return Ok(());
        }
        let missing = || Error::new(ErrorKind::NotFound, format!("it has no layer {}", diff.short()));
        let blob = loaded.layers.get(diff).ok_or_else(missing)?;
        let how = Unpack {
            expected: Some(*diff),
            size: Some(blob.size),
            ..Unpack::default()
        };
        let reader = open(self.engine, &loaded.place, blob)?;
        let unpacked = store.layers.unpack(reader, &how);
        unpacked
            .map(drop)
            .context(|| format!("unpack layer {}", diff.short()))
    }

    /// Fills a new cache mount. Whatever goes wrong, an empty cache is a cache.
    pub(crate) fn fill(&self, name: &MountName, folder: &Path) {
        for loaded in self.all() {
            let Some(blob) = loaded.mounts.get(name) else {
                continue;
            };
            match self.fill_from(&loaded.place, blob, folder) {
                Ok(()) => return,
                Err(error) => self.warn(&format!("fill the cache mount {}", name.id), &error),
            }
        }
    }

    /// Into a file first: only what has the digest that was promised is unpacked.
    fn fill_from(&self, place: &CachePlace, blob: &Descriptor, folder: &Path) -> Result<(), Error> {
        let what = || format!("fetch blob {}", blob.digest.short());
        let packed =
            self.engine
                .store()?
                .pack_stream(open(self.engine, place, blob)?, MOUNT, Compression::None);
        let packed = packed.context(what)?;
        if packed.descriptor.digest != blob.digest {
            let message = format!("{}: it is another one", what());
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        let (_, tar) = decoder(packed.open().context(what)?).context(what)?;
        let root = Root::open(folder).context(what)?;
        restore_tree(&root, tar)
    }
}

/// Reads a cache's documents; of images for several machines those that have a cache.
fn load(engine: &Engine, place: &CachePlace) -> Result<Vec<Loaded>, Error> {
    let (mut found, mut failed) = (Vec::new(), None);
    for manifest in manifests_at(engine, place)? {
        match load_one(engine, place, manifest) {
            Ok(loaded) => found.push(loaded),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn load_one(engine: &Engine, place: &CachePlace, manifest: Manifest) -> Result<Loaded, Error> {
    let config = read_blob(engine, place, &manifest.config)?;
    let inline = manifest.artifact_type.as_deref() != Some(ARTIFACT);
    let bad = |error: serde_json::Error| {
        Error::because(ErrorKind::InvalidArgument, "read the cache's records", error)
    };
    let (records, mounts, layers) = if inline {
        let image = ImageConfig::parse(&config).context(|| "read the image's config")?;
        let Some(records) = image.extra.get(INLINE_CACHE) else {
            let message = "it is an image without an inline cache of this builder";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let layers = image.rootfs.diff_ids.into_iter().zip(manifest.layers).collect();
        (
            serde_json::from_value(records.clone()).map_err(bad)?,
            Vec::new(),
            layers,
        )
    } else {
        let config: Config = serde_json::from_slice(&config).map_err(bad)?;
        let diff = |layer: &Descriptor| layer.annotations.get(DIFF_ID)?.parse().ok().map(DiffId);
        let layers = manifest
            .layers
            .iter()
            .filter_map(|layer| Some((diff(layer)?, layer.clone())));
        let layers: HashMap<DiffId, Descriptor> = layers.collect();
        let blobs: HashMap<Digest, Descriptor> = manifest
            .layers
            .into_iter()
            .map(|layer| (layer.digest, layer))
            .collect();
        let mounts = config
            .mounts
            .into_iter()
            .filter_map(|mount| Some((mount.name, blobs.get(&mount.blob)?.clone())));
        (config.records, mounts.collect(), layers)
    };
    let records: Vec<StepResult> = records;
    if records.len() > MAX_RECORDS || mounts.len() > MAX_RECORDS {
        let message = format!("it has more than {MAX_RECORDS} records");
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let records = records
        .into_iter()
        .flat_map(|record| {
            record
                .keys
                .clone()
                .into_iter()
                .map(move |key| (key, record.clone()))
        })
        .collect();
    Ok(Loaded {
        place: place.clone(),
        records,
        layers,
        mounts: mounts.into_iter().collect(),
    })
}

/// The manifest of a cache, or of an image, for each of its machines.
fn manifests_at(engine: &Engine, place: &CachePlace) -> Result<Vec<Manifest>, Error> {
    let bytes = match place {
        CachePlace::Registry(name) => {
            engine
                .client()?
                .manifest(name)
                .context(|| "fetch the manifest")?
                .bytes
        }
        CachePlace::Layout(folder, name) => {
            let root = Root::open(folder).context(|| "open the folder")?;
            let bytes = root
                .read(Path::new("index.json"), MAX_DOCUMENT)
                .context(|| "read index.json")?;
            let entry = match Document::parse(&bytes, None).context(|| "read index.json")? {
                Document::Index(index) => named(&index, name),
                Document::Manifest(_) => None,
            };
            let missing = || Error::new(ErrorKind::NotFound, format!("there is no cache {name:?}"));
            read_blob(engine, place, &entry.ok_or_else(missing)?)?
        }
    };
    match Document::parse(&bytes, None).context(|| "read the manifest")? {
        Document::Manifest(manifest) => Ok(vec![manifest]),
        Document::Index(index) => {
            let known = |entry: &&Descriptor| {
                let platform = entry.platform.as_ref();
                platform.is_none_or(|platform| platform.os != "unknown")
            };
            let chosen = index.manifests.iter().filter(known).take(MAX_IMAGES);
            let read = |entry: &Descriptor| {
                let bytes = read_blob(engine, place, entry)?;
                match Document::parse(&bytes, None).context(|| "read the manifest")? {
                    Document::Manifest(manifest) => Ok(manifest),
                    Document::Index(_) => Err(Error::new(ErrorKind::Unsupported, "it is a list of lists")),
                }
            };
            chosen.map(read).collect()
        }
    }
}

fn named(index: &Index, name: &str) -> Option<Descriptor> {
    let fits = |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|found| found == name);
    index.manifests.iter().find(fits).cloned()
}

/// A document, verified.
fn read_blob(engine: &Engine, place: &CachePlace, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let what = || format!("read document {}", blob.digest.short());
    if let (CachePlace::Registry(name), true) = (place, media_type::is_manifest(&blob.media_type)) {
        let fetched = engine.client()?.manifest_at(name, &blob.digest);
        return Ok(fetched.context(what)?.bytes);
    }
    let mut bytes = Vec::new();
    let reader = open(engine, place, blob)?;
    // Records of a large cache are longer than an image's documents.
    let read = reader
        .take(MAX_DOCUMENT * 16 + 1)
        .read_to_end(&mut bytes)
        .context(what)?;
    if read as u64 > MAX_DOCUMENT * 16 {
        return Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!("{}: it is too long", what()),
        ));
    }
    if Digest::of(&bytes) != blob.digest {
        return Err(Error::new(
            ErrorKind::DataLoss,
            format!("{}: it is another one", what()),
        ));
    }
    Ok(bytes)
}

fn open<'e>(
    engine: &'e Engine,
    place: &CachePlace,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send + 'e>, Error> {
    let what = || format!("open blob {}", blob.digest.short());
    match place {
        CachePlace::Registry(name) => {
            let reader = engine.client()?.blob(name, blob).context(what)?;
            Ok(Box::new(reader))
        }
        CachePlace::Layout(folder, _) => {
            let root = Root::open(folder).context(what)?;
            let path = Path::new("blobs/sha256").join(blob.digest.hex());
            Ok(Box::new(root.open_file(&path).context(what)?))
        }
    }
}
