//! Files in a zip archive, by its central directory (APPNOTE.TXT 6.3, 4.3.12 and 4.3.16).

use std::fs::File;
use std::io::{self, Read as _};

use crate::ReadAt;

/// Largest central directory that is read.
const MOST_DIRECTORY: u64 = 64 << 20;
/// Most files of one archive.
const MOST_FILES: usize = 200_000;
/// The same of an archive that is not of an image: osv.dev's largest has some 300,000 records.
const MOST_GIVEN_FILES: usize = 5_000_000;
const MOST_GIVEN_DIRECTORY: u64 = 1 << 30;

/// One file of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    method: u16,
    packed: u64,
    pub(crate) size: u64,
    header: u64,
}

/// An archive.
pub(crate) struct Zip<'a> {
    bytes: &'a dyn ReadAt,
    pub(crate) members: Vec<Member>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Zip<'a> {
    /// What the archive has.
    pub(crate) fn open(bytes: &'a dyn ReadAt, size: u64) -> Result<Self, String> {
        Self::open_up_to(bytes, size, MOST_FILES, MOST_DIRECTORY)
    }

    fn open_up_to(
        bytes: &'a dyn ReadAt,
        size: u64,
        most_files: usize,
        most_directory: u64,
    ) -> Result<Self, String> {
        // The end record has 22 bytes and a comment of at most 65535.
        let tail_size = size.min(22 + 65_535 + 20);
        let tail_at = size - tail_size;
        let mut tail = vec![0; usize::try_from(tail_size).map_err(|_| "it is too large")?];
        bytes
            .read_at(tail_at, &mut tail)
            .map_err(|error| error.to_string())?;
        let end = tail
            .windows(4)
            .rposition(|window| window == b"PK\x05\x06")
            .ok_or("it is no zip archive")?;
        let record = &tail[end..];
        let cut = || "the end of its directory is cut off".to_owned();
        let mut length = u64::from(u32_at(record, 12).ok_or_else(cut)?);
        let mut at = u64::from(u32_at(record, 16).ok_or_else(cut)?);
        let mut behind = tail_at + end as u64;
        // The zip64 locator stands before it, and says where the wide record is, which the directory ends at then.
        if let Some(locator) = end.checked_sub(20).and_then(|from| tail.get(from..end))
            && locator.starts_with(b"PK\x06\x07")
        {
            let mut wide = [0; 56];
            bytes
                .read_at(u64_at(locator, 8).ok_or_else(cut)?, &mut wide)
                .map_err(|_| cut())?;
            if wide.starts_with(b"PK\x06\x06") {
                length = u64_at(&wide, 40).ok_or_else(cut)?;
                at = u64_at(&wide, 48).ok_or_else(cut)?;
                behind = u64_at(locator, 8).ok_or_else(cut)?;
            }
        }
        if length > most_directory {
            return Err(format!("its directory has {length} bytes"));
        }
        // What was put before the archive moves everything, as a script that unpacks itself does.
        let real = behind.checked_sub(length).unwrap_or(at);
        let shift = if u64_at(record, 0).is_some() && at < real {
            real - at
        } else {
            0
        };
        let mut directory = vec![0; usize::try_from(length).map_err(|_| cut())?];
        bytes.read_at(at + shift, &mut directory).map_err(|_| cut())?;
        let mut zip = Self {
            bytes,
            members: Vec::new(),
        };
        zip.read_directory(&directory, shift, most_files);
        Ok(zip)
    }

    fn read_directory(&mut self, directory: &[u8], shift: u64, most_files: usize) {
        let mut at = 0;
        while self.members.len() < most_files
            && let Some((member, next)) = member(directory, at, shift)
        {
            self.members.push(member);
            at = next;
        }
    }

    /// The content of a file, of at most `most` bytes. What the directory says of its size is not believed.
    pub(crate) fn read(&self, member: &Member, most: u64) -> Result<Vec<u8>, String> {
        if member.packed > most.saturating_mul(2) {
            return Err(format!("{} is too large", member.name));
        }
        let mut header = [0; 30];
        let failed = |error: io::Error| format!("{}: {error}", member.name);
        self.bytes.read_at(member.header, &mut header).map_err(failed)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(format!("{} is not where the directory says", member.name));
        }
        let skip =
            30 + u64::from(u16_at(&header, 26).unwrap_or(0)) + u64::from(u16_at(&header, 28).unwrap_or(0));
        let mut packed = vec![0; usize::try_from(member.packed).unwrap_or(usize::MAX)];
        self.bytes
            .read_at(member.header.saturating_add(skip), &mut packed)
            .map_err(failed)?;
        let content = match member.method {
            0 => packed,
            8 => {
                let mut out = Vec::new();
                flate2::read::DeflateDecoder::new(packed.as_slice())
                    .take(most + 1)
                    .read_to_end(&mut out)
                    .map_err(failed)?;
                out
            }
            method => return Err(format!("{} is packed by method {method}", member.name)),
        };
        if content.len() as u64 > most {
            return Err(format!("{} is larger than {most} bytes", member.name));
        }
        Ok(content)
    }
}

/// What is shown a file's name and content.
pub type SeeFile<'a> = &'a mut dyn FnMut(&str, Vec<u8>) -> Result<(), crate::Error>;

/// Shows each file of an archive that somebody gives, in its order, of at most `most` bytes each.
///
/// # Errors
/// `InvalidArgument` for what is no archive, or a damaged one; what `see` returns.
pub fn each_of_zip(file: &File, most: u64, see: SeeFile<'_>) -> Result<(), crate::Error> {
    let bad = |why: String| {
        crate::Error::new(
            dhow_types::ErrorKind::InvalidArgument,
            format!("the archive: {why}"),
        )
    };
    let size = file.metadata().map_err(|error| bad(error.to_string()))?.len();
    let zip = Zip::open_up_to(file, size, MOST_GIVEN_FILES, MOST_GIVEN_DIRECTORY).map_err(bad)?;
    for member in &zip.members {
        see(&member.name, zip.read(member, most).map_err(bad)?)?;
    }
    Ok(())
}

/// The entry of the central directory at a place, and the place of the next.
fn member(directory: &[u8], at: usize, shift: u64) -> Option<(Member, usize)> {
    let entry = directory.get(at..)?;
    if !entry.starts_with(b"PK\x01\x02") {
        return None;
    }
    let lengths = [28, 30, 32].map(|field| u16_at(entry, field).map(usize::from));
    let (name_length, extra_length, comment_length) = (lengths[0]?, lengths[1]?, lengths[2]?);
    let name = entry.get(46..46 + name_length)?;
    let extra = entry.get(46 + name_length..46 + name_length + extra_length)?;
    let mut member = Member {
        name: String::from_utf8_lossy(name).into_owned(),
        method: u16_at(entry, 10)?,
        packed: u64::from(u32_at(entry, 20)?),
        size: u64::from(u32_at(entry, 24)?),
        header: u64::from(u32_at(entry, 42)?),
    };
    widen(&mut member, extra);
    member.header = member.header.saturating_add(shift);
    Some((member, at + 46 + name_length + extra_length + comment_length))
}

/// Numbers that do not fit in 32 bits stand in an extra field (4.5.3), in this order.
fn widen(member: &mut Member, mut extra: &[u8]) {
    let full = u64::from(u32::MAX);
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(length)) else {
            return;
        };
        if id == 1 {
            let mut at = 0;
            for slot in [&mut member.size, &mut member.packed, &mut member.header] {
                if *slot == full
                    && let Some(wide) = u64_at(field, at)
                {
                    *slot = wide;
                    at += 8;
                }
            }
        }
        extra = &extra[4 + usize::from(length)..];
    }
}
