use dhow_types::ErrorKind;

use crate::Error;

/// The records of one PAX extended header that change how an entry is read.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<i64>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// Offsets and lengths in turn.
    pub(crate) map: Vec<u64>,
    pub(crate) present: bool,
}

fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("extended tar header has a malformed {what}"),
    )
}

impl Pax {
    /// Parses `"%d %s=%s\n"` records (POSIX.1-2001 pax, "pax Extended Header"); an empty value takes a record back.
    ///
    /// # Errors
    /// `InvalidArgument` for anything that is not such a record.
    pub(crate) fn parse(mut bytes: &[u8], xattr_limit: usize) -> Result<Self, Error> {
        let mut pax = Self::default();
        let mut xattr_bytes = 0_usize;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| malformed("record"))?;
            bytes = rest;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattr_bytes += name.len() + value.len();
                if xattr_bytes > xattr_limit {
                    let message =
                        format!("extended attributes of one entry take more than {xattr_limit} bytes");
                    return Err(Error::new(ErrorKind::ResourceExhausted, message));
                }
                if name.is_empty() || name.len() > 255 || name.contains(&0) {
                    return Err(malformed("attribute name"));
                }
                pax.xattrs.retain(|(other, _)| other != name);
                pax.xattrs.push((name.to_vec(), value.to_vec()));
            } else {
                pax.take(key, value)?;
            }
        }
        pax.xattrs.sort();
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = optional(value, decimal, "size")?,
            b"uid" => self.uid = optional(value, id, "uid")?,
            b"gid" => self.gid = optional(value, id, "gid")?,
            b"mtime" => self.mtime = optional(value, seconds, "mtime")?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.present = true;
        match key {
            b"major" => self.major = optional(value, decimal, "sparse version")?,
            b"minor" => self.minor = optional(value, decimal, "sparse version")?,
            b"name" => self.name = name(value)?,
            b"size" | b"realsize" => self.real_size = optional(value, decimal, "sparse size")?,
            b"offset" | b"numbytes" => {
                // Version 0.0: records in turn.
                let wanted = if self.map.len().is_multiple_of(2) {
                    &b"offset"[..]
                } else {
                    b"numbytes"
                };
                if key != wanted {
                    return Err(malformed("sparse map"));
                }
                self.map
                    .push(decimal(value).ok_or_else(|| malformed("sparse map"))?);
            }
            b"map" => {
                // Version 0.1.
                self.map = value
                    .split(|byte| *byte == b',')
                    .map(decimal)
                    .collect::<Option<_>>()
                    .ok_or_else(|| malformed("sparse map"))?;
            }
            _ => (),
        }
        Ok(())
    }
}

/// Splits the first record off: key, value, the rest.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    if length > bytes.len() || length < space + 3 {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    if value.contains(&0) {
        return Err(malformed("name"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>, what: &str) -> Result<Option<T>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value).map(Some).ok_or_else(|| malformed(what))
}

/// Decimal digits only, below 2^63.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut value = 0_u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    i64::try_from(value).is_ok().then_some(value)
}

fn id(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|value| u32::try_from(value).ok())
}

/// `[-]digits[.digits]`, rounded down to the second.
fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let partial = fraction.iter().any(|byte| *byte != b'0');
    Some(match (negative, partial) {
        (false, _) => whole,
        (true, false) => -whole,
        (true, true) => -whole - 1,
    })
}

/// Appends one record; its length counts itself.
pub(crate) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(value: usize) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}
