//! `tokenizer_config.json` and `special_tokens_map.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::lenient;
use crate::source::{ModelFiles, SourceError};

/// Settings of a tokenizer that the import uses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenizerConfig {
    /// Class in Transformers.
    #[serde(deserialize_with = "lenient::text")]
    pub tokenizer_class: Option<String>,
    /// Whether text is lower-cased.
    #[serde(deserialize_with = "lenient::flag")]
    pub do_lower_case: Option<bool>,
    /// Whether accents are removed; same as `do_lower_case` if absent.
    #[serde(deserialize_with = "lenient::flag")]
    pub strip_accents: Option<bool>,
    /// Whether Chinese characters are separated.
    #[serde(deserialize_with = "lenient::flag")]
    pub tokenize_chinese_chars: Option<bool>,
    /// Whether words are split at punctuation before WordPiece.
    #[serde(deserialize_with = "lenient::flag")]
    pub do_basic_tokenize: Option<bool>,
    /// Words that are never split.
    #[serde(deserialize_with = "lenient::texts")]
    pub never_split: Option<Vec<String>>,
    /// Whether a text is treated as if it started with a space (byte-level BPE).
    #[serde(deserialize_with = "lenient::flag")]
    pub add_prefix_space: Option<bool>,
    /// Whether a row begins with `bos_token` (Gemma).
    #[serde(deserialize_with = "lenient::flag")]
    pub add_bos_token: Option<bool>,
    /// Whether a row ends with `eos_token` (Gemma).
    #[serde(deserialize_with = "lenient::flag")]
    pub add_eos_token: Option<bool>,
    /// Whether words are split at punctuation before SentencePiece (DeBERTa).
    #[serde(deserialize_with = "lenient::flag")]
    pub split_by_punct: Option<bool>,
    /// Whether accents are kept before SentencePiece (ALBERT).
    #[serde(deserialize_with = "lenient::flag")]
    pub keep_accents: Option<bool>,
    /// Whether Japanese text is segmented into words.
    #[serde(deserialize_with = "lenient::flag")]
    pub do_word_tokenize: Option<bool>,
    /// Tool that segments Japanese text.
    #[serde(deserialize_with = "lenient::text")]
    pub word_tokenizer_type: Option<String>,
    /// Algorithm that splits Japanese words.
    #[serde(deserialize_with = "lenient::text")]
    pub subword_tokenizer_type: Option<String>,
    /// Inputs that the tokenizer returns, such as `token_type_ids`.
    #[serde(deserialize_with = "lenient::texts")]
    pub model_input_names: Option<Vec<String>>,
    /// Side at which a long text is truncated: `left` or `right`.
    #[serde(deserialize_with = "lenient::text")]
    pub truncation_side: Option<String>,
    model_max_length: Option<Value>,
    max_len: Option<Value>,
    extra_ids: Option<Value>,
    /// Tokens added to the vocabulary, by id. If present, added tokens in other files are ignored.
    pub added_tokens_decoder: Option<BTreeMap<String, AddedToken>>,
    /// All other settings, including the special tokens.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A token added to the vocabulary.
#[derive(Debug, Clone, Deserialize)]
pub struct AddedToken {
    /// Text of the token.
    pub content: String,
}

/// Tokens with roles, from one file.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokenNames {
    roles: BTreeMap<&'static str, Option<String>>,
    /// Special tokens without a role.
    pub additional: Vec<String>,
}

/// Roles, in the order in which Transformers processes them.
pub const SPECIAL_TOKEN_ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl SpecialTokenNames {
    /// Reads `special_tokens_map.json`. Without the file, no token has a role.
    ///
    /// # Errors
    /// [`SourceError`] if the file is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let map: Map<String, Value> = files.json("special_tokens_map.json")?.unwrap_or_default();
        Ok(Self::of(&map))
    }

    /// Token with a role of [`SPECIAL_TOKEN_ROLES`]. `None` if the file does not mention the role, and `Some(None)` if it assigns
    /// no token to the role.
    #[must_use]
    pub fn role(&self, role: &str) -> Option<Option<&str>> {
        self.roles.get(role).map(Option::as_deref)
    }

    fn of(map: &Map<String, Value>) -> Self {
        let roles = SPECIAL_TOKEN_ROLES
            .into_iter()
            .filter_map(|role| Some((role, content(map.get(role)?))))
            .collect();
        // Transformers 5 renamed the list.
        let additional = ["additional_special_tokens", "extra_special_tokens"]
            .into_iter()
            .filter_map(|name| map.get(name)?.as_array())
            .flatten()
            .filter_map(content)
            .collect();
        Self { roles, additional }
    }
}

/// Text of a token, which is a string or an object.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`. Without the file, all settings have their defaults.
    ///
    /// # Errors
    /// [`SourceError`] if the file is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        Ok(files.json("tokenizer_config.json")?.unwrap_or_default())
    }

    /// Tokens with roles.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokenNames {
        SpecialTokenNames::of(&self.others)
    }

    /// Number of tokens that `T5Tokenizer` adds after those of SentencePiece.
    #[must_use]
    pub fn extra_ids(&self) -> Option<usize> {
        /// Larger values are ignored. Published models have at most 300.
        const SANE: u64 = 1 << 16;
        let count = self.extra_ids.as_ref()?.as_u64().filter(|count| *count <= SANE)?;
        usize::try_from(count).ok()
    }

    /// Maximum input length in tokens: `model_max_length`, or `max_len` in old files. Transformers writes 10^30 if there is no
    /// maximum.
    #[must_use]
    pub fn max_length(&self) -> Option<u32> {
        /// Larger values are ignored, as in eland. No supported encoder has a larger maximum.
        const SANE: f64 = 8192.;
        [&self.model_max_length, &self.max_len]
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .find(|length| (1.0..=SANE).contains(length))
            .map(|length| length as u32)
    }
}
