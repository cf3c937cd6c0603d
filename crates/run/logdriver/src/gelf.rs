//! Graylog's extended log format 1.1, over UDP in chunks or TCP (docs.graylog.org, GELF; moby `daemon/logger/gelf`).

use std::io::{self, Write as _};
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};

use crate::connection::{Address, Connection, Tls};
use crate::options::{bad, chosen, known, tag};
use crate::{Entry, Error, Facts, Options, Sink};

const OPTIONS: &[&str] = &["gelf-address", "gelf-compression-level", "gelf-compression-type"];
const PORT: u16 = 12201;
/// Bytes of one datagram, and how many a message may have (GELF, "Chunking").
const CHUNK: usize = 1420;
const MOST_CHUNKS: u8 = 128;
const CHUNK_HEADER: usize = 12;

/// How UDP's messages are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zlib,
    None,
}

/// The options.
#[derive(Debug)]
pub(crate) struct Settings {
    address: Address,
    packing: Packing,
    level: u32,
    tag: String,
    extra: Map<String, Value>,
}

impl Settings {
    pub(crate) fn read(options: &Options, facts: &Facts) -> Result<Self, Error> {
        known("gelf", options, OPTIONS)?;
        let text = options.get("gelf-address").map_or("", String::as_str);
        let packing = match options.get("gelf-compression-type").map(String::as_str) {
            None | Some("gzip") => Packing::Gzip,
            Some("zlib") => Packing::Zlib,
            Some("none") => Packing::None,
            Some(other) => return Err(bad("gelf-compression-type", other, "it is gzip, zlib or none")),
        };
        let level = match options.get("gelf-compression-level") {
            None => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|level| *level <= 9)
                .ok_or_else(|| bad("gelf-compression-level", text, "it is 0 to 9"))?,
        };
        let tag = tag(options, facts, "{{.ID}}")?;
        let mut extra = Map::new();
        for (name, value) in [
            ("_container_id", &facts.id),
            ("_container_name", &facts.name),
            ("_image_id", &facts.image_id),
            ("_image_name", &facts.image_name),
            ("_command", &facts.command),
            ("_tag", &tag),
            ("_created", &facts.created),
        ] {
            extra.insert(name.to_owned(), json!(value));
        }
        for (name, value) in chosen(options, facts)? {
            // `_id` is not allowed.
            if name != "id" {
                extra.insert(format!("_{name}"), json!(value));
            }
        }
        Ok(Self {
            address: Address::parse("gelf-address", text, &["udp", "tcp"], PORT)?,
            packing,
            level,
            tag,
            extra,
        })
    }
}

/// A connection to a GELF server.
pub(crate) struct Gelf {
    settings: Settings,
    connection: Connection,
    hostname: String,
    serial: u64,
}

impl Gelf {
    pub(crate) fn open(settings: Settings, facts: &Facts) -> Result<Self, Error> {
        // Chunks of different containers must not have the same message id.
        let seed = facts
            .id
            .bytes()
            .fold(std::process::id().into(), |sum: u64, byte| {
                sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
            });
        Ok(Self {
            connection: Connection::open(&settings.address, &Tls::default())?,
            settings,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            serial: seed,
        })
    }

    fn document(&self, entry: &Entry<'_>) -> Vec<u8> {
        let since = entry.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut document = self.settings.extra.clone();
        let host = json!(self.hostname);
        document.insert("version".to_owned(), json!("1.1"));
        document.insert("host".to_owned(), host);
        document.insert(
            "short_message".to_owned(),
            json!(String::from_utf8_lossy(entry.line)),
        );
        document.insert("timestamp".to_owned(), json!(since.as_millis() as f64 / 1000.0));
        document.insert("level".to_owned(), json!(if entry.stderr { 3 } else { 6 }));
        document.insert("_tag".to_owned(), json!(self.settings.tag));
        Value::Object(document).to_string().into_bytes()
    }

    fn packed(&self, document: &[u8]) -> io::Result<Vec<u8>> {
        let level = flate2::Compression::new(self.settings.level);
        match self.settings.packing {
            Packing::None => Ok(document.to_vec()),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(document)?;
                encoder.finish()
            }
            Packing::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(document)?;
                encoder.finish()
            }
        }
    }
}

impl Sink for Gelf {
    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        // Graylog refuses an empty message.
        if entry.line.is_empty() {
            return Ok(());
        }
        let document = self.document(entry);
        if matches!(self.settings.address, Address::Tcp(_)) {
            let mut framed = document;
            framed.push(0);
            return self.connection.send(&framed);
        }
        let packed = self.packed(&document)?;
        if packed.len() <= CHUNK {
            return self.connection.send(&packed);
        }
        let chunks: Vec<_> = packed.chunks(CHUNK - CHUNK_HEADER).collect();
        let Some(count) = u8::try_from(chunks.len())
            .ok()
            .filter(|count| *count <= MOST_CHUNKS)
        else {
            // No server takes it; trying again would not help.
            return Ok(());
        };
        self.serial = self.serial.wrapping_add(1);
        for (number, chunk) in (0..count).zip(&chunks) {
            let mut datagram = vec![0x1e, 0x0f];
            datagram.extend(self.serial.to_be_bytes());
            datagram.extend([number, count]);
            datagram.extend_from_slice(chunk);
            self.connection.send(&datagram)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::UdpSocket;

    use super::*;

    fn sent(line: &[u8], packing: &str) -> Vec<Vec<u8>> {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let options = [
            (
                "gelf-address".to_owned(),
                format!("udp://{}", server.local_addr().unwrap()),
            ),
            ("gelf-compression-type".to_owned(), packing.to_owned()),
            ("labels".to_owned(), "tier,id".to_owned()),
        ];
        let facts = Facts {
            id: "abc".to_owned(),
            labels: [
                ("tier".to_owned(), "front".to_owned()),
                ("id".to_owned(), "no".to_owned()),
            ]
            .into(),
            ..Facts::default()
        };
        let mut sink = crate::open("gelf", &options.into(), &facts).unwrap();
        let time = UNIX_EPOCH + std::time::Duration::from_millis(1500);
        sink.send(&Entry {
            time,
            stderr: true,
            line,
            partial: false,
        })
        .unwrap();
        let mut got = Vec::new();
        let mut bytes = [0; 9000];
        while let Ok(count) = server.recv(&mut bytes) {
            got.push(bytes[..count].to_vec());
        }
        got
    }

    #[test]
    fn a_short_line_is_one_packed_datagram() {
        let got = sent(b"hello", "gzip");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&got[0][..])
            .read_to_string(&mut text)
            .unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["short_message"], "hello");
        assert_eq!(document["version"], "1.1");
        assert_eq!(document["level"], 3);
        assert_eq!(document["timestamp"], 1.5);
        assert_eq!(document["_container_id"], "abc");
        assert_eq!(document["_tier"], "front");
        assert!(document.get("_id").is_none());
    }

    #[test]
    fn a_long_one_comes_in_chunks_that_belong_together() {
        let line = vec![b'y'; 5000];
        let got = sent(&line, "none");
        let count = got.len();
        assert!(count > 3);
        let mut whole = Vec::new();
        for (number, chunk) in got.iter().enumerate() {
            assert!(chunk.len() <= CHUNK);
            assert_eq!(chunk[..2], [0x1e, 0x0f]);
            assert_eq!(chunk[2..10], got[0][2..10]);
            assert_eq!(
                chunk[10..12],
                [u8::try_from(number).unwrap(), u8::try_from(count).unwrap()]
            );
            whole.extend_from_slice(&chunk[12..]);
        }
        let document: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(document["short_message"].as_str().unwrap().len(), 5000);
    }
}
