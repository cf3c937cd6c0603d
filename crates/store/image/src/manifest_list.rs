//! Lists of manifests in the making (docker's `manifest` verbs): made here, annotated, pushed.
//!
//! One file for each list, replaced by rename: `ROOT/manifests/<escaped name>.json`. A list holds the documents that
//! it is made of, so that it is pushed as it was when it was made.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dhow_oci::{Descriptor, Document, ImageConfig, Index, MAX_DOCUMENT, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{Digest, ErrorKind, Platform, Silent};
use serde::{Deserialize, Serialize};

use crate::copy::{Copy, Location, copy};
use crate::{Context as _, Error};

/// Manifests of one list.
const MAX_MEMBERS: usize = 500;
/// Largest file of a list.
const MAX_FILE: u64 = 64 << 20;

/// A list in the making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestList {
    /// Its name, canonical.
    pub name: String,
    /// What it is made of.
    pub members: Vec<Member>,
}

/// One manifest of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it is, canonical.
    pub reference: String,
    /// What the list will say of it: the platform among others.
    pub descriptor: Descriptor,
    /// The manifest, byte for byte.
    pub manifest: String,
}

/// What to say of a manifest in a list; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Annotate {
    /// CPU architecture.
    pub arch: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Its version.
    pub os_version: Option<String>,
    /// Its features; they are added to.
    pub os_features: Vec<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
}

/// The lists of one root.
#[derive(Clone, Debug)]
pub struct ManifestLists(PathBuf);

impl ManifestLists {
    /// The lists below a root.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(root.join("manifests"))
    }

    fn path(&self, name: &Reference) -> PathBuf {
        self.0.join(format!(
            "{}.json",
            crate::names::file_name(&name.canonical(), 230)
        ))
    }

    /// The list of this name, if there is one.
    ///
    /// # Errors
    /// `DataLoss` for a file that is no list; what reading said.
    pub fn find(&self, name: &Reference) -> Result<Option<ManifestList>, Error> {
        let path = self.path(name);
        let what = || format!("read {}", path.display());
        let mut bytes = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file
                .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
                .context(what)?,
        };
        let list = serde_json::from_slice(&bytes)
            .map_err(|error| Error::because(ErrorKind::DataLoss, what(), error))?;
        Ok(Some(list))
    }

    fn get(&self, name: &Reference) -> Result<ManifestList, Error> {
        self.find(name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no such manifest: {}", name.familiar()),
            )
            .with_hint("manifest create makes a list")
        })
    }

    fn put(&self, name: &Reference, list: &ManifestList) -> Result<(), Error> {
        let path = self.path(name);
        let what = || format!("write {}", path.display());
        fs::create_dir_all(&self.0).context(what)?;
        let bytes =
            serde_json::to_vec(list).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()
        });
        written.and_then(|()| fs::rename(&beside, &path)).context(what)
    }

    /// Makes a list of manifests that are in registries; with `amend`, adds them to the list that is there.
    ///
    /// # Errors
    /// `AlreadyExists` without `amend`, `InvalidArgument` for a member that is itself a list, and what the registry
    /// client reports.
    pub fn create(
        &self,
        client: &Client,
        name: &Reference,
        members: &[Reference],
        amend: bool,
    ) -> Result<(), Error> {
        let old = self.find(name)?;
        if old.is_some() && !amend {
            let message = "refusing to amend an existing manifest list with no --amend flag";
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let mut list = old.unwrap_or(ManifestList {
            name: name.canonical(),
            members: Vec::new(),
        });
        for member in members {
            let member = describe(client, member)?;
            list.members.retain(|other| other.reference != member.reference);
            list.members.push(member);
        }
        if list.members.len() > MAX_MEMBERS {
            let message = format!("{} has more than {MAX_MEMBERS} manifests", name.familiar());
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        self.put(name, &list)
    }

    /// Says more of a manifest of a list.
    ///
    /// # Errors
    /// `NotFound` when there is no such list, or it has not this manifest.
    pub fn annotate(&self, name: &Reference, member: &Reference, how: &Annotate) -> Result<(), Error> {
        let mut list = self.get(name)?;
        let wanted = member.canonical();
        let Some(found) = list.members.iter_mut().find(|member| member.reference == wanted) else {
            let message = format!(
                "manifest for image {} does not exist in {}",
                member.familiar(),
                name.familiar()
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let platform = found.descriptor.platform.get_or_insert_with(Platform::host);
        let set = |field: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                value.clone_into(field);
            }
        };
        set(&mut platform.architecture, &how.arch);
        set(&mut platform.os, &how.os);
        platform.variant = how.variant.clone().or_else(|| platform.variant.take());
        platform.os_version = how.os_version.clone().or_else(|| platform.os_version.take());
        for feature in &how.os_features {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
        self.put(name, &list)
    }

    /// Pushes a list under its name, and before it those of its manifests that are in other repositories; then, if
    /// wanted, forgets it.
    ///
    /// # Errors
    /// `NotFound` when there is no such list; what the registry client reports.
    pub fn push(&self, client: &Client, name: &Reference, purge: bool) -> Result<Digest, Error> {
        let list = self.get(name)?;
        for member in &list.members {
            let what = || format!("push {} to {}", member.reference, name.name());
            let from = Reference::parse(&member.reference).context(what)?;
            if from.name() == name.name() {
                continue;
            }
            let at = |reference: &Reference| {
                Location::Registry(
                    reference
                        .clone()
                        .without_tag()
                        .with_digest(member.descriptor.digest),
                )
            };
            copy(client, &at(&from), &at(name), &Copy::default(), &Silent).context(what)?;
        }
        let (kind, bytes) = list.document()?;
        let digest = client.push_manifest(name, kind, &bytes);
        let digest = digest.context(|| format!("push the manifest list {}", name.familiar()))?;
        if purge {
            self.remove(name)?;
        }
        Ok(digest)
    }

    /// Forgets a list.
    ///
    /// # Errors
    /// `NotFound` when there is no such list.
    pub fn remove(&self, name: &Reference) -> Result<(), Error> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.get(name).map(drop),
            other => other.context(|| format!("remove the manifest list {}", name.familiar())),
        }
    }
}

impl ManifestList {
    /// The list as it is pushed, with its media type: docker's where all its manifests are docker's.
    ///
    /// # Errors
    /// `ResourceExhausted` when it is larger than registries take.
    pub fn document(&self) -> Result<(&'static str, Vec<u8>), Error> {
        let docker = self
            .members
            .iter()
            .all(|member| member.descriptor.media_type == media_type::DOCKER_MANIFEST);
        let kind = if docker {
            media_type::DOCKER_LIST
        } else {
            media_type::OCI_INDEX
        };
        let index = Index {
            schema_version: 2,
            media_type: Some(kind.to_owned()),
            artifact_type: None,
            manifests: self
                .members
                .iter()
                .map(|member| member.descriptor.clone())
                .collect(),
            subject: None,
            annotations: dhow_oci::Labels::new(),
            extra: dhow_oci::Extra::new(),
        };
        let bytes = serde_json::to_vec(&index)
            .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest list", error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let message = format!(
                "the manifest list {} has more than {MAX_DOCUMENT} bytes",
                self.name
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        Ok((kind, bytes))
    }
}

/// Fetches a manifest for a list, and the platform from its config.
fn describe(client: &Client, reference: &Reference) -> Result<Member, Error> {
    let what = || format!("fetch the manifest of {}", reference.familiar());
    let fetched = client.manifest(reference).context(what)?;
    let manifest = match parse(&fetched).context(what)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => {
            let message = format!(
                "{} is a manifest list, and lists are made of manifests",
                reference.familiar()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("name one of its manifests by digest"));
        }
    };
    let mut descriptor = fetched.descriptor.clone();
    descriptor.platform = Some(platform(client, reference, &manifest)?);
    let manifest = String::from_utf8(fetched.bytes)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, what(), error))?;
    Ok(Member {
        reference: reference.canonical(),
        descriptor,
        manifest,
    })
}

fn parse(fetched: &Fetched) -> Result<Document, dhow_oci::Error> {
    Document::parse(
        &fetched.bytes,
        Some(fetched.descriptor.media_type.as_str()).filter(|kind| !kind.is_empty()),
    )
}

fn platform(client: &Client, reference: &Reference, manifest: &Manifest) -> Result<Platform, Error> {
    let what = || format!("fetch the config of {}", reference.familiar());
    if manifest.config.size > MAX_DOCUMENT {
        let message = format!("{}: it has more than {MAX_DOCUMENT} bytes", what());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let mut bytes = Vec::new();
    let reader = client.blob(reference, &manifest.config).context(what)?;
    reader
        .take(MAX_DOCUMENT)
        .read_to_end(&mut bytes)
        .map_err(|error| crate::pull::reading_failure(error, what()))?;
    Ok(ImageConfig::parse(&bytes).context(what)?.platform())
}
