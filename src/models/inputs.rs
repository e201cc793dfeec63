//! The model's inputs, computed from the tensors that Elasticsearch passes to a graph.

use tch::{Kind, Tensor};

use super::Rows;
use super::compaction::{Compaction, EntityLabels, at_places};
use super::composed_rows::ComposedRows;
use crate::special_tokens::{SpecialTokens, WithoutEmbedding};
use crate::tokenizer::RowLayout;
use crate::torchscript::{Size, TorchError, arange, slice};

/// How the graph computes attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionForm {
    /// Matrix products and a softmax, which every libtorch since 1.13 supports.
    #[default]
    Plain,
    /// `scaled_dot_product_attention`, which is faster and does not store the scores. Requires libtorch 2.1 or later.
    Fused,
}

/// How the rows of a task are interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowForm {
    /// One text per row.
    Single,
    /// One text per row, whose first token the graph drops, because the model's rows have no token before the text.
    WithoutFirst,
    /// Two texts per row.
    Pair {
        /// Whether the second of two separators is removed, because the model was trained with one. Elasticsearch inserts two.
        drops_separator: bool,
        /// Whether the tokens of the second text have type 1. Otherwise all types are 0.
        typed: bool,
    },
    /// Rows that the graph composes anew, because the model's tokenizer lays them out in another way.
    Composed {
        /// The model's layout.
        layout: RowLayout,
        /// Number of separators that Elasticsearch inserts between two texts. None if a row has one text.
        between: Option<i64>,
    },
}

impl RowForm {
    /// Two texts per row in BERT's layout: one separator, and different token types for both texts.
    pub const BERT_PAIR: Self = Self::Pair { drops_separator: false, typed: true };

    /// How many tokens the model's rows are longer than those of Elasticsearch. Composed rows that are shorter are padded.
    #[must_use]
    pub fn added_tokens(&self) -> i64 {
        match self {
            Self::WithoutFirst => -1,
            Self::Composed { layout, between } => {
                (layout.special_tokens() - 2 - between.unwrap_or(0)).max(0)
            }
            _ => 0,
        }
    }
}

/// The inputs of a model.
#[derive(Debug)]
pub struct Inputs {
    /// Token ids, int64 `[batch, tokens]`.
    pub input_ids: Tensor,
    /// 1 at tokens, 0 at padding, int64 `[batch, tokens]`.
    pub attention_mask: Tensor,
    /// Number of rows.
    pub batch: Size,
    /// Number of tokens in each row.
    pub tokens: Size,
    /// How the graph computes attention.
    pub attention: AttentionForm,
    /// Longest input of the graph in tokens, or 0 if it is not known.
    pub longest: i64,
    /// The tokens whose hidden states are read from a model without a head.
    pub rows: Rows,
    server_token_types: Option<Tensor>,
    form: RowForm,
    special: SpecialTokens,
    removed: Option<RemovedToken>,
    composed: Option<ComposedRows>,
    compaction: Option<Compaction>,
    answers_tokens: bool,
}

/// The logit of a place that no answer has.
const NOWHERE: f64 = -1e9;

/// Position of a token that was removed from each row.
#[derive(Debug)]
struct RemovedToken {
    /// Position before the removed token, int64 `[batch, 1]`.
    before: Tensor,
    /// Number of tokens in each row before the removal.
    tokens: Size,
}

impl RemovedToken {
    /// Finds the second of two adjacent separators in each row, which directly follows the first.
    fn find(separators: &Tensor, tokens: Size) -> Result<Self, TorchError> {
        // The position of the first separator equals the number of tokens before it. At least two tokens follow it.
        let separators = slice(separators, 1, &tokens.affine(1, -2)?)?;
        let ahead = separators.f_cumsum(1, Kind::Int64)?.f_eq(0)?.f_to_kind(Kind::Int64)?;
        let before = ahead.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Int64)?;
        Ok(Self { before, tokens })
    }

    /// Removes the token: `[batch, tokens]` to `[batch, tokens - 1]`.
    fn remove(&self, from: &Tensor) -> Result<Tensor, TorchError> {
        let places = arange(&self.tokens.affine(1, -1)?)?;
        let after = places.f_unsqueeze(0)?.f_gt_tensor(&self.before)?.f_to_kind(Kind::Int64)?;
        Ok(from.f_gather(1, &places.f_add(&after)?, false)?)
    }

    /// Inserts a value at the removed token: `[.., batch, tokens - 1]` to `[.., batch, tokens]`. The value is too low to be chosen
    /// as an answer.
    fn restore(&self, to: &Tensor) -> Result<Tensor, TorchError> {
        let places = arange(&self.tokens)?.f_unsqueeze(0)?;
        let after = places.f_gt_tensor(&self.before)?;
        let index = places.f_sub(&after.f_to_kind(Kind::Int64)?)?;
        let removed = places.f_eq_tensor(&self.before.f_add_scalar(1)?)?;
        let index = index.f_unsqueeze(0)?.f_expand([2, -1, -1], false)?;
        Ok(to.f_gather(-1, &index, false)?.f_masked_fill(&removed, NOWHERE)?)
    }
}

impl Inputs {
    /// Computes the inputs from the tensors that Elasticsearch passes, in its order: `input_ids`, `attention_mask`, and for some
    /// tokenizers `token_type_ids` and `position_ids`, each int64 `[batch, tokens]`.
    ///
    /// Elasticsearch pads the attention mask with the id of the padding token, which is 1 for the RoBERTa family. The mask of the
    /// result is 0 at every padding token.
    ///
    /// # Errors
    /// Errors of libtorch, or fewer than two tensors.
    pub fn of_server(
        tensors: &[Tensor],
        special: SpecialTokens,
        form: &RowForm,
        attention: AttentionForm,
    ) -> Result<Self, TorchError> {
        let [input_ids, mask, rest @ ..] = tensors else {
            return Err(TorchError::Native(
                "fewer inputs than input_ids and attention_mask".into(),
            ));
        };
        let mut input_ids = input_ids.shallow_clone();
        let mut attention_mask = mask.f_mul(&input_ids.f_ne(special.padding)?)?;
        let mut server_token_types = rest.first().map(Tensor::shallow_clone);
        let mut removed = None;
        let compaction = special.appended.map(|it| Compaction::find(&input_ids, it)).transpose()?;
        if let Some(compaction) = &compaction {
            input_ids = compaction.ids(&input_ids, special.padding)?;
            attention_mask = compaction.compact(&attention_mask, 0)?;
            server_token_types =
                server_token_types.map(|types| compaction.compact(&types, 0)).transpose()?;
        }
        // The tokenizers with appended tokens write one separator, so that none is dropped from their pairs.
        if let RowForm::Pair { drops_separator: true, .. } = *form {
            let separators = input_ids.f_eq(special.separator)?.f_to_kind(Kind::Int64)?;
            let token = RemovedToken::find(&separators, Size::of(&input_ids, 1)?)?;
            input_ids = token.remove(&input_ids)?;
            attention_mask = token.remove(&attention_mask)?;
            server_token_types =
                server_token_types.map(|types| token.remove(&types)).transpose()?;
            removed = Some(token);
        }
        let mut composed = None;
        if let RowForm::Composed { layout, between } = form {
            let rows = ComposedRows::compose(&input_ids, special, form, layout, *between)?;
            input_ids = rows.input_ids.shallow_clone();
            attention_mask = rows.attention_mask.shallow_clone();
            server_token_types = None;
            composed = Some(rows);
        }
        if *form == RowForm::WithoutFirst {
            let rest = |row: &Tensor| row.f_slice(1, 1, i64::MAX, 1);
            (input_ids, attention_mask) = (rest(&input_ids)?, rest(&attention_mask)?);
            server_token_types = None;
        }
        if let Some(WithoutEmbedding { first, replacement }) = special.without_embedding {
            input_ids = input_ids.f_masked_fill(&input_ids.f_ge(first)?, replacement)?;
        }
        Ok(Self {
            batch: Size::of(&input_ids, 0)?,
            tokens: Size::of(&input_ids, 1)?,
            input_ids,
            attention_mask,
            server_token_types,
            attention,
            longest: 0,
            rows: Rows::All,
            form: form.clone(),
            special,
            removed,
            composed,
            compaction,
            answers_tokens: false,
        })
    }

    /// Declares the longest input of the graph in tokens.
    #[must_use]
    pub fn of_at_most(self, longest: i64) -> Self {
        Self { longest, ..self }
    }

    /// Declares the tokens whose hidden states are read from a model without a head.
    #[must_use]
    pub fn reading(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// Declares that the graph answers for each token, so that hidden states get the places of Elasticsearch's tokens before the head.
    #[must_use]
    pub fn answering_tokens(self, answers_tokens: bool) -> Self {
        Self { answers_tokens, ..self }
    }

    /// Hidden states `[batch, tokens, hidden]` at the places of Elasticsearch's tokens, if the graph answers for each token. A token that
    /// was removed gets the states of the token before.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn at_server_places(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        match &self.compaction {
            Some(compaction) if self.answers_tokens => compaction.expand(hidden_states),
            _ => Ok(hidden_states.shallow_clone()),
        }
    }

    /// Logits of labels, `[batch, tokens, labels]`, where tokens that the model did not read begin no entity.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn label_removed(
        &self,
        logits: &Tensor,
        labels: &EntityLabels,
    ) -> Result<Tensor, TorchError> {
        match &self.compaction {
            Some(compaction) => compaction.label_removed(logits, labels),
            None => Ok(logits.shallow_clone()),
        }
    }

    /// Type of each token, int64 `[batch, tokens]`, for a model with `types` token types. `None` if all types are 0.
    ///
    /// Elasticsearch sends type 0 for pairs, too. For a model with different types for both texts of a pair, every token after the
    /// first separator gets type 1, up to the padding.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn token_type_ids(&self, types: i64) -> Result<Option<Tensor>, TorchError> {
        if types < 2 {
            return Ok(None);
        }
        if let Some(rows) = &self.composed {
            return Ok(Some(rows.types.shallow_clone()));
        }
        match self.form {
            RowForm::Composed { .. }
            | RowForm::Single
            | RowForm::WithoutFirst
            | RowForm::Pair { typed: false, .. } => {
                Ok(self.server_token_types.as_ref().map(Tensor::shallow_clone))
            }
            RowForm::Pair { typed: true, .. } => {
                let separators =
                    self.input_ids.f_eq(self.special.separator)?.f_to_kind(Kind::Int64)?;
                let before = separators.f_cumsum(1, Kind::Int64)?.f_sub(&separators)?;
                let second = before.f_clamp(0, 1)?.f_mul(&self.attention_mask)?;
                Ok(Some(match &self.server_token_types {
                    Some(server) => second.f_max_other(server)?,
                    None => second,
                }))
            }
        }
    }

    /// Moves the logits of the start and the end of an answer, `[2, batch, tokens]`, to the positions of the tokens in Elasticsearch's rows.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn restore_tokens(&self, logits: &Tensor) -> Result<Tensor, TorchError> {
        match (&self.removed, &self.composed, &self.compaction) {
            (Some(removed), ..) => removed.restore(logits),
            (None, Some(rows), _) => {
                let index = rows.places.f_unsqueeze(0)?.f_expand([2, -1, -1], false)?;
                let restored = logits.f_gather(-1, &index, false)?;
                Ok(restored.f_masked_fill(&rows.kept.f_eq(0)?, NOWHERE)?)
            }
            (None, None, Some(compaction)) => compaction.hide_removed(logits, NOWHERE),
            (None, None, None) => Ok(logits.shallow_clone()),
        }
    }

    /// Moves the logits of each token, `[batch, tokens, logits]`, to the positions of the tokens in Elasticsearch's rows. Positions
    /// of tokens that the model does not have get the logits of another token.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn restore_rows(&self, logits: &Tensor) -> Result<Tensor, TorchError> {
        match &self.composed {
            Some(rows) => at_places(logits, &rows.places),
            None if self.form == RowForm::WithoutFirst => {
                Ok(Tensor::f_cat(&[&logits.f_slice(1, 0, 1, 1)?, logits], 1)?)
            }
            None => Ok(logits.shallow_clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::tokenizer::Piece;

    fn special(padding: i64) -> SpecialTokens {
        SpecialTokens { padding, separator: 2, appended: None, without_embedding: None }
    }

    #[test]
    fn padding_without_embedding_becomes_id_0_behind_the_mask() {
        let ids = Tensor::from_slice2(&[[3i64, 5, 2], [3, 2, 11]]);
        let mask = Tensor::from_slice2(&[[1i64, 1, 1], [1, 1, 11]]);
        let without_embedding = Some(WithoutEmbedding { first: 10, replacement: 0 });
        let special = SpecialTokens { without_embedding, ..special(11) };
        let form = AttentionForm::Plain;
        let inputs = Inputs::of_server(&[ids, mask], special, &RowForm::Single, form).unwrap();
        assert_eq!(inputs.input_ids, Tensor::from_slice2(&[[3i64, 5, 2], [3, 2, 0]]));
        assert_eq!(inputs.attention_mask, Tensor::from_slice2(&[[1i64, 1, 1], [1, 1, 0]]));
    }

    #[test]
    fn first_token_is_dropped_and_gets_logits_of_the_second() {
        let ids = Tensor::from_slice2(&[[10i64, 5, 10, 2], [10, 6, 2, 0]]);
        let without_embedding = Some(WithoutEmbedding { first: 10, replacement: 3 });
        let special = SpecialTokens { without_embedding, ..special(0) };
        let (form, attention) = (RowForm::WithoutFirst, AttentionForm::Plain);
        let tensors = [ids.shallow_clone(), ids.ones_like()];
        let inputs = Inputs::of_server(&tensors, special, &form, attention).unwrap();
        assert_eq!(inputs.input_ids, Tensor::from_slice2(&[[5i64, 3, 2], [6, 2, 0]]));
        assert_eq!(inputs.attention_mask, Tensor::from_slice2(&[[1i64, 1, 1], [1, 1, 0]]));
        let logits = Tensor::from_slice(&[1f32, 2., 3.]).view([1, 3, 1]);
        let restored = inputs.restore_rows(&logits).unwrap();
        assert_eq!(restored, Tensor::from_slice(&[1f32, 1., 2., 3.]).view([1, 4, 1]));
    }

    /// Rows in Elasticsearch's layout of pairs for RoBERTa. Id 0 starts a row, 2 separates, 1 pads.
    fn inputs(typed: bool) -> Inputs {
        let ids = Tensor::from_slice2(&[
            [0i64, 5, 2, 2, 6, 7, 2],
            [0, 5, 8, 2, 2, 6, 2],
            [0, 2, 2, 6, 2, 1, 1],
        ]);
        let special = special(1);
        let form = RowForm::Pair { drops_separator: true, typed };
        Inputs::of_server(
            &[ids.shallow_clone(), ids.ones_like()],
            special,
            &form,
            AttentionForm::Plain,
        )
        .unwrap()
    }

    #[test]
    fn second_separator_is_removed() {
        let inputs = inputs(true);
        let expected =
            Tensor::from_slice2(&[[0i64, 5, 2, 6, 7, 2], [0, 5, 8, 2, 6, 2], [0, 2, 6, 2, 1, 1]]);
        assert_eq!(inputs.input_ids, expected);
        let mask =
            Tensor::from_slice2(&[[1i64, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]);
        assert_eq!(inputs.attention_mask, mask);
        let types =
            Tensor::from_slice2(&[[0i64, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0]]);
        assert_eq!(inputs.token_type_ids(2).unwrap().unwrap(), types);
    }

    #[test]
    fn pair_without_types_has_none() {
        assert!(inputs(false).token_type_ids(2).unwrap().is_none());
    }

    #[test]
    fn logits_are_moved_to_the_positions_of_the_server() {
        let logits = Tensor::arange(6, (Kind::Float, Device::Cpu)).expand([2, 3, 6], false);
        let restored = inputs(true).restore_tokens(&logits).unwrap();
        let expected = Tensor::from_slice2(&[
            [0f32, 1., 2., -1e9, 3., 4., 5.],
            [0., 1., 2., 3., -1e9, 4., 5.],
            [0., 1., -1e9, 2., 3., 4., 5.],
        ]);
        assert_eq!(restored.get(0), expected);
        assert_eq!(restored.get(1), expected);
    }

    #[test]
    fn rows_are_composed_in_any_order() {
        // [CLS] A [SEP] B [SEP] with ids 9, 2; padded with 0.
        let server = Tensor::from_slice2(&[[9i64, 5, 6, 2, 7, 2, 0], [9, 5, 2, 7, 8, 6, 2]]);
        let special = special(0);
        let compose = |pieces: &[(Piece, i64)]| {
            let layout = RowLayout { pieces: pieces.to_vec() };
            let form = RowForm::Composed { layout, between: Some(1) };
            let tensors = [server.shallow_clone(), server.ones_like()];
            Inputs::of_server(&tensors, special, &form, AttentionForm::Plain).unwrap()
        };
        let longer = compose(&[
            (Piece::Token(3), 0),
            (Piece::Second, 1),
            (Piece::Token(2), 1),
            (Piece::Token(2), 0),
            (Piece::First, 0),
            (Piece::Token(4), 0),
        ]);
        let ids = Tensor::from_slice2(&[[3i64, 7, 2, 2, 5, 6, 4, 0], [3, 7, 8, 6, 2, 2, 5, 4]]);
        assert_eq!(longer.input_ids, ids);
        let types = Tensor::from_slice2(&[[0i64, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0, 0]]);
        assert_eq!(longer.token_type_ids(2).unwrap().unwrap(), types);
        assert_eq!(longer.attention_mask.sum(Kind::Int64).int64_value(&[]), 15);
        let logits = Tensor::arange(8, (Kind::Float, Device::Cpu)).expand([2, 2, 8], false);
        let restored = longer.restore_tokens(&logits).unwrap().get(0);
        let none = NOWHERE as f32;
        let expected = Tensor::from_slice2(&[
            [0., 4., 5., none, 1., none, none],
            [0., 6., none, 1., 2., 3., none],
        ]);
        assert_eq!(restored, expected);
        let shorter = compose(&[(Piece::First, 0), (Piece::Second, 0)]);
        let ids = Tensor::from_slice2(&[[5i64, 6, 7, 0, 0, 0, 0], [5, 7, 8, 6, 0, 0, 0]]);
        assert_eq!(shorter.input_ids, ids);
    }
}
