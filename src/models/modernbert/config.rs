//! `config.json` of ModernBERT.

use serde::Deserialize;
use serde_json::Value;

use crate::models::activation::Activation;
use crate::models::blocks::LayerNorm;
use crate::models::heads::SequencePooling;
use crate::models::layer_kinds::{LayerKind, Rope, RopeByKind, check_kinds, check_thetas, kind_of};
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
    layer_types: Option<Vec<LayerKind>>,
    global_rope_theta: f64,
    /// Null or -1 stands for `global_rope_theta`.
    local_rope_theta: Option<f64>,
    /// Thetas in files of Transformers 5, instead of `global_rope_theta` and `local_rope_theta`.
    rope_parameters: RopeByKind,
    rope_scaling: Option<Rope>,
    /// Half of `local_attention` in some files of Transformers 5.
    sliding_window: Option<i64>,
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
            rope_parameters: RopeByKind::default(),
            rope_scaling: None,
            sliding_window: None,
        }
    }
}

impl ModernBertConfig {
    /// Parses and validates `config.json`.
    pub(super) fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let json = config;
        let config: Self = read_config(json)?;
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
        check_kinds(config.layer_types.as_deref(), config.num_hidden_layers)?;
        config.rope_parameters.check(json, ["global_rope_theta", "local_rope_theta"])?;
        if let Some(scaling) = &config.rope_scaling {
            scaling.check_scaling()?;
        }
        let reach = config.local_attention / 2;
        if let Some(window) = config.sliding_window.filter(|window| *window != reach) {
            return Err(ConfigError::Value(format!(
                "sliding_window is {window}, but half of local_attention is {reach}; keep the value that the model was trained with"
            )));
        }
        check_thetas([config.global_theta(), config.local_theta()])?;
        Ok(config)
    }

    /// Whether the tokens of a layer attend to all tokens, and not to a sliding window.
    pub(super) fn is_global(&self, layer: i64) -> bool {
        match kind_of(self.layer_types.as_deref(), layer) {
            Some(kind) => kind == LayerKind::FullAttention,
            None => layer % self.global_attn_every_n_layers == 0,
        }
    }

    /// Base of the angles of global layers.
    pub(super) fn global_theta(&self) -> f64 {
        self.rope_parameters.full_theta().unwrap_or(self.global_rope_theta)
    }

    /// Base of the angles of local layers.
    pub(super) fn local_theta(&self) -> f64 {
        let stated = self.rope_parameters.sliding_theta().or(self.local_rope_theta);
        stated.filter(|theta| *theta > 0.).unwrap_or_else(|| self.global_theta())
    }

    /// A LayerNorm of the hidden states.
    pub(super) fn norm(&self, weights: &Weights<'_>) -> LayerNorm {
        LayerNorm::with_bias_if(self.norm_bias, weights, self.hidden_size, self.norm_eps)
    }
}
