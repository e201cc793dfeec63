//! RoBERTa (Liu et al. 2019, arXiv:1907.11692; `transformers/models/roberta/modeling_roberta.py`), and CamemBERT and XLM-RoBERTa,
//! which differ in their tokenizers only.
//!
//! A BERT with fairseq's position numbers and different heads.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::activation::Activation;
use super::bert::BertConfig;
use super::encoder::{Counting, Encoder, EncoderConfig, EncoderModel, Names};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, read_config_over};
use crate::checkpoint::Spellings;

/// Whether a folder contains a RoBERTa.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    // BERT has the same names and two token types instead of one.
    evidence.is("roberta")
        || evidence.is_untyped_with(&[".attention.self.query."])
            && (evidence.has_tensor(".roberta.")
                || evidence.rows_of_tensor("token_type_embeddings.weight") == Some(1))
}

/// Whether a folder contains a CamemBERT.
pub(super) fn detects_camembert(evidence: &Evidence<'_>) -> bool {
    evidence.is("camembert")
}

/// Whether a folder contains an XLM-RoBERTa.
pub(super) fn detects_xlm_roberta(evidence: &Evidence<'_>) -> bool {
    evidence.is("xlm-roberta")
}

/// Parameter names in the files of all three.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["roberta"],
    same: &[&["lm_head.bias", "lm_head.decoder.bias"]],
    leftover: &["pooler", "lm_head"],
};

/// `RobertaConfig`.
#[derive(Debug, Deserialize)]
struct RobertaConfig {
    #[serde(flatten)]
    bert: BertConfig,
    pad_token_id: i64,
}

/// Parses and validates `config.json`.
pub(super) fn read(config: &Value) -> Result<(BertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let mut defaults = json!({ "pad_token_id": 1 });
    if config.get("model_type").is_some_and(|model_type| model_type == "roberta") {
        defaults["vocab_size"] = 50265.into();
    }
    let RobertaConfig { bert, pad_token_id } = read_config_over(defaults, config)?;
    let sizes = EncoderConfig { counting: Counting::AfterPadding(pad_token_id), ..bert.sizes() };
    sizes.check()?;
    Ok((bert, sizes))
}

/// Sizes of a RoBERTa.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a RoBERTa with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let encoder = Encoder::load(&base, "encoder.layer", &Names::BERT, &sizes);
    let hidden = sizes.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || lm_head(weights, &sizes, encoder.words(), config.tie_word_embeddings),
        || SequenceHead::load(weights, hidden, blueprint.labels, Activation::Tanh.into()),
    );
    Ok(Box::new(EncoderModel { encoder, head }))
}

/// `RobertaLMHead`, which equals `MPNetLMHead`. Both use gelu and ignore `hidden_act`.
pub(super) fn lm_head(
    weights: &Weights<'_>,
    sizes: &EncoderConfig,
    words: &Tensor,
    tied: bool,
) -> PredictionHead {
    let head = weights.sub("lm_head");
    let hidden = sizes.hidden_size;
    let shape = [sizes.vocab_size, hidden];
    PredictionHead {
        dense: Linear::load(&head.sub("dense"), hidden, hidden),
        activation: Activation::Gelu.into(),
        norm: LayerNorm::load(&head.sub("layer_norm"), hidden, sizes.layer_norm_eps),
        decoder: decoder(&head, "decoder", "bias", words, shape, tied),
    }
}
