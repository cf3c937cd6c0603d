//! The `state` file of a layer: lines `key value`, replaced as a whole by rename.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_types::{Digest, ErrorKind};

use crate::erofs::Meta;
use crate::{Context, Error};

const HEADER: &str = "dhow-layer 1";

/// The same for a layer whose deletions are in its index only: an older program, which would mount it and show what is
/// deleted, takes it for damaged.
const UNMARKED: &str = "dhow-layer 2";

/// Where the tar of a layer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Made again from the index by the writer of this crate.
    Canonical,
    /// Made again from the split form.
    Split,
    /// It is in the image as it came.
    Image(Meta),
}

impl Form {
    /// `canonical`, `split`, or `image <start of the metadata> <their hash>`.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "canonical" => return Some(Self::Canonical),
            "split" => return Some(Self::Split),
            _ => (),
        }
        let (start, hash) = text.strip_prefix("image ")?.split_once(' ')?;
        Some(Self::Image(Meta {
            start: start.parse().ok()?,
            hash: Digest::from_hex(hash).ok()?,
        }))
    }

    fn text(self) -> String {
        match self {
            Self::Canonical => "canonical".to_owned(),
            Self::Split => "split".to_owned(),
            Self::Image(meta) => format!("image {} {}", meta.start, meta.hash.hex()),
        }
    }
}

/// How the file of a layer says that it may not be on the disk.
const NOT_DURABLE: &str = "\ndurable 0";

/// What is known of a layer beside its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Boot in which it was written.
    pub(crate) boot: String,
    /// Whether a `syncfs` came after it.
    pub(crate) durable: bool,
    pub(crate) form: Form,
    /// Bytes of all files.
    pub(crate) size: u64,
    /// Bytes of disk.
    pub(crate) disk: u64,
    /// Bytes of the tar.
    pub(crate) tar: u64,
    /// Directories that the tar does not name.
    pub(crate) implied: u64,
    /// Whether it hides all layers below.
    pub(crate) opaque_root: bool,
    /// Whether owners, devices and attributes could be set on the files; else they are in the index only.
    pub(crate) owners: bool,
    /// Whether whiteouts and opaque directories are in its tree as overlayfs has them; else they are in the index only, and
    /// an empty file holds the place of a whiteout.
    pub(crate) marks: bool,
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::DataLoss, format!("{} is damaged", path.display()))
}

impl State {
    pub(crate) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("state");
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        Self::parse(&text).ok_or_else(|| damaged(&path))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let marks = match lines.next()? {
            HEADER => true,
            UNMARKED => false,
            _ => return None,
        };
        if !text.ends_with('\n') {
            return None;
        }
        let mut field = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let flag = |text: &str| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        Some(Self {
            boot: field("boot")?.to_owned(),
            durable: flag(field("durable")?)?,
            form: Form::parse(field("form")?)?,
            size: field("size")?.parse().ok()?,
            disk: field("disk")?.parse().ok()?,
            tar: field("tar")?.parse().ok()?,
            implied: field("implied")?.parse().ok()?,
            opaque_root: flag(field("opaque-root")?)?,
            owners: flag(field("owners")?)?,
            marks,
        })
    }

    fn text(&self) -> String {
        let header = if self.marks { HEADER } else { UNMARKED };
        format!(
            "{header}\nboot {}\ndurable {}\nform {}\nsize {}\ndisk {}\ntar {}\nimplied {}\nopaque-root {}\nowners {}\n",
            self.boot,
            u8::from(self.durable),
            self.form.text(),
            self.size,
            self.disk,
            self.tar,
            self.implied,
            u8::from(self.opaque_root),
            u8::from(self.owners),
        )
    }

    /// Writes the file of a layer in the making.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("state");
        std::fs::write(&path, self.text()).context(|| format!("write {}", path.display()))
    }

    /// Notes in the file of a published layer that it is on the disk: one byte is another, where it is. A power cut leaves
    /// the one or the other, and the rest of the file is on the disk by then, so nothing is waited for.
    pub(crate) fn note_durable(dir: &Path) -> Result<(), Error> {
        let path = dir.join("state");
        let what = || format!("note in {} that it is on the disk", path.display());
        let mut how = std::fs::OpenOptions::new();
        let mut file = how.read(true).write(true).open(&path).context(what)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).context(what)?;
        let place = text.find(NOT_DURABLE).filter(|_| Self::parse(&text).is_some());
        match place {
            Some(place) => {
                let place = place + NOT_DURABLE.len() - 1;
                std::os::unix::fs::FileExt::write_all_at(&file, b"1", place as u64).context(what)
            }
            // Somebody else was faster.
            None if Self::parse(&text).is_some() => Ok(()),
            None => Err(damaged(&path)),
        }
    }

    /// Replaces the file of a published layer: written in `tmp` under a name of this process' own, since others may do
    /// the same at this moment, and renamed. Its bytes are on the disk before that: a power cut must not leave a layer
    /// that is whole with a state that says nothing.
    pub(crate) fn replace(&self, dir: &Path, tmp: &Path) -> Result<(), Error> {
        let path = dir.join("state");
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let next = tmp.join(format!("state-{}-{serial}", std::process::id()));
        let written = write_through(&next, self.text().as_bytes());
        let replaced = written.and_then(|()| std::fs::rename(&next, &path));
        if replaced.is_err() {
            drop(std::fs::remove_file(&next));
        }
        replaced.context(|| format!("replace {}", path.display()))
    }
}

/// Makes names differ within one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_data()
}

/// The id of this boot.
///
/// # Errors
/// Failures to read it from procfs.
pub fn boot_id() -> Result<&'static str, Error> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let text: io::Result<String> = std::fs::read_to_string(path);
    let text = text.context(|| format!("read {path}"))?;
    Ok(BOOT.get_or_init(|| text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        State {
            boot: "b".into(),
            durable: false,
            form: Form::Split,
            size: 1,
            disk: 2,
            tar: 3,
            implied: 4,
            opaque_root: true,
            owners: false,
            marks: true,
        }
    }

    #[test]
    fn state_comes_back() {
        assert_eq!(State::parse(&sample().text()), Some(sample()));
        let unmarked = State {
            marks: false,
            ..sample()
        };
        assert_eq!(State::parse(&unmarked.text()), Some(unmarked));
        let image = State {
            form: Form::Image(Meta {
                start: 8192,
                hash: Digest::of(b""),
            }),
            ..sample()
        };
        assert_eq!(State::parse(&image.text()), Some(image));
    }

    #[test]
    fn one_byte_of_the_file_says_that_a_layer_is_on_the_disk() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        sample().write(dir.path()).unwrap();
        let before = std::fs::metadata(&path).unwrap().ino();
        for _ in 0..2 {
            State::note_durable(dir.path()).unwrap();
            let durable = State {
                durable: true,
                ..sample()
            };
            assert_eq!(State::read(dir.path()).unwrap(), durable);
            assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
        }
        std::fs::write(&path, "dhow-layer 1\nboot b\ndurable 0\n").unwrap();
        State::note_durable(dir.path()).unwrap_err();
    }

    #[test]
    fn every_cut_of_a_state_file_is_refused() {
        let text = sample().text();
        for end in 0..text.len() {
            assert_eq!(State::parse(&text[..end]), None, "cut at {end}");
        }
    }
}
