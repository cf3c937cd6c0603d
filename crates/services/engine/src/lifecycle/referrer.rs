//! Statements about images in registries: manifests that refer to the image's.

use dhow_image::Image;
use dhow_lifecycle::{KIND_MICROSOFT, KIND_NEUTRAL, Statement};
use dhow_oci::{Descriptor, Manifest, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::{Context as _, Engine, Error};

/// Most statements about one image that are read.
const MOST_READ: usize = 16;

impl Engine {
    /// Says in every registry that an image has a name in, or only in that of `name` when it is one, that it is not to be used any
    /// more. What was said there before stays: of several statements the one with the earliest day counts.
    ///
    /// # Errors
    /// `FailedPrecondition` for an image that was never in a registry; what the registry said.
    pub fn publish_statement(&self, name: &str, statement: &Statement) -> Result<Vec<String>, Error> {
        let image = self.image(name)?;
        let mut told = Vec::new();
        for text in &image.names {
            let reference = Reference::parse(text).context(|| format!("read the name {text}"))?;
            let Some(subject) = self.subject(&image, &reference)? else {
                continue;
            };
            for kind in [KIND_MICROSOFT, KIND_NEUTRAL] {
                self.attach_statement(&reference, &subject, kind, statement)
                    .context(|| format!("attach the statement to {}", reference.familiar()))?;
            }
            told.push(reference.familiar());
        }
        if told.is_empty() {
            let message = format!("no registry has {name} as it is here");
            return Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint("push it first"));
        }
        Ok(told)
    }

    /// The manifest that a registry has of an image under a name, if it has this one.
    fn subject(&self, image: &Image, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let Some(manifest) = image.record.manifest else {
            return Ok(None);
        };
        match self.client()?.manifest_at(reference, &manifest) {
            Ok(fetched) => Ok(Some(Descriptor::of(&image.record.media_type, &fetched.bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::wrap(error, format!("ask for {}", reference.familiar()))),
        }
    }

    fn attach_statement(
        &self,
        reference: &Reference,
        subject: &Descriptor,
        kind: &str,
        statement: &Statement,
    ) -> Result<Digest, Error> {
        let client = self.client()?;
        let nothing = Descriptor::of(media_type::OCI_EMPTY, b"{}");
        let what = || "push an empty config";
        if !client.has_blob(reference, &nothing.digest).context(what)? {
            client
                .push_blob(reference, &nothing, &mut b"{}".as_slice())
                .context(what)?;
        }
        let mut manifest = Manifest::new(nothing.clone(), vec![nothing]);
        manifest.artifact_type = Some(kind.to_owned());
        manifest.subject = Some(subject.clone());
        manifest.annotations = statement.annotations(kind);
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::because(ErrorKind::Internal, "write the statement", error))?;
        client.push_referrer(reference, &bytes).context(|| "push it")
    }

    /// Asks the registry that an image was pulled from what is said of it, and keeps that: only what is here already from who
    /// administers this machine counts more. A registry that cannot be asked says nothing.
    pub(crate) fn fetch_statement(&self, reference: &Reference, digest: &Digest, image: &ImageId) {
        let known = self.statement_about(image);
        if known.is_some_and(|known| known.signed) {
            return;
        }
        let Ok(client) = self.client() else { return };
        let Ok(referrers) = client.referrers(reference, digest, None) else {
            return;
        };
        let ours = referrers.iter().filter(|found| {
            let kind = found.artifact_type.as_deref().unwrap_or_default();
            [KIND_MICROSOFT, KIND_NEUTRAL].contains(&kind)
        });
        let mut earliest: Option<Statement> = None;
        for found in ours.take(MOST_READ) {
            let annotations = if found.annotations.is_empty() {
                // Not every registry copies them into its list.
                let Ok(fetched) = client.manifest_at(reference, &found.digest) else {
                    continue;
                };
                let Ok(manifest) = serde_json::from_slice::<Manifest>(&fetched.bytes) else {
                    continue;
                };
                manifest.annotations
            } else {
                found.annotations.clone()
            };
            let Ok(statement) = Statement::of(&annotations) else {
                continue;
            };
            // Of two with one day the one that says more.
            let better = earliest.as_ref().is_none_or(|known| {
                (statement.date, known.reason.is_some()) < (known.date, statement.reason.is_some())
            });
            if better {
                earliest = Some(statement);
            }
        }
        match earliest {
            Some(statement) => drop(self.write_statement(image, &statement)),
            // What the registry said once, and says no more.
            None => self.forget_statement(image),
        }
    }
}
