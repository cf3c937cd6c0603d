//! What crun has and runc has not: for callers that know this program by the name `crun`, and for them alone.
//!
//! Its annotations (`run.oci.*`) do what they do there, or are refused by name: one that were passed over would start a container
//! with other rights than its author believes. Its options, its folder of containers, the file `status` in each of them, its
//! words in `--version` and `features` are here or point here.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dhow_oci::Labels;
use dhow_oci::runtime::{Resources, Spec};
use dhow_runtime::container::{Begun, Record};
use dhow_runtime::{ExitStatus, HookFailure, Settings, Surroundings};
use serde_json::{Value, json};

use crate::notify::Supervisor;
use crate::verb::owner;
use crate::{Context, Failure, streams};

/// The line that tells what was built in, as crun's clients look for single words of it.
pub(crate) const BUILT_IN: &str = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU";

/// Annotations of crun that ask for what this runtime has not; with the one value that asks for nothing.
const REFUSED: [(&str, Option<&str>); 7] = [
    ("run.oci.delegate-cgroup", None),
    ("run.oci.handler", None),
    ("run.oci.mount_context_type", Some("context")),
    ("run.oci.seccomp.plugins", None),
    ("run.oci.seccomp_bpf_data", None),
    ("run.oci.systemd.force_cgroup_v1", None),
    ("run.oci.systemd.subgroup", Some("")),
];

/// Refuses ids that crun refuses.
pub(crate) fn check_id(context: &Context, id: &str) -> Result<(), Failure> {
    if context.is_crun() && id.starts_with('.') {
        return Err(Failure::new(format!("invalid container ID `{id}`")));
    }
    Ok(())
}

/// Does what the annotations of a spec say, and returns the socket that is to receive a pidfd.
pub(crate) fn apply(
    context: &Context,
    spec: &mut Spec,
    settings: &mut Settings,
) -> Result<Option<PathBuf>, Failure> {
    if !context.is_crun() {
        return Ok(None);
    }
    for (name, harmless) in REFUSED {
        let Some(value) = spec.annotations.get(name) else {
            continue;
        };
        if harmless != Some(value.as_str()) {
            let message = format!("annotation {name}={value} is not supported: remove it");
            return Err(Failure::new(message));
        }
    }
    let is_there = |name: &str| spec.annotations.contains_key(name);
    settings.keep_groups = is_there("run.oci.keep_original_groups");
    settings.always_listen = true;
    settings.known_calls = is_there("run.oci.seccomp_fail_unknown_syscall");
    let receiver = match spec.annotations.get("run.oci.seccomp.receiver") {
        Some(receiver) => Some(receiver.clone()),
        None => std::env::var("RUN_OCI_SECCOMP_RECEIVER").ok(),
    };
    let seccomp = spec.linux.as_mut().and_then(|linux| linux.seccomp.as_mut());
    if let (Some(receiver), Some(seccomp)) = (receiver, seccomp) {
        if !receiver.starts_with('/') {
            let message = "the seccomp receiver (run.oci.seccomp.receiver) is not an absolute path";
            return Err(Failure::new(message));
        }
        seccomp.listener_path.get_or_insert_with(|| receiver.into());
    }
    if let Some(resources) = spec.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
        limits(resources)?;
    }
    let pidfd = spec.annotations.get("run.oci.pidfd_receiver");
    pidfd.map(|path| streams::absolute(path)).transpose()
}

/// What crun makes of limits with version 2 of the control groups, and its words for what it refuses of them.
fn limits(resources: &mut Resources) -> Result<(), Failure> {
    let Ok(available) = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") else {
        return Ok(());
    };
    for name in resources.unified.keys() {
        let refused = match name.split_once('.') {
            None => format!("the specified key has not the form CONTROLLER.VALUE `{name}`"),
            Some((controller, _))
                if !available
                    .split_whitespace()
                    .chain(["cgroup"])
                    .any(|one| one == controller) =>
            {
                format!("the requested cgroup controller `{controller}` is not available")
            }
            Some(_) => continue,
        };
        return Err(Failure::new(refused));
    }
    // To runc, zero is no limit that was given.
    let memory = resources.memory.as_ref();
    if memory.is_some_and(|memory| memory.swap == Some(0) && memory.limit.is_none()) {
        let none = || "0".to_owned();
        resources
            .unified
            .entry("memory.swap.max".to_owned())
            .or_insert_with(none);
    }
    Ok(())
}

/// What hooks run with: this program's environment, and, called as crun, the files that the annotations name.
pub(crate) fn surroundings(context: &Context, annotations: &Labels) -> Result<Surroundings, Failure> {
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut bytes = name.into_vec();
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        // What comes from the kernel has no null byte.
        CString::new(bytes).ok()
    };
    let output = |name: &str| -> Result<Option<OwnedFd>, Failure> {
        let path = annotations.get(name).filter(|_| context.is_crun());
        path.map(|path| append_to(Path::new(path)).map(OwnedFd::from))
            .transpose()
    };
    Ok(Surroundings {
        env: std::env::vars_os().filter_map(variable).collect(),
        stdout: output("run.oci.hooks.stdout")?,
        stderr: output("run.oci.hooks.stderr")?,
        until_failure: context.is_runc(),
    })
}

/// The same for the end of a container, which a file that cannot be opened does not hold up.
pub(crate) fn last_surroundings(context: &Context, record: Option<&Record>) -> Surroundings {
    let nothing = Labels::new();
    let annotations = record.map_or(&nothing, |record| &record.annotations);
    surroundings(context, annotations).unwrap_or_else(|failure| {
        context.log.warn(&failure.message);
        Surroundings::default()
    })
}

fn append_to(path: &Path) -> Result<File, Failure> {
    let mut options = File::options();
    // A pipe without a reader must not hold this up.
    options
        .append(true)
        .create(true)
        .mode(0o700)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let opened = || -> std::io::Result<File> {
        let file = options.open(path)?;
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)?;
        Ok(file)
    };
    opened().map_err(|error| Failure::from(error).during(&format!("open {}", path.display())))
}

/// Where the program finds the socket to say that it is ready, and who is to hear it. runc has one place for it, and crun
/// that of the supervisor's own socket; one that is not there is an error for the former, and nobody for the latter.
pub(crate) fn readiness(context: &Context) -> Result<(Option<PathBuf>, Option<Supervisor>), Failure> {
    const PLACE: &str = "/run/notify";
    let named = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from);
    match (Supervisor::find(), named.filter(|path| path.is_absolute())) {
        (Ok(Some(supervisor)), Some(path)) if context.is_crun() => Ok((Some(path), Some(supervisor))),
        (Err(failure), Some(path)) if context.is_crun() => {
            context.log.warn(&failure.message);
            Ok((Some(path), None))
        }
        (found, _) => {
            let supervisor = found?;
            Ok((supervisor.as_ref().map(|_| PLACE.into()), supervisor))
        }
    }
}

/// Warnings about the hooks that failed at the end, in the words of who was called.
pub(crate) fn warn_of_hooks(context: &Context, failures: Vec<HookFailure>) {
    for failure in failures {
        let message = Failure::from(failure.error).message;
        match failure.status {
            Some(ExitStatus::Exited(code)) if context.is_crun() => {
                let words = format!("poststop hook failed with exit code: {code}");
                context.log.warn(&format!("{words} ({message})"));
            }
            _ => context.log.warn(&message),
        }
    }
}

/// Writes crun's file about a container that has begun, which outlives this process.
pub(crate) fn write_status(
    context: &Context,
    begun: &Begun,
    terminal: bool,
    detached: bool,
) -> Result<(), Failure> {
    let Some(record) = begun.container.record().filter(|_| context.is_crun()) else {
        return Ok(());
    };
    let mut status = status(record, detached);
    status["owner"] = json!(owner(begun.container.owner()?));
    let of_terminal = || {
        begun
            .terminal
            .as_ref()
            .filter(|_| terminal)
            .map(|_| "/dev/pts/ptmx".to_owned())
    };
    let descriptor = |number: u32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
        of_terminal().unwrap_or_else(|| link.map(|path| path.display().to_string()).unwrap_or_default())
    };
    let descriptors = json!([descriptor(0), descriptor(1), descriptor(2)]);
    status["external_descriptors"] = json!(descriptors.to_string());
    let path = begun.container.file("status");
    streams::write_whole(&path, status.to_string().as_bytes(), 0o600)
}

fn status(record: &Record, detached: bool) -> Value {
    // crun knows one path: that of the unified tree, or of the first controllers.
    let groups = &record.cgroup_paths;
    let group = groups.get("").or(groups.get("memory")).or(groups.values().next());
    let below = |path: &PathBuf| {
        let below = path.strip_prefix("/sys/fs/cgroup").unwrap_or(path);
        let below = below
            .strip_prefix("unified")
            .or(below.strip_prefix("memory"))
            .unwrap_or(below);
        format!("/{}", below.display())
    };
    json!({
        "pid": record.pid,
        "process-start-time": record.start,
        "cgroup-path": group.map(below).unwrap_or_default(),
        "rootfs": record.rootfs,
        "systemd-cgroup": record.systemd.is_some(),
        "bundle": record.bundle,
        "created": record.created,
        "detached": detached,
    })
}

/// crun's configuration file for CRIU, if there is one; runc's counts otherwise.
pub(crate) fn checkpoint_config(context: &Context) -> Option<PathBuf> {
    let path = Path::new("/etc/criu/crun.conf");
    (context.is_crun() && path.exists()).then(|| path.to_owned())
}

/// What crun's document of features has besides.
pub(crate) fn features(document: &mut Value) {
    document["annotations"]["run.oci.crun.version"] = json!(env!("CARGO_PKG_VERSION"));
    document["annotations"]["run.oci.crun.checkpoint.enabled"] = json!("true");
    if let Some(unsafe_ones) = document["potentiallyUnsafeConfigAnnotations"].as_array_mut() {
        unsafe_ones.extend([json!("run.oci."), json!("org.criu.")]);
    }
}

/// The argument of crun's `--log`: a file, with or without that word before it.
pub(crate) fn log_file(text: &str) -> Result<&str, Failure> {
    match text.split_once(':') {
        Some(("file", path)) => Ok(path),
        Some((sink @ ("journald" | "syslog"), _)) => {
            let message = format!("--log={sink}: is not supported: name a file");
            Err(Failure::new(message))
        }
        _ => Ok(text),
    }
}
