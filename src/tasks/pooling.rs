//! Pools token vectors to one vector (`Pooling` in sentence-transformers).

use tch::{Kind, Tensor};

use crate::config::PoolingMode;
use crate::models::{Inputs, Rows};
use crate::torchscript::{TorchError, arange};

/// Lower limit of the sum of weights, as in the library.
const EPSILON: f64 = 1e-9;

/// The tokens that a pooling mode reads.
pub(super) fn rows(mode: PoolingMode) -> Rows {
    match mode {
        PoolingMode::Cls => Rows::First,
        _ => Rows::All,
    }
}

/// Maps `[batch, tokens, hidden]` to `[batch, hidden]`. The first token is enough for modes whose [`rows`] are [`Rows::First`].
pub(super) fn pool(
    mode: PoolingMode,
    hidden_states: &Tensor,
    inputs: &Inputs,
) -> Result<Tensor, TorchError> {
    let mask = &inputs.attention_mask;
    // Weighted sum over tokens. A matrix product reads the hidden states once and writes no tensor of their size.
    let sum = |weights: &Tensor| -> Result<Tensor, TorchError> {
        Ok(weights.f_unsqueeze(1)?.f_matmul(hidden_states)?.f_squeeze_dim(1)?)
    };
    let total = |weights: &Tensor| -> Result<Tensor, TorchError> {
        Ok(weights.f_sum_dim_intlist([1i64].as_slice(), true, None)?.f_clamp_min(EPSILON)?)
    };
    Ok(match mode {
        PoolingMode::Cls => hidden_states.f_select(1, 0)?,
        PoolingMode::Max => {
            let padding = mask.f_eq(0)?.f_unsqueeze(-1)?;
            hidden_states.f_masked_fill(&padding, f64::NEG_INFINITY)?.f_max_dim(1, false)?.0
        }
        PoolingMode::Mean => {
            let weights = mask.f_to_kind(Kind::Float)?;
            sum(&weights)?.f_div(&total(&weights)?)?
        }
        PoolingMode::MeanSqrtLen => {
            let weights = mask.f_to_kind(Kind::Float)?;
            sum(&weights)?.f_div(&total(&weights)?.f_sqrt()?)?
        }
        PoolingMode::WeightedMean => {
            let places = arange(&inputs.tokens)?.f_add_scalar(1)?;
            let weights = mask.f_mul(&places)?.f_to_kind(Kind::Float)?;
            sum(&weights)?.f_div(&total(&weights)?)?
        }
        PoolingMode::LastToken => {
            // Position of the last token, as an index for every element of its vector.
            let (last, _) = mask.f_mul(&arange(&inputs.tokens)?)?.f_max_dim(1, true)?;
            let width = *hidden_states.size().last().unwrap_or(&0);
            let index = last.f_unsqueeze(-1)?.f_expand([-1, 1, width], false)?;
            hidden_states.f_gather(1, &index, false)?.f_squeeze_dim(1)?
        }
    })
}
