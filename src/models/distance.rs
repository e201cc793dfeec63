//! Attention scores that depend on the distance between two tokens.
//!
//! A table has an entry for each distance `d` from `-(P-1)` to `P-1`, where `P` is the maximum number of tokens, and one
//! unused entry: `2P` entries, with `d` at `P-1+d`. `N` tokens need the `2N` entries in the middle. Token `i` uses the entry
//! `N-1+j-i` for token `j`. In row order these entries have a stride of `2N-1`, so a
//! view of the rows replaces a look-up of N² distances (skewing in Huang et al. 2018, arXiv:1809.04281, section 3.4.1).

use serde::Deserialize;
use tch::{Device, Kind, TchError, Tensor};

use super::Inputs;
use super::weights::Weights;
use crate::torchscript::{Dim, Size, TorchError, expand, reshape, slice, slice_between, view};

/// Type of position embeddings (`position_embedding_type` in `config.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionEmbedding {
    /// Absolute positions, added to the word embeddings.
    #[default]
    Absolute,
    /// Relative positions: scores of query and distance.
    RelativeKey,
    /// Relative positions: scores of query and distance, and of key and distance.
    RelativeKeyQuery,
    /// Neither: the architecture computes positions in another way.
    #[serde(skip)]
    None,
}

/// The `2N` entries of a table along `axis` that a text of `N = tokens` tokens needs.
///
/// # Errors
/// Errors of libtorch.
pub(super) fn near(table: &Tensor, axis: usize, tokens: &Size) -> Result<Tensor, TorchError> {
    let positions = table.size().get(axis).map_or(0, |entries| entries / 2);
    let (start, end) = (tokens.affine(-1, positions)?, tokens.affine(1, positions)?);
    slice_between(table, axis as i64, &start, &end)
}

/// Maps `rows` `[batch, heads, N, 2N]`, where row `i` has the scores of token `i` for every distance, to `[batch, heads, N, N]`: entry
/// `i, j` is the score for the distance `j - i`. `outer` is batch and heads.
///
/// # Errors
/// Errors of libtorch.
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
/// arXiv:1803.02155, and Huang et al. 2020, arXiv:2009.13658): scores of a query, and with relative_key_query also of a key, for the
/// distance to the other token.
#[derive(Debug)]
pub(super) struct DistanceEmbedding {
    /// Embeddings by `key position - query position`, `[2P, head_size]`.
    of_query: Tensor,
    /// Embeddings by `query position - key position`, `[2P, head_size]`.
    of_key: Option<Tensor>,
}

impl DistanceEmbedding {
    /// Reads `distance_embedding.weight` `[2P-1, head_size]`, which is indexed by `query position - key position`. `None` without relative
    /// positions.
    pub(super) fn load(
        weights: &Weights<'_>,
        kind: PositionEmbedding,
        positions: i64,
        head_size: i64,
    ) -> Option<Self> {
        if matches!(kind, PositionEmbedding::Absolute | PositionEmbedding::None) {
            return None;
        }
        let table =
            weights.sub("distance_embedding").tensor("weight", &[2 * positions - 1, head_size]);
        // These scores are scaled like those of query and key.
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

    /// Returns the addend of the scaled scores `[batch, heads, tokens, tokens]` for query and key `[batch, heads, tokens, head_size]`.
    ///
    /// # Errors
    /// Errors of libtorch.
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

/// Buckets of distances (`relative_position_bucket` of T5 and MPNet): half of them for each direction. In a direction, the first half
/// of the buckets is exact, and the others are logarithmic up to the farthest distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DistanceBuckets {
    /// Number of buckets, at least 4.
    pub(super) count: i64,
    /// Distances from this one on share the last bucket. Greater than a quarter of the buckets.
    pub(super) farthest: i64,
}

impl DistanceBuckets {
    /// The largest exact distance and 1.
    fn exact(self) -> i64 {
        self.count / 2 / 2
    }

    /// Whether the formula is defined: elsewhere it divides by 0.
    pub(super) fn is_valid(self) -> bool {
        self.exact() > 0 && self.farthest > self.exact()
    }

    /// Bucket of each distance `key position - query position`. The arithmetic follows Transformers in float32, because buckets start
    /// exactly where the logarithm is an integer.
    fn of(self, distances: &Tensor) -> Result<Tensor, TchError> {
        let (half, exact) = (self.count / 2, self.exact());
        let n = distances.f_abs()?;
        let logarithm = n.f_to_kind(Kind::Float)?.f_div_scalar(exact)?.f_log()?;
        let large = logarithm
            .f_div_scalar((self.farthest as f64 / exact as f64).ln())?
            .f_mul_scalar(half - exact)?
            .f_to_kind(Kind::Int64)?
            .f_add_scalar(exact)?
            .f_clamp_max(half - 1)?;
        let behind = distances.f_gt(0)?.f_to_kind(Kind::Int64)?.f_mul_scalar(half)?;
        n.f_where_self(&n.f_lt(exact)?, &large)?.f_add(&behind)
    }
}

/// Bias of attention scores by head and distance.
#[derive(Debug)]
pub(super) struct DistanceBias {
    /// `[heads, 2 * positions]`, for [`near`].
    by_distance: Tensor,
    heads: i64,
}

impl DistanceBias {
    /// Maps the bias by bucket, `[buckets, heads]`, to the bias by distance, for at most `positions` tokens.
    pub(super) fn new(
        weights: &Weights<'_>,
        by_bucket: &Tensor,
        buckets: DistanceBuckets,
        heads: i64,
        positions: i64,
    ) -> Self {
        let by_distance = weights.derived(|| {
            let of = (Kind::Int64, Device::Cpu);
            let distances = Tensor::f_arange(2 * positions, of)?.f_sub_scalar(positions - 1)?;
            let by_distance = by_bucket.f_index_select(0, &buckets.of(&distances)?)?;
            Ok(by_distance.f_transpose(0, 1)?.f_contiguous()?)
        });
        Self { by_distance, heads }
    }

    /// The bias of a text, `[1, heads, tokens, tokens]`. Computed once per pass, for all layers.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub(super) fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let (heads, tokens) = (self.heads.into(), (&inputs.tokens).into());
        let row = near(&self.by_distance, 1, &inputs.tokens)?.f_unsqueeze(0)?.f_unsqueeze(2)?;
        let rows = expand(&row, &[1.into(), heads, tokens, (-1).into()])?;
        skew(&rows, [1.into(), heads], &inputs.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_relative_to_the_query_position() {
        // P = 5. The entry for a distance is the distance itself.
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

    #[test]
    fn buckets_grow_logarithmically_with_distance() {
        let buckets = DistanceBuckets { count: 32, farthest: 128 };
        let of = |distances: &[i64]| {
            Vec::<i64>::try_from(buckets.of(&Tensor::from_slice(distances)).unwrap()).unwrap()
        };
        assert_eq!(of(&[0, -1, -7, 1, 7]), [0, 1, 7, 17, 23]);
        // Each bucket is √2 times as wide as the previous one: 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
        assert_eq!(of(&[-8, -11, -12, -15, -16, -22, -23]), [8, 8, 9, 9, 10, 10, 11]);
        assert_eq!(of(&[-31, -32, -45, -46, -63, -64]), [11, 12, 12, 13, 13, 14]);
        assert_eq!(of(&[-90, -91, -127, -128, -5000]), [14, 15, 15, 15, 15]);
        assert_eq!(of(&[8, 128, 5000]), [24, 31, 31]);
    }
}
