//! `bootstrap`: a base image straight from a distribution's signed packages.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args};
use dhow_engine::{BootstrapRequest, Engine};
use dhow_types::{ImageId, Observer, Progress as Report, human_size};

use crate::interrupt::Interrupt;
use crate::render::{Progress, note, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "bootstrap",
    about: "Make a base image straight from a distribution's signed packages",
    flags: |command| BootstrapFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct BootstrapFlags {
    /// Name for the image (default: the target's own)
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Take packages from this mirror instead of the host's apt sources
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Trust this keyring instead of the distribution's
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Packages beside the base; PKG=VERSION takes that version
    #[arg(long, value_name = "PKG[=VERSION],...", value_delimiter = ',')]
    include: Vec<String>,
    /// Take package lists that nobody signed
    #[arg(long)]
    insecure: bool,
    /// Take package lists that are past their date
    #[arg(long)]
    accept_expired: bool,
    /// Suppress the progress, print the image ID
    #[arg(short, long)]
    quiet: bool,
    /// What to make, e.g. debian:bookworm-slim
    #[arg(value_name = "DISTRIBUTION:SUITE")]
    target: String,
}

/// Shows progress, and takes Ctrl-C once the work has forked what it needs to.
struct Watching<'a> {
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    /// For the last words: a view of the same folder.
    engine: Arc<Engine>,
}

impl Observer for Watching<'_> {
    fn observe(&self, report: Report<'_>) {
        let engine = Arc::clone(&self.engine);
        self.interrupt
            .end_when_it_comes(move || engine.abandon_bootstrap());
        self.progress.observe(report);
    }
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: BootstrapFlags = crate::flags::read(matches)?;
    let request = BootstrapRequest {
        target: flags.target,
        tags: flags.tag,
        mirror: flags.mirror,
        keyrings: flags.keyring,
        include: flags.include,
        only: false,
        leave_out: Vec::new(),
        insecure: flags.insecure,
        accept_expired: flags.accept_expired,
    };
    make(context, &request, flags.quiet)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the image, shows how it goes, and says what came of it.
pub(super) fn make(context: &Context, request: &BootstrapRequest, quiet: bool) -> Result<ImageId, CliError> {
    let engine = context.engine()?;
    let interrupt = Interrupt::watch()?;
    let progress = Progress::new(quiet);
    let made = engine.bootstrap(
        request,
        &Watching {
            progress: &progress,
            interrupt: &interrupt,
            engine: Arc::new(Engine::open(engine.settings().clone())?),
        },
    );
    progress.finish();
    let image = made?;
    if !quiet {
        let names = image.repo_tags().join(", ");
        note(&format!("Made {names} ({})", human_size(image.record.size)));
    }
    say_line(&image.id.to_string())?;
    Ok(image.id)
}
