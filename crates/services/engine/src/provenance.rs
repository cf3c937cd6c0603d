//! Provenance: what an image was built of, as an in-toto statement with SLSA's predicate (slsa.dev/spec/v1.0/provenance), in the
//! fields that BuildKit uses (moby/buildkit `docs/attestations/slsa-definitions.md`). No value of a secret is in it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use dhow_build::{Built, Request};
use dhow_image::{Image, Statement};
use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_types::{Digest, Platform};
use serde_json::{Value, json};

use crate::{Context as _, Engine, Error};

/// The predicate.
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean.
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// How much provenance tells.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// Arguments, labels, names of secrets and the Dockerfile, too (BuildKit's `mode=max`).
    pub all: bool,
    /// Who builds, as a URI.
    pub builder: String,
    /// When the build began and ended.
    pub times: (SystemTime, SystemTime),
}

impl Engine {
    /// Keeps the provenance of an image that was built beside it.
    ///
    /// # Errors
    /// `InvalidArgument` for an image without a name; failures of the store.
    pub fn attest_provenance(
        &self,
        built: &mut Built,
        request: &Request,
        names: &[Reference],
        how: &Provenance,
    ) -> Result<Digest, Error> {
        let store = self.store()?;
        let id = built.image.id;
        let subject = store.subject(&id).context(|| "describe the image")?;
        let bytes = statement(built, request, names, how, &subject.digest);
        let bytes = bytes.context(|| "write the provenance")?;
        let index = store.attest(&id, names, &[(PREDICATE, bytes)]);
        let index = index.context(|| "keep the provenance")?;
        store.sync().context(|| "write the provenance to disk")?;
        built.image = store.image(&id).context(|| "look at the image")?;
        Ok(index)
    }
}

/// What is to be said of what was built.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// How each was asked for, in the order of what was built.
    pub requests: &'a [Request],
    /// The provenance, and how much of it.
    pub provenance: Option<&'a Provenance>,
}

impl<'a> About<'a> {
    /// Says it of each, by these names.
    pub(crate) fn say(
        self,
        built: &'a [Built],
        names: &'a [Reference],
    ) -> impl Fn(usize, &Descriptor) -> Result<Vec<Statement>, dhow_image::Error> + 'a {
        move |place, manifest| {
            let (Some(how), Some(request)) = (self.provenance, self.requests.get(place)) else {
                return Ok(Vec::new());
            };
            let text = statement(&built[place], request, names, how, &manifest.digest)?;
            Ok(vec![(PREDICATE, text)])
        }
    }
}

/// The provenance of the image that has this manifest.
fn statement(
    built: &Built,
    request: &Request,
    names: &[Reference],
    how: &Provenance,
    manifest: &Digest,
) -> Result<Vec<u8>, dhow_image::Error> {
    let platform = built.image.config.platform();
    let subject = |name| json!({"name": purl(name, &platform), "digest": {"sha256": manifest.hex()}});
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": PREDICATE,
        "subject": names.iter().map(subject).collect::<Vec<Value>>(),
        "predicate": predicate(built, request, how),
    });
    serde_json::to_vec(&statement).map_err(|error| {
        dhow_image::Error::because(dhow_types::ErrorKind::Internal, "write the provenance", error)
    })
}

fn predicate(built: &Built, request: &Request, how: &Provenance) -> Value {
    let time = |time| dhow_monitor::format_time(time);
    let mut arguments = BTreeMap::new();
    if let Some(target) = &request.target {
        arguments.insert("target".to_owned(), target.clone());
    }
    let mut parameters = json!({"frontend": "dockerfile.v0"});
    let mut metadata = json!({
        "startedOn": time(how.times.0),
        "finishedOn": time(how.times.1),
        "buildkit_completeness": {"request": how.all, "resolvedDependencies": false},
        "buildkit_reproducible": false,
    });
    if how.all {
        let arg = |(name, value): (&String, &String)| (format!("build-arg:{name}"), value.clone());
        arguments.extend(request.build_args.iter().map(arg));
        let label = |(name, value): (&String, &String)| (format!("label:{name}"), value.clone());
        arguments.extend(request.labels.iter().map(label));
        let secrets: Vec<Value> = request.secrets.keys().map(|id| json!({"id": id})).collect();
        if !secrets.is_empty() {
            parameters["secrets"] = json!(secrets);
        }
        metadata["buildkit_metadata"] = json!({"source": {"infos": [
            {"filename": request.dockerfile_name, "language": "Dockerfile", "data": request.dockerfile}
        ]}});
    }
    if !arguments.is_empty() {
        parameters["args"] = json!(arguments);
    }
    if request.context.is_some() {
        parameters["locals"] = json!([{"name": "context"}, {"name": "dockerfile"}]);
    }
    let dependencies: Vec<Value> = built
        .bases
        .iter()
        .filter_map(|(name, image)| material(name, image))
        .collect();
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": {"path": request.dockerfile_name}, "request": parameters},
            "internalParameters": {"builderPlatform": Platform::host().to_string()},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": how.builder}, "metadata": metadata},
    })
}

/// An image that the build began with: by the digest in its registry, or else that of its manifest or config here.
fn material(name: &str, image: &Image) -> Option<Value> {
    let reference = Reference::parse(name).ok()?.or_latest();
    let own = image.digests.iter().find(|(repo, _)| *repo == reference.name());
    let digest = own
        .map(|(_, digest)| *digest)
        .or(image.record.manifest)
        .unwrap_or(image.id.0);
    let uri = purl(&reference, &image.config.platform());
    Some(json!({"uri": uri, "digest": {"sha256": digest.hex()}}))
}

/// A package URL of an image (package-url/purl-spec, type `docker`): `pkg:docker/debian@12?platform=linux%2Famd64`.
fn purl(name: &Reference, platform: &Platform) -> String {
    let escaped = |text: &str| {
        text.replace('%', "%25")
            .replace(':', "%3A")
            .replace('/', "%2F")
            .replace('@', "%40")
    };
    let tag = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let path = name.familiar_name().replace(':', "%3A");
    format!(
        "pkg:docker/{path}{tag}?platform={}",
        escaped(&platform.to_string())
    )
}
