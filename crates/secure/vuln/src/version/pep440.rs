//! Python: PEP 440; what does not fit it is ordered as `packaging.LegacyVersion` did, before everything that does.

use std::cmp::Ordering;

use super::{by_element, by_value, is_number, take_digits, take_while};

/// Spellings of pre-releases, longest first, and the letter that each is normalised to.
const PRE: [(&str, u8); 8] = [
    ("preview", b'r'),
    ("alpha", b'a'),
    ("beta", b'b'),
    ("pre", b'r'),
    ("rc", b'r'),
    ("a", b'a'),
    ("b", b'b'),
    ("c", b'r'),
];
const POST: [(&str, u8); 3] = [("post", b'p'), ("rev", b'p'), ("r", b'p')];
const DEV: [(&str, u8); 1] = [("dev", b'd')];

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    match (Version::parse(&a), Version::parse(&b)) {
        (Some(a), Some(b)) => a.order(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => legacy(&a).cmp(&legacy(&b)),
    }
}

/// A letter and the digits after it.
type Marked<'a> = Option<(u8, &'a str)>;

#[derive(Debug)]
struct Version<'a> {
    epoch: &'a str,
    release: Vec<&'a str>,
    pre: Marked<'a>,
    post: Marked<'a>,
    dev: Marked<'a>,
    local: Vec<&'a str>,
}

impl<'a> Version<'a> {
    /// `[v][N!]N(.N)*[{a|b|rc}N][.postN][.devN][+local]`, with the spellings of appendix B; in lower case.
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let (public, local) = match text.split_once('+') {
            Some((public, local)) => (public, Some(local)),
            None => (text, None),
        };
        let (epoch, rest) = match public.split_once('!') {
            Some((epoch, rest)) if is_number(epoch) => (epoch, rest),
            Some(_) => return None,
            None => ("", public),
        };
        let (release, rest) = release(rest)?;
        let (pre, rest) = marked(rest, &PRE);
        let (post, rest) = post(rest);
        let (dev, rest) = marked(rest, &DEV);
        if !rest.is_empty() {
            return None;
        }
        let local = match local {
            Some(local) => segments(local)?,
            None => Vec::new(),
        };
        Some(Self {
            epoch,
            release,
            pre,
            post,
            dev,
            local,
        })
    }

    fn order(&self, other: &Self) -> Ordering {
        by_value(self.epoch, other.epoch)
            .then_with(|| by_element(&self.release, &other.release, "", by_value))
            .then_with(|| self.stage().cmp(&other.stage()))
            .then_with(|| numbers(self.pre, other.pre))
            .then_with(|| self.post.is_some().cmp(&other.post.is_some()))
            .then_with(|| numbers(self.post, other.post))
            .then_with(|| self.dev.is_none().cmp(&other.dev.is_none()))
            .then_with(|| numbers(self.dev, other.dev))
            .then_with(|| locals(&self.local, &other.local))
    }

    /// A development release of the release itself comes before its pre-releases, and these before it.
    fn stage(&self) -> u8 {
        match (self.pre, self.post, self.dev) {
            (Some((letter, _)), _, _) => letter,
            (None, None, Some(_)) => 0,
            _ => u8::MAX,
        }
    }
}

fn numbers(a: Marked<'_>, b: Marked<'_>) -> Ordering {
    let digits = |marked: Marked<'_>| marked.map_or("", |(_, digits)| digits).to_owned();
    by_value(&digits(a), &digits(b))
}

fn release(text: &str) -> Option<(Vec<&str>, &str)> {
    let (first, mut rest) = take_digits(text);
    if first.is_empty() {
        return None;
    }
    let mut numbers = vec![first];
    while let Some(after) = rest.strip_prefix('.') {
        let (digits, after) = take_digits(after);
        if digits.is_empty() {
            break;
        }
        numbers.push(digits);
        rest = after;
    }
    Some((numbers, rest))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}

/// `[-_.]?word[-_.]?N?`: the letter of the word and its number, and what follows.
fn marked<'a>(text: &'a str, words: &[(&str, u8)]) -> (Marked<'a>, &'a str) {
    let start = text.strip_prefix(['-', '_', '.']).unwrap_or(text);
    for (word, letter) in words {
        if let Some(rest) = start.strip_prefix(word) {
            let after = rest.strip_prefix(['-', '_', '.']).unwrap_or(rest);
            let (digits, end) = take_digits(after);
            // A separator without a number belongs to what follows.
            return if digits.is_empty() {
                (Some((*letter, "")), rest_of(rest))
            } else {
                (Some((*letter, digits)), end)
            };
        }
    }
    (None, text)
}

/// A separator at the very end is part of the mark (`1.0a.`); otherwise it begins the next.
fn rest_of(rest: &str) -> &str {
    if rest.len() == 1 && rest.bytes().all(is_separator) {
        ""
    } else {
        rest
    }
}

/// A post-release may be `-N` alone.
fn post(text: &str) -> (Marked<'_>, &str) {
    if let Some(after) = text.strip_prefix('-') {
        let (digits, rest) = take_digits(after);
        if !digits.is_empty() {
            return (Some((b'p', digits)), rest);
        }
    }
    marked(text, &POST)
}

/// Segments of a local version; none when it is not one.
fn segments(local: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = local.split(['-', '_', '.']).collect();
    segments
        .iter()
        .all(|segment| {
            !segment.is_empty()
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
        .then_some(segments)
}

/// Numbers come after words; more segments after fewer.
fn locals(a: &[&str], b: &[&str]) -> Ordering {
    a.iter()
        .zip(b)
        .map(|(a, b)| match (is_number(a), is_number(b)) {
            (true, true) => by_value(a, b),
            (false, false) => a.cmp(b),
            (a, b) => a.cmp(&b),
        })
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// The key of setuptools before PEP 440: parts padded so that their text has the order.
fn legacy(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = legacy_part(rest);
        rest = after;
        if part.is_empty() {
            continue;
        }
        push_legacy(&mut parts, part);
    }
    push_legacy(&mut parts, "final");
    parts.concat()
}

/// The next number, word or hyphen; empty for anything else, which is passed over.
fn legacy_part(text: &str) -> (&str, &str) {
    let (digits, after) = take_digits(text);
    if !digits.is_empty() {
        return (digits, after);
    }
    let (word, after) = take_while(text, |byte| byte.is_ascii_lowercase());
    if !word.is_empty() {
        return (word, after);
    }
    let mut others = text.chars();
    let first = others.next();
    if first == Some('-') {
        ("-", others.as_str())
    } else {
        ("", others.as_str())
    }
}

fn push_legacy(parts: &mut Vec<String>, part: &str) {
    let word = match part {
        number if is_number(number) => {
            parts.push(format!("{number:0>8}"));
            return;
        }
        "pre" | "preview" | "rc" => "*c",
        "-" => "*final-",
        "dev" => "*@",
        other => &format!("*{other}"),
    };
    if word < "*final" {
        while parts.last().is_some_and(|last| last == "*final-") {
            parts.pop();
        }
    }
    while parts.last().is_some_and(|last| last == "00000000") {
        parts.pop();
    }
    parts.push(word.to_owned());
}
