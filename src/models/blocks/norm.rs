//! Normalization over the last axis.

use tch::{Kind, Tensor};

use crate::models::weights::Weights;
use crate::torchscript::TorchError;

/// `torch.nn.LayerNorm` over the last axis (Ba et al. 2016, arXiv:1607.06450).
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    size: i64,
    epsilon: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[size]`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        Self {
            weight: weights.tensor("weight", &[size]),
            bias: Some(weights.tensor("bias", &[size])),
            size,
            epsilon,
        }
    }

    /// Reads `weight` `[size]`.
    #[must_use]
    pub fn without_bias(weights: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        Self { weight: weights.tensor("weight", &[size]), bias: None, size, epsilon }
    }

    /// Reads `weight` `[size]`, and `bias` `[size]` if `config.json` states that the norm has one.
    #[must_use]
    pub fn with_bias_if(has_bias: bool, weights: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        if has_bias {
            Self::load(weights, size, epsilon)
        } else {
            Self::without_bias(weights, size, epsilon)
        }
    }

    /// Normalizes the last axis.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        let weight = Some(&self.weight);
        Ok(input.f_layer_norm([self.size], weight, self.bias.as_ref(), self.epsilon, false)?)
    }
}

/// RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): `x / sqrt(mean(x²) + epsilon) * weight` over the last axis.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    /// Reads `weight` `[size]`, the factor of each element.
    #[must_use]
    pub fn load(weights: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        Self { weight: weights.tensor("weight", &[size]), epsilon }
    }

    /// Reads `weight` `[size]`, where the factor of each element is `1 + weight`.
    #[must_use]
    pub fn around_one(weights: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        let weight = weights.tensor("weight", &[size]);
        Self { weight: weights.derived(|| Ok(weight.f_add_scalar(1.)?)), epsilon }
    }

    /// The same norm with `factor` times the result.
    #[must_use]
    pub fn times(self, weights: &Weights<'_>, factor: f64) -> Self {
        let weight = weights.derived(|| Ok(self.weight.f_mul_scalar(factor)?));
        Self { weight, ..self }
    }

    /// Normalizes the last axis.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        let squares = input.f_pow_tensor_scalar(2)?;
        let mean = squares.f_mean_dim([-1i64].as_slice(), true, None::<Kind>)?;
        let scale = mean.f_add_scalar(self.epsilon)?.f_rsqrt()?;
        Ok(input.f_mul(&scale)?.f_mul(&self.weight)?)
    }
}
