//! `working`: an image made step by step, as buildah does it, without a Dockerfile.
//!
//! A working image is what a name below [`PLACE`] stands for: tag `latest` is its state, tag `base` what it began with. Each
//! verb is one step of the builder, or a change of settings, on the state; `commit` makes one layer of all of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{BuildRequest, Engine, Ignore, Image, SetImage, SquashFrom};
use dhow_reference::Reference;
use dhow_types::ImageId;

use super::algebra::SettingFlags;
use super::build::steps;
use crate::render::say_line;
use crate::{CliError, Context, Verb, dialect};

/// Where the names are.
const PLACE: &str = "dhow.local/working";

pub(crate) const FROM: Verb = Verb {
    name: "from",
    about: "Begin a working image with an image, or with scratch",
    flags: |command| FromFlags::augment_args(command),
    run: from,
};

pub(crate) const RUN: Verb = Verb {
    name: "run",
    about: "Run a command in a working image",
    flags: |command| RunFlags::augment_args(command),
    run: run_command,
};

pub(crate) const COPY: Verb = Verb {
    name: "copy",
    about: "Copy files into a working image",
    flags: |command| CopyFlags::augment_args(command),
    run: |context, matches| copy(context, matches, "COPY"),
};

pub(crate) const ADD: Verb = Verb {
    name: "add",
    about: "Copy files into a working image: archives are unpacked, URLs fetched",
    flags: |command| CopyFlags::augment_args(command),
    run: |context, matches| copy(context, matches, "ADD"),
};

pub(crate) const CONFIG: Verb = Verb {
    name: "config",
    about: "Change the settings of a working image",
    flags: |command| ConfigFlags::augment_args(command),
    run: config,
};

pub(crate) const COMMIT: Verb = Verb {
    name: "commit",
    about: "Make an image of a working image, with one layer for all of its steps",
    flags: |command| CommitFlags::augment_args(command),
    run: commit,
};

pub(crate) const LS: Verb = Verb {
    name: "ls",
    about: "List working images",
    flags: |command| command,
    run: ls,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Forget working images",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

#[derive(Args, Debug)]
struct FromFlags {
    /// Name of the working image (default: that of the image)
    #[arg(long)]
    name: Option<String>,
    /// The image, or scratch
    #[arg(value_name = "IMAGE|scratch")]
    image: String,
}

#[derive(Args, Debug)]
struct RunFlags {
    /// Set the networking mode
    #[arg(long, default_value = "default", value_parser = ["default", "host", "none"])]
    network: String,
    /// The working image
    #[arg(value_name = "NAME")]
    name: String,
    /// The command
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

#[derive(Args, Debug)]
struct CopyFlags {
    /// Set the owner
    #[arg(long, value_name = "USER[:GROUP]")]
    chown: Option<String>,
    /// Set the mode
    #[arg(long, value_name = "MODE")]
    chmod: Option<String>,
    /// The working image
    #[arg(value_name = "NAME")]
    name: String,
    /// The files, and last where they go
    #[arg(required = true, num_args = 2.., value_name = "SOURCE... DESTINATION")]
    paths: Vec<String>,
}

#[derive(Args, Debug)]
struct ConfigFlags {
    #[command(flatten)]
    settings: SettingFlags,
    /// The working image
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args, Debug)]
struct CommitFlags {
    /// Keep a layer for each step
    #[arg(long)]
    layers: bool,
    /// Forget the working image then
    #[arg(long)]
    rm: bool,
    /// The working image
    #[arg(value_name = "NAME")]
    name: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: String,
}

#[derive(Args, Debug)]
struct RmFlags {
    /// The working images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// The two names of a working image: state and base.
fn names(name: &str) -> Result<[Reference; 2], CliError> {
    let bad = || CliError::plain(format!("{name:?} is no name of a working image"));
    if name.is_empty() || name.contains(['/', ':', '@']) {
        return Err(bad());
    }
    let of = |tag: &str| Reference::parse(&format!("{PLACE}/{name}:{tag}")).map_err(|_| bad());
    Ok([of("latest")?, of("base")?])
}

/// The state of a working image.
fn state(engine: &Engine, name: &str) -> Result<Image, CliError> {
    let [state, _] = names(name)?;
    engine.image(&state.canonical()).map_err(|_| {
        CliError::plain(format!("no working image {name}")).with_hint("dhow working from IMAGE begins one")
    })
}

fn from(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: FromFlags = crate::flags::read(matches)?;
    let short = |image: &str| {
        let name = Reference::parse(image).map(|name| name.familiar_name());
        let name = name.unwrap_or_else(|_| image.to_owned());
        name.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let name = flags.name.unwrap_or_else(|| short(&flags.image));
    let tags = names(&name)?;
    let engine = context.engine()?;
    if engine.image(&tags[0].canonical()).is_ok() {
        return Err(
            CliError::plain(format!("there is a working image {name} already"))
                .with_hint("name this one with --name, or dhow working rm it"),
        );
    }
    let image = match flags.image.as_str() {
        "scratch" => "scratch".to_owned(),
        image => super::local_image(engine, image),
    };
    let mut request = BuildRequest::new(format!("FROM {image}\n"));
    request.tags = tags.to_vec();
    drop(steps(context, vec![request])?);
    say_line(&name)?;
    Ok(ExitCode::SUCCESS)
}

/// One step on the state, always anew.
fn on_state(
    context: &Context,
    name: &str,
    text: &str,
    folder: Option<PathBuf>,
) -> Result<BuildRequest, CliError> {
    let image = state(context.engine()?, name)?;
    let [state, _] = names(name)?;
    let mut request = BuildRequest::new(format!("FROM {}\n{text}\n", state.canonical()));
    request.context = folder;
    // What is named is meant, also where a file says what a build is to leave out.
    request.ignore = Ignore::Text(String::new());
    request.platform = Some(image.config.platform());
    request.no_cache = true;
    request.aside = true;
    request.tags = vec![state];
    Ok(request)
}

/// Does the steps; the states before the last are nobody's any more.
fn advance(context: &Context, name: &str, requests: Vec<BuildRequest>) -> Result<(), CliError> {
    let engine = context.engine()?;
    let mut passed = vec![state(engine, name)?.id];
    passed.extend(steps(context, requests)?.iter().map(|built| built.image.id));
    passed.pop();
    passed.iter().for_each(|id| leave(engine, id));
    Ok(())
}

/// Removes an image without a name. One that cannot go now is taken by `image prune`.
fn leave(engine: &Engine, id: &ImageId) {
    let name = id.to_string();
    if engine.image(&name).is_ok_and(|image| image.names.is_empty()) {
        drop(engine.remove_image(&name, false));
    }
}

fn json(words: &[String]) -> Result<String, CliError> {
    serde_json::to_string(words).map_err(|error| CliError::plain(error.to_string()))
}

fn run_command(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RunFlags = crate::flags::read(matches)?;
    let text = format!("RUN {}", json(&flags.command)?);
    let mut request = on_state(context, &flags.name, &text, None)?;
    request.network = match flags.network.as_str() {
        "host" => dhow_engine::BuildNetwork::Host,
        "none" => dhow_engine::BuildNetwork::None,
        _ => dhow_engine::BuildNetwork::Default,
    };
    advance(context, &flags.name, vec![request])?;
    Ok(ExitCode::SUCCESS)
}

fn copy(context: &Context, matches: &ArgMatches, verb: &str) -> Result<ExitCode, CliError> {
    let flags: CopyFlags = crate::flags::read(matches)?;
    let mut options = String::new();
    for (name, value) in [("chown", &flags.chown), ("chmod", &flags.chmod)] {
        if let Some(value) = value {
            if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(CliError::plain(format!("invalid --{name} {value:?}")));
            }
            options.push_str(&format!(" --{name}={value}"));
        }
    }
    let Some((destination, sources)) = flags.paths.split_last() else {
        return Err(CliError::plain("no destination is named"));
    };
    // Into a folder, when there are several.
    let several = sources.len() > 1 && !destination.ends_with('/');
    let destination = if several {
        format!("{destination}/")
    } else {
        destination.clone()
    };
    let mut requests = Vec::new();
    for source in sources {
        if source.contains("://") {
            let words = json(&[literal(source), literal(&destination)])?;
            let text = format!("{verb}{options} {words}");
            requests.push(on_state(context, &flags.name, &text, None)?);
            continue;
        }
        let failed = |error: std::io::Error| CliError::plain(format!("copy {source}: {error}"));
        let whole = std::fs::canonicalize(source).map_err(failed)?;
        let (folder, name) = match (whole.parent(), whole.file_name()) {
            (Some(folder), Some(name)) => (folder, name.to_string_lossy().into_owned()),
            _ => (Path::new("/"), ".".to_owned()),
        };
        let words = json(&[exact(&name), literal(&destination)])?;
        let text = format!("{verb}{options} {words}");
        requests.push(on_state(context, &flags.name, &text, Some(folder.to_owned()))?);
    }
    advance(context, &flags.name, requests)?;
    Ok(ExitCode::SUCCESS)
}

/// A word that the builder does not expand.
fn literal(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        if matches!(c, '$' | '\\' | '"' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A path that is no pattern either: what makes one stands in brackets of its own, as docker's documentation has it
/// (`arr[[]0].txt`).
fn exact(path: &str) -> String {
    if !path.contains(['*', '?', '[']) {
        return literal(path);
    }
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            '\\' => pattern.push_str("\\\\"),
            c => pattern.push(c),
        }
    }
    literal(&pattern)
}

fn config(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ConfigFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let before = state(engine, &flags.name)?.id;
    let [name, _] = names(&flags.name)?;
    let now = engine.set_image(&before.to_string(), &flags.settings.wanted()?, &[name])?;
    if now != before {
        leave(engine, &before);
    }
    Ok(ExitCode::SUCCESS)
}

fn commit(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CommitFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let now = state(engine, &flags.name)?;
    let id = now.id.to_string();
    let [_, base] = names(&flags.name)?;
    let tag = Reference::parse(&dialect::spoken().new_name(&flags.image))?.or_latest();
    let began = engine.image(&base.canonical())?;
    let layers = |image: &Image| image.config.rootfs.diff_ids.len();
    let own = layers(&now).saturating_sub(layers(&began));
    let made = if flags.layers || own < 2 {
        engine.set_image(&id, &SetImage::default(), &[tag])?
    } else {
        let from = match layers(&began) {
            0 => SquashFrom::Start,
            _ => SquashFrom::Name(base.canonical()),
        };
        engine.squash_image(&id, &from, &[tag])?
    };
    if flags.rm {
        forget(engine, &flags.name)?;
    }
    say_line(&dialect::spoken().image_id(&made))?;
    Ok(ExitCode::SUCCESS)
}

fn ls(context: &Context, _: &ArgMatches) -> Result<ExitCode, CliError> {
    let start = format!("{PLACE}/");
    let mut found = Vec::new();
    for image in context.engine()?.images()? {
        let own = image
            .names
            .iter()
            .filter_map(|name| name.strip_prefix(&start)?.strip_suffix(":latest"));
        found.extend(own.map(str::to_owned));
    }
    found.sort();
    found.iter().try_for_each(|name| say_line(name))?;
    Ok(ExitCode::SUCCESS)
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    super::each(&flags.names, |name| {
        state(engine, name)?;
        forget(engine, name)?;
        say_line(name)
    })
}

fn forget(engine: &Engine, name: &str) -> Result<(), CliError> {
    for name in names(name)? {
        engine.remove_image(&name.canonical(), false)?;
    }
    Ok(())
}
