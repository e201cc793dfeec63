//! `tokenizer_config.json` and `special_tokens_map.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::source::{ModelFiles, SourceError};

/// The settings of a tokenizer that matter here.
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
    /// Whether words are split at punctuation before WordPiece.
    pub do_basic_tokenize: Option<bool>,
    /// Words that stay whole.
    pub never_split: Option<Vec<String>>,
    /// Whether a text is read as if it began with a space (byte-level BPE).
    pub add_prefix_space: Option<bool>,
    /// Whether words are split at punctuation before SentencePiece (DeBERTa).
    pub split_by_punct: Option<bool>,
    /// Whether Japanese text is segmented at all.
    pub do_word_tokenize: Option<bool>,
    /// What segments Japanese text.
    pub word_tokenizer_type: Option<String>,
    /// What cuts Japanese words.
    pub subword_tokenizer_type: Option<String>,
    /// The inputs that the tokenizer makes, such as `token_type_ids`.
    pub model_input_names: Option<Vec<String>>,
    /// The side at which a long text loses tokens: `left` or `right`.
    pub truncation_side: Option<String>,
    model_max_length: Option<Value>,
    max_len: Option<Value>,
    /// Tokens added to the vocabulary, by id. Where it is given, no other file's added tokens count.
    pub added_tokens_decoder: Option<BTreeMap<String, AddedToken>>,
    /// All else, the special tokens among it.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A token added to the vocabulary.
#[derive(Debug, Clone, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
}

/// Which tokens have a role, as one file says.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokenNames {
    roles: BTreeMap<&'static str, Option<String>>,
    /// Special tokens without a role.
    pub additional: Vec<String>,
}

/// The roles, in the order in which Transformers goes through them.
pub const SPECIAL_TOKEN_ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl SpecialTokenNames {
    /// Reads `special_tokens_map.json`; a repository without one names no tokens.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let map: Map<String, Value> = files.json("special_tokens_map.json")?.unwrap_or_default();
        Ok(Self::of(&map))
    }

    /// The token in a role of [`SPECIAL_TOKEN_ROLES`]. Nothing where the file does not speak of the role, `Some(None)` where it says
    /// that no token has it.
    #[must_use]
    pub fn role(&self, role: &str) -> Option<Option<&str>> {
        self.roles.get(role).map(Option::as_deref)
    }

    fn of(map: &Map<String, Value>) -> Self {
        let roles = SPECIAL_TOKEN_ROLES
            .into_iter()
            .filter_map(|role| Some((role, content(map.get(role)?))))
            .collect();
        // Transformers 5 has renamed the list.
        let additional = ["additional_special_tokens", "extra_special_tokens"]
            .into_iter()
            .filter_map(|name| map.get(name)?.as_array())
            .flatten()
            .filter_map(content)
            .collect();
        Self { roles, additional }
    }
}

/// A token, written as a string or as an object with its ways.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`; a repository without one has all defaults.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        Ok(files.json("tokenizer_config.json")?.unwrap_or_default())
    }

    /// The tokens that have a role.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokenNames {
        SpecialTokenNames::of(&self.others)
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
