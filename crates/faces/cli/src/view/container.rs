//! Containers as `ps` shows them.

use dhow_engine::HealthStatus;
use dhow_engine::container::{Container, NetworkMode, Status};
use dhow_types::human_size_short;
use jiff::Timestamp;

use super::{labels, port, quote};
use crate::dialect;
use crate::render::table::ellipsis;
use crate::render::{Fields, Row, time};

/// All fields of a container with their headers (docker/cli `formatter/container.go`).
pub(crate) const FIELDS: Fields = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Pod", "POD ID"),
    ("PodName", "PODNAME"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

/// The usual columns; `SIZE` comes after them when asked for.
pub(crate) const TABLE: [&str; 7] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];

/// Whether its program is there, running or not.
pub(crate) const fn is_up(status: Status) -> bool {
    matches!(status, Status::Running | Status::Paused | Status::Restarting)
}

/// One container. `size` is its own changes and its image's bytes.
pub(crate) fn row(container: &Container, now: Timestamp, whole: bool, size: Option<(u64, u64)>) -> Row {
    let config = &container.config;
    let command = command(&config.command);
    let command = if whole { command } else { ellipsis(&command, 20) };
    let mounts: Vec<String> = config
        .mounts
        .iter()
        .filter(|mount| mount.kind != "tmpfs")
        .map(|mount| mount.name.clone().unwrap_or_else(|| mount.source.clone()))
        .map(|name| if whole { name } else { ellipsis(&name, 15) })
        .collect();
    let created = time::parse(&config.created);
    let platform = dhow_types::Platform::host();
    Row::new([
        (
            "Command",
            if crate::dialect::spoken().is_podman() {
                command
            } else {
                quote(&command)
            }
            .into(),
        ),
        ("CreatedAt", time::long_text(&config.created).into()),
        (
            "ID",
            if whole {
                config.id.as_str()
            } else {
                config.id.short()
            }
            .into(),
        ),
        (
            "Image",
            image(&crate::dialect::spoken().image_name(&config.image_name), whole).into(),
        ),
        ("Labels", labels(&config.labels).into()),
        (
            "LocalVolumes",
            config
                .mounts
                .iter()
                .filter(|mount| mount.kind == "volume")
                .count()
                .to_string()
                .into(),
        ),
        ("Mounts", mounts.join(",").into()),
        ("Names", config.name.as_str().into()),
        ("Networks", networks(container).join(",").into()),
        (
            "Platform",
            format!("{}/{}", platform.os, platform.architecture).into(),
        ),
        ("Ports", port::displayed(container).into()),
        (
            "RunningFor",
            created
                .map_or_else(String::new, |then| format!("{} ago", time::since(then, now)))
                .into(),
        ),
        ("Size", size.map_or_else(|| "0B".to_owned(), size_text).into()),
        ("State", container.state.status.as_str().into()),
        ("Status", status(container, now).into()),
    ])
    .with_labels(&config.labels)
}

fn size_text((own, image): (u64, u64)) -> String {
    format!(
        "{} (virtual {})",
        human_size_short(own),
        human_size_short(own.saturating_add(image))
    )
}

/// Names of the networks that it is on.
pub(crate) fn networks(container: &Container) -> Vec<String> {
    match &container.config.network {
        NetworkMode::Networks => container
            .config
            .networks
            .iter()
            .map(|network| dialect::spoken().network_name(&network.network).to_owned())
            .collect(),
        NetworkMode::Host => vec!["host".to_owned()],
        NetworkMode::None => vec!["none".to_owned()],
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => Vec::new(),
    }
}

/// Words with blanks in single quotes (moby `daemon/list.go`).
fn command(words: &[String]) -> String {
    let mut text = words.first().cloned().unwrap_or_default();
    for word in words.iter().skip(1) {
        text.push(' ');
        if word.contains(' ') {
            text.push_str(&format!("'{word}'"));
        } else {
            text.push_str(word);
        }
    }
    text
}

fn image(name: &str, whole: bool) -> String {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let id = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if id && !whole {
        hex[..12].to_owned()
    } else {
        name.to_owned()
    }
}

/// Docker's sentence on how it stands (moby `container/state.go`, `State.String`).
pub(crate) fn status(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |text: &Option<String>| {
        text.as_deref()
            .and_then(time::parse)
            .map_or_else(|| "some time".to_owned(), |then| time::since(then, now))
    };
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(&state.finished)),
        Status::Paused => format!("Up {} (Paused)", since(&state.started)),
        Status::Running => match state.health.as_ref().map(|health| health.status) {
            None => format!("Up {}", since(&state.started)),
            Some(HealthStatus::Starting) => format!("Up {} (health: starting)", since(&state.started)),
            Some(HealthStatus::Healthy) => format!("Up {} (healthy)", since(&state.started)),
            Some(HealthStatus::Unhealthy) => format!("Up {} (unhealthy)", since(&state.started)),
        },
    }
}

/// Docker's word for its health: `none` without a check.
pub(crate) fn health(container: &Container) -> &'static str {
    match container.state.health.as_ref().map(|health| health.status) {
        None => "none",
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
    }
}
