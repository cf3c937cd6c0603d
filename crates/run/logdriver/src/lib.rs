//! Sends a container's log on to a log service: syslog, journald, fluentd, GELF.
//!
//! The container's own log stays what it is, a file that rotates; whoever calls this reads that file and hands on what it
//! finds, so a service that is slow or down blocks nobody and misses nothing that the file still holds. Options, fields
//! and formats are those of docker's drivers (moby `daemon/logger`).
//!
//! ```text
//! check(driver, options)         when the container is created: what is no option is an error then
//! open(driver, options, facts)   when it starts: connects
//! Sink::send(entry)              one line; an error means that the connection is to be opened again
//! ```

#![forbid(unsafe_code)]

mod connection;
mod fluentd;
mod gelf;
mod journald;
mod options;
mod syslog;

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use dhow_types::ErrorKind;

dhow_types::define_error! {
    /// What is wrong with a driver, an option or a service.
    pub struct Error;
}

/// Options as given: `syslog-address`, `tag`.
pub type Options = BTreeMap<String, String>;

/// One line of a container's output.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When it was read.
    pub time: SystemTime,
    /// Whether it is of standard error.
    pub stderr: bool,
    /// The line without its newline.
    pub line: &'a [u8],
    /// Whether the line goes on in the next entry.
    pub partial: bool,
}

/// What services are told of a container beside its lines.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The whole id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The image's name as the person gave it.
    pub image_name: String,
    /// The image's id, `sha256:...`.
    pub image_id: String,
    /// The program with its arguments.
    pub command: String,
    /// When the container was made, RFC 3339.
    pub created: String,
    /// Labels, of which the options `labels` and `labels-regex` choose.
    pub labels: BTreeMap<String, String>,
    /// Variables, of which the options `env` and `env-regex` choose.
    pub env: Vec<String>,
}

impl Facts {
    fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// A connection to a service.
pub trait Sink {
    /// Sends one line.
    ///
    /// # Errors
    /// The connection is gone; the line counts as not sent.
    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()>;
}

pub use options::attributes;

/// The drivers that there are.
pub const DRIVERS: [&str; 4] = ["fluentd", "gelf", "journald", "syslog"];

/// Whether a driver takes these options.
///
/// # Errors
/// `Unsupported` for another driver; `InvalidArgument` with the option that is none, or whose value is none.
pub fn check(driver: &str, options: &Options) -> Result<(), Error> {
    let facts = Facts::default();
    match driver {
        "syslog" => syslog::Settings::read(options, &facts).map(drop),
        "journald" => journald::check(options, &facts),
        "fluentd" => fluentd::Settings::read(options, &facts).map(drop),
        "gelf" => gelf::Settings::read(options, &facts).map(drop),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("log driver {other:?} is not supported"),
        )
        .with_hint(format!(
            "use local, json-file, k8s-file, none, {}",
            DRIVERS.join(", ")
        ))),
    }
}

/// Whether lines are sent as soon as the service is there (`fluentd-async`), and the container starts without it.
#[must_use]
pub fn may_start_without(driver: &str, options: &Options) -> bool {
    driver == "fluentd" && fluentd::is_async(options)
}

/// Connects to a service.
///
/// # Errors
/// As [`check`]; `Unavailable` when the service does not answer.
pub fn open(driver: &str, options: &Options, facts: &Facts) -> Result<Box<dyn Sink>, Error> {
    check(driver, options)?;
    Ok(match driver {
        "syslog" => Box::new(syslog::Syslog::open(syslog::Settings::read(options, facts)?)?),
        "journald" => Box::new(journald::Journald::open(options, facts)?),
        "fluentd" => Box::new(fluentd::Fluentd::open(
            fluentd::Settings::read(options, facts)?,
            facts,
        )?),
        _ => Box::new(gelf::Gelf::open(gelf::Settings::read(options, facts)?, facts)?),
    })
}
