//! Vocabularies in the format of the upload, written by other tools.

use std::collections::HashSet;

use serde::Deserialize;

use super::ids::some_of;
use super::{TokenizerError, TokenizerKind, byte_level};
use crate::vocabulary::Vocabulary;

/// Body of the request, parsed as strictly as by the server (contract 5).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    vocabulary: Vec<String>,
    #[serde(default)]
    merges: Option<Vec<String>>,
    #[serde(default)]
    scores: Option<Vec<f64>>,
}

/// Parses a vocabulary and validates it for a tokenizer. Returns the vocabulary and warnings.
///
/// # Errors
/// [`TokenizerError`] if the server would reject the vocabulary, or the tokenizer cannot be created from it.
pub fn read_vocabulary(
    json: &[u8],
    kind: TokenizerKind,
    with_special_tokens: bool,
) -> Result<(Vocabulary, Vec<String>), TokenizerError> {
    const FILE: &str = "the vocabulary";
    let broken = |reason: String| TokenizerError::Broken { file: FILE, reason };
    let Body { vocabulary, merges, scores } =
        serde_json::from_slice(json).map_err(|error| broken(error.to_string()))?;
    let merges = merges.filter(|merges| !merges.is_empty());
    let scores = scores.filter(|scores| !scores.is_empty());
    if vocabulary.is_empty() {
        return Err(TokenizerError::Empty(FILE));
    }
    let mut warnings = Vec::new();
    let known: HashSet<&str> = vocabulary.iter().map(String::as_str).collect();
    match (&merges, kind) {
        (None, TokenizerKind::Roberta) => return Err(TokenizerError::NoMerges(kind.name())),
        (Some(merges), _) => {
            if let Some(odd) = merges.iter().find(|merge| merge.split(' ').count() != 2) {
                return Err(broken(format!("the merge {odd:?} does not consist of two tokens")));
            }
            let unknown = byte_level::unknown(merges, |token| known.contains(token));
            if 2 * unknown.len() > merges.len() {
                let (unknown, merges) = (unknown.len(), merges.len());
                return Err(TokenizerError::Merges { unknown, merges });
            }
            warnings.extend(some_of(&unknown).map(|some| {
                format!("merges with tokens that the vocabulary does not contain; texts with such a token get <unk>: {some}")
            }));
        }
        _ => (),
    }
    match (&scores, kind) {
        (None, TokenizerKind::XlmRoberta | TokenizerKind::DebertaV2) => {
            return Err(broken(format!("it has no scores, which {} needs", kind.name())));
        }
        (Some(scores), _) if scores.len() != vocabulary.len() => {
            return Err(broken(format!(
                "it has {} scores for {} tokens",
                scores.len(),
                vocabulary.len()
            )));
        }
        _ => (),
    }
    let tokens = kind.tokens();
    let mut wanted = vec![tokens.unknown, tokens.padding];
    if with_special_tokens {
        wanted.extend([tokens.class, tokens.separator]);
    }
    let missing: Vec<_> = wanted.into_iter().filter(|token| !known.contains(token)).collect();
    if !missing.is_empty() {
        return Err(TokenizerError::MissingTokens { kind: kind.name(), missing });
    }
    if known.len() < vocabulary.len() {
        let mut seen = HashSet::new();
        let twice: Vec<String> = vocabulary
            .iter()
            .filter(|token| !seen.insert(token.as_str()))
            .map(|token| format!("{token:?}"))
            .collect();
        warnings.extend(some_of(&twice).map(|some| {
            format!("the vocabulary contains tokens more than once, and Elasticsearch uses the last position of each: {some}")
        }));
    }
    Ok((Vocabulary { vocabulary: vocabulary.into(), merges, scores }, warnings))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value, kind: TokenizerKind) -> Result<Vec<String>, String> {
        read_vocabulary(body.to_string().as_bytes(), kind, true)
            .map(|(_, warnings)| warnings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn vocabulary_unusable_by_the_server_is_rejected() {
        let bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"];
        assert_eq!(read(&json!({ "vocabulary": bert }), TokenizerKind::Bert), Ok(vec![]));
        let twice = json!({"vocabulary": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a"]});
        assert!(read(&twice, TokenizerKind::Bert).unwrap()[0].contains("more than once"));
        let roberta = ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "ab"];
        let merged = |merges: &[&str]| json!({"vocabulary": roberta, "merges": merges});
        assert_eq!(read(&merged(&["a b"]), TokenizerKind::Roberta), Ok(vec![]));
        let some = read(&merged(&["a b", "a c"]), TokenizerKind::Roberta).unwrap();
        assert!(some[0].ends_with("get <unk>: a c"), "{some:?}");
        for (body, kind, part) in [
            (json!({"vocabulary": []}), TokenizerKind::Bert, "no tokens"),
            (json!({"vocabulary": ["a", 1]}), TokenizerKind::Bert, "expected a string"),
            (json!({"tokens": bert}), TokenizerKind::Bert, "unknown field"),
            (json!({"vocabulary": ["a"]}), TokenizerKind::Bert, "[UNK]"),
            (json!({ "vocabulary": bert }), TokenizerKind::MpNet, "<pad>"),
            (merged(&[]), TokenizerKind::Roberta, "no merges"),
            (merged(&["ab"]), TokenizerKind::Roberta, "two tokens"),
            (merged(&["a c"]), TokenizerKind::Roberta, "1 of the 1 merges"),
            (json!({ "vocabulary": roberta }), TokenizerKind::XlmRoberta, "no scores"),
            (
                json!({"vocabulary": roberta, "scores": [0.5]}),
                TokenizerKind::XlmRoberta,
                "1 scores for 7",
            ),
        ] {
            let reason = read(&body, kind).unwrap_err();
            assert!(reason.contains(part), "{body}: {reason}");
        }
    }
}
