//! The ids that a normal user's containers have to share: those of the user's namespace, in which 0 is the caller.

use std::path::Path;

use dhow_oci::runtime::IdMapping;
use dhow_types::ErrorKind;

use super::users::KeptId;
use crate::{Context as _, Error};

/// The ids of the user's namespace, in which the engine of a normal user works.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnIds {
    /// The caller outside of it, who is 0 in it.
    pub(super) caller: u32,
    /// How many it has beside the caller's, from 1 on.
    pub(super) others: u32,
}

/// Those of a file of `/proc/self`; `mode` is what needs them.
pub(super) fn own_ids(file: &str, mode: &str) -> Result<OwnIds, Error> {
    let path = Path::new("/proc/self").join(file);
    let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
    OwnIds::read(&text).filter(|own| own.others > 0).ok_or_else(|| {
        let message = format!("--userns {mode} needs further ids than the user's own");
        Error::new(ErrorKind::FailedPrecondition, message).with_hint(
            "install the package uidmap, and give the user ranges in /etc/subuid and /etc/subgid (usermod --add-subuids \
             100000-165535 --add-subgids 100000-165535 USER)",
        )
    })
}

impl OwnIds {
    /// Of a map of `/proc` whose first line is the caller's.
    fn read(text: &str) -> Option<Self> {
        let mut caller = None;
        let mut end = 0_u32;
        for line in text.lines() {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
            let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
            // A hole would be mapped to nothing.
            if inside != end {
                break;
            }
            caller = caller.or(Some(outside));
            end = end.checked_add(count)?;
        }
        Some(Self {
            caller: caller?,
            others: end.checked_sub(1)?,
        })
    }

    /// Without the caller (podman's `nomap`).
    pub(super) fn without_caller(self) -> Vec<IdMapping> {
        vec![IdMapping {
            container_id: 0,
            host_id: 1,
            size: self.others,
        }]
    }

    /// With the caller as `id` inside, and around it the others (podman's `keep-id`): no more of them than `size`.
    pub(super) fn with_caller(self, id: u32, size: Option<u32>) -> Vec<IdMapping> {
        let others = size.map_or(self.others, |size| size.min(self.others));
        let below = id.min(others);
        let row = |container_id: u32, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        let rows = [
            row(0, 1, below),
            row(id, 0, 1),
            row(id.saturating_add(1), below.saturating_add(1), others - below),
        ];
        rows.into_iter().filter(|row| row.size > 0).collect()
    }
}

/// The user and group that the caller is outside of every namespace of ours.
pub(super) fn caller() -> Result<(u32, u32), Error> {
    if crate::rootless::is_rootful() {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        return Ok((uid.as_raw(), gid.as_raw()));
    }
    Ok((
        own_ids("uid_map", "keep-id")?.caller,
        own_ids("gid_map", "keep-id")?.caller,
    ))
}

/// The user and group that the caller is inside, as `UID:GID`.
pub(super) fn kept_user(kept: &KeptId) -> Result<String, Error> {
    let (uid, gid) = caller()?;
    Ok(format!("{}:{}", kept.uid.unwrap_or(uid), kept.gid.unwrap_or(gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn the_caller_is_who_they_are_and_all_others_are_around() {
        let own = OwnIds::read("0 1000 1\n1 100000 65536\n").unwrap();
        assert_eq!((own.caller, own.others), (1000, 65_536));
        assert_eq!(
            own.with_caller(1000, None),
            [map(0, 1, 1000), map(1000, 0, 1), map(1001, 1001, 64_536)]
        );
        assert_eq!(own.with_caller(0, None), [map(0, 0, 1), map(1, 1, 65_536)]);
        assert_eq!(
            own.with_caller(70_000, None),
            [map(0, 1, 65_536), map(70_000, 0, 1)]
        );
        assert_eq!(own.with_caller(1000, Some(10)), [map(0, 1, 10), map(1000, 0, 1)]);
        assert_eq!(own.without_caller(), [map(0, 1, 65_536)]);
        let alone = OwnIds::read("         0      65534          1\n").unwrap();
        assert_eq!((alone.caller, alone.others), (65_534, 0));
        assert!(OwnIds::read("5 5 1").is_none());
        assert!(OwnIds::read("").is_none());
    }
}
