//! Results of question_answering.
//!
//! The graph returns `[2, 1, tokens]` for each window: the logits of the first token of an answer, then those of the last one.

use serde_json::{Map, Value, json};

use super::{InferenceError, Output, softmax, utf16_position};
use crate::server_tokenization::{Exception, Row};

/// An answer: tokens of one window.
struct Answer {
    window: usize,
    first: usize,
    last: usize,
    score: f64,
}

/// The most probable answers in all windows of a text.
pub(super) fn find(
    output: &Output,
    rows: &[Row],
    text: &str,
    num_top_classes: usize,
    max_answer_length: usize,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    if rows.is_empty() {
        return Err(InferenceError::Input("question answering result has no data".into()));
    }
    if output.sizes[0] != 2 * rows.len() || output.sizes[1] != 1 {
        return Err(InferenceError::Output(format!(
            "its axes are {:?} for {} windows, which have the start and end of an answer each",
            output.sizes,
            rows.len()
        )));
    }
    let mut answers = Vec::new();
    for (window, row) in rows.iter().enumerate() {
        let mut probabilities = [Vec::new(), Vec::new()];
        for (which, found) in probabilities.iter_mut().enumerate() {
            let matrix = output.matrix(2 * window + which);
            let logits = matrix.first().copied().unwrap_or_default();
            if logits.len() < row.ids.len() {
                return Err(InferenceError::Output(format!(
                    "it has {} logits for {} tokens",
                    logits.len(),
                    row.ids.len()
                )));
            }
            *found = of_text(logits, row);
        }
        let [starts, ends] = probabilities;
        for (first, start) in starts.iter().enumerate() {
            for (last, end) in ends.iter().enumerate().skip(first).take(max_answer_length) {
                answers.push(Answer { window, first, last, score: start * end });
            }
        }
    }
    answers.sort_by(|a, b| b.score.total_cmp(&a.score));
    let shown: Vec<Value> = answers
        .iter()
        .take(num_top_classes.max(1))
        .filter_map(|answer| {
            let tokens = &rows.get(answer.window)?.tokens;
            let place = tokens.get(answer.first)?.place.start..tokens.get(answer.last)?.place.end;
            Some(json!({
                "answer": text.get(place.clone()).unwrap_or_default(),
                "score": answer.score,
                "start_offset": utf16_position(text, place.start),
                "end_offset": utf16_position(text, place.end),
            }))
        })
        .collect();
    let Some(best) = shown.first() else {
        // The server takes the first token of a text that has none.
        return Err(Exception::IndexOutOfBounds.index(0, 0).into());
    };
    let mut result = Map::new();
    result.insert(field.to_owned(), best["answer"].clone());
    result.insert("start_offset".into(), best["start_offset"].clone());
    result.insert("end_offset".into(), best["end_offset"].clone());
    result.insert("prediction_probability".into(), best["score"].clone());
    if num_top_classes > 0 {
        result.insert("top_classes".into(), shown.into());
    }
    Ok(result)
}

/// The probabilities of the tokens of the text. The first token of the row, which stands for the absence of an answer, has a share too.
fn of_text(logits: &[f64], row: &Row) -> Vec<f64> {
    let text = logits.get(row.offset..row.offset + row.tokens.len()).unwrap_or_default();
    let mut candidates = vec![logits.first().copied().unwrap_or(f64::NEG_INFINITY)];
    candidates.extend_from_slice(text);
    softmax(&candidates).split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_tokenization::{Settings, Tokenizer, Truncate};

    fn tokenizer(max: usize) -> Tokenizer {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "q", "é", "b", "c", "d"];
        let settings = json!({"bert": {"max_sequence_length": max}});
        let settings = Settings::from_json(&settings).unwrap();
        Tokenizer::build(settings, tokens.map(str::to_owned).to_vec(), &[], &[]).unwrap()
    }

    fn output(width: usize, peaks: &[usize]) -> Output {
        let values = peaks
            .iter()
            .flat_map(|peak| (0..width).map(move |at| f64::from(u8::from(at == *peak)) * 20.));
        Output { sizes: [peaks.len(), 1, width], values: values.collect() }
    }

    #[test]
    fn best_answer_is_a_part_of_the_text() {
        // [CLS] q [SEP] é b c [SEP]
        let text = "é b c";
        let row = [tokenizer(9).pair("q", text, Truncate::None).unwrap()];
        let result = find(&output(7, &[4, 5]), &row, text, 0, 15, "p").unwrap();
        assert_eq!(
            (&result["p"], &result["start_offset"], &result["end_offset"]),
            (&json!("b c"), &json!(2), &json!(5))
        );
        // The question contains no answers, and an answer has at most one token here.
        let result = find(&output(7, &[1, 5]), &row, text, 2, 1, "p").unwrap();
        assert_eq!(result["p"], "c");
        assert_eq!(result["top_classes"].as_array().unwrap().len(), 2);
        assert!(find(&output(7, &[1]), &row, text, 2, 1, "p").is_err());
    }

    #[test]
    fn text_without_windows_has_no_answer() {
        let none = Output { sizes: [0, 1, 0], values: Vec::new() };
        let error = find(&none, &[], "", 0, 15, "p").unwrap_err();
        assert_eq!(error.to_string(), "question answering result has no data");
    }

    #[test]
    fn best_window_wins() {
        let text = "é b c d";
        let rows = tokenizer(7).pair_windows("q", text, Truncate::None, 1).unwrap();
        assert_eq!(rows.len(), 2);
        let result = find(&output(7, &[0, 0, 4, 4]), &rows, text, 0, 15, "p").unwrap();
        assert_eq!((&result["p"], &result["start_offset"]), (&json!("d"), &json!(6)));
    }
}
