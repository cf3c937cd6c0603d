//! The inheritance of the images of this store, or of a registry.

use std::collections::HashMap;

use dhow_content::ContentStore as _;
use dhow_image::Image;
use dhow_lineage::{Graph, Node};
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_types::{DiffId, Digest, ErrorKind, ImageId, Platform};
use serde_json::Value;

use crate::provenance::PROVENANCE;
use crate::remote::config_and_id;
use crate::{Context as _, Engine, Error};

/// Most images of a registry that are looked at.
const MOST_REMOTE: usize = 10_000;
/// Most bytes of a provenance that is read.
const MOST_PROVENANCE: u64 = 16 << 20;

/// The inheritance of the images of a registry.
#[derive(Debug, Default)]
pub struct RemoteLineage {
    /// Who derives from whom.
    pub graph: Graph,
    /// Names that could not be read, and why: what is no image, or none for this platform.
    pub left_out: Vec<(String, String)>,
}

impl Engine {
    /// Who derives from whom, of all images here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn lineage(&self) -> Result<Graph, Error> {
        // What derives from whom is asked by those who want to know what is still to be used.
        self.end_interrupted_patches()?;
        self.lineage_where(|_| true)
    }

    /// What images with these stacks of layers derive from, they among them: of others, of which there may be thousands, no
    /// history is read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn lineage_of(&self, stacks: &[&[DiffId]]) -> Result<Graph, Error> {
        self.lineage_where(|layers| stacks.iter().any(|stack| stack.starts_with(layers)))
    }

    fn lineage_where(&self, wanted: impl Fn(&[DiffId]) -> bool) -> Result<Graph, Error> {
        let mut nodes = Vec::new();
        for summary in self.images()? {
            if !wanted(&summary.record.layers) {
                continue;
            }
            let history = self
                .history(&summary.record.id.to_string(), None)?
                .into_iter()
                // Docker lists the newest first.
                .rev()
                .map(|line| line.created_by)
                .collect();
            nodes.push(Node {
                id: summary.record.id,
                names: summary.names.clone(),
                layers: summary.record.layers.clone(),
                history,
                created: summary.record.created,
            });
        }
        Ok(Graph::of(nodes))
    }

    /// Who derives from whom, of the images that a registry has under its tags; of an index that for this machine.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no registry, nor one with the beginning of names in it; `ResourceExhausted` for more
    /// than 10,000 tags; what the registry said to a list.
    pub fn lineage_of_registry(&self, place: &str) -> Result<RemoteLineage, Error> {
        let (registry, prefix) = place.split_once('/').unwrap_or((place, ""));
        // What a name without a registry is taken for is no registry's list.
        if !registry.contains(['.', ':']) && registry != "localhost" {
            let message = format!("{place:?} is no registry");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("write HOST[:PORT], or HOST[:PORT]/PROJECT for a part of it"));
        }
        let client = self.client()?;
        let found = client.search(registry, prefix, MOST_REMOTE);
        let mut names = Vec::new();
        for repository in found.context(|| format!("list the repositories of {registry}"))? {
            let rest = repository.name.strip_prefix(prefix);
            if !rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/')) {
                continue;
            }
            let reference = Reference::parse(&format!("{registry}/{}", repository.name))
                .context(|| format!("read the name {}", repository.name))?;
            let tags = client.tags(&reference);
            let tags = tags.context(|| format!("list the tags of {}", reference.familiar()))?;
            // Signatures and statements have tags of that form.
            let images = tags.into_iter().filter(|tag| !tag.starts_with("sha256-"));
            names.extend(images.map(|tag| format!("{}:{tag}", reference.name())));
            if names.len() > MOST_REMOTE {
                let message = format!("{registry} has more than {MOST_REMOTE} tags");
                return Err(Error::new(ErrorKind::ResourceExhausted, message)
                    .with_hint(format!("name a part of it: {registry}/PROJECT")));
            }
        }
        let (platform, mut left_out) = (Platform::host(), Vec::new());
        let mut nodes: Vec<Node> = Vec::new();
        for name in names {
            let reference = Reference::parse(&name).context(|| format!("read the name {name}"))?;
            let (config, id) = match config_and_id(client, &reference, &platform) {
                Ok(found) => found,
                Err(error) => {
                    left_out.push((reference.familiar(), crate::worker::chain(&error)));
                    continue;
                }
            };
            match nodes.iter_mut().find(|node| node.id == id) {
                Some(node) => node.names.push(reference.canonical()),
                None => nodes.push(remote_node(id, &config, &reference)),
            }
        }
        Ok(RemoteLineage {
            graph: Graph::of(nodes),
            left_out,
        })
    }

    /// Images of which others took something, by `COPY --from` or a mount, as far as their provenance says so: which, and into
    /// which. What an image stands on is no such edge.
    ///
    /// # Errors
    /// When the store cannot be read; a provenance that cannot be read says nothing.
    pub fn copied(&self, graph: &Graph) -> Result<Vec<(usize, usize)>, Error> {
        let mut known: HashMap<Digest, usize> = HashMap::new();
        let mut images = Vec::new();
        for (at, node) in graph.nodes().iter().enumerate() {
            let Ok(image) = self.image(&node.id.to_string()) else {
                continue;
            };
            known.insert(node.id.0, at);
            known.extend(image.record.manifest.map(|digest| (digest, at)));
            known.extend(image.digests.iter().map(|(_, digest)| (*digest, at)));
            images.push((at, image));
        }
        let mut edges = Vec::new();
        for (at, image) in images {
            let line = graph.line(at);
            for digest in self.dependencies(&image)? {
                let from = known.get(&digest).copied();
                edges.extend(from.filter(|from| !line.contains(from)).map(|from| (from, at)));
            }
        }
        edges.sort_unstable();
        edges.dedup();
        Ok(edges)
    }

    /// Digests of what an image's provenance says it was made with.
    fn dependencies(&self, image: &Image) -> Result<Vec<Digest>, Error> {
        let store = self.store()?;
        let attestations = store.attestations(image);
        let attestations = attestations.context(|| "look for the image's provenance")?;
        let statements = attestations.iter().flat_map(|one| &one.statements);
        let mut digests = Vec::new();
        for (_, blob) in statements.filter(|(kind, _)| kind == PROVENANCE) {
            let Ok(bytes) = store.content.read(&blob.digest, MOST_PROVENANCE) else {
                continue;
            };
            let statement: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let listed = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
            let listed = listed.as_array().into_iter().flatten();
            let hashes = listed.filter_map(|one| one["digest"]["sha256"].as_str());
            digests.extend(hashes.filter_map(|hex| Digest::from_hex(hex).ok()));
        }
        Ok(digests)
    }
}

fn remote_node(id: ImageId, config: &ImageConfig, reference: &Reference) -> Node {
    let history = config.history.iter();
    let created = config
        .created
        .as_deref()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok());
    Node {
        id,
        names: vec![reference.canonical()],
        layers: config.rootfs.diff_ids.clone(),
        history: history
            .map(|step| step.created_by.clone().unwrap_or_default())
            .collect(),
        created: created.map_or(0, jiff::Timestamp::as_second),
    }
}
