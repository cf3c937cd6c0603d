//! systemd's journal, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL; moby `daemon/logger/journald`).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::UNIX_EPOCH;

use dhow_types::ErrorKind;

use crate::options::{chosen, known, tag};
use crate::{Entry, Error, Facts, Options, Sink};

const SOCKET: &str = "/run/systemd/journal/socket";

pub(crate) fn check(options: &Options, facts: &Facts) -> Result<(), Error> {
    known("journald", options, &[])?;
    chosen(options, facts)?;
    tag(options, facts, "{{.ID}}").map(drop)
}

/// A connection to the journal.
pub(crate) struct Journald {
    socket: UnixDatagram,
    /// Fields of every message.
    fields: Vec<u8>,
}

impl Journald {
    pub(crate) fn open(options: &Options, facts: &Facts) -> Result<Self, Error> {
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.connect(SOCKET).map(|()| socket))
            .map_err(|error| {
                Error::because(
                    ErrorKind::Unavailable,
                    format!("connect to the journal at {SOCKET}"),
                    error,
                )
                .with_hint("journald is not enabled on this host: use local or json-file")
            })?;
        Ok(Self {
            socket,
            fields: fields(options, facts)?,
        })
    }
}

fn fields(options: &Options, facts: &Facts) -> Result<Vec<u8>, Error> {
    let tag = tag(options, facts, "{{.ID}}")?;
    let mut out = Vec::new();
    for (name, value) in [
        ("CONTAINER_ID", facts.short_id()),
        ("CONTAINER_ID_FULL", &facts.id),
        ("CONTAINER_NAME", &facts.name),
        ("CONTAINER_TAG", &tag),
        ("IMAGE_NAME", &facts.image_name),
        ("SYSLOG_IDENTIFIER", &tag),
    ] {
        field(&mut out, name, value.as_bytes());
    }
    for (name, value) in chosen(options, facts)? {
        field(&mut out, &sanitized(&name), value.as_bytes());
    }
    Ok(out)
}

/// A name that the journal takes: capital letters, digits and underscores, not beginning with one of the latter
/// (moby `sanitizeKeyMod`).
fn sanitized(name: &str) -> String {
    let whole: String = name
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_uppercase() || c.is_ascii_digit() => c,
            _ => '_',
        })
        .collect();
    whole.trim_start_matches('_').to_owned()
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if name.is_empty() {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn message(fields: &[u8], entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.len() + entry.line.len() + 128);
    field(&mut out, "MESSAGE", entry.line);
    field(&mut out, "PRIORITY", if entry.stderr { b"3" } else { b"6" });
    let micros = entry
        .time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    field(
        &mut out,
        "SYSLOG_TIMESTAMP",
        crate::syslog::Moment::of(entry.time).rfc3339(true).as_bytes(),
    );
    field(
        &mut out,
        "CONTAINER_LOG_EPOCH_MICROS",
        micros.to_string().as_bytes(),
    );
    if entry.partial {
        field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    out.extend_from_slice(fields);
    out
}

impl Sink for Journald {
    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.socket.send(&message(&self.fields, entry)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_message_is_fields_and_lines_of_several_have_their_length() {
        let facts = Facts {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            labels: [("com.example-x".to_owned(), "two\nlines".to_owned())].into(),
            ..Facts::default()
        };
        let options = [("labels".to_owned(), "com.example-x".to_owned())].into();
        let fields = fields(&options, &facts).unwrap();
        let time = UNIX_EPOCH + Duration::from_micros(7);
        let entry = Entry {
            time,
            stderr: true,
            line: b"hello",
            partial: true,
        };
        let sent = String::from_utf8_lossy(&message(&fields, &entry)).into_owned();
        assert!(sent.starts_with("MESSAGE=hello\nPRIORITY=3\n"), "{sent}");
        for part in [
            "CONTAINER_PARTIAL_MESSAGE=true\n",
            "CONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=0123456789abcdef\nCONTAINER_NAME=web\n",
            "SYSLOG_IDENTIFIER=0123456789ab\n",
            "COM_EXAMPLE_X\n\u{9}\0\0\0\0\0\0\0two\nlines\n",
        ] {
            assert!(sent.contains(part), "{part:?} in {sent:?}");
        }
    }
}
