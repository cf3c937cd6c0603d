//! Copies between places of images, searches, and lists of manifests: words over the registry client that leave the
//! store alone.

use dhow_image::{Annotate, Copied, Copy, Location, ManifestList, ManifestLists, copy};
use dhow_transport::{Fetched, Found};
use dhow_types::{Digest, Observer};

use crate::image::parse;
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Copies an image from one place to another without unpacking it.
    ///
    /// # Errors
    /// What the places said, and `DataLoss` for bytes that are not what was promised.
    pub fn copy_image(
        &self,
        from: &Location,
        to: &Location,
        how: &Copy,
        observer: &dyn Observer,
    ) -> Result<Copied, Error> {
        copy(self.client()?, from, to, how, observer).context(|| format!("copy {from} to {to}"))
    }

    /// Searches a registry, Docker Hub when the term names none.
    ///
    /// # Errors
    /// What the registry said.
    pub fn search(&self, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
        // Docker's rule for names: what has a dot or a colon, or is localhost, is a registry.
        let (registry, words) = match term.split_once('/') {
            Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
            _ => ("docker.io", term),
        };
        self.client()?
            .search(registry, words, limit)
            .context(|| format!("search {registry} for {words:?}"))
    }

    fn lists(&self) -> ManifestLists {
        ManifestLists::new(&self.settings().root)
    }

    /// The list of this name in the making, if there is one.
    ///
    /// # Errors
    /// What reading it said.
    pub fn manifest_list(&self, name: &str) -> Result<Option<ManifestList>, Error> {
        let name = parse(name)?.or_latest();
        self.lists()
            .find(&name)
            .context(|| format!("look for the manifest list {}", name.familiar()))
    }

    /// The manifest or index that a registry has under a name.
    ///
    /// # Errors
    /// What the registry said.
    pub fn remote_manifest(&self, name: &str) -> Result<Fetched, Error> {
        let name = parse(name)?.or_latest();
        self.client()?
            .manifest(&name)
            .context(|| format!("fetch the manifest of {}", name.familiar()))
    }

    /// Makes a list of manifests that are in registries.
    ///
    /// # Errors
    /// `AlreadyExists` without `amend`; what the registries said.
    pub fn create_manifest_list(&self, name: &str, members: &[String], amend: bool) -> Result<String, Error> {
        let name = parse(name)?.or_latest();
        let members = members.iter().map(|member| Ok(parse(member)?.or_latest()));
        let members = members.collect::<Result<Vec<_>, Error>>()?;
        self.lists()
            .create(self.client()?, &name, &members, amend)
            .context(|| format!("create the manifest list {}", name.familiar()))?;
        Ok(name.canonical())
    }

    /// Says more of a manifest of a list.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn annotate_manifest(&self, list: &str, member: &str, how: &Annotate) -> Result<(), Error> {
        let (list, member) = (parse(list)?.or_latest(), parse(member)?.or_latest());
        self.lists()
            .annotate(&list, &member, how)
            .context(|| format!("annotate {}", member.familiar()))
    }

    /// Pushes a list, and forgets it then, if wanted.
    ///
    /// # Errors
    /// `NotFound`; what the registries said.
    pub fn push_manifest_list(&self, name: &str, purge: bool) -> Result<Digest, Error> {
        let name = parse(name)?.or_latest();
        self.lists()
            .push(self.client()?, &name, purge)
            .context(|| format!("push the manifest list {}", name.familiar()))
    }

    /// Forgets a list.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_manifest_list(&self, name: &str) -> Result<(), Error> {
        let name = parse(name)?.or_latest();
        self.lists()
            .remove(&name)
            .context(|| format!("remove the manifest list {}", name.familiar()))
    }
}
