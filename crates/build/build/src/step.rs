use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dhow_dockerfile::{Network, Security, Span};
use dhow_image::Image;
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_snapshot::Active;
use dhow_types::{DiffId, Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::cache_mounts::MountName;
use crate::request::{Limit, Sandbox};
use crate::{Error, GitSource};

/// Runs the commands of `RUN` steps. Several may run at once.
pub trait Executor: Sync {
    /// Runs one command to its end and gives its exit code. The snapshot is not mounted when this is called, and
    /// must not be when it returns. Nothing that was bound into it may stay there, but empty mount points may: the
    /// build removes those that it can foresee ([`RunStep::mount_points`]).
    ///
    /// # Errors
    /// When the command could not be run at all; `Cancelled` when [`RunStep::cancel`] was seen.
    fn run(&self, step: &RunStep<'_>, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i32, Error>;

    /// What a device of this host mounts into a container (Container Device Interface); none when there is no such device.
    /// `sandbox` says where the files about devices are.
    fn device(&self, _name: &str, _sandbox: &Sandbox) -> Option<Vec<PathBuf>> {
        None
    }
}

/// Gets what is not in the store: base images, what `ADD` and named contexts take from elsewhere, and what other
/// builds made.
///
/// Only [`Images::pull`] has to be there: a builder without the others refuses what would need them.
pub trait Images: Sync {
    /// Pulls an image into the store.
    ///
    /// # Errors
    /// Those of the registry.
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Image, Error>;

    /// Whether an image may be a base, or the source of a `--from`; `name` is that of the Dockerfile.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, name: &str, image: &Image) -> Result<(), Error> {
        let _ = (name, image);
        Ok(())
    }

    /// The config of an image of a registry, without its layers.
    ///
    /// # Errors
    /// Those of the registry.
    fn config(&self, reference: &Reference, platform: &Platform) -> Result<ImageConfig, Error> {
        let _ = platform;
        Err(missing(&format!("look at {}", reference.familiar())))
    }

    /// The result of a step that was made elsewhere, by any of its keys; its layer is in the store then.
    ///
    /// # Errors
    /// What makes the build fail; a cache that cannot be had is better left out.
    fn made_elsewhere(&self, keys: &[Digest]) -> Result<Option<StepResult>, Error> {
        let _ = keys;
        Ok(None)
    }

    /// Fills the new directory of a cache mount with what it had elsewhere.
    ///
    /// # Errors
    /// What makes the build fail.
    fn fill_mount(&self, name: &MountName, folder: &Path) -> Result<(), Error> {
        let _ = (name, folder);
        Ok(())
    }

    /// Takes an image of an OCI layout into the store: the one of this tag or digest, or the only one.
    ///
    /// # Errors
    /// `NotFound` when the layout has no such image for this platform.
    fn layout(&self, path: &Path, name: Option<&str>, platform: &Platform) -> Result<Image, Error> {
        let _ = (name, platform);
        Err(missing(&format!("read the layout {}", path.display())))
    }

    /// Downloads a file, unless it is the one that is [known](Download::known).
    ///
    /// # Errors
    /// Those of the server; `ResourceExhausted` for more than [`Download::most`] bytes.
    fn download(&self, download: &Download<'_>, to: &mut File) -> Result<Answer, Error> {
        let _ = to;
        Err(missing(&format!("download {}", download.url)))
    }

    /// The whole id of the commit that a repository has under the reference of the source.
    ///
    /// # Errors
    /// Those of the server; `NotFound` when there is no such reference; `Unsupported` without git.
    fn commit(&self, source: &GitSource, access: &GitAccess<'_>) -> Result<String, Error> {
        let _ = access;
        Err(missing(&format!("fetch {}", source.shown())))
    }

    /// When a commit was made, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Images::commit`].
    fn commit_time(&self, source: &GitSource, commit: &str, access: &GitAccess<'_>) -> Result<i64, Error> {
        let _ = (commit, access);
        Err(missing(&format!("fetch {}", source.shown())))
    }

    /// Writes the files of a commit, and its `.git`, into an empty directory.
    ///
    /// # Errors
    /// As [`Images::commit`].
    fn checkout(
        &self,
        source: &GitSource,
        commit: &str,
        access: &GitAccess<'_>,
        into: &Path,
    ) -> Result<(), Error> {
        let _ = (commit, access, into);
        Err(missing(&format!("fetch {}", source.shown())))
    }
}

/// A file to download.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Where it is: `http` or `https`.
    pub url: &'a str,
    /// `Authorization` for the host of the URL, and for no other that it redirects to.
    pub authorization: Option<&'a str>,
    /// The tag of the file that is known already; none together with an authorization.
    pub known: Option<&'a str>,
    /// Most bytes.
    pub most: u64,
    /// When set, the download is to end.
    pub cancel: &'a AtomicBool,
}

/// What a server says of a file.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// When it was changed last, in seconds since 1970, when the server says it.
    pub modified: Option<u64>,
    /// What tells it from what it was and will be (`ETag`), when the server says it.
    pub tag: Option<String>,
    /// It is the one that is known, and was not downloaded.
    pub same: bool,
}

/// What may be used to fetch a repository.
#[derive(Clone, Copy)]
pub struct GitAccess<'a> {
    /// `Authorization` for the host of the repository.
    pub header: Option<&'a str>,
    /// A token for it, in place of a header.
    pub token: Option<&'a str>,
    /// Socket of an ssh agent.
    pub agent: Option<&'a Path>,
    /// When set, git is to end.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for GitAccess<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitAccess")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

fn missing(what: &str) -> Error {
    crate::failure::unsupported(format!("this builder cannot {what}"))
}

/// What a step gave, to be told to other builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// The keys that lead to it.
    pub keys: Vec<Digest>,
    /// Its layer.
    pub layer: DiffId,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
}

/// One command to run.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// The root file system: to be mounted writable.
    pub snapshot: &'a Active,
    /// Program and arguments; the program is looked up in `PATH` of `env`.
    pub args: &'a [String],
    /// Environment, `NAME=value`; `PATH` is there, `HOME` is the executor's to add.
    pub env: &'a [String],
    /// Working directory, absolute; to be made when it is not there.
    pub cwd: &'a str,
    /// `user[:group]` as in the image config, to be looked up in the root file system; empty for root.
    pub user: &'a str,
    /// Network.
    pub network: Network,
    /// Privileges.
    pub security: Security,
    /// Devices of the host by the Container Device Interface.
    pub devices: &'a [String],
    /// What to mount, in order.
    pub mounts: &'a [StepMount],
    /// Host name: `buildkitsandbox`, or what the build argument `BUILDKIT_SANDBOX_HOSTNAME` says.
    pub hostname: &'a str,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Resource limits.
    pub ulimits: &'a [Limit],
    /// Control group below which the command's own is to be.
    pub cgroup_parent: Option<&'a str>,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: &'a [(String, String)],
    /// How its sandbox differs from the usual one.
    pub sandbox: &'a Sandbox,
    /// When set, the command is to be killed.
    pub cancel: &'a AtomicBool,
}

impl RunStep<'_> {
    /// Paths that every container has something mounted on, besides those of [`RunStep::mounts`].
    pub const STANDARD_MOUNT_POINTS: [&'static str; 6] = [
        "proc",
        "dev",
        "sys",
        "etc/resolv.conf",
        "etc/hosts",
        "etc/hostname",
    ];

    /// All paths below the root, without leading `/`, that may be left as empty mount points.
    #[must_use]
    pub fn mount_points(&self) -> Vec<PathBuf> {
        let own = self.mounts.iter().map(|mount| {
            let target = mount.target.strip_prefix("/").unwrap_or(&mount.target);
            target.to_owned()
        });
        Self::STANDARD_MOUNT_POINTS
            .iter()
            .map(PathBuf::from)
            .chain(own)
            .collect()
    }
}

/// Something mounted for one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A file or directory of the host, to be bound.
    Bind(PathBuf),
    /// A fresh tmpfs.
    Tmpfs {
        /// Most bytes.
        size: Option<u64>,
        /// Whether it begins with what is at its target.
        copy_up: bool,
    },
}

/// Which of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// Takes the events of a build; called from several threads at once, and must return quickly.
pub trait BuildObserver: Sync {
    /// Takes one event.
    fn observe(&self, event: Event<'_>);
}

/// What happens in a build. `step` numbers are unique in one build.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step begins; its name is docker's: `[stage 2/5] RUN make`.
    Started {
        /// Which.
        step: u32,
        /// Its name.
        name: &'a str,
    },
    /// The step's result was in the cache; [`Event::Finished`] follows.
    Cached {
        /// Which.
        step: u32,
    },
    /// The step's result was not in the cache.
    Missed {
        /// Which.
        step: u32,
        /// The first of its inputs that is not as it was, in words.
        why: &'a str,
    },
    /// The command of the step wrote something.
    Output {
        /// Which.
        step: u32,
        /// Where to.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
    },
    /// The step is over.
    Finished {
        /// Which.
        step: u32,
        /// How long it took.
        took: Duration,
        /// Why it failed.
        error: Option<&'a str>,
    },
    /// Something in the Dockerfile that works but is not wise.
    Warning {
        /// What.
        message: &'a str,
        /// Where.
        at: Span,
    },
}

/// Ignores every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl BuildObserver for NoObserver {
    fn observe(&self, _: Event<'_>) {}
}
