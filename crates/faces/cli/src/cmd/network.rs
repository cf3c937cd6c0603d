//! The verbs of `network`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::ConnectRequest;
use dhow_engine::{CreateNetwork, Engine, Network, SubnetRequest};
use dhow_types::ErrorKind;

use crate::flags::{Filters, key_value, labels};
use crate::render::{Look, note, say, say_line};
use crate::view::{network as view, podman};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Create a network",
    flags: |command| CreateFlags::augment_args(command),
    run: create,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List networks",
    flags: |command| LsFlags::augment_args(command),
    run: ls,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Remove one or more networks",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

pub(crate) const CONNECT: Verb = Verb {
    name: "connect",
    about: "Connect a container to a network",
    flags: |command| ConnectFlags::augment_args(command),
    run: connect,
};

pub(crate) const DISCONNECT: Verb = Verb {
    name: "disconnect",
    about: "Disconnect a container from a network",
    flags: |command| DisconnectFlags::augment_args(command),
    run: disconnect,
};

pub(crate) const PRUNE: Verb = Verb {
    name: "prune",
    about: "Remove all unused networks",
    flags: |command| PruneFlags::augment_args(command),
    run: prune,
};

pub(crate) const OPENINGS: Verb = Verb {
    name: "openings",
    about: "List the ports of the host that lead to containers, and whether its input rules guard them",
    flags: |command| OpeningFlags::augment_args(command),
    run: openings,
};

pub(crate) const RELOAD: Verb = Verb {
    name: "reload",
    about: "Write the packet filter's rules for one or more containers again, where they are gone",
    flags: |command| ReloadFlags::augment_args(command),
    run: reload,
};

#[derive(Args, Debug)]
struct OpeningFlags {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long, allow_hyphen_values = true)]
    format: Option<String>,
}

const OPENING_FIELDS: crate::render::Fields = &[
    ("Host", "HOST"),
    ("Container", "CONTAINER"),
    ("Port", "PORT"),
    ("Network", "NETWORK"),
    ("Firewall", "HOST'S INPUT RULES"),
];

fn openings(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: OpeningFlags = crate::flags::read(matches)?;
    let rows: Vec<_> = context
        .engine()?
        .openings()?
        .into_iter()
        .map(|opening| {
            let port = &opening.port;
            let host = crate::view::port::joined(port.host_ip, &port.host_port.to_string());
            crate::render::Row::new([
                ("Host", host.into()),
                ("Container", opening.container.into()),
                (
                    "Port",
                    format!("{}/{}", port.container_port, port.protocol).into(),
                ),
                ("Network", dialect::spoken().network_name(&opening.network).into()),
                (
                    "Firewall",
                    if opening.filtered { "obeyed" } else { "passed by" }.into(),
                ),
            ])
        })
        .collect();
    let look = Look {
        fields: OPENING_FIELDS,
        table: &["Host", "Container", "Port", "Network", "Firewall"],
        format: flags.format.as_deref(),
        ..Look::default()
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct CreateFlags {
    /// Driver to manage the network
    #[arg(short, long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// IPv4 or IPv6 gateway for the subnet
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Enable IPv6 networking: so it is for a bridge without --subnet where the host has IPv6, unless this is false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary addresses of the network, given to no container
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Do not resolve the names of containers
    #[arg(long)]
    disable_dns: bool,
    /// A name server for what the network's own names do not answer, instead of the host's
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        conflicts_with = "disable_dns"
    )]
    dns: Vec<std::net::IpAddr>,
    /// Name of the bridge device, or of the host's interface
    #[arg(long, value_name = "NAME")]
    interface_name: Option<String>,
    /// IP address management driver: default
    #[arg(long, value_name = "DRIVER", value_parser = ["default", "host-local"])]
    ipam_driver: Option<String>,
    /// Do not fail if the network exists
    #[arg(long)]
    ignore: bool,
    /// Set metadata on a network
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CreateFlags = crate::flags::read(matches)?;
    let is_bridge = flags
        .driver
        .as_deref()
        .is_none_or(|driver| matches!(driver, "" | "default" | "bridge"));
    let wanted = CreateNetwork {
        name: flags.name.clone(),
        driver: flags.driver.clone(),
        subnets: subnets(&flags)?,
        internal: flags.internal,
        ipv6: match flags.ipv6 {
            None if is_bridge && flags.subnet.is_empty() => usual_ipv6(&context.environment.daemon_files())?,
            said => said,
        },
        attachable: flags.attachable,
        nameless: flags.disable_dns,
        dns: flags.dns.clone(),
        interface: flags.interface_name.clone(),
        labels: labels(&flags.label, &[])?,
        options: flags.opt.iter().map(|option| key_value(option)).collect(),
    };
    let podman = dialect::spoken().is_podman();
    match context.engine()?.create_network(&wanted) {
        Err(error) if flags.ignore && error.kind() == ErrorKind::AlreadyExists => {
            say_line(&flags.name)?;
        }
        created => say_line(
            match created? {
                network if podman => network.name,
                network => network.id.as_str().to_owned(),
            }
            .as_str(),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What docker's `daemon.json` says of IPv6 in new bridges: `default-network-opts`, `bridge`, this option.
fn usual_ipv6(files: &[std::path::PathBuf]) -> Result<Option<bool>, CliError> {
    use std::io::Read as _;
    const OPTION: &str = "com.docker.network.enable_ipv6";
    const MOST: u64 = 1 << 20;
    let Some((path, file)) = files
        .iter()
        .find_map(|path| Some((path, std::fs::File::open(path).ok()?)))
    else {
        return Ok(None);
    };
    let bad = |why: String| CliError::plain(format!("{}: {why}", path.display()));
    let mut text = String::new();
    file.take(MOST)
        .read_to_string(&mut text)
        .map_err(|error| bad(error.to_string()))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let document: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    match &document["default-network-opts"]["bridge"][OPTION] {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::String(word) if matches!(word.as_str(), "true" | "1") => Ok(Some(true)),
        serde_json::Value::String(word) if matches!(word.as_str(), "false" | "0") => Ok(Some(false)),
        other => Err(bad(format!("{OPTION} is {other}: write \"true\" or \"false\""))),
    }
}

/// A gateway and a range belong to the subnet of their own family.
fn subnets(flags: &CreateFlags) -> Result<Vec<SubnetRequest>, CliError> {
    let bad = |flag: &str, text: &str| CliError::plain(format!("invalid --{flag} {text:?}"));
    let mut subnets = Vec::new();
    for text in &flags.subnet {
        let subnet = text
            .parse()
            .map_err(|_| bad("subnet", text).with_hint("write 172.28.0.0/16"))?;
        subnets.push(SubnetRequest {
            subnet: Some(subnet),
            ..SubnetRequest::default()
        });
    }
    let find = |subnets: &mut Vec<SubnetRequest>, v4: bool| {
        subnets
            .iter()
            .position(|request| request.subnet.is_some_and(|subnet| subnet.addr().is_ipv4() == v4))
    };
    for text in &flags.gateway {
        let gateway: std::net::IpAddr = text.parse().map_err(|_| bad("gateway", text))?;
        let at = find(&mut subnets, gateway.is_ipv4())
            .ok_or_else(|| bad("gateway", text).with_hint("give its --subnet"))?;
        subnets[at].gateway = Some(gateway);
    }
    for text in &flags.ip_range {
        let v4 = !text.contains(':');
        let at =
            find(&mut subnets, v4).ok_or_else(|| bad("ip-range", text).with_hint("give its --subnet"))?;
        subnets[at].ip_range = Some(text.parse().map_err(|_| bad("ip-range", text))?);
    }
    for text in &flags.aux_address {
        let parsed = text
            .split_once('=')
            .and_then(|(name, ip)| Some((name.to_owned(), ip.parse::<std::net::IpAddr>().ok()?)));
        let (name, ip) =
            parsed.ok_or_else(|| bad("aux-address", text).with_hint("write router=172.28.0.5"))?;
        let at = find(&mut subnets, ip.is_ipv4())
            .ok_or_else(|| bad("aux-address", text).with_hint("give its --subnet"))?;
        subnets[at].reserved.insert(name, ip);
    }
    Ok(subnets)
}

#[derive(Args, Debug)]
struct LsFlags {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Show the table without its headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LsFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(
        &flags.filter,
        &[
            "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
        ],
    )?;
    let names = filters.names()?;
    let engine = context.engine()?;
    let dangling = filters.flag("dangling")?;
    let mut networks = engine.list_networks()?;
    if dialect::spoken().is_podman() {
        // Host and none are no networks of its, and its own list of old describes what `bridge` is here.
        networks.retain(|network| {
            let of_old = network.name == "podman" && network.driver.to_string() == "cni";
            let hidden = of_old || matches!(network.name.as_str(), "host" | "none");
            !hidden
        });
        networks.sort_by(|a, b| shown(a).cmp(shown(b)));
    }
    if let Some(dangling) = dangling {
        let mut kept = Vec::new();
        for network in networks {
            let used = network.is_predefined() || !engine.network(&network.name)?.endpoints.is_empty();
            if used != dangling {
                kept.push(network);
            }
        }
        networks = kept;
    }
    let rows: Vec<_> = networks
        .iter()
        .filter(|network| {
            filters.any("driver", |driver| network.driver.to_string() == driver)
                && filters.has_id(network.id.as_str())
                && names.fit(shown(network))
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| (kind == "builtin") == network.is_predefined())
                && filters.labels(|name| network.labels.get(name))
        })
        .map(|network| {
            let row = view::row(network, flags.no_trunc);
            if dialect::spoken().is_podman() {
                row.with_document(podman::network(network))
            } else {
                row
            }
        })
        .collect();
    let podman = dialect::spoken().is_podman();
    let quiet = flags.quiet.then_some(if podman { "Name" } else { "ID" });
    let look = Look {
        fields: view::FIELDS,
        table: if podman {
            &view::PODMAN_TABLE[..]
        } else {
            &view::TABLE
        },
        format: flags.format.as_deref(),
        quiet,
        bare: flags.noheading,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(network: &Network) -> &str {
    dialect::spoken().network_name(&network.name)
}

#[derive(Args, Debug)]
struct RmFlags {
    /// Do not error if the network does not exist; called podman, remove the containers that are on it, too
    #[arg(short, long)]
    force: bool,
    /// Seconds that a container gets to stop, with --force
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        allow_hyphen_values = true,
        requires = "force"
    )]
    time: Option<i64>,
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let dialect = dialect::spoken();
    super::each(&flags.networks, |name| {
        let network = dialect.network(name);
        if flags.force && dialect.is_podman() {
            let grace = flags
                .time
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs);
            remove_containers_on(engine, network, grace)?;
        }
        match engine.remove_network(network) {
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(dialect.not_removed(error)),
            Ok(_) => say_line(name),
        }
    })
}

/// Podman's `--force`: who is on the network goes first.
fn remove_containers_on(engine: &Engine, network: &str, grace: Option<Duration>) -> Result<(), CliError> {
    let found = match engine.network(network) {
        // The removal of the network says what is to be said of these two.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.network.is_predefined() => return Ok(()),
        found => found?,
    };
    let name = &found.network.name;
    for container in engine.containers().list()? {
        let config = &container.config;
        if config
            .networks
            .iter()
            .any(|attachment| attachment.network == *name)
        {
            if container.state.pid != 0 {
                engine.stop(config.id.as_str(), None, grace)?;
            }
            engine.remove_container(config.id.as_str(), true, true)?;
        }
    }
    Ok(())
}

#[derive(Args, Debug)]
struct ReloadFlags {
    /// The networks of all containers that run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn reload(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ReloadFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = if flags.all {
        let all = engine.containers().list()?.into_iter();
        all.filter(|one| one.state.pid != 0)
            .map(|one| one.config.id.to_string())
            .collect()
    } else {
        flags.containers
    };
    super::each(&names, |name| {
        let container = engine.containers().find(name)?;
        if container.state.pid == 0 {
            return Err(CliError::plain(format!("container {name} is not running")));
        }
        engine.repair_rules()?;
        say_line(container.config.id.as_str())
    })
}

#[derive(Args, Debug)]
struct ConnectFlags {
    /// Add network-scoped alias for the container
    #[arg(long)]
    alias: Vec<String>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long)]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long)]
    ip6: Option<std::net::Ipv6Addr>,
    /// MAC address (e.g., "02:42:ac:11:00:02")
    #[arg(long)]
    mac_address: Option<String>,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn connect(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ConnectFlags = crate::flags::read(matches)?;
    let request = ConnectRequest {
        network: dialect::spoken().network(&flags.network).to_owned(),
        container: flags.container,
        aliases: flags.alias,
        ip: flags.ip,
        ip6: flags.ip6,
        mac: flags.mac_address,
    };
    if let Some(warning) = context.engine()?.connect_network(&request)? {
        note(&format!("WARNING: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct DisconnectFlags {
    /// Disconnect also from a network that is gone
    #[arg(short, long)]
    force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn disconnect(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DisconnectFlags = crate::flags::read(matches)?;
    context.engine()?.disconnect_network(
        dialect::spoken().network(&flags.network),
        &flags.container,
        flags.force,
    )?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct PruneFlags {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

fn prune(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PruneFlags = crate::flags::read(matches)?;
    let warning = "This will remove all custom networks not used by at least one container.";
    if super::confirm::confirmed(warning, flags.force)? {
        let removed = context.engine()?.prune_networks(!dialect::spoken().is_podman())?;
        say(&super::listed("Deleted Networks:", &removed))?;
    }
    Ok(ExitCode::SUCCESS)
}
