//! `image mount`, `image unmount`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::render::say_line;
use crate::{CliError, Context, Verb};

pub(crate) const MOUNT: Verb = Verb {
    name: "mount",
    about: "Mount images read-only and print where, or list those that are mounted",
    flags: |command| MountFlags::augment_args(command),
    run: mount,
};

pub(crate) const UNMOUNT: Verb = Verb {
    name: "unmount",
    about: "Unmount images that image mount mounted",
    flags: |command| UnmountFlags::augment_args(command),
    run: unmount,
};

#[derive(Args, Debug)]
struct MountFlags {
    /// The images; none lists what is mounted
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Args, Debug)]
struct UnmountFlags {
    /// Unmount all images that are mounted
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Unmount also what a process still uses; it keeps it until it ends
    #[arg(short, long)]
    force: bool,
    /// The images
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
}

fn mount(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: MountFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.images.is_empty() {
        for mounted in engine.mounted_images()? {
            say_line(&format!("{} {}", mounted.image.short(), mounted.path.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let several = flags.images.len() > 1;
    super::each(&flags.images, |name| {
        let path = engine.mount_image(&super::local_image(engine, name))?;
        let path = path.display();
        // One path alone is for `$(...)`.
        say_line(&if several {
            format!("{name} {path}")
        } else {
            path.to_string()
        })
    })
}

fn unmount(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: UnmountFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = if flags.all {
        let mounted = engine.mounted_images()?;
        mounted.iter().map(|mounted| mounted.image.to_string()).collect()
    } else {
        flags.images
    };
    super::each(&names, |name| {
        if !engine.unmount_image(&super::local_image(engine, name), flags.force)? {
            return Err(CliError::plain(format!("image {name} is not mounted")));
        }
        say_line(name)
    })
}
