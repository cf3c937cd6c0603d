//! Where the sources of `COPY`, `ADD` and mounts come from, and what they are in a key.

use std::sync::Arc;

use dhow_types::{DiffId, Digest};

use crate::failure::{Error, Halt};
use crate::keys::KeyWriter;
use crate::outside::Outside;
use crate::source::{Item, Pick, Picked, Source, clip, pick};
use crate::stage::Stage;
use crate::tree::StackSource;
use crate::why::{self, Inputs};

/// Where sources come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Context,
    /// A named context, or what was fetched.
    Outside(Arc<Outside>),
    Stack(Vec<DiffId>),
}

impl Origin {
    /// A path as written, from the root of the source.
    pub(crate) fn located(&self, written: &str) -> String {
        match self {
            Self::Outside(tree) if !tree.subdir.is_empty() => format!("{}/{}", tree.subdir, clip(written)),
            _ => written.to_owned(),
        }
    }
}

pub(crate) fn stack_key(stack: &[DiffId]) -> Digest {
    let mut key = KeyWriter::new("source stack");
    key.stack(stack);
    key.finish()
}

pub(crate) fn hash_items(source: &dyn Source, items: &mut [(Vec<u8>, Item)]) -> Result<(), Error> {
    let mut plain: Vec<Item> = items.iter().map(|(_, item)| item.clone()).collect();
    source.hash(&mut plain)?;
    for ((_, item), hashed) in items.iter_mut().zip(plain) {
        *item = hashed;
    }
    Ok(())
}

/// Runs `work` with the source that an origin means.
pub(crate) fn with_source<T>(
    stage: &Stage<'_, '_>,
    origin: &Origin,
    work: impl FnOnce(&dyn Source) -> Result<T, Halt>,
) -> Result<T, Halt> {
    let build = stage.build;
    match origin {
        Origin::Stack(stack) => work(&StackSource {
            tree: build.trees.tree(stack)?,
            layers: &build.store.layers,
        }),
        Origin::Outside(tree) => work(&tree.context),
        Origin::Context => match &build.context {
            Some(context) => work(context),
            None => work(&StackSource {
                tree: build.trees.tree(&[])?,
                layers: &build.store.layers,
            }),
        },
    }
}

/// Key of what sources name. A stack that is not looked into is its layers; the context is always looked into.
pub(crate) fn pick_key(
    stage: &Stage<'_, '_>,
    origin: &Origin,
    paths: &[String],
    how: &Pick,
    by_content: bool,
) -> Result<Digest, Halt> {
    if let (Origin::Stack(stack), false) = (origin, by_content) {
        return Ok(stack_key(stack));
    }
    with_source(stage, origin, |source| {
        let mut key = KeyWriter::new("sources");
        for path in paths {
            for picked in pick(source, &origin.located(path), how)? {
                write_picked(source, &mut key, picked)?;
            }
        }
        Ok(key.finish())
    })
}

/// The same for people: each file of the context, or the layers of a stage.
pub(crate) fn pick_inputs(
    stage: &Stage<'_, '_>,
    origin: &Origin,
    paths: &[String],
    how: &Pick,
    inputs: &mut Inputs,
) -> Result<(), Halt> {
    if let Origin::Stack(stack) = origin {
        inputs.hashed("content of --from", "", &stack_key(stack));
        return Ok(());
    }
    with_source(stage, origin, |source| {
        for path in paths {
            for mut picked in pick(source, &origin.located(path), how)? {
                let mut top = [picked.top.clone()];
                if picked.top.is_dir() {
                    hash_items(source, &mut picked.below)?;
                } else {
                    source.hash(&mut top)?;
                    inputs.item(why::FILE, &top[0].path, &top[0]);
                }
                for (_, item) in &picked.below {
                    inputs.item(why::FILE, &item.path, item);
                }
            }
        }
        Ok(())
    })
}

fn write_picked(source: &dyn Source, key: &mut KeyWriter, mut picked: Picked) -> Result<(), Error> {
    if picked.top.is_dir() {
        // Of the top directory itself nothing is copied.
        key.text("directory").number(picked.below.len() as u64);
        hash_items(source, &mut picked.below)?;
        for (name, item) in &picked.below {
            key.item(name, item);
        }
        return Ok(());
    }
    let mut top = [picked.top];
    source.hash(&mut top)?;
    let [top] = top;
    key.text("file").item(&picked.name, &top);
    Ok(())
}
