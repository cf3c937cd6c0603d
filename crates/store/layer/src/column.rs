//! Numbers of the entries of a layer: in memory while they are few, in a file without a name from then on.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_types::ErrorKind;
use rustix::fs::{Advice, fadvise};

use crate::unpack::write_failure;
use crate::{Context as _, Error};

/// Bytes of a column in memory before it goes to a file.
pub(crate) const KEPT: usize = 512 << 10;

/// Bytes that are read and written at once.
const PAGE: usize = 4096;

/// Most pages of a file in memory.
const MOST_PAGES: usize = 1024;

/// Bytes that a scan reads at once.
const AHEAD: usize = 64 << 10;

/// What a column may hold.
pub(crate) trait Cell: Copy {
    const SIZE: usize;
    const ZERO: Self;
    fn put(self, bytes: &mut [u8]);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! cell {
    ($type:ty) => {
        impl Cell for $type {
            const SIZE: usize = size_of::<$type>();
            const ZERO: Self = 0;

            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$type>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    };
}

cell!(u8);
cell!(u32);
cell!(u64);

/// Two numbers in one.
pub(crate) fn pair(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

/// What [`pair`] was made of.
pub(crate) fn halves(pair: u64) -> (u32, u32) {
    let [a, b, c, d, rest @ ..] = pair.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(rest))
}

/// Numbers in a row.
#[derive(Debug)]
pub(crate) struct Column<T> {
    dir: PathBuf,
    /// How many stay in memory.
    kept: usize,
    pages: usize,
    memory: Vec<T>,
    file: Option<RefCell<Pages>>,
    length: usize,
}

impl<T: Cell> Column<T> {
    /// An empty one; its file would be in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::keeping(dir, KEPT)
    }

    /// The same with so many bytes in memory, before and after it goes to a file.
    pub(crate) fn keeping(dir: &Path, bytes: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            kept: bytes / T::SIZE,
            pages: (bytes / PAGE / 2).clamp(2, MOST_PAGES),
            memory: Vec::new(),
            file: None,
            length: 0,
        }
    }

    /// So many zeros.
    pub(crate) fn zeros(mut self, length: usize) -> Result<Self, Error> {
        self.length = length;
        if length > self.kept {
            // What was not written reads as zeros.
            self.file = Some(RefCell::new(Pages::new(&self.dir, self.pages)?));
        } else {
            self.memory = vec![T::ZERO; length];
        }
        Ok(self)
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn push(&mut self, value: T) -> Result<(), Error> {
        self.length += 1;
        if self.file.is_none() && self.length <= self.kept {
            self.memory.push(value);
            return Ok(());
        }
        if self.file.is_none() {
            self.spill()?;
        }
        self.set(self.length - 1, value)
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Result<T, Error> {
        match &self.file {
            None => self.memory.get(at).copied().ok_or_else(|| beyond(at)),
            Some(_) if at >= self.length => Err(beyond(at)),
            Some(pages) => {
                let mut value = T::ZERO;
                pages
                    .borrow_mut()
                    .at(at, T::SIZE, false, |bytes| value = T::get(bytes))?;
                Ok(value)
            }
        }
    }

    pub(crate) fn set(&mut self, at: usize, value: T) -> Result<(), Error> {
        match &mut self.file {
            None => *self.memory.get_mut(at).ok_or_else(|| beyond(at))? = value,
            Some(_) if at >= self.length => return Err(beyond(at)),
            Some(pages) => pages.get_mut().at(at, T::SIZE, true, |bytes| value.put(bytes))?,
        }
        Ok(())
    }

    /// Shows every number from the one at `from` on.
    pub(crate) fn scan(
        &mut self,
        from: usize,
        mut see: impl FnMut(usize, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(pages) = &mut self.file else {
            let mut values = self.memory.iter().enumerate().skip(from);
            return values.try_for_each(|(at, value)| see(at, *value));
        };
        let pages = pages.get_mut();
        pages.flush()?;
        let (mut at, mut buffer) = (from, Vec::new());
        while at < self.length {
            let count = (AHEAD / T::SIZE).min(self.length - at);
            buffer.clear();
            buffer.resize(count * T::SIZE, 0);
            pages.read(&mut buffer, (at * T::SIZE) as u64)?;
            for value in buffer.chunks_exact(T::SIZE) {
                see(at, T::get(value))?;
                at += 1;
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), Error> {
        let mut pages = Pages::new(&self.dir, self.pages)?;
        for (at, value) in std::mem::take(&mut self.memory).into_iter().enumerate() {
            pages.at(at, T::SIZE, true, |bytes| value.put(bytes))?;
        }
        self.file = Some(RefCell::new(pages));
        Ok(())
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let pages = self
            .file
            .as_ref()
            .map_or(0, |pages| pages.borrow().held.len() * PAGE);
        self.memory.capacity() * T::SIZE + pages
    }
}

#[cold]
fn beyond(at: usize) -> Error {
    Error::new(ErrorKind::Internal, format!("a layer has no entry {at}"))
}

/// A file, and those of its pages that were used last. A page has one place where it may be held.
#[derive(Debug)]
struct Pages {
    file: File,
    held: Vec<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Which page and one; none is 0.
    number: u64,
    dirty: bool,
    bytes: Vec<u8>,
}

impl Pages {
    fn new(dir: &Path, count: usize) -> Result<Self, Error> {
        let file = nameless(dir)?;
        // Nothing is read ahead: it would come in large pieces, of which each write looks at every block (ext4).
        fadvise(&file, 0, None, Advice::Random).unwrap_or(());
        let mut held = Vec::new();
        held.resize_with(count, Held::default);
        Ok(Self { file, held })
    }

    /// The bytes of the cell with this number.
    fn at(
        &mut self,
        cell: usize,
        size: usize,
        dirty: bool,
        work: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        let (page, inside) = (cell * size / PAGE, cell * size % PAGE);
        let number = page as u64 + 1;
        let place = page % self.held.len();
        if self.held[place].number != number {
            self.write(place)?;
            let mut bytes = std::mem::take(&mut self.held[place].bytes);
            bytes.clear();
            bytes.resize(PAGE, 0);
            self.held[place].number = 0;
            self.read(&mut bytes, (page * PAGE) as u64)?;
            self.held[place] = Held {
                number,
                dirty: false,
                bytes,
            };
        }
        let held = &mut self.held[place];
        held.dirty |= dirty;
        work(&mut held.bytes[inside..inside + size]);
        Ok(())
    }

    /// Reads from the file, whose end is followed by zeros.
    fn read(&self, bytes: &mut [u8], from: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < bytes.len() {
            let read = self.file.read_at(&mut bytes[done..], from + done as u64);
            match read.context(|| "read the entries of a layer")? {
                0 => break,
                read => done += read,
            }
        }
        Ok(())
    }

    /// Writes what is held in a place and not in the file.
    fn write(&mut self, place: usize) -> Result<(), Error> {
        let held = &mut self.held[place];
        if held.dirty {
            let wrote = self
                .file
                .write_all_at(&held.bytes, (held.number - 1) * PAGE as u64);
            wrote.map_err(|error| write_failure(error, "write the entries of a layer"))?;
            held.dirty = false;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        (0..self.held.len()).try_for_each(|place| self.write(place))
    }
}

/// A file in `dir` that nobody else sees.
pub(crate) fn nameless(dir: &Path) -> Result<File, Error> {
    // Of all columns that this process makes at once.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("entries-{serial}"));
    let what = || format!("create {}", path.display());
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let file = file.context(what)?;
    std::fs::remove_file(&path).context(what)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_is_a_vector_wherever_it_is(kept in 0_usize..40_000, zeros in 0_usize..5000, does in prop::collection::vec((any::<u16>(), any::<u32>(), 0..3), 0..3000)) {
            let dir = tempfile::tempdir().unwrap();
            let mut column = Column::<u32>::keeping(dir.path(), kept).zeros(zeros).unwrap();
            let mut model = vec![0_u32; zeros];
            for (at, value, what) in does {
                let at = usize::from(at) * model.len() / 65_536;
                match what {
                    0 => {
                        column.push(value).unwrap();
                        model.push(value);
                    }
                    1 if !model.is_empty() => {
                        column.set(at, value).unwrap();
                        model[at] = value;
                    }
                    _ => prop_assert_eq!(column.get(at).ok(), model.get(at).copied()),
                }
            }
            prop_assert_eq!(column.len(), model.len());
            for (at, value) in model.iter().enumerate() {
                prop_assert_eq!(column.get(at).unwrap(), *value);
            }
            prop_assert!(column.get(model.len()).is_err());
            prop_assert!(column.set(model.len(), 1).is_err());
            prop_assert!(column.size() <= kept.max(2 * PAGE) * 2);
            prop_assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        }
    }

    #[test]
    fn bytes_and_long_numbers_are_kept_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (mut bytes, mut long) = (
            Column::<u8>::keeping(dir.path(), 100),
            Column::<u64>::keeping(dir.path(), 100),
        );
        for at in 0..100_000_u64 {
            bytes.push((at % 251).to_le_bytes()[0]).unwrap();
            long.push(at << 33 | at).unwrap();
        }
        for at in (0..100_000_u64).map(|at| at * 7919 % 100_000) {
            let place = usize::try_from(at).unwrap();
            assert_eq!(u64::from(bytes.get(place).unwrap()), at % 251);
            assert_eq!(long.get(place).unwrap(), at << 33 | at);
        }
    }
}
