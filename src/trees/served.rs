//! A definition as Elasticsearch evaluates it: parsed from JSON, without any part of the writer.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map as JsonMap, Value};

use super::evaluate::{largest, sigmoid, softmax};
use super::java_values::{java_string, number};

/// A definition as Elasticsearch holds it after parsing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    #[serde(default)]
    preprocessors: Vec<ServedPreprocessor>,
    trained_model: ServedModel,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedPreprocessor {
    TargetMeanEncoding(TargetMeanEncoding),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetMeanEncoding {
    field: String,
    feature_name: String,
    target_map: HashMap<String, f64>,
    default_value: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedModel {
    Ensemble(ServedEnsemble),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedEnsemble {
    trained_models: Vec<ServedMember>,
    aggregate_output: ServedAggregate,
    target_type: ServedTarget,
    classification_labels: Option<Vec<String>>,
    classification_weights: Option<Vec<f64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedTarget {
    Regression,
    Classification,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedAggregate {
    WeightedSum(ServedWeights),
    Exponent(ServedWeights),
    LogisticRegression(ServedWeights),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedWeights {
    weights: Option<Vec<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedMember {
    Tree(ServedTree),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedTree {
    tree_structure: Vec<ServedNode>,
    feature_names: Vec<String>,
    #[allow(dead_code)]
    target_type: Option<ServedTarget>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedNode {
    #[serde(default)]
    decision_type: ServedOperator,
    threshold: Option<f64>,
    split_feature: Option<u32>,
    left_child: Option<u32>,
    right_child: Option<u32>,
    #[serde(default)]
    default_left: bool,
    leaf_value: Option<ServedLeaf>,
    #[serde(default)]
    #[allow(dead_code)]
    number_samples: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServedOperator {
    #[default]
    Lte,
    Lt,
}

/// The values of a leaf.
#[derive(Debug, Clone, PartialEq)]
enum ServedLeaf {
    Scalar(f64),
    Vector(Box<[f64]>),
}

impl ServedLeaf {
    fn values(&self) -> &[f64] {
        match self {
            Self::Scalar(value) => std::slice::from_ref(value),
            Self::Vector(values) => values,
        }
    }
}

impl<'de> Deserialize<'de> for ServedLeaf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LeafVisitor;
        impl<'de> Visitor<'de> for LeafVisitor {
            type Value = ServedLeaf;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number or an array of numbers")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<ServedLeaf, E> {
                Ok(ServedLeaf::Scalar(value))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ServedLeaf, E> {
                Ok(ServedLeaf::Scalar(value as f64))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ServedLeaf, E> {
                Ok(ServedLeaf::Scalar(value as f64))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ServedLeaf, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = items.next_element()? {
                    values.push(value);
                }
                Ok(ServedLeaf::Vector(values.into()))
            }
        }
        deserializer.deserialize_any(LeafVisitor)
    }
}

/// What Elasticsearch answers for a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The number, or the class's index.
    pub value: f64,
    /// The class's label, for classification.
    pub label: Option<String>,
    /// Probability of each class, for classification.
    pub probabilities: Vec<f64>,
}

impl Served {
    /// Parses the JSON of a definition.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(json: impl Read) -> Result<Self, serde_json::Error> {
        serde_json::from_reader(json)
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.ensemble().trained_models.len()
    }

    fn ensemble(&self) -> &ServedEnsemble {
        let ServedModel::Ensemble(ensemble) = &self.trained_model;
        ensemble
    }

    /// A document after the preprocessors.
    #[must_use]
    pub fn preprocess(&self, document: &JsonMap<String, Value>) -> JsonMap<String, Value> {
        let mut fields = document.clone();
        for preprocessor in &self.preprocessors {
            let ServedPreprocessor::TargetMeanEncoding(encoding) = preprocessor;
            let key = match fields.get(&encoding.field) {
                None | Some(Value::Null) => continue,
                Some(field) => java_string(field),
            };
            let mean = encoding.target_map.get(&key).copied().unwrap_or(encoding.default_value);
            fields.insert(encoding.feature_name.clone(), mean.into());
        }
        fields
    }

    /// Names of the fields that preprocessors compute from a field of the document.
    pub(crate) fn computed_from<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a str> {
        self.preprocessors.iter().filter_map(move |preprocessor| {
            let ServedPreprocessor::TargetMeanEncoding(encoding) = preprocessor;
            (encoding.field == field).then_some(encoding.feature_name.as_str())
        })
    }

    /// The values of the leaf of one tree, for a document after the preprocessors.
    ///
    /// # Errors
    /// When the tree is malformed.
    pub fn leaf(&self, tree: usize, fields: &JsonMap<String, Value>) -> Result<&[f64], String> {
        let Some(ServedMember::Tree(tree)) = self.ensemble().trained_models.get(tree) else {
            return Err(format!("there is no tree {tree}"));
        };
        let mut index = 0_u32;
        for _ in 0..=tree.tree_structure.len() {
            let node = tree
                .tree_structure
                .get(index as usize)
                .ok_or_else(|| format!("there is no node {index}"))?;
            let Some(left) = node.left_child else {
                let leaf = node.leaf_value.as_ref();
                return leaf
                    .map(ServedLeaf::values)
                    .ok_or_else(|| format!("node {index} has no leaf value"));
            };
            let (Some(right), Some(feature), Some(threshold)) =
                (node.right_child, node.split_feature, node.threshold)
            else {
                return Err(format!("node {index} lacks a key"));
            };
            let name = tree
                .feature_names
                .get(feature as usize)
                .ok_or_else(|| format!("there is no feature {feature}"))?;
            let goes_left = match fields.get(name).and_then(number) {
                None => node.default_left,
                Some(value) => {
                    // The order of `Double.compare` for numbers.
                    let order = value.total_cmp(&threshold);
                    match node.decision_type {
                        ServedOperator::Lte => order.is_le(),
                        ServedOperator::Lt => order.is_lt(),
                    }
                }
            };
            index = if goes_left { left } else { right };
        }
        Err("the tree has a cycle".to_owned())
    }

    /// The answer for a document.
    ///
    /// # Errors
    /// When the definition is malformed.
    pub fn infer(&self, document: &JsonMap<String, Value>) -> Result<Answer, String> {
        let fields = self.preprocess(document);
        let ensemble = self.ensemble();
        let (ServedAggregate::WeightedSum(weights)
        | ServedAggregate::Exponent(weights)
        | ServedAggregate::LogisticRegression(weights)) = &ensemble.aggregate_output;
        let mut sums: Vec<Compensated> = Vec::new();
        for tree in 0..self.trees() {
            let values = self.leaf(tree, &fields)?;
            let weight = match &weights.weights {
                Some(weights) => *weights.get(tree).ok_or("there are fewer weights than trees")?,
                None => 1.0,
            };
            if tree == 0 {
                sums = vec![Compensated::default(); values.len()];
            }
            if values.len() != sums.len() {
                return Err(format!("the leaves of tree {tree} have another length"));
            }
            for (sum, value) in sums.iter_mut().zip(values) {
                sum.add(weight * value);
            }
        }
        let classification =
            matches!(ensemble.aggregate_output, ServedAggregate::LogisticRegression(_));
        if classification != (ensemble.target_type == ServedTarget::Classification) {
            return Err("the aggregation does not fit the target type".to_owned());
        }
        if !classification {
            let [sum] = sums.as_slice() else {
                return Err("the leaves are not numbers".to_owned());
            };
            let value = match ensemble.aggregate_output {
                ServedAggregate::Exponent(_) => sum.total().exp(),
                _ => sum.total(),
            };
            return Ok(Answer { value, label: None, probabilities: Vec::new() });
        }
        // Vectors are added without compensation.
        let totals: Vec<f64> = sums.iter().map(|sum| sum.plain).collect();
        let probabilities = match totals.as_slice() {
            [single] => vec![1.0 - sigmoid(*single), sigmoid(*single)],
            several => softmax(several),
        };
        let scores: Vec<f64> = match &ensemble.classification_weights {
            Some(weights) if weights.len() == probabilities.len() => {
                probabilities.iter().zip(weights).map(|(a, b)| a * b).collect()
            }
            Some(_) => return Err("there are as many weights as classes".to_owned()),
            None => probabilities.clone(),
        };
        let class = largest(&scores);
        let label = match &ensemble.classification_labels {
            Some(labels) if labels.len() != probabilities.len() => {
                return Err("there are as many labels as classes".to_owned());
            }
            Some(labels) => labels.get(class).cloned(),
            None => None,
        };
        #[allow(clippy::cast_precision_loss)]
        Ok(Answer { value: class as f64, label, probabilities })
    }
}

/// A sum with Kahan's compensation, as in the server's `CompensatedSum`, beside the plain sum.
#[derive(Debug, Clone, Copy, Default)]
struct Compensated {
    plain: f64,
    sum: f64,
    compensation: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        self.plain += value;
        let corrected = value - self.compensation;
        let sum = self.sum + corrected;
        self.compensation = (sum - self.sum) - corrected;
        self.sum = sum;
    }

    fn total(self) -> f64 {
        self.sum
    }
}
