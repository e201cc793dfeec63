//! Attention with linear biases (ALiBi; Press et al. 2021, arXiv:2108.12409).

use tch::Tensor;

use super::masks::token_distances;
use crate::models::Inputs;
use crate::models::weights::Weights;
use crate::torchscript::TorchError;

/// Slope of each head.
#[derive(Debug)]
pub struct Alibi {
    /// Negated slopes, float32 `[heads, 1, 1]`.
    slopes: Tensor,
}

impl Alibi {
    /// Slopes of `heads` heads.
    #[must_use]
    pub fn new(weights: &Weights<'_>, heads: i64) -> Self {
        let negated: Vec<f32> = slopes(heads).into_iter().map(|slope| -slope as f32).collect();
        let slopes = weights.derived(|| Ok(Tensor::f_from_slice(&negated)?.f_view([heads, 1, 1])?));
        Self { slopes }
    }

    /// Adds `-slope * |i - j|` to `bias`, which [`attention_bias`](crate::models::layers::attention_bias) returns. The result is
    /// `[batch, heads, tokens, tokens]`. Computed once per pass, for all layers.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn bias(&self, bias: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        Ok(token_distances(inputs)?.f_mul(&self.slopes)?.f_add(bias)?)
    }
}

/// Slopes of the paper: `2 ^ (-8k / heads)` for `k` from 1, if the number of heads is a power of two. Otherwise the slopes of the next lower
/// power, followed by every other slope of its double.
fn slopes(heads: i64) -> Vec<f64> {
    let geometric = |count: i64| (1..=count).map(move |k| (-8. * k as f64 / count as f64).exp2());
    let power = 1 << heads.max(1).ilog2();
    let rest = usize::try_from(heads - power).unwrap_or_default();
    geometric(power).chain(geometric(2 * power).step_by(2).take(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_other_head_counts_interleave_those_of_the_double() {
        assert_eq!(slopes(1), [1. / 256.]);
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        let twelve = slopes(12);
        let halves: Vec<f64> = (1..=8).map(|k| 0.5f64.powi(k)).collect();
        assert_eq!(twelve[..8], halves);
        let roots: Vec<f64> = [1, 3, 5, 7].iter().map(|&k| 0.5f64.powf(k as f64 / 2.)).collect();
        assert_eq!(twelve[8..], roots);
    }
}
