//! `pod create`, and `--pod` of `run` and `create`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use dhow_engine::container::{CreateContainer, Extras, Names};
use dhow_engine::{Engine, ExitPolicy, Limits, Pod, PodRequest, PodShare, RestartPolicy};
use dhow_types::ErrorKind;

use crate::flags::{ContainerFlags, absolute};
use crate::render::say_line;
use crate::{CliError, Context, Verb};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Create a pod: an empty one, for containers to be created in",
    flags,
    run,
};

/// Those of the flags of a container that its pod can have: for its network, its names, and all containers together.
const SHARED: [&str; 37] = [
    "name",
    "label",
    "label_file",
    "hostname",
    "add_host",
    "no_hosts",
    "dns",
    "dns_search",
    "dns_option",
    "network",
    "network_alias",
    "ip",
    "ip6",
    "mac_address",
    "publish",
    "cgroup_parent",
    "restart",
    "shm_size",
    "sysctl",
    "userns",
    "uidmap",
    "gidmap",
    "subuidname",
    "subgidname",
    "memory",
    "memory_swap",
    "memory_reservation",
    "cpus",
    "cpu_shares",
    "cpu_period",
    "cpu_quota",
    "cpuset_cpus",
    "cpuset_mems",
    "pids_limit",
    "blkio_weight",
    "replace",
    "pod_id_file",
];

/// A pod has the flags of its waiting container as far as they make sense for it.
fn flags(command: Command) -> Command {
    let mut command = PodFlags::augment_args(ContainerFlags::augment_args(command));
    let names: Vec<String> = command
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .collect();
    let own = PodFlags::augment_args(Command::new("pod"));
    for name in names {
        let shared = SHARED.contains(&&*name) || own.get_arguments().any(|arg| *arg.get_id() == *name);
        if !shared {
            command = command.mut_arg(&name, |arg| arg.required(false).hide(true));
        }
    }
    // Its place is taken by the pod's name.
    command
        .mut_arg("words", |words| {
            words
                .hide(false)
                .value_name("NAME")
                .num_args(0..=1)
                .allow_hyphen_values(false)
                .trailing_var_arg(false)
        })
        .mut_arg("name", |arg| arg.short('n'))
        .mut_arg("pod_id_file", |arg| arg.help("Write the pod's ID to the file"))
        .mut_arg("replace", |arg| {
            // The name may be the word that comes last.
            clap::Arg::new("replace")
                .long("replace")
                .action(clap::ArgAction::SetTrue)
                .help(arg.get_help().cloned().unwrap_or_default())
        })
        .override_usage("dhow pod create [OPTIONS] [NAME]")
}

#[derive(Args, Debug)]
struct PodFlags {
    /// Whether the pod has a waiting container, whose namespaces the others share
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    infra: bool,
    /// The waiting container's name
    #[arg(long, value_name = "NAME")]
    infra_name: Option<String>,
    /// Write the process id of the waiting container's monitor to the file at each start
    #[arg(long, value_name = "FILE")]
    infra_conmon_pidfile: Option<PathBuf>,
    /// What the containers share: cgroup, ipc, net, pid, uts or none, with commas between; +NAME adds to the usual ones
    #[arg(
        long,
        value_name = "NAMESPACES",
        default_value = "ipc,net,uts",
        hide_default_value = true
    )]
    share: String,
    /// What becomes of the pod when its last container has ended: continue or stop
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "continue",
        hide_default_value = true
    )]
    exit_policy: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let own: PodFlags = crate::flags::read(matches)?;
    refuse_others(matches)?;
    let container: ContainerFlags = crate::flags::read(matches)?;
    let mut infra = container.pod_request().map_err(|error| error.with_code(125))?;
    let name = container
        .name
        .clone()
        .or_else(|| container.first_word().map(str::to_owned));
    let engine = context.engine()?;
    if container.podman.replace
        && let Some(name) = &name
        && let Ok(old) = engine.pod(name)
    {
        engine.remove_pod(&old, true, None)?;
    }
    // Podman's word for the usual network.
    infra.networks.retain(|network| network.network != "private");
    infra.name.clone_from(&own.infra_name);
    infra.extras.monitor_pidfile = absolute(own.infra_conmon_pidfile.as_ref())?;
    infra.extras.no_hosts = container.podman.no_hosts();
    infra.extras.names = names()?;
    let limits = std::mem::take(&mut infra.limits);
    let request = PodRequest {
        name,
        labels: std::mem::take(&mut infra.labels),
        share: shares(&own.share)?,
        exit_policy: exit_policy(&own.exit_policy)?,
        limits,
        restart: std::mem::take(&mut infra.restart),
        cgroup_parent: infra.cgroup_parent.take(),
        id_file: absolute(container.podman.pod_id_file.as_ref())?,
        infra: own.infra.then_some(infra),
    };
    let pod = engine.create_pod(&request)?;
    if let Some(path) = &request.id_file {
        std::fs::write(path, pod.id.as_str())
            .map_err(|error| CliError::plain(format!("write the pod's ID to {}: {error}", path.display())))?;
    }
    say_line(pod.id.as_str())?;
    Ok(ExitCode::SUCCESS)
}

/// How the file of hosts is written that the containers share.
fn names() -> Result<Option<Names>, CliError> {
    if !crate::dialect::spoken().is_podman() {
        return Ok(None);
    }
    let conf = crate::containers_conf::ContainersConf::usual()?;
    Ok(Some(conf.names()?))
}

/// A flag that only a container can have is refused by its name.
fn refuse_others(matches: &ArgMatches) -> Result<(), CliError> {
    let own = PodFlags::augment_args(Command::new("pod"));
    for id in matches.ids() {
        let name = id.as_str();
        // The name of a group of flags is that of its type.
        let group = name.starts_with(|c: char| c.is_ascii_uppercase());
        let known =
            SHARED.contains(&name) || name == "words" || own.get_arguments().any(|arg| arg.get_id() == id);
        let given = !group && matches.value_source(name) == Some(ValueSource::CommandLine);
        if given && !known && name != "root" {
            let flag = name.replace('_', "-");
            let message = format!("unexpected argument '--{flag}' found: it is for a container of the pod");
            return Err(CliError::plain(message).with_code(125));
        }
    }
    Ok(())
}

fn shares(text: &str) -> Result<Vec<PodShare>, CliError> {
    let usual = [PodShare::Ipc, PodShare::Net, PodShare::Uts];
    let (more, text) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
    let mut all = if more { usual.to_vec() } else { Vec::new() };
    for word in text.split(',').filter(|word| !word.is_empty() && *word != "none") {
        let share = PodShare::ALL.into_iter().find(|share| share.as_str() == word);
        let share = share.ok_or_else(|| {
            CliError::plain(format!(
                "invalid kernel namespace to share: {word}. Options are: cgroup, ipc, net, pid, uts or none"
            ))
            .with_code(125)
        })?;
        all.push(share);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn exit_policy(text: &str) -> Result<ExitPolicy, CliError> {
    match text {
        "continue" | "" => Ok(ExitPolicy::Continue),
        "stop" => Ok(ExitPolicy::Stop),
        _ => {
            let message = format!("running pod create option: invalid pod exit policy: {text:?}");
            Err(CliError::plain(message).with_code(125))
        }
    }
}

/// Lets a container that is asked for belong to the pod of `--pod`; `new:NAME` makes that, with the network and the names
/// that the container was to have. The pod that was made is given back, for who fails to create the container.
pub(crate) fn join(
    engine: &Engine,
    wanted: &mut CreateContainer,
    pod: &str,
) -> Result<Option<Pod>, CliError> {
    let Some(name) = pod.strip_prefix("new:") else {
        engine.join_pod(wanted, &engine.pod(pod)?)?;
        return Ok(None);
    };
    let infra = CreateContainer {
        hostname: wanted.hostname.take(),
        ports: std::mem::take(&mut wanted.ports),
        networks: std::mem::take(&mut wanted.networks),
        dns: std::mem::take(&mut wanted.dns),
        dns_search: std::mem::take(&mut wanted.dns_search),
        dns_options: std::mem::take(&mut wanted.dns_options),
        extra_hosts: std::mem::take(&mut wanted.extra_hosts),
        extras: Extras {
            names: names()?,
            ..Extras::default()
        },
        ..CreateContainer::default()
    };
    let made = engine.create_pod(&PodRequest {
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        share: shares("ipc,net,uts")?,
        infra: Some(infra),
        limits: Limits::default(),
        restart: RestartPolicy::No,
        ..PodRequest::default()
    })?;
    match engine.join_pod(wanted, &made) {
        Ok(()) => Ok(Some(made)),
        Err(error) => {
            forget(engine, &made);
            Err(error.into())
        }
    }
}

/// Takes a pod away that was made for a container that there is not.
pub(crate) fn forget(engine: &Engine, pod: &Pod) {
    match engine.remove_pod(pod, true, None) {
        // What went wrong with the container is what the person needs to hear.
        Ok(()) | Err(_) => debug_assert!(
            engine
                .pod(pod.id.as_str())
                .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        ),
    }
}
