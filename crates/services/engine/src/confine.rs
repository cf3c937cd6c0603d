//! The security modules of the host: the AppArmor profile that containers get, and SELinux labels.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// The profile of a container that names none, where the host has AppArmor.
pub const DEFAULT_PROFILE: &str = "dhow-default";

/// Where the program that compiles profiles for the kernel is looked for.
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];

/// Names of the profiles that the kernel holds, one a line with its mode.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The program that compiles profiles, if it is installed.
pub(crate) fn parser() -> Option<&'static str> {
    PARSERS
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
}

/// The profile that a container without a choice is confined by: none on hosts without AppArmor, and on those where
/// no profile can be loaded (docker asks for the same two things). A normal user loads none, but may use what root loaded.
pub(crate) fn default_profile() -> Option<&'static str> {
    let loadable = || crate::rootless::is_rootful() && parser().is_some();
    (dhow_runtime::lsm::apparmor_enabled() && (loadable() || loaded())).then_some(DEFAULT_PROFILE)
}

/// The AppArmor profile of a container, by what was asked for.
#[must_use]
pub fn profile_of(request: &dhow_bundle::Request) -> Option<&str> {
    match request.apparmor.as_deref() {
        Some(name) if !name.is_empty() => Some(name),
        _ if request.privileged => default_profile().map(|_| "unconfined"),
        _ => default_profile(),
    }
}

fn loaded() -> bool {
    if !crate::rootless::is_rootful() {
        return dhow_runtime::lsm::apparmor_allows(DEFAULT_PROFILE);
    }
    fs::read_to_string(LOADED).is_ok_and(|text| {
        text.lines().any(|line| {
            line.split_once(" (")
                .is_some_and(|(name, _)| name == DEFAULT_PROFILE)
        })
    })
}

/// Loads the default profile unless the kernel has it. One that a person loaded under its name stays.
pub(crate) fn load_default() -> Result<(), Error> {
    if loaded() {
        return Ok(());
    }
    let Some(parser) = parser() else {
        let message =
            format!("AppArmor profile {DEFAULT_PROFILE} is not loaded, and apparmor_parser is missing");
        return Err(
            Error::new(ErrorKind::FailedPrecondition, message).with_hint("install the package apparmor")
        );
    };
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new(parser)
            .args(["-Kr", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text().as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().context(|| format!("run {parser}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(400)
        .collect();
    let message = format!(
        "{parser} cannot load the profile {DEFAULT_PROFILE}: {}",
        said.trim()
    );
    Err(Error::new(ErrorKind::FailedPrecondition, message))
}

/// The default profile. It allows what a container does within its own namespaces, and takes away what would be
/// reached through procfs and sysfs if a masked path were ever unmasked; it is no second list of system calls.
///
/// `attach_disconnected` is for files whose path leads out of the container's mounts, such as the stub that executes the
/// program; `mediate_deleted` for those that were removed.
fn text() -> String {
    // "network" of ABI 4 leaves Unix sockets out; parsers without that ABI know no such line.
    let abi = if std::path::Path::new("/etc/apparmor.d/abi/3.0").exists() {
        "abi <abi/3.0>,\n\n"
    } else {
        ""
    };
    format!(
        r#"{abi}profile {DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  capability,
  file,
  network,
  deny network alg,
  umount,
  deny mount,

  # Signals come from the engine, which nothing confines, and go to the container's own processes.
  signal (receive) peer=unconfined,
  signal (send,receive) peer={DEFAULT_PROFILE},
  ptrace (trace,tracedby,read,readby) peer={DEFAULT_PROFILE},

  # Settings of the kernel: only processes' own folders and kernel/shm* may be written.
  deny /proc/* w,
  deny /proc/{{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  # Of sysfs, only control groups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_loadable_text() {
        let text = text();
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.contains("profile dhow-default flags="));
        let rules = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for rule in rules.filter(|rule| !rule.ends_with('{') && *rule != "}") {
            assert!(rule.ends_with(','), "{rule}");
        }
        let Some(parser) = parser() else {
            eprintln!("skipped: apparmor_parser (package apparmor) is not installed");
            return;
        };
        let scratch = tempfile::NamedTempFile::new().unwrap();
        fs::write(scratch.path(), &text).unwrap();
        // Compiles it, and loads nothing.
        let status = Command::new(parser)
            .args(["-QKT"])
            .arg(scratch.path())
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_privileged_container_is_confined_by_what_it_asks_for_alone() {
        let named = dhow_bundle::Request {
            privileged: true,
            apparmor: Some("mine".to_owned()),
            ..dhow_bundle::Request::default()
        };
        assert_eq!(profile_of(&named), Some("mine"));
        let plain = dhow_bundle::Request {
            privileged: true,
            ..dhow_bundle::Request::default()
        };
        assert_ne!(profile_of(&plain), Some(DEFAULT_PROFILE));
    }
}
