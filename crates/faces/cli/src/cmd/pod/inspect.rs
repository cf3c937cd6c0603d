//! `pod inspect`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{Container, NetworkMode};
use dhow_engine::{ExitPolicy, Pod, RestartPolicy};
use serde_json::{Value, json};

use crate::render::{inspected, say};
use crate::{CliError, Context, Verb};

pub(crate) const INSPECT: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more pods",
    flags: |command| InspectFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct InspectFlags {
    /// Format output using a custom template: 'json' or TEMPLATE
    #[arg(short, long, allow_hyphen_values = true)]
    format: Option<String>,
    /// The pod that was created last
    #[arg(short, long, conflicts_with = "pods")]
    latest: bool,
    /// The pods
    #[arg(value_name = "POD", required_unless_present = "latest")]
    pods: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: InspectFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let mut names = flags.pods;
    if flags.latest {
        let newest = engine.pods()?.into_iter().next();
        let newest = newest.ok_or_else(|| CliError::plain("there is no pod"))?;
        names = vec![newest.id.to_string()];
    }
    let mut documents = Vec::new();
    for name in &names {
        let pod = engine.pod(name)?;
        documents.push(document(&pod, &engine.pod_containers(&pod)?));
    }
    say(&inspected(&documents, flags.format.as_deref())?)?;
    Ok(ExitCode::SUCCESS)
}

/// A pod (podman `define.InspectPodData`).
fn document(pod: &Pod, containers: &[Container]) -> Value {
    let infra = containers
        .iter()
        .find(|one| pod.infra.as_ref() == Some(&one.config.id));
    let members: Vec<Value> = containers
        .iter()
        .map(|one| json!({"Id": one.config.id.as_str(), "ID": one.config.id.as_str(), "Name": one.config.name, "State": one.state.status.as_str()}))
        .collect();
    let shared: Vec<&str> = pod.share.iter().map(|share| share.as_str()).collect();
    let limits = &pod.limits;
    json!({
        "Id": pod.id.as_str(),
        "ID": pod.id.as_str(),
        "Name": pod.name,
        "Created": pod.created,
        "ExitPolicy": match pod.exit_policy {
            ExitPolicy::Continue => "continue",
            ExitPolicy::Stop => "stop",
        },
        "State": Pod::status(containers),
        "Hostname": infra.map_or("", |one| one.config.request.hostname.as_str()),
        "Labels": pod.labels,
        "CreateCgroup": true,
        "CgroupParent": pod.cgroup.rsplit_once('/').map_or("", |(parent, _)| parent),
        "CgroupPath": pod.cgroup,
        "CreateInfra": infra.is_some(),
        "InfraContainerID": pod.infra.as_ref().map_or("", |id| id.as_str()),
        "InfraConfig": infra.map(infra_config),
        "SharedNamespaces": shared,
        "NumContainers": containers.len(),
        "Containers": members,
        "RestartPolicy": match pod.restart {
            RestartPolicy::No => "no",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::OnFailure(_) => "on-failure",
        },
        "memory_limit": limits.memory.unwrap_or(0),
        "cpu_quota": limits.cpu_quota.unwrap_or(0),
        "cpu_period": limits.cpu_period.unwrap_or(0),
        "cpu_shares": limits.cpu_shares.unwrap_or(0),
        "cpuset_cpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "LockNumber": 0,
    })
}

fn infra_config(infra: &Container) -> Value {
    let config = &infra.config;
    json!({
        "PortBindings": crate::view::container_json::port_bindings(infra),
        "HostNetwork": config.network == NetworkMode::Host,
        "StaticIP": config.networks.iter().find_map(|network| network.ip).map_or_else(String::new, |ip| ip.to_string()),
        "StaticMAC": config.networks.iter().find_map(|network| network.mac.clone()).unwrap_or_default(),
        "NoManageResolvConf": false,
        "DNSServer": config.dns,
        "DNSSearch": config.dns_search,
        "DNSOption": config.dns_options,
        "NoManageHosts": config.extras.no_hosts,
        "HostAdd": config.extra_hosts,
        "Networks": crate::view::container::networks(&infra.config.network, &infra.config.networks),
        "NetworkOptions": null,
        "pid_ns": "private",
        "userns": if config.extras.users.is_some() { "private" } else { "host" },
        "uts_ns": "private",
    })
}
