//! ELECTRA (Clark et al. 2020, arXiv:2003.10555; `transformers/models/electra/modeling_electra.py`).
//!
//! A BERT whose embeddings may be narrower than its layers. Models are fine-tuned from the discriminator; the generator is a masked
//! language model.

use serde::Deserialize;
use serde_json::{Value, json};

use super::activation::Activation;
use super::bert::BertConfig;
use super::encoder::{Encoder, EncoderConfig, EncoderModel, Names};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, read_config_over};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("electra")
        || evidence.is_untyped_with(&[
            ".electra.",
            ".discriminator_predictions.",
            ".embeddings_project.",
        ])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["electra"],
    same: &[],
    leftover: &["generator_predictions", "generator_lm_head", "discriminator_predictions"],
};

/// `ElectraConfig`.
#[derive(Debug, Deserialize)]
struct ElectraConfig {
    #[serde(flatten)]
    bert: BertConfig,
    embedding_size: i64,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(BertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let defaults = json!({
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    });
    let ElectraConfig { bert, embedding_size } = read_config_over(defaults, config)?;
    let projection = (embedding_size != bert.hidden_size).then_some("embeddings_project");
    let sizes = EncoderConfig { embedding_size, projection, ..bert.sizes() };
    sizes.check()?;
    Ok((bert, sizes))
}

/// Sizes of an ELECTRA.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds an ELECTRA with the requested head. Heads with an activation use gelu and ignore `hidden_act`.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let encoder = Encoder::load(&base, "encoder.layer", &Names::BERT, &sizes);
    let (hidden, width) = (sizes.hidden_size, sizes.embedding_size);
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        // ElectraGeneratorPredictions and generator_lm_head.
        || {
            let head = weights.sub("generator_predictions");
            let shape = [sizes.vocab_size, width];
            let (words, tied) = (encoder.words(), config.tie_word_embeddings);
            PredictionHead {
                dense: Linear::load(&head.sub("dense"), hidden, width),
                activation: Activation::Gelu.into(),
                norm: LayerNorm::load(&head.sub("LayerNorm"), width, sizes.layer_norm_eps),
                decoder: decoder(
                    weights,
                    "generator_lm_head",
                    "generator_lm_head.bias",
                    words,
                    shape,
                    tied,
                ),
            }
        },
        || SequenceHead::load(weights, hidden, blueprint.labels, Activation::Gelu.into()),
    );
    Ok(Box::new(EncoderModel { encoder, head }))
}
