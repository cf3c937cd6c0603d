//! The split form of a tar: all its bytes that are not in files of the tree, so that the exact tar can be made again.
//!
//! zstd over: `"DHOWSPL\0" version`, then records, each a varint tag and its fields:
//! `1 length bytes` literal bytes; `2 path stored pieces (offset length)*` the body of a file, whole when there are no
//! pieces; `0` the end. Bodies are counted: the body number `n` is in `lost/n` when that is there, else at its path.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use dhow_types::ErrorKind;

use crate::varint;
use crate::{Context, Error};

const MAGIC: &[u8; 9] = b"DHOWSPL\0\x01";

/// Literal bytes that are collected before they become a record.
const LITERAL: usize = 64 << 10;

/// Headers are so alike that the fastest level is enough: 50,000 of them make 25 MB before and 1.5 MB after.
const LEVEL: i32 = 1;

/// Most bytes of one field when read back.
const MOST_FIELD: u64 = 16 << 20;

/// Writes the split form.
pub(crate) struct SplitWriter {
    output: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    literal: Vec<u8>,
    bodies: u32,
}

impl SplitWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create_new(path).context(|| format!("create {}", path.display()))?;
        let mut output = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)
            .context(|| "start the zstd encoder")?;
        output
            .include_checksum(true)
            .context(|| "start the zstd encoder")?;
        output
            .write_all(MAGIC)
            .context(|| "write the split form of a layer")?;
        Ok(Self {
            output,
            literal: Vec::with_capacity(2 * LITERAL),
            bodies: 0,
        })
    }

    /// Takes the bytes out of `literal`.
    pub(crate) fn literal(&mut self, literal: &mut Vec<u8>) -> Result<(), Error> {
        self.literal.append(literal);
        if self.literal.len() >= LITERAL {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// A body that is in the tree at `path`; its number.
    pub(crate) fn body(&mut self, path: &[u8], stored: u64, pieces: &[(u64, u64)]) -> Result<u32, Error> {
        self.flush()?;
        let mut record = Vec::with_capacity(path.len() + 16);
        varint::put(&mut record, 2);
        varint::put_bytes(&mut record, path);
        varint::put(&mut record, stored);
        varint::put(&mut record, pieces.len() as u64);
        for (offset, length) in pieces {
            varint::put(&mut record, *offset);
            varint::put(&mut record, *length);
        }
        self.write(&record)?;
        self.bodies += 1;
        Ok(self.bodies - 1)
    }

    /// Ends the form.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        self.write(&[0])?;
        let mut file = self
            .output
            .finish()
            .context(|| "write the split form of a layer")?;
        file.flush().context(|| "write the split form of a layer")
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let mut head = Vec::with_capacity(12);
        varint::put(&mut head, 1);
        varint::put(&mut head, self.literal.len() as u64);
        self.write(&head)?;
        let literal = std::mem::take(&mut self.literal);
        self.write(&literal)?;
        self.literal = literal;
        self.literal.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output
            .write_all(bytes)
            .context(|| "write the split form of a layer")
    }
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(Vec<u8>),
    Body {
        number: u32,
        path: Vec<u8>,
        stored: u64,
        pieces: Vec<(u64, u64)>,
    },
}

/// Reads the split form.
pub(crate) struct SplitReader {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    bodies: u32,
}

fn damaged() -> Error {
    Error::new(ErrorKind::DataLoss, "the stored split form of a layer is damaged")
}

impl SplitReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).context(|| format!("open {}", path.display()))?;
        let decoder = zstd::stream::read::Decoder::new(file).context(|| "start the zstd decoder")?;
        let mut reader = Self {
            input: BufReader::with_capacity(LITERAL, decoder),
            bodies: 0,
        };
        if reader.bytes(MAGIC.len() as u64)? != MAGIC {
            return Err(damaged());
        }
        Ok(reader)
    }

    pub(crate) fn next_part(&mut self) -> Result<Option<Part>, Error> {
        match self.number()? {
            0 => Ok(None),
            1 => {
                let length = self.number()?;
                self.bytes(length).map(Part::Literal).map(Some)
            }
            2 => {
                let length = self.number()?;
                let path = self.bytes(length)?;
                let stored = self.number()?;
                let count = self.number()?;
                if count > MOST_FIELD {
                    return Err(damaged());
                }
                let mut pieces = Vec::new();
                for _ in 0..count {
                    pieces.push((self.number()?, self.number()?));
                }
                let number = self.bodies;
                self.bodies += 1;
                Ok(Some(Part::Body {
                    number,
                    path,
                    stored,
                    pieces,
                }))
            }
            _ => Err(damaged()),
        }
    }

    fn number(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = *self
                .input
                .fill_buf()
                .context(|| "read the split form of a layer")?
                .first()
                .ok_or_else(damaged)?;
            self.input.consume(1);
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        if length > MOST_FIELD {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        (&mut self.input)
            .take(length)
            .read_to_end(&mut bytes)
            .context(|| "read the split form of a layer")?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(damaged())
        }
    }
}
