//! MPNet (Song et al. 2020, arXiv:2004.09297; `transformers/models/mpnet/modeling_mpnet.py`).
//!
//! A BERT without token types, with RoBERTa's position numbers, and a distance-dependent bias on all attention scores.

use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};

use super::activation::Activation;
use super::distance::PositionEmbedding;
use super::distance::{near, skew};
use super::encoder::{Counting, Encoder, EncoderConfig, Names, PrunedHeads};
use super::heads::{SequenceHead, TaskHead};
use super::layers::attention_bias;
use super::roberta::lm_head;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Inputs, Model, check_encoder, read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, expand};

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("mpnet") || evidence.is_untyped_with(&[".attention.attn.q."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["mpnet"],
    same: &[&["lm_head.bias", "lm_head.decoder.bias"]],
    leftover: &["pooler", "lm_head"],
};

/// `MPNetConfig` with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct MPNetConfig {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    layer_norm_eps: f64,
    relative_attention_num_buckets: i64,
    tie_word_embeddings: bool,
}

impl Default for MPNetConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            relative_attention_num_buckets: BUCKETS,
            tie_word_embeddings: true,
        }
    }
}

/// Names in `MPNetLayer`.
const NAMES: Names = Names {
    attention: "attention.attn",
    query_key_value: ["q", "k", "v"],
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..Names::BERT
};

/// Id of the padding token. The class ignores `pad_token_id`.
const PADDING: i64 = 1;

/// Number of distance buckets, half of them for each direction. The class uses
/// `relative_attention_num_buckets` only for the size of the table.
const BUCKETS: i64 = 32;

/// Distances from this one on share the last bucket.
const FAR: f64 = 128.;

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(MPNetConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let config: MPNetConfig = read_config(config)?;
    let sizes = EncoderConfig {
        vocab_size: config.vocab_size,
        embedding_size: config.hidden_size,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        intermediate_size: config.intermediate_size,
        hidden_act: config.hidden_act,
        max_position_embeddings: config.max_position_embeddings,
        position_embedding: PositionEmbedding::Absolute,
        counting: Counting::AfterPadding(PADDING),
        type_vocab_size: 0,
        layer_norm_eps: config.layer_norm_eps,
        pruned_heads: PrunedHeads::new(),
    };
    sizes.check()?;
    if config.relative_attention_num_buckets < BUCKETS {
        return Err(ConfigError::Value(format!(
            "relative_attention_num_buckets is {}; MPNet uses {BUCKETS}",
            config.relative_attention_num_buckets
        )));
    }
    Ok((config, sizes))
}

/// Sizes of an MPNet.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds an MPNet with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let encoder = Encoder::load(&base, "encoder.layer", &NAMES, &sizes);
    let heads = config.num_attention_heads;
    let by_bucket = base
        .sub("encoder.relative_attention_bias")
        .tensor("weight", &[config.relative_attention_num_buckets, heads]);
    let positions = sizes.dimensions().positions;
    let by_distance = weights.derived(|| Ok(by_distance(&by_bucket, positions)?));
    let head = TaskHead::load(
        weights,
        blueprint,
        sizes.hidden_size,
        || lm_head(weights, &sizes, encoder.words(), config.tie_word_embeddings),
        || {
            let activation = Activation::Tanh.into();
            SequenceHead::load(weights, sizes.hidden_size, blueprint.labels, activation)
        },
    );
    Ok(Box::new(MPNet { encoder, by_distance, heads, head }))
}

struct MPNet {
    encoder: Encoder,
    /// Bias of the scores by head and distance, `[heads, 2 * positions]`.
    by_distance: Tensor,
    heads: i64,
    head: TaskHead,
}

impl Model for MPNet {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let (heads, tokens) = (self.heads.into(), (&inputs.tokens).into());
        let row = near(&self.by_distance, 1, &inputs.tokens)?.f_unsqueeze(0)?.f_unsqueeze(2)?;
        let rows = expand(&row, &[1.into(), heads, tokens, (-1).into()])?;
        let by_distance = skew(&rows, [1.into(), heads], &inputs.tokens)?;
        let bias = attention_bias(&inputs.attention_mask)?.f_add(&by_distance)?;
        self.head.forward(&self.encoder.forward_with(inputs, &bias)?, inputs)
    }
}

/// Maps the bias by bucket, `[buckets, heads]`, to the bias by distance, `[heads, 2 * positions]`, for [`near`].
fn by_distance(by_bucket: &Tensor, positions: i64) -> Result<Tensor, TchError> {
    let of = (Kind::Int64, Device::Cpu);
    let distances = Tensor::f_arange(2 * positions, of)?.f_sub_scalar(positions - 1)?;
    by_bucket.f_index_select(0, &buckets(&distances)?)?.f_transpose(0, 1)?.f_contiguous()
}

/// Bucket of a distance `key position - query position` (`relative_position_bucket`): exact up to 7, then logarithmic
/// up to [`FAR`]; the second half of the buckets is for keys after the query. The arithmetic follows Transformers in float32, because
/// buckets start exactly where the logarithm is an integer.
fn buckets(distances: &Tensor) -> Result<Tensor, TchError> {
    const HALF: i64 = BUCKETS / 2;
    const EXACT: i64 = HALF / 2;
    let n = distances.f_abs()?;
    let logarithm = n.f_to_kind(Kind::Float)?.f_div_scalar(EXACT)?.f_log()?;
    let large = logarithm
        .f_div_scalar((FAR / EXACT as f64).ln())?
        .f_mul_scalar(HALF - EXACT)?
        .f_to_kind(Kind::Int64)?
        .f_add_scalar(EXACT)?
        .f_clamp_max(HALF - 1)?;
    let behind = distances.f_gt(0)?.f_to_kind(Kind::Int64)?.f_mul_scalar(HALF)?;
    n.f_where_self(&n.f_lt(EXACT)?, &large)?.f_add(&behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_logarithmically_with_distance() {
        let of = |distances: &[i64]| {
            Vec::<i64>::try_from(buckets(&Tensor::from_slice(distances)).unwrap()).unwrap()
        };
        assert_eq!(of(&[0, -1, -7, 1, 7]), [0, 1, 7, 17, 23]);
        // Each bucket is √2 times as wide as the previous one: 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
        assert_eq!(of(&[-8, -11, -12, -15, -16, -22, -23]), [8, 8, 9, 9, 10, 10, 11]);
        assert_eq!(of(&[-31, -32, -45, -46, -63, -64]), [11, 12, 12, 13, 13, 14]);
        assert_eq!(of(&[-90, -91, -127, -128, -5000]), [14, 15, 15, 15, 15]);
        assert_eq!(of(&[8, 128, 5000]), [24, 31, 31]);
    }
}
