//! The verbs of `volume`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Volume, VolumeRequest};
use dhow_types::ErrorKind;

use crate::flags::{Filters, key_value, labels};
use crate::render::{Fields, Look, Row, say, say_line};
use crate::{CliError, Context, Verb, dialect, view};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Create a volume",
    flags: |command| CreateFlags::augment_args(command),
    run: create,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List volumes",
    flags: |command| LsFlags::augment_args(command),
    run: ls,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Remove one or more volumes",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

pub(crate) const PRUNE: Verb = Verb {
    name: "prune",
    about: "Remove unused local volumes",
    flags: |command| PruneFlags::augment_args(command),
    run: prune,
};

#[derive(Args, Debug)]
struct CreateFlags {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// The driver's options: type, device, o
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Leave a volume that is there as it is
    #[arg(long)]
    ignore: bool,
    /// Its name; a random one when there is none
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CreateFlags = crate::flags::read(matches)?;
    let request = VolumeRequest {
        name: flags.name,
        labels: labels(&flags.label, &[])?,
        options: flags.opt.iter().map(|text| key_value(text)).collect(),
    };
    // Docker leaves it as it is without being asked.
    if let Some(name) = &request.name
        && dialect::spoken().is_podman()
        && !flags.ignore
        && context.engine()?.volume(name).is_ok()
    {
        let message = format!("volume with name {name} already exists: volume already exists");
        return Err(CliError::plain(message));
    }
    let volume = context.engine()?.create_volume(&request)?;
    say_line(&volume.name)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct LsFlags {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Show the table without its headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) const FIELDS: Fields = &[
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

const TABLE: [&str; 2] = ["Driver", "Name"];

/// One volume as a row.
pub(crate) fn row(volume: &Volume) -> Row {
    Row::new([
        ("Availability", "N/A".into()),
        ("Driver", "local".into()),
        ("Group", "N/A".into()),
        ("Labels", view::labels(&volume.labels).into()),
        ("Links", "N/A".into()),
        ("Mountpoint", volume.data.display().to_string().into()),
        ("Name", volume.name.as_str().into()),
        ("Scope", "local".into()),
        ("Size", "N/A".into()),
        ("Status", "N/A".into()),
    ])
    .with_labels(&volume.labels)
}

/// One volume as the dialect shows it.
fn spoken_row(volume: &Volume) -> Row {
    if dialect::spoken().is_podman() {
        row(volume).with_document(view::podman::volume(volume))
    } else {
        row(volume)
    }
}

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LsFlags = crate::flags::read(matches)?;
    let filters = Filters::parse(&flags.filter, &["dangling", "driver", "label", "label!", "name"])?;
    let names = filters.names()?;
    let engine = context.engine()?;
    let dangling = filters.flag("dangling")?;
    // Only this filter looks at the containers.
    let containers = if dangling.is_some() {
        engine.containers().list()?
    } else {
        Vec::new()
    };
    let used = |volume: &Volume| {
        let mounts = containers.iter().flat_map(|container| &container.config.mounts);
        mounts
            .into_iter()
            .any(|mount| mount.name.as_deref() == Some(&volume.name))
    };
    let volumes = engine.volumes()?;
    let rows: Vec<_> = volumes
        .iter()
        .filter(|volume| {
            dangling.is_none_or(|dangling| used(volume) != dangling)
                && filters.any("driver", |driver| driver == "local")
                && names.fit(&volume.name)
                && filters.labels(|name| volume.labels.get(name))
        })
        .map(spoken_row)
        .collect();
    let quiet = flags.quiet.then_some("Name");
    let look = Look {
        fields: FIELDS,
        table: &TABLE,
        format: flags.format.as_deref(),
        quiet,
        bare: flags.noheading,
    };
    say(&look.show(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args, Debug)]
struct RmFlags {
    /// Do not error if the volume does not exist
    #[arg(short, long)]
    force: bool,
    /// Every volume
    #[arg(short, long, conflicts_with = "volumes")]
    all: bool,
    /// With podman's --force: seconds that a container which uses it has after its stop signal
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    time: Option<u64>,
    /// The volumes
    #[arg(required_unless_present = "all", value_name = "VOLUME")]
    volumes: Vec<String>,
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = if flags.all {
        engine.volumes()?.into_iter().map(|volume| volume.name).collect()
    } else {
        flags.volumes
    };
    let podman = dialect::spoken().is_podman();
    if flags.time.is_some() && !(flags.force && podman) {
        return Err(CliError::plain(
            "--time is for the containers that podman's --force ends: there are none here",
        ));
    }
    super::each(&names, |name| {
        if flags.force && podman {
            // podman-volume-rm(1): force removes the containers that use it, too.
            for user in engine.volume_users(name)? {
                let id = user.config.id.as_str();
                if let Some(seconds) = flags.time.filter(|seconds| *seconds > 0) {
                    engine.stop(id, None, Some(std::time::Duration::from_secs(seconds)))?;
                }
                match engine.remove_container(id, true, false) {
                    // It went by itself when it ended (`--rm`).
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    removed => removed?,
                }
            }
        }
        match engine.remove_volume(name) {
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(dialect::spoken().not_removed(error)),
            Ok(()) => say_line(name),
        }
    })
}

pub(crate) const MOUNT: Verb = Verb {
    name: "mount",
    about: "Mount a volume if it is a file system, and tell where its content is",
    flags: |command| NamesFlags::augment_args(command),
    run: |context, matches| {
        let flags: NamesFlags = crate::flags::read(matches)?;
        let engine = context.engine()?;
        super::each(&flags.volumes, |name| {
            let path = engine.mount_volume(&engine.volume(name)?)?;
            say_line(&path.display().to_string())
        })
    },
};

pub(crate) const UNMOUNT: Verb = Verb {
    name: "unmount",
    about: "Unmount a volume that no running container has",
    flags: |command| NamesFlags::augment_args(command),
    run: |context, matches| {
        let flags: NamesFlags = crate::flags::read(matches)?;
        let engine = context.engine()?;
        super::each(&flags.volumes, |name| {
            engine.unmount_volume(&engine.volume(name)?)?;
            say_line(name)
        })
    },
};

#[derive(Args, Debug)]
struct NamesFlags {
    /// The volumes
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

#[derive(Args, Debug)]
struct PruneFlags {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Only those for which the condition holds (label, label!)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

/// Podman's removes those with a name, too, says which first, and asks who may be a pipe.
fn prune_as_podman(context: &Context, flags: &PruneFlags) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&flags.filter, &["label", "label!"])?;
    let engine = context.engine()?;
    let mut names = Vec::new();
    for volume in engine.volumes()? {
        if filters.labels(|name| volume.labels.get(name)) && engine.volume_users(&volume.name)?.is_empty() {
            names.push(volume.name);
        }
    }
    if !flags.force {
        let mut text = String::from(
            "WARNING! This will remove all volumes not used by at least one container. The following \
                                     volumes will be removed:\n",
        );
        for name in &names {
            text.push_str(&format!("{name}\n"));
        }
        say(&(text + "Are you sure you want to continue? [y/N] "))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") {
            return Ok(ExitCode::SUCCESS);
        }
    }
    super::each(&names, |name| {
        engine.remove_volume(name)?;
        say_line(name)
    })
}

fn prune(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PruneFlags = crate::flags::read(matches)?;
    if dialect::spoken().is_podman() {
        return prune_as_podman(context, &flags);
    }
    let kind = if flags.all { "" } else { "anonymous " };
    let warning = format!("This will remove {kind}local volumes not used by at least one container.");
    if super::confirm::confirmed(&warning, flags.force)? {
        let (removed, bytes) = context.engine()?.prune_volumes(flags.all)?;
        say(&(super::listed("Deleted Volumes:", &removed) + &super::reclaimed(bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}
