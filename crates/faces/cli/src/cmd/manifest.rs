//! `manifest`: look at manifests in registries, make lists of them.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Annotate, Engine};
use dhow_oci::Document;
use dhow_reference::Reference;
use serde_json::{Value, json};

use crate::render::{say, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const INSPECT: Verb = Verb {
    name: "inspect",
    about: "Display an image manifest, or manifest list",
    flags: |command| InspectFlags::augment_args(command),
    run: inspect,
};

pub(crate) const CREATE: Verb = Verb {
    name: "create",
    about: "Create a local manifest list for annotating and pushing to a registry",
    flags: |command| CreateFlags::augment_args(command),
    run: create,
};

pub(crate) const ANNOTATE: Verb = Verb {
    name: "annotate",
    about: "Add additional information to a local image manifest",
    flags: |command| AnnotateFlags::augment_args(command),
    run: annotate,
};

pub(crate) const PUSH: Verb = Verb {
    name: "push",
    about: "Push a manifest list to a repository",
    flags: |command| PushFlags::augment_args(command),
    run: push,
};

pub(crate) const RM: Verb = Verb {
    name: "rm",
    about: "Delete one or more manifest lists from local storage",
    flags: |command| RmFlags::augment_args(command),
    run: rm,
};

#[derive(Args, Debug)]
struct InspectFlags {
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    /// [MANIFEST_LIST] MANIFEST
    #[arg(required = true, num_args = 1..=2, value_name = "MANIFEST")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
struct CreateFlags {
    /// Amend an existing manifest list
    #[arg(short, long)]
    amend: bool,
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// What it is made of
    #[arg(required = true, value_name = "MANIFEST")]
    members: Vec<String>,
}

#[derive(Args, Debug)]
struct AnnotateFlags {
    /// Set architecture
    #[arg(long)]
    arch: Option<String>,
    /// Set operating system
    #[arg(long)]
    os: Option<String>,
    /// Set operating system feature
    #[arg(long, value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set operating system version
    #[arg(long)]
    os_version: Option<String>,
    /// Set architecture variant
    #[arg(long)]
    variant: Option<String>,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// The manifest in it
    #[arg(value_name = "MANIFEST")]
    member: String,
}

#[derive(Args, Debug)]
struct PushFlags {
    /// Allow push to an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Remove the local manifest list after push
    #[arg(short, long)]
    purge: bool,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
}

#[derive(Args, Debug)]
struct RmFlags {
    /// The lists
    #[arg(required = true, value_name = "MANIFEST_LIST")]
    lists: Vec<String>,
}

/// Most characters that the parts of a platform have.
const MAX_WORD: usize = 128;

/// Does `deed` with an engine that trusts the registries of these names, where the person asked for that.
fn with_engine<T>(
    context: &Context,
    insecure: bool,
    names: &[&String],
    deed: impl FnOnce(&Engine) -> Result<T, CliError>,
) -> Result<T, CliError> {
    if !insecure {
        return deed(context.engine()?);
    }
    let mut settings = context.environment.settings();
    for name in names {
        settings
            .transport
            .insecure
            .push(Reference::parse(name)?.registry().to_owned());
    }
    deed(&Engine::open(settings)?)
}

fn inspect(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: InspectFlags = crate::flags::read(matches)?;
    let names: Vec<&String> = flags.names.iter().collect();
    let value = with_engine(context, flags.insecure, &names, |engine| {
        match flags.names.as_slice() {
            [list, member] => of_list(engine, list, member, flags.verbose),
            [name] | [name, ..] => of_name(engine, name, flags.verbose),
            [] => Err(CliError::plain("no manifest is named")),
        }
    })?;
    // Docker indents by tabs.
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    let written = serde::Serialize::serialize(&value, &mut serializer);
    written.map_err(|error| CliError::plain(error.to_string()))?;
    say(&format!("{}\n", String::from_utf8_lossy(&out)))?;
    Ok(ExitCode::SUCCESS)
}

fn document(bytes: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(bytes).map_err(|error| CliError::plain(format!("read the manifest: {error}")))
}

/// A manifest of a list in the making.
fn of_list(engine: &Engine, list: &str, member: &str, verbose: bool) -> Result<Value, CliError> {
    let wanted = Reference::parse(member)?.or_latest().canonical();
    let found = engine.manifest_list(list)?;
    let found = found.and_then(|list| list.members.into_iter().find(|member| member.reference == wanted));
    let Some(found) = found else {
        return Err(CliError::plain(format!("no such manifest: {member} in {list}")));
    };
    let bytes = found.manifest.as_bytes();
    if verbose {
        whole(&found.reference, &json!(found.descriptor), bytes)
    } else {
        document(bytes)
    }
}

/// A list in the making, or what the registry has.
fn of_name(engine: &Engine, name: &str, verbose: bool) -> Result<Value, CliError> {
    if let Some(list) = engine.manifest_list(name)? {
        if verbose {
            let members = list.members.iter().map(|member| {
                whole(
                    &member.reference,
                    &json!(member.descriptor),
                    member.manifest.as_bytes(),
                )
            });
            return members.collect::<Result<Vec<_>, _>>().map(Value::Array);
        }
        let (_, bytes) = list.document()?;
        return document(&bytes);
    }
    let fetched = engine.remote_manifest(name)?;
    if !verbose {
        return document(&fetched.bytes);
    }
    let reference = Reference::parse(name)?.or_latest();
    match Document::parse(&fetched.bytes, Some(&fetched.descriptor.media_type))? {
        Document::Manifest(_) => whole(&reference.canonical(), &json!(fetched.descriptor), &fetched.bytes),
        Document::Index(index) => {
            let mut all = Vec::new();
            for descriptor in index.manifests {
                let one = reference
                    .clone()
                    .without_tag()
                    .with_digest(descriptor.digest)
                    .canonical();
                let fetched = engine.remote_manifest(&one)?;
                all.push(whole(&one, &json!(descriptor), &fetched.bytes)?);
            }
            Ok(Value::Array(all))
        }
    }
}

/// Docker's `ImageManifest` (docker/cli `cli/manifest/types`).
fn whole(reference: &str, descriptor: &Value, bytes: &[u8]) -> Result<Value, CliError> {
    let manifest = document(bytes)?;
    let docker = descriptor["mediaType"] == dhow_oci::media_type::DOCKER_MANIFEST;
    let key = if docker { "SchemaV2Manifest" } else { "OCIManifest" };
    Ok(json!({"Ref": reference, "Descriptor": descriptor, key: manifest}))
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: CreateFlags = crate::flags::read(matches)?;
    let names: Vec<&String> = flags.members.iter().collect();
    let made = with_engine(context, flags.insecure, &names, |engine| {
        Ok(engine.create_manifest_list(&flags.list, &flags.members, flags.amend)?)
    })?;
    say_line(&format!("Created manifest list {made}"))?;
    Ok(ExitCode::SUCCESS)
}

fn annotate(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: AnnotateFlags = crate::flags::read(matches)?;
    let words = [&flags.arch, &flags.os, &flags.os_version, &flags.variant];
    for word in words.into_iter().flatten().chain(&flags.os_features) {
        if word.len() > MAX_WORD || word.chars().any(char::is_control) {
            return Err(CliError::plain(
                "a part of a platform has at most 128 characters, none of them a control character",
            ));
        }
    }
    let how = Annotate {
        arch: flags.arch,
        os: flags.os,
        os_version: flags.os_version,
        os_features: flags.os_features,
        variant: flags.variant,
    };
    context
        .engine()?
        .annotate_manifest(&flags.list, &flags.member, &how)?;
    Ok(ExitCode::SUCCESS)
}

fn push(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PushFlags = crate::flags::read(matches)?;
    let digest = with_engine(context, flags.insecure, &[&flags.list], |engine| {
        Ok(engine.push_manifest_list(&flags.list, flags.purge)?)
    })?;
    say_line(&digest.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    super::each(&flags.lists, |name| {
        Ok(context.engine()?.remove_manifest_list(name)?)
    })
}
