//! Results of fill_mask.

use serde_json::{Map, Value};

use super::{InferenceError, Output, largest, softmax, with_classes};
use crate::server_tokenization::{Row, Tokenizer};

/// Checks that a text has the mask token exactly once, as the server demands.
pub(super) fn check(text: &str, tokenizer: &Tokenizer) -> Result<(), InferenceError> {
    let (mask, _) = tokenizer.mask();
    match text.matches(mask).count() {
        1 => Ok(()),
        0 => Err(InferenceError::Input(format!("no {mask} token could be found in the input"))),
        _ => Err(InferenceError::Input(format!("only one {mask} token should exist in the input"))),
    }
}

/// The most probable tokens for the mask.
pub(super) fn fill(
    output: &Output,
    row: &Row,
    text: &str,
    tokenizer: &Tokenizer,
    num_top_classes: usize,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let (mask, id) = tokenizer.mask();
    let position = id.and_then(|id| row.ids.iter().position(|other| *other == id));
    let Some(position) = position else {
        return Err(InferenceError::Input(format!(
            "the mask token {mask} is not among the tokens of the text"
        )));
    };
    let rows = output.rows()?;
    let Some(logits) = rows.get(position) else {
        return Err(InferenceError::Output(format!(
            "it has {} rows, and the mask is token {position}",
            rows.len()
        )));
    };
    let probabilities = softmax(logits);
    let mut classes = Vec::new();
    for id in largest(&probabilities, num_top_classes.max(1)) {
        let Some(token) = tokenizer.decoded(id) else {
            return Err(InferenceError::Output(format!(
                "token {id} is predicted, but the vocabulary has no such token"
            )));
        };
        classes.push((token, probabilities[id]));
    }
    let mut result = with_classes(field, &classes, num_top_classes)
        .ok_or_else(|| InferenceError::Output("it has no logits".into()))?;
    let best = classes.first().map_or("", |(token, _)| token.as_str());
    result.insert("predicted_sequence".into(), text.replace(mask, best).into());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server_tokenization::{NO_SPAN, Settings, Truncate};

    #[test]
    fn mask_is_replaced_by_the_best_token() {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "moon"];
        let settings = Settings::from_json(&json!({"bert": {}})).unwrap();
        let vocabulary = tokens.map(str::to_owned).to_vec();
        let tokenizer = Tokenizer::build(settings, vocabulary, &[], &[]).unwrap();
        let text = "sun [MASK]";
        let rows = tokenizer.single(text, Truncate::First, NO_SPAN).unwrap();
        let mut values = vec![0.; 4 * 7];
        (values[2 * 7 + 6], values[2 * 7 + 5]) = (9., 8.);
        let output = Output { sizes: [1, 4, 7], values };
        let result = fill(&output, &rows[0], text, &tokenizer, 2, "p").unwrap();
        assert_eq!(result["p"], "moon");
        assert_eq!(result["predicted_sequence"], "sun moon");
        assert_eq!(result["top_classes"][1]["class_name"], "sun");
        assert!(check("sun", &tokenizer).is_err() && check("[MASK][MASK]", &tokenizer).is_err());
    }
}
