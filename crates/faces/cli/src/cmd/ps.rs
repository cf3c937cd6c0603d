//! `ps`, `container ls`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::{Listed, Status};
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::{Look, Row, say};
use crate::view::{container as view, podman};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "ps",
    about: "List containers",
    flags: |command| PsFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct PsFlags {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long, allow_hyphen_values = true)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "-1",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show the table without its headers
    #[arg(long)]
    noheading: bool,
    /// Sort by this instead of by age, newest first
    #[arg(long, value_name = "FIELD", value_parser = ["command", "created", "id", "image", "names", "runningfor", "size", "status"])]
    sort: Option<String>,
    /// Also show the pods that they belong to
    #[arg(short, long)]
    pod: bool,
    /// Also what other programs keep here: there is nothing of that kind
    #[arg(long)]
    external: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    /// Show the list again every so many seconds; on a terminal in place of the last one
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

const FILTERS: [&str; 18] = [
    "pod",
    "command",
    "restart-policy",
    "until",
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What the filter `status` knows.
const STATUSES: [&str; 8] = [
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "stopped",
    "dead",
];

/// All containers that these filters let through.
pub(super) fn filtered(context: &Context, filters: &[String]) -> Result<Vec<Listed>, CliError> {
    chosen(context, &Filters::parse(filters, &FILTERS)?, true)
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PsFlags = crate::flags::read(matches)?;
    let Some(seconds) = flags.watch else {
        say(&list(context, &flags)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let lively = crate::terminal::is_lively_output();
    if lively {
        say("\x1b[2J")?;
    }
    loop {
        let text = list(context, &flags)?;
        // Home, then each line cleared to its end, then what is below.
        say(&match lively {
            true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
            false => text,
        })?;
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// The list as it is now.
fn list(context: &Context, flags: &PsFlags) -> Result<String, CliError> {
    let filters = Filters::parse(&flags.filter, &FILTERS)?;
    let limit = if flags.latest {
        1
    } else {
        usize::try_from(flags.last).unwrap_or(0)
    };
    let mut containers = chosen(context, &filters, flags.all || limit > 0)?;
    if let Some(field) = &flags.sort {
        sort(context, &mut containers, field);
    }
    if limit > 0 {
        containers.truncate(limit);
    }
    let now = Timestamp::now();
    let sizes = flags.size
        || flags
            .format
            .as_ref()
            .is_some_and(|format| format.contains(".Size"));
    let mut pods = Pods::default();
    let mut table = view::TABLE.to_vec();
    if flags.size {
        table.push("Size");
    }
    // A format may ask for any field; the others are not made.
    let wanted = match (&flags.format, flags.quiet) {
        (Some(_), _) => view::own_fields(),
        (None, true) => vec!["ID"],
        (None, false) => table.clone(),
    };
    let mut rows = Vec::with_capacity(containers.len());
    for container in &containers {
        let size = if sizes {
            Some(size(context, container)?)
        } else {
            None
        };
        let row = view::row(container, &wanted, now, flags.no_trunc, size);
        let row = match &container.config.extras.pod {
            Some(id) => pods.of(context, container, id, flags.no_trunc)?.put(row),
            None if dialect::spoken().is_podman() => {
                row.with_field("Pod", "".into()).with_field("PodName", "".into())
            }
            None => row,
        };
        rows.push(if dialect::spoken().is_podman() && flags.format.is_some() {
            row.with_document(podman::container(container, now))
        } else {
            row
        });
    }
    if flags.pod {
        let size = table.split_off(view::TABLE.len());
        table.extend(["Pod", "PodName"]);
        table.extend(size);
    }
    let look = Look {
        fields: view::FIELDS,
        table: &table,
        format: flags.format.as_deref(),
        quiet: flags.quiet.then_some("ID"),
        bare: flags.noheading,
    };
    let shown = look.show(&rows);
    if flags.watch.is_none() {
        // The process ends with this: what a thousand containers hold is not given back piece by piece.
        std::mem::forget((rows, containers));
    }
    shown
}

/// What a row has of its container's pod.
struct PodFields {
    id: String,
    name: String,
    ports: Option<String>,
}

impl PodFields {
    fn put(self, row: Row) -> Row {
        let row = row
            .with_field("Pod", self.id.into())
            .with_field("PodName", self.name.into());
        match self.ports {
            Some(ports) => row.with_field("Ports", ports.into()),
            None => row,
        }
    }
}

/// The pods, read when the first container of one is shown.
#[derive(Default)]
struct Pods(Option<Vec<dhow_engine::Pod>>);

impl Pods {
    /// Who shares its pod's network is reached by the ports that the pod publishes.
    fn of(
        &mut self,
        context: &Context,
        container: &Listed,
        id: &str,
        whole: bool,
    ) -> Result<PodFields, CliError> {
        let engine = context.engine()?;
        if self.0.is_none() {
            self.0 = Some(engine.pods()?);
        }
        let pod = self.0.iter().flatten().find(|pod| pod.id.as_str() == id);
        let infra = pod.and_then(|pod| pod.infra.as_ref());
        let infra = infra.filter(|_| dhow_engine::shares_network(container));
        let ports = infra.and_then(|infra| engine.containers().find(infra.as_str()).ok());
        Ok(PodFields {
            id: if whole { id } else { &id[..id.len().min(12)] }.to_owned(),
            name: pod.map_or_else(String::new, |pod| pod.name.clone()),
            ports: ports.map(|infra| crate::view::port::displayed(&(&infra).into())),
        })
    }
}

/// Puts them in podman's order by a field.
fn sort(context: &Context, containers: &mut [Listed], field: &str) {
    match field {
        "command" => containers.sort_by(|a, b| a.config.command.cmp(&b.config.command)),
        // Times of one form sort as texts.
        "created" | "runningfor" => containers.sort_by(|a, b| a.config.created.cmp(&b.config.created)),
        "id" => containers.sort_by(|a, b| a.config.id.as_str().cmp(b.config.id.as_str())),
        "image" => containers.sort_by(|a, b| a.config.image_name.cmp(&b.config.image_name)),
        "names" => containers.sort_by(|a, b| a.config.name.cmp(&b.config.name)),
        "size" => containers.sort_by_cached_key(|one| size(context, one).map_or(0, |(own, _)| own)),
        _ => containers.sort_by_key(|one| one.state.status.as_str()),
    }
}

/// Bytes of the container's own changes and of its image.
pub(super) fn size(context: &Context, container: &Listed) -> Result<(u64, u64), CliError> {
    let engine = context.engine()?;
    let own = engine.container_size(&container.config.id);
    // An image that was removed by force has no size any more.
    let image = engine
        .image(&container.config.image.to_string())
        .map_or(0, |image| image.record.size);
    Ok((own, image))
}

/// The containers that the filters let through, newest first.
fn chosen(context: &Context, filters: &Filters, all: bool) -> Result<Vec<Listed>, CliError> {
    let engine = context.engine()?;
    let all = all || filters.has("status") || filters.has("exited");
    known(filters, "status", &STATUSES)?;
    known(filters, "health", &["starting", "healthy", "unhealthy", "none"])?;
    let policies = ["no", "none", "always", "unless-stopped", "on-failure"];
    if let Some(word) = filters
        .values("restart-policy")
        .find(|word| !policies.contains(word))
    {
        return Err(CliError::plain(format!("{word} invalid restart policy")));
    }
    let until = super::until(filters)?;
    let exits = filters.values("exited").map(|text| {
        text.parse::<i32>()
            .map_err(|_| CliError::plain(format!("invalid filter 'exited={text}': it is a number")))
    });
    let exits: Vec<i32> = exits.collect::<Result<_, _>>()?;
    let names = filters.names()?;
    let created = |name: &str| -> Result<Vec<String>, CliError> {
        filters
            .values(name)
            .map(|wanted| Ok(engine.containers().find(wanted)?.config.created))
            .collect()
    };
    let (before, since) = (created("before")?, created("since")?);
    // Only this filter opens the images.
    let mut ancestors = Vec::new();
    for name in filters.values("ancestor") {
        ancestors.push((name, named(engine, name)));
    }
    let pods = if filters.has("pod") {
        engine.pods()?
    } else {
        Vec::new()
    };
    let mut containers = engine.containers().brief()?;
    containers.retain(|container| {
        let config = &container.config;
        let status = container.state.status;
        (all || view::is_up(status))
            && filters.has_id(config.id.as_str())
            && names.fit(&config.name)
            && filters.labels(|name| config.labels.get(name))
            // Podman's stopped is docker's exited.
            && filters.any("status", |word| {
                word == status.as_str() || word == "stopped" && status == Status::Exited
            })
            && filters.any("command", |word| config.command.first().is_some_and(|first| first == word))
            && filters.any("restart-policy", |word| {
                restart_word(config.restart) == word || word == "none" && restart_word(config.restart) == "no"
            })
            && until.is_none_or(|moment| created_before(config, moment))
            && filters.any("health", |word| word == view::health(container))
            && (exits.is_empty() || status == Status::Exited && exits.contains(&container.state.exit_code))
            && filters.any("pod", |wanted| pods.iter().any(|pod| {
                (pod.name == wanted || pod.id.as_str().starts_with(wanted))
                    && config.extras.pod.as_deref() == Some(pod.id.as_str())
            }))
            && filters.any("network", |wanted| on_network(container, wanted))
            && filters.any("volume", |wanted| mounts(container, wanted))
            && filters.any("publish", |port| publishes(container, port))
            && filters.any("expose", |port| exposes(container, port))
            && before.iter().all(|moment| config.created < *moment)
            && since.iter().all(|moment| config.created > *moment)
            && (ancestors.is_empty()
                || ancestors
                    .iter()
                    .any(|(name, images)| is_of(container, name, images)))
    });
    Ok(containers)
}

const fn restart_word(policy: dhow_engine::RestartPolicy) -> &'static str {
    use dhow_engine::RestartPolicy;
    match policy {
        RestartPolicy::No => "no",
        RestartPolicy::Always => "always",
        RestartPolicy::UnlessStopped => "unless-stopped",
        RestartPolicy::OnFailure(_) => "on-failure",
    }
}

fn created_before(config: &dhow_engine::container::Brief, moment: i64) -> bool {
    crate::render::time::parse(&config.created).is_some_and(|created| created.as_second() < moment)
}

fn known(filters: &Filters, name: &str, words: &[&str]) -> Result<(), CliError> {
    match filters.values(name).find(|value| !words.contains(value)) {
        None => Ok(()),
        Some(value) => Err(CliError::plain(format!("invalid filter '{name}={value}'"))
            .with_hint(format!("known here: {}", words.join(", ")))),
    }
}

fn on_network(container: &Listed, wanted: &str) -> bool {
    view::networks(&container.config.network, &container.config.networks)
        .iter()
        .any(|name| name == wanted)
        || container
            .state
            .endpoints
            .iter()
            .any(|endpoint| endpoint.network_id.as_str().starts_with(wanted))
}

fn mounts(container: &Listed, wanted: &str) -> bool {
    container.config.mounts.iter().any(|mount| {
        mount.destination == wanted || mount.name.as_deref() == Some(wanted) || mount.source == wanted
    })
}

fn publishes(container: &Listed, wanted: &str) -> bool {
    let mut ports = container.config.ports.iter();
    ports.any(|port| same_port(wanted, port.container_port, &port.protocol.to_string()))
}

fn exposes(container: &Listed, wanted: &str) -> bool {
    let mut ports = container
        .config
        .exposed
        .iter()
        .filter_map(|port| port.split_once('/'));
    ports.any(|(number, protocol)| {
        number
            .parse()
            .is_ok_and(|number| same_port(wanted, number, protocol))
    })
}

fn same_port(wanted: &str, number: u16, protocol: &str) -> bool {
    let (ports, kind) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let within = first.parse().is_ok_and(|first: u16| first <= number)
        && last.parse().is_ok_and(|last: u16| number <= last);
    within && kind == protocol
}

/// The images that a name has here, for whichever machine; of an ID the one.
fn named(engine: &dhow_engine::Engine, name: &str) -> Vec<dhow_engine::Image> {
    let Ok(image) = engine.image(name) else {
        return Vec::new();
    };
    let is_id = is_id_of(&image.id, name);
    let variants = (!is_id).then(|| engine.variants(&image).unwrap_or_default());
    let others = variants.into_iter().flatten().filter_map(|variant| variant.image);
    let others: Vec<_> = others
        .filter(|id| *id != image.id)
        .filter_map(|id| engine.image(&id.to_string()).ok())
        .collect();
    std::iter::once(image).chain(others).collect()
}

fn is_id_of(image: &dhow_types::ImageId, text: &str) -> bool {
    image.hex().starts_with(text.trim_start_matches("sha256:"))
}

/// Whether a container is of one of these images, or of one built on it.
fn is_of(container: &Listed, name: &str, images: &[dhow_engine::Image]) -> bool {
    let config = &container.config;
    if config.image_name == name || is_id_of(&config.image, name) {
        return true;
    }
    images.iter().any(|image| {
        image.id == config.image
            || !image.record.layers.is_empty() && config.layers.starts_with(&image.record.layers)
    })
}
