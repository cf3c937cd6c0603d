//! `images --tree`: each image with its names, below it those that its index has for the platforms.

use std::collections::HashSet;
use std::process::ExitCode;

use dhow_engine::{Engine, Summary, Variant};
use dhow_types::{ImageId, human_size_short};

use super::ImagesFlags;
use crate::render::{say, table};
use crate::view::image::familiar;
use crate::{CliError, Context};

/// Spaces between columns (docker/cli `cli/command/image/tree.go`).
const SPACING: usize = 3;

/// Refuses what a tree has no place for, in docker's words.
pub(super) fn check(flags: &ImagesFlags) -> Result<(), CliError> {
    let refused = [
        ("--quiet", flags.quiet),
        ("--no-trunc", flags.no_trunc),
        ("--digests", flags.digests),
        ("--format", flags.format.is_some()),
        ("--sort", flags.sort.is_some()),
        ("--noheading", flags.noheading),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(CliError::plain(format!(
            "{flag} is not yet supported with --tree"
        ))),
        None => Ok(()),
    }
}

pub(super) fn show(context: &Context, images: &[&Summary]) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let containers = engine.containers().list()?;
    let used: HashSet<ImageId> = containers
        .iter()
        .map(|container| container.config.image)
        .collect();
    let mut text = "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA\n".to_owned();
    for summary in images {
        branch(engine, summary, &used, &mut text)?;
    }
    say(&table::columns(&text, SPACING))?;
    Ok(ExitCode::SUCCESS)
}

fn branch(
    engine: &Engine,
    summary: &Summary,
    used: &HashSet<ImageId>,
    text: &mut String,
) -> Result<(), CliError> {
    let image = engine.image(&summary.record.id.to_string())?;
    let variants = engine.variants(&image)?;
    let here: Vec<ImageId> = variants.iter().filter_map(|variant| variant.image).collect();
    let mut names: Vec<String> = summary.names.iter().map(|name| familiar(name)).collect();
    let name = names.pop().unwrap_or_else(|| "<untagged>".to_owned());
    for other in names {
        text.push_str(&format!("{other}\n"));
    }
    let content = variants.iter().filter(|variant| variant.image.is_some());
    let sizes = (
        engine.size_together(&here)?,
        content.map(|variant| variant.content).sum(),
    );
    let in_use = here.iter().any(|id| used.contains(id));
    text.push_str(&line(&name, &image.id.short(), sizes, in_use));
    let last = variants.len().saturating_sub(1);
    for (position, variant) in variants.iter().enumerate() {
        let limb = if position == last { "└─" } else { "├─" };
        let name = format!("{limb} {}", variant.platform);
        text.push_str(&leaf(engine, &name, variant, used)?);
    }
    Ok(())
}

/// One platform; one that is not here takes no place.
fn leaf(engine: &Engine, name: &str, variant: &Variant, used: &HashSet<ImageId>) -> Result<String, CliError> {
    let short = |variant: &Variant| variant.manifest.map_or_else(String::new, |digest| digest.short());
    Ok(match variant.image {
        Some(id) => {
            let sizes = (engine.size_together(&[id])?, variant.content);
            line(name, &id.short(), sizes, used.contains(&id))
        }
        None => line(name, &short(variant), (0, 0), false),
    })
}

fn line(name: &str, id: &str, (disk, content): (u64, u64), in_use: bool) -> String {
    let (disk, content) = (human_size_short(disk), human_size_short(content));
    let extra = if in_use { "U" } else { "" };
    format!("{name}\t{id}\t{disk:>10}\t{content:>12}\t{extra}\n")
}
