//! Is everything as it should be? And making it so.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use dhow_content::ContentStore as _;
use dhow_meta::sweep_leases;
use dhow_oci::{Document, ImageConfig, MAX_DOCUMENT};
use dhow_reference::Reference;
use dhow_types::{ErrorKind, ImageId};

use crate::names::{Named, parse_name_file, read_name_file};
use crate::types::{Check, Finding, Report};
use crate::{Context as _, Error, Store};

/// One check under way.
struct Checker<'a> {
    store: &'a Store,
    how: Check,
    report: Report,
}

impl Store {
    /// Looks for everything that is not as it should be. What dead processes left behind is deleted in any case;
    /// the rest is healed only on request. Layers that nothing needs are no fault: [`Store::sweep`] takes them.
    ///
    /// # Errors
    /// When the store cannot be looked at. What is wrong in it is in the report.
    pub fn check(&self, how: Check) -> Result<Report, Error> {
        let mut checker = Checker {
            store: self,
            how,
            report: Report::default(),
        };
        // Layers and blobs first: what they lose, the images are judged by.
        checker.leftovers()?;
        checker.index()?;
        checker.blobs()?;
        checker.layers()?;
        checker.images()?;
        checker.names()?;
        if how.repair {
            // What was found damaged lies in the trash now.
            self.layers.sweep().context(|| "delete what was damaged")?;
        }
        Ok(checker.report)
    }

    /// Makes the index again from blobs, layers and names. Images without a name come back too, if their layers
    /// are here; where blobs were pushed to and the build cache are forgotten.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn rebuild(&self) -> Result<(), Error> {
        let manifests = self.manifests_by_config()?;
        let mut records = Vec::new();
        for digest in self.content.list().context(|| "list the blobs")? {
            if let Ok(bytes) = self.content.read(&digest, MAX_DOCUMENT)
                && is_config(&bytes)
                && let Ok(record) = self.derive_record(&ImageId(digest), Some(&manifests))
            {
                records.push(record);
            }
        }
        self.edit(|edit| {
            for record in &records {
                if edit.image(&record.id)?.is_none() {
                    edit.put_image(record)?;
                }
            }
            self.reread_names(edit)
        })
    }
}

impl Checker<'_> {
    fn found(&mut self, what: String, healed: Option<&str>) {
        self.report.findings.push(Finding {
            what,
            healed: healed.map(str::to_owned),
        });
    }

    /// What dead processes left: staged files, half-made layers, removed things not yet deleted, leases.
    fn leftovers(&mut self) -> Result<(), Error> {
        let (tmp, trash) = (self.store.root.join("tmp"), self.store.root.join("trash"));
        let hidden_in = |folder: &str| {
            // There is no `containers/` in a store that never had one.
            let names = names_in(&self.store.root.join(folder)).unwrap_or_default();
            names.iter().filter(|name| dhow_layer::is_gone(name)).count()
        };
        let removed_there = hidden_in("snapshots") + hidden_in("containers");
        let before = (names_in(&tmp)?, names_in(&trash)?);
        let layers = &self.store.layers;
        // Finds those that were removed and are still there.
        layers.list().context(|| "list the layers")?;
        let hidden = layers.sweep().context(|| "delete what dead processes left")?;
        let after = (names_in(&tmp)?, names_in(&trash)?);
        // What a living process finished meanwhile was not left by anybody.
        let half_made = before
            .0
            .iter()
            .filter(|name| !after.0.contains(name) && !owner_lives(name))
            .count();
        let removed = before.1.iter().filter(|name| !after.1.contains(name)).count();
        let leases = sweep_leases(&self.store.root, true)?;
        for (count, what) in [
            (half_made, "half-made things of dead processes in tmp/"),
            (
                removed + hidden + removed_there,
                "removed things that were not deleted yet",
            ),
            (leases, "leases of dead processes"),
        ] {
            if count > 0 {
                self.found(format!("{count} {what}"), Some("deleted"));
            }
        }
        Ok(())
    }

    fn index(&mut self) -> Result<(), Error> {
        let Err(error) = self.store.meta.verify() else {
            return self.store.refresh();
        };
        if error.kind() != ErrorKind::DataLoss {
            return Err(error.into());
        }
        if !self.how.repair {
            // Nothing below can be judged without an index.
            return Err(error.into());
        }
        self.store.meta.reset()?;
        self.store.rebuild()?;
        self.found(
            format!("the index is damaged: {error}"),
            Some("made again from the files"),
        );
        Ok(())
    }

    fn blobs(&mut self) -> Result<(), Error> {
        let blobs = self.store.content.list().context(|| "list the blobs")?;
        self.report.blobs = blobs.len();
        // All of them, also when the check is not deep: they are small, and nothing else tells one that a power cut
        // left without its content.
        for digest in &blobs {
            let outcome = self.store.content.open(digest).map_err(io::Error::other);
            let Err(error) = outcome.and_then(|mut blob| io::copy(&mut blob, &mut io::sink())) else {
                continue;
            };
            let healed = self.how.repair && self.store.content.remove(digest).is_ok();
            self.found(
                format!("blob {digest} is damaged: {error}"),
                healed.then_some("removed"),
            );
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<(), Error> {
        let layers = self.store.layers.list().context(|| "list the layers")?;
        self.report.layers = layers.len();
        let suspects = self
            .store
            .layers
            .suspects()
            .context(|| "look for layers that a power cut may have damaged")?;
        for diff in layers {
            let Some(why) = self.layer_damage(&diff, self.how.deep || suspects.contains(&diff)) else {
                continue;
            };
            let healed = self.how.repair && self.store.layers.remove(&diff).is_ok();
            self.found(
                format!("layer {diff} is damaged: {why}"),
                healed.then_some("removed"),
            );
        }
        Ok(())
    }

    fn layer_damage(&self, diff: &dhow_types::DiffId, deep: bool) -> Option<String> {
        let layers = &self.store.layers;
        if let Err(error) = layers.layer(diff).and_then(|layer| layer.index()) {
            return Some(error.to_string());
        }
        if !deep {
            return None;
        }
        match layers.verify(diff) {
            Ok(problems) => problems.first().map(|first| {
                let path = String::from_utf8_lossy(&first.path).into_owned();
                format!("{path}: {} ({} in all)", first.what, problems.len())
            }),
            Err(error) => Some(error.to_string()),
        }
    }

    fn images(&mut self) -> Result<(), Error> {
        let records = self.store.meta.images()?;
        self.report.images = records.len();
        for record in records {
            let short = record.id.short();
            let why = match self.store.derive_record(&record.id, None) {
                Err(error) => Some(error.to_string()),
                Ok(derived) if derived.layers != record.layers => {
                    Some("the index names other layers than the config".to_owned())
                }
                Ok(_) => None,
            };
            if let Some(why) = why {
                let what = format!("image {short} ({}) is not whole: {why}", self.shown(&record.id));
                let fell_back = if self.how.repair {
                    self.fall_back(&record.id)?
                } else {
                    Vec::new()
                };
                let healed = self.how.repair && self.store.delete(&record.id).is_ok();
                self.found(what, healed.then_some("removed: pull or build it again"));
                self.tell(fell_back);
                continue;
            }
            let Some(manifest) = record.manifest else {
                continue;
            };
            if self
                .store
                .content
                .size(&manifest)
                .context(|| "look for a manifest")?
                .is_none()
            {
                let mut bare = record.clone();
                bare.manifest = None;
                bare.media_type.clear();
                let healed = self.how.repair && self.store.meta.put_image(&bare).is_ok();
                let what = format!("manifest {manifest} of image {short} is missing");
                self.found(what, healed.then_some("forgotten: the next push makes a new one"));
            }
        }
        Ok(())
    }

    /// Gives the names of an image that is not whole back to the images that they had before, as far as those are.
    fn fall_back(&self, id: &ImageId) -> Result<Vec<(String, ImageId)>, Error> {
        let mut fell_back = Vec::new();
        for name in self.store.meta.tags_of(id)? {
            let Ok(name) = Reference::parse(&name) else {
                continue;
            };
            if let Some(was) = self.store.edit(|edit| self.store.fall_back(edit, &name))? {
                fell_back.push((name.familiar(), was));
            }
        }
        Ok(fell_back)
    }

    fn tell(&mut self, fell_back: Vec<(String, ImageId)>) {
        for (name, was) in fell_back {
            let what = format!("{name} was on its way to another image");
            self.found(what, Some(&format!("it is {} again, as before", was.short())));
        }
    }

    fn shown(&self, id: &ImageId) -> String {
        let names = self.store.meta.tags_of(id).unwrap_or_default();
        names.first().map_or_else(
            || "without a name".to_owned(),
            |name| crate::image::familiar(name),
        )
    }

    fn names(&mut self) -> Result<(), Error> {
        let names = self.store.read_names()?;
        for (path, why) in names.bad {
            let healed = self.how.repair && std::fs::remove_file(&path).is_ok();
            let file = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            self.found(
                format!("the name file {file:?} {why}"),
                healed.then_some("removed"),
            );
        }
        let mut known: HashMap<ImageId, bool> = HashMap::new();
        for Named { name, id, .. } in names.good {
            let there = match known.get(&id) {
                Some(there) => *there,
                None => self.store.meta.image(&id)?.is_some(),
            };
            known.insert(id, there);
            if there || self.is_on_its_way(&name, &id)? {
                continue;
            }
            let what = format!(
                "{} names image {}, which is not here",
                name.familiar(),
                id.short()
            );
            let was = if self.how.repair {
                self.store.edit(|edit| self.store.fall_back(edit, &name))?
            } else {
                None
            };
            if let Some(was) = was {
                self.found(what, Some(&format!("it is {} again, as before", was.short())));
                continue;
            }
            let removed = || {
                self.store
                    .edit(|edit| self.store.remove_name(edit, &name))
                    .is_ok()
            };
            let healed = self.how.repair && removed();
            self.found(what, healed.then_some("removed: pull or build it again"));
        }
        if self.how.repair {
            self.store.edit(|edit| self.store.reread_names(edit))?;
        }
        Ok(())
    }
}

impl Checker<'_> {
    /// Whether the file of this name is about to say something else than this image, or does by now: the list of names is
    /// older than what a command did meanwhile.
    fn is_on_its_way(&self, name: &Reference, id: &ImageId) -> Result<bool, Error> {
        let canonical = name.canonical();
        if self.store.meta.due_of(&canonical)?.is_some() {
            return Ok(true);
        }
        let bytes = read_name_file(&self.store.name_path(&canonical));
        Ok(!parse_name_file(bytes.as_deref()).is_ok_and(|now| now.id == *id))
    }
}

/// Whether the process in a name `<kind>-<pid>-...` lives.
fn owner_lives(name: &OsStr) -> bool {
    let pid = name
        .to_str()
        .and_then(|name| name.split('-').nth(1))
        .and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

fn names_in(directory: &Path) -> Result<Vec<OsString>, Error> {
    let what = || format!("list {}", directory.display());
    let entries = std::fs::read_dir(directory).context(what)?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name()).context(what))
        .collect()
}

/// Whether stored bytes are an image config. Nearly any object parses as one, so it must also say something.
fn is_config(bytes: &[u8]) -> bool {
    if Document::parse(bytes, None).is_ok() {
        return false;
    }
    // That of an attestation is for the operating system "unknown".
    ImageConfig::parse(bytes).is_ok_and(|config| {
        config.os != "unknown" && (!config.os.is_empty() || !config.rootfs.diff_ids.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use dhow_types::Digest;

    use super::*;

    #[test]
    fn a_manifest_is_not_taken_for_a_config() {
        let hex = Digest::of(b"x");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{hex}","size":1}},"layers":[]}}"#
        );
        assert!(!is_config(manifest.as_bytes()));
        assert!(!is_config(b"{}"));
        assert!(!is_config(b"\x1f\x8b"));
        assert!(is_config(
            br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#
        ));
    }
}
