//! What a manifest and a config must be to be taken for an image. Every check is on bytes from outside.

use dhow_oci::{Descriptor, ImageConfig, MAX_DOCUMENT, Manifest, media_type};
use dhow_types::{DiffId, ErrorKind, Platform};

use crate::commit::MAX_LAYERS;
use crate::{Context as _, Error};

/// Media types that a config of an image has. The last two are what old registries and clients wrote
/// (moby `distribution/pull_v2.go`, `imageTypes`).
const CONFIGS: [&str; 4] = [
    media_type::OCI_CONFIG,
    media_type::DOCKER_CONFIG,
    "application/octet-stream",
    "",
];

/// Media types of layers, besides those with a name in `dhow_oci`: not to be redistributed, which is a matter of
/// law and not of format.
const FOREIGN_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// Checks that a manifest describes an image that this program can hold.
///
/// # Errors
/// `Unsupported` for artifacts that are no images and for layers of unknown kind, `InvalidArgument` beyond bounds.
pub(crate) fn check_manifest(manifest: &Manifest, what: &str) -> Result<(), Error> {
    if manifest.schema_version != 2 {
        let message = format!(
            "{what} has a manifest of schema {}, not 2",
            manifest.schema_version
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let config = manifest.config.media_type.as_str();
    if !CONFIGS.contains(&config) {
        let kind = manifest.artifact_type.as_deref().unwrap_or(config);
        let message = format!(
            "{what} is not a container image but an artifact of type {:?}",
            clip(kind)
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if manifest.config.size > MAX_DOCUMENT {
        let message = format!(
            "config of {what} is {} bytes long, the limit is {MAX_DOCUMENT}",
            manifest.config.size
        );
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    if manifest.layers.len() > MAX_LAYERS {
        let message = format!(
            "{what} has {} layers: overlayfs takes at most {MAX_LAYERS}",
            manifest.layers.len()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    manifest
        .layers
        .iter()
        .try_for_each(|layer| check_layer(layer, what))
}

fn check_layer(layer: &Descriptor, what: &str) -> Result<(), Error> {
    let kind = layer.media_type.as_str();
    let known = matches!(
        kind,
        media_type::OCI_LAYER
            | media_type::OCI_LAYER_GZIP
            | media_type::OCI_LAYER_ZSTD
            | media_type::DOCKER_LAYER
            | media_type::DOCKER_LAYER_GZIP
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
    if !known && !FOREIGN_LAYERS.contains(&kind) {
        let message = format!(
            "{what} has a layer of type {:?}, which this program cannot unpack",
            clip(kind)
        );
        let error = Error::new(ErrorKind::Unsupported, message);
        let encrypted = kind.ends_with("+encrypted");
        return Err(if encrypted {
            error.with_hint("the layer is encrypted")
        } else {
            error
        });
    }
    if layer.size > i64::MAX.cast_unsigned() {
        let message = format!("{what} has a layer of {} bytes", layer.size);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// Parses a config, and checks it against the number of layers that the manifest (or archive) has.
///
/// # Errors
/// `InvalidArgument` when malformed or when the numbers differ, `Unsupported` for another operating system.
pub(crate) fn check_config(bytes: &[u8], layers: usize, what: &str) -> Result<ImageConfig, Error> {
    let config = ImageConfig::parse(bytes).context(|| format!("read the config of {what}"))?;
    let diffs = config.rootfs.diff_ids.len();
    if diffs != layers {
        let message = format!("{what} is malformed: its config names {diffs} layers, its manifest {layers}");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if !config.os.is_empty() && config.os != "linux" {
        let message = format!(
            "{what} is for the operating system {:?}, not for linux",
            clip(&config.os)
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(config)
}

/// Whether an image for the platform of its config runs where `wanted` is. A config that names none runs anywhere.
pub(crate) fn runs_on(config: &ImageConfig, wanted: &Platform) -> bool {
    let mut offered = config.platform();
    if offered.os.is_empty() {
        offered.os.clone_from(&wanted.os);
    }
    if offered.architecture.is_empty() {
        return true;
    }
    wanted.accepts(&offered)
}

/// Each layer once: the position in the stack where it first appears.
pub(crate) fn first_positions(diffs: &[DiffId]) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    (0..diffs.len())
        .filter(|position| seen.insert(diffs[*position]))
        .collect()
}

/// Text from outside, short enough for a message.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}
