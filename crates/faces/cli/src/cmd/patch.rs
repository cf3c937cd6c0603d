//! `patch`: a vulnerability is mended in the image that brought it, and what derives from it inherits that.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Change, Engine, How, PatchPlan, PatchTarget, PatchWays, Patched, Rebuild};
use dhow_types::ImageId;
use serde_json::{Value, json};

use super::sbom::pretty;
use super::tree::name;
use crate::render::{note, say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "patch",
    about: "Mend vulnerabilities in the images that brought them, and let the images that derive from those inherit it",
    flags: |command| PatchFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct PatchFlags {
    /// All images that derive from a patched one, too
    #[arg(long)]
    cascade: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// A command of the shell that has to succeed in each new image
    #[arg(long, value_name = "COMMAND")]
    smoke: Option<String>,
    /// When images are built again by the recipe in their provenance: needed (where their layers cannot follow), always or never
    #[arg(long, value_name = "WHEN", default_value = "needed", value_parser = ["needed", "always", "never"])]
    rebuild: String,
    /// Build an image again by this Dockerfile, with the provenance's arguments if it has some (the name can be left out where IMAGE is
    /// patched; may be given several times)
    #[arg(long, value_name = "[IMAGE=]FILE")]
    recipe: Vec<String>,
    /// The folder that COPY reads when an image is built again (as --recipe)
    #[arg(long, value_name = "[IMAGE=]FOLDER")]
    context: Vec<String>,
    /// Push the new images under all their names
    #[arg(long, conflicts_with = "dry_run")]
    push: bool,
    /// Sign what is pushed with this private key, a PEM file: the images, and what is stated of them (where they come from, what was mended,
    /// what was tried)
    #[arg(long, value_name = "FILE", requires = "push")]
    key: Option<PathBuf>,
    /// Replace the containers of patched images, one after the other; one that does not come up is put back
    #[arg(long, conflicts_with = "dry_run")]
    rollout: bool,
    /// Format output: table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Vulnerabilities by their CVE or the name of an advisory, or one image of which all is mended that can be
    #[arg(value_name = "CVE|IMAGE", required = true)]
    targets: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: PatchFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let advisories = engine.advisories()?;
    let target = target(engine, &flags.targets)?;
    let planned = engine.plan_patch(&target, flags.cascade, &advisories)?;
    warn(&planned);
    let ways = ways(engine, &flags, &target, &planned)?;
    if planned.is_empty() {
        if planned.unmendable.is_empty() {
            note("nothing to do: no image here has it");
        }
        if flags.format == "json" {
            say(&pretty(&document(&planned, &[], &[])))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if flags.dry_run {
        let text = if flags.format == "json" {
            pretty(&document(&planned, &[], &[]))
        } else {
            listed(&planned, &ways)
        };
        say(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let key = flags.key.as_deref().map(super::sign::private_key).transpose()?;
    let patched = engine.patch(&planned, &advisories, &ways, &mut |node| {
        note(&format!("patching {}", name(&planned.graph, node)));
    })?;
    let containers = running(engine, &planned, &patched)?;
    let text = if flags.format == "json" {
        pretty(&document(&planned, &patched, &containers))
    } else {
        told(&planned, &patched)
    };
    say(&text)?;
    // Containers first: who talks to a registry has threads, and cannot start any after that.
    let left = if flags.rollout {
        roll_out(engine, &containers)
    } else {
        for old in &containers {
            note(&dialect::warning(&format!(
                "container {} still has the old {}",
                old.name, old.image
            )));
        }
        0
    };
    if flags.push {
        for (one, image) in patched
            .iter()
            .flat_map(|one| one.names.iter().map(move |name| (one, name)))
        {
            note(&format!("pushing {image}"));
            engine.push_patched(&planned, one, image, key.as_ref())?;
        }
    }
    if left > 0 {
        return Err(CliError::plain(format!(
            "{left} of {} containers still have old images",
            containers.len()
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// How the flags say to go about it.
fn ways(
    engine: &Engine,
    flags: &PatchFlags,
    target: &PatchTarget,
    planned: &PatchPlan,
) -> Result<PatchWays, CliError> {
    let mut ways = PatchWays {
        smoke: flags.smoke.clone(),
        rebuild: match flags.rebuild.as_str() {
            "always" => Rebuild::Always,
            "never" => Rebuild::Never,
            _ => Rebuild::Needed,
        },
        ..PatchWays::default()
    };
    for text in &flags.recipe {
        let (node, path) = of_image(engine, "recipe", text, target, planned)?;
        let bytes = super::sign::read(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CliError::plain(format!("{} is no text", path.display())))?;
        let name = path.display().to_string();
        ways.recipes.entry(node).or_default().dockerfile = Some((name, text));
    }
    for text in &flags.context {
        let (node, path) = of_image(engine, "context", text, target, planned)?;
        if !path.is_dir() {
            return Err(CliError::plain(format!(
                "--context {}: it is no folder",
                path.display()
            )));
        }
        ways.recipes.entry(node).or_default().context = Some(path.to_owned());
    }
    Ok(ways)
}

/// The image of the plan that a flag is about, and the path that it gives.
fn of_image<'t>(
    engine: &Engine,
    flag: &str,
    text: &'t str,
    target: &PatchTarget,
    planned: &PatchPlan,
) -> Result<(usize, &'t Path), CliError> {
    let (image, path) = match (text.split_once('='), target) {
        (Some((image, path)), _) if engine.image(image).is_ok() => (image, path),
        (_, PatchTarget::Image(image)) => (image.as_str(), text),
        _ => {
            return Err(
                CliError::plain(format!("--{flag} {text}: it does not say of which image"))
                    .with_hint("write IMAGE=PATH"),
            );
        }
    };
    let id = engine.image(image)?.id;
    let node = planned.graph.find(&id);
    let planned = node.filter(|node| planned.plan.steps.iter().any(|step| step.node == *node));
    let node = planned
        .ok_or_else(|| CliError::plain(format!("--{flag} {text}: nothing is to be mended in {image}")))?;
    Ok((node, Path::new(path)))
}

/// Replaces the containers; how many could not be, which is told.
fn roll_out(engine: &Engine, containers: &[Old]) -> usize {
    let mut failed = 0;
    for old in containers {
        match engine.replace_container(&old.id, &old.new, &old.image) {
            Ok(id) => note(&format!("replaced {} by {}", old.name, id.short())),
            Err(error) => {
                failed += 1;
                note(&dialect::warning(&crate::error::chain(&error)));
            }
        }
    }
    failed
}

/// One image, or vulnerabilities.
fn target(engine: &Engine, targets: &[String]) -> Result<PatchTarget, CliError> {
    if let [one] = targets
        && engine.image(one).is_ok()
    {
        return Ok(PatchTarget::Image(one.clone()));
    }
    Ok(PatchTarget::Vulnerabilities(targets.to_vec()))
}

fn warn(planned: &PatchPlan) {
    for one in &planned.unmendable {
        note(&dialect::warning(&format!(
            "{}: {} in {} stays: {}",
            name(&planned.graph, one.node),
            one.vulnerability,
            one.package,
            one.why
        )));
    }
    for node in &planned.plan.left {
        note(&dialect::warning(&format!(
            "{} derives from an image that is patched, and stays as it is without --cascade",
            name(&planned.graph, *node)
        )));
    }
}

fn listed(planned: &PatchPlan, ways: &PatchWays) -> String {
    let mut rows = "IMAGE\tACTION\tPACKAGES\n".to_owned();
    for step in &planned.plan.steps {
        let action = match (step.follows, step.packages.is_empty()) {
            _ if ways.recipes.contains_key(&step.node) => "rebuild".to_owned(),
            (None, _) => "upgrade".to_owned(),
            (Some(base), true) => format!("follow {}", name(&planned.graph, base)),
            (Some(base), false) => format!("follow {}, upgrade", name(&planned.graph, base)),
        };
        let packages: Vec<String> = step
            .packages
            .iter()
            .map(|package| {
                let mends: Vec<String> = package
                    .mends
                    .iter()
                    .map(|(vulnerability, fixed)| format!("{vulnerability} by {fixed}"))
                    .collect();
                format!("{} {} ({})", package.name, package.version, mends.join(", "))
            })
            .collect();
        rows.push_str(&format!(
            "{}\t{action}\t{}\n",
            name(&planned.graph, step.node),
            packages.join(", ")
        ));
    }
    table::align(&rows)
}

fn change(change: &Change) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{} {} -> {}",
        change.name,
        version(&change.old),
        version(&change.new)
    )
}

fn how(how: &How) -> &'static str {
    match how {
        How::Upgraded => "upgraded",
        How::Followed { upgraded: false, .. } => "followed",
        How::Followed { upgraded: true, .. } => "followed, upgraded",
        How::Rebuilt { .. } => "rebuilt",
        How::Apart { .. } => "upgraded above the old base",
    }
}

fn told(planned: &PatchPlan, patched: &[Patched]) -> String {
    let mut rows = "IMAGE\tOLD\tNEW\tHOW\tPACKAGES\n".to_owned();
    for one in patched {
        let changes: Vec<String> = one.changes.iter().map(change).collect();
        rows.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            name(&planned.graph, one.node),
            planned.graph.nodes()[one.node].id.short(),
            one.image.short(),
            how(&one.how),
            changes.join(", ")
        ));
    }
    let mut text = table::align(&rows);
    for one in patched {
        for line in &one.notes {
            text.push_str(&format!("\n{}: {line}", name(&planned.graph, one.node)));
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A container of an image that was patched.
struct Old {
    id: String,
    name: String,
    /// The name that its image had, which is that of the new one.
    image: String,
    new: ImageId,
}

fn running(engine: &Engine, planned: &PatchPlan, patched: &[Patched]) -> Result<Vec<Old>, CliError> {
    let mut found = Vec::new();
    for container in engine.containers().list()? {
        let of = patched
            .iter()
            .find(|one| planned.graph.nodes()[one.node].id == container.config.image);
        if let Some(one) = of {
            found.push(Old {
                id: container.config.id.to_string(),
                name: container.config.name.clone(),
                image: name(&planned.graph, one.node),
                new: one.image,
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn document(planned: &PatchPlan, patched: &[Patched], containers: &[Old]) -> Value {
    let steps: Vec<Value> = planned
        .plan
        .steps
        .iter()
        .map(|step| {
            let packages = step.packages.iter().map(|package| {
                json!({
                    "Name": package.name,
                    "Version": package.version,
                    "Mends": package.mends.iter().map(|(vulnerability, fixed)| json!({
                        "ID": vulnerability,
                        "FixedIn": fixed,
                    })).collect::<Vec<_>>(),
                })
            });
            json!({
                "Image": name(&planned.graph, step.node),
                "ID": planned.graph.nodes()[step.node].id.to_string(),
                "Follows": step.follows.map(|base| name(&planned.graph, base)),
                "Upgrades": packages.collect::<Vec<_>>(),
            })
        })
        .collect();
    let patched: Vec<Value> = patched
        .iter()
        .map(|one| {
            let (merged, conflicts) = match &one.how {
                How::Followed { merged, .. } => (*merged, &[] as &[String]),
                How::Apart { conflicts } | How::Rebuilt { conflicts } => (0, conflicts.as_slice()),
                How::Upgraded => (0, &[] as &[String]),
            };
            json!({
                "Image": name(&planned.graph, one.node),
                "Old": planned.graph.nodes()[one.node].id.to_string(),
                "New": one.image.to_string(),
                "Names": one.names,
                "Superseded": one.superseded,
                "How": how(&one.how),
                "MergedLayers": merged,
                "Conflicts": conflicts,
                "Changes": one.changes.iter().map(|change| json!({
                    "Package": change.name,
                    "Old": change.old,
                    "New": change.new,
                })).collect::<Vec<_>>(),
                "Fixed": one.fixed.iter().map(|fixed| json!({
                    "ID": fixed.vulnerability,
                    "Package": fixed.package,
                    "Version": fixed.version,
                })).collect::<Vec<_>>(),
                "Notes": one.notes,
            })
        })
        .collect();
    json!({
        "Plan": steps,
        "Left": planned.plan.left.iter().map(|node| name(&planned.graph, *node)).collect::<Vec<_>>(),
        "Unmendable": planned.unmendable.iter().map(|one| json!({
            "Image": name(&planned.graph, one.node),
            "Package": one.package,
            "ID": one.vulnerability,
            "Why": one.why,
        })).collect::<Vec<_>>(),
        "Patched": patched,
        "Containers": containers.iter().map(|old| json!({
            "ID": old.id,
            "Name": old.name,
            "Image": old.image,
        })).collect::<Vec<_>>(),
    })
}
