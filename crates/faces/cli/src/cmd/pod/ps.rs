//! `pod ps`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::Container;
use dhow_engine::{Engine, Pod};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::flags::Filters;
use crate::render::table::ellipsis;
use crate::render::{Fields, Look, Row, say, time};
use crate::view::labels;
use crate::{CliError, Context, Verb};

pub(crate) const LS: Verb = Verb {
    name: "ps",
    about: "List pods",
    flags: |command| PsFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct PsFlags {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long, allow_hyphen_values = true)]
    format: Option<String>,
    /// Show the latest created pod
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show the table without its headers
    #[arg(short, long)]
    noheading: bool,
    /// Only display pod IDs
    #[arg(short, long)]
    quiet: bool,
    /// Also show the names of the containers
    #[arg(long)]
    ctr_names: bool,
    /// Also show the IDs of the containers
    #[arg(long)]
    ctr_ids: bool,
    /// Also show how the containers stand
    #[arg(long)]
    ctr_status: bool,
    /// Sort by this instead of by age, newest first
    #[arg(long, value_name = "FIELD", value_parser = ["created", "id", "name", "number", "status"])]
    sort: Option<String>,
}

const FIELDS: Fields = &[
    ("ID", "POD ID"),
    ("Name", "NAME"),
    ("Status", "STATUS"),
    ("Created", "CREATED"),
    ("InfraID", "INFRA ID"),
    ("NumberOfContainers", "# OF CONTAINERS"),
    ("ContainerIds", "IDS"),
    ("ContainerNames", "NAMES"),
    ("ContainerStatuses", "STATUS"),
    ("Labels", "LABELS"),
    ("Networks", "NETWORKS"),
    ("Cgroup", "CGROUP"),
    ("Namespace", "NAMESPACE"),
];

const FILTERS: [&str; 10] = [
    "ctr-ids",
    "ctr-names",
    "ctr-number",
    "ctr-status",
    "id",
    "label",
    "label!",
    "name",
    "network",
    "status",
];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PsFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &FILTERS)?;
    let engine = context.engine()?;
    let mut pods = chosen(engine, &filters)?;
    match flags.sort.as_deref() {
        None => {}
        Some("created") => pods.sort_by(|(a, _), (b, _)| a.created.cmp(&b.created)),
        Some("id") => pods.sort_by(|(a, _), (b, _)| a.id.as_str().cmp(b.id.as_str())),
        Some("name") => pods.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name)),
        Some("number") => pods.sort_by_key(|(_, containers)| containers.len()),
        Some(_) => pods.sort_by_key(|(_, containers)| Pod::status(containers)),
    }
    if flags.latest {
        pods.truncate(1);
    }
    let now = Timestamp::now();
    let rows: Vec<Row> = pods
        .iter()
        .map(|(pod, containers)| row(pod, containers, now, flags.no_trunc))
        .collect();
    let mut table = vec!["ID", "Name", "Status", "Created", "InfraID", "NumberOfContainers"];
    for (asked, column) in [
        (flags.ctr_ids, "ContainerIds"),
        (flags.ctr_names, "ContainerNames"),
        (flags.ctr_status, "ContainerStatuses"),
    ] {
        if asked {
            table.push(column);
        }
    }
    let look = Look {
        fields: FIELDS,
        table: &table,
        format: flags.format.as_deref(),
        quiet: flags.quiet.then_some("ID"),
        bare: flags.noheading,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The pods that the filters let through, each with its containers.
fn chosen(engine: &Engine, filters: &Filters) -> Result<Vec<(Pod, Vec<Container>)>, CliError> {
    let (names, members) = (filters.names()?, filters.patterns("ctr-names")?);
    let mut found = Vec::new();
    for pod in engine.pods()? {
        let containers = engine.pod_containers(&pod)?;
        let any = |fits: &dyn Fn(&Container) -> bool| containers.iter().any(fits);
        let passes = filters.has_id(pod.id.as_str())
            && names.fit(&pod.name)
            && filters.any("status", |status| {
                Pod::status(&containers).eq_ignore_ascii_case(status)
            })
            && (!filters.has("ctr-ids") || any(&|one| filters.has_id_of("ctr-ids", one.config.id.as_str())))
            && (!filters.has("ctr-names") || any(&|one| members.fit(&one.config.name)))
            && filters.any("ctr-number", |number| number.parse() == Ok(containers.len()))
            && filters.any("ctr-status", |status| {
                any(&|one| one.state.status.as_str() == status)
            })
            && filters.any("network", |name| {
                any(&|one| {
                    crate::view::container::networks(&one.config.network, &one.config.networks)
                        .iter()
                        .any(|network| network == name)
                })
            })
            && filters.labels(|name| pod.labels.get(name));
        if passes {
            found.push((pod, containers));
        }
    }
    Ok(found)
}

fn row(pod: &Pod, containers: &[Container], now: Timestamp, whole: bool) -> Row {
    let short = |id: &dhow_types::ContainerId| if whole { id.as_str() } else { id.short() }.to_owned();
    let created = time::parse(&pod.created);
    let joined =
        |text: &dyn Fn(&Container) -> String| containers.iter().map(text).collect::<Vec<_>>().join(",");
    let networks: Vec<String> = containers
        .iter()
        .find(|one| pod.infra.as_ref() == Some(&one.config.id))
        .map(|one| crate::view::container::networks(&one.config.network, &one.config.networks))
        .unwrap_or_default();
    let cut = |text: String| if whole { text } else { ellipsis(&text, 60) };
    Row::new([
        ("ID", short(&pod.id).into()),
        ("Name", pod.name.as_str().into()),
        ("Status", Pod::status(containers).into()),
        (
            "Created",
            created
                .map_or_else(String::new, |then| format!("{} ago", time::since(then, now)))
                .into(),
        ),
        (
            "InfraID",
            pod.infra.as_ref().map_or_else(String::new, short).into(),
        ),
        ("NumberOfContainers", containers.len().to_string().into()),
        ("ContainerIds", cut(joined(&|one| short(&one.config.id))).into()),
        (
            "ContainerNames",
            cut(joined(&|one| one.config.name.clone())).into(),
        ),
        (
            "ContainerStatuses",
            joined(&|one| one.state.status.as_str().to_owned()).into(),
        ),
        ("Labels", labels(&pod.labels).into()),
        ("Networks", networks.join(",").into()),
        ("Cgroup", pod.cgroup.as_str().into()),
        ("Namespace", "".into()),
    ])
    .with_labels(&pod.labels)
    .with_document(document(pod, containers, &networks, &short(&pod.id)))
}

/// A pod of `pod ps` (podman `entities.ListPodsReport`).
fn document(pod: &Pod, containers: &[Container], networks: &[String], shown: &str) -> Value {
    let members: Vec<Value> = containers
        .iter()
        .map(|one| {
            json!({
                "Id": one.config.id.as_str(),
                "Names": one.config.name,
                "Status": one.state.status.as_str(),
                "RestartCount": one.state.restart_count,
            })
        })
        .collect();
    json!({
        "Cgroup": pod.cgroup,
        "Containers": members,
        "Created": pod.created,
        "Id": shown,
        "ID": shown,
        "InfraId": pod.infra.as_ref().map_or("", |id| id.as_str()),
        "Name": pod.name,
        "Namespace": "",
        "Networks": networks,
        "Status": Pod::status(containers),
        "Labels": pod.labels,
    })
}
