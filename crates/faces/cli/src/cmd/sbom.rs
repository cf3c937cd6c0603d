//! `sbom`: what is in an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::sbom::{Installed, Inventory, Subject, cyclonedx, read_sbom, spdx2, spdx3};
use dhow_engine::{Contents, Engine, Image, Location, LyingImage, Origin};
use dhow_types::Platform;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::render::{note, say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "sbom",
    about: "List the packages in an image, with the layer that brought each (software bill of materials)",
    flags: |command| SbomFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct SbomFlags {
    /// Format output: table, json, cyclonedx (1.6), spdx (2.3) or spdx3 (3.0.1)
    #[arg(long, default_value = "table", value_parser = ["table", "json", "cyclonedx", "spdx", "spdx3"])]
    format: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    lying: LyingFlags,
    /// The image, a folder (a path with a slash), a file with a bill of materials, or an image where it lies: a file of docker save or
    /// an OCI archive, docker-archive:FILE[:NAME], oci-archive:FILE[:NAME], oci:FOLDER[:NAME]
    #[arg(value_name = "IMAGE|FOLDER|SBOM|ARCHIVE", required = true)]
    target: String,
}

#[derive(Args, Debug, Default)]
pub(super) struct LyingFlags {
    /// Check that the layers of an image in an archive are those that its config names, as load does (images that are here were checked when
    /// they came)
    #[arg(long)]
    pub(super) verify: bool,
    /// Of several images in an OCI layout the one for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl LyingFlags {
    fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    fn are_for_no_image(&self, name: &str) -> Result<(), CliError> {
        match self.verify || self.platform.is_some() {
            true => Err(CliError::plain(format!(
                "--verify and --platform are for images, and {name} is none"
            ))),
            false => Ok(()),
        }
    }
}

pub(crate) const OWNER: Verb = Verb {
    name: "owner",
    about: "Tell which package a file of an image belongs to, and which layer brought it",
    flags: |command| OwnerFlags::augment_args(command),
    run: owner,
};

#[derive(Args, Debug)]
struct OwnerFlags {
    /// Format output: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Paths in it
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

/// What was asked about, and what is in it.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) image: Option<Image>,
    pub(super) contents: Contents,
    /// The image is in no store: it lies in an archive or a layout.
    pub(super) lying: bool,
}

impl Target {
    /// An image by its name; what begins as a path, and is one: a folder, an archive with an image, or a file with a bill of materials;
    /// or an image in a place.
    pub(super) fn find(engine: &Engine, name: &str, flags: &LyingFlags) -> Result<Self, CliError> {
        if let Some(place) = place(name) {
            let found = LyingImage::at(&place?, &flags.platform())?;
            return Self::of_lying(engine, name, found, flags);
        }
        let is_path =
            name == "." || name == ".." || ["/", "./", "../"].iter().any(|begin| name.starts_with(begin));
        let path = Path::new(name);
        if is_path && path.is_file() {
            if let Some(found) = LyingImage::in_file(path, &flags.platform())? {
                return Self::of_lying(engine, name, found, flags);
            }
            flags.are_for_no_image(name)?;
            let inventory = read_sbom(&super::sign::read(path)?)?;
            return Ok(Self::without_image(name, inventory));
        }
        if is_path {
            flags.are_for_no_image(name)?;
            let inventory = engine.contents_of_folder(path)?.inventory;
            return Ok(Self::without_image(name, inventory));
        }
        if flags.platform.is_some() {
            return Err(CliError::plain("--platform is for an image in an OCI layout"));
        }
        let local = super::local_image(engine, name);
        let image = engine.image(&local)?;
        Ok(Self {
            name: name.to_owned(),
            contents: engine.contents(&image)?,
            image: Some(image),
            lying: false,
        })
    }

    fn of_lying(
        engine: &Engine,
        name: &str,
        found: LyingImage,
        flags: &LyingFlags,
    ) -> Result<Self, CliError> {
        Ok(Self {
            name: name.to_owned(),
            contents: engine.contents_of_lying(&found, flags.verify)?,
            image: Some(found.image),
            lying: true,
        })
    }

    fn without_image(name: &str, inventory: Inventory) -> Self {
        let layers = Vec::new();
        Self {
            name: name.to_owned(),
            image: None,
            contents: Contents { inventory, layers },
            lying: false,
        }
    }

    /// What could not be read, as warnings.
    pub(super) fn warn(&self) {
        for (layer, problem) in &self.contents.inventory.problems {
            let of = if self.image.is_some() {
                format!("layer {layer}: ")
            } else {
                String::new()
            };
            note(&dialect::warning(&format!("{of}{problem}")));
        }
    }

    /// What a document is of; its time is `SOURCE_DATE_EPOCH` where that is set.
    pub(super) fn subject(&self) -> Subject {
        let epoch = std::env::var("SOURCE_DATE_EPOCH")
            .ok()
            .and_then(|text| Timestamp::from_second(text.parse().ok()?).ok());
        let created = epoch.unwrap_or_else(Timestamp::now);
        Subject {
            name: self.name.clone(),
            digest: self
                .image
                .as_ref()
                .map(|image| image.record.manifest.unwrap_or(image.id.0)),
            image: self.image.is_some(),
            layers: self.contents.layers.iter().map(ToString::to_string).collect(),
            tool: ("dhow".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            created: created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }
}

/// A place of an image in skopeo's words, but for registries. `oci:x` is the name of an image, too: there must be such a folder.
fn place(name: &str) -> Option<Result<Location, CliError>> {
    let archive = ["docker-archive:", "oci-archive:"];
    let folder = || {
        let rest = name.strip_prefix("oci:")?;
        let folder = rest.split(':').next().unwrap_or(rest);
        Path::new(folder).join("oci-layout").exists().then_some(())
    };
    if !archive.iter().any(|begin| name.starts_with(begin)) {
        folder()?;
    }
    Some(name.parse::<Location>().map_err(CliError::from))
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SbomFlags = crate::flags::read(matches)?;
    let target = Target::find(context.engine()?, &flags.target, &flags.lying)?;
    target.warn();
    let inventory = &target.contents.inventory;
    let text = match flags.format.as_str() {
        "json" => pretty(&document(&target)),
        "cyclonedx" => pretty(&cyclonedx(inventory, &target.subject())),
        "spdx" => pretty(&spdx2(inventory, &target.subject())),
        "spdx3" => pretty(&spdx3(inventory, &target.subject())),
        _ => listed(&target),
    };
    match &flags.output {
        Some(path) => fs::write(path, &text)
            .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))?,
        None => say(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pretty(document: &Value) -> String {
    // Strings and numbers only: it cannot fail.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn listed(target: &Target) -> String {
    let inventory = &target.contents.inventory;
    let mut text = "NAME\tVERSION\tTYPE\tLAYER\tSOURCE\n".to_owned();
    for installed in &inventory.packages {
        let package = &installed.package;
        let source = package.source.as_ref().map_or_else(String::new, |source| {
            format!("{} {}", source.name, source.version)
        });
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{source}\n",
            package.name,
            package.version,
            package.kind.purl_type(),
            installed.layer
        ));
    }
    table::align(&text)
}

/// Our own form: everything that is known.
fn document(target: &Target) -> Value {
    let inventory = &target.contents.inventory;
    let os = inventory.os.as_ref();
    let package = |installed: &Installed| {
        let package = &installed.package;
        let mut value = json!({
            "Name": package.name,
            "Version": package.version,
            "Type": package.kind.purl_type(),
            "PURL": package.purl(os),
            "Path": installed.path,
            "Layer": installed.layer,
            "FirstLayer": installed.first,
        });
        if let Some(diff) = target.contents.layers.get(installed.layer) {
            value["DiffID"] = diff.to_string().into();
        }
        if let Some(source) = &package.source {
            value["Source"] = json!({"Name": source.name, "Version": source.version});
        }
        for (key, field) in [
            ("Architecture", &package.arch),
            ("License", &package.licence),
            ("Owner", &installed.owner),
        ] {
            if let Some(field) = field {
                value[key] = field.clone().into();
            }
        }
        value
    };
    json!({
        "Name": target.name,
        "ID": target.image.as_ref().map(|image| image.id.to_string()),
        "OS": os.map(|os| json!({"ID": os.id, "Version": os.version, "Codename": os.codename, "Name": os.pretty})),
        "Layers": target.contents.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Packages": inventory.packages.iter().map(package).collect::<Vec<_>>(),
        "Problems": inventory
            .problems
            .iter()
            .map(|(layer, problem)| json!({"Layer": layer, "Problem": problem}))
            .collect::<Vec<_>>(),
    })
}

fn owner(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: OwnerFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let local = super::local_image(engine, &flags.image);
    let image = engine.image(&local)?;
    let contents = engine.contents(&image)?;
    let graph = engine.lineage()?;
    let node = graph.find(&image.id);
    let mut documents = Vec::new();
    for path in &flags.paths {
        let origin = engine.origin(&image, &contents, path)?;
        let brought = node.map(|node| super::tree::name(&graph, graph.brought(node, origin.layer)));
        documents.push(origin_document(path, &origin, &contents, brought));
    }
    if flags.format == "json" {
        say(&pretty(&documents.into()))?;
    } else {
        say(&documents.iter().map(origin_text).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn origin_document(asked: &str, origin: &Origin, contents: &Contents, brought: Option<String>) -> Value {
    let packages = &contents.inventory.packages;
    let of_system = packages.iter().filter(|installed| {
        installed.package.kind.is_system() && origin.owners.contains(&installed.package.name)
    });
    let of_language = origin.packages.iter().map(|at| &packages[*at]);
    let known: Vec<Value> = of_system
        .chain(of_language)
        .map(|installed| {
            let package = &installed.package;
            json!({
                "Name": package.name,
                "Version": package.version,
                "Type": package.kind.purl_type(),
                "PURL": package.purl(contents.inventory.os.as_ref()),
                "Source": package.source().0,
                "Layer": installed.layer,
            })
        })
        .collect();
    json!({
        "Asked": asked,
        "Path": origin.path,
        "Link": origin.link,
        "Size": origin.size,
        "Layer": origin.layer,
        "DiffID": origin.diff.to_string(),
        "BroughtBy": brought,
        "Packages": known,
    })
}

fn origin_text(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = format!("file\t/{}", text(&document["Path"]));
    if let Some(link) = document["Link"].as_str() {
        rows.push_str(&format!(" -> {link}"));
    }
    rows.push('\n');
    for package in document["Packages"].as_array().into_iter().flatten() {
        rows.push_str(&format!(
            "package\t{} {} ({})\n",
            text(&package["Name"]),
            text(&package["Version"]),
            text(&package["Type"])
        ));
    }
    if document["Packages"].as_array().is_some_and(Vec::is_empty) {
        rows.push_str("package\tnone says that it is its own\n");
    }
    rows.push_str(&format!(
        "layer\t{} {}\n",
        document["Layer"],
        text(&document["DiffID"])
    ));
    if let Some(by) = document["BroughtBy"].as_str() {
        rows.push_str(&format!("brought by\t{by}\n"));
    }
    table::align(&rows)
}
