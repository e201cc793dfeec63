//! Results that are numbers of the graph: matrices, vectors, weights of tokens and scores.

use serde_json::{Map, Value, json};

use super::{InferenceError, Output};
use crate::server_tokenization::Tokenizer;

fn only(field: &str, value: Value) -> Map<String, Value> {
    [(field.to_owned(), value)].into_iter().collect()
}

/// `pass_through`: the first matrix.
pub(super) fn matrix(output: &Output, field: &str) -> Result<Map<String, Value>, InferenceError> {
    Ok(only(field, json!(output.rows()?)))
}

/// `text_embedding`: the first row.
pub(super) fn vector(output: &Output, field: &str) -> Result<Map<String, Value>, InferenceError> {
    Ok(only(field, json!(output.rows()?.first())))
}

/// `text_similarity`: the maximum or the mean of the scores of all windows.
pub(super) fn score(
    output: &Output,
    is_mean: bool,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let rows = output.rows()?;
    let mut scores = Vec::new();
    for row in rows {
        match row {
            [score] => scores.push(*score),
            _ => {
                return Err(InferenceError::Output(format!(
                    "a score is one number, not {}",
                    row.len()
                )));
            }
        }
    }
    let score = if is_mean {
        scores.iter().sum::<f64>() / scores.len() as f64
    } else {
        scores.into_iter().fold(f64::NEG_INFINITY, f64::max)
    };
    Ok(only(field, score.into()))
}

/// `text_expansion`: the tokens with a positive weight, heaviest first.
pub(super) fn weights(
    output: &Output,
    is_splade: bool,
    tokenizer: &Tokenizer,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let rows = output.rows()?;
    let mut weights = rows.first().map(|row| row.to_vec()).unwrap_or_default();
    if is_splade {
        for (id, weight) in weights.iter_mut().enumerate() {
            let largest = rows.iter().filter_map(|row| row.get(id)).copied().fold(0., f64::max);
            *weight = largest.ln_1p();
        }
    }
    let mut heavy: Vec<(usize, f64)> =
        weights.into_iter().enumerate().filter(|(_, weight)| *weight > 0.).collect();
    heavy.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut named = Map::new();
    for (id, weight) in heavy {
        let Some(token) = tokenizer.stored(id) else {
            return Err(InferenceError::Output(format!(
                "token {id} has a weight, but the vocabulary has no such token"
            )));
        };
        // A dot would separate the names of nested fields.
        named.insert(token.replace('.', "__"), weight.into());
    }
    Ok(only(field, named.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_tokenization::Settings;

    #[test]
    fn token_weights_are_sorted_and_pooled() {
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a.b"].map(str::to_owned).to_vec();
        let settings = Settings::from_json(&json!({"bert": {}})).unwrap();
        let tokenizer = Tokenizer::build(settings, vocabulary, &[], &[]).unwrap();
        let values = vec![0., -1., 0.5, 0., 2., 0., 0., 1., 0., 0.];
        let output = Output { sizes: [1, 2, 5], values };
        let named = |is_splade| {
            let result = weights(&output, is_splade, &tokenizer, "w").unwrap();
            let tokens = result["w"].as_object().unwrap();
            tokens.iter().map(|(token, w)| (token.clone(), w.as_f64().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(named(false), [("a__b".to_owned(), 2.), ("[CLS]".to_owned(), 0.5)]);
        assert_eq!(named(true)[1], ("[CLS]".to_owned(), 1f64.ln_1p()));
        let wide = Output { sizes: [1, 1, 6], values: vec![1.; 6] };
        assert!(weights(&wide, false, &tokenizer, "w").is_err());
    }

    #[test]
    fn score_of_windows_is_the_maximum_or_the_mean() {
        let output = Output { sizes: [1, 2, 1], values: vec![-1., 3.] };
        assert_eq!(score(&output, false, "s").unwrap()["s"], json!(3.0));
        assert_eq!(score(&output, true, "s").unwrap()["s"], json!(1.0));
        assert!(score(&Output { sizes: [1, 1, 2], values: vec![1., 2.] }, false, "s").is_err());
    }
}
