//! What is in an image: its layers' deltas over each other.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::delta::{Delta, Os, Record};
use crate::{Kind, Package};

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The package.
    pub package: Package,
    /// The file that says so.
    pub path: String,
    /// The layer, counted from 0 at the bottom, from which on it is there in this version without a break: the layer that
    /// brought it.
    pub layer: usize,
    /// The layer in which a package of this name first came, in whatever version.
    pub first: usize,
    /// The system's package that brought the file, where one did: it is patched by the distribution, not by its authors.
    pub owner: Option<String>,
}

/// What is in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The system, if the image says one.
    pub os: Option<Os>,
    /// The packages, sorted by kind, name and version.
    pub packages: Vec<Installed>,
    /// What could not be read, with the number of the layer.
    pub problems: Vec<(usize, String)>,
}

/// What tells one package from another in one image.
type Key = (Kind, String, String, Option<String>);

fn key(package: &Package) -> Key {
    (
        package.kind,
        package.name.clone(),
        package.version.clone(),
        package.arch.clone(),
    )
}

impl Inventory {
    /// The inventory of layers, the lowest first.
    #[must_use]
    pub fn of(layers: &[&Delta]) -> Self {
        let mut view: BTreeMap<&str, &Record> = BTreeMap::new();
        let mut since: HashMap<Key, usize> = HashMap::new();
        let mut first: HashMap<(Kind, String), usize> = HashMap::new();
        let mut problems = Vec::new();
        for (at, delta) in layers.iter().enumerate() {
            lay(&mut view, delta);
            problems.extend(delta.problems.iter().map(|problem| (at, problem.clone())));
            let mut now = HashMap::with_capacity(since.len());
            for package in view.values().flat_map(|record| &record.packages) {
                let key = key(package);
                let came = since.get(&key).copied().unwrap_or(at);
                first.entry((package.kind, package.name.clone())).or_insert(at);
                now.insert(key, came);
            }
            since = now;
        }
        let owners = owners(&view);
        let mut packages: Vec<Installed> = view
            .iter()
            .flat_map(|(path, record)| record.packages.iter().map(move |package| (path, package)))
            .map(|(path, package)| Installed {
                package: package.clone(),
                path: (*path).to_owned(),
                layer: since.get(&key(package)).copied().unwrap_or(0),
                first: first
                    .get(&(package.kind, package.name.clone()))
                    .copied()
                    .unwrap_or(0),
                owner: (!package.kind.is_system())
                    .then(|| owners.get(path).map(|owner| (*owner).to_owned()))
                    .flatten(),
            })
            .collect();
        without_locks(&mut packages);
        // What its package says is more than what can be told from the program.
        packages.retain(|installed| installed.package.kind != Kind::Generic || installed.owner.is_none());
        packages.sort_by(|a, b| (&a.package, &a.path).cmp(&(&b.package, &b.path)));
        Self {
            os: system(&view),
            packages,
            problems,
        }
    }
}

/// What a lock file says and is there, is there.
fn without_locks(packages: &mut Vec<Installed>) {
    let is_lock = |installed: &Installed| {
        let name = installed.path.rsplit('/').next().unwrap_or(&installed.path);
        !installed.package.kind.is_system() && crate::kind::lock::reader(name.as_bytes()).is_some()
    };
    // Images have none, and there are many of them.
    if !packages.iter().any(is_lock) {
        return;
    }
    let there: HashSet<Key> = packages
        .iter()
        .filter(|installed| !is_lock(installed))
        .map(|installed| key(&installed.package))
        .collect();
    packages.retain(|installed| !is_lock(installed) || !there.contains(&key(&installed.package)));
}

/// Lays a layer over what lower ones say.
fn lay<'a>(view: &mut BTreeMap<&'a str, &'a Record>, delta: &'a Delta) {
    for path in &delta.deleted {
        view.remove(path.as_str());
        below(view, path);
    }
    for path in &delta.opaque {
        below(view, path);
    }
    for record in &delta.records {
        view.insert(&record.path, record);
    }
}

/// Takes away what lies below a directory.
fn below(view: &mut BTreeMap<&str, &Record>, directory: &str) {
    let prefix = if directory.is_empty() {
        String::new()
    } else {
        format!("{directory}/")
    };
    let gone: Vec<&str> = view
        .range(prefix.as_str()..)
        .map(|(path, _)| *path)
        .take_while(|path| path.starts_with(&prefix))
        .collect();
    for path in gone {
        view.remove(path);
    }
}

/// Which package of the system owns a file. What is installed no more owns nothing, even if its list was left.
fn owners<'a>(view: &BTreeMap<&'a str, &'a Record>) -> HashMap<&'a str, &'a str> {
    let installed: HashSet<&str> = view
        .values()
        .flat_map(|record| &record.packages)
        .filter(|package| package.kind.is_system())
        .map(|package| package.name.as_str())
        .collect();
    let mut owners: HashMap<&str, &str> = view
        .values()
        .flat_map(|record| &record.owns)
        .filter(|(_, owner)| installed.contains(owner.as_str()))
        .map(|(path, owner)| (path.as_str(), owner.as_str()))
        .collect();
    // `/lib` is `/usr/lib` where the two were merged, and lists have kept the old names.
    let merged: Vec<(&str, &str)> = view
        .keys()
        .filter_map(|path| Some((*path, *owners.get(path.strip_prefix("usr/")?)?)))
        .collect();
    for (path, owner) in merged {
        owners.entry(path).or_insert(owner);
    }
    owners
}

fn system(view: &BTreeMap<&str, &Record>) -> Option<Os> {
    ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| view.get(path)?.os.clone())
}

/// The names of the packages that a path belongs to, by what [`Scanner::claims`] found in each layer, the lowest first.
///
/// [`Scanner::claims`]: crate::Scanner::claims
#[must_use]
pub fn owners_of(layers: &[&Delta]) -> Vec<String> {
    let mut view: BTreeMap<&str, &Record> = BTreeMap::new();
    for delta in layers {
        lay(&mut view, delta);
    }
    let mut owners: Vec<String> = view
        .values()
        .flat_map(|record| &record.owns)
        .map(|(_, owner)| owner.clone())
        .collect();
    owners.sort();
    owners.dedup();
    owners
}
