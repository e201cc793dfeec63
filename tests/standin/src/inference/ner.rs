//! Results of entity recognition (contract, 8).

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::output::Output;
use super::probabilities::{ranked, softmax};
use super::utf16;
use crate::configuration::task::DEFAULT_NER_LABELS;
use crate::errors::ApiError;
use crate::tokenization::Row;

/// A word with its most probable label.
struct TaggedWord {
    place: Range<usize>,
    label: usize,
    probability: f64,
}

/// Neighbouring words of one entity.
struct Entity {
    place: Range<usize>,
    class: String,
    probability: f64,
}

/// The entities of a text and the text annotated with them.
pub(super) fn ner(
    output: &Output,
    row: &Row,
    text: &str,
    labels: Option<&[String]>,
    lower_case: bool,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let default = DEFAULT_NER_LABELS.map(str::to_owned);
    let labels = labels.unwrap_or(&default);
    let words = tag_words(output, row, labels)?;
    let entities = group(&words, labels);
    let mut annotated = String::new();
    let mut written = 0;
    for entity in &entities {
        let found = &text[entity.place.clone()];
        annotated.push_str(&text[written..entity.place.start]);
        annotated.push_str(&format!("[{found}]({}&{})", entity.class, found.replace(' ', "+")));
        written = entity.place.end;
    }
    annotated.push_str(&text[written..]);

    let entities: Vec<Value> = entities
        .iter()
        .map(|entity| {
            let found = &text[entity.place.clone()];
            json!({
                "entity": if lower_case { found.to_lowercase() } else { found.to_owned() },
                "class_name": entity.class,
                "class_probability": entity.probability,
                "start_pos": utf16(text, entity.place.start),
                "end_pos": utf16(text, entity.place.end),
            })
        })
        .collect();
    let mut result = Map::new();
    result.insert(field.to_owned(), annotated.into());
    result.insert("entities".into(), entities.into());
    Ok(result)
}

/// Gives each word the label with the highest mean probability over its pieces.
fn tag_words(output: &Output, row: &Row, labels: &[String]) -> Result<Vec<TaggedWord>, ApiError> {
    let logits = output.rows(0);
    if logits.len() < row.ids.len() {
        return Err(ApiError::internal(format!(
            "the model's output has [{}] rows for [{}] tokens",
            logits.len(),
            row.ids.len()
        )));
    }
    if let Some(wrong) = logits.iter().find(|logits| logits.len() != labels.len()) {
        return Err(ApiError::internal(format!(
            "Expected exactly [{}] values in ner result; got [{}]",
            labels.len(),
            wrong.len()
        )));
    }
    let mut tagged = Vec::new();
    for pieces in row.tokens.chunk_by(|a, b| a.word == b.word) {
        let first = row.words.iter().position(|word| *word == Some(pieces[0].word));
        let Some(first) = first else { continue };
        let mut mean = vec![0.0; labels.len()];
        for logits in &logits[first..first + pieces.len()] {
            for (sum, probability) in mean.iter_mut().zip(softmax(logits)) {
                *sum += probability / pieces.len() as f64;
            }
        }
        let label = ranked(&mean)[0];
        let place = pieces[0].place.start..pieces[pieces.len() - 1].place.end;
        tagged.push(TaggedWord { place, label, probability: mean[label] });
    }
    Ok(tagged)
}

/// Joins words of one class until another class or a new beginning.
fn group(words: &[TaggedWord], labels: &[String]) -> Vec<Entity> {
    let is_outside = |word: &TaggedWord| labels[word.label].eq_ignore_ascii_case("o");
    let begins = |word: &TaggedWord| labels[word.label].starts_with(['b', 'B']);
    let class = |word: &TaggedWord| labels[word.label].to_uppercase().chars().skip(2).collect();
    let mut entities: Vec<Entity> = Vec::new();
    let mut rest = words;
    while let Some((first, others)) = rest.split_first() {
        if is_outside(first) {
            rest = others;
            continue;
        }
        let class: String = class(first);
        let more = others
            .iter()
            .take_while(|word| {
                !begins(word)
                    && !is_outside(word)
                    && labels[word.label].to_uppercase().chars().skip(2).eq(class.chars())
            })
            .count();
        let grouped = &rest[..=more];
        entities.push(Entity {
            place: first.place.start..grouped[more].place.end,
            class,
            probability: grouped.iter().map(|word| word.probability).sum::<f64>()
                / grouped.len() as f64,
        });
        rest = &rest[more + 1..];
    }
    entities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::tokenization::{NO_SPAN, Tokenization, Truncate};
    use crate::tokenization::build;
    use crate::vocabulary::Vocabulary;

    #[test]
    fn pieces_become_words_and_words_entities() {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Jo", "##sh", "Ö", "in", "New", "York"];
        let vocabulary =
            Vocabulary { vocabulary: tokens.map(str::to_owned).to_vec(), ..Vocabulary::default() };
        let tokenizer = build(&Tokenization::default(), vocabulary).unwrap();
        let text = "Ö Josh in New York";
        let rows = tokenizer.single(text, Truncate::First, NO_SPAN).unwrap();
        let labels = ["O", "B_PER", "I_PER", "I_LOC"].map(str::to_owned);
        // [CLS] Ö Jo ##sh in New York [SEP]
        let mut logits = Vec::new();
        for label in [1, 1, 1, 2, 0, 3, 3, 0] {
            logits.extend((0..4).map(|i| if i == label { 100.0 } else { 0.0 }));
        }
        // The second piece is less sure, so the word keeps the first one's label.
        logits[3 * 4 + 1] = 99.5;
        let output = Output::new([1, 8, 4], &logits);
        let result = ner(&output, &rows[0], text, Some(&labels), false, "p").unwrap();
        assert_eq!(result["p"], "[Ö](PER&Ö) [Josh](PER&Josh) in [New York](LOC&New+York)");
        let entities = result["entities"].as_array().unwrap();
        assert_eq!(entities.len(), 3);
        assert_eq!((&entities[1]["start_pos"], &entities[1]["end_pos"]), (&2.into(), &6.into()));
        assert_eq!(entities[2]["entity"], "New York");
        let narrow = Output::new([1, 8, 3], &[0.0; 24]);
        assert!(ner(&narrow, &rows[0], text, Some(&labels), false, "p").is_err());
    }
}
