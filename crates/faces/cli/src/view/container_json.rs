//! Containers as `inspect` shows them: the JSON of docker's API v1.47 (moby `api/types/container`).

use std::path::Path;

use dhow_engine::container::{
    Attachment, Config, Container, IpcMode, NetworkMode, SharedKind, Status, UsersOrigin,
};
use dhow_engine::{HealthStatus, IdMapping, NamespaceMode, RestartPolicy};
use serde_json::{Map, Value, json};

use super::port;
use crate::dialect;

/// Docker's time of what never happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// One container; `root` is where the engine keeps things, `sizes` its own bytes and those with its image's.
pub(crate) fn container(container: &Container, root: &Path, sizes: Option<(u64, u64)>) -> Value {
    let (config, state) = (&container.config, &container.state);
    let folder = root.join("containers").join(config.id.as_str());
    let file = |name: &str| folder.join(name).display().to_string();
    let labels = config.request.selinux.as_ref();
    let mut value = json!({
        "Id": config.id.as_str(),
        "Created": config.created,
        "Path": config.command.first().map_or("", String::as_str),
        "Args": config.command.get(1..).unwrap_or_default(),
        "State": self::state(container),
        "Image": if config.has_image() { config.image.to_string() } else { String::new() },
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": if keeps_file(&config.log.driver) { log_path(&folder, config) } else { String::new() },
        "Name": format!("/{}", config.name),
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": labels.map_or("", |labels| labels.mount.as_str()),
        "ProcessLabel": labels.map_or("", |labels| labels.process.as_str()),
        "AppArmorProfile": dhow_engine::profile_of(&config.request).unwrap_or(""),
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": graph_driver(container, root),
    });
    if let Some(fields) = value.as_object_mut() {
        if let Some((own, all)) = sizes {
            fields.insert("SizeRw".to_owned(), own.into());
            fields.insert("SizeRootFs".to_owned(), all.into());
        }
        fields.insert("Mounts".to_owned(), mounts(container));
        fields.insert("Config".to_owned(), run_config(container));
        fields.insert("NetworkSettings".to_owned(), network_settings(container));
    }
    value
}

/// Whole names, as docker writes them down (moby `oci/caps`, `NormalizeLegacyCapabilities`).
fn capabilities(given: &[String]) -> Vec<String> {
    let whole = |name: &String| match name.to_ascii_uppercase() {
        all if all == "ALL" => all,
        name if name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    given.iter().map(whole).collect()
}

/// Whether a driver's log is a file of the host (moby `daemon/container.StartLogger`; podman's `k8s-file`).
fn keeps_file(driver: &str) -> bool {
    matches!(driver, "json-file" | "local" | "k8s-file")
}

fn log_path(folder: &Path, config: &Config) -> String {
    dhow_engine::container::log_file(folder, config)
        .display()
        .to_string()
}

fn state(container: &Container) -> Value {
    let state = &container.state;
    let mut value = json!({
        "Status": state.status.as_str(),
        "Running": super::container::is_up(state.status),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started.as_deref().unwrap_or(NEVER),
        "FinishedAt": state.finished.as_deref().unwrap_or(NEVER),
    });
    if let (Some(health), Some(fields)) = (&state.health, value.as_object_mut()) {
        // A record of strings and numbers always becomes JSON.
        let mut shown = serde_json::to_value(health).unwrap_or_default();
        // One that is not looked at any more is no healthy one there (moby `container/health.go`, `CloseMonitorChannel`).
        if !dialect::spoken().is_podman() && !super::container::is_up(state.status) {
            shown["Status"] = HealthStatus::Unhealthy.as_str().into();
        }
        fields.insert("Health".to_owned(), shown);
    }
    value
}

fn host_config(container: &Container) -> Value {
    let config = &container.config;
    let request = &config.request;
    let binds: Vec<String> = config
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind.as_str(), "bind" | "volume") && !mount.anonymous)
        .map(|mount| {
            let source = mount.name.as_deref().unwrap_or(&mount.source);
            format!(
                "{source}:{}:{}",
                mount.destination,
                if mount.writable { "rw" } else { "ro" }
            )
        })
        .collect();
    let (policy, retries) = match config.restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
    };
    let mut value = json!({
        "Binds": if binds.is_empty() { Value::Null } else { binds.into() },
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log.driver, "Config": config.log.options},
        "NetworkMode": network_mode(container),
        "PortBindings": port_bindings(container),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": request.console_size.map_or([0, 0], |(rows, columns)| [rows, columns]),
        "CapAdd": or_null(&capabilities(&request.cap_add)),
        "CapDrop": or_null(&capabilities(&request.cap_drop)),
        "CgroupnsMode": other_or(container, SharedKind::Cgroup, request.namespaces.cgroup.as_ref().map_or("", mode)),
        "Dns": config.dns,
        "DnsOptions": config.dns_options,
        "DnsSearch": config.dns_search,
        "ExtraHosts": or_null(&config.extra_hosts),
        "GroupAdd": or_null(&config.group_add),
        "IpcMode": ipc_mode(container),
        "Cgroup": "",
        "OomScoreAdj": request.oom_score_adj.unwrap_or(0),
        "PidMode": other_or(container, SharedKind::Pid, shared(&request.namespaces.pid)),
        "Privileged": request.privileged,
        "PublishAllPorts": false,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": security(container),
        "UTSMode": other_or(container, SharedKind::Uts, shared(&request.namespaces.uts)),
        "UsernsMode": userns_mode(container),
        "ShmSize": request.shm_size,
        "Sysctls": request.sysctls,
    });
    if let (Some(fields), Value::Object(limits)) = (value.as_object_mut(), limits(container)) {
        fields.extend(limits);
        fields.extend(id_mappings(container));
        if request.init.is_some() {
            fields.insert("Init".to_owned(), true.into());
        }
    }
    value
}

/// Podman's word for the user namespace.
fn userns_mode(container: &Container) -> String {
    match container.config.extras.users.as_ref().map(|users| &users.origin) {
        None => String::new(),
        Some(UsersOrigin::New) => "private".to_owned(),
        Some(UsersOrigin::Container(id)) => format!("container:{id}"),
        Some(UsersOrigin::Path(path)) => format!("ns:{}", path.display()),
    }
}

/// Podman's list of the ids of a user namespace.
fn id_mappings(container: &Container) -> Option<(String, Value)> {
    let users = container.config.extras.users.as_ref()?;
    let shown = |maps: &[IdMapping]| -> Vec<String> {
        let one = |map: &IdMapping| format!("{}:{}:{}", map.container_id, map.host_id, map.size);
        maps.iter().map(one).collect()
    };
    let value = json!({"UidMap": shown(&users.uids), "GidMap": shown(&users.gids)});
    Some(("IDMappings".to_owned(), value))
}

/// The rest of it: what it may use.
fn limits(container: &Container) -> Value {
    let (request, limits) = (&container.config.request, &container.config.request.limits);
    let ulimits: Vec<Value> = request
        .ulimits
        .iter()
        .map(|limit| json!({"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft}))
        .collect();
    let devices: Vec<Value> = container
        .config
        .devices
        .iter()
        .map(|device| json!({"PathOnHost": device.host, "PathInContainer": device.container, "CgroupPermissions": device.access}))
        .collect();
    json!({
        "Runtime": "dhow",
        "Isolation": "",
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": "",
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": limits.realtime_period.unwrap_or(0),
        "CpuRealtimeRuntime": limits.realtime_runtime.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "Devices": devices,
        "DeviceCgroupRules": or_null(&request.device_rules),
        "DeviceRequests": device_requests(&container.config),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids,
        "Ulimits": ulimits,
        "MaskedPaths": request.masked_paths,
        "ReadonlyPaths": request.readonly_paths,
    })
}

fn or_null(items: &[String]) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        items.into()
    }
}

fn mode(mode: &NamespaceMode) -> &'static str {
    match mode {
        NamespaceMode::Host => "host",
        NamespaceMode::Private | NamespaceMode::Path(_) => "private",
    }
}

/// Whose IPC namespace it has, and whether others may have it.
fn ipc_mode(container: &Container) -> String {
    let own = match container.config.extras.ipc {
        _ if container.config.request.namespaces.ipc == NamespaceMode::Host => "host",
        IpcMode::None => "none",
        IpcMode::Private => "private",
        IpcMode::Shareable => "shareable",
    };
    other_or(container, SharedKind::Ipc, own)
}

/// The container that a namespace is of, or the word for its own.
fn other_or(container: &Container, kind: SharedKind, own: &str) -> String {
    let other = container.config.shared(kind);
    other.map_or_else(|| own.to_owned(), |id| format!("container:{id}"))
}

/// Docker leaves private process and host name spaces unnamed.
fn shared(mode: &NamespaceMode) -> &'static str {
    if *mode == NamespaceMode::Host { "host" } else { "" }
}

fn security(container: &Container) -> Value {
    let request = &container.config.request;
    let mut options = Vec::new();
    if request.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &request.seccomp {
        dhow_engine::SeccompChoice::Unconfined => options.push("seccomp=unconfined".to_owned()),
        dhow_engine::SeccompChoice::Conditional(profile) => {
            // Docker shows the file's content, too.
            options.extend(serde_json::to_string(profile).map(|text| format!("seccomp={text}")));
        }
        _ => {}
    }
    options.extend(
        request
            .apparmor
            .as_ref()
            .map(|profile| format!("apparmor={profile}")),
    );
    or_null(&options)
}

fn network_mode(container: &Container) -> String {
    match &container.config.network {
        NetworkMode::Networks => container
            .config
            .networks
            .first()
            .map_or("bridge", |n| &n.network)
            .to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Namespace(path) => format!("ns:{}", path.display()),
    }
}

/// What was asked to be published.
pub(crate) fn port_bindings(container: &Container) -> Value {
    let mut ports: Map<String, Value> = Map::new();
    for mapping in &container.config.ports {
        let binding = json!({
            "HostIp": mapping.host_ip.map_or_else(String::new, |ip| ip.to_string()),
            "HostPort": mapping.host_port.map_or_else(String::new, |port| port.to_string()),
        });
        push(
            &mut ports,
            format!("{}/{}", mapping.container_port, mapping.protocol),
            binding,
        );
    }
    ports.into()
}

fn push(ports: &mut Map<String, Value>, key: String, binding: Value) {
    match ports.get_mut(&key) {
        Some(Value::Array(bindings)) => bindings.push(binding),
        _ => drop(ports.insert(key, vec![binding].into())),
    }
}

/// What is published now; ports that are only exposed have `null`.
fn ports(container: &Container) -> Value {
    let mut ports = Map::new();
    if super::container::is_up(container.state.status) {
        for port in port::published(container) {
            let binding = json!({"HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string()});
            push(
                &mut ports,
                format!("{}/{}", port.container_port, port.protocol),
                binding,
            );
        }
        for exposed in &container.config.exposed {
            ports.entry(exposed.clone()).or_insert(Value::Null);
        }
    }
    ports.into()
}

/// The addresses that a person asked for.
fn ipam(attachment: &Attachment) -> Value {
    let mut wishes = Map::new();
    let v4 = attachment.ip.map(|ip| ("IPv4Address", ip.to_string()));
    let v6 = attachment.ip6.map(|ip| ("IPv6Address", ip.to_string()));
    for (key, ip) in v4.into_iter().chain(v6) {
        wishes.insert(key.to_owned(), ip.into());
    }
    if wishes.is_empty() {
        Value::Null
    } else {
        wishes.into()
    }
}

/// Where the network namespace of what runs is.
fn sandbox(container: &Container) -> String {
    match container.state.pid {
        0 => String::new(),
        pid => format!("/proc/{pid}/ns/net"),
    }
}

fn network_settings(container: &Container) -> Value {
    let endpoints = &container.state.endpoints;
    let mut networks = Map::new();
    for attachment in &container.config.networks {
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.network == attachment.network);
        let text = |value: Option<String>| value.unwrap_or_default();
        networks.insert(attachment.network.clone(), json!({
            "IPAMConfig": ipam(attachment),
            "Links": null,
            "Aliases": or_null(&attachment.aliases),
            "MacAddress": text(endpoint.map(|endpoint| endpoint.mac.to_string())),
            "DriverOpts": null,
            "NetworkID": text(endpoint.map(|endpoint| endpoint.network_id.to_string())),
            "EndpointID": "",
            "Gateway": text(endpoint.and_then(|endpoint| endpoint.gateway).map(|ip| ip.to_string())),
            "IPAddress": text(endpoint.map(|endpoint| endpoint.ip.to_string())),
            "IPPrefixLen": endpoint.map_or(0, |endpoint| endpoint.prefix),
            "IPv6Gateway": text(endpoint.and_then(|endpoint| endpoint.gateway6).map(|ip| ip.to_string())),
            "GlobalIPv6Address": text(endpoint.and_then(|endpoint| endpoint.ip6).map(|ip| ip.to_string())),
            "GlobalIPv6PrefixLen": endpoint.map_or(0, |endpoint| endpoint.prefix6),
            "DNSNames": [container.config.name.as_str(), container.config.id.short()],
        }));
    }
    let first = |field: &str| {
        networks
            .get("bridge")
            .and_then(|network| network.get(field))
            .cloned()
    };
    let top = |field: &str, empty: Value| first(field).unwrap_or(empty);
    json!({
        "Bridge": "",
        "SandboxID": "",
        // The namespace itself, as nsenter(1) takes it: there is no other file of it.
        "SandboxKey": sandbox(container),
        "Ports": ports(container),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": "",
        "Gateway": top("Gateway", "".into()),
        "GlobalIPv6Address": top("GlobalIPv6Address", "".into()),
        "GlobalIPv6PrefixLen": top("GlobalIPv6PrefixLen", 0.into()),
        "IPAddress": top("IPAddress", "".into()),
        "IPPrefixLen": top("IPPrefixLen", 0.into()),
        "IPv6Gateway": top("IPv6Gateway", "".into()),
        "MacAddress": top("MacAddress", "".into()),
        "Networks": networks,
    })
}

fn mounts(container: &Container) -> Value {
    let mounts = container.config.mounts.iter().map(|mount| {
        let mut value = Map::new();
        value.insert("Type".to_owned(), mount.kind.as_str().into());
        if let Some(name) = &mount.name {
            value.insert("Name".to_owned(), name.as_str().into());
        }
        value.insert("Source".to_owned(), mount.source.as_str().into());
        value.insert("Destination".to_owned(), mount.destination.as_str().into());
        if mount.kind == "volume" {
            value.insert("Driver".to_owned(), "local".into());
        }
        value.insert("Mode".to_owned(), if mount.writable { "" } else { "ro" }.into());
        value.insert("RW".to_owned(), mount.writable.into());
        value.insert(
            "Propagation".to_owned(),
            if mount.kind == "bind" { "rprivate" } else { "" }.into(),
        );
        Value::Object(value)
    });
    mounts.collect::<Vec<_>>().into()
}

fn run_config(container: &Container) -> Value {
    let (config, request) = (&container.config, &container.config.request);
    let exposed: Map<String, Value> = config
        .exposed
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    let volumes: Map<String, Value> = config
        .mounts
        .iter()
        .filter(|mount| mount.anonymous)
        .map(|mount| (mount.destination.clone(), json!({})))
        .collect();
    let mut value = json!({
        "Hostname": request.hostname,
        "Domainname": request.domainname,
        "User": config.user,
        "AttachStdin": config.open_stdin,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": exposed,
        "Tty": request.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.open_stdin,
        "Env": request.env,
        "Cmd": config.command.get(config.entrypoint.len()..).filter(|words| !words.is_empty()),
        "Image": config.image_name,
        "Volumes": if volumes.is_empty() { Value::Null } else { volumes.into() },
        "WorkingDir": request.cwd,
        "Entrypoint": if config.entrypoint.is_empty() { Value::Null } else { json!(config.entrypoint) },
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
    });
    let health = config.health.as_ref().or(config.idle_health.as_ref());
    if let (Some(health), Some(fields)) = (health, value.as_object_mut()) {
        fields.insert(
            "Healthcheck".to_owned(),
            serde_json::to_value(health).unwrap_or_default(),
        );
    }
    value
}

fn graph_driver(container: &Container, root: &Path) -> Value {
    let snapshot = root.join("snapshots").join(container.config.id.as_str());
    if snapshot.join("tree").exists() {
        // A plain copy has docker's name, and its lack of words.
        return json!({"Data": null, "Name": "vfs"});
    }
    // The uppermost layer comes first, as in overlayfs' own option.
    let lower: Vec<String> = container
        .config
        .layers
        .iter()
        .rev()
        .map(|layer| layer_folder(root, *layer))
        .collect();
    json!({
        "Data": {
            "LowerDir": lower.join(":"),
            "MergedDir": "",
            "UpperDir": snapshot.join("upper").display().to_string(),
            "WorkDir": snapshot.join("work").display().to_string(),
        },
        "Name": "overlay2",
    })
}

/// Where a layer's tree is.
pub(crate) fn layer_folder(root: &Path, layer: dhow_types::DiffId) -> String {
    let hex = layer.hex();
    root.join("layers")
        .join(&hex[..2])
        .join(&hex)
        .join("fs")
        .display()
        .to_string()
}

/// Devices by the Container Device Interface, as docker has them.
fn device_requests(config: &Config) -> Value {
    let names = &config.extras.cdi;
    if names.is_empty() {
        return Value::Null;
    }
    json!([{"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null}])
}
