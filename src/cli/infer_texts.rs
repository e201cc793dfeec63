//! The texts of `rust-eland infer`: arguments, standard input or a file.

use std::borrow::Cow;
use std::fs;
use std::io::{self, BufRead};
use std::path::Path;

use serde_json::{Map, Value};

use super::command_error::CommandError;
use crate::inference_results::Input;

/// Names of columns and members that hold the text, in the order of preference.
const TEXT: [&str; 8] =
    ["text_field", "text", "sentence", "content", "body", "document", "context", "passage"];

/// Names of columns and members that hold the first text of a pair.
const FIRST: [&str; 2] = ["question", "query"];

/// A text, with the first text of its pair for tasks that read pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
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

    /// Length of the texts in bytes.
    pub(super) fn bytes(&self) -> u64 {
        (self.text.len() + self.first.as_ref().map_or(0, String::len)) as u64
    }
}

/// Reads texts from the arguments, a file or standard input.
pub(super) fn read(arguments: &[String], file: Option<&Path>) -> Result<Vec<Text>, CommandError> {
    let of_line = |text: String| Text { first: None, text };
    let Some(path) = file else {
        return Ok(match arguments {
            [] => io::stdin()
                .lock()
                .lines()
                .map(|line| line.map(of_line))
                .collect::<Result<_, _>>()?,
            texts => texts.iter().cloned().map(of_line).collect(),
        });
    };
    let content = fs::read_to_string(path)
        .map_err(|error| CommandError::Usage(format!("cannot read {}: {error}", path.display())))?;
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
                    of_json(value).map_err(|reason| invalid(index + 1, reason))
                })
                .collect()
        }
        Some("csv") => {
            let mut reader = csv::Reader::from_reader(content.as_bytes());
            let names = reader.headers().map_err(|error| invalid(1, error.to_string()))?.clone();
            let mut texts = Vec::new();
            for (index, record) in reader.records().enumerate() {
                let record = record.map_err(|error| invalid(index + 2, error.to_string()))?;
                let cells = names.iter().zip(&record);
                let cells = cells.map(|(name, cell)| (name.to_owned(), cell.into()));
                let text = of_members(cells.collect()).map_err(|reason| invalid(1, reason))?;
                texts.push(text);
            }
            Ok(texts)
        }
        _ => Ok(content.lines().map(|line| of_line(line.to_owned())).collect()),
    }
}

/// The text of a JSON string or object.
fn of_json(value: Value) -> Result<Text, String> {
    match value {
        Value::String(text) => Ok(Text { first: None, text }),
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
        Some(text) => Ok(Text { first, text }),
        None => Err(format!("there is no text: use one of the names {}", TEXT.join(", "))),
    }
}

/// The texts of a task. `setting` is the name of the first text of a pair, for tasks that read pairs; `first` is its value from an
/// option. Without that option, each text has its own first text, or a tab separates the two.
pub(super) fn pairs(
    texts: Vec<Text>,
    setting: Option<&str>,
    first: Option<&str>,
) -> Result<Vec<Text>, CommandError> {
    let Some(setting) = setting else {
        return Ok(texts.into_iter().map(|text| Text { first: None, ..text }).collect());
    };
    let of = |text: Text| match (first, text.first) {
        (Some(first), _) => Ok(Text { first: Some(first.to_owned()), text: text.text }),
        (None, Some(first)) => Ok(Text { first: Some(first), text: text.text }),
        (None, None) => match text.text.split_once('\t') {
            Some((first, second)) => {
                Ok(Text { first: Some(first.to_owned()), text: second.to_owned() })
            }
            None => {
                let option = if setting == "question" { "--question" } else { "--query" };
                Err(CommandError::Usage(format!(
                    "the model reads pairs of texts: set {option}, or separate the two texts by a tab"
                )))
            }
        },
    };
    texts.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(first: Option<&str>, text: &str) -> Text {
        Text { first: first.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn files_are_read_by_their_extension() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a.txt", "one\ntwo, three\n"),
            ("a.jsonl", "\"one\"\n{\"id\": 1, \"text\": \"two, three\", \"title\": \"x\"}\n"),
            ("a.csv", "id,body\n1,one\n2,\"two, three\"\n"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let texts = read(&[], Some(&path)).unwrap();
            assert_eq!(texts, [text(None, "one"), text(None, "two, three")], "{name}");
        }
        let path = folder.path().join("b.jsonl");
        fs::write(&path, "{\"question\": \"q\", \"context\": \"c\"}\n7\n").unwrap();
        let error = read(&[], Some(&path)).unwrap_err().to_string();
        assert!(error.contains("b.jsonl, line 2"), "{error}");
        fs::write(&path, "{\"question\": \"q\", \"context\": \"c\"}\n").unwrap();
        assert_eq!(read(&[], Some(&path)).unwrap(), [text(Some("q"), "c")]);
    }

    #[test]
    fn pair_comes_from_the_option_the_file_or_a_tab() {
        let of =
            |it: Text, first| pairs(vec![it], Some("question"), first).map(|mut it| it.remove(0));
        assert_eq!(of(text(Some("a"), "c"), Some("q")).unwrap(), text(Some("q"), "c"));
        assert_eq!(of(text(Some("a"), "c"), None).unwrap(), text(Some("a"), "c"));
        assert_eq!(of(text(None, "a\tc"), None).unwrap(), text(Some("a"), "c"));
        assert!(of(text(None, "c"), None).unwrap_err().to_string().contains("--question"));
        assert_eq!(pairs(vec![text(None, "a\tc")], None, None).unwrap(), [text(None, "a\tc")]);
    }
}
