//! The build cache: what there is, what goes by hand, and what goes by itself.

use std::collections::{BTreeMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_build::CacheMount;
use dhow_meta::CacheRecord;
use dhow_types::{DiffId, Digest};

use crate::{Context as _, Engine, Error};

/// What an entry of the cache is, in BuildKit's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// The layer of a step.
    Regular,
    /// A directory of `RUN --mount=type=cache`.
    Mount,
}

impl CacheKind {
    /// BuildKit's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Mount => "exec.cachemount",
        }
    }
}

/// One entry of the build cache.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    /// Names it: the layer, or the directory.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// The step, or the id of the mount.
    pub description: String,
    /// Bytes of disk.
    pub bytes: u64,
    /// Whether an image or a container has the layer as well: then its removal frees nothing.
    pub shared: bool,
    /// Whether a step has it now.
    pub in_use: bool,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// When it was last used, seconds since 1970; of a layer to the hour.
    pub used: i64,
    /// Seconds that it took to make; 0 when unknown.
    pub seconds: f64,
    keys: Vec<Digest>,
    mount: Option<CacheMount>,
}

/// What is to go of the cache.
#[derive(Clone, Debug, Default)]
pub struct CachePrune {
    /// Also what images and containers share, of which only the records go.
    pub all: bool,
    /// Only what was not used since this second since 1970.
    pub unused_since: Option<i64>,
    /// Only those whose id begins so.
    pub ids: Vec<String>,
    /// Only those of this kind (BuildKit's names).
    pub kinds: Vec<String>,
    /// Only those with this in their description.
    pub description: Option<String>,
    /// Only those that are shared, or are not.
    pub shared: Option<bool>,
    /// Bytes that may stay: only as much goes, what is cheapest to make again first.
    pub keep: Option<u64>,
    /// Bytes that the disk must have free: what goes stops there.
    pub min_free: Option<u64>,
}

/// Least default budget.
const LEAST: u64 = 10 << 30;

impl CacheEntry {
    /// How little is lost with it: bytes and age for, the time to make it again against.
    fn expendable(&self, now: i64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an order, no sum")]
        let weight = (self.bytes as f64 + 4096.0) * ((now - self.used).max(1) as f64);
        weight / (self.seconds + 0.05)
    }
}

impl Engine {
    /// Every entry of the build cache, oldest use first.
    ///
    /// # Errors
    /// What the store said.
    pub fn cache(&self) -> Result<Vec<CacheEntry>, Error> {
        let mut entries = self.cached_layers()?;
        let root = self.store()?.root();
        for mount in dhow_build::cache_mounts(root).context(|| "list the cache mounts")? {
            let name = mount.name.as_ref().map_or("", |name| name.id.as_str());
            entries.push(CacheEntry {
                id: mount_id(&mount),
                kind: CacheKind::Mount,
                description: format!("cache mount {name}").trim_end().to_owned(),
                bytes: mount.bytes,
                shared: false,
                in_use: mount.in_use,
                created: mount.created,
                used: mount.used,
                seconds: 0.0,
                keys: Vec::new(),
                mount: Some(mount),
            });
        }
        entries.sort_by_key(|entry| entry.used);
        Ok(entries)
    }

    /// The layers of the cache; a layer is one entry, however many keys lead to it.
    fn cached_layers(&self) -> Result<Vec<CacheEntry>, Error> {
        let store = self.store()?;
        let records = store.meta.caches().context(|| "list the build cache")?;
        let images = store.meta.images().context(|| "list the images")?;
        let mut held: HashSet<DiffId> = images.into_iter().flat_map(|image| image.layers).collect();
        held.extend(self.uses()?.into_iter().flat_map(|user| user.layers));
        let mut entries: BTreeMap<Vec<DiffId>, CacheEntry> = BTreeMap::new();
        for record in records {
            let shared = record.layers.iter().all(|layer| held.contains(layer));
            let entry = entries
                .entry(record.layers.clone())
                .or_insert_with(|| new_entry(&record, shared));
            entry.keys.push(record.key);
            entry.used = entry.used.max(record.used);
            entry.created = entry.created.min(record.created);
            entry.seconds = entry.seconds.max(record.seconds);
            if entry.description.is_empty() {
                entry.description = dhow_build::step_of(&record);
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Removes what is asked for; what went.
    ///
    /// # Errors
    /// What the store said.
    pub fn prune_cache(&self, what: &CachePrune) -> Result<Vec<CacheEntry>, Error> {
        let now = now();
        let entries = self.cache()?;
        let mut bytes: u64 = entries.iter().map(own_bytes).sum();
        let mut chosen: Vec<CacheEntry> = entries.into_iter().filter(|entry| what.wants(entry)).collect();
        chosen.sort_by(|one, other| other.expendable(now).total_cmp(&one.expendable(now)));
        let mut free = match what.min_free {
            Some(_) => self.free_bytes()?,
            None => 0,
        };
        let bounded = what.keep.is_some() || what.min_free.is_some();
        let mut gone = Vec::new();
        for entry in chosen {
            let too_much = what.keep.is_some_and(|keep| bytes > keep);
            let too_full = what.min_free.is_some_and(|wanted| free < wanted);
            if bounded && !too_much && !too_full {
                break;
            }
            if self.forget(&entry)? {
                bytes -= own_bytes(&entry);
                free += own_bytes(&entry);
                gone.push(entry);
            }
        }
        self.sweep_cache()?;
        Ok(gone)
    }

    /// Forgets one entry; whether it was there and free to go.
    fn forget(&self, entry: &CacheEntry) -> Result<bool, Error> {
        let store = self.store()?;
        if let Some(mount) = &entry.mount {
            return mount.remove(store.root()).context(|| "remove a cache mount");
        }
        let forgotten: Result<(), dhow_meta::Error> = store.meta.edit(|edit| {
            entry
                .keys
                .iter()
                .try_for_each(|key| edit.remove_cache(key).map(drop))
        });
        forgotten.context(|| "remove a build cache record")?;
        Ok(true)
    }

    fn sweep_cache(&self) -> Result<(), Error> {
        let swept = self.store()?.sweep(&self.uses()?);
        swept.map(drop).context(|| "remove what the cache held")
    }

    /// After a build that made layers: keeps those of the cache within the budget. Cache mounts are not measured here.
    pub(crate) fn keep_cache_within(&self, budget: Option<u64>) -> Result<(), Error> {
        let budget = match budget {
            Some(budget) => budget,
            None => self.default_budget()?,
        };
        // Most of the time there is room, and then nobody has to know what is shared.
        let most = self.store()?.meta.most_cache_bytes();
        if most.context(|| "measure the build cache")? <= budget {
            return Ok(());
        }
        let mut entries = self.cached_layers()?;
        let mut bytes: u64 = entries.iter().map(own_bytes).sum();
        if bytes <= budget {
            return Ok(());
        }
        let now = now();
        entries.retain(|entry| !entry.shared);
        entries.sort_by(|one, other| other.expendable(now).total_cmp(&one.expendable(now)));
        for entry in entries {
            if bytes <= budget {
                break;
            }
            self.forget(&entry)?;
            bytes -= own_bytes(&entry);
        }
        self.sweep_cache()
    }

    /// A tenth of the file system, as BuildKit keeps it, and not less than 10 GiB.
    fn default_budget(&self) -> Result<u64, Error> {
        let status = self.file_system()?;
        Ok((status.f_blocks.saturating_mul(status.f_frsize) / 10).max(LEAST))
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        let status = self.file_system()?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn file_system(&self) -> Result<rustix::fs::StatVfs, Error> {
        let root = &self.settings().root;
        rustix::fs::statvfs(root)
            .map_err(std::io::Error::from)
            .context(|| format!("measure the file system of {}", root.display()))
    }
}

impl CachePrune {
    fn wants(&self, entry: &CacheEntry) -> bool {
        !entry.in_use && self.covers(entry)
    }

    /// Whether an entry is one of those that are asked for.
    #[must_use]
    pub fn covers(&self, entry: &CacheEntry) -> bool {
        let begins = |id: &String| entry.id.starts_with(id.trim_end_matches('*'));
        (self.all || !entry.shared)
            && self.unused_since.is_none_or(|since| entry.used < since)
            && (self.ids.is_empty() || self.ids.iter().any(begins))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == entry.kind.name()))
            && self
                .description
                .as_ref()
                .is_none_or(|text| entry.description.contains(text))
            && self.shared.is_none_or(|shared| entry.shared == shared)
    }
}

/// Bytes that go with the entry.
fn own_bytes(entry: &CacheEntry) -> u64 {
    if entry.shared { 0 } else { entry.bytes }
}

fn new_entry(record: &CacheRecord, shared: bool) -> CacheEntry {
    let id = record.layers.first().map_or(record.key, |layer| layer.0);
    CacheEntry {
        id: id.hex()[..25].to_owned(),
        kind: CacheKind::Regular,
        description: String::new(),
        bytes: record.bytes,
        shared,
        in_use: false,
        created: record.created,
        used: record.used,
        seconds: record.seconds,
        keys: Vec::new(),
        mount: None,
    }
}

fn mount_id(mount: &CacheMount) -> String {
    let names = mount.path.iter().rev().take(2).map(|name| name.to_string_lossy());
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [data, folder] => format!(
            "{}{}",
            &folder[..folder.len().min(25)],
            data.trim_start_matches("data")
        ),
        _ => String::new(),
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: u64, used: i64, seconds: f64) -> CacheEntry {
        CacheEntry {
            id: String::new(),
            kind: CacheKind::Regular,
            description: String::new(),
            bytes,
            shared: false,
            in_use: false,
            created: used,
            used,
            seconds,
            keys: Vec::new(),
            mount: None,
        }
    }

    #[test]
    fn what_is_large_old_and_cheap_to_make_goes_first() {
        let usual = entry(1000, 900, 10.0).expendable(1000);
        assert!(entry(9_000_000, 900, 10.0).expendable(1000) > usual, "larger");
        assert!(entry(1000, 100, 10.0).expendable(1000) > usual, "older");
        assert!(entry(1000, 900, 0.1).expendable(1000) > usual, "cheaper");
        // Neither a step that took no time nor a clock that went back divides by nothing.
        for odd in [entry(0, 1000, 0.0), entry(1000, 2000, 0.0)] {
            assert!(odd.expendable(1000).is_finite());
        }
    }
}
