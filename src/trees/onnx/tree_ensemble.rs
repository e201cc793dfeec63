//! `TreeEnsemble` of `ai.onnx.ml` version 5: one list of inner nodes and one list of leaves for all trees.
//!
//! A node refers to its children by position in either list, and a tree by the position of its root. The operator has no class labels
//! and no base values. Source: the operator's specification in the ONNX repository (docs/Operators-ml.md).

use super::super::TreeError;
use super::super::ensemble::{Ensemble, MAX_DEPTH, Node, Side, Test, Tree};
use super::{Attributes, LeafWeight, malformed, transform};

/// The number that stands for an absent child in a list of node positions.
const ROOT: u32 = u32::MAX;

/// The lists of the operator's attributes, checked for equal lengths.
struct Lists<'a> {
    features: &'a [i64],
    modes: Vec<f64>,
    splits: Vec<f64>,
    /// Whether the values are rounded to float32 before they are compared.
    is_rounded: bool,
    missing: &'a [i64],
    /// Positions of the children, and whether they are positions of leaves.
    yes: (&'a [i64], &'a [i64]),
    no: (&'a [i64], &'a [i64]),
    leaf_outputs: &'a [i64],
    leaf_weights: Vec<f64>,
}

/// Reads trees and aggregation into an ensemble that has its origin and predicts a value. `is_float` says that the graph's input holds
/// float32 numbers.
pub(super) fn read(
    mut ensemble: Ensemble,
    attributes: &Attributes<'_>,
    is_float: bool,
) -> Result<Ensemble, TreeError> {
    let lists = Lists::read(attributes, is_float)?;
    if attributes.number("n_targets").is_some_and(|targets| targets != 1) {
        return Err(TreeError::unsupported(
            "an ONNX model with several targets",
            "Elasticsearch serves one output",
        ));
    }
    if lists.leaf_outputs.iter().any(|&output| output != 0) {
        return Err(malformed("a leaf belongs to a target that does not exist"));
    }
    let mut used = vec![false; lists.features.len()];
    let mut leaves = Vec::with_capacity(lists.leaf_weights.len());
    for (tree, &root) in attributes.ints("tree_roots").iter().enumerate() {
        let read = lists.tree(tree, root, &mut used, &mut leaves)?;
        ensemble.trees.push(read);
    }
    if ensemble.trees.is_empty() {
        return Err(malformed("the ensemble has no trees"));
    }
    ensemble.weight = match attributes.number("aggregate_function").unwrap_or(1) {
        #[allow(clippy::cast_precision_loss)]
        0 => 1.0 / ensemble.trees.len() as f64,
        1 => 1.0,
        other => {
            let name = match other {
                2 => "MIN".to_owned(),
                3 => "MAX".to_owned(),
                other => other.to_string(),
            };
            return Err(TreeError::unsupported(
                format!("the aggregate function {name}"),
                "Elasticsearch adds or averages trees",
            ));
        }
    };
    match attributes.number("post_transform").unwrap_or(0) {
        0 => {}
        1 | 2 => {
            return Err(TreeError::unsupported(
                "the post transform of a TreeEnsemble",
                "the ONNX specification and onnxruntime disagree whether it is SOFTMAX or LOGISTIC; import the model from the library's own file",
            ));
        }
        3 => return Err(transform("SOFTMAX_ZERO")),
        4 => return Err(transform("PROBIT")),
        other => return Err(malformed(format!("the post transform {other}"))),
    }
    ensemble.base = vec![0.0];
    ensemble.fill_scalars(&leaves);
    Ok(ensemble)
}

impl<'a> Lists<'a> {
    fn read(attributes: &'a Attributes<'a>, is_float: bool) -> Result<Self, TreeError> {
        let (splits, split_doubles) = attributes.tensor("nodes_splits")?;
        let (modes, _) = attributes.tensor("nodes_modes")?;
        let (leaf_weights, _) = attributes.tensor("leaf_weights")?;
        let lists = Self {
            features: attributes.ints("nodes_featureids"),
            modes,
            splits,
            is_rounded: is_float || !split_doubles,
            missing: attributes.ints("nodes_missing_value_tracks_true"),
            yes: (attributes.ints("nodes_truenodeids"), attributes.ints("nodes_trueleafs")),
            no: (attributes.ints("nodes_falsenodeids"), attributes.ints("nodes_falseleafs")),
            leaf_outputs: attributes.ints("leaf_targetids"),
            leaf_weights,
        };
        let count = lists.features.len();
        let (yes, no) = (lists.yes, lists.no);
        let lengths = [
            lists.modes.len(),
            lists.splits.len(),
            yes.0.len(),
            yes.1.len(),
            no.0.len(),
            no.1.len(),
        ];
        if lengths.iter().any(|&length| length != count)
            || !(lists.missing.is_empty() || lists.missing.len() == count)
        {
            return Err(malformed("the lists of node attributes differ in length"));
        }
        if lists.leaf_outputs.len() != lists.leaf_weights.len() {
            return Err(malformed("the lists of leaf attributes differ in length"));
        }
        Ok(lists)
    }

    /// Reads one tree. Marks its nodes in `used` and adds the weights of its leaves.
    fn tree(
        &self,
        number: usize,
        root: i64,
        used: &mut [bool],
        leaves: &mut Vec<LeafWeight>,
    ) -> Result<Tree, TreeError> {
        let mut tree = Tree::default();
        // Parent, whether the child is its left one, position in the list of nodes or leaves, whether it is a leaf, and depth.
        let mut pending = vec![(ROOT, false, root, false, 0_usize)];
        while let Some((parent, is_left, position, is_leaf, depth)) = pending.pop() {
            if depth > MAX_DEPTH {
                return Err(TreeError::Limit(format!("a tree of more than {MAX_DEPTH} levels")));
            }
            let index = u32::try_from(tree.nodes.len())
                .map_err(|_| TreeError::Limit("too many nodes".to_owned()))?;
            if let Some(Node::Split { left, right, .. }) = tree.nodes.get_mut(parent as usize) {
                *(if is_left { left } else { right }) = index;
            }
            let absent = || {
                let kind = if is_leaf { "leaf" } else { "node" };
                malformed(format!("tree {number} has no {kind} {position}"))
            };
            let place = usize::try_from(position).map_err(|_| absent())?;
            if is_leaf {
                let &weight = self.leaf_weights.get(place).ok_or_else(absent)?;
                leaves.push(LeafWeight { tree: number, node: index as usize, output: 0, weight });
                tree.nodes.push(Node::Leaf { value: 0.0, samples: 0 });
                continue;
            }
            let is_used = used.get_mut(place).ok_or_else(absent)?;
            if std::mem::replace(is_used, true) {
                return Err(malformed(format!("node {place} has two parents")));
            }
            let (yes, no) = (
                (self.yes.0[place], self.yes.1[place] != 0),
                (self.no.0[place], self.no.1[place] != 0),
            );
            if yes == no && yes.1 {
                // A tree of a single leaf has an inner node whose two children are that leaf.
                pending.push((parent, is_left, yes.0, true, depth));
                continue;
            }
            let (test, is_swapped) = self.test(place)?;
            let feature = u32::try_from(self.features[place])
                .map_err(|_| malformed("a feature is negative"))?;
            let missing_passes = self.missing.get(place).is_some_and(|&flag| flag != 0);
            let missing = Side::left_if(missing_passes != is_swapped);
            tree.nodes.push(Node::Split { feature, test, missing, left: 0, right: 0, samples: 0 });
            let (left, right) = if is_swapped { (no, yes) } else { (yes, no) };
            pending.push((index, false, right.0, right.1, depth + 1));
            pending.push((index, true, left.0, left.1, depth + 1));
        }
        Ok(tree)
    }

    /// The test of a node, and whether values that pass the ONNX test fail this one.
    fn test(&self, place: usize) -> Result<(Test, bool), TreeError> {
        let value = self.splits[place];
        let at_most = |value: f64| {
            if self.is_rounded { Test::RoundedAtMost(value) } else { Test::AtMost(value) }
        };
        // No number lies between the threshold and the next double below it.
        let below = |value: f64| at_most(value.next_down());
        #[allow(clippy::cast_possible_truncation)]
        match self.modes[place] as i64 {
            0 => Ok((at_most(value), false)),
            1 => Ok((below(value), false)),
            2 => Ok((below(value), true)),
            3 => Ok((at_most(value), true)),
            4..=6 => Err(TreeError::unsupported(
                "an ONNX node that tests for equality or membership",
                "Elasticsearch compares numbers only by their order; import the model from the library's own file",
            )),
            other => Err(malformed(format!("the node mode {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, read};
    use crate::trees::{Predicted, TreeError};

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { name: name.into(), ints: ints.to_vec(), ..AttributeProto::default() }
    }

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, ..AttributeProto::default() }
    }

    fn tensor(name: &str, tensor: TensorProto) -> AttributeProto {
        AttributeProto { name: name.into(), t: Some(tensor), ..AttributeProto::default() }
    }

    /// One split at 0.5 with two leaves: 1 for smaller values, 2 for others. `change` replaces or adds an attribute.
    fn model(change: Option<AttributeProto>) -> Vec<u8> {
        let floats = |floats: &[f32]| TensorProto {
            data_type: 1,
            float_data: floats.to_vec(),
            ..TensorProto::default()
        };
        let mut attribute = vec![
            ints("tree_roots", &[0]),
            ints("nodes_featureids", &[0]),
            tensor("nodes_splits", floats(&[0.5])),
            tensor(
                "nodes_modes",
                TensorProto { data_type: 2, raw_data: vec![1], ..TensorProto::default() },
            ),
            ints("nodes_truenodeids", &[0]),
            ints("nodes_trueleafs", &[1]),
            ints("nodes_falsenodeids", &[1]),
            ints("nodes_falseleafs", &[1]),
            ints("leaf_targetids", &[0, 0]),
            tensor("leaf_weights", floats(&[1.0, 2.0])),
        ];
        if let Some(change) = change {
            attribute.retain(|one| one.name != change.name);
            attribute.push(change);
        }
        let node = NodeProto { op_type: "TreeEnsemble".into(), attribute };
        let graph = GraphProto { node: vec![node], input: Vec::new() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn split_compares_as_its_mode_says() {
        let ensemble = read(&model(None)).unwrap();
        for (value, expected) in [(0.25, 1.0), (0.5, 2.0), (0.75, 2.0), (f64::NAN, 2.0)] {
            assert!(
                matches!(ensemble.predict(&[value]), Predicted::Value(it) if it == expected),
                "{value}"
            );
        }
    }

    #[test]
    fn models_that_elasticsearch_cannot_serve_are_refused() {
        let modes = |mode: u8| {
            let raw_data = vec![mode];
            tensor("nodes_modes", TensorProto { data_type: 2, raw_data, ..TensorProto::default() })
        };
        for change in [
            int("post_transform", 1),
            int("post_transform", 2),
            int("post_transform", 4),
            int("aggregate_function", 2),
            int("n_targets", 3),
            modes(4),
            modes(6),
        ] {
            let name = format!("{} {}", change.name, change.i);
            let error = read(&model(Some(change))).unwrap_err();
            assert!(matches!(error, TreeError::Unsupported { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for change in [
            ints("tree_roots", &[1]),
            ints("tree_roots", &[0, 0]),
            ints("tree_roots", &[-1]),
            ints("tree_roots", &[]),
            ints("nodes_trueleafs", &[0]),
            ints("nodes_truenodeids", &[2]),
            ints("nodes_truenodeids", &[0, 1]),
            ints("nodes_featureids", &[-1]),
            ints("leaf_targetids", &[0]),
            ints("leaf_targetids", &[0, 1]),
            tensor(
                "leaf_weights",
                TensorProto { data_type: 1, raw_data: vec![0; 9], ..TensorProto::default() },
            ),
        ] {
            let name = change.name.clone();
            let error = read(&model(Some(change))).unwrap_err();
            assert!(matches!(error, TreeError::Malformed { .. }), "{name}: {error}");
        }
    }
}
