//! A tar writer that checks nothing, so that tests can write what nobody should.

/// An archive in the making. Every entry is of 1970 and of root unless said otherwise.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(&format!("{path}/"), b'5', mode, "", b"")
    }

    /// A file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, b'0', mode, "", content)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, b'2', 0o777, target, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, b'1', 0o644, target, b"")
    }

    /// A whiteout of `path`.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path
            .rsplit_once('/')
            .map_or(("", path), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), 0o644, b"")
    }

    /// Any entry, in ustar form; `kind` is the type flag.
    #[must_use]
    pub fn entry(mut self, path: &str, kind: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = [0_u8; 512];
        put(&mut header, 0, 100, path.as_bytes());
        put(&mut header, 100, 8, format!("{mode:07o}").as_bytes());
        put(&mut header, 108, 8, b"0000000");
        put(&mut header, 116, 8, b"0000000");
        put(&mut header, 124, 12, format!("{:011o}", content.len()).as_bytes());
        put(&mut header, 136, 12, b"00000000000");
        header[156] = kind;
        put(&mut header, 157, 100, link.as_bytes());
        put(&mut header, 257, 8, b"ustar\x0000");
        seal(&mut header);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.pad()
    }

    /// Raw bytes, such as a header made by hand.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The archive with its end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
}

fn put(header: &mut [u8; 512], offset: usize, length: usize, value: &[u8]) {
    assert!(
        value.len() <= length,
        "{:?} does not fit a ustar field",
        String::from_utf8_lossy(value)
    );
    header[offset..offset + value.len()].copy_from_slice(value);
}

/// Writes the checksum into a header.
fn seal(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(header, 148, 8, format!("{sum:06o}\0 ").as_bytes());
}
