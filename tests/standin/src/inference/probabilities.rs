//! From logits to probabilities and the best classes.

use serde_json::{Value, json};

/// Softmax.
pub(super) fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponents: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f64 = exponents.iter().sum();
    exponents.into_iter().map(|exponent| exponent / sum).collect()
}

/// The indices of `scores`, highest first; of equal ones the first comes first.
pub(super) fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    indices.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    indices
}

/// One entry of `top_classes`.
pub(super) fn top_class(name: &str, probability: f64) -> Value {
    json!({"class_name": name, "class_probability": probability, "class_score": probability})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_logits() {
        let made = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(made, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn ranking_is_stable() {
        assert_eq!(ranked(&[0.1, 0.7, 0.1, 0.9]), [3, 1, 0, 2]);
    }
}
