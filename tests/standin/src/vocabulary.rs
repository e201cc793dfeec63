//! `PUT /_ml/trained_models/{id}/vocabulary` (contract, 5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::ApiError;
use crate::json::Object;
use crate::version::{Version, since};

const PARSER: &str = "put_trained_model_vocabulary_action";

/// A stored vocabulary. The id of a token is its position.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Tokens in the order of their ids.
    pub vocabulary: Vec<String>,
    /// Merges of a BPE tokenizer in the form `a b`, in order of priority.
    #[serde(default)]
    pub merges: Vec<String>,
    /// Scores of a unigram tokenizer, one per token.
    #[serde(default)]
    pub scores: Vec<f64>,
}

impl Vocabulary {
    /// Parses and validates a new vocabulary.
    pub(crate) fn parse(body: Value, version: Version) -> Result<Self, ApiError> {
        let mut fields = Object::new(PARSER, body)?;
        let vocabulary = fields.strings("vocabulary")?;
        let merges = if version >= since::ROBERTA { fields.strings("merges")? } else { None };
        let scores = if version >= since::XLM_ROBERTA { fields.numbers("scores")? } else { None };
        fields.finish()?;
        let Some(vocabulary) = vocabulary else {
            return Err(ApiError::illegal_argument("[vocabulary] must not be null."));
        };
        let (merges, scores) = (merges.unwrap_or_default(), scores.unwrap_or_default());
        let mut complaints = Vec::new();
        if vocabulary.is_empty() {
            complaints.push("[vocabulary] must not be empty".to_owned());
        } else if !scores.is_empty() && scores.len() != vocabulary.len() {
            complaints.push("[scores] must have same length as [vocabulary]".to_owned());
        }
        if complaints.is_empty() {
            Ok(Self { vocabulary, merges, scores })
        } else {
            Err(ApiError::validation(&complaints))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn invalid_vocabulary_is_rejected_with_the_contract_message() {
        for (body, text) in [
            (json!({}), "[vocabulary] must not be null."),
            (json!({"vocabulary": []}), "[vocabulary] must not be empty"),
            (json!({"vocabulary": ["a", 1]}), "vocabulary doesn't support values of type"),
            (
                json!({"vocabulary": ["a", "b"], "scores": [0.5]}),
                "[scores] must have same length as [vocabulary]",
            ),
            (json!({"vocabulary": ["a"], "tokens": []}), "unknown field [tokens]"),
        ] {
            let complaint = Vocabulary::parse(body, Version::default()).unwrap_err().everything();
            assert!(complaint.contains(text), "{complaint}");
        }
        let scored = json!({"vocabulary": ["a"], "scores": [0], "merges": ["a b"]});
        assert_eq!(Vocabulary::parse(scored.clone(), Version::default()).unwrap().scores, [0.0]);
        assert!(Vocabulary::parse(scored, Version::new(8, 8, 0)).is_err());
    }
}
