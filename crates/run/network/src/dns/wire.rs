//! The little of the DNS format (RFC 1035, RFC 6891) that a forwarder with a hosts table needs: it reads one question and
//! writes addresses and names. Everything else passes through as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest message that is taken from a client or an upstream over UDP.
pub(super) const MAX_UDP: usize = 4096;
/// What a client takes that does not say (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;
const HEADER: usize = 12;
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_PTR: u16 = 12;
pub(super) const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Seconds that a client may keep an answer: as docker, since containers come and go.
const TTL: u32 = 600;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// No error; perhaps no record of this type.
    Fine = 0,
    /// The server cannot answer now.
    Failed = 2,
    /// There is no such name.
    NoName = 3,
}

/// A question of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Chosen by the client.
    pub(super) id: u16,
    /// The name in dotted form without the final dot; `None` when it has characters that no container name has.
    pub(super) name: Option<String>,
    /// What is asked for.
    pub(super) kind: u16,
    /// Where the question ends in the message.
    pub(super) end: usize,
    /// How long an answer over UDP may be.
    pub(super) room: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)?
        .first_chunk()
        .map(|raw| u16::from_be_bytes(*raw))
}

impl Query {
    /// Reads a message that is a standard query with one question; `None` for everything else.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let flags = u16_at(message, 2)?;
        // A response, or an operation that is no query.
        if flags & 0xf800 != 0 || u16_at(message, 4)? != 1 {
            return None;
        }
        let (name, end) = name(message, HEADER)?;
        let kind = u16_at(message, end)?;
        let class = u16_at(message, end + 2)?;
        let end = end + 4;
        Some(Self {
            id: u16_at(message, 0)?,
            name: name.filter(|_| class == CLASS_IN),
            kind,
            end,
            room: room(message, end),
        })
    }

    /// The address whose name is asked for.
    pub(super) fn reverse(&self) -> Option<IpAddr> {
        let name = self
            .name
            .as_deref()
            .filter(|_| self.kind == TYPE_PTR)?
            .to_ascii_lowercase();
        if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
            let ip: Ipv4Addr = digits.parse().ok()?;
            let [a, b, c, d] = ip.octets();
            return Some(Ipv4Addr::new(d, c, b, a).into());
        }
        let nibbles = name.strip_suffix(".ip6.arpa")?;
        let mut raw = 0u128;
        let mut count = 0;
        for nibble in nibbles.rsplit('.') {
            let digit = nibble
                .chars()
                .next()
                .filter(|_| nibble.len() == 1)?
                .to_digit(16)?;
            raw = (raw << 4) | u128::from(digit);
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from(raw).into())
    }
}

/// A name that is not compressed (in a question it cannot be): its text if it is one, and where it ends.
fn name(message: &[u8], start: usize) -> Option<(Option<String>, usize)> {
    let mut text = String::new();
    let mut plain = true;
    let mut at = start;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = message.get(at..at + length).filter(|_| length <= MAX_LABEL)?;
        at += length;
        if at - start >= MAX_NAME {
            return None;
        }
        plain &= label
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if plain {
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(*b)));
        }
    }
    Some((plain.then_some(text), at))
}

/// The size in an EDNS record that stands alone behind the question, as clients send it.
fn room(message: &[u8], end: usize) -> usize {
    let counts = (u16_at(message, 6), u16_at(message, 8), u16_at(message, 10));
    let alone = matches!(counts, (Some(0), Some(0), Some(1..)));
    if alone && message.get(end) == Some(&0) && u16_at(message, end + 1) == Some(TYPE_OPT) {
        let size = u16_at(message, end + 3).map_or(PLAIN_UDP, usize::from);
        return size.clamp(PLAIN_UDP, MAX_UDP);
    }
    PLAIN_UDP
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Name(String),
}

impl Record {
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, data) = match self {
            Self::Address(IpAddr::V4(ip)) => (TYPE_A, ip.octets().to_vec()),
            Self::Address(IpAddr::V6(ip)) => (TYPE_AAAA, ip.octets().to_vec()),
            Self::Name(name) => (TYPE_PTR, labels(name)),
        };
        // The owner's name is that of the question: a pointer to it.
        out.extend_from_slice(&[0xc0, 0x0c]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&data);
    }
}

/// A dotted name in wire form, cut to what the format holds.
fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(MAX_LABEL)];
        if out.len() + label.len() + 2 > MAX_NAME {
            break;
        }
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend_from_slice(label);
    }
    out.push(0);
    out
}

/// An answer to `query`, which was read from `message`, of at most `room` bytes; what does not fit is left out and
/// the answer says so.
pub(super) fn answer(message: &[u8], query: &Query, code: Code, records: &[Record], room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PLAIN_UDP);
    out.extend_from_slice(message.get(..query.end).unwrap_or_default());
    if out.len() < HEADER {
        return Vec::new();
    }
    let mut count = 0u16;
    let mut truncated = 0;
    for record in records {
        let before = out.len();
        record.write(&mut out);
        if out.len() > room || count == u16::MAX {
            out.truncate(before);
            truncated = 0x02;
            break;
        }
        count += 1;
    }
    // Response; recursion wanted as asked, and available.
    out[2] = 0x80 | (out[2] & 0x01) | truncated;
    out[3] = 0x80 | code as u8;
    out[4..6].copy_from_slice(&1u16.to_be_bytes());
    out[6..8].copy_from_slice(&count.to_be_bytes());
    out[8..12].fill(0);
    out
}

/// Whether `reply` answers the question that was sent as `sent` under this id.
pub(super) fn is_reply(reply: &[u8], sent: &[u8], end: usize, id: u16) -> bool {
    let is_response = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let question = (reply.get(HEADER..end), sent.get(HEADER..end));
    let same = matches!(question, (Some(one), Some(other)) if one.eq_ignore_ascii_case(other));
    // A server that fails early may leave the question out (RFC 2308); then the id and the connected socket must do.
    let bare = reply.len() == HEADER && u16_at(reply, 4) == Some(0);
    is_response && u16_at(reply, 0) == Some(id) && (same || bare)
}

/// Writes another id.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(head) = message.first_chunk_mut::<2>() {
        *head = id.to_be_bytes();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut out = id.to_be_bytes().to_vec();
        out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(labels(name));
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out
    }

    #[test]
    fn a_question_is_read_with_its_edns_size() {
        let mut message = question(7, "Web.my-net", TYPE_A);
        let end = message.len();
        let query = Query::parse(&message).unwrap();
        assert_eq!(
            (query.id, query.name.as_deref(), query.kind),
            (7, Some("Web.my-net"), TYPE_A)
        );
        assert_eq!((query.end, query.room), (end, 512));
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Query::parse(&message).unwrap().room, 1232);
    }

    #[test]
    fn responses_updates_and_compressed_questions_are_ignored() {
        let good = question(7, "web", TYPE_A);
        for (at, byte) in [(2, 0x81), (2, 0x28), (5, 2), (12, 0xc0), (12, 64)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Query::parse(&bad), None, "{at} {byte}");
        }
        for cut in 0..good.len() {
            assert_eq!(Query::parse(&good[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn reverse_names_are_addresses() {
        let reverse = |name: &str| Query::parse(&question(1, name, TYPE_PTR)).unwrap().reverse();
        assert_eq!(
            reverse("2.0.88.10.in-addr.arpa"),
            Some("10.88.0.2".parse().unwrap())
        );
        let long = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse(long), Some("fd00:1::2".parse().unwrap()));
        for bad in ["2.0.88.in-addr.arpa", "x.in-addr.arpa", "1.ip6.arpa", "web"] {
            assert_eq!(reverse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_says_so() {
        let message = question(9, "web", TYPE_A);
        let query = Query::parse(&message).unwrap();
        let records: Vec<Record> = (0..100)
            .map(|last| Record::Address([10, 0, 0, last].into()))
            .collect();
        let out = answer(&message, &query, Code::Fine, &records, query.room);
        assert!(out.len() <= 512);
        assert_eq!(out[2] & 0x02, 0x02);
        let whole = answer(&message, &query, Code::Fine, &records, 65535);
        assert_eq!(u16_at(&whole, 6), Some(100));
        assert!(is_reply(&whole, &message, query.end, 9));
        assert!(!is_reply(&whole, &question(9, "wob", TYPE_A), query.end, 9));
        assert!(!is_reply(&whole, &message, query.end, 8));
        assert!(!is_reply(&message, &message, query.end, 9));
    }

    proptest! {
        #[test]
        fn hostile_messages_neither_panic_nor_grow(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(query) = Query::parse(&bytes) {
                prop_assert!(query.end <= bytes.len());
                query.reverse();
                let out = answer(&bytes, &query, Code::Fine, &[Record::Name("a.b".into())], query.room);
                prop_assert!(out.len() <= bytes.len() + 64);
                is_reply(&bytes, &out, query.end, query.id);
            }
        }

        #[test]
        fn almost_right_messages_do_not_panic(at in 0usize..40, byte in any::<u8>(), cut in 0usize..60) {
            let mut message = question(1, "some.name.on.a.network", TYPE_PTR);
            if let Some(slot) = message.get_mut(at) {
                *slot = byte;
            }
            message.truncate(cut);
            if let Some(query) = Query::parse(&message) {
                query.reverse();
                answer(&message, &query, Code::NoName, &[], query.room);
            }
        }
    }
}
