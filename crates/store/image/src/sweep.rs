//! What nobody needs goes: layers, configs, manifests. And what there is, in bytes.

use std::collections::{HashMap, HashSet};

use dhow_content::ContentStore as _;
use dhow_meta::{Sweep, live_pins, sweep_leases};
use dhow_types::{DiffId, Digest, ErrorKind, ImageId};

use crate::image::Summary;
use crate::sibling::in_use;
use crate::types::{DiskUsage, LayerUsage, Swept, Usage, Use};
use crate::{Context as _, Error, Store};

/// Files that a sweep keeps open at most.
const MOST_OPEN: usize = 256;

/// How often a sweep looks again, since somebody came to need what it was about to take, before all others wait for it.
const MOST_STOPPED: usize = 16;

impl Store {
    /// Deletes the layers, configs and manifests that no image, container, snapshot, lease or build cache needs.
    ///
    /// What goes is announced and renamed away, and deleted after that: nobody waits for a deletion.
    ///
    /// # Errors
    /// When the store cannot be read or written; what is left goes next time.
    pub fn sweep(&self, uses: &[Use]) -> Result<Swept, Error> {
        self.refresh()?;
        let swept = self.take_away(uses, &|_| true)?;
        if !swept.layers.is_empty() {
            self.forget_blobs(&swept.layers)?;
        }
        self.layers.sweep().context(|| "delete what was swept")?;
        sweep_leases(&self.root, true)?;
        Ok(swept)
    }

    /// Deletes those of these layers that nobody needs: what a work that failed had brought. Containers keep theirs
    /// by their snapshots.
    pub(crate) fn release(&self, layers: &[DiffId]) -> Result<(), Error> {
        if layers.is_empty() {
            return Ok(());
        }
        let swept = self.take_away(&[], &|digest| layers.iter().any(|diff| diff.0 == *digest))?;
        self.forget_blobs(&swept.layers)?;
        self.layers.sweep().context(|| "delete what was swept")?;
        Ok(())
    }

    /// Forgets what blobs these layers had, unless somebody brought them again meanwhile.
    fn forget_blobs(&self, layers: &[DiffId]) -> Result<(), Error> {
        let is_gone = |diff: &&DiffId| !self.layers.contains(diff);
        // Looked for once before, so that the kernel knows: a search in a directory that is being written waits for the disk.
        layers.iter().filter(is_gone).for_each(drop);
        self.meta.edit(|edit| {
            let mut gone = layers.iter().filter(is_gone);
            gone.try_for_each(|diff| edit.forget_blobs(diff))
        })?;
        Ok(())
    }

    /// Renames away what nobody needs, as far as it is asked for.
    ///
    /// Every directory of the store is listed before anything is announced. After that only the few that nobody seemed to
    /// need are asked for again: whoever began to need one since has pinned it, or is in the records.
    fn take_away(&self, uses: &[Use], asked: &dyn Fn(&Digest) -> bool) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut layers = self.layers.list().context(|| "list the layers")?;
        layers.retain(|diff| asked(&diff.0));
        let mut documents = self.content.list().context(|| "list the blobs")?;
        documents.retain(|digest| asked(digest));
        let mut listed = HashMap::new();
        self.retain_unneeded(uses, &mut layers, &mut documents, &mut listed)?;
        let mut tries = 0;
        let announced = loop {
            if layers.is_empty() && documents.is_empty() {
                return Ok(swept);
            }
            let all: Vec<Digest> = layers
                .iter()
                .map(|diff| diff.0)
                .chain(documents.iter().copied())
                .collect();
            let mut announced = if tries < MOST_STOPPED {
                Sweep::announce(&self.root, &all)?
            } else {
                Sweep::alone(&self.root)?
            };
            self.retain_unneeded(uses, &mut layers, &mut documents, &mut listed)?;
            if announced.begin()? {
                break announced;
            }
            tries += 1;
        };
        let mut kept_open = Vec::new();
        for diff in layers {
            // A layer whose size cannot be read goes as well: it is of no use to anybody.
            let bytes = self.layers.layer(&diff).map_or(0, |layer| layer.disk());
            let what = || format!("remove layer {}", diff.short());
            if taken(self.layers.remove(&diff)).context(what)? {
                swept.bytes += bytes;
                swept.layers.push(diff);
            }
        }
        for digest in documents {
            let open = match self.content.open(&digest) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.context(|| "open a blob")?,
            };
            let bytes = open.size();
            // The file system frees its blocks when it is closed: that may wait for a disk.
            if kept_open.len() < MOST_OPEN {
                kept_open.push(open);
            }
            let what = || format!("remove blob {}", digest.short());
            if taken(self.content.remove(&digest)).context(what)? {
                swept.bytes += bytes;
                swept.blobs.push(digest);
            }
        }
        drop(announced);
        drop(kept_open);
        Ok(swept)
    }

    /// Takes from these what anybody needs. What an index lists never changes: it is read once, and `listed` has it then.
    fn retain_unneeded(
        &self,
        uses: &[Use],
        layers: &mut Vec<DiffId>,
        documents: &mut Vec<Digest>,
        listed: &mut HashMap<Digest, Vec<Digest>>,
    ) -> Result<(), Error> {
        // Before the records: a pin ends only after what it was made for is in them.
        let pins = live_pins(&self.root)?;
        if pins.everything {
            layers.clear();
            documents.clear();
            return Ok(());
        }
        let images = self.meta.images()?;
        let mut needed: HashSet<DiffId> = images
            .iter()
            .flat_map(|image| image.layers.iter().copied())
            .collect();
        needed.extend(uses.iter().flat_map(|user| user.layers.iter().copied()));
        needed.extend(self.kept_outside()?);
        needed.extend(self.snapshot_layers()?);
        needed.extend(self.meta.caches()?.into_iter().flat_map(|cache| cache.layers));
        layers.retain(|diff| !needed.contains(diff) && !pins.contains(&diff.0));
        let mut named: HashSet<Digest> = images.iter().map(|image| image.id.0).collect();
        named.extend(images.iter().filter_map(|image| image.manifest));
        // An index that a name with a digest stands for stays as long as the name.
        let pinned: Vec<Digest> = self
            .meta
            .digests()?
            .into_iter()
            .map(|(_, digest, _)| digest)
            .collect();
        named.extend(&pinned);
        documents.retain(|digest| !named.contains(digest) && !pins.contains(digest));
        if !documents.is_empty() {
            for digest in pinned {
                let kept = listed
                    .entry(digest)
                    .or_insert_with(|| self.kept_by_index(&digest));
                documents.retain(|document| !kept.contains(document));
            }
        }
        Ok(())
    }

    /// The layers below every snapshot: a container keeps its root file system, whatever its caller forgot to say.
    fn snapshot_layers(&self) -> Result<HashSet<DiffId>, Error> {
        let mut layers = HashSet::new();
        for key in self.snapshots.list().context(|| "list the snapshots")? {
            match self.snapshots.stack(&key) {
                Ok(stack) => layers.extend(stack),
                // Removed since it was listed, or emptied by a power cut: a container's config names its layers, too.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => {}
                Err(error) => return Err(error).context(|| format!("read the stack of snapshot {key}")),
            }
        }
        Ok(layers)
    }

    /// Bytes of disk by image and layer, from what was measured when each layer was made: no tree is walked. An image counts
    /// with those that its names have for other machines.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn disk_usage(&self, uses: &[Use]) -> Result<DiskUsage, Error> {
        let summaries = self.summaries()?;
        let mut needed: HashSet<DiffId> = uses.iter().flat_map(|user| user.layers.iter().copied()).collect();
        let used = in_use(&summaries, uses);
        for summary in summaries.iter().filter(|one| used.contains(&one.record.id)) {
            needed.extend(summary.record.layers.iter().copied());
        }
        let groups = groups(summaries);
        let mut sharers: HashMap<DiffId, usize> = HashMap::new();
        for diff in groups.iter().flat_map(|group| &group.layers) {
            *sharers.entry(*diff).or_default() += 1;
        }
        let mut usage = DiskUsage::default();
        let mut disk: HashMap<DiffId, u64> = HashMap::new();
        for diff in self.layers.list().context(|| "list the layers")? {
            let Ok(layer) = self.layers.layer(&diff) else {
                continue;
            };
            disk.insert(diff, layer.disk());
            usage.layers_total += layer.disk();
            if !needed.contains(&diff) {
                usage.reclaimable += layer.disk();
            }
            usage.layers.push(LayerUsage {
                diff_id: diff,
                disk: layer.disk(),
                images: sharers.get(&diff).copied().unwrap_or(0),
            });
        }
        for group in groups {
            let bytes = |shared: bool| -> u64 {
                let counted = group
                    .layers
                    .iter()
                    .filter(|diff| (sharers.get(diff).copied().unwrap_or(0) > 1) == shared);
                counted.filter_map(|diff| disk.get(diff)).sum()
            };
            let (shared, unique) = (bytes(true), bytes(false));
            let users = uses.iter().filter(|user| group.images.contains(&user.image));
            usage.images.push(Usage {
                image: group.top.record.id,
                size: shared + unique,
                shared,
                unique,
                containers: users.count(),
                names: group.top.names,
                created: group.top.record.created,
            });
        }
        usage.documents = self.documents_bytes()?;
        Ok(usage)
    }

    fn documents_bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for digest in self.content.list().context(|| "list the blobs")? {
            bytes += self
                .content
                .size(&digest)
                .context(|| "measure a blob")?
                .unwrap_or(0);
        }
        for name in ["meta.db", "meta.db-wal", "meta.db-shm"] {
            bytes += std::fs::metadata(self.root.join(name)).map_or(0, |metadata| metadata.len());
        }
        Ok(bytes)
    }
}

/// An image with those that its names have for other machines.
struct Group {
    top: Summary,
    images: HashSet<ImageId>,
    layers: HashSet<DiffId>,
}

/// In the order of the images.
fn groups(summaries: Vec<Summary>) -> Vec<Group> {
    let (beside, tops): (Vec<Summary>, Vec<Summary>) = summaries.into_iter().partition(Summary::is_beside);
    let mut all: HashMap<ImageId, Vec<&Summary>> = HashMap::new();
    for sibling in &beside {
        for holder in &sibling.named_by {
            all.entry(*holder).or_default().push(sibling);
        }
    }
    let group = |top: Summary| {
        let siblings = all.remove(&top.record.id).unwrap_or_default();
        let own = || siblings.iter().copied().chain([&top]);
        Group {
            images: own().map(|image| image.record.id).collect(),
            layers: own()
                .flat_map(|image| image.record.layers.iter().copied())
                .collect(),
            top,
        }
    };
    tops.into_iter().map(group).collect()
}

/// Whether it was this one that took it away: another sweep may have been faster.
fn taken<E: dhow_types::Failure>(outcome: Result<(), E>) -> Result<bool, E> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}
