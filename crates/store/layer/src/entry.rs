use dhow_types::Digest;

/// What an entry of a layer or archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; `link` is its text.
    Symlink,
    /// Another name of the file `link` (a path from the root, without leading `/`).
    Hardlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// The path is deleted in this layer (image-spec `layer.md`, "Whiteouts").
    Whiteout,
}

/// One entry of a layer: what the tar says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, without leading or trailing `/`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// A directory that hides what lower layers have in it.
    pub opaque: bool,
    /// A directory that the tar does not name, only something below it.
    pub implied: bool,
    /// Permission bits with set-user-id, set-group-id and sticky bit (12 bits).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file, holes included; 0 for all others.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// BLAKE3 of the content of a file ([`ContentHasher`](crate::ContentHasher)).
    pub content: Option<Digest>,
}

impl Entry {
    /// An entry of `kind` at `path` with `mode`, owned by root, of 1970, with nothing else.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            opaque: false,
            implied: false,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: Vec::new(),
            major: 0,
            minor: 0,
            xattrs: Vec::new(),
            content: None,
        }
    }
}
