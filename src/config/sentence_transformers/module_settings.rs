//! `config.json` of the modules after the transformer: pooling, dense layers and SPLADE pooling.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ModulesError;

/// `config.json` of a SpladePooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpladeConfig {
    /// Whether the weights of all tokens are summed. Otherwise the maximum is used.
    pub sum: bool,
    /// Whether the logarithm is applied twice (`log1p_relu`).
    pub log_twice: bool,
}

/// A pooling mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingMode {
    /// Vector of the first token.
    Cls,
    /// Maximum over tokens.
    Max,
    /// Mean over tokens.
    Mean,
    /// Sum over tokens, divided by the square root of their number.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
    /// Mean weighted by position, counted from 1.
    WeightedMean,
    /// Vector of the last token.
    LastToken,
}

/// `1_Pooling/config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolingConfig {
    /// Width of the token embeddings, if the file states it.
    pub dimension: Option<i64>,
    /// Modes whose results are concatenated.
    pub modes: Vec<PoolingMode>,
    /// Whether pooling includes the tokens of a prompt.
    pub include_prompt: bool,
}

/// `2_Dense/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DenseConfig {
    /// Width of the input.
    pub in_features: i64,
    /// Width of the output.
    pub out_features: i64,
    /// Whether the layer has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Path of a `torch.nn` class; tanh if absent.
    pub activation_function: Option<String>,
    /// Name of the module's input.
    #[serde(default = "sentence_embedding")]
    pub module_input_name: String,
    /// Name of the output; that of the input if absent.
    #[serde(default)]
    pub module_output_name: Option<String>,
    /// Other settings, which sentence-transformers 5.7 refuses.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl DenseConfig {
    /// Name of a setting that sentence-transformers does not have, unless it is null or false.
    #[must_use]
    pub fn unknown_setting(&self) -> Option<&str> {
        let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let mut others = self.others.iter();
        others.find(|(_, value)| is_set(value)).map(|(name, _)| name.as_str())
    }

    /// Whether the layer reads the vectors of tokens, before they are pooled.
    #[must_use]
    pub fn reads_tokens(&self) -> bool {
        self.module_input_name == "token_embeddings"
    }
}

fn yes() -> bool {
    true
}

fn sentence_embedding() -> String {
    "sentence_embedding".into()
}

#[derive(Deserialize)]
pub(super) struct RawPooling {
    embedding_dimension: Option<i64>,
    /// Name of the field before 5.4.
    word_embedding_dimension: Option<i64>,
    pooling_mode: Option<Modes>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "yes")]
    include_prompt: bool,
}

/// Releases before 5.4 write a flag for each mode, later ones a name or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(PoolingMode),
    Many(Vec<PoolingMode>),
}

impl From<RawPooling> for PoolingConfig {
    fn from(raw: RawPooling) -> Self {
        let flagged = || {
            // The order of the library.
            let modes: Vec<_> = [
                (raw.pooling_mode_cls_token, PoolingMode::Cls),
                (raw.pooling_mode_max_tokens, PoolingMode::Max),
                (raw.pooling_mode_mean_tokens, PoolingMode::Mean),
                (raw.pooling_mode_mean_sqrt_len_tokens, PoolingMode::MeanSqrtLen),
                (raw.pooling_mode_weightedmean_tokens, PoolingMode::WeightedMean),
                (raw.pooling_mode_lasttoken, PoolingMode::LastToken),
            ]
            .into_iter()
            .filter_map(|(on, mode)| on.then_some(mode))
            .collect();
            if modes.is_empty() { vec![PoolingMode::Mean] } else { modes }
        };
        Self {
            dimension: raw.embedding_dimension.or(raw.word_embedding_dimension),
            modes: match raw.pooling_mode {
                Some(Modes::One(mode)) => vec![mode],
                Some(Modes::Many(modes)) => modes,
                None => flagged(),
            },
            include_prompt: raw.include_prompt,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawSplade {
    pooling_strategy: Option<String>,
    activation_function: Option<String>,
}

impl RawSplade {
    pub fn read(self) -> Result<SpladeConfig, ModulesError> {
        let unknown = |key: &str, value: &str| {
            Err(ModulesError::Unsupported(format!(
                "SpladePooling has the {key} {value}, which sentence-transformers does not support"
            )))
        };
        Ok(SpladeConfig {
            sum: match self.pooling_strategy.as_deref() {
                None | Some("max") => false,
                Some("sum") => true,
                Some(other) => return unknown("pooling_strategy", other),
            },
            log_twice: match self.activation_function.as_deref() {
                None | Some("relu") => false,
                Some("log1p_relu") => true,
                Some(other) => return unknown("activation_function", other),
            },
        })
    }
}
