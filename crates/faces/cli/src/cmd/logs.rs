//! `logs`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Stream;
use dhow_engine::container::LogRequest;
use jiff::Timestamp;

use crate::render::{gone, time};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "logs",
    about: "Fetch the logs of a container",
    flags: |command| LogsFlags::augment_args(command),
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
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
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
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut failure = None;
    let engine = context.engine()?;
    let podman = crate::dialect::spoken().is_podman();
    if podman && engine.containers().find(&flags.container)?.config.log.driver == "none" {
        let message = "this container is using the 'none' log driver, cannot read logs: this container is not logging \
                       output";
        return Err(CliError::plain(message));
    }
    engine.logs(&flags.container, &request, &mut |record| {
        let mut stamp = String::new();
        if flags.timestamps {
            stamp = format!("{} ", record.time);
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
        None => Ok(ExitCode::SUCCESS),
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
