//! Advisory data as one signed file, which can be carried on a disk or through a registry.
//!
//! The file: a line [`MAGIC`], a line with the length of the signature, the signature (a Sigstore bundle with a statement about what
//! follows; empty when nobody signed), and the database packed by zstd. In a registry it is the one layer of an artifact.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use dhow_layer::Compression;
use dhow_oci::{Descriptor, Document, Manifest, media_type};
use dhow_sign::{Form, Found, PrivateKey, Statement, Target, Trust, Verified, bundle};
use dhow_types::{Digest, ErrorKind};
use dhow_vuln::{Database, Facts};
use serde_json::json;

use crate::image::parse;
use crate::{Context as _, Engine, Error};

const MAGIC: &[u8] = b"dhow-advisories 1\n";
/// What the statement says: that this is advisory data. A signature of an image is none of it.
const PREDICATE: &str = "https://dhow.dev/advisories/v1";
/// Types of the artifact and of its layer.
const ARTIFACT: &str = "application/vnd.dhow.advisories.v1";
const LAYER: &str = "application/vnd.dhow.advisories.v1+zstd";

/// Largest file, and largest database in one.
const MOST_FILE: u64 = 1 << 30;
const MOST_DATA: u64 = 8 << 30;
/// Largest signature.
const MOST_BUNDLE: usize = 1 << 20;

/// Whose data is taken.
#[derive(Debug)]
pub enum Believe<'a> {
    /// What one of these signed.
    Signed(&'a Trust),
    /// Anybody's.
    Anybody,
}

/// Advisory data that was taken.
#[derive(Debug)]
pub struct Taken {
    /// What it is.
    pub facts: Facts,
    /// Who signed it; none when that was not asked.
    pub signer: Option<Verified>,
}

impl Engine {
    /// The advisory data of this root as one file, signed with a key if there is one.
    ///
    /// # Errors
    /// `NotFound` when there is none; as making a signature.
    pub fn pack_advisories(&self, key: Option<&PrivateKey>) -> Result<Vec<u8>, Error> {
        let what = || "pack the advisory data";
        let facts = self.advisories()?.facts().clone();
        let file = File::open(self.advisory_path()).context(what)?;
        let mut data = Vec::new();
        dhow_layer::compress(file, &mut data, Compression::Zstd).context(what)?;
        let signature = match key {
            Some(key) => {
                let predicate = json!({"built": facts.built, "advisories": facts.advisories});
                let statement = Statement::new("", &Digest::of(&data), PREDICATE, predicate, [].into());
                bundle::sign(key, &statement).context(|| "make a signature")?
            }
            None => Vec::new(),
        };
        let mut packed = MAGIC.to_vec();
        packed.extend(format!("{}\n", signature.len()).into_bytes());
        packed.extend(signature);
        packed.extend(data);
        Ok(packed)
    }

    /// Whether a file is advisory data as [`Engine::pack_advisories`] makes it.
    #[must_use]
    pub fn is_packed_advisories(path: &Path) -> bool {
        let mut begin = vec![0; MAGIC.len()];
        File::open(path).is_ok_and(|mut file| file.read_exact(&mut begin).is_ok()) && begin == MAGIC
    }

    /// Puts such a file in the place of the advisory data of this root. Data that is older than what is here is refused, unless that is
    /// wanted: whoever can hold back what is new would hide it.
    ///
    /// # Errors
    /// `PermissionDenied` when nobody who is believed signed it; `FailedPrecondition` for older data; `DataLoss` for a damaged file.
    pub fn take_advisories(&self, packed: &[u8], believe: &Believe<'_>, older: bool) -> Result<Taken, Error> {
        let (signature, data) = taken_apart(packed)?;
        let signer = match believe {
            Believe::Anybody => None,
            Believe::Signed(trust) => Some(verified(signature, data, trust)?),
        };
        let path = self.advisory_path();
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let facts = unpack(data, &staged).and_then(|()| self.checked(&staged, older));
        let renamed = facts.and_then(|facts| {
            fs::rename(&staged, &path).context(|| format!("write {}", path.display()))?;
            Ok(facts)
        });
        if renamed.is_err() {
            drop(fs::remove_file(&staged));
        }
        Ok(Taken {
            facts: renamed?,
            signer,
        })
    }

    fn checked(&self, staged: &Path, older: bool) -> Result<Facts, Error> {
        let what = || "open the advisory data";
        let database = Database::open(staged).context(what)?;
        database.check().context(what)?;
        let facts = database.facts().context(what)?;
        let here = self.advisories().ok().map(|here| here.facts().built.clone());
        match here.filter(|here| *here > facts.built && !older) {
            Some(here) => {
                let message = format!(
                    "this advisory data is of {}, and what is here is of {here}",
                    facts.built
                );
                Err(Error::new(ErrorKind::FailedPrecondition, message)
                    .with_hint("--replace takes it all the same"))
            }
            None => Ok(facts),
        }
    }

    /// Puts the advisory data into a registry, under a name; the digest of its manifest.
    ///
    /// # Errors
    /// As [`Engine::pack_advisories`]; what the registry said.
    pub fn push_advisories(&self, name: &str, key: Option<&PrivateKey>) -> Result<Digest, Error> {
        let reference = parse(name)?.or_latest();
        let what = || format!("push the advisory data to {}", reference.familiar());
        let packed = self.pack_advisories(key)?;
        let client = self.client()?;
        let nothing = Descriptor::of(media_type::OCI_EMPTY, b"{}");
        let layer = Descriptor::of(LAYER, &packed);
        for (descriptor, mut bytes) in [(&nothing, &b"{}"[..]), (&layer, &packed)] {
            if !client.has_blob(&reference, &descriptor.digest).context(what)? {
                client
                    .push_blob(&reference, descriptor, &mut bytes)
                    .context(what)?;
            }
        }
        let mut manifest = Manifest::new(nothing, vec![layer]);
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::because(ErrorKind::Internal, "write the manifest", error))?;
        client
            .push_manifest(&reference, media_type::OCI_MANIFEST, &bytes)
            .context(what)?;
        Ok(Digest::of(&bytes))
    }

    /// Takes the advisory data that a registry has under a name.
    ///
    /// # Errors
    /// `InvalidArgument` when it is something else; as [`Engine::take_advisories`]; what the registry said.
    pub fn pull_advisories(&self, name: &str, believe: &Believe<'_>, older: bool) -> Result<Taken, Error> {
        let reference = parse(name)?.or_latest();
        let what = || format!("pull the advisory data {}", reference.familiar());
        let client = self.client()?;
        let top = client.manifest(&reference).context(what)?;
        let parsed = Document::parse(&top.bytes, None).context(what)?;
        let layer = match &parsed {
            Document::Manifest(manifest) if manifest.artifact_type.as_deref() == Some(ARTIFACT) => {
                manifest.layers.iter().find(|layer| layer.media_type == LAYER)
            }
            _ => None,
        };
        let Some(layer) = layer else {
            let message = format!("{} is no advisory data", reference.familiar());
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("dhow scan push NAME puts some there"));
        };
        if layer.size > MOST_FILE {
            let message = format!("{}: it has more than {MOST_FILE} bytes", what());
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let mut packed = Vec::new();
        let blob = client.blob(&reference, layer).context(what)?;
        blob.take(MOST_FILE).read_to_end(&mut packed).context(what)?;
        self.take_advisories(&packed, believe, older).context(what)
    }
}

/// The signature and the packed data.
fn taken_apart(packed: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let bad = || Error::new(ErrorKind::DataLoss, "the file is no advisory data, or is cut off");
    let rest = packed.strip_prefix(MAGIC).ok_or_else(bad)?;
    let end = rest
        .iter()
        .take(12)
        .position(|byte| *byte == b'\n')
        .ok_or_else(bad)?;
    let length = std::str::from_utf8(&rest[..end])
        .ok()
        .and_then(|text| text.parse().ok());
    let length: usize = length.filter(|length| *length <= MOST_BUNDLE).ok_or_else(bad)?;
    rest[end + 1..].split_at_checked(length).ok_or_else(bad)
}

fn verified(signature: &[u8], data: &[u8], trust: &Trust) -> Result<Verified, Error> {
    if signature.is_empty() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "nobody signed this advisory data",
        ));
    }
    let found = Found {
        form: Form::Bundle,
        content: signature.to_vec(),
        annotations: [].into(),
    };
    let target = Target {
        digest: Digest::of(data),
        bytes: data,
    };
    let verified = trust
        .verify(&found, &target)
        .context(|| "verify the advisory data")?;
    let about = verified
        .statement
        .as_ref()
        .map(|statement| statement.predicate_type.as_str());
    if about != Some(PREDICATE) {
        let message = "the signature does not say that this is advisory data";
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    Ok(verified)
}

fn unpack(data: &[u8], to: &Path) -> Result<(), Error> {
    let what = || format!("unpack the advisory data to {}", to.display());
    let (_, stream) = dhow_layer::decoder(data).context(what)?;
    let mut file = File::create(to).context(what)?;
    let written = std::io::copy(&mut stream.take(MOST_DATA + 1), &mut file).context(what)?;
    if written > MOST_DATA {
        let message = format!("{}: it has more than {MOST_DATA} bytes", what());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    file.flush().and_then(|()| file.sync_all()).context(what)
}

#[cfg(test)]
mod tests {
    use super::taken_apart;

    #[test]
    fn a_file_that_is_cut_off_or_lies_is_none() {
        assert_eq!(
            taken_apart(b"dhow-advisories 1\n3\nabcdata").unwrap(),
            (&b"abc"[..], &b"data"[..])
        );
        for bad in [
            &b""[..],
            b"dhow-advisories 1\n",
            b"dhow-advisories 2\n0\n",
            b"dhow-advisories 1\n9\nabc",
            b"dhow-advisories 1\n-1\nabc",
            b"dhow-advisories 1\n99999999999999\nabc",
        ] {
            assert!(taken_apart(bad).is_err());
        }
    }
}
