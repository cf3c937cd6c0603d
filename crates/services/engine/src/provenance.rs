//! What is said of what was built: what is in it, as a document of SPDX, and its provenance, as an in-toto statement with SLSA's predicate (slsa.dev/spec/v1.0/provenance), in the
//! fields that BuildKit uses (moby/buildkit `docs/attestations/slsa-definitions.md`). No value of a secret is in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_build::{Built, Request};
use dhow_image::{Image, Statement};
use dhow_inventory::Subject;
use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_rootpath::{FileKind, Root};
use dhow_types::{DiffId, Digest, Hasher, Platform};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::apart::Later;
use crate::{Context as _, Engine, Error};

/// The predicate.
pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// That of a bill of materials.
const CONTENTS: &str = "https://spdx.dev/Document";
/// What the parameters mean.
pub(crate) const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

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
    /// Keeps what is said of an image that was built beside it.
    ///
    /// # Errors
    /// `InvalidArgument` for an image without a name; failures of the store.
    pub fn attest_built(
        &self,
        built: &mut Built,
        names: &[Reference],
        about: &About<'_>,
    ) -> Result<Digest, Error> {
        let store = self.store()?;
        let id = built.image.id;
        let subject = store.subject(&id).context(|| "describe the image")?;
        let statements = about.statements(0, built, names, &subject.digest);
        let statements = statements.context(|| "say what is to be said of the image")?;
        let index = store.attest(&id, names, &statements);
        let index = index.context(|| "keep what is said of the image")?;
        store
            .sync()
            .context(|| "write what is said of the image to disk")?;
        built.image = store.image(&id).context(|| "look at the image")?;
        Ok(index)
    }

    /// Says what is to be said of the files that were checked out of what was built, in files beside them:
    /// `provenance.json` and `sbom.spdx.json`; where folders of several platforms are one, the platform is in the names.
    ///
    /// # Errors
    /// What reading the layers and writing said.
    pub fn check_out_about(
        &self,
        place: usize,
        built: &Built,
        about: &About<'_>,
        folder: &Path,
        shared: bool,
    ) -> Result<(), Error> {
        let stack = &built.image.config.rootfs.diff_ids;
        let subjects = self.with_view(stack, "output", files_of)?;
        let what = || format!("write to {}", folder.display());
        let target = Root::open(folder).context(what)?;
        let platform = if shared {
            format!(".{}", built.platform_folder())
        } else {
            String::new()
        };
        let statements = about.statements_of(place, built, &subjects);
        for (kind, bytes) in statements.context(|| "say what is to be said of the files")? {
            let stem = if kind == CONTENTS {
                "sbom.spdx"
            } else {
                "provenance"
            };
            let name = format!("{stem}{platform}.json");
            target
                .write(Path::new(&name), &bytes, 0o600, None)
                .context(what)?;
        }
        Ok(())
    }

    /// Prepares to list what is in images that are built afterwards. The caller must be single-threaded.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn bills(&self) -> Result<Bills, Error> {
        let list = |engine: &Self, asked: Vec<Asked>| {
            let one = |asked: Asked| {
                let found = engine.contents_of_layers(&asked.layers)?;
                let subject = Subject {
                    name: asked.name,
                    digest: None,
                    image: true,
                    layers: asked.layers.iter().map(ToString::to_string).collect(),
                    tool: ("dhow".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                    created: asked.created,
                };
                Ok(dhow_inventory::spdx2(&found.inventory, &subject))
            };
            asked.into_iter().map(one).collect()
        };
        self.later(list).map(Bills)
    }
}

/// All files of a tree with their digests, as subjects of statements.
fn files_of(root: &Root) -> Result<Vec<Value>, Error> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/")]);
    while let Some(folder) = folders.pop() {
        let what = || format!("read {}", folder.display());
        for entry in root.read_dir(&folder).context(what)? {
            let path = folder.join(&entry.name);
            match entry.kind {
                FileKind::Directory => folders.push(path),
                FileKind::File => {
                    let file = root.open_file(&path).context(what)?;
                    let digest = digest_of(file).context(what)?;
                    found.push((path, digest));
                }
                _ => {}
            }
        }
    }
    found.sort();
    let subject = |(path, digest): (PathBuf, Digest)| {
        let name = path.to_string_lossy();
        json!({"name": name.trim_start_matches('/'), "digest": {"sha256": digest.hex()}})
    };
    Ok(found.into_iter().map(subject).collect())
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 256 << 10]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

/// What lists the contents of images when they are there.
#[derive(Debug)]
pub struct Bills(Later<Vec<Asked>, Vec<Value>>);

/// One image of which the contents are asked for.
#[derive(Debug, Deserialize, Serialize)]
struct Asked {
    name: String,
    layers: Vec<DiffId>,
    created: String,
}

impl Bills {
    /// A bill of materials (SPDX 2.3) for each.
    ///
    /// # Errors
    /// When layers cannot be read, or exhaust whoever reads them.
    pub fn of(self, built: &[Built], names: &[Reference]) -> Result<Vec<Value>, Error> {
        let one = |built: &Built| {
            let image = &built.image;
            Asked {
                name: names
                    .first()
                    .map_or_else(|| image.id.to_string(), Reference::familiar),
                layers: image.record.layers.clone(),
                created: image.config.created.clone().unwrap_or_default(),
            }
        };
        let asked: Vec<Asked> = built.iter().map(one).collect();
        self.0.ask(&asked).context(|| "list what is in the image")
    }
}

/// What is to be said of what was built.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// How each was asked for, in the order of what was built.
    pub requests: &'a [Request],
    /// The provenance, and how much of it.
    pub provenance: Option<&'a Provenance>,
    /// Their bills of materials, in the same order; none when they are not to be had.
    pub contents: &'a [Value],
}

impl<'a> About<'a> {
    /// Whether nothing is to be said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.contents.is_empty()
    }

    /// Says it of each, by these names.
    pub(crate) fn say(
        self,
        built: &'a [Built],
        names: &'a [Reference],
    ) -> impl Fn(usize, &Descriptor) -> Result<Vec<Statement>, dhow_image::Error> + 'a {
        move |place, manifest| self.statements(place, &built[place], names, &manifest.digest)
    }

    /// Says it of the image at a place, which has this manifest.
    fn statements(
        self,
        place: usize,
        built: &Built,
        names: &[Reference],
        manifest: &Digest,
    ) -> Result<Vec<Statement>, dhow_image::Error> {
        let platform = built.image.config.platform();
        let subject = |name| json!({"name": purl(name, &platform), "digest": {"sha256": manifest.hex()}});
        let subjects: Vec<Value> = names.iter().map(subject).collect();
        self.statements_of(place, built, &subjects)
    }

    /// Says it of these subjects.
    fn statements_of(
        self,
        place: usize,
        built: &Built,
        subjects: &[Value],
    ) -> Result<Vec<Statement>, dhow_image::Error> {
        let statement =
            |kind: &'static str, predicate: &Value| Ok((kind, in_toto(kind, subjects, predicate)?));
        let contents = self
            .contents
            .get(place)
            .map(|contents| statement(CONTENTS, contents));
        let provenance = self.provenance.zip(self.requests.get(place));
        let provenance =
            provenance.map(|(how, request)| statement(PROVENANCE, &predicate(built, request, how)));
        contents.into_iter().chain(provenance).collect()
    }
}

/// A statement about these subjects (in-toto attestation framework, v1).
pub(crate) fn in_toto(
    kind: &str,
    subjects: &[Value],
    predicate: &Value,
) -> Result<Vec<u8>, dhow_image::Error> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": kind,
        "subject": subjects,
        "predicate": predicate,
    });
    serde_json::to_vec(&statement).map_err(|error| {
        dhow_image::Error::because(dhow_types::ErrorKind::Internal, "write a statement", error)
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
            {"filename": request.dockerfile_name, "language": "Dockerfile", "data": STANDARD.encode(&request.dockerfile)}
        ]}});
    }
    if !arguments.is_empty() {
        parameters["args"] = json!(arguments);
    }
    if request.context.is_some() && request.context_source.is_none() {
        parameters["locals"] = json!([{"name": "context"}, {"name": "dockerfile"}]);
    }
    let others = request.context_source.iter().chain(&built.materials);
    let others =
        others.map(|material| json!({"uri": material.uri, "digest": {&material.algorithm: material.digest}}));
    let dependencies: Vec<Value> = built
        .bases
        .iter()
        .filter_map(|(name, image)| material(name, image))
        .chain(others)
        .collect();
    let mut source = json!({"path": request.dockerfile_name});
    if let Some(context) = &request.context_source {
        source["uri"] = json!(context.uri);
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": source, "request": parameters},
            "internalParameters": {"builderPlatform": Platform::host().to_string()},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": how.builder}, "metadata": metadata},
    })
}

/// An image that the build began with: by the digest in its registry, or else that of its manifest or config here.
pub(crate) fn material(name: &str, image: &Image) -> Option<Value> {
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
pub(crate) fn purl(name: &Reference, platform: &Platform) -> String {
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
