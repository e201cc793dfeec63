//! BERT (Devlin et al. 2018, arXiv:1810.04805; `transformers/models/bert/modeling_bert.py`).

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::activation::{Activation, ActivationLayer};
use super::distance::PositionEmbedding;
use super::encoder::{Counting, Encoder, EncoderConfig, EncoderModel, Names, PrunedHeads};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, read_config};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("bert") || evidence.is_untyped_with(&[".attention.self.query."])
}

/// Parameter names in its files. Most files contain the pooler and the pre-training heads.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["bert"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &["pooler", "cls"],
};

/// `BertConfig` with its defaults. RoBERTa and ELECTRA use the same fields.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct BertConfig {
    pub(super) vocab_size: i64,
    pub(super) hidden_size: i64,
    pub(super) num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    pub(super) max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    position_embedding_type: PositionEmbedding,
    pub(super) tie_word_embeddings: bool,
    pruned_heads: PrunedHeads,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: PositionEmbedding::Absolute,
            tie_word_embeddings: true,
            pruned_heads: PrunedHeads::new(),
        }
    }
}

impl BertConfig {
    /// Parses and validates `config.json`.
    pub(super) fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let config: Self = read_config(config)?;
        config.sizes().check()?;
        Ok(config)
    }

    /// Sizes of BERT's encoder.
    pub(super) fn sizes(&self) -> EncoderConfig {
        EncoderConfig {
            vocab_size: self.vocab_size,
            embedding_size: self.hidden_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            position_embedding: self.position_embedding_type,
            counting: Counting::FromZero,
            type_vocab_size: self.type_vocab_size,
            task_type_vocab_size: 0,
            projection: None,
            layer_norm_eps: self.layer_norm_eps,
            pruned_heads: self.pruned_heads.clone(),
        }
    }
}

/// `BertModel` without its pooler.
pub(super) fn encoder(weights: &Weights<'_>, config: &BertConfig) -> Encoder {
    Encoder::load(weights, "encoder.layer", &Names::BERT, &config.sizes())
}

/// Sizes of a BERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(BertConfig::read(config)?.sizes().dimensions())
}

/// Builds a BERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = BertConfig::read(blueprint.config)?;
    Ok(build(weights, blueprint, &config.sizes(), config.tie_word_embeddings))
}

/// Builds a BERT of the given sizes with the requested head. `tied` states whether the decoder has the word embeddings as its weight.
pub(super) fn build(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
    sizes: &EncoderConfig,
    tied: bool,
) -> Box<dyn Model> {
    let encoder = Encoder::load(&weights.base(), "encoder.layer", &Names::BERT, sizes);
    let hidden = sizes.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || lm_head(weights, sizes, encoder.words(), tied),
        || pooled_head(weights, hidden, blueprint.labels),
    );
    Box::new(EncoderModel { encoder, head })
}

/// `BertLMPredictionHead`.
pub(super) fn lm_head(
    weights: &Weights<'_>,
    sizes: &EncoderConfig,
    words: &Tensor,
    tied: bool,
) -> PredictionHead {
    let head = weights.sub("cls.predictions");
    let transform = head.sub("transform");
    let act = transform.sub("transform_act_fn");
    let hidden = sizes.hidden_size;
    let shape = [sizes.vocab_size, hidden];
    PredictionHead {
        dense: Linear::load(&transform.sub("dense"), hidden, hidden),
        activation: ActivationLayer::load(sizes.hidden_act, &act),
        norm: LayerNorm::load(&transform.sub("LayerNorm"), hidden, sizes.layer_norm_eps),
        decoder: decoder(&head, "decoder", "bias", words, shape, tied),
    }
}

/// `BertPooler` and the classifier.
pub(super) fn pooled_head(weights: &Weights<'_>, hidden: i64, labels: i64) -> SequenceHead {
    SequenceHead {
        dense: Linear::load(&weights.base().sub("pooler.dense"), hidden, hidden),
        activation: Activation::Tanh.into(),
        classifier: Linear::load(&weights.sub("classifier"), hidden, labels),
    }
}
