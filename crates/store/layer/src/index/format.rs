//! A record: path, link (each length and bytes), one byte of kind, one of flags, then varints: mode, uid, gid, size,
//! mtime (zigzag), and, as the flags say, device numbers, 32 bytes of content hash, attributes.

use dhow_types::{Digest, ErrorKind};
use flate2::Crc;

use super::damaged;
use crate::varint::{self, Bytes};
use crate::{Entry, EntryKind, Error};

const MAGIC: &[u8; 8] = b"DHOWIDX\0";
const VERSION: u32 = 1;
/// Magic, version, number of entries, length of the whole.
pub(super) const HEADER: usize = 24;
pub(super) const CHECKSUM: usize = 4;

const OPAQUE: u8 = 1;
const IMPLIED: u8 = 2;
const DEVICE: u8 = 4;
const CONTENT: u8 = 8;
const XATTRS: u8 = 16;

const KINDS: [EntryKind; 8] = [
    EntryKind::File,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Hardlink,
    EntryKind::CharDevice,
    EntryKind::BlockDevice,
    EntryKind::Fifo,
    EntryKind::Whiteout,
];

pub(super) fn encode(entries: &[Entry]) -> Result<Vec<u8>, Error> {
    let count = u32::try_from(entries.len()).map_err(|_| too_big())?;
    let table = HEADER + entries.len() * 4;
    let mut bytes = Vec::with_capacity(table + entries.len() * 128);
    bytes.extend_from_slice(&header(count, 0));
    bytes.resize(table, 0);
    let mut before: Option<&[u8]> = None;
    for (at, entry) in entries.iter().enumerate() {
        if before.is_some_and(|before| before >= entry.path.as_slice()) {
            return Err(out_of_order(&entry.path));
        }
        before = Some(&entry.path);
        let offset = u32::try_from(bytes.len() - table).map_err(|_| too_big())?;
        bytes[HEADER + at * 4..][..4].copy_from_slice(&offset.to_le_bytes());
        put(&mut bytes, entry);
    }
    let total = (bytes.len() + CHECKSUM) as u64;
    bytes[16..24].copy_from_slice(&total.to_le_bytes());
    let mut crc = Crc::new();
    crc.update(&bytes);
    bytes.extend_from_slice(&crc.sum().to_le_bytes());
    Ok(bytes)
}

pub(super) fn too_big() -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "the layer has too many entries for an index",
    )
}

pub(super) fn out_of_order(path: &[u8]) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::new(
        ErrorKind::InvalidArgument,
        format!("index entry {path} is out of order"),
    )
}

/// What an index of `count` entries begins with that is `total` bytes long.
pub(super) fn header(count: u32, total: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&total.to_le_bytes());
    bytes
}

/// The path of a record.
pub(crate) fn path(record: &[u8]) -> Option<&[u8]> {
    Record(record).path()
}

/// The entry of a record.
pub(crate) fn entry(record: &[u8]) -> Option<Entry> {
    Record(record).entry()
}

/// Appends the record of an entry.
pub(crate) fn put(out: &mut Vec<u8>, entry: &Entry) {
    let has_device = (entry.major, entry.minor) != (0, 0);
    let mut flags = 0;
    for (bit, set) in [
        (OPAQUE, entry.opaque),
        (IMPLIED, entry.implied),
        (DEVICE, has_device),
        (CONTENT, entry.content.is_some()),
        (XATTRS, !entry.xattrs.is_empty()),
    ] {
        if set {
            flags |= bit;
        }
    }
    varint::put_bytes(out, &entry.path);
    varint::put_bytes(out, &entry.link);
    out.push(entry.kind as u8);
    out.push(flags);
    for number in [
        u64::from(entry.mode),
        u64::from(entry.uid),
        u64::from(entry.gid),
        entry.size,
    ] {
        varint::put(out, number);
    }
    varint::put(out, varint::zigzag(entry.mtime));
    if has_device {
        varint::put(out, u64::from(entry.major));
        varint::put(out, u64::from(entry.minor));
    }
    if let Some(content) = &entry.content {
        out.extend_from_slice(content.as_bytes());
    }
    if !entry.xattrs.is_empty() {
        varint::put(out, entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            varint::put_bytes(out, name);
            varint::put_bytes(out, value);
        }
    }
}

/// Checks the whole; returns the number of entries.
pub(super) fn check(bytes: &[u8]) -> Result<usize, Error> {
    if bytes.len() < HEADER + CHECKSUM || &bytes[..8] != MAGIC {
        return Err(damaged("it is no index"));
    }
    let version = word(bytes, 8).unwrap_or(0);
    if version != VERSION {
        let message = format!("the index of a layer has version {version}, this program knows {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let mut total = [0; 8];
    total.copy_from_slice(&bytes[16..24]);
    if u64::from_le_bytes(total) != bytes.len() as u64 {
        return Err(damaged("its length is wrong"));
    }
    let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM);
    let mut crc = Crc::new();
    crc.update(body);
    if crc.sum().to_le_bytes() != sum {
        return Err(damaged("its checksum is wrong"));
    }
    let count = word(bytes, 12)
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX);
    if count > body.len() / 4 || HEADER + count * 4 > body.len() {
        return Err(damaged("it is shorter than its table"));
    }
    let mut before: Option<&[u8]> = None;
    for at in 0..count {
        let record = record(bytes, count, at).ok_or_else(|| damaged("a record is out of its bounds"))?;
        let path = record.skim().ok_or_else(|| damaged("a record is malformed"))?;
        if before.is_some_and(|before| before >= path) {
            return Err(damaged("its paths are out of order"));
        }
        before = Some(path);
    }
    Ok(count)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// The record number `at` of `count`.
pub(super) fn record(bytes: &[u8], count: usize, at: usize) -> Option<Record<'_>> {
    if at >= count {
        return None;
    }
    let records = bytes.get(HEADER + count * 4..bytes.len() - CHECKSUM)?;
    let start = usize::try_from(word(bytes, HEADER + at * 4)?).ok()?;
    let end = if at + 1 == count {
        records.len()
    } else {
        usize::try_from(word(bytes, HEADER + (at + 1) * 4)?).ok()?
    };
    records.get(start..end).map(Record)
}

/// The bytes of one record.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// Its path.
    pub(super) fn path(self) -> Option<&'a [u8]> {
        Bytes::new(self.0).bytes()
    }

    /// Decodes it without building anything; its path.
    fn skim(self) -> Option<&'a [u8]> {
        let mut bytes = Bytes::new(self.0);
        let path = bytes.bytes()?;
        bytes.bytes()?;
        let kind = bytes.byte()?;
        KINDS.get(usize::from(kind))?;
        let flags = bytes.byte()?;
        if flags >= 32 {
            return None;
        }
        for _ in 0..3 {
            u32::try_from(bytes.number()?).ok()?;
        }
        bytes.number()?;
        bytes.number()?;
        if flags & DEVICE != 0 {
            u32::try_from(bytes.number()?).ok()?;
            u32::try_from(bytes.number()?).ok()?;
        }
        if flags & CONTENT != 0 {
            bytes.take(32)?;
        }
        if flags & XATTRS != 0 {
            for _ in 0..bytes.number()? {
                bytes.bytes()?;
                bytes.bytes()?;
            }
        }
        bytes.is_empty().then_some(path)
    }

    pub(super) fn entry(self) -> Option<Entry> {
        let mut bytes = Bytes::new(self.0);
        let path = bytes.bytes()?.to_vec();
        let link = bytes.bytes()?.to_vec();
        let kind = *KINDS.get(usize::from(bytes.byte()?))?;
        let flags = bytes.byte()?;
        let mut entry = Entry::new(path, kind, u32::try_from(bytes.number()?).ok()?);
        entry.link = link;
        entry.opaque = flags & OPAQUE != 0;
        entry.implied = flags & IMPLIED != 0;
        entry.uid = u32::try_from(bytes.number()?).ok()?;
        entry.gid = u32::try_from(bytes.number()?).ok()?;
        entry.size = bytes.number()?;
        entry.mtime = varint::unzigzag(bytes.number()?);
        if flags & DEVICE != 0 {
            entry.major = u32::try_from(bytes.number()?).ok()?;
            entry.minor = u32::try_from(bytes.number()?).ok()?;
        }
        if flags & CONTENT != 0 {
            entry.content = Some(Digest::from_bytes(bytes.take(32)?.try_into().ok()?));
        }
        if flags & XATTRS != 0 {
            for _ in 0..bytes.number()? {
                let name = bytes.bytes()?.to_vec();
                entry.xattrs.push((name, bytes.bytes()?.to_vec()));
            }
        }
        Some(entry)
    }
}
