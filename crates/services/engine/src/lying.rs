//! What is in an image that lies in an archive or a layout. Nothing is unpacked, and nothing of it is kept: what is remembered of a layer
//! is remembered by its hash, which nobody vouches for here.

use std::collections::HashMap;

use dhow_image::LyingImage;
use dhow_inventory::{Delta, Inventory, Scanner};
use dhow_layer::{Extent, Limits};
use dhow_types::{DiffId, ErrorKind};

use crate::confined::Confined;
use crate::inventory::{decoded, in_turns};
use crate::{Contents, Context as _, Engine, Error};

/// What is done with a layer.
enum Job<'a> {
    LookThrough(&'a Extent),
    Hash(&'a Extent, DiffId),
}

impl Engine {
    /// What is in an image in an archive or a layout. With `verified` its layers are also checked to be those that its config names, as
    /// they are when it is loaded. The caller must be single-threaded.
    ///
    /// # Errors
    /// `DataLoss` when a layer is damaged, or another one; when one is malformed, or exhausts whoever reads it.
    pub fn contents_of_lying(&self, lying: &LyingImage, verified: bool) -> Result<Contents, Error> {
        let diffs = &lying.image.record.layers;
        // A layer may come twice, but is told by its place: its hash is a claim.
        let mut places = HashMap::new();
        let mut numbers = Vec::with_capacity(diffs.len());
        let mut jobs = Vec::new();
        for (layer, diff) in lying.layers.iter().zip(diffs) {
            let place = layer.place().context(|| "look at a layer")?;
            let next = places.len();
            let number = *places.entry(place).or_insert(next);
            if number == next {
                jobs.push(Job::LookThrough(layer));
            }
            if verified {
                jobs.push(Job::Hash(layer, *diff));
            }
            numbers.push(number);
        }
        let mut deltas: Vec<Delta> = Vec::with_capacity(places.len());
        in_turns(&jobs, start, |job, answer| {
            match job {
                Job::Hash(_, diff) => {
                    let what = || format!("hash layer {}", diff.short());
                    is_layer(diff, &answer.context(what)?)?;
                }
                Job::LookThrough(_) => {
                    let what = || format!("look through layer {}", deltas.len());
                    let delta = decoded(&answer.context(what)?)?;
                    deltas.push(delta);
                }
            }
            Ok(())
        })?;
        let stack: Vec<&Delta> = numbers.iter().filter_map(|number| deltas.get(*number)).collect();
        Ok(Contents {
            inventory: Inventory::of(&stack),
            layers: diffs.clone(),
        })
    }
}

fn start(job: &Job<'_>) -> Result<Confined, Error> {
    Confined::start(None, || match job {
        Job::LookThrough(layer) => {
            let delta = Scanner.lying_delta(layer);
            Ok(delta.context(|| "look through its files")?.encode())
        }
        Job::Hash(layer, _) => {
            let found = layer.diff_id(&Limits::default());
            Ok(found.context(|| "read all of it")?.to_string().into_bytes())
        }
    })
}

fn is_layer(promised: &DiffId, answer: &[u8]) -> Result<(), Error> {
    if answer == promised.to_string().as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(answer);
    let message = format!("the config names layer {promised}, but its bytes are {found}");
    Err(Error::new(ErrorKind::DataLoss, message))
}
