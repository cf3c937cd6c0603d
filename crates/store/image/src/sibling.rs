//! Images without a tag that a name has all the same: those for other machines, of the index that its image came by.

use std::collections::{HashMap, HashSet};

use dhow_content::ContentStore as _;
use dhow_meta::Lease;
use dhow_oci::{Document, MAX_DOCUMENT};
use dhow_reference::Reference;
use dhow_types::{Digest, ImageId};

use crate::attest::is_attestation;
use crate::image::{Image, Summary};
use crate::types::{Removed, Use};
use crate::{Context as _, Error, Store};

impl Store {
    /// Says of each image without a tag which named images are of an index with it, and whether any tag keeps it. Reads nothing
    /// when those that came from a registry have tags.
    pub(crate) fn find_siblings(&self, summaries: &mut [Summary]) {
        let bare = summaries
            .iter()
            .filter(|summary| summary.dangling && summary.record.manifest.is_some());
        let bare: HashSet<ImageId> = bare.map(|summary| summary.record.id).collect();
        if bare.is_empty() {
            return;
        }
        let mut indexes: HashMap<Digest, Vec<ImageId>> = HashMap::new();
        let mut found: HashMap<ImageId, Vec<ImageId>> = HashMap::new();
        let mut tagged = HashSet::new();
        for holder in summaries.iter() {
            let id = holder.record.id;
            for digest in self.indexes_of(holder) {
                let members = indexes.entry(digest).or_insert_with(|| self.members(&digest));
                if !members.contains(&id) {
                    continue;
                }
                for member in members.iter().filter(|one| bare.contains(one) && **one != id) {
                    found.entry(*member).or_default().push(id);
                    if !holder.dangling {
                        tagged.insert(*member);
                    }
                }
            }
        }
        for summary in summaries {
            summary.named_by = found.remove(&summary.record.id).unwrap_or_default();
            summary.named_by.sort();
            summary.named_by.dedup();
            summary.dangling &= !tagged.contains(&summary.record.id);
        }
    }

    /// The digests that may be those of the indexes that the names of an image mean: what each tag was pulled by, and of one
    /// that does not say it those that its repository has.
    fn indexes_of(&self, image: &Summary) -> HashSet<Digest> {
        let own = |repository: &str| {
            let own = image.digests.iter().filter(move |(repo, _)| repo == repository);
            own.map(|(_, digest)| *digest).collect::<Vec<_>>()
        };
        let mut indexes = HashSet::new();
        for name in image.names.iter().filter_map(|name| Reference::parse(name).ok()) {
            match self.pulled_by(&name) {
                Some(digest) => drop(indexes.insert(digest)),
                None => indexes.extend(own(&name.name())),
            }
        }
        if image.names.is_empty() {
            indexes.extend(image.digests.iter().map(|(_, digest)| *digest));
        }
        if let Some(manifest) = &image.record.manifest {
            indexes.remove(manifest);
        }
        indexes
    }

    /// The images of an index whose manifests are here; none of what is no index.
    fn members(&self, digest: &Digest) -> Vec<ImageId> {
        let bytes = self.content.read(digest, MAX_DOCUMENT).unwrap_or_default();
        let Ok(Document::Index(index)) = Document::parse(&bytes, None) else {
            return Vec::new();
        };
        let images = index.manifests.iter().filter(|entry| !is_attestation(entry));
        let manifests = images.filter_map(|entry| self.manifest_of(entry));
        manifests
            .map(|manifest| ImageId(manifest.config.digest))
            .collect()
    }

    /// The images without a name that nothing but the names of this one keep.
    pub(crate) fn kept_by(&self, holder: &ImageId) -> Result<Vec<ImageId>, Error> {
        let summaries = self.summaries()?;
        let its = summaries
            .iter()
            .filter(|one| one.digests.is_empty() && one.named_by == [*holder]);
        Ok(its.map(|one| one.record.id).collect())
    }

    /// The index by which a name has siblings, kept from sweeps while the name goes.
    pub(crate) fn hold_index(
        &self,
        image: &Image,
        name: Option<&Reference>,
        siblings: &[ImageId],
    ) -> Result<(Option<Digest>, Option<Lease>), Error> {
        let name = name.filter(|_| !siblings.is_empty());
        let Some((digest, _)) = name.and_then(|name| self.index_by(image, name)) else {
            return Ok((None, None));
        };
        let lease = Lease::acquire(&self.root)?;
        lease.pin(&digest)?;
        Ok((Some(digest), Some(lease)))
    }

    /// What becomes of the siblings of an image that lost a name: another name of it gets the index of that one, so that they
    /// stay; without one they go.
    pub(crate) fn settle(
        &self,
        siblings: &[ImageId],
        holder: &ImageId,
        index: Option<Digest>,
        uses: &[Use],
    ) -> Result<Vec<Removed>, Error> {
        if self.unnamed(siblings)?.is_empty() {
            return Ok(Vec::new());
        }
        let tags = self.meta.tags_of(holder)?;
        if let (Some(index), Some(tag)) = (index, tags.first()) {
            let tag = Reference::parse(tag).context(|| format!("read the name {tag:?} of the index"))?;
            self.give_index(holder, &tag, &index)?;
        }
        let mut unnamed = self.unnamed(siblings)?;
        unnamed.retain(|id| !uses.iter().any(|user| user.image == *id));
        self.edit(|edit| {
            let mut removed = Vec::new();
            for id in unnamed {
                // It may have got a name meanwhile.
                if edit.tags_of(&id)?.is_empty()
                    && edit.digests_of(&id)?.is_empty()
                    && edit.remove_image(&id)?
                {
                    removed.push(Removed::Deleted(id));
                }
            }
            Ok(removed)
        })
    }

    /// Those of these images that are here and that no name has.
    fn unnamed(&self, images: &[ImageId]) -> Result<Vec<ImageId>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let summaries = self.summaries()?;
        let unnamed = summaries
            .iter()
            .filter(|one| images.contains(&one.record.id) && one.named_by.is_empty());
        Ok(unnamed.map(|one| one.record.id).collect())
    }

    fn give_index(&self, image: &ImageId, tag: &Reference, index: &Digest) -> Result<(), Error> {
        let pinned = tag.clone().without_tag().with_digest(*index);
        let staged = [
            self.stage_name(&pinned, image)?,
            self.stage_name_by(tag, image, Some(index))?,
        ];
        self.edit(|edit| match edit.tagged(&tag.canonical())? {
            Some(now) if now == *image => self.give_names(edit, &staged),
            // It was moved or removed meanwhile.
            _ => Ok(()),
        })
    }
}

/// The images that are used; a name is used with each image that it has, and with it all the others.
pub(crate) fn in_use(summaries: &[Summary], uses: &[Use]) -> HashSet<ImageId> {
    let mut used: HashSet<ImageId> = uses.iter().map(|user| user.image).collect();
    let siblings = || summaries.iter().filter(|summary| !summary.named_by.is_empty());
    let holders = siblings().filter(|one| used.contains(&one.record.id));
    let holders: Vec<ImageId> = holders.flat_map(|one| one.named_by.iter().copied()).collect();
    used.extend(holders);
    let others = siblings().filter(|one| one.named_by.iter().any(|holder| used.contains(holder)));
    let others: Vec<ImageId> = others.map(|one| one.record.id).collect();
    used.extend(others);
    used
}
