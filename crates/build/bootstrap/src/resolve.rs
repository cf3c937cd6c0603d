//! Which packages make a base system: the wanted ones and all that they depend on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dhow_types::ErrorKind;

use crate::depends::{Clause, Relation, parse};
use crate::packages::{Package, Universe, name_of};
use crate::{Context, Error};

/// The tree is made with merged /usr, so the package that converts a running system is never wanted where its
/// clause has another way (`usrmerge | usr-is-merged`); debootstrap leaves it out too.
const LAST_RESORT: &[&str] = &["usrmerge"];

/// What to start from.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Packages by name.
    pub names: Vec<&'a str>,
    /// Also all with `Priority: required`, as debootstrap and the official images do.
    pub required: bool,
    /// No essential packages either: only the wanted ones and what they need.
    pub bare: bool,
    /// Packages that are taken for there, and are not: in the place of whatever depends on them.
    pub absent: Vec<&'a str>,
    /// Wanted packages whose own dependencies do not count.
    pub alone: Vec<&'a str>,
}

/// The packages to install: every essential package, the wanted ones, and the closure of their dependencies. A package
/// comes after those it depends on (where there is no circle); packages without an order between them by name.
///
/// # Errors
/// When a wanted package or a dependency cannot be had, or two packages of the set conflict.
pub fn resolve<'a>(
    universe: &'a Universe,
    wanted: &Wanted<'_>,
    architecture: &str,
) -> Result<Vec<&'a Package>, Error> {
    let mut closure = Closure::new(universe, architecture)?;
    closure
        .absent
        .extend(wanted.absent.iter().map(|name| (*name).to_owned()));
    let base = universe.iter().filter(|package| {
        !wanted.bare && (package.essential || (wanted.required && &*package.priority == "required"))
    });
    let mut roots: BTreeMap<&str, &Package> = base
        .filter(|package| !LAST_RESORT.contains(&&*package.name))
        .map(|package| (&*package.name, package))
        .collect();
    if !wanted.bare && !roots.values().any(|package| package.essential) {
        return Err(
            Error::new(ErrorKind::NotFound, "the sources have no essential package")
                .with_hint("the suite may not exist for this architecture"),
        );
    }
    for name in &wanted.names {
        let package = closure
            .named(name_of(name))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no package {name} in the sources")))?;
        roots.insert(&package.name, package);
    }
    for package in roots.into_values() {
        closure.choose(package)?;
        if wanted.alone.contains(&&*package.name)
            && let Some(chosen) = closure.chosen.get_mut(&*package.name)
        {
            chosen.needs.clear();
        }
    }
    closure.close()?;
    closure.check_conflicts()?;
    Ok(closure.ordered())
}

/// A chosen package with its parsed relations.
struct Chosen<'a> {
    package: &'a Package,
    needs: Vec<Clause>,
    provides: Vec<Relation>,
}

struct Closure<'a> {
    universe: &'a Universe,
    architecture: String,
    /// Virtual name -> packages that provide it, by name.
    providers: HashMap<String, BTreeSet<&'a str>>,
    chosen: BTreeMap<&'a str, Chosen<'a>>,
    /// Chosen packages whose dependencies were not looked at yet, in the order of choice.
    open: std::collections::VecDeque<&'a str>,
    /// Names that count as satisfied.
    absent: HashSet<String>,
}

impl<'a> Closure<'a> {
    fn new(universe: &'a Universe, architecture: &str) -> Result<Self, Error> {
        let mut providers: HashMap<String, BTreeSet<&'a str>> = HashMap::new();
        for package in universe.iter() {
            for relation in relations(package, package.provides.as_deref(), "Provides")?
                .into_iter()
                .flatten()
            {
                providers.entry(relation.name).or_default().insert(&package.name);
            }
        }
        Ok(Self {
            universe,
            architecture: architecture.to_owned(),
            providers,
            chosen: BTreeMap::new(),
            open: std::collections::VecDeque::new(),
            absent: HashSet::new(),
        })
    }

    /// The package of this name, or the only one that provides it.
    fn named(&self, name: &str) -> Option<&'a Package> {
        self.universe.get(name).or_else(|| {
            let providers = self.providers.get(name)?;
            if providers.len() == 1 {
                self.universe.get(providers.first()?)
            } else {
                None
            }
        })
    }

    fn choose(&mut self, package: &'a Package) -> Result<(), Error> {
        if self.chosen.contains_key(&*package.name) {
            return Ok(());
        }
        let mut needs = relations(package, package.pre_depends.as_deref(), "Pre-Depends")?;
        needs.extend(relations(package, package.depends.as_deref(), "Depends")?);
        let provides = relations(package, package.provides.as_deref(), "Provides")?;
        let provides = provides.into_iter().flatten().collect();
        self.chosen.insert(
            &package.name,
            Chosen {
                package,
                needs,
                provides,
            },
        );
        self.open.push_back(&package.name);
        Ok(())
    }

    /// Takes clause after clause until every chosen package has what it needs.
    fn close(&mut self) -> Result<(), Error> {
        while let Some(name) = self.open.pop_front() {
            let needs = self
                .chosen
                .get(name)
                .map(|chosen| chosen.needs.clone())
                .unwrap_or_default();
            for clause in needs {
                let counting: Clause = clause
                    .into_iter()
                    .filter(|relation| relation.counts_on(&self.architecture))
                    .collect();
                if counting.is_empty()
                    || counting
                        .iter()
                        .any(|relation| self.absent.contains(&relation.name))
                    || counting
                        .iter()
                        .any(|relation| self.satisfied_by(relation).is_some())
                {
                    continue;
                }
                let package = self.candidate(&counting).ok_or_else(|| {
                    let text: Vec<String> = counting.iter().map(ToString::to_string).collect();
                    let message = format!(
                        "{name} depends on {}, which the sources do not have",
                        text.join(" | ")
                    );
                    Error::new(ErrorKind::NotFound, message)
                })?;
                self.choose(package)?;
            }
        }
        Ok(())
    }

    /// The chosen package that satisfies a relation.
    fn satisfied_by(&self, relation: &Relation) -> Option<&'a str> {
        if let Some(chosen) = self.chosen.get(relation.name.as_str())
            && relation.admits(&chosen.package.version)
        {
            return Some(&chosen.package.name);
        }
        let providers = self.providers.get(&relation.name)?;
        providers.iter().copied().find(|provider| {
            let provides = self.chosen.get(provider).map(|chosen| chosen.provides.as_slice());
            provides
                .unwrap_or_default()
                .iter()
                .any(|provided| provided_admits(provided, relation))
        })
    }

    /// The package to take for a clause of which nothing is chosen yet: the first alternative that can be had.
    fn candidate(&self, clause: &Clause) -> Option<&'a Package> {
        let last = |relation: &&Relation| LAST_RESORT.contains(&relation.name.as_str());
        let usual = clause.iter().filter(|relation| !last(relation));
        usual.chain(clause.iter().filter(last)).find_map(|relation| {
            let real = self.universe.get(&relation.name);
            if let Some(package) = real.filter(|package| relation.admits(&package.version)) {
                return Some(package);
            }
            self.providers
                .get(&relation.name)?
                .iter()
                .filter_map(|provider| self.universe.get(provider))
                .filter(|package| {
                    relations(package, package.provides.as_deref(), "Provides").is_ok_and(|all| {
                        all.iter()
                            .flatten()
                            .any(|provided| provided_admits(provided, relation))
                    })
                })
                // Of several providers the most important one, as apt prefers; then the first by name.
                .min_by_key(|package| (rank(&package.priority), &*package.name))
        })
    }

    /// Refuses a set in which one package excludes another.
    fn check_conflicts(&self) -> Result<(), Error> {
        for (name, chosen) in &self.chosen {
            let package = chosen.package;
            for (text, field) in [(&package.conflicts, "Conflicts"), (&package.breaks, "Breaks")] {
                for relation in relations(package, text.as_deref(), field)?.into_iter().flatten() {
                    if let Some(other) = self.excluded_by(name, &relation) {
                        let message =
                            format!("{name} and {other} cannot be installed together: {field}: {relation}");
                        return Err(Error::new(ErrorKind::FailedPrecondition, message));
                    }
                }
            }
        }
        Ok(())
    }

    /// The chosen package other than `name` that `relation` excludes. A package may conflict with a virtual name that
    /// it provides itself (policy 7.4).
    fn excluded_by(&self, name: &str, relation: &Relation) -> Option<&'a str> {
        if !relation.counts_on(&self.architecture) {
            return None;
        }
        self.chosen
            .iter()
            .filter(|(other, _)| **other != name)
            .find_map(|(other, chosen)| {
                let real = **other == *relation.name && relation.admits(&chosen.package.version);
                let provided = chosen
                    .provides
                    .iter()
                    .any(|provided| provided_admits(provided, relation));
                (real || provided).then_some(*other)
            })
    }

    /// Depth first over the dependencies; a circle is cut where it closes.
    fn ordered(&self) -> Vec<&'a Package> {
        let (mut seen, mut order) = (HashSet::new(), Vec::with_capacity(self.chosen.len()));
        for name in self.chosen.keys() {
            // An explicit stack: chains of dependencies are as deep as an index makes them.
            let mut stack = vec![(*name, false)];
            while let Some((name, done)) = stack.pop() {
                let Some(chosen) = self.chosen.get(name) else {
                    continue;
                };
                if done {
                    order.push(chosen.package);
                    continue;
                }
                if !seen.insert(name) {
                    continue;
                }
                stack.push((name, true));
                let needs = chosen.needs.iter().rev();
                let first = needs.filter_map(|clause| clause.iter().find_map(|one| self.satisfied_by(one)));
                stack.extend(
                    first
                        .filter(|need| !seen.contains(need))
                        .map(|need| (need, false)),
                );
            }
        }
        order
    }
}

/// Whether something provided satisfies a relation: a versioned relation needs a versioned `Provides` (policy 7.5).
fn provided_admits(provided: &Relation, relation: &Relation) -> bool {
    provided.name == relation.name
        && match (&relation.version, &provided.version) {
            (None, _) => true,
            (Some(_), Some((_, version))) => relation.admits(version),
            (Some(_), None) => false,
        }
}

fn relations(package: &Package, text: Option<&str>, field: &str) -> Result<Vec<Clause>, Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    parse(text).context(|| format!("{field} of {}", package.name))
}

fn rank(priority: &str) -> usize {
    let order = ["required", "important", "standard", "optional", "extra"];
    order
        .iter()
        .position(|name| *name == priority)
        .unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::tests::universe;
    use proptest::prelude::*;

    fn names(lines: &[&str], wanted: &[&str]) -> Result<Vec<String>, String> {
        let universe = universe(lines);
        let wanted = Wanted {
            names: wanted.to_vec(),
            required: true,
            ..Wanted::default()
        };
        resolve(&universe, &wanted, "amd64")
            .map(|list| list.iter().map(|package| package.name.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn dependencies_come_before_those_who_need_them() {
        let got = names(
            &[
                "zz 1 | Essential: yes | Pre-Depends: mm (>= 1)",
                "mm 1 | Depends: kk",
                "kk 1",
                "unneeded 1",
                "req 1 | Priority: required",
            ],
            &[],
        );
        assert_eq!(got.unwrap(), ["kk", "mm", "req", "zz"]);
    }

    #[test]
    fn a_circle_of_dependencies_is_taken_whole() {
        let got = names(
            &["aa 1 | Essential: yes | Depends: bb", "bb 1 | Depends: aa"],
            &[],
        );
        assert_eq!(got.unwrap(), ["bb", "aa"]);
    }

    #[test]
    fn an_alternative_that_is_chosen_already_is_preferred() {
        let lines = [
            "aa 1 | Essential: yes | Depends: cc or bb",
            "bb 1 | Essential: yes",
            "cc 1",
        ];
        assert_eq!(names(&lines, &[]).unwrap(), ["bb", "aa"]);
        let lines = ["aa 1 | Essential: yes | Depends: cc or bb", "bb 1", "cc 1"];
        assert_eq!(names(&lines, &[]).unwrap(), ["cc", "aa"]);
    }

    #[test]
    fn an_alternative_of_too_low_version_is_passed_over() {
        let lines = ["aa 1 | Essential: yes | Depends: cc (>= 2) or bb", "bb 1", "cc 1"];
        assert_eq!(names(&lines, &[]).unwrap(), ["bb", "aa"]);
    }

    #[test]
    fn virtual_packages_take_the_most_important_provider() {
        let lines = [
            "aa 1 | Essential: yes | Depends: awk",
            "gawk 1 | Provides: awk",
            "mawk 1 | Priority: important | Provides: awk",
        ];
        assert_eq!(names(&lines, &[]).unwrap(), ["mawk", "aa"]);
        let versioned = [
            "aa 1 | Essential: yes | Depends: awk (>= 1)",
            "gawk 1 | Provides: awk",
        ];
        assert!(names(&versioned, &[]).unwrap_err().contains("awk (>= 1)"));
        let versioned = [
            "aa 1 | Essential: yes | Depends: awk (>= 1)",
            "gawk 1 | Provides: awk (= 2)",
        ];
        assert_eq!(names(&versioned, &[]).unwrap(), ["gawk", "aa"]);
    }

    #[test]
    fn the_package_that_converts_a_system_to_merged_usr_is_not_taken() {
        let lines = [
            "aa 1 | Essential: yes | Depends: usrmerge or usr-is-merged",
            "usrmerge 1",
            "usr-is-merged 1",
        ];
        assert_eq!(names(&lines, &[]).unwrap(), ["usr-is-merged", "aa"]);
    }

    #[test]
    fn conflicts_and_breaks_are_reported_by_name() {
        let lines = ["aa 1 | Essential: yes | Depends: bb", "bb 1 | Breaks: aa (<< 2)"];
        assert!(names(&lines, &[]).unwrap_err().contains("bb and aa"));
        let lines = ["aa 2 | Essential: yes | Depends: bb", "bb 1 | Breaks: aa (<< 2)"];
        assert!(names(&lines, &[]).is_ok());
        let own = ["aa 1 | Essential: yes | Provides: mta | Conflicts: mta"];
        assert!(names(&own, &[]).is_ok());
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let lines = ["aa 1 | Essential: yes | Depends: nope or nada"];
        assert!(names(&lines, &[]).unwrap_err().contains("nope | nada"));
        assert!(
            names(&["aa 1 | Essential: yes"], &["zz"])
                .unwrap_err()
                .contains("zz")
        );
        assert!(names(&["aa 1"], &[]).is_err());
    }

    proptest! {
        #[test]
        fn every_set_is_closed_and_each_package_comes_once(
            edges in proptest::collection::vec((0_u8..12, 0_u8..12), 0..40)
        ) {
            let name = |number: u8| format!("p{number}");
            let mut lines: Vec<String> = Vec::new();
            for number in 0..12_u8 {
                let needs: Vec<String> =
                    edges.iter().filter(|(from, _)| *from == number).map(|(_, to)| name(*to)).collect();
                lines.push(format!("p{number} 1 | Essential: yes | Depends: {}", needs.join(", ")));
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut got = names(&lines, &[]).unwrap();
            prop_assert_eq!(&names(&lines, &[]).unwrap(), &got);
            got.sort();
            got.dedup();
            prop_assert_eq!(got.len(), 12);
        }
    }

    #[test]
    fn a_bare_set_has_what_is_named_and_needed_and_nothing_else() {
        let all = universe(&[
            "base-files 1 | Essential: yes | Priority: required | Depends: awk",
            "certs 1 | Depends: debconf or debconf-2.0, libc6, tool",
            "libc6 1",
            "tool 1",
        ]);
        let wanted = Wanted {
            names: vec!["base-files", "certs"],
            bare: true,
            absent: vec!["debconf", "tool"],
            alone: vec!["base-files"],
            ..Wanted::default()
        };
        let chosen = resolve(&all, &wanted, "amd64").unwrap();
        let names: Vec<&str> = chosen.iter().map(|package| &*package.name).collect();
        assert_eq!(names, ["base-files", "libc6", "certs"]);
    }
}
