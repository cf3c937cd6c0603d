//! `patch`: a vulnerability is mended in the image that brought it, and what derives from it inherits that.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{Change, Engine, How, PatchPlan, PatchTarget, Patched};
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
    /// Push the new images under all their names
    #[arg(long, conflicts_with = "dry_run")]
    push: bool,
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
            listed(&planned)
        };
        say(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let patched = engine.patch(&planned, &advisories, flags.smoke.as_deref(), &mut |node| {
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
        for image in patched.iter().flat_map(|one| &one.names) {
            note(&format!("pushing {image}"));
            engine.push(image, &dhow_types::Silent)?;
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

fn listed(planned: &PatchPlan) -> String {
    let mut rows = "IMAGE\tACTION\tPACKAGES\n".to_owned();
    for step in &planned.plan.steps {
        let action = match (step.follows, step.packages.is_empty()) {
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
                How::Apart { conflicts } => (0, conflicts.as_slice()),
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
