//! Registries as places of a copy.

use std::io::Read;

use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{Digest, ErrorKind};

use super::{Open, Sink, Source};
use crate::{Context as _, Error};

/// A repository to read.
pub(super) struct Repository<'a> {
    client: &'a Client,
    name: Reference,
}

impl<'a> Repository<'a> {
    pub(super) fn new(client: &'a Client, name: &Reference) -> Self {
        Self {
            client,
            name: name.clone(),
        }
    }
}

impl Source for Repository<'_> {
    fn top(&self) -> Result<Fetched, Error> {
        self.client.manifest(&self.name).context(|| "fetch the manifest")
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let what = || format!("fetch the manifest {}", descriptor.digest);
        self.client
            .manifest_at(&self.name, &descriptor.digest)
            .context(what)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        let what = || format!("fetch blob {}", descriptor.digest);
        Ok(Box::new(self.client.blob(&self.name, descriptor).context(what)?))
    }

    fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.client
            .referrers(&self.name, digest, None)
            .context(|| format!("list the referrers of {digest}"))
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.name)
    }
}

/// A repository to write.
pub(super) struct Target<'a> {
    client: &'a Client,
    name: Reference,
}

impl<'a> Target<'a> {
    pub(super) fn new(client: &'a Client, name: &Reference, top: &Fetched) -> Result<Self, Error> {
        if let Some(digest) = name.digest().filter(|digest| **digest != top.descriptor.digest) {
            let message = format!(
                "the target is named {digest}, and what is copied is {}",
                top.descriptor.digest
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("name a tag"));
        }
        Ok(Self {
            client,
            name: name.clone(),
        })
    }

    /// Mounts from another repository of the same registry; a registry that declines is sent the blob.
    fn mount(&self, descriptor: &Descriptor, from: Option<&Reference>) -> bool {
        let same = |from: &&Reference| {
            from.registry() == self.name.registry() && from.repository() != self.name.repository()
        };
        from.filter(same).is_some_and(|from| {
            matches!(
                self.client
                    .mount_blob(&self.name, &descriptor.digest, from.repository()),
                Ok(true)
            )
        })
    }
}

impl Sink for Target<'_> {
    fn blob(&self, descriptor: &Descriptor, from: Option<&Reference>, open: Open<'_>) -> Result<bool, Error> {
        let there = match self.client.has_blob(&self.name, &descriptor.digest) {
            // Some forbid the question to those who may push.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
            other => other.context(|| format!("look for blob {}", descriptor.digest))?,
        };
        if there || self.mount(descriptor, from) {
            return Ok(false);
        }
        let mut reader = open()?;
        let pushed = self.client.push_blob(&self.name, descriptor, &mut reader);
        pushed.context(|| format!("push blob {}", descriptor.digest))?;
        Ok(true)
    }

    fn manifest(&self, document: &Fetched, named: bool) -> Result<(), Error> {
        let digest = document.descriptor.digest;
        let name = if named {
            self.name.clone()
        } else {
            self.name.clone().without_tag().with_digest(digest)
        };
        let pushed = self
            .client
            .push_manifest(&name, &super::entry(document).media_type, &document.bytes);
        pushed.context(|| format!("push the manifest {digest}")).map(drop)
    }

    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}
