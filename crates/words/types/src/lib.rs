//! The words of the whole program: digests, ids, platforms, package URLs, error kinds, places in text, sizes and durations.
//!
//! Everything here is a value. Nothing reads a file, a clock or the environment; parsing is total and bounded.

#![forbid(unsafe_code)]

mod digest;
mod error;
mod id;
mod observe;
mod platform;
mod purl;
mod quantity;
mod span;

pub use digest::{ChainId, DiffId, Digest, Hasher, ImageId, ParseDigestError};
pub use error::{ErrorKind, Failure, Failures, Report};
pub use id::{ContainerId, NetworkId, ParseIdError, validate_name};
pub use observe::{Observer, Progress, Silent};
pub use platform::{ParsePlatformError, Platform};
pub use purl::Purl;
pub use quantity::{
    ByteSize, ParseQuantityError, format_duration, human_ago, human_binary_size, human_size,
    human_size_short, parse_duration,
};
pub use span::{Span, SyntaxError};
