//! `rmi`, `image rm`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Engine, Removal, Removed};
use dhow_types::{ErrorKind, Platform};

use crate::render::{note, say_line};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "rmi",
    about: "Remove one or more images",
    flags: |command| RmiFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RmiFlags {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Remove every image
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove only the images that the name has for these platforms: os/arch[/variant], several with commas
    #[arg(long, value_delimiter = ',', conflicts_with = "all")]
    platform: Vec<Platform>,
    /// Pass over images that are not there
    #[arg(short, long)]
    ignore: bool,
    /// The images
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmiFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = if flags.all {
        engine
            .images()?
            .iter()
            .map(|image| image.record.id.to_string())
            .collect()
    } else {
        flags
            .images
            .iter()
            .map(|name| super::local_image(engine, name))
            .collect::<Vec<_>>()
    };
    super::each(&names, |name| {
        // By id, an image with several names goes only by force.
        let removed = match remove(engine, name, &flags) {
            Err(error) if (flags.ignore || flags.all) && error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => {
                if !dialect::spoken().is_podman() {
                    note(&format!("dhow: {}", crate::error::chain(&error)));
                }
                return Ok(());
            }
            Err(error) => return Err(dialect::spoken().not_removed(error)),
            Ok(removed) => removed,
        };
        removed
            .iter()
            .filter(|removed| !is_podmans_digest(removed) || removed_name(removed) == Some(name))
            .try_for_each(|removed| say_line(&line(removed)))
    })
}

fn remove(engine: &Engine, name: &str, flags: &RmiFlags) -> Result<Vec<Removed>, dhow_engine::Error> {
    if !flags.platform.is_empty() {
        return engine.remove_image_for(name, &flags.platform, flags.force);
    }
    let how = Removal {
        force: flags.force || flags.all && !used(engine, name)?,
        keep_parents: flags.no_prune,
    };
    engine.remove_image_as(name, how)
}

/// Whether a container is of the image.
fn used(engine: &Engine, id: &str) -> Result<bool, dhow_engine::Error> {
    let containers = engine.containers().list()?;
    Ok(containers
        .iter()
        .any(|container| container.config.image.to_string() == id))
}

fn removed_name(removed: &Removed) -> Option<&str> {
    match removed {
        Removed::Untagged(name) => Some(name),
        Removed::Deleted(_) => None,
    }
}

/// Podman says nothing of the names by digest that go with an image, but of the one that was asked for.
fn is_podmans_digest(removed: &Removed) -> bool {
    matches!(removed, Removed::Untagged(name) if dialect::spoken().is_podman() && name.contains("@sha256:"))
}

/// Docker's line for one removal.
pub(super) fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {}", dialect::spoken().image_name(name)),
        Removed::Deleted(id) => format!("Deleted: {}", dialect::spoken().image_id(id)),
    }
}
