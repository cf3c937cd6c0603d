//! `--ssh` and `--build-context`: what names in a Dockerfile lead to; and the arguments that nobody gave.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use dhow_engine::{BuildRequest, Entitlements, NamedContext};
use dhow_types::Platform;

use crate::{CliError, Context};

/// One of the entitlements that there are.
pub(super) fn entitlement(text: &str) -> Result<String, String> {
    match text {
        "network.host" | "security.insecure" | "device" => Ok(text.to_owned()),
        _ if text.strip_prefix("device=").is_some_and(|name| !name.is_empty()) => Ok(text.to_owned()),
        _ => Err("it is none of network.host, security.insecure, device and device=NAME".to_owned()),
    }
}

/// What steps may have that ask for it.
pub(super) fn entitlements(allowed: &[String]) -> Entitlements {
    let is_allowed = |name: &str| allowed.iter().any(|allowed| allowed == name);
    let named = allowed.iter().filter_map(|text| text.strip_prefix("device="));
    Entitlements {
        // Buildah has no such question.
        network_host: is_allowed("network.host") || crate::dialect::spoken().is_podman(),
        security_insecure: is_allowed("security.insecure"),
        every_device: is_allowed("device"),
        devices: named.map(str::to_owned).collect(),
    }
}

/// The proxies that docker's `config.json` gives to builds, as far as nobody said otherwise.
pub(super) fn add_proxies(context: &Context, request: &mut BuildRequest) {
    for (name, value) in context.environment.proxies() {
        request.build_args.entry(name).or_insert(value);
    }
}

/// `id=socket`; an id alone is the agent of this command's environment.
pub(super) fn agent(text: &str) -> Result<(String, PathBuf), CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid --ssh {text:?}: {why}"));
    let (id, path) = match text.split_once('=') {
        Some((id, path)) => (id, PathBuf::from(path)),
        None => {
            let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
            (
                text,
                socket.ok_or_else(|| bad("SSH_AUTH_SOCK is not set"))?.into(),
            )
        }
    };
    if id.is_empty() {
        return Err(bad("it has no id"));
    }
    let kind = fs::metadata(&path).map_err(|error| bad(&format!("{}: {error}", path.display())))?;
    if !kind.file_type().is_socket() {
        return Err(bad("it is no socket").with_hint("keys are given by an agent: ssh-add them first"));
    }
    Ok((id.to_owned(), path))
}

/// `name=value`; `name::os/architecture=value` is for one platform.
pub(super) fn context(text: &str) -> Result<(String, NamedContext), CliError> {
    let bad = |why: &str| CliError::plain(format!("invalid --build-context {text:?}: {why}"));
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| bad("write name=value"))?;
    let context = NamedContext::parse(value).map_err(|error| bad(&error.to_string()))?;
    if let NamedContext::Local(path) = &context
        && !path.is_dir()
    {
        return Err(bad(&format!("{} is no folder", path.display())));
    }
    let key = match name.split_once("::") {
        None => NamedContext::key(name),
        Some((name, platform)) => {
            let platform: Platform = platform.parse().map_err(|error| bad(&format!("{error}")))?;
            NamedContext::key_for(&NamedContext::key(name), &platform.normalized())
        }
    };
    Ok((key, context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (id, socket) = agent(&format!("github={}", path.display())).unwrap();
        assert_eq!((id.as_str(), socket), ("github", path));
        for bad in ["=/x", "a=/nonexistent", "a=/etc/passwd"] {
            assert!(agent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_context_has_a_name_and_is_there() {
        let (name, found) = context("Alpine:latest=docker-image://busybox").unwrap();
        assert_eq!(
            (name.as_str(), found),
            ("alpine:latest", NamedContext::Image("busybox".to_owned()))
        );
        assert_eq!(context("lib=/").unwrap().1, NamedContext::Local("/".into()));
        assert_eq!(context("lib::linux/arm64=/").unwrap().0, "lib::linux/arm64");
        for bad in [
            "lib",
            "=/",
            "lib=",
            "lib=/nonexistent",
            "lib=ftp://example.test/a.tar",
            "lib::vax=/",
        ] {
            assert!(context(bad).is_err(), "{bad}");
        }
    }
}
