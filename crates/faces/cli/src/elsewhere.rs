//! Another host's engine, where the person's context or `DOCKER_HOST` leads there.
//!
//! By `ssh://` the whole command runs on that host, by the program of the same name there, with this command's input, output and
//! exit code. Verbs that read or write files of this host are refused, since the paths would be that host's. By `tcp://` there is
//! docker's API alone, of which this program speaks no more than the question who is there.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::Value;

use crate::{CliError, dialect};

/// What begins the address of a host that is reached by ssh.
const SSH: &str = "ssh://";
/// How long ssh tries to connect, in seconds (docker/cli `cli/connhelper/ssh`).
const TIMEOUT: &str = "ConnectTimeout=30";
/// Largest answer about a version.
const LARGEST: u64 = 1 << 20;

/// Groups of verbs that are about an engine alone.
const GROUPS: [&str; 8] = [
    "builder",
    "container",
    "healthcheck",
    "image",
    "network",
    "pod",
    "system",
    "volume",
];
/// Verbs, at the top or in these groups, that are about an engine alone.
const VERBS: [&str; 45] = [
    "attach",
    "commit",
    "connect",
    "create",
    "df",
    "diff",
    "disconnect",
    "events",
    "exec",
    "exists",
    "export",
    "history",
    "images",
    "info",
    "inspect",
    "kill",
    "load",
    "logs",
    "ls",
    "openings",
    "pause",
    "port",
    "prune",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "start",
    "stats",
    "stop",
    "tag",
    "top",
    "tree",
    "unpause",
    "untag",
    "update",
    "version",
    "wait",
    "du",
    "check",
];
/// Flags that name files of this host.
const FILES: [&str; 10] = [
    "cidfile",
    "conmon_pidfile",
    "env_file",
    "hooks_dir",
    "iidfile",
    "input",
    "label_file",
    "output",
    "pidfile",
    "pod_id_file",
];

/// Where ssh leads to.
#[derive(Debug, PartialEq)]
struct Destination<'a> {
    user: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

/// Whether an address is reached by ssh.
pub(crate) fn is_ssh(address: &str) -> bool {
    address.starts_with(SSH)
}

impl<'a> Destination<'a> {
    /// `ssh://[USER@]HOST[:PORT]`.
    fn parse(address: &'a str) -> Result<Self, CliError> {
        let bad = |why: &str| CliError::plain(format!("invalid address {address:?}: {why}"));
        let rest = address
            .strip_prefix(SSH)
            .ok_or_else(|| bad("it is none of ssh"))?;
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(bad("plain-text password is not supported"));
        }
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#']) {
            return Err(bad("extra path, query or fragment after the host"));
        }
        let (host, port) = match place.rsplit_once(':') {
            // An address of version 6 has colons of its own.
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad("wrong port"))?))
            }
            _ => (place, None),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let plain =
            |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
        if !plain(host) || !user.is_none_or(plain) {
            return Err(bad("there is no host in it"));
        }
        Ok(Self { user, host, port })
    }

    /// The words of ssh, up to the command.
    fn words(&self, terminal: bool) -> Vec<String> {
        let mut words = vec!["-o".to_owned(), TIMEOUT.to_owned()];
        words.push(if terminal { "-t" } else { "-T" }.to_owned());
        if let Some(user) = self.user {
            words.extend(["-l".to_owned(), user.to_owned()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.host.to_owned()]);
        words
    }
}

/// Runs this command on the host of an address, in the place of this process.
///
/// # Errors
/// An address that leads nowhere, a verb that is about files of this host, no ssh.
pub(crate) fn by_ssh(address: &str, words: &[OsString], matches: &ArgMatches) -> Result<(), CliError> {
    let destination = Destination::parse(address)?;
    check(address, matches)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut ssh = Command::new("ssh");
    ssh.args(destination.words(terminal));
    ssh.arg(if dialect::is_docker() { "docker" } else { "dhow" });
    ssh.args(there(words).iter().map(|word| quoted(word)));
    let error = ssh.exec();
    Err(CliError::plain(format!("run ssh to {address}: {error}")))
}

/// Refuses what is not for that host alone.
fn check(address: &str, matches: &ArgMatches) -> Result<(), CliError> {
    let (mut path, mut inner) = (Vec::new(), matches);
    while let Some((name, below)) = inner.subcommand() {
        path.push(name);
        inner = below;
    }
    let refused = |what: &str| {
        let message = format!("{what} is about files of this host, and the engine is {address}");
        CliError::plain(message)
            .with_hint("run it there, or use standard input and output where the verb has them")
    };
    let known = match path.as_slice() {
        [verb] => VERBS.contains(verb),
        [group, verb] => GROUPS.contains(group) && VERBS.contains(verb),
        _ => false,
    };
    if !known {
        return Err(refused(&path.join(" ")));
    }
    let given = |id: &&&str| {
        inner.try_contains_id(id).unwrap_or(false) && inner.value_source(id) == Some(ValueSource::CommandLine)
    };
    match FILES.iter().find(given) {
        Some(flag) => Err(refused(&format!("--{}", flag.replace('_', "-")))),
        None => Ok(()),
    }
}

/// Flags before the verb that say where the engine is: the other host is not to look for it again.
const WHERE: [&str; 8] = [
    "--config",
    "--context",
    "-c",
    "--host",
    "-H",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
];

/// The words that the other host is to read.
fn there(words: &[OsString]) -> Vec<OsString> {
    let mut rest = Vec::new();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if WHERE.contains(&text) {
            words.next();
        } else if is_where(text) {
            // With its value in the same word.
        } else {
            rest.push(word.clone());
            // The verb begins here; what follows are its own flags. Global ones with a value have it with them.
            if text == "--root" || text == "--out" || text == "--log-level" || text == "-l" {
                rest.extend(words.next().cloned());
            } else if !text.starts_with('-') {
                rest.extend(words.by_ref().cloned());
            }
        }
    }
    rest
}

/// `--host=x`, `-Hx`.
fn is_where(text: &str) -> bool {
    let long = text
        .split_once('=')
        .is_some_and(|(name, _)| WHERE.contains(&name));
    let short =
        !text.starts_with("--") && text.len() > 2 && (text.starts_with("-H") || text.starts_with("-c"));
    long || short
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut out = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    OsString::from_vec(out)
}

/// What the engine at a `tcp://` address says of itself.
///
/// # Errors
/// TLS, which is not spoken to an engine; what the engine said.
pub(crate) fn version(engine: &dhow_engine::Engine, address: &str, tls: bool) -> Result<Value, CliError> {
    let place = address
        .strip_prefix("tcp://")
        .or_else(|| address.strip_prefix("http://"));
    let place = place.filter(|_| !tls).ok_or_else(|| {
        CliError::plain(format!(
            "the engine at {address} cannot be asked for its version: only tcp:// without TLS and ssh:// can"
        ))
    })?;
    let url = format!("http://{}/version", place.trim_end_matches('/'));
    let answer = engine.document_at(&url, LARGEST)?;
    serde_json::from_slice(&answer).map_err(|error| {
        CliError::plain(format!(
            "the engine at {address}: its version is no JSON: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn addresses_of_ssh_are_dockers() {
        let words = |address: &str| Destination::parse(address).map(|found| found.words(false).join(" "));
        let begin = "-o ConnectTimeout=30 -T";
        assert_eq!(words("ssh://far").unwrap(), format!("{begin} -- far"));
        assert_eq!(
            words("ssh://me@far:22/").unwrap(),
            format!("{begin} -l me -p 22 -- far")
        );
        assert_eq!(words("ssh://[::1]:22").unwrap(), format!("{begin} -p 22 -- ::1"));
        assert_eq!(words("ssh://[::1]").unwrap(), format!("{begin} -- ::1"));
        for bad in [
            "ssh://",
            "ssh://me:secret@far",
            "ssh://far/run/x.sock",
            "ssh://far?x",
            "ssh://far:x",
            "ssh://-oProxyCommand=x",
            "ssh://-x@far",
            "ssh://a b",
            "tcp://far",
        ] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_other_host_is_not_told_where_it_is() {
        let line = |line: &str| {
            let found = there(&words(line));
            found.join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(line("dhow -H ssh://far ps -a"), "ps -a");
        assert_eq!(
            line("dhow --host=ssh://far --root /r run -H x"),
            "--root /r run -H x"
        );
        assert_eq!(
            line("dhow -Hssh://far -c far --noout ps --context y"),
            "--noout ps --context y"
        );
        assert_eq!(quoted(OsStr::new("it's $HOME")), OsStr::new("'it'\\''s $HOME'"));
    }

    #[test]
    fn what_reads_files_of_this_host_is_refused() {
        let read = |line: &str| {
            let matches = crate::command().try_get_matches_from(line.split(' ')).unwrap();
            check("ssh://far", &matches).map_err(|error| error.message().to_owned())
        };
        for good in [
            "dhow ps",
            "dhow run -v /a:/b x --env-file y",
            "dhow container exec x y",
            "dhow load",
            "dhow image save x",
            "dhow network create x",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, what) in [
            ("dhow build .", "build "),
            ("dhow cp a x:/b", "cp "),
            ("dhow load -i x", "--input "),
            ("dhow run --env-file x y", "--env-file "),
            ("dhow secret create x y", "secret create "),
            ("dhow volume import x y", "volume import "),
        ] {
            let said = read(bad).unwrap_err();
            assert!(said.starts_with(what), "{bad}: {said}");
        }
    }
}
