//! Results of fill_mask (contract, 8).

use serde_json::{Map, Value};

use super::output::Output;
use super::probabilities::{ranked, softmax, top_class};
use crate::errors::ApiError;
use crate::tokenization::{Row, Tokenizer};

/// A text must have the mask token exactly once.
pub(super) fn check_text(text: &str, tokenizer: &Tokenizer) -> Result<(), ApiError> {
    let (mask, _) = tokenizer.mask();
    match text.matches(mask).count() {
        0 => Err(ApiError::bad_request(format!("no {mask} token could be found in the input"))),
        1 => Ok(()),
        _ => Err(ApiError::bad_request(format!("only one {mask} token should exist in the input"))),
    }
}

/// The most probable tokens in the mask's place.
pub(super) fn fill_mask(
    output: &Output,
    row: &Row,
    text: &str,
    tokenizer: &Tokenizer,
    num_top_classes: i32,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let (mask, id) = tokenizer.mask();
    let Some(id) = id else {
        return Err(ApiError::conflict(format!(
            "The token id for the mask token {mask} is not known in the tokenizer. Check the vocabulary contains the mask token"
        )));
    };
    let Some(position) = row.ids.iter().position(|token| *token == id) else {
        return Err(ApiError::internal(format!(
            "mask token id [{id}] not found in the tokenization"
        )));
    };
    let rows = output.rows(0);
    let Some(logits) = rows.get(position) else {
        return Err(ApiError::internal(format!(
            "the model's output has [{}] rows and the mask is in row [{position}]",
            rows.len()
        )));
    };
    let probabilities = softmax(logits);
    let wanted = usize::try_from(num_top_classes).unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    for id in ranked(&probabilities).into_iter().take(wanted.max(1)) {
        let token = tokenizer.decoded(id).ok_or_else(|| {
            ApiError::internal(format!(
                "the model predicts token id [{id}], which the vocabulary does not have"
            ))
        })?;
        entries.push((token, probabilities[id]));
    }
    let Some((best, probability)) = entries.first() else {
        return Err(ApiError::internal("fill mask result has no data"));
    };
    let mut result = Map::new();
    result.insert(field.to_owned(), best.clone().into());
    if wanted > 0 {
        let top: Vec<Value> =
            entries.iter().map(|(token, probability)| top_class(token, *probability)).collect();
        result.insert("top_classes".into(), top.into());
    }
    result.insert("prediction_probability".into(), (*probability).into());
    result.insert("predicted_sequence".into(), text.replace(mask, best).into());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::tokenization::{NO_SPAN, Tokenization, Truncate};
    use crate::tokenization::build;
    use crate::vocabulary::Vocabulary;

    #[test]
    fn mask_is_filled_with_the_best_token() {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "##s"];
        let vocabulary =
            Vocabulary { vocabulary: tokens.map(str::to_owned).to_vec(), ..Vocabulary::default() };
        let tokenizer = build(&Tokenization::default(), vocabulary).unwrap();
        let text = "sun [MASK]!";
        let rows = tokenizer.single(text, Truncate::First, NO_SPAN).unwrap();
        assert_eq!(rows[0].ids, [2, 5, 4, 1, 3]);
        let mut logits = vec![0.0; 5 * 7];
        logits[2 * 7 + 6] = 50.0;
        logits[2 * 7 + 5] = 40.0;
        let output = Output::new([1, 5, 7], &logits);
        let result = fill_mask(&output, &rows[0], text, &tokenizer, 2, "p").unwrap();
        assert_eq!(result["p"], "s");
        assert_eq!(result["predicted_sequence"], "sun s!");
        assert_eq!(result["top_classes"].as_array().unwrap().len(), 2);
        assert_eq!(result["top_classes"][1]["class_name"], "sun");
        assert!(check_text(text, &tokenizer).is_ok());
        assert!(check_text("sun", &tokenizer).is_err());
        assert!(check_text("[MASK] [MASK]", &tokenizer).is_err());
    }
}
