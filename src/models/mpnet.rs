//! MPNet (Song et al. 2020, arXiv:2004.09297; `transformers/models/mpnet/modeling_mpnet.py`).
//!
//! A BERT without token types, with RoBERTa's position numbers, and a distance-dependent bias on all attention scores.

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::activation::Activation;
use super::distance::{DistanceBias, DistanceBuckets, PositionEmbedding};
use super::encoder::{Counting, Encoder, EncoderConfig, Names, PrunedHeads};
use super::heads::{SequenceHead, TaskHead};
use super::layers::attention_bias;
use super::roberta::lm_head;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Inputs, Model, check_encoder, read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

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
            relative_attention_num_buckets: BUCKETS.count,
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

/// The class uses `relative_attention_num_buckets` only for the size of the table.
const BUCKETS: DistanceBuckets = DistanceBuckets { count: 32, farthest: 128 };

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
        task_type_vocab_size: 0,
        projection: None,
        layer_norm_eps: config.layer_norm_eps,
        pruned_heads: PrunedHeads::new(),
    };
    sizes.check()?;
    if config.relative_attention_num_buckets < BUCKETS.count {
        return Err(ConfigError::Value(format!(
            "relative_attention_num_buckets is {}; MPNet uses {}",
            config.relative_attention_num_buckets, BUCKETS.count
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
    let by_bucket = base
        .sub("encoder.relative_attention_bias")
        .tensor("weight", &[config.relative_attention_num_buckets, config.num_attention_heads]);
    let positions = sizes.dimensions().positions;
    let heads = config.num_attention_heads;
    let by_distance = DistanceBias::new(weights, &by_bucket, BUCKETS, heads, positions);
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
    Ok(Box::new(MPNet { encoder, by_distance, head }))
}

struct MPNet {
    encoder: Encoder,
    by_distance: DistanceBias,
    head: TaskHead,
}

impl Model for MPNet {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let by_distance = self.by_distance.forward(inputs)?;
        let bias = attention_bias(&inputs.attention_mask)?.f_add(&by_distance)?;
        let rows = self.head.rows(inputs);
        self.head.forward(&self.encoder.forward_with(&bias, rows, inputs)?, inputs)
    }
}
