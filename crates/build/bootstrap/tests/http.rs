//! A small HTTP/1.1 client: what the tests need of the transport.

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dhow_bootstrap::{Error, Fetch, SourceFile};
use dhow_types::ErrorKind;

/// How often an archive that does not answer is asked: six times are 15.5 seconds of pauses.
const ATTEMPTS: u32 = 6;

pub(crate) struct Http;

/// Changes one bit in the middle of every body whose URL contains the text.
pub(crate) struct Tampering(pub(crate) &'static str);

fn failure(url: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot get {url}: {why}"))
}

pub(crate) fn reachable(sources: &[SourceFile]) -> bool {
    let known = dhow_bootstrap::sources::parse(sources).unwrap_or_default();
    let mut uris = known
        .iter()
        .flat_map(|source| &source.uris)
        .filter_map(|uri| uri.strip_prefix("http://"));
    uris.next().is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        TcpStream::connect((host, 80)).is_ok()
    })
}

impl Fetch for Http {
    /// What the trait asks of it: an archive that is away for a moment, or a name that is not found just now, is asked
    /// again, with pauses that double.
    fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, Error> {
        let mut pause = Duration::from_millis(500);
        for _ in 1..ATTEMPTS {
            match once(url) {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    eprintln!("{error}; once more in {pause:?}");
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        once(url)
    }
}

/// One try; the body has come whole when it is given.
fn once(url: &str) -> Result<Box<dyn Read + Send>, Error> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| failure(url, "only http here"))?;
    let (host, path) = rest.split_once('/').ok_or_else(|| failure(url, "no path"))?;
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut stream = TcpStream::connect(address).map_err(|error| failure(url, error))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(|error| failure(url, error))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: test\r\n\r\n"
    )
    .map_err(|error| failure(url, error))?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut status, mut length) = (String::new(), None, None);
    loop {
        line.clear();
        reader.read_line(&mut line).map_err(|error| failure(url, error))?;
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        match text.split_once(": ") {
            None if status.is_none() => status = text.split(' ').nth(1).map(str::to_owned),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse::<usize>().ok()
            }
            _ => (),
        }
    }
    match (status.as_deref(), length) {
        (Some("200"), Some(length)) => {
            let mut body = Vec::new();
            let read = reader.take(length as u64).read_to_end(&mut body);
            read.map_err(|error| failure(url, error))?;
            if body.len() < length {
                return Err(failure(
                    url,
                    format!("it broke off at {} of {length} bytes", body.len()),
                ));
            }
            Ok(Box::new(Cursor::new(body)))
        }
        (Some("404"), _) => Err(Error::new(ErrorKind::NotFound, format!("no {url}"))),
        other => Err(failure(url, format!("{other:?}"))),
    }
}

impl Fetch for Tampering {
    fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, Error> {
        let mut body = Http.get(url)?;
        if !url.contains(self.0) {
            return Ok(body);
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)
            .map_err(|error| failure(url, error))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(Box::new(Cursor::new(bytes)))
    }
}
