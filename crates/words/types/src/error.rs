use std::fmt;
use std::io;

/// What kind of failure this is: the closed set that every face of the program translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The thing to create is there already.
    AlreadyExists,
    /// The person or the caller stopped it.
    Cancelled,
    /// Stored bytes are not what they must be.
    DataLoss,
    /// The system is in a state that forbids the operation.
    FailedPrecondition,
    /// A bug or a failure of the host that nobody foresaw.
    Internal,
    /// The request itself is wrong.
    InvalidArgument,
    /// The thing asked for is not there.
    NotFound,
    /// Known who asks, and they may not.
    PermissionDenied,
    /// A limit of disk, memory, size or number is reached.
    ResourceExhausted,
    /// Not known who asks.
    Unauthenticated,
    /// The other side does not answer now; trying again may work.
    Unavailable,
    /// This build or this host cannot do it.
    Unsupported,
}

impl ErrorKind {
    /// All kinds, for tests that walk the tables.
    pub const ALL: [Self; 12] = [
        Self::AlreadyExists,
        Self::Cancelled,
        Self::DataLoss,
        Self::FailedPrecondition,
        Self::Internal,
        Self::InvalidArgument,
        Self::NotFound,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::Unauthenticated,
        Self::Unavailable,
        Self::Unsupported,
    ];

    /// Exit code of a command that failed so. Docker's commands exit with 1 for every failure of their own;
    /// `run`, `create` and `exec` map the failures before the process starts to 125, 126 and 127 themselves.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Cancelled => 130,
            _ => 1,
        }
    }

    /// HTTP status of an answer that reports this kind.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::AlreadyExists | Self::FailedPrecondition => 409,
            Self::Cancelled => 499,
            Self::DataLoss | Self::Internal => 500,
            Self::InvalidArgument => 400,
            Self::NotFound => 404,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 507,
            Self::Unauthenticated => 401,
            Self::Unavailable => 503,
            Self::Unsupported => 501,
        }
    }
}

/// An error that can say its kind: what every crate's error implements.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;

    /// What the person can do about it, when the code knows.
    fn hint(&self) -> Option<&str> {
        None
    }
}

impl Failure for io::Error {
    fn kind(&self) -> ErrorKind {
        match io::Error::kind(self) {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::PermissionDenied
            }
            io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse => ErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::OutOfMemory => ErrorKind::ResourceExhausted,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidArgument,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::DataLoss,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => ErrorKind::Unavailable,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        }
    }
}

/// The inside of every crate's opaque error; made through [`define_error`](crate::define_error).
#[derive(Debug)]
pub struct Report {
    /// The kind.
    pub kind: ErrorKind,
    /// What failed, on what: this layer only, lower case, no full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Why.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Defines a crate's opaque error and the crate-private `Context` trait that wraps other failures into it.
///
/// ```
/// dhow_types::define_error! {
///     /// What can go wrong here.
///     pub struct Error;
/// }
/// use dhow_types::ErrorKind;
/// fn open() -> Result<(), Error> {
///     std::fs::read("/nonexistent").context(|| "read the settings")?;
///     Err(Error::new(ErrorKind::InvalidArgument, "settings are empty").with_hint("write some"))
/// }
/// assert_eq!(open().unwrap_err().kind(), ErrorKind::NotFound);
/// ```
#[macro_export]
macro_rules! define_error {
    ($(#[$doc:meta])* $vis:vis struct $name:ident;) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name(Box<$crate::Report>);

        #[allow(dead_code, reason = "one shape for every crate's error; not every crate needs all of it")]
        impl $name {
            /// An error of this kind; `message` says what failed, on what.
            pub fn new(kind: $crate::ErrorKind, message: impl Into<String>) -> Self {
                Self(Box::new($crate::Report { kind, message: message.into(), hint: None, source: None }))
            }

            /// An error that another failure caused; kind and hint come from the cause.
            pub fn wrap(source: impl $crate::Failure, message: impl Into<String>) -> Self {
                Self(Box::new($crate::Report {
                    kind: source.kind(),
                    message: message.into(),
                    hint: source.hint().map(str::to_owned),
                    source: Some(Box::new(source)),
                }))
            }

            /// An error of a chosen kind with a cause that has none.
            pub fn because(
                kind: $crate::ErrorKind,
                message: impl Into<String>,
                source: impl Into<Box<dyn ::std::error::Error + Send + Sync>>,
            ) -> Self {
                Self(Box::new($crate::Report {
                    kind,
                    message: message.into(),
                    hint: None,
                    source: Some(source.into()),
                }))
            }

            /// The same error with a word on what to do.
            #[must_use]
            pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
                self.0.hint = Some(hint.into());
                self
            }

            /// The same error under another kind.
            #[must_use]
            pub fn with_kind(mut self, kind: $crate::ErrorKind) -> Self {
                self.0.kind = kind;
                self
            }

            /// The kind of this failure.
            #[must_use]
            pub fn kind(&self) -> $crate::ErrorKind {
                self.0.kind
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0.message)
            }
        }

        impl ::std::error::Error for $name {
            fn source(&self) -> Option<&(dyn ::std::error::Error + 'static)> {
                self.0.source.as_deref().map(|source| source as &(dyn ::std::error::Error + 'static))
            }
        }

        impl $crate::Failure for $name {
            fn kind(&self) -> $crate::ErrorKind {
                self.0.kind
            }

            fn hint(&self) -> Option<&str> {
                self.0.hint.as_deref()
            }
        }

        /// Turns any failure into this crate's error, saying what was being done.
        #[allow(dead_code, reason = "one shape for every crate's error")]
        pub(crate) trait Context<T> {
            /// Wraps the error side with what was being done.
            fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T, $name>;
        }

        impl<T, E: $crate::Failure> Context<T> for Result<T, E> {
            fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T, $name> {
                self.map_err(|source| $name::wrap(source, message()))
            }
        }
    };
}

/// Failures of a teardown that was finished all the same: each with the step that failed.
#[derive(Debug, Default)]
pub struct Failures(Vec<(&'static str, Box<dyn std::error::Error + Send + Sync>)>);

impl Failures {
    /// No failure so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the outcome of one step; "already gone" counts as done.
    pub fn record<E: Failure>(&mut self, step: &'static str, outcome: Result<(), E>) {
        if let Err(error) = outcome
            && error.kind() != ErrorKind::NotFound
        {
            self.0.push((step, Box::new(error)));
        }
    }

    /// `Ok` when every step was done.
    ///
    /// # Errors
    /// The failures themselves.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (step, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{step}: {error}")?;
            let mut cause = error.source();
            while let Some(inner) = cause {
                write!(f, ": {inner}")?;
                cause = inner.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failures {}

impl Failure for Failures {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}
