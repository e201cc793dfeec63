//! `config.json` of DeBERTa v2 and v3, with its validation.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::models::activation::Activation;
use crate::models::layers::LayerNorm;
use crate::models::weights::Weights;
use crate::models::{
    ConfigError, Dimensions, MAX_SIZE, Output, check_encoder, check_heads, check_sizes,
    read_config, read_config_over,
};

/// `DebertaV2Config` with its defaults, and additional fields read by the layers.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct DebertaV2Config {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub attention_head_size: Option<i64>,
    pub intermediate_size: i64,
    pub hidden_act: Activation,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    pub embedding_size: Option<i64>,
    pub position_biased_input: bool,
    pub relative_attention: bool,
    pub max_relative_positions: i64,
    pub position_buckets: i64,
    #[serde(deserialize_with = "pos_att_type")]
    pub pos_att_type: Vec<String>,
    pub share_att_key: bool,
    pub norm_rel_ebd: String,
    pub conv_kernel_size: i64,
    pub conv_groups: i64,
    pub conv_act: Activation,
    pub pooler_hidden_size: Option<i64>,
    pub pooler_hidden_act: Activation,
    pub legacy: Option<bool>,
    pub tie_word_embeddings: bool,
    /// Whether the heads mix their scores and their weights (v1 only).
    pub talking_head: bool,
    /// Whether attention has the form of DeBERTa v1: one tensor `in_proj` for query, key and value, whose rows alternate by head.
    #[serde(skip)]
    pub is_first_version: bool,
}

impl Default for DebertaV2Config {
    fn default() -> Self {
        Self {
            vocab_size: 128_100,
            hidden_size: 1536,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            attention_head_size: None,
            intermediate_size: 6144,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            embedding_size: None,
            position_biased_input: true,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            pos_att_type: Vec::new(),
            share_att_key: false,
            norm_rel_ebd: "none".into(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            pooler_hidden_size: None,
            pooler_hidden_act: Activation::Gelu,
            legacy: None,
            tie_word_embeddings: true,
            talking_head: false,
            is_first_version: false,
        }
    }
}

/// A list, or a string of items separated by `|`, as in published configurations.
fn pos_att_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kinds {
        Joined(String),
        List(Vec<String>),
    }
    Ok(match Option::<Kinds>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Kinds::Joined(kinds)) => items(&kinds),
        Some(Kinds::List(kinds)) => kinds,
    })
}

/// The items of a string that is separated by `|`.
pub(super) fn items(joined: &str) -> Vec<String> {
    joined.to_lowercase().split('|').map(|item| item.trim().to_owned()).collect()
}

impl DebertaV2Config {
    /// Parses and validates the `config.json` of DeBERTa v2 or v3.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        read_config::<Self>(config)?.validated()
    }

    /// Parses and validates the `config.json` of DeBERTa v1 (`DebertaConfig`), which has other defaults. Keys that only v2 has are
    /// ignored, as in Transformers.
    pub fn read_first_version(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let defaults = json!({
            "vocab_size": 50265,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        });
        let config: Self = read_config_over(defaults, config)?;
        let config = Self {
            attention_head_size: None,
            position_buckets: -1,
            share_att_key: false,
            norm_rel_ebd: "none".into(),
            conv_kernel_size: 0,
            is_first_version: true,
            ..config
        };
        config.validated()
    }

    fn validated(self) -> Result<Self, ConfigError> {
        let config = self;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("embedding_size", config.embedding_size()),
            ("conv_groups", config.conv_groups),
        ])?;
        let wrong = |reason: String| Err(ConfigError::Value(reason));
        if !(0..=MAX_SIZE).contains(&config.type_vocab_size) {
            return wrong(format!(
                "type_vocab_size is {}, which is not a valid size",
                config.type_vocab_size
            ));
        }
        check_heads(
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
        )?;
        for (name, size, must) in [
            ("attention_head_size", config.attention_head_size, config.head_size()),
            ("pooler_hidden_size", config.pooler_hidden_size, config.hidden_size),
        ] {
            if let Some(size) = size.filter(|&size| size != must) {
                return wrong(format!(
                    "{name} is {size}; with these other sizes it must be {must}"
                ));
            }
        }
        if config.conv_kernel_size > 0
            && (config.conv_kernel_size % 2 == 0
                || config.conv_kernel_size > MAX_SIZE
                || config.hidden_size % config.conv_groups != 0)
        {
            return wrong(format!(
                "conv_kernel_size {} must be odd, and hidden_size {} a multiple of conv_groups {}",
                config.conv_kernel_size, config.hidden_size, config.conv_groups
            ));
        }
        if config.relative_attention {
            /// Maximum number of positions. Every published model has fewer; the table of distances grows with the number.
            const MOST: i64 = 1 << 16;
            let positions = config.max_position_embeddings.max(config.max_relative_positions);
            if positions > MOST {
                return wrong(format!(
                    "{positions} relative positions are more than the supported maximum"
                ));
            }
            // Outside of this range the logarithms of the bucket formula are those of 0, or are divided by 0.
            let (buckets, distances) = (config.position_buckets, config.relative_positions());
            if buckets > 0 && (buckets < 2 || distances - 1 <= buckets / 2) {
                return wrong(format!(
                    "{distances} relative positions do not fit into position_buckets {buckets}"
                ));
            }
        }
        Ok(config)
    }

    /// Sizes for tasks and checks.
    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden: self.hidden_size,
            vocabulary: self.vocab_size,
            positions: self.max_position_embeddings,
            output: Output::Tokens,
        }
    }

    pub fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    pub fn embedding_size(&self) -> i64 {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Largest distance that is distinguished from larger ones.
    pub fn relative_positions(&self) -> i64 {
        if self.max_relative_positions < 1 {
            self.max_position_embeddings
        } else {
            self.max_relative_positions
        }
    }

    /// Half of the rows of the relative position embeddings.
    pub fn span(&self) -> i64 {
        if self.position_buckets > 0 { self.position_buckets } else { self.relative_positions() }
    }

    /// Whether the model has the attention `kind` (c2p or p2c).
    pub fn has(&self, kind: &str) -> bool {
        self.pos_att_type.iter().any(|item| item == kind)
    }

    /// Number of addends of the attention scores, which determines their scale. Every listed kind counts, even if it is not used.
    pub fn score_kinds(&self) -> i64 {
        if self.is_first_version {
            return 1 + self.pos_att_type.len() as i64;
        }
        1 + i64::from(self.has("c2p")) + i64::from(self.has("p2c"))
    }

    pub fn norm(&self, weights: &Weights<'_>) -> LayerNorm {
        LayerNorm::load(&weights.sub("LayerNorm"), self.hidden_size, self.layer_norm_eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_beyond_the_buckets_are_rejected() {
        let read = |buckets, positions| {
            DebertaV2Config::read(&serde_json::json!({
                "relative_attention": true,
                "position_buckets": buckets,
                "max_position_embeddings": positions,
                "pos_att_type": "p2c|c2p",
            }))
        };
        assert!(read(256, 512).unwrap().has("c2p"));
        assert!(read(-1, 512).is_ok());
        for (buckets, positions) in [(1, 512), (512, 257), (4, 3), (-1, 1 << 20)] {
            assert!(read(buckets, positions).is_err(), "{buckets} {positions}");
        }
    }
}
