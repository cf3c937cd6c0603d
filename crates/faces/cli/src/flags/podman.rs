//! The flags of `run` and `create` that docker has not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use dhow_engine::container::{CreateContainer, ImageVolumes, MountSpec};
use dhow_engine::{Init, Propagation};

use super::health::StartupFlags;
use crate::{CliError, dialect};

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
    /// Leave out every variable that no flag sets
    #[arg(long)]
    unsetenv_all: bool,
    /// Remove the container that has this --name, if there is one
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Remove the image when the container goes, unless another has it; with it comes --rm
    #[arg(long)]
    pub(crate) rmi: bool,
    /// Kill the container when it has run so long
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// A program of the host that is the container's --init in place of the built-in one
    #[arg(long, value_name = "FILE", requires = "init")]
    init_path: Option<PathBuf>,
    /// Write the process id of the container's program to the file at each start
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Write the process id of the container's monitor to the file at each start
    #[arg(long, value_name = "FILE")]
    conmon_pidfile: Option<PathBuf>,
    /// Bits that the program's files do not get, octal
    #[arg(long, value_name = "MASK", value_parser = umask)]
    umask: Option<u32>,
    /// Give the container the variables of this command, unless others are set
    #[arg(long)]
    env_host: bool,
    /// Its control groups: enabled, no-conmon (the monitor is where this command is, as always), or split: both are parts of
    /// the group that this command is in, which is for systemd services
    #[arg(long, value_name = "MODE", value_parser = ["enabled", "no-conmon", "split"])]
    cgroups: Option<String>,
    /// Who tells systemd that the service is there: the container, conmon (this command), healthy (this command, when the
    /// container is), or ignore
    #[arg(long, value_name = "WHO")]
    pub(crate) sdnotify: Option<crate::notify::Notify>,
    /// Give the container the proxies that this command's variables name (podman's way)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    http_proxy: Option<bool>,
    /// Leave the image's /etc/hostname as it is
    #[arg(long)]
    no_hostname: bool,
    /// Leave the image's /etc/hosts as it is
    #[arg(long, conflicts_with = "add_host")]
    no_hosts: bool,
    /// With --read-only: memory on /run, /tmp and /var/tmp, and a /dev that can be written (podman's way)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only_tmpfs: Option<bool>,
    /// Give a systemd in the container what it needs: true (if it is the program), always or false
    #[arg(long, value_name = "WHEN", value_parser = ["true", "always", "false"])]
    systemd: Option<String>,
    /// Create the container in a pod: its name, or new:NAME to create that, too
    #[arg(long, value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// Create the container in the pod whose ID is in the file
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    pub(crate) pod_id_file: Option<PathBuf>,
    /// The first word is a folder of the host that is the root file system, and no image; with :O changes are kept beside it
    #[arg(long)]
    pub(crate) rootfs: bool,
    /// A folder with files that say which programs run when the container begins and ends (oci-hooks(5)); of several the last counts
    #[arg(long, value_name = "FOLDER")]
    hooks_dir: Vec<PathBuf>,
    /// What becomes of the image's volumes: anonymous, tmpfs or ignore
    #[arg(long, value_name = "MODE", value_parser = image_volumes)]
    image_volume: Option<ImageVolumes>,
    #[command(flatten)]
    startup: StartupFlags,
}

impl PodmanFlags {
    /// Whether the image keeps its own `/etc/hosts`.
    pub(crate) fn no_hosts(&self) -> bool {
        self.no_hosts
    }

    /// Whether it is a part of this command's control group.
    pub(crate) fn splits_group(&self) -> bool {
        self.cgroups.as_deref() == Some("split")
    }

    /// The pod that is meant.
    pub(crate) fn pod(&self) -> Result<Option<String>, CliError> {
        match &self.pod_id_file {
            None => Ok(self.pod.clone()),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| {
                    CliError::plain(format!("reading pod ID file: open {}: {error}", path.display()))
                        .with_code(125)
                })?;
                Ok(text.lines().next().map(str::to_owned))
            }
        }
    }

    /// Adds what they mean to a request.
    pub(crate) fn add_to(&self, request: &mut CreateContainer) -> Result<(), CliError> {
        if let Some(zone) = &self.tz {
            request.mounts.push(time_zone(zone)?);
            request.extras.zone = Some(zone.clone()).filter(|zone| zone != "local");
        }
        // A name without a value takes the image's away.
        let unset = |name: &&String| !request.env.iter().any(|set| set.split('=').next() == Some(name));
        let unset: Vec<String> = self.unsetenv.iter().filter(unset).cloned().collect();
        request.env.extend(unset);
        if self.env_host {
            let set = |name: &str| request.env.iter().any(|set| set.split('=').next() == Some(name));
            let host: Vec<String> = std::env::vars()
                .filter(|(name, _)| !set(name))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request.env.splice(0..0, host);
        }
        request.bare_env = self.unsetenv_all;
        if self.http_proxy.unwrap_or(dialect::spoken().is_podman()) {
            add_proxies(&mut request.env);
        }
        request.umask = self.umask;
        request.image_volumes = self.image_volume.unwrap_or_default();
        let podman = dialect::spoken().is_podman();
        if request.read_only {
            request.read_only_tmpfs = self.read_only_tmpfs.unwrap_or(podman);
            request.read_only_dev = self.read_only_tmpfs == Some(false);
        }
        request.systemd = match self.systemd.as_deref() {
            Some("always") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        if let (Some(init), Some(path)) = (&mut request.init, &self.init_path) {
            init.program = Some(init_program(path)?);
        }
        let extras = &mut request.extras;
        extras.remove_image = self.rmi;
        extras.timeout = self.timeout;
        extras.pidfile = absolute(self.pidfile.as_ref())?;
        extras.monitor_pidfile = absolute(self.conmon_pidfile.as_ref())?;
        for folder in &self.hooks_dir {
            extras.hook_folders.extend(absolute(Some(folder))?);
        }
        extras.no_hostname = self.no_hostname;
        extras.no_hosts = self.no_hosts;
        self.startup.add_to(extras)
    }
}

/// The variables that name proxies (containers/common `pkg/config`, `ProxyEnv`), as far as nobody said otherwise.
fn add_proxies(env: &mut Vec<String>) {
    for name in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"] {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            let said = env.iter().any(|set| set.split('=').next() == Some(&name));
            if let Some(value) = std::env::var(&name).ok().filter(|_| !said) {
                env.push(format!("{name}={value}"));
            }
        }
    }
}

/// The built-in init, where the dialect's users look for one.
pub(super) fn init() -> Init {
    let place = match dialect::spoken() {
        dialect::Dialect::Docker => "/sbin/docker-init",
        dialect::Dialect::Podman => "/run/podman-init",
    };
    Init {
        place: PathBuf::from(place),
        program: None,
    }
}

/// One of the host's in its place.
fn init_program(path: &Path) -> Result<PathBuf, CliError> {
    let bad = |why: &str| {
        CliError::plain(format!("container-init binary {}: {why}", path.display())).with_code(125)
    };
    let path = std::fs::canonicalize(path).map_err(|error| bad(&error.to_string()))?;
    let metadata = std::fs::metadata(&path).map_err(|error| bad(&error.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(bad("it is no program"));
    }
    Ok(path)
}

/// A device rule in podman's form and words (podman `pkg/specgen/generate/validate.go`), as docker writes it.
pub(super) fn device_rule(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words.as_slice() else {
        return Err(format!(
            "invalid device cgroup rule requires type, major:Minor, and access rules: {text:?}"
        ));
    };
    if !matches!(*kind, "a" | "b" | "c") {
        return Err(format!("invalid device type in device-access-add: {kind}"));
    }
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
    for number in [major, minor] {
        if number != "*" && number.parse::<u32>().is_err() {
            return Err(format!("strconv.ParseUint: parsing {number:?}: invalid syntax"));
        }
    }
    if let Some(wrong) = access.chars().find(|c| !matches!(c, 'r' | 'w' | 'm')) {
        return Err(format!("invalid device access in device-access-add: {wrong}"));
    }
    Ok(format!("{kind} {major}:{minor} {access}"))
}

/// A path that leads to the same place from the monitor's working directory.
pub(crate) fn absolute(path: Option<&PathBuf>) -> Result<Option<PathBuf>, CliError> {
    let whole = path.map(|path| {
        std::path::absolute(path)
            .map_err(|error| CliError::plain(format!("{}: {error}", path.display())).with_code(125))
    });
    whole.transpose()
}

fn image_volumes(text: &str) -> Result<ImageVolumes, String> {
    match text {
        // Podman's older word.
        "anonymous" | "bind" => Ok(ImageVolumes::Anonymous),
        "tmpfs" => Ok(ImageVolumes::Tmpfs),
        "ignore" => Ok(ImageVolumes::Ignore),
        _ => Err("it is anonymous, tmpfs or ignore".to_owned()),
    }
}

fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "it is an octal number up to 0777".to_owned())
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
        options: Vec::new(),
        submounts: dhow_engine::Submounts::default(),
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
        use clap::FromArgMatches as _;
        let words = ["run", "--unsetenv", "A", "--unsetenv", "B"];
        // Flags of others that these name.
        let others = ["name", "health_cmd", "add_host", "init"].map(clap::Arg::new);
        let flags = PodmanFlags::augment_args(clap::Command::new("run").args(others))
            .try_get_matches_from(words)
            .unwrap();
        let flags = PodmanFlags::from_arg_matches(&flags).unwrap();
        let mut request = CreateContainer {
            env: vec!["A=1".to_owned()],
            ..CreateContainer::default()
        };
        flags.add_to(&mut request).unwrap();
        assert_eq!(request.env, ["A=1", "B"]);
    }
}
