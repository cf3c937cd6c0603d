pub(crate) mod format;
#[cfg(test)]
mod tests;
mod writer;

use dhow_types::ErrorKind;

pub(crate) use self::writer::{Stored, Writer};
use crate::{Entry, Error};

/// Every entry of one layer, sorted by path.
///
/// # Stored form (version 1)
/// ```text
/// "DHOWIDX\0"   version u32   entries u32   bytes u64      all numbers little-endian
/// offset u32 of each record, from the end of this table
/// records       see `format`
/// crc32 u32     of all before
/// ```
/// The whole is checked once when it is read: checksum, bounds of every field, order of the paths. After that a look-up
/// is a binary search without decoding what it passes.
#[derive(Clone)]
pub struct Index {
    bytes: Vec<u8>,
    count: usize,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("entries", &self.count)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// The entries in the order of their paths (bytewise).
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries { index: self, next: 0 }
    }

    /// The entry at `path` (no leading `/`).
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<Entry> {
        let at = self.search(path).ok()?;
        self.entry(at)
    }

    /// The entries at `path` and below it.
    #[must_use]
    pub fn below(&self, path: &[u8]) -> Vec<Entry> {
        if path.is_empty() {
            return self.entries().collect();
        }
        let mut found: Vec<Entry> = self.find(path).into_iter().collect();
        // Between `a` and `a/b` other names may lie, such as `a-b`.
        let prefix = [path, b"/"].concat();
        let start = self.search(&prefix).unwrap_or_else(|at| at);
        found.extend(
            (start..self.count)
                .take_while(|at| self.path(*at).is_some_and(|path| path.starts_with(&prefix)))
                .filter_map(|at| self.entry(at)),
        );
        found
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the layer has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The stored form of entries that are sorted by path.
    ///
    /// # Errors
    /// `InvalidArgument` when a path comes twice or out of order, or a field is beyond the bounds of the form.
    pub fn encode(entries: &[Entry]) -> Result<Vec<u8>, Error> {
        format::encode(entries)
    }

    /// The stored form, read back.
    ///
    /// # Errors
    /// `DataLoss` when the bytes are not an index; `Unsupported` for a newer version.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Error> {
        let count = format::check(&bytes)?;
        Ok(Self { bytes, count })
    }

    /// The entry number `at` in the order of the paths.
    #[must_use]
    pub fn at(&self, at: usize) -> Option<Entry> {
        self.entry(at)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        format::record(&self.bytes, self.count, at)?.entry()
    }

    fn path(&self, at: usize) -> Option<&[u8]> {
        format::record(&self.bytes, self.count, at)?.path()
    }

    fn search(&self, path: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.path(middle).unwrap_or(b"").cmp(path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }
}

fn damaged(why: &str) -> Error {
    Error::new(
        ErrorKind::DataLoss,
        format!("the stored index of a layer is damaged: {why}"),
    )
}

/// Iterator over the entries of an [`Index`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    index: &'a Index,
    next: usize,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        // Every record was decoded once by `Index::decode`, so none fails here.
        let entry = self.index.entry(self.next)?;
        self.next += 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.index.count - self.next;
        (left, Some(left))
    }
}
