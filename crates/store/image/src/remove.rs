//! Removing names and images, with docker's rules and words (moby `daemon/images/image_delete.go`).

use std::collections::HashSet;

use dhow_meta::Edit;
use dhow_reference::Reference;
use dhow_types::{ErrorKind, ImageId};

use crate::image::{Image, familiar};
use crate::sibling::in_use;
use crate::types::{Prune, Pruned, Removal, Removed, Use};
use crate::{Context as _, Error, LabelFilter, Store};

impl Store {
    /// Removes a name, or the image with this id; an image goes when its last name goes. Its layers go when no
    /// image, container, lease or build cache needs them.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` with docker's words when a container or another name is in the way.
    pub fn remove(&self, name: &str, force: bool, uses: &[Use]) -> Result<Vec<Removed>, Error> {
        let how = Removal {
            force,
            ..Removal::default()
        };
        self.remove_as(name, how, uses)
    }

    /// The same as told.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn remove_as(&self, name: &str, how: Removal, uses: &[Use]) -> Result<Vec<Removed>, Error> {
        let (id, reference) = self.find(name)?;
        let image = self.image_or_damaged(&id)?;
        let siblings = self.kept_by(&id)?;
        let (index, _lease) = self.hold_index(&image, reference.as_ref(), &siblings)?;
        let users: Vec<&Use> = uses.iter().filter(|user| user.image == id).collect();
        let mut removed = match reference {
            Some(reference) => {
                let of_any = |user: &&Use| user.image == id || siblings.contains(&user.image);
                let all: Vec<&Use> = uses.iter().filter(of_any).collect();
                self.may_go_by_name(&image, &reference, how.force, &all)?;
                self.remove_by_name(&image, &reference, how.force, &users)?
            }
            None => self.remove_by_id(&image, how.force, &users)?,
        };
        removed.extend(self.settle(&siblings, &id, index, uses)?);
        if !how.keep_parents && removed.contains(&Removed::Deleted(id)) {
            removed.extend(self.remove_parents(image.record.parent, uses)?);
        }
        if removed.iter().any(|step| matches!(step, Removed::Deleted(_))) {
            self.sweep(uses)?;
        }
        Ok(removed)
    }

    /// Takes these names from an image, or all that it has when none is given. The image stays, also without a name.
    ///
    /// # Errors
    /// `NotFound` for a name that is not the image's.
    pub fn untag(&self, image: &Image, names: &[Reference]) -> Result<(), Error> {
        let digests = image
            .digests
            .iter()
            .map(|(repo, digest)| format!("{repo}@{digest}"));
        let own: Vec<String> = image.names.iter().cloned().chain(digests).collect();
        for name in names {
            // With a digest, the tag beside it says nothing.
            let wanted = if name.digest().is_some() {
                name.clone().without_tag().canonical()
            } else {
                name.canonical()
            };
            if !own.contains(&wanted) {
                let message = format!("{}: tag not known", name.familiar());
                return Err(Error::new(ErrorKind::NotFound, message));
            }
        }
        self.edit(|edit| {
            let mut removed = Vec::new();
            if names.is_empty() {
                for name in &own {
                    self.drop_name(edit, &parse(name)?, &mut removed)?;
                }
            }
            for name in names {
                let name = if name.digest().is_some() {
                    name.clone().without_tag()
                } else {
                    name.clone()
                };
                self.drop_name(edit, &name, &mut removed)?;
            }
            Ok(())
        })
    }

    /// Removes images that nobody uses: those without a name, or all of them.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune(&self, what: &Prune, uses: &[Use]) -> Result<Pruned, Error> {
        let summaries = self.summaries()?;
        let used = in_use(&summaries, uses);
        let mut pruned = Pruned::default();
        for summary in summaries {
            let id = summary.record.id;
            let old = what.until.is_none_or(|until| summary.record.created < until);
            if used.contains(&id) || !(what.all || summary.dangling) || !old {
                continue;
            }
            if !what.labels.is_empty() && !self.labels_match(&id, &what.labels) {
                continue;
            }
            pruned.removed.extend(self.delete(&id)?);
        }
        pruned.reclaimed = self.sweep(uses)?.bytes;
        Ok(pruned)
    }

    fn labels_match(&self, id: &ImageId, filters: &[LabelFilter]) -> bool {
        let Ok(config) = self.config(id) else {
            return false;
        };
        filters.iter().all(|filter| {
            let found = config.config.labels.get(&filter.name);
            let holds = found.is_some_and(|value| filter.value.as_ref().is_none_or(|wanted| wanted == value));
            holds != filter.negate
        })
    }

    /// The image; one whose config is damaged can be removed all the same.
    fn image_or_damaged(&self, id: &ImageId) -> Result<Image, Error> {
        let Some(record) = self.meta.image(id)? else {
            return Err(crate::image::no_such_image(&id.to_string()));
        };
        Ok(Image {
            id: *id,
            config: self.config(id).unwrap_or_default(),
            names: self.meta.tags_of(id)?,
            digests: self.meta.digests_of(id)?,
            record,
        })
    }

    /// Removes an image that others were made on, and those that it was made on, as long as they have no name, no user and
    /// nothing else that was made on them.
    fn remove_parents(&self, parent: Option<ImageId>, uses: &[Use]) -> Result<Vec<Removed>, Error> {
        if parent.is_none() {
            return Ok(Vec::new());
        }
        self.edit(|edit| {
            let (mut removed, mut next) = (Vec::new(), parent);
            while let Some(id) = next {
                let Some(record) = edit.image(&id)? else { break };
                let named = !edit.tags_of(&id)?.is_empty() || !edit.digests_of(&id)?.is_empty();
                if named || edit.has_children(&id)? || uses.iter().any(|user| user.image == id) {
                    break;
                }
                edit.remove_image(&id)?;
                removed.push(Removed::Deleted(id));
                next = record.parent;
            }
            Ok(removed)
        })
    }

    /// Whether a name may be taken from an image that containers use.
    pub(crate) fn may_go_by_name(
        &self,
        image: &Image,
        name: &Reference,
        force: bool,
        users: &[&Use],
    ) -> Result<(), Error> {
        if !force
            && one_name_only(image)
            && let Some(user) = users.first()
        {
            let message = format!(
                "conflict: unable to remove repository reference {:?} (must force) - container {} is using its referenced image {}",
                name.familiar(),
                clip(&user.container),
                user.image.short()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        Ok(())
    }

    pub(crate) fn remove_by_name(
        &self,
        image: &Image,
        name: &Reference,
        force: bool,
        users: &[&Use],
    ) -> Result<Vec<Removed>, Error> {
        self.may_go_by_name(image, name, force, users)?;
        self.edit(|edit| {
            let mut removed = Vec::new();
            self.drop_name(edit, name, &mut removed)?;
            // What it has besides, now that nobody else gives it a name.
            let tags = edit.tags_of(&image.id)?;
            let mut digests = edit.digests_of(&image.id)?;
            // The last tag of a repository takes the repository's digests with it.
            let repository = format!("{}:", name.name());
            if name.digest().is_none() && !tags.iter().any(|tag| tag.starts_with(&repository)) {
                for (repo, digest) in digests.iter().filter(|(repo, _)| *repo == name.name()) {
                    let pinned = parse(&format!("{repo}@{digest}"))?;
                    self.drop_name(edit, &pinned, &mut removed)?;
                }
                digests.retain(|(repo, _)| *repo != name.name());
            }
            // A container that still uses it keeps the image, without a name.
            if tags.is_empty() && digests.is_empty() && users.is_empty() {
                edit.remove_image(&image.id)?;
                removed.push(Removed::Deleted(image.id));
            }
            Ok(removed)
        })
    }

    pub(crate) fn remove_by_id(
        &self,
        image: &Image,
        force: bool,
        users: &[&Use],
    ) -> Result<Vec<Removed>, Error> {
        let conflict = |how: &str, why: String| {
            let message = format!("conflict: unable to delete {} ({how}) - {why}", image.id.short());
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        };
        if let Some(user) = users.iter().find(|user| user.running) {
            let why = format!(
                "image is being used by running container {}",
                clip(&user.container)
            );
            return conflict("cannot be forced", why);
        }
        if !force && let Some(user) = users.first() {
            let why = format!(
                "image is being used by stopped container {}",
                clip(&user.container)
            );
            return conflict("must be forced", why);
        }
        if !force && !one_name_only(image) {
            return conflict(
                "must be forced",
                "image is referenced in multiple repositories".to_owned(),
            );
        }
        self.delete(&image.id)
    }

    /// Takes an image away with all its names.
    pub(crate) fn delete(&self, id: &ImageId) -> Result<Vec<Removed>, Error> {
        self.edit(|edit| {
            let mut removed = Vec::new();
            let tags = edit.tags_of(id)?.into_iter();
            let digests = edit
                .digests_of(id)?
                .into_iter()
                .map(|(repo, digest)| format!("{repo}@{digest}"));
            for name in tags.chain(digests) {
                self.drop_name(edit, &parse(&name)?, &mut removed)?;
            }
            if edit.remove_image(id)? {
                removed.push(Removed::Deleted(*id));
            }
            Ok(removed)
        })
    }

    fn drop_name(&self, edit: &Edit<'_>, name: &Reference, removed: &mut Vec<Removed>) -> Result<(), Error> {
        if self.remove_name(edit, name)? {
            removed.push(Removed::Untagged(familiar(&name.canonical())));
        }
        Ok(())
    }
}

fn parse(canonical: &str) -> Result<Reference, Error> {
    Reference::parse(canonical).context(|| format!("read the name {canonical:?} of the index"))
}

/// Whether the image has at most one tag, and no digest of another repository: then its id means all its names.
fn one_name_only(image: &Image) -> bool {
    let repositories: HashSet<&str> = image.digests.iter().map(|(repo, _)| repo.as_str()).collect();
    match image.names.as_slice() {
        [] => repositories.len() <= 1,
        [tag] => {
            let own = tag.rsplit_once(':').map_or(tag.as_str(), |(repo, _)| repo);
            repositories.iter().all(|repo| *repo == own)
        }
        _ => false,
    }
}

/// The first twelve characters of a container's id, as docker shows it.
fn clip(container: &str) -> String {
    container.chars().take(12).collect()
}
