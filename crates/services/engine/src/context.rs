//! Build contexts that come as a tar: from standard input or from a URL.

use std::io::{Cursor, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use dhow_build::{GitAccess, GitSource, Material};
use dhow_layer::{Compression, Scratch, decoder, tar::is_archive};
use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::container::unpack_tree;
use crate::git::Git;
use crate::{Context as _, Engine, Error};

/// As much of a stream as tells what it is: one block of a tar.
const HEAD: u64 = 512;
/// Largest Dockerfile that a URL may lead to.
const MAX_DOCKERFILE: u64 = 8 << 20;

/// A folder with a build context, removed when this is dropped.
#[derive(Debug)]
pub struct ContextFolder {
    scratch: Scratch,
    /// The part of it that is the context.
    inside: PathBuf,
}

/// What is known of a context besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextAbout {
    /// When it was made, seconds since 1970: of a commit its own time, of a download what the server says, or else the time
    /// of the newest file in the archive.
    pub time: Option<i64>,
    /// What it is, when it can be said.
    pub source: Option<Material>,
    /// Whether it is a Dockerfile alone.
    pub alone: bool,
}

/// A git repository as a build context, in the forms of docker: `URL#REF:SUBDIR` or with a query.
#[derive(Clone, Debug)]
pub struct GitContext {
    source: GitSource,
    /// Whether `.git` is part of the context.
    pub keep_git_dir: bool,
    /// A token for the repository's host.
    pub token: Option<String>,
    /// A whole `Authorization` for it, in place of a token.
    pub header: Option<String>,
    /// Socket of an ssh agent.
    pub agent: Option<PathBuf>,
}

impl GitContext {
    /// Reads what a person wrote; `github.com/OWNER/NAME` is short for its address.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such text, and for what could be taken for an option of git.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut whole = text.to_owned();
        if text.starts_with("github.com/") {
            let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
            let ending = if place.ends_with(".git") { "" } else { ".git" };
            let mark = if fragment.is_empty() { "" } else { "#" };
            whole = format!("https://{place}{ending}{mark}{fragment}");
        }
        let source = GitSource::parse(&whole).context(|| "unable to prepare context")?;
        Ok(Self {
            source,
            keep_git_dir: false,
            token: None,
            header: None,
            agent: None,
        })
    }

    /// The part of the repository that is the context.
    #[must_use]
    pub fn subdir(&self) -> &str {
        &self.source.subdir
    }
}

impl ContextFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join(&self.inside)
    }

    /// Makes a folder in it the context. Links are followed inside: it may be hostile.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what is no folder.
    pub fn enter(&mut self, inside: &str) -> Result<(), Error> {
        if inside.is_empty() {
            return Ok(());
        }
        let what = || format!("find {inside:?} in the build context");
        let root = Root::open(&self.path()).context(what)?;
        let status = root.metadata(Path::new(inside)).context(what)?;
        if FileKind::of_mode(status.st_mode) != FileKind::Directory {
            let message = format!("{inside:?} in the build context is no folder");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let real = root.real_path(Path::new(inside)).context(what)?;
        self.inside.push(real.strip_prefix("/").unwrap_or(&real));
        Ok(())
    }

    /// A file of the context as text. Links are followed in the context: it may be hostile.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what is no text; `ResourceExhausted` beyond `most` bytes.
    pub fn text(&self, name: &Path, most: u64) -> Result<String, Error> {
        let what = || format!("failed to read dockerfile: open {}", name.display());
        let root = Root::open(&self.path()).context(what)?;
        let bytes = root.read(name, most).context(what)?;
        String::from_utf8(bytes).map_err(|error| Error::because(ErrorKind::InvalidArgument, what(), error))
    }
}

/// Whether a stream that begins so is a tar, compressed or not.
#[must_use]
pub fn is_context(head: &[u8]) -> bool {
    Compression::sniff(head) != Compression::None || head.get(..512).is_some_and(is_archive)
}

impl Engine {
    /// An empty folder for a build context.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn context_folder(&self) -> Result<ContextFolder, Error> {
        let scratch = self.store()?.layers.scratch("context");
        let scratch = scratch.context(|| "make a folder for the build context")?;
        Ok(ContextFolder {
            scratch,
            inside: PathBuf::new(),
        })
    }

    /// Checks a commit out into it. Starts threads: not for a process that builds afterwards.
    ///
    /// # Errors
    /// `Unsupported` without the `git` program; what it said.
    pub fn fetch_git_context(&self, folder: &ContextFolder, git: &GitContext) -> Result<ContextAbout, Error> {
        let what = || format!("fetch the build context {}", git.source.remote);
        let home = self.context_folder()?;
        let (home, never) = (home.path(), AtomicBool::new(false));
        let access = GitAccess {
            header: git.header.as_deref(),
            token: git.token.as_deref(),
            agent: git.agent.as_deref(),
            cancel: &never,
        };
        let program = Git::new(&git.source, &access, &home);
        let commit = program.commit(&git.source).context(what)?;
        let wanted = git.source.commit.as_deref().unwrap_or_default();
        if !commit.starts_with(wanted) {
            let message = format!("{}: it is at {commit}, and the checksum wants {wanted}", what());
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        program
            .checkout(&git.source, &commit, &folder.path())
            .context(what)?;
        let time = program.time(&folder.path()).context(what)?;
        if !git.source.keep_git_dir.unwrap_or(git.keep_git_dir) {
            let root = Root::open(&folder.path()).context(what)?;
            root.remove_all(Path::new(".git")).context(what)?;
        }
        Ok(ContextAbout {
            time: Some(time),
            source: Some(git.source.material(&commit)),
            alone: false,
        })
    }

    /// Unpacks a tar, compressed or not, into it. Everything in it belongs to this process.
    ///
    /// # Errors
    /// Those of a malformed or hostile archive; failures of the file system.
    pub fn fill_context(&self, folder: &ContextFolder, input: impl Read + Send) -> Result<(), Error> {
        let what = || "unpack the build context";
        let (_, tar) = decoder(input).context(what)?;
        let root = Root::open(&folder.path()).context(what)?;
        unpack_tree(&root, tar).context(what)
    }

    /// Fetches a tar, or a Dockerfile alone, from a URL. Starts a thread: not for a process that builds afterwards.
    ///
    /// # Errors
    /// What the server said; as [`Engine::fill_context`].
    pub fn fetch_context(&self, folder: &ContextFolder, url: &str) -> Result<ContextAbout, Error> {
        let what = || format!("fetch the build context {url}");
        let download = self.client()?.get(url).context(what)?;
        let modified = download.modified.and_then(|time| i64::try_from(time).ok());
        let mut body = download.body;
        let mut head = Vec::new();
        (&mut body).take(HEAD).read_to_end(&mut head).context(what)?;
        let archive = is_context(&head);
        let mut whole = Cursor::new(head).chain(body);
        if archive {
            self.fill_context(folder, whole).context(what)?;
            let root = Root::open(&folder.path()).context(what)?;
            return Ok(ContextAbout {
                time: modified.or(newest(&root).context(what)?),
                source: None,
                alone: false,
            });
        }
        let path = folder.path().join("Dockerfile");
        let mut file = std::fs::File::create(&path).context(|| format!("create {}", path.display()))?;
        let written = std::io::copy(&mut (&mut whole).take(MAX_DOCKERFILE + 1), &mut file).context(what)?;
        if written > MAX_DOCKERFILE {
            let message =
                format!("{url} is neither a tar nor a Dockerfile: it has more than {MAX_DOCKERFILE} bytes");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        file.flush().context(what)?;
        Ok(ContextAbout {
            time: modified,
            source: None,
            alone: true,
        })
    }
}

/// The time of the newest file, in seconds since 1970: folders may be as old as their unpacking.
fn newest(root: &Root) -> Result<Option<i64>, dhow_rootpath::Error> {
    let mut found = None;
    let mut todo = vec![PathBuf::from(".")];
    while let Some(folder) = todo.pop() {
        for entry in root.read_dir(&folder)? {
            let path = folder.join(&entry.name);
            if entry.kind == FileKind::Directory {
                todo.push(path);
            } else {
                found = found.max(Some(root.symlink_metadata(&path)?.st_mtime));
            }
        }
    }
    Ok(found)
}
