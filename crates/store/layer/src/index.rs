use crate::{Entry, Error};

/// Every entry of one layer, sorted by path.
#[derive(Clone, Debug)]
pub struct Index {
    entries: Vec<Entry>,
}

impl Index {
    /// The entries in the order of their paths (bytewise).
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            rest: self.entries.iter(),
        }
    }

    /// The entry at `path` (no leading `/`).
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<Entry> {
        let at = self
            .entries
            .binary_search_by(|entry| entry.path.as_slice().cmp(path))
            .ok()?;
        self.entries.get(at).cloned()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the layer has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stored form, read back.
    ///
    /// # Errors
    /// `DataLoss` when the bytes are not an index; `Unsupported` for a newer version.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        Err(crate::store::unfinished())
    }
}

/// Iterator over the entries of an [`Index`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.rest.next().cloned()
    }
}
