//! Signatures that are kept beside an image, so that it can be judged without its registry when it is used. Nothing of them
//! counts before it is verified, each time anew.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_sign::{Form, Found};
use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::signature::Signatures;
use crate::{Context as _, Engine, Error};

/// Largest file that is read back.
const MOST: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Document {
    manifest: String,
    found: Vec<One>,
}

#[derive(Serialize, Deserialize)]
struct One {
    form: String,
    content: String,
    annotations: Labels,
}

const FORMS: [Form; 4] = [Form::Simple, Form::Bundle, Form::Envelope, Form::Notation];

/// The same manifest may be in several repositories, and other signatures beside it in each.
fn file_name(repository: &str, digest: &Digest) -> String {
    format!("{}-{}", digest.hex(), Digest::of(repository.as_bytes()).short())
}

impl Engine {
    fn kept_path(&self, repository: &str, digest: &Digest) -> PathBuf {
        let folder = self.settings().root.join("signatures");
        folder.join(file_name(repository, digest))
    }

    /// Keeps what stood beside a manifest in a repository; what was kept of that before is replaced.
    pub(super) fn keep_signatures(&self, repository: &str, signatures: &Signatures) -> Result<(), Error> {
        let path = self.kept_path(repository, &signatures.digest);
        let found = signatures.found.iter().map(|found| One {
            form: found.form.as_str().to_owned(),
            content: STANDARD.encode(&found.content),
            annotations: found.annotations.clone(),
        });
        let document = Document {
            manifest: STANDARD.encode(&signatures.manifest),
            found: found.collect(),
        };
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| Error::because(ErrorKind::Internal, "write signatures", error))?;
        if let Some(folder) = path.parent() {
            crate::container::make_folder(folder)?;
        }
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let written = std::fs::write(&staged, bytes).and_then(|()| std::fs::rename(&staged, &path));
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(|| format!("write {}", path.display()))
    }

    /// What is kept; none when nothing is, or it cannot be read.
    pub(super) fn kept_signatures(&self, repository: &str, digest: &Digest) -> Option<Signatures> {
        let file = std::fs::File::open(self.kept_path(repository, digest)).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        let document: Document = serde_json::from_slice(&bytes).ok()?;
        let mut found = Vec::new();
        for one in document.found {
            found.push(Found {
                form: FORMS.into_iter().find(|form| form.as_str() == one.form)?,
                content: STANDARD.decode(one.content).ok()?,
                annotations: one.annotations,
            });
        }
        Some(Signatures {
            digest: *digest,
            manifest: STANDARD.decode(document.manifest).ok()?,
            found,
            problems: Vec::new(),
        })
    }

    /// Forgets those of manifests that no image here has any more.
    pub(crate) fn forget_signatures(&self) -> Result<(), Error> {
        let folder = self.settings().root.join("signatures");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return Ok(());
        };
        let images = self.images()?;
        let digests = images.iter().flat_map(|image| {
            image
                .digests
                .iter()
                .map(|(repository, digest)| file_name(repository, digest))
        });
        let digests: std::collections::HashSet<String> = digests.collect();
        for entry in entries.flatten() {
            if !digests.contains(&*entry.file_name().to_string_lossy()) {
                // It is a copy of what its registry has.
                drop(std::fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }
}
