//! ModernBERT (Warner et al. 2024, arXiv:2412.13663; `transformers/models/modernbert/modeling_modernbert.py`): rotary positions, gated
//! feed-forwards, norms before attention and feed-forward, and attention to all tokens or to a sliding window by layer.

mod config;

use serde_json::Value;
use tch::Tensor;

use super::activation::ActivationLayer;
use super::blocks::{Angles, Attention, AttentionScope, FeedForward, Inner, LayerNorm, Rotary};
use super::heads::{PredictionHead, TaskHead, decoder};
use super::layers::{Heads, Linear, attention_bias, embedding};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;
use config::ModernBertConfig;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("modernbert") || evidence.is_untyped_with(&[".embeddings.tok_embeddings."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings =
    Spellings { base: &["model"], same: &[], leftover: &["head", "decoder"] };

/// Sizes of a ModernBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = ModernBertConfig::read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        output: Output::Tokens,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
    })
}

/// Builds a ModernBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = ModernBertConfig::read(blueprint.config)?;
    let (base, hidden) = (weights.base(), config.hidden_size);
    let embeddings = base.sub("embeddings");
    let shape = [config.vocab_size, hidden];
    let words = embeddings.sub("tok_embeddings").vocabulary_tensor("weight", &shape);
    let head_size = hidden / config.num_attention_heads;
    // ModernBertPredictionHead, which precedes every classifier.
    let head = |classifier: Linear| {
        let head = weights.sub("head");
        let bias = config.classifier_bias;
        PredictionHead {
            dense: Linear::with_bias_if(bias, &head.sub("dense"), hidden, hidden),
            activation: ActivationLayer::load(config.classifier_activation, &head.sub("act")),
            norm: config.norm(&head.sub("norm")),
            decoder: classifier,
        }
    };
    let labelled = |labels| head(Linear::load(&weights.sub("classifier"), hidden, labels));
    let head = match blueprint.head {
        Head::Base => TaskHead::None,
        Head::MaskedLm => {
            let bias = config.decoder_bias.then_some("decoder.bias");
            let tied = config.tie_word_embeddings;
            TaskHead::Prediction(head(decoder(weights, "decoder", bias, &words, shape, tied)))
        }
        Head::TokenClassification => TaskHead::Prediction(labelled(blueprint.labels)),
        Head::QuestionAnswering => TaskHead::Prediction(labelled(2)),
        Head::SequenceClassification => {
            TaskHead::Pooled(config.classifier_pooling, labelled(blueprint.labels))
        }
    };
    let layers = base.sub("layers");
    Ok(Box::new(ModernBert {
        embedding_norm: config.norm(&embeddings.sub("norm")),
        words,
        layers: (0..config.num_hidden_layers)
            .map(|i| Layer::load(&layers.sub(i), &config, i))
            .collect(),
        final_norm: config.norm(&base.sub("final_norm")),
        global_rotary: Rotary::new(&base, head_size, config.global_theta()),
        local_rotary: Rotary::new(&base, head_size, config.local_theta()),
        reach: config.local_attention / 2,
        head,
    }))
}

struct ModernBert {
    words: Tensor,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    global_rotary: Rotary,
    local_rotary: Rotary,
    /// Largest distance of two tokens that attend to each other in a local layer.
    reach: i64,
    head: TaskHead,
}

impl Model for ModernBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let bias = attention_bias(&inputs.attention_mask)?;
        let everywhere = AttentionScope::All(bias.shallow_clone());
        let global = (&everywhere, &self.global_rotary.angles(inputs)?);
        let mut window = None;
        if let Some(reach) = self.window_reach() {
            let scope = AttentionScope::window(&bias, reach, inputs)?;
            window = Some((scope, self.local_rotary.angles(inputs)?));
        }
        let local = window.as_ref().map(|(scope, angles)| (scope, angles));
        let mut states =
            self.embedding_norm.forward(&embedding(&self.words, &inputs.input_ids)?)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            let (scope, angles) = local.filter(|_| !layer.is_global).unwrap_or(global);
            states = layer.forward(&states, scope, angles, rows, inputs)?;
        }
        self.head.forward(&self.final_norm.forward(&states)?, inputs)
    }

    fn window_reach(&self) -> Option<i64> {
        self.layers.iter().any(|layer| !layer.is_global).then_some(self.reach)
    }
}

/// `ModernBertEncoderLayer`.
struct Layer {
    is_global: bool,
    /// `None` for the first layer, which follows the norm of the embeddings.
    attention_norm: Option<LayerNorm>,
    attention: Attention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &ModernBertConfig, layer: i64) -> Self {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let (attention, mlp) = (weights.sub("attn"), weights.sub("mlp"));
        let (bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        // The activation is applied to the first half of Wi.
        let [activated, gate] = Linear::packed(mlp_bias, &mlp.sub("Wi"), hidden, intermediate);
        Self {
            is_global: config.is_global(layer),
            attention_norm: (layer > 0).then(|| config.norm(&weights.sub("attn_norm"))),
            attention: Attention {
                query_key_value: Linear::packed(bias, &attention.sub("Wqkv"), hidden, hidden),
                norm: None,
                heads: Heads::of(hidden, config.num_attention_heads),
                output: Linear::with_bias_if(bias, &attention.sub("Wo"), hidden, hidden),
            },
            feed_forward_norm: config.norm(&weights.sub("mlp_norm")),
            feed_forward: FeedForward {
                inner: Inner::Gated { activated, gate },
                activation: ActivationLayer::load(config.hidden_activation, &mlp.sub("act")),
                output: Linear::with_bias_if(mlp_bias, &mlp.sub("Wo"), intermediate, hidden),
            },
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        scope: &AttentionScope,
        angles: &Angles,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let normed = match &self.attention_norm {
            Some(norm) => norm.forward(states)?,
            None => states.shallow_clone(),
        };
        let attended = self.attention.forward_within(&normed, scope, Some(angles), rows, inputs)?;
        let states = rows.of_states(states)?.f_add(&attended)?;
        let normed = self.feed_forward_norm.forward(&states)?;
        Ok(states.f_add(&self.feed_forward.forward(&normed)?)?)
    }
}
