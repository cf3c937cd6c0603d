//! `pull` and `push`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Pull, PushForm};
use dhow_reference::Reference;
use dhow_types::Platform;

use crate::flags::PlatformFlags;
use crate::interrupt::Interrupt;
use crate::render::{Progress, note, say_line};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const PULL: Verb = Verb {
    name: "pull",
    about: "Download an image from a registry",
    flags: |command| crate::flags::registry::augment(PullFlags::augment_args(command)),
    run: pull,
};

pub(crate) const PUSH: Verb = Verb {
    name: "push",
    about: "Upload an image to a registry",
    flags: |command| crate::flags::registry::augment(PushFlags::augment_args(command)),
    run: push,
};

#[derive(Args, Debug)]
struct PullFlags {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    platform: PlatformFlags,
    /// When the registry is asked: always, missing (when the image is not here), never, newer (if it can be reached)
    #[arg(long, value_name = "POLICY", default_value = "always", hide_default_value = true,
        value_parser = ["always", "missing", "never", "newer"])]
    policy: String,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

#[derive(Args, Debug)]
struct PushFlags {
    /// Push all tags that the repository has here
    #[arg(short, long)]
    all_tags: bool,
    /// Push the image that the name has for this platform, without its index and what is attested of it: os/arch[/variant]
    #[arg(long)]
    platform: Option<Platform>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

fn pull(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PullFlags = crate::flags::read(matches)?;
    let name = Reference::parse(&flags.image)?;
    let tagged = name.tag().is_some() || name.digest().is_some();
    if flags.all_tags && tagged {
        return Err(CliError::plain("tag can't be used with --all-tags/-a"));
    }
    let wanted = if flags.all_tags {
        name.clone()
    } else {
        name.clone().or_latest()
    };
    let podman = dialect::spoken().is_podman();
    if !podman && !flags.all_tags && !flags.quiet && name.tag().is_none() && name.digest().is_none() {
        say_line("Using default tag: latest")?;
    }
    let engine = context.engine()?;
    let how = Pull {
        platform: flags.platform.platform()?,
        takes_name: podman,
        ..Pull::default()
    };
    let platform = how.platform.as_ref();
    if !flags.all_tags && stays(engine, &flags.policy, &wanted, platform)? {
        let id = engine.image_for(&wanted.canonical(), platform)?.id;
        say_line(&dialect::spoken().image_id(&id))?;
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::watch()?;
    interrupt.end_when_it_comes(|| {});
    // What podman prints on standard output is the id alone.
    let progress = if podman {
        Progress::new(flags.quiet)
    } else {
        Progress::on_output(flags.quiet)
    };
    if podman && !flags.quiet {
        note(&trying(&wanted));
    }
    let pulled = if flags.all_tags {
        engine.pull_all(&flags.image, &how, &progress).map(|()| None)
    } else {
        engine.pull_as(&flags.image, &how, &progress).map(Some)
    };
    progress.finish();
    if let Some(pulled) = pulled? {
        super::lifecycle::warn(engine, &pulled.image, &wanted.familiar());
        if podman {
            say_line(&dialect::spoken().image_id(&pulled.image))?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    // The last line, also of a quiet pull: what was pulled, in full.
    say_line(&wanted.canonical())?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a policy leaves it at the image that is here.
fn stays(
    engine: &dhow_engine::Engine,
    policy: &str,
    name: &Reference,
    platform: Option<&Platform>,
) -> Result<bool, CliError> {
    let name = name.canonical();
    let here = engine.image_for(&name, platform).ok();
    match (policy, here) {
        ("never", None) => Err(CliError::plain(format!("{name}: image not known"))),
        ("never", Some(_)) | ("missing", Some(_)) => Ok(true),
        ("newer", Some(image)) => Ok(match engine.remote_manifest(&name) {
            Ok(there) => image
                .digests
                .iter()
                .any(|(_, digest)| *digest == there.descriptor.digest),
            Err(error) => {
                crate::render::note(&dialect::warning(&format!("{name} is not looked for: {error}")));
                true
            }
        }),
        _ => Ok(false),
    }
}

/// Podman's first words of a pull.
pub(super) fn trying(name: &Reference) -> String {
    format!("Trying to pull {}...", name.canonical())
}

fn push(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PushFlags = crate::flags::read(matches)?;
    let name = Reference::parse(&flags.image)?;
    let tagged = name.tag().is_some() || name.digest().is_some();
    if flags.all_tags && tagged {
        return Err(CliError::plain("tag can't be used with --all-tags/-a"));
    }
    if !flags.quiet && !flags.all_tags && !tagged {
        say_line("Using default tag: latest")?;
    }
    let engine = context.engine()?;
    let interrupt = Interrupt::watch()?;
    interrupt.end_when_it_comes(|| {});
    let progress = Progress::on_output(flags.quiet);
    let local = super::local_image(engine, &flags.image);
    let form = PushForm {
        platform: flags.platform,
        ..PushForm::default()
    };
    let (name, pushed) = if flags.all_tags {
        (name, engine.push_all(&local, &form, &progress))
    } else {
        (
            name.or_latest(),
            engine.push_as(&local, &form, &progress).map(drop),
        )
    };
    progress.finish();
    // Otherwise the last line of the progress names tag, digest and size.
    pushed?;
    if flags.quiet {
        say_line(&name.canonical())?;
    }
    Ok(ExitCode::SUCCESS)
}
