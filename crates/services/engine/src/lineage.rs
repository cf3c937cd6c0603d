//! The inheritance of the images of this store.

use dhow_lineage::{Graph, Node};

use crate::{Engine, Error};

impl Engine {
    /// Who derives from whom, of all images here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn lineage(&self) -> Result<Graph, Error> {
        let mut nodes = Vec::new();
        for summary in self.images()? {
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
