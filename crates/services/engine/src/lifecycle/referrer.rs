//! Statements about images in registries: manifests that refer to the image's.

use std::collections::BTreeSet;

use dhow_image::Image;
use dhow_lifecycle::{KIND_MICROSOFT, KIND_NEUTRAL, Statement};
use dhow_oci::{Descriptor, Manifest, media_type};
use dhow_policy::Policy;
use dhow_reference::Reference;
use dhow_sign::{LifecycleStatement, PrivateKey};
use dhow_transport::Fetched;
use dhow_types::{Digest, ErrorKind, ImageId};

use super::issued_name;
use crate::policy::trust;
use crate::signature::{now, signatures_of};
use crate::{Context as _, Engine, Error};

/// Most statements about one image that are read.
const MOST_READ: usize = 16;

/// How far another clock may be ahead of ours, in seconds.
const MOST_AHEAD: i64 = 24 * 3600;

impl Engine {
    /// Says in every registry that an image has a name in that it is not to be used any more, or, without a statement, that it may
    /// be used again, which has to be signed. What was said there before stays: of several statements the one with the
    /// earliest day counts, and of signed ones the newest.
    ///
    /// # Errors
    /// `FailedPrecondition` for an image that was never in a registry; what the registry said.
    pub fn publish_statement(
        &self,
        name: &str,
        statement: Option<&Statement>,
        key: Option<&PrivateKey>,
    ) -> Result<Vec<String>, Error> {
        let image = self.image(name)?;
        // Later than the last one, also of two in one second.
        let issued = now().max(self.issued(&image.id).saturating_add(1));
        let mut told = Vec::new();
        for text in &image.names {
            let reference = Reference::parse(text).context(|| format!("read the name {text}"))?;
            let Some(subject) = self.subject(&image, &reference)? else {
                continue;
            };
            let what = || format!("attach the statement to {}", reference.familiar());
            if let Some(key) = key {
                self.attach_signed(&reference, &subject, &said(issued, statement), key)
                    .context(what)?;
            }
            for kind in [KIND_MICROSOFT, KIND_NEUTRAL] {
                if let Some(statement) = statement {
                    self.attach_statement(&reference, &subject.descriptor, kind, statement)
                        .context(what)?;
                }
            }
            told.push(reference.familiar());
        }
        if told.is_empty() {
            let message = format!("no registry has {name} as it is here");
            return Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint("push it first"));
        }
        if key.is_some() {
            self.write_in_lifecycle(&issued_name(&image.id), issued.to_string().as_bytes())?;
        }
        Ok(told)
    }

    fn attach_signed(
        &self,
        reference: &Reference,
        subject: &Fetched,
        said: &LifecycleStatement,
        key: &PrivateKey,
    ) -> Result<(), Error> {
        let about = said.about(&reference.name(), &subject.descriptor.digest);
        self.put_bundle(reference, subject, key, &about.context(|| "write it")?)
    }

    /// The manifest that a registry has of an image under a name, if it has this one.
    fn subject(&self, image: &Image, reference: &Reference) -> Result<Option<Fetched>, Error> {
        let Some(manifest) = image.record.manifest else {
            return Ok(None);
        };
        match self.client()?.manifest_at(reference, &manifest) {
            Ok(mut fetched) => {
                fetched.descriptor = Descriptor::of(&image.record.media_type, &fetched.bytes);
                Ok(Some(fetched))
            }
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
    ///
    /// # Errors
    /// When what somebody signed whom the policy trusts cannot be looked for, or kept: without it the image might be used.
    pub(crate) fn fetch_statement(
        &self,
        reference: &Reference,
        digest: &Digest,
        image: &ImageId,
    ) -> Result<(), Error> {
        let known = self.statement_about(image);
        if known.is_some_and(|known| known.signed && known.by.is_none()) {
            return Ok(());
        }
        let trusted = self
            .own_policy()?
            .map(|own| (own, own.policy.retirers(reference)));
        if let Some((own, names)) = trusted.filter(|(_, names)| !names.is_empty()) {
            let mut about = vec![*digest];
            // An index was pulled, and what is said may be about its part for this machine.
            about.extend(
                self.image(&image.to_string())?
                    .record
                    .manifest
                    .filter(|own| own != digest),
            );
            for digest in about {
                self.fetch_signed(&own.policy, &names, (reference, &digest), image)
                    .context(|| format!("ask what is signed of the end of {}", reference.familiar()))?;
            }
            if self.statement_about(image).is_some_and(|known| known.signed) {
                return Ok(());
            }
        }
        self.fetch_unsigned(reference, digest, image);
        Ok(())
    }

    /// The newest that one of these signers says of an image, when it is newer than what was seen here. What is said to be of the future
    /// does not count: else nothing that is said until then would.
    fn fetch_signed(
        &self,
        policy: &Policy,
        names: &BTreeSet<&str>,
        (reference, digest): (&Reference, &Digest),
        image: &ImageId,
    ) -> Result<(), Error> {
        let client = self.client()?;
        let top = client.manifest_at(reference, digest);
        let found = signatures_of(client, reference, &top.context(|| "ask for it")?)?;
        let mut newest: Option<(LifecycleStatement, &str)> = None;
        let mut ahead = None;
        let last = now().saturating_add(MOST_AHEAD);
        for name in names {
            let Some(document) = policy.signers.get(*name) else {
                continue;
            };
            let trust = trust(document).context(|| format!("signer {name}"))?;
            for verified in found.judge(&trust).verified {
                let said = verified
                    .statement
                    .and_then(|statement| LifecycleStatement::of(&statement).ok().flatten());
                let Some(said) = said else { continue };
                if said.issued > last {
                    ahead = Some(*name);
                    continue;
                }
                if newest
                    .as_ref()
                    .is_none_or(|(known, _)| said.issued > known.issued)
                {
                    newest = Some((said, name));
                }
            }
        }
        if let (None, Some(name)) = (&newest, ahead) {
            let message = format!("what {name} signed of the end of the image is of the future");
            return Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint(
                "one of the two clocks is wrong: this machine's, or that of who signed, who can sign it again",
            ));
        }
        let Some((said, name)) = newest.filter(|(said, _)| said.issued > self.issued(image)) else {
            return Ok(());
        };
        if said.annotations.is_empty() {
            self.forget_statement(image);
        } else {
            let statement = Statement {
                signed: true,
                by: Some(name.to_owned()),
                ..Statement::of(&said.annotations).context(|| format!("read what {name} signed"))?
            };
            self.write_statement(image, &statement)?;
        }
        // After it: whoever dies before is told once more.
        self.write_in_lifecycle(&issued_name(image), said.issued.to_string().as_bytes())
    }

    fn fetch_unsigned(&self, reference: &Reference, digest: &Digest, image: &ImageId) {
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

/// What is signed of a statement, or of that there is none any more.
fn said(issued: i64, statement: Option<&Statement>) -> LifecycleStatement {
    let annotations = statement.map(|statement| statement.annotations(KIND_NEUTRAL));
    LifecycleStatement {
        issued,
        annotations: annotations.unwrap_or_default(),
    }
}
