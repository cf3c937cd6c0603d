//! `copy`: images from place to place, as skopeo does it.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Copy, Location};
use dhow_types::Platform;

use crate::interrupt::Interrupt;
use crate::render::{Progress, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "copy",
    about: "Copy an image between registries, OCI layouts and archives, without unpacking it",
    flags: |command| CopyFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct CopyFlags {
    /// Copy every platform, and the list of them as it is
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// The platform to take from a list of several
    #[arg(long)]
    platform: Option<Platform>,
    /// Copy what refers to the image too: signatures, bills of materials
    #[arg(long)]
    referrers: bool,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
    /// docker://NAME, oci:FOLDER[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]
    #[arg(value_name = "SOURCE")]
    from: String,
    /// The same for where it goes
    #[arg(value_name = "TARGET")]
    to: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CopyFlags = crate::flags::read(matches)?;
    let (from, to): (Location, Location) = (flags.from.parse()?, flags.to.parse()?);
    let how = Copy {
        all: flags.all,
        platform: flags.platform,
        referrers: flags.referrers,
    };
    let engine = context.engine()?;
    let interrupt = Interrupt::watch()?;
    interrupt.end_when_it_comes(|| {});
    let progress = Progress::on_output(flags.quiet);
    let copied = engine.copy_image(&from, &to, &how, &progress);
    progress.finish();
    let copied = copied?;
    if !flags.quiet {
        let (documents, blobs) = (copied.documents, copied.blobs);
        say_line(&format!("Copied {documents} manifests and {blobs} blobs to {to}"))?;
    }
    say_line(&copied.digest.to_string())?;
    Ok(ExitCode::SUCCESS)
}
