//! Whose words the person speaks: docker's, or podman's when the program is called by that name.
//!
//! The verbs and the engine are the same. What differs, and is here alone: the form and exit code of an error, where a
//! name without a registry leads, how a name is shown, and what lists look like as JSON.

use std::path::Path;
use std::sync::OnceLock;

use dhow_reference::Reference;
use dhow_types::{ErrorKind, Platform};
use serde_json::Value;

use crate::CliError;

/// A way to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Docker's.
    Docker,
    /// Podman's.
    Podman,
}

/// The usual network, and what podman calls it.
const USUAL: &str = "bridge";
const PODMAN_NETWORK: &str = "podman";

/// The registry of names that podman made here (containers/image `docker/reference`, `localhost/`).
const HERE: &str = "localhost/";

/// The way to speak of this process: the name that it was called by does not change.
pub(crate) fn spoken() -> Dialect {
    static SPOKEN: OnceLock<Dialect> = OnceLock::new();
    *SPOKEN.get_or_init(|| {
        if is_called("podman") {
            Dialect::Podman
        } else {
            Dialect::Docker
        }
    })
}

/// Whether the program is in docker's place: its words are compared by scripts that know docker alone.
pub(crate) fn is_docker() -> bool {
    is_called("docker")
}

/// Whether the program was called by this name.
pub(crate) fn is_called(name: &str) -> bool {
    let called = std::env::args_os().next();
    let called = called.as_deref().and_then(|path| Path::new(path).file_name());
    called.is_some_and(|called| called == name)
}

impl Dialect {
    /// What is said of an image for a machine that is not this one, when nobody asked for it (moby `daemon/create.go`,
    /// containers/common `libimage/image.go`).
    pub(crate) fn foreign_image(self, platform: &Platform) -> String {
        let host = Platform::host();
        match self {
            Self::Docker => format!(
                "The requested image's platform ({platform}) does not match the detected host platform ({host}) and no specific platform was requested"
            ),
            Self::Podman => {
                format!("image platform ({platform}) does not match the expected platform ({host})")
            }
        }
    }

    /// An image or volume that was not removed. Podman's exit code: 1 when there is none, 2 when it is in use (podman-rmi(1),
    /// podman-volume-rm(1)).
    pub(crate) fn not_removed(self, error: dhow_engine::Error) -> CliError {
        let kind = error.kind();
        let error = CliError::from(error);
        match (self, kind) {
            (Self::Podman, ErrorKind::NotFound) => error.with_code(1),
            (Self::Podman, ErrorKind::FailedPrecondition) => error.with_code(2),
            _ => error,
        }
    }

    /// Whether it is podman's.
    pub(crate) fn is_podman(self) -> bool {
        self == Self::Podman
    }

    /// An error's line.
    pub(crate) fn failure(self, message: &str) -> String {
        match self {
            Self::Docker if is_docker() => docker_words(message),
            Self::Docker => format!("dhow: {message}"),
            Self::Podman => format!("Error: {}", podman_words(message)),
        }
    }

    /// The exit code of a failure that has no code of its own: 1 with docker, 125 with podman, whose 1 and 2 mean "there
    /// is no such thing" and "it is in use" (podman-run(1), podman-rm(1)).
    pub(crate) fn failure_code(self, code: u8) -> u8 {
        if self.is_podman() && code == 1 { 125 } else { code }
    }

    /// A signal as it is given: podman's may have a dash before it.
    pub(crate) fn signal(self, text: &str) -> &str {
        match self {
            Self::Docker => text,
            Self::Podman => text.strip_prefix('-').unwrap_or(text),
        }
    }

    /// The exit code of `run` whose container could not be started: docker's 125 is podman's 126, since the container is
    /// there (libpod `define/exec_codes.go`, `ExitCode`).
    pub(crate) fn start_failure(self, code: u8) -> u8 {
        if self.is_podman() && code == 125 {
            126
        } else {
            code
        }
    }

    /// The name that a new image gets: without a registry it is podman's `localhost/name`.
    pub(crate) fn new_name(self, text: &str) -> String {
        if self.is_podman() && is_short(text) {
            format!("{HERE}{text}")
        } else {
            text.to_owned()
        }
    }

    /// The name of a local image: podman looks under `localhost/` before it looks elsewhere. `there` says whether there
    /// is an image of a name.
    pub(crate) fn local_name(self, text: &str, there: impl Fn(&str) -> bool) -> String {
        if self.is_podman() && is_short(text) {
            let here = format!("{HERE}{text}");
            if there(&here) {
                return here;
            }
        }
        text.to_owned()
    }

    /// A repository as it is shown: docker leaves its own registry out.
    pub(crate) fn repository(self, reference: &Reference) -> String {
        match self {
            Self::Docker => reference.familiar_name(),
            Self::Podman => reference.name(),
        }
    }

    /// A whole name as it is shown.
    pub(crate) fn image_name(self, text: &str) -> String {
        match self {
            Self::Podman => Reference::parse(text)
                .map_or_else(|_| text.to_owned(), |reference| reference.or_latest().canonical()),
            Self::Docker => text.to_owned(),
        }
    }

    /// The name of a network as it is shown: the usual one is podman's own there.
    pub(crate) fn network_name(self, name: &str) -> &str {
        match (self, name) {
            (Self::Podman, USUAL) => PODMAN_NETWORK,
            _ => name,
        }
    }

    /// The network that a person means.
    pub(crate) fn network(self, name: &str) -> &str {
        match (self, name) {
            (Self::Podman, PODMAN_NETWORK) => USUAL,
            _ => name,
        }
    }

    /// The template of a table: with podman, blanks between two fields separate columns, too (containers/common
    /// `pkg/report`, `EnforceRange`).
    pub(crate) fn columns(self, template: &str) -> String {
        match self {
            Self::Docker => template.to_owned(),
            Self::Podman => template.replace("}} {{", "}}\t{{"),
        }
    }

    /// An image's id as it is shown: podman leaves out how it was made.
    pub(crate) fn image_id(self, id: &dhow_types::ImageId) -> String {
        match self {
            Self::Docker => id.to_string(),
            Self::Podman => id.hex().to_string(),
        }
    }

    /// `--format json` of a list: a line for each with docker, one array with podman.
    pub(crate) fn json_list(self, rows: impl Iterator<Item = Value>) -> String {
        match self {
            Self::Docker => rows.map(|row| format!("{row}\n")).collect(),
            Self::Podman => format!("{:#}\n", Value::Array(rows.collect())),
        }
    }
}

/// A warning as podman's log writes it (logrus, its text form).
pub(crate) fn warning(message: &str) -> String {
    logged("warning", message)
}

/// A line of that log.
pub(crate) fn logged(level: &str, message: &str) -> String {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let message = message.replace('\\', "\\\\").replace('"', "\\\"");
    format!("time=\"{now}\" level={level} msg=\"{message}\"")
}

/// Whether a name says no registry.
fn is_short(text: &str) -> bool {
    Reference::parse(text).is_ok_and(|name| {
        name.registry() == "docker.io"
            && !text.starts_with("docker.io/")
            && !text.starts_with("index.docker.io/")
    })
}

/// An error as docker writes it: by itself where scripts look for the whole of it, else after the program's name.
fn docker_words(message: &str) -> String {
    match message.strip_prefix("No such object: ") {
        Some(name) => format!("error: no such object: {name}"),
        None => format!("docker: {message}"),
    }
}

/// The failures that scripts around podman look for, in its words (libpod `define/errors.go`).
fn podman_words(message: &str) -> String {
    let after = |mark: &str| message.rsplit_once(mark).map(|(_, name)| name.trim());
    if let Some(name) = after("No such container: ") {
        return format!("no container with name or ID \"{name}\" found: no such container");
    }
    if let Some(name) = after("no such image: ") {
        return format!(
            "{}: image not known",
            name.strip_suffix(":latest").unwrap_or(name)
        );
    }
    if let Some(name) = message
        .strip_suffix(": no such volume")
        .and_then(|rest| rest.strip_prefix("get "))
    {
        return format!("no volume with name \"{name}\" found: no such volume");
    }
    if let Some((_, name)) = message
        .rsplit_once("untag image ")
        .filter(|_| message.ends_with(": tag not known"))
    {
        return name.split_once(": ").map_or(message, |(_, rest)| rest).to_owned();
    }
    if let Some(flag) = message
        .strip_prefix("invalid filter ")
        .and_then(|rest| rest.strip_suffix(": write name=value"))
    {
        return format!(
            "invalid image filter {flag}: must be in the format \"filter=value or filter!=value\""
        );
    }
    if let Some((name, rest)) = message
        .strip_prefix("remove ")
        .and_then(|rest| rest.split_once(": volume is in use - ["))
    {
        let users = rest.trim_end_matches(']');
        return format!(
            "volume {name} is being used by the following container(s): {users}: volume is being used"
        );
    }
    if let Some((name, rest)) = message
        .rsplit_once("Conflict. The container name \"/")
        .and_then(|(_, rest)| rest.split_once("\" is already in use by container \""))
    {
        let id = rest.split('"').next().unwrap_or("");
        return format!(
            "creating container storage: the container name \"{name}\" is already in use by {id}. You have to remove that \
             container to be able to reuse that name: that name is already in use, or use --replace to instruct Podman to \
             do so."
        );
    }
    if message.ends_with(": port is already allocated") {
        return message.replace("port is already allocated", "address already in use");
    }
    if let Some(signal) = message.strip_prefix("Invalid signal: ") {
        // Podman looks at the number of one that is a number (podman `pkg/util`, `ParseSignal`).
        return match signal.parse::<u64>() {
            Ok(1..) => "valid signals are 1 through 64".to_owned(),
            _ => format!("invalid signal: {signal}"),
        };
    }
    words_of_paths(message)
        .or_else(|| words_of_images(message))
        .or_else(|| words_of_networks(message))
        .unwrap_or_else(|| message.to_owned())
}

/// The same of networks.
fn words_of_networks(message: &str) -> Option<String> {
    if message.contains(" is a pre-defined network and cannot be removed") {
        return Some(format!("default network {PODMAN_NETWORK} cannot be removed"));
    }
    let named = |end: &str, before: &str| {
        let rest = message.strip_suffix(end)?;
        rest.rsplit_once(before).map(|(_, name)| name)
    };
    if let Some(name) = named(" not found", "network ") {
        return Some(format!(
            "unable to find network with name or ID {name}: network not found"
        ));
    }
    let name = named(" already exists", "network with name ")?;
    Some(format!(
        "network name {name} already used: network already exists"
    ))
}

/// The same of images and their archives.
fn words_of_images(message: &str) -> Option<String> {
    if let Some(what) = message
        .strip_prefix("load images: ")
        .filter(|what| what.contains("archive"))
    {
        return Some(format!(
            "payload does not match any of the supported image formats: {what}"
        ));
    }
    if let Some((_, rest)) = message
        .split_once(": conflict: unable to delete ")
        .and_then(|(_, rest)| rest.rsplit_once(" container "))
        .filter(|_| message.contains("image is being used by"))
    {
        return Some(format!(
            "image used by {rest}: image is in use by a container: consider listing external containers and \
             force-removing image"
        ));
    }
    None
}

/// The same of paths in containers and on the host.
fn words_of_paths(message: &str) -> Option<String> {
    let absent = |path: &str, container: &str| {
        format!("\"{path}\" could not be found on container {container}: no such file or directory")
    };
    if let Some((path, container)) = message
        .strip_prefix("Could not find the file ")
        .and_then(|rest| rest.rsplit_once(" in container "))
    {
        return Some(absent(path, container));
    }
    if let Some((container, path)) = message
        .strip_suffix(": no such directory")
        .and_then(|rest| rest.split_once(':'))
    {
        return Some(absent(path, container));
    }
    if let Some(path) = message
        .strip_prefix("lstat ")
        .and_then(|rest| rest.strip_suffix(": no such file or directory"))
    {
        return Some(format!("\"{path}\" could not be found on the host"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_registry_is_podmans_own() {
        let podman = Dialect::Podman;
        assert_eq!(podman.new_name("tool:1"), "localhost/tool:1");
        assert_eq!(podman.new_name("team/tool"), "localhost/team/tool");
        for whole in [
            "localhost/tool",
            "docker.io/library/tool",
            "quay.io/a/b",
            "host:5000/x",
        ] {
            assert_eq!(podman.new_name(whole), whole);
        }
        assert_eq!(Dialect::Docker.new_name("tool:1"), "tool:1");
        assert_eq!(
            podman.local_name("tool", |name| name == "localhost/tool"),
            "localhost/tool"
        );
        assert_eq!(podman.local_name("tool", |_| false), "tool");
    }

    #[test]
    fn errors_are_in_the_words_that_scripts_look_for() {
        let podman = Dialect::Podman;
        assert_eq!(
            podman.failure("No such container: web"),
            "Error: no container with name or ID \"web\" found: no such container"
        );
        assert_eq!(
            podman.failure("look at image x: no such image: x:latest"),
            "Error: x: image not known"
        );
        assert_eq!(
            podman.failure("get data: no such volume"),
            "Error: no volume with name \"data\" found: no such volume"
        );
        assert_eq!(
            podman.failure("create container: network red not found"),
            "Error: unable to find network with name or ID red: network not found"
        );
        assert_eq!(
            podman.failure("web:/x/: no such directory"),
            "Error: \"/x/\" could not be found on container web: no such file or directory"
        );
        assert_eq!(
            podman.failure("lstat /x: no such file or directory"),
            "Error: \"/x\" could not be found on the host"
        );
        assert_eq!(Dialect::Docker.failure("x"), "dhow: x");
        assert_eq!(docker_words("No such object: x"), "error: no such object: x");
        assert_eq!(docker_words("x"), "docker: x");
        assert_eq!(podman.failure_code(1), 125);
        assert_eq!(podman.failure_code(126), 126);
        assert_eq!(Dialect::Docker.failure_code(1), 1);
    }
}
