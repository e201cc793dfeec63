//! Scores that depend on how far apart two tokens are.
//!
//! A table holds an entry for each distance `d` from `-(P-1)` to `P-1`, where `P` is the greatest number of tokens, and one more
//! that nobody reads: `2P` in all, `d` at `P-1+d`. Of it `N` tokens need the `2N` in the middle, and token `i` of the `N` looks at
//! them from its own place: at token `j` it sees the entry `N-1+j-i`. Read row by row these entries lie `2N-1` apart, so that a
//! view of the rows does what a look-up of N² distances would (Huang et al. 2018, arXiv:1809.04281, section 3.4.1, call it skewing).

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::Inputs;
use super::weights::Weights;
use crate::torchscript::{Dim, Size, TorchError, reshape, slice, slice_between, view};

/// How the positions of tokens enter a model (`position_embedding_type` in `config.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionEmbedding {
    /// As a table that is added to the word embeddings.
    #[default]
    Absolute,
    /// In the attention scores, by query and distance.
    RelativeKey,
    /// In the attention scores, by query and distance, and by key and distance.
    RelativeKeyQuery,
}

/// The part of a table, along `axis`, that `tokens` tokens need: `2N` entries.
///
/// # Errors
/// libtorch's own.
pub(super) fn near(table: &Tensor, axis: usize, tokens: &Size) -> Result<Tensor, TorchError> {
    let positions = table.size().get(axis).map_or(0, |entries| entries / 2);
    let (start, end) = (tokens.affine(-1, positions)?, tokens.affine(1, positions)?);
    slice_between(table, axis as i64, &start, &end)
}

/// From `rows` `[batch, heads, N, 2N]`, where row `i` holds token `i`'s score for every distance, to `[batch, heads, N, N]`: entry
/// `i, j` is the score for the distance `j - i`. `outer` is batch and heads.
///
/// # Errors
/// libtorch's own.
pub(super) fn skew(
    rows: &Tensor,
    outer: [Dim<'_>; 2],
    tokens: &Size,
) -> Result<Tensor, TorchError> {
    let [batch, heads] = outer;
    let line = reshape(rows, &[batch, heads, (-1).into()])?;
    let line = slice_between(&line, 2, &tokens.affine(1, -1)?, -1)?;
    let rows = view(&line, &[batch, heads, tokens.into(), (-1).into()])?;
    slice(&rows, 3, tokens)
}

/// `distance_embedding` of `BertSelfAttention` (`position_embedding_type` relative_key and relative_key_query; Shaw et al. 2018,
/// arXiv:1803.02155, and Huang et al. 2020, arXiv:2009.13658): what a query, and with relative_key_query a key too, makes of the
/// distance to the other token.
#[derive(Debug)]
pub(super) struct DistanceEmbedding {
    /// By `key position - query position`, `[2P, head_size]`.
    of_query: Tensor,
    /// By `query position - key position`.
    of_key: Option<Tensor>,
}

impl DistanceEmbedding {
    /// Reads `distance_embedding.weight` `[2P-1, head_size]`, which counts by `query position - key position`. Nothing for absolute
    /// positions.
    pub(super) fn load(
        weights: &Weights<'_>,
        kind: PositionEmbedding,
        positions: i64,
        head_size: i64,
    ) -> Option<Self> {
        if kind == PositionEmbedding::Absolute {
            return None;
        }
        let table =
            weights.sub("distance_embedding").tensor("weight", &[2 * positions - 1, head_size]);
        // The scores are scaled as those of query and key are.
        let scale = (head_size as f64).sqrt().recip();
        let whole = |table: &Tensor| -> Result<Tensor, TorchError> {
            let unread = Tensor::f_zeros([1, head_size], (Kind::Float, Device::Cpu))?;
            Ok(Tensor::f_cat(&[table, &unread], 0)?.f_mul_scalar(scale)?)
        };
        let of_query = weights.derived(|| whole(&table.f_flip([0])?));
        let of_key = (kind == PositionEmbedding::RelativeKeyQuery)
            .then(|| weights.derived(|| whole(&table)));
        Some(Self { of_query, of_key })
    }

    /// What is added to the scaled scores: `[batch, heads, tokens, tokens]`, of query and key `[batch, heads, tokens, head_size]`.
    ///
    /// # Errors
    /// libtorch's own.
    pub(super) fn scores(
        &self,
        query: &Tensor,
        key: &Tensor,
        heads: i64,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let tokens = &inputs.tokens;
        let scores = |states: &Tensor, table: &Tensor| {
            let rows = states.f_matmul(&near(table, 0, tokens)?.f_transpose(0, 1)?)?;
            skew(&rows, [(&inputs.batch).into(), heads.into()], tokens)
        };
        let of_query = scores(query, &self.of_query)?;
        match &self.of_key {
            Some(table) => Ok(of_query.f_add(&scores(key, table)?.f_transpose(-1, -2)?)?),
            None => Ok(of_query),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_relative_to_the_query_position() {
        // P = 5; the entry for a distance is the distance itself.
        let table = Tensor::arange_start(-4, 6, (Kind::Int64, Device::Cpu));
        for n in 1..=5 {
            let tokens = Size::of(&Tensor::zeros([n], (Kind::Int64, Device::Cpu)), 0).unwrap();
            let rows = near(&table, 0, &tokens).unwrap().expand([2, 3, n, 2 * n], false);
            let scores = skew(&rows, [2.into(), 3.into()], &tokens).unwrap();
            let places = Tensor::arange(n, (Kind::Int64, Device::Cpu));
            let distances = places.unsqueeze(0) - places.unsqueeze(1);
            assert_eq!(scores, distances.expand([2, 3, n, n], false));
        }
    }
}
