//! An image's own layers on what its base became. Layers stay what they are, but for the files in which package managers keep what is
//! installed: those are merged three ways, and only a layer with such a file is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_image::Image;
use dhow_layer::EntryKind;
use dhow_layer::tar::{Reader, Writer};
use dhow_patch::{Treatment, merge};
use dhow_types::{DiffId, ErrorKind, ImageId};

use crate::algebra::merge::Merged;
use crate::algebra::{BASE_DIGEST, BASE_NAME, rebase};
use crate::{Context as _, Engine, Error};

/// Largest file that is merged, as [`dhow_inventory::MAX_DATABASE`].
const MOST_MERGED: u64 = dhow_inventory::MAX_DATABASE;

/// Contents of files by path.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// What came of it.
pub(super) enum Outcome {
    /// The image, and how many of its layers had to be written again.
    Made { image: ImageId, merged: usize },
    /// Its layers would have come out otherwise on the new base; each place in words.
    Conflicts(Vec<String>),
}

impl Engine {
    pub(super) fn on_new_base(&self, image: &Image, old: &Image, new: &Image) -> Result<Outcome, Error> {
        let below = &old.config.rootfs.diff_ids;
        let Some(own) = image.config.rootfs.diff_ids.strip_prefix(below.as_slice()) else {
            let message = "its first layers are not those of its base";
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        let store = self.store()?;
        let above = Merged::of(store, own, true)?;
        let old_tree = Merged::of(store, below, false)?;
        let new_tree = Merged::of(store, &new.config.rootfs.diff_ids, false)?;
        let mut to_merge: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut conflicts = rebase::conflicts(&above, &old_tree, &new_tree, |path, entry| {
            let treatment = std::str::from_utf8(path).ok().and_then(Treatment::of);
            match (treatment, entry.kind) {
                (Some(treatment), EntryKind::File) if treatment.merges() => to_merge.insert(path.to_vec()),
                (Some(Treatment::Own), EntryKind::File | EntryKind::Whiteout) => true,
                _ => false,
            }
        });
        let mut layers = own.to_vec();
        let mut merged = 0;
        for layer in &mut layers {
            let (replaced, clashes) = self.merged_files(layer, &to_merge, &old_tree, &new_tree)?;
            conflicts.extend(clashes);
            if !replaced.is_empty() && conflicts.is_empty() {
                *layer = self.with_files(layer, &replaced)?;
                merged += 1;
            }
        }
        if !conflicts.is_empty() {
            return Ok(Outcome::Conflicts(conflicts));
        }
        let mut config = rebase::config(image, old, new);
        let from = new.config.rootfs.diff_ids.len();
        config.rootfs.diff_ids.truncate(from);
        config.rootfs.diff_ids.extend(layers);
        let manifest = new.record.manifest.map(|digest| digest.to_string());
        let annotations = BTreeMap::from([
            // What it was called stays true, what it was does not.
            (BASE_DIGEST.to_owned(), manifest.unwrap_or_default()),
        ]);
        let name = store.annotations(image).remove(BASE_NAME);
        let annotations = annotations
            .into_iter()
            .chain(name.map(|name| (BASE_NAME.to_owned(), name)))
            .collect();
        let image = self.derive(image, config, &annotations, &[])?;
        Ok(Outcome::Made { image, merged })
    }

    /// The files of a layer that become others, and what cannot be merged.
    fn merged_files(
        &self,
        layer: &DiffId,
        paths: &BTreeSet<Vec<u8>>,
        old: &Merged,
        new: &Merged,
    ) -> Result<(Contents, Vec<String>), Error> {
        let what = || format!("read the index of layer {}", layer.short());
        let index = self.store()?.layers.layer(layer).context(what)?;
        let index = index.index().context(what)?;
        let mut replaced = BTreeMap::new();
        let mut conflicts = Vec::new();
        for path in paths {
            let shown = String::from_utf8_lossy(path);
            let Some(treatment) = Treatment::of(&shown) else {
                continue;
            };
            match index.find(path).map(|entry| entry.kind) {
                None => continue,
                Some(EntryKind::File) => {}
                Some(_) => {
                    conflicts.push(format!(
                        "/{shown}: a layer has another name of it, or takes it away"
                    ));
                    continue;
                }
            }
            let own = self.bytes_of(layer, path)?;
            let base = |tree: &Merged| match tree.paths.get(path) {
                Some(found) if found.entry.kind == EntryKind::File => {
                    self.bytes_of(&found.layer, &found.original)
                }
                _ => Ok(Vec::new()),
            };
            match merge(treatment, &base(old)?, &base(new)?, &own) {
                Ok(bytes) if bytes != own => {
                    replaced.insert(path.clone(), bytes);
                }
                Ok(_) => {}
                Err(clashes) => {
                    let names: Vec<&str> = clashes.iter().map(|clash| clash.entry.as_str()).collect();
                    conflicts.push(format!(
                        "/{shown}: the image and its base both changed {}",
                        names.join(", ")
                    ));
                }
            }
        }
        Ok((replaced, conflicts))
    }

    pub(super) fn bytes_of(&self, layer: &DiffId, path: &[u8]) -> Result<Vec<u8>, Error> {
        self.layer_bytes(layer, path, MOST_MERGED)
    }

    /// A file of a layer, which has no more than `most` bytes.
    pub(crate) fn layer_bytes(&self, layer: &DiffId, path: &[u8], most: u64) -> Result<Vec<u8>, Error> {
        let what = || {
            let path = String::from_utf8_lossy(path);
            format!("read /{path} of layer {}", layer.short())
        };
        let root = self.store()?.layers.tree(layer).context(what)?;
        let place = Path::new(std::ffi::OsStr::from_bytes(path));
        let file = root.open_file(place).context(what)?;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).context(what)?;
        if bytes.len() as u64 > most {
            let message = format!("{}: it has more than {most} bytes", what());
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        Ok(bytes)
    }

    /// A layer with other contents of some of its files.
    fn with_files(&self, layer: &DiffId, files: &Contents) -> Result<DiffId, Error> {
        let what = || format!("read layer {}", layer.short());
        let tar = self.store()?.layers.layer(layer).context(what)?;
        let tar = tar.tar().context(what)?;
        self.piped(|output| {
            let mut reader = Reader::new(tar);
            let mut writer = Writer::new(output);
            while let Some(mut entry) = reader.next_entry().context(what)? {
                let shown = || format!("write {:?}", String::from_utf8_lossy(&entry.path));
                match files.get(&entry.path).filter(|_| entry.kind == EntryKind::File) {
                    Some(bytes) => {
                        entry.size = bytes.len() as u64;
                        writer
                            .append(&entry, bytes.as_slice())
                            .context(|| format!("write {:?}", String::from_utf8_lossy(&entry.path)))?;
                    }
                    None => writer.append(&entry, &mut reader).context(shown)?,
                }
            }
            writer.finish().context(|| "end the layer").map(drop)
        })
    }
}
