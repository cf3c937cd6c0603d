//! `tree`: who derives from whom.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::tree::Graph;
use serde_json::{Value, json};

use super::sbom::pretty;
use crate::render::say;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "tree",
    about: "Show which images derive from which, by their layers",
    flags: |command| TreeFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct TreeFlags {
    /// Format output: text, json or dot (for Graphviz)
    #[arg(long, default_value = "text", value_parser = ["text", "json", "dot"])]
    format: String,
    /// Only the line of this image: what it was made on, and what was made on it
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

/// The name of an image for people: the best of its names, or its short id.
pub(super) fn name(graph: &Graph, node: usize) -> String {
    let node = &graph.nodes()[node];
    node.names.first().map_or_else(
        || node.id.short(),
        |name| dhow_reference::Reference::parse(name).map_or_else(|_| name.clone(), |name| name.familiar()),
    )
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: TreeFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let graph = engine.lineage()?;
    let (roots, kept) = match &flags.image {
        None => (graph.roots(), None),
        Some(image) => {
            let image = engine.image(&super::local_image(engine, image))?;
            let node = graph
                .find(&image.id)
                .ok_or_else(|| CliError::plain("the image was removed meanwhile"))?;
            let mut kept = graph.descendants(node);
            let line = graph.line(node);
            kept.extend(&line);
            (line.last().copied().into_iter().collect(), Some(kept))
        }
    };
    let keeps = |node: usize| kept.as_ref().is_none_or(|kept| kept.contains(&node));
    let text = match flags.format.as_str() {
        "json" => pretty(&json!(
            roots
                .iter()
                .map(|root| document(&graph, *root, &keeps, 0))
                .collect::<Vec<_>>()
        )),
        "dot" => dot(&graph, &keeps),
        _ => {
            let mut text = String::new();
            for root in roots {
                branch(&graph, root, &keeps, "", "", &mut text);
            }
            text
        }
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Deepest branch that is drawn: an image has at most 127 layers, and twins are few.
const DEEPEST: usize = 512;

fn label(graph: &Graph, node: usize) -> String {
    let own = graph.own_layers(node).len();
    let layers = match (graph.parent(node), own) {
        (_, 1) => "1 layer".to_owned(),
        (_, own) => format!("{own} layers"),
    };
    let more = graph.nodes()[node].names.len().saturating_sub(1);
    let names = match more {
        0 => String::new(),
        1 => ", 1 more name".to_owned(),
        more => format!(", {more} more names"),
    };
    format!(
        "{} ({}{}{names})",
        name(graph, node),
        if graph.parent(node).is_some() { "+" } else { "" },
        layers
    )
}

/// One image and all below it, as `tree` draws folders.
fn branch(
    graph: &Graph,
    node: usize,
    keeps: &dyn Fn(usize) -> bool,
    first: &str,
    rest: &str,
    text: &mut String,
) {
    text.push_str(&format!("{first}{}\n", label(graph, node)));
    let mut children: Vec<usize> = graph
        .children(node)
        .iter()
        .copied()
        .filter(|child| keeps(*child))
        .collect();
    children.sort_by_key(|child| name(graph, *child));
    let count = children.len();
    if rest.len() > DEEPEST * 4 {
        return;
    }
    for (at, child) in children.into_iter().enumerate() {
        let (corner, line) = if at + 1 == count {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        branch(
            graph,
            child,
            keeps,
            &format!("{rest}{corner}"),
            &format!("{rest}{line}"),
            text,
        );
    }
}

fn document(graph: &Graph, node: usize, keeps: &dyn Fn(usize) -> bool, depth: usize) -> Value {
    let image = &graph.nodes()[node];
    let children: Vec<Value> = graph
        .children(node)
        .iter()
        .filter(|child| keeps(**child) && depth < DEEPEST)
        .map(|child| document(graph, *child, keeps, depth + 1))
        .collect();
    json!({
        "ID": image.id.to_string(),
        "Names": image.names,
        "OwnLayers": graph.own_layers(node).map(|layer| image.layers[layer].to_string()).collect::<Vec<_>>(),
        "Children": children,
    })
}

fn dot(graph: &Graph, keeps: &dyn Fn(usize) -> bool) -> String {
    let mut text = "digraph images {\n    rankdir=LR;\n    node [shape=box];\n".to_owned();
    for node in (0..graph.nodes().len()).filter(|node| keeps(*node)) {
        let label = name(graph, node).replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("    n{node} [label=\"{label}\"];\n"));
        if let Some(parent) = graph.parent(node).filter(|parent| keeps(*parent)) {
            text.push_str(&format!("    n{parent} -> n{node};\n"));
        }
    }
    text.push_str("}\n");
    text
}
