//! What the verbs take and give.

use dhow_layer::Compression;
use dhow_oci::{Descriptor, ImageConfig, RunConfig, media_type};
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ImageId, Platform};

use crate::annotation::Annotations;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    /// The machine that the image must be for; `None` means this one, and then a single image for another machine
    /// is taken with a warning.
    pub platform: Option<Platform>,
    /// Whether the name goes to an image for another machine, too, when the one for this machine is here by the same index.
    /// Otherwise it stays with that, as in docker's image store of containerd.
    pub takes_name: bool,
    /// Bounds on what a layer may hold.
    pub limits: dhow_layer::Limits,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: ImageId,
    /// Digest of what the name pointed to: an index or a manifest.
    pub digest: Digest,
    /// Whether the name points to another image than before.
    pub updated: bool,
    /// Docker's last line: `Downloaded newer image for debian:12`.
    pub status: String,
}

/// How an image is pushed.
#[derive(Clone, Debug)]
pub struct PushForm {
    /// What new manifests say besides, and their index; only of images for several machines.
    pub annotations: Annotations,
    /// How layers are compressed that no registry is known to have.
    pub compression: Compression,
    /// Whether the others are compressed again when they are compressed in another way.
    pub force: bool,
    /// The one image of the name that is pushed, without what is said of it beside it; `None` means the image that has the
    /// name, with all of that.
    pub platform: Option<Platform>,
}

impl Default for PushForm {
    fn default() -> Self {
        Self {
            annotations: Annotations::default(),
            compression: Compression::Gzip,
            force: false,
            platform: None,
        }
    }
}

impl PushForm {
    pub(crate) fn media_type(&self) -> &'static str {
        match self.compression {
            Compression::None => media_type::OCI_LAYER,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER_GZIP,
        }
    }

    /// Whether a blob that is known of a layer may be what is pushed.
    pub(crate) fn takes(&self, blob: &Descriptor) -> bool {
        !self.force || crate::push::in_family(blob.clone(), false).media_type == self.media_type()
    }
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The image that it was made of.
    pub image: ImageId,
    /// Its id, for the message.
    pub container: String,
    /// Whether it runs now.
    pub running: bool,
    /// Its stack: these layers stay even when the image goes.
    pub layers: Vec<DiffId>,
}

/// How an image is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Whether it goes although a stopped container or several names hold it.
    pub force: bool,
    /// Whether the images that it was made on stay, of which nothing else is left.
    pub keep_parents: bool,
}

/// One thing that a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This name (familiar) is gone.
    Untagged(String),
    /// This image is gone.
    Deleted(ImageId),
}

/// One image of a loaded archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub image: ImageId,
    /// Its names in the archive, familiar; empty when it has none there.
    pub names: Vec<String>,
}

/// How to make an image of a root file system.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// What to run, from `--change`.
    pub config: RunConfig,
    /// Goes to the history.
    pub message: String,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// The machine that it is for; `None` means this one.
    pub platform: Option<Platform>,
    /// When it was made, RFC 3339; `None` means now.
    pub created: Option<String>,
    /// Bounds on what the archive may hold.
    pub limits: dhow_layer::Limits,
    /// Where in the archive the root file system is.
    pub packing: Packing,
}

/// What an archive with a root file system is besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// What its first entries say.
    #[default]
    Auto,
    /// The root file system and nothing else.
    Plain,
    /// An App Container image: `manifest` and `rootfs/`.
    Aci,
    /// A unified tarball of LXC, LXD or Incus: `metadata.yaml` and `rootfs/`.
    Lxd,
}

/// What an import made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The image.
    pub image: ImageId,
    /// What the archive asked for and an image cannot hold, in words for the user.
    pub left_out: Vec<String>,
}

impl Import {
    /// An image config with nothing but the platform and this request's settings.
    pub(crate) fn base_config(&self, told: crate::foreign::Told) -> ImageConfig {
        let platform = self
            .platform
            .clone()
            .or(told.platform)
            .unwrap_or_else(Platform::host);
        ImageConfig {
            created: self.created.clone().or(told.created),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            config: crate::foreign::overlay(told.run, &self.config),
            ..ImageConfig::default()
        }
    }
}

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub name: String,
    /// Its value; `None` means any.
    pub value: Option<String>,
    /// `label!=`: the condition must not hold.
    pub negate: bool,
}

/// Which images to prune.
#[derive(Clone, Debug, Default)]
pub struct Prune {
    /// All that no container uses, not only those without a name.
    pub all: bool,
    /// Only those made before this second since 1970.
    pub until: Option<i64>,
    /// Only those that meet all of these.
    pub labels: Vec<LabelFilter>,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What is gone.
    pub removed: Vec<Removed>,
    /// Bytes of disk that are free now.
    pub reclaimed: u64,
}

/// What a sweep took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Layers that nothing needed.
    pub layers: Vec<DiffId>,
    /// Blobs that nothing needed.
    pub blobs: Vec<Digest>,
    /// Bytes of disk that they took.
    pub bytes: u64,
}

/// How to check the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check {
    /// Heal what can be healed.
    pub repair: bool,
    /// Read every blob and compare every layer with its index.
    pub deep: bool,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, on what: lower case, no full stop.
    pub what: String,
    /// What was done about it, when something was.
    pub healed: Option<String>,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All that was found; empty means clean.
    pub findings: Vec<Finding>,
    /// Images looked at.
    pub images: usize,
    /// Layers looked at.
    pub layers: usize,
    /// Blobs looked at.
    pub blobs: usize,
}

impl Report {
    /// Whether nothing is wrong, or all that was wrong is healed.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.healed.is_some())
    }
}

/// Disk use of one image, in bytes of disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The image.
    pub image: ImageId,
    /// Its tags, canonical.
    pub names: Vec<String>,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// All its layers.
    pub size: u64,
    /// What it shares with other images.
    pub shared: u64,
    /// What would be free without it.
    pub unique: u64,
    /// How many containers use it.
    pub containers: usize,
}

/// Disk use of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerUsage {
    /// The layer.
    pub diff_id: DiffId,
    /// Bytes of disk.
    pub disk: u64,
    /// How many images name it; those of one name for several machines count once.
    pub images: usize,
}

/// Disk use of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// By image, newest first.
    pub images: Vec<Usage>,
    /// By layer.
    pub layers: Vec<LayerUsage>,
    /// Bytes of all layers, each once.
    pub layers_total: u64,
    /// Bytes of layers that no image in use by a container names.
    pub reclaimable: u64,
    /// Bytes of configs, manifests and the index.
    pub documents: u64,
}
