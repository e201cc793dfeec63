//! The definition of a tree model: parsing, validation and traversal.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

use super::inference::{java_string, to_double};
use crate::errors::ApiError;
use crate::json;

/// Ensembles within ensembles.
const MAX_NESTING: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Regression,
    Classification,
}

#[derive(Debug)]
pub(super) struct Definition {
    preprocessors: Vec<TargetMean>,
    model: Model,
}

#[derive(Debug)]
struct TargetMean {
    field: String,
    output: String,
    map: BTreeMap<String, f64>,
    default: f64,
}

#[derive(Debug)]
enum Model {
    Tree(Tree),
    Ensemble(Ensemble),
}

#[derive(Debug)]
struct Ensemble {
    members: Vec<Model>,
    aggregation: Aggregation,
    weights: Option<Vec<f64>>,
    target: Target,
    labels: Option<Vec<String>>,
    class_weights: Option<Vec<f64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregation {
    WeightedSum,
    Exponent,
    LogisticRegression,
    WeightedMode,
}

#[derive(Debug)]
struct Tree {
    names: Vec<String>,
    nodes: Vec<Node>,
    target: Target,
    labels: Option<Vec<String>>,
}

#[derive(Debug)]
struct Node {
    operator: Operator,
    threshold: Option<f64>,
    feature: Option<usize>,
    left: Option<usize>,
    right: Option<usize>,
    default_left: bool,
    leaf: Option<Vec<f64>>,
    is_vector: bool,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Lte,
    Lt,
    Gt,
    Gte,
}

/// What a model computes for a document.
#[derive(Debug)]
pub(super) enum Output {
    Value(f64),
    Probabilities(Vec<f64>),
}

/// The definition in the form in which it is stored, and as JSON.
pub(super) fn compress(plain: &Value) -> (String, Option<Value>) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(plain.to_string().as_bytes());
    (STANDARD.encode(encoder.finish().unwrap_or_default()), Some(plain.clone()))
}

/// Decodes and inflates a definition.
pub(super) fn inflate(compressed: &str, limit: u64) -> Result<Value, ApiError> {
    let failed = |reason: String| {
        ApiError::bad_request("Failed to parse definition")
            .caused(ApiError::illegal_argument(reason))
    };
    let bytes = STANDARD.decode(compressed).map_err(|error| failed(error.to_string()))?;
    let mut text = Vec::new();
    let read = GzDecoder::new(bytes.as_slice()).take(limit + 1).read_to_end(&mut text);
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > limit {
        return Err(ApiError::status(
            axum::http::StatusCode::BAD_REQUEST,
            format!(
                "Cannot parse model definition as the content is larger than the maximum stream size of [{limit}] bytes. Max stream size is 10% of the JVM heap or 1GB whichever is smallest"
            ),
        ));
    }
    json::parse(&text)
}

/// Reads the keys of an object; strict parsers refuse others.
struct Keys<'a> {
    parser: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn new(
        parser: &'static str,
        value: &'a Value,
        known: &[&str],
        strict: bool,
    ) -> Result<Self, ApiError> {
        let Some(fields) = value.as_object() else {
            return Err(ApiError::parse(format!("[1:1] [{parser}] Expected START_OBJECT")));
        };
        let unknown = fields.keys().find(|key| !known.contains(&key.as_str()));
        match unknown {
            Some(name) if strict => Err(json::unknown_field(parser, name)),
            _ => Ok(Self { parser, fields }),
        }
    }

    fn wrong(&self, name: &str) -> ApiError {
        ApiError::parse(format!("[1:1] [{}] failed to parse field [{name}]", self.parser))
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name)
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(name)),
        }
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, ApiError> {
        value.ok_or_else(|| {
            ApiError::illegal_argument(format!("Required [{name}]"))
                .while_parsing(self.parser, name)
        })
    }

    fn index(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.read(name, |value| usize::try_from(value.as_i64()?).ok())
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

fn doubles(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

fn target(value: &Value) -> Option<Target> {
    match value.as_str()?.to_ascii_lowercase().as_str() {
        "regression" => Some(Target::Regression),
        "classification" => Some(Target::Classification),
        _ => None,
    }
}

/// The only key of an object that names a type, and its value.
fn named(value: &Value) -> Option<(&str, &Value)> {
    let fields = value.as_object()?;
    let (name, value) = fields.iter().next()?;
    (fields.len() == 1).then_some((name.as_str(), value))
}

impl Definition {
    pub(super) fn parse(value: &Value, strict: bool) -> Result<Self, ApiError> {
        let parser = "trained_model_definition";
        let keys = Keys::new(parser, value, &["preprocessors", "trained_model"], strict)?;
        let mut preprocessors = Vec::new();
        for item in keys.read("preprocessors", Value::as_array)?.into_iter().flatten() {
            preprocessors.push(TargetMean::parse(item, strict)?);
        }
        let model = keys.required("trained_model", keys.get("trained_model"))?;
        let model = Model::parse(model, strict, 0)
            .map_err(|error| error.while_parsing(parser, "trained_model"))?;
        Ok(Self { preprocessors, model })
    }

    pub(super) fn target(&self) -> Target {
        self.model.target()
    }

    pub(super) fn nodes(&self) -> usize {
        self.model.nodes()
    }

    pub(super) fn labels(&self) -> Option<&[String]> {
        match &self.model {
            Model::Tree(tree) => tree.labels.as_deref(),
            Model::Ensemble(ensemble) => ensemble.labels.as_deref(),
        }
    }

    pub(super) fn class_weights(&self) -> Option<&[f64]> {
        match &self.model {
            Model::Tree(_) => None,
            Model::Ensemble(ensemble) => ensemble.class_weights.as_deref(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        self.model.validate()
    }

    /// Adds the outputs of the preprocessors to the fields.
    pub(super) fn preprocess(&self, fields: &mut BTreeMap<String, Value>) {
        for encoding in &self.preprocessors {
            let Some(value) = fields.get(&encoding.field).filter(|value| !value.is_null()) else {
                continue;
            };
            let mean = encoding.map.get(&java_string(value)).copied().unwrap_or(encoding.default);
            fields.insert(encoding.output.clone(), mean.into());
        }
    }

    pub(super) fn evaluate(&self, fields: &BTreeMap<String, Value>) -> Result<Output, ApiError> {
        match &self.model {
            Model::Tree(tree) => {
                let leaf = tree.leaf(fields)?;
                Ok(match (tree.target, leaf.is_vector) {
                    (Target::Regression, _) => Output::Value(leaf.values()[0]),
                    (Target::Classification, true) => Output::Probabilities(softmax(leaf.values())),
                    (Target::Classification, false) => {
                        let most = tree.largest_leaf();
                        let mut probabilities = vec![0.0; most as usize + 1];
                        if let Some(place) = probabilities.get_mut(leaf.values()[0] as usize) {
                            *place = 1.0;
                        }
                        Output::Probabilities(probabilities)
                    }
                })
            }
            Model::Ensemble(ensemble) => ensemble.evaluate(fields),
        }
    }
}

impl TargetMean {
    fn parse(value: &Value, strict: bool) -> Result<Self, ApiError> {
        let (name, settings) = named(value).ok_or_else(|| {
            ApiError::parse(
                "[1:1] [trained_model_definition] failed to parse field [preprocessors]",
            )
        })?;
        if name != "target_mean_encoding" {
            return Err(ApiError::not_implemented(format!(
                "the stand-in has no preprocessor [{name}]"
            )));
        }
        let known = ["field", "feature_name", "target_map", "default_value", "custom"];
        let keys = Keys::new("target_mean_encoding", settings, &known, strict)?;
        let map = keys.read("target_map", |value| {
            value
                .as_object()?
                .iter()
                .map(|(key, mean)| Some((key.clone(), mean.as_f64()?)))
                .collect()
        })?;
        Ok(Self {
            field: keys.required("field", keys.read("field", text)?)?,
            output: keys.required("feature_name", keys.read("feature_name", text)?)?,
            map: keys.required("target_map", map)?,
            default: keys.required("default_value", keys.read("default_value", Value::as_f64)?)?,
        })
    }
}

impl Model {
    fn parse(value: &Value, strict: bool, nesting: usize) -> Result<Self, ApiError> {
        let (name, settings) =
            named(value).ok_or_else(|| ApiError::parse("[1:1] expected a named model"))?;
        match name {
            "tree" => Tree::parse(settings, strict).map(Self::Tree),
            "ensemble" if nesting < MAX_NESTING => {
                Ensemble::parse(settings, strict, nesting).map(Self::Ensemble)
            }
            other => Err(ApiError::unknown_object("LenientlyParsedTrainedModel", other)),
        }
    }

    fn target(&self) -> Target {
        match self {
            Self::Tree(tree) => tree.target,
            Self::Ensemble(ensemble) => ensemble.target,
        }
    }

    fn nodes(&self) -> usize {
        match self {
            Self::Tree(tree) => tree.nodes.len(),
            Self::Ensemble(ensemble) => ensemble.members.iter().map(Self::nodes).sum(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        match self {
            Self::Tree(tree) => tree.validate(),
            Self::Ensemble(ensemble) => ensemble.validate(),
        }
    }
}

impl Ensemble {
    fn parse(value: &Value, strict: bool, nesting: usize) -> Result<Self, ApiError> {
        let known = [
            "trained_models",
            "aggregate_output",
            "target_type",
            "classification_labels",
            "classification_weights",
            "feature_names",
        ];
        let keys = Keys::new("ensemble", value, &known, strict)?;
        let members =
            keys.required("trained_models", keys.read("trained_models", Value::as_array)?)?;
        let members = members
            .iter()
            .map(|member| Model::parse(member, strict, nesting + 1))
            .collect::<Result<_, _>>()
            .map_err(|error| error.while_parsing("ensemble", "trained_models"))?;
        let aggregate = keys.required("aggregate_output", keys.get("aggregate_output"))?;
        let (name, settings) = named(aggregate).ok_or_else(|| keys.wrong("aggregate_output"))?;
        let aggregation = match name {
            "weighted_sum" => Aggregation::WeightedSum,
            "exponent" => Aggregation::Exponent,
            "logistic_regression" => Aggregation::LogisticRegression,
            "weighted_mode" => Aggregation::WeightedMode,
            other => {
                return Err(ApiError::unknown_object("LenientlyParsedOutputAggregator", other));
            }
        };
        let settings =
            Keys::new("output_aggregator", settings, &["weights", "num_classes"], strict)?;
        Ok(Self {
            members,
            aggregation,
            weights: settings.read("weights", doubles)?,
            target: keys.required("target_type", keys.read("target_type", target)?)?,
            labels: keys.read("classification_labels", texts)?,
            class_weights: keys.read("classification_weights", doubles)?,
        })
    }

    fn validate(&self) -> Result<(), String> {
        if self.members.is_empty() {
            return Err("[trained_models] must not be empty".to_owned());
        }
        let fits = match self.aggregation {
            Aggregation::WeightedSum | Aggregation::Exponent => self.target == Target::Regression,
            Aggregation::WeightedMode => self.target == Target::Classification,
            Aggregation::LogisticRegression => true,
        };
        if !fits {
            return Err("aggregate_output is not compatible with the target type".to_owned());
        }
        if self.weights.as_ref().is_some_and(|weights| weights.len() != self.members.len()) {
            return Err("[aggregate_output] expects as many weights as there are models".to_owned());
        }
        if self.target == Target::Regression
            && (self.labels.is_some() || self.class_weights.is_some())
        {
            return Err("[target_type] should be [classification] if [classification_labels] or [classification_weights] are provided".to_owned());
        }
        self.members.iter().try_for_each(Model::validate)
    }

    fn evaluate(&self, fields: &BTreeMap<String, Value>) -> Result<Output, ApiError> {
        let mut vectors = Vec::new();
        for member in &self.members {
            let Model::Tree(tree) = member else {
                return Err(ApiError::not_implemented(
                    "the stand-in evaluates ensembles of trees only",
                ));
            };
            vectors.push(tree.leaf(fields)?);
        }
        let weight = |index: usize| self.weights.as_ref().map_or(1.0, |weights| weights[index]);
        let scalars_only = || {
            if vectors.iter().any(|leaf| leaf.values().len() != 1) {
                return Err(ApiError::server("the aggregation expects leaves that are numbers"));
            }
            Ok(())
        };
        match self.aggregation {
            Aggregation::WeightedSum | Aggregation::Exponent => {
                scalars_only()?;
                let mut sum = 0.0;
                let mut delta = 0.0;
                for (index, leaf) in vectors.iter().enumerate() {
                    let term = leaf.values()[0] * weight(index);
                    // Kahan's summation, as in CompensatedSum.
                    let corrected = term + delta;
                    let updated = sum + corrected;
                    delta = corrected - (updated - sum);
                    sum = updated;
                }
                let value = if self.aggregation == Aggregation::Exponent { sum.exp() } else { sum };
                Ok(Output::Value(value))
            }
            Aggregation::LogisticRegression => {
                let width = vectors[0].values().len();
                if vectors.iter().any(|leaf| leaf.values().len() != width) {
                    return Err(ApiError::server("the leaves of the trees differ in length"));
                }
                let mut sums = vec![0.0; width];
                for (index, leaf) in vectors.iter().enumerate() {
                    for (sum, value) in sums.iter_mut().zip(leaf.values()) {
                        *sum += value * weight(index);
                    }
                }
                let probabilities = if width == 1 {
                    let sigmoid = 1.0 / (1.0 + (-sums[0]).exp());
                    vec![1.0 - sigmoid, sigmoid]
                } else {
                    softmax(&sums)
                };
                if self.target == Target::Regression {
                    return Ok(Output::Value(best(&probabilities) as f64));
                }
                Ok(Output::Probabilities(probabilities))
            }
            Aggregation::WeightedMode => {
                scalars_only()?;
                let classes: Vec<_> =
                    vectors.iter().map(|leaf| leaf.values()[0] as usize).collect();
                let count = classes.iter().max().map_or(0, |most| most + 1);
                let mut votes = vec![f64::NEG_INFINITY; count];
                for (index, class) in classes.into_iter().enumerate() {
                    if votes[class].is_infinite() {
                        votes[class] = 0.0;
                    }
                    votes[class] += weight(index);
                }
                Ok(Output::Probabilities(softmax(&votes)))
            }
        }
    }
}

/// The class with the highest score; the first on a tie.
pub(super) fn best(scores: &[f64]) -> usize {
    let mut best = 0;
    for index in 1..scores.len() {
        if scores[index] > scores[best] {
            best = index;
        }
    }
    best
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<_> = values.iter().map(|value| (value - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

impl Tree {
    fn parse(value: &Value, strict: bool) -> Result<Self, ApiError> {
        let known = ["feature_names", "tree_structure", "target_type", "classification_labels"];
        let keys = Keys::new("tree", value, &known, strict)?;
        let names = keys.required("feature_names", keys.read("feature_names", texts)?)?;
        let nodes =
            keys.required("tree_structure", keys.read("tree_structure", Value::as_array)?)?;
        let nodes = nodes
            .iter()
            .map(|node| Node::parse(node, strict))
            .collect::<Result<_, _>>()
            .map_err(|error| error.while_parsing("tree", "tree_structure"))?;
        Ok(Self {
            names,
            nodes,
            target: keys.read("target_type", target)?.unwrap_or(Target::Regression),
            labels: keys.read("classification_labels", texts)?,
        })
    }

    fn largest_leaf(&self) -> f64 {
        let leaves = self.nodes.iter().filter_map(|node| node.leaf.as_ref()?.first().copied());
        leaves.fold(0.0, f64::max)
    }

    fn validate(&self) -> Result<(), String> {
        if self.nodes.is_empty() {
            return Err("[tree_structure] must not be empty".to_owned());
        }
        if self.nodes.len() > 1 && self.names.is_empty() {
            return Err("[feature_names] is empty and the tree has more than one node".to_owned());
        }
        let mut seen = vec![false; self.nodes.len()];
        let mut pending = vec![0];
        let mut width = None;
        while let Some(index) = pending.pop() {
            let Some(node) = self.nodes.get(index) else {
                return Err(format!("[tree] has unresolved child [{index}]"));
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(format!("[tree] contains cycle at node [{index}]"));
            }
            if let Some(left) = node.left {
                let right =
                    node.right.ok_or_else(|| format!("node [{index}] has no right child"))?;
                let feature =
                    node.feature.ok_or_else(|| format!("node [{index}] has no split_feature"))?;
                if feature >= self.names.len() {
                    return Err(format!("feature index [{feature}] is not in [feature_names]"));
                }
                if node.threshold.is_none() {
                    return Err(format!("node [{index}] has no threshold"));
                }
                pending.extend([left, right]);
            } else {
                let leaf = node
                    .leaf
                    .as_ref()
                    .ok_or_else(|| format!("leaf [{index}] has no leaf_value"))?;
                if node.is_vector && self.target != Target::Classification {
                    return Err(
                        "[target_type] should be [classification] if leaf values are arrays"
                            .to_owned(),
                    );
                }
                if *width.get_or_insert(leaf.len()) != leaf.len() {
                    return Err(
                        "[tree.tree_structure] all leaf nodes must have the same number of values"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(())
    }

    fn leaf(&self, fields: &BTreeMap<String, Value>) -> Result<&Node, ApiError> {
        let mut index = 0;
        loop {
            let node = &self.nodes[index];
            let (Some(left), Some(right)) = (node.left, node.right) else {
                return Ok(node);
            };
            let name = node.feature.and_then(|feature| self.names.get(feature));
            let value = name.and_then(|name| fields.get(name)).and_then(to_double);
            let goes_left = match (value, node.threshold) {
                (Some(value), Some(threshold)) => {
                    // Double.compare: -0.0 is less than 0.0.
                    let order = value.total_cmp(&threshold);
                    match node.operator {
                        Operator::Lte => order.is_le(),
                        Operator::Lt => order.is_lt(),
                        Operator::Gt => order.is_gt(),
                        Operator::Gte => order.is_ge(),
                    }
                }
                (None, _) => node.default_left,
                (_, None) => return Err(ApiError::server("a node has no threshold")),
            };
            index = if goes_left { left } else { right };
        }
    }
}

impl Node {
    fn parse(value: &Value, strict: bool) -> Result<Self, ApiError> {
        let known = [
            "node_index",
            "decision_type",
            "threshold",
            "split_feature",
            "left_child",
            "right_child",
            "default_left",
            "leaf_value",
            "number_samples",
            "split_gain",
        ];
        let keys = Keys::new("tree_node", value, &known, strict)?;
        keys.index("node_index")?;
        keys.read("number_samples", Value::as_u64)?;
        let operator = keys.read("decision_type", |value| match value.as_str()? {
            "lte" => Some(Operator::Lte),
            "lt" => Some(Operator::Lt),
            "gt" => Some(Operator::Gt),
            "gte" => Some(Operator::Gte),
            _ => None,
        })?;
        let leaf = keys.read("leaf_value", |value| match value {
            Value::Array(_) => doubles(value),
            single => single.as_f64().map(|single| vec![single]),
        })?;
        Ok(Self {
            operator: operator.unwrap_or(Operator::Lte),
            threshold: keys.read("threshold", Value::as_f64)?,
            feature: keys.index("split_feature")?,
            left: keys.index("left_child")?,
            right: keys.index("right_child")?,
            default_left: keys.read("default_left", Value::as_bool)?.unwrap_or(false),
            is_vector: value.get("leaf_value").is_some_and(Value::is_array),
            leaf,
        })
    }

    fn values(&self) -> &[f64] {
        self.leaf.as_deref().unwrap_or(&[0.0])
    }
}
