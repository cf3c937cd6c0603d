//! `policy.json` of podman, skopeo, buildah and CRI-O: containers-policy.json(5).
//!
//! Read whole, and strictly as they do: a word that is not known is an error, since it may have been the one that protects.
//! A requirement that is read and cannot be judged here (GPG's `signedBy`) refuses an image that it is asked of, and says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_reference::Reference;
use dhow_types::ErrorKind;
use serde::Deserialize;

use crate::{Error, MAX_FILE};

/// Most requirements of one scope.
const MAX_REQUIREMENTS: usize = 64;

/// A policy of the containers tools.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Containers {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "a few in a file")]
pub enum Requirement {
    /// Anything.
    InsecureAcceptAnything {},
    /// Nothing is good.
    Reject {},
    /// Signed with GPG.
    #[serde(rename_all = "camelCase")]
    SignedBy {
        /// What kind of keys these are: `GPGKeys`.
        key_type: String,
        /// A file with keys.
        #[serde(default)]
        key_path: Option<PathBuf>,
        /// Files with keys.
        #[serde(default)]
        key_paths: Option<Vec<PathBuf>>,
        /// Keys, in base64.
        #[serde(default)]
        key_data: Option<String>,
        /// The name that must be signed.
        #[serde(default)]
        signed_identity: Option<IdentityMatch>,
    },
    /// Signed by cosign's simple signing.
    #[serde(rename_all = "camelCase")]
    SigstoreSigned {
        /// A file with a public key.
        #[serde(default)]
        key_path: Option<PathBuf>,
        /// Files, of which one key must have signed.
        #[serde(default)]
        key_paths: Option<Vec<PathBuf>>,
        /// A public key, as PEM in base64.
        #[serde(default)]
        key_data: Option<String>,
        /// Such keys, of which one must have signed.
        #[serde(default)]
        key_datas: Option<Vec<String>>,
        /// Short-lived certificates.
        #[serde(default)]
        fulcio: Option<Fulcio>,
        /// Certificates of one's own.
        #[serde(default)]
        pki: Option<Pki>,
        /// A file with the key of a log that must have the signature.
        #[serde(default)]
        rekor_public_key_path: Option<PathBuf>,
        /// Files with such keys.
        #[serde(default)]
        rekor_public_key_paths: Option<Vec<PathBuf>>,
        /// Such a key.
        #[serde(default)]
        rekor_public_key_data: Option<String>,
        /// Such keys.
        #[serde(default)]
        rekor_public_key_datas: Option<Vec<String>>,
        /// The name that must be signed.
        #[serde(default)]
        signed_identity: Option<IdentityMatch>,
    },
}

/// Who may sign with short-lived certificates: one person.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fulcio {
    ca_path: Option<PathBuf>,
    ca_data: Option<String>,
    /// Who must have vouched for the person.
    pub oidc_issuer: String,
    /// The person's address.
    pub subject_email: String,
}

impl Fulcio {
    /// The file of the authorities.
    ///
    /// # Errors
    /// A text for data that is no base64.
    pub fn authorities(&self) -> Result<Vec<Key>, String> {
        sources(&self.ca_path, &None, &self.ca_data, &None)
    }

    fn check(&self) -> Result<(), String> {
        if self.authorities()?.len() != 1 {
            return Err("has a fulcio with not exactly one of caPath and caData".to_owned());
        }
        if self.oidc_issuer.is_empty() || self.subject_email.is_empty() {
            return Err("has a fulcio without oidcIssuer or subjectEmail".to_owned());
        }
        Ok(())
    }
}

/// Who may sign with certificates of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pki {
    ca_roots_path: Option<PathBuf>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<PathBuf>,
    ca_intermediates_data: Option<String>,
    /// The address that a certificate must be for.
    pub subject_email: Option<String>,
    /// The host that it must be for.
    pub subject_hostname: Option<String>,
}

impl Pki {
    /// The file of the roots.
    ///
    /// # Errors
    /// A text for data that is no base64.
    pub fn roots(&self) -> Result<Vec<Key>, String> {
        sources(&self.ca_roots_path, &None, &self.ca_roots_data, &None)
    }

    /// The file of those between, if there is one.
    ///
    /// # Errors
    /// A text for data that is no base64.
    pub fn between(&self) -> Result<Vec<Key>, String> {
        sources(
            &self.ca_intermediates_path,
            &None,
            &self.ca_intermediates_data,
            &None,
        )
    }

    fn check(&self) -> Result<(), String> {
        if self.roots()?.len() != 1 || self.between()?.len() > 1 {
            return Err(
                "has a pki with not exactly one of caRootsPath and caRootsData, or both caIntermediatesPath and caIntermediatesData"
                    .to_owned(),
            );
        }
        let names = [&self.subject_email, &self.subject_hostname];
        if names.iter().all(|name| name.is_none()) || names.into_iter().flatten().any(String::is_empty) {
            return Err(
                "has a pki with neither subjectEmail nor subjectHostname, or an empty one".to_owned(),
            );
        }
        Ok(())
    }
}

/// Where something is that may be named by a path, by paths, or stand here in base64, once or several times.
fn sources(
    path: &Option<PathBuf>,
    paths: &Option<Vec<PathBuf>>,
    data: &Option<String>,
    datas: &Option<Vec<String>>,
) -> Result<Vec<Key>, String> {
    let files = path.iter().chain(paths.iter().flatten());
    let mut keys: Vec<Key> = files.map(|path| Key::File(path.clone())).collect();
    for data in data.iter().chain(datas.iter().flatten()) {
        let pem = STANDARD
            .decode(data)
            .map_err(|_| "has key data that is no base64".to_owned())?;
        keys.push(Key::Pem(pem));
    }
    if keys.is_empty() && (paths.is_some() || datas.is_some()) {
        return Err("has an empty list of keys".to_owned());
    }
    Ok(keys)
}

/// Where a key or a file of certificates is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// In a file.
    File(PathBuf),
    /// Here, as PEM.
    Pem(Vec<u8>),
}

/// Which name must have been signed for an image that is wanted by a name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum IdentityMatch {
    /// The same.
    MatchExact {},
    /// The same, or, of one wanted by digest, the same repository.
    MatchRepoDigestOrExact {},
    /// The same repository.
    MatchRepository {},
    /// This name.
    #[serde(rename_all = "camelCase")]
    ExactReference {
        /// The name.
        docker_reference: String,
    },
    /// This repository.
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        /// The repository.
        docker_repository: String,
    },
    /// As `matchRepoDigestOrExact`, after one beginning of the name is put in the place of another.
    #[serde(rename_all = "camelCase")]
    RemapIdentity {
        /// The beginning of names that are wanted.
        prefix: String,
        /// What it was when they were signed.
        signed_prefix: String,
    },
}

impl Containers {
    /// Reads a policy.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() as u64 > MAX_FILE {
            let message = format!("the policy has more than {MAX_FILE} bytes");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let policy: Self = serde_json::from_str(text)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the policy", error))?;
        let scopes = policy.transports.values().flat_map(BTreeMap::iter);
        let scopes = scopes.map(|(name, list)| (name.as_str(), list));
        for (name, list) in scopes.chain([("default", &policy.default)]) {
            let bad = |why: &str| {
                let message = format!("the policy's scope {name:?} {why}");
                Err(Error::new(ErrorKind::InvalidArgument, message))
            };
            // An empty list would let everything through.
            if list.is_empty() || list.len() > MAX_REQUIREMENTS {
                return bad("has no requirements, or too many");
            }
            for requirement in list {
                if let Err(why) = requirement.check() {
                    return bad(&why);
                }
            }
        }
        Ok(policy)
    }

    /// Every scope, with its transport, and what it requires; the default first.
    pub fn scopes(&self) -> impl Iterator<Item = (String, &[Requirement])> {
        let all = self.transports.iter().flat_map(|(transport, scopes)| {
            let name = move |scope: &String| format!("{transport} {scope:?}");
            scopes
                .iter()
                .map(move |(scope, list)| (name(scope), list.as_slice()))
        });
        std::iter::once(("default".to_owned(), self.default.as_slice())).chain(all)
    }

    /// The requirements that count for an image in a registry: those of the longest scope that has it, and where they stand.
    #[must_use]
    pub fn requirements(&self, name: &Reference) -> (String, &[Requirement]) {
        if let Some(docker) = self.transports.get("docker") {
            for scope in scopes(name) {
                if let Some(list) = docker.get(&scope) {
                    return (format!("docker {scope:?}"), list);
                }
            }
        }
        ("default".to_owned(), &self.default)
    }
}

/// The names of scopes that an image is in, the longest first: its own, those of what it lies in, its registry, the domains of
/// that with a star, everything.
fn scopes(name: &Reference) -> Vec<String> {
    let mut all = Vec::new();
    let repository = name.name();
    if let Some(digest) = name.digest() {
        all.push(format!("{repository}@{digest}"));
    } else if let Some(tag) = name.tag() {
        all.push(format!("{repository}:{tag}"));
    }
    let mut rest = repository.as_str();
    loop {
        all.push(rest.to_owned());
        match rest.rsplit_once('/') {
            Some((parent, _)) => rest = parent,
            None => break,
        }
    }
    let mut host = name.registry();
    while let Some((_, parent)) = host.split_once('.') {
        all.push(format!("*.{parent}"));
        host = parent;
    }
    all.push(String::new());
    all
}

impl Requirement {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::InsecureAcceptAnything {} | Self::Reject {} => Ok(()),
            Self::SignedBy {
                key_type,
                key_path,
                key_paths,
                key_data,
                signed_identity,
            } => {
                if !matches!(
                    key_type.as_str(),
                    "GPGKeys" | "signedByGPGKeys" | "X509Certificates" | "signedByX509CAs"
                ) {
                    return Err(format!("has a signedBy of keyType {key_type:?}"));
                }
                let given = [key_path.is_some(), key_paths.is_some(), key_data.is_some()];
                if given.into_iter().filter(|given| *given).count() != 1 {
                    return Err(
                        "has a signedBy with not exactly one of keyPath, keyPaths and keyData".to_owned(),
                    );
                }
                signed_identity.iter().try_for_each(IdentityMatch::check)
            }
            Self::SigstoreSigned {
                key_path,
                key_paths,
                key_data,
                key_datas,
                fulcio,
                pki,
                signed_identity,
                ..
            } => {
                let given = [
                    key_path.is_some(),
                    key_paths.is_some(),
                    key_data.is_some(),
                    key_datas.is_some(),
                    fulcio.is_some(),
                    pki.is_some(),
                ];
                if given.into_iter().filter(|given| *given).count() != 1 {
                    return Err(
                        "has a sigstoreSigned with not exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki"
                            .to_owned(),
                    );
                }
                self.sigstore_keys().map(drop)?;
                let logs = self.log_keys()?;
                fulcio.iter().try_for_each(Fulcio::check)?;
                pki.iter().try_for_each(Pki::check)?;
                if self.log_sources() > 1 {
                    return Err("has a sigstoreSigned with more than one kind of rekorPublicKey".to_owned());
                }
                if fulcio.is_some() && logs.is_empty() {
                    return Err("has a fulcio without a rekorPublicKey".to_owned());
                }
                if pki.is_some() && !logs.is_empty() {
                    return Err("has a pki with a rekorPublicKey, which does not count there".to_owned());
                }
                signed_identity.iter().try_for_each(IdentityMatch::check)
            }
        }
    }

    /// The keys of a `sigstoreSigned`, of which one must have signed; or why it cannot be judged.
    ///
    /// # Errors
    /// A text for what is not understood.
    pub fn sigstore_keys(&self) -> Result<Vec<Key>, String> {
        let Self::SigstoreSigned {
            key_path,
            key_paths,
            key_data,
            key_datas,
            ..
        } = self
        else {
            return Ok(Vec::new());
        };
        sources(key_path, key_paths, key_data, key_datas)
    }

    /// The keys of the logs of which one must have the signature; none where none is asked for.
    ///
    /// # Errors
    /// A text for what is not understood.
    pub fn log_keys(&self) -> Result<Vec<Key>, String> {
        match self {
            Self::SigstoreSigned {
                rekor_public_key_path,
                rekor_public_key_paths,
                rekor_public_key_data,
                rekor_public_key_datas,
                ..
            } => sources(
                rekor_public_key_path,
                rekor_public_key_paths,
                rekor_public_key_data,
                rekor_public_key_datas,
            ),
            _ => Ok(Vec::new()),
        }
    }

    fn log_sources(&self) -> usize {
        match self {
            Self::SigstoreSigned {
                rekor_public_key_path,
                rekor_public_key_paths,
                rekor_public_key_data,
                rekor_public_key_datas,
                ..
            } => {
                let given = [
                    rekor_public_key_path.is_some(),
                    rekor_public_key_paths.is_some(),
                    rekor_public_key_data.is_some(),
                    rekor_public_key_datas.is_some(),
                ];
                given.into_iter().filter(|given| *given).count()
            }
            _ => 0,
        }
    }

    /// What of it cannot be judged here.
    #[must_use]
    pub fn unsupported(&self) -> Option<&'static str> {
        match self {
            Self::SignedBy { .. } => Some("signedBy (GPG) is not judged here: use sigstoreSigned"),
            Self::InsecureAcceptAnything {} | Self::Reject {} | Self::SigstoreSigned { .. } => None,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InsecureAcceptAnything {} => "insecureAcceptAnything",
            Self::Reject {} => "reject",
            Self::SignedBy { .. } => "signedBy",
            Self::SigstoreSigned { .. } => "sigstoreSigned",
        }
    }

    /// The name that must be signed.
    #[must_use]
    pub fn identity(&self) -> IdentityMatch {
        let identity = match self {
            Self::SignedBy { signed_identity, .. } | Self::SigstoreSigned { signed_identity, .. } => {
                signed_identity.clone()
            }
            Self::InsecureAcceptAnything {} | Self::Reject {} => None,
        };
        identity.unwrap_or(IdentityMatch::MatchRepoDigestOrExact {})
    }
}

impl IdentityMatch {
    fn check(&self) -> Result<(), String> {
        let bad = |name: &str| {
            Err(format!(
                "has a signedIdentity with the name {name:?}, which is none"
            ))
        };
        match self {
            Self::MatchExact {} | Self::MatchRepoDigestOrExact {} | Self::MatchRepository {} => Ok(()),
            Self::ExactReference {
                docker_reference: name,
            } => match Reference::parse(name) {
                Ok(reference) if reference.tag().is_some() || reference.digest().is_some() => Ok(()),
                _ => bad(name),
            },
            Self::ExactRepository {
                docker_repository: name,
            } => match Reference::parse(name) {
                Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => Ok(()),
                _ => bad(name),
            },
            Self::RemapIdentity {
                prefix,
                signed_prefix,
            } => {
                for prefix in [prefix, signed_prefix] {
                    if prefix.is_empty() || prefix.ends_with('/') || prefix.contains(['@', ' ']) {
                        return bad(prefix);
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether a signature under the name `signed` counts for the image `wanted`.
    #[must_use]
    pub fn fits(&self, wanted: &Reference, signed: &str) -> bool {
        let Ok(signed) = Reference::parse(signed) else {
            return false;
        };
        match self {
            Self::MatchExact {} => exact(wanted, &signed),
            Self::MatchRepoDigestOrExact {} => repository_or_exact(wanted, &signed),
            Self::MatchRepository {} => wanted.name() == signed.name(),
            Self::ExactReference { docker_reference } => {
                Reference::parse(docker_reference).is_ok_and(|reference| exact(&reference, &signed))
            }
            Self::ExactRepository { docker_repository } => {
                Reference::parse(docker_repository).is_ok_and(|reference| reference.name() == signed.name())
            }
            Self::RemapIdentity {
                prefix,
                signed_prefix,
            } => match remapped(wanted, prefix, signed_prefix) {
                Some(wanted) => repository_or_exact(&wanted, &signed),
                None => repository_or_exact(wanted, &signed),
            },
        }
    }
}

/// Both have the same tag, or the same digest: a name without either is nobody's.
fn exact(wanted: &Reference, signed: &Reference) -> bool {
    wanted.name() == signed.name()
        && (wanted.tag().is_some() || wanted.digest().is_some())
        && wanted.tag() == signed.tag()
        && wanted.digest() == signed.digest()
}

fn repository_or_exact(wanted: &Reference, signed: &Reference) -> bool {
    if wanted.digest().is_some() {
        return wanted.name() == signed.name();
    }
    exact(wanted, signed)
}

/// The name with one beginning in the place of another, when it has that: whole parts of it.
fn remapped(wanted: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let text = wanted.canonical();
    let rest = text.strip_prefix(prefix)?;
    if !rest.is_empty() && !rest.starts_with(['/', ':', '@']) {
        return None;
    }
    // `host` and `host:port` are not the same beginning.
    if !prefix.contains('/') && rest.starts_with(':') {
        return None;
    }
    Reference::parse(&format!("{signed_prefix}{rest}")).ok()
}
