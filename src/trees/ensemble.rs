//! The neutral form of a tree ensemble.
//!
//! Every reader produces an [`Ensemble`]. Its nodes keep the comparisons of the training library ([`Test`]), so that the library's
//! predictions can be repeated exactly. `definition.rs` translates the comparisons into those of Elasticsearch.

use std::collections::HashSet;
use std::fmt;

use super::TreeError;
pub use super::category_sets::CategorySet;
pub(crate) use super::category_sets::CategorySets;
use super::java_values::category_keys;

/// Nodes that all trees of a model may have together. 1 GB of JSON, the most that Elasticsearch accepts, holds about as many.
pub const MAX_NODES: usize = 20_000_000;

/// Edges from the root to the deepest leaf. Elasticsearch measures the depth by recursion.
pub const MAX_DEPTH: usize = 2_000;

/// Features that a model may have.
pub const MAX_FEATURES: usize = 1_000_000;

/// Classes that a model may have.
pub const MAX_CLASSES: usize = 10_000;

/// A trained ensemble of decision trees.
#[derive(Debug, Clone)]
pub struct Ensemble {
    /// The file's format and the library that wrote it.
    pub origin: Origin,
    /// The features in the order of the training columns.
    pub features: Vec<Feature>,
    /// Sets of categories that nodes test for membership, each stored once.
    pub category_sets: Vec<CategorySet>,
    /// The trees in the order in which the library adds them up.
    pub trees: Vec<Tree>,
    /// A constant for each output, added to the weighted sum of the leaves.
    pub base: Vec<f64>,
    /// The factor that multiplies each leaf before the sum.
    pub weight: f64,
    /// How the outputs become a prediction.
    pub prediction: Prediction,
    /// The class labels stored in the file, in the order of the classes.
    pub labels: Option<Vec<Label>>,
    /// What the user should be aware of before importing the model.
    pub notes: Vec<String>,
}

/// Where an ensemble comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Format of the file, for example `XGBoost UBJSON`.
    pub format: String,
    /// Version of the library that wrote the file, where the file states one.
    pub version: Option<String>,
    /// The objective or the estimator's class, in the library's own words.
    pub objective: String,
}

/// One input of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Name of the training column, or `f0`, `f1`, … where the file has no names.
    pub name: String,
    /// Which values the feature takes.
    pub kind: FeatureKind,
}

/// Which values a feature takes.
#[derive(Debug, Clone, PartialEq)]
pub enum FeatureKind {
    /// Numbers.
    Number,
    /// True and false, or 1 and 0.
    Boolean,
    /// Categories. The code of a category is its position in the list. Without a list, documents carry the codes themselves.
    Category(Option<Vec<Label>>),
}

/// A class label or the name of a category.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A string.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Boolean(bool),
}

impl Label {
    /// The label as JSON; a whole number without a point.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Boolean(truth) => (*truth).into(),
            #[allow(clippy::cast_possible_truncation)]
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                (*number as i64).into()
            }
            Self::Number(number) => (*number).into(),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Boolean(truth) => write!(formatter, "{truth}"),
        }
    }
}

/// How the outputs of an ensemble become a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The output is the predicted number.
    Value,
    /// The exponential of the output is the predicted number.
    Exponential,
    /// A relevance score for learning to rank; the output itself.
    Ranking,
    /// The logistic function of the output is the probability of the second of two classes.
    Logistic,
    /// As [`Prediction::Logistic`], but the library predicts the probability as a number (`reg:logistic`).
    LogisticValue,
    /// The second of two classes where the output is positive. There are no probabilities.
    Hinge,
    /// Softmax of the outputs gives the probabilities of the classes.
    Softmax,
    /// The outputs themselves are the probabilities of the classes: the mean of the trees' class fractions.
    Mean,
    /// As [`Prediction::Mean`], but the outputs are known only up to a monotone function: the largest output wins.
    Largest,
    /// The logistic function of each output, with each class against all others. The largest output wins.
    OneVersusRest,
}

impl Prediction {
    /// Whether the model predicts a class.
    #[must_use]
    pub fn is_classification(self) -> bool {
        !matches!(self, Self::Value | Self::Exponential | Self::Ranking)
    }

    /// Whether the prediction is made from an output for each class.
    #[must_use]
    pub fn has_several_outputs(self) -> bool {
        matches!(self, Self::Softmax | Self::Mean | Self::Largest | Self::OneVersusRest)
    }

    /// Number of classes of a model with `outputs` outputs; 0 unless the model is a classifier.
    #[must_use]
    pub fn classes(self, outputs: usize) -> usize {
        match self {
            Self::Value | Self::Exponential | Self::Ranking => 0,
            Self::Logistic | Self::LogisticValue | Self::Hinge => 2,
            Self::Softmax | Self::Mean | Self::Largest | Self::OneVersusRest => outputs,
        }
    }
}

/// One decision tree. The root is node 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// The nodes in any order. Nodes that the root does not reach are ignored.
    pub nodes: Vec<Node>,
    /// The output to which scalar leaves add.
    pub output: u32,
    /// The vectors of [`Node::VectorLeaf`], one after the other, each as long as the ensemble has outputs.
    pub vectors: Vec<f64>,
}

/// A node of a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node {
    /// A leaf that adds a value to the tree's output.
    Leaf {
        /// The value.
        value: f64,
        /// Training samples that reached the leaf; 0 if unknown.
        samples: u64,
    },
    /// A leaf that adds a value to every output.
    VectorLeaf {
        /// Position of the vector in [`Tree::vectors`], counted in vectors.
        vector: u32,
        /// Training samples that reached the leaf; 0 if unknown.
        samples: u64,
    },
    /// An inner node.
    Split {
        /// Index of the tested feature.
        feature: u32,
        /// The test. Values that pass go to the left child.
        test: Test,
        /// The child for missing values.
        missing: Side,
        /// Index of the left child.
        left: u32,
        /// Index of the right child.
        right: u32,
        /// Training samples that reached the node; 0 if unknown.
        samples: u64,
    },
}

/// A child of an inner node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The left child.
    Left,
    /// The right child.
    Right,
}

impl Side {
    /// Left if `left` is true.
    #[must_use]
    pub fn left_if(left: bool) -> Self {
        if left { Self::Left } else { Self::Right }
    }

    /// The other child.
    #[must_use]
    pub fn other(self) -> Self {
        Self::left_if(self == Self::Right)
    }
}

/// The half-width of LightGBM's zero band: `1e-35f`, widened.
pub const ZERO: f64 = 1e-35_f32 as f64;

/// The condition under which a value goes to the left child.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Test {
    /// The value, rounded to float32, is less than the threshold.
    RoundedBelow(f32),
    /// The value, rounded to float32, is at most the threshold.
    RoundedAtMost(f64),
    /// The value is at most the threshold.
    AtMost(f64),
    /// The value is at most the threshold, where values within [`ZERO`] of zero count as zero.
    AtMostBanded(f64),
    /// As [`Test::AtMostBanded`], but values within [`ZERO`] of zero go where missing values go.
    AtMostUnlessZero(f64),
    /// The value's category is in the set with this index.
    In(u32),
}

/// What a reader learns by walking one tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Nodes that the root reaches.
    pub nodes: usize,
    /// Edges from the root to the deepest leaf.
    pub depth: usize,
}

impl Tree {
    /// Walks the tree from the root and checks it: children in range, no node reached twice, features and category sets that exist,
    /// finite leaves, no NaN thresholds.
    ///
    /// # Errors
    /// The first violation, in words that name the node.
    pub fn check(
        &self,
        features: &[Feature],
        sets: &[CategorySet],
        outputs: usize,
    ) -> Result<Shape, String> {
        let mut seen = vec![false; self.nodes.len()];
        let mut pending = vec![(0_u32, 0_usize)];
        let mut shape = Shape::default();
        while let Some((index, depth)) = pending.pop() {
            let position = index as usize;
            let Some(node) = self.nodes.get(position) else {
                return Err(format!("node {index} does not exist"));
            };
            if std::mem::replace(&mut seen[position], true) {
                return Err(format!("node {index} has two parents"));
            }
            shape.nodes += 1;
            shape.depth = shape.depth.max(depth);
            if depth > MAX_DEPTH {
                return Err(format!("the tree is deeper than {MAX_DEPTH} levels"));
            }
            match *node {
                Node::Leaf { value, .. } => {
                    if !value.is_finite() {
                        return Err(format!("leaf {index} has the value {value}"));
                    }
                    if self.output as usize >= outputs {
                        return Err(format!("the tree belongs to class {}", self.output));
                    }
                }
                Node::VectorLeaf { vector, .. } => {
                    let start = (vector as usize).saturating_mul(outputs);
                    let values = self.vectors.get(start..start.saturating_add(outputs));
                    if !values.is_some_and(|values| values.iter().all(|value| value.is_finite())) {
                        return Err(format!("leaf {index} has no finite values"));
                    }
                }
                Node::Split { feature, test, left, right, .. } => {
                    let Some(Feature { kind, .. }) = features.get(feature as usize) else {
                        let count = features.len();
                        return Err(format!("node {index} tests feature {feature} of {count}"));
                    };
                    let categorical = matches!(kind, FeatureKind::Category(_));
                    if categorical != matches!(test, Test::In(_)) {
                        return Err(format!(
                            "node {index} tests feature {feature} as a number and as a category"
                        ));
                    }
                    let valid = match test {
                        Test::In(set) => {
                            sets.get(set as usize).is_some_and(|set| set.feature == feature)
                        }
                        Test::RoundedBelow(threshold) => !threshold.is_nan(),
                        Test::RoundedAtMost(threshold)
                        | Test::AtMost(threshold)
                        | Test::AtMostBanded(threshold)
                        | Test::AtMostUnlessZero(threshold) => !threshold.is_nan(),
                    };
                    if !valid {
                        return Err(format!("node {index} has an invalid test"));
                    }
                    pending.push((right, depth + 1));
                    pending.push((left, depth + 1));
                }
            }
        }
        Ok(shape)
    }

    /// The vector of a [`Node::VectorLeaf`].
    #[must_use]
    pub fn vector(&self, vector: u32, outputs: usize) -> &[f64] {
        let start = (vector as usize).saturating_mul(outputs);
        self.vectors.get(start..start.saturating_add(outputs)).unwrap_or_default()
    }
}

/// Totals over all trees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of trees.
    pub trees: usize,
    /// Number of reachable nodes.
    pub nodes: usize,
    /// Edges from a root to the deepest leaf.
    pub depth: usize,
}

impl Ensemble {
    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// Number of classes; 0 unless the model is a classifier.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.prediction.classes(self.outputs())
    }

    /// Whether the features have the names `f0`, `f1`, … of a file without names.
    #[must_use]
    pub fn has_default_names(&self) -> bool {
        self.features.iter().enumerate().all(|(index, feature)| feature.name == format!("f{index}"))
    }

    /// Whether softmax of the logarithms of the leaves returns the outputs: one tree whose leaves are fractions of the classes.
    #[must_use]
    pub fn is_tree_of_fractions(&self) -> bool {
        // Smaller fractions lose precision in the logarithm.
        let valid = |fraction: f64| fraction == 0.0 || fraction >= f64::MIN_POSITIVE;
        let [tree] = self.trees.as_slice() else {
            return false;
        };
        self.prediction == Prediction::Mean
            && self.weight == 1.0
            && self.base.iter().all(|base| *base == 0.0)
            && tree.nodes.iter().all(|node| match *node {
                Node::VectorLeaf { vector, .. } => {
                    let fractions = tree.vector(vector, self.outputs());
                    fractions.iter().all(|&fraction| valid(fraction))
                        && (fractions.iter().sum::<f64>() - 1.0).abs() <= 1e-6
                }
                Node::Leaf { .. } => false,
                Node::Split { .. } => true,
            })
    }

    /// Whether Elasticsearch computes the library's probabilities of the classes. If not, only the predicted labels are equal.
    #[must_use]
    pub fn has_exact_probabilities(&self) -> bool {
        use Prediction::{Logistic, LogisticValue, Softmax};
        matches!(self.prediction, Logistic | LogisticValue | Softmax) || self.is_tree_of_fractions()
    }

    /// Checks the whole ensemble. Readers call this last, so that nothing after them meets a malformed tree.
    ///
    /// # Errors
    /// A limit, or the first malformed tree.
    pub fn check(&self, format: &'static str) -> Result<Totals, TreeError> {
        if self.features.len() > MAX_FEATURES {
            return Err(TreeError::Limit(format!("more than {MAX_FEATURES} features")));
        }
        if self.trees.is_empty() {
            return Err(TreeError::unsupported(
                "a model without trees",
                "it predicts the same for every document; train it for at least one round",
            ));
        }
        if self.outputs() == 0 || self.outputs() > MAX_CLASSES {
            return Err(TreeError::Limit(format!(
                "{} classes, at most {MAX_CLASSES} are supported",
                self.outputs()
            )));
        }
        if self.base.iter().any(|base| !base.is_finite()) || !self.weight.is_finite() {
            return Err(TreeError::malformed(format, "the base score is not a finite number"));
        }
        if self.outputs() > 1 && !self.prediction.has_several_outputs() {
            let outputs = self.outputs();
            return Err(TreeError::malformed(
                format,
                format!("{outputs} outputs for the objective {}", self.origin.objective),
            ));
        }
        if let Some(labels) = &self.labels
            && labels.len() != self.classes()
        {
            let (labels, classes) = (labels.len(), self.classes());
            return Err(TreeError::malformed(
                format,
                format!("{labels} labels for {classes} classes"),
            ));
        }
        for feature in &self.features {
            let FeatureKind::Category(Some(names)) = &feature.kind else { continue };
            let mut keys = HashSet::new();
            let repeated =
                names.iter().flat_map(category_keys).find(|key| !keys.insert(key.clone()));
            if let Some(key) = repeated {
                return Err(TreeError::unsupported(
                    format!("a feature with two categories {key:?}"),
                    "Elasticsearch recognizes a category by its text; give each category its own text",
                ));
            }
        }
        let mut totals = Totals::default();
        for (index, tree) in self.trees.iter().enumerate() {
            let shape = tree.check(&self.features, &self.category_sets, self.outputs()).map_err(
                |reason| TreeError::malformed(format, format!("tree {index}: {reason}")),
            )?;
            totals.trees += 1;
            totals.nodes += shape.nodes;
            totals.depth = totals.depth.max(shape.depth);
            if totals.nodes > MAX_NODES {
                return Err(TreeError::Limit(format!("more than {MAX_NODES} nodes")));
            }
        }
        Ok(totals)
    }
}

/// Names for the features: those of the file, or `f0`, `f1`, ….
pub(crate) fn features_named(names: Vec<String>, count: usize) -> Vec<Feature> {
    let mut names = names.into_iter();
    (0..count)
        .map(|index| Feature {
            name: names.next().unwrap_or_else(|| format!("f{index}")),
            kind: FeatureKind::Number,
        })
        .collect()
}
