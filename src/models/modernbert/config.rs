//! `config.json` of ModernBERT.

use serde::Deserialize;
use serde_json::Value;

use crate::models::activation::Activation;
use crate::models::blocks::LayerNorm;
use crate::models::heads::SequencePooling;
use crate::models::weights::Weights;
use crate::models::{ConfigError, check_encoder, check_heads, check_sizes, read_config};

/// `ModernBertConfig` with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct ModernBertConfig {
    pub(super) vocab_size: i64,
    pub(super) hidden_size: i64,
    pub(super) num_hidden_layers: i64,
    pub(super) num_attention_heads: i64,
    pub(super) intermediate_size: i64,
    pub(super) hidden_activation: Activation,
    pub(super) max_position_embeddings: i64,
    norm_eps: f64,
    norm_bias: bool,
    pub(super) attention_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) decoder_bias: bool,
    pub(super) classifier_bias: bool,
    pub(super) classifier_activation: Activation,
    pub(super) classifier_pooling: SequencePooling,
    pub(super) tie_word_embeddings: bool,
    /// Tokens of a sliding window: half of them on each side.
    pub(super) local_attention: i64,
    global_attn_every_n_layers: i64,
    /// Kind of each layer in files of Transformers 5, instead of `global_attn_every_n_layers`.
    layer_types: Option<Vec<LayerType>>,
    global_rope_theta: f64,
    /// Null or -1 stands for `global_rope_theta`.
    local_rope_theta: Option<f64>,
    /// Thetas in files of Transformers 5, instead of `global_rope_theta` and `local_rope_theta`.
    rope_parameters: RopeParameters,
    rope_scaling: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RopeParameters {
    full_attention: Rope,
    sliding_attention: Rope,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl Default for ModernBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50368,
            hidden_size: 768,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            intermediate_size: 1152,
            hidden_activation: Activation::Gelu,
            max_position_embeddings: 8192,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            mlp_bias: false,
            decoder_bias: true,
            classifier_bias: false,
            classifier_activation: Activation::Gelu,
            classifier_pooling: SequencePooling::Cls,
            tie_word_embeddings: true,
            local_attention: 128,
            global_attn_every_n_layers: 3,
            layer_types: None,
            global_rope_theta: 160_000.,
            local_rope_theta: Some(10_000.),
            rope_parameters: RopeParameters::default(),
            rope_scaling: None,
        }
    }
}

impl ModernBertConfig {
    /// Parses and validates `config.json`.
    pub(super) fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let config: Self = read_config(config)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("local_attention", config.local_attention),
            ("global_attn_every_n_layers", config.global_attn_every_n_layers),
        ])?;
        // Each head is rotated in two halves.
        let halves = ("twice num_attention_heads", 2 * config.num_attention_heads);
        check_heads(("hidden_size", config.hidden_size), halves)?;
        let kinds = config.layer_types.as_ref().map(Vec::len);
        if kinds.is_some_and(|kinds| (kinds as i64) < config.num_hidden_layers) {
            return Err(ConfigError::Value(format!(
                "layer_types has fewer entries than num_hidden_layers {}",
                config.num_hidden_layers
            )));
        }
        let RopeParameters { full_attention, sliding_attention } = &config.rope_parameters;
        let types = [full_attention, sliding_attention].map(|rope| rope.rope_type.as_deref());
        if let Some(other) = types.into_iter().flatten().find(|name| *name != "default") {
            return Err(ConfigError::Unsupported(
                format!("the rope_type {other}"),
                "ModernBERT has unscaled rotary positions (rope_type default)",
            ));
        }
        if config.rope_scaling.is_some() {
            return Err(ConfigError::Unsupported(
                "rope_scaling".into(),
                "ModernBERT has unscaled rotary positions",
            ));
        }
        for theta in [config.global_theta(), config.local_theta()] {
            if !(theta.is_finite() && theta > 0.) {
                return Err(ConfigError::Value(format!(
                    "the rope_theta {theta} is not a base of angles; use the config.json that belongs to the weights"
                )));
            }
        }
        Ok(config)
    }

    /// Whether the tokens of a layer attend to all tokens, and not to a sliding window.
    pub(super) fn is_global(&self, layer: i64) -> bool {
        let kind = |kinds: &Vec<LayerType>| kinds.get(usize::try_from(layer).ok()?).copied();
        match self.layer_types.as_ref().and_then(kind) {
            Some(kind) => kind == LayerType::FullAttention,
            None => layer % self.global_attn_every_n_layers == 0,
        }
    }

    /// Base of the angles of global layers.
    pub(super) fn global_theta(&self) -> f64 {
        self.rope_parameters.full_attention.rope_theta.unwrap_or(self.global_rope_theta)
    }

    /// Base of the angles of local layers.
    pub(super) fn local_theta(&self) -> f64 {
        let stated = self.rope_parameters.sliding_attention.rope_theta.or(self.local_rope_theta);
        stated.filter(|theta| *theta > 0.).unwrap_or_else(|| self.global_theta())
    }

    /// A LayerNorm of the hidden states.
    pub(super) fn norm(&self, weights: &Weights<'_>) -> LayerNorm {
        LayerNorm::with_bias_if(self.norm_bias, weights, self.hidden_size, self.norm_eps)
    }
}
