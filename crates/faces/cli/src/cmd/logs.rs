//! `logs`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Stream;
use dhow_engine::container::LogRequest;
use jiff::Timestamp;

use crate::render::{gone, time};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "logs",
    about: "Fetch the logs of a container",
    flags: |command| {
        let command = LogsFlags::augment_args(command);
        if !dialect::spoken().is_podman() {
            return command;
        }
        // Podman's `-n` is another one's, and it takes several containers.
        command
            .mut_arg("tail", |tail| tail.short(None))
            .mut_arg("names", |names| names.short('n'))
            .mut_arg("containers", |all| {
                all.action(clap::ArgAction::Append).num_args(1..)
            })
    },
    run,
};

#[derive(Args, Debug)]
struct LogsFlags {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(
        short = 'n',
        long,
        default_value = "all",
        value_name = "N",
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show extra details provided to logs: chosen labels and variables, and the tag (--log-opt)
    #[arg(long)]
    details: bool,
    /// Begin every line with the container's name
    #[arg(long)]
    names: bool,
    /// The container
    #[arg(value_name = "CONTAINER", required = true, action = clap::ArgAction::Set, num_args = 1)]
    containers: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LogsFlags = crate::flags::read(matches)?;
    let now = Timestamp::now();
    let request = LogRequest {
        since: flags
            .since
            .as_deref()
            .map(|text| moment("since", text, now))
            .transpose()?,
        until: flags
            .until
            .as_deref()
            .map(|text| moment("until", text, now))
            .transpose()?,
        // As docker: whatever is no number of lines means all of them.
        tail: flags.tail.parse().ok(),
        follow: flags.follow,
    };
    let engine = context.engine()?;
    let mut wanted = Vec::new();
    for name in &flags.containers {
        let config = engine.containers().find(name)?.config;
        if dialect::spoken().is_podman() && config.log.driver == "none" {
            let message = "this container is using the 'none' log driver, cannot read logs: this container is not \
                           logging output";
            return Err(CliError::plain(message));
        }
        let prefix = match flags.names {
            true => format!("{} ", config.name),
            false if flags.containers.len() > 1 => format!("{} ", config.id.short()),
            false => String::new(),
        };
        wanted.push((config.id.as_str().to_owned(), prefix));
    }
    if let ([_, _, ..], true) = (wanted.as_slice(), flags.follow) {
        return follow_all(context, &flags, &request, &wanted);
    }
    for (id, prefix) in &wanted {
        show(engine, &flags, &request, id, prefix)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Several at once, each with its own engine: a line of one comes between two of another, never within.
fn follow_all(
    context: &Context,
    flags: &LogsFlags,
    request: &LogRequest,
    wanted: &[(String, String)],
) -> Result<ExitCode, CliError> {
    let settings = context.environment.settings();
    std::thread::scope(|scope| {
        let readers = wanted.iter().map(|(id, prefix)| {
            let settings = settings.clone();
            scope.spawn(move || show(&dhow_engine::Engine::open(settings)?, flags, request, id, prefix))
        });
        let readers: Vec<_> = readers.collect();
        for reader in readers {
            reader
                .join()
                .map_err(|_| CliError::plain("a reader of logs ended"))??;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(
    engine: &dhow_engine::Engine,
    flags: &LogsFlags,
    request: &LogRequest,
    wanted: &str,
    prefix: &str,
) -> Result<(), CliError> {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout());
    let mut failure = None;
    engine.logs(wanted, request, &mut |record| {
        let mut stamp = prefix.to_owned();
        if flags.timestamps {
            stamp.push_str(&record.time);
            stamp.push(' ');
        }
        if flags.details {
            stamp.push_str(&details(&record.attributes));
            stamp.push(' ');
        }
        let written = match record.stream {
            Stream::Stdout => out
                .write_all(stamp.as_bytes())
                .and_then(|()| out.write_all(record.log.as_bytes())),
            // What was written before comes before.
            Stream::Stderr => out.flush().and_then(|()| {
                let mut errors = std::io::stderr().lock();
                errors
                    .write_all(stamp.as_bytes())
                    .and_then(|()| errors.write_all(record.log.as_bytes()))
            }),
        };
        let written = if flags.follow {
            written.and_then(|()| out.flush())
        } else {
            written
        };
        failure = written.err();
        failure.is_none()
    })?;
    match failure.or_else(|| out.flush().err()) {
        Some(error) => Err(gone(error)),
        None => Ok(()),
    }
}

/// Docker's form of them (moby `daemon/server/httputils`, `stringAttrs`): sorted, escaped as a query of a URL.
fn details(attributes: &BTreeMap<String, String>) -> String {
    let pair = |(name, value): (&String, &String)| format!("{}={}", escaped(name), escaped(value));
    attributes.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn moment(flag: &str, text: &str, now: Timestamp) -> Result<String, CliError> {
    let found = time::moment(text, now).map(time::log_form);
    found.ok_or_else(|| {
        CliError::plain(format!("invalid value for \"{flag}\": {text:?} is no time"))
            .with_hint("write 2024-01-31T12:00:00Z, seconds since 1970, or how long ago: 10m")
    })
}
