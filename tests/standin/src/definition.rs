//! `PUT /_ml/trained_models/{id}/definition/{part}`, and the checks of a start on the parts (contract, 4).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::errors::ApiError;
use crate::json;

const PARSER: &str = "put_trained_model_definition_part_action";

/// Highest number of parts of a definition.
const MAX_PARTS: i64 = 10_000;

/// A decoded and validated part of a definition.
#[derive(Debug)]
pub(crate) struct NewPart {
    pub(crate) number: u32,
    pub(crate) is_last: bool,
    pub(crate) total_length: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Body of the request. `definition` is borrowed to avoid a copy of the part.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    definition: Option<Cow<'a, str>>,
    total_definition_length: Option<i64>,
    total_parts: Option<i64>,
}

impl NewPart {
    /// Parses and validates a part.
    pub(crate) fn parse(part: &str, body: &[u8]) -> Result<Self, ApiError> {
        let Ok(number) = part.parse::<i32>() else {
            return Err(ApiError::illegal_argument(format!("For input string: \"{part}\"")));
        };
        let body: Body<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let Some(definition) = body.definition else {
            return Err(ApiError::illegal_argument("[definition] must not be null."));
        };
        let bytes = STANDARD.decode(definition.as_bytes()).map_err(|error| {
            ApiError::illegal_argument(format!("Failed to decode VALUE_STRING as base64: {error}"))
                .while_parsing(PARSER, "definition")
        })?;
        let number = i64::from(number);
        let total_length = body.total_definition_length.unwrap_or(0);
        let total_parts = body.total_parts.unwrap_or(0);

        let mut complaints = Vec::new();
        let mut check = |holds: bool, complaint: String| {
            if !holds {
                complaints.push(complaint);
            }
        };
        check(number >= 0, "[part] must be greater or equal to 0".into());
        check(total_parts > 0, "[total_parts] must be greater than 0".into());
        check(
            total_parts <= MAX_PARTS,
            format!("[total_parts] must be less than or equal to {MAX_PARTS}"),
        );
        check(total_length > 0, "[total_definition_length] must be greater than 0".into());
        check(number < total_parts, "[part] must be less than total_parts".into());
        if !complaints.is_empty() {
            return Err(ApiError::validation(&complaints));
        }
        if bytes.is_empty() {
            return Err(ApiError::illegal_argument("[definition_length] must be greater than 0"));
        }
        Ok(Self {
            number: u32::try_from(number).unwrap_or_default(),
            is_last: number == total_parts - 1,
            total_length: total_length.unsigned_abs(),
            bytes,
        })
    }
}

/// Body of a part for the log: the bytes are replaced by their length and SHA-256.
pub(crate) fn described(body: &[u8]) -> Option<Value> {
    let mut described: Value = serde_json::from_slice(body).ok()?;
    let bytes = STANDARD.decode(described.get("definition")?.as_str()?).ok()?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    described["definition"] = json!({"length": bytes.len(), "sha256": sha256});
    Some(described)
}

/// The server's message for an error of serde.
fn unreadable(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    match text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        Some(name) => json::unknown_field(PARSER, name),
        None => json::malformed(error),
    }
}

/// A stored and visible part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) number: u32,
    pub(crate) length: u64,
    pub(crate) total_length: u64,
}

/// Checks that the parts, in order, form a complete definition. The error is the one that a start returns (contract, 4.3 and 7.2).
pub(crate) fn check_complete(model_id: &str, parts: &[StoredPart]) -> Result<u64, ApiError> {
    let Some(first) = parts.first() else {
        return Err(ApiError::not_found(format!(
            "Could not find trained model definition [{model_id}]"
        )));
    };
    if let Some(other) = parts.iter().find(|part| part.total_length != first.total_length) {
        return Err(ApiError::bad_request(format!(
            "[{model_id}] [total_definition_length] must be the same in all model definition parts. The value [{}] in model definition part [{}] does not match the value [{}] in part [{}]. unable to deploy [{model_id}]",
            first.total_length, first.number, other.total_length, other.number
        )));
    }
    let sum: u64 = parts.iter().map(|part| part.length).sum();
    if sum != first.total_length {
        return Err(ApiError::bad_request(format!(
            "Model definition truncated. Unable to deserialize trained model definition [{model_id}]"
        )));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_decoded() {
        let body = br#"{"definition":"YWJj","total_definition_length":7,"total_parts":3}"#;
        let part = NewPart::parse("2", body).unwrap();
        assert_eq!((part.number, part.is_last, part.total_length), (2, true, 7));
        assert_eq!(part.bytes, b"abc");
        assert!(!NewPart::parse("1", body).unwrap().is_last);
    }

    #[test]
    fn invalid_part_is_rejected_with_the_contract_message() {
        let body = |definition: &str, length: i64, parts: i64| {
            format!(
                r#"{{"definition":"{definition}","total_definition_length":{length},"total_parts":{parts}}}"#
            )
        };
        for (part, body, text) in [
            ("x", body("YQ==", 1, 1), "For input string: \"x\""),
            ("-1", body("YQ==", 1, 1), "[part] must be greater or equal to 0"),
            ("0", body("YQ==", 1, 0), "[total_parts] must be greater than 0"),
            ("0", body("YQ==", 1, 10_001), "[total_parts] must be less than or equal to 10000"),
            ("0", body("YQ==", 0, 1), "[total_definition_length] must be greater than 0"),
            ("1", body("YQ==", 1, 1), "[part] must be less than total_parts"),
            ("0", body("", 1, 1), "[definition_length] must be greater than 0"),
            ("0", body("YQ", 1, 1), "failed to parse field [definition]"),
            ("0", body("YQ==\\n", 1, 1), "failed to parse field [definition]"),
            ("0", body("Y_==", 1, 1), "failed to parse field [definition]"),
            (
                "0",
                r#"{"total_definition_length":1,"total_parts":1}"#.into(),
                "[definition] must not be null.",
            ),
            ("0", r#"{"definition":"YQ==","eos":true}"#.into(), "unknown field [eos]"),
            ("0", r#"{"definition":"YQ==","definition":"YQ=="}"#.into(), "duplicate field"),
        ] {
            let complaint = NewPart::parse(part, body.as_bytes()).unwrap_err().everything();
            assert!(complaint.contains(text), "{complaint}");
        }
    }

    #[test]
    fn definition_is_complete_when_its_lengths_add_up() {
        let part = |number, length, total_length| StoredPart { number, length, total_length };
        assert_eq!(check_complete("m", &[part(0, 3, 7), part(5, 4, 7)]), Ok(7));
        let complaint = |parts: &[StoredPart]| check_complete("m", parts).unwrap_err().everything();
        assert_eq!(complaint(&[]), "Could not find trained model definition [m]");
        assert!(complaint(&[part(0, 3, 7)]).contains("Model definition truncated."));
        assert!(complaint(&[part(0, 3, 7), part(1, 4, 8)]).contains("must be the same in all"));
    }
}
