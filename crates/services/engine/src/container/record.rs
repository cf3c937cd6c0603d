//! What is written down of a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_bundle::{Request, Submounts};
use dhow_content::ContentStore as _;
use dhow_image::Image;
use dhow_monitor::{Health, OnUnhealthy, RestartPolicy};
use dhow_network::PortMapping;
use dhow_oci::{Descriptor, Healthcheck, Labels};
use dhow_types::{ContainerId, DiffId, Digest, ImageId, Platform};
use serde::{Deserialize, Serialize};

use super::secrets::SecretSpec;

use super::extras::Extras;

/// What was asked for, with everything resolved that does not change from start to start. Written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The id.
    pub id: ContainerId,
    /// The name, without docker's leading slash.
    pub name: String,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The image's name as the person gave it.
    pub image_name: String,
    /// The image.
    pub image: ImageId,
    /// The machine that the image is for, when it is another than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The manifest that the image was pulled, loaded or pushed with when the container was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestRecord>,
    /// The image's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The user as text; looked up in the container's own files at each start.
    pub user: String,
    /// Groups to add, as texts.
    pub group_add: Vec<String>,
    /// What the runtime spec is made from.
    pub request: Request,
    /// The entrypoint, of the image or the person: the first words of `command`.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Volumes and binds, for `inspect` and for copy-up.
    pub mounts: Vec<MountRecord>,
    /// How it is connected.
    pub network: NetworkMode,
    /// Networks to join, first the one of the default route.
    pub networks: Vec<Attachment>,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// Ports that the image or the person exposes without publishing, `80/tcp`.
    pub exposed: Vec<String>,
    /// Name servers of the person.
    pub dns: Vec<String>,
    /// Search domains of the person.
    pub dns_search: Vec<String>,
    /// Resolver options of the person.
    pub dns_options: Vec<String>,
    /// `name:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Labels of the image and the person.
    pub labels: Labels,
    /// When to start again.
    pub restart: RestartPolicy,
    /// Signal that asks it to end.
    pub stop_signal: String,
    /// Seconds to wait after that signal.
    pub stop_timeout: u64,
    /// How to check its health.
    pub health: Option<Healthcheck>,
    /// What was said of checks when there is none, for `inspect`: `NONE`, or how often without what.
    #[serde(default)]
    pub idle_health: Option<Healthcheck>,
    /// What becomes of it when it is unhealthy.
    #[serde(default)]
    pub on_unhealthy: OnUnhealthy,
    /// Whether its input stays open.
    pub open_stdin: bool,
    /// Whether it goes away when it ends.
    pub auto_remove: bool,
    /// The log.
    pub log: LogConfig,
    /// Devices of the host that were asked for, for `inspect`.
    #[serde(default)]
    pub devices: Vec<DeviceRecord>,
    /// Secrets, by name; their contents lie beside this.
    #[serde(default)]
    pub secrets: Vec<SecretSpec>,
    /// What docker has no word for.
    #[serde(default)]
    pub extras: Extras,
}

/// Which log driver, with its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `json-file`, `k8s-file`, `local`, `none`, or one that sends lines on.
    pub driver: String,
    /// Options as given.
    pub options: BTreeMap<String, String>,
}

/// The manifest of an image; how long it is, is known where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

impl ManifestRecord {
    pub(super) fn of(image: &Image) -> Option<Self> {
        Some(Self {
            digest: image.record.manifest?,
            media_type: image.record.media_type.clone(),
        })
    }
}

impl Config {
    /// The manifest of the image, as far as it is still in the store of this root folder.
    #[must_use]
    pub fn image_manifest(&self, root: &Path) -> Option<Descriptor> {
        let manifest = self.manifest.as_ref()?;
        let content = dhow_content::Local::open(root).ok()?;
        let size = content.size(&manifest.digest).ok()??;
        Some(Descriptor {
            platform: Some(self.platform.clone().unwrap_or_else(Platform::host)),
            ..Descriptor::new(&manifest.media_type, manifest.digest, size)
        })
    }
}

/// One `--device`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// The path on the host, which may be a folder of devices.
    pub host: PathBuf,
    /// The path in the container.
    pub container: PathBuf,
    /// Some of `rwm`.
    pub access: String,
}

/// One mount of a person or an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// `bind`, `volume`, `tmpfs` or `image`.
    pub kind: String,
    /// The volume's name.
    pub name: Option<String>,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether an empty volume takes the image's content first.
    pub copy_up: bool,
    /// Whether the volume has no name of the person's and goes with the container.
    pub anonymous: bool,
    /// Attributes: `noexec`, `nosuid`, `nodev` and their opposites.
    #[serde(default)]
    pub options: Vec<String>,
    /// What becomes of mounts below a bind's source.
    #[serde(default)]
    pub submounts: Submounts,
    /// The part of the volume or image that is mounted, when it is not all of it.
    #[serde(default)]
    pub subpath: Option<PathBuf>,
    /// The image, when it is one.
    #[serde(default)]
    pub image: Option<MountedLayers>,
}

impl MountRecord {
    /// One of a kind at a place, which can be written and has nothing more.
    pub(super) fn new(kind: &str, destination: String) -> Self {
        Self {
            kind: kind.to_owned(),
            name: None,
            source: String::new(),
            destination,
            writable: true,
            copy_up: false,
            anonymous: false,
            options: Vec::new(),
            submounts: Submounts::default(),
            subpath: None,
            image: None,
        }
    }
}

/// An image that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedLayers {
    /// Its id.
    pub id: ImageId,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// By networks of ours.
    Networks,
    /// With the host's own network.
    Host,
    /// Not at all.
    None,
    /// With another container's network.
    Container(ContainerId),
    /// With the network namespace that a file is (`ns:PATH`), which somebody else looks after.
    Namespace(PathBuf),
}

/// One network to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Its name.
    pub network: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// Address of the person.
    pub ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address of the person.
    pub ip6: Option<std::net::Ipv6Addr>,
    /// Name of the interface in the container.
    pub interface: Option<String>,
    /// Hardware address of the person.
    pub mac: Option<String>,
}

/// Where a container stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its program ended and will be started again.
    Restarting,
    /// Its program ended.
    Exited,
    /// It could not be removed whole.
    Dead,
}

impl Status {
    /// Docker's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What became of it. Replaced by rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Process id on the host while it runs, else 0.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot: with it, a reused process id is told apart.
    pub pid_start: u64,
    /// What tells it apart sooner, where the kernel has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<PidfsMark>,
    /// The process that is to become its program, while it is set up: it is in none of its namespaces yet, perhaps, and nobody may
    /// take it for the container. Of one whose monitor was killed then, until somebody ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newborn: Option<Newborn>,
    /// The monitor that took it over from one that was killed, with its start time: it is not the program's parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopter: Option<(i32, u64)>,
    /// When it was last started, RFC 3339.
    pub started: Option<String>,
    /// When it last ended.
    pub finished: Option<String>,
    /// Last exit code.
    pub exit_code: i32,
    /// Whether the kernel's OOM killer ended it.
    pub oom_killed: bool,
    /// Why it could not start.
    pub error: String,
    /// How often the restart policy started it.
    pub restart_count: u32,
    /// Its health.
    pub health: Option<Health>,
    /// Its places in networks.
    pub endpoints: Vec<dhow_network::Endpoint>,
    /// Published ports of a place that it left while it ran: its monitor still holds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<dhow_network::PublishedPort>,
    /// Whether a person stopped it.
    pub manually_stopped: bool,
    /// Whether a stop waits for its end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
}

/// A process that is to become a program, as [`State`] knows the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newborn {
    /// Process id on the host.
    pub pid: i32,
    /// Its start time.
    pub pid_start: u64,
    /// What tells it apart sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<PidfsMark>,
}

/// A process as pidfs numbers it (Linux 6.9): no two of one boot have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidfsMark {
    /// The first 64 bits of the boot's id.
    pub boot: u64,
    /// The inode of the process.
    pub inode: u64,
}

impl Config {
    /// The layers that it cannot run without: its own, and those of the images that are mounted in it.
    #[must_use]
    pub fn all_layers(&self) -> Vec<DiffId> {
        let mounted = self.mounts.iter().filter_map(|mount| mount.image.as_ref());
        let mounted = mounted.flat_map(|image| image.layers.iter().copied());
        self.layers.iter().copied().chain(mounted).collect()
    }

    /// How long a stop waits before it kills.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.stop_timeout)
    }
}
