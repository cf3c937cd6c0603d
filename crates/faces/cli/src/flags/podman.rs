//! The flags of `run` and `create` that docker has not.

use std::path::PathBuf;

use clap::Args;
use dhow_engine::Propagation;
use dhow_engine::container::{CreateContainer, MountSpec};

use crate::CliError;

/// Where the host keeps time zones.
const ZONES: &str = "/usr/share/zoneinfo";
/// The host's own time zone.
const LOCAL: &str = "/etc/localtime";

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct PodmanFlags {
    /// Set the time zone in the container: a name of /usr/share/zoneinfo, or local for the host's
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Leave out a variable that the image sets
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Remove the container that has this --name, if there is one
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
}

impl PodmanFlags {
    /// Adds what they mean to a request.
    pub(crate) fn add_to(&self, request: &mut CreateContainer) -> Result<(), CliError> {
        if let Some(zone) = &self.tz {
            request.mounts.push(time_zone(zone)?);
        }
        // A name without a value takes the image's away.
        let unset = |name: &&String| !request.env.iter().any(|set| set.split('=').next() == Some(name));
        let unset: Vec<String> = self.unsetenv.iter().filter(unset).cloned().collect();
        request.env.extend(unset);
        Ok(())
    }
}

/// The file of a time zone, bound over the container's own.
fn time_zone(zone: &str) -> Result<MountSpec, CliError> {
    let bad = |why: &str| CliError::plain(format!("finding timezone {zone:?}: {why}")).with_code(125);
    let source = if zone == "local" {
        PathBuf::from(LOCAL)
    } else {
        if zone.starts_with('/') || zone.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(bad("it is no name of a time zone"));
        }
        PathBuf::from(ZONES).join(zone)
    };
    // The mount is of the file that it is now, whatever the links to it.
    let source = std::fs::canonicalize(&source)
        .ok()
        .filter(|path| path.is_file())
        .ok_or_else(|| bad(&format!("there is no file {}", source.display())))?;
    Ok(MountSpec::Bind {
        source,
        target: PathBuf::from(LOCAL),
        read_only: true,
        create: false,
        propagation: Propagation::default(),
        relabel: dhow_engine::Relabel::No,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_a_file_below_the_hosts_and_nothing_else() {
        for bad in [
            "",
            "../../etc/shadow",
            "/etc/shadow",
            "Europe//Berlin",
            "No/Where",
            "Europe",
        ] {
            assert!(time_zone(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_variable_that_is_set_by_a_flag_is_not_taken_away() {
        let flags = PodmanFlags {
            tz: None,
            unsetenv: vec!["A".to_owned(), "B".to_owned()],
            replace: false,
        };
        let mut request = CreateContainer {
            env: vec!["A=1".to_owned()],
            ..CreateContainer::default()
        };
        flags.add_to(&mut request).unwrap();
        assert_eq!(request.env, ["A=1", "B"]);
    }
}
