//! `import`: an image of a root file system in a tar, alone or as App Container, LXC and LXD pack it.

use std::fs::File;
use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};
use dhow_engine::{Import, Packing};

use crate::render::{note, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "import",
    about: "Import the contents from a tarball to create a filesystem image",
    flags: |command| ImportFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ImportFlags {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What the tarball is
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Do not warn of what the archive asks for and an image cannot hold
    #[arg(short, long)]
    quiet: bool,
    /// Set commit message for imported image
    #[arg(short, long, default_value = "")]
    message: String,
    /// Set platform if the image is for another machine
    #[arg(long)]
    platform: Option<dhow_types::Platform>,
    /// The tarball, its URL, or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One of the others, by what comes first in it
    Auto,
    /// A root file system
    Tar,
    /// An App Container image (appc, rkt)
    Aci,
    /// A unified image of LXC, LXD or Incus
    Lxd,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let how = Import {
        config: engine.changed_config(&flags.change)?,
        message: flags.message,
        tags: match &flags.name {
            Some(name) => {
                vec![dhow_reference::Reference::parse(&crate::dialect::spoken().new_name(name))?.or_latest()]
            }
            None => Vec::new(),
        },
        platform: match flags.platform {
            Some(platform) => Some(platform),
            None => crate::flags::usual_platform()?,
        },
        packing: match flags.format {
            Format::Auto => Packing::Auto,
            Format::Tar => Packing::Plain,
            Format::Aci => Packing::Aci,
            Format::Lxd => Packing::Lxd,
        },
        ..Import::default()
    };
    let imported = if flags.source == "-" {
        engine.import(std::io::stdin(), &how)?
    } else if flags.source.starts_with("http://") || flags.source.starts_with("https://") {
        engine.import_from(&flags.source, &how)?
    } else {
        let file = File::open(&flags.source)
            .map_err(|error| CliError::plain(format!("open {}: {error}", flags.source)))?;
        engine.import(file, &how)?
    };
    for what in imported.left_out.iter().filter(|_| !flags.quiet) {
        note(&format!(
            "WARNING: the archive asks for what an image cannot hold: {what}"
        ));
    }
    say_line(&imported.image.to_string())?;
    Ok(ExitCode::SUCCESS)
}
