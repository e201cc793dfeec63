//! Results of `rust-eland infer`, for people and for programs.

use serde_json::Value;

use super::command_error::CommandError;
use super::infer_texts::Text;
use super::report::{Format, print, table};
use crate::terminal_text::{escape, escape_json};

/// Embeddings in the matrix of similarities.
const COMPARED: usize = 8;

/// Tokens of a sparse vector that are shown.
const TOKENS: usize = 10;

/// Numbers of a vector that are shown.
const NUMBERS: usize = 4;

/// Rejected texts that are logged.
const WARNED: usize = 10;

/// Characters of a text that are shown on one line.
const LINE: usize = 60;

/// Prints results as they arrive.
pub(super) struct InferReport {
    task: String,
    /// The member of a result that holds the prediction.
    field: String,
    format: Format,
    /// Number of texts.
    total: usize,
    /// What a place of a text is: a line, or an argument.
    place: &'static str,
    shown: usize,
    failed: usize,
    /// The first embeddings, with the numbers of their texts.
    embeddings: Vec<(usize, Vec<f64>)>,
    /// Queries, documents and scores.
    scores: Vec<(Option<String>, String, f64)>,
}

impl InferReport {
    /// A report on `total` texts for a task of a model with this configuration. The texts are arguments, or lines of a file or of
    /// standard input.
    pub(super) fn new(
        task: &str,
        configuration: &Value,
        format: Format,
        total: usize,
        of_arguments: bool,
    ) -> Self {
        let field = configuration["inference_config"][task]["results_field"].as_str();
        Self {
            task: task.to_owned(),
            field: field.unwrap_or("predicted_value").to_owned(),
            format,
            total,
            place: if of_arguments { "text" } else { "line" },
            shown: 0,
            failed: 0,
            embeddings: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Number of texts whose result was printed.
    pub(super) fn shown(&self) -> usize {
        self.shown
    }

    /// Number of texts without a result.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Prints the result of a text, or keeps a score for the ranking.
    pub(super) fn show(&mut self, text: &Text, result: &Value) -> Result<(), CommandError> {
        self.shown += 1;
        if let Some(reason) = result["error"].as_str() {
            self.failed += 1;
            if self.format == Format::Json {
                self.warn(text.line, reason);
            }
        }
        let shown = match self.format {
            Format::Json => escape_json(&result.to_string()),
            Format::Table => {
                let predicted = &result[&self.field];
                if self.task == "text_embedding"
                    && self.embeddings.len() < COMPARED
                    && let Some(vector) = vector(predicted)
                {
                    self.embeddings.push((self.shown, vector));
                }
                if let (true, Some(score)) = (self.task == "text_similarity", predicted.as_f64()) {
                    self.scores.push((text.first.clone(), text.text.clone(), score));
                    return Ok(());
                }
                let lines = lines(&self.task, predicted, &text.text, result);
                let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
                let number =
                    if self.total > 1 { format!("{}. ", self.shown) } else { String::new() };
                escape(&format!("{number}{}{lines}", in_quotes(&text.text)))
            }
        };
        print(format!("{shown}\n").as_bytes())
    }

    /// Logs a rejected text, whose line in the output has no number.
    fn warn(&self, line: usize, reason: &str) {
        match self.failed {
            0..=WARNED => tracing::warn!("{} {line} is rejected: {reason}", self.place),
            _ if self.failed == WARNED + 1 => {
                tracing::warn!("more texts are rejected; their results have an error");
            }
            _ => {}
        }
    }

    /// Prints what compares the texts: the ranking of documents, or the similarities of embeddings.
    pub(super) fn finish(&mut self) -> Result<(), CommandError> {
        let mut parts = Vec::new();
        if !self.scores.is_empty() {
            parts.push(ranking(std::mem::take(&mut self.scores)));
        }
        if self.embeddings.len() > 1 {
            parts.push(similarities(&self.embeddings));
        }
        parts.iter().try_for_each(|part| print(format!("{}\n", escape(part)).as_bytes()))
    }
}

/// A text in quotation marks, on one line.
fn in_quotes(text: &str) -> String {
    format!("\"{}\"", text.replace('\n', "\\n").replace('\t', "\\t"))
}

/// A text in quotation marks, on one line. White space other than blanks, and characters without a width, are shown by their codes.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::new();
    for c in in_quotes(text).chars() {
        let is_invisible =
            matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
        if is_invisible || (c.is_whitespace() && c != ' ') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The numbers of a vector.
fn vector(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

/// The result of a text in lines.
fn lines(task: &str, predicted: &Value, text: &str, result: &Value) -> Vec<String> {
    for problem in ["error", "warning"] {
        if let Some(reason) = result[problem].as_str() {
            return vec![format!("{problem}: {reason}")];
        }
    }
    let mut lines = match task {
        "text_embedding" => {
            let numbers = vector(predicted).unwrap_or_default();
            vec![format!("{} dimensions: {}", numbers.len(), shortened(&numbers))]
        }
        "pass_through" => {
            let rows: Vec<_> =
                predicted.as_array().into_iter().flatten().filter_map(vector).collect();
            let width = rows.first().map_or(0, Vec::len);
            let first = rows.first().map(|row| shortened(row)).unwrap_or_default();
            vec![format!("{} rows of {width} numbers: {first}", rows.len())]
        }
        "text_expansion" => {
            let mut weights: Vec<(&str, f64)> = members(predicted).collect();
            weights.sort_by(|a, b| b.1.total_cmp(&a.1));
            let rows: Vec<_> = weights
                .iter()
                .take(TOKENS)
                .map(|(token, weight)| [format!("{weight:.3}"), (*token).to_owned()])
                .collect();
            let mut lines = vec![format!("{} tokens", weights.len())];
            lines.extend(aligned(&rows));
            lines
        }
        "ner" => {
            let entities: Vec<&Value> =
                result["entities"].as_array().into_iter().flatten().collect();
            let rows: Vec<_> = entities
                .iter()
                .map(|entity| {
                    let text = |name: &str| entity[name].as_str().unwrap_or_default().to_owned();
                    let probability = entity["class_probability"].as_f64().unwrap_or_default();
                    [format!("{probability:.3}"), text("class_name"), text("entity")]
                })
                .collect();
            let mut lines = vec![marked(text, &entities)];
            lines.extend(aligned(&rows));
            lines
        }
        "question_answering" => {
            let places: Vec<&Value> = vec![result];
            let mut lines = vec![marked(text, &places)];
            lines.push(of_class(predicted, &result["prediction_probability"]));
            let others = result["top_classes"].as_array().into_iter().flatten().skip(1);
            lines.extend(others.map(|other| of_class(&other["answer"], &other["score"])));
            lines
        }
        _ => {
            let mut lines = Vec::new();
            if let Some(sequence) = result["predicted_sequence"].as_str() {
                lines.push(sequence.to_owned());
            }
            match result["top_classes"].as_array() {
                Some(classes) => lines.extend(
                    classes.iter().map(|it| of_class(&it["class_name"], &it["class_probability"])),
                ),
                None => lines.push(of_class(predicted, &result["prediction_probability"])),
            }
            lines
        }
    };
    if result["is_truncated"] == true {
        lines.push("the text was truncated".into());
    }
    lines
}

fn members(value: &Value) -> impl Iterator<Item = (&str, f64)> {
    let members = value.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
}

/// A class with its probability.
fn of_class(name: &Value, probability: &Value) -> String {
    let probability = probability.as_f64().unwrap_or_default();
    format!("{probability:.3}  {}", name.as_str().unwrap_or_default())
}

/// Rows as lines.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    table([""; N], rows).lines().skip(1).map(str::to_owned).collect()
}

/// The first numbers of a vector.
fn shortened(numbers: &[f64]) -> String {
    let first: Vec<_> = numbers.iter().take(NUMBERS).map(|number| format!("{number:.4}")).collect();
    let more = if numbers.len() > NUMBERS { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

/// A text in which places stand between arrows, followed by their classes. Places are in UTF-16 code units and in the order of the text.
fn marked(text: &str, places: &[&Value]) -> String {
    let units: Vec<u16> = text.encode_utf16().collect();
    let part = |from: usize, to: usize| {
        String::from_utf16_lossy(units.get(from..to.max(from)).unwrap_or_default())
    };
    let mut marked = String::new();
    let mut end = 0;
    for place in places {
        let position = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| place[*name].as_u64())?;
            usize::try_from(found).ok()
        };
        let (Some(from), Some(to)) =
            (position(["start_pos", "start_offset"]), position(["end_pos", "end_offset"]))
        else {
            continue;
        };
        let class =
            place["class_name"].as_str().map(|class| format!(" {class}")).unwrap_or_default();
        marked += &format!("{}»{}«{class}", part(end, from), part(from, to));
        end = to;
    }
    marked + &part(end, units.len())
}

/// The beginning of a text, on one line.
fn line(text: &str) -> String {
    let flat = text.replace(['\n', '\t'], " ");
    match flat.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

/// Documents by their score, best first, under each query.
fn ranking(scores: Vec<(Option<String>, String, f64)>) -> String {
    let mut queries: Vec<Option<String>> = Vec::new();
    for (query, ..) in &scores {
        if !queries.contains(query) {
            queries.push(query.clone());
        }
    }
    let mut parts = Vec::new();
    for query in queries {
        let mut ranked: Vec<_> = scores.iter().filter(|(other, ..)| *other == query).collect();
        ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
        let rows: Vec<[String; 3]> = ranked
            .iter()
            .enumerate()
            .map(|(at, (_, document, score))| {
                [(at + 1).to_string(), format!("{score:.4}"), line(document)]
            })
            .collect();
        let rows = table(["RANK", "SCORE", "DOCUMENT"], &rows);
        parts.push(format!("{}\n{rows}", in_quotes(&query.unwrap_or_default())));
    }
    parts.join("\n\n")
}

/// The cosine similarity of each pair of embeddings, under the numbers of their texts.
fn similarities(embeddings: &[(usize, Vec<f64>)]) -> String {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let mut lines = vec!["cosine similarity".to_owned()];
    let numbers = embeddings.iter().map(|(number, _)| format!("{number:>7}"));
    lines.push(std::iter::once("    ".to_owned()).chain(numbers).collect());
    for (number, one) in embeddings {
        let cells = embeddings.iter().map(|(_, other)| format!("{:>7.3}", cosine(one, other)));
        lines.push(std::iter::once(format!("{number:>4}")).chain(cells).collect());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn invisible_characters_are_shown_by_their_codes() {
        assert_eq!(quoted("e\u{301}\u{a0}!\u{200b}"), "\"e\u{301}\\u{a0}!\\u{200b}\"");
    }

    #[test]
    fn entities_and_answers_are_marked_in_the_text() {
        let entities = [
            json!({"start_pos": 3, "end_pos": 6, "class_name": "PER"}),
            json!({"start_pos": 10, "end_pos": 14, "class_name": "LOC"}),
        ];
        let text = "😀 Ada in York.";
        assert_eq!(
            marked(text, &entities.iter().collect::<Vec<_>>()),
            "😀 »Ada« PER in »York« LOC."
        );
        let answer = json!({"start_offset": 3, "end_offset": 6, "predicted_value": "Ada"});
        assert_eq!(marked(text, &[&answer]), "😀 »Ada« in York.");
    }

    #[test]
    fn documents_are_ranked_under_their_query() {
        let score = |query: &str, document: &str, score| {
            (Some(query.to_owned()), document.to_owned(), score)
        };
        let text =
            ranking(vec![score("q", "worse", -1.), score("q", "better", 2.), score("r", "x", 0.)]);
        assert_eq!(
            text,
            "\"q\"\nRANK  SCORE    DOCUMENT\n1     2.0000   better\n2     -1.0000  worse\n\n\"r\"\nRANK  SCORE   DOCUMENT\n1     0.0000  x"
        );
    }

    #[test]
    fn similarity_of_an_embedding_with_itself_is_one() {
        let text = similarities(&[(1, vec![1., 0.]), (3, vec![0., 2.])]);
        assert_eq!(
            text,
            "cosine similarity\n          1      3\n   1  1.000  0.000\n   3  0.000  1.000"
        );
    }

    #[test]
    fn each_task_has_its_lines() {
        let lines =
            |task: &str, result: Value| lines(task, &result["predicted_value"], "a b", &result);
        assert_eq!(
            lines(
                "text_embedding",
                json!({"predicted_value": [1, 0.5, 0, 0, 0], "is_truncated": true})
            ),
            ["5 dimensions: 1.0000, 0.5000, 0.0000, 0.0000, …", "the text was truncated"]
        );
        assert_eq!(
            lines("text_expansion", json!({"predicted_value": {"a": 0.5, "b": 1.25}})),
            ["2 tokens", "1.250  b", "0.500  a"]
        );
        assert_eq!(
            lines(
                "text_classification",
                json!({"predicted_value": "yes", "prediction_probability": 0.75})
            ),
            ["0.750  yes"]
        );
        let fill = json!({"predicted_value": "b", "predicted_sequence": "a b", "top_classes": [
            {"class_name": "b", "class_probability": 0.5}, {"class_name": "c", "class_probability": 0.25}]});
        assert_eq!(lines("fill_mask", fill), ["a b", "0.500  b", "0.250  c"]);
        assert_eq!(lines("ner", json!({"error": "too long"})), ["error: too long"]);
        assert_eq!(
            lines("pass_through", json!({"predicted_value": [[1.0], [2.0]]})),
            ["2 rows of 1 numbers: 1.0000"]
        );
    }
}
