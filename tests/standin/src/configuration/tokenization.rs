//! Tokenization settings of a configuration (contract, 3.1 and 3.2).

use axum::http::StatusCode;
use rust_eland::server_tokenization::{BpeTokens, Kind, Settings};
pub(crate) use rust_eland::server_tokenization::{NO_SPAN, Truncate};
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::json::Object;
use crate::version::{Version, since};

/// Reads the setting `truncate`.
fn parse_truncate(text: &str, version: Version) -> Result<Truncate, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "first" => Ok(Truncate::First),
        "second" => Ok(Truncate::Second),
        "none" => Ok(Truncate::None),
        "balanced" if version >= since::BALANCED => Ok(Truncate::Balanced),
        _ => Err(ApiError::illegal_argument(format!(
            "No enum constant org.elasticsearch.xpack.core.ml.inference.trainedmodel.Tokenization.Truncate.{}",
            text.to_ascii_uppercase()
        ))),
    }
}

/// All settings, including defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tokenization {
    pub(crate) tokenizer: Kind,
    pub(crate) do_lower_case: bool,
    pub(crate) with_special_tokens: bool,
    pub(crate) max_sequence_length: usize,
    pub(crate) truncate: Truncate,
    /// Overlap of windows in tokens; -1 disables windows.
    pub(crate) span: i32,
}

impl Default for Tokenization {
    fn default() -> Self {
        Self {
            tokenizer: Kind::Bert,
            do_lower_case: false,
            with_special_tokens: true,
            max_sequence_length: 512,
            truncate: Truncate::First,
            span: NO_SPAN,
        }
    }
}

impl Tokenization {
    /// Parses an object with exactly one named tokenizer.
    pub(crate) fn parse(value: Value, version: Version) -> Result<Self, ApiError> {
        let mut outer = Object::new("tokenization", value)?;
        let Some((name, settings)) = outer.take_any() else {
            return Err(ApiError::parse("[1:1] [tokenization] expected a named tokenizer"));
        };
        outer.finish()?;
        Self::named(&name, settings, version)
    }

    fn named(name: &str, settings: Value, version: Version) -> Result<Self, ApiError> {
        let (parser, first_release) = match name {
            "bert" => ("bert_tokenization", None),
            "bert_ja" => ("bert_japanese_tokenization", Some(since::BERT_JA)),
            "mpnet" => ("mpnet_tokenization", Some(since::MPNET)),
            "roberta" => ("roberta_tokenization", Some(since::ROBERTA)),
            "xlm_roberta" => ("xlm_roberta_tokenization", Some(since::XLM_ROBERTA)),
            "deberta_v2" => ("deberta_v2_tokenization", Some(since::DEBERTA_V2)),
            "byte_level_bpe" => ("byte_level_bpe_tokenization", Some(since::BYTE_LEVEL_BPE)),
            _ => return Err(ApiError::unknown_object("Tokenization", name)),
        };
        if first_release.is_some_and(|release| version < release) {
            return Err(ApiError::unknown_object("Tokenization", name));
        }
        let mut fields = Object::new(parser, settings)?;
        let do_lower_case = fields.boolean("do_lower_case")?.unwrap_or(false);
        let with_special_tokens = fields.boolean("with_special_tokens")?.unwrap_or(true);
        let max_sequence_length = fields.int("max_sequence_length")?.unwrap_or(512);
        let truncate = match fields.string("truncate")? {
            Some(text) => parse_truncate(&text, version)
                .map_err(|error| error.while_parsing(parser, "truncate"))?,
            None => Truncate::First,
        };
        let span = fields.int("span")?.unwrap_or(NO_SPAN);
        let tokenizer = match name {
            "bert" => Kind::Bert,
            "bert_ja" => Kind::BertJa,
            "mpnet" => Kind::Mpnet,
            "roberta" => Kind::Roberta {
                add_prefix_space: fields.boolean("add_prefix_space")?.unwrap_or(false),
            },
            "xlm_roberta" => Kind::XlmRoberta,
            "deberta_v2" => Kind::DebertaV2,
            _ => {
                let add_prefix_space = fields.boolean("add_prefix_space")?.unwrap_or(false);
                let mut token = |field: &str, default: &str| -> Result<String, ApiError> {
                    let supplied = fields.string(field)?.filter(|token| !token.trim().is_empty());
                    Ok(supplied.unwrap_or_else(|| default.to_owned()))
                };
                let special = BpeTokens {
                    unknown: token("unk_token", "<unk>")?,
                    pad: token("pad_token", "<pad>")?,
                    begin: token("bos_token", "<s>")?,
                    end: token("eos_token", "</s>")?,
                    mask: token("mask_token", "<mask>")?,
                };
                Kind::ByteLevelBpe { add_prefix_space, special }
            }
        };
        fields.finish()?;

        let built = |rule: ApiError| rule.caused(not_built(parser));
        if do_lower_case {
            let refusing = match tokenizer {
                Kind::Roberta { .. } => Some("roberta"),
                Kind::XlmRoberta => Some("XLMRoberta"),
                Kind::ByteLevelBpe { .. } => Some("byte_level_bpe"),
                _ => None,
            };
            if let Some(refusing) = refusing {
                return Err(built(ApiError::bad_request(format!(
                    "unable to set [do_lower_case] to [true] for {refusing} tokenizer"
                ))));
            }
        }
        if max_sequence_length <= 0 {
            return Err(built(ApiError::bad_request("[max_sequence_length] must be positive")));
        }
        check_span(truncate, span).map_err(built)?;
        if span > max_sequence_length {
            return Err(built(ApiError::bad_request(format!(
                "[span] provided [{span}] must not be greater than [max_sequence_length] provided [{max_sequence_length}]"
            ))));
        }
        Ok(Self {
            tokenizer,
            do_lower_case,
            with_special_tokens,
            max_sequence_length: usize::try_from(max_sequence_length).unwrap_or(usize::MAX),
            truncate,
            span,
        })
    }

    /// Key of the settings in a configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self.tokenizer {
            Kind::Bert => "bert",
            Kind::BertJa => "bert_ja",
            Kind::Mpnet => "mpnet",
            Kind::Roberta { .. } => "roberta",
            Kind::XlmRoberta => "xlm_roberta",
            Kind::DebertaV2 => "deberta_v2",
            Kind::ByteLevelBpe { .. } => "byte_level_bpe",
        }
    }

    /// The settings as the program's own tokenization takes them.
    pub(crate) fn library_settings(&self) -> Settings {
        Settings {
            kind: self.tokenizer.clone(),
            do_lower_case: self.do_lower_case,
            with_special_tokens: self.with_special_tokens,
            max_sequence_length: self.max_sequence_length,
            truncate: self.truncate,
            span: self.span,
        }
    }

    /// Mask token of the tokenizer.
    pub(crate) fn mask_token(&self) -> &str {
        self.tokenizer.mask_token()
    }

    /// All settings as returned by the server, including defaults.
    pub(crate) fn to_json(&self) -> Value {
        let mut settings = json!({
            "do_lower_case": self.do_lower_case,
            "with_special_tokens": self.with_special_tokens,
            "max_sequence_length": self.max_sequence_length,
            "truncate": self.truncate.to_string(),
            "span": self.span,
        });
        match &self.tokenizer {
            Kind::Roberta { add_prefix_space } => {
                settings["add_prefix_space"] = (*add_prefix_space).into();
            }
            Kind::ByteLevelBpe { add_prefix_space, special } => {
                settings["add_prefix_space"] = (*add_prefix_space).into();
                settings["unk_token"] = special.unknown.clone().into();
                settings["pad_token"] = special.pad.clone().into();
                settings["bos_token"] = special.begin.clone().into();
                settings["eos_token"] = special.end.clone().into();
                settings["mask_token"] = special.mask.clone().into();
            }
            _ => {}
        }
        json!({ self.name(): settings })
    }

    /// Checks that a vocabulary has the fields required by this tokenizer (contract, 5).
    pub(crate) fn check_vocabulary(
        &self,
        model_id: &str,
        merges: &[String],
        scores: &[f64],
    ) -> Result<(), ApiError> {
        let missing = match self.tokenizer {
            Kind::Roberta { .. } | Kind::ByteLevelBpe { .. } if merges.is_empty() => "merges",
            Kind::XlmRoberta if scores.is_empty() => "scores",
            _ => return Ok(()),
        };
        Err(ApiError::status(
            StatusCode::BAD_REQUEST,
            format!(
                "cannot put vocabulary for model [{model_id}] as tokenizer type [{}] requires [{missing}] to be provided and non-empty",
                self.name()
            ),
        ))
    }

    /// These settings with the `truncate` and `span` of an inference request (contract, 8).
    pub(crate) fn updated(&self, value: Value, version: Version) -> Result<Self, ApiError> {
        let mut outer = Object::new("tokenization", value)?;
        let Some((name, settings)) = outer.take_any() else {
            return Err(ApiError::parse("[1:1] [tokenization] expected a named tokenizer"));
        };
        outer.finish()?;
        if name != self.name() {
            return Err(ApiError::bad_request(format!(
                "Tokenization type mismatch: the model's tokenizer is [{}] but the update is for [{name}]",
                self.name()
            )));
        }
        let mut fields = Object::new("tokenization_update", settings)?;
        let truncate = fields.string("truncate")?;
        let span = fields.int("span")?;
        fields.finish()?;
        let mut updated = self.clone();
        if let Some(text) = truncate {
            updated.truncate = parse_truncate(&text, version)?;
            if updated.truncate != Truncate::None {
                updated.span = NO_SPAN;
            }
        }
        if let Some(span) = span {
            updated.span = span;
        }
        check_span(updated.truncate, updated.span)?;
        Ok(updated)
    }
}

fn check_span(truncate: Truncate, span: i32) -> Result<(), ApiError> {
    if span < NO_SPAN {
        return Err(ApiError::bad_request(
            "[span] must be non-negative to indicate span length or [-1] to indicate no windowing should occur",
        ));
    }
    if span != NO_SPAN && truncate != Truncate::None {
        return Err(ApiError::bad_request(format!(
            "[span] must not be provided when [truncate] is [{truncate}]"
        )));
    }
    Ok(())
}

/// Wraps a validation error of the parsed object in the exception of its parser.
pub(super) fn not_built(parser: &str) -> ApiError {
    ApiError::parse(format!("[1:1] Failed to build [{parser}] after last required field arrived"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Tokenization, ApiError> {
        Tokenization::parse(value, Version::default())
    }

    fn complaint(value: Value) -> String {
        parse(value).unwrap_err().everything()
    }

    #[test]
    fn defaults_are_returned() {
        let settings = parse(json!({"bert": {}})).unwrap();
        assert_eq!(settings, Tokenization::default());
        assert_eq!(
            settings.to_json(),
            json!({"bert": {"do_lower_case": false, "with_special_tokens": true,
                "max_sequence_length": 512, "truncate": "first", "span": -1}})
        );
        let echoed = parse(json!({"roberta": {"add_prefix_space": true}})).unwrap().to_json();
        assert_eq!(echoed["roberta"]["add_prefix_space"], true);
    }

    #[test]
    fn invalid_tokenization_is_rejected_with_the_contract_message() {
        for (settings, text) in [
            (json!({"roberta": {"do_lower_case": true}}), "to [true] for roberta tokenizer"),
            (json!({"xlm_roberta": {"do_lower_case": true}}), "to [true] for XLMRoberta tokenizer"),
            (json!({"bert": {"max_sequence_length": 0}}), "[max_sequence_length] must be positive"),
            (json!({"bert": {"span": -2}}), "[span] must be non-negative"),
            (
                json!({"bert": {"span": 10}}),
                "[span] must not be provided when [truncate] is [first]",
            ),
            (
                json!({"bert": {"span": 10, "truncate": "none", "max_sequence_length": 9}}),
                "[span] provided [10] must not be greater than [max_sequence_length] provided [9]",
            ),
            (json!({"bert": {"truncate": "last"}}), "No enum constant"),
            (json!({"bert": {"lower": true}}), "[bert_tokenization] unknown field [lower]"),
            (json!({"bert": {"add_prefix_space": true}}), "unknown field [add_prefix_space]"),
            (json!({"wordpiece": {}}), "unable to parse Tokenization with name [wordpiece]"),
            (json!({"bert": {}, "mpnet": {}}), "unknown field [mpnet]"),
        ] {
            let complaint = complaint(settings);
            assert!(complaint.contains(text), "{complaint}");
        }
    }

    #[test]
    fn tokenizer_is_unknown_before_its_version() {
        let old = Version::new(8, 8, 2);
        assert!(Tokenization::parse(json!({"xlm_roberta": {}}), old).is_err());
        assert!(Tokenization::parse(json!({"roberta": {}}), old).is_ok());
        assert!(Tokenization::parse(json!({"deberta_v2": {}}), Version::new(8, 15, 0)).is_err());
    }

    #[test]
    fn update_changes_truncation_only() {
        let base = parse(json!({"bert": {"truncate": "none", "span": 16}})).unwrap();
        let update = |value| base.updated(value, Version::default());
        let first = update(json!({"bert": {"truncate": "first"}})).unwrap();
        assert_eq!((first.truncate, first.span), (Truncate::First, NO_SPAN));
        assert_eq!(update(json!({"bert": {"span": 8}})).unwrap().span, 8);
        assert!(update(json!({"mpnet": {"span": 8}})).is_err());
        assert!(update(json!({"bert": {"do_lower_case": true}})).is_err());
        assert!(update(json!({"bert": {"truncate": "first", "span": 8}})).is_err());
    }
}
