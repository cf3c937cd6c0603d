//! `history`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use jiff::Timestamp;

use crate::render::{Look, say};
use crate::view::{image as view, podman};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "history",
    about: "Show the history of an image",
    flags: |command| HistoryFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct HistoryFlags {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long, allow_hyphen_values = true)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show the history for the given platform: os/arch[/variant]
    #[arg(long)]
    platform: Option<dhow_types::Platform>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: HistoryFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let lines = engine.history(&super::local_image(engine, &flags.image), flags.platform.as_ref())?;
    let now = Timestamp::now();
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let row = view::history_row(line, now, flags.no_trunc, flags.human);
            if dialect::spoken().is_podman() {
                // Templates find the age there, and the names.
                let created = if flags.human {
                    row.field("CreatedSince")
                } else {
                    to_the_second(row.field("CreatedSince"))
                };
                let row = row.with_field("CreatedSince", created.clone());
                row.with_field("Created", created)
                    .with_field("Tags", line.names.clone().into())
                    .with_document(podman::history(line))
            } else {
                row
            }
        })
        .collect();
    let look = Look {
        fields: view::HISTORY,
        table: &view::HISTORY_TABLE,
        format: flags.format.as_deref(),
        quiet: flags.quiet.then_some("ID"),
        ..Look::default()
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

/// A time without its fraction, as podman writes it.
fn to_the_second(time: serde_json::Value) -> serde_json::Value {
    match time.as_str().and_then(|text| text.split_once('.')) {
        Some((seconds, _)) => format!("{seconds}Z").into(),
        None => time,
    }
}
