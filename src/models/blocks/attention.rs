//! Multi-head self-attention with its output projection.

use tch::Tensor;

use super::norm::{LayerNorm, RmsNorm};
use super::rotary::Angles;
use super::scope::AttentionScope;
use crate::models::layers::{Heads, Linear};
use crate::models::{Inputs, Rows};
use crate::torchscript::TorchError;

/// Norm of query and key before the scores.
#[derive(Debug)]
pub enum QueryKeyNorm {
    /// Over all heads (JinaBERT v2 with `layer_norm_q` and `layer_norm_k`).
    AllHeads {
        /// Norm of the query.
        query: LayerNorm,
        /// Norm of the key.
        key: LayerNorm,
    },
    /// Over each head (Gemma 3).
    EachHead {
        /// Norm of the query.
        query: RmsNorm,
        /// Norm of the key.
        key: RmsNorm,
    },
}

/// Multi-head self-attention with its output projection.
#[derive(Debug)]
pub struct Attention {
    /// Projections to query, key and value, each from the hidden states to the width of all heads. A checkpoint with one tensor for all
    /// three is read by [`Linear::packed`]. Key and value may have fewer heads, which groups of query heads share (grouped-query
    /// attention, Ainslie et al. 2023, arXiv:2305.13245).
    pub query_key_value: [Linear; 3],
    /// Norm of query and key.
    pub norm: Option<QueryKeyNorm>,
    /// Shape of the query heads.
    pub heads: Heads,
    /// Linear layer after attention.
    pub output: Linear,
}

impl Attention {
    /// Maps `[batch, tokens, hidden]` to `[batch, rows, hidden]`, the result for `rows`. `bias` is added to the scores and is broadcast to
    /// `[batch, heads, tokens, tokens]`. Query and key are rotated by `angles`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        angles: Option<&Angles>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let scope = AttentionScope::All(bias.shallow_clone());
        self.forward_within(states, &scope, angles, rows, inputs)
    }

    /// Maps `[batch, tokens, hidden]` to `[batch, rows, hidden]`, the result for `rows`, with attention to the tokens in `scope`. Query and
    /// key are rotated by `angles`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward_within(
        &self,
        states: &Tensor,
        scope: &AttentionScope,
        angles: Option<&Angles>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let heads = self.heads;
        let [query, key, value] = &self.query_key_value;
        let key_heads = Heads { count: key.outputs() / heads.size, size: heads.size };
        let [mut query, mut key] = [query.forward(&rows.of_states(states)?)?, key.forward(states)?];
        if let Some(QueryKeyNorm::AllHeads { query: of_query, key: of_key }) = &self.norm {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        let [mut query, mut key] = [heads.split(&query, inputs)?, key_heads.split(&key, inputs)?];
        let value = key_heads.split(&value.forward(states)?, inputs)?;
        if let Some(QueryKeyNorm::EachHead { query: of_query, key: of_key }) = &self.norm {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        if let Some(angles) = angles {
            (query, key) = (angles.rotate_query(&query, rows)?, angles.rotate(&key)?);
        }
        let [key, value] = [key, value].map(|it| heads.repeat(&it, key_heads.count, inputs));
        let (key, value) = (key?, value?);
        self.output.forward(&scope.attend([&query, &key, &value], heads, rows, inputs)?)
    }
}
