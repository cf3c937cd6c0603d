//! `builder du`, `builder prune`: the build cache.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{CacheEntry, CachePrune};
use dhow_types::{ByteSize, human_size};
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::{say, table, time};
use crate::{CliError, Context, Verb};

pub(crate) const PRUNE: Verb = Verb {
    name: "prune",
    about: "Remove build cache",
    flags: |command| PruneFlags::augment_args(command),
    run: prune,
};

pub(crate) const DU: Verb = Verb {
    name: "du",
    about: "Show disk use of the build cache",
    flags: |command| DuFlags::augment_args(command),
    run: du,
};

#[derive(Args, Debug)]
struct PruneFlags {
    /// Also forget steps whose layers images still need, which frees nothing
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=24h", "type=exec.cachemount", "description~=RUN make")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Amount of disk space that may stay: what is cheapest to make again goes first
    #[arg(long, visible_alias = "keep-storage", value_name = "BYTES")]
    reserved_space: Option<ByteSize>,
    /// Target amount of free disk space: pruning ends there
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<ByteSize>,
    /// Provide a more verbose output
    #[arg(long)]
    verbose: bool,
}

#[derive(Args, Debug)]
struct DuFlags {
    /// Provide filter values
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Provide a more verbose output
    #[arg(long)]
    verbose: bool,
}

const FILTERS: [&str; 8] = [
    "until",
    "unused-for",
    "id",
    "type",
    "description",
    "description~",
    "shared",
    "private",
];

/// Reads the filters; a word without a value (`shared`) means that it is so, as with buildx.
fn wanted(filters: &[String]) -> Result<CachePrune, CliError> {
    let whole = |text: &String| match text.as_str() {
        "shared" | "private" => format!("{text}=true"),
        _ => text.clone(),
    };
    let filters: Vec<String> = filters.iter().map(whole).collect();
    let filters = Filters::parse(&filters, &FILTERS)?;
    let mut unused_since = super::until(&filters)?;
    if let Some(text) = filters.values("unused-for").last() {
        let moment = time::moment(text, Timestamp::now());
        let moment = moment.ok_or_else(|| CliError::plain(format!("invalid filter 'unused-for={text}'")))?;
        unused_since = Some(moment.as_second());
    }
    let owned = |name| filters.values(name).map(str::to_owned).collect::<Vec<_>>();
    let kinds = owned("type");
    for kind in &kinds {
        if !["regular", "exec.cachemount"].contains(&kind.as_str()) {
            return Err(CliError::plain(format!("invalid filter 'type={kind}'"))
                .with_hint("known here: regular, exec.cachemount"));
        }
    }
    let private = filters.flag("private")?;
    Ok(CachePrune {
        all: false,
        unused_since,
        ids: owned("id"),
        kinds,
        description: owned("description~").pop().or_else(|| owned("description").pop()),
        shared: filters.flag("shared")?.or(private.map(|private| !private)),
        keep: None,
        min_free: None,
    })
}

fn prune(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PruneFlags = crate::flags::read(matches)?;
    let mut what = wanted(&flags.filter)?;
    what.all = flags.all || what.shared == Some(true);
    what.keep = flags.reserved_space.map(|size| size.0);
    what.min_free = flags.min_free_space.map(|size| size.0);
    let warning = if flags.all {
        "This will remove all build cache."
    } else {
        "This will remove all dangling build cache."
    };
    if super::confirm::confirmed(warning, flags.force)? {
        let gone = context.engine()?.prune_cache(&what)?;
        say(&format!(
            "{}Total:\t{}\n",
            list(&gone, flags.verbose),
            human_size(freed(&gone))
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes that went with these.
pub(super) fn freed(gone: &[CacheEntry]) -> u64 {
    gone.iter()
        .filter(|entry| !entry.shared)
        .map(|entry| entry.bytes)
        .sum()
}

fn du(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: DuFlags = crate::flags::read(matches)?;
    let mut what = wanted(&flags.filter)?;
    what.all = true;
    let mut entries = context.engine()?.cache()?;
    entries.retain(|entry| what.covers(entry));
    let sum = |shared: bool| -> u64 {
        let some = entries.iter().filter(|entry| entry.shared == shared);
        some.map(|entry| entry.bytes).sum()
    };
    let reclaimable: u64 = entries
        .iter()
        .filter(|entry| !entry.shared && !entry.in_use)
        .map(|entry| entry.bytes)
        .sum();
    let totals = [
        ("Shared", sum(true)),
        ("Private", sum(false)),
        ("Reclaimable", reclaimable),
        ("Total", sum(true) + sum(false)),
    ];
    let mut text = list(&entries, flags.verbose);
    let totals = totals.map(|(name, bytes)| format!("{name}:\t{}\n", human_size(bytes)));
    text.push_str(&table::align(&totals.concat()));
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The entries as buildx lists them.
fn list(entries: &[CacheEntry], verbose: bool) -> String {
    let now = Timestamp::now();
    if verbose {
        let one = |entry: &CacheEntry| {
            let text = format!(
                "ID:\t{}\nType:\t{}\nDescription:\t{}\nCreated:\t{}\nLast used:\t{}\nSize:\t{}\nShared:\t{}\nReclaimable:\t{}\nSeconds to make:\t{:.3}\n",
                entry.id,
                entry.kind.name(),
                crate::render::build::harmless(&entry.description),
                time::ago(entry.created, now),
                time::ago(entry.used, now),
                human_size(entry.bytes),
                entry.shared,
                !entry.in_use && !entry.shared,
                entry.seconds,
            );
            table::align(&text) + "\n"
        };
        return entries.iter().map(one).collect();
    }
    let mut text = String::from("ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n");
    for entry in entries {
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\n",
            entry.id,
            !entry.in_use && !entry.shared,
            human_size(entry.bytes),
            time::ago(entry.used, now)
        ));
    }
    table::align(&text)
}
