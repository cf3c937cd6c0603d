//! `login` and `logout`: credentials in docker's `config.json`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgMatches, Args};
use dhow_engine::CredentialProgram;
use serde_json::{Map, Value, json};

use crate::render::{note, say_line};
use crate::{CliError, Context, Verb, docker_config};

pub(crate) const LOGIN: Verb = Verb {
    name: "login",
    about: "Authenticate to a registry",
    flags: |command| crate::flags::registry::augment(LoginFlags::augment_args(command)),
    run: login,
};

pub(crate) const LOGOUT: Verb = Verb {
    name: "logout",
    about: "Log out from a registry",
    flags: |command| crate::flags::registry::augment(LogoutFlags::augment_args(command)),
    run: logout,
};

#[derive(Args, Debug)]
struct LoginFlags {
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Password; better given by --password-stdin, since every process can read arguments
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// The registry; Docker Hub when there is none
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

#[derive(Args, Debug)]
struct LogoutFlags {
    /// Remove the credentials of every registry
    #[arg(short, long, conflicts_with = "server")]
    all: bool,
    /// The registry; Docker Hub when there is none
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Docker's key for its own hub.
pub(super) const HUB: &str = "https://index.docker.io/v1/";
/// Largest password.
const MAX_PASSWORD: u64 = 64 << 10;

fn login(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LoginFlags = crate::flags::read(matches)?;
    let server = server(flags.server.as_deref());
    let username = match flags.username {
        Some(name) => name,
        None if flags.password_stdin || !std::io::stdin().is_terminal() => {
            return Err(CliError::plain("must provide --username with --password-stdin"));
        }
        None => asked("Username: ")?,
    };
    let password = match flags.password {
        Some(password) => {
            note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        None if flags.password_stdin => {
            let mut text = String::new();
            std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if std::io::stdin().is_terminal() => {
            let hidden = crate::terminal::Hidden::enter();
            let password = asked("Password: ");
            drop(hidden);
            note("");
            password?
        }
        None => {
            return Err(CliError::plain("cannot ask for a password without a terminal")
                .with_hint("use --password-stdin"));
        }
    };
    if username.is_empty() || username.contains(':') || password.is_empty() {
        return Err(CliError::plain(
            "a username without colon and a password are needed",
        ));
    }
    let path = context.environment.docker_config()?;
    // Read before the registry is asked: what cannot be stored need not be tried.
    let mut config = docker_config::read(&path)?;
    let registry = if server == HUB {
        "docker.io"
    } else {
        server.as_str()
    };
    context.engine()?.check_login(registry, &username, &password)?;
    let helper = helper(context, &config, &server)?;
    let entry = match &helper {
        // Docker notes the registry, and that the secret is elsewhere, by an empty entry.
        Some(helper) => {
            helper.store(&server, &username, &password)?;
            json!({})
        }
        None => json!({"auth": STANDARD.encode(format!("{username}:{password}"))}),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let auths = auths
        .as_object_mut()
        .ok_or_else(|| CliError::plain(format!("{}: \"auths\" is no object", path.display())))?;
    auths.insert(server.clone(), entry);
    docker_config::write(&path, &config)?;
    if helper.is_none() {
        note(&format!(
            "WARNING! The password is stored unencrypted in {}.",
            path.display()
        ));
    }
    say_line("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

fn logout(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LogoutFlags = crate::flags::read(matches)?;
    if flags.all {
        return logout_everywhere(context);
    }
    let server = server(flags.server.as_deref());
    let path = context.environment.docker_config()?;
    let mut config = docker_config::read(&path)?;
    let removed = config
        .get_mut("auths")
        .and_then(Value::as_object_mut)
        .and_then(|auths| auths.remove(&server));
    let erased = match helper(context, &config, &server)? {
        Some(helper) => helper.erase(&server)?,
        None => false,
    };
    if removed.is_none() && !erased {
        say_line(&format!("Not logged in to {server}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if removed.is_some() {
        docker_config::write(&path, &config)?;
    }
    say_line(&format!("Removing login credentials for {server}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Forgets what the file has, and what programs keep for the registries that it names.
fn logout_everywhere(context: &Context) -> Result<ExitCode, CliError> {
    let path = context.environment.docker_config()?;
    let mut config = docker_config::read(&path)?;
    let mut servers = std::collections::BTreeSet::new();
    for key in ["auths", "credHelpers"] {
        let named = config.get(key).and_then(Value::as_object);
        servers.extend(named.into_iter().flat_map(|named| named.keys().cloned()));
    }
    for server in &servers {
        if let Some(helper) = helper(context, &config, server)? {
            helper.erase(server)?;
        }
    }
    if config.remove("auths").is_some() {
        docker_config::write(&path, &config)?;
    }
    say_line("Removed login credentials for all registries")?;
    Ok(ExitCode::SUCCESS)
}

/// The program that keeps the credentials of a registry, when the file names one: its own, or the general one.
fn helper(
    context: &Context,
    config: &Map<String, Value>,
    server: &str,
) -> Result<Option<CredentialProgram>, CliError> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| helpers.iter().find(|(key, _)| host(key) == host(server)));
    let name = own
        .map(|(_, name)| name)
        .or_else(|| config.get("credsStore"))
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let folders = context.environment.settings().transport.helpers;
    Ok(Some(CredentialProgram::find(name, &folders)?))
}

/// The host of a key, which may be an address.
fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The key of a registry in the file.
fn server(wanted: Option<&str>) -> String {
    match wanted {
        None | Some("" | "docker.io" | "index.docker.io" | "registry-1.docker.io") => HUB.to_owned(),
        Some(HUB) => HUB.to_owned(),
        Some(name) => {
            let name = name.split_once("://").map_or(name, |(_, rest)| rest);
            name.split('/').next().unwrap_or(name).to_owned()
        }
    }
}

pub(super) fn asked(prompt: &str) -> Result<String, CliError> {
    let mut errors = std::io::stderr();
    errors
        .write_all(prompt.as_bytes())
        .and_then(|()| errors.flush())?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_docker_keys() {
        assert_eq!(server(None), HUB);
        assert_eq!(server(Some("docker.io")), HUB);
        assert_eq!(server(Some("https://r.example.com/v2/")), "r.example.com");
        assert_eq!(server(Some("localhost:5000")), "localhost:5000");
    }
}
