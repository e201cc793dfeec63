//! DPR (Karpukhin et al. 2020, arXiv:2004.04906; `transformers/models/dpr/modeling_dpr.py`): a BERT whose first state is the
//! embedding, with or without a projection.

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::bert::{BertConfig, encoder};
use super::encoder::Encoder;
use super::layers::Linear;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, MAX_SIZE, Model, Output, Rows,
    read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Encoder classes of Transformers, as listed in `architectures` of `config.json`.
const ENCODERS: [&str; 2] = ["DPRContextEncoder", "DPRQuestionEncoder"];

/// Whether a folder contains this architecture. Some encoders have the `model_type` bert, but only DPR's class can read their weights.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    let is_encoder = evidence.classes.iter().any(|class| ENCODERS.contains(&class.as_str()));
    evidence.is("dpr")
        || evidence.is("bert") && is_encoder
        || evidence.is_untyped_with(&[".ctx_encoder.", ".question_encoder."])
}

/// Parameter names in its files. Old files contain a pooler.
pub(super) static SPELLINGS: Spellings =
    Spellings { base: &["question_encoder", "ctx_encoder"], same: &[], leftover: &["pooler"] };

/// Fields of `DPRConfig` that `BertConfig` does not have.
#[derive(Debug, Deserialize)]
struct DprConfig {
    /// Width of the projection; 0 without a projection.
    #[serde(default)]
    projection_dim: i64,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

impl DprConfig {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        let config: Self = read_config(config)?;
        if config.architectures.iter().flatten().any(|class| class == "DPRReader") {
            return Err(ConfigError::Unsupported(
                "the class DPRReader".into(),
                "no task ranks passages as a reader does; context and question encoders are supported",
            ));
        }
        if !(0..=MAX_SIZE).contains(&config.projection_dim) {
            return Err(ConfigError::Value(format!(
                "projection_dim is {}, which is not a valid size",
                config.projection_dim
            )));
        }
        Ok(config)
    }
}

/// Sizes of a DPR encoder.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let (bert, dpr) = (BertConfig::read(config)?, DprConfig::read(config)?);
    Ok(Dimensions {
        hidden: if dpr.projection_dim > 0 { dpr.projection_dim } else { bert.hidden_size },
        output: Output::Row,
        ..bert.sizes().dimensions()
    })
}

/// Builds the question encoder or the context encoder, depending on the file.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (bert, dpr) = (BertConfig::read(blueprint.config)?, DprConfig::read(blueprint.config)?);
    if blueprint.head != Head::Base {
        return Err(ConfigError::NoHead("DPR", blueprint.head));
    }
    let weights = weights.base();
    let base = weights.within("bert_model");
    let encoder = encoder(&base, &bert);
    let projection = (dpr.projection_dim > 0)
        .then(|| Linear::load(&weights.sub("encode_proj"), bert.hidden_size, dpr.projection_dim));
    Ok(Box::new(Dpr { encoder, projection }))
}

struct Dpr {
    encoder: Encoder,
    projection: Option<Linear>,
}

impl Model for Dpr {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let first = self.encoder.forward(Rows::First, inputs)?.f_select(1, 0)?;
        match &self.projection {
            Some(projection) => projection.forward(&first),
            None => Ok(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dpr_reader_is_rejected_and_projection_sets_the_width() {
        let reader = dimensions(&json!({ "architectures": ["DPRReader"] })).unwrap_err();
        assert!(reader.to_string().contains("DPRReader"), "{reader}");
        assert_eq!(dimensions(&json!({})).unwrap().hidden, 768);
        assert_eq!(dimensions(&json!({ "projection_dim": 20 })).unwrap().hidden, 20);
        assert!(dimensions(&json!({ "projection_dim": -1 })).is_err());
    }
}
