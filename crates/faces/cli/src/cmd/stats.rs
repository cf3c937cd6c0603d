//! `stats`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::Sample;
use dhow_types::{human_binary_size, human_size};

use crate::render::{Fields, Look, Row, say};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "stats",
    about: "Display a live stream of container(s) resource usage statistics",
    flags: |command| StatsFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct StatsFlags {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// The containers; all that run when none is named
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Between two readings: docker's second when it streams; once, as long as a percentage needs.
const STREAM: Duration = Duration::from_secs(1);
const ONCE: Duration = Duration::from_millis(250);

pub(crate) const FIELDS: Fields = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];

const TABLE: [&str; 8] = [
    "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs",
];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StatsFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: flags.format.as_deref(),
        quiet: None,
        ..Look::default()
    };
    // A terminal is drawn over; a pipe gets one table after the other.
    let lively = !flags.no_stream && std::io::IsTerminal::is_terminal(&std::io::stdout());
    if lively {
        say("\x1b[2J")?;
    }
    loop {
        let samples = engine.stats(&flags.containers, if flags.no_stream { ONCE } else { STREAM })?;
        let mut rows: Vec<Row> = samples.iter().map(|sample| row(sample, flags.no_trunc)).collect();
        if flags.all && flags.containers.is_empty() {
            rows.extend(idle(context, &samples, flags.no_trunc)?);
        }
        let text = look.show(&rows)?;
        if samples.is_empty() && !flags.no_stream {
            // Nothing was measured, so nothing was waited for.
            std::thread::sleep(STREAM);
        }
        if lively {
            // Home, then each line cleared to its end, then what is below.
            say(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        } else {
            say(&text)?;
        }
        if flags.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Containers that do not run use nothing.
fn idle(context: &Context, samples: &[Sample], whole: bool) -> Result<Vec<Row>, CliError> {
    let shown = |id: &dhow_types::ContainerId| samples.iter().any(|sample| sample.container.config.id == *id);
    let containers = context.engine()?.containers().list()?;
    let idle = containers.iter().filter(|container| !shown(&container.config.id));
    Ok(idle
        .map(|container| {
            let id = if whole {
                container.config.id.as_str()
            } else {
                container.config.id.short()
            };
            cells(
                id,
                &container.config.name,
                ["0.00%", "0B / 0B", "0.00%", "0B / 0B", "0B / 0B", "0"].map(str::to_owned),
            )
        })
        .collect())
}

/// One reading, in docker's columns (docker/cli `formatter_stats.go`).
pub(crate) fn row(sample: &Sample, whole: bool) -> Row {
    let config = &sample.container.config;
    let id = if whole {
        config.id.as_str()
    } else {
        config.id.short()
    };
    let memory = &sample.stats.memory;
    // Docker leaves out the page cache that can go at once.
    let used = memory.usage.saturating_sub(memory.inactive_file);
    let percent = if sample.memory_limit == 0 {
        0.0
    } else {
        used as f64 / sample.memory_limit as f64 * 100.0
    };
    let block = &sample.stats.block_io;
    cells(
        id,
        &config.name,
        [
            format!("{:.2}%", sample.cpu_percent),
            format!(
                "{} / {}",
                human_binary_size(used),
                human_binary_size(sample.memory_limit)
            ),
            format!("{percent:.2}%"),
            format!(
                "{} / {}",
                human_size(sample.network.0),
                human_size(sample.network.1)
            ),
            format!(
                "{} / {}",
                human_size(block.read_bytes),
                human_size(block.write_bytes)
            ),
            sample.stats.pids.current.to_string(),
        ],
    )
}

fn cells(id: &str, name: &str, [cpu, usage, percent, network, block, pids]: [String; 6]) -> Row {
    Row::new([
        ("BlockIO", block.into()),
        ("CPUPerc", cpu.into()),
        ("Container", id.into()),
        ("ID", id.into()),
        ("MemPerc", percent.into()),
        ("MemUsage", usage.into()),
        ("Name", name.into()),
        ("NetIO", network.into()),
        ("PIDs", pids.into()),
    ])
}
