//! As much of HTTP/1.1 as registry clients use.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Fault, Request, State, lock, routes};

/// An answer in the making.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.set(name, value.into());
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// An error as the distribution specification words it.
    pub(super) fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"said by the fake registry"}}]}}"#);
        Self::new(status)
            .with("Content-Type", "application/json")
            .body(body)
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name, value));
    }
}

/// Serves one connection until the client or a fault ends it.
pub(super) fn serve(
    stream: TcpStream,
    address: SocketAddr,
    state: &Mutex<State>,
    stop: &AtomicBool,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader, &stream)? {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (answer, fault) = {
            let mut state = lock(state);
            state.log.push(request.clone());
            let fault = take_fault(&mut state, &request);
            let refused = matches!(fault, Some(Fault::Status(..) | Fault::Redirect(_)));
            let answer = if refused {
                Answer::new(200)
            } else {
                routes::answer(&mut state, &request, address)
            };
            (answer, fault)
        };
        let more = send(&stream, &request, answer, fault)?;
        if !more {
            return Ok(());
        }
    }
    Ok(())
}

fn take_fault(state: &mut State, request: &Request) -> Option<Fault> {
    let rule = state.rules.iter_mut().find(|rule| {
        let method = rule.method.is_empty() || rule.method == request.method;
        rule.times > 0 && method && request.path.contains(&rule.part)
    })?;
    rule.times -= 1;
    Some(rule.fault.clone())
}

fn read_request(reader: &mut BufReader<TcpStream>, stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = read_body(reader, &request)?;
    Ok(Some(request))
}

fn read_body(reader: &mut BufReader<TcpStream>, request: &Request) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if request
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if (&mut *reader).take(size).read_to_end(&mut body)? as u64 != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            reader.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length: u64 = request
        .header("content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    if (&mut *reader).take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Sends an answer as the fault wants it; whether the connection goes on.
fn send(stream: &TcpStream, request: &Request, mut answer: Answer, fault: Option<Fault>) -> io::Result<bool> {
    match &fault {
        Some(Fault::Status(status, headers)) => {
            answer = Answer::error(*status, "UNKNOWN");
            for (name, value) in headers {
                answer.set(name, value.clone());
            }
        }
        Some(Fault::Redirect(url)) => answer = Answer::new(307).with("Location", url.clone()),
        Some(Fault::WrongBytes) => {
            let middle = answer.body.len() / 2;
            if let Some(byte) = answer.body.get_mut(middle) {
                *byte ^= 0x55;
            }
        }
        Some(Fault::Header(name, value)) => answer.set(name, value.clone()),
        Some(Fault::Body(body)) => answer.body.clone_from(body),
        _ => {}
    }
    if let Some(done) = without_answer(stream, &fault) {
        return done;
    }
    let extra = if let Some(Fault::TooShort(extra)) = fault {
        extra
    } else {
        0
    };
    let mut head = format!("HTTP/1.1 {} Any\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", answer.body.len() as u64 + extra);
    let mut out = stream;
    out.write_all(head.as_bytes())?;
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &answer.body
    };
    match fault {
        Some(Fault::TooShort(_)) => {
            out.write_all(body)?;
            Ok(false)
        }
        Some(Fault::Hang(time)) => {
            std::thread::sleep(time);
            Ok(false)
        }
        Some(Fault::Truncate(length)) if length < body.len() => {
            out.write_all(&body[..length])?;
            Ok(false)
        }
        Some(Fault::Reset(length)) => {
            out.write_all(&body[..length.min(body.len())])?;
            // With no time to linger the kernel sends RST at close instead of FIN.
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
            Ok(false)
        }
        Some(Fault::Slow(piece, pause)) => {
            for piece in body.chunks(piece.max(1)) {
                out.write_all(piece)?;
                std::thread::sleep(pause);
            }
            Ok(true)
        }
        _ => {
            out.write_all(body)?;
            Ok(true)
        }
    }
}

/// The faults that have nothing of the answer.
fn without_answer(stream: &TcpStream, fault: &Option<Fault>) -> Option<io::Result<bool>> {
    let mut out = stream;
    let outcome = match fault {
        Some(Fault::Raw(bytes)) => out.write_all(bytes),
        Some(Fault::Endless(head)) => out.write_all(head.as_bytes()).and_then(|()| {
            // Until nobody reads any more; who reads 8 GiB of this has no bound.
            let piece = vec![b' '; 1 << 20];
            (0..8 << 10).try_for_each(|_| out.write_all(&piece))
        }),
        Some(Fault::Drip(pause)) => {
            let head = format!("HTTP/1.1 200 OK\r\nX-Slow: {}\r\n\r\n", "x".repeat(10_000));
            head.bytes().try_for_each(|byte| {
                std::thread::sleep(*pause);
                out.write_all(&[byte])
            })
        }
        _ => return None,
    };
    Some(outcome.map(|()| false))
}
