/// Something that long work says about itself. Libraries report; only faces print.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Work on `id` began; `what` is docker's word for it ("Pulling fs layer", "Preparing").
    Begin {
        /// Which piece, e.g. a short digest.
        id: &'a str,
        /// What is being done to it.
        what: &'a str,
        /// How many bytes or items there will be, if known.
        total: Option<u64>,
    },
    /// `id` has come so far.
    Advance {
        /// Which piece.
        id: &'a str,
        /// Bytes or items done.
        current: u64,
    },
    /// Work on `id` ended with this word ("Pull complete", "Already exists").
    End {
        /// Which piece.
        id: &'a str,
        /// The outcome.
        status: &'a str,
    },
    /// A line for the person.
    Message(&'a str),
    /// Something that the person should know though the work goes on.
    Warning(&'a str),
}

/// Takes progress reports; called from several threads at once.
pub trait Observer: Send + Sync {
    /// Takes one report. Must return quickly: the work waits.
    fn observe(&self, progress: Progress<'_>);
}

/// Ignores every report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: Progress<'_>) {}
}
