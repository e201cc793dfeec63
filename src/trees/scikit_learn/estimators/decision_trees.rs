//! Decision trees of scikit-learn's own implementation, alone or averaged in a forest.

use super::{Reader, Trained, whole, whole_index};
use crate::trees::TreeError;
use crate::trees::ensemble::{Ensemble, MAX_CLASSES, Node, Prediction, Side, Test, Tree};
use crate::trees::scikit_learn::graph::{Id, malformed};

/// The oldest scikit-learn whose trees store fractions of the classes rather than counts.
const FRACTIONS: (u32, u32) = (1, 3);

impl Reader<'_> {
    /// Trees whose leaves are averaged: one decision tree, or a forest.
    pub(super) fn averaged(&self, root: Id, trees: &[Id]) -> Result<Ensemble, TreeError> {
        let common = self.common(root)?;
        let classes = common.labels.as_ref().map(Vec::len);
        let outputs = classes.unwrap_or(1);
        if outputs == 0 || outputs > MAX_CLASSES {
            return Err(malformed(format!("{outputs} classes")));
        }
        let mut parsed = Vec::new();
        for &tree in trees {
            parsed.push(self.tree(tree, classes, common.release() >= FRACTIONS, 1.0)?);
        }
        if parsed.is_empty() {
            return Err(malformed("the forest has no trees"));
        }
        #[allow(clippy::cast_precision_loss)]
        let weight = 1.0 / parsed.len() as f64;
        let prediction = if classes.is_some() { Prediction::Mean } else { Prediction::Value };
        let (trees, base) = (parsed, vec![0.0; outputs]);
        self.ensemble(common, Trained { trees, base, weight, prediction, ..Trained::default() })
    }

    /// One tree. With `classes`, each leaf is a vector of class fractions; otherwise a number, multiplied by `factor`.
    pub(super) fn tree(
        &self,
        estimator: Id,
        classes: Option<usize>,
        fractions: bool,
        factor: f64,
    ) -> Result<Tree, TreeError> {
        let graph = self.graph;
        let tree = graph.required(estimator, "tree_")?;
        let nodes = graph.array_of(tree, "nodes")?;
        let column = |name: &str| nodes.column(name);
        let (left, right) = (column("left_child")?, column("right_child")?);
        let (features, thresholds) = (column("feature")?, column("threshold")?);
        let samples = column("n_node_samples")?;
        let missing = nodes.optional_column("missing_go_to_left")?;
        let values = graph.array_of(tree, "values")?;
        let width = classes.unwrap_or(1);
        match *values.shape.as_slice() {
            [count, 1, columns] if count == nodes.len() && columns == width => {}
            [_, outputs, _] if outputs > 1 => {
                return Err(TreeError::unsupported(
                    "a scikit-learn model with several outputs",
                    "Elasticsearch serves one output; train a model for each output",
                ));
            }
            _ => return Err(malformed("the values of a tree do not fit its nodes")),
        }
        let mut values = values.numbers()?;
        if classes.is_some() && !fractions {
            for counts in values.chunks_mut(width) {
                let sum: f64 = counts.iter().sum();
                if sum != 0.0 {
                    counts.iter_mut().for_each(|count| *count /= sum);
                }
            }
        }
        let mut parsed = Vec::with_capacity(nodes.len());
        for index in 0..nodes.len() {
            let samples = whole(samples[index])?.into();
            parsed.push(if left[index] < 0.0 {
                match classes {
                    None => Node::Leaf { value: values[index] * factor, samples },
                    Some(_) => Node::VectorLeaf { vector: whole_index(index)?, samples },
                }
            } else {
                Node::Split {
                    feature: whole(features[index])?,
                    test: Test::RoundedAtMost(thresholds[index]),
                    missing: Side::left_if(
                        missing.as_ref().is_some_and(|missing| missing[index] != 0.0),
                    ),
                    left: whole(left[index])?,
                    right: whole(right[index])?,
                    samples,
                }
            });
        }
        let vectors = if classes.is_some() { values } else { Vec::new() };
        Ok(Tree { nodes: parsed, output: 0, vectors })
    }
}
