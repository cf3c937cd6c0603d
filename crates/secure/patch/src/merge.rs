//! Files of entries, merged three ways.

use std::collections::HashMap;

use crate::Treatment;

/// An entry that the image and its base changed, each in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Its name, such as that of a package.
    pub entry: String,
}

/// Entries in their order, each with its name. Of two with one name the later counts, at the place of the first.
struct Entries<'a> {
    order: Vec<String>,
    text: HashMap<String, &'a [u8]>,
}

impl<'a> Entries<'a> {
    fn read(bytes: &'a [u8], treatment: Treatment) -> Self {
        let mut entries = Self {
            order: Vec::new(),
            text: HashMap::new(),
        };
        match treatment {
            Treatment::Paragraphs(fields) => {
                for paragraph in paragraphs(bytes) {
                    entries.add(name_of(paragraph, fields), paragraph);
                }
            }
            Treatment::Named | Treatment::Lines | Treatment::Own => {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let name = match treatment {
                        Treatment::Named => line.split(|byte| *byte == b':').next().unwrap_or(line),
                        _ => line,
                    };
                    entries.add(String::from_utf8_lossy(name).into_owned(), line);
                }
            }
        }
        entries
    }

    fn add(&mut self, name: String, text: &'a [u8]) {
        if self.text.insert(name.clone(), text).is_none() {
            self.order.push(name);
        }
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.text.get(name).copied()
    }
}

/// Paragraphs without the empty lines around them, each with the end of its last line.
fn paragraphs(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while let Some(after) = rest.strip_prefix(b"\n") {
            rest = after;
        }
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\n\n")
            .map_or(rest.len(), |at| at + 1);
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(paragraph)
    })
}

/// The values of these fields; of a paragraph without any, all of it.
fn name_of(paragraph: &[u8], fields: &[&str]) -> String {
    let mut parts = Vec::new();
    for field in fields {
        let value = paragraph.split(|byte| *byte == b'\n').find_map(|line| {
            line.strip_prefix(field.as_bytes())?
                .strip_prefix(b":")
                .map(<[u8]>::trim_ascii)
        });
        if let Some(value) = value {
            parts.push(String::from_utf8_lossy(value).into_owned());
        }
    }
    if parts.is_empty() {
        return String::from_utf8_lossy(paragraph).into_owned();
    }
    parts.join(":")
}

/// The file of an image whose base was `old` and is now `new`: what the base changed is changed, the rest is the image's. A file that
/// is not there is an empty one.
///
/// # Errors
/// The entries that both changed; never empty.
pub fn merge(treatment: Treatment, old: &[u8], new: &[u8], own: &[u8]) -> Result<Vec<u8>, Vec<Clash>> {
    if treatment == Treatment::Own || old == new {
        return Ok(own.to_vec());
    }
    if old == own {
        return Ok(new.to_vec());
    }
    let (old, new, own) = (
        Entries::read(old, treatment),
        Entries::read(new, treatment),
        Entries::read(own, treatment),
    );
    let mut merged: Vec<&[u8]> = Vec::new();
    let mut clashes = Vec::new();
    // In the image's order; what is new in the base comes last, in its order.
    let added = new.order.iter().filter(|name| !own.text.contains_key(*name));
    for name in own.order.iter().chain(added) {
        let (was, is, here) = (old.get(name), new.get(name), own.get(name));
        let kept = if was == is || is == here {
            here
        } else if was == here {
            is
        } else {
            clashes.push(Clash { entry: name.clone() });
            None
        };
        merged.extend(kept);
    }
    if !clashes.is_empty() {
        return Err(clashes);
    }
    let spaced = matches!(treatment, Treatment::Paragraphs(_));
    let mut bytes = Vec::new();
    for entry in merged {
        bytes.extend_from_slice(entry);
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        if spaced {
            bytes.push(b'\n');
        }
    }
    Ok(bytes)
}
