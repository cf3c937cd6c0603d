//! `search`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Found;

use crate::flags::Filters;
use crate::render::table::ellipsis;
use crate::render::{Fields, Look, Row, say};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "search",
    about: "Search Docker Hub, or another registry, for images",
    flags: |command| crate::flags::registry::augment(SearchFlags::augment_args(command)),
    run,
};

#[derive(Args, Debug)]
struct SearchFlags {
    /// Filter output based on conditions provided: stars=N, is-official=BOOL, is-automated=BOOL
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=100))]
    limit: u16,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// What to look for; REGISTRY/TERM looks in another registry
    #[arg(value_name = "TERM")]
    term: String,
}

/// Docker's columns (docker/cli `formatter_search.go`); the hub builds nothing by itself any more.
const FIELDS: Fields = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
const TABLE: [&str; 4] = ["Name", "Description", "StarCount", "IsOfficial"];
/// Width of a description (docker/cli).
const DESCRIPTION: usize = 45;

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SearchFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &["stars", "is-official", "is-automated"])?;
    let stars = match filters.values("stars").last().map(str::parse::<u64>) {
        None => 0,
        Some(Ok(stars)) => stars,
        Some(Err(_)) => return Err(CliError::plain("invalid filter 'stars': it is no number")),
    };
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let mut found = context.engine()?.search(&flags.term, usize::from(flags.limit))?;
    found.retain(|one| {
        one.stars >= stars
            && official.is_none_or(|wanted| wanted == one.official)
            && automated.is_none_or(|wanted| wanted == one.automated)
    });
    let rows: Vec<Row> = found.iter().map(|one| row(one, flags.no_trunc)).collect();
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: flags.format.as_deref(),
        quiet: None,
        ..Look::default()
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

fn row(found: &Found, whole: bool) -> Row {
    let words = found.description.split_whitespace().collect::<Vec<_>>().join(" ");
    let description = if whole {
        words
    } else {
        ellipsis(&words, DESCRIPTION)
    };
    let mark = |yes: bool| if yes { "[OK]" } else { "" };
    Row::new([
        ("Description", description.into()),
        ("IsAutomated", mark(found.automated).into()),
        ("IsOfficial", mark(found.official).into()),
        ("Name", found.name.clone().into()),
        ("StarCount", found.stars.to_string().into()),
    ])
}
