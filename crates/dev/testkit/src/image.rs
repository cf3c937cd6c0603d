//! Tiny images as bytes.

use std::io::Write as _;

use dhow_oci::{Descriptor, Manifest, media_type};
use dhow_types::{DiffId, Digest, ImageId, Platform};
use serde_json::json;

/// A layer: its tar, and the blob that a registry keeps.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The uncompressed tar.
    pub tar: Vec<u8>,
    /// What the registry has.
    pub blob: Vec<u8>,
    /// What the manifest says that it is.
    pub media_type: String,
}

impl Layer {
    /// A gzip layer of the OCI.
    #[must_use]
    pub fn gzip(tar: Vec<u8>) -> Self {
        Self {
            blob: gzip(&tar),
            tar,
            media_type: media_type::OCI_LAYER_GZIP.to_owned(),
        }
    }

    /// An uncompressed layer.
    #[must_use]
    pub fn plain(tar: Vec<u8>) -> Self {
        Self {
            blob: tar.clone(),
            tar,
            media_type: media_type::OCI_LAYER.to_owned(),
        }
    }

    /// Its diff id.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        DiffId(Digest::of(&self.tar))
    }

    /// Descriptor of its blob.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(&self.media_type, &self.blob)
    }
}

/// Config, layers and manifest. The fields are public: spoil them as the test needs it.
#[derive(Clone, Debug)]
pub struct TinyImage {
    /// The config blob.
    pub config: Vec<u8>,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Media type of the manifest.
    pub media_type: String,
}

impl TinyImage {
    /// An OCI image of these layers for this machine.
    #[must_use]
    pub fn oci(layers: Vec<Layer>) -> Self {
        Self::new(layers, &Platform::host(), false)
    }

    /// The same with Docker's media types.
    #[must_use]
    pub fn docker(mut layers: Vec<Layer>) -> Self {
        for layer in &mut layers {
            if layer.media_type == media_type::OCI_LAYER_GZIP {
                layer.media_type = media_type::DOCKER_LAYER_GZIP.to_owned();
            }
        }
        Self::new(layers, &Platform::host(), true)
    }

    /// An OCI image for another machine.
    #[must_use]
    pub fn on(layers: Vec<Layer>, platform: &str) -> Self {
        Self::new(layers, &platform.parse().unwrap(), false)
    }

    fn new(layers: Vec<Layer>, platform: &Platform, docker: bool) -> Self {
        let diffs: Vec<String> = layers.iter().map(|layer| layer.diff_id().to_string()).collect();
        let history: Vec<_> = (0..layers.len())
            .map(|number| json!({"created": "2024-05-01T00:00:00Z", "created_by": format!("step {number}")}))
            .chain([json!({"created_by": "CMD [\"true\"]", "empty_layer": true})])
            .collect();
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "created": "2024-05-01T00:00:00Z",
            "config": {"Cmd": ["true"], "Env": ["PATH=/bin"], "Labels": {"made-by": "testkit"}},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": history,
        });
        let mut image = Self {
            config: serde_json::to_vec(&config).unwrap(),
            layers,
            manifest: Vec::new(),
            media_type: if docker {
                media_type::DOCKER_MANIFEST
            } else {
                media_type::OCI_MANIFEST
            }
            .to_owned(),
        };
        image.seal();
        image
    }

    /// Makes the manifest again after config or layers were changed.
    pub fn seal(&mut self) {
        let docker = self.media_type == media_type::DOCKER_MANIFEST;
        let kind = if docker {
            media_type::DOCKER_CONFIG
        } else {
            media_type::OCI_CONFIG
        };
        let layers = self.layers.iter().map(Layer::descriptor).collect();
        let mut manifest = Manifest::new(Descriptor::of(kind, &self.config), layers);
        manifest.media_type = Some(self.media_type.clone());
        self.manifest = serde_json::to_vec(&manifest).unwrap();
    }

    /// The image's id.
    #[must_use]
    pub fn id(&self) -> ImageId {
        ImageId(Digest::of(&self.config))
    }

    /// Digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// An OCI index of images, each for the platform named.
#[must_use]
pub fn index(images: &[(&TinyImage, &str)]) -> Vec<u8> {
    let manifests: Vec<Descriptor> = images
        .iter()
        .map(|(image, platform)| {
            let mut descriptor = Descriptor::of(&image.media_type, &image.manifest);
            descriptor.platform = Some(platform.parse().unwrap());
            descriptor
        })
        .collect();
    let document = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    serde_json::to_vec(&document).unwrap()
}

/// `bytes` in one gzip member.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
