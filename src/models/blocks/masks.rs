//! Biases on attention scores by the places of query and key.

use tch::{Kind, Tensor};

use crate::models::Inputs;
use crate::torchscript::{TorchError, arange};

/// Distance between every two tokens, float32 `[tokens, tokens]`. int64 would take twice the memory.
///
/// # Errors
/// Errors of libtorch.
pub fn token_distances(inputs: &Inputs) -> Result<Tensor, TorchError> {
    let places = arange(&inputs.tokens)?.f_to_kind(Kind::Float)?;
    Ok(places.f_unsqueeze(1)?.f_sub(&places)?.f_abs()?)
}

/// Bias of attention in a sliding window, float32 `[batch, 1, tokens, tokens]`. For two tokens with a distance of at most `reach` it
/// equals `bias`, which [`attention_bias`](crate::models::layers::attention_bias) returns; for others it is float32's lowest number.
/// Computed once per pass, for all local layers.
///
/// # Errors
/// Errors of libtorch.
pub fn sliding_window_bias(
    bias: &Tensor,
    reach: i64,
    inputs: &Inputs,
) -> Result<Tensor, TorchError> {
    window_bias(bias, &token_distances(inputs)?, reach)
}

/// `bias` for two tokens with a distance of at most `reach`, otherwise float32's lowest number. `distances` and `bias` are broadcast to
/// the shape of the result, `[batch, 1, tokens, tokens]`.
///
/// # Errors
/// Errors of libtorch.
pub fn window_bias(bias: &Tensor, distances: &Tensor, reach: i64) -> Result<Tensor, TorchError> {
    let outside = distances.f_gt(reach)?;
    // A sum of both biases could overflow to infinity, and attention to nothing gives NaN.
    Ok(bias.f_masked_fill(&outside, f64::from(f32::MIN))?)
}
