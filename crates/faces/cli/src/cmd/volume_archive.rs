//! `volume export` and `volume import`: what is in a volume as a tar, to keep and to bring back.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::{CliError, Context, Verb};

pub(crate) const EXPORT: Verb = Verb {
    name: "export",
    about: "Export a volume's content as a tar archive",
    flags: |command| ExportFlags::augment_args(command),
    run: export,
};

pub(crate) const IMPORT: Verb = Verb {
    name: "import",
    about: "Import a tar archive into a volume, over what is there",
    flags: |command| ImportFlags::augment_args(command),
    run: import,
};

#[derive(Args, Debug)]
struct ExportFlags {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The volume
    #[arg(value_name = "VOLUME")]
    volume: String,
}

#[derive(Args, Debug)]
struct ImportFlags {
    /// The volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// The archive, or - for standard input
    #[arg(value_name = "FILE|-")]
    source: PathBuf,
}

fn export(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ExportFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    // Before a file is made for nothing.
    engine.volume(&flags.volume)?;
    super::save::archive(flags.output.as_ref(), |output| {
        Ok(engine.export_volume(&flags.volume, output)?)
    })
}

fn import(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImportFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.source.as_os_str() == "-" {
        let input = std::io::stdin();
        if input.is_terminal() {
            return Err(
                CliError::plain("standard input is a terminal").with_hint("redirect an archive to it")
            );
        }
        engine.import_volume(&flags.volume, input)?;
    } else {
        let path = flags.source.display();
        let file =
            File::open(&flags.source).map_err(|error| CliError::plain(format!("open {path}: {error}")))?;
        engine.import_volume(&flags.volume, std::io::BufReader::with_capacity(256 << 10, file))?;
    }
    Ok(ExitCode::SUCCESS)
}
