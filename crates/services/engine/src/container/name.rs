//! Names and ids of containers that nobody named.

use dhow_types::ContainerId;

use crate::{Context as _, Engine, Error};

impl Engine {
    /// A name in docker's manner, an adjective and a word, from the id's own randomness.
    pub(super) fn fresh_name(&self, id: &ContainerId) -> Result<String, Error> {
        const FIRST: [&str; 16] = [
            "able", "bold", "calm", "deft", "eager", "fair", "glad", "keen", "kind", "lively", "merry",
            "neat", "quick", "steady", "sunny", "wise",
        ];
        const SECOND: [&str; 16] = [
            "anchor", "breeze", "compass", "dhow", "ebb", "fleet", "gull", "harbor", "island", "keel",
            "lantern", "mast", "oar", "pilot", "reef", "sail",
        ];
        let digit = |at: usize| usize::from_str_radix(&id.as_str()[at..=at], 16).unwrap_or(0);
        let plain = format!("{}_{}", FIRST[digit(0)], SECOND[digit(1)]);
        Ok(if self.containers().names().is_free(&plain) {
            plain
        } else {
            format!("{plain}_{}", &id.as_str()[2..10])
        })
    }
}

pub(crate) fn random_bytes() -> Result<[u8; 32], Error> {
    let mut raw = [0; 32];
    rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| "draw a random id")?;
    Ok(raw)
}
