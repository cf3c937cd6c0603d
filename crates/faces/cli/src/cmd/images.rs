//! `images`, `image ls`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Summary;
use dhow_reference::Reference;
use dhow_types::ImageId;
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::{Look, say};
use crate::view::image::{self as view, Line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "images",
    about: "List images",
    flags: |command| ImagesFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ImagesFlags {
    /// Show all images (default hides images that only others are built on)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const FILTERS: [&str; 7] = [
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImagesFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &FILTERS)?;
    let images = chosen(context, &filters, flags.all)?;
    let now = Timestamp::now();
    let mut rows = Vec::with_capacity(images.len());
    for line in images.iter().flat_map(view::lines) {
        let wanted = flags.name.as_deref().is_none_or(|name| fits(&line, name))
            && filters.any("reference", |pattern| fits(&line, pattern))
            // A line without a tag is one that only its digest names.
            && (line.tag.is_some() || line.repository.is_none() || flags.digests || flags.all || line.image.names.is_empty());
        if !wanted {
            continue;
        }
        rows.push(view::row(&line, now, flags.no_trunc));
    }
    let table: &[&'static str] = if flags.digests {
        &view::TABLE_DIGESTS
    } else {
        &view::TABLE
    };
    let quiet = flags.quiet.then_some("ID");
    let look = Look {
        fields: view::FIELDS,
        table,
        format: flags.format.as_deref(),
        quiet,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The images that the filters let through, newest first.
fn chosen(context: &Context, filters: &Filters, all: bool) -> Result<Vec<Summary>, CliError> {
    let engine = context.engine()?;
    let mut images = engine.images()?;
    let created = |name: &str| -> Result<Vec<i64>, CliError> {
        filters
            .values(name)
            .map(|wanted| Ok(engine.image(wanted)?.record.created))
            .collect()
    };
    let (before, since) = (created("before")?, created("since")?);
    let dangling = filters.flag("dangling")?;
    let until = super::until(filters)?;
    let parents: Vec<ImageId> = images.iter().filter_map(|image| image.record.parent).collect();
    images.retain(|image| {
        let nameless = image.names.is_empty() && image.digests.is_empty();
        let only_a_parent = nameless && parents.contains(&image.record.id);
        (all || !only_a_parent)
            && dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && before.iter().all(|moment| image.record.created < *moment)
            && since.iter().all(|moment| image.record.created > *moment)
            && until.is_none_or(|moment| image.record.created < moment)
    });
    if filters.has("label") || filters.has("label!") {
        let mut labelled = Vec::new();
        for image in images {
            // Only this filter reads the configs.
            let config = engine.image(&image.record.id.to_string())?.config.config;
            if filters.labels(|name| config.labels.get(name)) {
                labelled.push(image);
            }
        }
        return Ok(labelled);
    }
    Ok(images)
}

/// Whether a line has this name: a repository, with or without a tag, with `*` for a part of a path.
fn fits(line: &Line<'_>, wanted: &str) -> bool {
    let Some(repository) = &line.repository else {
        return false;
    };
    let pattern = match Reference::parse(wanted) {
        Ok(reference) => reference.familiar(),
        Err(_) => wanted.to_owned(),
    };
    let tag = line.tag.as_deref().unwrap_or("<none>");
    let digest = line.digest.map(|digest| format!("{repository}@{digest}"));
    matches_path(&pattern, repository)
        || matches_path(&pattern, &format!("{repository}:{tag}"))
        || digest.is_some_and(|digest| digest == pattern)
}

/// Go's `path.Match` with `*` and `?`: neither matches a slash.
fn matches_path(pattern: &str, name: &str) -> bool {
    fn go(pattern: &[u8], name: &[u8], budget: &mut u32) -> bool {
        *budget = budget.saturating_sub(1);
        if *budget == 0 {
            return false;
        }
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), Some((&next, tail))) => {
                go(rest, name, budget) || next != b'/' && go(pattern, tail, budget)
            }
            (Some((b'*', rest)), None) => go(rest, name, budget),
            (Some((b'?', rest)), Some((&next, tail))) => next != b'/' && go(rest, tail, budget),
            (Some((wanted, rest)), Some((next, tail))) => wanted == next && go(rest, tail, budget),
            _ => false,
        }
    }
    go(pattern.as_bytes(), name.as_bytes(), &mut 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_within_parts_of_a_path() {
        for (pattern, name, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("b?sybox:*", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("busy", "busybox", false),
            (
                "a*a*a*a*a*a*a*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(matches_path(pattern, name), expected, "{pattern} {name}");
        }
    }
}
