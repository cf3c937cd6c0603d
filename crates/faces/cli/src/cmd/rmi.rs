//! `rmi`, `image rm`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Removed;
use dhow_types::ErrorKind;

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
        let removed = match engine.remove_image(name, flags.force || flags.all && !used(engine, name)?) {
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

/// Whether a container is of the image.
fn used(engine: &dhow_engine::Engine, id: &str) -> Result<bool, CliError> {
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
