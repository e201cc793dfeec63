//! Results on standard output: a table or JSON. The program prints nothing else there.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::command_error::CommandError;
use crate::terminal_text::{escape, escape_json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// The format of results.
#[derive(Debug, Clone, Args)]
pub(super) struct ReportArguments {
    /// Format of the result: a table or one JSON document
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: Format,
}

/// A result that can be printed as text, and as JSON through serde.
pub(super) trait Report: Serialize {
    /// The text, without a line break at the end.
    fn text(&self) -> String;
}

impl ReportArguments {
    /// Prints a result.
    pub(super) fn print(&self, report: &impl Report) -> Result<(), CommandError> {
        let mut text = match self.output {
            Format::Table => escape(&report.text()),
            Format::Json => {
                escape_json(&serde_json::to_string_pretty(report).map_err(io::Error::from)?)
            }
        };
        text.push('\n');
        print(text.as_bytes())
    }
}

/// Prints bytes unchanged.
pub(super) fn print(text: &[u8]) -> Result<(), CommandError> {
    match io::stdout().lock().write_all(text) {
        // The reader closed the pipe, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a line to standard error. A program whose standard error is closed goes on.
pub(super) fn print_error(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Rows below a header. Columns are as wide as their longest cell, and empty columns are omitted.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        if widest == 0 && !rows.is_empty() { 0 } else { widest.max(header[column].len()) }
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths).filter(|(_, width)| *width > 0) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.trim_end().to_owned()
    };
    let header = header.map(str::to_owned);
    let lines: Vec<String> = std::iter::once(&header).chain(rows).map(line).collect();
    lines.join("\n")
}

/// The value as text, or an empty text if there is no value.
pub(super) fn cell(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_width_of_their_longest_cell() {
        let row = |a: &str, b: &str| [a.to_owned(), String::new(), b.to_owned()];
        let text = table(["ID", "NONE", "STATE"], &[row("a-long-one", "x"), row("ü", "y")]);
        assert_eq!(text, "ID          STATE\na-long-one  x\nü           y");
        assert_eq!(table(["ID", "STATE"], &[]), "ID  STATE");
    }
}
