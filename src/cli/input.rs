//! UTF-8 text of files and standard input.

use std::io::{self, Read};
use std::path::Path;

use super::command_error::CommandError;

/// Spreadsheets and editors on Windows write it before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Name of standard input in messages.
const STANDARD_INPUT: &str = "standard input";

/// The text of a file, without a byte order mark.
pub(super) fn of_file(path: &Path) -> Result<String, CommandError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| CommandError::Usage(format!("cannot read {name}: {error}")))?;
    decoded(bytes, &name)
}

/// The text of standard input, without a byte order mark.
pub(super) fn of_standard_input() -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
    decoded(bytes, STANDARD_INPUT)
}

/// The text of one line of standard input, without its line break.
pub(super) fn line(bytes: &[u8], number: usize) -> Result<&str, CommandError> {
    let bytes = match number {
        1 => bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes),
        _ => bytes,
    };
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| not_utf8(STANDARD_INPUT, number))
}

/// The error of standard input.
pub(super) fn unreadable(error: io::Error) -> CommandError {
    CommandError::Usage(format!("cannot read {STANDARD_INPUT}: {error}"))
}

fn decoded(mut bytes: Vec<u8>, name: &str) -> Result<String, CommandError> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        not_utf8(name, 1 + valid.iter().filter(|byte| **byte == b'\n').count())
    })
}

fn not_utf8(name: &str, line: usize) -> CommandError {
    CommandError::Usage(format!(
        "{name}, line {line}: the text is not UTF-8; convert it, for example with `iconv -t UTF-8`"
    ))
}

/// What is wrong on the line of [`line_of_open_quote`].
pub(super) const OPEN_QUOTE: &str =
    "a quotation mark is not closed; write \"\" for a quotation mark in a cell";

/// The line of a CSV file whose quotation mark is not closed, or is followed by other text than the next cell. The crate `csv` accepts
/// both, and joins the lines up to the next quotation mark.
pub(super) fn line_of_open_quote(text: &str) -> Option<usize> {
    enum State {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let (mut state, mut line, mut opened) = (State::Start, 1, 1);
    for c in text.chars() {
        state = match (state, c) {
            (State::Start, '"') => {
                opened = line;
                State::Quoted
            }
            // Two quotation marks in quotes are one mark of the cell.
            (State::Closed, '"') => State::Quoted,
            (State::Quoted, '"') => State::Closed,
            (State::Quoted, _) => State::Quoted,
            (_, ',' | '\n' | '\r') => State::Start,
            (State::Closed, _) => return Some(opened),
            (State::Start | State::Plain, _) => State::Plain,
        };
        line += usize::from(c == '\n');
    }
    matches!(state, State::Quoted).then_some(opened)
}

/// The other separator that the header of a CSV file of a single column contains.
pub(super) fn other_separator(header: &str) -> Option<char> {
    [';', '\t', '|'].into_iter().find(|separator| header.contains(*separator))
}

/// The line of a record in a CSV file, or of an error.
pub(super) fn csv_line(position: Option<&csv::Position>) -> usize {
    position.and_then(|it| usize::try_from(it.line()).ok()).unwrap_or(1)
}

/// The line and the reason of an error of the crate `csv`.
pub(super) fn csv_problem(error: &csv::Error) -> (usize, String) {
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} cells, and the header has {expected_len}")
        }
        _ => error.to_string(),
    };
    (csv_line(error.position()), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_dropped_and_invalid_text_names_its_line() {
        let of = |bytes: &[u8]| decoded(bytes.to_vec(), "a.txt").map_err(|it| it.to_string());
        assert_eq!(of(b"\xef\xbb\xbfa\nb"), Ok("a\nb".into()));
        let error = of(b"a\nb\nc\xe9\n").unwrap_err();
        assert!(error.contains("a.txt, line 3") && error.contains("iconv"), "{error}");
        assert_eq!(line(b"\xef\xbb\xbfa\r\n", 1).unwrap(), "a");
        assert!(line(b"\xe9\n", 4).unwrap_err().to_string().contains("line 4"));
    }

    #[test]
    fn open_quote_is_found() {
        assert_eq!(line_of_open_quote("a,b\n\"x \"\"y\"\"\n z\",\"\"\r\n5\" pipe,c\n"), None);
        assert_eq!(line_of_open_quote("a,b\nc,\"d\n"), Some(2));
        // The next quotation mark closes the cell.
        assert_eq!(line_of_open_quote("a,b\nc,\"d\ne,\"f\"\n"), Some(2));
    }
}
