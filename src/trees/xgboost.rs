//! XGBoost models that `save_model` wrote, as JSON or UBJSON (XGBoost 1.3 to 3.2).
//!
//! Both formats hold the same document and go through the same structures. Thresholds and leaves are float32: their decimal digits
//! are parsed as float32 and then widened.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::ensemble::{
    CategorySet, CategorySets, Ensemble, Feature, FeatureKind, Label, Node, Origin, Prediction,
    Side, Test, Tree, features_named,
};
use super::{ReadOptions, TreeError, ubjson};

const FORMAT: &str = "XGBoost";

#[derive(Deserialize)]
struct Document {
    learner: Learner,
    #[serde(default)]
    version: Vec<u64>,
}

#[derive(Deserialize)]
struct Learner {
    learner_model_param: ModelParameters,
    objective: Objective,
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(default)]
    feature_types: Vec<String>,
    #[serde(default)]
    attributes: Attributes,
    gradient_booster: Booster,
}

#[derive(Deserialize)]
struct ModelParameters {
    base_score: String,
    #[serde(default)]
    num_class: String,
    num_feature: String,
    #[serde(default)]
    num_target: Option<String>,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    best_iteration: Option<String>,
}

#[derive(Deserialize)]
struct Booster {
    name: String,
    model: Option<Model>,
    gbtree: Option<Box<Booster>>,
    #[serde(default)]
    weight_drop: Vec<f32>,
}

#[derive(Deserialize)]
struct Model {
    // A linear model has none of these.
    #[serde(default)]
    gbtree_model_param: TreeParameters,
    #[serde(default)]
    tree_info: Vec<i64>,
    #[serde(default)]
    trees: Vec<RawTree>,
    #[serde(default)]
    iteration_indptr: Vec<usize>,
    #[serde(default)]
    cats: Option<Categories>,
}

#[derive(Default, Deserialize)]
struct TreeParameters {
    #[serde(default)]
    num_parallel_tree: Option<String>,
}

/// Names of categories (3.1 and later).
#[derive(Deserialize)]
struct Categories {
    #[serde(default)]
    enc: Vec<Encoding>,
}

#[derive(Default, Deserialize)]
struct Encoding {
    #[serde(default)]
    offsets: Vec<usize>,
    #[serde(default)]
    values: Vec<f64>,
}

/// A tree whose category sets are not numbered yet.
struct RawTree {
    nodes: Vec<Node>,
    /// Node, feature and categories of each categorical split.
    categorical: Vec<(u32, u32, Vec<u32>)>,
    vector_leaves: bool,
}

#[derive(Deserialize)]
struct TreeArrays {
    tree_param: TreeParam,
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<u32>,
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    #[serde(default)]
    sum_hessian: Vec<f32>,
    #[serde(default)]
    categories: Vec<i32>,
    #[serde(default)]
    categories_nodes: Vec<u32>,
    #[serde(default)]
    categories_segments: Vec<usize>,
    #[serde(default)]
    categories_sizes: Vec<usize>,
}

#[derive(Deserialize)]
struct TreeParam {
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
        let vectors = self.tree_param.size_leaf_vector.as_deref();
        let vector_leaves = !matches!(vectors, None | Some("" | "0" | "1"));
        let mut nodes = Vec::with_capacity(count);
        let mut categorical = Vec::new();
        for index in 0..count {
            let samples = self.sum_hessian.get(index).map_or(0, |&cover| rounded(cover));
            let condition = self.split_conditions[index];
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

/// Reads a model from JSON.
///
/// # Errors
/// When the document is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_json(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| TreeError::malformed("XGBoost JSON", error.to_string()))?;
    document.convert("JSON", options)
}

/// Reads a model from UBJSON.
///
/// # Errors
/// When the document is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_ubjson(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let document: Document = ubjson::from_slice(bytes)
        .map_err(|error| TreeError::malformed("XGBoost UBJSON", error.to_string()))?;
    document.convert("UBJSON", options)
}

/// Reads the serialized booster inside a Python pickle: an object whose `Model` is the document of `save_model`.
///
/// # Errors
/// When the document is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_serialized(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    #[derive(Deserialize)]
    struct Serialized {
        #[serde(rename = "Model")]
        model: Document,
    }
    let malformed =
        |error: &dyn fmt::Display| TreeError::malformed("XGBoost pickle", error.to_string());
    let serialized: Serialized = if bytes.starts_with(b"{L") {
        ubjson::from_slice(bytes).map_err(|error| malformed(&error))?
    } else if bytes.starts_with(b"{") {
        serde_json::from_slice(bytes).map_err(|error| malformed(&error))?
    } else {
        return Err(TreeError::Unrecognized {
            reason: "the pickle holds a booster in XGBoost's old binary format; load it in Python and save the model with save_model(\"model.ubj\")".to_owned(),
        });
    };
    serialized.model.convert("pickle", options)
}

impl Document {
    fn convert(self, form: &str, options: &ReadOptions) -> Result<Ensemble, TreeError> {
        let learner = self.learner;
        let number = |name: &str, text: &str| -> Result<usize, TreeError> {
            text.parse().map_err(|_| malformed(format!("{name} is {text:?}, not a number")))
        };
        let (model, weights) = trees_of(learner.gradient_booster)?;
        let parameters = &learner.learner_model_param;
        let classes = match parameters.num_class.as_str() {
            "" => 0,
            text => number("num_class", text)?,
        };
        let features = number("num_feature", &parameters.num_feature)?;
        if features > super::ensemble::MAX_FEATURES {
            return Err(TreeError::Limit(format!("{features} features")));
        }
        let targets = match parameters.num_target.as_deref() {
            None | Some("") => 1,
            Some(text) => number("num_target", text)?,
        };
        let outputs = classes.max(1);
        if outputs > super::ensemble::MAX_CLASSES {
            return Err(TreeError::Limit(format!("{classes} classes")));
        }
        let most = model.tree_info.iter().copied().max().unwrap_or(0);
        if targets > 1
            || model.trees.iter().any(|tree| tree.vector_leaves)
            || (classes < 2 && most > 0)
        {
            return Err(TreeError::unsupported(
                "an XGBoost model with several outputs",
                "Elasticsearch serves one output; train a model for each target",
            ));
        }
        if model.tree_info.len() != model.trees.len() {
            return Err(malformed("tree_info and trees have different lengths"));
        }
        if !weights.is_empty() && weights.len() != model.trees.len() {
            return Err(malformed("weight_drop and trees have different lengths"));
        }
        let objective = learner.objective.name;
        let (prediction, link) = prediction_of(&objective)?;
        if prediction == Prediction::Softmax && classes < 2 {
            return Err(malformed(format!("{objective} has {classes} classes")));
        }
        let mut notes = Vec::new();
        let used = rounds(
            &model,
            outputs,
            learner.attributes.best_iteration.as_deref(),
            options,
            &mut notes,
        )?;

        let mut sets = CategorySets::default();
        let mut trees = Vec::with_capacity(used);
        for (index, (raw, class)) in
            model.trees.into_iter().zip(model.tree_info).take(used).enumerate()
        {
            let mut nodes = raw.nodes;
            for (node, feature, codes) in raw.categorical {
                let number = sets.index(feature, codes);
                if let Some(Node::Split { test, .. }) = nodes.get_mut(node as usize) {
                    *test = Test::In(number);
                }
            }
            if let Some(&weight) = weights.get(index) {
                for node in &mut nodes {
                    if let Node::Leaf { value, .. } = node {
                        *value *= f64::from(weight);
                    }
                }
            }
            let output = u32::try_from(class)
                .map_err(|_| malformed(format!("tree {index} belongs to class {class}")))?;
            trees.push(Tree { nodes, output, vectors: Vec::new() });
        }
        let category_sets = sets.into_sets();
        if category_sets.iter().any(|set| set.feature as usize >= features) {
            return Err(malformed("a categorical split tests a feature that does not exist"));
        }
        let features = features_of(
            learner.feature_names,
            &learner.feature_types,
            features,
            model.cats.as_ref(),
            &category_sets,
            &mut notes,
        )?;
        let ensemble = Ensemble {
            origin: Origin {
                format: format!("XGBoost {form}"),
                version: version(&self.version),
                objective,
            },
            features,
            category_sets,
            trees,
            base: base(&parameters.base_score, outputs, link)?,
            weight: 1.0,
            prediction,
            labels: None,
            notes,
        };
        ensemble.check(FORMAT)?;
        Ok(ensemble)
    }
}

fn malformed(reason: impl Into<String>) -> TreeError {
    TreeError::malformed(FORMAT, reason)
}

fn version(numbers: &[u64]) -> Option<String> {
    let text: Vec<_> = numbers.iter().map(u64::to_string).collect();
    (!text.is_empty()).then(|| text.join("."))
}

/// The trees and, for dart, their weights.
fn trees_of(booster: Booster) -> Result<(Model, Vec<f32>), TreeError> {
    let missing = || malformed("the booster has no trees");
    match booster.name.as_str() {
        "gbtree" => Ok((booster.model.ok_or_else(missing)?, Vec::new())),
        "dart" => {
            let inner = booster.gbtree.ok_or_else(missing)?;
            Ok((inner.model.ok_or_else(missing)?, booster.weight_drop))
        }
        "gblinear" => Err(TreeError::unsupported(
            "the booster gblinear",
            "it is a linear model, not a tree ensemble",
        )),
        other => Err(TreeError::unsupported(
            format!("the booster {other:?}"),
            "the boosters gbtree and dart are supported",
        )),
    }
}

/// The function from the base score to the margin.
#[derive(Clone, Copy)]
enum Link {
    Identity,
    Logit,
    Logarithm,
}

fn prediction_of(objective: &str) -> Result<(Prediction, Link), TreeError> {
    Ok(match objective {
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror"
        | "reg:expectileerror"
        | "binary:logitraw" => (Prediction::Value, Link::Identity),
        "rank:pairwise" | "rank:ndcg" | "rank:map" => (Prediction::Ranking, Link::Identity),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
            (Prediction::Exponential, Link::Logarithm)
        }
        "binary:logistic" => (Prediction::Logistic, Link::Logit),
        "reg:logistic" => (Prediction::LogisticValue, Link::Logit),
        "binary:hinge" => (Prediction::Hinge, Link::Identity),
        "multi:softprob" | "multi:softmax" => (Prediction::Softmax, Link::Identity),
        other => {
            return Err(TreeError::unsupported(
                format!("the XGBoost objective {other:?}"),
                "its predictions cannot be computed from the model file alone",
            ));
        }
    })
}

/// The base score in the space of the margins: one number, a list of one, or one for each class.
fn base(text: &str, outputs: usize, link: Link) -> Result<Vec<f64>, TreeError> {
    let invalid = || malformed(format!("base_score is {text:?}"));
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let scores = list
        .split(',')
        .map(|score| score.trim().parse::<f32>().map(f64::from))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| invalid())?;
    let scores = match scores.as_slice() {
        [score] => vec![*score; outputs],
        several if several.len() == outputs => scores,
        _ => return Err(invalid()),
    };
    let margin = |score: f64| match link {
        Link::Identity => score,
        Link::Logit => -(1.0 / score - 1.0).ln(),
        Link::Logarithm => score.ln(),
    };
    Ok(scores.into_iter().map(margin).collect())
}

/// Number of trees to use: all of them, or those of the rounds up to the best iteration.
fn rounds(
    model: &Model,
    outputs: usize,
    best: Option<&str>,
    options: &ReadOptions,
    notes: &mut Vec<String>,
) -> Result<usize, TreeError> {
    let all = model.trees.len();
    let Some(best) = best else { return Ok(all) };
    let best: usize =
        best.parse().map_err(|_| malformed(format!("best_iteration is {best:?}, not a number")))?;
    let used = match model.iteration_indptr.as_slice() {
        [] => {
            let parallel = match model.gbtree_model_param.num_parallel_tree.as_deref() {
                None | Some("" | "0") => 1,
                Some(text) => text
                    .parse::<usize>()
                    .map_err(|_| malformed(format!("num_parallel_tree is {text:?}")))?,
            };
            best.saturating_add(1).saturating_mul(parallel.saturating_mul(outputs))
        }
        starts => starts.get(best.saturating_add(1)).copied().unwrap_or(all),
    }
    .min(all);
    if used < all {
        if options.all_rounds {
            notes.push(format!(
                "All {all} trees are used, although early stopping found the best iteration to be {best}."
            ));
            return Ok(all);
        }
        notes.push(format!(
            "The {used} trees up to the best iteration ({best}) are used, as XGBoost's estimators do; the file has {all}."
        ));
    }
    Ok(used)
}

fn features_of(
    names: Vec<String>,
    types: &[String],
    count: usize,
    categories: Option<&Categories>,
    sets: &[CategorySet],
    notes: &mut Vec<String>,
) -> Result<Vec<Feature>, TreeError> {
    if !names.is_empty() && names.len() != count {
        let named = names.len();
        return Err(malformed(format!("{named} feature names for {count} features")));
    }
    let mut features = features_named(names, count);
    for (feature, kind) in features.iter_mut().zip(types) {
        if kind == "i" {
            feature.kind = FeatureKind::Boolean;
        }
    }
    let categorical =
        types.iter().enumerate().filter(|(_, kind)| *kind == "c").map(|(index, _)| index);
    let categorical = categorical.chain(sets.iter().map(|set| set.feature as usize));
    for index in categorical {
        if let Some(feature) = features.get_mut(index) {
            feature.kind = FeatureKind::Category(None);
        }
    }
    for (feature, encoding) in
        features.iter_mut().zip(categories.map_or(&[][..], |categories| &categories.enc))
    {
        match encoding.names()? {
            Names::Numeric => {}
            Names::Listed(names) => feature.kind = FeatureKind::Category(Some(names)),
            Names::NotAscii => notes.push(format!(
                "XGBoost stores names of categories that are not ASCII incorrectly. Documents must hold the codes of the categories in {}.",
                feature.name
            )),
        }
    }
    Ok(features)
}

/// What the file says about a feature's categories.
enum Names {
    /// The feature is a number.
    Numeric,
    /// The names, in the order of the codes.
    Listed(Vec<Label>),
    /// XGBoost 3.1 and 3.2 cut the names of a pandas frame at character counts instead of byte counts, and lose the last bytes.
    NotAscii,
}

impl Encoding {
    fn names(&self) -> Result<Names, TreeError> {
        if self.values.is_empty() {
            return Ok(Names::Numeric);
        }
        if self.offsets.is_empty() {
            return Ok(Names::Listed(
                self.values.iter().map(|&value| Label::Number(value)).collect(),
            ));
        }
        // The bytes of the strings, one number each; signed in some releases.
        #[allow(clippy::cast_possible_truncation)]
        let bytes: Vec<u8> = self.values.iter().map(|&value| (value as i64) as u8).collect();
        if !bytes.is_ascii() {
            return Ok(Names::NotAscii);
        }
        let names = self.offsets.windows(2).map(|bounds| {
            let name = bytes.get(bounds[0]..bounds[1])?;
            Some(Label::Text(String::from_utf8_lossy(name).into_owned()))
        });
        let names: Option<_> = names.collect();
        names
            .map(Names::Listed)
            .ok_or_else(|| malformed("the name of a category is not in the file"))
    }
}
