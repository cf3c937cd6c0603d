use std::path::Path;

use dhow_types::{DiffId, ErrorKind};

use crate::state::State;
use crate::{Capture, Error};

pub(crate) fn capture(_upper: &Path, _dir: &Path, _how: &Capture) -> Result<(DiffId, State), Error> {
    Err(Error::new(ErrorKind::Unsupported, "capture is being written"))
}
