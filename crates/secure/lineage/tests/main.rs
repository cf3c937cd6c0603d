//! Chains of images, and who brought what.

use dhow_lineage::{Affected, Graph, Node, plan};
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

fn hit(node: usize, package: &'static str, layer: usize) -> Affected<&'static str> {
    Affected { node, package, layer }
}

#[test]
fn each_image_is_mended_where_the_package_came_in_and_all_others_follow_once() {
    // 0 base, 1 on it, 2 on 1, 3 on 0 with a curl of its own, 4 alone.
    let stacks: [&[&str]; 5] = [&["a"], &["a", "b"], &["a", "b", "c"], &["a", "d"], &["z"]];
    let images = stacks.iter().enumerate();
    let images = images.map(|(at, layers)| image(&format!("image{at}"), layers, layers));
    let graph = Graph::of(images.collect());
    let affected = [
        hit(0, "openssl", 0),
        hit(1, "openssl", 0),
        hit(2, "openssl", 0),
        hit(3, "openssl", 0),
        hit(3, "curl", 1),
    ];
    let all = plan(&graph, &affected, |_| true);
    let steps: Vec<_> = all
        .steps
        .iter()
        .map(|step| (step.node, step.follows, step.packages.clone(), step.from))
        .collect();
    assert_eq!(
        steps,
        [
            (0, None, vec!["openssl"], 0),
            (1, Some(0), vec![], 0),
            (2, Some(1), vec![], 0),
            (3, Some(0), vec!["curl"], 1),
        ]
    );
    assert!(all.left.is_empty());
    // Only one of them is asked for: what it stands on comes along, the others are named.
    let some = plan(&graph, &affected, |node| node == 2);
    assert_eq!(
        some.steps.iter().map(|step| step.node).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(some.left, [3]);
    let first = plan(&graph, &affected, |node| node == 0);
    assert_eq!(first.left, [1, 2, 3]);
    // One that has it no more, though what it stands on has, stays as it is.
    let some = plan(&graph, &affected[..1], |_| true);
    assert_eq!(some.steps.len(), 1);
    assert!(some.left.is_empty());
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
