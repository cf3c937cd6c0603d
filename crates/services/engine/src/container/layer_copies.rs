//! Copies of layers for the owners that containers in user namespaces have, in a normal user's store (`layer/src/owners.rs`).

use super::folder::Container;
use super::users::{UsersOrigin, keeps_ids_outside};
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Removes those that no container needs; bytes that this freed.
    pub(crate) fn forget_copies(&self) -> Result<u64, Error> {
        if !keeps_ids_outside() {
            return Ok(0);
        }
        let needed = || {
            let mut needed = dhow_layer::owners::Needed::new();
            for Container { config, .. } in self.containers().list().ok()? {
                let Some(users) = config.extras.users else {
                    continue;
                };
                if let UsersOrigin::Path(_) = users.origin {
                    // Only its start knows.
                    return None;
                }
                let name = users.ids().owners().name();
                let mounted = config.mounts.into_iter().filter_map(|mount| mount.image);
                let layers = config
                    .layers
                    .into_iter()
                    .chain(mounted.flat_map(|image| image.layers));
                needed.extend(layers.map(|diff| (diff, name.clone())));
            }
            Some(needed)
        };
        let freed = self.store()?.layers.forget_owners(&needed);
        freed.context(|| "remove copies of layers")
    }
}
