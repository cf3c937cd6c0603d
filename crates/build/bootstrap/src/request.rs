use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Target};

/// One file of apt sources, as its owner read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name; the ending decides the syntax (`.sources` is deb822, all else is one line each).
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What to make and from what.
#[derive(Clone, Debug)]
pub struct Request {
    /// Distribution, suite and variant.
    pub target: Target,
    /// Debian's word for the machine: `amd64`, `arm64` (see [`Request::architecture_of`]).
    pub architecture: String,
    /// The host's apt sources (`/etc/apt/sources.list`, `/etc/apt/sources.list.d/*`), from which those that offer the
    /// suite are taken.
    pub sources: Vec<SourceFile>,
    /// A mirror to use in place of the sources, such as `http://host/debian`.
    pub mirror: Option<String>,
    /// Keyring files for sources that name none with `Signed-By`, and for `mirror`.
    pub keyrings: Vec<PathBuf>,
    /// Whether `keyrings` stand in place of the keys that sources name with `Signed-By`, too: the person named them.
    pub only_keyrings: bool,
    /// Packages to install beside the base: `name`, or `name=version` for that version and no other.
    pub include: Vec<String>,
    /// Nothing but the packages of `include` and what they need: no base, no package manager, no shell. Their scripts are
    /// not run, so what only scripts need is not taken.
    pub only: bool,
    /// Packages that are not taken, whatever depends on them. For [`Request::only`].
    pub leave_out: Vec<String>,
    /// An existing empty directory that becomes the root; the caller owns it and removes it after a failure.
    pub root: PathBuf,
    /// A directory for downloads, kept between calls; made when absent.
    pub cache: PathBuf,
    /// Seconds since 1970: the clock against which expiry is judged.
    pub now: i64,
    /// Take unsigned or badly signed indices (with a loud warning).
    pub insecure: bool,
    /// Accept a `Release` past its `Valid-Until` (archives of old releases, snapshots), with a warning.
    pub accept_expired: bool,
}

impl Request {
    /// Debian's word for an OCI architecture, if Debian has one.
    #[must_use]
    pub fn architecture_of(oci: &str) -> Option<&'static str> {
        Some(match oci {
            "amd64" => "amd64",
            "arm64" => "arm64",
            "386" => "i386",
            "arm" => "armhf",
            "ppc64le" => "ppc64el",
            "s390x" => "s390x",
            "riscv64" => "riscv64",
            "mips64le" => "mips64el",
            "loong64" => "loong64",
            _ => return None,
        })
    }
}

/// Brings what a URL names. Resuming, retrying and redirects are its job. Called from several threads at once.
pub trait Fetch: Send + Sync {
    /// The body behind `url`.
    ///
    /// # Errors
    /// Kind `NotFound` when the server says that there is no such thing; another kind for every other failure.
    fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, Error>;
}

/// Runs programs of the new root inside it, with `/proc`, `/dev` and a private network, as the root user.
///
/// `fsync` and its kin may be answered with success at once (a volatile overlay, or a seccomp rule): a tree that a
/// crash cuts short is thrown away. dpkg and update-alternatives call it 700 times for a base system of Debian 12;
/// without the waiting their part took 3.8 s in place of 7.2 s, measured on a busy virtual disk.
pub trait Configure {
    /// Runs `argv` with exactly `env`, standard input empty, both outputs to `output`; gives the exit code.
    ///
    /// # Errors
    /// When the program could not be started; an exit code other than 0 is no error here.
    fn run(
        &self,
        root: &Path,
        argv: &[&str],
        env: &[(&str, &str)],
        output: &mut dyn Write,
    ) -> Result<i32, Error>;
}
