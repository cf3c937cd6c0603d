//! What is stated of tags, and the newest of it that was seen here: a tag does not go back behind that.
//!
//! ```text
//! ROOT/tags-seen/<hash of the name>    the greatest number of a statement about this tag, as text; made by rename
//! ```

use std::path::PathBuf;

use dhow_policy::{Known, Policy, TagFact, TagFacts};
use dhow_reference::Reference;
use dhow_sign::TagStatement;
use dhow_types::Digest;

use super::trust;
use crate::signature::Signatures;
use crate::{Context as _, Engine, Error};

/// Longest file that is read back: a number of 64 bits.
const MOST: u64 = 20;

impl Engine {
    fn seen_path(&self, reference: &Reference) -> PathBuf {
        let name = Digest::of(reference.canonical().as_bytes());
        self.settings().root.join("tags-seen").join(name.hex())
    }

    /// The greatest number that was seen for a tag.
    pub(super) fn tag_seen(&self, reference: &Reference) -> Option<u64> {
        use std::io::Read as _;
        let mut text = String::new();
        let file = std::fs::File::open(self.seen_path(reference)).ok()?;
        file.take(MOST).read_to_string(&mut text).ok()?;
        text.parse().ok()
    }

    /// Notes a number for a tag, when it is greater than what was seen.
    pub(super) fn note_tag(&self, reference: &Reference, counter: u64) -> Result<(), Error> {
        if self.tag_seen(reference).is_some_and(|seen| seen >= counter) {
            return Ok(());
        }
        let path = self.seen_path(reference);
        if let Some(folder) = path.parent() {
            crate::container::make_folder(folder)?;
        }
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let written =
            std::fs::write(&staged, counter.to_string()).and_then(|()| std::fs::rename(&staged, &path));
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(|| format!("write {}", path.display()))
    }

    /// What a policy's signers state of a tag; none of a name without one.
    pub(super) fn tag_facts(
        &self,
        policy: &Policy,
        reference: &Reference,
        found: &Signatures,
    ) -> Known<Option<TagFacts>> {
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            return Known::Is(None);
        };
        let mut facts = TagFacts {
            stated: Vec::new(),
            seen: self.tag_seen(reference),
        };
        for (name, document) in &policy.signers {
            let trust = match trust(document) {
                Ok(trust) => trust,
                Err(error) => {
                    return Known::Unknown(format!("signer {name}: {}", crate::worker::chain(&error)));
                }
            };
            let statements = found.judge(&trust).verified.into_iter();
            let stated =
                statements.filter_map(|verified| TagStatement::of(&verified.statement?).ok().flatten());
            let own = stated.filter(|stated| stated.repository == reference.name() && stated.tag == tag);
            if let Some(newest) = own.max_by_key(|stated| stated.counter) {
                facts.stated.push(TagFact {
                    signers: [name.clone()].into(),
                    counter: newest.counter,
                    expires: newest.expires,
                });
            }
        }
        Known::Is(Some(facts))
    }
}
