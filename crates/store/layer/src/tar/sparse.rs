use dhow_types::ErrorKind;

use super::header::{self, BLOCK, Header};
use super::pax;
use crate::Error;

/// Where the stored bytes of a sparse file go; all else is holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// `(offset, length)` in rising order, none empty.
    pub(crate) data: Vec<(u64, u64)>,
    /// Bytes of the file, holes included.
    pub(crate) real_size: u64,
}

fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("sparse map {why}"))
}

impl SparseMap {
    /// # Errors
    /// `InvalidArgument` when the pieces overlap, are out of order, beyond the end, or not `stored` bytes together.
    pub(crate) fn new(numbers: &[u64], real_size: u64, stored: u64) -> Result<Self, Error> {
        if !numbers.len().is_multiple_of(2) {
            return Err(malformed("has an odd number of fields"));
        }
        let mut data = Vec::with_capacity(numbers.len() / 2);
        let (mut end, mut sum) = (0_u64, 0_u64);
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let next = offset.checked_add(length).ok_or_else(|| malformed("overflows"))?;
            if offset < end || next > real_size {
                return Err(malformed("is out of order or beyond the end of the file"));
            }
            end = next;
            sum += length;
            if length > 0 {
                data.push((offset, length));
            }
        }
        if sum != stored {
            return Err(malformed("does not add up to the stored size"));
        }
        Ok(Self { data, real_size })
    }
}

/// The numbers of one block of the old GNU form: `slots` pairs of 12-byte fields; an empty slot ends them.
///
/// # Errors
/// `InvalidArgument` when one is no number.
pub(crate) fn gnu_slots(fields: &[u8], slots: usize, out: &mut Vec<u64>) -> Result<(), Error> {
    for slot in fields.chunks_exact(24).take(slots) {
        if slot[0] == 0 {
            break;
        }
        out.push(header::unsigned(&slot[..12], "sparse map")?);
        out.push(header::unsigned(&slot[12..], "sparse map")?);
    }
    Ok(())
}

/// The part of the old GNU form that is in the header: numbers, whether blocks follow, real size.
///
/// # Errors
/// `InvalidArgument` when one is no number.
pub(crate) fn gnu_header(block: &Header) -> Result<(Vec<u64>, bool, u64), Error> {
    let mut numbers = Vec::new();
    gnu_slots(&block.0[386..482], 4, &mut numbers)?;
    let real_size = header::unsigned(&block.0[483..495], "sparse size")?;
    Ok((numbers, block.0[482] != 0, real_size))
}

/// Reads the map at the front of a body (version 1.0): decimal lines, the first is the number of pairs.
#[derive(Debug, Default)]
pub(crate) struct FrontMap {
    numbers: Vec<u64>,
    line: Vec<u8>,
    wanted: Option<usize>,
}

impl FrontMap {
    /// Takes one block; whether the map is complete.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but decimal lines; `ResourceExhausted` for more than `most` pairs.
    pub(crate) fn take(&mut self, block: &[u8; BLOCK], most: usize) -> Result<bool, Error> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte != b'\n' {
                if self.line.len() > 20 {
                    return Err(malformed("has a line that is no number"));
                }
                self.line.push(*byte);
                continue;
            }
            let value = pax::decimal(&self.line).ok_or_else(|| malformed("has a line that is no number"))?;
            self.line.clear();
            if self.wanted.is_some() {
                self.numbers.push(value);
                continue;
            }
            let pairs = usize::try_from(value).ok().filter(|pairs| *pairs <= most);
            let pairs = pairs.ok_or_else(|| {
                Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("sparse map has more than {most} pieces"),
                )
            })?;
            self.wanted = Some(pairs * 2);
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.wanted == Some(self.numbers.len())
    }

    pub(crate) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}
