//! Results that are the model's own numbers: pass_through, text_embedding, text_expansion, text_similarity (contract, 2.4 and 8).

use serde_json::{Map, Value, json};

use super::output::Output;
use crate::configuration::task::{Expansion, SpanScore};
use crate::errors::ApiError;
use crate::tokenization::Tokenizer;

/// The rows of the first entry.
pub(super) fn pass_through(output: &Output, field: &str) -> Map<String, Value> {
    one(field, json!(output.rows(0)))
}

/// The first row of the first entry.
pub(super) fn text_embedding(output: &Output, field: &str) -> Result<Map<String, Value>, ApiError> {
    match output.rows(0).first() {
        Some(row) => Ok(one(field, json!(row))),
        None => Err(ApiError::internal("text embedding result has no data")),
    }
}

/// Positive weights by token, heaviest first.
pub(super) fn text_expansion(
    output: &Output,
    expansion: Expansion,
    tokenizer: &Tokenizer,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let rows = output.rows(0);
    let Some(first) = rows.first() else {
        return Err(ApiError::internal("text expansion result has no data"));
    };
    let pooled = match expansion {
        Expansion::Elser => first.to_vec(),
        Expansion::Splade => (0..first.len())
            .map(|id| {
                let highest = rows.iter().map(|row| row[id]).fold(0.0, f64::max);
                highest.ln_1p()
            })
            .collect(),
    };
    let mut weights = Map::new();
    let mut heavy: Vec<_> =
        pooled.into_iter().enumerate().filter(|(_, weight)| *weight > 0.0).collect();
    heavy.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (id, weight) in heavy {
        let Some(token) = tokenizer.stored(id) else {
            return Err(ApiError::internal(format!(
                "the model's output has weight for token id [{id}], which the vocabulary does not have"
            )));
        };
        // A dot would be read as a path in a document.
        weights.insert(token.replace('.', "__"), weight.into());
    }
    Ok(one(field, weights.into()))
}

/// The score of a pair, over the windows of its second text.
pub(super) fn text_similarity(
    output: &Output,
    span_score: SpanScore,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let rows = output.rows(0);
    let mut scores = Vec::with_capacity(rows.len());
    for row in rows {
        let [score] = row[..] else {
            return Err(ApiError::internal(format!(
                "Expected exactly [1] value in text_similarity result; got [{}]",
                row.len()
            )));
        };
        scores.push(score);
    }
    if scores.is_empty() {
        return Err(ApiError::internal("text_similarity result has no data"));
    }
    let score = match span_score {
        SpanScore::Max => scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        SpanScore::Mean => scores.iter().sum::<f64>() / scores.len() as f64,
    };
    Ok(one(field, score.into()))
}

fn one(field: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(field.to_owned(), value)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::tokenization::Tokenization;
    use crate::tokenization::build;
    use crate::vocabulary::Vocabulary;

    #[test]
    fn numbers_are_handed_on() {
        let output = Output::new([1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(pass_through(&output, "p")["p"], json!([[1.0, 2.0], [3.0, 4.0]]));
        assert_eq!(text_embedding(&output, "p").unwrap()["p"], json!([1.0, 2.0]));
    }

    #[test]
    fn weights_are_positive_and_named_by_token() {
        let vocabulary = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "a.b"].map(str::to_owned).to_vec();
        let vocabulary = Vocabulary { vocabulary, ..Vocabulary::default() };
        let tokenizer = build(&Tokenization::default(), vocabulary).unwrap();
        let rows = [0.0, -1.0, 2.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0];
        let output = Output::new([1, 2, 5], &rows);
        let elser = text_expansion(&output, Expansion::Elser, &tokenizer, "p").unwrap();
        assert_eq!(elser["p"], json!({"[CLS]": 2.0, "a__b": 0.5}));
        assert_eq!(elser["p"].to_string(), r#"{"[CLS]":2.0,"a__b":0.5}"#);
        let splade = text_expansion(&output, Expansion::Splade, &tokenizer, "p").unwrap();
        assert_eq!(splade["p"], json!({"[CLS]": 2.0_f64.ln_1p(), "a__b": 1.0_f64.ln_1p()}));
        let wide = Output::new([1, 1, 6], &[1.0; 6]);
        assert!(text_expansion(&wide, Expansion::Elser, &tokenizer, "p").is_err());
    }

    #[test]
    fn windows_scores_become_one() {
        let output = Output::new([1, 2, 1], &[1.0, 4.0]);
        let score = |how| text_similarity(&output, how, "p").unwrap()["p"].clone();
        assert_eq!((score(SpanScore::Max), score(SpanScore::Mean)), (json!(4.0), json!(2.5)));
        let wide = Output::new([1, 1, 2], &[1.0, 4.0]);
        assert_eq!(
            text_similarity(&wide, SpanScore::Max, "p").unwrap_err().reason(),
            "Expected exactly [1] value in text_similarity result; got [2]"
        );
    }
}
