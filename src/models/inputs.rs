//! What the server feeds a graph, turned back into what the model was trained on.

use tch::Tensor;

use crate::special_tokens::SpecialTokens;
use crate::torchscript::{Size, TorchError};

/// How attention is written in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionForm {
    /// Products and a softmax: runs in every libtorch since 1.13.
    #[default]
    Plain,
    /// `scaled_dot_product_attention`: faster, and needs no memory for the scores; libtorch 2.1 and later.
    Fused,
}

/// The inputs of a model.
#[derive(Debug)]
pub struct Inputs {
    /// Token ids, int64 `[batch, tokens]`.
    pub input_ids: Tensor,
    /// 1 where a token is, 0 at padding, int64 `[batch, tokens]`.
    pub attention_mask: Tensor,
    /// Number of rows.
    pub batch: Size,
    /// Number of tokens in each row.
    pub tokens: Size,
    /// How attention is to be written.
    pub attention: AttentionForm,
    given_token_types: Option<Tensor>,
    pair: bool,
    special: SpecialTokens,
}

impl Inputs {
    /// Reads the tensors that Elasticsearch passes, in its order: input_ids, attention_mask, then for some tokenizers token_type_ids
    /// and position_ids, each int64 `[batch, tokens]`. `pair` says that the task puts two texts in a row.
    ///
    /// The server pads the attention mask with the id of the padding token, which is 1 for RoBERTa's relatives; here the mask is 0
    /// wherever the padding token stands.
    ///
    /// # Errors
    /// libtorch's own, or fewer than two tensors.
    pub fn of_server(
        tensors: &[Tensor],
        special: SpecialTokens,
        pair: bool,
        attention: AttentionForm,
    ) -> Result<Self, TorchError> {
        let [input_ids, mask, rest @ ..] = tensors else {
            return Err(TorchError::Native(
                "fewer inputs than input_ids and attention_mask".into(),
            ));
        };
        Ok(Self {
            batch: Size::of(input_ids, 0)?,
            tokens: Size::of(input_ids, 1)?,
            attention_mask: mask.f_mul(&input_ids.f_ne(special.padding)?)?,
            input_ids: input_ids.shallow_clone(),
            given_token_types: rest.first().map(Tensor::shallow_clone),
            attention,
            pair,
            special,
        })
    }

    /// Which of `types` kinds each token belongs to, int64 `[batch, tokens]`; nothing where all are of kind 0.
    ///
    /// The server sends 0 for pairs too. For them the kinds are restored: what stands behind the first separator is the second text,
    /// up to the padding.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn token_type_ids(&self, types: i64) -> Result<Option<Tensor>, TorchError> {
        let Some(given) = &self.given_token_types else { return Ok(None) };
        if types < 2 {
            return Ok(None);
        }
        if !self.pair {
            return Ok(Some(given.shallow_clone()));
        }
        let separators =
            self.input_ids.f_eq(self.special.separator)?.f_to_kind(tch::Kind::Int64)?;
        let before = separators.f_cumsum(1, tch::Kind::Int64)?.f_sub(&separators)?;
        let second = before.f_clamp(0, 1)?.f_mul(&self.attention_mask)?;
        Ok(Some(second.f_max_other(given)?))
    }
}
