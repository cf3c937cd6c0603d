//! `system df`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::SystemUsage;
use dhow_types::human_size;
use jiff::Timestamp;

use crate::render::{Fields, Look, Row, say, table, time};
use crate::view::{container, image};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "df",
    about: "Show disk usage",
    flags: |command| DfFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct DfFlags {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long, conflicts_with = "verbose")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

const FIELDS: Fields = &[
    ("Active", "ACTIVE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

const TABLE: [&str; 5] = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DfFlags = crate::flags::read(matches)?;
    let usage = context.engine()?.disk_usage()?;
    if flags.verbose {
        say(&verbose(&usage, Timestamp::now()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: flags.format.as_deref(),
        quiet: None,
        ..Look::default()
    };
    say(&look.show(&rows(&usage))?)?;
    Ok(ExitCode::SUCCESS)
}

/// The usual table.
#[cfg(test)]
pub(crate) fn shown(usage: &SystemUsage) -> String {
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: None,
        quiet: None,
        ..Look::default()
    };
    look.show(&rows(usage)).unwrap()
}

/// Docker's four lines (docker/cli `formatter/disk_usage.go`).
pub(crate) fn rows(usage: &SystemUsage) -> [Row; 4] {
    let active = |container: &dhow_engine::container::Container| container::is_up(container.state.status);
    let container_bytes = usage.containers.iter().map(|(_, size)| size).sum();
    let idle = usage
        .containers
        .iter()
        .filter(|(container, _)| !active(container))
        .map(|(_, size)| size)
        .sum();
    let volume_bytes = usage.volumes.iter().map(|(_, size, _)| size).sum();
    let unused = usage
        .volumes
        .iter()
        .filter(|(_, _, users)| *users == 0)
        .map(|(_, size, _)| size)
        .sum();
    [
        row(
            "Images",
            usage.images.images.len(),
            usage
                .images
                .images
                .iter()
                .filter(|image| image.containers > 0)
                .count(),
            usage.images.layers_total,
            usage.images.reclaimable,
        ),
        row(
            "Containers",
            usage.containers.len(),
            usage
                .containers
                .iter()
                .filter(|(container, _)| active(container))
                .count(),
            container_bytes,
            idle,
        ),
        row(
            "Local Volumes",
            usage.volumes.len(),
            usage.volumes.iter().filter(|(_, _, users)| *users > 0).count(),
            volume_bytes,
            unused,
        ),
        row("Build Cache", usage.cache.0, 0, usage.cache.1, usage.cache.1),
    ]
}

fn row(kind: &str, total: usize, active: usize, size: u64, reclaimable: u64) -> Row {
    let share = if size == 0 {
        String::new()
    } else {
        format!(" ({}%)", u128::from(reclaimable) * 100 / u128::from(size))
    };
    // Docker gives no share for the build cache.
    let share = if kind == "Build Cache" {
        String::new()
    } else {
        share
    };
    Row::new([
        ("Active", active.to_string().into()),
        (
            "Reclaimable",
            format!("{}{share}", human_size(reclaimable)).into(),
        ),
        ("Size", human_size(size).into()),
        ("TotalCount", total.to_string().into()),
        ("Type", kind.into()),
    ])
}

/// `-v`: each image, container and volume.
pub(crate) fn verbose(usage: &SystemUsage, now: Timestamp) -> String {
    let mut out = String::from("Images space usage:\n\n");
    let mut lines =
        vec!["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS".to_owned()];
    for usage in &usage.images.images {
        let name = usage.names.first().map(|name| image::familiar(name));
        let (repository, tag) = match name.as_deref().and_then(|name| name.rsplit_once(':')) {
            Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
            None => ("<none>".to_owned(), "<none>".to_owned()),
        };
        lines.push(format!(
            "{repository}\t{tag}\t{}\t{}\t{}\t{}\t{}\t{}",
            usage.image.short(),
            time::ago(usage.created, now),
            human_size(usage.size),
            human_size(usage.shared),
            human_size(usage.unique),
            usage.containers
        ));
    }
    section(&mut out, &lines);
    out.push_str("\nContainers space usage:\n\n");
    let mut lines =
        vec!["CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES".to_owned()];
    let fields = container::own_fields();
    for (container, size) in &usage.containers {
        let row = container::row(&container.into(), &fields, now, false, None);
        let cells = ["ID", "Image", "Command", "LocalVolumes"].map(|field| row.text(field));
        let rest = ["RunningFor", "Status", "Names"].map(|field| row.text(field));
        lines.push(format!(
            "{}\t{}\t{}",
            cells.join("\t"),
            human_size(*size),
            rest.join("\t")
        ));
    }
    section(&mut out, &lines);
    out.push_str("\nLocal Volumes space usage:\n\n");
    let mut lines = vec!["VOLUME NAME\tLINKS\tSIZE".to_owned()];
    lines.extend(
        usage
            .volumes
            .iter()
            .map(|(volume, size, users)| format!("{}\t{users}\t{}", volume.name, human_size(*size))),
    );
    section(&mut out, &lines);
    out.push_str(&format!(
        "\nBuild cache usage: {} in {} records\n",
        human_size(usage.cache.1),
        usage.cache.0
    ));
    out
}

fn section(out: &mut String, lines: &[String]) {
    out.push_str(&table::align(&(lines.join("\n") + "\n")));
}
