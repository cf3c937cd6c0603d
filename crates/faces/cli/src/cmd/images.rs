//! `images`, `image ls`.

mod tree;

use std::collections::HashMap;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Summary;
use dhow_reference::Reference;
use dhow_types::ImageId;
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::{Look, say};
use crate::view::image::{self as view, Line};
use crate::view::podman;
use crate::{CliError, Context, Verb, dialect};

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
    /// Show the table without its headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Sort by this instead of by age, newest first
    #[arg(long, value_name = "FIELD", value_parser = ["created", "id", "repository", "size", "tag"])]
    sort: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List the platforms of each image, too, those that are not here with no size; U means used by a container
    #[arg(long)]
    tree: bool,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const FILTERS: [&str; 9] = [
    "after",
    "before",
    "containers",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
];

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImagesFlags = crate::flags::read(matches)?;
    if flags.tree {
        tree::check(&flags)?;
    }
    let filters = Filters::parse(&flags.filter, &FILTERS)?;
    let mut images = chosen(context, &filters, flags.all)?;
    if flags.tree {
        images.retain(|image| !image.is_beside());
        return tree::show(context, &named(&images, &flags, &filters));
    }
    let now = Timestamp::now();
    let mut rows = Vec::with_capacity(images.len());
    let mut lines: Vec<Line<'_>> = images.iter().flat_map(view::lines).collect();
    if let Some(field) = &flags.sort {
        sort(&mut lines, field);
    }
    let documents = Documents::read(context, &flags)?;
    let mut seen = Vec::new();
    for line in lines {
        let wanted = asked_for(&line, &flags, &filters)
            // A line without a tag is one that only its digest names.
            && (line.tag.is_some() || line.repository.is_none() || flags.digests || flags.all || line.image.names.is_empty());
        if !wanted {
            continue;
        }
        // Podman's JSON has an image once, with all its names.
        if documents.once {
            if seen.contains(&line.image.record.id) {
                continue;
            }
            seen.push(line.image.record.id);
        }
        rows.push(documents.on(&line, view::row(&line, now, flags.no_trunc)));
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
        bare: flags.noheading,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a line has the name that is asked for, and those of the filters.
fn asked_for(line: &Line<'_>, flags: &ImagesFlags, filters: &Filters) -> bool {
    flags.name.as_deref().is_none_or(|name| fits(line, name))
        && filters.any("reference", |pattern| fits(line, pattern))
}

/// The images of which a line is asked for.
fn named<'a>(images: &'a [Summary], flags: &ImagesFlags, filters: &Filters) -> Vec<&'a Summary> {
    images
        .iter()
        .filter(|image| {
            view::lines(image)
                .iter()
                .any(|line| asked_for(line, flags, filters))
        })
        .collect()
}

/// The images that the filters let through, newest first.
fn chosen(context: &Context, filters: &Filters, all: bool) -> Result<Vec<Summary>, CliError> {
    let engine = context.engine()?;
    let mut images = engine.images()?;
    let created = |name: &str| -> Result<Vec<i64>, CliError> {
        filters
            .values(name)
            .map(|wanted| Ok(engine.image(&super::local_image(engine, wanted))?.record.created))
            .collect()
    };
    let (before, mut since) = (created("before")?, created("since")?);
    // Podman's other word for it.
    since.extend(created("after")?);
    let used = filters.flag("containers")?;
    let containers = match used {
        Some(_) => engine.containers().list()?,
        None => Vec::new(),
    };
    let is_used = |image: &Summary| containers.iter().any(|one| one.config.image == image.record.id);
    let dangling = filters.flag("dangling")?;
    let until = super::until(filters)?;
    let parents: Vec<ImageId> = images.iter().filter_map(|image| image.record.parent).collect();
    images.retain(|image| {
        let nameless = image.names.is_empty() && image.digests.is_empty();
        // One for another machine is shown by `--tree`, below the one that has the name.
        let only_a_parent = nameless && parents.contains(&image.record.id);
        (all || !only_a_parent && !image.is_beside())
            && used.is_none_or(|used| used == is_used(image))
            && dangling.is_none_or(|dangling| dangling == image.dangling)
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

/// Puts the lines in podman's order by a field.
fn sort(lines: &mut [Line<'_>], field: &str) {
    match field {
        "created" => lines.sort_by_key(|line| std::cmp::Reverse(line.image.record.created)),
        "id" => lines.sort_by_key(|line| line.image.record.id.to_string()),
        "size" => lines.sort_by_key(|line| line.image.record.size),
        "tag" => lines.sort_by(|a, b| a.tag.cmp(&b.tag)),
        _ => lines.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag))),
    }
}

/// What podman's JSON and templates say of an image beyond the table.
struct Documents<'a> {
    context: &'a Context,
    podman: bool,
    labels: bool,
    containers: Vec<dhow_engine::container::Container>,
    /// The names that images have and had.
    history: HashMap<ImageId, Vec<String>>,
    /// Whether an image comes once, whatever names it has.
    once: bool,
}

impl<'a> Documents<'a> {
    fn read(context: &'a Context, flags: &ImagesFlags) -> Result<Self, CliError> {
        let podman = dialect::spoken().is_podman();
        let format = flags.format.as_deref().unwrap_or("");
        let json = podman && format == "json";
        Ok(Self {
            context,
            podman,
            // Only these read the configs.
            labels: json || format.contains(".Labels"),
            containers: if podman && !format.is_empty() {
                context.engine()?.containers().list()?
            } else {
                Vec::new()
            },
            history: if json || format.contains(".History") {
                context.engine()?.names_history()?
            } else {
                HashMap::new()
            },
            once: json,
        })
    }

    fn on(&self, line: &Line<'_>, row: crate::render::Row) -> crate::render::Row {
        if !self.podman {
            return row;
        }
        let id = line.image.record.id;
        // A damaged config has no labels to show.
        let config = self
            .context
            .engine()
            .ok()
            .filter(|_| self.labels)
            .and_then(|engine| engine.image(&id.to_string()).ok());
        let labels = config.map_or_else(Default::default, |image| image.config.config.labels);
        let users = self
            .containers
            .iter()
            .filter(|one| one.config.image == id)
            .count();
        let names = self.history.get(&id).map(Vec::as_slice).unwrap_or_default();
        let history = match self.once {
            true => names.into(),
            // In a template it is a text.
            false => names.join(", ").into(),
        };
        row.with_document(podman::image(line.image, &labels, users, history))
    }
}

/// Whether a line has this name: a repository, with or without a tag, with `*` for a part of a path.
fn fits(line: &Line<'_>, wanted: &str) -> bool {
    let Some(repository) = &line.repository else {
        return false;
    };
    // Podman finds a short name under whatever registry it is.
    if dialect::spoken().is_podman() && ends_path(line, wanted) {
        return true;
    }
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

/// Whether the line's name is `wanted`, or ends with it after a slash.
fn ends_path(line: &Line<'_>, wanted: &str) -> bool {
    let Some(repository) = &line.repository else {
        return false;
    };
    let (name, tag) = match wanted.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (wanted, None),
    };
    let same = repository == name
        || repository
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('/'));
    same && tag.is_none_or(|tag| line.tag.as_deref() == Some(tag))
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
