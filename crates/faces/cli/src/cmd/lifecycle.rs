//! `retire`: an image is not to be used any more. `lifecycle`: which are not, who uses them nevertheless, and what can go.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::life::{Date, Release, Standing, Statement, Table};
use dhow_engine::tree::Graph;
use dhow_engine::{Engine, Retired, end_of, today};
use dhow_types::ImageId;
use serde_json::{Value, json};

use super::sbom::pretty;
use super::tree::name;
use crate::render::{note, say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const RETIRE: Verb = Verb {
    name: "retire",
    about: "Say of images that they are not to be used any more, since when, why, and what to use instead",
    flags: |command| RetireFlags::augment_args(command),
    run: retire,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List images with what is said of them, of what they stand on, and of their distribution",
    flags: |command| LsFlags::augment_args(command),
    run: ls,
};

pub(crate) const PS: Verb = Verb {
    name: "ps",
    about: "List the containers of images that are not to be used any more",
    flags: |command| FormatFlags::augment_args(command),
    run: ps,
};

pub(crate) const ROLLOUT: Verb = Verb {
    name: "rollout",
    about: "Replace containers of images at their end by ones of what is to be used instead; one that does not come up is put back",
    flags: |command| RolloutFlags::augment_args(command),
    run: rollout,
};

pub(crate) const GC: Verb = Verb {
    name: "gc",
    about: "Remove images at their end of life that nothing uses",
    flags: |command| GcFlags::augment_args(command),
    run: gc,
};

pub(crate) const IMPORT: Verb = Verb {
    name: "import",
    about: "Read until when distributions get fixes: data of endoflife.date",
    flags: |command| ImportFlags::augment_args(command),
    run: import,
};

#[derive(Args, Debug)]
struct RetireFlags {
    /// The first day on which it is not to be used (default: today)
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    date: Option<Date>,
    /// What to use instead
    #[arg(long, value_name = "IMAGE")]
    successor: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// It does harm: from that day on no container of it can be made here
    #[arg(long)]
    revoke: bool,
    /// Tell the registries that have it, too
    #[arg(long)]
    push: bool,
    /// With --push: sign it with this private key, a PEM file, so that it is refused where a policy trusts the key
    #[arg(short, long, value_name = "FILE", requires = "push")]
    key: Option<PathBuf>,
    /// Take back what was said here, and with --push and --key what was signed
    #[arg(long, conflicts_with_all = ["date", "successor", "reason", "revoke"])]
    undo: bool,
    /// Images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(Args, Debug)]
struct FormatFlags {
    /// Format output: table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

#[derive(Args, Debug)]
struct LsFlags {
    #[command(flatten)]
    format: FormatFlags,
    /// Only images of which something is said
    #[arg(short, long)]
    retired: bool,
}

#[derive(Args, Debug)]
struct RolloutFlags {
    /// Say what would be replaced, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Only these
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Args, Debug)]
struct GcFlags {
    /// Days that an image has been at its end
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(i32).range(0..36500))]
    after: i32,
    /// Say what would go, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct ImportFlags {
    /// Files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

fn date(text: &str) -> Result<Date, String> {
    text.parse()
        .map_err(|_| "it is no date, such as 2026-12-31".to_owned())
}

/// Says what is said of an image that somebody is about to use.
pub(super) fn warn(engine: &Engine, image: &ImageId, name: &str) {
    if let Some(statement) = engine.statement_about(image) {
        note(&dialect::warning(&format!(
            "image {name}: {}",
            statement.told(today())
        )));
    }
}

fn retire(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RetireFlags = crate::flags::read(matches)?;
    if flags.undo && flags.push && flags.key.is_none() {
        let message =
            "what a registry has without a signature cannot be taken back: --undo --push needs --key";
        return Err(CliError::plain(message.to_owned()));
    }
    let key = flags.key.as_deref().map(super::sign::private_key).transpose()?;
    let engine = context.engine()?;
    let publish = |image: &str, statement: Option<&Statement>| -> Result<(), CliError> {
        for place in engine.publish_statement(image, statement, key.as_ref())? {
            note(&format!("attached to {place}"));
        }
        Ok(())
    };
    for image in &flags.images {
        if flags.undo {
            if flags.push {
                publish(image, None)?;
            }
            if !engine.use_again(image)? && !flags.push {
                return Err(CliError::plain(format!("nothing is said of {image}")));
            }
            say(&format!("{image}: to be used again\n"))?;
            continue;
        }
        let statement = Statement {
            date: flags.date.unwrap_or_else(today),
            successor: flags.successor.clone(),
            reason: flags.reason.clone(),
            revoked: flags.revoke,
            signed: true,
            by: None,
        };
        // The registries first: what they refuse is not said here either.
        if flags.push {
            publish(image, Some(&statement))?;
        }
        engine.retire(image, &statement)?;
        say(&format!("{image}: {}\n", statement.told(today())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One image as it is listed.
struct Line {
    name: String,
    about: Vec<(String, Statement)>,
    system: Option<(String, &'static str, String)>,
}

fn said(graph: &Graph, retired: Vec<Retired>) -> Vec<(String, Statement)> {
    retired
        .into_iter()
        .map(|one| (name(graph, one.about), one.statement))
        .collect()
}

/// The distribution of an image, how it stands, and until when.
fn system(
    engine: &Engine,
    ends: &Table,
    layers: &[dhow_types::DiffId],
) -> Result<Option<(String, &'static str, String)>, CliError> {
    let inventory = engine.contents_of_layers(layers)?.inventory;
    let Some(os) = inventory.os else {
        return Ok(None);
    };
    let Some((release, end)) = end_of(ends, &os) else {
        return Ok(None);
    };
    let stands = standing(end, today());
    Ok(stands.map(|(state, until)| (format!("{} {release}", os.id), state, until.to_string())))
}

/// The word for what gets no fixes any more.
pub(super) const ENDED: &str = "end-of-life";

/// How a release stands on a day, and until when, or since.
pub(super) fn standing(end: Release, now: Date) -> Option<(&'static str, Date)> {
    Some(match (end.end, end.extended) {
        (Some(regular), _) if now < regular => ("supported", regular),
        (_, Some(extended)) if now < extended => ("extended support only", extended),
        (Some(regular), None) => (ENDED, regular),
        (_, Some(extended)) => (ENDED, extended),
        (None, None) => return None,
    })
}

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LsFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let graph = engine.lineage()?;
    let ends = engine.ends()?;
    let mut lines = Vec::new();
    for (node, image) in graph.nodes().iter().enumerate() {
        let about = said(&graph, engine.retired(&graph, node));
        if flags.retired && about.is_empty() {
            continue;
        }
        lines.push(Line {
            name: name(&graph, node),
            about,
            system: system(engine, &ends, &image.layers)?,
        });
    }
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    if flags.format.format == "json" {
        let documents: Vec<Value> = lines.iter().map(Line::document).collect();
        say(&pretty(&json!(documents)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = "IMAGE\tSTATE\tSINCE\tABOUT\tUSE INSTEAD\tDISTRIBUTION\n".to_owned();
    for line in &lines {
        let (state, since, about, successor) = match line.about.first() {
            Some((about, statement)) => (
                statement.on(today()).name(),
                statement.date.to_string(),
                about.as_str(),
                statement.successor.as_deref().unwrap_or("-"),
            ),
            None => ("in use", "-".to_owned(), "-", "-"),
        };
        let system = line.system.as_ref().map_or_else(
            || "-".to_owned(),
            |(release, state, until)| match *state {
                "end-of-life" => format!("{release}: {state} since {until}"),
                _ => format!("{release}: {state} until {until}"),
            },
        );
        rows.push_str(&format!(
            "{}\t{state}\t{since}\t{about}\t{successor}\t{system}\n",
            line.name
        ));
    }
    say(&table::align(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn document(about: &str, statement: &Statement) -> Value {
    json!({
        "About": about,
        "State": statement.on(today()).name(),
        "Date": statement.date.to_string(),
        "Reason": statement.reason,
        "Successor": statement.successor,
        "Signed": statement.signed,
    })
}

impl Line {
    fn document(&self) -> Value {
        let about = self.about.iter();
        json!({
            "Image": self.name,
            "Statements": about.map(|(about, statement)| document(about, statement)).collect::<Vec<_>>(),
            "Distribution": self.system.as_ref().map(|(release, state, until)| json!({
                "Release": release,
                "State": state,
                "Date": until,
            })),
        })
    }
}

fn ps(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: FormatFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let graph = engine.lineage()?;
    let mut found = Vec::new();
    for container in engine.containers().list()? {
        // An image without a name is in no list of images, but has its statement.
        let retired = match graph.find(&container.config.image) {
            Some(node) => said(&graph, engine.retired(&graph, node)),
            None => engine
                .statement_about(&container.config.image)
                .map(|statement| (container.config.image.short(), statement))
                .into_iter()
                .collect(),
        };
        if let Some((about, statement)) = retired.into_iter().next() {
            found.push((container, about, statement));
        }
    }
    found.sort_by(|a, b| a.0.config.name.cmp(&b.0.config.name));
    if flags.format == "json" {
        let documents = found.iter().map(|(container, about, statement)| {
            json!({
                "Name": container.config.name,
                "ID": container.config.id.to_string(),
                "Image": container.config.image_name,
                "ImageID": container.config.image.to_string(),
                "Statement": document(about, statement),
            })
        });
        say(&pretty(&json!(documents.collect::<Vec<_>>())))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = "CONTAINER\tIMAGE\tABOUT\tSTATE\tSINCE\tREASON\tUSE INSTEAD\n".to_owned();
    for (container, about, statement) in &found {
        rows.push_str(&format!(
            "{}\t{}\t{about}\t{}\t{}\t{}\t{}\n",
            container.config.name,
            container.config.image_name,
            statement.on(today()).name(),
            statement.date,
            statement.reason.as_deref().unwrap_or("-"),
            statement.successor.as_deref().unwrap_or("-")
        ));
    }
    say(&table::align(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn rollout(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RolloutFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if !flags.dry_run {
        engine.end_interrupted_replacements()?;
    }
    let containers = if flags.containers.is_empty() {
        engine.containers().list()?
    } else {
        let named = flags.containers.iter().map(|name| engine.containers().find(name));
        named.collect::<Result<_, _>>()?
    };
    let mut failed = 0;
    for container in containers {
        let name = &container.config.name;
        let statement = engine.statement_about(&container.config.image);
        let ended = statement.filter(|statement| statement.on(today()) >= Standing::Ended);
        let Some(successor) = ended.and_then(|statement| statement.successor) else {
            continue;
        };
        let replaced = engine.image(&successor).and_then(|image| {
            if flags.dry_run {
                return Ok(None);
            }
            let id = container.config.id.as_str();
            engine.replace_container(id, &image.id, &successor).map(Some)
        });
        match replaced {
            Ok(None) => say(&format!("{name}: {successor}\n"))?,
            Ok(Some(id)) => say(&format!("{name}: {successor}, {}\n", id.short()))?,
            Err(error) => {
                failed += 1;
                note(&dialect::warning(&crate::error::chain(&error)));
            }
        }
    }
    if failed > 0 {
        return Err(CliError::plain(format!(
            "{failed} containers could not be replaced"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

fn gc(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: GcFlags = crate::flags::read(matches)?;
    let expired = context.engine()?.collect_expired(flags.after, flags.dry_run)?;
    for one in &expired {
        let name = one.names.first();
        say(&format!(
            "{} ({}): at its end since {}\n",
            name.map_or_else(|| one.image.short(), Clone::clone),
            one.image.short(),
            one.since
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn import(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    let count = context.engine()?.import_ends(&flags.files)?;
    say(&format!("{count} releases\n"))?;
    Ok(ExitCode::SUCCESS)
}
