//! What is in an image or a directory. Each layer is looked through once, by a process that can do nothing else.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dhow_image::Image;
use dhow_inventory::{Delta, Inventory, Layer as LayerFiles, Scanner, Tree};
use dhow_layer::Layer;
use dhow_rootpath::Root;
use dhow_types::{DiffId, ErrorKind};

use crate::confined::Confined;
use crate::{Context as _, Engine, Error};

/// Largest delta that is read back: one of [`dhow_inventory::MAX_PACKAGES`] packages has some 100 MB.
const MOST_DELTA: u64 = 512 << 20;

/// What is in an image.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Its packages; their layers are counted in `layers`.
    pub inventory: Inventory,
    /// Its layers, the lowest first; none of a directory.
    pub layers: Vec<DiffId>,
}

impl Engine {
    /// What is in an image. Layers that were not looked through before are now, at the cost of reading what says that
    /// something is installed; then it is known without their files. The caller must be single-threaded.
    ///
    /// # Errors
    /// When the store cannot be read, or a layer's files exhaust whoever reads them.
    pub fn contents(&self, image: &Image) -> Result<Contents, Error> {
        self.contents_of_layers(&image.record.layers)
    }

    /// The same of layers, the lowest first.
    ///
    /// # Errors
    /// As [`Engine::contents`].
    pub fn contents_of_layers(&self, layers: &[DiffId]) -> Result<Contents, Error> {
        let deltas = self.deltas(layers)?;
        let deltas: Vec<&Delta> = deltas.iter().collect();
        Ok(Contents {
            inventory: Inventory::of(&deltas),
            layers: layers.to_vec(),
        })
    }

    /// What is in a directory. The caller must be single-threaded.
    ///
    /// # Errors
    /// `NotFound`; otherwise as [`Engine::contents`].
    pub fn contents_of_folder(&self, folder: &Path) -> Result<Contents, Error> {
        let root = Root::open(folder).context(|| format!("open {}", folder.display()))?;
        let answer = Confined::start(Some(&root), || {
            let delta = Scanner
                .source_delta(&Tree { root: &root })
                .context(|| "look through its files")?;
            Ok(delta.encode())
        })?
        .wait()
        .context(|| format!("look through {}", folder.display()))?;
        let delta = decoded(&answer)?;
        Ok(Contents {
            inventory: Inventory::of(&[&delta]),
            layers: Vec::new(),
        })
    }

    /// What each of these layers says, in their order.
    pub(crate) fn deltas(&self, layers: &[DiffId]) -> Result<Vec<Delta>, Error> {
        let mut known: Vec<Option<Delta>> = layers.iter().map(|diff| self.known_delta(diff)).collect();
        let mut missing: Vec<DiffId> = Vec::new();
        for (diff, delta) in layers.iter().zip(&known) {
            if delta.is_none() && !missing.contains(diff) {
                missing.push(*diff);
            }
        }
        let done = |diff: &DiffId, answer: Result<Vec<u8>, Error>| {
            let answer = answer.context(|| format!("look through layer {}", diff.short()))?;
            let delta = decoded(&answer)?;
            self.keep_delta(diff, &answer)?;
            for (wanted, slot) in layers.iter().zip(&mut known) {
                if wanted == diff {
                    *slot = Some(delta.clone());
                }
            }
            Ok(())
        };
        in_turns(&missing, |diff| self.look_through(diff), done)?;
        Ok(known.into_iter().flatten().collect())
    }

    fn look_through(&self, diff: &DiffId) -> Result<Confined, Error> {
        let what = || format!("look through layer {}", diff.short());
        let layers = &self.store()?.layers;
        let layer: Layer = layers.layer(diff).context(what)?;
        let index = layer.index().context(what)?;
        let root = layers.tree(diff).context(what)?;
        Confined::start(Some(&root), || {
            let files = LayerFiles {
                index: &index,
                root: &root,
            };
            let delta = Scanner.delta(&files).context(|| "look through its files")?;
            Ok(delta.encode())
        })
    }

    fn delta_path(&self, diff: &DiffId) -> PathBuf {
        let folder = self.settings().root.join("cache").join("inventory");
        folder.join(diff.hex())
    }

    fn known_delta(&self, diff: &DiffId) -> Option<Delta> {
        use std::io::Read as _;
        let file = std::fs::File::open(self.delta_path(diff)).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST_DELTA).read_to_end(&mut bytes).ok()?;
        // Of another form, or cut off by a power cut: it is made again.
        Delta::decode(&bytes)
    }

    /// Whether all of these layers were looked through before.
    pub(crate) fn knows_deltas(&self, layers: &[DiffId]) -> bool {
        layers.iter().all(|diff| self.known_delta(diff).is_some())
    }

    /// Another process may do the same at the same time: both write the same.
    fn keep_delta(&self, diff: &DiffId, bytes: &[u8]) -> Result<(), Error> {
        let path = self.delta_path(diff);
        let what = || format!("write {}", path.display());
        if let Some(folder) = path.parent() {
            crate::container::make_folder(folder)?;
        }
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let written = std::fs::write(&staged, bytes).and_then(|()| std::fs::rename(&staged, &path));
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(what)
    }

    /// Forgets what is known of layers that the store has no more.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub(crate) fn forget_deltas(&self) -> Result<(), Error> {
        let folder = self.settings().root.join("cache").join("inventory");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return Ok(());
        };
        let layers = self.store()?.layers.list().context(|| "list the layers")?;
        let layers: HashSet<String> = layers.iter().map(|diff| diff.hex()).collect();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // Another process may be about to give it its name.
            let maker = name
                .split_once(".new-")
                .map(|(_, pid)| Path::new("/proc").join(pid));
            if !layers.contains(&*name) && !maker.is_some_and(|maker| maker.exists()) {
                // It is a copy of what can be found out again.
                drop(std::fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }
}

/// Starts a process for each job, as many at once as there are processors, and hands over what each says.
pub(crate) fn in_turns<J>(
    jobs: &[J],
    start: impl Fn(&J) -> Result<Confined, Error>,
    mut done: impl FnMut(&J, Result<Vec<u8>, Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for some in jobs.chunks(at_once) {
        let started = some.iter().map(|job| Ok((job, start(job)?)));
        for (job, process) in started.collect::<Result<Vec<_>, Error>>()? {
            done(job, process.wait())?;
        }
    }
    Ok(())
}

pub(crate) fn decoded(answer: &[u8]) -> Result<Delta, Error> {
    Delta::decode(answer)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "what was found in the files cannot be read"))
}
