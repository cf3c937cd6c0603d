//! Armor (RFC 9580 section 6) and the cleartext signature framework (section 7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::ErrorKind;

use crate::Error;

/// A cleartext-signed file, taken apart.
#[derive(Debug)]
pub(super) struct Frame {
    /// The signed text for people and parsers: lines end with `\n`.
    pub(super) text: String,
    /// The same text as it is hashed: lines joined by CR LF, no blanks at their ends (section 7.2).
    pub(super) canonical: Vec<u8>,
    /// The signature packets.
    pub(super) signatures: Vec<u8>,
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}

/// Whether bytes look like armor; packets start with a byte whose high bit is set.
pub(super) fn is_armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN ")
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("an armored file is not UTF-8"))?;
    if text.bytes().any(|byte| byte == 0) {
        return Err(bad("an armored file has a zero byte"));
    }
    Ok(text)
}

fn trimmed(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r'])
}

/// Takes a cleartext-signed file apart. It must be exactly one frame from the first byte to the last line.
pub(super) fn cleartext(bytes: &[u8]) -> Result<Frame, Error> {
    let mut lines = text(bytes)?.split('\n').map(trimmed);
    if lines.next() != Some("-----BEGIN PGP SIGNED MESSAGE-----") {
        return Err(bad("the file does not start with a cleartext signature"));
    }
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        // Only Hash may stand here (section 7.1); NotDashEscaped would change what the lines below mean.
        if !line.starts_with("Hash: ") {
            return Err(bad(format!(
                "unknown header of a cleartext signature: {:?}",
                shortened(line)
            )));
        }
    }
    let (mut plain, mut canonical, mut first) = (String::with_capacity(bytes.len()), Vec::new(), true);
    canonical.reserve(bytes.len() + bytes.len() / 32);
    let ended = loop {
        let Some(line) = lines.next() else { break false };
        if line == "-----BEGIN PGP SIGNATURE-----" {
            break true;
        }
        let content = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            None if line.starts_with('-') => {
                return Err(bad(format!(
                    "line not dash-escaped in a cleartext signature: {:?}",
                    shortened(line)
                )));
            }
            None => line,
        };
        if content.contains('\r') {
            return Err(bad("a lone carriage return in a cleartext-signed text"));
        }
        if !first {
            canonical.extend_from_slice(b"\r\n");
        }
        first = false;
        canonical.extend_from_slice(content.as_bytes());
        plain.push_str(content);
        plain.push('\n');
    };
    if !ended {
        return Err(bad("a cleartext signature without its end"));
    }
    let signatures = body(&mut lines, "PGP SIGNATURE")?;
    if lines.any(|line| !line.is_empty()) {
        return Err(bad("text after the cleartext signature"));
    }
    Ok(Frame {
        text: plain,
        canonical,
        signatures,
    })
}

fn shortened(line: &str) -> String {
    line.chars().take(60).collect()
}

/// Decodes a file that is exactly one armored block of the kind `label`.
pub(super) fn decode_one(bytes: &[u8], label: &str) -> Result<Vec<u8>, Error> {
    let mut lines = text(bytes)?
        .split('\n')
        .map(trimmed)
        .skip_while(|line| line.is_empty());
    if lines.next() != Some(format!("-----BEGIN {label}-----").as_str()) {
        return Err(bad(format!("not an armored {label}")));
    }
    let packets = body(&mut lines, label)?;
    if lines.any(|line| !line.is_empty()) {
        return Err(bad(format!("text after the armored {label}")));
    }
    Ok(packets)
}

/// Decodes all armored blocks of the kind `label` of a file, such as keys that were put together with `cat`.
pub(super) fn decode_all(bytes: &[u8], label: &str) -> Result<Vec<u8>, Error> {
    let begin = format!("-----BEGIN {label}-----");
    let (mut lines, mut packets) = (text(bytes)?.split('\n').map(trimmed), Vec::new());
    while let Some(line) = lines.next() {
        if line == begin {
            packets.extend(body(&mut lines, label)?);
        }
    }
    Ok(packets)
}

/// The bytes of a block whose first line was read: headers, an empty line, base64, a checksum, the last line.
fn body<'a>(lines: &mut impl Iterator<Item = &'a str>, label: &str) -> Result<Vec<u8>, Error> {
    let end = format!("-----END {label}-----");
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        if !line.contains(": ") {
            return Err(bad(format!("malformed armor header: {:?}", shortened(line))));
        }
    }
    let (mut base64, mut checksum) = (String::new(), None);
    for line in lines.by_ref() {
        if line == end {
            let packets = STANDARD
                .decode(&base64)
                .map_err(|_| bad("malformed base64 in armor"))?;
            if checksum.is_some_and(|sum| sum != crc24(&packets)) {
                return Err(bad("wrong checksum of armor"));
            }
            return Ok(packets);
        }
        if checksum.is_some() {
            return Err(bad("text after the checksum of armor"));
        }
        match line.strip_prefix('=') {
            Some(sum) => {
                let sum = STANDARD.decode(sum).ok().filter(|sum| sum.len() == 3);
                let sum = sum.ok_or_else(|| bad("malformed checksum of armor"))?;
                checksum = Some(u32::from_be_bytes([0, sum[0], sum[1], sum[2]]));
            }
            None => base64.push_str(line),
        }
    }
    Err(bad("armor without its end"))
}

/// The checksum of RFC 4880 6.1. It finds accidents; RFC 9580 makes it optional.
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = 0x00B7_04CE_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4CFB;
            }
        }
    }
    crc & 0x00FF_FFFF
}
