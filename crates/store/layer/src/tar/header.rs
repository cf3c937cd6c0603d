use dhow_types::ErrorKind;

use crate::Error;

/// Size of a header, and what bodies are padded to.
pub(crate) const BLOCK: usize = 512;

/// One header block, still as bytes. Field places are those of POSIX.1-1988 `ustar`.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; BLOCK]);

/// Which dialect the magic says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// No magic: no prefix, no device numbers.
    V7,
    /// `ustar`, possibly with PAX headers.
    Ustar,
    /// The older form of GNU tar: no prefix, sparse map in the header.
    Gnu,
    /// Schilling's `star`: a shorter prefix.
    Star,
}

/// Whether a file whose first 512 bytes are `start` is a tar archive: its first header has content and a right checksum.
/// What the header says, and what follows it, may still be refused.
#[must_use]
pub fn is_archive(start: &[u8]) -> bool {
    <[u8; BLOCK]>::try_from(start).is_ok_and(|block| {
        let header = Header(block);
        !header.is_zero() && header.check().is_ok()
    })
}

impl Header {
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// # Errors
    /// `InvalidArgument` when the checksum fits neither the unsigned nor the old signed sum.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let stored = number(&self.0[148..156]);
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == Some(unsigned) || stored == Some(signed) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "tar header has a wrong checksum: this is no tar archive",
        ))
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &self.0[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        }
    }

    pub(crate) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// The name with its prefix.
    pub(crate) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => text(&self.0[345..500]),
            Dialect::Star => text(&self.0[345..476]),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(crate) fn link_name(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    /// # Errors
    /// `InvalidArgument` when it is no number or negative.
    pub(crate) fn size(&self) -> Result<u64, Error> {
        unsigned(&self.0[124..136], "size")
    }

    /// # Errors
    /// `InvalidArgument` when it is no number.
    pub(crate) fn mtime(&self) -> Result<i64, Error> {
        number(&self.0[136..148]).ok_or_else(|| malformed("mtime"))
    }

    /// # Errors
    /// `InvalidArgument` when it is no number.
    pub(crate) fn mode(&self) -> Result<u32, Error> {
        let mode = number(&self.0[100..108]).ok_or_else(|| malformed("mode"))?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    /// User and group.
    ///
    /// # Errors
    /// `InvalidArgument` when one is no id.
    pub(crate) fn owner(&self) -> Result<(u32, u32), Error> {
        Ok((id(&self.0[108..116], "uid")?, id(&self.0[116..124], "gid")?))
    }

    /// Device numbers; zero where the dialect has none.
    ///
    /// # Errors
    /// `InvalidArgument` when one is no number.
    pub(crate) fn device(&self) -> Result<(u32, u32), Error> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((id(&self.0[329..337], "major")?, id(&self.0[337..345], "minor")?))
    }
}

/// The text of a field, up to its first zero byte.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(b"")
}

/// The number in a field: octal digits, or base 256 (GNU) when the top bit is set. Blank is zero.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        return base_256(field);
    }
    let mut value = 0_i64;
    let mut digits = field.trim_ascii_start();
    while let Some(rest) = digits.strip_prefix(b"\0") {
        digits = rest;
    }
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?,
            // What follows the end of the digits is padding of any kind.
            0 => break,
            b' ' if digits[at..].iter().all(|byte| matches!(byte, b' ' | 0)) => break,
            _ => return None,
        }
    }
    Some(value)
}

fn base_256(field: &[u8]) -> Option<i64> {
    let invert = if field[0] & 0x40 == 0 { 0 } else { 0xff };
    let mut value = 0_u64;
    for (at, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if at == 0 {
            byte &= 0x7f;
        }
        if value >> 56 != 0 {
            return None;
        }
        value = (value << 8) | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if invert == 0 { value } else { !value })
}

/// # Errors
/// `InvalidArgument` when it is no number or negative.
pub(crate) fn unsigned(field: &[u8], what: &str) -> Result<u64, Error> {
    number(field)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| malformed(what))
}

fn id(field: &[u8], what: &str) -> Result<u32, Error> {
    number(field)
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| malformed(what))
}

pub(crate) fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("tar header has a malformed {what}"),
    )
}

/// Writes `value` as octal digits with a final zero byte; whether it fits.
pub(crate) fn put_octal(field: &mut [u8], value: u64) -> bool {
    let Some((end, digits)) = field.split_last_mut() else {
        return false;
    };
    *end = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    rest == 0
}
