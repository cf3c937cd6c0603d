use std::collections::HashSet;
use std::io;
use std::path::Path;

use dhow_layer::{Layer, LayerStore};
use dhow_types::{DiffId, ErrorKind};

use crate::{Context, Error};

/// What the `stack` file ends with: a file cut short by a crash does not have it.
const END: &str = "end\n";

/// Most layers of one overlay (`OVL_MAX_STACK` in fs/overlayfs/params.h).
pub(crate) const MOST: usize = 500;

/// The layers of `stack` that count, lowest first: from the last that hides all below it, and of equal ones only the
/// topmost, which hides the others (overlayfs refuses a directory that comes twice).
pub(crate) fn layers(store: &LayerStore, stack: &[DiffId]) -> Result<Vec<Layer>, Error> {
    let mut seen = HashSet::new();
    let mut layers = Vec::with_capacity(stack.len());
    for diff in stack.iter().rev().filter(|diff| seen.insert(**diff)) {
        let layer = store.sound(diff).context(|| "find the layers of a snapshot")?;
        let opaque = layer.is_opaque();
        layers.push(layer);
        if opaque {
            break;
        }
    }
    layers.reverse();
    Ok(layers)
}

/// Refuses what overlayfs cannot mount.
pub(crate) fn check_overlay(layers: &[Layer]) -> Result<(), Error> {
    if layers.len() > MOST {
        let message = format!(
            "overlayfs takes {MOST} layers at most, this stack has {}",
            layers.len()
        );
        return Err(Error::new(ErrorKind::Unsupported, message).with_hint("squash the image"));
    }
    Ok(())
}

pub(crate) fn write(dir: &Path, stack: &[DiffId]) -> Result<(), Error> {
    let mut text = String::with_capacity(stack.len() * 72 + END.len());
    for diff in stack {
        text.push_str(&diff.to_string());
        text.push('\n');
    }
    text.push_str(END);
    // By rename: a sweep reads it at any moment. Until then there is no snapshot of this name.
    let (path, next) = (dir.join("stack"), dir.join("stack.next"));
    std::fs::write(&next, text)
        .and_then(|()| std::fs::rename(&next, &path))
        .context(|| format!("write {}", path.display()))
}

pub(crate) fn read(dir: &Path, key: &str) -> Result<Vec<DiffId>, Error> {
    let text = match std::fs::read_to_string(dir.join("stack")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::NotFound, format!("no snapshot {key}")));
        }
        other => other.context(|| format!("read the snapshot {key}"))?,
    };
    let damaged = || {
        Error::new(
            ErrorKind::DataLoss,
            format!("the list of layers of the snapshot {key} is damaged"),
        )
    };
    let lines = text.strip_suffix(END).ok_or_else(damaged)?;
    lines
        .lines()
        .map(|line| line.parse().map_err(|_| damaged()))
        .collect()
}
