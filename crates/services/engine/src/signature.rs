//! Signatures of images in registries: made, found, judged.
//!
//! A signature is about a manifest, by its digest; what stands beside it in the registry is found by asking who refers to
//! it, and under the tags that cosign keeps (`sha256-<hex>.sig`, `.att`). Nothing that is found counts before it is
//! verified; what cannot be read is told, and counts as no signature.

use std::collections::HashSet;
use std::io::Read as _;

use dhow_oci::{Descriptor, Document, Labels, Manifest, media_type};
use dhow_reference::Reference;
use dhow_sign::{
    Certificate, Form, Found, PrivateKey, Statement, TagStatement, Target, Trust, Verified, bundle, notation,
    simple,
};
use dhow_transport::{Client, Fetched};
use dhow_types::{Digest, ErrorKind};

use crate::image::parse;
use crate::{Context as _, Engine, Error};

/// Most signatures of one image that are looked at, and bytes of one of them.
const MOST: usize = 64;
const MOST_BYTES: u64 = 32 << 20;
/// Most manifests of an index that are signed one by one.
const MOST_CHILDREN: usize = 256;
/// What an envelope alone is, as a layer.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// What a bundle's manifest says of it (cosign).
const CONTENT: &str = "dev.sigstore.bundle.content";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const CREATED: &str = "org.opencontainers.image.created";

/// How a signature is written and where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignAs {
    /// Sigstore's bundle, referring to the image.
    Bundle,
    /// cosign's simple signing, under a tag that is named after the image.
    Cosign,
    /// The same, referring to the image.
    CosignReferrer,
    /// The Notary Project's, in one of its envelopes, referring to the image.
    Notation(notation::Envelope),
}

/// A signature to make.
#[derive(Debug)]
pub struct SignRequest<'a> {
    /// What signs.
    pub key: &'a PrivateKey,
    /// How.
    pub form: SignAs,
    /// The certificates for [`SignAs::Notation`], that of the key first.
    pub chain: &'a [Certificate],
    /// When it ends to count, in seconds since 1970: for [`SignAs::Notation`] only.
    pub expiry: Option<i64>,
    /// What is said beside.
    pub annotations: &'a Labels,
    /// Whether every manifest of an index is signed, too.
    pub recursive: bool,
}

/// What was found beside an image.
#[derive(Debug)]
pub struct Signatures {
    /// Digest of the manifest or index that the name points to.
    pub digest: Digest,
    /// Its bytes.
    pub manifest: Vec<u8>,
    /// What was found: nothing of it is known to be true.
    pub found: Vec<Found>,
    /// What looks like a signature and could not be read.
    pub problems: Vec<String>,
}

/// What of that holds.
#[derive(Debug)]
pub struct Verification {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Signatures and statements that hold.
    pub verified: Vec<Verified>,
    /// Why the others do not.
    pub refused: Vec<String>,
}

impl Signatures {
    /// Judges what was found.
    #[must_use]
    pub fn judge(&self, trust: &Trust) -> Verification {
        let target = Target {
            digest: self.digest,
            bytes: &self.manifest,
        };
        let mut verification = Verification {
            digest: self.digest,
            verified: Vec::new(),
            refused: self.problems.clone(),
        };
        for found in &self.found {
            match trust.verify(found, &target) {
                Ok(verified) => verification.verified.push(verified),
                Err(error) => {
                    let hint = dhow_types::Failure::hint(&error)
                        .map_or_else(String::new, |hint| format!(" ({hint})"));
                    let why = crate::worker::chain(&error);
                    verification
                        .refused
                        .push(format!("{}: {why}{hint}", found.form.as_str()));
                }
            }
        }
        verification
    }
}

impl Engine {
    /// Signs what a name points to in its registry. Gives the digests that were signed.
    ///
    /// # Errors
    /// `NotFound` when the registry does not have it, with the word to push it first; as making a signature; what the
    /// registry said.
    pub fn sign(&self, name: &str, request: &SignRequest<'_>) -> Result<Vec<Digest>, Error> {
        let reference = parse(name)?.or_latest();
        let top = self.to_sign(&reference)?;
        let what = || format!("sign {}", reference.familiar());
        let mut targets = vec![top.clone()];
        if request.recursive
            && let Document::Index(index) = document(&top).context(what)?
        {
            if index.manifests.len() > MOST_CHILDREN {
                let message = format!("{}: it has more than {MOST_CHILDREN} manifests", what());
                return Err(Error::new(ErrorKind::ResourceExhausted, message));
            }
            for child in &index.manifests {
                targets.push(
                    self.client()?
                        .manifest_at(&reference, &child.digest)
                        .context(what)?,
                );
            }
        }
        for target in &targets {
            self.sign_one(&reference, target, request)
                .context(|| format!("{} ({})", what(), target.descriptor.digest))?;
        }
        Ok(targets.iter().map(|target| target.descriptor.digest).collect())
    }

    /// Puts a signed statement about what a name points to beside it.
    ///
    /// # Errors
    /// As [`Engine::sign`].
    pub fn attest(
        &self,
        name: &str,
        key: &PrivateKey,
        predicate_type: &str,
        predicate: serde_json::Value,
    ) -> Result<Digest, Error> {
        let reference = parse(name)?.or_latest();
        let top = self.to_sign(&reference)?;
        let what = || format!("attest {}", reference.familiar());
        let digest = top.descriptor.digest;
        let statement = Statement::new(
            &reference.name(),
            &digest,
            predicate_type,
            predicate,
            Labels::new(),
        );
        self.put_bundle(&reference, &top, key, &statement).context(what)?;
        Ok(digest)
    }

    /// States, with an end, that a tag points to what it points to now: a pull under a policy that asks for that then sees
    /// when the tag is moved back, or held where it is for too long.
    ///
    /// # Errors
    /// `InvalidArgument` for a name with a digest; as [`Engine::sign`].
    pub fn state_tag(&self, name: &str, key: &PrivateKey, seconds: i64) -> Result<Digest, Error> {
        let reference = parse(name)?.or_latest();
        let what = || format!("state where the tag {} points to", reference.familiar());
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            let message = format!("{}: it is a digest", what());
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("name the tag"));
        };
        let top = self.to_sign(&reference)?;
        let issued = now();
        let stated = TagStatement {
            repository: reference.name(),
            tag: tag.to_owned(),
            // Seconds grow, also when another machine signs the next one.
            counter: u64::try_from(issued).unwrap_or_default(),
            issued,
            expires: issued.saturating_add(seconds),
        };
        let digest = top.descriptor.digest;
        let statement = stated.about(&digest).context(what)?;
        self.put_bundle(&reference, &top, key, &statement).context(what)?;
        Ok(digest)
    }

    /// Signs what a name points to in its registry, if `may` says so of its digest; which that is.
    pub(crate) fn sign_if(
        &self,
        reference: &Reference,
        request: &SignRequest<'_>,
        may: impl FnOnce(&Digest) -> Result<(), Error>,
    ) -> Result<Digest, Error> {
        let top = self.to_sign(reference)?;
        may(&top.descriptor.digest)?;
        self.sign_one(reference, &top, request)
            .context(|| format!("sign {} ({})", reference.familiar(), top.descriptor.digest))?;
        Ok(top.descriptor.digest)
    }

    fn to_sign(&self, reference: &Reference) -> Result<Fetched, Error> {
        let fetched = self.client()?.manifest(reference);
        let what = || format!("look for {} in its registry", reference.familiar());
        match fetched {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_here = self.store()?.resolve(&reference.canonical()).is_ok();
                let error = Err(error).context(what);
                if is_here {
                    let hint = format!(
                        "signatures are kept in the registry: dhow push {} first",
                        reference.familiar()
                    );
                    return error.map_err(|error: Error| error.with_hint(hint));
                }
                error
            }
            other => other.context(what),
        }
    }

    fn sign_one(
        &self,
        reference: &Reference,
        target: &Fetched,
        request: &SignRequest<'_>,
    ) -> Result<(), Error> {
        let digest = target.descriptor.digest;
        let client = self.client()?;
        match request.form {
            SignAs::Bundle => {
                let nothing = serde_json::json!({});
                let annotations = request.annotations.clone();
                let statement = Statement::new("", &digest, dhow_sign::SIGNED, nothing, annotations);
                self.put_bundle(reference, target, request.key, &statement)
            }
            SignAs::Cosign | SignAs::CosignReferrer => {
                let named = reference.clone().without_digest().canonical();
                let signed = simple::sign(request.key, &named, &digest, request.annotations);
                let (payload, annotations) = signed.context(|| "make a signature")?;
                let mut layer = Descriptor::of(simple::PAYLOAD, &payload);
                layer.annotations = annotations;
                push(client, reference, &layer, &payload)?;
                if request.form == SignAs::CosignReferrer {
                    return refer(client, reference, target, simple::ARTIFACT, layer, Labels::new());
                }
                add_to_tag(client, reference, &digest, layer)
            }
            SignAs::Notation(envelope) => {
                let how = notation::Request {
                    chain: request.chain,
                    envelope,
                    now: now(),
                    expiry: request.expiry,
                    annotations: request.annotations,
                };
                let mut subject = target.descriptor.clone();
                kind_of(target).clone_into(&mut subject.media_type);
                let (bytes, annotations) =
                    notation::sign(request.key, &subject, &how).context(|| "make a signature")?;
                let layer = Descriptor::of(envelope.media_type(), &bytes);
                push(client, reference, &layer, &bytes)?;
                refer(client, reference, target, notation::ARTIFACT, layer, annotations)
            }
        }
    }

    pub(crate) fn put_bundle(
        &self,
        reference: &Reference,
        target: &Fetched,
        key: &PrivateKey,
        statement: &Statement,
    ) -> Result<(), Error> {
        let client = self.client()?;
        let bytes = bundle::sign(key, statement).context(|| "make a signature")?;
        let layer = Descriptor::of(bundle::BUNDLE, &bytes);
        push(client, reference, &layer, &bytes)?;
        let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let annotations = Labels::from([
            (CONTENT.to_owned(), "dsse-envelope".to_owned()),
            (PREDICATE.to_owned(), statement.predicate_type.clone()),
            (CREATED.to_owned(), created),
        ]);
        refer(client, reference, target, bundle::BUNDLE, layer, annotations)
    }

    /// What stands beside an image in its registry.
    ///
    /// # Errors
    /// `NotFound` when the registry does not have the image; what the registry said.
    pub fn signatures(&self, name: &str) -> Result<Signatures, Error> {
        let reference = parse(name)?.or_latest();
        let what = || format!("look for {} in its registry", reference.familiar());
        let top = self.client()?.manifest(&reference).context(what)?;
        signatures_of(self.client()?, &reference, &top)
            .context(|| format!("look for signatures of {}", reference.familiar()))
    }

    /// Verifies the signatures of what a name points to in its registry.
    ///
    /// # Errors
    /// As [`Engine::signatures`]. That nothing holds is no error: the answer says so.
    pub fn verify(&self, name: &str, trust: &Trust) -> Result<Verification, Error> {
        Ok(self.signatures(name)?.judge(trust))
    }
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn document(fetched: &Fetched) -> Result<Document, dhow_oci::Error> {
    let kind = fetched.descriptor.media_type.as_str();
    Document::parse(&fetched.bytes, Some(kind).filter(|kind| !kind.is_empty()))
}

/// The media type of a manifest, also when the registry did not say it.
fn kind_of(fetched: &Fetched) -> &str {
    match fetched.descriptor.media_type.as_str() {
        "" if matches!(document(fetched), Ok(Document::Index(_))) => media_type::OCI_INDEX,
        "" => media_type::OCI_MANIFEST,
        kind => kind,
    }
}

fn push(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    mut bytes: &[u8],
) -> Result<(), Error> {
    let what = || "push a part of a signature";
    if !client.has_blob(reference, &descriptor.digest).context(what)? {
        client
            .push_blob(reference, descriptor, &mut bytes)
            .context(what)?;
    }
    Ok(())
}

/// Pushes a manifest with this one layer that refers to another.
fn refer(
    client: &Client,
    reference: &Reference,
    target: &Fetched,
    kind: &str,
    layer: Descriptor,
    annotations: Labels,
) -> Result<(), Error> {
    let nothing = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    push(client, reference, &nothing, b"{}")?;
    let mut manifest = Manifest::new(nothing, vec![layer]);
    manifest.artifact_type = Some(kind.to_owned());
    // cosign finds its older form by this.
    if kind == simple::ARTIFACT {
        kind.clone_into(&mut manifest.config.media_type);
    }
    let subject = Descriptor::new(
        kind_of(target),
        target.descriptor.digest,
        target.bytes.len() as u64,
    );
    manifest.subject = Some(subject);
    manifest.annotations = annotations;
    let bytes = json(&manifest)?;
    client
        .push_referrer(reference, &bytes)
        .context(|| "push a signature")
        .map(drop)
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::because(ErrorKind::Internal, "write a signature", error))
}

/// Adds a signature to those under the tag that is named after a manifest.
fn add_to_tag(
    client: &Client,
    reference: &Reference,
    digest: &Digest,
    layer: Descriptor,
) -> Result<(), Error> {
    let tag = tagged(reference, &simple::tag(digest))?;
    let what = || "read the signatures that are there";
    let mut layers = match client.manifest(&tag) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        found => match document(&found.context(what)?).context(what)? {
            Document::Manifest(manifest) => manifest.layers,
            Document::Index(_) => {
                let message = format!(
                    "the tag {} is an index, and no list of signatures",
                    tag.familiar()
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
        },
    };
    layers.push(layer);
    let diffs: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
    let config = serde_json::json!({"architecture": "", "os": "", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = json(&config)?;
    let described = Descriptor::of(media_type::OCI_CONFIG, &config);
    push(client, reference, &described, &config)?;
    let bytes = json(&Manifest::new(described, layers))?;
    client
        .push_manifest(&tag, media_type::OCI_MANIFEST, &bytes)
        .context(|| "push a signature")
        .map(drop)
}

fn tagged(reference: &Reference, tag: &str) -> Result<Reference, Error> {
    reference
        .clone()
        .without_digest()
        .with_tag(tag)
        .context(|| "name the tag of signatures")
}

/// What stands beside a manifest.
pub(crate) fn signatures_of(
    client: &Client,
    reference: &Reference,
    top: &Fetched,
) -> Result<Signatures, Error> {
    let digest = top.descriptor.digest;
    let mut gathered = Gathered {
        client,
        reference,
        found: Vec::new(),
        problems: Vec::new(),
        seen: HashSet::new(),
    };
    let referrers = client
        .referrers(reference, &digest, None)
        .context(|| "ask who refers to it")?;
    for referrer in referrers {
        // Without a kind it may be anything: its manifest says.
        let kind = referrer.artifact_type.as_deref().unwrap_or_default();
        if kind.is_empty() || is_signature(kind) || kind == media_type::OCI_EMPTY {
            gathered.manifest_at(&referrer.digest, &digest);
        }
    }
    for tag in [simple::tag(&digest), format!("sha256-{}.att", digest.hex())] {
        gathered.tag(&tagged(reference, &tag)?);
    }
    Ok(Signatures {
        digest,
        manifest: top.bytes.clone(),
        found: gathered.found,
        problems: gathered.problems,
    })
}

fn is_signature(kind: &str) -> bool {
    kind.starts_with("application/vnd.dev.sigstore.bundle")
        || kind == simple::ARTIFACT
        || kind == notation::ARTIFACT
}

/// The form of a layer.
fn form_of(layer: &Descriptor) -> Option<Form> {
    match layer.media_type.as_str() {
        simple::PAYLOAD => Some(Form::Simple),
        notation::JWS | notation::COSE => Some(Form::Notation),
        ENVELOPE => Some(Form::Envelope),
        kind if kind.starts_with("application/vnd.dev.sigstore.bundle") => Some(Form::Bundle),
        _ => None,
    }
}

struct Gathered<'a> {
    client: &'a Client,
    reference: &'a Reference,
    found: Vec<Found>,
    problems: Vec<String>,
    /// What was read, with its signature beside it: the same twice counts once.
    seen: HashSet<(Digest, Option<String>)>,
}

impl Gathered<'_> {
    fn manifest_at(&mut self, referrer: &Digest, subject: &Digest) {
        let read = self
            .client
            .manifest_at(self.reference, referrer)
            .context(|| "fetch its manifest");
        let read = read.and_then(|fetched| document(&fetched).context(|| "read its manifest"));
        match read {
            Ok(Document::Manifest(manifest)) => {
                // A list may say what it likes: what does not refer to this manifest is not about it.
                let about = manifest.subject.as_ref().map(|subject| subject.digest);
                if about == Some(*subject) {
                    self.layers(&manifest);
                }
            }
            Ok(Document::Index(_)) => {}
            Err(error) => self.problem(&referrer.short(), &error),
        }
    }

    fn tag(&mut self, tag: &Reference) {
        match self.client.manifest(tag) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => {
                let read = read.context(|| "fetch its manifest");
                match read.and_then(|fetched| document(&fetched).context(|| "read its manifest")) {
                    Ok(Document::Manifest(manifest)) => self.layers(&manifest),
                    Ok(Document::Index(_)) => {}
                    Err(error) => self.problem(tag.tag().unwrap_or_default(), &error),
                }
            }
        }
    }

    fn layers(&mut self, manifest: &Manifest) {
        for layer in &manifest.layers {
            let Some(form) = form_of(layer) else {
                continue;
            };
            let beside = layer.annotations.get(simple::SIGNATURE).cloned();
            if !self.seen.insert((layer.digest, beside)) {
                continue;
            }
            if self.found.len() >= MOST {
                self.problems.push(format!(
                    "there are more than {MOST} signatures: the others are not looked at"
                ));
                return;
            }
            match self.blob(layer) {
                Ok(content) => self.found.push(Found {
                    form,
                    content,
                    annotations: layer.annotations.clone(),
                }),
                Err(error) => self.problem(&layer.digest.short(), &error),
            }
        }
    }

    fn blob(&self, layer: &Descriptor) -> Result<Vec<u8>, Error> {
        if layer.size > MOST_BYTES {
            let message = format!("it has {} bytes, the limit is {MOST_BYTES}", layer.size);
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let what = || "fetch it";
        let mut content = Vec::new();
        let blob = self.client.blob(self.reference, layer).context(what)?;
        blob.take(MOST_BYTES).read_to_end(&mut content).context(what)?;
        Ok(content)
    }

    fn problem(&mut self, what: &str, error: &Error) {
        self.problems
            .push(format!("{what}: {}", crate::worker::chain(error)));
    }
}
