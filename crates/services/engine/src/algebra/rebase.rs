//! Rebase: an image's own layers on another base.
//!
//! The layers stay what they are, so a rebase is right only where they would have come out the same on the new base. What
//! can be seen of that is checked with the layers' indexes: the bases are compared path by path, and a layer that has to
//! do with a path in which they differ is a conflict.

use std::collections::BTreeMap;

use dhow_image::Image;
use dhow_layer::{Entry, EntryKind};
use dhow_oci::{ImageConfig, RunConfig};

use super::merge::Merged;

/// Most conflicts that are told.
const MAX_CONFLICTS: usize = 1000;

/// The conflicts of the layers of an image with a change of its base, each in words, but for those that `settled` says it takes
/// care of.
pub(crate) fn conflicts(
    own: &Merged,
    old: &Merged,
    new: &Merged,
    mut settled: impl FnMut(&[u8], &Entry) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, layered) in &own.paths {
        if found.len() == MAX_CONFLICTS {
            break;
        }
        if let Some(why) = conflict(path, &layered.entry, old, new)
            && !settled(path, &layered.entry)
        {
            found.push(format!("/{}: {why}", String::from_utf8_lossy(path)));
        }
    }
    found
}

fn conflict(path: &[u8], entry: &Entry, old: &Merged, new: &Merged) -> Option<&'static str> {
    for parent in parents(path) {
        let is_dir = |base: &Merged| base.entry(parent).map(|entry| entry.kind == EntryKind::Directory);
        if is_dir(new) == Some(false) && is_dir(old) != Some(false) {
            return Some("a folder on the way to it is something else in the new base");
        }
    }
    let (was, is) = (old.entry(path), new.entry(path));
    let changed = !alike(was, is);
    match entry.kind {
        EntryKind::Directory if entry.opaque && (changed || differs_below(path, old, new)) => {
            Some("the image replaces the folder, in which the bases differ")
        }
        EntryKind::Directory if entry.implied => (was.is_some() && is.is_none())
            .then_some("the new base has no such folder, and the layer does not say what it is like"),
        EntryKind::Directory if changed && is.is_some() => {
            Some("the bases differ in this folder, which the image has its own way")
        }
        EntryKind::Directory => None,
        EntryKind::Whiteout if changed || differs_below(path, old, new) => {
            Some("the image deletes it, and the bases differ in it")
        }
        EntryKind::Whiteout => None,
        // What the base changed to is what the image has.
        EntryKind::File | EntryKind::Symlink if alike(Some(entry), is) => None,
        _ if changed || differs_below(path, old, new) => {
            Some("the image replaces it, and the bases differ in it")
        }
        _ => None,
    }
}

/// Every folder above a path, the root left out.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// Whether two bases have the same under a path; times left out.
pub(crate) fn alike(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let of = |entry: &Entry| {
                (
                    entry.kind,
                    entry.mode,
                    (entry.uid, entry.gid),
                    entry.size,
                    entry.link.clone(),
                    (entry.major, entry.minor),
                    entry.xattrs.clone(),
                    entry.content,
                )
            };
            of(one) == of(other)
        }
        _ => false,
    }
}

fn differs_below(path: &[u8], old: &Merged, new: &Merged) -> bool {
    let mut start = path.to_vec();
    start.push(b'/');
    let below = |base: &Merged| -> Vec<Vec<u8>> {
        let range = base.paths.range(start.clone()..);
        let paths = range
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start));
        paths.cloned().collect()
    };
    let (ours, theirs) = (below(old), below(new));
    ours != theirs || ours.iter().any(|path| !alike(old.entry(path), new.entry(path)))
}

/// The config of an image on another base: what it had from the old base it has from the new one, its own stays.
pub(crate) fn config(image: &Image, old: &Image, new: &Image) -> ImageConfig {
    let mut config = image.config.clone();
    let own = image
        .config
        .rootfs
        .diff_ids
        .len()
        .min(old.config.rootfs.diff_ids.len());
    let mut layers = new.config.rootfs.diff_ids.clone();
    layers.extend(&image.config.rootfs.diff_ids[own..]);
    config.rootfs.diff_ids = layers;
    let skipped = old.config.history.len().min(image.config.history.len());
    let mut history = new.config.history.clone();
    history.extend(image.config.history[skipped..].iter().cloned());
    config.history = history;
    config.config = run_config(&image.config.config, &old.config.config, &new.config.config);
    config.architecture.clone_from(&new.config.architecture);
    config.variant.clone_from(&new.config.variant);
    config
}

fn run_config(image: &RunConfig, old: &RunConfig, new: &RunConfig) -> RunConfig {
    fn one<T: PartialEq + Clone>(image: &T, old: &T, new: &T) -> T {
        if image == old { new.clone() } else { image.clone() }
    }
    fn map<V: PartialEq + Clone>(
        image: &BTreeMap<String, V>,
        old: &BTreeMap<String, V>,
        new: &BTreeMap<String, V>,
    ) -> BTreeMap<String, V> {
        let mut merged = new.clone();
        for (key, value) in image {
            if old.get(key) != Some(value) {
                merged.insert(key.clone(), value.clone());
            }
        }
        // What the image took away of the old base stays away.
        merged.retain(|key, _| image.contains_key(key) || !old.contains_key(key));
        merged
    }
    RunConfig {
        user: one(&image.user, &old.user, &new.user),
        exposed_ports: map(&image.exposed_ports, &old.exposed_ports, &new.exposed_ports),
        env: env(&image.env, &old.env, &new.env),
        entrypoint: one(&image.entrypoint, &old.entrypoint, &new.entrypoint),
        cmd: one(&image.cmd, &old.cmd, &new.cmd),
        volumes: map(&image.volumes, &old.volumes, &new.volumes),
        working_dir: one(&image.working_dir, &old.working_dir, &new.working_dir),
        labels: map(&image.labels, &old.labels, &new.labels),
        stop_signal: one(&image.stop_signal, &old.stop_signal, &new.stop_signal),
        stop_timeout: one(&image.stop_timeout, &old.stop_timeout, &new.stop_timeout),
        healthcheck: one(&image.healthcheck, &old.healthcheck, &new.healthcheck),
        shell: one(&image.shell, &old.shell, &new.shell),
        // Triggers of a base were spent when the image was built.
        on_build: image.on_build.clone(),
        extra: image.extra.clone(),
    }
}

fn env(image: &[String], old: &[String], new: &[String]) -> Vec<String> {
    let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    let has = |list: &[String], wanted: &str| list.iter().any(|line| name(line) == wanted);
    let kept = new.iter().filter(|line| {
        // What the image took away of the old base stays away.
        has(image, &name(line)) || !has(old, &name(line))
    });
    let mut merged: Vec<String> = kept.cloned().collect();
    for line in image.iter().filter(|line| !old.contains(line)) {
        let wanted = name(line);
        match merged.iter_mut().find(|known| name(known) == wanted) {
            Some(known) => known.clone_from(line),
            None => merged.push(line.clone()),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn what_came_from_the_old_base_comes_from_the_new_one() {
        let old = list(&["PATH=/bin", "V=1", "GONE=x", "TAKEN=y"]);
        let image = list(&["PATH=/opt:/bin", "V=1", "GONE=x", "OWN=z"]);
        let new = list(&["PATH=/bin:/sbin", "V=2", "NEW=n", "TAKEN=y"]);
        assert_eq!(
            env(&image, &old, &new),
            list(&["PATH=/opt:/bin", "V=2", "NEW=n", "OWN=z"])
        );
    }
}
