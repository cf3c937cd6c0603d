//! Lists as podman's JSON has them (podman `pkg/domain/entities`): what its `--format json` and templates read. Pure
//! functions from records, as the rest of this folder.

use std::collections::BTreeMap;

use dhow_engine::container::{Container, Listed, NetworkMode, Status};
use dhow_engine::{Network, NetworkView, Summary, Volume};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::container as words;
use super::port;
use crate::dialect;
use crate::render::time;

fn seconds(text: Option<&str>) -> Option<i64> {
    text.and_then(time::parse).map(|moment| moment.as_second())
}

/// A container of `ps` (podman `entities.ListContainer`).
pub(crate) fn container(container: &Listed, now: Timestamp) -> Value {
    let (config, state) = (&container.config, &container.state);
    let exited = matches!(state.status, Status::Exited | Status::Dead);
    let mounts: Vec<&str> = config
        .mounts
        .iter()
        .map(|mount| mount.destination.as_str())
        .collect();
    let ports: Vec<Value> = port::published(container)
        .iter()
        .map(|port| {
            let host = if port.host_ip.is_unspecified() {
                String::new()
            } else {
                port.host_ip.to_string()
            };
            json!({
                "host_ip": host, "container_port": port.container_port, "host_port": port.host_port,
                "range": 1, "protocol": port.protocol.to_string(),
            })
        })
        .collect();
    json!({
        "AutoRemove": config.auto_remove,
        "Command": config.command.get(config.entrypoint.len()..).unwrap_or_default(),
        "Created": seconds(Some(&config.created)).unwrap_or(0),
        "CreatedAt": config.created,
        "Exited": exited,
        "ExitedAt": seconds(state.finished.as_deref()).unwrap_or(0),
        "ExitCode": state.exit_code,
        "Id": config.id.as_str(),
        "Image": crate::dialect::spoken().image_name(&config.image_name),
        "ImageID": config.image.hex().to_string(),
        "IsInfra": config.extras.infra,
        "Labels": config.labels,
        "Mounts": mounts,
        "Names": [config.name],
        "Networks": words::networks(&config.network, &config.networks),
        "Pid": state.pid,
        "Pod": config.extras.pod.as_deref().unwrap_or(""),
        "PodName": "",
        "Ports": ports,
        "Restarts": state.restart_count,
        "Size": null,
        "StartedAt": seconds(state.started.as_deref()).unwrap_or(0),
        "State": state.status.as_str(),
        "Status": words::status(container, now),
    })
}

/// An image of `images` (podman `entities.ImageSummary`); `labels` are read only when they are asked for.
pub(crate) fn image(
    image: &Summary,
    labels: &BTreeMap<String, String>,
    containers: usize,
    history: Value,
) -> Value {
    let record = &image.record;
    let digests: Vec<String> = image
        .digests
        .iter()
        .map(|(repository, digest)| format!("{repository}@{digest}"))
        .collect();
    let created =
        Timestamp::from_second(record.created).map_or_else(|_| String::new(), |time| time.to_string());
    let digest = digest_of(record, &image.digests);
    json!({
        "Id": record.id.hex().to_string(),
        "ParentId": record.parent.map_or_else(String::new, |parent| parent.hex().to_string()),
        "RepoTags": image.names,
        "RepoDigests": digests,
        "Size": record.size,
        "SharedSize": 0,
        "VirtualSize": record.size,
        "Labels": labels,
        "Containers": containers,
        "Names": image.names,
        "History": history,
        "Digest": digest,
        "Dangling": image.dangling,
        "Created": record.created,
        "CreatedAt": created,
    })
}

/// A step of `history` (podman `entities.ImageHistoryLayer`).
pub(crate) fn history(line: &dhow_engine::HistoryLine) -> Value {
    json!({
        "id": line.id.map_or_else(|| "<missing>".to_owned(), |id| id.hex().to_string()),
        "created": line.created,
        "CreatedBy": line.created_by,
        "size": line.size,
        "comment": line.comment,
        "tags": line.names,
    })
}

/// A volume (podman `define.InspectVolumeData`).
pub(crate) fn volume(volume: &Volume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.data.display().to_string(),
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": volume.options,
        "MountCount": 0,
        "NeedsCopyUp": volume.is_empty(),
        "NeedsChown": volume.is_empty(),
    })
}

/// A network (containers/common `libnetwork/types.Network`).
pub(crate) fn network(network: &Network) -> Value {
    let subnets: Vec<Value> = network
        .subnets
        .iter()
        .map(|subnet| json!({"subnet": subnet.subnet.to_string(), "gateway": subnet.gateway.to_string()}))
        .collect();
    let created =
        Timestamp::from_second(network.created).map_or_else(|_| String::new(), |time| time.to_string());
    let mut document = json!({
        "name": crate::dialect::spoken().network_name(&network.name),
        "id": network.id.as_str(),
        "driver": network.driver.to_string(),
        "network_interface": if network.device.is_empty() { &network.parent } else { &network.device },
        "created": created,
        "subnets": subnets,
        "ipv6_enabled": network.v6().is_some(),
        "internal": network.internal,
        "dns_enabled": network.has_names(),
        "labels": network.labels,
        "options": network.options,
        "ipam_options": {"driver": if network.subnets.is_empty() { "none" } else { "host-local" }},
    });
    if !network.dns.is_empty() {
        put(&mut document, &[("network_dns_servers", json!(network.dns))]);
    }
    document
}

/// The same with the containers that run on it (podman `entities.NetworkInspectReport`).
pub(crate) fn inspected_network(view: &NetworkView) -> Value {
    let mut document = network(&view.network);
    let containers: Map<String, Value> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let v4 = (
                endpoint.ip.to_string(),
                endpoint.prefix,
                endpoint.gateway.map(|ip| ip.to_string()),
            );
            let v6 = endpoint.ip6.map(|ip| {
                (
                    ip.to_string(),
                    endpoint.prefix6,
                    endpoint.gateway6.map(|ip| ip.to_string()),
                )
            });
            let subnets = [Some(v4), v6].into_iter().flatten().map(|(ip, prefix, gateway)| {
                let mut subnet = Map::new();
                subnet.insert("ipnet".to_owned(), format!("{ip}/{prefix}").into());
                subnet.extend(gateway.map(|gateway| ("gateway".to_owned(), gateway.into())));
                Value::Object(subnet)
            });
            let interface =
                json!({"subnets": subnets.collect::<Vec<_>>(), "mac_address": endpoint.mac.to_string()});
            let mut interfaces = Map::new();
            interfaces.insert(endpoint.interface.clone(), interface);
            let one = json!({"name": endpoint.name, "interfaces": interfaces});
            (endpoint.container.to_string(), one)
        })
        .collect();
    put(&mut document, &[("containers", containers.into())]);
    document
}

/// `inspect` of a container, from docker's document (podman `define.InspectContainerData`): names without a slash, ids
/// without `sha256:`, and what docker has no word for.
pub(crate) fn inspected_container(
    mut docker: Value,
    container: &Container,
    image: Option<&dhow_engine::Image>,
) -> Value {
    let config = &container.config;
    let digest = image.map_or_else(String::new, |image| digest_of(&image.record, &image.digests));
    let name = if config.has_image() {
        crate::dialect::spoken().image_name(&config.image_name)
    } else {
        String::new()
    };
    put(
        &mut docker,
        &[
            ("Name", config.name.as_str().into()),
            (
                "Image",
                if config.has_image() {
                    config.image.hex().to_string()
                } else {
                    String::new()
                }
                .into(),
            ),
            ("ImageName", name.as_str().into()),
            ("ImageDigest", digest.into()),
            (
                "OCIRuntime",
                config.extras.runtime.as_deref().unwrap_or("dhow").into(),
            ),
            ("Pod", config.extras.pod.as_deref().unwrap_or("").into()),
            ("IsInfra", config.extras.infra.into()),
            ("Driver", "overlay".into()),
        ],
    );
    if let Some(settings) = docker.get_mut("NetworkSettings") {
        settings_of_networks(settings, config);
    }
    if let Some(init) = &config.request.init {
        let behind = ["--"]
            .into_iter()
            .chain(config.command.iter().map(String::as_str));
        put(
            &mut docker,
            &[
                ("Path", json!(init.place)),
                ("Args", behind.collect::<Vec<_>>().into()),
            ],
        );
    }
    if let Some(state) = docker.get_mut("State") {
        put_state(state, container);
    }
    let log = log_config(&config.log, docker.get("LogPath"));
    if let Some(host) = docker.get_mut("HostConfig") {
        put(
            host,
            &[
                ("AutoRemoveImage", config.extras.remove_image.into()),
                ("LogConfig", log),
                ("Ulimits", ulimits(&config.request.ulimits)),
            ],
        );
    }
    if let Some(inner) = docker.get_mut("Config") {
        run_config(inner, config, name);
    }
    docker
}

/// What podman's `State` has beside docker's.
fn put_state(state: &mut Value, container: &Container) {
    if container.state.stopping && super::container::is_up(container.state.status) {
        put(state, &[("Status", "stopping".into())]);
    }
    let health = state.get("Health").cloned().unwrap_or_default();
    let monitor = dhow_engine::container::monitor_of(container).unwrap_or(0);
    put(
        state,
        &[
            ("Healthcheck", health),
            ("ConmonPid", monitor.into()),
            ("StoppedByUser", container.state.manually_stopped.into()),
        ],
    );
}

/// Networks by podman's names, with the names that it gives a container there: the beginning of its id, and the host name.
/// A container without networks of its own is on one that is called as what it has.
fn settings_of_networks(settings: &mut Value, config: &dhow_engine::container::Config) {
    let mut networks = Map::new();
    match &config.network {
        NetworkMode::Host => drop(networks.insert("host".to_owned(), json!({}))),
        NetworkMode::None => drop(networks.insert("none".to_owned(), json!({}))),
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => {}
        NetworkMode::Networks => {
            let old = settings.get("Networks").and_then(Value::as_object).cloned();
            for (name, mut network) in old.unwrap_or_default() {
                let mut aliases = vec![config.id.short().to_owned()];
                let given = config.networks.iter().find(|given| given.network == name);
                aliases.extend(given.iter().flat_map(|given| given.aliases.iter().cloned()));
                let hostname = &config.request.hostname;
                if !aliases.contains(hostname) {
                    aliases.push(hostname.clone());
                }
                put(&mut network, &[("Aliases", aliases.into())]);
                networks.insert(dialect::spoken().network_name(&name).to_owned(), network);
            }
        }
    }
    put(settings, &[("Networks", networks.into())]);
}

/// The part of it that the image begins.
fn run_config(inner: &mut Value, config: &dhow_engine::container::Config, name: String) {
    let kept = config.extras.health_log.unwrap_or_default();
    let folder = config.extras.health_folder.as_deref();
    put(
        inner,
        &[
            (
                "HealthLogDestination",
                folder.map_or_else(|| "local".into(), |folder| json!(folder)),
            ),
            ("HealthMaxLogCount", kept.count.into()),
            ("HealthMaxLogSize", kept.size.into()),
            ("Timeout", config.extras.timeout.unwrap_or(0).into()),
            (
                "Umask",
                format!("{:04o}", config.request.umask.unwrap_or(0o022)).into(),
            ),
            ("StartupHealthCheck", startup(config)),
            ("CreateCommand", json!(config.extras.command_line)),
            ("SystemdMode", config.extras.systemd.into()),
            ("HealthcheckOnFailureAction", config.on_unhealthy.as_str().into()),
            ("Image", name.into()),
            ("StopTimeout", config.stop_timeout.into()),
            ("StopSignal", config.stop_signal.as_str().into()),
        ],
    );
}

/// The check of the start (podman `define.StartupHealthCheck`).
fn startup(config: &dhow_engine::container::Config) -> Value {
    config.extras.startup.as_ref().map_or(Value::Null, |startup| {
        json!({
            "Test": startup.check.test,
            "Interval": startup.check.interval,
            "Timeout": startup.check.timeout,
            "Retries": startup.check.retries,
            "Successes": startup.successes,
        })
    })
}

/// The log of a container, with its path and its greatest size.
fn log_config(log: &dhow_engine::container::LogConfig, path: Option<&Value>) -> Value {
    let size = log
        .options
        .get("max-size")
        .and_then(|text| text.parse::<dhow_types::ByteSize>().ok());
    json!({
        "Type": log.driver,
        "Config": null,
        "Path": path.cloned().unwrap_or_default(),
        "Tag": log.options.get("tag").map_or("", String::as_str),
        "Size": size.map_or_else(|| "0B".to_owned(), |size| dhow_types::human_size(size.0)),
    })
}

fn ulimits(limits: &[dhow_engine::Ulimit]) -> Value {
    let one = |limit: &dhow_engine::Ulimit| {
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        json!({"Name": name, "Soft": limit.soft, "Hard": limit.hard})
    };
    limits.iter().map(one).collect::<Vec<_>>().into()
}

/// `inspect` of an image, from docker's document (containers/common `libimage.ImageData`).
pub(crate) fn inspected_image(mut docker: Value, image: &dhow_engine::Image, history: &[String]) -> Value {
    let digest = digest_of(&image.record, &image.digests);
    let digests: Vec<String> = image
        .digests
        .iter()
        .map(|(repository, digest)| format!("{repository}@{digest}"))
        .collect();
    // That of the manifest, too, under each of its repositories: the names by digest may be those of a list of manifests.
    let mut digests = digests;
    let named = image.names.iter().filter_map(|name| {
        let name = dhow_reference::Reference::parse(name).ok()?;
        Some(crate::dialect::spoken().repository(&name))
    });
    let by_digest = image.digests.iter().map(|(repository, _)| repository.clone());
    for repository in by_digest.chain(named) {
        let own = format!("{repository}@{digest}");
        if !digest.is_empty() && !digests.contains(&own) {
            digests.push(own);
        }
    }
    put(
        &mut docker,
        &[
            ("Id", image.id.hex().to_string().into()),
            ("Digest", digest.into()),
            ("RepoTags", image.names.clone().into()),
            ("NamesHistory", history.into()),
            ("RepoDigests", digests.into()),
            ("Labels", json!(image.config.config.labels)),
            ("User", image.config.config.user.as_str().into()),
            ("ManifestType", image.record.media_type.as_str().into()),
        ],
    );
    docker
}

fn put(value: &mut Value, fields: &[(&str, Value)]) {
    if let Some(map) = value.as_object_mut() {
        for (name, value) in fields {
            map.insert((*name).to_owned(), value.clone());
        }
    }
}

/// The digest that podman shows for an image: that of its manifest.
fn digest_of(record: &dhow_engine::ImageRecord, digests: &[(String, dhow_types::Digest)]) -> String {
    let digest = record
        .manifest
        .or_else(|| digests.first().map(|(_, digest)| *digest));
    digest.map_or_else(String::new, |digest| digest.to_string())
}
