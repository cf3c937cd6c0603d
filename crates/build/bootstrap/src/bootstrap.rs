use dhow_types::{ErrorKind, Observer};

use crate::{Configure, Error, Fetch, Outcome, Request};

/// Makes the base file system that `request` describes.
///
/// # Errors
/// When no source offers the suite, a signature or hash does not match, a package is missing or conflicts, or a
/// package's own script fails. The root directory then holds a partial tree that the caller removes.
pub fn bootstrap(
    request: &Request,
    _fetch: &dyn Fetch,
    _configure: &dyn Configure,
    _observer: &dyn Observer,
) -> Result<Outcome, Error> {
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("cannot bootstrap {} yet", request.target),
    ))
}
