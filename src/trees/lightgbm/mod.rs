//! LightGBM models: the text that `save_model` writes and the JSON that `dump_model` returns (LightGBM 3.3 to 4.7).
//!
//! Leaves include the learning rate and the initial score, so that the prediction is their plain sum. Before any comparison LightGBM
//! replaces values within 1e-35 of zero by zero.

mod json;
mod text;

use std::collections::HashMap;

use serde_json::Value;

use super::TreeError;
use super::ensemble::{
    CategorySets, Ensemble, FeatureKind, Label, MAX_CLASSES, Node, Origin, Prediction, Side, Test,
    Tree, features_named,
};
pub use json::read_json;
pub use text::read_text;

const FORMAT: &str = "LightGBM";

/// How a split treats missing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingType {
    /// There were none in training: NaN counts as zero.
    None,
    /// Zero and NaN are missing.
    Zero,
    /// NaN is missing.
    Nan,
}

/// The model-wide properties, the same in text and JSON.
struct Header {
    version: String,
    trees_per_iteration: usize,
    /// Number of classes, 1 unless the objective has several.
    classes: Option<usize>,
    features: usize,
    names: Vec<String>,
    /// Features whose values in training are listed as categories.
    categorical: Vec<bool>,
    objective: Option<String>,
    average: bool,
    pandas_categorical: Option<Vec<Vec<Value>>>,
}

fn malformed(reason: impl Into<String>) -> TreeError {
    TreeError::malformed(FORMAT, reason)
}

/// The node that tests a number.
fn numeric(threshold: f64, default_left: bool, missing: MissingType) -> (Test, Side) {
    match missing {
        MissingType::None => (Test::AtMostBanded(threshold), Side::left_if(0.0 <= threshold)),
        MissingType::Zero => (Test::AtMostUnlessZero(threshold), Side::left_if(default_left)),
        MissingType::Nan => (Test::AtMostBanded(threshold), Side::left_if(default_left)),
    }
}

fn in_tree(index: usize, error: TreeError) -> TreeError {
    match error {
        TreeError::Malformed { format, reason } => {
            TreeError::Malformed { format, reason: format!("tree {index}: {reason}") }
        }
        other => other,
    }
}

fn linear() -> TreeError {
    TreeError::unsupported(
        "linear_tree",
        "its leaves hold linear models, and leaves in Elasticsearch hold constants; train without linear_tree",
    )
}

fn assemble(
    header: Header,
    trees: Vec<Vec<Node>>,
    sets: CategorySets,
    form: &str,
) -> Result<Ensemble, TreeError> {
    let outputs = header.trees_per_iteration;
    if outputs == 0 || outputs > MAX_CLASSES {
        return Err(malformed(format!("num_tree_per_iteration is {outputs}")));
    }
    let line = header.objective.unwrap_or_else(|| "custom".to_owned());
    let mut words = line.split_ascii_whitespace();
    let name = words.next().unwrap_or("custom").to_owned();
    let settings: HashMap<_, _> =
        words.map(|word| word.split_once(':').unwrap_or((word, ""))).collect();
    if settings.contains_key("sqrt") {
        return Err(TreeError::unsupported(
            "the LightGBM parameter reg_sqrt",
            "Elasticsearch cannot square a prediction; train without it",
        ));
    }
    let sigmoid = match settings.get("sigmoid") {
        None => 1.0,
        Some(text) => text
            .parse::<f64>()
            .ok()
            .filter(|factor| factor.is_finite() && *factor > 0.0)
            .ok_or_else(|| malformed(format!("the sigmoid parameter is {text:?}")))?,
    };
    let (prediction, factor) = match name.as_str() {
        "regression" | "regression_l2" | "regression_l1" | "huber" | "fair" | "quantile"
        | "mape" => (Prediction::Value, 1.0),
        "lambdarank" | "rank_xendcg" => (Prediction::Ranking, 1.0),
        "custom" | "none" | "null" | "" => (Prediction::Value, 1.0),
        "poisson" | "gamma" | "tweedie" => (Prediction::Exponential, 1.0),
        "binary" => (Prediction::Logistic, sigmoid),
        "multiclass" => (Prediction::Softmax, 1.0),
        "multiclassova" => (Prediction::OneVersusRest, sigmoid),
        "cross_entropy" | "xentropy" => (Prediction::LogisticValue, 1.0),
        "cross_entropy_lambda" | "xentlambda" => {
            return Err(TreeError::unsupported(
                format!("the LightGBM objective {name}"),
                "Elasticsearch cannot compute log(1 + exp(x)); train with cross_entropy",
            ));
        }
        other => {
            return Err(TreeError::unsupported(
                format!("the LightGBM objective {other:?}"),
                "its predictions cannot be computed from the model file alone",
            ));
        }
    };
    let per_class = matches!(prediction, Prediction::Softmax | Prediction::OneVersusRest);
    if !per_class && outputs > 1 {
        return Err(TreeError::unsupported(
            format!("the objective {name} with {outputs} outputs"),
            "Elasticsearch serves one output",
        ));
    }
    if let Some(classes) = header.classes
        && classes != outputs
    {
        return Err(malformed(format!(
            "num_class is {classes}, but there are {outputs} trees per iteration"
        )));
    }
    if !header.names.is_empty() && header.names.len() != header.features {
        let (names, features) = (header.names.len(), header.features);
        return Err(malformed(format!("{names} feature names for {features} features")));
    }
    let mut notes = Vec::new();
    if matches!(name.as_str(), "custom" | "none" | "null" | "") {
        notes.push("The file names no objective: the predictions are the raw scores.".to_owned());
    }
    if !trees.len().is_multiple_of(outputs) {
        return Err(malformed(format!("{} trees for {outputs} classes", trees.len())));
    }
    #[allow(clippy::cast_precision_loss)]
    let iterations = (trees.len() / outputs).max(1) as f64;
    let category_sets = sets.into_sets();
    let mut features = features_named(header.names, header.features);
    let mut categorical = header.categorical;
    categorical.resize(features.len(), false);
    for set in &category_sets {
        if let Some(flag) = categorical.get_mut(set.feature as usize) {
            *flag = true;
        }
    }
    let count = categorical.iter().filter(|flag| **flag).count();
    let names = header.pandas_categorical.unwrap_or_default();
    if !names.is_empty() && names.len() != count {
        notes.push(format!(
            "The file names the categories of {} columns, but {count} columns are categorical: documents must hold the codes of the categories.",
            names.len()
        ));
    }
    let mut lists = if names.len() == count { names } else { Vec::new() }.into_iter();
    for (feature, _) in features.iter_mut().zip(&categorical).filter(|(_, flag)| **flag) {
        let list = lists.next().map(|values| values.iter().map(label).collect::<Option<Vec<_>>>());
        let list = match list {
            Some(None) => {
                return Err(malformed("pandas_categorical holds something other than values"));
            }
            Some(list) => list,
            None => None,
        };
        feature.kind = FeatureKind::Category(list);
    }
    let trees = trees.into_iter().enumerate().map(|(index, nodes)| {
        // Below MAX_CLASSES.
        #[allow(clippy::cast_possible_truncation)]
        let output = (index % outputs) as u32;
        Tree { nodes, output, vectors: Vec::new() }
    });
    let ensemble = Ensemble {
        origin: Origin {
            format: format!("LightGBM {form}"),
            version: Some(header.version).filter(|version| !version.is_empty()),
            objective: line,
        },
        features,
        trees: trees.collect(),
        category_sets,
        base: vec![0.0; outputs],
        weight: if header.average { factor / iterations } else { factor },
        prediction,
        labels: None,
        notes,
    };
    ensemble.check(FORMAT)?;
    Ok(ensemble)
}

fn label(value: &Value) -> Option<Label> {
    match value {
        Value::String(text) => Some(Label::Text(text.clone())),
        Value::Number(number) => number.as_f64().map(Label::Number),
        Value::Bool(truth) => Some(Label::Boolean(*truth)),
        _ => None,
    }
}
