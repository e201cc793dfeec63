//! Static embeddings: the mean over the rows of a table, one row for each token (`StaticEmbedding` in sentence-transformers, model2vec).

use tch::{Kind, Tensor};

use super::layers::embedding;
use super::{Inputs, Model, Weights};
use crate::torchscript::{TorchError, full};

/// Names of the table in weight files: of sentence-transformers, and of model2vec.
pub const TABLES: [&str; 2] = ["embedding.weight", "embeddings"];

/// Name of the tensor with a factor for each token.
pub const FACTORS: &str = "weights";

/// Name of the tensor with the row of each token, if tokens share rows.
pub const ROWS: &str = "mapping";

/// The tensors of a static embedding model, and the tokens that its mean leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticTensors {
    /// Name of the table.
    pub table: &'static str,
    /// Rows of the table.
    pub rows: i64,
    /// Columns of the table, which is the width of the embeddings.
    pub width: i64,
    /// Number of tokens with a row. The ids of tokens that were appended to the vocabulary are not smaller.
    pub tokens: i64,
    /// Whether each token has a factor.
    pub has_factors: bool,
    /// Whether tokens share rows.
    pub shares_rows: bool,
}

/// A table with a row for each token.
#[derive(Debug)]
pub struct StaticEmbedding {
    /// Rows, `[rows, width]`.
    table: Tensor,
    /// Row of each token, int64 `[tokens, 1]`, if tokens share rows.
    rows: Option<Tensor>,
    /// Factor of each token, `[tokens, 1]`.
    factors: Option<Tensor>,
    /// Number of tokens with a row. Larger ids do not count in the mean.
    known: i64,
    padding: i64,
    /// Id of a token that does not count in the mean.
    left_out: Option<i64>,
}

impl StaticEmbedding {
    /// Loads the tensors, of which those with one row for each token have the rows of kept tokens. `known` is the number of tokens of the
    /// model, `padding` is the id of the padding token, and the token `left_out` does not count in the mean.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        tensors: StaticTensors,
        known: i64,
        padding: i64,
        left_out: Option<i64>,
    ) -> Self {
        let StaticTensors { table, rows, width, tokens, has_factors, shares_rows } = tensors;
        let weights = weights.clone().of_any_type();
        let table = match shares_rows {
            true => weights.tensor(table, &[rows, width]),
            false => weights.vocabulary_tensor(table, &[rows, width]),
        };
        let column = |name: &str, kind: Kind| {
            let stored = weights.vocabulary_tensor(name, &[tokens]);
            weights.derived(|| {
                // The placeholder that memory is measured with has no values.
                let values = if weights.has(name) { stored } else { stored.f_zeros_like()? };
                Ok(values.f_to_kind(kind)?.f_view([-1, 1])?)
            })
        };
        Self {
            table,
            rows: shares_rows.then(|| column(ROWS, Kind::Int64)),
            factors: has_factors.then(|| column(FACTORS, Kind::Float)),
            known: known.min(tokens),
            padding,
            left_out,
        }
    }

    /// Whether every token has a row within the table.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn has_all_rows(&self) -> Result<bool, TorchError> {
        let Some(rows) = self.rows.as_ref().filter(|rows| rows.numel() > 0) else {
            return Ok(true);
        };
        let (least, most) = (rows.f_min()?.f_int64_value(&[])?, rows.f_max()?.f_int64_value(&[])?);
        Ok(least >= 0 && self.table.size().first().is_none_or(|rows| most < *rows))
    }
}

impl Model for StaticEmbedding {
    /// Returns the mean over the tokens, `[batch, width]`; zeros for a text without tokens.
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        // A text without tokens has a row of length 0. With one padding token more, no operation gets an empty tensor.
        let padding = full(&[(&inputs.batch).into(), 1.into()], self.padding as f64)?;
        let padding = padding.f_to_kind(Kind::Int64)?;
        let ids = Tensor::f_cat(&[&inputs.input_ids, &padding], 1)?;
        let mask = Tensor::f_cat(&[&inputs.attention_mask, &padding.f_mul_scalar(0)?], 1)?;
        let mut mask = mask.f_mul(&ids.f_lt(self.known)?.f_to_kind(Kind::Int64)?)?;
        if let Some(id) = self.left_out {
            mask = mask.f_mul(&ids.f_ne(id)?.f_to_kind(Kind::Int64)?)?;
        }
        let ids = ids.f_masked_fill(&ids.f_ge(self.known)?, 0)?;
        let mask = mask.f_to_kind(Kind::Float)?;
        let rows = match &self.rows {
            Some(rows) => embedding(rows, &ids)?.f_squeeze_dim(-1)?,
            None => ids.shallow_clone(),
        };
        let factors = match &self.factors {
            Some(factors) => mask.f_mul(&embedding(factors, &ids)?.f_squeeze_dim(-1)?)?,
            None => mask.shallow_clone(),
        };
        let sum = factors.f_unsqueeze(1)?.f_matmul(&embedding(&self.table, &rows)?)?;
        let count = mask.f_sum_dim_intlist([1i64].as_slice(), true, None)?.f_clamp_min(1.)?;
        Ok(sum.f_squeeze_dim(1)?.f_div(&count)?)
    }
}
