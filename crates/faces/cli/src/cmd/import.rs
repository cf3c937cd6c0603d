//! `import`: an image of a root file system in a tar.

use std::fs::File;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Import;

use crate::render::say_line;
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
    /// Set commit message for imported image
    #[arg(short, long, default_value = "")]
    message: String,
    /// Set platform if the image is for another machine
    #[arg(long)]
    platform: Option<dhow_types::Platform>,
    /// The tarball, or - for standard input
    #[arg(value_name = "FILE|-")]
    source: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let how = Import {
        config: engine.changed_config(&flags.change)?,
        message: flags.message,
        tags: match &flags.name {
            Some(name) => vec![dhow_reference::Reference::parse(name)?.or_latest()],
            None => Vec::new(),
        },
        platform: flags.platform,
        ..Import::default()
    };
    let id = if flags.source == "-" {
        engine.import(std::io::stdin(), &how)?
    } else if flags.source.starts_with("http://") || flags.source.starts_with("https://") {
        return Err(CliError::plain("import of a URL is not supported")
            .with_hint("download it, then import the file"));
    } else {
        let file = File::open(&flags.source)
            .map_err(|error| CliError::plain(format!("open {}: {error}", flags.source)))?;
        engine.import(file, &how)?
    };
    say_line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}
