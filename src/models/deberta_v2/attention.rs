//! Attention of DeBERTa between contents and relative positions.

use tch::Tensor;

use super::config::DebertaV2Config;
use super::relative_positions::{Places, Relative};
use crate::models::layers::{Heads, Linear, attend};
use crate::models::weights::Weights;
use crate::models::{Inputs, Rows};
use crate::torchscript::{TorchError, slice, view};

/// Projections of the hidden states to query, key and value.
enum Projections {
    /// One tensor for each (v2 and v3).
    Separate { query: Linear, key: Linear, value: Linear },
    /// One tensor for all, whose rows are the query, the key and the value of the first head, then of the next (v1). Only query and value
    /// have a bias, `[heads, 1, head_size]`.
    Interleaved { all: Linear, query_bias: Tensor, value_bias: Tensor },
}

impl Projections {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let hidden = config.hidden_size;
        if config.is_first_version {
            let bias = |name: &str| {
                let bias = weights.tensor(name, &[hidden]);
                let shape = [config.num_attention_heads, 1, config.head_size()];
                weights.derived(|| Ok(bias.f_view(shape)?))
            };
            return Self::Interleaved {
                all: Linear::without_bias(&weights.sub("in_proj"), hidden, 3 * hidden),
                query_bias: bias("q_bias"),
                value_bias: bias("v_bias"),
            };
        }
        let linear = |name: &str| Linear::load(&weights.sub(name), hidden, hidden);
        Self::Separate {
            query: linear("query_proj"),
            key: linear("key_proj"),
            value: linear("value_proj"),
        }
    }

    /// Query, multiplied by `scale`, of `rows`, `[batch, heads, rows, head_size]`; key and value, each `[batch, heads, tokens, head_size]`.
    fn forward(
        &self,
        states: &Tensor,
        heads: Heads,
        scale: f64,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<[Tensor; 3], TorchError> {
        match self {
            Self::Separate { query, key, value } => {
                let by_head = |states: &Tensor| heads.split(states, inputs);
                Ok([
                    by_head(&query.forward(&rows.of_states(states)?)?.f_mul_scalar(scale)?)?,
                    by_head(&key.forward(states)?)?,
                    by_head(&value.forward(states)?)?,
                ])
            }
            Self::Interleaved { all, query_bias, value_bias } => {
                let all_three = Heads { count: heads.count, size: 3 * heads.size };
                let all = all_three.split(&all.forward(states)?, inputs)?;
                let part = |index: i64| {
                    Ok::<_, TorchError>(all.f_slice(
                        3,
                        index * heads.size,
                        (index + 1) * heads.size,
                        1,
                    )?)
                };
                let query = rows.of_scores(&part(0)?)?;
                Ok([
                    query.f_add(query_bias)?.f_mul_scalar(scale)?,
                    part(1)?,
                    part(2)?.f_add(value_bias)?,
                ])
            }
        }
    }
}

/// Linear layers over the heads (Shazeer et al. 2020, arXiv:2003.02436).
struct TalkingHeads {
    before_softmax: Linear,
    after_softmax: Linear,
}

impl TalkingHeads {
    fn load(weights: &Weights<'_>, heads: i64) -> Self {
        let linear = |name: &str| Linear::without_bias(&weights.sub(name), heads, heads);
        Self {
            before_softmax: linear("head_logits_proj"),
            after_softmax: linear("head_weights_proj"),
        }
    }

    /// The weights of attention for `scores`, both `[batch, heads, rows, tokens]`.
    fn weights(&self, scores: &Tensor, bias: &Tensor) -> Result<Tensor, TorchError> {
        let mixed = |states: &Tensor, layer: &Linear| -> Result<Tensor, TorchError> {
            Ok(layer.forward(&states.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?)
        };
        let scores = mixed(scores, &self.before_softmax)?.f_add(bias)?;
        mixed(&scores.f_softmax(-1, None)?, &self.after_softmax)
    }
}

/// `DisentangledSelfAttention`: content to content, content to position and position to content.
///
/// The projections of the relative positions are the same for every text, so they are constants of the graph.
pub(super) struct DisentangledAttention {
    projections: Projections,
    talking_heads: Option<TalkingHeads>,
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
        let projections = Projections::load(weights, config);
        let scale = ((config.head_size() * config.score_kinds()) as f64).sqrt().recip();
        let (shared_query, shared_key) = match &projections {
            Projections::Separate { query, key, .. } => (Some(query), Some(key)),
            Projections::Interleaved { .. } => (None, None),
        };
        // `names` are those of v1 and of later versions.
        let projected =
            |kind: &str, names: [&str; 2], shared: Option<&Linear>, order: [i64; 4], scale: f64| {
                let relative = relative.filter(|_| config.has(kind))?;
                let [first, later] = names.map(|name| weights.sub(name));
                let own = match shared {
                    None => Some(Linear::with_bias_if(kind == "p2c", &first, hidden, hidden)),
                    Some(_) if config.share_att_key => None,
                    Some(_) => Some(Linear::load(&later, hidden, hidden)),
                };
                let projection = own.as_ref().or(shared)?;
                Some(weights.derived(|| {
                    let projected = relative.projected(projection, config)?.f_mul_scalar(scale)?;
                    Ok(projected.f_permute(order)?.f_contiguous()?)
                }))
            };
        let (of_keys, of_queries) =
            (["pos_proj", "pos_key_proj"], ["pos_q_proj", "pos_query_proj"]);
        Self {
            content_to_position: projected("c2p", of_keys, shared_key, [2, 3, 0, 1], 1.),
            position_to_content: projected("p2c", of_queries, shared_query, [2, 0, 1, 3], scale),
            talking_heads: (config.is_first_version && config.talking_head)
                .then(|| TalkingHeads::load(weights, config.num_attention_heads)),
            heads: Heads::of(hidden, config.num_attention_heads),
            scale,
            projections,
        }
    }

    /// Returns the attended values of `rows`, `[batch, rows, hidden]`. `bias` is the mask.
    pub fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        places: Option<&Places<'_>>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let [query, key, value] =
            self.projections.forward(hidden_states, self.heads, self.scale, rows, inputs)?;
        let bias = &rows.of_scores(bias)?;
        let positions = match places {
            Some(places) => self.position_scores(&query, &key, places, rows)?,
            None => None,
        };
        let context = match (positions, &self.talking_heads) {
            (positions, Some(talking_heads)) => {
                let scores = query.f_matmul(&key.f_transpose(-1, -2)?)?;
                let scores = match positions {
                    Some(positions) => scores.f_add(&positions)?,
                    None => scores,
                };
                talking_heads.weights(&scores, bias)?.f_matmul(&value)?
            }
            (Some(mut scores), None) => {
                // In-place addition is safe, because this layer computed the tensor.
                let _ = scores.f_add_(bias)?;
                attend([&query, &key, &value], &scores, 1., inputs)?
            }
            (None, None) => attend([&query, &key, &value], bias, 1., inputs)?,
        };
        self.heads.join(&context, inputs)
    }

    /// Scores from relative positions for the queries of `rows`, `[batch, heads, rows, tokens]`.
    fn position_scores(
        &self,
        query: &Tensor,
        key: &Tensor,
        places: &Places<'_>,
        rows: Rows,
    ) -> Result<Option<Tensor>, TorchError> {
        let places_of_rows = rows.of_scores(&places.rows)?;
        let needed = |table: &Tensor, axis| match places.pairs {
            Some(pairs) => slice(table, axis, pairs),
            None => Ok(table.shallow_clone()),
        };
        let (heads, size) = (self.heads.count.into(), self.heads.size.into());
        let content_to_position = match &self.content_to_position {
            Some(keys) => {
                let keys = view(&needed(keys, 2)?, &[heads, size, (-1).into()])?;
                Some(query.f_matmul(&keys)?.f_gather(-1, &places_of_rows, false)?)
            }
            None => None,
        };
        let position_to_content = match &self.position_to_content {
            Some(queries) => {
                let queries = view(&needed(queries, 1)?, &[heads, (-1).into(), size])?;
                let scores = queries.f_matmul(&key.f_transpose(-1, -2)?)?;
                Some(scores.f_gather(-2, &places_of_rows, false)?)
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
