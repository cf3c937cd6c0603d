//! Manifests that refer to another one: signatures, bills of materials.

use dhow_oci::{Descriptor, Document, Index, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};

use crate::{Client, Context as _, Error};

impl Client {
    /// Pushes a manifest with a subject under its digest, into the repository of `reference`. Where the registry has no
    /// referrers API, it is added to the list under the tag that stands for it (distribution-spec, "Referrers Tag Schema");
    /// two that do that at once may lose one of the two, as with every client.
    ///
    /// # Errors
    /// As [`push_manifest`](Self::push_manifest); `InvalidArgument` for a manifest without a subject.
    pub fn push_referrer(&self, reference: &Reference, bytes: &[u8]) -> Result<Digest, Error> {
        let Document::Manifest(manifest) =
            Document::parse(bytes, None).context(|| "push what refers to a manifest")?
        else {
            let message = "push what refers to a manifest: it is an index";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let Some(subject) = &manifest.subject else {
            let message = "push what refers to a manifest: it has no subject";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let place = reference.clone().without_tag().with_digest(Digest::of(bytes));
        let (digest, noted) = self.put_manifest(&place, manifest.media_type(), bytes)?;
        if !noted {
            let mut own = Descriptor::of(manifest.media_type(), bytes);
            own.artifact_type = manifest
                .artifact_type
                .clone()
                .or(Some(manifest.config.media_type.clone()));
            own.annotations = manifest.annotations.clone();
            self.add_to_list(reference, &subject.digest, own)?;
        }
        Ok(digest)
    }

    fn add_to_list(&self, reference: &Reference, subject: &Digest, own: Descriptor) -> Result<(), Error> {
        let tag = format!("sha256-{}", subject.hex());
        let list = reference.clone().without_digest().with_tag(&tag);
        let list = list.context(|| "name the list of what refers to a manifest")?;
        let mut index = match self.manifest(&list) {
            Err(error) if error.kind() == ErrorKind::NotFound => Index {
                schema_version: 2,
                media_type: Some(media_type::OCI_INDEX.to_owned()),
                artifact_type: None,
                manifests: Vec::new(),
                subject: None,
                annotations: dhow_oci::Labels::new(),
                extra: dhow_oci::Extra::new(),
            },
            found => match Document::parse(&found?.bytes, None).context(|| format!("read the list {tag}"))? {
                Document::Index(index) => index,
                Document::Manifest(_) => {
                    let message = format!("the tag {tag} is no list of what refers to a manifest");
                    return Err(Error::new(ErrorKind::FailedPrecondition, message));
                }
            },
        };
        if index.manifests.iter().any(|known| known.digest == own.digest) {
            return Ok(());
        }
        index.manifests.push(own);
        let bytes = serde_json::to_vec(&index)
            .map_err(|error| Error::because(ErrorKind::Internal, "write a list of referrers", error))?;
        self.push_manifest(&list, media_type::OCI_INDEX, &bytes).map(drop)
    }
}
