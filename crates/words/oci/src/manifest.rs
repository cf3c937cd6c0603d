use dhow_types::{ErrorKind, Platform};
use serde::{Deserialize, Serialize};

use crate::{Descriptor, Error, Extra, Labels, media_type};

/// One image: its config and layers (image-spec `manifest.md`; Docker schema 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; absent in some OCI manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of artifact, when this is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What this artifact is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free strings.
    #[serde(
        default,
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "crate::null_as_default"
    )]
    pub annotations: Labels,
    /// Fields without a name here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A list of manifests, usually one for each platform (image-spec `image-index.md`; Docker manifest list).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// What this artifact is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free strings.
    #[serde(
        default,
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "crate::null_as_default"
    )]
    pub annotations: Labels,
    /// Fields without a name here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A manifest or an index, told apart by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, never in a list")]
pub enum Document {
    /// A list.
    Index(Index),
    /// One image or artifact.
    Manifest(Manifest),
}

impl Document {
    /// Parses what a registry served. A document that is both (`layers` and `manifests`) is refused: the two
    /// readings could be used to show one thing and run another (CVE-2021-41190).
    ///
    /// # Errors
    /// `InvalidArgument` for malformed or ambiguous documents, `Unsupported` for every schema version but 2,
    /// `ResourceExhausted` over [`MAX_DOCUMENT`](crate::MAX_DOCUMENT).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let fields: Probe = crate::parse(bytes, "manifest")?;
        if fields.schema_version == Some(1) {
            let message = "manifest has Docker's schema 1, which registries dropped in 2022";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("push the image again with a current client"));
        }
        // Both documents: "this REQUIRED property MUST be 2" (image-spec manifest.md, image-index.md).
        if let Some(version) = fields.schema_version.filter(|version| *version != 2) {
            let message = format!("manifest has schema version {version}: only 2 is known");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let both = (fields.layers.is_some() || fields.config.is_some()) && fields.manifests.is_some();
        let declared = fields.media_type.as_deref().or(content_type);
        if both {
            let message = "manifest has both layers and manifests: it could be read in two ways";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let document = if fields.manifests.is_some() || declared.is_some_and(media_type::is_index) {
            Self::Index(crate::parse(bytes, "index")?)
        } else {
            Self::Manifest(crate::parse(bytes, "manifest")?)
        };
        let wrong = match &document {
            Self::Index(_) => declared.is_some_and(media_type::is_manifest),
            Self::Manifest(_) => declared.is_some_and(media_type::is_index),
        };
        if wrong {
            let message = format!(
                "manifest is not the {} that it says it is",
                declared.unwrap_or("")
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(document)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe<'a> {
    schema_version: Option<u32>,
    media_type: Option<String>,
    #[serde(borrow)]
    config: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    layers: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    manifests: Option<&'a serde_json::value::RawValue>,
}

impl Manifest {
    /// An OCI manifest of this config and these layers.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Labels::new(),
            extra: Extra::new(),
        }
    }

    /// The media type that it is stored and served under.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST)
    }
}

impl Index {
    /// The manifest for `wanted`: an exact variant first, then one without a platform of its own when it is the
    /// only image. Attestations (`unknown/unknown`) are never chosen.
    #[must_use]
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images = || {
            self.manifests.iter().filter(|manifest| {
                manifest.media_type.is_empty() || media_type::is_manifest(&manifest.media_type)
            })
        };
        let exact = images().find(|m| m.platform.as_ref() == Some(wanted));
        exact
            .or_else(|| images().find(|m| m.platform.as_ref().is_some_and(|offered| wanted.accepts(offered))))
            .or_else(|| {
                let mut unnamed = images().filter(|m| m.platform.is_none());
                unnamed.next().filter(|_| images().count() == 1)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_document_that_is_both_manifest_and_index_is_refused() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{HEX}","size":0}},"layers":[],"manifests":[]}}"#
        );
        let error = Document::parse(text.as_bytes(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn unknown_fields_survive() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{HEX}","size":0,"x":1}},"layers":null,"new":true}}"#
        );
        let Document::Manifest(manifest) = Document::parse(text.as_bytes(), None).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(manifest.extra["new"], true);
        assert_eq!(manifest.config.extra["x"], 1);
    }

    #[test]
    fn malformed_documents_are_errors_not_panics() {
        for bad in [
            "",
            "[]",
            "{}",
            "null",
            "{\"schemaVersion\":2}",
            "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:..\",\"size\":-1}}",
        ] {
            assert!(Document::parse(bad.as_bytes(), None).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(Document::parse(deep.as_bytes(), None).is_err());
        let huge = vec![b' '; 5 << 20];
        assert_eq!(
            Document::parse(&huge, None).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }

    #[test]
    fn another_schema_version_is_refused_in_manifests_and_indexes() {
        for (bad, version) in [
            (
                format!(
                    r#"{{"schemaVersion":9,"config":{{"mediaType":"a","digest":"{HEX}","size":0}},"layers":[]}}"#
                ),
                "9",
            ),
            (r#"{"schemaVersion":9,"manifests":[]}"#.to_owned(), "9"),
            (r#"{"schemaVersion":0,"manifests":[]}"#.to_owned(), "0"),
        ] {
            let error = Document::parse(bad.as_bytes(), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{bad}");
            assert!(
                error.to_string().contains(&format!("schema version {version}")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_attestation_is_never_chosen() {
        let mut attestation = Descriptor::of(media_type::OCI_MANIFEST, b"a");
        attestation.platform = Some("unknown/unknown".parse().unwrap());
        let mut image = Descriptor::of(media_type::OCI_MANIFEST, b"i");
        image.platform = Some("linux/amd64".parse().unwrap());
        let index = Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: vec![attestation, image.clone()],
            subject: None,
            annotations: Labels::new(),
            extra: Extra::new(),
        };
        assert_eq!(index.choose(&"linux/amd64".parse().unwrap()), Some(&image));
        assert_eq!(index.choose(&"linux/arm64".parse().unwrap()), None);
    }
}
