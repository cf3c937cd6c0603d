//! The image manifest of the App Container specification (appc spec 0.8.11, `spec/aci.md`, "Image Manifest Schema").

use std::collections::BTreeMap;

use dhow_oci::RunConfig;
use dhow_types::{ErrorKind, Platform};
use serde::Deserialize;

use super::{Told, malformed};
use crate::Error;

/// Ports that one entry may stand for.
const MOST_PORTS: u32 = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    ac_kind: String,
    name: String,
    #[serde(default)]
    labels: Vec<Pair>,
    #[serde(default)]
    app: Option<App>,
    #[serde(default)]
    annotations: Vec<Pair>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    path_whitelist: Vec<String>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    image_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    #[serde(default)]
    exec: Vec<String>,
    user: String,
    group: String,
    #[serde(default, rename = "supplementaryGIDs")]
    supplementary: Vec<u32>,
    #[serde(default)]
    event_handlers: Vec<EventHook>,
    #[serde(default)]
    working_directory: String,
    #[serde(default)]
    environment: Vec<Pair>,
    #[serde(default)]
    mount_points: Vec<MountPoint>,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    isolators: Vec<Isolator>,
}

#[derive(Deserialize)]
struct EventHook {
    name: String,
}

#[derive(Deserialize)]
struct MountPoint {
    path: String,
}

#[derive(Deserialize)]
struct Port {
    port: u32,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    count: Option<u32>,
}

#[derive(Deserialize)]
struct Isolator {
    name: String,
}

pub(super) fn read(bytes: &[u8]) -> Result<Told, Error> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| malformed("`manifest`", error))?;
    if manifest.ac_kind != "ImageManifest" {
        let message = format!(
            "`manifest` of the archive is a {:?}, no image manifest",
            manifest.ac_kind
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    whole(&manifest)?;
    let labels: BTreeMap<&str, &str> = manifest
        .labels
        .iter()
        .map(|pair| (pair.name.as_str(), pair.value.as_str()))
        .collect();
    let mut told = Told {
        platform: platform(&labels),
        ..Told::default()
    };
    if let Some(app) = manifest.app {
        told.run = settings(app, &mut told.left_out)?;
    }
    let mut label = |name: &str, value: &str| {
        told.run.labels.insert(name.to_owned(), value.to_owned());
    };
    label("org.opencontainers.image.title", &manifest.name);
    if let Some(version) = labels.get("version") {
        label("org.opencontainers.image.version", version);
    }
    for Pair { name, value } in &manifest.annotations {
        match name.as_str() {
            "authors" | "documentation" => label(&format!("org.opencontainers.image.{name}"), value),
            "homepage" => label("org.opencontainers.image.url", value),
            "created" => {}
            _ => label(name, value),
        }
    }
    told.created = manifest
        .annotations
        .into_iter()
        .find(|pair| pair.name == "created" && pair.value.parse::<jiff::Timestamp>().is_ok())
        .map(|pair| pair.value);
    Ok(told)
}

/// Images that others belong to are found by names of servers that are gone.
fn whole(manifest: &Manifest) -> Result<(), Error> {
    let unsupported = |message: String| Err(Error::new(ErrorKind::Unsupported, message));
    if !manifest.dependencies.is_empty() {
        let names: Vec<_> = manifest
            .dependencies
            .iter()
            .map(|dependency| dependency.image_name.as_str())
            .collect();
        return unsupported(format!(
            "the image depends on others, which are not in the archive: {}",
            names.join(", ")
        ));
    }
    if !manifest.path_whitelist.is_empty() {
        return unsupported("the image has a pathWhitelist, which is not supported".to_owned());
    }
    Ok(())
}

/// Architectures as appc names them for Linux (`schema/types/labels.go`).
fn platform(labels: &BTreeMap<&str, &str>) -> Option<Platform> {
    let (architecture, variant) = match *labels.get("arch")? {
        "i386" => ("386", None),
        "aarch64" => ("arm64", None),
        "armv6l" => ("arm", Some("v6")),
        "armv7l" => ("arm", Some("v7")),
        other => (other, None),
    };
    Some(Platform {
        architecture: architecture.to_owned(),
        os: labels.get("os").copied().unwrap_or("linux").to_owned(),
        variant: variant.map(str::to_owned),
        os_version: None,
        os_features: Vec::new(),
    })
}

fn settings(app: App, left_out: &mut Vec<String>) -> Result<RunConfig, Error> {
    left_out.extend(
        app.isolators
            .iter()
            .map(|isolator| format!("isolator {}", isolator.name)),
    );
    left_out.extend(
        app.event_handlers
            .iter()
            .map(|event| format!("event handler {}", event.name)),
    );
    left_out.extend(
        app.supplementary
            .iter()
            .map(|group| format!("supplementary group {group}")),
    );
    let mut run = RunConfig {
        user: format!("{}:{}", app.user, app.group),
        // Arguments of the user come behind it, as with rkt.
        entrypoint: Some(app.exec).filter(|exec| !exec.is_empty()),
        working_dir: app.working_directory,
        env: app
            .environment
            .iter()
            .map(|variable| format!("{}={}", variable.name, variable.value))
            .collect(),
        ..RunConfig::default()
    };
    for mount in app.mount_points {
        run.volumes.insert(mount.path, Default::default());
    }
    for Port {
        port,
        protocol,
        count,
    } in &app.ports
    {
        let (count, last) = (count.unwrap_or(1), u32::from(u16::MAX));
        if count > MOST_PORTS || *port == 0 || port.saturating_add(count.saturating_sub(1)) > last {
            let message = format!("`manifest` of the archive: {count} ports from {port} on are none");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        for number in *port..port + count {
            run.exposed_ports
                .insert(format!("{number}/{protocol}"), Default::default());
        }
    }
    Ok(run)
}
