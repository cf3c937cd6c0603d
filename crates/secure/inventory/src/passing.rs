//! A compressed layer: what a file of it says is read as it comes by.

use std::collections::HashMap;
use std::io::Read;

use dhow_layer::{Error as LayerError, Extent, Limits, Survey};

use crate::files::{Found, content_of, found};
use crate::kind::Said;
use crate::scan::{Reader, is_evidence, parsed, reader, text};
use crate::{Context as _, Error};

/// Largest program or Java archive that is looked at: it is in memory then.
const MOST: u64 = 512 << 20;

/// What files have said, by path, with the numbers of their contents: a later file at the same path counts.
#[derive(Default)]
pub(crate) struct Passing {
    said: HashMap<Vec<u8>, (u32, Result<Said, String>)>,
    /// The content at hand. One allocation is enough for all.
    content: Vec<u8>,
}

impl Passing {
    /// Goes through a layer.
    pub(crate) fn look(&mut self, layer: &Extent, limits: &Limits) -> Result<Survey, Error> {
        let what = || "look at the layer";
        let survey = Survey::passing(layer, limits, &mut |number, entry, body| {
            self.see(number, &[found(entry)], body)
        });
        let survey = survey.context(what)?;
        // A hard link has a content that came by under another name, which perhaps nobody reads.
        let mut missing: HashMap<u32, Vec<Found<'_>>> = HashMap::new();
        for surveyed in &survey.entries {
            let found = found(&surveyed.entry);
            if let Some((number, _)) = content_of(&survey, found.path)
                && reader(&found).is_some()
                && self.said.get(found.path).is_none_or(|(said, _)| *said != number)
            {
                missing.entry(number).or_default().push(found);
            }
        }
        if !missing.is_empty() {
            let again = Survey::passing(layer, limits, &mut |number, _, body| {
                let names = missing.get(&number);
                names.map_or(Ok(()), |names| self.see(number, names, body))
            });
            again.context(what)?;
        }
        Ok(survey)
    }

    /// What the file at a path of the layer says.
    pub(crate) fn said(&mut self, survey: &Survey, path: &[u8]) -> Result<Said, String> {
        let number = content_of(survey, path).map(|(number, _)| number);
        match self.said.remove(path) {
            Some((of, said)) if Some(of) == number => said,
            _ => Err("it is no regular file".to_owned()),
        }
    }

    /// Keeps what a content says under some names.
    fn see(&mut self, number: u32, names: &[Found<'_>], body: &mut dyn Read) -> Result<(), LayerError> {
        let read: Vec<(&Found<'_>, Reader)> = names
            .iter()
            .filter_map(|name| Some((name, reader(name)?)))
            .collect();
        let bound = |reader: &Reader| match reader {
            Reader::Whole(_, most) | Reader::Owners(_, most) => *most,
            Reader::Parts(_) | Reader::Program => MOST,
        };
        let Some(most) = read.iter().map(|(_, reader)| bound(reader)).max() else {
            return Ok(());
        };
        self.content.clear();
        self.fill(body, 4)?;
        // Scripts, mostly: a program is told by its beginning.
        let programs = read.iter().all(|(_, reader)| matches!(reader, Reader::Program));
        if !programs || self.content == b"\x7fELF" {
            self.fill(body, most + 1)?;
        }
        let size = self.content.len() as u64;
        for (name, reader) in read {
            let path = text(name.path);
            let said = match reader {
                Reader::Parts(_) | Reader::Program if size > MOST => {
                    Err(format!("it is larger than {MOST} bytes, in a compressed layer"))
                }
                _ => parsed(&self.content, &path, size, reader, &is_evidence),
            };
            self.said.insert(name.path.to_vec(), (number, said));
        }
        Ok(())
    }

    /// Reads on until `most` bytes of the content are at hand, or it ends.
    fn fill(&mut self, body: &mut dyn Read, most: u64) -> Result<(), LayerError> {
        let left = most - self.content.len() as u64;
        let read = body.take(left).read_to_end(&mut self.content);
        read.map(drop).map_err(read_failure)
    }
}

/// The layer's own error, where it is one.
fn read_failure(error: std::io::Error) -> LayerError {
    let other = |error| LayerError::wrap(error, "read a file of the layer");
    error.downcast().unwrap_or_else(other)
}

#[cfg(test)]
mod tests;
