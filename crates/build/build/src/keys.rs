use dhow_types::{DiffId, Digest};

use crate::source::{Item, ItemKind};

/// Changed whenever the meaning of a key or of a record changes: old records are then simply not found.
const VERSION: &str = "dhow build 1";

/// Writes what a step is made of, each part with its length, so that no two steps give the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct KeyWriter {
    bytes: Vec<u8>,
}

impl KeyWriter {
    /// Begins a key of this kind.
    pub(crate) fn new(kind: &str) -> Self {
        let mut writer = Self {
            bytes: Vec::with_capacity(256),
        };
        writer.text(VERSION);
        writer.text(kind);
        writer
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend((bytes.len() as u64).to_le_bytes());
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.bytes.extend(digest.as_bytes());
        self
    }

    pub(crate) fn texts<S: AsRef<str>>(&mut self, texts: &[S]) -> &mut Self {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text.as_ref());
        }
        self
    }

    /// A value that may be absent.
    pub(crate) fn option(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    /// A stack of layers.
    pub(crate) fn stack(&mut self, stack: &[DiffId]) -> &mut Self {
        self.number(stack.len() as u64);
        for diff in stack {
            self.digest(&diff.0);
        }
        self
    }

    /// An entry of a tree under the name that it gets. Times are left out: the same content is the same.
    pub(crate) fn item(&mut self, name: &[u8], item: &Item) -> &mut Self {
        self.bytes(name);
        let (kind, link, device) = match &item.kind {
            ItemKind::File => (0, &[][..], (0, 0)),
            ItemKind::Directory => (1, &[][..], (0, 0)),
            ItemKind::Symlink(target) => (2, target.as_slice(), (0, 0)),
            ItemKind::CharDevice(major, minor) => (3, &[][..], (*major, *minor)),
            ItemKind::BlockDevice(major, minor) => (4, &[][..], (*major, *minor)),
            ItemKind::Fifo => (5, &[][..], (0, 0)),
        };
        // The mode of a link says nothing.
        let mode = if kind == 2 { 0o777 } else { item.mode };
        self.number(kind).number(u64::from(mode));
        self.number(u64::from(item.uid)).number(u64::from(item.gid));
        self.number(u64::from(device.0)).number(u64::from(device.1));
        self.bytes(link);
        match &item.content {
            Some(content) => self.number(1).digest(content),
            None => self.number(0).number(item.size),
        };
        self.digest(&item.xattrs)
    }

    pub(crate) fn finish(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// Digest of a list of extended attributes; of no attributes all zeros.
pub(crate) fn xattr_digest(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Digest {
    if xattrs.is_empty() {
        return Digest::from_bytes([0; 32]);
    }
    let mut writer = KeyWriter::new("xattrs");
    for (name, value) in xattrs {
        writer.bytes(name).bytes(value);
    }
    writer.finish()
}
