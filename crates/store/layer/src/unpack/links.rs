//! Symbolic links on the way to an entry. What they hold is in the directory that is being made, or only in the ledger.

use super::tree::{join, refused, split_path};
use crate::Error;

/// Links followed on the way to one entry, as in the kernel.
const MOST_LINKS: u32 = 40;

/// The real path of the directory `dir` after all links in it; what is missing stays as it is named. `link` says what the
/// link at a real path holds; nothing for what is no link.
pub(super) fn follow(
    dir: &[u8],
    longest: usize,
    mut link: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Vec<u8>, Error> {
    let mut todo: Vec<Vec<u8>> = dir
        .split(|byte| *byte == b'/')
        .rev()
        .map(<[u8]>::to_vec)
        .collect();
    let mut real = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                let end = split_path(&real).0.len();
                real.truncate(end);
                continue;
            }
            _ => (),
        }
        let next = join(&real, &part);
        if next.len() > longest {
            return Err(refused("it leads through a link to a path that is too long"));
        }
        let Some(target) = link(&next)? else {
            real = next;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(refused("its directory is a loop of symbolic links"));
        }
        if target.first() == Some(&b'/') {
            real.clear();
        }
        todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }
    Ok(real)
}
