//! Layers shared by the architectures. Shapes are `[batch, tokens, hidden]` unless stated otherwise.

use tch::{Kind, Tensor};

pub use super::blocks::LayerNorm;
use super::distance::{DistanceEmbedding, PositionEmbedding};
use super::weights::Weights;
use super::{AttentionForm, Inputs, Rows};
use crate::torchscript::{TorchError, full, reshape, view};

/// `torch.nn.Linear`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, inputs: i64, outputs: i64) -> Self {
        Self {
            weight: weights.tensor("weight", &[outputs, inputs]),
            bias: Some(weights.tensor("bias", &[outputs])),
        }
    }

    /// Reads `weight` `[outputs, inputs]`.
    #[must_use]
    pub fn without_bias(weights: &Weights<'_>, inputs: i64, outputs: i64) -> Self {
        Self { weight: weights.tensor("weight", &[outputs, inputs]), bias: None }
    }

    /// Reads `weight` `[outputs, inputs]`, and `bias` `[outputs]` if `config.json` states that the layer has one.
    #[must_use]
    pub fn with_bias_if(has_bias: bool, weights: &Weights<'_>, inputs: i64, outputs: i64) -> Self {
        if has_bias {
            Self::load(weights, inputs, outputs)
        } else {
            Self::without_bias(weights, inputs, outputs)
        }
    }

    /// Reads `N` layers `[outputs, inputs]` from one weight `[N * outputs, inputs]`, and from one bias `[N * outputs]` if `config.json`
    /// states that there is one.
    ///
    /// `N` products were faster than one product and its parts: on one thread and with the attention itself, one product for query, key
    /// and value of width 768 took 1.12 to 1.33 of the time for 16 to 32 tokens, and 1.04 to 1.07 for 128 to 512 tokens.
    #[must_use]
    pub fn packed<const N: usize>(
        has_bias: bool,
        weights: &Weights<'_>,
        inputs: i64,
        outputs: i64,
    ) -> [Self; N] {
        let rows = N as i64 * outputs;
        let mut biases = has_bias.then(|| weights.parts::<N>("bias", &[rows]).into_iter());
        weights
            .parts::<N>("weight", &[rows, inputs])
            .map(|weight| Self { weight, bias: biases.as_mut().and_then(Iterator::next) })
    }

    /// A linear layer from tensors, for example with a weight that is tied to another layer's.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Width of the output.
    #[must_use]
    pub fn outputs(&self) -> i64 {
        self.weight.size().first().copied().unwrap_or_default()
    }

    /// Maps `[…, inputs]` to `[…, outputs]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        Ok(input.f_linear(&self.weight, self.bias.as_ref())?)
    }
}

/// Looks up `ids` `[batch, tokens]` in `table` `[rows, hidden]` and returns `[batch, tokens, hidden]`.
///
/// # Errors
/// Errors of libtorch, for example an id outside of the table.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor, TorchError> {
    Ok(Tensor::f_embedding(table, ids, -1, false, false)?)
}

/// Embeddings of token types: rows of `table` `[types, hidden]`, or its first row if all token types are 0.
///
/// # Errors
/// Errors of libtorch.
pub fn token_type_embedding(
    table: &Tensor,
    types: i64,
    inputs: &Inputs,
) -> Result<Tensor, TorchError> {
    match inputs.token_type_ids(types)? {
        Some(ids) => embedding(table, &ids),
        None => Ok(table.f_select(0, 0)?),
    }
}

/// Attention mask as a bias on the scores `[batch, heads, tokens, tokens]`: 0 at tokens and float32's lowest number at padding, in the
/// shape `[batch, 1, 1, tokens]`. Computed once per pass.
///
/// # Errors
/// Errors of libtorch.
pub fn attention_bias(attention_mask: &Tensor) -> Result<Tensor, TorchError> {
    let mask = attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_unsqueeze(2)?;
    Ok(mask.f_sub_scalar(1.)?.f_mul_scalar(f64::from(f32::MAX))?)
}

/// Multi-head self-attention with separate projections for query, key and value (`BertSelfAttention`).
///
/// Three linear layers are used instead of one with three times the width: on one thread, for 8 to 512 tokens of width 768, one layer took
/// 0.995 to 1.016 of the time of three, and its weight would be a copy that cannot be mapped from the checkpoint.
#[derive(Debug)]
pub struct SelfAttention {
    attention: CrossAttention,
    distances: Option<DistanceEmbedding>,
}

impl SelfAttention {
    /// Reads the projections `names` (query, key, value), each from `hidden` to the width of all `heads`, with bias.
    #[must_use]
    pub fn load(weights: &Weights<'_>, names: [&str; 3], hidden: i64, heads: Heads) -> Self {
        let attention = CrossAttention::with_heads(weights, names, [hidden; 3], heads);
        Self { attention, distances: None }
    }

    /// Adds scores that depend on the distance between tokens according to `kind`, for at most `positions` tokens. Reads
    /// `distance_embedding` `[2 * positions - 1, head_size]`, unless positions are absolute.
    #[must_use]
    pub fn with_distances(
        self,
        weights: &Weights<'_>,
        kind: PositionEmbedding,
        positions: i64,
    ) -> Self {
        let size = self.attention.heads.size;
        let distances = DistanceEmbedding::load(weights, kind, positions, size);
        Self { distances, ..self }
    }

    /// Returns the attended values of `rows`, `[batch, rows, hidden]`, before the output projection. `bias` is added to the scores.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let Some(distances) = &self.distances else {
            let queries = rows.of_states(hidden_states)?;
            let states = [&queries, hidden_states, hidden_states];
            return self.attention.forward(states, &rows.of_scores(bias)?, inputs);
        };
        // The scores by distance are computed for all queries.
        let heads = self.attention.heads;
        let [query, key, value] = self.attention.by_head([hidden_states; 3], inputs)?;
        let bias = bias.f_add(&distances.scores(&query, &key, heads.count, inputs)?)?;
        let (query, bias) = (rows.of_scores(&query)?, rows.of_scores(&bias)?);
        heads.join(&attend([&query, &key, &value], &bias, heads.scale(), inputs)?, inputs)
    }
}

/// Shape of attention heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Number of heads.
    pub count: i64,
    /// Width of a head.
    pub size: i64,
}

impl Heads {
    /// Heads with a total width of `hidden`.
    #[must_use]
    pub fn of(hidden: i64, count: i64) -> Self {
        Self { count, size: hidden / count }
    }

    /// Width of all heads.
    #[must_use]
    pub fn width(self) -> i64 {
        self.count * self.size
    }

    /// Factor of the scores: 1 / sqrt(head_size).
    #[must_use]
    pub fn scale(self) -> f64 {
        (self.size as f64).sqrt().recip()
    }

    /// Maps `[batch, rows, hidden]` to `[batch, heads, rows, head_size]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn split(self, states: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let batch = (&inputs.batch).into();
        let split = view(states, &[batch, (-1).into(), self.count.into(), self.size.into()])?;
        Ok(split.f_transpose(1, 2)?)
    }

    /// Repeats key or value heads, so that consecutive query heads share one: maps `[batch, key_heads, tokens, head_size]` to
    /// `[batch, heads, tokens, head_size]`. The number of query heads is a multiple of `key_heads`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn repeat(
        self,
        states: &Tensor,
        key_heads: i64,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        if key_heads == self.count {
            return Ok(states.shallow_clone());
        }
        let group = self.count / key_heads;
        let repeated = states.f_unsqueeze(2)?.f_expand([-1, -1, group, -1, -1], false)?;
        let (batch, tokens) = ((&inputs.batch).into(), (&inputs.tokens).into());
        reshape(&repeated, &[batch, self.count.into(), tokens, self.size.into()])
    }

    /// Maps `[batch, heads, rows, head_size]` to `[batch, rows, hidden]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn join(self, context: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let batch = (&inputs.batch).into();
        // A view is impossible, because the memory layout of the fused operation differs between versions of libtorch.
        reshape(&context.f_transpose(1, 2)?, &[batch, (-1).into(), self.width().into()])
    }
}

/// Computes `softmax(query · key * scale + bias) · value` in plain operations or fused, as the inputs request. Key and value are
/// `[batch, heads, tokens, head_size]`, query and result `[batch, heads, rows, head_size]`; the bias is broadcast to
/// `[batch, heads, rows, tokens]`.
///
/// # Errors
/// Errors of libtorch.
pub fn attend(
    [query, key, value]: [&Tensor; 3],
    bias: &Tensor,
    scale: f64,
    inputs: &Inputs,
) -> Result<Tensor, TorchError> {
    match inputs.attention {
        AttentionForm::Fused => Ok(Tensor::f_scaled_dot_product_attention(
            query,
            key,
            value,
            Some(bias),
            0.,
            false,
            scale,
            false,
        )?),
        AttentionForm::Plain => {
            // The query is scaled and the bias is added in place, because the scores are larger than all other tensors of long texts.
            let query = query.f_mul_scalar(scale)?;
            let mut scores = query.f_matmul(&key.f_transpose(-1, -2)?)?;
            let _ = scores.f_add_(bias)?;
            Ok(scores.f_softmax(-1, None)?.f_matmul(value)?)
        }
    }
}

/// Multi-head attention with query, key and value from different states, which may have different widths.
#[derive(Debug)]
pub struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: Heads,
}

impl CrossAttention {
    /// Reads the projections `names` (query, key, value) from states of the widths `from` to `hidden`, with bias.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        names: [&str; 3],
        from: [i64; 3],
        hidden: i64,
        heads: i64,
    ) -> Self {
        Self::with_heads(weights, names, from, Heads::of(hidden, heads))
    }

    /// Reads the projections `names` (query, key, value) of states of the widths `from`, each to the width of all `heads`, with bias.
    #[must_use]
    pub fn with_heads(
        weights: &Weights<'_>,
        names: [&str; 3],
        from: [i64; 3],
        heads: Heads,
    ) -> Self {
        let [query, key, value] = names;
        let load = |name: &str, from| Linear::load(&weights.sub(name), from, heads.width());
        let [query, key, value] = [load(query, from[0]), load(key, from[1]), load(value, from[2])];
        Self { query, key, value, heads }
    }

    /// Returns the attended values `[batch, rows, hidden]` before the output projection, for a query of `rows` tokens. `bias` is added to
    /// the scores.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(
        &self,
        states: [&Tensor; 3],
        bias: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let [query, key, value] = self.by_head(states, inputs)?;
        let context = attend([&query, &key, &value], bias, self.heads.scale(), inputs)?;
        self.heads.join(&context, inputs)
    }

    /// Returns the attended values of causal attention, in which a token attends to itself and earlier tokens. The mask comes from [`causal_bias`].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward_causal(
        &self,
        states: [&Tensor; 3],
        causal: Option<&Tensor>,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let [query, key, value] = self.by_head(states, inputs)?;
        let context = match causal {
            Some(bias) => attend([&query, &key, &value], bias, self.heads.scale(), inputs)?,
            None => Tensor::f_scaled_dot_product_attention::<&Tensor>(
                &query,
                &key,
                &value,
                None,
                0.,
                true,
                self.heads.scale(),
                false,
            )?,
        };
        self.heads.join(&context, inputs)
    }

    fn by_head(
        &self,
        [query, key, value]: [&Tensor; 3],
        inputs: &Inputs,
    ) -> Result<[Tensor; 3], TorchError> {
        let by_head = |projection: &Linear, states: &Tensor| {
            self.heads.split(&projection.forward(states)?, inputs)
        };
        Ok([by_head(&self.query, query)?, by_head(&self.key, key)?, by_head(&self.value, value)?])
    }
}

/// Causal mask as a bias on the attention scores: 0, or float32's lowest number at later tokens, in the shape
/// `[tokens, tokens]`. Computed once per pass. `None` in the fused form, whose operation has a causal mode.
///
/// # Errors
/// Errors of libtorch.
pub fn causal_bias(inputs: &Inputs) -> Result<Option<Tensor>, TorchError> {
    if inputs.attention == AttentionForm::Fused {
        return Ok(None);
    }
    let square = [(&inputs.tokens).into(), (&inputs.tokens).into()];
    Ok(Some(full(&square, f64::from(f32::MIN))?.f_triu(1)?))
}
