use std::io::{Read, Write};

use dhow_types::ErrorKind;

use super::header::{BLOCK, put_octal};
use super::pax;
use crate::{Context, Entry, EntryKind, Error};

/// Writes an archive in the canonical form: a `ustar` header, and before it PAX records for what does not fit.
/// The same entries give the same bytes, on every machine and in every version of this form.
///
/// The form: names and links of at most 100 bytes, ids and sizes in the header when they fit, else in records in the
/// order `gid linkpath mtime path size uid SCHILY.xattr.*`; no user names; directories end in `/`; two zero blocks
/// at the end.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    records: Vec<u8>,
    buffer: Vec<u8>,
}

/// Bytes of a body copied at once.
const BUFFER: usize = 64 << 10;

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self {
            output,
            records: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Adds one entry; `body` is read for exactly `entry.size` bytes when it is a file.
    /// A `Whiteout` becomes an empty file `.wh.<name>`; an opaque directory is followed by `.wh..wh..opq`.
    ///
    /// # Errors
    /// `DataLoss` when the body is shorter; `Unsupported` for what the form cannot hold (an attribute name with `=`);
    /// failures of the output.
    pub fn append(&mut self, entry: &Entry, body: impl Read) -> Result<(), Error> {
        self.append_header(entry)?;
        if entry.kind == EntryKind::File {
            self.body(entry, body)
        } else {
            Ok(())
        }
    }

    /// Adds one entry without the body of a file and its padding, which the caller puts into the output.
    pub(crate) fn append_header(&mut self, entry: &Entry) -> Result<(), Error> {
        // The root itself is no part of a layer, only that it hides what is below.
        if !entry.path.is_empty() || !entry.implied {
            self.header(entry)?;
        }
        if entry.opaque {
            let marker = Entry::new(joined(&entry.path, b".wh..wh..opq"), EntryKind::File, 0o644);
            self.header(&marker)?;
        }
        Ok(())
    }

    /// Ends the archive and gives the output back.
    ///
    /// # Errors
    /// Failures of the output.
    pub fn finish(mut self) -> Result<W, Error> {
        self.output
            .write_all(&[0; 2 * BLOCK])
            .context(|| "write the end of an archive")?;
        Ok(self.output)
    }

    /// The output, to be written to between entries by who knows what follows.
    pub(crate) fn output(&mut self) -> &mut W {
        &mut self.output
    }

    /// The output, without an end of the archive.
    pub(crate) fn into_output(self) -> W {
        self.output
    }

    /// Writes the headers of an entry without its body.
    fn header(&mut self, entry: &Entry) -> Result<(), Error> {
        let (name, flag) = name_and_flag(entry);
        let mut header = [0_u8; BLOCK];
        self.records.clear();
        self.fill(&mut header, entry, &name, flag)?;
        if !self.records.is_empty() {
            let mut pax = [0_u8; BLOCK];
            let base = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or(b"");
            let label = [b"PaxHeaders.0/", base].concat();
            put_text(&mut pax[0..100], &label[..label.len().min(100)]);
            put_octal(&mut pax[100..108], 0o644);
            put_octal(&mut pax[108..116], 0);
            put_octal(&mut pax[116..124], 0);
            put_octal(&mut pax[124..136], self.records.len() as u64);
            put_octal(&mut pax[136..148], 0);
            seal(&mut pax, b'x');
            let padding = (BLOCK - self.records.len() % BLOCK) % BLOCK;
            self.records.resize(self.records.len() + padding, 0);
            self.output
                .write_all(&pax)
                .context(|| "write an archive header")?;
            self.output
                .write_all(&self.records)
                .context(|| "write an archive header")?;
        }
        seal(&mut header, flag);
        self.output
            .write_all(&header)
            .context(|| "write an archive header")
    }

    fn fill(&mut self, header: &mut [u8; BLOCK], entry: &Entry, name: &[u8], flag: u8) -> Result<(), Error> {
        let size = if flag == b'0' { entry.size } else { 0 };
        put_octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
        self.number(&mut header[116..124], u64::from(entry.gid), b"gid");
        if matches!(entry.kind, EntryKind::Symlink | EntryKind::Hardlink) {
            self.text(&mut header[157..257], &entry.link, b"linkpath");
        }
        match u64::try_from(entry.mtime) {
            Ok(mtime) => self.number(&mut header[136..148], mtime, b"mtime"),
            Err(_) => {
                put_octal(&mut header[136..148], 0);
                pax::put(&mut self.records, b"mtime", entry.mtime.to_string().as_bytes());
            }
        }
        self.text(&mut header[0..100], name, b"path");
        self.number(&mut header[124..136], size, b"size");
        self.number(&mut header[108..116], u64::from(entry.uid), b"uid");
        if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            let fits = put_octal(&mut header[329..337], u64::from(entry.major))
                & put_octal(&mut header[337..345], u64::from(entry.minor));
            if !fits {
                let message = format!("device {}:{} does not fit an archive", entry.major, entry.minor);
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        for (key, value) in &entry.xattrs {
            if key.contains(&b'=') {
                let shown = String::from_utf8_lossy(key);
                let message = format!("the extended attribute name {shown:?} does not fit an archive");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            pax::put(
                &mut self.records,
                &[b"SCHILY.xattr.", key.as_slice()].concat(),
                value,
            );
        }
        Ok(())
    }

    fn number(&mut self, field: &mut [u8], value: u64, key: &[u8]) {
        if !put_octal(field, value) {
            put_octal(field, 0);
            pax::put(&mut self.records, key, value.to_string().as_bytes());
        }
    }

    fn text(&mut self, field: &mut [u8], value: &[u8], key: &[u8]) {
        if value.len() > field.len() {
            pax::put(&mut self.records, key, value);
        }
        put_text(field, &value[..value.len().min(field.len())]);
    }

    fn body(&mut self, entry: &Entry, mut body: impl Read) -> Result<(), Error> {
        self.buffer.resize(BUFFER, 0);
        let mut left = entry.size;
        while left > 0 {
            let room = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let count = match body.read(&mut self.buffer[..room]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.context(|| format!("read {}", String::from_utf8_lossy(&entry.path)))?,
            };
            if count == 0 {
                let shown = String::from_utf8_lossy(&entry.path);
                let message = format!("{shown} is {left} bytes shorter than its entry says");
                return Err(Error::new(ErrorKind::DataLoss, message));
            }
            self.output
                .write_all(&self.buffer[..count])
                .context(|| "write an archive")?;
            left -= count as u64;
        }
        self.pad(entry.size)
    }

    /// Fills up to the next block after a body of `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let padding = (BLOCK - over) % BLOCK;
        self.output
            .write_all(&[0; BLOCK][..padding])
            .context(|| "write an archive")
    }
}

/// The name in the archive and the type flag.
fn name_and_flag(entry: &Entry) -> (Vec<u8>, u8) {
    let path = entry.path.clone();
    match entry.kind {
        EntryKind::File => (path, b'0'),
        EntryKind::Hardlink => (path, b'1'),
        EntryKind::Symlink => (path, b'2'),
        EntryKind::CharDevice => (path, b'3'),
        EntryKind::BlockDevice => (path, b'4'),
        EntryKind::Directory if path.is_empty() => (b"./".to_vec(), b'5'),
        EntryKind::Directory => ([path.as_slice(), b"/"].concat(), b'5'),
        EntryKind::Fifo => (path, b'6'),
        EntryKind::Whiteout => {
            let at = path
                .iter()
                .rposition(|byte| *byte == b'/')
                .map_or(0, |slash| slash + 1);
            ([&path[..at], b".wh.", &path[at..]].concat(), b'0')
        }
    }
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

fn put_text(field: &mut [u8], value: &[u8]) {
    field[..value.len()].copy_from_slice(value);
}

/// Adds magic, type flag and checksum.
fn seal(header: &mut [u8; BLOCK], flag: u8) {
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut header[148..155], sum);
}
