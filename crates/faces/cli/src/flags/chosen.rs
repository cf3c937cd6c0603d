//! Which containers a verb is for: by name, or by what they are.

use std::path::PathBuf;

use clap::Args;
use dhow_engine::container::Container;
use dhow_types::ErrorKind;

use crate::{CliError, Context};

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct Chosen {
    /// All containers that the verb can be for
    #[arg(short, long, conflicts_with_all = ["latest", "cidfile", "containers"])]
    all: bool,
    /// The container that was created last
    #[arg(short, long, conflicts_with_all = ["cidfile", "containers"])]
    latest: bool,
    /// Read a container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Pass over containers that are not there
    #[arg(short, long)]
    pub(crate) ignore: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required_unless_present_any = ["all", "latest", "cidfile"])]
    containers: Vec<String>,
}

impl Chosen {
    /// The names as given, the ids in files, or the ids of those that are meant. `fits` says for which containers the
    /// verb can be, for `--all`.
    pub(crate) fn names(
        &self,
        context: &Context,
        fits: impl Fn(&Container) -> bool,
    ) -> Result<Vec<String>, CliError> {
        if self.all || self.latest {
            let mut found = context.engine()?.containers().list()?;
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

    /// Whether a failure may be passed over: `--ignore`, and for `--all` a container that went away meanwhile.
    pub(crate) fn passes(&self, error: &dhow_engine::Error) -> bool {
        error.kind() == ErrorKind::NotFound && (self.ignore || self.all)
    }
}
