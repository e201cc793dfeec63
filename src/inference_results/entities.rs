//! Results of ner.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::{InferenceError, Output, largest, softmax, utf16_position};
use crate::server_tokenization::Row;

/// The label of one word.
struct Word {
    place: Range<usize>,
    label: usize,
    probability: f64,
}

/// Consecutive words of one entity.
struct Entity {
    place: Range<usize>,
    class: String,
    probabilities: Vec<f64>,
}

/// A label such as `B_PER`, split into its tag and its class.
struct Label {
    is_beginning: bool,
    class: Option<String>,
}

impl Label {
    fn of(text: &str) -> Self {
        let upper = text.to_uppercase();
        if upper == "O" {
            return Self { is_beginning: false, class: None };
        }
        let class = upper.chars().skip(2).collect();
        Self { is_beginning: upper.starts_with('B'), class: Some(class) }
    }
}

/// The entities of a text, and the text with its entities annotated.
pub(super) fn find(
    output: &Output,
    row: &Row,
    text: &str,
    labels: &[String],
    is_lower_case: bool,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let words = words(output, row, labels)?;
    let entities = entities(&words, labels);
    let mut annotated = String::new();
    let mut end = 0;
    let mut list = Vec::new();
    for Entity { place, class, probabilities } in entities {
        let found = text.get(place.clone()).unwrap_or_default();
        annotated += text.get(end..place.start).unwrap_or_default();
        annotated += &format!("[{found}]({class}&{})", found.replace(' ', "+"));
        end = place.end;
        let entity = if is_lower_case { found.to_lowercase() } else { found.to_owned() };
        list.push(json!({
            "entity": entity,
            "class_name": class,
            "class_probability": probabilities.iter().sum::<f64>() / probabilities.len() as f64,
            "start_pos": utf16_position(text, place.start),
            "end_pos": utf16_position(text, place.end),
        }));
    }
    annotated += text.get(end..).unwrap_or_default();
    let mut result = Map::new();
    result.insert(field.to_owned(), annotated.into());
    result.insert("entities".into(), list.into());
    Ok(result)
}

/// Labels each word by the mean of the probabilities of its tokens.
fn words(output: &Output, row: &Row, labels: &[String]) -> Result<Vec<Word>, InferenceError> {
    let logits = output.rows()?;
    if logits.len() < row.ids.len() {
        return Err(InferenceError::Output(format!(
            "it has {} rows for {} tokens",
            logits.len(),
            row.ids.len()
        )));
    }
    if let Some(other) = logits.iter().find(|logits| logits.len() != labels.len()) {
        return Err(InferenceError::Output(format!(
            "it has {} logits for {} labels",
            other.len(),
            labels.len()
        )));
    }
    let mut words = Vec::new();
    let mut position = row.offset;
    for tokens in row.tokens.chunk_by(|a, b| a.word == b.word) {
        let mut mean = vec![0.; labels.len()];
        for logits in logits.iter().skip(position).take(tokens.len()) {
            for (sum, probability) in mean.iter_mut().zip(softmax(logits)) {
                *sum += probability / tokens.len() as f64;
            }
        }
        position += tokens.len();
        let (Some(first), Some(last), [label, ..]) =
            (tokens.first(), tokens.last(), &largest(&mean, 1)[..])
        else {
            continue;
        };
        let place = first.place.start..last.place.end;
        words.push(Word { place, label: *label, probability: mean[*label] });
    }
    Ok(words)
}

/// Joins words of the same class, until a label begins another entity.
fn entities(words: &[Word], labels: &[String]) -> Vec<Entity> {
    let mut entities: Vec<Entity> = Vec::new();
    let mut is_open = false;
    for word in words {
        let Label { is_beginning, class } = Label::of(&labels[word.label]);
        let Some(class) = class else {
            is_open = false;
            continue;
        };
        match entities.last_mut() {
            Some(entity) if is_open && !is_beginning && entity.class == class => {
                entity.place.end = word.place.end;
                entity.probabilities.push(word.probability);
            }
            _ => entities.push(Entity {
                place: word.place.clone(),
                class,
                probabilities: vec![word.probability],
            }),
        }
        is_open = true;
    }
    entities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_tokenization::{NO_SPAN, Settings, Tokenizer, Truncate};

    #[test]
    fn tokens_become_words_and_words_become_entities() {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "😀", "Ad", "##a", "Love", "in", "York"];
        let settings = Settings::from_json(&json!({"bert": {}})).unwrap();
        let vocabulary = tokens.map(str::to_owned).to_vec();
        let tokenizer = Tokenizer::build(settings, vocabulary, &[], &[]).unwrap();
        let text = "é Ada Love in York";
        let rows = tokenizer.single(text, Truncate::First, NO_SPAN).unwrap();
        let labels = ["O", "B_PER", "I_PER", "b-loc"].map(str::to_owned);
        // [CLS] é Ad ##a Love in York [SEP]
        let mut values = Vec::new();
        for label in [0, 0, 1, 2, 2, 0, 3, 0] {
            values.extend((0..4).map(|at| if at == label { 50. } else { 0. }));
        }
        // The second token of the word is less certain.
        values[3 * 4 + 1] = 49.9;
        let output = Output { sizes: [1, 8, 4], values };
        let result = find(&output, &rows[0], text, &labels, true, "p").unwrap();
        assert_eq!(result["p"], "é [Ada Love](PER&Ada+Love) in [York](LOC&York)");
        assert_eq!(result["entities"][0]["entity"], "ada love");
        assert_eq!(result["entities"][0]["start_pos"], 2);
        assert_eq!(result["entities"][1]["end_pos"], 18);
        assert!(find(&output, &rows[0], text, &labels[..3], true, "p").is_err());
    }

    #[test]
    fn beginning_separates_entities_of_one_class() {
        let labels = ["O", "B_PER", "I_PER"].map(str::to_owned);
        let word = |at: usize, label| Word { place: at..at + 1, label, probability: 1. };
        let count = |of: &[usize]| {
            let words: Vec<Word> =
                of.iter().enumerate().map(|(at, label)| word(at, *label)).collect();
            entities(&words, &labels).len()
        };
        assert_eq!(
            (count(&[1, 2, 2]), count(&[1, 1]), count(&[2, 0, 2]), count(&[0])),
            (1, 2, 2, 0)
        );
    }
}
