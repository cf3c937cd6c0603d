//! Image algebra: images from images, by their documents. Layers stay what they are, and with them the blobs that
//! registries have of them; only what asks for another layer makes one.

pub(crate) mod merge;
pub(crate) mod rebase;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dhow_build::Built;
use dhow_image::Image;
use dhow_layer::tar::{Reader, Writer};
use dhow_layer::{EntryKind, Unpack, decoder};
use dhow_meta::Lease;
use dhow_oci::{Extra, History, ImageConfig, RunConfig};
use dhow_reference::Reference;
use dhow_rootpath::Root;
use dhow_types::{DiffId, ErrorKind, ImageId, Platform};

use self::merge::Merged;
use crate::container::write_tree;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// Annotations of an image about its base (image-spec `annotations.md`).
pub(crate) const BASE_NAME: &str = "org.opencontainers.image.base.name";
pub(crate) const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What `image set` changes; what is `None` or empty stays.
#[derive(Clone, Debug, Default)]
pub struct SetImage {
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Names of variables that go.
    pub unset_env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Names of labels that go.
    pub unset_labels: Vec<String>,
    /// Program; an empty list takes it away.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; an empty list takes them away.
    pub cmd: Option<Vec<String>>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Ports, `80/tcp`, instead of those that are there.
    pub exposed_ports: Option<Vec<String>>,
    /// The machine that it is said to be for.
    pub platform: Option<Platform>,
    /// What the manifest says.
    pub annotations: BTreeMap<String, String>,
    /// Further changes as instructions of a Dockerfile.
    pub changes: Vec<String>,
}

/// What `image append` adds.
#[derive(Clone, Debug)]
pub enum Appended {
    /// A tar, compressed or not, as it is.
    Tar(PathBuf),
    /// A folder, everything of it owned by root, at this path of the image.
    Folder(PathBuf, String),
}

/// Where `image squash` begins.
#[derive(Clone, Debug)]
pub enum SquashFrom {
    /// The first layer.
    Start,
    /// The layer above those of this image, or the layer whose diff id begins so.
    Name(String),
    /// The layer above so many.
    Above(usize),
}

/// What came of a rebase.
#[derive(Clone, Debug)]
pub struct Rebased {
    /// The image.
    pub image: ImageId,
    /// Where layers have to do with what differs in the bases; empty unless they were to be overruled.
    pub conflicts: Vec<String>,
}

impl Engine {
    /// Makes an image with other settings.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an instruction that is none.
    pub fn set_image(&self, name: &str, what: &SetImage, tags: &[Reference]) -> Result<ImageId, Error> {
        let image = self.image(name)?;
        let mut config = image.config.clone();
        let run = self.change_config(std::mem::take(&mut config.config), &what.changes)?;
        config.config = changed(run, what);
        if let Some(platform) = &what.platform {
            config.architecture.clone_from(&platform.architecture);
            config.os.clone_from(&platform.os);
            config.variant.clone_from(&platform.variant);
        }
        self.derive(&image, config, &what.annotations, tags)
    }

    /// Makes an image with more layers, one for each source.
    ///
    /// # Errors
    /// `NotFound`; those of a malformed or hostile archive.
    pub fn append_to_image(
        &self,
        name: &str,
        sources: &[Appended],
        tags: &[Reference],
    ) -> Result<ImageId, Error> {
        let image = self.image(name)?;
        let _lease = self.keep_all()?;
        let mut config = image.config.clone();
        for source in sources {
            let (layer, shown) = match source {
                Appended::Tar(path) if path == Path::new("-") => {
                    (self.unpacked(io::stdin())?, "-".to_owned())
                }
                Appended::Tar(path) => {
                    let what = || format!("open {}", path.display());
                    let file = std::fs::File::open(path).context(what)?;
                    let layer = self.unpacked(file);
                    (
                        layer.context(|| format!("append {}", path.display()))?,
                        path.display().to_string(),
                    )
                }
                Appended::Folder(path, place) => {
                    let layer = self.layer_of_folder(path, place);
                    (
                        layer.context(|| format!("append {}", path.display()))?,
                        path.display().to_string(),
                    )
                }
            };
            add_layer(&mut config, layer, format!("dhow image append {shown}"));
        }
        self.derive(&image, config, &BTreeMap::new(), tags)
    }

    /// Puts an image's own layers on another base.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when the image is not built on the old base, and for conflicts unless they are to
    /// be overruled.
    pub fn rebase_image(
        &self,
        name: &str,
        old_base: &str,
        new_base: &str,
        overrule: bool,
        tags: &[Reference],
    ) -> Result<Rebased, Error> {
        let (image, old, new) = (self.image(name)?, self.image(old_base)?, self.image(new_base)?);
        let (layers, below) = (&image.config.rootfs.diff_ids, &old.config.rootfs.diff_ids);
        let Some(own) = layers.strip_prefix(below.as_slice()) else {
            let message = format!("image {name} is not built on {old_base}: its first layers are others");
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        let _lease = self.keep_all()?;
        let store = self.store()?;
        let own = Merged::of(store, own, true)?;
        let old_tree = Merged::of(store, below, false)?;
        let new_tree = Merged::of(store, &new.config.rootfs.diff_ids, false)?;
        let conflicts = rebase::conflicts(&own, &old_tree, &new_tree, |_, _| false);
        if !conflicts.is_empty() && !overrule {
            let shown = conflicts.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
            let more = conflicts.len().saturating_sub(10);
            let more = if more > 0 {
                format!("; and {more} more")
            } else {
                String::new()
            };
            let message = format!("image {name} may come out otherwise on {new_base}: {shown}{more}");
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("build it again on the new base, or overrule this with --force"));
        }
        let config = rebase::config(&image, &old, &new);
        let mut annotations = BTreeMap::new();
        let reference = Reference::parse(new_base)
            .ok()
            .filter(|name| new.names.contains(&name.clone().or_latest().canonical()));
        if let Some(reference) = reference {
            annotations.insert(BASE_NAME.to_owned(), reference.or_latest().canonical());
        }
        if let Some(digest) = new.record.manifest {
            annotations.insert(BASE_DIGEST.to_owned(), digest.to_string());
        }
        let image = self.derive(&image, config, &annotations, tags)?;
        Ok(Rebased { image, conflicts })
    }

    /// Makes one layer of several; the image has the same files.
    ///
    /// # Errors
    /// `NotFound` for the image and for a place to begin that it has not.
    pub fn squash_image(&self, name: &str, from: &SquashFrom, tags: &[Reference]) -> Result<ImageId, Error> {
        let image = self.image(name)?;
        let at = match from {
            SquashFrom::Start => 0,
            SquashFrom::Name(text) => self.layer_to_begin_at(&image, text)?,
            SquashFrom::Above(count) => (*count).min(image.config.rootfs.diff_ids.len()),
        };
        let _lease = self.keep_all()?;
        let mut config = image.config.clone();
        let own = config.rootfs.diff_ids.split_off(at);
        let layer = self.merged_layer(&own, at > 0)?;
        let mut layers = 0;
        for line in config.history.iter_mut().filter(|line| !line.empty_layer) {
            layers += 1;
            line.empty_layer = layers > at;
        }
        let count = own.len();
        let text = format!("dhow image squash: {count} layers as one");
        add_layer(&mut config, layer, text);
        self.derive(&image, config, &BTreeMap::new(), tags)
    }

    /// Gives an image's manifest docker's media types, or those of OCI; a push writes it so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when docker's format cannot say what the manifest says.
    pub fn set_image_family(&self, id: &ImageId, docker: bool) -> Result<(), Error> {
        let store = self.store()?;
        store
            .set_family(id, docker)
            .context(|| "choose the format of the image")
    }

    /// Makes one layer of what a build put on its base, or of the whole image, and gives it the names that the build did not
    /// give; what the build made is no image any more.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn squash_built(&self, built: &mut Built, whole: bool, tags: &[Reference]) -> Result<(), Error> {
        let name = built.image.id.to_string();
        let layers = &built.image.config.rootfs.diff_ids;
        let below = |base: &Image| {
            let base = &base.config.rootfs.diff_ids;
            layers.starts_with(base).then_some(base.len())
        };
        let at = built
            .bases
            .iter()
            .filter_map(|(_, base)| below(base))
            .max()
            .unwrap_or(0);
        let id = match whole {
            true => self.flatten_image(&name, tags)?,
            false if layers.len() > at => self.squash_image(&name, &SquashFrom::Above(at), tags)?,
            false => {
                // There is nothing to squash, so it is the image that was built.
                for tag in tags {
                    self.tag(&name, &tag.canonical())?;
                }
                return Ok(());
            }
        };
        if id != built.image.id && built.image.names.is_empty() {
            match self.remove_image(&name, false) {
                // A container, or a name that it got meanwhile.
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {}
                removed => drop(removed?),
            }
        }
        built.image = self.image(&id.to_string())?;
        Ok(())
    }

    /// Makes an image of one layer with the same files and settings, and no history.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flatten_image(&self, name: &str, tags: &[Reference]) -> Result<ImageId, Error> {
        let image = self.image(name)?;
        let _lease = self.keep_all()?;
        let mut config = image.config.clone();
        let own = std::mem::take(&mut config.rootfs.diff_ids);
        config.history.clear();
        let layer = self.merged_layer(&own, false)?;
        add_layer(&mut config, layer, "dhow image flatten".to_owned());
        self.derive(&image, config, &BTreeMap::new(), tags)
    }

    /// The number of the layer at which a squash begins.
    fn layer_to_begin_at(&self, image: &Image, text: &str) -> Result<usize, Error> {
        let layers = &image.config.rootfs.diff_ids;
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() >= 6
            && let Some(at) = layers.iter().position(|layer| layer.hex().starts_with(hex))
        {
            return Ok(at);
        }
        let base = self.image(text)?;
        let below = &base.config.rootfs.diff_ids;
        if layers.starts_with(below) && below.len() < layers.len() {
            return Ok(below.len());
        }
        let message = format!("{text} is neither a layer of the image nor an image that it is built on");
        Err(Error::new(ErrorKind::FailedPrecondition, message))
    }

    pub(crate) fn merged_layer(&self, layers: &[DiffId], over: bool) -> Result<DiffId, Error> {
        let store = self.store()?;
        let merged = Merged::of(store, layers, over)?;
        self.piped(|output| merged.write(store, output))
    }

    fn layer_of_folder(&self, path: &Path, place: &str) -> Result<DiffId, Error> {
        let root = Root::open(path).context(|| "open it")?;
        let place = place.trim_matches('/');
        if place.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{place:?} is no place in an image"),
            ));
        }
        let (reader, mut writer) = io::pipe().context(|| "make a pipe")?;
        std::thread::scope(|scope| {
            let walked = scope.spawn(move || write_tree(&root, &mut writer));
            let layer = self.piped(|output| placed(reader, place, output));
            let panicked = || Error::new(ErrorKind::Internal, "the reader of a folder panicked");
            // Its own failure comes first: that of the layer is the echo.
            walked.join().map_err(|_| panicked())??;
            layer
        })
    }

    /// A layer of the tar that is written in a thread of its own.
    pub(crate) fn piped(
        &self,
        write: impl FnOnce(io::PipeWriter) -> Result<(), Error> + Send,
    ) -> Result<DiffId, Error> {
        let (reader, writer) = io::pipe().context(|| "make a pipe")?;
        std::thread::scope(|scope| {
            let written = scope.spawn(move || write(writer));
            let layer = self.unpacked(reader);
            let panicked = || Error::new(ErrorKind::Internal, "the writer of a layer panicked");
            match (written.join().map_err(|_| panicked())?, layer) {
                (Ok(()), layer) => layer,
                // A tar that was not written to its end is the writer's failure, unless nobody read any more.
                (Err(_), Err(error)) if error.kind() == ErrorKind::ResourceExhausted => Err(error),
                (Err(error), _) => Err(error),
            }
        })
    }

    fn unpacked(&self, input: impl Read + Send) -> Result<DiffId, Error> {
        let unpacked = self.store()?.layers.unpack(input, &Unpack::default());
        Ok(unpacked.context(|| "unpack the layer")?.layer.diff_id())
    }

    pub(crate) fn keep_all(&self) -> Result<Lease, Error> {
        let lease = Lease::acquire(self.store()?.root()).context(|| "keep the layers")?;
        lease.pin_everything().context(|| "keep the layers")?;
        Ok(lease)
    }

    /// Stores an image that was made of another: what the manifest of that one says goes along.
    pub(crate) fn derive(
        &self,
        image: &Image,
        mut config: ImageConfig,
        annotations: &BTreeMap<String, String>,
        tags: &[Reference],
    ) -> Result<ImageId, Error> {
        let store = self.store()?;
        // Docker's note of the container that an image was made in says nothing of this one.
        for stale in ["container", "container_config", "docker_version", "id", "parent"] {
            config.extra.remove(stale);
        }
        let mut all = store.annotations(image);
        all.extend(annotations.clone());
        // Asked for without a value: it is to go.
        all.retain(|key, value| !value.is_empty() || !annotations.contains_key(key));
        let id = store.commit(config, tags).context(|| "store the new image")?;
        if !all.is_empty() {
            store.annotate(&id, &all).context(|| "write the annotations")?;
        }
        store.sync().context(|| "write the image to disk")?;
        let events: Vec<_> = tags
            .iter()
            .map(|tag| Event::of_image("tag", id, &tag.familiar()))
            .collect();
        self.tell_all(&events);
        Ok(id)
    }
}

/// Writes the entries of a tar below a place, owned by root.
fn placed(input: impl Read + Send, place: &str, output: io::PipeWriter) -> Result<(), Error> {
    let (_, tar) = decoder(input).context(|| "read the folder")?;
    let mut reader = Reader::new(tar);
    let mut writer = Writer::new(output);
    let at = |path: &[u8]| match place {
        "" => path.to_vec(),
        place => [place.as_bytes(), b"/", path].concat(),
    };
    while let Some(mut entry) = reader.next_entry().context(|| "read the folder")? {
        if entry.path.is_empty() {
            continue;
        }
        entry.path = at(&entry.path);
        if entry.kind == EntryKind::Hardlink {
            entry.link = at(&entry.link);
        }
        (entry.uid, entry.gid) = (0, 0);
        let what = || format!("write {:?}", String::from_utf8_lossy(&entry.path));
        writer.append(&entry, &mut reader).context(what)?;
    }
    writer.finish().context(|| "end the layer").map(drop)
}

pub(crate) fn add_layer(config: &mut ImageConfig, layer: DiffId, text: String) {
    let created = dhow_monitor::format_time(std::time::SystemTime::now());
    config.rootfs.diff_ids.push(layer);
    config.created = Some(created.clone());
    config.history.push(History {
        created: Some(created),
        created_by: Some(text),
        ..History::default()
    });
}

fn changed(mut run: RunConfig, what: &SetImage) -> RunConfig {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    run.env.retain(|line| !what.unset_env.contains(&name(line)));
    for line in &what.env {
        match run.env.iter_mut().find(|known| name(known) == name(line)) {
            Some(known) => known.clone_from(line),
            None => run.env.push(line.clone()),
        }
    }
    run.labels.retain(|name, _| !what.unset_labels.contains(name));
    run.labels.extend(what.labels.clone());
    let words = |words: &Vec<String>| Some(words.clone()).filter(|words| !words.is_empty());
    if let Some(entrypoint) = &what.entrypoint {
        run.entrypoint = words(entrypoint);
    }
    if let Some(cmd) = &what.cmd {
        run.cmd = words(cmd);
    }
    if let Some(user) = &what.user {
        run.user.clone_from(user);
    }
    if let Some(workdir) = &what.workdir {
        run.working_dir.clone_from(workdir);
    }
    if let Some(ports) = &what.exposed_ports {
        run.exposed_ports = ports.iter().map(|port| (port.clone(), Extra::new())).collect();
    }
    run
}
