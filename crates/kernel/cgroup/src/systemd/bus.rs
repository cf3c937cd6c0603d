//! A blocking connection to systemd: over a bus, or its private socket.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_types::ErrorKind;

use super::wire::{Call, FIXED, Kind, Message, Property, Value, Writer, length};
use crate::{Context as _, Error};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const OPERATOR: &str = "org.freedesktop.systemd1.Manager";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const PRIVATE: &str = "/run/systemd/private";

/// How long systemd may take for one answer or one job; runc's patience.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line of the authentication.
const MOST_LINE: usize = 1024;
/// Ends of jobs that are kept while an answer is awaited.
const MOST_JOBS: usize = 1024;

/// A connection to a systemd.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Whether names are needed: on a private socket there is nobody else.
    shared: bool,
    /// Jobs that ended, with their results.
    ended: Vec<(String, String)>,
    patience: Duration,
}

impl Bus {
    /// systemd of the host: over the system bus, or, where there is none, over its private socket.
    ///
    /// # Errors
    /// `FailedPrecondition` when the host does not run systemd or nobody answers.
    pub fn system() -> Result<Self, Error> {
        Self::at(Path::new(SYSTEM_BUS), true).or_else(|error| {
            if rustix::process::geteuid().is_root() && Path::new(PRIVATE).exists() {
                Self::at(Path::new(PRIVATE), false)
            } else {
                Err(error)
            }
        })
    }

    /// systemd of the user whose session bus has this address: `$DBUS_SESSION_BUS_ADDRESS`, or
    /// `unix:path=$XDG_RUNTIME_DIR/bus`.
    ///
    /// # Errors
    /// `InvalidArgument` for an address that is none of a unix socket; `FailedPrecondition` when nobody answers.
    pub fn user(address: &str) -> Result<Self, Error> {
        let mut last = Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{:?} is no address of a bus",
                address.chars().take(256).collect::<String>()
            ),
        )
        .with_hint("write it as unix:path=/run/user/1000/bus");
        for one in address.split(';') {
            match parse_address(one) {
                Some(socket) => match socket.and_then(|socket| UnixStream::connect_addr(&socket)) {
                    Ok(stream) => return Self::begin(stream, true),
                    Err(error) => last = unreachable(error, one),
                },
                None => continue,
            }
        }
        Err(last)
    }

    /// systemd behind the socket at `path`; `shared` when a bus is there and not systemd itself.
    ///
    /// # Errors
    /// `FailedPrecondition` when nobody answers.
    pub fn at(path: &Path, shared: bool) -> Result<Self, Error> {
        let stream =
            UnixStream::connect(path).map_err(|error| unreachable(error, &path.display().to_string()))?;
        Self::begin(stream, shared)
    }

    fn begin(stream: UnixStream, shared: bool) -> Result<Self, Error> {
        let mut bus = Self {
            stream,
            serial: 0,
            shared,
            ended: Vec::new(),
            patience: PATIENCE,
        };
        bus.authenticate()
            .map_err(|error| unreachable(error, "the bus refused this user"))?;
        if shared {
            let hello = |member, signature, body| Call {
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
                destination: Some("org.freedesktop.DBus"),
                signature,
                body,
            };
            bus.call(&hello("Hello", "", Writer::default()))?;
            let mut rule = Writer::default();
            rule.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
            bus.call(&hello("AddMatch", "s", rule))?;
        }
        // Without a subscriber systemd says nothing of its jobs.
        bus.ask("Subscribe", "", Writer::default())?;
        Ok(bus)
    }

    /// The user is known to the other side by the socket (SASL mechanism EXTERNAL).
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.patience))?;
        self.stream.set_read_timeout(Some(self.patience))?;
        if crate::create::in_user_namespace() {
            // The bus may know this user by another number: it asks the kernel when none is said.
            self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
            if !self.line()?.starts_with(b"DATA") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.stream.write_all(b"DATA\r\n")?;
        } else {
            let uid = rustix::process::geteuid().as_raw().to_string();
            let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
            self.stream
                .write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        }
        if !self.line()?.starts_with(b"OK ") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// One line of the authentication.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            // One by one: what follows the line belongs to the messages.
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > MOST_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(line)
    }

    fn ask(&mut self, member: &str, signature: &str, body: Writer) -> Result<Vec<Value>, Error> {
        let destination = self.shared.then_some(SYSTEMD);
        self.call(&Call {
            path: SYSTEMD_PATH,
            interface: OPERATOR,
            member,
            destination,
            signature,
            body,
        })
    }

    /// Sends a call and waits for its answer; signals that come meanwhile are kept.
    fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>, Error> {
        let what = || format!("ask systemd: {}", call.member);
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let serial = self.serial;
        let bytes = call.encode(serial)?;
        self.stream.write_all(&bytes).context(what)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let message = self.receive(deadline).map_err(|error| {
                let kind = error.kind();
                Error::because(kind, what(), error)
            })?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return message.arguments(),
                Kind::Error if message.reply_to == Some(serial) => {
                    return Err(refusal(call.member, &message));
                }
                _ => self.note(&message),
            }
        }
    }

    /// `JobRemoved(u id, o job, s unit, s result)`; whatever else comes is none of our business.
    fn note(&mut self, message: &Message) {
        if message.kind != Kind::Signal || message.member != "JobRemoved" || self.ended.len() >= MOST_JOBS {
            return;
        }
        if let Ok(arguments) = message.arguments()
            && let [
                Value::U32(_),
                Value::Text(job),
                Value::Text(_),
                Value::Text(result),
            ] = arguments.as_slice()
        {
            self.ended.push((job.clone(), result.clone()));
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Error> {
        let mut fixed = [0; FIXED];
        self.read(&mut fixed, deadline)?;
        let total = length(&fixed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(total, 0);
        self.read(&mut bytes[FIXED..], deadline)?;
        Message::decode(&bytes)
    }

    fn read(&mut self, mut into: &mut [u8], deadline: Instant) -> Result<(), Error> {
        while !into.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "systemd did not answer in time",
                ));
            }
            self.stream
                .set_read_timeout(Some(left))
                .context(|| "wait for systemd")?;
            match self.stream.read(into) {
                Ok(0) => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "systemd closed the connection",
                    ));
                }
                Ok(count) => into = &mut into[count..],
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => return Err(error).context(|| "read the answer of systemd"),
            }
        }
        Ok(())
    }

    /// Waits for the end of a job; its result, `done` when it went well.
    fn job_result(&mut self, job: &str) -> Result<String, Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            let message = self.receive(deadline)?;
            self.note(&message);
        }
    }

    fn run_job(&mut self, member: &str, signature: &str, body: Writer) -> Result<String, Error> {
        self.ended.clear();
        let answer = self.ask(member, signature, body)?;
        match answer.as_slice() {
            [Value::Text(job)] => self.job_result(&job.clone()),
            _ => Err(Error::new(
                ErrorKind::DataLoss,
                format!("systemd answered {member} without a job"),
            )),
        }
    }

    /// `StartTransientUnit`; the result of the job.
    ///
    /// # Errors
    /// `AlreadyExists` for a unit that is there.
    pub(crate) fn start_transient(&mut self, unit: &str, properties: &[Property]) -> Result<String, Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        body.properties(properties);
        body.array(8, |_| {});
        self.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
    }

    /// `StopUnit`; the result of the job.
    ///
    /// # Errors
    /// `NotFound` for a unit that is not there.
    pub(crate) fn stop(&mut self, unit: &str) -> Result<String, Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        self.run_job("StopUnit", "ss", body)
    }

    /// `ResetFailedUnit`.
    pub(crate) fn reset_failed(&mut self, unit: &str) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        self.ask("ResetFailedUnit", "s", body).map(drop)
    }

    /// `SetUnitProperties`, until the next boot.
    pub(crate) fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.bool(true);
        body.properties(properties);
        self.ask("SetUnitProperties", "sba(sv)", body).map(drop)
    }

    /// `AttachProcessesToUnit`: into the group `below` the unit's own, `/` for that itself.
    pub(crate) fn attach(&mut self, unit: &str, below: &str, pids: &[u32]) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.text(below);
        body.array(4, |out| pids.iter().for_each(|pid| out.u32(*pid)));
        self.ask("AttachProcessesToUnit", "ssau", body).map(drop)
    }

    /// A property of systemd itself that is a text.
    pub(crate) fn own_text(&mut self, name: &str) -> Result<String, Error> {
        let mut body = Writer::default();
        body.text(OPERATOR);
        body.text(name);
        let destination = self.shared.then_some(SYSTEMD);
        let answer = self.call(&Call {
            path: SYSTEMD_PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            destination,
            signature: "ss",
            body,
        })?;
        match answer.into_iter().next() {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(Error::new(
                ErrorKind::DataLoss,
                format!("systemd has no text {name}"),
            )),
        }
    }

    #[cfg(test)]
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }
}

fn unreachable(error: io::Error, what: &str) -> Error {
    Error::because(
        ErrorKind::FailedPrecondition,
        format!("failed to connect to dbus: {what}"),
        error,
    )
    .with_hint(
        "is systemd running here? a user needs the package dbus-user-session; or leave --systemd-cgroup out",
    )
}

fn refusal(member: &str, message: &Message) -> Error {
    let text = match message.arguments().unwrap_or_default().into_iter().next() {
        Some(Value::Text(text)) => text.chars().take(1024).collect(),
        _ => message.error.clone(),
    };
    let name = message.error.rsplit('.').next().unwrap_or_default();
    let kind = match name {
        "UnitExists" => ErrorKind::AlreadyExists,
        "NoSuchUnit" => ErrorKind::NotFound,
        "AccessDenied" | "InteractiveAuthorizationRequired" => ErrorKind::PermissionDenied,
        "InvalidArgs" | "PropertyReadOnly" => ErrorKind::InvalidArgument,
        "UnknownMethod" | "UnknownProperty" => ErrorKind::Unsupported,
        _ => ErrorKind::FailedPrecondition,
    };
    Error::new(kind, format!("systemd refuses {member}: {text}"))
}

/// One address of a bus (D-Bus specification, "Server Addresses"); `None` for another transport than unix sockets.
fn parse_address(text: &str) -> Option<io::Result<SocketAddr>> {
    let pairs = text.strip_prefix("unix:")?;
    for pair in pairs.split(',') {
        match pair.split_once('=')? {
            ("path", path) => {
                let path = PathBuf::from(OsString::from_vec(unescape(path)?));
                return Some(SocketAddr::from_pathname(path));
            }
            ("abstract", name) => return Some(SocketAddr::from_abstract_name(unescape(name)?)),
            _ => {}
        }
    }
    None
}

/// `%41` for `A`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}
