//! The paths of the distribution-spec. Names contain slashes, so that no ready router fits: paths are read from the
//! end. What comes out is valid: names, tags, digests and ids are checked before anything looks at disk or database.

use crate::digest::Digest;
use crate::fault::Fault;

/// Longest path that is read.
const MAX_PATH: usize = 1024;

/// A repository's name, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(Box<str>);

/// An upload's id: 32 hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(Box<str>);

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tag(Box<str>),
    Digest(Digest),
}

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(Name),
    Manifest(Name, Target),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, UploadId),
    Referrers(Name, Digest),
}

impl Name {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if dhow_reference::valid_repository(text) {
            Ok(Self(text.into()))
        } else {
            Err(Fault::name_invalid(text))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl UploadId {
    /// An id from random bytes.
    pub(crate) fn from_random(raw: [u8; 16]) -> Self {
        let mut text = String::with_capacity(32);
        crate::digest::push_hex(&raw, &mut text);
        Self(text.into())
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(Fault::upload_unknown())
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, Fault> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        if dhow_reference::valid_tag(text) {
            Ok(Self::Tag(text.into()))
        } else {
            Err(Fault::tag_invalid(text))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

pub(crate) fn digest(text: &str) -> Result<Digest, Fault> {
    text.parse().map_err(|_| Fault::digest_invalid(text))
}

impl Route {
    /// Reads a path, as it was sent.
    pub(crate) fn parse(path: &str) -> Result<Self, Fault> {
        if path.len() > MAX_PATH {
            return Err(Fault::name_invalid("the path is too long"));
        }
        let decoded;
        let path = if path.contains('%') {
            decoded = decode(path).ok_or_else(|| Fault::name_invalid(path))?;
            decoded.as_str()
        } else {
            path
        };
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or_else(Fault::no_such_path)?,
            None => return Err(Fault::no_such_path()),
        };
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let (front, last) = rest.rsplit_once('/').ok_or_else(Fault::no_such_path)?;
        let (name, kind) = front.rsplit_once('/').ok_or_else(Fault::no_such_path)?;
        match kind {
            "tags" if last == "list" => Ok(Self::Tags(Name::parse(name)?)),
            "manifests" => Ok(Self::Manifest(Name::parse(name)?, Target::parse(last)?)),
            "referrers" => Ok(Self::Referrers(Name::parse(name)?, digest(last)?)),
            "blobs" if last == "uploads" => Ok(Self::Uploads(Name::parse(name)?)),
            "blobs" => Ok(Self::Blob(Name::parse(name)?, digest(last)?)),
            "uploads" => {
                let name = name.strip_suffix("/blobs").ok_or_else(Fault::no_such_path)?;
                let name = Name::parse(name)?;
                if last.is_empty() {
                    Ok(Self::Uploads(name))
                } else {
                    Ok(Self::Upload(name, UploadId::parse(last)?))
                }
            }
            _ => Err(Fault::no_such_path()),
        }
    }
}

/// The value of a query parameter, decoded; the first when there are several.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, Fault> {
    parameters(query, name).next().transpose()
}

/// All values of a query parameter.
pub(crate) fn parameters<'a>(
    query: Option<&'a str>,
    name: &'a str,
) -> impl Iterator<Item = Result<String, Fault>> + 'a {
    query
        .unwrap_or("")
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| decode(value).ok_or_else(|| Fault::query_invalid("it is not properly escaped")))
}

/// Undoes `%41`; `None` for what is malformed, not UTF-8, or has control characters.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let pair = text.get(at + 1..at + 3)?;
            let plain = pair.bytes().all(|b| b.is_ascii_hexdigit());
            out.push(u8::from_str_radix(pair, 16).ok().filter(|_| plain)?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_may_hold_the_words_of_the_api() {
        let digest: Digest = HEX.parse().unwrap();
        let id = UploadId::parse(&"0".repeat(32)).unwrap();
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name("a/b"))),
            (
                "/v2/tags/list/tags/list".to_owned(),
                Route::Tags(name("tags/list")),
            ),
            (
                "/v2/a/manifests/1".to_owned(),
                Route::Manifest(name("a"), Target::Tag("1".into())),
            ),
            (
                format!("/v2/manifests/manifests/{HEX}"),
                Route::Manifest(name("manifests"), Target::Digest(digest.clone())),
            ),
            (
                format!("/v2/a/blobs/{}", HEX.replace(':', "%3A")),
                Route::Blob(name("a"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            (
                "/v2/blobs/uploads/blobs/uploads/".to_owned(),
                Route::Uploads(name("blobs/uploads")),
            ),
            (
                format!("/v2/a/blobs/uploads/{}", id.as_str()),
                Route::Upload(name("a"), id.clone()),
            ),
            (
                format!("/v2/a/referrers/{HEX}"),
                Route::Referrers(name("a"), digest.clone()),
            ),
        ] {
            assert_eq!(
                Route::parse(&path).unwrap_or_else(|_| panic!("{path}")),
                route,
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_path_of_the_api_is_refused() {
        for path in [
            "",
            "/",
            "/v1/search",
            "/v2x/",
            "/v2/a",
            "/v2//tags/list",
            "/v2/../../etc/passwd/manifests/1",
            "/v2/a/../b/manifests/1",
            "/v2/a%2f..%2fb/manifests/1",
            "/v2/A/manifests/1",
            "/v2/a/manifests/.hidden",
            "/v2/a/manifests/%00",
            "/v2/a/manifests/%zz",
            "/v2/a/manifests/",
            "/v2/a/blobs/sha256:1234",
            "/v2/a/blobs/uploads/../../x",
            "/v2/a/blobs/uploads/not-an-id",
            "/v2/uploads/",
            "/v2/a/tags/other",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
        assert!(Route::parse(&format!("/v2/{}/tags/list", "a".repeat(2000))).is_err());
    }

    proptest! {
        #[test]
        fn any_path_is_a_fault_or_a_route_of_valid_parts(path in "/v2/[a-z/%.:0-9A-F_-]{0,60}|\\PC{0,60}") {
            if let Ok(Route::Manifest(name, _) | Route::Tags(name) | Route::Uploads(name)) = Route::parse(&path) {
                prop_assert!(dhow_reference::valid_repository(name.as_str()));
            }
        }
    }
}
