//! Attention of DeBERTa between contents and relative positions.

use tch::Tensor;

use super::config::DebertaV2Config;
use super::relative_positions::{Places, Relative};
use crate::models::Inputs;
use crate::models::layers::{Heads, Linear, attend};
use crate::models::weights::Weights;
use crate::torchscript::{TorchError, slice, view};

/// `DisentangledSelfAttention`: content to content, content to position and position to content.
///
/// The projections of the relative positions are the same for every text, so they are constants of the graph.
pub(super) struct DisentangledAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    pub heads: Heads,
    scale: f64,
    /// Keys of positions for the queries of contents, `[heads, head_size, span, 2]`.
    content_to_position: Option<Tensor>,
    /// Queries of positions, scaled, for the keys of contents, `[heads, span, 2, head_size]`.
    position_to_content: Option<Tensor>,
}

impl DisentangledAttention {
    pub fn load(
        weights: &Weights<'_>,
        config: &DebertaV2Config,
        relative: Option<&Relative>,
    ) -> Self {
        let hidden = config.hidden_size;
        let linear = |name: &str| Linear::load(&weights.sub(name), hidden, hidden);
        // Every listed kind counts, even if it is not used.
        let kinds = 1 + i64::from(config.has("c2p")) + i64::from(config.has("p2c"));
        let scale = ((config.head_size() * kinds) as f64).sqrt().recip();
        let (query, key) = (linear("query_proj"), linear("key_proj"));
        let projected = |kind: &str, own: &str, shared: &Linear, order: [i64; 4], scale: f64| {
            let relative = relative.filter(|_| config.has(kind))?;
            let own = (!config.share_att_key).then(|| linear(own));
            let projection = own.as_ref().unwrap_or(shared);
            Some(weights.derived(|| {
                let projected = relative.projected(projection, config)?.f_mul_scalar(scale)?;
                Ok(projected.f_permute(order)?.f_contiguous()?)
            }))
        };
        Self {
            content_to_position: projected("c2p", "pos_key_proj", &key, [2, 3, 0, 1], 1.),
            position_to_content: projected("p2c", "pos_query_proj", &query, [2, 0, 1, 3], scale),
            query,
            key,
            value: linear("value_proj"),
            heads: Heads::of(hidden, config.num_attention_heads),
            scale,
        }
    }

    /// Returns the attended values `[batch, tokens, hidden]`. `bias` is the mask.
    pub fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        places: Option<&Places<'_>>,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let by_head = |states: &Tensor| self.heads.split(states, inputs);
        let query = by_head(&self.query.forward(hidden_states)?.f_mul_scalar(self.scale)?)?;
        let key = by_head(&self.key.forward(hidden_states)?)?;
        let value = by_head(&self.value.forward(hidden_states)?)?;
        let positions = match places {
            Some(places) => self.position_scores(&query, &key, places)?,
            None => None,
        };
        let context = match positions {
            Some(mut scores) => {
                // In-place addition is safe, because this layer computed the tensor.
                let _ = scores.f_add_(bias)?;
                attend([&query, &key, &value], &scores, 1., inputs)?
            }
            None => attend([&query, &key, &value], bias, 1., inputs)?,
        };
        self.heads.join(&context, inputs)
    }

    /// Scores from relative positions, `[batch, heads, tokens, tokens]`.
    fn position_scores(
        &self,
        query: &Tensor,
        key: &Tensor,
        places: &Places<'_>,
    ) -> Result<Option<Tensor>, TorchError> {
        let needed = |table: &Tensor, axis| match places.pairs {
            Some(pairs) => slice(table, axis, pairs),
            None => Ok(table.shallow_clone()),
        };
        let (heads, size) = (self.heads.count.into(), self.heads.size.into());
        let content_to_position = match &self.content_to_position {
            Some(keys) => {
                let keys = view(&needed(keys, 2)?, &[heads, size, (-1).into()])?;
                Some(query.f_matmul(&keys)?.f_gather(-1, &places.rows, false)?)
            }
            None => None,
        };
        let position_to_content = match &self.position_to_content {
            Some(queries) => {
                let queries = view(&needed(queries, 1)?, &[heads, (-1).into(), size])?;
                let scores = queries.f_matmul(&key.f_transpose(-1, -2)?)?;
                Some(scores.f_gather(-2, &places.rows, false)?)
            }
            None => None,
        };
        Ok(match (content_to_position, position_to_content) {
            (Some(mut scores), Some(others)) => {
                let _ = scores.f_add_(&others)?;
                Some(scores)
            }
            (scores, others) => scores.or(others),
        })
    }
}
