//! What a manifest or index says, as far as a registry cares. The bytes themselves are stored and served untouched.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::fault::Fault;

/// Largest media type or artifact type, in bytes (RFC 6838 section 4.2: 127 for each part).
const MAX_TYPE: usize = 255;

/// A manifest or index, checked.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// Blobs that must be there: digest and size.
    pub(crate) blobs: Vec<(Digest, u64)>,
    /// Manifests that must be there.
    pub(crate) manifests: Vec<Digest>,
    pub(crate) subject: Option<Digest>,
    /// What the referrers list says it is: its own type, else its config's (distribution-spec, "Listing Referrers").
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Of the short-lived `application/vnd.oci.artifact.manifest.v1+json`.
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    urls: Option<Vec<String>>,
}

impl Descriptor {
    fn digest(&self) -> Result<Digest, Fault> {
        self.digest
            .parse()
            .map_err(|_| Fault::manifest_invalid("a descriptor's digest is invalid or unsupported"))
    }

    /// Whether the bytes may live elsewhere (image-spec, "Non-Distributable Layers").
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl Manifest {
    /// Reads a manifest that was pushed under `content_type`.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Fault> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Fault::manifest_invalid(format!("not the JSON of a manifest: {error}")))?;
        match document.schema_version {
            Some(2) => {}
            Some(1) => {
                return Err(Fault::manifest_invalid(
                    "schema 1 is not stored: push with a current client",
                ));
            }
            _ => return Err(Fault::manifest_invalid("schemaVersion must be 2")),
        }
        let media_type = document.type_under(content_type)?;
        let parts = document.config.iter().chain(document.layers.iter().flatten());
        let parts = parts.chain(document.blobs.iter().flatten());
        let mut blobs = Vec::new();
        for part in parts {
            let digest = part.digest()?;
            if !part.is_foreign() {
                blobs.push((digest, part.size));
            }
        }
        let manifests = document
            .manifests
            .iter()
            .flatten()
            .map(Descriptor::digest)
            .collect::<Result<_, _>>()?;
        let subject = document.subject.as_ref().map(Descriptor::digest).transpose()?;
        let config_type = document.config.map(|config| config.media_type);
        let artifact_type = document
            .artifact_type
            .filter(|text| !text.is_empty())
            .or(config_type);
        if artifact_type.as_ref().is_some_and(|text| text.len() > MAX_TYPE) {
            return Err(Fault::manifest_invalid("artifactType is too long"));
        }
        let annotations = document.annotations.unwrap_or_default();
        Ok(Self {
            media_type,
            blobs,
            manifests,
            subject,
            artifact_type,
            annotations,
        })
    }
}

impl Document {
    /// The media type to serve it under. What could be read in two ways is refused (CVE-2021-41190).
    fn type_under(&self, content_type: Option<&str>) -> Result<String, Fault> {
        let image = self.config.is_some() || self.layers.is_some() || self.blobs.is_some();
        let index = self.manifests.is_some();
        if image == index {
            let why = "a manifest has either config and layers, or manifests";
            return Err(Fault::manifest_invalid(why));
        }
        let header = content_type.map(|text| text.split(';').next().unwrap_or("").trim());
        let header = header.filter(|text| !text.is_empty() && *text != "application/json");
        let own = self.media_type.as_deref().filter(|text| !text.is_empty());
        if let (Some(header), Some(own)) = (header, own)
            && header != own
        {
            return Err(Fault::manifest_invalid("mediaType and Content-Type differ"));
        }
        let default = if index {
            "application/vnd.oci.image.index.v1+json"
        } else {
            "application/vnd.oci.image.manifest.v1+json"
        };
        let chosen = header.or(own).unwrap_or(default);
        let says_index = dhow_oci::media_type::is_index(chosen);
        let says_image = dhow_oci::media_type::is_manifest(chosen);
        if (says_index && image) || (says_image && index) {
            return Err(Fault::manifest_invalid(
                "the document is not what its media type says",
            ));
        }
        if says_image && self.config.is_none() {
            return Err(Fault::manifest_invalid("an image manifest needs a config"));
        }
        let good =
            chosen.len() <= MAX_TYPE && chosen.bytes().all(|b| b.is_ascii_graphic()) && chosen.contains('/');
        if good {
            Ok(chosen.to_owned())
        } else {
            Err(Fault::manifest_invalid("invalid media type"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(more: &str) -> String {
        format!(r#"{{"mediaType":"t/x","digest":"{HEX}","size":0{more}}}"#)
    }

    #[test]
    fn documents_that_could_be_read_in_two_ways_are_refused() {
        let d = descriptor("");
        for bad in [
            format!(r#"{{"schemaVersion":2,"config":{d},"layers":[],"manifests":[]}}"#),
            format!(r#"{{"schemaVersion":2,"layers":[{d}],"manifests":[{d}]}}"#),
            r#"{"schemaVersion":2}"#.to_owned(),
            format!(r#"{{"schemaVersion":1,"config":{d}}}"#),
            format!(r#"{{"schemaVersion":2,"config":{d},"config":{d}}}"#),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{d}}}"#
            ),
            r#"{"schemaVersion":2,"config":{"digest":"sha256:../..","size":1}}"#.to_owned(),
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{HEX}","size":-1}}}}"#),
            "[".repeat(100_000),
            String::new(),
        ] {
            assert!(Manifest::parse(bad.as_bytes(), None).is_err(), "{:.80}", bad);
        }
        let good = format!(r#"{{"schemaVersion":2,"mediaType":"a/b","config":{d}}}"#);
        assert!(Manifest::parse(good.as_bytes(), Some("a/c")).is_err());
        assert!(Manifest::parse(good.as_bytes(), Some("a/b; charset=utf-8")).is_ok());
    }

    #[test]
    fn foreign_layers_need_not_be_here() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
            descriptor(""),
            descriptor(r#","urls":["https://x/"]"#),
            descriptor("").replace("t/x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        );
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        assert_eq!(manifest.blobs.len(), 1);
        assert_eq!(manifest.artifact_type.as_deref(), Some("t/x"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_fault_or_a_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::parse(&bytes, None).is_err());
        }
    }
}
