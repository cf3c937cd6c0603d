//! What was found the last time, so that only what is new is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dhow_types::{ErrorKind, ImageId};

use crate::event::{Event, EventKind};
use crate::{Context as _, Engine, Error};

/// Largest file of this kind that is read back.
const MOST: u64 = 256 << 20;

/// What is other than the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Findings that were not there.
    pub new: BTreeSet<String>,
    /// Findings that are there no more.
    pub gone: BTreeSet<String>,
}

/// Findings as lines, by the names of what was scanned.
pub type Findings = BTreeMap<String, BTreeSet<String>>;

impl Engine {
    fn findings_path(&self) -> PathBuf {
        self.settings().root.join("cache").join("findings.json")
    }

    /// How findings, by the names of what was scanned, differ from those that were kept the last time. What was never asked about has
    /// nothing but new ones. Whoever has told them keeps them by [`Engine::keep_findings`]: one that dies before tells them again.
    ///
    /// # Errors
    /// When what was kept cannot be read; what is no such file counts as never seen.
    pub fn findings_changed(&self, found: &Findings) -> Result<BTreeMap<String, Changed>, Error> {
        let seen = self.kept_findings()?;
        let none = BTreeSet::new();
        let changed = found.iter().map(|(name, now)| {
            let before = seen.get(name).unwrap_or(&none);
            let changed = Changed {
                new: now.difference(before).cloned().collect(),
                gone: before.difference(now).cloned().collect(),
            };
            (name.clone(), changed)
        });
        Ok(changed.collect())
    }

    /// Keeps findings for the next time. With `all`, names that are not among them are forgotten.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_findings(&self, found: Findings, all: bool) -> Result<(), Error> {
        let path = self.findings_path();
        let what = || format!("write {}", path.display());
        let mut seen = if all {
            Findings::new()
        } else {
            self.kept_findings()?
        };
        seen.extend(found);
        if let Some(folder) = path.parent() {
            crate::container::make_folder(folder)?;
        }
        let text =
            serde_json::to_vec(&seen).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, &path));
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(what)
    }

    fn kept_findings(&self) -> Result<Findings, Error> {
        use std::io::Read as _;
        let path = self.findings_path();
        let mut bytes = Vec::new();
        if let Ok(file) = std::fs::File::open(&path) {
            let read = file.take(MOST).read_to_end(&mut bytes);
            read.context(|| format!("read {}", path.display()))?;
        }
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Tells, as an event, that an image has a vulnerability.
    pub fn tell_vulnerable(
        &self,
        id: &ImageId,
        name: &str,
        vulnerability: &str,
        package: &str,
        severity: &str,
    ) {
        self.tell(
            &Event::now(EventKind::Image, "vulnerable", id.to_string())
                .with("name", name)
                .with("vulnerability", vulnerability)
                .with("package", package)
                .with("severity", severity),
        );
    }

    /// When the advisory data and the images were changed last: another text when either was.
    #[must_use]
    pub fn scan_inputs(&self) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let data = std::fs::metadata(self.advisory_path()).map_or_else(
            |_| String::new(),
            |data| format!("{} {} {}", data.ino(), data.mtime(), data.mtime_nsec()),
        );
        let images = self.images().unwrap_or_default();
        let mut images: Vec<String> = images
            .iter()
            .map(|image| format!("{} {}", image.record.id, image.names.join(" ")))
            .collect();
        images.sort();
        format!("{data}\n{}", images.join("\n"))
    }

    /// A small document of a web server, by the proxies that are set.
    ///
    /// # Errors
    /// What the server said; `ResourceExhausted` when it has more bytes than `most`.
    pub fn document_at(&self, url: &str, most: u64) -> Result<Vec<u8>, Error> {
        use std::io::Read as _;
        let what = || format!("read {url}");
        let mut document = Vec::new();
        let answer = self.client()?.get(url).context(what)?;
        answer
            .body
            .take(most.saturating_add(1))
            .read_to_end(&mut document)
            .context(what)?;
        if document.len() as u64 > most {
            let message = format!("{url} has more than {most} bytes");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        Ok(document)
    }

    /// Sends JSON to a URL.
    ///
    /// # Errors
    /// What the server said.
    pub fn post_json(&self, url: &str, body: Vec<u8>) -> Result<(), Error> {
        self.client()?
            .post_json(url, body)
            .context(|| "tell it to the webhook")
    }
}
