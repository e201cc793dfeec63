//! The structure of XGBoost's documents, for serde. Each tree is converted to nodes as soon as it is read.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::trees::ensemble::{Node, Side, Test};

#[derive(Deserialize)]
pub(super) struct Document {
    pub learner: Learner,
    #[serde(default)]
    pub version: Vec<u64>,
}

#[derive(Deserialize)]
pub(super) struct Learner {
    pub learner_model_param: ModelParameters,
    pub objective: Objective,
    #[serde(default)]
    pub feature_names: Vec<String>,
    #[serde(default)]
    pub feature_types: Vec<String>,
    #[serde(default)]
    pub attributes: Attributes,
    pub gradient_booster: Booster,
}

#[derive(Deserialize)]
pub(super) struct ModelParameters {
    pub base_score: String,
    #[serde(default)]
    pub num_class: String,
    pub num_feature: String,
    #[serde(default)]
    pub num_target: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Objective {
    pub name: String,
}

#[derive(Default, Deserialize)]
pub(super) struct Attributes {
    #[serde(default)]
    pub best_iteration: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Booster {
    pub name: String,
    pub model: Option<Model>,
    pub gbtree: Option<Box<Booster>>,
    #[serde(default)]
    pub weight_drop: Vec<f32>,
}

#[derive(Deserialize)]
pub(super) struct Model {
    // A linear model has none of these.
    #[serde(default)]
    pub gbtree_model_param: TreeParameters,
    #[serde(default)]
    pub tree_info: Vec<i64>,
    #[serde(default)]
    pub trees: Vec<RawTree>,
    #[serde(default)]
    pub iteration_indptr: Vec<usize>,
    #[serde(default)]
    pub cats: Option<Categories>,
}

#[derive(Default, Deserialize)]
pub(super) struct TreeParameters {
    #[serde(default)]
    pub num_parallel_tree: Option<String>,
    #[serde(default)]
    pub num_trees: Option<String>,
}

/// Names of categories (3.1 and later).
#[derive(Deserialize)]
pub(super) struct Categories {
    #[serde(default)]
    pub enc: Vec<Encoding>,
}

#[derive(Default, Deserialize)]
pub(super) struct Encoding {
    #[serde(default)]
    pub offsets: Vec<usize>,
    #[serde(default)]
    pub values: Vec<f64>,
}

/// A tree whose category sets are not numbered yet.
pub(super) struct RawTree {
    pub nodes: Vec<Node>,
    /// Node, feature and categories of each categorical split.
    pub categorical: Vec<(u32, u32, Vec<u32>)>,
    pub vector_leaves: bool,
}

#[derive(Deserialize)]
struct TreeArrays {
    tree_param: TreeParam,
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<u32>,
    split_conditions: Vec<Float>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    #[serde(default)]
    sum_hessian: Vec<Float>,
    #[serde(default)]
    categories: Vec<i32>,
    #[serde(default)]
    categories_nodes: Vec<u32>,
    #[serde(default)]
    categories_segments: Vec<usize>,
    #[serde(default)]
    categories_sizes: Vec<usize>,
}

/// A number, or `null` for one that is not finite. XGBoost 1.7 writes NaN as the threshold of a categorical split.
struct Float(f32);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Option::deserialize(deserializer)?;
        Ok(Self(number.unwrap_or(f32::NAN)))
    }
}

#[derive(Deserialize)]
struct TreeParam {
    #[serde(default)]
    num_nodes: Option<String>,
    #[serde(default)]
    size_leaf_vector: Option<String>,
}

/// A truth value, written as such by 1.3 and as 0 or 1 later.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;
        impl Visitor<'_> for FlagVisitor {
            type Value = Flag;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a truth value, 0 or 1")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }
        }
        deserializer.deserialize_any(FlagVisitor)
    }
}

impl<'de> Deserialize<'de> for RawTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TreeArrays::deserialize(deserializer)?.convert().map_err(de::Error::custom)
    }
}

impl TreeArrays {
    fn convert(self) -> Result<RawTree, String> {
        let count = self.left_children.len();
        for (name, length) in [
            ("right_children", self.right_children.len()),
            ("split_indices", self.split_indices.len()),
            ("split_conditions", self.split_conditions.len()),
            ("default_left", self.default_left.len()),
        ] {
            if length != count {
                return Err(format!("{name} has {length} items for {count} nodes"));
            }
        }
        if let Some(nodes) = &self.tree_param.num_nodes
            && nodes.parse() != Ok(count)
        {
            return Err(format!("num_nodes is {nodes:?}, but the tree has {count} nodes"));
        }
        let vectors = self.tree_param.size_leaf_vector.as_deref();
        let vector_leaves = !matches!(vectors, None | Some("" | "0" | "1"));
        let mut nodes = Vec::with_capacity(count);
        let mut categorical = Vec::new();
        for index in 0..count {
            let samples = self.sum_hessian.get(index).map_or(0, |cover| rounded(cover.0));
            let condition = self.split_conditions[index].0;
            if self.left_children[index] < 0 {
                nodes.push(Node::Leaf { value: condition.into(), samples });
                continue;
            }
            // A negative right child becomes an index that does not exist.
            #[allow(clippy::cast_sign_loss)]
            let (left, right) =
                (self.left_children[index] as u32, self.right_children[index] as u32);
            let missing = Side::left_if(self.default_left[index].0);
            let feature = self.split_indices[index];
            nodes.push(if self.split_type.get(index) == Some(&1) {
                categorical.push((node_index(index)?, feature, Vec::new()));
                // The categories that a node lists go right, so the children change places.
                let (left, right, missing) = (right, left, missing.other());
                Node::Split { feature, test: Test::In(0), missing, left, right, samples }
            } else {
                let test = Test::RoundedBelow(condition);
                Node::Split { feature, test, missing, left, right, samples }
            });
        }
        self.fill_categories(&mut categorical)?;
        Ok(RawTree { nodes, categorical, vector_leaves })
    }

    fn fill_categories(&self, categorical: &mut [(u32, u32, Vec<u32>)]) -> Result<(), String> {
        for (position, node) in self.categories_nodes.iter().enumerate() {
            let start = self.categories_segments.get(position);
            let size = self.categories_sizes.get(position);
            let codes = start
                .zip(size)
                .and_then(|(&start, &size)| self.categories.get(start..start.checked_add(size)?));
            let codes = codes
                .ok_or_else(|| format!("the categories of node {node} are not in the file"))?;
            let codes = codes.iter().map(|&code| u32::try_from(code));
            let codes = codes.collect::<Result<_, _>>();
            let codes = codes.map_err(|_| format!("node {node} has a negative category"))?;
            // Nodes that were pruned may be listed too.
            if let Ok(found) = categorical.binary_search_by_key(node, |entry| entry.0) {
                categorical[found].2 = codes;
            }
        }
        Ok(())
    }
}

fn node_index(index: usize) -> Result<u32, String> {
    u32::try_from(index).map_err(|_| format!("{index} nodes are too many"))
}

/// The cover of a node as a number of samples, which must not be 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rounded(cover: f32) -> u64 {
    (cover.round() as u64).max(1)
}
