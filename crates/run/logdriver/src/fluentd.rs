//! Fluentd's forward protocol, version 1, message mode (moby `daemon/logger/fluentd`).

use std::collections::BTreeMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::connection::{Address, Connection, Tls};
use crate::options::{bad, chosen, known, switch, tag};
use crate::{Entry, Error, Facts, Options, Sink};

const OPTIONS: &[&str] = &["fluentd-address", "fluentd-async", "fluentd-sub-second-precision"];
const PORT: u16 = 24224;

/// The options.
#[derive(Debug)]
pub(crate) struct Settings {
    address: Address,
    sub_second: bool,
    tag: String,
    extra: BTreeMap<String, String>,
}

pub(crate) fn is_async(options: &Options) -> bool {
    switch(options, "fluentd-async").unwrap_or(false)
}

impl Settings {
    pub(crate) fn read(options: &Options, facts: &Facts) -> Result<Self, Error> {
        known("fluentd", options, OPTIONS)?;
        switch(options, "fluentd-async")?;
        let text = options.get("fluentd-address").map_or("127.0.0.1", String::as_str);
        // Docker's may be without a scheme.
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("tcp://{text}")
        };
        let address = Address::parse("fluentd-address", &whole, &["tcp", "unix"], PORT)
            .map_err(|error| bad("fluentd-address", text, &error.to_string()))?;
        Ok(Self {
            address,
            sub_second: switch(options, "fluentd-sub-second-precision")?,
            tag: tag(options, facts, "{{.ID}}")?,
            extra: chosen(options, facts)?,
        })
    }
}

/// A connection to a fluentd.
pub(crate) struct Fluentd {
    settings: Settings,
    connection: Connection,
    id: String,
    name: String,
}

impl Fluentd {
    pub(crate) fn open(settings: Settings, facts: &Facts) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::open(&settings.address, &Tls::default())?,
            settings,
            id: facts.id.clone(),
            name: format!("/{}", facts.name),
        })
    }

    fn message(&self, entry: &Entry<'_>) -> Vec<u8> {
        let source = if entry.stderr { "stderr" } else { "stdout" };
        let mut record: Vec<(&str, &[u8])> = vec![
            ("container_id", self.id.as_bytes()),
            ("container_name", self.name.as_bytes()),
            ("source", source.as_bytes()),
            ("log", entry.line),
        ];
        let extra = self.settings.extra.iter();
        record.extend(extra.map(|(name, value)| (name.as_str(), value.as_bytes())));
        if entry.partial {
            record.push(("partial_message", b"true"));
        }
        let mut out = vec![0x93];
        text(&mut out, self.settings.tag.as_bytes());
        time(&mut out, entry.time, self.settings.sub_second);
        map(&mut out, record.len());
        for (name, value) in record {
            text(&mut out, name.as_bytes());
            text(&mut out, value);
        }
        out
    }
}

impl Sink for Fluentd {
    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let message = self.message(entry);
        self.connection.send(&message)
    }
}

/// A string of MessagePack: its length in the fewest bytes, big-endian.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    // A record is at most a line, which is bounded far below.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=31), _) => out.push(0xa0 | length),
        (Ok(length), _) => out.extend([0xd9, length]),
        (_, Ok(length)) => {
            out.push(0xda);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(bytes.iter().take(length as usize));
}

fn map(out: &mut Vec<u8>, entries: usize) {
    match u8::try_from(entries) {
        Ok(few @ 0..=15) => out.push(0x80 | few),
        _ => {
            out.push(0xde);
            out.extend(u16::try_from(entries).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// Seconds, or fluentd's extension type 0 with nanoseconds.
fn time(out: &mut Vec<u8>, time: SystemTime, sub_second: bool) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    if sub_second {
        out.extend([0xd7, 0x00]);
        out.extend(seconds.to_be_bytes());
        out.extend(since.subsec_nanos().to_be_bytes());
    } else {
        out.push(0xce);
        out.extend(seconds.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_one_message_of_the_forward_protocol() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = [
            (
                "fluentd-address".to_owned(),
                server.local_addr().unwrap().to_string(),
            ),
            ("tag".to_owned(), "app".to_owned()),
        ];
        let facts = Facts {
            id: "abc".to_owned(),
            name: "web".to_owned(),
            ..Facts::default()
        };
        let mut sink = crate::open("fluentd", &options.into(), &facts).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(0x0102_0304);
        let line = "x".repeat(40);
        let entry = Entry {
            time,
            stderr: false,
            line: line.as_bytes(),
            partial: false,
        };
        sink.send(&entry).unwrap();
        drop(sink);
        let mut got = Vec::new();
        server.accept().unwrap().0.read_to_end(&mut got).unwrap();
        let mut wanted =
            b"\x93\xa3app\xce\x01\x02\x03\x04\x84\xaccontainer_id\xa3abc\xaecontainer_name\xa4/web".to_vec();
        wanted.extend(b"\xa6source\xa6stdout\xa3log\xd9\x28");
        wanted.extend(line.as_bytes());
        assert_eq!(got, wanted);
    }

    #[test]
    fn nobody_there_is_an_error_unless_it_may_come_later() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut options: Options = [("fluentd-address".to_owned(), free.to_string())].into();
        let error = crate::open("fluentd", &options, &Facts::default()).err().unwrap();
        assert_eq!(error.kind(), dhow_types::ErrorKind::Unavailable);
        assert!(!crate::may_start_without("fluentd", &options));
        options.insert("fluentd-async".to_owned(), "true".to_owned());
        assert!(crate::may_start_without("fluentd", &options));
    }
}
