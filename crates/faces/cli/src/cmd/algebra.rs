//! `image append`, `rebase`, `squash`, `flatten`, `set`: images from images.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{AnnotationPlace, Appended, SetImage, SquashFrom};
use dhow_reference::Reference;
use dhow_types::{ImageId, Platform};

use crate::flags::{env_pairs, labels};
use crate::render::{note, say_line};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const APPEND: Verb = Verb {
    name: "append",
    about: "Make an image with more layers, each of a tar or a folder",
    flags: |command| AppendFlags::augment_args(command),
    run: append,
};

pub(crate) const REBASE: Verb = Verb {
    name: "rebase",
    about: "Put an image's own layers on another base",
    flags: |command| RebaseFlags::augment_args(command),
    run: rebase,
};

pub(crate) const SQUASH: Verb = Verb {
    name: "squash",
    about: "Make one layer of several, with the same files",
    flags: |command| SquashFlags::augment_args(command),
    run: squash,
};

pub(crate) const FLATTEN: Verb = Verb {
    name: "flatten",
    about: "Make an image of one layer and no history, with the same files and settings",
    flags: |command| FlattenFlags::augment_args(command),
    run: flatten,
};

pub(crate) const SET: Verb = Verb {
    name: "set",
    about: "Make an image with other settings and the same layers",
    flags: |command| SetFlags::augment_args(command),
    run: set,
};

#[derive(Args, Debug)]
struct Names {
    /// Name of the new image; without one it has its ID alone
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
}

impl Names {
    fn references(&self) -> Result<Vec<Reference>, CliError> {
        let names = self.tag.iter();
        names
            .map(|name| Ok(Reference::parse(&dialect::spoken().new_name(name))?.or_latest()))
            .collect()
    }
}

#[derive(Args, Debug)]
struct AppendFlags {
    #[command(flatten)]
    names: Names,
    /// Where in the image the folders go
    #[arg(long, default_value = "/", value_name = "PATH")]
    to: String,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What becomes a layer each: a tar, compressed or not, - for one on standard input, or a folder
    #[arg(required = true, value_name = "TAR|FOLDER|-")]
    sources: Vec<PathBuf>,
}

#[derive(Args, Debug)]
struct RebaseFlags {
    #[command(flatten)]
    names: Names,
    /// The image that it was built on
    #[arg(long, value_name = "IMAGE")]
    old_base: String,
    /// The image to put it on
    #[arg(long, value_name = "IMAGE")]
    new_base: String,
    /// Do it also where the layers have to do with what differs in the bases, and say where
    #[arg(short, long)]
    force: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Args, Debug)]
struct SquashFlags {
    #[command(flatten)]
    names: Names,
    /// Where to begin: a layer by its diff ID, or the image that this one is built on; the first layer otherwise
    #[arg(long, value_name = "LAYER|BASE")]
    from: Option<String>,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Args, Debug)]
struct FlattenFlags {
    #[command(flatten)]
    names: Names,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Args, Debug)]
struct SetFlags {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    settings: SettingFlags,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// What can be set of an image.
#[derive(Args, Debug)]
pub(super) struct SettingFlags {
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Take a variable away
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Take a label away
    #[arg(long, value_name = "KEY")]
    unset_label: Vec<String>,
    /// Set the program: a word, or a JSON list; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set the arguments: a word, or a JSON list; empty for none
    #[arg(long, value_name = "ARGUMENTS")]
    cmd: Option<String>,
    /// Set the user
    #[arg(short, long)]
    user: Option<String>,
    /// Set the working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Set the exposed ports, instead of those that there are
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_delimiter = ',')]
    exposed_ports: Option<Vec<String>>,
    /// Say that it is for this machine
    #[arg(long, alias = "set-platform")]
    platform: Option<Platform>,
    /// Set an annotation of the manifest
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Apply an instruction of a Dockerfile
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
}

impl SettingFlags {
    /// The changes that are asked for.
    pub(super) fn wanted(&self) -> Result<SetImage, CliError> {
        let words = |flag: &str, text: &Option<String>| -> Result<Option<Vec<String>>, CliError> {
            text.as_deref().map(|text| words(flag, text)).transpose()
        };
        let ports = self.exposed_ports.as_deref();
        let ports = ports.map(|ports| ports.iter().map(|text| port(text)).collect());
        let annotations = super::build::annotations(&self.annotation)?;
        super::build::check_of_one(&annotations)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        Ok(SetImage {
            env: env_pairs(&self.env, &[])?,
            unset_env: self.unset_env.clone(),
            labels: labels(&self.label, &[])?,
            unset_labels: self.unset_label.clone(),
            entrypoint: words("--entrypoint", &self.entrypoint)?,
            cmd: words("--cmd", &self.cmd)?,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            exposed_ports: ports.transpose()?,
            platform: self.platform.clone(),
            annotations: annotations.of(AnnotationPlace::Manifest, &platform),
            changes: self.change.clone(),
        })
    }
}

fn done(id: &ImageId) -> Result<ExitCode, CliError> {
    say_line(&dialect::spoken().image_id(id))?;
    Ok(ExitCode::SUCCESS)
}

fn append(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: AppendFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let source = |path: &PathBuf| {
        if path.is_dir() {
            Appended::Folder(path.clone(), flags.to.clone())
        } else {
            Appended::Tar(path.clone())
        }
    };
    let sources: Vec<Appended> = flags.sources.iter().map(source).collect();
    let folders = sources
        .iter()
        .any(|source| matches!(source, Appended::Folder(..)));
    if flags.to != "/" && !folders {
        return Err(CliError::plain("--to is for folders: a tar is appended as it is"));
    }
    let image = super::local_image(engine, &flags.image);
    done(&engine.append_to_image(&image, &sources, &flags.names.references()?)?)
}

fn rebase(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RebaseFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let local = |name: &str| super::local_image(engine, name);
    let rebased = engine.rebase_image(
        &local(&flags.image),
        &local(&flags.old_base),
        &local(&flags.new_base),
        flags.force,
        &flags.names.references()?,
    )?;
    for conflict in &rebased.conflicts {
        note(&dialect::warning(&crate::render::build::harmless(conflict)));
    }
    done(&rebased.image)
}

fn squash(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SquashFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let from = flags.from.map_or(SquashFrom::Start, SquashFrom::Name);
    let image = super::local_image(engine, &flags.image);
    done(&engine.squash_image(&image, &from, &flags.names.references()?)?)
}

fn flatten(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: FlattenFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let image = super::local_image(engine, &flags.image);
    done(&engine.flatten_image(&image, &flags.names.references()?)?)
}

fn set(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SetFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let image = super::local_image(engine, &flags.image);
    done(&engine.set_image(&image, &flags.settings.wanted()?, &flags.names.references()?)?)
}

/// One word, or a JSON list of words.
fn words(flag: &str, text: &str) -> Result<Vec<String>, CliError> {
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| CliError::plain(format!("invalid {flag} {text:?}: {error}")));
    }
    Ok(Some(text.to_owned())
        .filter(|text| !text.is_empty())
        .into_iter()
        .collect())
}

fn port(text: &str) -> Result<String, CliError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    match number.parse::<u16>() {
        Ok(number) if known => Ok(format!("{number}/{protocol}")),
        _ => Err(CliError::plain(format!(
            "invalid port {text:?}: write NUMBER[/tcp|udp|sctp]"
        ))),
    }
}
