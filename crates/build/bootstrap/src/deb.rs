//! `.deb` files (deb(5)): an `ar` archive of `debian-binary`, `control.tar*` and `data.tar*`, in this order.

use std::collections::BTreeMap;
use std::io::Read;

use dhow_layer::EntryKind;
use dhow_types::ErrorKind;

use crate::{Context, Error};

const MAGIC: &[u8; 8] = b"!<arch>\n";
/// All control files of one package; the largest of Debian is 3 MB (symbols and lists of big libraries).
const MAX_CONTROL: u64 = 64 << 20;
const MAX_CONTROL_FILES: usize = 256;

/// One file of `control.tar`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
}

/// The control files of a package by name: `control`, `md5sums`, `postinst` ...
pub(crate) type Control = BTreeMap<String, ControlFile>;

fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}

/// The files of a package as they stand in its archive.
pub(crate) type Data<'r> = dhow_layer::tar::Reader<Box<dyn Read + Send + 'r>>;

/// One member of the archive.
struct Member {
    name: String,
    size: u64,
}

/// A package whose control files were read; what is left in the reader is its data.
pub(crate) struct Deb<R> {
    pub(crate) control: Control,
    reader: R,
    size: u64,
}

impl<R: Read + Send> Deb<R> {
    /// Reads up to the start of the data.
    pub(crate) fn open(mut reader: R) -> Result<Self, Error> {
        let mut magic = [0; 8];
        fill(&mut reader, &mut magic)?;
        if &magic != MAGIC {
            return Err(bad("not a package: no ar archive"));
        }
        let version =
            member(&mut reader)?.filter(|member| member.name == "debian-binary" && member.size <= 64);
        let version = version.ok_or_else(|| bad("not a package: it does not start with debian-binary"))?;
        if !take(&mut reader, version.size)?.starts_with(b"2.") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a package of another format than 2",
            ));
        }
        let mut control = None;
        while let Some(found) = member(&mut reader)? {
            match found.name.as_str() {
                name if is_tar(name, "control") && control.is_none() => {
                    control = Some(read_control(&take(&mut reader, found.size)?)?);
                }
                name if is_tar(name, "data") => {
                    let control = control.ok_or_else(|| bad("a package with data before control"))?;
                    return Ok(Self {
                        control,
                        reader,
                        size: found.size,
                    });
                }
                // deb(5): unknown members are refused, but for names that start with an underscore.
                name if name.starts_with('_') => drop(take(&mut reader, found.size)?),
                name => return Err(bad(format!("a package with an unknown member {name:?}"))),
            }
        }
        Err(bad("a package without data"))
    }

    /// The archive of the package's files.
    pub(crate) fn data<'r>(self) -> Result<(Control, Data<'r>), Error>
    where
        R: 'r,
    {
        let stream = self.reader.take(self.size);
        let (_, stream) = dhow_layer::decoder(stream).context(|| "cannot read data.tar")?;
        Ok((self.control, dhow_layer::tar::Reader::new(stream)))
    }
}

fn is_tar(name: &str, part: &str) -> bool {
    let ending = name.strip_prefix(part).and_then(|rest| rest.strip_prefix(".tar"));
    matches!(ending, Some("" | ".gz" | ".xz" | ".zst" | ".bz2"))
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), Error> {
    reader
        .read_exact(buffer)
        .map_err(|error| Error::because(ErrorKind::DataLoss, "a package ends too early", error))
}

/// The next member's header; `None` at the end.
fn member(reader: &mut impl Read) -> Result<Option<Member>, Error> {
    let mut header = [0; 60];
    let mut filled = 0;
    while filled < header.len() {
        let count = reader
            .read(&mut header[filled..])
            .map_err(|error| Error::because(ErrorKind::DataLoss, "cannot read a package", error))?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    if filled == 0 || (filled == 1 && header[0] == b'\n') {
        return Ok(None);
    }
    let text = std::str::from_utf8(&header)
        .ok()
        .filter(|_| filled == 60 && header.is_ascii());
    let text = text
        .filter(|text| text.ends_with("`\n"))
        .ok_or_else(|| bad("malformed ar header in a package"))?;
    let name = text[..16].trim_end().trim_end_matches('/');
    let size = text[48..58]
        .trim_end()
        .parse()
        .map_err(|_| bad("malformed size in an ar header"))?;
    Ok(Some(Member {
        name: name.to_owned(),
        size,
    }))
}

/// A whole small member with its padding.
fn take(reader: &mut impl Read, size: u64) -> Result<Vec<u8>, Error> {
    if size > MAX_CONTROL {
        return Err(Error::new(
            ErrorKind::ResourceExhausted,
            "a member of a package is over 64 MiB",
        ));
    }
    let mut bytes = Vec::new();
    let read = reader.take(size).read_to_end(&mut bytes);
    read.map_err(|error| Error::because(ErrorKind::DataLoss, "cannot read a package", error))?;
    if bytes.len() as u64 != size {
        return Err(Error::new(ErrorKind::DataLoss, "a package ends too early"));
    }
    if size % 2 == 1 {
        fill(reader, &mut [0])?;
    }
    Ok(bytes)
}

fn read_control(member: &[u8]) -> Result<Control, Error> {
    let (_, stream) = dhow_layer::decoder(member).context(|| "cannot read control.tar")?;
    let mut archive = dhow_layer::tar::Reader::new(stream.take(MAX_CONTROL));
    let mut control = Control::new();
    while let Some(entry) = archive.next_entry().context(|| "cannot read control.tar")? {
        if entry.kind == EntryKind::Directory && entry.path.is_empty() {
            continue;
        }
        let name = String::from_utf8(entry.path).map_err(|_| bad("a control file with a strange name"))?;
        // The name becomes a part of a file name below /var/lib/dpkg/info.
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if entry.kind != EntryKind::File
            || !plain
            || name.starts_with('.')
            || control.len() == MAX_CONTROL_FILES
        {
            return Err(bad(format!(
                "control.tar holds {name:?}, which is no control file"
            )));
        }
        let mut bytes = Vec::new();
        let read = archive.read_to_end(&mut bytes);
        read.map_err(|error| Error::because(ErrorKind::DataLoss, "cannot read control.tar", error))?;
        control.insert(
            name,
            ControlFile {
                bytes,
                mode: entry.mode,
                mtime: entry.mtime,
            },
        );
    }
    if !control.contains_key("control") {
        return Err(bad("a package without a control file"));
    }
    Ok(control)
}

#[cfg(test)]
mod tests;
