//! `auto-update`: containers with the label `io.containers.autoupdate` whose image has another content by now are made anew by
//! the systemd units that run them (podman-auto-update(1)).

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode, Stdio};

use clap::{ArgAction, ArgMatches, Args};
use dhow_engine::container::{Config, Container, Status};
use dhow_engine::{Engine, Image};
use dhow_types::Platform;
use serde_json::{Value, json};

use crate::interrupt::Interrupt;
use crate::render::template::Template;
use crate::render::{Progress, note, say, table};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "auto-update",
    about: "Update the containers with the label io.containers.autoupdate: pull their images, restart their systemd units",
    flags: |command| crate::flags::registry::augment(AutoUpdateFlags::augment_args(command)),
    run,
};

/// What says how a container is updated, and whose credentials its image has.
const POLICY: &str = "io.containers.autoupdate";
const AUTHFILE: &str = "io.containers.autoupdate.authfile";
/// The unit that a container is of; units give it to what they run under the same name.
pub(crate) const UNIT: &str = "PODMAN_SYSTEMD_UNIT";
const TABLE: &str = "{{.Unit}}\t{{.Container}}\t{{.Image}}\t{{.Policy}}\t{{.Updated}}";

#[derive(Args, Debug)]
struct AutoUpdateFlags {
    /// Change nothing: say which containers an update is pending for
    #[arg(long)]
    dry_run: bool,
    /// Write the result as json, or with this Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Go back to the old image when a unit does not start with the new one
    #[arg(long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = ArgAction::Set)]
    rollback: bool,
}

/// How the newest image of a name is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Registry,
    Local,
}

impl Policy {
    /// None for a container that stays as it is.
    fn of(container: &Container) -> Result<Option<Self>, CliError> {
        match container.config.labels.get(POLICY).map(String::as_str) {
            None | Some("" | "disabled") => Ok(None),
            Some("registry" | "image") => Ok(Some(Self::Registry)),
            Some("local") => Ok(Some(Self::Local)),
            Some(other) => Err(CliError::plain(format!(
                "invalid auto-update policy {other:?}: valid policies are [\"registry\" \"image\" \"local\" \"disabled\" \"\"]"
            ))),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Local => "local",
        }
    }
}

/// A container to look at.
struct Task {
    container: Container,
    unit: String,
    policy: Policy,
}

impl Task {
    fn of(container: Container) -> Result<Option<Self>, CliError> {
        let Some(policy) = Policy::of(&container)? else {
            return Ok(None);
        };
        let labels = &container.config.labels;
        if labels.contains_key(AUTHFILE) {
            return Err(CliError::plain(format!("the label {AUTHFILE} is not supported"))
                .with_hint("name the file with --authfile"));
        }
        if !container.config.has_image() {
            return Err(CliError::plain("it has no image"));
        }
        let unit = labels.get(UNIT).cloned().ok_or_else(|| {
            CliError::plain(format!("no {UNIT} label found"))
                .with_hint("a container that systemd runs has it: write a Quadlet file for it (dhow quadlet)")
        })?;
        Ok(Some(Self {
            container,
            unit,
            policy,
        }))
    }

    fn line(&self, updated: &str) -> Value {
        let config = &self.container.config;
        json!({
            "Unit": self.unit,
            "Container": format!("{} ({})", config.id.short(), config.name),
            "ContainerName": config.name,
            "ContainerID": config.id.to_string(),
            "Image": config.image_name,
            "Policy": self.policy.as_str(),
            "Updated": updated,
        })
    }
}

/// One call, and what it has done.
struct Updater<'a> {
    engine: &'a Engine,
    flags: &'a AutoUpdateFlags,
    /// Names of the images that were pulled, and for which machine if it is not this one.
    pulled: BTreeSet<(String, Option<String>)>,
    /// By the name of a unit: how its restart ended.
    restarted: BTreeMap<String, &'static str>,
    errors: Vec<CliError>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: AutoUpdateFlags = crate::flags::read(matches)?;
    let template = match flags.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text).map_err(|error| CliError::plain(error.to_string()))?),
    };
    let interrupt = Interrupt::watch()?;
    interrupt.end_when_it_comes(|| {});
    let engine = context.engine()?;
    let mut updater = Updater {
        engine,
        flags: &flags,
        pulled: BTreeSet::new(),
        restarted: BTreeMap::new(),
        errors: Vec::new(),
    };
    let mut lines = Vec::new();
    for container in engine.containers().list()? {
        if container.state.status != Status::Running {
            continue;
        }
        let id = container.config.id.clone();
        let task = match Task::of(container) {
            Ok(None) => continue,
            Ok(Some(task)) => task,
            Err(error) => {
                updater.failed(&id.to_string(), error);
                continue;
            }
        };
        let updated = updater.update(&task).unwrap_or_else(|error| {
            updater.failed(&id.to_string(), error);
            "failed"
        });
        lines.push(task.line(updated));
    }
    report(&lines, flags.format.as_deref(), template.as_ref())?;
    let mut code = 0;
    for error in updater.errors {
        error.shown();
        code = 125;
    }
    Ok(ExitCode::from(code))
}

impl Updater<'_> {
    fn failed(&mut self, id: &str, error: CliError) {
        self.errors
            .push(error.within(&format!("auto-updating container {id:?}")));
    }

    fn update(&mut self, task: &Task) -> Result<&'static str, CliError> {
        let config = &task.container.config;
        let (name, old) = (&config.image_name, config.image.to_string());
        if !self.is_outdated(task)? {
            return Ok("false");
        }
        if self.flags.dry_run {
            return Ok("pending");
        }
        if task.policy == Policy::Registry {
            self.pull(name, config.platform.as_ref())?;
            if self.meant(config)?.id == config.image {
                // The registry has another list of platforms, and the same image in it for this one.
                return Ok("false");
            }
        }
        // All containers of a unit come with one restart.
        if let Some(done) = self.restarted.get(&task.unit) {
            return Ok(done);
        }
        let done = match restart(&task.unit) {
            Ok(()) => "true",
            Err(error) if !self.flags.rollback => {
                self.restarted.insert(task.unit.clone(), "failed");
                return Err(error);
            }
            Err(_) => {
                self.engine.tag(&old, name)?;
                if let Err(error) = restart(&task.unit) {
                    self.restarted.insert(task.unit.clone(), "failed");
                    return Err(error.within("with its old image"));
                }
                "rolled back"
            }
        };
        self.restarted.insert(task.unit.clone(), done);
        Ok(done)
    }

    /// Whether what its image's name means now is not what it runs.
    fn is_outdated(&self, task: &Task) -> Result<bool, CliError> {
        let config = &task.container.config;
        match task.policy {
            Policy::Local => Ok(self.meant(config)?.id != config.image),
            Policy::Registry => {
                let there = self.engine.remote_manifest(&config.image_name)?.descriptor.digest;
                let here = match &config.platform {
                    None => self.engine.image(&config.image.to_string())?,
                    // The digests of its name may be those of this machine's image.
                    Some(_) => self.meant(config)?,
                };
                let same = here.digests.iter().any(|(_, digest)| *digest == there);
                Ok(!same || here.id != config.image)
            }
        }
    }

    /// What the name of a container's image means now, for the machine that its image is for.
    fn meant(&self, config: &Config) -> Result<Image, CliError> {
        Ok(self
            .engine
            .image_for(&config.image_name, config.platform.as_ref())?)
    }

    fn pull(&mut self, name: &str, platform: Option<&Platform>) -> Result<(), CliError> {
        let what = (name.to_owned(), platform.map(ToString::to_string));
        if self.pulled.contains(&what) {
            return Ok(());
        }
        note(&super::pull::trying(
            &dhow_reference::Reference::parse(name)?.or_latest(),
        ));
        let progress = Progress::new(false);
        let pulled = self.engine.pull(name, platform.cloned(), &progress);
        progress.finish();
        pulled?;
        self.pulled.insert(what);
        Ok(())
    }
}

/// Has systemd restart a unit, and waits for it: that of the machine, or of the user.
fn restart(unit: &str) -> Result<(), CliError> {
    let what = || format!("restarting unit {unit} during update");
    if unit.starts_with('-') || unit.is_empty() {
        return Err(CliError::plain(format!("{}: it is no name of a unit", what())));
    }
    let mut command = Command::new("systemctl");
    if !dhow_engine::rootless::is_rootful() {
        command.arg("--user");
    }
    let done = command
        .args(["restart", unit])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| CliError::plain(format!("{}: run systemctl: {error}", what())))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(CliError::plain(format!("{}: {}", what(), said.trim())))
}

fn report(lines: &[Value], format: Option<&str>, template: Option<&Template>) -> Result<(), CliError> {
    if format == Some("json") {
        return say(&format!("{:#}\n", Value::from(lines.to_vec())));
    }
    let bad = |error: crate::render::template::TemplateError| CliError::plain(error.to_string());
    if let Some(template) = template {
        for line in lines {
            say(&format!("{}\n", template.fill(line, None).map_err(bad)?))?;
        }
        return Ok(());
    }
    let template = Template::parse(TABLE).map_err(bad)?;
    let mut text = "UNIT\tCONTAINER\tIMAGE\tPOLICY\tUPDATED\n".to_owned();
    for line in lines {
        text.push_str(&template.fill(line, None).map_err(bad)?);
        text.push('\n');
    }
    say(&table::align(&text))
}
