//! `version` and `info`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Info;
use dhow_types::human_binary_size;
use serde_json::{Value, json};

use crate::render::{inspected, say};
use crate::view::podman_info;
use crate::{CliError, Context, Verb, dialect, elsewhere};

pub(crate) const VERSION: Verb = Verb {
    name: "version",
    about: "Show the version information",
    flags: |command| FormatFlags::augment_args(command),
    run: version,
};

pub(crate) const INFO: Verb = Verb {
    name: "info",
    about: "Display system-wide information",
    flags: |command| FormatFlags::augment_args(command),
    run: info,
};

#[derive(Args, Debug)]
struct FormatFlags {
    /// Format output using a custom template: 'json' or TEMPLATE
    #[arg(short, long)]
    format: Option<String>,
}

/// Docker's API version that the JSON of this program follows.
const API: &str = "1.47";

fn version(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: FormatFlags = crate::flags::read(matches)?;
    let platform = dhow_types::Platform::host();
    let version = env!("CARGO_PKG_VERSION");
    if dialect::spoken().is_podman() {
        let client = podman_info::version_fields();
        if let Some(format) = &flags.format {
            one(&json!({"Client": client}), format)?;
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!(
            "Client:       Dhow\nVersion:      {version}\nAPI Version:  {version}\nOS/Arch:      {}/{}\n",
            platform.os, platform.architecture
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = side(&platform);
    let engine = context.environment.contexts().engine();
    let server = match engine.starts_with("unix://") {
        // One program is both sides of docker's.
        true => client.clone(),
        false => {
            let said = elsewhere::version(context.engine()?, &engine, context.globals.wants_tls());
            if said.is_err() && flags.format.is_none() {
                say(&format!("Client:\n{}", lines(&client)))?;
            }
            said?
        }
    };
    if let Some(format) = &flags.format {
        one(&json!({"Client": client, "Server": server}), format)?;
        return Ok(ExitCode::SUCCESS);
    }
    if dialect::is_docker() || !engine.starts_with("unix://") {
        let text = format!("Client:\n{}\nServer:\n{}", lines(&client), lines(&server));
        say(&text)?;
    } else {
        say(&format!("Dhow:\n{}", lines(&client)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said of one side.
fn side(platform: &dhow_types::Platform) -> Value {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API,
        "APIVersion": API,
        "Os": platform.os,
        "Arch": platform.architecture,
        "KernelVersion": kernel,
    })
}

/// The same as lines; what the other side does not say is left out.
fn lines(side: &Value) -> String {
    let said = |name: &str| {
        side.get(name)
            .and_then(Value::as_str)
            .filter(|said| !said.is_empty())
    };
    let system = said("Os")
        .zip(said("Arch"))
        .map(|(os, arch)| format!("{os}/{arch}"));
    let all = [
        ("Version", said("Version")),
        ("API version", said("ApiVersion")),
        ("OS/Arch", system.as_deref()),
        ("Kernel Version", said("KernelVersion")),
    ];
    let told = all.iter().filter_map(|(title, said)| Some((title, (*said)?)));
    told.map(|(title, said)| {
        format!(
            " {:<18} {}\n",
            format!("{title}:"),
            crate::render::build::harmless(said)
        )
    })
    .collect()
}

fn one(value: &Value, format: &str) -> Result<(), CliError> {
    if format == "json" {
        return say(&format!("{value}\n"));
    }
    say(&inspected(std::slice::from_ref(value), Some(format))?)
}

fn info(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: FormatFlags = crate::flags::read(matches)?;
    let info = context.engine()?.info()?;
    if dialect::spoken().is_podman() {
        let program = std::env::current_exe().ok();
        let place = podman_info::Place {
            run: context.environment.run(),
            volumes: context.environment.volumes(),
            rootless: !dhow_engine::rootless::is_rootful(),
            program: program.as_deref(),
        };
        let document = podman_info::info(&info, place);
        match flags.format.as_deref() {
            Some("json") => say(&format!("{document:#}\n"))?,
            Some(format) => one(&document, format)?,
            None => {
                let mut text = String::new();
                podman_info::yaml(&document, 0, &mut text);
                say(&text)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    match &flags.format {
        Some(format) => one(&json(&info), format)?,
        None => say(&text(&info))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Docker's field names (moby `api/types/system.Info`).
pub(crate) fn json(info: &Info) -> Value {
    let (running, paused, stopped) = info.containers;
    let mut document = json!({
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": info.images,
        "Driver": info.storage,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": info.cgroup_version.to_string(),
        "KernelVersion": info.kernel,
        "OperatingSystem": info.system,
        "OSType": "linux",
        "Architecture": info.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "DockerRootDir": info.root,
        "Name": info.name,
        "IndexServerAddress": super::login::HUB,
        "RegistryConfig": registry_config(info),
        "SecurityOptions": info.security.iter().map(|name| format!("name={name}")).collect::<Vec<_>>(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
    });
    if let (Some(fields), Value::Object(more)) = (document.as_object_mut(), abilities(info)) {
        fields.extend(more);
    }
    document
}

/// What this host can do, and what the engine is made of.
fn abilities(info: &Info) -> Value {
    let support = &info.support;
    let warnings = support.warnings(info.cgroup_version);
    json!({
        "MemoryLimit": support.memory,
        "SwapLimit": support.swap,
        "CpuCfsPeriod": support.cpu_quota,
        "CpuCfsQuota": support.cpu_quota,
        "CPUShares": support.cpu_shares,
        "CPUSet": support.cpu_set,
        "PidsLimit": support.pids,
        "OomKillDisable": support.oom_kill_disable,
        "IPv4Forwarding": support.ip_forwarding,
        "BridgeNfIptables": support.bridge_iptables,
        "BridgeNfIp6tables": support.bridge_ip6tables,
        "Debug": false,
        "ExperimentalBuild": false,
        "Labels": [],
        // Nothing of the engine runs beside its containers.
        "LiveRestoreEnabled": true,
        "LoggingDriver": "local",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": ["fluentd", "gelf", "journald", "json-file", "k8s-file", "local", "none", "syslog"],
        },
        "Runtimes": {"dhow": {"path": "dhow"}},
        "DefaultRuntime": "dhow",
        // It is in the runtime, and no file.
        "InitBinary": "docker-init",
        "Swarm": {"LocalNodeState": "inactive"},
        "Warnings": if warnings.is_empty() { Value::Null } else { warnings.into() },
    })
}

/// Docker's `RegistryConfig` (moby `api/types/registry.ServiceConfig`), and beside it what docker has no word for.
fn registry_config(info: &Info) -> Value {
    let (blocks, hosts): (Vec<String>, Vec<String>) =
        insecure(info).into_iter().partition(|name| name.contains('/'));
    let (mirrors, rules, search, files) = match &info.registries {
        Ok(found) => (
            found.hub_mirrors(),
            found.lines(),
            found.search().to_vec(),
            found.sources().to_vec(),
        ),
        Err(_) => Default::default(),
    };
    let hub = json!({"Name": "docker.io", "Mirrors": mirrors, "Secure": true, "Official": true});
    let mut indexes = serde_json::Map::from_iter([("docker.io".to_owned(), hub)]);
    for host in hosts {
        let one = json!({"Name": host, "Mirrors": [], "Secure": false, "Official": false});
        indexes.insert(host, one);
    }
    json!({
        "InsecureRegistryCIDRs": blocks,
        "IndexConfigs": indexes,
        "Mirrors": mirrors,
        "Rules": rules,
        "UnqualifiedSearchRegistries": search,
        "Files": files,
        "Error": info.registries.as_ref().err(),
    })
}

/// Docker counts this machine among them.
fn insecure(info: &Info) -> Vec<String> {
    let files = info.registries.as_ref().map_or(&[][..], |found| found.insecure());
    let mut names: Vec<String> = files.iter().chain(&info.insecure).cloned().collect();
    names.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
    names
}

fn registry_lines(info: &Info) -> String {
    let listed = |title: &str, names: &[String]| {
        let lines: String = names.iter().map(|name| format!("  {name}\n")).collect();
        if lines.is_empty() {
            lines
        } else {
            format!("{title}:\n{lines}")
        }
    };
    let mut out = listed("Insecure Registries", &insecure(info));
    match &info.registries {
        Err(error) => out.push_str(&format!("Registry Configuration: {error}\n")),
        Ok(found) => {
            let files: Vec<String> = found
                .sources()
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            out.push_str(&listed("Registry Mirrors", &found.hub_mirrors()));
            out.push_str(&listed("Registries", &found.lines()));
            out.push_str(&listed("Registry Configuration", &files));
        }
    }
    out
}

/// Docker's lines.
pub(crate) fn text(info: &Info) -> String {
    let (running, paused, stopped) = info.containers;
    let security: String = info.security.iter().map(|name| format!("  {name}\n")).collect();
    format!(
        "Containers: {}\n Running: {running}\n Paused: {paused}\n Stopped: {stopped}\nImages: {}\n\
         Version: {}\nStorage Driver: {}\nCgroup Version: {}\nSecurity Options:\n{security}\
         Kernel Version: {}\nOperating System: {}\nOSType: linux\nArchitecture: {}\nCPUs: {}\n\
         Total Memory: {}\nName: {}\nRoot Dir: {}\n{}",
        running + paused + stopped,
        info.images,
        env!("CARGO_PKG_VERSION"),
        info.storage,
        info.cgroup_version,
        info.kernel,
        info.system,
        info.architecture,
        info.cpus,
        human_binary_size(info.memory),
        info.name,
        info.root,
        registry_lines(info)
    )
}
