//! `create`: a container of an image that is here, or is fetched first.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::{CreateContainer, Created, MountSpec, OwnRoot};
use dhow_types::{ErrorKind, Platform, Silent};

use crate::dialect::{self, Dialect};
use crate::flags::ContainerFlags;
use crate::render::{note, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "create",
    about: "Create a new container",
    flags: |command| {
        crate::flags::registry::augment(ContainerFlags::augment_args(command))
            .override_usage("dhow create [OPTIONS] IMAGE [COMMAND] [ARG...]")
    },
    run,
};

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ContainerFlags = crate::flags::read(matches)?;
    let id = create(context, &flags)?;
    say_line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Creates the container, with its image if that is missing; failures exit with docker's 125.
pub(crate) fn create(context: &Context, flags: &ContainerFlags) -> Result<dhow_types::ContainerId, CliError> {
    refuse_contradictions(flags)?;
    let mut request = flags.request().map_err(|error| error.with_code(125))?;
    let engine = context.engine()?;
    if flags.podman.rootfs {
        request.extras.root = Some(host_root(&std::mem::take(&mut request.image))?);
    } else {
        request.image = match archive(&request.image) {
            Some(path) => load(engine, &path, request.platform.as_ref(), flags.quiet)?,
            None => super::local_image(engine, &request.image),
        };
    }
    flags.podman.add_to(&mut request)?;
    add_proxies(context, &mut request.env);
    crate::notify::Notifier::new(flags.podman.sdnotify).add_to(&mut request);
    if dialect::spoken().is_podman() {
        let conf = crate::containers_conf::ContainersConf::usual()?;
        usual_capabilities(&conf, &mut request)?;
        request.extras.names = Some(conf.names()?);
        request.extras.runtime = context.globals.runtime();
        one_mount_a_place(&mut request)?;
        in_podmans_way(&mut request);
        usual_mounts(context, &mut request)?;
    }
    if let Some(path) = &flags.cidfile
        && dialect::spoken().is_podman()
    {
        request.extras.cidfile = crate::flags::absolute(Some(path))?;
    }
    if flags.kernel_memory.is_some() {
        note(&dialect::warning(
            "The --kernel-memory flag is no longer supported. This flag is a noop.",
        ));
    }
    if flags.podman.replace
        && let Some(name) = &flags.name
        && engine.containers().find(name).is_ok()
    {
        engine.remove_container(name, true, false)?;
    }
    if flags.pull == "newer" && !flags.podman.rootfs {
        match pull(context, flags) {
            Err(error) if is_missing(engine, &request) => return Err(error),
            _ => {}
        }
    }
    if flags.pull == "always" && !flags.podman.rootfs {
        if dialect::spoken().is_podman()
            && !flags.quiet
            && let Ok(name) = dhow_reference::Reference::parse(flags.image())
        {
            note(&super::pull::trying(&name.or_latest()));
        }
        pull(context, flags)?;
    }
    images_to_mount(context, flags, &mut request)?;
    if flags.podman.splits_group() {
        request.cgroup_parent = engine.split_group()?;
    }
    let made = match flags.podman.pod()? {
        Some(pod) => super::pod::join(engine, &mut request, &pod).map_err(|error| error.with_code(125))?,
        None => None,
    };
    let created = with_image(context, flags, &request).inspect_err(|_| {
        if let Some(pod) = &made {
            super::pod::forget(engine, pod);
        }
    })?;
    warn(&created);
    if let Some(path) = &flags.cidfile {
        std::fs::write(path, created.id.as_str()).map_err(|error| {
            CliError::plain(format!("write the container ID to {}: {error}", path.display())).with_code(125)
        })?;
    }
    Ok(created.id)
}

/// What the person should know of the container.
fn warn(created: &Created) {
    // What podman says in its place can be turned off, and its tests take every line for the program's.
    let lacks = created.lacks.iter().filter(|_| !dialect::spoken().is_podman());
    let foreign = created.foreign.as_ref();
    let foreign = foreign.map(|platform| dialect::spoken().foreign_image(platform));
    for warning in created.warnings.iter().chain(lacks).chain(&foreign) {
        note(&format!("WARNING: {warning}"));
    }
}

/// The proxies that docker's `config.json` gives to containers, as far as nobody said otherwise.
fn add_proxies(context: &Context, env: &mut Vec<String>) {
    for (name, value) in context.environment.proxies() {
        let said = |set: &String| set.split('=').next() == Some(name.as_str());
        if !env.iter().any(said) {
            env.push(format!("{name}={value}"));
        }
    }
}

/// Creates the container, after its image was pulled if it is not here.
fn with_image(
    context: &Context,
    flags: &ContainerFlags,
    request: &CreateContainer,
) -> Result<Created, CliError> {
    let engine = context.engine()?;
    let created = match engine.create(request) {
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && !flags.podman.rootfs
                && flags.pull == "missing"
                && is_missing(engine, request) =>
        {
            if !flags.quiet {
                note(
                    &match (dialect::spoken(), dhow_reference::Reference::parse(flags.image())) {
                        (Dialect::Podman, Ok(name)) => super::pull::trying(&name.or_latest()),
                        _ => format!("Unable to find image '{}' locally", flags.image()),
                    },
                );
            }
            pull(context, flags)?;
            engine.create(request)
        }
        created => created,
    };
    created.map_err(|error| CliError::from(error).with_code(125))
}

/// The archive that podman's users may name in the place of an image: `docker-archive:PATH`, `oci-archive:PATH`.
fn archive(image: &str) -> Option<std::path::PathBuf> {
    let kinds = ["docker-archive:", "oci-archive:"];
    let path = kinds.iter().find_map(|kind| image.strip_prefix(kind))?;
    dialect::spoken().is_podman().then(|| path.into())
}

/// Reads the archive; the name of its image, or its ID.
fn load(
    engine: &dhow_engine::Engine,
    path: &std::path::Path,
    platform: Option<&Platform>,
    quiet: bool,
) -> Result<String, CliError> {
    let file = std::fs::File::open(path)
        .map_err(|error| CliError::plain(format!("open {}: {error}", path.display())).with_code(125))?;
    // Apart, since this process must have one thread when the container starts.
    let image = engine.apart(|engine| {
        let loaded = engine.load(file, platform, &Silent)?;
        let first = loaded.first();
        Ok(first.map(|loaded| {
            let name = loaded.names.first().cloned();
            name.unwrap_or_else(|| loaded.image.to_string())
        }))
    });
    let image = image.map_err(|error| CliError::from(error).with_code(125))?;
    let image = image.ok_or_else(|| {
        CliError::plain(format!("{}: there is no image in it", path.display())).with_code(125)
    })?;
    if !quiet {
        let config = engine.image(&image)?;
        note("Getting image source signatures");
        for layer in &config.config.rootfs.diff_ids {
            note(&format!("Copying blob {layer}"));
        }
        note(&format!(
            "Copying config {}\nWriting manifest to image destination",
            config.id
        ));
    }
    Ok(image)
}

/// What flags contradict, or would write over.
fn refuse_contradictions(flags: &ContainerFlags) -> Result<(), CliError> {
    flags.check()?;
    // A switch that is taken back is not seen any more by those who read the flags.
    if flags.podman.rmi && std::env::args().any(|word| word == "--rm=false") {
        let message = "the --rmi option does not work without --rm";
        return Err(CliError::plain(message).with_code(125));
    }
    match &flags.cidfile {
        // Podman writes over it.
        Some(path) if path.exists() && !dialect::spoken().is_podman() => {
            let message = format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            );
            Err(CliError::plain(message).with_code(125))
        }
        _ => Ok(()),
    }
}

/// The capabilities that `containers.conf` gives in place of the usual ones, with what the person changes of them.
fn usual_capabilities(
    conf: &crate::containers_conf::ContainersConf,
    request: &mut CreateContainer,
) -> Result<(), CliError> {
    let Some(mut usual) = conf.capabilities()? else {
        return Ok(());
    };
    let name = |text: &String| {
        let upper = text.to_ascii_uppercase();
        upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
    };
    let all = |texts: &[String]| texts.iter().any(|text| name(text) == "ALL");
    if request.privileged || all(&request.cap_add) || all(&request.cap_drop) {
        return Ok(());
    }
    usual.retain(|one| !request.cap_drop.iter().any(|dropped| name(dropped) == name(one)));
    usual.append(&mut request.cap_add);
    request.cap_add = usual;
    request.cap_drop = vec!["ALL".to_owned()];
    Ok(())
}

/// `FOLDER[:O|:idmap]`.
fn host_root(text: &str) -> Result<OwnRoot, CliError> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let (overlay, mapped) = match options {
        "" => (false, false),
        "O" => (true, true),
        "idmap" => (false, true),
        other => {
            let message =
                format!("invalid option {other:?} of --rootfs {text}: use FOLDER, FOLDER:O or FOLDER:idmap");
            return Err(CliError::plain(message).with_code(125));
        }
    };
    let path =
        std::path::absolute(path).map_err(|error| CliError::plain(format!("--rootfs {path}: {error}")))?;
    Ok(OwnRoot::Folder {
        path,
        overlay,
        mapped,
    })
}

/// What every container of this host has mounted, where nothing else is.
fn usual_mounts(context: &Context, request: &mut CreateContainer) -> Result<(), CliError> {
    for (source, target) in context.globals.mounts()? {
        if request.mounts.iter().any(|mount| mount.target() == target) {
            continue;
        }
        request.mounts.push(MountSpec::Bind {
            source,
            target,
            read_only: true,
            create: false,
            propagation: dhow_engine::Propagation::default(),
            relabel: dhow_engine::Relabel::No,
            options: Vec::new(),
            submounts: dhow_engine::Submounts::default(),
        });
    }
    Ok(())
}

/// Podman takes a mount that is given twice once, and refuses two of one place.
fn one_mount_a_place(request: &mut CreateContainer) -> Result<(), CliError> {
    let mut mounts: Vec<MountSpec> = Vec::with_capacity(request.mounts.len());
    for mount in std::mem::take(&mut request.mounts) {
        if mounts.contains(&mount) {
            continue;
        }
        if mounts.iter().any(|other| other.target() == mount.target()) {
            let message = format!("{}: duplicate mount destination", mount.target().display());
            return Err(CliError::plain(message).with_code(125));
        }
        mounts.push(mount);
    }
    request.mounts = mounts;
    Ok(())
}

/// What podman does where docker does something else.
fn in_podmans_way(request: &mut CreateContainer) {
    // Of several limits of one kind the last counts.
    let all = std::mem::take(&mut request.ulimits);
    for limit in all {
        request.ulimits.retain(|other| other.name != limit.name);
        request.ulimits.push(limit);
    }
    // Memory begins with what the image has in its place (podman-run(1), `tmpcopyup`).
    for mount in &mut request.mounts {
        if let MountSpec::Tmpfs { options, .. } = mount
            && !options.iter().any(|option| option.ends_with("tmpcopyup"))
        {
            options.push("tmpcopyup".to_owned());
        }
    }
    // Its word for the usual network.
    request.networks.retain(|network| network.network != "private");
    for network in request
        .networks
        .iter_mut()
        .filter(|network| network.network == "podman")
    {
        "bridge".clone_into(&mut network.network);
    }
    // It says in the container what made it (systemd, "The Container Interface").
    if !request.bare_env && !request.env.iter().any(|set| set.starts_with("container=")) {
        request.env.push("container=podman".to_owned());
    }
    // It goes on without the ports that a network cannot publish.
    let mode = request
        .networks
        .first()
        .map_or("", |network| network.network.as_str());
    let mode = mode.split(':').next().unwrap_or(mode);
    if matches!(mode, "host" | "none" | "container") && (!request.ports.is_empty() || request.publish_all) {
        request.ports.clear();
        request.publish_all = false;
        note(&format!(
            "Port mappings have been discarded because \"{mode}\" network namespace mode does not support them"
        ));
    }
}

/// Whether a registry may have the image: its name is not here, or not for the platform. Of an ID there is no other.
fn is_missing(engine: &dhow_engine::Engine, request: &CreateContainer) -> bool {
    let name = request.image.as_str();
    let Ok(image) = engine.image(name) else {
        return true;
    };
    let is_id = image.id.hex().starts_with(name) || image.id.to_string().starts_with(name);
    !is_id && engine.image_for(name, request.platform.as_ref()).is_err()
}

/// Pulls the images that are to be mounted, where `--pull` says so.
fn images_to_mount(
    context: &Context,
    flags: &ContainerFlags,
    request: &mut CreateContainer,
) -> Result<(), CliError> {
    for mount in &mut request.mounts {
        let MountSpec::Image { image, .. } = mount else {
            continue;
        };
        let engine = context.engine()?;
        *image = super::local_image(engine, image);
        let here = engine.image(image).is_ok();
        if flags.pull == "always" || (!here && flags.pull != "never") {
            pull_image(context, flags, image)?;
        }
    }
    Ok(())
}

fn pull(context: &Context, flags: &ContainerFlags) -> Result<(), CliError> {
    pull_image(context, flags, flags.image())
}

/// Pulls in a process of its own, so that this one stays single-threaded and may start the container.
fn pull_image(context: &Context, flags: &ContainerFlags, image: &str) -> Result<(), CliError> {
    let quiet = flags.quiet;
    let platform = flags.platform.platform()?;
    let pulled = context.engine()?.apart(|engine| {
        let progress = crate::render::Progress::new(quiet);
        let observer: &dyn dhow_types::Observer = if quiet { &Silent } else { &progress };
        let pulled = engine.pull(image, platform.clone(), observer);
        progress.finish();
        pulled.map(drop)
    });
    pulled.map_err(|error| {
        let code = if error.kind() == ErrorKind::Cancelled {
            130
        } else {
            125
        };
        CliError::from(error).with_code(code)
    })
}
