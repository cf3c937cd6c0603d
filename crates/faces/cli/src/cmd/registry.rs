//! `registry serve`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args};
use dhow_registry::{Options, Registry, Server};
use dhow_types::{Observer, Progress};
use tokio::signal::unix::{SignalKind, signal};

use crate::render::note;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "serve",
    about: "Serve images to others (OCI distribution API) until SIGINT or SIGTERM",
    flags: |command| ServeFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ServeFlags {
    /// Address and port to listen on; others than this host reach it only if it is not a loopback address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
}

/// Failures of the registry itself go to standard error.
struct Complaints;

impl Observer for Complaints {
    fn observe(&self, progress: Progress<'_>) {
        if let Progress::Message(text) | Progress::Warning(text) = progress {
            note(&format!("registry: {text}"));
        }
    }
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ServeFlags = crate::flags::read(matches)?;
    // Given after the verb, `--root` is the folder of the registry itself; else it lies beside the images.
    let root = if root_after_verb(std::env::args_os()) {
        context.environment.root().to_owned()
    } else {
        context.environment.root().join("registry")
    };
    let listen = address(&flags.listen)?;
    let options = Options {
        observer: Arc::new(Complaints),
        ..Options::default()
    };
    let registry = Registry::open_with(&root, options)?;
    let server = Server::bind(registry, listen)?;
    note(&format!(
        "Serving {} on http://{}",
        root.display(),
        server.address()
    ));
    if !server.address().ip().is_loopback() {
        note("WARNING: everyone who reaches this address may read and write: there is no authentication");
    }
    server.run(async {
        // Without a handler the signal's own effect ends the process, which loses nothing that was acknowledged.
        let Ok(mut end) = signal(SignalKind::terminate()) else {
            return std::future::pending().await;
        };
        let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn root_after_verb(arguments: impl Iterator<Item = OsString>) -> bool {
    let after = arguments.skip_while(|word| word != "serve");
    after
        .into_iter()
        .any(|word| word == "--root" || word.as_encoded_bytes().starts_with(b"--root="))
}

/// `127.0.0.1:5000`, `localhost:5000`, `:5000` (this host only), `5000`.
fn address(text: &str) -> Result<SocketAddr, CliError> {
    let bad = || {
        CliError::plain(format!(
            "invalid --listen {text:?}: write HOST:PORT, such as 127.0.0.1:5000"
        ))
    };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if let Ok(port) = text.trim_start_matches(':').parse() {
        return Ok(SocketAddr::new(loopback, port));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    text.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_before_the_verb_is_that_of_the_images() {
        let words = |text: &str| {
            text.split(' ')
                .map(OsString::from)
                .collect::<Vec<_>>()
                .into_iter()
        };
        assert!(root_after_verb(words("dhow --root a registry serve --root b")));
        assert!(root_after_verb(words("dhow registry serve --root=b")));
        assert!(!root_after_verb(words(
            "dhow --root a registry serve --listen :1"
        )));
    }

    #[test]
    fn a_port_alone_is_for_this_host_only() {
        assert_eq!(address("5000").unwrap(), "127.0.0.1:5000".parse().unwrap());
        assert_eq!(address(":5000").unwrap(), "127.0.0.1:5000".parse().unwrap());
        assert_eq!(address("0.0.0.0:80").unwrap(), "0.0.0.0:80".parse().unwrap());
        for bad in ["", "host", "127.0.0.1", "1.2.3.4:99999", "99999"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }
}
