//! Results of question answering (contract, 8).
//!
//! The graph gives [2, 1, tokens] for each window: start logits, then end logits. The windows' outputs lie behind each other. Releases
//! before 8.9, which evaluate all windows in one call, get [2, windows, tokens].

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::output::Output;
use super::utf16;
use crate::errors::ApiError;
use crate::tokenization::Row;

/// A span of tokens of one window's text.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Answer {
    window: usize,
    first: usize,
    last: usize,
    score: f64,
}

/// The best spans of the text.
pub(super) fn question_answering(
    output: &Output,
    rows: &[Row],
    text: &str,
    num_top_classes: i32,
    max_answer_length: i32,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let [outer, inner, width] = output.sizes;
    if outer == 0 {
        return Err(ApiError::internal("question answering result has no data"));
    }
    if !outer.is_multiple_of(2) {
        return Err(ApiError::internal(format!(
            "question answering result has invalid dimension, number of dimensions must be a multiple of 2 found [{outer}]"
        )));
    }
    if outer / 2 * inner != rows.len() || (outer > 2 && inner > 1) {
        return Err(ApiError::internal(format!(
            "question answering result has invalid dimensions; the number of spans [{}] does not match batched token size [{}]",
            outer / 2 * inner,
            rows.len()
        )));
    }
    // Either factor is 1, so this is the window's pair in both layouts.
    let logits =
        |window: usize, which: usize| output.rows(window / inner * 2 + which)[window % inner];
    let wanted = usize::try_from(num_top_classes).unwrap_or(0);
    let longest = usize::try_from(max_answer_length).unwrap_or(0);
    let mut answers = Vec::new();
    for (window, row) in rows.iter().enumerate() {
        if width < row.ids.len() {
            return Err(ApiError::internal(format!(
                "question answering result has invalid dimensions; [{width}] logits for [{}] tokens",
                row.ids.len()
            )));
        }
        let start = probabilities(logits(window, 0), row);
        let end = probabilities(logits(window, 1), row);
        let tokens = row.tokens.len();
        for first in 0..tokens {
            for last in first..tokens.min(first + longest) {
                let score = start[row.offset + first] * end[row.offset + last];
                answers.push(Answer { window, first, last, score });
            }
        }
    }
    answers.sort_by(|a, b| b.score.total_cmp(&a.score));
    let entries: Vec<Value> = answers
        .iter()
        .take(wanted.max(1))
        .map(|answer| {
            let tokens = &rows[answer.window].tokens;
            let place = tokens[answer.first].place.start..tokens[answer.last].place.end;
            json!({
                "answer": text[place.clone()],
                "score": answer.score,
                "start_offset": utf16(text, place.start),
                "end_offset": utf16(text, place.end),
            })
        })
        .collect();
    // The server takes the first token of a text that has none.
    let Some(best) = entries.first() else {
        return Err(ApiError::exception(
            StatusCode::INTERNAL_SERVER_ERROR,
            "index_out_of_bounds_exception",
            "Index 0 out of bounds for length 0",
        ));
    };
    let mut result = Map::new();
    result.insert(field.to_owned(), best["answer"].clone());
    result.insert("start_offset".into(), best["start_offset"].clone());
    result.insert("end_offset".into(), best["end_offset"].clone());
    result.insert("prediction_probability".into(), best["score"].clone());
    if wanted > 0 {
        result.insert("top_classes".into(), entries.into());
    }
    Ok(result)
}

/// Softmax over the first token and the text's tokens; the first token takes its share but is no answer.
fn probabilities(logits: &[f64], row: &Row) -> Vec<f64> {
    const EXCLUDED: f64 = -10_000.0;
    let text = row.offset..row.offset + row.tokens.len();
    let kept: Vec<f64> = logits
        .iter()
        .enumerate()
        .map(|(at, logit)| if at == 0 || text.contains(&at) { *logit } else { EXCLUDED })
        .collect();
    super::probabilities::softmax(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::tokenization::{Tokenization, Truncate};
    use crate::tokenization::{Tokenizer, build};
    use crate::vocabulary::Vocabulary;

    fn tokenizer(max: usize) -> Tokenizer {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "Ö", "b", "c", "d"];
        let vocabulary =
            Vocabulary { vocabulary: tokens.map(str::to_owned).to_vec(), ..Vocabulary::default() };
        let settings = Tokenization { max_sequence_length: max, ..Tokenization::default() };
        build(&settings, vocabulary).unwrap()
    }

    /// Logits that are high at one position for each of starts and ends.
    fn logits(width: usize, peaks: &[usize]) -> Vec<f64> {
        peaks
            .iter()
            .flat_map(|peak| (0..width).map(move |at| if at == *peak { 10.0 } else { 0.0 }))
            .collect()
    }

    #[test]
    fn best_span_is_extracted_from_the_text() {
        // [CLS] who [SEP] Ö b c [SEP]
        let text = "Ö b c";
        let row = tokenizer(16).pair("who", text, Truncate::None).unwrap();
        let output = Output::new([2, 1, 7], &logits(7, &[4, 5]));
        let result =
            question_answering(&output, std::slice::from_ref(&row), text, 0, 15, "p").unwrap();
        assert_eq!(result["p"], "b c");
        assert_eq!((&result["start_offset"], &result["end_offset"]), (&2.into(), &5.into()));
        assert!(!result.contains_key("top_classes"));
        // The question itself is no answer, and an answer has at most so many tokens.
        let output = Output::new([2, 1, 7], &logits(7, &[1, 5]));
        let result =
            question_answering(&output, std::slice::from_ref(&row), text, 2, 1, "p").unwrap();
        assert_eq!(result["p"], "c");
        assert_eq!(result["top_classes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn windows_compete() {
        let text = "Ö b c d";
        let rows = tokenizer(7).pair_windows("who", text, Truncate::None, 1).unwrap();
        assert_eq!(rows.len(), 2);
        // The second window is [CLS] who [SEP] c d [SEP], padded.
        let mut values = logits(7, &[0, 0]);
        values.extend(logits(7, &[4, 4]));
        let output = Output::new([4, 1, 7], &values);
        let result = question_answering(&output, &rows, text, 0, 15, "p").unwrap();
        assert_eq!((&result["p"], &result["start_offset"]), (&"d".into(), &6.into()));
        // The same as a batch: all starts, then all ends.
        let batch = Output::new([2, 2, 7], &logits(7, &[0, 4, 0, 4]));
        assert_eq!(question_answering(&batch, &rows, text, 0, 15, "p").unwrap(), result);
        let unstacked = Output::new([1, 2, 7], &logits(7, &[0, 0]));
        assert!(question_answering(&unstacked, &rows, text, 0, 15, "p").is_err());
    }
}
