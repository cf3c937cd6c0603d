//! What was looked up lately, in memory, bounded by weight.
//!
//! Two generations: new entries go into the young one; when it is full it becomes the old one, whose entries come back
//! when they are used. Nothing is counted per access. Forgetting advances an epoch, and an entry that was read from the
//! database before that is not taken any more: a slow reader cannot bring back what a writer has changed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A moment in the life of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(u64);

/// Values by text.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    generations: Mutex<Generations<V>>,
    /// Weight of one generation.
    limit: usize,
}

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
    weight: usize,
    epoch: u64,
}

impl<V: Clone> Cache<V> {
    /// A cache of two generations with this weight each.
    pub(crate) fn new(limit: usize) -> Self {
        let generations = Generations {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            epoch: 0,
        };
        Self {
            generations: Mutex::new(generations),
            limit,
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations<V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, or the moment to hand to [`put`](Self::put) after it was looked up elsewhere.
    pub(crate) fn get(&self, key: &str, weight: impl Fn(&V) -> usize) -> Result<V, Epoch> {
        let mut generations = self.generations();
        if let Some(value) = generations.young.get(key) {
            return Ok(value.clone());
        }
        let Some((key, value)) = generations.old.remove_entry(key) else {
            return Err(Epoch(generations.epoch));
        };
        generations.insert(key, value.clone(), weight(&value), self.limit);
        Ok(value)
    }

    /// Takes a value that was looked up at `epoch`, unless something was forgotten since.
    pub(crate) fn put(&self, key: &str, value: V, weight: usize, epoch: Epoch) {
        let mut generations = self.generations();
        if generations.epoch == epoch.0 {
            generations.insert(key.into(), value, weight, self.limit);
        }
    }

    /// Forgets a value, and those that are being looked up now.
    pub(crate) fn forget(&self, key: &str) {
        let mut generations = self.generations();
        generations.epoch += 1;
        generations.young.remove(key);
        generations.old.remove(key);
    }
}

impl<V> Generations<V> {
    fn insert(&mut self, key: Box<str>, value: V, weight: usize, limit: usize) {
        if self.weight + weight > limit {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if weight <= limit {
            self.weight += weight;
            self.young.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_makes_room() {
        let cache: Cache<u32> = Cache::new(10);
        for n in 0..100 {
            let epoch = cache.get("new", |_| 1).unwrap_err();
            cache.put(&format!("k{n}"), n, 1, epoch);
            assert!(cache.get("k0", |_| 1).is_ok(), "used each time");
        }
        assert!(cache.get("k1", |_| 1).is_err());
        let generations = cache.generations();
        let held = generations.young.len() + generations.old.len();
        assert!(held <= 20);
    }

    #[test]
    fn a_slow_reader_does_not_bring_back_what_was_forgotten() {
        let cache: Cache<u32> = Cache::new(10);
        let epoch = cache.get("tag", |_| 1).unwrap_err();
        cache.forget("tag");
        cache.put("tag", 1, 1, epoch);
        assert!(cache.get("tag", |_| 1).is_err());
    }
}
