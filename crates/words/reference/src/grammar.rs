//! The regular expressions of distribution/reference as loops over bytes.

/// Longest repository, in bytes (distribution/reference `RepositoryNameTotalLengthMax`).
pub const MAX_REPOSITORY: usize = 255;
/// Longest tag, in bytes (distribution-spec, "Pulling manifests").
pub const MAX_TAG: usize = 128;
/// Longest host name without the port, in bytes (RFC 1035: 253 and a stop).
pub const MAX_HOST: usize = 254;
/// Longest whole reference: the parts, `:65535`, a sha512 digest, separators.
pub(crate) const MAX_REFERENCE: usize = MAX_HOST + 8 + MAX_REPOSITORY + 1 + MAX_TAG + 1 + 160;

/// Whether this is 64 lower-case hexadecimal characters: an id, which docker refuses as a name.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `tag` is a tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[must_use]
pub fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_TAG
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'))
}

/// Whether `name` is a repository: components of `[a-z0-9]+` joined by one of `.`, `_`, `__`, or any number of `-`,
/// separated by `/`, at most [`MAX_REPOSITORY`] bytes. Such a name has no `..` and no empty part.
#[must_use]
pub fn valid_repository(name: &str) -> bool {
    name.len() <= MAX_REPOSITORY && name.split('/').all(|part| valid_component(part.as_bytes()))
}

fn valid_component(part: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (part.first(), part.last()) else {
        return false;
    };
    // Runs between the plain characters are separators; with plain ends every run is between two of them.
    plain(first)
        && plain(last)
        && part
            .split(|&b| plain(b))
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

/// Whether `host` is `name[:port]`, `1.2.3.4[:port]` or `[::1][:port]`.
pub(crate) fn valid_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((inside, after)) = rest.split_once(']') else {
                return false;
            };
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return false,
            };
            // Docker takes hexadecimal and colons only, not the form with a dotted end.
            if inside.contains('.') || inside.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    name.is_none_or(valid_name) && port.is_none_or(valid_port)
}

fn valid_name(name: &str) -> bool {
    name.len() <= MAX_HOST
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            ends(bytes.first())
                && ends(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
}

fn valid_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Whether this could be a digest of another algorithm: `[A-Za-z][A-Za-z0-9+._-]*:<32 or more hexadecimal>`.
pub(crate) fn digest_shaped(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
