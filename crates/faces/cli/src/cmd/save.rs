//! `save` and `load`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_types::Platform;

use crate::interrupt::Interrupt;
use crate::render::{Progress, gone, say};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const SAVE: Verb = Verb {
    name: "save",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    flags: |command| SaveFlags::augment_args(command),
    run: save,
};

pub(crate) const LOAD: Verb = Verb {
    name: "load",
    about: "Load an image from a tar archive or STDIN",
    flags: |command| LoadFlags::augment_args(command),
    run: load,
};

#[derive(Args, Debug)]
struct SaveFlags {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The archive's form: docker-archive or oci-archive. What is written is both
    #[arg(long, value_name = "FORM", value_parser = ["docker-archive", "oci-archive"])]
    format: Option<String>,
    /// Several images in one archive (podman wants to be told)
    #[arg(short, long)]
    multi_image_archive: bool,
    /// Save only the given platform variant: os/arch[/variant]
    #[arg(long)]
    platform: Option<Platform>,
    /// Say nothing: nothing is said anyway
    #[arg(short, long)]
    quiet: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Args, Debug)]
struct LoadFlags {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only the given platform variant: os/arch[/variant]
    #[arg(long)]
    platform: Option<Platform>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

fn save(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SaveFlags = crate::flags::read(matches)?;
    if dialect::spoken().is_podman() && flags.images.len() > 1 && !flags.multi_image_archive {
        // The second would be a name of the first there, which is a trap.
        return Err(CliError::plain("several images need --multi-image-archive"));
    }
    if flags.format.as_deref() == Some("oci-archive") && flags.multi_image_archive {
        return Err(CliError::plain("--multi-image-archive is for docker-archive"));
    }
    let engine = context.engine()?;
    let names: Vec<String> = flags
        .images
        .iter()
        .map(|name| super::local_image(engine, name))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    archive(flags.output.as_ref(), |output| {
        Ok(engine.save(&names, flags.platform.as_ref(), output)?)
    })
}

/// Writes an archive to standard output, or to a file that is there only when it is whole.
pub(super) fn archive(
    file: Option<&PathBuf>,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let Some(path) = file else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(CliError::plain("cowardly refusing to save to a terminal")
                .with_hint("use the -o flag or redirect"));
        }
        let mut output = BufWriter::with_capacity(256 << 10, stdout.lock());
        write(&mut output)?;
        output.flush().map_err(gone)?;
        return Ok(ExitCode::SUCCESS);
    };
    // Beside its place under a name of this process, then renamed: as `docker save -o`.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let failed = |error: std::io::Error| CliError::plain(format!("write {}: {error}", path.display()));
    let written = || -> Result<(), CliError> {
        let mut output = BufWriter::with_capacity(256 << 10, File::create_new(&beside).map_err(failed)?);
        write(&mut output)?;
        output.flush().map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)
    };
    written().inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether it leads to a server.
fn is_url(path: &std::path::Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with("http://") || text.starts_with("https://")
}

fn load(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LoadFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.input.is_none() && std::io::stdin().is_terminal() {
        return Err(
            CliError::plain("requested load from stdin, but stdin is a terminal")
                .with_hint("use the -i flag"),
        );
    }
    let interrupt = Interrupt::watch()?;
    interrupt.end_when_it_comes(|| {});
    let progress = Progress::new(flags.quiet);
    let platform = flags.platform.as_ref();
    let loaded = match &flags.input {
        Some(path) if is_url(path) => engine.load_from(&path.to_string_lossy(), platform, &progress),
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| CliError::plain(format!("open {}: {error}", path.display())))?;
            engine.load(file, platform, &progress)
        }
        None => engine.load(std::io::stdin(), platform, &progress),
    };
    progress.finish();
    let mut text = String::new();
    for loaded in loaded? {
        if loaded.names.is_empty() {
            text.push_str(&format!("Loaded image ID: {}\n", loaded.image));
        }
        for name in &loaded.names {
            text.push_str(&format!("Loaded image: {}\n", dialect::spoken().image_name(name)));
        }
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}
