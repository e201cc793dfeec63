//! `config.json` of T5 and mT5, with its validation.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::models::activation::Activation;
use crate::models::blocks::RmsNorm;
use crate::models::distance::DistanceBuckets;
use crate::models::weights::Weights;
use crate::models::{ConfigError, check_encoder, check_sizes, read_config_by, read_config_over};

/// Other names of fields in `config.json` (`attribute_map`).
const ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "d_model"),
    ("num_attention_heads", "num_heads"),
    ("num_hidden_layers", "num_layers"),
    ("head_dim", "d_kv"),
];

/// `T5Config`.
#[derive(Debug, Deserialize)]
pub(super) struct T5Config {
    pub vocab_size: i64,
    pub d_model: i64,
    pub d_kv: i64,
    pub d_ff: i64,
    pub num_layers: i64,
    pub num_heads: i64,
    pub relative_attention_num_buckets: i64,
    relative_attention_max_distance: i64,
    layer_norm_epsilon: f64,
    /// Name of an activation, which follows `gated-` in a gated feed-forward.
    feed_forward_proj: String,
    /// The activation that `feed_forward_proj` names, where Transformers 4.23 and later state it.
    dense_act_fn: Option<Activation>,
    is_gated_act: Option<bool>,
    /// Number of tokens that the model was trained with. Distances have no limit.
    pub n_positions: i64,
}

impl T5Config {
    /// Parses and validates `config.json`.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let is_mt5 = config.get("model_type").is_some_and(|model_type| model_type == "mt5");
        let mut defaults = json!({
            "vocab_size": 32128,
            "d_model": 512,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 6,
            "num_heads": 8,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "relu",
            "n_positions": 512,
        });
        if is_mt5 {
            let own = json!({
                "vocab_size": 250112,
                "d_ff": 1024,
                "num_layers": 8,
                "num_heads": 6,
                "feed_forward_proj": "gated-gelu",
            });
            defaults = read_config_over(defaults, &own)?;
        }
        let config: Self = read_config_by(&ALIASES, &read_config_over(defaults, config)?)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_layers", config.num_layers),
            ("num_heads", config.num_heads),
            ("n_positions", config.n_positions),
            ("relative_attention_num_buckets", config.relative_attention_num_buckets),
            ("relative_attention_max_distance", config.relative_attention_max_distance),
        ])?;
        if !config.buckets().is_valid() {
            return Err(ConfigError::Value(format!(
                "relative_attention_num_buckets {} and relative_attention_max_distance {} leave no buckets for long distances",
                config.relative_attention_num_buckets, config.relative_attention_max_distance
            )));
        }
        config.activation()?;
        Ok(config)
    }

    pub fn buckets(&self) -> DistanceBuckets {
        DistanceBuckets {
            count: self.relative_attention_num_buckets,
            farthest: self.relative_attention_max_distance,
        }
    }

    pub fn is_gated(&self) -> bool {
        self.is_gated_act.unwrap_or_else(|| self.feed_forward_proj.starts_with("gated-"))
    }

    pub fn activation(&self) -> Result<Activation, ConfigError> {
        if let Some(activation) = self.dense_act_fn {
            return Ok(activation);
        }
        let name = match self.feed_forward_proj.as_str() {
            // As in Transformers, for checkpoints of T5 v1.1.
            "gated-gelu" => "gelu_new",
            name => name.strip_prefix("gated-").unwrap_or(name),
        };
        Activation::deserialize(json!(name))
            .map_err(|error| ConfigError::Value(format!("feed_forward_proj: {error}")))
    }

    pub fn norm(&self, weights: &Weights<'_>) -> RmsNorm {
        RmsNorm::load(weights, self.d_model, self.layer_norm_epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mt5_has_other_defaults_and_a_gated_feed_forward() {
        let read = |model_type: &str| T5Config::read(&json!({ "model_type": model_type })).unwrap();
        let (t5, mt5) = (read("t5"), read("mt5"));
        assert_eq!((t5.vocab_size, t5.num_layers, t5.is_gated()), (32128, 6, false));
        assert_eq!((mt5.vocab_size, mt5.num_layers, mt5.is_gated()), (250_112, 8, true));
        assert_eq!(t5.activation().unwrap(), Activation::Relu);
        let new_gelu = Activation::deserialize(json!("gelu_new")).unwrap();
        assert_eq!(mt5.activation().unwrap(), new_gelu);
    }
}
