//! Writes an ensemble as an Elasticsearch tree model: the smallest JSON that the server accepts, streamed into gzip.
//!
//! The JSON is never held as a whole. Optional keys are left out, each tree lists only the features that it tests, and numbers are
//! written with the fewest digits that read back as the same double. The output is deterministic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::str::FromStr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map as JsonMap, Value, json};
use sha2::{Digest, Sha256};

use super::TreeError;
use super::comparison::{Next, steps};
use super::ensemble::{
    Ensemble, FeatureKind, Label, MAX_NODES, Node, Prediction, Side, Test, Totals, Tree,
};
use super::evaluate::category_keys;
use crate::hexadecimal::hexadecimal;

/// Bytes of JSON that Elasticsearch inflates at most, whatever the size of its heap.
pub const MAX_INFLATED: u64 = 1 << 30;

/// Bytes of the body of a request that Elasticsearch accepts by default (`http.max_content_length`).
pub const MAX_BODY: u64 = 100 << 20;

/// What the model predicts in Elasticsearch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A number.
    Regression,
    /// A class.
    Classification,
    /// A relevance score for learning to rank.
    Ranking,
}

impl Target {
    /// The name of the inference configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Classification => "classification",
            Self::Ranking => "learning_to_rank",
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "regression" => Ok(Self::Regression),
            "classification" => Ok(Self::Classification),
            "ranking" | "learning_to_rank" => Ok(Self::Ranking),
            other => Err(format!(
                "unknown target {other:?}; the targets are regression, classification and ranking"
            )),
        }
    }
}

/// The type in which Elasticsearch returns a class label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelType {
    /// Strings.
    Text,
    /// Numbers.
    Number,
    /// Booleans.
    Boolean,
}

impl LabelType {
    /// The value of `prediction_field_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl FromStr for LabelType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::Text),
            "number" => Ok(Self::Number),
            "boolean" => Ok(Self::Boolean),
            other => Err(format!(
                "unknown prediction field type {other:?}; the types are string, number and boolean"
            )),
        }
    }
}

/// How to express an ensemble.
#[derive(Debug, Clone, Default)]
pub struct DefinitionOptions {
    /// Names of the document fields, in the order of the features. Default: the names in the file.
    pub feature_names: Option<Vec<String>>,
    /// Class labels, in the order of the classes. Default: the labels in the file, or the numbers of the classes.
    pub labels: Option<Vec<String>>,
    /// Factors by which the probabilities are multiplied before the best class is chosen.
    pub weights: Option<Vec<f64>>,
    /// What the model predicts in Elasticsearch. Default: what it predicts in the library.
    pub target: Option<Target>,
    /// Export the probability of this class as a regression.
    pub output_class: Option<String>,
    /// Write the number of training samples of each node, which feature importance needs.
    pub sample_counts: bool,
    /// Features whose document fields are booleans.
    pub boolean_features: Vec<String>,
    /// The type in which labels are returned. Default: the type of the labels in the file.
    pub label_type: Option<LabelType>,
}

/// A tree model as Elasticsearch stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The JSON, compressed with gzip.
    pub compressed: Vec<u8>,
    /// Bytes of the JSON before compression.
    pub json_bytes: u64,
    /// SHA-256 of the JSON, in hexadecimal.
    pub sha256: String,
    /// Trees, nodes and depth of the definition.
    pub totals: Totals,
    /// Number of preprocessors.
    pub preprocessors: usize,
    /// What the model predicts.
    pub target: Target,
    /// The server's aggregation.
    pub aggregation: &'static str,
    /// The document fields that the model reads.
    pub fields: Vec<String>,
    /// Class labels, for classification.
    pub labels: Vec<String>,
    /// The type in which labels are returned, for classification.
    pub label_type: LabelType,
    /// Where the served model differs from the library's.
    pub notes: Vec<String>,
}

impl Definition {
    /// Bytes of the request that creates the model, without the configuration: the compressed definition in base64.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        (self.compressed.len() as u64).div_ceil(3) * 4
    }

    /// Checks the definition against the limits that every cluster has by default.
    ///
    /// # Errors
    /// When the definition is larger.
    pub fn check_limits(&self) -> Result<(), TreeError> {
        if self.json_bytes > MAX_INFLATED {
            return Err(TreeError::Limit(format!(
                "its definition has {} bytes of JSON, and Elasticsearch inflates at most {MAX_INFLATED}; train fewer or shallower trees",
                self.json_bytes
            )));
        }
        if self.body_bytes() > MAX_BODY {
            return Err(TreeError::Limit(format!(
                "its request has {} bytes, and Elasticsearch accepts {MAX_BODY} by default (http.max_content_length); train fewer or shallower trees",
                self.body_bytes()
            )));
        }
        Ok(())
    }
}

/// What a leaf contributes in the written definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeafForm {
    /// The value of the one output.
    Scalar,
    /// All outputs; zero for those to which the tree does not add.
    Vector,
    /// The logarithm of each output.
    Logarithm,
    /// One of several outputs.
    Component(usize),
}

/// How an ensemble is expressed.
struct Plan {
    target: Target,
    aggregation: &'static str,
    form: LeafForm,
    labels: Vec<String>,
    label_type: LabelType,
    notes: Vec<String>,
}

/// Checks the options against the ensemble and chooses the aggregation.
fn plan(ensemble: &Ensemble, options: &DefinitionOptions) -> Result<Plan, TreeError> {
    let prediction = ensemble.prediction;
    let classes = ensemble.classes();
    let mut notes = Vec::new();
    let default_labels;
    let own = match &ensemble.labels {
        Some(labels) => labels,
        None => {
            #[allow(clippy::cast_precision_loss)]
            let numbers = (0..classes).map(|class| Label::Number(class as f64)).collect();
            default_labels = numbers;
            &default_labels
        }
    };
    let (labels, mut label_type) = match &options.labels {
        Some(labels) if prediction.is_classification() => (labels.clone(), LabelType::Text),
        Some(_) => {
            return Err(TreeError::Options(format!(
                "class labels were set, but {} is not a classification",
                ensemble.origin.objective
            )));
        }
        None => (own.iter().map(Label::to_string).collect(), type_of(own)),
    };
    label_type = options.label_type.unwrap_or(label_type);
    if labels.len() != classes {
        return Err(TreeError::Options(format!(
            "the model has {classes} classes, but {} labels were set",
            labels.len()
        )));
    }
    let different: HashSet<_> = labels.iter().collect();
    if different.len() != labels.len() {
        return Err(TreeError::Options("the class labels are not all different".to_owned()));
    }
    if let Some(weights) = &options.weights
        && (weights.len() != classes || weights.iter().any(|weight| !weight.is_finite()))
    {
        return Err(TreeError::Options(format!(
            "classification weights must be {classes} finite numbers, one for each class"
        )));
    }

    if let Some(class) = &options.output_class {
        let Some(index) = labels.iter().position(|label| label == class) else {
            return Err(TreeError::Options(format!(
                "the model has no class {class:?}; its classes are {}",
                labels.join(", ")
            )));
        };
        if prediction != Prediction::Mean {
            return Err(TreeError::Options(format!(
                "a single class's probability can be exported only for forests and decision trees of scikit-learn, not for {}; import the model as a classification",
                ensemble.origin.objective
            )));
        }
        if options.target == Some(Target::Classification) {
            return Err(TreeError::Options(
                "the probability of one class is a regression, not a classification".to_owned(),
            ));
        }
        return Ok(Plan {
            target: options.target.unwrap_or(Target::Regression),
            aggregation: "weighted_sum",
            form: LeafForm::Component(index),
            labels: Vec::new(),
            label_type,
            notes,
        });
    }

    let natural =
        if prediction.is_classification() { Target::Classification } else { Target::Regression };
    let target = options.target.unwrap_or(natural);
    match (natural, target) {
        (Target::Classification, Target::Regression | Target::Ranking) => {
            return Err(TreeError::Options(format!(
                "{} is a classification; Elasticsearch cannot return its probability as a number of a {} model",
                ensemble.origin.objective,
                target.name()
            )));
        }
        (_, Target::Classification) if natural != Target::Classification => {
            return Err(TreeError::Options(format!(
                "{} predicts a number; it cannot be imported as a classification",
                ensemble.origin.objective
            )));
        }
        _ => {}
    }
    let (aggregation, form) = match prediction {
        Prediction::Value | Prediction::Ranking => ("weighted_sum", LeafForm::Scalar),
        Prediction::Exponential => ("exponent", LeafForm::Scalar),
        Prediction::Logistic => ("logistic_regression", LeafForm::Scalar),
        Prediction::LogisticValue => {
            notes.push(format!(
                "{} predicts a probability. Elasticsearch returns it as prediction_probability of class {:?} of a classification, not as a predicted number.",
                ensemble.origin.objective, labels[1]
            ));
            ("logistic_regression", LeafForm::Scalar)
        }
        Prediction::Hinge => {
            notes.push(format!(
                "{} has no probabilities. The labels are exact; ignore prediction_probability and prediction_score.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Scalar)
        }
        Prediction::Softmax => ("logistic_regression", LeafForm::Vector),
        Prediction::Mean if ensemble.trees.len() == 1 && ensemble.weight == 1.0 => {
            ("logistic_regression", LeafForm::Logarithm)
        }
        Prediction::Mean | Prediction::Largest => {
            notes.push(format!(
                "{} averages the class fractions of its trees, which Elasticsearch cannot do. The labels are exact; ignore prediction_probability and prediction_score. To serve the exact probability of one class, export that class as a regression.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Vector)
        }
        Prediction::OneVersusRest => {
            notes.push(format!(
                "{} computes a separate probability for each class, which Elasticsearch cannot do. The labels are exact; ignore prediction_probability and prediction_score.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Vector)
        }
    };
    if target == Target::Classification && classes < 2 {
        return Err(TreeError::unsupported(
            format!("a classification with {classes} class"),
            "Elasticsearch needs at least two classes",
        ));
    }
    Ok(Plan { target, aggregation, form, labels, label_type, notes })
}

fn type_of(labels: &[Label]) -> LabelType {
    let all = |matches: fn(&Label) -> bool| !labels.is_empty() && labels.iter().all(matches);
    if all(|label| matches!(label, Label::Number(number) if number.fract() == 0.0)) {
        LabelType::Number
    } else if all(|label| matches!(label, Label::Boolean(_))) {
        LabelType::Boolean
    } else {
        LabelType::Text
    }
}

/// The names that trees use: one for each feature, then one for each category set.
struct Fields {
    /// Names of the document fields, in the order of the features.
    documents: Vec<String>,
    /// The name under which trees see each feature, then each category set.
    seen: Vec<String>,
    /// The preprocessors, as JSON objects.
    preprocessors: Vec<Value>,
}

/// Names for the features and the preprocessors that compute the others.
fn fields(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
    used: &Used,
) -> Result<Fields, TreeError> {
    let documents = match &options.feature_names {
        Some(names) => {
            if names.len() != ensemble.features.len() {
                return Err(TreeError::Options(format!(
                    "the model has {} features, but {} feature names were set",
                    ensemble.features.len(),
                    names.len()
                )));
            }
            names.clone()
        }
        None => ensemble.features.iter().map(|feature| feature.name.clone()).collect(),
    };
    let mut taken = HashSet::new();
    for name in &documents {
        if name.is_empty() {
            return Err(TreeError::Options("a feature name is empty".to_owned()));
        }
        if name.split('.').any(str::is_empty) {
            return Err(TreeError::Options(format!(
                "{name:?} is not a valid field name: it has an empty part between dots"
            )));
        }
        if !taken.insert(name.clone()) {
            return Err(TreeError::Options(format!("two features have the name {name:?}")));
        }
    }
    for name in &options.boolean_features {
        if !documents.contains(name) {
            return Err(TreeError::Options(format!("the model has no feature {name:?}")));
        }
    }
    let mut fresh = |wanted: String| {
        let mut name = wanted.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    };
    let mut preprocessors = Vec::new();
    let mut encode = |field: &str, name: &str, map: JsonMap<String, Value>| {
        preprocessors.push(json!({"target_mean_encoding": {
            "field": field, "feature_name": name, "target_map": map, "default_value": 0
        }}));
    };
    let booleans: HashSet<_> = options.boolean_features.iter().collect();
    let mut seen = Vec::new();
    for (index, name) in documents.iter().enumerate() {
        if booleans.contains(name) && used.features.contains(&index) {
            let number = fresh(format!("{name}__number"));
            let map = [("true", 1), ("false", 0), ("1", 1), ("0", 0), ("1.0", 1), ("0.0", 0)];
            encode(
                name,
                &number,
                map.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect(),
            );
            seen.push(number);
        } else {
            seen.push(name.clone());
        }
    }
    let mut numbers: HashMap<u32, usize> = HashMap::new();
    for (index, set) in ensemble.category_sets.iter().enumerate() {
        let number = numbers.entry(set.feature).or_default();
        *number += 1;
        let field = &documents[set.feature as usize];
        let name = fresh(format!("{field}__set{number}"));
        if used.sets.contains(&index) {
            let names = match &ensemble.features[set.feature as usize].kind {
                FeatureKind::Category(Some(names)) => Some(names),
                _ => None,
            };
            let mut map = JsonMap::new();
            for &code in &set.codes {
                let keys = match names {
                    Some(names) => match names.get(code as usize) {
                        Some(name) => category_keys(name),
                        None => continue,
                    },
                    None => category_keys(&Label::Number(code.into())),
                };
                for key in keys {
                    map.insert(key, 1.into());
                }
            }
            encode(field, &name, map);
        }
        seen.push(name);
    }
    Ok(Fields { documents, seen, preprocessors })
}

/// Features and category sets that reachable nodes test.
#[derive(Default)]
struct Used {
    features: HashSet<usize>,
    sets: HashSet<usize>,
}

impl Used {
    fn by(ensemble: &Ensemble) -> Self {
        let mut features = vec![false; ensemble.features.len()];
        let mut sets = vec![false; ensemble.category_sets.len()];
        for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
            match *node {
                Node::Split { test: Test::In(set), .. } => sets[set as usize] = true,
                Node::Split { feature, .. } => features[feature as usize] = true,
                _ => {}
            }
        }
        let indices = |flags: Vec<bool>| {
            flags
                .into_iter()
                .enumerate()
                .filter_map(|(index, used)| used.then_some(index))
                .collect()
        };
        Self { features: indices(features), sets: indices(sets) }
    }
}

impl Ensemble {
    /// Writes the definition.
    ///
    /// # Errors
    /// When the options do not fit the model, or the server cannot express it.
    pub fn define(&self, options: &DefinitionOptions) -> Result<Definition, TreeError> {
        let plan = plan(self, options)?;
        let used = Used::by(self);
        let fields = fields(self, options, &used)?;
        let mut output = Output::new();
        let totals = write(self, options, &plan, &fields, &mut output)?;
        let (compressed, json_bytes, sha256) = output.finish()?;
        let read = |index: &usize| {
            used.features.contains(index)
                || used.sets.iter().any(|&set| self.category_sets[set].feature as usize == *index)
        };
        let mut names: Vec<_> = (0..self.features.len())
            .filter(read)
            .map(|index| fields.documents[index].clone())
            .collect();
        if names.is_empty() {
            // The server wants at least one field, even of a model whose prediction is constant.
            names.extend(fields.documents.first().cloned());
        }
        let mut notes = self.notes.clone();
        notes.extend(plan.notes);
        Ok(Definition {
            compressed,
            json_bytes,
            sha256,
            totals,
            preprocessors: fields.preprocessors.len(),
            target: plan.target,
            aggregation: plan.aggregation,
            fields: names,
            labels: plan.labels,
            label_type: plan.label_type,
            notes,
        })
    }
}

fn write(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
    plan: &Plan,
    fields: &Fields,
    output: &mut Output,
) -> Result<Totals, TreeError> {
    output.byte(b'{');
    if !fields.preprocessors.is_empty() {
        output.text("\"preprocessors\":");
        output.json(&fields.preprocessors)?;
        output.byte(b',');
    }
    output.text("\"trained_model\":{\"ensemble\":{\"trained_models\":[");
    let mut totals = Totals::default();
    let mut writer = TreeWriter {
        ensemble,
        plan,
        fields,
        samples: options.sample_counts,
        local: vec![u32::MAX; fields.seen.len()],
        names: Vec::new(),
        queue: VecDeque::new(),
    };
    for tree in &ensemble.trees {
        if totals.trees > 0 {
            output.byte(b',');
        }
        let budget = MAX_NODES - totals.nodes;
        let shape = writer.tree(tree, budget, output)?;
        totals.trees += 1;
        totals.nodes += shape.nodes;
        totals.depth = totals.depth.max(shape.depth);
    }
    let weighted = ensemble.weight != 1.0;
    let based = ensemble.trees.is_empty() || base_matters(ensemble, plan);
    if based {
        if totals.trees > 0 {
            output.byte(b',');
        }
        writer.base(output);
        totals.trees += 1;
        totals.nodes += 1;
    }
    output.text("],\"aggregate_output\":{\"");
    output.text(plan.aggregation);
    output.text("\":{");
    if weighted {
        output.text("\"weights\":[");
        for index in 0..ensemble.trees.len() {
            if index > 0 {
                output.byte(b',');
            }
            output.number(ensemble.weight);
        }
        if based {
            output.text(if ensemble.trees.is_empty() { "1" } else { ",1" });
        }
        output.byte(b']');
    }
    output.text("}},\"target_type\":\"");
    output.text(if plan.target == Target::Classification {
        "classification"
    } else {
        "regression"
    });
    output.byte(b'"');
    if plan.target == Target::Classification {
        output.text(",\"classification_labels\":");
        output.json(&plan.labels)?;
        if let Some(weights) = &options.weights {
            output.text(",\"classification_weights\":[");
            for (index, weight) in weights.iter().enumerate() {
                if index > 0 {
                    output.byte(b',');
                }
                output.number(*weight);
            }
            output.byte(b']');
        }
    }
    output.text("}}}");
    Ok(totals)
}

/// Whether the constants change the prediction.
fn base_matters(ensemble: &Ensemble, plan: &Plan) -> bool {
    match plan.form {
        LeafForm::Logarithm => false,
        LeafForm::Component(output) => ensemble.base[output] != 0.0,
        LeafForm::Scalar | LeafForm::Vector => ensemble.base.iter().any(|base| *base != 0.0),
    }
}

/// A node still to be written: one of the ensemble, or a further step of it.
#[derive(Clone, Copy)]
struct Pending {
    node: u32,
    step: usize,
    depth: usize,
}

struct TreeWriter<'a> {
    ensemble: &'a Ensemble,
    plan: &'a Plan,
    fields: &'a Fields,
    samples: bool,
    /// For each field the index within the current tree, or `u32::MAX`.
    local: Vec<u32>,
    /// The fields of the current tree.
    names: Vec<usize>,
    /// Nodes in the order in which they are written: breadth first.
    queue: VecDeque<Pending>,
}

impl TreeWriter<'_> {
    fn tree(
        &mut self,
        tree: &Tree,
        budget: usize,
        output: &mut Output,
    ) -> Result<Totals, TreeError> {
        output.text("{\"tree\":{\"tree_structure\":[");
        self.queue.clear();
        self.queue.push_back(Pending { node: 0, step: 0, depth: 0 });
        // Nodes that have been put in the queue so far: the position of the next child in the array.
        let mut queued: usize = 1;
        let mut written = 0;
        let mut deepest = 0;
        while let Some(pending) = self.queue.pop_front() {
            if queued > budget {
                return Err(TreeError::Limit(format!(
                    "its definition would have more than {MAX_NODES} nodes"
                )));
            }
            if written > 0 {
                output.byte(b',');
            }
            written += 1;
            deepest = deepest.max(pending.depth);
            self.node(tree, pending, &mut queued, output)?;
        }
        output.text("],\"feature_names\":[");
        for (index, &field) in self.names.iter().enumerate() {
            if index > 0 {
                output.byte(b',');
            }
            output.json(&self.fields.seen[field])?;
            self.local[field] = u32::MAX;
        }
        self.names.clear();
        output.byte(b']');
        self.target_type(output);
        output.text("}}");
        Ok(Totals { trees: 1, nodes: written, depth: deepest })
    }

    fn node(
        &mut self,
        tree: &Tree,
        pending: Pending,
        queued: &mut usize,
        output: &mut Output,
    ) -> Result<(), TreeError> {
        output.byte(b'{');
        let samples = match tree.nodes[pending.node as usize] {
            Node::Leaf { value, samples } => {
                self.leaf(tree, Some(value), &[], output);
                samples
            }
            Node::VectorLeaf { vector, samples } => {
                self.leaf(tree, None, tree.vector(vector, self.ensemble.outputs()), output);
                samples
            }
            Node::Split { feature, test, missing, left, right, samples } => {
                let field = match test {
                    Test::In(set) => self.ensemble.features.len() + set as usize,
                    _ => feature as usize,
                };
                let steps = steps(test, missing);
                let step = steps.as_slice()[pending.step];
                let depth = pending.depth + 1;
                let child = |next| match next {
                    Next::Child(Side::Left) => Pending { node: left, step: 0, depth },
                    Next::Child(Side::Right) => Pending { node: right, step: 0, depth },
                    Next::Step(step) => Pending { node: pending.node, step, depth },
                };
                if step.comparison.strict {
                    output.text("\"decision_type\":\"lt\",");
                }
                output.text("\"threshold\":");
                output.number(step.comparison.threshold);
                output.text(",\"split_feature\":");
                output.integer(self.local(field));
                output.text(",\"left_child\":");
                output.integer(*queued as u64);
                output.text(",\"right_child\":");
                output.integer(*queued as u64 + 1);
                if step.missing_yes {
                    output.text(",\"default_left\":true");
                }
                *queued += 2;
                self.queue.push_back(child(step.yes));
                self.queue.push_back(child(step.no));
                samples
            }
        };
        if self.samples {
            if samples == 0 {
                return Err(TreeError::Options(
                    "the model file has no sample counts, which feature importance needs"
                        .to_owned(),
                ));
            }
            output.text(",\"number_samples\":");
            output.integer(samples);
        }
        output.byte(b'}');
        Ok(())
    }

    /// The index of a field within the current tree.
    fn local(&mut self, field: usize) -> u64 {
        if self.local[field] == u32::MAX {
            // There are at most as many fields as MAX_FEATURES and MAX_NODES together.
            #[allow(clippy::cast_possible_truncation)]
            let index = self.names.len() as u32;
            self.local[field] = index;
            self.names.push(field);
        }
        self.local[field].into()
    }

    fn leaf(&self, tree: &Tree, scalar: Option<f64>, vector: &[f64], output: &mut Output) {
        let own = tree.output as usize;
        let component = |output: usize| match scalar {
            Some(value) if output == own => value,
            Some(_) => 0.0,
            None => vector.get(output).copied().unwrap_or_default(),
        };
        self.values(component, output);
    }

    /// A tree that is a lone leaf with the constants.
    fn base(&self, output: &mut Output) {
        output.text("{\"tree\":{\"tree_structure\":[{");
        self.values(|index| self.ensemble.base[index], output);
        if self.samples {
            output.text(",\"number_samples\":1");
        }
        output.text("}],\"feature_names\":[]");
        self.target_type(output);
        output.text("}}");
    }

    fn values(&self, component: impl Fn(usize) -> f64, output: &mut Output) {
        output.text("\"leaf_value\":");
        match self.plan.form {
            LeafForm::Scalar => output.number(component(0)),
            LeafForm::Component(class) => output.number(component(class)),
            LeafForm::Vector | LeafForm::Logarithm => {
                output.byte(b'[');
                for index in 0..self.ensemble.outputs() {
                    if index > 0 {
                        output.byte(b',');
                    }
                    let value = component(index);
                    output.number(if self.plan.form == LeafForm::Vector {
                        value
                    } else {
                        logarithm(value)
                    });
                }
                output.byte(b']');
            }
        }
    }

    fn target_type(&self, output: &mut Output) {
        if matches!(self.plan.form, LeafForm::Vector | LeafForm::Logarithm) {
            output.text(",\"target_type\":\"classification\"");
        }
    }
}

/// The logarithm of a fraction. Softmax gives the fraction back; for 0 it gives exactly 0 from this finite number.
fn logarithm(fraction: f64) -> f64 {
    if fraction > 0.0 { fraction.ln() } else { -1e7 }
}

/// The compressed JSON, while it is written.
struct Output {
    /// JSON that is not compressed yet.
    buffer: Vec<u8>,
    gzip: GzEncoder<Vec<u8>>,
    hash: Sha256,
    length: u64,
    failed: Option<io::Error>,
    digits: zmij::Buffer,
}

impl Output {
    /// Bytes of JSON that are collected before they are compressed.
    const BLOCK: usize = 1 << 16;

    fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(Self::BLOCK + 512),
            gzip: GzEncoder::new(Vec::new(), Compression::new(6)),
            hash: Sha256::new(),
            length: 0,
            failed: None,
            digits: zmij::Buffer::new(),
        }
    }

    fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= Self::BLOCK {
            self.flush();
        }
    }

    fn byte(&mut self, byte: u8) {
        self.buffer.push(byte);
    }

    fn integer(&mut self, number: u64) {
        // Writing to a vector does not fail.
        let _ = write!(self.buffer, "{number}");
    }

    /// A finite number. Java reads a token without a point as an integer, which has no negative zero.
    fn number(&mut self, number: f64) {
        let text = self.digits.format(number);
        let text = if number == 0.0 && number.is_sign_negative() {
            text
        } else {
            text.strip_suffix(".0").unwrap_or(text)
        };
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= Self::BLOCK {
            self.flush();
        }
    }

    fn json(&mut self, value: &impl serde::Serialize) -> Result<(), TreeError> {
        serde_json::to_writer(&mut self.buffer, value)
            .map_err(|error| TreeError::Options(format!("cannot write the definition: {error}")))
    }

    fn flush(&mut self) {
        self.hash.update(&self.buffer);
        self.length += self.buffer.len() as u64;
        if let Err(error) = self.gzip.write_all(&self.buffer) {
            self.failed.get_or_insert(error);
        }
        self.buffer.clear();
    }

    fn finish(mut self) -> Result<(Vec<u8>, u64, String), TreeError> {
        self.flush();
        let compressed = match self.failed {
            None => self.gzip.finish(),
            Some(error) => Err(error),
        };
        let compressed = compressed.map_err(|error| {
            TreeError::Limit(format!("the definition was not compressed: {error}"))
        })?;
        Ok((compressed, self.length, hexadecimal(&self.hash.finalize())))
    }
}
