//! The inheritance of the images of this store.

use dhow_lineage::{Graph, Node};
use dhow_types::DiffId;

use crate::{Engine, Error};

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
                .history(&summary.record.id.to_string())?
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
}
