//! DistilBERT (Sanh et al. 2019, arXiv:1910.01108; `transformers/models/distilbert/modeling_distilbert.py`).
//!
//! A BERT without token types and pooler, with different names for all fields and weights.

use serde::Deserialize;
use serde_json::Value;

use super::activation::{Activation, ActivationLayer};
use super::distance::PositionEmbedding;
use super::encoder::{Counting, Encoder, EncoderConfig, EncoderModel, Names, PrunedHeads};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, read_config_by};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("distilbert") || evidence.is_untyped_with(&[".q_lin."])
}

/// Parameter names in its files. Most files contain the masked language model head that the training started with.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["distilbert"],
    same: &[],
    leftover: &["vocab_transform", "vocab_layer_norm", "vocab_projector"],
};

/// `DistilBertConfig` with its defaults. Like Transformers (`attribute_map`), it also accepts BERT's names for three of the fields.
/// `sinusoidal_pos_embds` is not read, because it only describes the initial position table, and files always contain the table.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct DistilBertConfig {
    vocab_size: i64,
    max_position_embeddings: i64,
    n_layers: i64,
    n_heads: i64,
    dim: i64,
    hidden_dim: i64,
    activation: Activation,
    tie_word_embeddings: bool,
    pruned_heads: PrunedHeads,
}

/// `attribute_map` of `DistilBertConfig`.
const ALIASES: [(&str, &str); 3] =
    [("num_hidden_layers", "n_layers"), ("num_attention_heads", "n_heads"), ("hidden_size", "dim")];

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            max_position_embeddings: 512,
            n_layers: 6,
            n_heads: 12,
            dim: 768,
            hidden_dim: 3072,
            activation: Activation::Gelu,
            tie_word_embeddings: true,
            pruned_heads: PrunedHeads::new(),
        }
    }
}

/// Names in `TransformerBlock`.
const NAMES: Names = Names {
    attention: "attention",
    query_key_value: ["q_lin", "k_lin", "v_lin"],
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    intermediate: "ffn.lin1",
    activation: "ffn.activation",
    output: "ffn.lin2",
    norm: "output_layer_norm",
};

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(DistilBertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let config: DistilBertConfig = read_config_by(&ALIASES, config)?;
    let sizes = EncoderConfig {
        vocab_size: config.vocab_size,
        embedding_size: config.dim,
        hidden_size: config.dim,
        num_hidden_layers: config.n_layers,
        num_attention_heads: config.n_heads,
        intermediate_size: config.hidden_dim,
        hidden_act: config.activation,
        max_position_embeddings: config.max_position_embeddings,
        position_embedding: PositionEmbedding::Absolute,
        counting: Counting::FromZero,
        type_vocab_size: 0,
        task_type_vocab_size: 0,
        projection: None,
        // A constant of the class; `config.json` cannot change it.
        layer_norm_eps: 1e-12,
        pruned_heads: config.pruned_heads.clone(),
    };
    sizes.check()?;
    Ok((config, sizes))
}

/// Sizes of a DistilBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a DistilBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let encoder = Encoder::load(&base, "transformer.layer", &NAMES, &sizes);
    let hidden = sizes.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || {
            let (words, tied) = (encoder.words(), config.tie_word_embeddings);
            let shape = [sizes.vocab_size, hidden];
            let (name, act) = ("vocab_layer_norm", weights.sub("activation"));
            PredictionHead {
                dense: Linear::load(&weights.sub("vocab_transform"), hidden, hidden),
                activation: ActivationLayer::load(sizes.hidden_act, &act),
                norm: LayerNorm::load(&weights.sub(name), hidden, sizes.layer_norm_eps),
                decoder: decoder(
                    weights,
                    "vocab_projector",
                    "vocab_projector.bias",
                    words,
                    shape,
                    tied,
                ),
            }
        },
        || SequenceHead {
            dense: Linear::load(&weights.sub("pre_classifier"), hidden, hidden),
            activation: Activation::Relu.into(),
            classifier: Linear::load(&weights.sub("classifier"), hidden, blueprint.labels),
        },
    );
    Ok(Box::new(EncoderModel { encoder, head }))
}
