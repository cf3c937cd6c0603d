//! `container prune`, `image prune`, `system prune`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{CachePrune, LabelFilter, Prune};
use jiff::Timestamp;

use crate::flags::Filters;
use crate::render::say;
use crate::{CliError, Context, Verb};

pub(crate) const CONTAINER: Verb = Verb {
    name: "prune",
    about: "Remove all stopped containers",
    flags: |command| ForceFlags::augment_args(command),
    run: containers,
};

pub(crate) const IMAGE: Verb = Verb {
    name: "prune",
    about: "Remove unused images",
    flags: |command| ImageFlags::augment_args(command),
    run: images,
};

pub(crate) const SYSTEM: Verb = Verb {
    name: "prune",
    about: "Remove unused data",
    flags: |command| SystemFlags::augment_args(command),
    run: system,
};

#[derive(Args, Debug)]
struct ForceFlags {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
struct ImageFlags {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=24h", "label=KEY=VALUE")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
struct SystemFlags {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

fn containers(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ForceFlags = crate::flags::read(matches)?;
    if super::confirm::confirmed("This will remove all stopped containers.", flags.force)? {
        let (text, bytes) = prune_containers(context)?;
        say(&(text + &super::reclaimed(bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn prune_containers(context: &Context) -> Result<(String, u64), CliError> {
    let removed = context.engine()?.prune_containers()?;
    let ids: Vec<String> = removed
        .iter()
        .map(|(container, _)| container.config.id.to_string())
        .collect();
    Ok((
        super::listed("Deleted Containers:", &ids),
        removed.iter().map(|(_, bytes)| bytes).sum(),
    ))
}

fn images(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImageFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &["dangling", "label", "label!", "until"])?;
    let all = flags.all || filters.flag("dangling")? == Some(false);
    let warning = if all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if super::confirm::confirmed(warning, flags.force)? {
        let what = Prune {
            all,
            until: super::until(&filters)?,
            labels: label_filters(&filters),
        };
        let (text, bytes) = prune_images(context, &what)?;
        say(&(text + &super::reclaimed(bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn label_filters(filters: &Filters) -> Vec<LabelFilter> {
    let read = |text: &str, negate: bool| match text.split_once('=') {
        Some((name, value)) => LabelFilter {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            negate,
        },
        None => LabelFilter {
            name: text.to_owned(),
            value: None,
            negate,
        },
    };
    let wanted = filters.values("label").map(|text| read(text, false));
    wanted
        .chain(filters.values("label!").map(|text| read(text, true)))
        .collect()
}

fn prune_images(context: &Context, what: &Prune) -> Result<(String, u64), CliError> {
    let pruned = context.engine()?.prune_images(what)?;
    // Docker writes these lines in lower case, unlike those of `rmi`.
    let lines: Vec<String> = pruned
        .removed
        .iter()
        .map(|removed| super::rmi::line(removed).replacen(['U', 'D'], "", 1))
        .collect();
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            if line.starts_with("ntagged") {
                format!("u{line}")
            } else {
                format!("d{line}")
            }
        })
        .collect();
    Ok((super::listed("Deleted Images:", &lines), pruned.reclaimed))
}

fn system(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SystemFlags = crate::flags::read(matches)?;
    let mut warning = String::from(
        "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if flags.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if flags.all {
        "  - all images without at least one container associated to them\n  - all build cache\n"
    } else {
        "  - all dangling images\n  - build cache that was not used for two days\n"
    });
    if !super::confirm::confirmed(&warning, flags.force)? {
        return Ok(ExitCode::SUCCESS);
    }
    let engine = context.engine()?;
    let (mut text, mut bytes) = prune_containers(context)?;
    text.push_str(&super::listed(
        "Deleted Networks:",
        &engine.prune_networks(!crate::dialect::spoken().is_podman())?,
    ));
    if flags.volumes {
        let (removed, freed) = engine.prune_volumes(false)?;
        text.push_str(&super::listed("Deleted Volumes:", &removed));
        bytes += freed;
    }
    let what = CachePrune {
        all: true,
        unused_since: (!flags.all).then(|| Timestamp::now().as_second() - 2 * 86_400),
        ..CachePrune::default()
    };
    // The cache first: it may be all that holds a layer of an image that goes.
    bytes += super::builder::freed(&engine.prune_cache(&what)?);
    let (images, freed) = prune_images(
        context,
        &Prune {
            all: flags.all,
            ..Prune::default()
        },
    )?;
    text.push_str(&images);
    say(&(text + &super::reclaimed(bytes + freed)))?;
    Ok(ExitCode::SUCCESS)
}
