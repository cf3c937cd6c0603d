//! Images: thin words over the store, with what only the engine knows (the client, who uses what).

use std::collections::HashMap;
use std::io::{Read, Write};

use dhow_image::{
    Attestation, HistoryLine, Image, Import, Imported, Loaded, Prune, Pruned, Pull, Pulled, PushForm, Pushed,
    Removal, Removed, Store, Summary, Use, Variant,
};
use dhow_policy::Point;
use dhow_reference::Reference;
use dhow_types::{DiffId, ErrorKind, ImageId, Observer, Platform};

use crate::container::Status;
use crate::event::{Event, EventKind};
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Pulls an image.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`, `DataLoss`: what the registry said or sent.
    pub fn pull(
        &self,
        name: &str,
        platform: Option<Platform>,
        observer: &dyn Observer,
    ) -> Result<Pulled, Error> {
        let how = Pull {
            platform,
            ..Pull::default()
        };
        self.pull_as(name, &how, observer)
    }

    /// The same as told.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub fn pull_as(&self, name: &str, how: &Pull, observer: &dyn Observer) -> Result<Pulled, Error> {
        let reference = parse(name)?.or_latest();
        let (store, client) = (self.store()?, self.client()?);
        let pulled = match self.judges_pulls()? {
            true => {
                let admit = |top: &dhow_transport::Fetched| {
                    let admitted = self.admit_pull(&reference, top, observer);
                    admitted.map_err(|error| dhow_image::Error::wrap(error, "it may not be pulled"))
                };
                store.pull_admitted(client, &reference, how, observer, &admit)
            }
            false => store.pull(client, &reference, how, observer),
        };
        let pulled = pulled.context(|| format!("pull {}", reference.familiar()))?;
        self.store()?.sync().context(|| "write the image to disk")?;
        self.fetch_statement(&reference, &pulled.digest, &pulled.image)?;
        let name = reference.familiar();
        self.tell(&Event::of_image("pull", &name, repository(&name)));
        Ok(pulled)
    }

    /// Pulls every tag of a repository, one after the other; the first failure ends it, and what is here stays.
    ///
    /// # Errors
    /// As [`Engine::pull`]; `NotFound` for a repository without tags.
    pub fn pull_all(&self, name: &str, how: &Pull, observer: &dyn Observer) -> Result<(), Error> {
        let reference = parse(name)?;
        let tags = self
            .client()?
            .tags(&reference)
            .context(|| format!("list the tags of {}", reference.familiar()))?;
        if tags.is_empty() {
            let message = format!("repository {} has no tags", reference.familiar());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        for tag in tags {
            self.pull_as(&format!("{}:{tag}", reference.name()), how, observer)?;
        }
        Ok(())
    }

    /// Pushes an image to the registry that its name says.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub fn push(&self, name: &str, observer: &dyn Observer) -> Result<Pushed, Error> {
        self.push_as(name, &PushForm::default(), observer)
    }

    /// The same in a form.
    ///
    /// # Errors
    /// As [`Engine::push`].
    pub fn push_as(&self, name: &str, form: &PushForm, observer: &dyn Observer) -> Result<Pushed, Error> {
        let reference = parse(name)?.or_latest();
        if self.own_policy()?.is_some()
            && let Ok(image) = self.store()?.resolve(&reference.canonical())
        {
            for warning in self.admit(Point::Push, &image, &reference.canonical())? {
                observer.observe(dhow_types::Progress::Warning(&warning));
            }
        }
        self.store()?
            .push_as(self.client()?, &reference, form, observer)
            .context(|| format!("push {}", reference.familiar()))
            .inspect(|_| {
                let name = reference.familiar();
                self.tell(&Event::of_image("push", &name, repository(&name)));
            })
    }

    /// Pushes all tags that a repository has here.
    ///
    /// # Errors
    /// `NotFound` when it has none; as [`Engine::push`].
    pub fn push_all(&self, name: &str, form: &PushForm, observer: &dyn Observer) -> Result<(), Error> {
        let reference = parse(name)?;
        let shown = reference.familiar();
        let tags = self
            .store()?
            .tags_in(&reference.name())
            .context(|| format!("list the tags of {shown}"))?;
        if tags.is_empty() {
            let message = format!("an image does not exist locally with the tag: {shown}");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        tags.iter()
            .try_for_each(|tag| self.push_as(&tag.canonical(), form, observer).map(drop))
    }

    /// Finds out whether a registry takes this user and password, for the whole registry; nothing is stored.
    ///
    /// # Errors
    /// `Unauthenticated` when it does not; what the registry client reports.
    pub fn check_login(&self, registry: &str, user: &str, password: &str) -> Result<(), Error> {
        self.client()?
            .check_login(registry, user, password)
            .context(|| format!("log in to {registry} as {user}"))
    }

    /// The image of this name, id or beginning of an id.
    ///
    /// # Errors
    /// `NotFound` in docker's words.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        self.store()?
            .resolve(name)
            .context(|| format!("look at image {name}"))
    }

    /// The image that a name has for a platform; any, without one.
    ///
    /// # Errors
    /// As [`Engine::image`]; `NotFound` with the platforms that are here when it has none for this one.
    pub fn image_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        self.store()?
            .resolve_for(name, platform)
            .context(|| format!("look at image {name}"))
    }

    /// The images of the index that an image came by, one for each platform; of one that came by none, itself.
    ///
    /// # Errors
    /// What the store said.
    pub fn variants(&self, image: &Image) -> Result<Vec<Variant>, Error> {
        self.store()?
            .variants(image)
            .context(|| format!("look for the platforms of image {}", image.id.short()))
    }

    /// Bytes of the files of images together, with a layer that several have counted once.
    ///
    /// # Errors
    /// What the store said.
    pub fn size_together(&self, images: &[ImageId]) -> Result<u64, Error> {
        self.store()?
            .size_together(images)
            .context(|| "add up the sizes of images")
    }

    /// What is said of an image beside it: provenance, bills of materials.
    ///
    /// # Errors
    /// What the store said.
    pub fn attestations(&self, image: &Image) -> Result<Vec<Attestation>, Error> {
        self.store()?
            .attestations(image)
            .context(|| format!("look for attestations of image {}", image.id.short()))
    }

    /// Every image in short.
    ///
    /// # Errors
    /// What the index said.
    pub fn images(&self) -> Result<Vec<Summary>, Error> {
        self.store()?.summaries().context(|| "list images")
    }

    /// The tags that each image has and had, canonical: first those that it has, then the others, the newest first.
    ///
    /// # Errors
    /// What the index said.
    pub fn names_history(&self) -> Result<HashMap<ImageId, Vec<String>>, Error> {
        self.store()?
            .names_history()
            .context(|| "list the names of images")
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a name that is none.
    pub fn tag(&self, source: &str, target: &str) -> Result<(), Error> {
        let image = self.image(source)?;
        let name = parse(target)?;
        if name.digest().is_some() {
            let message = format!("tag {target}: refusing to create a tag with a digest reference");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let name = name.or_latest();
        self.store()?
            .tag(&image.id, &name)
            .context(|| format!("tag {source} as {target}"))?;
        self.tell(&Event::of_image("tag", image.id, &name.familiar()));
        Ok(())
    }

    /// Takes names from an image, all of them when none is given. The image stays, also without a name.
    ///
    /// # Errors
    /// `NotFound` for an image that is not here and for a name that is not the image's.
    pub fn untag(&self, image: &str, names: &[String]) -> Result<(), Error> {
        let image = self.image(image)?;
        let names = names.iter().map(|name| Ok(parse(name)?.or_latest()));
        let names: Vec<Reference> = names.collect::<Result<_, Error>>()?;
        self.store()?
            .untag(&image, &names)
            .context(|| format!("untag image {}", image.id.short()))?;
        self.tell(&Event::of_image("untag", image.id, &image.id.to_string()));
        Ok(())
    }

    /// Takes a name from an image and, with its last name, the image.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when containers or other names hold it.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>, Error> {
        let how = Removal {
            force,
            ..Removal::default()
        };
        self.remove_image_as(name, how)
    }

    /// The same as told.
    ///
    /// # Errors
    /// As [`Engine::remove_image`].
    pub fn remove_image_as(&self, name: &str, how: Removal) -> Result<Vec<Removed>, Error> {
        self.removing(name, |store, uses| store.remove_as(name, how, uses))
    }

    /// Removes the images that a name has for these platforms, and leaves it with those that it has for others.
    ///
    /// # Errors
    /// As [`Engine::remove_image`]; `NotFound` for a platform that is not here.
    pub fn remove_image_for(
        &self,
        name: &str,
        platforms: &[Platform],
        force: bool,
    ) -> Result<Vec<Removed>, Error> {
        self.removing(name, |store, uses| store.remove_for(name, platforms, force, uses))
    }

    fn removing(
        &self,
        name: &str,
        remove: impl FnOnce(&Store, &[Use]) -> Result<Vec<Removed>, dhow_image::Error>,
    ) -> Result<Vec<Removed>, Error> {
        let id = self.store()?.resolve(name).map(|image| image.id.to_string());
        let removed = remove(self.store()?, &self.uses()?)
            .context(|| format!("remove image {name}"))
            .map_err(|error| self.held_by_mount(name, error))?;
        self.tell_all(&removals(&removed, &id.unwrap_or_default()));
        Ok(removed)
    }

    /// What made an image, newest first; the one that the name has for a platform when it is given.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn history(&self, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryLine>, Error> {
        let image = self.image_for(name, platform)?;
        self.store()?
            .history(&image)
            .context(|| format!("read the history of {name}"))
    }

    /// Writes images as one archive that docker loads; those for one platform when it is given.
    ///
    /// # Errors
    /// `NotFound`, and what writing said.
    pub fn save(
        &self,
        names: &[&str],
        platform: Option<&Platform>,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        self.store()?
            .save_for(names, platform, output)
            .context(|| "save images")?;
        let saved = names
            .iter()
            .filter_map(|name| self.image_for(name, platform).ok());
        let events: Vec<_> = saved
            .map(|image| Event::of_image("save", image.id, &image.id.to_string()))
            .collect();
        self.tell_all(&events);
        Ok(())
    }

    /// Reads images from an archive; those for one platform when it is given.
    ///
    /// # Errors
    /// `InvalidArgument` or `DataLoss` for an archive that is none.
    pub fn load(
        &self,
        input: impl Read + Send,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Vec<Loaded>, Error> {
        let loaded = self
            .store()?
            .load_for(input, platform, observer)
            .context(|| "load images")?;
        self.store()?.sync().context(|| "write the images to disk")?;
        let events: Vec<_> = loaded
            .iter()
            .map(|loaded| {
                let id = loaded.image.to_string();
                Event::of_image("load", &id, loaded.names.first().unwrap_or(&id))
            })
            .collect();
        self.tell_all(&events);
        Ok(loaded)
    }

    /// Reads images from an archive that a URL leads to.
    ///
    /// # Errors
    /// What the server said; as [`Engine::load`].
    pub fn load_from(
        &self,
        url: &str,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Vec<Loaded>, Error> {
        let body = self.client()?.get(url).context(|| format!("fetch {url}"))?.body;
        self.load(body, platform, observer)
    }

    /// Makes an image of a root file system in a tar.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn import(&self, input: impl Read + Send, how: &Import) -> Result<Imported, Error> {
        let imported = self.store()?.import(input, how).context(|| "import an image")?;
        self.store()?.sync().context(|| "write the image to disk")?;
        let id = imported.image.to_string();
        self.tell(&Event::of_image("import", &id, &id));
        Ok(imported)
    }

    /// Makes an image of what a URL leads to.
    ///
    /// # Errors
    /// What the server said; as [`Engine::import`].
    pub fn import_from(&self, url: &str, how: &Import) -> Result<Imported, Error> {
        let body = self.client()?.get(url).context(|| format!("fetch {url}"))?.body;
        self.import(body, how)
    }

    /// Removes images that no name or container holds, or that no container holds.
    ///
    /// # Errors
    /// What a removal said.
    pub fn prune_images(&self, what: &Prune) -> Result<Pruned, Error> {
        let mut pruned = self
            .store()?
            .prune(what, &self.uses()?)
            .context(|| "prune images")?;
        pruned.reclaimed += self.forget_copies()?;
        self.forget_deltas()?;
        self.forget_signatures()?;
        let mut events = removals(&pruned.removed, "");
        events.push(Event::now(EventKind::Image, "prune", "").with("reclaimed", pruned.reclaimed));
        self.tell_all(&events);
        Ok(pruned)
    }

    /// Which containers and mounts hold which images and layers.
    pub(crate) fn uses(&self) -> Result<Vec<Use>, Error> {
        let containers = self.containers().list()?;
        let mut uses = self.mounts_as_uses()?;
        for container in containers {
            let config = &container.config;
            let running = matches!(
                container.state.status,
                Status::Running | Status::Paused | Status::Restarting
            );
            let used = |image: ImageId, layers: &[DiffId]| Use {
                container: config.id.to_string(),
                image,
                layers: layers.to_vec(),
                running,
            };
            uses.push(used(config.image, &config.layers));
            let mounted = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
            uses.extend(mounted.map(|image| used(image.id, &image.layers)));
        }
        Ok(uses)
    }

    /// The error of a removal, in better words when a mount is in the way.
    fn held_by_mount(&self, name: &str, error: Error) -> Error {
        if error.kind() != ErrorKind::FailedPrecondition {
            return error;
        }
        let (Ok(image), Ok(mounted)) = (self.image(name), self.mounted_images()) else {
            return error;
        };
        match mounted.iter().find(|mounted| mounted.image == image.id) {
            Some(mounted) => {
                let (id, path) = (image.id.short(), mounted.path.display());
                let message = format!("conflict: unable to remove image {name} - it is mounted on {path}");
                Error::new(ErrorKind::FailedPrecondition, message)
                    .with_hint(format!("dhow image unmount {id} first"))
            }
            None => error,
        }
    }
}

/// What others hear of names and images that went; `id` is that of the image whose names they were.
fn removals(removed: &[Removed], id: &str) -> Vec<Event> {
    let event = |removed: &Removed| match removed {
        Removed::Untagged(name) => Event::of_image("untag", id, name),
        Removed::Deleted(id) => Event::of_image("delete", id, &id.to_string()),
    };
    removed.iter().map(event).collect()
}

/// A familiar name without its tag or digest.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(head, _)| head);
    match name.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => head,
        _ => name,
    }
}

pub(crate) fn parse(name: &str) -> Result<Reference, Error> {
    Reference::parse(name).context(|| format!("read the image name {name:?}"))
}
