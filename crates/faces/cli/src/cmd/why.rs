//! `why`: how a vulnerability came into an image. `impact`: where it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::tree::Graph;
use dhow_engine::{Engine, Image, Vulnerable};
use serde_json::{Value, json};

use super::sbom::{LyingFlags, Target, pretty};
use super::tree::name;
use crate::render::{say, table};
use crate::{CliError, Context, Verb};

pub(crate) const WHY: Verb = Verb {
    name: "why",
    about: "Tell how a vulnerability came into an image: package, layer, step, the image of the chain that brought it",
    flags: |command| WhyFlags::augment_args(command),
    run: why,
};

pub(crate) const IMPACT: Verb = Verb {
    name: "impact",
    about: "List the images and containers that have a vulnerability, and through which image they have it",
    flags: |command| ImpactFlags::augment_args(command),
    run: impact,
};

#[derive(Args, Debug)]
struct WhyFlags {
    /// Format output: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The vulnerability, by its CVE or the name of an advisory
    #[arg(value_name = "CVE")]
    vulnerability: String,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Args, Debug)]
struct ImpactFlags {
    /// Format output: table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The vulnerability, by its CVE or the name of an advisory
    #[arg(value_name = "CVE")]
    vulnerability: String,
}

/// How one package came into an image.
struct Origin<'a> {
    target: &'a Target,
    image: &'a Image,
    graph: &'a Graph,
    node: usize,
    vulnerable: &'a Vulnerable,
}

impl Origin<'_> {
    fn layer(&self) -> usize {
        self.target.contents.inventory.packages[self.vulnerable.package].layer
    }

    /// The step that made the layer, as the history of the image has it.
    fn step(&self) -> Option<&str> {
        let history = &self.image.config.history;
        let step = history
            .iter()
            .filter(|step| !step.empty_layer)
            .nth(self.layer())?;
        step.created_by.as_deref().filter(|step| !step.is_empty())
    }

    fn bringer(&self) -> usize {
        self.graph.brought(self.node, self.layer())
    }

    /// From the image down to the one that brought it.
    fn line(&self) -> Vec<String> {
        let bringer = self.bringer();
        let line = self.graph.line(self.node);
        let end = line.iter().position(|node| *node == bringer).unwrap_or(0);
        line[..=end].iter().map(|node| name(self.graph, *node)).collect()
    }

    /// What to do, and where: the higher one starts, the less has to be built again, but only below it all others get it, too.
    fn remedy(&self) -> String {
        let package = &self.target.contents.inventory.packages[self.vulnerable.package].package;
        let bringer = name(self.graph, self.bringer());
        let derived = self.graph.descendants(self.bringer()).len() - 1;
        let others = match derived {
            0 => String::new(),
            1 => ", and build the image that derives from it again".to_owned(),
            count => format!(", and build the {count} images that derive from it again"),
        };
        match &self.vulnerable.finding.fixed {
            Some(fixed) => format!("in {bringer}: {} {fixed} or later{others}", package.source().0),
            None => format!("nowhere yet: no version of {} mends it", package.source().0),
        }
    }

    fn text(&self) -> String {
        let installed = &self.target.contents.inventory.packages[self.vulnerable.package];
        let finding = &self.vulnerable.finding;
        let package = &installed.package;
        let (source, version) = package.source();
        let mut rows = format!(
            "{}\t{}, {}\n",
            finding.advisory.known_as(),
            finding.severity.level.name(),
            finding.state.name()
        );
        if !finding.advisory.summary.is_empty() {
            rows.push_str(&format!("about\t{}\n", finding.advisory.summary));
        }
        rows.push_str(&format!("package\t{} {}", package.name, package.version));
        if source != package.name {
            rows.push_str(&format!(" (of {source} {version})"));
        }
        rows.push_str(&format!("\nsaid by\t{}\n", installed.path));
        if let Some(diff) = self.target.contents.layers.get(installed.layer) {
            rows.push_str(&format!("layer\t{} {diff}\n", installed.layer));
        }
        if let Some(step) = self.step() {
            rows.push_str(&format!("step\t{}\n", step.replace(['\t', '\n'], " ")));
        }
        rows.push_str(&format!("brought by\t{}\n", self.line().join(" on ")));
        rows.push_str(&format!("mend\t{}\n", self.remedy()));
        table::align(&rows)
    }

    fn document(&self) -> Value {
        let installed = &self.target.contents.inventory.packages[self.vulnerable.package];
        let finding = &self.vulnerable.finding;
        json!({
            "ID": finding.advisory.known_as(),
            "Severity": finding.severity.level.name(),
            "State": finding.state.name(),
            "Summary": finding.advisory.summary,
            "Package": installed.package.name,
            "Installed": installed.package.version,
            "Source": installed.package.source().0,
            "FixedIn": finding.fixed,
            "Path": installed.path,
            "Layer": installed.layer,
            "DiffID": self.target.contents.layers.get(installed.layer).map(ToString::to_string),
            "Step": self.step(),
            "BroughtBy": name(self.graph, self.bringer()),
            "BroughtByID": self.graph.nodes()[self.bringer()].id.to_string(),
            "Line": self.line(),
        })
    }
}

fn why(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: WhyFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let subject = engine.advisories()?.about(&flags.vulnerability)?;
    let target = Target::find(engine, &flags.image, &LyingFlags::default())?;
    target.warn();
    let Some(image) = &target.image else {
        return Err(CliError::plain("a folder has no layers to tell apart"));
    };
    if target.lying {
        let message = format!(
            "{} is not in the store, so nobody knows whom it derives from",
            target.name
        );
        return Err(CliError::plain(message).with_hint("load it first"));
    }
    let graph = engine.lineage()?;
    let node = graph
        .find(&image.id)
        .ok_or_else(|| CliError::plain("the image was removed meanwhile"))?;
    let found = subject.within(&target.contents.inventory);
    if found.is_empty() {
        return Err(CliError::plain(format!(
            "{} does not have {}",
            target.name, flags.vulnerability
        )));
    }
    let origins: Vec<Origin<'_>> = found
        .iter()
        .map(|vulnerable| Origin {
            target: &target,
            image,
            graph: &graph,
            node,
            vulnerable,
        })
        .collect();
    if flags.format == "json" {
        say(&pretty(&json!(
            origins.iter().map(Origin::document).collect::<Vec<_>>()
        )))?;
    } else {
        let texts: Vec<String> = origins.iter().map(Origin::text).collect();
        say(&texts.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An image that has it.
struct Hit {
    node: usize,
    packages: Vec<String>,
    bringers: Vec<usize>,
    fixed: Option<String>,
    containers: Vec<String>,
}

fn impact(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ImpactFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let subject = engine.advisories()?.about(&flags.vulnerability)?;
    let graph = engine.lineage()?;
    let containers = engine.containers().list()?;
    let mut hits = Vec::new();
    // Images that differ in their configs only have the same in them.
    let mut known: HashMap<&[dhow_types::DiffId], Within> = HashMap::new();
    for (node, image) in graph.nodes().iter().enumerate() {
        let within = match known.entry(&image.layers) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(slot) => slot.insert(within(engine, &subject, image)?),
        };
        let Some((inventory, found)) = within else {
            continue;
        };
        let mut hit = Hit {
            node,
            packages: Vec::new(),
            bringers: Vec::new(),
            fixed: None,
            containers: containers
                .iter()
                .filter(|container| container.config.image == image.id)
                .map(|container| container.config.name.clone())
                .collect(),
        };
        for vulnerable in found {
            let installed = &inventory.packages[vulnerable.package];
            hit.packages.push(format!(
                "{} {}",
                installed.package.name, installed.package.version
            ));
            let bringer = graph.brought(node, installed.layer);
            if !hit.bringers.contains(&bringer) {
                hit.bringers.push(bringer);
            }
            hit.fixed = hit.fixed.or_else(|| vulnerable.finding.fixed.clone());
        }
        hits.push(hit);
    }
    if flags.format == "json" {
        say(&pretty(&json!(
            hits.iter().map(|hit| hit.document(&graph)).collect::<Vec<_>>()
        )))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = "IMAGE\tPACKAGES\tFIXED IN\tBROUGHT BY\tCONTAINERS\n".to_owned();
    for hit in &hits {
        let bringers: Vec<String> = hit.bringers.iter().map(|node| name(&graph, *node)).collect();
        rows.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            name(&graph, hit.node),
            hit.packages.join(", "),
            hit.fixed.as_deref().unwrap_or(""),
            bringers.join(", "),
            hit.containers.join(", ")
        ));
    }
    say(&table::align(&rows))?;
    Ok(ExitCode::SUCCESS)
}

type Within = Option<(dhow_engine::sbom::Inventory, Vec<Vulnerable>)>;

fn within(
    engine: &Engine,
    subject: &dhow_engine::Vulnerability,
    node: &dhow_engine::tree::Node,
) -> Result<Within, CliError> {
    let inventory = engine.contents_of_layers(&node.layers)?.inventory;
    let found = subject.within(&inventory);
    Ok((!found.is_empty()).then_some((inventory, found)))
}

impl Hit {
    fn document(&self, graph: &Graph) -> Value {
        let image = &graph.nodes()[self.node];
        json!({
            "Image": name(graph, self.node),
            "ID": image.id.to_string(),
            "Names": image.names,
            "Packages": self.packages,
            "FixedIn": self.fixed,
            "BroughtBy": self.bringers.iter().map(|node| name(graph, *node)).collect::<Vec<_>>(),
            "Containers": self.containers,
        })
    }
}
