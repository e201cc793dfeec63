//! Documents for tree models: JSON lines and CSV files.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::command_error::CommandError;
use super::input;
use crate::trees::TreeError;

/// The documents in a file.
pub(super) fn read_documents(path: &Path) -> Result<Vec<Value>, CommandError> {
    let unreadable = |source| TreeError::Io { path: path.to_owned(), source };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(path).map_err(unreadable)?
    };
    // Spreadsheets write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let invalid = |line: usize, reason: String| {
        CommandError::Usage(format!("{}, line {line}: {reason}", path.display()))
    };
    let mut documents = Vec::new();
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        if let Some(line) = input::line_of_open_quote(text) {
            return Err(invalid(line, input::OPEN_QUOTE.to_owned()));
        }
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let wrong = |error: csv::Error| {
            let (line, reason) = input::csv_problem(&error);
            invalid(line, reason)
        };
        let names = reader.headers().map_err(wrong)?.clone();
        if names.len() == 1
            && let Some(separator) = input::other_separator(&names[0])
        {
            return Err(invalid(
                1,
                format!(
                    "the header {:?} is a single column; separate the columns with commas instead of {separator:?}",
                    shortened(&names[0])
                ),
            ));
        }
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.to_owned())) {
            return Err(invalid(1, format!("two columns have the name {name:?}")));
        }
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let fields =
                names.iter().zip(&record).map(|(name, text)| (name.to_owned(), cell(text)));
            documents.push(Value::Object(fields.collect()));
        }
    } else {
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let line_number = index + 1;
            match serde_json::from_str(line) {
                Ok(document @ Value::Object(_)) => documents.push(document),
                Ok(_) => {
                    return Err(invalid(line_number, "a document must be a JSON object".into()));
                }
                Err(error) => return Err(invalid(line_number, json_reason(&error))),
            }
        }
    }
    if documents.is_empty() {
        return Err(CommandError::Usage(format!("{} has no documents", path.display())));
    }
    Ok(documents)
}

/// The start of a text from a file.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

/// Why a line is not JSON, without the position in the line's own count of lines.
fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("not a JSON object: {reason} at column {}", error.column())
}

/// A cell of a CSV file: null, a number, a boolean or a text.
fn cell(text: &str) -> Value {
    match text {
        "" => Value::Null,
        "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        // Elasticsearch reads such texts as numbers too, but they may be the names of categories, such as 01234.
        text if has_odd_start(text) => text.into(),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) if number.is_finite() => number.into(),
            (_, Ok(_)) => Value::Null,
            _ => text.into(),
        },
    }
}

/// Whether a text starts with a plus sign or with a zero before another digit.
fn has_odd_start(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    matches!(digits, [b'+', ..] | [b'0', b'0'..=b'9', ..])
}

/// Value of a field, as Elasticsearch finds it: under its whole name, or within nested objects whose names are parts of the name, the
/// longer part first. Null counts as absent if there is another value.
pub(super) fn field<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let whole = document.get(name);
    if whole.is_some_and(|value| !value.is_null()) {
        return whole;
    }
    let nested = name.rmatch_indices('.').find_map(|(at, _)| {
        let inner = document.get(&name[..at])?.as_object()?;
        field(inner, &name[at + 1..]).filter(|value| !value.is_null())
    });
    nested.or(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn longer_names_come_first_and_null_is_skipped() {
        for (document, expected) in [
            (json!({"a.b.c": 1, "a": {"b": {"c": 2}}}), json!(1)),
            (json!({"a": {"b": {"c": 2}}, "a.b": {"c": 5}}), json!(5)),
            (json!({"a": {"b.c": 3}, "a.b": {"d": 5}}), json!(3)),
            (json!({"a.b.c": null, "a": {"b": {"c": 2}}}), json!(2)),
            (json!({"a": {"b": {"c": {"d": 2}}}}), json!({"d": 2})),
        ] {
            let document = document.as_object().unwrap();
            assert_eq!(field(document, "a.b.c"), Some(&expected), "{document:?}");
        }
        assert_eq!(field(json!({"a": {"b": 1}}).as_object().unwrap(), "a.b.c"), None);
    }
}
