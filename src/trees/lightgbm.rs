//! LightGBM models: the text that `save_model` writes and the JSON that `dump_model` returns (LightGBM 3.3 to 4.7).
//!
//! Leaves include the learning rate and the initial score, so that the prediction is their plain sum. Before any comparison LightGBM
//! replaces values within 1e-35 of zero by zero.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::TreeError;
use super::ensemble::{
    CategorySets, Ensemble, FeatureKind, Label, MAX_CLASSES, MAX_FEATURES, Node, Origin,
    Prediction, Side, Test, Tree, features_named,
};

const FORMAT: &str = "LightGBM";

/// Thresholds of this size stand for infinity in the JSON.
const JSON_INFINITY: f64 = 1e300;

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

/// `key=value` lines up to an empty line.
#[derive(Default)]
struct Block<'a>(HashMap<&'a str, &'a str>);

impl<'a> Block<'a> {
    fn read(lines: &mut impl Iterator<Item = &'a str>) -> Self {
        let mut entries = HashMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            entries.insert(key, value);
        }
        Self(entries)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    fn number(&self, key: &str) -> Result<usize, TreeError> {
        let text = self.text(key).ok_or_else(|| malformed(format!("{key} is missing")))?;
        text.parse().map_err(|_| malformed(format!("{key} is {text:?}, not a number")))
    }

    /// `count` numbers separated by spaces.
    fn numbers<T: std::str::FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, TreeError> {
        let text = self.text(key).unwrap_or_default();
        let numbers = text.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>();
        let numbers = numbers
            .map_err(|_| malformed(format!("{key} holds something that is not a number")))?;
        if numbers.len() != count {
            return Err(malformed(format!("{key} has {} items instead of {count}", numbers.len())));
        }
        Ok(numbers)
    }
}

/// Reads the text of `save_model`.
///
/// # Errors
/// When the text is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_text(text: &str) -> Result<Ensemble, TreeError> {
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("tree") {
        return Err(malformed("the first line is not \"tree\""));
    }
    let head = Block::read(&mut lines);
    let features = head
        .number("max_feature_idx")?
        .checked_add(1)
        .filter(|&count| count <= MAX_FEATURES)
        .ok_or_else(|| TreeError::Limit("too many features".to_owned()))?;
    let infos: Vec<_> = head.text("feature_infos").unwrap_or_default().split(' ').collect();
    let mut header = Header {
        version: head.text("version").unwrap_or_default().to_owned(),
        trees_per_iteration: head.number("num_tree_per_iteration")?,
        features,
        names: head
            .text("feature_names")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
        categorical: infos.iter().map(|info| is_categorical(info)).collect(),
        objective: head.text("objective").map(str::to_owned),
        average: head.text("average_output").is_some(),
        pandas_categorical: None,
    };
    let mut sets = CategorySets::default();
    let mut trees = Vec::new();
    loop {
        // Blocks are separated by one or two empty lines.
        let Some(line) = lines.by_ref().find(|line| !line.is_empty()) else {
            return Err(malformed("the line \"end of trees\" is missing; the file is incomplete"));
        };
        if line == "end of trees" {
            break;
        }
        if !line.starts_with("Tree=") {
            return Err(malformed(format!("expected a tree instead of {:?}", shown(line))));
        }
        let block = Block::read(&mut lines);
        let index = trees.len();
        let nodes = tree_of(&block, &mut sets).map_err(|error| in_tree(index, error))?;
        trees.push(nodes);
    }
    for line in lines {
        if let Some(list) = line.strip_prefix("pandas_categorical:") {
            header.pandas_categorical = serde_json::from_str(list)
                .map_err(|error| malformed(format!("pandas_categorical: {error}")))?;
        }
    }
    assemble(header, trees, sets, "text")
}

fn in_tree(index: usize, error: TreeError) -> TreeError {
    match error {
        TreeError::Malformed { format, reason } => {
            TreeError::Malformed { format, reason: format!("tree {index}: {reason}") }
        }
        other => other,
    }
}

/// The start of a line of the file, for messages.
fn shown(line: &str) -> String {
    line.chars().take(40).collect()
}

/// Whether an item of `feature_infos` lists categories: `none`, `[low:high]` or numbers separated by colons.
fn is_categorical(info: &str) -> bool {
    info != "none" && !info.is_empty() && !info.starts_with('[')
}

fn tree_of(block: &Block<'_>, sets: &mut CategorySets) -> Result<Vec<Node>, TreeError> {
    if block.text("is_linear").is_some_and(|flag| flag != "0") {
        return Err(linear());
    }
    let leaves = block.number("num_leaves")?;
    let values: Vec<f64> = block.numbers("leaf_value", leaves)?;
    if leaves == 0 {
        return Err(malformed("num_leaves is 0"));
    }
    let inner = leaves - 1;
    let counts = |key: &str, count| match block.text(key) {
        // Trees with one leaf have no counts.
        None | Some("") => Ok(vec![0; count]),
        Some(_) => block.numbers::<u64>(key, count),
    };
    let leaf_counts = counts("leaf_count", leaves)?;
    let inner_counts = counts("internal_count", inner)?;
    let features: Vec<u32> = block.numbers("split_feature", inner)?;
    let thresholds: Vec<f64> = block.numbers("threshold", inner)?;
    let decisions: Vec<u8> = block.numbers("decision_type", inner)?;
    let left: Vec<i64> = block.numbers("left_child", inner)?;
    let right: Vec<i64> = block.numbers("right_child", inner)?;
    let (bounds, words) = match block.text("num_cat") {
        None | Some("0" | "") => (Vec::new(), Vec::new()),
        Some(_) => {
            let bounds: Vec<usize> =
                block.numbers("cat_boundaries", block.number("num_cat")?.saturating_add(1))?;
            let words: Vec<u32> =
                block.numbers("cat_threshold", bounds.last().copied().unwrap_or(0))?;
            (bounds, words)
        }
    };
    // A negative child is a leaf.
    let child = |link: i64| {
        let index = if link >= 0 {
            Some(link)
        } else {
            i64::try_from(inner).ok().map(|inner| inner + !link)
        };
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| malformed(format!("there is no child {link}")))
    };
    let mut nodes = Vec::with_capacity(inner + leaves);
    for index in 0..inner {
        let missing = match decisions[index] >> 2 & 3 {
            0 => MissingType::None,
            1 => MissingType::Zero,
            2 => MissingType::Nan,
            other => return Err(malformed(format!("node {index} has the missing type {other}"))),
        };
        let (test, missing) = if decisions[index] & 1 == 1 {
            // The index of the set; casts of other numbers saturate and are out of bounds.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let category = thresholds[index] as usize;
            let range = bounds.get(category).zip(bounds.get(category.saturating_add(1)));
            let words = range.and_then(|(&start, &end)| words.get(start..end));
            let words =
                words.ok_or_else(|| malformed(format!("node {index} has no categories")))?;
            (Test::In(sets.index(features[index], codes(words)?)), Side::Right)
        } else {
            numeric(thresholds[index], decisions[index] & 2 == 2, missing)
        };
        nodes.push(Node::Split {
            feature: features[index],
            test,
            missing,
            left: child(left[index])?,
            right: child(right[index])?,
            samples: inner_counts[index],
        });
    }
    nodes.extend(
        values.into_iter().zip(leaf_counts).map(|(value, samples)| Node::Leaf { value, samples }),
    );
    Ok(nodes)
}

/// The numbers of the bits that are set.
fn codes(words: &[u32]) -> Result<Vec<u32>, TreeError> {
    let mut codes = Vec::new();
    for (word, bits) in (0_u32..).zip(words) {
        let first = word.checked_mul(32).ok_or_else(|| malformed("a category is too large"))?;
        codes.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
    }
    Ok(codes)
}

fn linear() -> TreeError {
    TreeError::unsupported(
        "linear_tree",
        "its leaves hold linear models, and leaves in Elasticsearch hold constants; train without linear_tree",
    )
}

#[derive(Deserialize)]
struct Dump {
    #[serde(default)]
    version: String,
    num_tree_per_iteration: usize,
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
    let dump: Dump = serde_json::from_slice(bytes).map_err(|error| {
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
