//! How far the answers of a model move where Elasticsearch passes other ids than the model's own tokenizer.

use std::fmt;

use serde::Serialize;

/// Comparison of the answers for Elasticsearch's rows and for the rows of the model's own tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TokenEffect {
    /// Number of compared texts.
    pub texts: usize,
    /// Number of texts with the same answer: label, word, labels of entities, or span. None for tasks that return vectors or scores.
    pub same_answer: Option<usize>,
    /// Smallest cosine of two vectors, for tasks that return vectors.
    pub cosine_min: Option<f64>,
    /// Mean cosine of two vectors.
    pub cosine_mean: Option<f64>,
    /// Largest difference of two numbers: probabilities, scores, or elements of vectors.
    pub largest_difference: f64,
}

impl fmt::Display for TokenEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = if self.texts == 1 { "text" } else { "texts" };
        if let Some(same) = self.same_answer {
            write!(f, "{same} of {} different {texts} have the same answer, ", self.texts)?;
        }
        if let (Some(least), Some(mean)) = (self.cosine_min, self.cosine_mean) {
            write!(
                f,
                "cosine {mean:.4} on average and {least:.4} at least over {} different {texts}, ",
                self.texts
            )?;
        }
        write!(f, "largest difference {:.2e}", self.largest_difference)
    }
}
