//! Predictions with the arithmetic of the training library, on the neutral ensemble. [`super::served`] computes them from a written
//! definition, independently.

use serde_json::Value;

use super::ensemble::{
    Ensemble, Feature, FeatureKind, Label, Node, Prediction, Side, Test, Tree, ZERO,
};
use super::java_values::{category_keys, java_string, number};

/// A prediction.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicted {
    /// A number.
    Value(f64),
    /// A class.
    Class {
        /// Index of the class.
        index: usize,
        /// Probability of each class. Empty if the model has no probabilities.
        probabilities: Vec<f64>,
    },
}

impl Ensemble {
    /// The outputs for a row: one value for each feature, NaN where it is missing, the code for a category.
    #[must_use]
    pub fn raw(&self, row: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.outputs()];
        for tree in &self.trees {
            match tree.leaf(row, self) {
                Some(Node::Leaf { value, .. }) => {
                    if let Some(sum) = sums.get_mut(tree.output as usize) {
                        *sum += value;
                    }
                }
                Some(Node::VectorLeaf { vector, .. }) => {
                    for (sum, value) in sums.iter_mut().zip(tree.vector(vector, self.outputs())) {
                        *sum += value;
                    }
                }
                _ => {}
            }
        }
        self.base.iter().zip(sums).map(|(base, sum)| base + self.weight * sum).collect()
    }

    /// The library's prediction for a row (see [`Ensemble::raw`]).
    #[must_use]
    pub fn predict(&self, row: &[f64]) -> Predicted {
        self.predicted(self.raw(row))
    }

    /// Whether the library adds the leaves as float32 numbers, unlike Elasticsearch, which adds doubles.
    #[must_use]
    pub fn adds_float32(&self) -> bool {
        self.origin.format.starts_with("XGBoost")
    }

    /// The prediction of a library that adds the base score and the leaves as float32 numbers, in the order of the trees.
    #[must_use]
    pub fn predict_in_float32(&self, row: &[f64]) -> Predicted {
        #[allow(clippy::cast_possible_truncation)]
        let mut sums: Vec<f32> = self.base.iter().map(|base| *base as f32).collect();
        for tree in &self.trees {
            if let Some(Node::Leaf { value, .. }) = tree.leaf(row, self)
                && let Some(sum) = sums.get_mut(tree.output as usize)
            {
                #[allow(clippy::cast_possible_truncation)]
                let value = (value * self.weight) as f32;
                *sum += value;
            }
        }
        self.predicted(sums.into_iter().map(f64::from).collect())
    }

    /// The prediction that follows from the outputs.
    fn predicted(&self, outputs: Vec<f64>) -> Predicted {
        let first = outputs.first().copied().unwrap_or_default();
        match self.prediction {
            Prediction::Value | Prediction::Ranking => Predicted::Value(first),
            Prediction::Exponential => Predicted::Value(first.exp()),
            Prediction::LogisticValue => Predicted::Value(sigmoid(first)),
            Prediction::Logistic => Predicted::Class {
                index: usize::from(first > 0.0),
                probabilities: vec![sigmoid(-first), sigmoid(first)],
            },
            Prediction::Hinge => {
                Predicted::Class { index: usize::from(first > 0.0), probabilities: Vec::new() }
            }
            Prediction::Softmax => {
                Predicted::Class { index: largest(&outputs), probabilities: softmax(&outputs) }
            }
            Prediction::Mean => {
                Predicted::Class { index: largest(&outputs), probabilities: outputs }
            }
            Prediction::Largest => {
                Predicted::Class { index: largest(&outputs), probabilities: Vec::new() }
            }
            Prediction::OneVersusRest => Predicted::Class {
                index: largest(&outputs),
                probabilities: outputs.into_iter().map(sigmoid).collect(),
            },
        }
    }
}

impl Test {
    /// The child to which a value goes. NaN is missing.
    #[must_use]
    pub fn side(self, value: f64, missing: Side, ensemble: &Ensemble) -> Side {
        if value.is_nan() {
            return missing;
        }
        #[allow(clippy::cast_possible_truncation)]
        let rounded = value as f32;
        let in_band = value.abs() <= ZERO;
        Side::left_if(match self {
            Self::RoundedBelow(threshold) => rounded < threshold,
            Self::RoundedAtMost(threshold) => f64::from(rounded) <= threshold,
            Self::AtMost(threshold) => value <= threshold,
            Self::AtMostBanded(threshold) => (if in_band { 0.0 } else { value }) <= threshold,
            Self::AtMostUnlessZero(_) if in_band => return missing,
            Self::AtMostUnlessZero(threshold) => value <= threshold,
            Self::In(set) => {
                ensemble.category_sets.get(set as usize).is_some_and(|set| set.contains(value))
            }
        })
    }
}

impl Tree {
    /// The leaf that a row reaches. `None` for a tree without nodes, which [`Tree::check`] refuses.
    #[must_use]
    pub fn leaf(&self, row: &[f64], ensemble: &Ensemble) -> Option<Node> {
        let mut index = 0;
        // A checked tree has no cycles.
        loop {
            let node = *self.nodes.get(index as usize)?;
            let Node::Split { feature, test, missing, left, right, .. } = node else {
                return Some(node);
            };
            let value = row.get(feature as usize).copied().unwrap_or(f64::NAN);
            index = match test.side(value, missing, ensemble) {
                Side::Left => left,
                Side::Right => right,
            };
        }
    }
}

impl Feature {
    /// The value of the feature in a row, from the value of a document's field. `None` or `null` is missing, and so is whatever the
    /// model cannot take as a number or a category.
    #[must_use]
    pub fn value(&self, field: Option<&Value>, boolean: bool) -> f64 {
        let Some(field) = field else { return f64::NAN };
        match &self.kind {
            FeatureKind::Category(Some(names)) => {
                if field.is_null() {
                    return f64::NAN;
                }
                let key = java_string(field);
                let position = names.iter().position(|name| category_keys(name).contains(&key));
                // A value that is no category is in no set, unlike a missing value.
                #[allow(clippy::cast_precision_loss)]
                position.map_or(-1.0, |position| position as f64)
            }
            FeatureKind::Category(None) => {
                if field.is_null() {
                    return f64::NAN;
                }
                code(&java_string(field)).map_or(-1.0, f64::from)
            }
            _ => match field {
                Value::Bool(truth) if boolean => f64::from(u8::from(*truth)),
                Value::String(text) if boolean && text == "true" => 1.0,
                Value::String(text) if boolean && text == "false" => 0.0,
                _ => number(field).unwrap_or(f64::NAN),
            },
        }
    }
}

/// The code that Elasticsearch recognises in the text of a field: a whole number, with or without `.0`.
fn code(text: &str) -> Option<u32> {
    let digits = text.strip_suffix(".0").unwrap_or(text);
    let code = match digits.parse() {
        Ok(code) => code,
        // Java writes doubles from 10 million on with an exponent.
        Err(_) => {
            let number = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0)?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let code = number as u32;
            (f64::from(code) == number).then_some(code)?
        }
    };
    category_keys(&Label::Number(code.into())).iter().any(|key| key == text).then_some(code)
}

/// `1 / (1 + exp(-x))`.
pub(super) fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// `exp(x)` of each value, divided by their sum.
pub(super) fn softmax(values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The index of the largest value; the first on a tie.
pub(super) fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
