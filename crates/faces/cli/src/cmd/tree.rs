//! `tree`: who derives from whom.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::tree::Graph;
use serde_json::{Value, json};

use super::sbom::pretty;
use crate::render::{note, say};
use crate::{CliError, Context, Verb, dialect};

mod svg;

pub(crate) const VERB: Verb = Verb {
    name: "tree",
    about: "Show which images derive from which, by their layers",
    flags: |command| TreeFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct TreeFlags {
    /// Format output: text, json, dot (for Graphviz) or svg
    #[arg(long, default_value = "text", value_parser = ["text", "json", "dot", "svg"])]
    format: String,
    /// The images of a registry instead, or of a part of it
    #[arg(long, value_name = "HOST[/PROJECT]")]
    registry: Option<String>,
    /// Only the line of this image: what it was made on, and what was made on it
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

/// What is drawn.
struct Drawn<'a> {
    graph: &'a Graph,
    /// Images that others took something of: which, and into which.
    copied: &'a [(usize, usize)],
    /// Those that are drawn; all without a list.
    kept: Option<Vec<usize>>,
    roots: Vec<usize>,
}

impl Drawn<'_> {
    fn keeps(&self, node: usize) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(&node))
    }

    /// What derives from an image directly, by name.
    fn children(&self, node: usize) -> Vec<usize> {
        let children = self.graph.children(node).iter().copied();
        let mut children: Vec<usize> = children.filter(|child| self.keeps(*child)).collect();
        children.sort_by_key(|child| name(self.graph, *child));
        children
    }

    /// Names of the images that one took something of.
    fn taken_from(&self, node: usize) -> Vec<String> {
        let taken = self.copied.iter().filter(|(_, into)| *into == node);
        taken.map(|(from, _)| name(self.graph, *from)).collect()
    }
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
    let (graph, copied) = match &flags.registry {
        Some(registry) => {
            let found = engine.lineage_of_registry(registry)?;
            for (name, why) in &found.left_out {
                note(&dialect::warning(&format!("{name} is left out: {why}")));
            }
            (found.graph, Vec::new())
        }
        None => {
            let graph = engine.lineage()?;
            let copied = engine.copied(&graph)?;
            (graph, copied)
        }
    };
    let (roots, kept) = match &flags.image {
        None => (graph.roots(), None),
        Some(image) => {
            let node = match &flags.registry {
                Some(_) => named(&graph, image),
                None => graph.find(&engine.image(&super::local_image(engine, image))?.id),
            };
            let node =
                node.ok_or_else(|| CliError::plain(format!("there is no image {image} among them")))?;
            let mut kept = graph.descendants(node);
            let line = graph.line(node);
            kept.extend(&line);
            (line.last().copied().into_iter().collect(), Some(kept))
        }
    };
    let drawn = Drawn {
        graph: &graph,
        copied: &copied,
        kept,
        roots,
    };
    let text = match flags.format.as_str() {
        "json" => {
            let roots = drawn.roots.iter().map(|root| document(&drawn, *root, 0));
            pretty(&json!(roots.collect::<Vec<_>>()))
        }
        "dot" => dot(&drawn),
        "svg" => svg::draw(&drawn),
        _ => {
            let mut text = String::new();
            for root in &drawn.roots {
                branch(&drawn, *root, "", "", &mut text);
            }
            text
        }
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The image of a registry with this name.
fn named(graph: &Graph, image: &str) -> Option<usize> {
    let wanted = dhow_reference::Reference::parse(image)
        .ok()?
        .or_latest()
        .canonical();
    graph.nodes().iter().position(|node| node.names.contains(&wanted))
}

/// Deepest branch that is drawn: an image has at most 127 layers, and twins are few.
const DEEPEST: usize = 512;

fn label(drawn: &Drawn<'_>, node: usize) -> String {
    let graph = drawn.graph;
    let own = graph.own_layers(node).len();
    let layers = match own {
        1 => "1 layer".to_owned(),
        own => format!("{own} layers"),
    };
    let more = graph.nodes()[node].names.len().saturating_sub(1);
    let names = match more {
        0 => String::new(),
        1 => ", 1 more name".to_owned(),
        more => format!(", {more} more names"),
    };
    let taken = drawn.taken_from(node);
    let taken = match taken.as_slice() {
        [] => String::new(),
        taken => format!(", with files of {}", taken.join(", ")),
    };
    format!(
        "{} ({}{}{names}{taken})",
        name(graph, node),
        if graph.parent(node).is_some() { "+" } else { "" },
        layers
    )
}

/// One image and all below it, as `tree` draws folders.
fn branch(drawn: &Drawn<'_>, node: usize, first: &str, rest: &str, text: &mut String) {
    text.push_str(&format!("{first}{}\n", label(drawn, node)));
    let children = drawn.children(node);
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
            drawn,
            child,
            &format!("{rest}{corner}"),
            &format!("{rest}{line}"),
            text,
        );
    }
}

fn document(drawn: &Drawn<'_>, node: usize, depth: usize) -> Value {
    let graph = drawn.graph;
    let image = &graph.nodes()[node];
    let children: Vec<Value> = graph
        .children(node)
        .iter()
        .filter(|child| drawn.keeps(**child) && depth < DEEPEST)
        .map(|child| document(drawn, *child, depth + 1))
        .collect();
    json!({
        "ID": image.id.to_string(),
        "Names": image.names,
        "OwnLayers": graph.own_layers(node).map(|layer| image.layers[layer].to_string()).collect::<Vec<_>>(),
        "FilesOf": drawn.taken_from(node),
        "Children": children,
    })
}

fn dot(drawn: &Drawn<'_>) -> String {
    let graph = drawn.graph;
    let mut text = "digraph images {\n    rankdir=LR;\n    node [shape=box];\n".to_owned();
    for node in (0..graph.nodes().len()).filter(|node| drawn.keeps(*node)) {
        let label = name(graph, node).replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("    n{node} [label=\"{label}\"];\n"));
        if let Some(parent) = graph.parent(node).filter(|parent| drawn.keeps(*parent)) {
            text.push_str(&format!("    n{parent} -> n{node};\n"));
        }
    }
    for (from, into) in drawn.copied {
        if drawn.keeps(*from) && drawn.keeps(*into) {
            text.push_str(&format!("    n{from} -> n{into} [style=dashed];\n"));
        }
    }
    text.push_str("}\n");
    text
}
