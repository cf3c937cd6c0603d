//! `metadata.yaml` of an image of LXC, LXD or Incus (LXD, `doc/reference/image_format.md`).

use std::collections::BTreeMap;

use dhow_oci::RunConfig;
use dhow_types::Platform;
use serde::Deserialize;

use super::{Told, malformed};
use crate::Error;

#[derive(Deserialize)]
struct Metadata {
    architecture: String,
    #[serde(default)]
    creation_date: Option<i64>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
    #[serde(default)]
    templates: BTreeMap<String, serde::de::IgnoredAny>,
}

/// What the file says; with `systemd` the image has it as init.
pub(super) fn read(bytes: &[u8], systemd: bool) -> Result<Told, Error> {
    let metadata: Metadata =
        serde_saphyr::from_slice(bytes).map_err(|error| malformed("`metadata.yaml`", error))?;
    let labels = metadata.properties.iter().map(|(name, value)| {
        let name = match name.as_str() {
            "description" => "org.opencontainers.image.description".to_owned(),
            other => format!("lxd.{other}"),
        };
        (name, value.clone())
    });
    let created = metadata
        .creation_date
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    Ok(Told {
        run: RunConfig {
            // A container of a whole system runs its init, whatever that is, and asks it to halt (lxc.container.conf(5),
            // `lxc.signal.halt`; systemd(1), "SIGRTMIN+3").
            cmd: Some(vec!["/sbin/init".to_owned()]),
            stop_signal: Some(if systemd { "SIGRTMIN+3" } else { "SIGPWR" }.to_owned()),
            labels: labels.collect(),
            ..RunConfig::default()
        },
        platform: Some(platform(&metadata.architecture)),
        created: created.map(|time| time.to_string()),
        left_out: metadata
            .templates
            .keys()
            .map(|path| format!("template {path}"))
            .collect(),
    })
}

/// The kernel's names of machines, and Debian's of architectures.
fn platform(name: &str) -> Platform {
    let (architecture, variant) = match name {
        "x86_64" => ("amd64", None),
        "i686" | "i386" => ("386", None),
        "aarch64" => ("arm64", None),
        "armv6l" | "armel" => ("arm", Some("v6")),
        "armv7l" | "armhf" => ("arm", Some("v7")),
        "ppc64el" => ("ppc64le", None),
        other => (other, None),
    };
    Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        variant: variant.map(str::to_owned),
        os_version: None,
        os_features: Vec::new(),
    }
}
