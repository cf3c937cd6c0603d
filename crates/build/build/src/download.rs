//! Files of web servers, fetched again only when they are others than they were.
//!
//! `ROOT/cache/url/<hash of the URL>` holds the tag that a server gave, and what the file was. A server that still has
//! that tag says so in place of the file, which is fetched only when a step needs it after all.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Error, Halt, invalid};
use crate::ignore::Patterns;
use crate::outside::{self, Once, Outside};
use crate::schedule::Build;
use crate::source::Source as _;
use crate::step::{Answer, Download};

/// Most bytes of one download.
const MAX_DOWNLOAD: u64 = 64 << 30;
/// Most bytes of what is known of a URL, and of a tag in it.
const MAX_KNOWN: u64 = 16 << 10;
const MAX_TAG: usize = 1 << 10;

/// A downloaded file, or one that is known to be what it was.
#[derive(Debug)]
pub(crate) struct Downloaded {
    pub(crate) digest: Digest,
    /// When it was changed last, when the server says it.
    pub(crate) modified: Option<u64>,
    url: String,
    /// Its file in the tree.
    name: String,
    tree: Once<Outside>,
}

/// What was at a URL when it had this tag.
#[derive(Debug, Deserialize, Serialize)]
struct Known {
    url: String,
    tag: String,
    digest: Digest,
    modified: Option<u64>,
}

impl Downloaded {
    /// Asks for a file; a digest that is known before is checked.
    pub(crate) fn fetch(
        build: &Build<'_>,
        url: &str,
        name: &str,
        wanted: Option<&Digest>,
    ) -> Result<Self, Halt> {
        let authorization = outside::http_authorization(build, url)?;
        // What only some may have is not known to all.
        let known = Some(url).filter(|_| authorization.is_none());
        let known = known.and_then(|url| Known::read(build, url));
        let found = Self::ask(build, (url, name), authorization.as_deref(), known)?;
        if let Some(wanted) = wanted.filter(|wanted| **wanted != found.digest) {
            let digest = found.digest;
            let message =
                format!("digest mismatch for {url}: it has {digest}, and --checksum wants {wanted}");
            return Err(Error::new(ErrorKind::DataLoss, message).into());
        }
        Ok(found)
    }

    fn ask(
        build: &Build<'_>,
        (url, name): (&str, &str),
        authorization: Option<&str>,
        known: Option<Known>,
    ) -> Result<Self, Halt> {
        let dir = outside::temporary(build)?;
        let path = dir.path().join("files").join(name);
        let what = || format!("write {}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(what)?;
        let asked = Download {
            url,
            authorization,
            known: known.as_ref().map(|known| known.tag.as_str()),
            most: MAX_DOWNLOAD,
            cancel: &build.request.cancel,
        };
        let answer = build
            .images
            .download(&asked, &mut file)
            .context(|| format!("download {url}"))?;
        let found = |digest, modified, tree| Self {
            digest,
            modified,
            url: url.to_owned(),
            name: name.to_owned(),
            tree,
        };
        if let Some(known) = known.filter(|_| answer.same) {
            return Ok(found(known.digest, known.modified, Once::default()));
        }
        // Docker takes 1970 for a file of unknown age.
        let age = Duration::from_secs(answer.modified.unwrap_or(0));
        file.set_modified(UNIX_EPOCH + age).context(what)?;
        let digest = digest_of(&mut file).context(what)?;
        if authorization.is_none() {
            Known::write(build, url, digest, &answer);
        }
        let tree = Once::default();
        let patterns = Patterns::default();
        tree.get(|| outside::fetched(build, dir, String::new(), patterns))?;
        Ok(found(digest, answer.modified, tree))
    }

    /// The folder that it lies in.
    pub(crate) fn tree(&self, build: &Build<'_>) -> Result<Arc<Outside>, Halt> {
        self.tree.share(|| {
            let again = Self::ask(build, (&self.url, &self.name), None, None)?;
            if again.digest != self.digest {
                let message = format!("{} was changed while it was used", self.url);
                return Err(Error::new(ErrorKind::DataLoss, message)
                    .with_hint("build again")
                    .into());
            }
            again.tree(build)
        })
    }

    /// Its bytes.
    pub(crate) fn open(&self, build: &Build<'_>) -> Result<File, Halt> {
        let tree = self.tree(build)?;
        let top = tree.context.stat(self.name.as_bytes())?;
        let top = top.ok_or_else(|| invalid(format!("the download {} is gone", self.name)))?;
        Ok(tree.context.open(&top)?.0)
    }
}

impl Known {
    fn path(build: &Build<'_>, url: &str) -> PathBuf {
        let name = Digest::of(url.as_bytes()).hex();
        build.store.root().join("cache/url").join(name)
    }

    /// What is kept; a damaged file counts as none.
    fn read(build: &Build<'_>, url: &str) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(Self::path(build, url)).ok()?;
        file.take(MAX_KNOWN).read_to_end(&mut bytes).ok()?;
        let known: Self = serde_json::from_slice(&bytes).ok()?;
        (known.url == url).then_some(known)
    }

    /// Keeps it when the server gave a tag. It only saves time: a failure is none of the build.
    fn write(build: &Build<'_>, url: &str, digest: Digest, answer: &Answer) {
        let path = Self::path(build, url);
        let Some(tag) = answer.tag.clone().filter(|tag| tag.len() <= MAX_TAG) else {
            drop(std::fs::remove_file(path));
            return;
        };
        let known = Self {
            url: url.to_owned(),
            tag,
            digest,
            modified: answer.modified,
        };
        let Ok(bytes) = serde_json::to_vec(&known) else {
            return;
        };
        if let Some(folder) = path.parent() {
            drop(std::fs::create_dir_all(folder));
        }
        let fresh = path.with_extension(build.key());
        if std::fs::write(&fresh, bytes).is_ok() {
            drop(std::fs::rename(&fresh, &path));
        }
    }
}

fn digest_of(file: &mut File) -> std::io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = dhow_types::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
