//! The settings of a tokenizer in `inference_config.*.tokenization` (contract, 3.1 and 3.2).

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// The settings with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The tokenizer.
    pub kind: Kind,
    /// Whether case and accents are ignored (WordPiece only).
    pub do_lower_case: bool,
    /// Whether special tokens are placed around texts.
    pub with_special_tokens: bool,
    /// The largest number of tokens in a row, special tokens included.
    pub max_sequence_length: usize,
    /// Which text is cut when a row is too long.
    pub truncate: Truncate,
    /// How many tokens consecutive windows of a long text share, or [`NO_SPAN`].
    pub span: i32,
}

/// The value of `span` for no windows.
pub const NO_SPAN: i32 = -1;

/// A tokenizer of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// WordPiece.
    Bert,
    /// WordPiece on the words of a Japanese analyser.
    BertJa,
    /// WordPiece with RoBERTa's special tokens.
    Mpnet,
    /// Byte-level byte-pair encoding.
    Roberta {
        /// Whether the first word is encoded as if a blank preceded the word.
        add_prefix_space: bool,
    },
    /// Unigram.
    XlmRoberta,
    /// Unigram with BERT's special tokens, where unknown characters become bytes.
    DebertaV2,
    /// Byte-level byte-pair encoding with other special tokens.
    ByteLevelBpe {
        /// Whether the first word is encoded as if a blank preceded the word.
        add_prefix_space: bool,
        /// The special tokens.
        special: BpeTokens,
    },
}

/// The special tokens of `byte_level_bpe`.
#[derive(Debug, Clone, PartialEq)]
pub struct BpeTokens {
    /// Replaces pieces outside the vocabulary.
    pub unknown: String,
    /// Fills short rows.
    pub pad: String,
    /// The first token of a row.
    pub begin: String,
    /// The last token of a text.
    pub end: String,
    /// Marks the word to predict.
    pub mask: String,
}

/// Which text is cut when a row is too long. A single text is cut by all but [`Truncate::None`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// The first text of a pair.
    #[default]
    First,
    /// The second text of a pair.
    Second,
    /// No text: a long row is an error, or is cut into windows.
    None,
    /// The longer text of a pair, until both have the same length.
    Balanced,
}

impl fmt::Display for Truncate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
            Self::None => "none",
            Self::Balanced => "balanced",
        })
    }
}

/// The object of a tokenizer in a configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    do_lower_case: bool,
    with_special_tokens: bool,
    max_sequence_length: usize,
    truncate: Truncate,
    span: i32,
    add_prefix_space: bool,
    unk_token: String,
    pad_token: String,
    bos_token: String,
    eos_token: String,
    mask_token: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            do_lower_case: false,
            with_special_tokens: true,
            max_sequence_length: 512,
            truncate: Truncate::First,
            span: NO_SPAN,
            add_prefix_space: false,
            unk_token: "<unk>".into(),
            pad_token: "<pad>".into(),
            bos_token: "<s>".into(),
            eos_token: "</s>".into(),
            mask_token: "<mask>".into(),
        }
    }
}

impl Settings {
    /// Reads an object with one named tokenizer, such as `{"bert": {"max_sequence_length": 256}}`.
    ///
    /// # Errors
    /// When the object names no tokenizer of the server, or a setting has the wrong type.
    pub fn from_json(tokenization: &Value) -> Result<Self, serde_json::Error> {
        let invalid = |reason: String| <serde_json::Error as serde::de::Error>::custom(reason);
        let mut named = tokenization.as_object().into_iter().flatten();
        let (Some((name, settings)), None) = (named.next(), named.next()) else {
            return Err(invalid("the tokenization settings must name one tokenizer".into()));
        };
        let fields = Fields::deserialize(settings)?;
        let add_prefix_space = fields.add_prefix_space;
        let kind = match name.as_str() {
            "bert" => Kind::Bert,
            "bert_ja" => Kind::BertJa,
            "mpnet" => Kind::Mpnet,
            "roberta" => Kind::Roberta { add_prefix_space },
            "xlm_roberta" => Kind::XlmRoberta,
            "deberta_v2" => Kind::DebertaV2,
            "byte_level_bpe" => {
                let special = BpeTokens {
                    unknown: fields.unk_token,
                    pad: fields.pad_token,
                    begin: fields.bos_token,
                    end: fields.eos_token,
                    mask: fields.mask_token,
                };
                Kind::ByteLevelBpe { add_prefix_space, special }
            }
            other => return Err(invalid(format!("Elasticsearch has no tokenizer {other:?}"))),
        };
        Ok(Self {
            kind,
            do_lower_case: fields.do_lower_case,
            with_special_tokens: fields.with_special_tokens,
            max_sequence_length: fields.max_sequence_length,
            truncate: fields.truncate,
            span: fields.span,
        })
    }
}

impl Kind {
    /// The token that marks the word to predict.
    #[must_use]
    pub fn mask_token(&self) -> &str {
        match self {
            Self::Bert | Self::BertJa | Self::DebertaV2 => "[MASK]",
            Self::Mpnet | Self::Roberta { .. } | Self::XlmRoberta => "<mask>",
            Self::ByteLevelBpe { special, .. } => &special.mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_settings_have_the_servers_defaults() {
        let settings = Settings::from_json(&json!({"roberta": {"truncate": "balanced"}})).unwrap();
        assert_eq!(settings.kind, Kind::Roberta { add_prefix_space: false });
        assert_eq!((settings.max_sequence_length, settings.span), (512, NO_SPAN));
        assert_eq!((settings.truncate, settings.with_special_tokens), (Truncate::Balanced, true));
    }

    #[test]
    fn other_objects_are_refused() {
        for value in [
            json!({}),
            json!({"bert": {}, "mpnet": {}}),
            json!({"wordpiece": {}}),
            json!({"bert": {"span": "1"}}),
        ] {
            assert!(Settings::from_json(&value).is_err(), "{value}");
        }
    }
}
