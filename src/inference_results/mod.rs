//! The results that Elasticsearch computes from the output of a graph (contract, 2.4 and 8).
//!
//! A [`Request`] is a task with its settings. Its method [`rows`](Request::rows) returns what the server feeds the graph for a text, and
//! [`result`](Request::result) turns the graph's [`Output`] into the result object of the server.

mod answers;
mod classes;
mod entities;
mod fill_mask;
mod numbers;
mod request;

use serde_json::{Map, Value, json};

pub use request::{Input, Request, TaskSettings};

use crate::server_tokenization::TokenizationError;

/// Why a text has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// The settings of the request do not fit the task.
    #[error("{0}")]
    Settings(String),
    /// The server throws an exception for the text.
    #[error(transparent)]
    Text(#[from] TokenizationError),
    /// The text does not fit the task.
    #[error("{0}")]
    Input(String),
    /// The output of the graph does not fit the task.
    #[error("the output of the graph does not fit the task: {0}")]
    Output(String),
}

/// The output of a graph for all rows of one text, with three axes as the server reads it: `[1, 1, n]` for `n` numbers,
/// `[1, m, n]` for a matrix. The outputs of several rows follow each other on the first axis of the graph's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Lengths of the axes.
    pub sizes: [usize; 3],
    /// Numbers in row-major order.
    pub values: Vec<f64>,
}

impl Output {
    /// The rows of the matrix at `index` on the first axis; empty if there is no such matrix.
    fn matrix(&self, index: usize) -> Vec<&[f64]> {
        let [_, rows, width] = self.sizes;
        let start = index * rows * width;
        match self.values.get(start..start + rows * width) {
            Some(values) if width > 0 => values.chunks(width).collect(),
            _ => Vec::new(),
        }
    }

    /// The rows of the first matrix.
    ///
    /// # Errors
    /// [`InferenceError::Output`] if there are none.
    fn rows(&self) -> Result<Vec<&[f64]>, InferenceError> {
        let rows = self.matrix(0);
        if rows.is_empty() {
            return Err(InferenceError::Output("it is empty".into()));
        }
        Ok(rows)
    }
}

/// Probabilities of logits: softmax.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut probabilities: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = probabilities.iter().sum();
    probabilities.iter_mut().for_each(|probability| *probability /= sum);
    probabilities
}

/// The positions of the `count` largest values, largest first. Of equal values the first one comes first.
fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..values.len()).collect();
    positions.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    positions.truncate(count);
    positions
}

/// An element of `top_classes`.
fn class(name: &str, probability: f64) -> Value {
    json!({"class_name": name, "class_probability": probability, "class_score": probability})
}

/// The result with the best class, the list of classes if any are wanted, and the probability of the best class.
fn with_classes(
    field: &str,
    classes: &[(String, f64)],
    listed: usize,
) -> Option<Map<String, Value>> {
    let (best, probability) = classes.first()?;
    let mut result = Map::new();
    result.insert(field.to_owned(), best.as_str().into());
    if listed > 0 {
        let list: Vec<Value> = classes
            .iter()
            .take(listed)
            .map(|(name, probability)| class(name, *probability))
            .collect();
        result.insert("top_classes".into(), list.into());
    }
    result.insert("prediction_probability".into(), (*probability).into());
    Some(result)
}

/// A position in a text in UTF-16 code units, as the server counts.
fn utf16_position(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(0, |before| before.encode_utf16().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_logits_is_finite() {
        assert_eq!(softmax(&[1e4, 1e4]), [0.5, 0.5]);
        assert_eq!(largest(&[0.25, 0.5, 0.25], 2), [1, 0]);
    }

    #[test]
    fn empty_output_is_an_error() {
        let output = Output { sizes: [1, 0, 4], values: Vec::new() };
        assert!(output.rows().is_err());
        let output = Output { sizes: [2, 1, 2], values: vec![1., 2., 3., 4.] };
        assert_eq!(output.matrix(1), [&[3., 4.][..]]);
        assert!(output.matrix(2).is_empty());
    }
}
