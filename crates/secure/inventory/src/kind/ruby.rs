//! Ruby: gemspecs as RubyGems writes them for installed gems (`Gem::Specification#to_ruby`).

use crate::kind::{Said, plain, utf8};
use crate::{Kind, Package};

pub(crate) fn gemspec(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let (mut name, mut version, mut licences, mut platform) = (None, None, None, None);
    for line in text.lines() {
        // The variable is `s`, in older files any.
        let Some((left, right)) = line.trim().split_once('=') else {
            continue;
        };
        let Some((_, field)) = left.trim_end().split_once('.') else {
            continue;
        };
        let slot = match field {
            "name" => &mut name,
            "version" => &mut version,
            "platform" => &mut platform,
            "licenses" | "license" => &mut licences,
            _ => continue,
        };
        if slot.is_none() {
            let words = strings(right);
            *slot = plain(&words.join(" OR "));
        }
    }
    let (Some(name), Some(version)) = (name, version) else {
        return Err("it has no name or no version as text".to_owned());
    };
    Ok(Said::packages(vec![Package {
        arch: platform,
        licence: licences,
        ..Package::new(Kind::Gem, name, version)
    }]))
}

/// What stands in quotes.
fn strings(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = char::from(rest.as_bytes()[start]);
        let after = &rest[start + 1..];
        let Some(end) = after.find(quote) else {
            break;
        };
        found.push(&after[..end]);
        rest = &after[end + 1..];
    }
    found
}
