//! The JSON that `dump_model` returns: nested nodes.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Header, MissingType, assemble, in_tree, linear, malformed, numeric};
use crate::trees::TreeError;
use crate::trees::ensemble::{CategorySets, Ensemble, MAX_FEATURES, Node, Side, Test};
use crate::trees::json_tokens::standard_json;

/// Thresholds of this size stand for infinity.
const JSON_INFINITY: f64 = 1e300;

#[derive(Deserialize)]
struct Dump {
    #[serde(default)]
    version: String,
    num_tree_per_iteration: usize,
    #[serde(default)]
    num_class: Option<usize>,
    max_feature_idx: usize,
    #[serde(default)]
    objective: Option<String>,
    #[serde(default)]
    average_output: bool,
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(default)]
    feature_infos: HashMap<String, Value>,
    tree_info: Vec<DumpedTree>,
    #[serde(default)]
    pandas_categorical: Option<Vec<Vec<Value>>>,
}

#[derive(Deserialize)]
struct DumpedTree {
    tree_structure: DumpedNode,
}

#[derive(Deserialize)]
struct DumpedNode {
    split_feature: Option<u32>,
    threshold: Option<Threshold>,
    decision_type: Option<String>,
    #[serde(default)]
    default_left: bool,
    missing_type: Option<String>,
    left_child: Option<Box<DumpedNode>>,
    right_child: Option<Box<DumpedNode>>,
    leaf_value: Option<f64>,
    #[serde(default)]
    leaf_count: u64,
    #[serde(default)]
    internal_count: u64,
    leaf_const: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Threshold {
    Number(f64),
    Categories(String),
}

/// Reads the JSON of `dump_model`.
///
/// # Errors
/// When the JSON is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_json(bytes: &[u8]) -> Result<Ensemble, TreeError> {
    let dump: Dump = serde_json::from_slice(&standard_json(bytes)).map_err(|error| {
        let reason = if error.to_string().contains("recursion limit") {
            "its trees are too deep for this reader of nested JSON; save the model as text with save_model".to_owned()
        } else {
            error.to_string()
        };
        TreeError::malformed("LightGBM JSON", reason)
    })?;
    let features = dump
        .max_feature_idx
        .checked_add(1)
        .filter(|&count| count <= MAX_FEATURES)
        .ok_or_else(|| TreeError::Limit("too many features".to_owned()))?;
    let categorical = dump
        .feature_names
        .iter()
        .map(|name| {
            let values = dump.feature_infos.get(name).and_then(|info| info.get("values"));
            values.and_then(Value::as_array).is_some_and(|values| !values.is_empty())
        })
        .collect();
    let mut sets = CategorySets::default();
    let mut trees = Vec::new();
    for (index, tree) in dump.tree_info.into_iter().enumerate() {
        let mut nodes = Vec::new();
        flatten(tree.tree_structure, &mut nodes, &mut sets)
            .map_err(|error| in_tree(index, error))?;
        trees.push(nodes);
    }
    let header = Header {
        version: dump.version,
        trees_per_iteration: dump.num_tree_per_iteration,
        classes: dump.num_class,
        features,
        names: dump.feature_names,
        categorical,
        objective: dump.objective,
        average: dump.average_output,
        pandas_categorical: dump.pandas_categorical,
    };
    assemble(header, trees, sets, "JSON")
}

/// Puts a node and what is below it into an array. The nesting is limited by the JSON parser.
fn flatten(
    root: DumpedNode,
    nodes: &mut Vec<Node>,
    sets: &mut CategorySets,
) -> Result<(), TreeError> {
    const UNSET: Node = Node::Leaf { value: 0.0, samples: 0 };
    nodes.push(UNSET);
    let mut pending = vec![(root, 0)];
    while let Some((node, index)) = pending.pop() {
        if node.leaf_const.is_some() {
            return Err(linear());
        }
        if let Some(value) = node.leaf_value {
            nodes[index] = Node::Leaf { value, samples: node.leaf_count };
            continue;
        }
        let lacks = |key: &str| malformed(format!("a node has no {key}"));
        let feature = node.split_feature.ok_or_else(|| lacks("split_feature"))?;
        let (test, missing) = match node.threshold.ok_or_else(|| lacks("threshold"))? {
            Threshold::Number(threshold) => {
                if node.decision_type.as_deref() != Some("<=") {
                    return Err(malformed("the decision_type of a number is not \"<=\""));
                }
                let threshold = if threshold.abs() >= JSON_INFINITY {
                    f64::INFINITY.copysign(threshold)
                } else {
                    threshold
                };
                let missing = match node.missing_type.as_deref() {
                    Some("None") => MissingType::None,
                    Some("Zero") => MissingType::Zero,
                    Some("NaN") => MissingType::Nan,
                    other => return Err(malformed(format!("unknown missing_type {other:?}"))),
                };
                numeric(threshold, node.default_left, missing)
            }
            Threshold::Categories(list) => {
                let codes = list.split("||").map(str::parse).collect::<Result<_, _>>();
                let codes = codes.map_err(|_| malformed("a category is not a whole number"))?;
                (Test::In(sets.index(feature, codes)), Side::Right)
            }
        };
        let (first, second) = (
            node.left_child.ok_or_else(|| lacks("left_child"))?,
            node.right_child.ok_or_else(|| lacks("right_child"))?,
        );
        let left = nodes.len();
        let link = |index: usize| {
            u32::try_from(index).map_err(|_| TreeError::Limit("too many nodes".to_owned()))
        };
        nodes[index] = Node::Split {
            feature,
            test,
            missing,
            left: link(left)?,
            right: link(left + 1)?,
            samples: node.internal_count,
        };
        nodes.extend([UNSET, UNSET]);
        pending.push((*first, left));
        pending.push((*second, left + 1));
    }
    Ok(())
}
