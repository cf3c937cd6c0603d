//! Build contexts that come as a tar: from standard input or from a URL.

use std::io::{Cursor, Read, Write as _};
use std::path::{Path, PathBuf};

use dhow_layer::{Compression, Scratch, decoder, tar::is_archive};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;

use crate::container::unpack_tree;
use crate::{Context as _, Engine, Error};

/// As much of a stream as tells what it is: one block of a tar.
const HEAD: u64 = 512;
/// Largest Dockerfile that a URL may lead to.
const MAX_DOCKERFILE: u64 = 8 << 20;

/// A folder with a build context, removed when this is dropped.
#[derive(Debug)]
pub struct ContextFolder(Scratch);

impl ContextFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
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
        scratch
            .map(ContextFolder)
            .context(|| "make a folder for the build context")
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
    pub fn fetch_context(&self, folder: &ContextFolder, url: &str) -> Result<(), Error> {
        let what = || format!("fetch the build context {url}");
        let mut body = self.client()?.get(url).context(what)?.body;
        let mut head = Vec::new();
        (&mut body).take(HEAD).read_to_end(&mut head).context(what)?;
        let archive = is_context(&head);
        let mut whole = Cursor::new(head).chain(body);
        if archive {
            return self.fill_context(folder, whole).context(what);
        }
        let path = folder.path().join("Dockerfile");
        let mut file = std::fs::File::create(&path).context(|| format!("create {}", path.display()))?;
        let written = std::io::copy(&mut (&mut whole).take(MAX_DOCKERFILE + 1), &mut file).context(what)?;
        if written > MAX_DOCKERFILE {
            let message =
                format!("{url} is neither a tar nor a Dockerfile: it has more than {MAX_DOCKERFILE} bytes");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        file.flush().context(what)
    }
}
