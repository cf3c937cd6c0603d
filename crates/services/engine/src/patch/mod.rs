//! Patches: a vulnerability is mended in the image that brought it, and all that derive from it inherit that.
//!
//! Nothing is changed before all is proven: new images are made beside the old ones, each is looked through again, and only then do all
//! names move at once. Whatever fails leaves the old images and names as they were.

mod follow;
mod pending;
mod proof;
mod rebuild;
mod said;
mod upgrade;

use std::collections::HashMap;
use std::time::SystemTime;

use dhow_image::Image;
use dhow_inventory::{Inventory, Kind};
use dhow_lifecycle::Statement;
use dhow_lineage::{Affected, Graph, Plan, Step, plan};
use dhow_reference::Reference;
use dhow_types::{DiffId, ImageId};

use self::pending::{Owed, Pending};
use self::said::Evidence;
use crate::event::Event;
use crate::{Advisories, Context as _, Engine, Error, Vulnerable};

pub use proof::Change;
pub use rebuild::{GivenRecipe, PatchWays, Rebuild};
pub use said::Fixed;

/// What to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchTarget {
    /// These vulnerabilities, wherever they came in.
    Vulnerabilities(Vec<String>),
    /// All that a new version of a package mends in this image.
    Image(String),
}

/// A package to be brought up to date in the image that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// Who installs it.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version that is there.
    pub version: String,
    /// The vulnerabilities that this mends, each with the first version that has it no more.
    pub mends: Vec<(String, String)>,
}

/// What a patch cannot mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmendable {
    /// The image that brought it, by its number in the graph.
    pub node: usize,
    /// The package and its version.
    pub package: String,
    /// The vulnerability.
    pub vulnerability: String,
    /// Why not.
    pub why: String,
}

/// What a patch would do.
#[derive(Clone, Debug)]
pub struct PatchPlan {
    /// The images that are here.
    pub graph: Graph,
    /// What happens to which, and in which order.
    pub plan: Plan<Mend>,
    /// What stays.
    pub unmendable: Vec<Unmendable>,
    /// For each image of the plan what is to be gone from it: package and vulnerability.
    goals: HashMap<usize, Vec<Goal>>,
}

/// A vulnerability in a package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Goal {
    kind: Kind,
    package: String,
    vulnerability: String,
}

/// What became of an image.
#[derive(Clone, Debug)]
pub struct Patched {
    /// The image, by its number in the graph.
    pub node: usize,
    /// What takes its place.
    pub image: ImageId,
    /// The names that it has now.
    pub names: Vec<String>,
    /// The names under which the old one stays.
    pub superseded: Vec<String>,
    /// How it was made.
    pub how: How,
    /// What changed among its packages.
    pub changes: Vec<Change>,
    /// The vulnerabilities that are gone.
    pub fixed: Vec<Fixed>,
    /// What a person should know.
    pub notes: Vec<String>,
    evidence: said::Evidence,
}

/// How an image was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Its packages were brought up to date, and are in the layers that brought them.
    Upgraded,
    /// Its layers are on the new base; files of all packages were merged in so many of them.
    Followed {
        /// Layers that had to be written again.
        merged: usize,
        /// Whether packages of its own were brought up to date, too.
        upgraded: bool,
    },
    /// It was built again by its recipe.
    Rebuilt {
        /// Why its layers could not follow, path by path; empty where nobody tried.
        conflicts: Vec<String>,
    },
    /// Its layers would not be the same on the new base, so its packages were brought up to date above the old one.
    Apart {
        /// Why, path by path.
        conflicts: Vec<String>,
    },
}

/// What is looked for in images.
enum Sought {
    Vulnerabilities(Vec<crate::Vulnerability>),
    /// Vulnerabilities by name, of any package.
    Named(Vec<String>),
}

impl Engine {
    /// What a patch would do. Without `cascade` only the images that brought something are patched, or of a patch of an image
    /// those that it stands on. The caller must be single-threaded.
    ///
    /// # Errors
    /// `NotFound` for a vulnerability that the data does not know, and an image that is not here.
    pub fn plan_patch(
        &self,
        target: &PatchTarget,
        cascade: bool,
        advisories: &Advisories,
    ) -> Result<PatchPlan, Error> {
        let graph = self.lineage()?;
        let mut about = None;
        let sought = match target {
            PatchTarget::Vulnerabilities(names) => {
                let subjects = names.iter().map(|name| advisories.about(name));
                Sought::Vulnerabilities(subjects.collect::<Result<_, _>>()?)
            }
            PatchTarget::Image(name) => {
                let image = self.image(name)?;
                about = graph.find(&image.id);
                let contents = self.contents(&image)?;
                let found = self.scan(&contents.inventory, advisories)?.found;
                Sought::Named(
                    found
                        .iter()
                        .map(|one| one.finding.advisory.known_as().to_owned())
                        .collect(),
                )
            }
        };
        let mut planned = PatchPlan {
            plan: Plan {
                steps: Vec::new(),
                left: Vec::new(),
            },
            unmendable: Vec::new(),
            goals: HashMap::new(),
            graph,
        };
        let affected = self.affected(&sought, advisories, &mut planned)?;
        let graph = &planned.graph;
        let brings = |node: usize| {
            let mut ours = affected.iter();
            ours.any(|one| one.node == node && graph.brought(node, one.layer) == node)
        };
        let mut made = plan(graph, &affected, |node| {
            is_used(graph, node) && (cascade || about.map_or_else(|| brings(node), |about| about == node))
        });
        made.left.retain(|node| is_used(graph, *node));
        planned.plan = made;
        Ok(planned)
    }

    /// What of the images is to be mended; what cannot be is written into the plan.
    fn affected(
        &self,
        sought: &Sought,
        advisories: &Advisories,
        planned: &mut PatchPlan,
    ) -> Result<Vec<Affected<Mend>>, Error> {
        let mut affected: Vec<Affected<Mend>> = Vec::new();
        let mut known: HashMap<Vec<DiffId>, (Inventory, Vec<Vulnerable>)> = HashMap::new();
        for (node, image) in planned.graph.nodes().iter().enumerate() {
            if !known.contains_key(&image.layers) {
                let inventory = self.contents_of_layers(&image.layers)?.inventory;
                let found = self.sought(sought, &inventory, advisories)?;
                known.insert(image.layers.clone(), (inventory, found));
            }
            let Some((inventory, found)) = known.get(&image.layers) else {
                continue;
            };
            let mut goals = Vec::new();
            for one in found {
                let installed = &inventory.packages[one.package];
                let package = &installed.package;
                let vulnerability = one.finding.advisory.known_as().to_owned();
                let bringer = planned.graph.brought(node, installed.layer);
                let fixed = match (&one.finding.fixed, package.kind.is_system()) {
                    (Some(fixed), true) => fixed.clone(),
                    (fixed, _) => {
                        let unmendable = Unmendable {
                            node: bringer,
                            package: format!("{} {}", package.name, package.version),
                            vulnerability,
                            why: match fixed {
                                None => "no version of it mends this".to_owned(),
                                Some(fixed) => format!(
                                    "{fixed} does, but it is no package of the system: build the image again with that"
                                ),
                            },
                        };
                        if !planned.unmendable.contains(&unmendable) {
                            planned.unmendable.push(unmendable);
                        }
                        continue;
                    }
                };
                goals.push(Goal {
                    kind: package.kind,
                    package: package.name.clone(),
                    vulnerability: vulnerability.clone(),
                });
                let same = affected.iter_mut().find(|other| {
                    other.node == node
                        && other.layer == installed.layer
                        && other.package.name == package.name
                        && other.package.version == package.version
                });
                match same {
                    Some(other) => other.package.mends.push((vulnerability, fixed)),
                    None => affected.push(Affected {
                        node,
                        layer: installed.layer,
                        package: Mend {
                            kind: package.kind,
                            name: package.name.clone(),
                            version: package.version.clone(),
                            mends: vec![(vulnerability, fixed)],
                        },
                    }),
                }
            }
            planned.goals.insert(node, goals);
        }
        Ok(affected)
    }

    fn sought(
        &self,
        sought: &Sought,
        inventory: &Inventory,
        advisories: &Advisories,
    ) -> Result<Vec<Vulnerable>, Error> {
        Ok(match sought {
            Sought::Vulnerabilities(subjects) => {
                let subjects = subjects.iter();
                subjects.flat_map(|subject| subject.within(inventory)).collect()
            }
            Sought::Named(names) => {
                let found = self.scan(inventory, advisories)?.found.into_iter();
                found
                    .filter(|one| names.iter().any(|name| name == one.finding.advisory.known_as()))
                    .collect()
            }
        })
    }

    /// Carries out a plan. `tell` hears of each image before its turn. The caller must be single-threaded.
    ///
    /// # Errors
    /// `FailedPrecondition` when an image does not come out as planned: a vulnerability is still there, another came, a package was
    /// lost, a file is not what its package says, or a command failed; and when an image is to be built again by a recipe for which
    /// something is missing. Then nothing has changed.
    pub fn patch(
        &self,
        planned: &PatchPlan,
        advisories: &Advisories,
        ways: &PatchWays,
        tell: &mut dyn FnMut(usize),
    ) -> Result<Vec<Patched>, Error> {
        let _lease = self.keep_all()?;
        let mut made: Vec<Patched> = Vec::new();
        let mut make = || -> Result<(Vec<Event>, Pending), Error> {
            for step in &planned.plan.steps {
                tell(step.node);
                let one = self.step(planned, step, &made, advisories, ways);
                made.push(one.context(|| format!("patch {}", name_of(planned, step.node)))?);
            }
            for one in &made {
                let kept = self.keep_said(planned, one);
                kept.context(|| format!("patch {}", name_of(planned, one.node)))?;
            }
            self.take_over(planned, &mut made)
        };
        let (events, pending) = match make() {
            Ok(moved) => moved,
            Err(error) => {
                for one in made.iter().rev() {
                    self.discard(&one.image);
                }
                return Err(error);
            }
        };
        self.store()?.sync().context(|| "write the images to disk")?;
        self.tell_all(&events);
        for one in &made {
            let old = &planned.graph.nodes()[one.node].id;
            self.write_statement(old, &superseded_by(planned, one))?;
        }
        pending.end();
        Ok(made)
    }

    /// Takes away an image that was made on the way, unless somebody has given it a name.
    pub(super) fn discard(&self, image: &ImageId) {
        if self
            .image(&image.to_string())
            .is_ok_and(|image| image.names.is_empty())
        {
            let _best_effort = self.remove_image(&image.to_string(), false);
        }
    }

    fn step(
        &self,
        planned: &PatchPlan,
        step: &Step<Mend>,
        made: &[Patched],
        advisories: &Advisories,
        ways: &PatchWays,
    ) -> Result<Patched, Error> {
        let begun = SystemTime::now();
        let node = &planned.graph.nodes()[step.node];
        let old = self.image(&node.id.to_string())?;
        let base = step
            .follows
            .and_then(|parent| made.iter().find(|one| one.node == parent));
        let mut making = self.making(planned, step, &old)?;
        let (image, how) = match (self.first_recipe(step.node, &old, ways, &mut making.notes)?, base) {
            (Some(recipe), _) => {
                let image = self.built_again(planned, &old, &recipe, made, &step.packages, &mut making)?;
                let conflicts = Vec::new();
                (image, How::Rebuilt { conflicts })
            }
            (None, None) => {
                let (image, fetched) = self.upgraded(&old, &step.packages, step.from)?;
                making.fetched = fetched;
                (image, How::Upgraded)
            }
            (None, Some(base)) => self.followed(planned, step, &old, (base, made), ways, &mut making)?,
        };
        let mut done = Patched {
            node: step.node,
            image,
            names: node.names.clone(),
            superseded: Vec::new(),
            how,
            changes: Vec::new(),
            fixed: Vec::new(),
            notes: std::mem::take(&mut making.notes),
            evidence: making,
        };
        let smoke = ways.smoke.as_deref();
        let proven = self.prove(planned, step, &old, base, &mut done, advisories, smoke);
        if proven.is_err() {
            self.discard(&done.image);
        }
        proven?;
        done.evidence.about(&old, smoke, advisories, begun);
        Ok(done)
    }

    /// What is known before an image is made.
    fn making(&self, planned: &PatchPlan, step: &Step<Mend>, old: &Image) -> Result<Evidence, Error> {
        let goals = planned.goals.get(&step.node).into_iter().flatten();
        let mut evidence = Evidence::default();
        evidence.asked = goals.map(|goal| goal.vulnerability.clone()).collect();
        evidence.made_of("old image", &name_of(planned, step.node), old);
        evidence.keep_recipe(self.recorded_recipe(old)?.ok().as_ref());
        Ok(evidence)
    }

    /// An image on what its base became.
    fn followed(
        &self,
        planned: &PatchPlan,
        step: &Step<Mend>,
        old: &Image,
        (base, made): (&Patched, &[Patched]),
        ways: &PatchWays,
        making: &mut Evidence,
    ) -> Result<(ImageId, How), Error> {
        let old_base = self.image(&planned.graph.nodes()[base.node].id.to_string())?;
        let new_base = self.image(&base.image.to_string())?;
        let (image, merged) = match self.on_new_base(old, &old_base, &new_base)? {
            follow::Outcome::Made { image, merged } => (image, merged),
            follow::Outcome::Conflicts(conflicts) => {
                if let Some(image) = self.rebuilt_instead(planned, step, old, made, ways, making)? {
                    return Ok((image, How::Rebuilt { conflicts }));
                }
                let packages = planned.all_packages(step.node);
                let from = old.record.layers.len().saturating_sub(1);
                let (image, fetched) = self.upgraded(old, &packages, from)?;
                making.fetched = fetched;
                return Ok((image, How::Apart { conflicts }));
            }
        };
        making.made_of("new base", &name_of(planned, base.node), &new_base);
        if step.packages.is_empty() {
            let upgraded = false;
            return Ok((image, How::Followed { merged, upgraded }));
        }
        let own = step.from - old_base.record.layers.len().min(step.from);
        let between = self.image(&image.to_string())?;
        let upgraded = self.upgraded(&between, &step.packages, new_base.record.layers.len() + own);
        self.discard(&image);
        let how = How::Followed {
            merged,
            upgraded: true,
        };
        let (image, fetched) = upgraded?;
        making.fetched = fetched;
        Ok((image, how))
    }

    /// An image whose layers cannot follow, built again; none where that cannot be done.
    fn rebuilt_instead(
        &self,
        planned: &PatchPlan,
        step: &Step<Mend>,
        old: &Image,
        made: &[Patched],
        ways: &PatchWays,
        making: &mut Evidence,
    ) -> Result<Option<ImageId>, Error> {
        if ways.rebuild == Rebuild::Never {
            return Ok(None);
        }
        let why = match self.recipe(old, None)? {
            Ok(recipe) => match self.built_again(planned, old, &recipe, made, &step.packages, making) {
                Ok(image) => return Ok(Some(image)),
                Err(error) => crate::worker::chain(&error),
            },
            Err(missing) => missing,
        };
        making.notes.push(format!("not built again: {why}"));
        Ok(None)
    }

    /// Gives the names of the old images to the new ones, all at once; what is to be told of it, and what is to be said of the old ones.
    fn take_over(&self, planned: &PatchPlan, made: &mut [Patched]) -> Result<(Vec<Event>, Pending), Error> {
        let store = self.store()?;
        let mut moves = Vec::new();
        let mut events = Vec::new();
        for one in made.iter_mut() {
            let old = &planned.graph.nodes()[one.node];
            for name in &old.names {
                let reference = Reference::parse(name).context(|| format!("read the name {name}"))?;
                if reference.digest().is_some() {
                    continue;
                }
                let kept = superseded(&reference, &old.id)?;
                events.push(Event::of_image("tag", one.image, &reference.familiar()));
                one.superseded.push(kept.familiar());
                moves.push((reference, old.id, one.image));
                moves.push((kept, old.id, old.id));
            }
        }
        let owed: Vec<Owed> = made
            .iter()
            .map(|one| Owed {
                old: planned.graph.nodes()[one.node].id,
                kept: one.superseded.clone(),
                statement: superseded_by(planned, one),
            })
            .collect();
        let pending = self.write_down_owed(&owed)?;
        let moved = store.move_names(&moves);
        match moved.context(|| "give the new images their names") {
            Ok(()) => Ok((events, pending)),
            Err(error) => {
                pending.end();
                Err(error)
            }
        }
    }
}

/// What is said of the image whose place this one took.
fn superseded_by(planned: &PatchPlan, one: &Patched) -> Statement {
    let goals = planned.goals.get(&one.node).into_iter().flatten();
    let mut mended: Vec<&str> = goals.map(|goal| goal.vulnerability.as_str()).collect();
    mended.sort_unstable();
    mended.dedup();
    Statement {
        date: crate::lifecycle::today(),
        successor: one.names.first().map(|name| familiar(name)),
        reason: Some(format!("it has {}", mended.join(", "))),
        revoked: false,
        signed: true,
        by: None,
    }
}

fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}

/// The name under which an image stays that another took the name of: `app:1-superseded-0123456789ab`.
fn superseded(name: &Reference, old: &ImageId) -> Result<Reference, Error> {
    let name = name.clone().or_latest();
    let mut tag = name.tag().unwrap_or("latest").to_owned();
    // A tag has 128 characters at most (distribution-spec, "Pulling manifests").
    tag.truncate(100);
    let text = format!("{}:{tag}-superseded-{}", name.name(), &old.hex()[..12]);
    Reference::parse(&text).context(|| format!("make a name for the old {}", name.familiar()))
}

/// Whether an image is there for its own sake: it has a name, and not only that of one whose place another took.
fn is_used(graph: &Graph, node: usize) -> bool {
    let node = &graph.nodes()[node];
    let end = format!("-superseded-{}", &node.id.hex()[..12]);
    node.names.iter().any(|name| !name.ends_with(&end))
}

fn name_of(planned: &PatchPlan, node: usize) -> String {
    let node = &planned.graph.nodes()[node];
    let name = node.names.first();
    name.cloned().unwrap_or_else(|| node.id.to_string())
}

impl PatchPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plan.steps.is_empty()
    }

    /// What is to be brought up to date in an image and in those it stands on.
    fn all_packages(&self, node: usize) -> Vec<Mend> {
        let line = self.graph.line(node);
        let steps = self.plan.steps.iter();
        steps
            .filter(|step| line.contains(&step.node))
            .flat_map(|step| step.packages.clone())
            .collect()
    }
}
