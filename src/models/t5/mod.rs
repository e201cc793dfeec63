//! Encoders of T5 and mT5 (Raffel et al. 2019, arXiv:1910.10683; `T5EncoderModel` in `transformers/models/t5/modeling_t5.py`).
//!
//! Norms before attention and feed-forward, without a mean and without biases; a bias by distance that all layers share, and scores without
//! a scale. The decoder of a complete T5 is ignored.

mod config;

use serde_json::Value;
use tch::Tensor;

use super::activation::ActivationLayer;
use super::blocks::{FeedForward, Inner, RmsNorm};
use super::distance::DistanceBias;
use super::heads::TaskHead;
use super::layers::{Heads, Linear, attend, attention_bias, embedding};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;
use config::T5Config;

/// Whether a folder contains a T5 or an mT5, whose configurations have other defaults.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("t5") || evidence.is("mt5") || evidence.is_untyped_with(&[".SelfAttention."])
}

/// Parameter names in the files of both: of `T5EncoderModel` alone or in `T5ForTokenClassification`, or of a complete T5.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["transformer"],
    same: &[&["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]],
    leftover: &["decoder", "lm_head"],
};

/// Sizes of a T5.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = T5Config::read(config)?;
    Ok(Dimensions {
        hidden: config.d_model,
        output: Output::Tokens,
        vocabulary: config.vocab_size,
        positions: config.n_positions,
    })
}

/// Builds the encoder of a T5 with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = T5Config::read(blueprint.config)?;
    let (base, hidden) = (weights.base(), config.d_model);
    let head = match blueprint.head {
        Head::Base => TaskHead::None,
        Head::TokenClassification => {
            TaskHead::Tokens(Linear::load(&weights.sub("classifier"), hidden, blueprint.labels))
        }
        // The other classes also run the decoder.
        head => return Err(ConfigError::NoHead("the encoder of T5", head)),
    };
    let words = base.vocabulary_tensor("shared.weight", &[config.vocab_size, hidden]);
    let encoder = base.sub("encoder");
    let blocks = encoder.sub("block");
    let layers: Result<_, ConfigError> =
        (0..config.num_layers).map(|i| Layer::load(&blocks.sub(i), &config)).collect();
    let shape = [config.relative_attention_num_buckets, config.num_heads];
    let by_bucket =
        blocks.sub("0.layer.0.SelfAttention.relative_attention_bias").tensor("weight", &shape);
    let (heads, positions) = (config.num_heads, config.n_positions);
    Ok(Box::new(T5 {
        words,
        by_distance: DistanceBias::new(weights, &by_bucket, config.buckets(), heads, positions),
        layers: layers?,
        final_norm: config.norm(&encoder.sub("final_layer_norm")),
        head,
    }))
}

struct T5 {
    words: Tensor,
    by_distance: DistanceBias,
    layers: Vec<Layer>,
    final_norm: RmsNorm,
    head: TaskHead,
}

impl Model for T5 {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let by_distance = self.by_distance.forward(inputs)?;
        let bias = attention_bias(&inputs.attention_mask)?.f_add(&by_distance)?;
        let mut states = embedding(&self.words, &inputs.input_ids)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            states = layer.forward(&states, &bias, rows, inputs)?;
        }
        self.head.forward(&self.final_norm.forward(&states)?, inputs)
    }
}

/// `T5Block` of the encoder.
struct Layer {
    attention_norm: RmsNorm,
    query_key_value: [Linear; 3],
    heads: Heads,
    output: Linear,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &T5Config) -> Result<Self, ConfigError> {
        let (hidden, inner) = (config.d_model, config.d_ff);
        let heads = Heads { count: config.num_heads, size: config.d_kv };
        let (attention, dense) = (weights.sub("layer.0"), weights.sub("layer.1"));
        let attended = attention.sub("SelfAttention");
        let linear = |name| Linear::without_bias(&attended.sub(name), hidden, heads.width());
        let relu = dense.sub("DenseReluDense");
        let wi = |name| Linear::without_bias(&relu.sub(name), hidden, inner);
        Ok(Self {
            attention_norm: config.norm(&attention.sub("layer_norm")),
            query_key_value: ["q", "k", "v"].map(linear),
            heads,
            output: Linear::without_bias(&attended.sub("o"), heads.width(), hidden),
            feed_forward_norm: config.norm(&dense.sub("layer_norm")),
            feed_forward: FeedForward {
                inner: if config.is_gated() {
                    Inner::Gated { activated: wi("wi_0"), gate: wi("wi_1") }
                } else {
                    Inner::Plain(wi("wi"))
                },
                activation: ActivationLayer::load(config.activation()?, &relu.sub("act")),
                output: Linear::without_bias(&relu.sub("wo"), inner, hidden),
            },
        })
    }

    fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let normed = self.attention_norm.forward(states)?;
        let by_head = |projection: &Linear, states: &Tensor| {
            self.heads.split(&projection.forward(states)?, inputs)
        };
        let [query, key, value] = &self.query_key_value;
        let query = by_head(query, &rows.of_states(&normed)?)?;
        let (key, value) = (by_head(key, &normed)?, by_head(value, &normed)?);
        // The scores have no scale.
        let context = attend([&query, &key, &value], &rows.of_scores(bias)?, 1., inputs)?;
        let attended = self.output.forward(&self.heads.join(&context, inputs)?)?;
        let states = rows.of_states(states)?.f_add(&attended)?;
        let normed = self.feed_forward_norm.forward(&states)?;
        Ok(states.f_add(&self.feed_forward.forward(&normed)?)?)
    }
}
