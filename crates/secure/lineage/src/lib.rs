//! Who derives from whom.
//!
//! # Story
//! An image is a stack of layers on the stack of another: `FROM` says so, and it can be seen in the layers themselves. Image B is
//! an ancestor of image I if the layers of B are the lowest ones of I, and B has fewer. That needs no word from whoever built
//! them, no network and no registry, and holds over any number of levels ([`Graph`]). So the image of a chain that brought a
//! layer is known ([`Graph::brought`]): the place where what came with it is to be mended, for all that derive from it ([`plan`]).
//!
//! # What it promises
//! - Diff ids are compared, never blobs: another compression does not hide an ancestor.
//! - Two images with the same layers are twins: they differ in their configs only. One whose history is the beginning of the
//!   other's is its ancestor; otherwise neither is.
//! - Pure: no I/O, no clock. Time is linear in the number of layers of all images.

#![forbid(unsafe_code)]

mod plan;

use std::collections::HashMap;

use dhow_types::{DiffId, Digest, ImageId};

pub use plan::{Affected, Plan, Step, plan};

/// An image, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: ImageId,
    /// Its names, the best first; none for one that lost them.
    pub names: Vec<String>,
    /// Its layers, the lowest first.
    pub layers: Vec<DiffId>,
    /// The steps of its history, the oldest first; layers without files count.
    pub history: Vec<String>,
    /// When it was made, seconds since 1970.
    pub created: i64,
}

/// The inheritance of images.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

/// A number for a stack of layers.
fn chain(below: Option<Digest>, layer: &DiffId) -> Digest {
    match below {
        // As the image specification has it ("Layer ChainID").
        Some(below) => Digest::of(format!("{below} {layer}").as_bytes()),
        None => layer.0,
    }
}

impl Graph {
    /// The graph of these images. One that is there twice is taken once.
    #[must_use]
    pub fn of(images: Vec<Node>) -> Self {
        let mut nodes: Vec<Node> = Vec::with_capacity(images.len());
        let mut seen: HashMap<ImageId, usize> = HashMap::new();
        for node in images {
            if let std::collections::hash_map::Entry::Vacant(slot) = seen.entry(node.id) {
                slot.insert(nodes.len());
                nodes.push(node);
            }
        }
        // Which images end with a stack.
        let mut ends: HashMap<Digest, Vec<usize>> = HashMap::new();
        let stacks: Vec<Vec<Digest>> = nodes
            .iter()
            .map(|node| {
                let mut below = None;
                node.layers
                    .iter()
                    .map(|layer| {
                        let id = chain(below, layer);
                        below = Some(id);
                        id
                    })
                    .collect()
            })
            .collect();
        for (at, stack) in stacks.iter().enumerate() {
            if let Some(last) = stack.last() {
                ends.entry(*last).or_default().push(at);
            }
        }
        let parents: Vec<Option<usize>> = (0..nodes.len())
            .map(|at| {
                stacks[at]
                    .iter()
                    .rev()
                    .find_map(|stack| parent_among(&nodes, at, ends.get(stack)?))
            })
            .collect();
        let mut children = vec![Vec::new(); nodes.len()];
        for (at, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(at);
            }
        }
        Self {
            nodes,
            parents,
            children,
        }
    }

    /// The images.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The number of an image.
    #[must_use]
    pub fn find(&self, id: &ImageId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    /// The image that another was made on.
    #[must_use]
    pub fn parent(&self, node: usize) -> Option<usize> {
        self.parents.get(node).copied().flatten()
    }

    /// The images that were made on another, by number.
    #[must_use]
    pub fn children(&self, node: usize) -> &[usize] {
        self.children.get(node).map_or(&[], Vec::as_slice)
    }

    /// The image and all below it, itself first.
    #[must_use]
    pub fn line(&self, node: usize) -> Vec<usize> {
        let mut line = vec![node];
        let mut at = node;
        // An ancestor has fewer layers, or a shorter history: there is an end.
        while let Some(parent) = self.parent(at) {
            line.push(parent);
            at = parent;
        }
        line
    }

    /// The image and all that derive from it, each after what it derives from.
    #[must_use]
    pub fn descendants(&self, node: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut waiting = vec![node];
        while let Some(at) = waiting.pop() {
            found.push(at);
            waiting.extend(self.children(at).iter().rev());
        }
        found
    }

    /// Images that nothing is known to be below.
    #[must_use]
    pub fn roots(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|at| self.parents[*at].is_none())
            .collect()
    }

    /// The image of a chain that brought a layer of an image, counted from 0 at the bottom: the lowest ancestor that has it.
    #[must_use]
    pub fn brought(&self, node: usize, layer: usize) -> usize {
        self.line(node)
            .into_iter()
            .rev()
            .find(|at| self.nodes[*at].layers.len() > layer)
            .unwrap_or(node)
    }

    /// The layers that an image itself added to what it was made on.
    #[must_use]
    pub fn own_layers(&self, node: usize) -> std::ops::Range<usize> {
        let from = self
            .parent(node)
            .map_or(0, |parent| self.nodes[parent].layers.len());
        let to = self.nodes.get(node).map_or(from, |node| node.layers.len());
        from..to
    }
}

/// Of images that have a stack which this one begins with, the closest to it: with the longest history that is the beginning of its own.
/// Of several that tell nothing apart the oldest.
fn parent_among(nodes: &[Node], of: usize, candidates: &[usize]) -> Option<usize> {
    let node = &nodes[of];
    let best = candidates
        .iter()
        .copied()
        .filter(|at| *at != of)
        .filter(|at| {
            let other = &nodes[*at];
            // Twins: only a history can say which came first.
            other.layers.len() < node.layers.len()
                || (other.history.len() < node.history.len() && node.history.starts_with(&other.history))
        })
        .max_by_key(|at| {
            let other = &nodes[*at];
            let told = node.history.starts_with(&other.history);
            let length = if told { other.history.len() } else { 0 };
            (
                told,
                length,
                !other.names.is_empty(),
                std::cmp::Reverse((other.created, other.id.0)),
            )
        })?;
    Some(best)
}
