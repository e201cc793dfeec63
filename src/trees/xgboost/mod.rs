//! XGBoost models that `save_model` wrote, as JSON or UBJSON (XGBoost 1.3 to 3.2).
//!
//! Both formats hold the same document and go through the same structures. Thresholds and leaves are float32: their decimal digits
//! are parsed as float32 and then widened.

mod document;
mod features;

use std::fmt;

use serde::Deserialize;

use super::ensemble::{CategorySets, Ensemble, Node, Origin, Prediction, Test, Tree};
use super::json_tokens::standard_json;
use super::{NO_FURTHER_ROUNDS, ReadOptions, TreeError, ubjson};
use document::{Booster, Document, Model};
use features::features_of;

const FORMAT: &str = "XGBoost";

/// Reads a model from JSON.
///
/// # Errors
/// When the document is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_json(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let document: Document = serde_json::from_slice(&standard_json(bytes))
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
        serde_json::from_slice(&standard_json(bytes)).map_err(|error| malformed(&error))?
    } else {
        return Err(TreeError::Unrecognized {
            reason: "the pickle holds a booster in XGBoost's old binary format; load it in Python and save the model with save_model(\"model.json\")".to_owned(),
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
        if let Some(text) = &model.gbtree_model_param.num_trees
            && number("num_trees", text)? != model.trees.len()
        {
            let trees = model.trees.len();
            return Err(malformed(format!("num_trees is {text}, but the file has {trees} trees")));
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
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let scores = list
        .split(',')
        .map(|score| score.trim().parse::<f32>().map(f64::from))
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|scores| scores.iter().all(|score| score.is_finite()))
        .ok_or_else(|| {
            malformed(format!("base_score is {text:?}, which is not a finite number"))
        })?;
    let scores = match scores.as_slice() {
        [score] => vec![*score; outputs],
        several if several.len() == outputs => scores,
        several => {
            let count = several.len();
            return Err(malformed(format!("base_score has {count} numbers for {outputs} outputs")));
        }
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
    let Some(best) = best else {
        notes.extend(options.all_rounds.then(|| NO_FURTHER_ROUNDS.to_owned()));
        return Ok(all);
    };
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
    } else if options.all_rounds {
        notes.push(NO_FURTHER_ROUNDS.to_owned());
    }
    Ok(used)
}
