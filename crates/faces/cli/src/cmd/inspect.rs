//! `inspect`, and the `inspect` of each group.

use std::process::ExitCode;

use clap::Args;
use dhow_types::{ErrorKind, Platform};
use serde_json::{Value, json};

use crate::render::{inspected, say};
use crate::view::{container_json, image, network, podman};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "inspect",
    about: "Return low-level information on containers, images, volumes and networks",
    flags: |command| named_or_latest(InspectFlags::augment_args(command)),
    run: |context, matches| {
        let flags: InspectFlags = crate::flags::read(matches)?;
        let kinds: &[Kind] = match flags.kind.as_deref() {
            None => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
            Some("container") => &[Kind::Container],
            Some("image") => &[Kind::Image],
            Some("network") => &[Kind::Network],
            Some(_) => &[Kind::Volume],
        };
        let latest = latest(context, flags.latest)?;
        inspect(
            context,
            kinds,
            &flags.common.with(latest),
            &How::sized(flags.size),
        )
    },
};

pub(crate) const CONTAINER: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more containers",
    flags: |command| named_or_latest(SizedFlags::augment_args(command)),
    run: |context, matches| {
        let flags: SizedFlags = crate::flags::read(matches)?;
        let latest = latest(context, flags.latest)?;
        inspect(
            context,
            &[Kind::Container],
            &flags.common.with(latest),
            &How::sized(flags.size),
        )
    },
};

pub(crate) const IMAGE: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more images",
    flags: |command| ImageFlags::augment_args(command),
    run: |context, matches| {
        let flags: ImageFlags = crate::flags::read(matches)?;
        let how = How {
            size: false,
            platform: flags.platform,
        };
        inspect(context, &[Kind::Image], &flags.common, &how)
    },
};

pub(crate) const NETWORK: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more networks",
    flags: |command| CommonFlags::augment_args(command),
    run: |context, matches| {
        inspect(
            context,
            &[Kind::Network],
            &crate::flags::read(matches)?,
            &How::sized(false),
        )
    },
};

pub(crate) const VOLUME: Verb = Verb {
    name: "inspect",
    about: "Display detailed information on one or more volumes",
    flags: |command| CommonFlags::augment_args(command),
    run: |context, matches| {
        inspect(
            context,
            &[Kind::Volume],
            &crate::flags::read(matches)?,
            &How::sized(false),
        )
    },
};

#[derive(Args, Debug)]
struct CommonFlags {
    /// Format output using a custom template: 'json' or TEMPLATE
    #[arg(short, long)]
    format: Option<String>,
    /// The things
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

impl CommonFlags {
    /// The same with one name more.
    fn with(mut self, name: Option<String>) -> Self {
        self.names.extend(name);
        self
    }
}

/// `--latest` stands for a name.
fn named_or_latest(command: clap::Command) -> clap::Command {
    command.mut_arg("names", |names| {
        names.required(false).required_unless_present("latest")
    })
}

pub(super) fn latest(context: &Context, wanted: bool) -> Result<Option<String>, CliError> {
    if !wanted {
        return Ok(None);
    }
    let newest = context.engine()?.containers().list()?.into_iter().next();
    let newest = newest.ok_or_else(|| CliError::plain("there is no container"))?;
    Ok(Some(newest.config.id.to_string()))
}

#[derive(Args, Debug)]
struct SizedFlags {
    #[command(flatten)]
    common: CommonFlags,
    /// The container that was created last
    #[arg(short, long, conflicts_with = "names")]
    latest: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

#[derive(Args, Debug)]
struct ImageFlags {
    #[command(flatten)]
    common: CommonFlags,
    /// Inspect the image that the name has for this platform: os/arch[/variant]
    #[arg(long)]
    platform: Option<Platform>,
}

#[derive(Args, Debug)]
struct InspectFlags {
    #[command(flatten)]
    common: CommonFlags,
    /// The container that was created last
    #[arg(short, long, conflicts_with = "names")]
    latest: bool,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Return JSON for specified type
    #[arg(long = "type", value_name = "TYPE", value_parser = ["container", "image", "network", "volume"])]
    kind: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// What is asked of the things that are found.
struct How {
    /// The sizes of containers.
    size: bool,
    /// The machine that images are for.
    platform: Option<Platform>,
}

impl How {
    fn sized(size: bool) -> Self {
        Self { size, platform: None }
    }
}

fn inspect(context: &Context, kinds: &[Kind], flags: &CommonFlags, how: &How) -> Result<ExitCode, CliError> {
    let mut objects = Vec::new();
    let mut failures = Vec::new();
    for name in &flags.names {
        match find(context, kinds, name, how) {
            Ok(object) => objects.push(object),
            Err(error) => failures.push(error),
        }
    }
    // What was found is shown before the failures, as docker does.
    let text = inspected(&objects, flags.format.as_deref())?;
    say(&text)?;
    let names: Vec<String> = failures.iter().map(|_| String::new()).collect();
    let mut failures = failures.into_iter();
    super::each(&names, |_| failures.next().map_or(Ok(()), Err))
}

fn find(context: &Context, kinds: &[Kind], name: &str, how: &How) -> Result<Value, CliError> {
    let mut last = None;
    for kind in kinds {
        match one(context, *kind, name, how) {
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || kinds.len() > 1 && error.kind() == ErrorKind::InvalidArgument =>
            {
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
            Ok(value) => return Ok(value),
        }
    }
    match last {
        Some(_) if dialect::spoken().is_podman() && matches!(kinds, [Kind::Container]) => {
            Err(CliError::plain(format!("no such container {name:?}")))
        }
        Some(error) if kinds.len() == 1 => Err(error.into()),
        _ if dialect::spoken().is_podman() => Err(CliError::plain(format!("no such object: {name:?}"))),
        _ => Err(CliError::plain(format!("No such object: {name}"))),
    }
}

fn one(context: &Context, kind: Kind, name: &str, how: &How) -> Result<Value, dhow_engine::Error> {
    let engine = context.opened()?;
    let root = &engine.settings().root;
    Ok(match kind {
        Kind::Container => {
            let container = engine.containers().find(name)?;
            let sizes = if how.size {
                let own = engine.container_size(&container.config.id);
                let image = engine
                    .image(&container.config.image.to_string())
                    .map_or(0, |image| image.record.size);
                Some((own, own.saturating_add(image)))
            } else {
                None
            };
            let mut value = container_json::container(&container, root, sizes);
            if dialect::spoken().is_podman() {
                let image = engine.image(&container.config.image.to_string()).ok();
                podman::inspected_container(value, &container, image.as_ref())
            } else {
                // Of an image that went meanwhile there is none (moby `api/types/container.InspectResponse`).
                if let Some(manifest) = container.config.image_manifest(root) {
                    value["ImageManifestDescriptor"] = json!(manifest);
                }
                value
            }
        }
        Kind::Image => {
            let found = engine.image_for(&super::local_image(engine, name), how.platform.as_ref())?;
            let mut value = image::inspect(&found, root);
            let attestations = engine.attestations(&found)?;
            if let Some(fields) = value.as_object_mut().filter(|_| !attestations.is_empty()) {
                fields.insert("Manifests".to_owned(), image::manifests(&attestations));
            }
            if dialect::spoken().is_podman() {
                let history = engine.names_history()?.remove(&found.id).unwrap_or_default();
                podman::inspected_image(value, &found, &history)
            } else {
                value
            }
        }
        Kind::Network => {
            let view = engine.network(dialect::spoken().network(name))?;
            if dialect::spoken().is_podman() {
                podman::inspected_network(&view)
            } else {
                network::inspect(&view)
            }
        }
        Kind::Volume => {
            let volume = engine.volume(name)?;
            if dialect::spoken().is_podman() {
                return Ok(podman::volume(&volume));
            }
            json!({
                "CreatedAt": volume.created,
                "Driver": "local",
                // None is null there.
                "Labels": (!volume.labels.is_empty()).then_some(&volume.labels),
                "Mountpoint": volume.data.display().to_string(),
                "Name": volume.name,
                "Options": (!volume.options.is_empty()).then_some(&volume.options),
                "Scope": "local",
            })
        }
    })
}
