//! The texts of `rust-eland infer`: arguments, standard input or a file.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

use super::command_error::CommandError;
use super::input;
use crate::inference_results::Input;
use crate::scripts::Scripts;

/// Names of columns and members that hold the text, in the order of preference.
const TEXT: [&str; 8] =
    ["text_field", "text", "sentence", "content", "body", "document", "context", "passage"];

/// Names of columns and members that hold the first text of a pair.
const FIRST: [&str; 2] = ["question", "query"];

/// How a file contains pairs.
pub(super) const TAB: &str = "separate the two texts of each line by a tab, or use .jsonl or .csv with a member or column \"question\" or \"query\"";

/// A text, with the first text of its pair for tasks that read pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    /// The line of the text in its file or on standard input, or its number among the arguments, from 1.
    pub(super) line: usize,
    pub(super) first: Option<String>,
    pub(super) text: String,
}

/// The setting of a request that holds the first text of a pair, for tasks that have one.
pub(super) fn first_setting(task: &str) -> Option<&'static str> {
    match task {
        "question_answering" => Some("question"),
        "text_similarity" => Some("text"),
        _ => None,
    }
}

impl Text {
    fn at(line: usize, text: &str) -> Self {
        Self { line, first: None, text: text.to_owned() }
    }

    /// The input of a local model.
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            first: self.first.as_deref().map(Cow::Borrowed),
            text: Cow::Borrowed(self.text.as_str()),
        }
    }

    /// The input of a local model, which owns its texts.
    #[cfg(feature = "torch")]
    pub(super) fn into_input(self) -> Input<'static> {
        Input { first: self.first.map(Cow::Owned), text: Cow::Owned(self.text) }
    }
}

/// Warns if texts have characters of other scripts than those whose tokens a model has.
pub(super) fn warn_of_other_scripts(texts: &[Text], scripts: &Scripts) {
    let is_whole = |it: &&Text| {
        scripts.contain(&it.text) && it.first.iter().all(|first| scripts.contain(first))
    };
    let count = texts.len() - texts.iter().filter(is_whole).count();
    if let Some(first) = texts.iter().find(|it| !is_whole(it)) {
        let (all, names) = (texts.len(), scripts.names().collect::<Vec<_>>().join(", "));
        tracing::warn!(
            "the model does not understand {count} of {all} texts, because it has no tokens for letters of other scripts than {names}; the first \
             is text {}",
            first.line
        );
    }
}

/// Reads texts from the arguments, a file or standard input.
pub(super) fn read(arguments: &[String], file: Option<&Path>) -> Result<Vec<Text>, CommandError> {
    let of_line = |(index, text): (usize, &str)| Text::at(index + 1, text);
    match (file, arguments) {
        (Some(path), _) => in_file(path),
        (None, []) => Ok(input::of_standard_input()?.lines().enumerate().map(of_line).collect()),
        (None, texts) => Ok(texts.iter().map(String::as_str).enumerate().map(of_line).collect()),
    }
}

/// Reads the texts of a file, at least one.
pub(super) fn read_file(path: &Path) -> Result<Vec<Text>, CommandError> {
    let texts = in_file(path)?;
    if texts.is_empty() {
        return Err(CommandError::Usage(format!("{} has no texts", path.display())));
    }
    Ok(texts)
}

fn in_file(path: &Path) -> Result<Vec<Text>, CommandError> {
    let content = input::of_file(path)?;
    let invalid = |line: usize, reason: String| {
        CommandError::Usage(format!("{}, line {line}: {reason}", path.display()))
    };
    let extension = path.extension().and_then(|it| it.to_str()).map(str::to_lowercase);
    match extension.as_deref() {
        Some("jsonl" | "ndjson") => {
            let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            lines
                .map(|(index, line)| {
                    let value = serde_json::from_str(line)
                        .map_err(|error| invalid(index + 1, error.to_string()))?;
                    let text = of_json(value).map_err(|reason| invalid(index + 1, reason))?;
                    Ok(Text { line: index + 1, ..text })
                })
                .collect()
        }
        Some("csv") => of_csv(&content).map_err(|(line, reason)| invalid(line, reason)),
        _ => {
            let lines = content.lines().enumerate();
            Ok(lines.map(|(index, text)| Text::at(index + 1, text)).collect())
        }
    }
}

/// The texts of a CSV file, or the line that is not valid and the reason.
fn of_csv(content: &str) -> Result<Vec<Text>, (usize, String)> {
    if let Some(line) = input::line_of_open_quote(content) {
        return Err((line, input::OPEN_QUOTE.into()));
    }
    let mut reader = csv::Reader::from_reader(content.as_bytes());
    let wrong = |error: csv::Error| input::csv_problem(&error);
    let names = reader.headers().map_err(wrong)?.clone();
    if let (1, Some(separator)) = (names.len(), names.get(0).and_then(input::other_separator)) {
        let reason = format!("the columns are separated by {separator:?}; separate them by commas");
        return Err((1, reason));
    }
    let mut texts = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let cells = names.iter().zip(&record);
        let cells = cells.map(|(name, cell)| (name.to_owned(), cell.into()));
        let text = of_members(cells.collect()).map_err(|reason| (1, reason))?;
        texts.push(Text { line: input::csv_line(record.position()), ..text });
    }
    Ok(texts)
}

/// The text of a JSON string or object.
fn of_json(value: Value) -> Result<Text, String> {
    match value {
        Value::String(text) => Ok(Text::at(0, &text)),
        Value::Object(members) => of_members(members),
        _ => Err("expected a string, or an object with a text".into()),
    }
}

/// The text among named values: the one with a usual name, or else the only string.
fn of_members(members: Map<String, Value>) -> Result<Text, String> {
    let named = |names: &[&str]| {
        names.iter().find_map(|name| members.get(*name)?.as_str().map(str::to_owned))
    };
    let first = named(&FIRST);
    let strings = || {
        let mut strings = members
            .iter()
            .filter(|(name, _)| !FIRST.contains(&name.as_str()))
            .filter_map(|(_, value)| value.as_str().map(str::to_owned));
        match (strings.next(), strings.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    };
    match named(&TEXT).or_else(strings) {
        Some(text) => Ok(Text { line: 0, first, text }),
        None => Err(format!("there is no text: use one of the names {}", TEXT.join(", "))),
    }
}

/// The texts of a task. `setting` is the name of the first text of a pair, for tasks that read pairs; `first` is its value from an
/// option. Without that option, each text has its own first text, or a tab separates the two. `advice` says how to set pairs.
pub(super) fn pairs(
    texts: Vec<Text>,
    setting: Option<&str>,
    first: Option<&str>,
    advice: &str,
) -> Result<Vec<Text>, CommandError> {
    if setting.is_none() {
        return Ok(texts.into_iter().map(|text| Text { first: None, ..text }).collect());
    }
    let of = |text: Text| match (first, text.first) {
        (Some(first), _) => Ok(Text { first: Some(first.to_owned()), ..text }),
        (None, Some(first)) => Ok(Text { first: Some(first), ..text }),
        (None, None) => match text.text.split_once('\t') {
            Some((first, second)) => {
                Ok(Text { line: text.line, first: Some(first.to_owned()), text: second.to_owned() })
            }
            None => Err(CommandError::Usage(format!(
                "the model reads pairs of texts, and text {} is not a pair: {advice}",
                text.line
            ))),
        },
    };
    texts.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(first: Option<&str>, text: &str) -> Text {
        Text { line: 1, first: first.map(str::to_owned), text: text.to_owned() }
    }

    fn file(name: &str, content: &str) -> Result<Vec<Text>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&[], Some(&path)).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_read_by_their_extension() {
        let lines = |first, second| {
            [text(None, "one"), text(None, "two, three")]
                .into_iter()
                .zip([first, second])
                .map(|(text, line)| Text { line, ..text })
                .collect::<Vec<_>>()
        };
        for (name, content, lines) in [
            ("a.txt", "one\ntwo, three\n", lines(1, 2)),
            (
                "a.jsonl",
                "\"one\"\n\n{\"id\": 1, \"text\": \"two, three\", \"title\": \"x\"}\n",
                lines(1, 3),
            ),
            ("a.csv", "id,body\n1,one\n2,\"two, three\"\n", lines(2, 3)),
        ] {
            assert_eq!(file(name, content).unwrap(), lines, "{name}");
            // Spreadsheets and editors on Windows write a byte order mark.
            assert_eq!(file(name, &format!("\u{feff}{content}")).unwrap(), lines, "{name}");
        }
        let pair = "{\"question\": \"q\", \"context\": \"c\"}\n";
        let error = file("b.jsonl", &format!("{pair}7\n")).unwrap_err();
        assert!(error.contains("b.jsonl, line 2"), "{error}");
        assert_eq!(file("b.jsonl", pair).unwrap(), [text(Some("q"), "c")]);
    }

    #[test]
    fn csv_with_another_separator_or_an_open_quote_is_rejected() {
        for (content, parts) in [
            ("id;text\n1;one\n", ["line 1", "separate them by commas"]),
            ("id\ttext\n1\tone\n", ["line 1", "separate them by commas"]),
            ("id,text\n1,\"one\n2,two\n", ["line 2", "not closed"]),
            ("id,text\n1,\"one\n2,\"two\"\n", ["line 2", "not closed"]),
            ("id,text\n1,one,two\n", ["line 2", "3 cells"]),
        ] {
            let error = file("a.csv", content).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{content}: {error}");
        }
        assert_eq!(file("a.csv", "text\n\"a; b\"\n").unwrap()[0].text, "a; b");
    }

    #[test]
    fn pair_comes_from_the_option_the_file_or_a_tab() {
        let of = |it: Text, first| {
            pairs(vec![it], Some("question"), first, "set it").map(|mut it| it.remove(0))
        };
        assert_eq!(of(text(Some("a"), "c"), Some("q")).unwrap(), text(Some("q"), "c"));
        assert_eq!(of(text(Some("a"), "c"), None).unwrap(), text(Some("a"), "c"));
        assert_eq!(of(text(None, "a\tc"), None).unwrap(), text(Some("a"), "c"));
        assert!(of(text(None, "c"), None).unwrap_err().to_string().contains("not a pair: set it"));
        let single = pairs(vec![text(None, "a\tc")], None, None, "").unwrap();
        assert_eq!(single, [text(None, "a\tc")]);
    }
}
