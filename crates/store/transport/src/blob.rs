use std::io::{self, Read};

use dhow_oci::Descriptor;

/// A manifest or index as a registry served it.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What it is: media type, digest, size.
    pub descriptor: Descriptor,
    /// Its bytes, verified against the digest.
    pub bytes: Vec<u8>,
}

/// The bytes of a blob, verified while they are read: a wrong length or digest is an error, never an early end.
#[derive(Debug)]
pub struct BlobReader(());

impl Read for BlobReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An answer to [`Client::get`](crate::Client::get).
#[derive(Debug)]
pub struct Download {
    /// Length of the body in bytes, when the server says it.
    pub length: Option<u64>,
    /// The body.
    pub body: Body,
}

/// A body that is being downloaded. Shorter than announced is an error.
#[derive(Debug)]
pub struct Body(());

impl Read for Body {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
