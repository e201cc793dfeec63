//! Relative positions of DeBERTa: buckets of distances, and their embeddings.

use tch::{Kind, Tensor};

use super::config::{DebertaV2Config, items};
use crate::models::Inputs;
use crate::models::layers::{LayerNorm, Linear};
use crate::models::weights::Weights;
use crate::torchscript::{Size, TorchError, arange, expand};

/// Row of each distance in a layer's table of relative positions.
///
/// Rows are sorted by distance: 0, -1, 1, -2, 2, …. A text of n tokens needs the first 2 n rows only,
/// so its graph multiplies by these only.
pub(super) struct Distances {
    /// Row by the distance `query - key`; negative distances count from the end. int64 `[2 * positions - 1]`.
    rows: Tensor,
    /// Whether the rows are sorted by distance. This fails only if there are almost as many buckets as distances.
    sorted: bool,
}

/// [`Distances`] for the length of a text.
pub(super) struct Places<'a> {
    /// Row for each pair of query and key, int64 `[batch, heads, tokens, tokens]`, a view of `[tokens, tokens]`.
    pub rows: Tensor,
    /// Half of the number of required rows; `None` if all rows are required.
    pub pairs: Option<&'a Size>,
}

impl Distances {
    pub fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let span = config.span();
        let row = |bucket: i64| {
            let bucket = bucket.clamp(-span, span - 1);
            if bucket < 0 { -2 * bucket - 1 } else { 2 * bucket }
        };
        let mut sorted = true;
        let rows = weights.derived(|| {
            let buckets = buckets(config.max_position_embeddings, config)?;
            sorted = (0..).zip(&buckets).all(|(distance, &bucket)| bucket <= distance);
            let behind = buckets.iter().copied();
            let ahead = buckets.iter().skip(1).rev().map(|bucket| -bucket);
            let rows: Vec<i64> = behind.chain(ahead).map(row).collect();
            Ok(Tensor::f_from_slice(&rows)?)
        });
        Self { rows, sorted }
    }

    pub fn places<'a>(&self, heads: i64, inputs: &'a Inputs) -> Result<Places<'a>, TorchError> {
        let places = arange(&inputs.tokens)?;
        let distances = places.f_unsqueeze(1)?.f_sub(&places)?;
        let rows = self.rows.f_index(&[Some(&distances)])?;
        let tokens = (&inputs.tokens).into();
        Ok(Places {
            rows: expand(&rows, &[(&inputs.batch).into(), heads.into(), tokens, tokens])?,
            pairs: self.sorted.then_some(&inputs.tokens),
        })
    }
}

/// Buckets of the distances from 0 to `far` (exclusive): small distances have their own bucket, larger ones share buckets by logarithm
/// (`make_log_bucket_position`). Negative distances have the negated bucket.
fn buckets(far: i64, config: &DebertaV2Config) -> Result<Vec<i64>, TorchError> {
    if config.position_buckets <= 0 {
        return Ok((0..far).collect());
    }
    let half = config.position_buckets / 2;
    let farthest = ((config.relative_positions() - 1) as f64 / half as f64) as f32;
    // Computed by libtorch in float32, because a logarithm that is rounded differently may select the next bucket.
    let distances = Tensor::f_arange(far, (Kind::Int64, tch::Device::Cpu))?;
    let logarithm = distances.f_clamp_min(half - 1)?.f_div_scalar(half)?.f_log()?;
    let shared = logarithm.f_div(&Tensor::f_from_slice(&[farthest])?.f_log()?)?;
    let shared = shared.f_mul_scalar(half - 1)?.f_ceil()?.f_add_scalar(half)?;
    let shared = Vec::<i64>::try_from(shared.f_to_kind(Kind::Int64)?)?;
    Ok((0..far)
        .zip(shared)
        .map(|(near, shared)| if near <= half { near } else { shared })
        .collect())
}

/// Relative position embeddings, shared by all layers.
pub(super) struct Relative {
    /// Embeddings `[2 * span, hidden]` by bucket.
    table: Tensor,
    norm: Option<LayerNorm>,
    /// Rows of `table` in the order of [`Distances`].
    order: Vec<i64>,
}

impl Relative {
    /// `None` if no attention uses relative positions.
    pub fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Option<Self> {
        if !config.relative_attention || !(config.has("c2p") || config.has("p2c")) {
            weights.ignore_all("rel_embeddings");
            weights.ignore_all("LayerNorm");
            return None;
        }
        let span = config.span();
        let normed = items(&config.norm_rel_ebd).iter().any(|item| item == "layer_norm");
        Some(Self {
            table: weights.sub("rel_embeddings").tensor("weight", &[2 * span, config.hidden_size]),
            norm: normed.then(|| config.norm(weights)),
            order: (0..span).flat_map(|i| [span + i, span - 1 - i]).collect(),
        })
    }

    /// Projection of the table by a layer: `[span, 2, heads, head_size]`.
    pub fn projected(
        &self,
        projection: &Linear,
        config: &DebertaV2Config,
    ) -> Result<Tensor, TorchError> {
        let table = match &self.norm {
            Some(norm) => norm.forward(&self.table)?,
            None => self.table.shallow_clone(),
        };
        let table = table.f_index_select(0, &Tensor::f_from_slice(&self.order)?)?;
        let heads = [-1, 2, config.num_attention_heads, config.head_size()];
        Ok(projection.forward(&table)?.f_view(heads)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_match_transformers() {
        // Sum of (distance + 1) * bucket, computed with make_log_bucket_position of Transformers 4.57.6.
        for (position_buckets, positions, expected) in [
            (256, 512, 27_544_510),
            (8, 64, 14_108),
            (32, 512, 3_846_563),
            (512, 1024, 220_309_019),
        ] {
            let config = DebertaV2Config {
                position_buckets,
                max_position_embeddings: positions,
                ..DebertaV2Config::default()
            };
            let buckets = buckets(positions, &config).unwrap();
            assert_eq!((1..).zip(buckets).map(|(i, bucket)| i * bucket).sum::<i64>(), expected);
        }
    }
}
