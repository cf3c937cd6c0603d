//! One file of a vendor: its form, and what makes it valid.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::name::{check_device, check_kind};
use crate::{Error, invalid, shown};

/// Versions that are known, oldest first.
const VERSIONS: [(u32, u32); 8] = [(0, 3), (0, 4), (0, 5), (0, 6), (0, 7), (0, 8), (1, 0), (1, 1)];

/// A version of the specification; patch releases change nothing of it.
type Version = (u32, u32);

/// A file as a whole.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Version of the specification that it follows.
    pub cdi_version: String,
    /// `vendor.com/class`: what all its devices are.
    pub kind: String,
    /// Free strings, which concern no container.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// What a container with any of them needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device of a file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name within the kind.
    pub name: String,
    /// Free strings.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What a container with it needs.
    pub container_edits: Edits,
}

/// What changes of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Edits {
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces of the host that move into it (1.1).
    pub net_devices: Vec<NetDevice>,
    /// Programs that run at stages of its life.
    pub hooks: Vec<Hook>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Cache and memory bandwidth (0.7).
    pub intel_rdt: Option<IntelRdt>,
    /// Groups of its process; 0 is none (0.7).
    #[serde(rename = "additionalGids", alias = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Where in the container.
    pub path: String,
    /// Where on the host, when elsewhere (0.5).
    #[serde(default)]
    pub host_path: String,
    /// `b`, `c`, `u` or `p`; that of the host's when empty.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Major number; that of the host's when 0.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permissions of the file; those of the host's when absent.
    #[serde(default)]
    pub file_mode: Option<u32>,
    /// Some of `rwm`, or `none`; all when empty.
    #[serde(default)]
    pub permissions: String,
    /// Owner; who the container runs as when absent.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group, likewise.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// What to mount.
    pub host_path: String,
    /// Where.
    pub container_path: String,
    /// Options as mount(8) has them.
    #[serde(default)]
    pub options: Vec<String>,
    /// Type of the file system (0.4).
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// A hook.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// The stage.
    pub hook_name: Stage,
    /// Absolute path of the program.
    pub path: String,
    /// Arguments with argv[0].
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds before it is killed.
    #[serde(default)]
    pub timeout: Option<i64>,
}

/// A stage of a container's life (runtime-spec, "POSIX-platform Hooks").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// Cache and memory bandwidth through resctrl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IntelRdt {
    /// Class of service.
    #[serde(rename = "closID")]
    pub clos_id: String,
    /// Schema of the L3 cache.
    pub l3_cache_schema: String,
    /// Schema of the memory bandwidth.
    pub mem_bw_schema: String,
    /// Lines for the schemata file (1.1).
    pub schemata: Option<Vec<String>>,
    /// Whether there is a monitoring group (1.1).
    pub enable_monitoring: bool,
    /// The same of the cache alone (until 1.0).
    #[serde(rename = "enableCMT")]
    pub enable_cmt: bool,
    /// The same of the bandwidth alone (until 1.0).
    #[serde(rename = "enableMBM")]
    pub enable_mbm: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_interface_name: String,
    /// Its name in the container.
    pub name: String,
}

impl Document {
    /// Reads a file as JSON, or as YAML.
    ///
    /// # Errors
    /// `InvalidArgument` names the field that is wrong, or the version that has it.
    pub fn parse(bytes: &[u8], yaml: bool) -> Result<Self, Error> {
        let document: Self = if yaml {
            // As Go's readers of YAML 1.1 have it: a file mode may be written 0666.
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            serde_saphyr::from_slice_with_options(bytes, options)
                .map_err(|error| invalid(error.to_string()))?
        } else {
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?
        };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), Error> {
        check_kind(&self.kind)?;
        self.check_version()?;
        self.container_edits.check()?;
        if self.devices.is_empty() {
            return Err(invalid("it has no devices"));
        }
        let mut seen = BTreeSet::new();
        for device in &self.devices {
            check_device(&device.name)?;
            let of = |error: &Error| invalid(format!("device {:?}: {error}", device.name));
            device.container_edits.check().map_err(|error| of(&error))?;
            if device.container_edits == Edits::default() {
                return Err(of(&invalid("it changes nothing of a container")));
            }
            if !seen.insert(&device.name) {
                return Err(of(&invalid("it is there twice")));
            }
        }
        Ok(())
    }

    /// A file may use only what its version has (SPEC.md, "Released versions").
    fn check_version(&self) -> Result<(), Error> {
        let (version, needed) = (self.version()?, self.needed());
        if version < needed.0 {
            return Err(invalid(format!(
                "{} is of version {}.{}, and this is {}",
                needed.1, needed.0.0, needed.0.1, self.cdi_version
            )));
        }
        let old = |edits: &Edits| {
            edits
                .intel_rdt
                .as_ref()
                .is_some_and(|rdt| rdt.enable_cmt || rdt.enable_mbm)
        };
        if version >= (1, 1) && self.all_edits().any(old) {
            return Err(invalid("enableCMT and enableMBM are not of version 1.1"));
        }
        Ok(())
    }

    fn version(&self) -> Result<Version, Error> {
        let wrong = || invalid(format!("cdiVersion {:?} is not known", shown(&self.cdi_version)));
        let text = self.cdi_version.strip_prefix('v').unwrap_or(&self.cdi_version);
        let mut parts = text.split('.');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let version = number().zip(number()).ok_or_else(wrong)?;
        // The released ones are x.y.0.
        if number() != Some(0) || parts.next().is_some() || !VERSIONS.contains(&version) {
            return Err(wrong());
        }
        Ok(version)
    }

    fn all_edits(&self) -> impl Iterator<Item = &Edits> {
        let devices = self.devices.iter().map(|device| &device.container_edits);
        devices.chain([&self.container_edits])
    }

    /// The oldest version that has all that the file uses, and what of it is newest.
    fn needed(&self) -> (Version, &'static str) {
        let any = |uses: fn(&Edits) -> bool| self.all_edits().any(uses);
        let newer = |edits: &Edits| {
            let rdt = edits.intel_rdt.as_ref();
            !edits.net_devices.is_empty()
                || rdt.is_some_and(|rdt| rdt.schemata.is_some() || rdt.enable_monitoring)
        };
        if any(newer) {
            return ((1, 1), "netDevices, schemata or enableMonitoring");
        }
        if any(|edits| edits.intel_rdt.is_some() || !edits.additional_gids.is_empty()) {
            return ((0, 7), "intelRdt or additionalGids");
        }
        let noted = self.devices.iter().any(|device| !device.annotations.is_empty());
        let class = self.kind.split_once('/').map_or("", |(_, class)| class);
        if noted || !self.annotations.is_empty() || class.contains('.') {
            return ((0, 6), "annotations, or a dot in a class,");
        }
        let digit = |device: &Device| device.name.starts_with(|first: char| first.is_ascii_digit());
        let elsewhere = |edits: &Edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty());
        if any(elsewhere) || self.devices.iter().any(digit) {
            return ((0, 5), "hostPath of a device, or a digit first in its name,");
        }
        if any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
            return ((0, 4), "type of a mount");
        }
        ((0, 3), "")
    }
}

impl Edits {
    fn check(&self) -> Result<(), Error> {
        self.env.iter().try_for_each(|entry| variable(entry))?;
        for node in &self.device_nodes {
            inside(&node.path, "device")?;
            if !node.host_path.is_empty() {
                plain(&node.host_path, "hostPath")?;
            }
            let of = |what: &str, text: &str| {
                Err(invalid(format!(
                    "device {}: {what} {:?}",
                    shown(&node.path),
                    shown(text)
                )))
            };
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return of("unknown type", &node.kind);
            }
            if node.permissions != "none" && !node.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
                return of("permissions are some of rwm, or none:", &node.permissions);
            }
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() {
                return Err(invalid("a mount has no hostPath"));
            }
            plain(&mount.host_path, "hostPath")?;
            inside(&mount.container_path, "containerPath")?;
            mount
                .options
                .iter()
                .try_for_each(|option| plain(option, "option"))?;
        }
        for hook in &self.hooks {
            plain(&hook.path, "path of a hook")?;
            if !hook.path.starts_with('/') {
                return Err(invalid(format!(
                    "path of a hook {:?} is not absolute",
                    shown(&hook.path)
                )));
            }
            hook.args
                .iter()
                .try_for_each(|word| plain(word, "argument of a hook"))?;
            hook.env.iter().try_for_each(|entry| variable(entry))?;
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err(invalid(format!(
                    "timeout of the hook {} is not positive",
                    hook.path
                )));
            }
        }
        if let Some(rdt) = &self.intel_rdt {
            let id = rdt.clos_id.as_str();
            if id != "/" && (id.len() >= 4096 || matches!(id, "." | "..") || id.contains(['/', '\n', '\0'])) {
                return Err(invalid(format!("closID {:?} is no name of a folder", shown(id))));
            }
        }
        self.check_interfaces()
    }

    fn check_interfaces(&self) -> Result<(), Error> {
        let (mut here, mut there) = (BTreeSet::new(), BTreeSet::new());
        for device in &self.net_devices {
            let (own, name) = (&device.host_interface_name, &device.name);
            if own.is_empty() || name.is_empty() {
                return Err(invalid("a network device has no name"));
            }
            if !here.insert(own) || !there.insert(name) {
                let message = format!(
                    "network device {:?} as {:?} is there twice",
                    shown(own),
                    shown(name)
                );
                return Err(invalid(message));
            }
        }
        Ok(())
    }
}

fn variable(entry: &str) -> Result<(), Error> {
    plain(entry, "variable")?;
    match entry.find('=') {
        Some(at) if at > 0 => Ok(()),
        _ => Err(invalid(format!("variable {:?} is not NAME=value", shown(entry)))),
    }
}

fn plain(text: &str, what: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(invalid(format!("{what} {:?} has a NUL byte", shown(text))));
    }
    Ok(())
}

/// A place in the container.
fn inside(path: &str, what: &str) -> Result<(), Error> {
    plain(path, what)?;
    if path.starts_with('/') && path.split('/').all(|part| part != "..") {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {:?} is not an absolute path without ..",
        shown(path)
    )))
}
