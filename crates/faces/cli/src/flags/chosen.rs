//! Which containers a verb is for: by name, or by what they are.

use std::path::PathBuf;

use clap::Args;
use dhow_engine::container::Listed;
use dhow_types::ErrorKind;

use crate::{CliError, Context};

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct Chosen {
    /// All containers that the verb can be for
    #[arg(short, long, conflicts_with_all = ["latest", "cidfile"])]
    all: bool,
    /// The container that was created last
    #[arg(short, long, conflicts_with_all = ["cidfile", "containers"])]
    latest: bool,
    /// Read a container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Only those for which the condition holds
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Pass over containers that are not there
    #[arg(short, long)]
    pub(crate) ignore: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required_unless_present_any = ["all", "latest", "cidfile", "filter"])]
    containers: Vec<String>,
}

impl Chosen {
    /// The names as given, the ids in files, or the ids of those that are meant. `fits` says for which containers the
    /// verb can be, for `--all`.
    pub(crate) fn names(
        &self,
        context: &Context,
        fits: impl Fn(&Listed) -> bool,
    ) -> Result<Vec<String>, CliError> {
        if self.all && !self.containers.is_empty() {
            return Err(CliError::plain(
                "either all containers or the container(s) provided in the arguments, not both",
            ));
        }
        if !self.filter.is_empty() {
            return self.filtered(context, fits);
        }
        if self.all || self.latest {
            let mut found = context.engine()?.containers().brief()?;
            if self.all {
                found.retain(fits);
            } else {
                found.truncate(1);
            }
            if found.is_empty() && self.latest {
                return Err(CliError::plain("there is no container"));
            }
            return Ok(found.into_iter().map(|one| one.config.id.to_string()).collect());
        }
        let mut names = Vec::new();
        for path in &self.cidfile {
            match std::fs::read_to_string(path) {
                Ok(text) => names.extend(text.lines().next().map(str::to_owned)),
                Err(error) if self.ignore && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let why = if error.kind() == std::io::ErrorKind::NotFound {
                        "no such file or directory".to_owned()
                    } else {
                        error.to_string()
                    };
                    let message = format!("reading CIDFile: open {}: {why}", path.display());
                    return Err(CliError::plain(message));
                }
            }
        }
        // Podman takes docker's leading slash.
        names.extend(self.containers.iter().cloned());
        Ok(names)
    }

    /// Those that the filters let through: among the named, or among all for which the verb can be.
    fn filtered(&self, context: &Context, fits: impl Fn(&Listed) -> bool) -> Result<Vec<String>, CliError> {
        let found = crate::cmd::filtered(context, &self.filter)?;
        let engine = context.engine()?;
        if self.containers.is_empty() {
            let found = found.into_iter().filter(fits);
            return Ok(found.map(|one| one.config.id.to_string()).collect());
        }
        let mut names = Vec::new();
        for name in &self.containers {
            let id = engine.containers().find(name)?.config.id;
            if found.iter().any(|one| one.config.id == id) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Whether both are said.
    pub(crate) fn all_and_named(&self) -> bool {
        self.all && !self.containers.is_empty()
    }

    /// Whether a failure may be passed over: `--ignore`, and for `--all` a container that went away meanwhile.
    pub(crate) fn passes(&self, error: &dhow_engine::Error) -> bool {
        error.kind() == ErrorKind::NotFound && (self.ignore || self.all)
    }
}
