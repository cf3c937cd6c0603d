//! Tars as places of a copy: an OCI layout in a tar, and what `docker save` writes and `docker load` reads.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dhow_layer::tar::{Reader, Writer};
use dhow_layer::{Compression, Entry, EntryKind, Extent};
use dhow_oci::{Descriptor, Document, ImageConfig, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::Fetched;
use dhow_types::{Digest, ErrorKind, Hasher};

use super::layout::{Files, Layout, index_bytes, refers, small};
use super::read::Verifying;
use super::{Open, Sink, Source};
use crate::archive::{ArchiveImage, FULL_NAME, INDEX, LAYOUT, LAYOUT_BYTES, MANIFEST, REF_NAME, blob_path};
use crate::documents::{check_config, clip};
use crate::{Context as _, Error};

/// Files of one archive, and links from link to link.
const MAX_FILES: usize = 100_000;
const MAX_HOPS: usize = 8;
/// The file is read and written in pieces of this size.
const BUFFER: usize = 256 << 10;

/// A tar whose files are found again by their place in it.
pub(super) struct Tape {
    file: File,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let count = self.file.read_at(&mut buf[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ended early",
            ));
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Tape {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let what = || format!("open the archive {}", path.display());
        let file = File::open(path).context(what)?;
        let mut head = [0; 6];
        let known = file.read_at(&mut head, 0).context(what)?;
        if Compression::sniff(&head[..known]) != Compression::None {
            let message = format!("the archive {} is compressed", path.display());
            return Err(
                Error::new(ErrorKind::Unsupported, message).with_hint("decompress it first, or use load")
            );
        }
        let length = file.metadata().context(what)?.len();
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut tar = Reader::seeking(&file).context(what)?;
        while let Some(entry) = tar.next_entry().context(what)? {
            if files.len() + links.len() >= MAX_FILES {
                let message = format!("{} has more than {MAX_FILES} files", path.display());
                return Err(Error::new(ErrorKind::ResourceExhausted, message));
            }
            let Ok(name) = String::from_utf8(entry.path.clone()) else {
                continue;
            };
            match entry.kind {
                EntryKind::File => {
                    let at = tar.offset();
                    if at.saturating_add(entry.size) > length {
                        let message = format!("{} ended early", path.display());
                        return Err(Error::new(ErrorKind::DataLoss, message));
                    }
                    files.insert(name, (at, entry.size));
                }
                EntryKind::Symlink | EntryKind::Hardlink => {
                    if let Some(target) = crate::load::link_target(&name, &entry) {
                        links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(Self { file, files, links })
    }
}

impl Tape {
    /// Whether it has a file of this name.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Where a file begins, and its length.
    fn place(&self, path: &str) -> Result<(u64, u64), Error> {
        let mut real = path;
        for _ in 0..MAX_HOPS {
            if let Some(place) = self.files.get(real) {
                return Ok(*place);
            }
            match self.links.get(real) {
                Some(target) => real = target,
                None => break,
            }
        }
        let message = format!("the archive has no {}", clip(path));
        Err(Error::new(ErrorKind::NotFound, message))
    }
}

impl Files for Tape {
    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send + '_>, u64), Error> {
        let (at, left) = self.place(path)?;
        let file = &self.file;
        Ok((Box::new(Part { file, at, left }), left))
    }

    fn extent(&self, path: &str) -> Result<Extent, Error> {
        let (at, size) = self.place(path)?;
        let file = self.file.try_clone().context(|| "duplicate a file handle")?;
        Ok(Extent::new(file, at, size))
    }
}

/// Opens an OCI layout in a tar.
pub(super) fn open_layout(path: &Path, name: Option<&str>) -> Result<Layout<Tape>, Error> {
    Layout::new(Tape::open(path)?, name).context(|| format!("read {}", path.display()))
}

/// One image of a docker archive, with a manifest made for it: the archive itself has none.
pub(super) struct Docker {
    tape: Tape,
    top: Fetched,
    /// Where each blob is in the archive.
    places: HashMap<Digest, String>,
}

/// Opens what `docker save` wrote.
pub(super) fn open_docker(path: &Path, name: Option<&Reference>) -> Result<Docker, Error> {
    let what = || format!("read {}", path.display());
    let tape = Tape::open(path)?;
    let bytes = small(&tape, MANIFEST).context(what)?;
    let images: Vec<ArchiveImage> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("parse {MANIFEST}"), error))
        .context(what)?;
    let image = wanted(&images, name).context(what)?;
    let config_bytes = small(&tape, &image.config).context(what)?;
    let paths = image.layers.as_deref().unwrap_or_default();
    let config = check_config(&config_bytes, paths.len(), &clip(&image.config)).context(what)?;
    let config_descriptor = Descriptor::of(media_type::DOCKER_CONFIG, &config_bytes);
    let mut places = HashMap::from([(config_descriptor.digest, image.config.clone())]);
    let mut layers = Vec::new();
    for (path, position) in paths.iter().zip(0..) {
        let layer = described(&tape, path, &config, position).context(what)?;
        places.insert(layer.digest, path.clone());
        layers.push(layer);
    }
    let mut manifest = Manifest::new(config_descriptor, layers);
    manifest.media_type = Some(media_type::DOCKER_MANIFEST.to_owned());
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest", error))?;
    let top = Fetched {
        descriptor: Descriptor::of(media_type::DOCKER_MANIFEST, &bytes),
        bytes,
    };
    Ok(Docker { tape, top, places })
}

pub(super) fn wanted<'a>(
    images: &'a [ArchiveImage],
    name: Option<&Reference>,
) -> Result<&'a ArchiveImage, Error> {
    let names = |image: &'a ArchiveImage| image.repo_tags.as_deref().unwrap_or_default().iter();
    let found = match name {
        Some(name) => images
            .iter()
            .find(|image| names(image).any(|tag| Reference::parse(tag).is_ok_and(|tag| tag == *name))),
        None => images.first().filter(|_| images.len() == 1),
    };
    found.ok_or_else(|| {
        let known: Vec<String> = images
            .iter()
            .flat_map(names)
            .take(20)
            .map(|name| clip(name))
            .collect();
        let of = name.map_or_else(String::new, |name| format!(" named {}", name.familiar()));
        Error::new(
            ErrorKind::NotFound,
            format!("the archive has no single image{of}"),
        )
        .with_hint(format!("it has {}", known.join(", ")))
    })
}

/// What a layer of the archive is: its bytes are hashed once, and told by themselves and not by their name.
fn described(tape: &Tape, path: &str, config: &ImageConfig, position: usize) -> Result<Descriptor, Error> {
    let (mut reader, size) = tape.open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut kind = None;
    loop {
        let count = reader
            .read(&mut buffer)
            .context(|| format!("read layer {}", clip(path)))?;
        if count == 0 {
            break;
        }
        kind.get_or_insert_with(|| Compression::sniff(&buffer[..count]));
        hasher.update(&buffer[..count]);
    }
    let digest = hasher.finish();
    let kind = match kind {
        Some(Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
        Some(Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        None | Some(Compression::None) => {
            // The config says what an uncompressed layer must be.
            if config
                .rootfs
                .diff_ids
                .get(position)
                .is_some_and(|diff| diff.0 != digest)
            {
                let message = format!(
                    "layer {} of the archive is not the one that its config names",
                    clip(path)
                );
                return Err(Error::new(ErrorKind::DataLoss, message));
            }
            media_type::DOCKER_LAYER
        }
        Some(_) => {
            let message = format!(
                "layer {} of the archive has a compression that registries have no name for",
                clip(path)
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    Ok(Descriptor::new(kind, digest, size))
}

impl Source for Docker {
    fn top(&self) -> Result<Fetched, Error> {
        Ok(self.top.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let message = format!("a docker archive has no manifest {}", descriptor.digest);
        Err(Error::new(ErrorKind::NotFound, message))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        let path = self.places.get(&descriptor.digest).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the archive has no blob {}", descriptor.digest),
            )
        })?;
        let (reader, _) = self.tape.open(path)?;
        Ok(Box::new(Verifying::new(reader, descriptor)))
    }

    fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>, Error> {
        Ok(Vec::new())
    }
}

/// A tar to write: an OCI layout, with docker's words in it where they are wanted. Layers go in as they are; docker
/// (since 1.10) and podman load compressed ones.
pub(super) struct Archive {
    place: PathBuf,
    beside: PathBuf,
    name: Option<String>,
    /// Names for docker, when it is to load the archive.
    docker: Option<Vec<String>>,
    inside: Mutex<Inside>,
}

struct Inside {
    tar: Option<Writer<BufWriter<File>>>,
    entries: Vec<Descriptor>,
    named: Option<Vec<u8>>,
}

impl Archive {
    pub(super) fn create(
        place: &Path,
        name: Option<String>,
        docker: Option<Vec<String>>,
    ) -> Result<Self, Error> {
        let what = || format!("make the archive {}", place.display());
        if place.symlink_metadata().is_ok() {
            let message = format!("{} is there already", place.display());
            return Err(Error::new(ErrorKind::AlreadyExists, message)
                .with_hint("archives are not changed: name another file"));
        }
        let mut beside = place.to_owned().into_os_string();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(beside);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&beside)
            .context(what)?;
        let mut tar = Writer::new(BufWriter::with_capacity(BUFFER, file));
        append(&mut tar, LAYOUT, LAYOUT_BYTES.len() as u64, LAYOUT_BYTES)?;
        for folder in ["blobs", "blobs/sha256"] {
            tar.append(&Entry::new(folder, EntryKind::Directory, 0o755), io::empty())
                .context(what)?;
        }
        let inside = Mutex::new(Inside {
            tar: Some(tar),
            entries: Vec::new(),
            named: None,
        });
        Ok(Self {
            place: place.to_owned(),
            beside,
            name,
            docker,
            inside,
        })
    }

    fn write(&self, inside: &mut Inside, path: &str, size: u64, body: impl Read) -> Result<(), Error> {
        let tar = inside
            .tar
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the archive has its end already"))?;
        append(tar, path, size, body)
    }

    /// Docker's list of images, of the one that this archive has.
    fn docker_list(&self, manifest: &[u8], names: &[String]) -> Result<Vec<u8>, Error> {
        let Document::Manifest(manifest) = Document::parse(manifest, None).context(|| "read the manifest")?
        else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a docker archive holds single images",
            ));
        };
        let image = ArchiveImage {
            config: blob_path(&manifest.config.digest),
            repo_tags: Some(names.to_vec()).filter(|names| !names.is_empty()),
            layers: Some(
                manifest
                    .layers
                    .iter()
                    .map(|layer| blob_path(&layer.digest))
                    .collect(),
            ),
            layer_sources: BTreeMap::new(),
        };
        serde_json::to_vec(&[image])
            .map_err(|error| Error::because(ErrorKind::Internal, "write the archive's index", error))
    }
}

impl Sink for Archive {
    fn blob(&self, descriptor: &Descriptor, _: Option<&Reference>, open: Open<'_>) -> Result<bool, Error> {
        // One after the other: a tar has one end.
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = open()?;
        self.write(
            &mut inside,
            &blob_path(&descriptor.digest),
            descriptor.size,
            EndChecked {
                inner: reader,
                left: descriptor.size,
            },
        )?;
        Ok(true)
    }

    fn manifest(&self, document: &Fetched, named: bool) -> Result<(), Error> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = document.bytes.as_slice();
        self.write(
            &mut inside,
            &blob_path(&document.descriptor.digest),
            bytes.len() as u64,
            bytes,
        )?;
        if named || refers(document) {
            let mut entry = super::entry(document);
            if let Some(name) = self.name.as_ref().filter(|_| named) {
                let (tag, whole) = match Reference::parse(name) {
                    Ok(full) if self.docker.is_some() => {
                        (full.tag().unwrap_or_default().to_owned(), Some(full.canonical()))
                    }
                    _ => (name.clone(), None),
                };
                entry.annotations.insert(REF_NAME.to_owned(), tag);
                entry
                    .annotations
                    .extend(whole.map(|whole| (FULL_NAME.to_owned(), whole)));
            }
            inside.entries.push(entry);
        }
        if named {
            inside.named = Some(document.bytes.clone());
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Error> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index_bytes(std::mem::take(&mut inside.entries))?;
        self.write(&mut inside, INDEX, index.len() as u64, index.as_slice())?;
        if let (Some(names), Some(manifest)) = (&self.docker, inside.named.take()) {
            let list = self.docker_list(&manifest, names)?;
            self.write(&mut inside, MANIFEST, list.len() as u64, list.as_slice())?;
        }
        let what = || format!("write {}", self.place.display());
        let Some(tar) = inside.tar.take() else {
            return Ok(());
        };
        let mut buffer = tar.finish().context(what)?;
        buffer.flush().context(what)?;
        buffer.get_ref().sync_data().context(what)?;
        // Made meanwhile by somebody else: theirs stays.
        fs::hard_link(&self.beside, &self.place).context(what)
    }
}

/// What was not finished goes; what was has its own name by now.
impl Drop for Archive {
    fn drop(&mut self) {
        fs::remove_file(&self.beside).unwrap_or_default();
    }
}

/// A tar entry takes as many bytes as it announced and looks no further: this does, so that what is verified at its end
/// is verified before its last byte is written.
struct EndChecked<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for EndChecked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 && count > 0 && self.inner.read(&mut [0])? > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "blob is longer than it should be",
            ));
        }
        Ok(count)
    }
}

fn append<W: Write>(tar: &mut Writer<W>, name: &str, size: u64, body: impl Read) -> Result<(), Error> {
    let mut entry = Entry::new(name, EntryKind::File, 0o644);
    entry.size = size;
    tar.append(&entry, body)
        .context(|| format!("write {name} to the archive"))
}
