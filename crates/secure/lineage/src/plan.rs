//! What is to be done, and in which order.

use crate::Graph;

/// Packages of an image that are to be brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected<P> {
    /// The image, by its number in the graph.
    pub node: usize,
    /// The package.
    pub package: P,
    /// The layer that brought it, counted from 0 at the bottom.
    pub layer: usize,
}

/// What happens to one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<P> {
    /// The image, by its number in the graph.
    pub node: usize,
    /// Its layers go onto what becomes of this image.
    pub follows: Option<usize>,
    /// The packages that it brought itself, to be brought up to date in it.
    pub packages: Vec<P>,
    /// The lowest layer that brought one of them: from there on its layers become one.
    pub from: usize,
}

/// The steps, each after that of the image that it derives from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<P> {
    /// The steps.
    pub steps: Vec<Step<P>>,
    /// Images that would change with a step, and are left as they are since nobody asked for them.
    pub left: Vec<usize>,
}

/// The plan: each package is brought up to date in the image that brought it, and of those that derive from it and have it all
/// follow that `wanted` says. An image between two of the plan follows in any case.
pub fn plan<P: Clone + PartialEq>(
    graph: &Graph,
    affected: &[Affected<P>],
    wanted: impl Fn(usize) -> bool,
) -> Plan<P> {
    let count = graph.nodes().len();
    let mut own: Vec<Vec<&Affected<P>>> = vec![Vec::new(); count];
    for one in affected.iter().filter(|one| one.node < count) {
        // What the image has from others is theirs to mend: they are here with it.
        let bringer = graph.brought(one.node, one.layer);
        if !own[bringer].iter().any(|known| known.package == one.package) {
            own[bringer].push(one);
        }
    }
    let mut has = vec![false; count];
    for one in affected.iter().filter(|one| one.node < count) {
        has[one.node] = true;
    }
    // An image is needed when it has something and is wanted, or one that derives from it is.
    let mut needed = vec![false; count];
    for node in (0..count).filter(|node| has[*node] && wanted(*node)) {
        for below in graph.line(node) {
            needed[below] = true;
        }
    }
    let mut changed = vec![false; count];
    let mut left = vec![false; count];
    let mut plan = Plan {
        steps: Vec::new(),
        left: Vec::new(),
    };
    for root in graph.roots() {
        for node in graph.descendants(root) {
            let parent = graph.parent(node);
            let base = parent.filter(|parent| changed[*parent]);
            if own[node].is_empty() && base.is_none() && parent.is_none_or(|parent| !left[parent]) {
                continue;
            }
            if !needed[node] {
                left[node] = true;
                // One that has nothing of it needs nothing.
                plan.left.extend(has[node].then_some(node));
                continue;
            }
            changed[node] = true;
            plan.steps.push(Step {
                node,
                follows: base,
                packages: own[node].iter().map(|one| one.package.clone()).collect(),
                from: own[node].iter().map(|one| one.layer).min().unwrap_or(0),
            });
        }
    }
    plan
}
