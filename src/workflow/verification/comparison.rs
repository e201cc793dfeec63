//! The difference of two result objects, and their agreement.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::tasks::Task;
use crate::tasks::agreement::{self, Pair};

/// Heaviest tokens of a sparse vector whose overlap is measured, as for quantized models.
const HEAVIEST: usize = 100;

/// The numbers of a result object by name, and whether a missing name stands for 0. Otherwise only the largest numbers are listed.
struct Numbers {
    by_name: BTreeMap<String, f64>,
    is_complete: bool,
}

fn prediction(result: &Value) -> &Value {
    &result["predicted_value"]
}

/// Reads the numbers of a result object. `None` if it is not one of the task.
fn numbers(task: Task, result: &Value) -> Option<Numbers> {
    if result.get("error").is_some() {
        return None;
    }
    let list = |name: &str, key: &dyn Fn(&Value) -> String, number: &str| {
        let elements = result[name].as_array()?;
        elements.iter().map(|it| Some((key(it), it[number].as_f64()?))).collect::<Option<_>>()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (by_name, is_complete) = match task {
        Task::PassThrough | Task::TextEmbedding | Task::TextSimilarity => {
            let mut all = Vec::new();
            flatten(prediction(result), &mut all)?;
            (all.into_iter().enumerate().map(|(at, n)| (format!("{at:08}"), n)).collect(), true)
        }
        Task::TextExpansion => {
            let weights = prediction(result).as_object()?;
            let named =
                weights.iter().map(|(token, weight)| Some((token.clone(), weight.as_f64()?)));
            (named.collect::<Option<_>>()?, true)
        }
        Task::TextClassification | Task::ZeroShotClassification => {
            (list("top_classes", &|it| text(&it["class_name"]), "class_probability")?, true)
        }
        Task::FillMask => {
            (list("top_classes", &|it| text(&it["class_name"]), "class_probability")?, false)
        }
        Task::QuestionAnswering => {
            let place = |it: &Value| format!("{}-{}", it["start_offset"], it["end_offset"]);
            (list("top_classes", &place, "score")?, false)
        }
        Task::Ner => {
            let entity = |it: &Value| {
                format!("{}-{} {}", it["start_pos"], it["end_pos"], text(&it["class_name"]))
            };
            (list("entities", &entity, "class_probability")?, true)
        }
    };
    Some(Numbers { by_name, is_complete })
}

/// All numbers of nested lists.
fn flatten(value: &Value, all: &mut Vec<f64>) -> Option<()> {
    match value {
        Value::Array(elements) => elements.iter().try_for_each(|it| flatten(it, all)),
        value => {
            all.push(value.as_f64()?);
            Some(())
        }
    }
}

/// The largest difference of two results, relative to the largest expected number or to 1. `None` if one of them is not a result.
pub(super) fn difference(task: Task, expected: &Value, found: &Value) -> Option<f64> {
    let (expected, found) = (numbers(task, expected)?, numbers(task, found)?);
    let scale = expected.by_name.values().fold(1f64, |most, number| most.max(number.abs()));
    let mut largest: f64 = 0.;
    let mut one_sided = |numbers: &Numbers, others: &Numbers| {
        // A name that is missing from a list of the largest numbers has at most the smallest of them.
        let smallest = others.by_name.values().copied().fold(f64::INFINITY, f64::min);
        for (name, number) in &numbers.by_name {
            let off = match others.by_name.get(name) {
                Some(other) => (number - other).abs(),
                None if others.is_complete => number.abs(),
                None => (number - smallest).max(0.),
            };
            // `max` would hide NaN.
            largest = if off.is_nan() { f64::INFINITY } else { largest.max(off / scale) };
        }
    };
    one_sided(&expected, &found);
    one_sided(&found, &expected);
    Some(largest)
}

/// At most `most` numbers of two results, evenly distributed: the expected and the found one.
pub(super) fn some_numbers(
    task: Task,
    expected: &Value,
    found: &Value,
    most: usize,
) -> Vec<[f64; 2]> {
    let (Some(expected), Some(found)) = (numbers(task, expected), numbers(task, found)) else {
        return Vec::new();
    };
    let both = |(name, number): (&String, &f64)| Some([*number, *found.by_name.get(name)?]);
    let all: Vec<_> = expected.by_name.iter().filter_map(both).collect();
    let step = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(step).collect()
}

/// The numbers of the agreement of two results, as the measure of the task summarizes them.
pub(super) fn agreement(task: Task, expected: &Value, found: &Value) -> Vec<Pair> {
    let (Some(a), Some(b)) = (numbers(task, expected), numbers(task, found)) else {
        return Vec::new();
    };
    let moved = || {
        let change = |(name, number): (&String, &f64)| {
            b.by_name.get(name).map_or(0., |other| (number - other).abs())
        };
        a.by_name.iter().map(change).fold(0., f64::max)
    };
    let same = |is_same: bool| f64::from(u8::from(is_same));
    match task {
        Task::TextEmbedding => vec![[cosine(prediction(expected), prediction(found)), 0.]],
        Task::PassThrough => {
            let rows = |value: &Value| prediction(value).as_array().cloned().unwrap_or_default();
            let pairs = rows(expected).into_iter().zip(rows(found));
            pairs.map(|(a, b)| [cosine(&a, &b), 0.]).collect()
        }
        Task::TextSimilarity => {
            let score = |it: &Value| prediction(it).as_f64().unwrap_or(f64::NAN);
            vec![[score(expected), score(found)]]
        }
        Task::TextExpansion => vec![[overlap(&a.by_name, &b.by_name), 0.]],
        Task::Ner => {
            let count = a.by_name.keys().filter(|name| b.by_name.contains_key(*name)).count();
            let all = a.by_name.len().max(b.by_name.len());
            let share = if all == 0 { 1. } else { count as f64 / all as f64 };
            vec![[share, moved()]]
        }
        Task::FillMask
        | Task::QuestionAnswering
        | Task::TextClassification
        | Task::ZeroShotClassification => {
            vec![[same(prediction(expected) == prediction(found)), moved()]]
        }
    }
}

/// The embeddings of two results, if they are embeddings of one length.
pub(super) fn both_embeddings(
    task: Task,
    expected: &Value,
    found: &Value,
) -> Option<[Vec<f64>; 2]> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    if task != Task::TextEmbedding {
        return None;
    }
    flatten(prediction(expected), &mut one)?;
    flatten(prediction(found), &mut other)?;
    (one.len() == other.len()).then_some([one, other])
}

/// Cosine similarity of two lists of numbers.
fn cosine(a: &Value, b: &Value) -> f64 {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    if flatten(a, &mut one).is_none() || flatten(b, &mut other).is_none() {
        return f64::NAN;
    }
    agreement::cosine(&one, &other)
}

/// Overlap of the heaviest tokens, as a share of the longer list.
fn overlap(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> f64 {
    let heaviest = |weights: &BTreeMap<String, f64>| -> Vec<String> {
        let mut all: Vec<_> = weights.iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        all.into_iter().take(HEAVIEST).map(|(token, _)| token.clone()).collect()
    };
    let (a, b) = (heaviest(a), heaviest(b));
    match a.len().max(b.len()) {
        0 => 1.,
        longer => a.iter().filter(|token| b.contains(token)).count() as f64 / longer as f64,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn difference_is_relative_to_large_numbers() {
        let of = |a: Value, b: Value| {
            difference(
                Task::TextEmbedding,
                &json!({ "predicted_value": a }),
                &json!({ "predicted_value": b }),
            )
        };
        assert_eq!(of(json!([0.5, 0.25]), json!([0.5, 0.5])), Some(0.25));
        assert_eq!(of(json!([10., 0.]), json!([10., 5.])), Some(0.5));
        assert_eq!(of(json!([1.]), json!([1., 0.5])), Some(0.5));
        assert_eq!(of(json!([1.]), json!("text")), None);
        assert_eq!(
            difference(
                Task::TextEmbedding,
                &json!({"predicted_value": [1.]}),
                &json!({"error": "no"})
            ),
            None
        );
    }

    #[test]
    fn some_numbers_are_evenly_distributed() {
        let of = |numbers: Vec<f64>| json!({ "predicted_value": numbers });
        let (a, b) = (of(vec![0., 1., 2., 3., 4.]), of(vec![0., 10., 20., 30., 40.]));
        let some = |most| some_numbers(Task::TextEmbedding, &a, &b, most);
        assert_eq!(some(2), [[0., 0.], [3., 30.]]);
        assert_eq!(some(9).len(), 5);
    }

    #[test]
    fn missing_names_count_as_zero_or_as_small() {
        let fill = |classes: &[(&str, f64)]| {
            let list: Vec<Value> = classes
                .iter()
                .map(|(name, p)| json!({"class_name": name, "class_probability": p}))
                .collect();
            json!({"predicted_value": classes[0].0, "top_classes": list})
        };
        let (a, b) = (fill(&[("a", 0.5), ("b", 0.25)]), fill(&[("a", 0.5), ("c", 0.25)]));
        // Both tokens can have the same probability.
        assert_eq!(difference(Task::FillMask, &a, &b), Some(0.));
        assert_eq!(difference(Task::TextClassification, &a, &b), Some(0.25));
        assert_eq!(agreement(Task::FillMask, &a, &b), [[1., 0.]]);
    }

    #[test]
    fn entities_are_compared_by_place_and_class() {
        let entity = |start: u32, class: &str| json!({"start_pos": start, "end_pos": 9, "class_name": class, "class_probability": 0.75});
        let of = |entities: Vec<Value>| json!({"predicted_value": "", "entities": entities});
        let (a, b) = (of(vec![entity(0, "PER"), entity(5, "LOC")]), of(vec![entity(0, "PER")]));
        assert_eq!(difference(Task::Ner, &a, &b), Some(0.75));
        assert_eq!(agreement(Task::Ner, &a, &b), [[0.5, 0.]]);
        assert_eq!(agreement(Task::Ner, &of(Vec::new()), &of(Vec::new())), [[1., 0.]]);
    }
}
