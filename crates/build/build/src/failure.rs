use std::fmt;

use dhow_dockerfile::{Span, SyntaxError};
use dhow_types::{ErrorKind, Failure};

dhow_types::define_error! {
    /// What failed in a build.
    pub struct Error;
}

/// A place in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, as the request gave it.
    pub file: String,
    /// Bytes of its text.
    pub span: Span,
}

/// Why there is no image: the error, and where in the Dockerfile it happened. The caller has the text and can draw
/// the excerpt.
#[derive(Debug)]
pub struct Failed {
    /// The error.
    pub error: Error,
    /// The instruction, or the flag of it, that failed.
    pub place: Option<Place>,
    /// Name of the step, as it was told to the observer.
    pub step: Option<String>,
    /// Further syntax errors, when the Dockerfile cannot be parsed.
    pub more: Vec<SyntaxError>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to solve: {}", self.error)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl Failure for Failed {
    fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    fn hint(&self) -> Option<&str> {
        Failure::hint(&self.error)
    }
}

/// An error on its way up, with the place that it got last.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) error: Error,
    pub(crate) span: Option<Span>,
    pub(crate) step: Option<String>,
    pub(crate) more: Vec<SyntaxError>,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self {
            error,
            span: None,
            step: None,
            more: Vec::new(),
        }
    }
}

impl From<SyntaxError> for Trouble {
    fn from(syntax: SyntaxError) -> Self {
        let mut error = Error::new(ErrorKind::InvalidArgument, syntax.message);
        if let Some(hint) = syntax.hint {
            error = error.with_hint(hint);
        }
        Self {
            span: Some(syntax.at),
            ..Self::from(error)
        }
    }
}

impl Trouble {
    /// The same with a place, unless it has a more exact one.
    #[must_use]
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    /// The same at this place: the one that it has is in a word, not in the file.
    #[must_use]
    pub(crate) const fn moved(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The same with the name of the step, unless it has one.
    #[must_use]
    pub(crate) fn in_step(mut self, step: &str) -> Self {
        self.step.get_or_insert_with(|| step.to_owned());
        self
    }

    pub(crate) fn into_failed(self, file: &str) -> Failed {
        Failed {
            error: self.error,
            place: self.span.map(|span| Place {
                file: file.to_owned(),
                span,
            }),
            step: self.step,
            more: self.more,
        }
    }
}

/// An error about what the person wrote.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// An error about what is not done.
pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// Why a stage ends early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Another stage failed; that one tells why.
    Elsewhere,
    /// This one failed.
    Here(Box<Trouble>),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Here(Box::new(Trouble::from(error)))
    }
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Self::Here(Box::new(trouble))
    }
}

impl Halt {
    /// The same with a place, unless it has a more exact one.
    #[must_use]
    pub(crate) fn at(self, span: Span) -> Self {
        match self {
            Self::Elsewhere => Self::Elsewhere,
            Self::Here(trouble) => Self::Here(Box::new(trouble.at(span))),
        }
    }

    /// The same with the name of the step, unless it has one.
    #[must_use]
    pub(crate) fn in_step(self, step: &str) -> Self {
        match self {
            Self::Elsewhere => Self::Elsewhere,
            Self::Here(trouble) => Self::Here(Box::new(trouble.in_step(step))),
        }
    }
}
