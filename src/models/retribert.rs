//! RetriBERT (yjernite/retribert-base-uncased; `models/retribert/modeling_retribert.py` in Transformers up to 4.45): a BERT whose
//! pooled output is projected to the embedding of a query.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::bert::{BertConfig, encoder};
use super::encoder::Encoder;
use super::layers::Linear;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows, check_encoder,
    check_sizes, read_config_over,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("retribert") || evidence.is_untyped_with(&[".bert_query."])
}

/// Parameter names in its files, which also contain the document encoder.
pub(super) static SPELLINGS: Spellings =
    Spellings { base: &["retribert"], same: &[], leftover: &["bert_doc", "project_doc"] };

/// `RetriBertConfig`.
#[derive(Debug, Deserialize)]
struct RetriBertConfig {
    #[serde(flatten)]
    bert: BertConfig,
    projection_dim: i64,
}

fn read(config: &Value) -> Result<RetriBertConfig, ConfigError> {
    check_encoder(config)?;
    let defaults = json!({ "num_hidden_layers": 8, "projection_dim": 128 });
    let config: RetriBertConfig = read_config_over(defaults, config)?;
    config.bert.sizes().check()?;
    check_sizes(&[("projection_dim", config.projection_dim)])?;
    Ok(config)
}

/// Sizes of a RetriBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = read(config)?;
    Ok(Dimensions {
        hidden: config.projection_dim,
        output: Output::Row,
        ..config.bert.sizes().dimensions()
    })
}

/// Builds the query encoder of RetriBERT.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let RetriBertConfig { bert, projection_dim } = read(blueprint.config)?;
    if blueprint.head != Head::Base {
        return Err(ConfigError::NoHead("RetriBERT", blueprint.head));
    }
    let weights = weights.base();
    let base = weights.sub("bert_query");
    let hidden = bert.hidden_size;
    let model = RetriBert {
        encoder: encoder(&base, &bert),
        pooler: Linear::load(&base.sub("pooler.dense"), hidden, hidden),
        projection: Linear::without_bias(&weights.sub("project_query"), hidden, projection_dim),
    };
    Ok(Box::new(model))
}

struct RetriBert {
    encoder: Encoder,
    pooler: Linear,
    projection: Linear,
}

impl Model for RetriBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let first = self.encoder.forward(Rows::First, inputs)?.f_select(1, 0)?;
        self.projection.forward(&self.pooler.forward(&first)?.f_tanh()?)
    }
}
