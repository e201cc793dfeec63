//! `tokenizer_config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::source::{ModelFiles, SourceError};

/// The settings that reach the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenizerConfig {
    /// Class in Transformers.
    pub tokenizer_class: Option<String>,
    /// Whether text is lower-cased.
    pub do_lower_case: Option<bool>,
    /// Whether accents are stripped; follows `do_lower_case` where absent.
    pub strip_accents: Option<bool>,
    /// Whether Chinese characters are split off.
    pub tokenize_chinese_chars: Option<bool>,
    model_max_length: Option<Value>,
    max_len: Option<Value>,
    /// Tokens added to the vocabulary, by id.
    pub added_tokens_decoder: BTreeMap<String, AddedToken>,
}

/// A token added to the vocabulary.
#[derive(Debug, Clone, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`; a repository without one has all defaults.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        Ok(files.json("tokenizer_config.json")?.unwrap_or_default())
    }

    /// The longest input in tokens that the tokenizer was made for: `model_max_length`, or `max_len` of old files. Transformers
    /// writes 10^30 where there is none.
    #[must_use]
    pub fn max_length(&self) -> Option<u32> {
        /// What eland takes for a real length, and the largest that any encoder here has.
        const SANE: f64 = 8192.;
        [&self.model_max_length, &self.max_len]
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .find(|length| (1.0..=SANE).contains(length))
            .map(|length| length as u32)
    }
}
