//! Quadlet: files that describe a container, volume, network, pod, image or build as systemd describes services
//! (podman-systemd.unit(5)), made into services that systemd starts. Pure: no files, no environment; whoever calls reads the
//! files and writes what comes of them.
//!
//! A file is a [`UnitFile`]; its drop-ins are merged into it first. [`convert`] takes all files at once, since they name each
//! other, and gives a [`Service`] for each, with the links that its `[Install]` group asks for. The file's own group stays in
//! the service under a name that systemd passes over (`[Container]` is `[X-Container]` there).
//!
//! What podman has and this program has not (`kube play`, artifacts) is converted, too, since the service may call podman
//! itself, with a warning that says so.

#![forbid(unsafe_code)]

mod convert;
mod keys;
mod unit;
mod words;

use std::path::{Path, PathBuf};

pub use convert::{Outcome, convert};
pub use unit::UnitFile;
pub use words::line as command_line;

/// Largest file that is read.
pub const MAX_FILE: u64 = 1 << 20;

dhow_types::define_error! {
    /// A file that is no unit, or cannot be a service.
    pub struct Error;
}

/// What a file describes, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `.image`: an image to pull.
    Image,
    /// `.artifact`: an artifact to pull.
    Artifact,
    /// `.volume`: a volume to make.
    Volume,
    /// `.network`: a network to make.
    Network,
    /// `.build`: an image to build.
    Build,
    /// `.container`: a container to run.
    Container,
    /// `.kube`: YAML to play.
    Kube,
    /// `.pod`: a pod, which its containers name before it is converted.
    Pod,
}

impl Kind {
    /// All kinds, in the order in which files are converted: what is named by others comes before them.
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::Artifact,
        Self::Volume,
        Self::Network,
        Self::Build,
        Self::Container,
        Self::Kube,
        Self::Pod,
    ];

    /// The kind of a file of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let extension = Path::new(name).extension()?.to_str()?;
        Self::ALL.into_iter().find(|kind| kind.extension() == extension)
    }

    /// The end of its files' names, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Artifact => "artifact",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Build => "build",
            Self::Container => "container",
            Self::Kube => "kube",
            Self::Pod => "pod",
        }
    }

    /// Its group in a file.
    const fn group(self) -> &'static str {
        match self {
            Self::Image => "Image",
            Self::Artifact => "Artifact",
            Self::Volume => "Volume",
            Self::Network => "Network",
            Self::Build => "Build",
            Self::Container => "Container",
            Self::Kube => "Kube",
            Self::Pod => "Pod",
        }
    }

    /// What the name of its service has after that of its file.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Image => "-image",
            Self::Artifact => "-artifact",
            Self::Volume => "-volume",
            Self::Network => "-network",
            Self::Build => "-build",
            Self::Pod => "-pod",
            Self::Container | Self::Kube => "",
        }
    }
}

/// What services are made for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The program that they call.
    pub program: &'a str,
    /// Whether they are a user's, and not the machine's.
    pub user: bool,
    /// Whether a path is there: a device may be asked for if it is.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("program", &self.program)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A service that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name of its file.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Links to make beside it, each with what it leads to.
    pub links: Vec<(PathBuf, PathBuf)>,
}
