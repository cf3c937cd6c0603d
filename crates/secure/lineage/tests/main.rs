//! Chains of images, and who brought what.

use dhow_lineage::{Graph, Node};
use dhow_types::{DiffId, Digest, ImageId};
use proptest::prelude::*;

fn layer(name: &str) -> DiffId {
    DiffId(Digest::of(name.as_bytes()))
}

fn image(name: &str, layers: &[&str], history: &[&str]) -> Node {
    Node {
        id: ImageId(Digest::of(name.as_bytes())),
        names: vec![name.to_owned()],
        layers: layers.iter().map(|name| layer(name)).collect(),
        history: history.iter().map(|&step| step.to_owned()).collect(),
        created: 0,
    }
}

fn name(graph: &Graph, node: usize) -> &str {
    &graph.nodes()[node].names[0]
}

fn at(graph: &Graph, wanted: &str) -> usize {
    graph
        .nodes()
        .iter()
        .position(|node| node.names[0] == wanted)
        .unwrap_or(usize::MAX)
}

fn line(graph: &Graph, of: &str) -> Vec<String> {
    let line = graph.line(at(graph, of));
    line.into_iter()
        .map(|node| name(graph, node).to_owned())
        .collect()
}

#[test]
fn an_image_stands_on_the_longest_stack_that_it_begins_with() {
    let graph = Graph::of(vec![
        image("app", &["1", "2", "3"], &[]),
        image("base", &["1"], &[]),
        image("middle", &["1", "2"], &[]),
        image("other", &["1", "3"], &[]),
        image("stranger", &["2", "3"], &[]),
        image("empty", &[], &[]),
    ]);
    assert_eq!(line(&graph, "app"), ["app", "middle", "base"]);
    assert_eq!(line(&graph, "other"), ["other", "base"]);
    assert_eq!(line(&graph, "stranger"), ["stranger"]);
    let roots: Vec<&str> = graph.roots().into_iter().map(|node| name(&graph, node)).collect();
    assert_eq!(roots, ["base", "stranger", "empty"]);
    let below: Vec<&str> = graph
        .descendants(at(&graph, "base"))
        .into_iter()
        .map(|node| name(&graph, node))
        .collect();
    assert_eq!(below, ["base", "middle", "app", "other"]);
}

#[test]
fn a_layer_is_of_the_lowest_image_that_has_it() {
    let graph = Graph::of(vec![
        image("base", &["1", "2"], &[]),
        image("middle", &["1", "2", "3"], &[]),
        image("app", &["1", "2", "3", "4", "5"], &[]),
    ]);
    let app = at(&graph, "app");
    let brought: Vec<&str> = (0..5)
        .map(|layer| name(&graph, graph.brought(app, layer)))
        .collect();
    assert_eq!(brought, ["base", "base", "middle", "app", "app"]);
    assert_eq!(graph.own_layers(app), 3..5);
    assert_eq!(graph.own_layers(at(&graph, "base")), 0..2);
}

#[test]
fn twins_are_told_apart_by_their_history_or_not_at_all() {
    let graph = Graph::of(vec![
        image("plain", &["1"], &["ADD"]),
        image("with-env", &["1"], &["ADD", "ENV"]),
        image("other-env", &["1"], &["ADD", "USER"]),
        image("child", &["1", "2"], &["ADD", "ENV", "RUN"]),
    ]);
    assert_eq!(line(&graph, "child"), ["child", "with-env", "plain"]);
    assert_eq!(line(&graph, "other-env"), ["other-env", "plain"]);
    // The layer is still the plain one's.
    let child = at(&graph, "child");
    assert_eq!(name(&graph, graph.brought(child, 0)), "plain");
    // The same steps and the same layers: nobody can say who was first.
    let graph = Graph::of(vec![image("a", &["1"], &["ADD"]), image("b", &["1"], &["ADD"])]);
    assert_eq!(
        (line(&graph, "a"), line(&graph, "b")),
        (vec!["a".into()], vec!["b".into()])
    );
}

#[test]
fn one_image_is_one_node() {
    let graph = Graph::of(vec![image("a", &["1"], &[]), image("a", &["1"], &[])]);
    assert_eq!(graph.nodes().len(), 1);
}

proptest! {
    /// Each image is made on one before it, by adding some layers; the graph finds exactly that, over any number of levels.
    #[test]
    fn chains_that_were_made_are_found(steps in proptest::collection::vec((any::<u16>(), 1_usize..4), 1..40)) {
        let mut made: Vec<(Node, Option<usize>)> = Vec::new();
        for (number, (on, added)) in steps.iter().enumerate() {
            let parent = (number > 0 && on % 5 != 0).then(|| usize::from(*on) % number);
            let (mut layers, mut history) = parent.map_or_else(
                || (Vec::new(), Vec::new()),
                |parent| (made[parent].0.layers.clone(), made[parent].0.history.clone()),
            );
            for layer_number in 0..*added {
                layers.push(layer(&format!("{number}-{layer_number}")));
                history.push(format!("{number}-{layer_number}"));
            }
            let node = Node { layers, history, ..image(&number.to_string(), &[], &[]) };
            made.push((node, parent));
        }
        // In another order than they were made in.
        let graph = Graph::of(made.iter().rev().map(|(node, _)| node.clone()).collect());
        for (node, parent) in &made {
            let found = graph.find(&node.id).and_then(|at| graph.parent(at)).map(|at| graph.nodes()[at].id);
            prop_assert_eq!(found, parent.map(|parent| made[parent].0.id));
        }
    }
}
