//! What has to be true of a patched image before it takes anybody's place.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_image::Image;
use dhow_inventory::{Inventory, Kind};
use dhow_layer::EntryKind;
use dhow_lineage::Step;
use dhow_types::ErrorKind;
use md5::{Digest as _, Md5};

use super::rebuild::other_settings;
use super::said::{Fixed, fixed};
use super::{How, Mend, PatchPlan, Patched};
use crate::algebra::merge::Merged;
use crate::{Advisories, Context as _, Engine, Error};

/// Most things of one sort that a message names.
const MOST_TOLD: usize = 5;

/// A package that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who installs it.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version before; none for one that was not there.
    pub old: Option<String>,
    /// The version now; none for one that is gone.
    pub new: Option<String>,
}

/// Packages by what tells them apart; of a package that is there in several versions all of them.
type Versions = BTreeMap<(Kind, String, Option<String>), Vec<String>>;

fn versions(inventory: &Inventory) -> Versions {
    let mut versions = Versions::new();
    for installed in &inventory.packages {
        let package = &installed.package;
        let key = (package.kind, package.name.clone(), package.arch.clone());
        versions.entry(key).or_default().push(package.version.clone());
    }
    versions
}

/// What changed from one inventory to another.
fn changes(old: &Inventory, new: &Inventory) -> Vec<Change> {
    let (old, new) = (versions(old), versions(new));
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Change {
            kind: key.0,
            name: key.1.clone(),
            old: old.get(key).map(|versions| versions.join(", ")),
            new: new.get(key).map(|versions| versions.join(", ")),
        })
        .collect()
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::FailedPrecondition, message)
}

fn some_of(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(MOST_TOLD)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(MOST_TOLD) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Engine {
    /// Looks at a new image, and writes down what changed in it.
    #[allow(clippy::too_many_arguments, reason = "one caller, and each is another thing")]
    pub(super) fn prove(
        &self,
        planned: &PatchPlan,
        step: &Step<Mend>,
        old: &Image,
        base: Option<&Patched>,
        done: &mut Patched,
        advisories: &Advisories,
        smoke: Option<&str>,
    ) -> Result<(), Error> {
        let new = self.image(&done.image.to_string())?;
        let before = self.contents(old)?.inventory;
        let after = self.contents(&new)?.inventory;
        done.changes = changes(&before, &after);
        done.evidence.compare(&before, &after);
        packages_kept(done, base)?;
        done.evidence.tried.push("no package lost".to_owned());
        done.fixed = self.findings(planned, step, &before, &after, advisories)?;
        let tried = ["what was to be mended is gone", "no new finding"];
        done.evidence.tried.extend(tried.map(str::to_owned));
        let checked = self.files_as_packaged(&new, &done.changes)?;
        if checked > 0 {
            let note = format!("{checked} files are what their packages say");
            done.evidence.tried.push(note.clone());
            done.notes.push(note);
        }
        if let How::Apart { conflicts } = &done.how {
            done.notes.push(format!(
                "stays on the old base, the old packages with it in a lower layer: {}",
                some_of(conflicts)
            ));
        }
        if let How::Rebuilt { .. } = &done.how {
            let other = other_settings(old, &new);
            if !other.is_empty() {
                let message = format!("built again it has another {}", other.join(", another "));
                return Err(failed(message).with_hint("that is no recipe of this image"));
            }
            done.evidence.tried.push("same settings".to_owned());
        }
        if let Some(command) = smoke {
            let args = ["/bin/sh", "-ec", command];
            self.run_on(&new, new.record.layers.clone(), "", &args, false)
                .context(|| format!("try {command:?}"))?;
            let note = format!("{command:?} succeeded");
            done.evidence.tried.push(note.clone());
            done.notes.push(note);
        }
        Ok(())
    }

    /// What was to be gone is gone, and nothing came; all that is gone.
    fn findings(
        &self,
        planned: &PatchPlan,
        step: &Step<Mend>,
        before: &Inventory,
        after: &Inventory,
        advisories: &Advisories,
    ) -> Result<Vec<Fixed>, Error> {
        let named = |inventory: &Inventory| -> Result<Vec<(Kind, String, String)>, Error> {
            let found = self.scan(inventory, advisories)?.found;
            Ok(found
                .iter()
                .map(|one| {
                    let package = &inventory.packages[one.package].package;
                    let name = one.finding.advisory.known_as().to_owned();
                    (package.kind, package.name.clone(), name)
                })
                .collect())
        };
        let (had, has) = (named(before)?, named(after)?);
        let still: Vec<String> = planned
            .goals
            .get(&step.node)
            .into_iter()
            .flatten()
            .filter(|goal| {
                has.iter().any(|(kind, package, name)| {
                    (*kind, package, name) == (goal.kind, &goal.package, &goal.vulnerability)
                })
            })
            .map(|goal| {
                let versions = after
                    .packages
                    .iter()
                    .filter(|one| one.package.name == goal.package);
                let versions: Vec<&str> = versions.map(|one| one.package.version.as_str()).collect();
                format!(
                    "{} in {} {}",
                    goal.vulnerability,
                    goal.package,
                    versions.join(", ")
                )
            })
            .collect();
        if !still.is_empty() {
            return Err(failed(format!("it still has {}", some_of(&still)))
                .with_hint("the image's package sources have no version yet that mends it"));
        }
        // One of several binary packages of a source is found by the same name: a package that had it keeps it elsewhere.
        let came: Vec<String> = has
            .iter()
            .filter(|one| !had.contains(one))
            .map(|(_, package, name)| format!("{name} in {package}"))
            .collect();
        if !came.is_empty() {
            return Err(failed(format!(
                "it would have what it has not got now: {}",
                some_of(&came)
            )));
        }
        let gone: Vec<_> = had.iter().filter(|one| !has.contains(one)).collect();
        Ok(fixed(&gone, after))
    }

    /// The files of changed packages have the sums that the packages say; how many.
    fn files_as_packaged(&self, image: &Image, changes: &[Change]) -> Result<usize, Error> {
        let changed = changes
            .iter()
            .filter(|change| change.kind == Kind::Deb && change.new.is_some());
        let changed: Vec<&str> = changed.map(|change| change.name.as_str()).collect();
        if changed.is_empty() {
            return Ok(0);
        }
        let tree = Merged::of(self.store()?, &image.record.layers, false)?;
        let mut checked = 0;
        let mut wrong = Vec::new();
        let folder = b"var/lib/dpkg/info/".to_vec();
        for (path, found) in tree.paths.range(folder.clone()..) {
            if !path.starts_with(&folder) {
                break;
            }
            let Some(name) = path[folder.len()..].strip_suffix(b".md5sums") else {
                continue;
            };
            // `libssl3:amd64` of packages that can be there for several architectures.
            let name = name.split(|byte| *byte == b':').next().unwrap_or(name);
            if found.entry.kind != EntryKind::File || !changed.iter().any(|one| one.as_bytes() == name) {
                continue;
            }
            let sums = self.bytes_of(&found.layer, &found.original)?;
            for line in sums.split(|byte| *byte == b'\n') {
                let Some((sum, file)) = line.split_at_checked(32) else {
                    continue;
                };
                let file = file.trim_ascii_start();
                match self.md5_of(&tree, file)? {
                    Some(found) if found.as_bytes() == sum => checked += 1,
                    // What an image leaves out of every package, such as its manuals (dpkg.cfg, `path-exclude`).
                    None if file.starts_with(b"usr/share/") => {}
                    _ => wrong.push(format!("/{}", String::from_utf8_lossy(file))),
                }
            }
        }
        if wrong.is_empty() {
            return Ok(checked);
        }
        let message = format!("files are not what their packages say: {}", some_of(&wrong));
        Err(failed(message))
    }

    /// The sum of a file in hex; none when there is no such file.
    fn md5_of(&self, tree: &Merged, path: &[u8]) -> Result<Option<String>, Error> {
        // `/lib` is `/usr/lib` where the two were merged, and packages have kept the old names.
        let merged = [b"usr/".as_slice(), path].concat();
        let found = tree.paths.get(path).or_else(|| tree.paths.get(&merged));
        let Some(found) = found.filter(|found| found.entry.kind == EntryKind::File) else {
            return Ok(None);
        };
        let what = || format!("read /{}", String::from_utf8_lossy(path));
        let root = self.store()?.layers.tree(&found.layer).context(what)?;
        let place = Path::new(std::ffi::OsStr::from_bytes(&found.original));
        let mut file = root.open_file(place).context(what)?;
        let mut sum = Md5::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => sum.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::wrap(error, what())),
            }
        }
        Ok(Some(
            sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }
}

/// No package is lost, and an image that only followed has no other changes than its base.
fn packages_kept(done: &Patched, base: Option<&Patched>) -> Result<(), Error> {
    let lost = done.changes.iter().filter(|change| {
        let by_base = base.is_some_and(|base| base.changes.contains(change));
        change.new.is_none() && !by_base
    });
    let lost: Vec<String> = lost.map(|change| change.name.clone()).collect();
    if !lost.is_empty() {
        return Err(failed(format!("packages would be lost: {}", some_of(&lost))));
    }
    let only_followed = matches!(done.how, How::Followed { upgraded: false, .. });
    let Some(base) = base.filter(|_| only_followed) else {
        return Ok(());
    };
    let other: Vec<String> = done
        .changes
        .iter()
        .filter(|change| {
            // An image may have had one of them already, in its new version.
            !base.changes.iter().any(|theirs| {
                (&theirs.name, theirs.kind, &theirs.new) == (&change.name, change.kind, &change.new)
            })
        })
        .map(|change| change.name.clone())
        .collect();
    if !other.is_empty() {
        return Err(failed(format!(
            "packages would change that its base did not change: {}",
            some_of(&other)
        )));
    }
    Ok(())
}
