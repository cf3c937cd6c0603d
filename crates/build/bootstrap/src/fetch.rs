//! Downloads, each known by its size and SHA-256 before the first byte, kept in a directory by that hash.
//!
//! ```text
//! CACHE/<two hex digits>/<64 hex digits>   a verified file
//! CACHE/tmp/<process>-<number>             one on its way; becomes the above by a rename
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_types::{Digest, ErrorKind, Hasher, Observer, Progress};

use crate::release::Listed;
use crate::{Context, Error, Fetch};

/// How often a download that came out wrong is begun again: a mirror may change a file just now.
const ATTEMPTS: usize = 2;
/// Reports come after this many bytes.
const STEP: u64 = 256 << 10;

/// Verified files by hash, and the way to get those that are not there.
pub(crate) struct Downloads<'a> {
    directory: &'a Path,
    fetch: &'a dyn Fetch,
    observer: &'a dyn Observer,
    number: AtomicU64,
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("cannot {what} {}: {error}", path.display()))
}

impl<'a> Downloads<'a> {
    pub(crate) fn new(
        directory: &'a Path,
        fetch: &'a dyn Fetch,
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        let temporary = directory.join("tmp");
        fs::create_dir_all(&temporary).map_err(|error| failure("make the directory", &temporary, &error))?;
        Ok(Self {
            directory,
            fetch,
            observer,
            number: AtomicU64::new(0),
        })
    }

    /// A small file whose hash nobody knows yet (`InRelease`); never kept.
    pub(crate) fn small(&self, url: &str, max: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.fetch.get(url)?.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::because(ErrorKind::Unavailable, format!("cannot read {url}"), error))?;
        if bytes.len() as u64 > max {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("{url} is over {max} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// The file with this hash, from the cache or from the first of `urls` that has it.
    pub(crate) fn file(&self, name: &str, urls: &[String], listed: Listed) -> Result<File, Error> {
        let hex = listed.digest.hex();
        let path = self.directory.join(&hex[..2]).join(&hex);
        if let Some(file) = cached(&path, listed)? {
            return Ok(file);
        }
        let total = Some(listed.size);
        self.observer.observe(Progress::Begin {
            id: name,
            what: "Downloading",
            total,
        });
        let mut last = None;
        for url in urls.iter().flat_map(|url| std::iter::repeat_n(url, ATTEMPTS)) {
            match self.download(name, url, listed, &path) {
                Ok(file) => {
                    self.observer.observe(Progress::End {
                        id: name,
                        status: "Download complete",
                    });
                    return Ok(file);
                }
                // Only a file that is not there or not the right one may be better elsewhere.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Internal, format!("nowhere to get {name} from"))))
    }

    fn download(&self, name: &str, url: &str, listed: Listed, path: &Path) -> Result<File, Error> {
        let body = self.fetch.get(url)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .directory
            .join("tmp")
            .join(format!("{}-{number}", std::process::id()));
        let stored = self
            .store(name, body, listed, &temporary)
            .and_then(|()| publish(&temporary, path));
        if stored.is_err() {
            // What is left behind is only space: the failure that counts is the one at hand.
            drop(fs::remove_file(&temporary));
        }
        stored.context(|| format!("cannot download {url}"))
    }

    /// Copies a body to a file; it is an error unless size and hash come out right.
    fn store(&self, name: &str, body: Box<dyn Read + Send>, listed: Listed, to: &Path) -> Result<(), Error> {
        let mut file = File::create(to).map_err(|error| failure("create", to, &error))?;
        // One byte more than promised shows that there is more.
        let mut body = body.take(listed.size.saturating_add(1));
        let (mut hasher, mut size, mut reported) = (Hasher::new(), 0_u64, 0_u64);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::because(
                        ErrorKind::Unavailable,
                        "the transfer broke off",
                        error,
                    ));
                }
            };
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])
                .map_err(|error| failure("write", to, &error))?;
            size += count as u64;
            if size - reported >= STEP {
                reported = size;
                self.observer.observe(Progress::Advance {
                    id: name,
                    current: size,
                });
            }
        }
        if size != listed.size {
            let more = if size > listed.size { "more than " } else { "" };
            let got = size.min(listed.size);
            let message = format!("it has {more}{got} bytes in place of {}", listed.size);
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        compare(hasher.finish(), listed)
    }
}

fn compare(got: Digest, listed: Listed) -> Result<(), Error> {
    if got == listed.digest {
        return Ok(());
    }
    let message = format!("it has the hash {got}, the signed index says {}", listed.digest);
    Err(Error::new(ErrorKind::DataLoss, message))
}

fn publish(temporary: &Path, path: &Path) -> Result<File, Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|error| failure("make the directory", parent, &error))?;
    fs::rename(temporary, path).map_err(|error| failure("rename to", path, &error))?;
    File::open(path).map_err(|error| failure("open", path, &error))
}

/// A file of the cache. It is hashed again: what was right when it was stored may have rotted since; a wrong one goes.
fn cached(path: &PathBuf, listed: Listed) -> Result<Option<File>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure("open", path, &error)),
    };
    let size = file
        .metadata()
        .map_err(|error| failure("look at", path, &error))?
        .len();
    let mut hasher = Hasher::new();
    if size == listed.size {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file
                .read(&mut buffer)
                .map_err(|error| failure("read", path, &error))?
            {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finish() == listed.digest {
            io::Seek::rewind(&mut file).map_err(|error| failure("read", path, &error))?;
            return Ok(Some(file));
        }
    }
    fs::remove_file(path).map_err(|error| failure("remove", path, &error))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use dhow_types::Silent;

    use super::*;
    use crate::testing::Shelf;

    fn listed(bytes: &[u8]) -> Listed {
        Listed {
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    fn text(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_is_downloaded_once() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(&[("http://h/a", b"hello")]);
        let downloads = Downloads::new(directory.path(), &shelf, &Silent).unwrap();
        for _ in 0..3 {
            let file = downloads
                .file("a", &["http://h/a".to_owned()], listed(b"hello"))
                .unwrap();
            assert_eq!(text(file), "hello");
        }
        assert_eq!(shelf.asked.lock().unwrap().len(), 1);
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_bytes_short_bytes_and_extra_bytes_are_refused_and_leave_nothing() {
        for wrong in [b"hellO".as_slice(), b"hell", b"hello!", b""] {
            let directory = tempfile::tempdir().unwrap();
            let shelf = Shelf::new(&[("http://h/a", wrong)]);
            let downloads = Downloads::new(directory.path(), &shelf, &Silent).unwrap();
            let error = downloads
                .file("a", &["http://h/a".to_owned()], listed(b"hello"))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DataLoss);
            let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        }
    }

    #[test]
    fn the_next_address_is_asked_when_the_first_has_nothing_good() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(&[("http://h/stale", b"hellx"), ("http://h/good", b"hello")]);
        let downloads = Downloads::new(directory.path(), &shelf, &Silent).unwrap();
        let urls = ["http://h/none", "http://h/stale", "http://h/good"].map(str::to_owned);
        assert_eq!(
            text(downloads.file("a", &urls, listed(b"hello")).unwrap()),
            "hello"
        );
    }

    #[test]
    fn a_rotten_file_of_the_cache_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(&[("http://h/a", b"hello")]);
        let downloads = Downloads::new(directory.path(), &shelf, &Silent).unwrap();
        let hex = Digest::of(b"hello").hex();
        let path = directory.path().join(&hex[..2]).join(&hex);
        for rotten in ["hellx", "hell"] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, rotten).unwrap();
            let file = downloads
                .file("a", &["http://h/a".to_owned()], listed(b"hello"))
                .unwrap();
            assert_eq!(text(file), "hello");
        }
    }

    #[test]
    fn a_small_file_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(&[("http://h/a", b"hello")]);
        let downloads = Downloads::new(directory.path(), &shelf, &Silent).unwrap();
        assert_eq!(downloads.small("http://h/a", 5).unwrap(), b"hello");
        assert!(downloads.small("http://h/a", 4).is_err());
    }
}
