//! That an image is not to be used any more, signed: so that it may be refused, and whoever can write to a registry cannot say it.

use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::statement::Statement;

/// The predicate type of such a statement.
pub const LIFECYCLE: &str = "https://github.com/dhow-project/dhow/blob/main/docs/signatures.md#lifecycle/v1";
/// Most annotations of one, and bytes of all of them.
const MOST: usize = 16;
const MOST_BYTES: usize = 16 << 10;

/// What is said of the end of an image's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleStatement {
    /// When, in seconds since 1970: a later one takes the place of an earlier one.
    pub issued: i64,
    /// What a referrer of the type `application/vnd.artifact.lifecycle` has as annotations; none: it may be used again.
    pub annotations: Labels,
}

impl LifecycleStatement {
    /// As a statement about an image.
    ///
    /// # Errors
    /// `InvalidArgument` for one that says too much.
    pub fn about(&self, repository: &str, digest: &Digest) -> Result<Statement, Error> {
        self.check()?;
        let predicate = serde_json::to_value(self).map_err(|error| {
            Error::because(ErrorKind::Internal, "write a statement about an image", error)
        })?;
        Ok(Statement::new(
            repository,
            digest,
            LIFECYCLE,
            predicate,
            Labels::new(),
        ))
    }

    /// What a statement says of an image's end; none when it is one of another kind.
    ///
    /// # Errors
    /// `InvalidArgument` for one that says it wrongly.
    pub fn of(statement: &Statement) -> Result<Option<Self>, Error> {
        if statement.predicate_type != LIFECYCLE {
            return Ok(None);
        }
        let read: Self = serde_json::from_value(statement.predicate.clone()).map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                "read the statement about an image",
                error,
            )
        })?;
        read.check()?;
        Ok(Some(read))
    }

    fn check(&self) -> Result<(), Error> {
        let bytes: usize = self
            .annotations
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if self.issued > 0 && self.annotations.len() <= MOST && bytes <= MOST_BYTES {
            return Ok(());
        }
        let message = format!(
            "the statement about an image has no time, more than {MOST} annotations, or more than {MOST_BYTES} bytes"
        );
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}

#[cfg(test)]
mod tests {
    use dhow_types::Digest;
    use serde_json::json;

    use super::{LIFECYCLE, Labels, LifecycleStatement, Statement};

    #[test]
    fn what_is_stated_is_read_back_and_what_is_too_much_or_another_kind_is_not() {
        let digest = Digest::of(b"image");
        let said = LifecycleStatement {
            issued: 7,
            annotations: Labels::from([("a".to_owned(), "b".to_owned())]),
        };
        let statement = said.about("registry.example/app", &digest).unwrap();
        assert_eq!(LifecycleStatement::of(&statement).unwrap(), Some(said.clone()));
        let other = Statement::new("", &digest, "https://example.com/other", json!({}), Labels::new());
        assert_eq!(LifecycleStatement::of(&other).unwrap(), None);
        let never = LifecycleStatement {
            issued: 0,
            ..said.clone()
        };
        assert!(never.about("a", &digest).is_err());
        let long = LifecycleStatement {
            annotations: Labels::from([("a".to_owned(), "b".repeat(17 << 10))]),
            ..said
        };
        assert!(long.about("a", &digest).is_err());
        for predicate in [
            json!({}),
            json!({"issued": -1, "annotations": {}}),
            json!({"issued": 1, "annotations": {"a": 1}}),
            json!({"issued": 1, "annotations": {}, "more": true}),
            json!({"issued": 1, "annotations": (0..17).map(|at| (at.to_string(), json!(""))).collect::<serde_json::Map<_, _>>()}),
        ] {
            let statement = Statement::new("", &digest, LIFECYCLE, predicate.clone(), Labels::new());
            assert!(LifecycleStatement::of(&statement).is_err(), "{predicate}");
        }
    }
}
