//! Weights of the tokens of the vocabulary, which Elasticsearch stores as a sparse vector.
//!
//! Elasticsearch uses one row of the output as the result, so every form of pooling is part of the graph.

use tch::{Kind, Tensor};

use crate::config::SpladeConfig;
use crate::models::layers::Linear;
use crate::models::{Inputs, Model, WeightLoader};
use crate::torchscript::{TorchError, arange, full};

/// Max or sum over tokens of log(1 + relu(logits)), for the first `vocabulary` tokens (SPLADE, Formal et al. 2021, arXiv:2109.10086).
/// `log1p_relu` takes the logarithm twice.
pub(super) fn splade_weights(
    logits: &Tensor,
    inputs: &Inputs,
    vocabulary: i64,
    splade: SpladeConfig,
) -> Result<Tensor, TorchError> {
    let mask = inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?;
    // Padding becomes 0, which is the minimum of relu.
    let logits = logits.f_mul(&mask)?;
    let activate = |logits: &Tensor| -> Result<Tensor, TorchError> {
        let once = logits.f_relu()?.f_add_scalar(1.)?.f_log()?;
        if splade.log_twice { Ok(once.f_add_scalar(1.)?.f_log()?) } else { Ok(once) }
    };
    let weights = if splade.sum {
        activate(&logits)?.f_sum_dim_intlist([1i64].as_slice(), false, None)?
    } else {
        // The activation is monotonic, so it is applied after the maximum, to one row only.
        activate(&logits.f_max_dim(1, false)?.0)?
    };
    uploaded_tokens(weights, vocabulary)
}

/// The values of the first `vocabulary` tokens on the last axis. The table of a model can have more rows than there are tokens, and the
/// server fails if one of the other rows is chosen.
pub(super) fn uploaded_tokens(values: Tensor, vocabulary: i64) -> Result<Tensor, TorchError> {
    match values.size()[..] {
        [.., rows] if rows > vocabulary => {
            Ok(values.f_slice(values.dim() as i64 - 1, 0, vocabulary, 1)?)
        }
        _ => Ok(values),
    }
}

/// Weights of the tokens that a text contains (BGE-M3, Chen et al. 2024, arXiv:2402.03216): relu of one number per token, and the maximum
/// for a token that occurs several times. Special tokens have the weight 0.
#[derive(Debug)]
pub struct OccurringTokens {
    /// Linear layer from hidden states to one number; `None` if the head of the model returns this number.
    pub linear: Option<Linear>,
    /// Ids of the special tokens.
    pub special: Vec<i64>,
    /// Number of uploaded tokens.
    pub vocabulary: i64,
}

impl OccurringTokens {
    /// Maps hidden states `[batch, tokens, hidden]`, or one number per token `[batch, tokens, 1]`, to `[batch, vocabulary]`.
    pub(super) fn forward(&self, states: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let numbers = match &self.linear {
            Some(linear) => linear.forward(states)?,
            None => states.shallow_clone(),
        };
        let ids = &inputs.input_ids;
        let mut weights = numbers.f_squeeze_dim(-1)?.f_relu()?;
        weights = weights.f_mul(&inputs.attention_mask.f_to_kind(Kind::Float)?)?;
        for id in &self.special {
            weights = weights.f_masked_fill(&ids.f_eq(*id)?, 0.)?;
        }
        // All occurrences of a token get the same weight, because the last write of index_put_ is not defined.
        let other = ids.f_unsqueeze(2)?.f_ne_tensor(&ids.f_unsqueeze(1)?)?;
        let weights = weights.f_unsqueeze(1)?.f_masked_fill(&other, 0.)?.f_max_dim(2, false)?.0;
        at_ids(ids, &weights, inputs, self.vocabulary)
    }
}

/// A table with one weight for each token (`SparseStaticEmbedding` in sentence-transformers). A text has the weights of the tokens that it
/// contains, as often as they occur.
#[derive(Debug)]
pub struct TokenTable {
    /// Weights, float32 `[vocabulary]`.
    weights: Tensor,
    vocabulary: i64,
    padding: i64,
}

impl TokenTable {
    /// Loads `weight` from a checkpoint, for `vocabulary` tokens. Rows without a token are left out; a table with fewer rows is a
    /// mismatch. `padding` is the id of the padding token.
    #[must_use]
    pub fn load(checkpoint: &WeightLoader, vocabulary: i64, padding: i64) -> Self {
        let stored = checkpoint.checkpoint().tensors().get("weight");
        let rows = stored.and_then(|stored| stored.slice.shape.first()).copied();
        let rows = rows.unwrap_or(vocabulary).max(vocabulary);
        let weights = checkpoint.weights();
        let table = weights.tensor("weight", &[rows]);
        let weights = if rows == vocabulary {
            table
        } else {
            weights.derived(|| Ok(table.f_slice(0, 0, vocabulary, 1)?.f_contiguous()?))
        };
        Self { weights, vocabulary, padding }
    }

    /// A table of `weights`, one for each token. `padding` is the id of the padding token.
    #[must_use]
    pub fn new(weights: &[f32], padding: i64) -> Self {
        let vocabulary = i64::try_from(weights.len()).unwrap_or(i64::MAX);
        Self { weights: Tensor::from_slice(weights), vocabulary, padding }
    }
}

impl Model for TokenTable {
    /// Returns the weights of the tokens, `[batch, vocabulary]`.
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        // A text without tokens has a row of length 0. With one padding token more, no operation gets an empty tensor.
        let padding = full(&[(&inputs.batch).into(), 1.into()], self.padding as f64)?;
        let padding = padding.f_to_kind(Kind::Int64)?;
        let ids = Tensor::f_cat(&[&inputs.input_ids, &padding], 1)?;
        let nothing = padding.f_mul_scalar(0)?;
        let mask = Tensor::f_cat(&[&inputs.attention_mask, &nothing], 1)?;
        let present = at_ids(&ids, &mask.f_to_kind(Kind::Float)?, inputs, self.vocabulary)?;
        Ok(present.f_mul(&self.weights)?)
    }
}

/// Writes `values` `[batch, tokens]` at the places `ids` `[batch, tokens]` of a row of zeros, `[batch, vocabulary]`. Equal ids of a row must
/// have equal values.
fn at_ids(
    ids: &Tensor,
    values: &Tensor,
    inputs: &Inputs,
    vocabulary: i64,
) -> Result<Tensor, TorchError> {
    let mut row = full(&[(&inputs.batch).into(), vocabulary.into()], 0.)?;
    let rows = arange(&inputs.batch)?.f_unsqueeze(1)?;
    Ok(row.f_index_put_(&[Some(&rows), Some(ids)], values, false)?)
}
