use dhow_types::ErrorKind;

use crate::{Error, Limits};

/// Brings a name of an archive into the one form used everywhere: components joined by `/`, no `.`, no `..`, nothing
/// before or after; empty for the root.
///
/// `..` is resolved in the text and never asks the file system, as docker does (moby `archive.Unpack`,
/// `filepath.Clean`); absolute names are taken relative to the root.
///
/// # Errors
/// `InvalidArgument` when a relative name leads out of the root, or a component or the whole is too long.
pub(crate) fn clean(raw: &[u8], limits: &Limits) -> Result<Vec<u8>, Error> {
    if raw.len() > limits.path {
        return Err(bad(raw, "is too long"));
    }
    if raw.contains(&0) {
        return Err(bad(raw, "holds a zero byte"));
    }
    let absolute = raw.first() == Some(&b'/');
    let mut out = Vec::with_capacity(raw.len());
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => (),
            b".." => match out.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => out.truncate(slash),
                None if !out.is_empty() => out.clear(),
                None if absolute => (),
                None => return Err(bad(raw, "leads out of the root")),
            },
            _ if part.len() > limits.name => return Err(bad(raw, "has a component that is too long")),
            _ => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(out)
}

fn bad(raw: &[u8], why: &str) -> Error {
    let shown = &raw[..raw.len().min(200)];
    Error::new(
        ErrorKind::InvalidArgument,
        format!("name {:?} {why}", String::from_utf8_lossy(shown)),
    )
}
