//! Containers as `ps` shows them.

use dhow_engine::HealthStatus;
use dhow_engine::container::{Attachment, Container, Listed, NetworkMode, Status};
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

/// One container with these of [`FIELDS`]. `size` is its own changes and its image's bytes.
pub(crate) fn row(
    container: &Listed,
    wanted: &[&'static str],
    now: Timestamp,
    whole: bool,
    size: Option<(u64, u64)>,
) -> Row {
    let fields = wanted
        .iter()
        .map(|name| (*name, field(container, name, now, whole, size).into()));
    Row::of(fields).with_labels(&container.config.labels)
}

/// The names of all of [`FIELDS`] that are the container's own.
pub(crate) fn own_fields() -> Vec<&'static str> {
    let names = FIELDS.iter().map(|(name, _)| *name);
    names.filter(|name| !name.starts_with("Pod")).collect()
}

fn field(container: &Listed, name: &str, now: Timestamp, whole: bool, size: Option<(u64, u64)>) -> String {
    let config = &container.config;
    match name {
        "Command" => {
            let command = command(&config.command);
            let command = if whole { command } else { ellipsis(&command, 20) };
            if dialect::spoken().is_podman() {
                command
            } else {
                quote(&command)
            }
        }
        "CreatedAt" => time::long_text(&config.created),
        "ID" if whole => config.id.to_string(),
        "ID" => config.id.short().to_owned(),
        "Image" => image(&dialect::spoken().image_name(&config.image_name), whole),
        "Labels" => labels(&config.labels),
        "LocalVolumes" => {
            let mounts = config.mounts.iter();
            mounts.filter(|mount| mount.kind == "volume").count().to_string()
        }
        "Mounts" => mounts(container, whole),
        "Names" => config.name.clone(),
        "Networks" => networks(&config.network, &config.networks).join(","),
        "Platform" => config
            .platform
            .clone()
            .unwrap_or_else(dhow_types::Platform::host)
            .to_string(),
        "Ports" => port::displayed(container),
        "RunningFor" => time::parse(&config.created)
            .map_or_else(String::new, |then| format!("{} ago", time::since(then, now))),
        "Size" => size.map_or_else(|| "0B".to_owned(), size_text),
        "State" => container.state.status.as_str().to_owned(),
        "Status" => status(container, now),
        // Of its pod: who lists pods with it puts that in.
        _ => String::new(),
    }
}

fn mounts(container: &Listed, whole: bool) -> String {
    let mounts = container.config.mounts.iter();
    let names: Vec<String> = mounts
        .filter(|mount| mount.kind != "tmpfs")
        .map(|mount| mount.name.clone().unwrap_or_else(|| mount.source.clone()))
        .map(|name| if whole { name } else { ellipsis(&name, 15) })
        .collect();
    names.join(",")
}

fn size_text((own, image): (u64, u64)) -> String {
    format!(
        "{} (virtual {})",
        human_size_short(own),
        human_size_short(own.saturating_add(image))
    )
}

/// Names of the networks that a container is on.
pub(crate) fn networks(mode: &NetworkMode, joined: &[Attachment]) -> Vec<String> {
    match mode {
        NetworkMode::Networks => joined
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
pub(crate) fn status<C>(container: &Container<C>, now: Timestamp) -> String {
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
            None | Some(HealthStatus::Stopped) => format!("Up {}", since(&state.started)),
            Some(HealthStatus::Starting) => format!("Up {} (health: starting)", since(&state.started)),
            Some(HealthStatus::Healthy) => format!("Up {} (healthy)", since(&state.started)),
            Some(HealthStatus::Unhealthy) => format!("Up {} (unhealthy)", since(&state.started)),
        },
    }
}

/// Docker's word for its health: `none` without a check.
pub(crate) fn health<C>(container: &Container<C>) -> &'static str {
    match container.state.health.as_ref().map(|health| health.status) {
        None => "none",
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
        Some(HealthStatus::Stopped) => "stopped",
    }
}
