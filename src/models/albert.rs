//! ALBERT (Lan et al. 2019, arXiv:1909.11942; `transformers/models/albert/modeling_albert.py`).
//!
//! A BERT whose embeddings are narrower than its layers, and whose layers share their weights: a layer of a group is used several times.

use serde::Deserialize;
use serde_json::{Value, json};

use super::activation::{Activation, ActivationLayer};
use super::bert::BertConfig;
use super::encoder::{Encoder, EncoderConfig, EncoderModel, Names};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, MAX_LAYERS, Model, check_encoder, check_sizes,
    read_config_over,
};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("albert") || evidence.is_untyped_with(&[".albert_layer_groups."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["albert"],
    same: &[&["predictions.bias", "predictions.decoder.bias"]],
    leftover: &["pooler", "predictions", "sop_classifier"],
};

/// Names in `AlbertLayer`.
const NAMES: Names = Names {
    attention: "attention",
    query_key_value: ["query", "key", "value"],
    attention_output: "attention.dense",
    attention_norm: "attention.LayerNorm",
    intermediate: "ffn",
    activation: "activation",
    output: "ffn_output",
    norm: "full_layer_layer_norm",
};

/// `AlbertConfig`.
#[derive(Debug, Deserialize)]
struct AlbertConfig {
    #[serde(flatten)]
    bert: BertConfig,
    embedding_size: i64,
    /// Number of groups of layers. Consecutive layers use the same group.
    num_hidden_groups: i64,
    /// Number of layers in a group, which are all used at each place.
    inner_group_num: i64,
}

impl AlbertConfig {
    /// Parses and validates `config.json`.
    fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let defaults = json!({
            "vocab_size": 30000,
            "embedding_size": 128,
            "hidden_size": 4096,
            "num_hidden_groups": 1,
            "num_attention_heads": 64,
            "intermediate_size": 16384,
            "inner_group_num": 1,
            "hidden_act": "gelu_new",
        });
        let config: Self = read_config_over(defaults, config)?;
        config.sizes().check()?;
        let (groups, inner) = (config.num_hidden_groups, config.inner_group_num);
        check_sizes(&[("num_hidden_groups", groups), ("inner_group_num", inner)])?;
        if groups * inner > MAX_LAYERS {
            return Err(ConfigError::Value(format!(
                "num_hidden_groups {groups} with inner_group_num {inner} are more layers than the supported maximum"
            )));
        }
        Ok(config)
    }

    fn sizes(&self) -> EncoderConfig {
        EncoderConfig {
            embedding_size: self.embedding_size,
            projection: Some("encoder.embedding_hidden_mapping_in"),
            ..self.bert.sizes()
        }
    }

    /// Modules of the layers, and the indexes of the layers in the order of their use.
    fn layers(&self) -> (Vec<String>, Vec<usize>) {
        let (groups, inner) = (self.num_hidden_groups, self.inner_group_num);
        let name =
            |group, layer| format!("encoder.albert_layer_groups.{group}.albert_layers.{layer}");
        let names = (0..groups).flat_map(|group| (0..inner).map(move |layer| name(group, layer)));
        // As in Transformers, in floating-point numbers.
        let places_of_group = self.bert.num_hidden_layers as f64 / groups as f64;
        let group = |place: i64| (place as f64 / places_of_group) as i64;
        let order = (0..self.bert.num_hidden_layers)
            .flat_map(|place| (0..inner).map(move |layer| group(place) * inner + layer))
            .filter_map(|index| usize::try_from(index).ok());
        (names.collect(), order.collect())
    }
}

/// Sizes of an ALBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(AlbertConfig::read(config)?.sizes().dimensions())
}

/// Builds an ALBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = AlbertConfig::read(blueprint.config)?;
    let (base, sizes) = (weights.base(), config.sizes());
    let (layers, order) = config.layers();
    let encoder = Encoder::shared(&base, &layers, order, &NAMES, &sizes);
    let (hidden, width) = (sizes.hidden_size, sizes.embedding_size);
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        // AlbertMLMHead.
        || {
            let head = weights.sub("predictions");
            let (shape, tied) = ([sizes.vocab_size, width], config.bert.tie_word_embeddings);
            PredictionHead {
                dense: Linear::load(&head.sub("dense"), hidden, width),
                activation: ActivationLayer::load(sizes.hidden_act, &head.sub("activation")),
                norm: LayerNorm::load(&head.sub("LayerNorm"), width, sizes.layer_norm_eps),
                decoder: decoder(&head, "decoder", "bias", encoder.words(), shape, tied),
            }
        },
        || SequenceHead {
            dense: Linear::load(&base.sub("pooler"), hidden, hidden),
            activation: Activation::Tanh.into(),
            classifier: Linear::load(&weights.sub("classifier"), hidden, blueprint.labels),
        },
    );
    Ok(Box::new(EncoderModel { encoder, head }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_follow_groups_as_in_transformers() {
        let order = |layers: i64, groups: i64, inner: i64| {
            let config = AlbertConfig::read(&json!({
                "num_hidden_layers": layers,
                "num_hidden_groups": groups,
                "inner_group_num": inner,
            }));
            config.unwrap().layers().1
        };
        assert_eq!(order(4, 1, 1), [0, 0, 0, 0]);
        assert_eq!(order(5, 2, 1), [0, 0, 0, 1, 1]);
        assert_eq!(order(2, 2, 2), [0, 1, 2, 3]);
    }
}
