//! Rotary positions (Su et al. 2021, arXiv:2104.09864), with the halves of a head as pairs (GPT-NeoX): element `i` and element
//! `i + width / 2` are rotated by the angle `position * inverse frequency i`.
//!
//! The graph computes the angles from the number of tokens, in float32 as Transformers does. A table for 8,192 positions would be longer
//! than all angles of usual texts, and would limit the number of tokens.

use tch::{Device, Kind, Tensor};

use crate::models::weights::Weights;
use crate::models::{Inputs, Rows};
use crate::torchscript::{TorchError, arange};

/// Inverse frequencies, float32 `[width / 2]`, and how they depend on the number of tokens.
#[derive(Debug)]
pub struct Rotary {
    inverse_frequencies: Tensor,
    dynamic: Option<DynamicNtk>,
}

/// NTK scaling that starts at more tokens than the model was trained with (`dynamic` in Transformers).
#[derive(Debug)]
struct DynamicNtk {
    /// Exponent of each inverse frequency: `-2i / width`, float32 `[width / 2]`.
    exponents: Tensor,
    base: f64,
    width: i64,
    factor: f64,
    trained: i64,
}

impl Rotary {
    /// Rotation of `width` elements of each head. Inverse frequency `i` is `base ^ (-2i / width)`.
    #[must_use]
    pub fn new(weights: &Weights<'_>, width: i64, base: f64) -> Self {
        Self::of(weights, || inverse_frequencies(width, base))
    }

    /// Positions divided by `factor` (`linear` in Transformers).
    #[must_use]
    pub fn with_linear(weights: &Weights<'_>, width: i64, base: f64, factor: f64) -> Self {
        Self::of(weights, || Ok(inverse_frequencies(width, base)?.f_div_scalar(factor)?))
    }

    /// NTK scaling by `factor` at every length: the base is `base * factor`, and the inverse frequencies are divided by
    /// `factor ^ (2 / width)` (`NTKScalingRotaryEmbedding` of Alibaba-NLP/new-impl).
    #[must_use]
    pub fn with_ntk(weights: &Weights<'_>, width: i64, base: f64, factor: f64) -> Self {
        Self::of(weights, || {
            let scaled = inverse_frequencies(width, base * factor)?;
            Ok(scaled.f_div_scalar(factor.powf(2. / width as f64))?)
        })
    }

    /// Mixed NTK scaling by `factor` at every length: inverse frequency `i` is divided by `exp(a * (i + 1) ^ b)` with
    /// `a = ln(factor) / (width / 2) ^ b` (`mixed_b` of `NTKScalingRotaryEmbedding` of Alibaba-NLP/new-impl).
    #[must_use]
    pub fn with_mixed_ntk(
        weights: &Weights<'_>,
        width: i64,
        base: f64,
        factor: f64,
        b: f64,
    ) -> Self {
        Self::of(weights, || {
            let a = factor.ln() / (width as f64 / 2.).powf(b);
            let order = Tensor::f_arange_start(1, width / 2 + 1, (Kind::Float, Device::Cpu))?;
            let lambda = order.f_pow_tensor_scalar(b)?.f_mul_scalar(a)?.f_exp()?;
            Ok(inverse_frequencies(width, base)?.f_div(&lambda)?)
        })
    }

    /// NTK scaling of texts with `n > trained` tokens: the base is `base * (factor * n / trained - (factor - 1)) ^ (width / (width - 2))`.
    /// Shorter texts are not scaled.
    #[must_use]
    pub fn with_dynamic_ntk(
        weights: &Weights<'_>,
        width: i64,
        base: f64,
        factor: f64,
        trained: i64,
    ) -> Self {
        let exponents = weights.derived(|| Ok(exponents(width)?.f_neg()?));
        Self {
            dynamic: Some(DynamicNtk { exponents, base, width, factor, trained }),
            ..Self::new(weights, width, base)
        }
    }

    fn of(weights: &Weights<'_>, compute: impl FnOnce() -> Result<Tensor, TorchError>) -> Self {
        Self { inverse_frequencies: weights.derived(compute), dynamic: None }
    }

    /// Angles of all tokens. Computed once per pass, for all layers with this rotation.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn angles(&self, inputs: &Inputs) -> Result<Angles, TorchError> {
        let positions = arange(&inputs.tokens)?.f_to_kind(Kind::Float)?;
        let scaled = match &self.dynamic {
            Some(dynamic) => Some(dynamic.inverse_frequencies(&positions)?),
            None => None,
        };
        let frequencies = scaled.as_ref().unwrap_or(&self.inverse_frequencies);
        let angles = positions.f_unsqueeze(1)?.f_mul(frequencies)?;
        Ok(Angles { cosines: angles.f_cos()?, sines: angles.f_sin()? })
    }
}

impl DynamicNtk {
    fn inverse_frequencies(&self, positions: &Tensor) -> Result<Tensor, TorchError> {
        let tokens = positions.f_select(0, -1)?.f_add_scalar(1.)?;
        let stretch = tokens.f_mul_scalar(self.factor / self.trained as f64)?;
        let stretch = stretch.f_sub_scalar(self.factor - 1.)?.f_clamp_min(1.)?;
        let power = self.width as f64 / (self.width - 2) as f64;
        let base = stretch.f_pow_tensor_scalar(power)?.f_mul_scalar(self.base)?;
        Ok(base.f_pow(&self.exponents)?)
    }
}

/// `2i / width`, float32 `[width / 2]`.
fn exponents(width: i64) -> Result<Tensor, TorchError> {
    let evens = Tensor::f_arange_start_step(0, width, 2, (Kind::Int64, Device::Cpu))?;
    Ok(evens.f_to_kind(Kind::Float)?.f_div_scalar(width)?)
}

/// `1 / base ^ (2i / width)`, float32 `[width / 2]`. The steps are those of Transformers, because at position 8,191 an inverse frequency
/// that is rounded differently changes the angle by 0.001.
fn inverse_frequencies(width: i64, base: f64) -> Result<Tensor, TorchError> {
    Ok(Tensor::f_pow_scalar(base, &exponents(width)?)?.f_reciprocal()?)
}

/// Cosines and sines of the angles of all tokens, each float32 `[tokens, width / 2]`.
#[derive(Debug)]
pub struct Angles {
    cosines: Tensor,
    sines: Tensor,
}

impl Angles {
    /// Rotates the queries of `rows`, `[batch, heads, rows, head_size]`. The angles of the first token are 0.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn rotate_query(&self, query: &Tensor, rows: Rows) -> Result<Tensor, TorchError> {
        match rows {
            Rows::All => self.rotate(query),
            Rows::First => Ok(query.shallow_clone()),
        }
    }

    /// Rotates queries or keys `[batch, heads, tokens, head_size]`. Elements of a head after the rotated width stay.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn rotate(&self, states: &Tensor) -> Result<Tensor, TorchError> {
        let last = |tensor: &Tensor| tensor.size().last().copied().unwrap_or_default();
        let (cosines, sines) = (&self.cosines, &self.sines);
        let (half, size) = (last(cosines), last(states));
        let first = states.f_slice(-1, 0, half, 1)?;
        let second = states.f_slice(-1, half, 2 * half, 1)?;
        let left = first.f_mul(cosines)?.f_sub(&second.f_mul(sines)?)?;
        let right = second.f_mul(cosines)?.f_add(&first.f_mul(sines)?)?;
        let mut parts = vec![left, right];
        if 2 * half < size {
            parts.push(states.f_slice(-1, 2 * half, size, 1)?);
        }
        Ok(Tensor::f_cat(&parts, -1)?)
    }
}
