//! What a tag points to, signed and with an end: so that whoever has the registry, or the way to it, cannot move a tag back to
//! an image of before, or hold it where it is for ever (what TUF calls rollback and freeze).

use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::statement::{Statement, shortened};

/// The predicate type of such a statement.
pub const TAG: &str = "https://github.com/dhow-project/dhow/blob/main/docs/signatures.md#tag/v1";
/// Longest time for which one counts, in seconds: ten years.
const MAX_TIME: i64 = 10 * 365 * 86_400;

/// That a tag points to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagStatement {
    /// Registry and repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Grows with each statement about the tag: the greater one is the newer one.
    pub counter: u64,
    /// From when, in seconds since 1970.
    pub issued: i64,
    /// Until when.
    pub expires: i64,
}

impl TagStatement {
    /// As a statement about the image.
    ///
    /// # Errors
    /// `InvalidArgument` for a time that ends before it begins, or too late.
    pub fn about(&self, digest: &Digest) -> Result<Statement, Error> {
        self.check()?;
        let predicate = serde_json::to_value(self)
            .map_err(|error| Error::because(ErrorKind::Internal, "write a statement about a tag", error))?;
        Ok(Statement::new(
            &self.repository,
            digest,
            TAG,
            predicate,
            Labels::new(),
        ))
    }

    /// What a statement says of a tag; none when it is one of another kind.
    ///
    /// # Errors
    /// `InvalidArgument` for one that says it wrongly.
    pub fn of(statement: &Statement) -> Result<Option<Self>, Error> {
        if statement.predicate_type != TAG {
            return Ok(None);
        }
        let read: Self = serde_json::from_value(statement.predicate.clone()).map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                "read the statement about a tag",
                error,
            )
        })?;
        read.check()?;
        Ok(Some(read))
    }

    fn check(&self) -> Result<(), Error> {
        let time = self.expires.checked_sub(self.issued);
        if time.is_some_and(|time| (1..=MAX_TIME).contains(&time)) {
            return Ok(());
        }
        let message = format!(
            "the statement about the tag {:?} counts for no sensible time",
            shortened(&self.tag)
        );
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}
