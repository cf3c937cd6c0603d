//! Reading and writing of tar archives: ustar, PAX (POSIX.1-2001) and GNU forms.

use std::io::{Read, Write};

use crate::{Entry, Error, Limits};

/// Reads an archive entry by entry. Between two calls of [`Reader::next_entry`] it is a [`Read`] of the body of the
/// current entry (holes of sparse files read as zeros); what is not read is skipped.
///
/// Names are normalised: leading `/`, `.` and `//` go, `..` is resolved in the text; a name that leads out of the
/// root is an error. Whiteout names are not interpreted: they are files here.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
}

impl<R: Read> Reader<R> {
    /// Reads the uncompressed archive `input` within the default limits.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, Limits::default())
    }

    /// Reads the uncompressed archive `input` within `limits`.
    pub fn with_limits(input: R, _limits: Limits) -> Self {
        Self { input }
    }

    /// The next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// `InvalidArgument` when the archive is malformed or hostile, `ResourceExhausted` beyond a limit, `DataLoss`
    /// when it ends too early.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        Err(crate::store::unfinished())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(buf)
    }
}

/// Writes an archive in the canonical form: ustar where it fits, PAX records where it does not.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Adds one entry; `body` is read for exactly `entry.size` bytes when it is a file.
    /// A `Whiteout` becomes an empty file `.wh.<name>`; an opaque directory is followed by `.wh..wh..opq`.
    ///
    /// # Errors
    /// `DataLoss` when the body is shorter; failures of the output.
    pub fn append(&mut self, _entry: &Entry, _body: impl Read) -> Result<(), Error> {
        Err(crate::store::unfinished())
    }

    /// Ends the archive and gives the output back.
    ///
    /// # Errors
    /// Failures of the output.
    pub fn finish(self) -> Result<W, Error> {
        Ok(self.output)
    }
}
