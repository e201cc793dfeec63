//! Text encoder of Gemma 3 with attention in both directions (EmbeddingGemma, Schechter Vera et al. 2025, arXiv:2509.20354;
//! `transformers/models/gemma3/modeling_gemma3.py`): rotary positions, grouped-query attention to all tokens or to a sliding window by
//! layer, gated feed-forwards, and an RMSNorm before and after attention and feed-forward.

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::activation::{Activation, ActivationLayer};
use super::blocks::{
    Angles, Attention, AttentionScope, FeedForward, Inner, QueryKeyNorm, RmsNorm, Rotary,
};
use super::layer_kinds::{LayerKind, Rope, RopeByKind, check_kinds, check_thetas, kind_of};
use super::layers::{Heads, Linear, attention_bias, embedding};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows, check_encoder,
    check_heads, check_sizes, read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Whether a folder contains this architecture. Without `use_bidirectional_attention` the model is a decoder.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    let is_encoder = evidence.config.get("use_bidirectional_attention") == Some(&Value::Bool(true));
    is_encoder
        && (evidence.is("gemma3_text")
            || evidence.is_untyped_with(&[".pre_feedforward_layernorm."]))
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings =
    Spellings { base: &["model"], same: &[], leftover: &["lm_head"] };

/// `Gemma3TextConfig` with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Gemma3Config {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: i64,
    head_dim: i64,
    intermediate_size: i64,
    hidden_activation: Activation,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    attention_bias: bool,
    query_pre_attn_scalar: f64,
    attn_logit_softcapping: Option<f64>,
    use_bidirectional_attention: Option<bool>,
    /// Tokens of a sliding window: half of them on each side.
    sliding_window: i64,
    sliding_window_pattern: i64,
    /// Kind of each layer, instead of `sliding_window_pattern`.
    layer_types: Option<Vec<LayerKind>>,
    rope_theta: f64,
    rope_local_base_freq: f64,
    rope_scaling: Option<Rope>,
    /// Thetas in files of Transformers 5, instead of `rope_theta` and `rope_local_base_freq`.
    rope_parameters: Option<RopeByKind>,
}

impl Default for Gemma3Config {
    fn default() -> Self {
        Self {
            vocab_size: 262_208,
            hidden_size: 2304,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            intermediate_size: 9216,
            hidden_activation: Activation::GeluNew,
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-6,
            attention_bias: false,
            query_pre_attn_scalar: 256.,
            attn_logit_softcapping: None,
            use_bidirectional_attention: None,
            sliding_window: 4096,
            sliding_window_pattern: 6,
            layer_types: None,
            rope_theta: 1e6,
            rope_local_base_freq: 1e4,
            rope_scaling: None,
            rope_parameters: None,
        }
    }
}

impl Gemma3Config {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let json = config;
        let config: Self = read_config(json)?;
        let refuse = |what: &str, why| Err(ConfigError::Unsupported(what.into(), why));
        if config.use_bidirectional_attention != Some(true) {
            return refuse("gemma3_text without use_bidirectional_attention", super::DECODER);
        }
        if let Some(scaling) = &config.rope_scaling {
            scaling.check_scaling()?;
        }
        if config.attn_logit_softcapping.is_some() {
            return refuse("attn_logit_softcapping", "no encoder of Gemma 3 limits its scores");
        }
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("sliding_window", config.sliding_window),
            ("sliding_window_pattern", config.sliding_window_pattern),
        ])?;
        // Each head is rotated in two halves.
        check_heads(("head_dim", config.head_dim), ("the halves of a head:", 2))?;
        let heads = ("num_attention_heads", config.num_attention_heads);
        check_heads(heads, ("num_key_value_heads", config.num_key_value_heads))?;
        check_kinds(config.layer_types.as_deref(), config.num_hidden_layers)?;
        if let Some(rope) = &config.rope_parameters {
            rope.check(json, ["rope_theta", "rope_local_base_freq"])?;
        }
        check_thetas(config.thetas())?;
        let scalar = config.query_pre_attn_scalar;
        if !(scalar.is_finite() && scalar > 0.) {
            return Err(ConfigError::Value(format!("query_pre_attn_scalar {scalar} is not valid")));
        }
        Ok(config)
    }

    /// Whether the tokens of a layer attend to all tokens.
    fn is_full(&self, layer: i64) -> bool {
        match kind_of(self.layer_types.as_deref(), layer) {
            Some(kind) => kind == LayerKind::FullAttention,
            None => (layer + 1) % self.sliding_window_pattern == 0,
        }
    }

    /// Bases of the angles: of layers that attend to all tokens, and of those with a sliding window.
    fn thetas(&self) -> [f64; 2] {
        let rope = self.rope_parameters.as_ref();
        let full = rope.and_then(RopeByKind::full_theta).unwrap_or(self.rope_theta);
        let sliding = rope.and_then(RopeByKind::sliding_theta);
        [full, sliding.unwrap_or(self.rope_local_base_freq)]
    }

    /// Largest distance of two tokens that attend to each other in a layer with a sliding window. `Gemma3TextConfig` changes the window to
    /// `sliding_window / 2 + 1`, and the distance is smaller than the window.
    fn reach(&self) -> i64 {
        self.sliding_window / 2
    }

    /// An RMSNorm of the hidden states.
    fn norm(&self, weights: &Weights<'_>) -> RmsNorm {
        RmsNorm::around_one(weights, self.hidden_size, self.rms_norm_eps)
    }
}

/// Sizes of an encoder of Gemma 3.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = Gemma3Config::read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        output: Output::Tokens,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
    })
}

/// Builds an encoder of Gemma 3, which has no head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    match blueprint.head {
        Head::Base => (),
        Head::SequenceClassification => {
            return Err(ConfigError::Unsupported(
                "the head for sequence classification".into(),
                "only embeddings of Gemma 3 encoders can be imported",
            ));
        }
        head => return Err(ConfigError::NoHead("Gemma 3", head)),
    }
    let config = Gemma3Config::read(blueprint.config)?;
    let base = weights.base();
    let [full, sliding] = config.thetas().map(|theta| Rotary::new(&base, config.head_dim, theta));
    let layers = base.sub("layers");
    Ok(Box::new(Gemma3 {
        words: base
            .sub("embed_tokens")
            .vocabulary_tensor("weight", &[config.vocab_size, config.hidden_size]),
        scale: (config.hidden_size as f64).sqrt(),
        layers: (0..config.num_hidden_layers)
            .map(|i| Layer::load(&layers.sub(i), &config, config.is_full(i)))
            .collect(),
        norm: config.norm(&base.sub("norm")),
        full,
        sliding,
        reach: config.reach(),
    }))
}

struct Gemma3 {
    words: Tensor,
    /// Factor of the word embeddings.
    scale: f64,
    layers: Vec<Layer>,
    norm: RmsNorm,
    full: Rotary,
    sliding: Rotary,
    reach: i64,
}

impl Model for Gemma3 {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let bias = attention_bias(&inputs.attention_mask)?;
        let everywhere = AttentionScope::All(bias.shallow_clone());
        let full = (&everywhere, &self.full.angles(inputs)?);
        let nearby = AttentionScope::window(&bias, self.reach, inputs)?;
        let sliding = (&nearby, &self.sliding.angles(inputs)?);
        let words = embedding(&self.words, &inputs.input_ids)?;
        let mut states = words.f_mul_scalar(self.scale)?;
        for (layer, rows) in inputs.rows.by_layer(&self.layers) {
            let (scope, angles) = if layer.is_full { full } else { sliding };
            states = layer.forward(&states, scope, angles, rows, inputs)?;
        }
        self.norm.forward(&states)
    }

    fn window_reach(&self) -> Option<i64> {
        Some(self.reach)
    }
}

/// `Gemma3DecoderLayer`.
struct Layer {
    is_full: bool,
    norms: [RmsNorm; 4],
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &Gemma3Config, is_full: bool) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (attention, mlp) = (weights.sub("self_attn"), weights.sub("mlp"));
        let heads = Heads { count: config.num_attention_heads, size: config.head_dim };
        let key_width = config.num_key_value_heads * config.head_dim;
        let projection = |name: &str, inputs, outputs| {
            Linear::with_bias_if(config.attention_bias, &attention.sub(name), inputs, outputs)
        };
        let head_norm = |name: &str| {
            RmsNorm::around_one(&attention.sub(name), config.head_dim, config.rms_norm_eps)
        };
        // The factor of the scores is query_pre_attn_scalar ^ -0.5, not that of the head size.
        let factor = (config.head_dim as f64 / config.query_pre_attn_scalar).sqrt();
        let mut query = head_norm("q_norm");
        if factor != 1. {
            query = query.times(&attention, factor);
        }
        Self {
            is_full,
            norms: [
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ]
            .map(|name| config.norm(&weights.sub(name))),
            attention: Attention {
                query_key_value: [
                    projection("q_proj", hidden, heads.width()),
                    projection("k_proj", hidden, key_width),
                    projection("v_proj", hidden, key_width),
                ],
                norm: Some(QueryKeyNorm::EachHead { query, key: head_norm("k_norm") }),
                heads,
                output: projection("o_proj", heads.width(), hidden),
            },
            feed_forward: FeedForward {
                inner: Inner::Gated {
                    activated: Linear::without_bias(&mlp.sub("gate_proj"), hidden, inner),
                    gate: Linear::without_bias(&mlp.sub("up_proj"), hidden, inner),
                },
                activation: ActivationLayer::load(config.hidden_activation, &mlp.sub("act_fn")),
                output: Linear::without_bias(&mlp.sub("down_proj"), inner, hidden),
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
        let [before_attention, after_attention, before_feed_forward, after_feed_forward] =
            &self.norms;
        let normed = before_attention.forward(states)?;
        let attended = self.attention.forward_within(&normed, scope, Some(angles), rows, inputs)?;
        let states = rows.of_states(states)?.f_add(&after_attention.forward(&attended)?)?;
        let fed = self.feed_forward.forward(&before_feed_forward.forward(&states)?)?;
        Ok(states.f_add(&after_feed_forward.forward(&fed)?)?)
    }
}
