//! Formats an error: what failed and why, then what to do, and with `--verbose` also the causes.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Write as _;

use serde_json::json;

use super::command_error::CommandError;
use super::log::{LogFormat, is_coloured, json_time};
use super::report::print_error;
use super::{exit_code, hints, similar};
use crate::secrets::redact;
use crate::terminal_text::{escape, escape_json};

/// A failed run, with the settings for printing its error.
#[derive(Debug)]
pub struct Failed {
    pub(super) error: CommandError,
    pub(super) verbose: bool,
    pub(super) format: LogFormat,
}

impl Failed {
    /// The exit code of the program.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        exit_code::of(&self.error)
    }

    /// Writes the message to standard error. Secrets are removed, and control characters are escaped.
    pub fn print(&self) {
        let message = message(&self.error);
        let causes = if self.verbose { causes(&self.error) } else { Vec::new() };
        match self.format {
            LogFormat::Json => print_json(&message, &causes, self.exit_code()),
            LogFormat::Text => {
                let mut text = message;
                if !causes.is_empty() {
                    text += "\n\ncaused by:";
                }
                for (cause, number) in causes.iter().zip(1..) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\n  {number}. {cause}");
                }
                let label = if is_coloured() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
                print_error(&format!("{label} {}", escape(&redact(&text))));
            }
        }
    }
}

/// The message, followed by what the user can do.
pub(super) fn message(error: &CommandError) -> String {
    let mut message = error.to_string();
    let hint = error.hint().map(|hint| hints::rendered(&hint));
    for tip in [hint, similar::tip(error)].into_iter().flatten() {
        message += &format!("\n\n  tip: {tip}");
    }
    message
}

/// Prints a message about invalid arguments, or the requested help, and ends the process.
pub(super) fn exit(error: &clap::Error, arguments: &[OsString]) -> ! {
    let is_json = |pair: &[OsString]| pair[0] == "--log-format" && pair[1] == "json";
    let wants_json =
        arguments.windows(2).any(is_json) || arguments.iter().any(|it| it == "--log-format=json");
    if wants_json && error.use_stderr() {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        print_json(message, &[], u8::try_from(error.exit_code()).unwrap_or(2));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Causes of an error, outermost first, one per line.
fn causes(error: &CommandError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        causes.push(text.lines().next().unwrap_or_default().to_owned());
        next = cause.source();
    }
    causes.dedup();
    causes
}

/// Prints one line of the JSON log, with the exit code.
fn print_json(message: &str, causes: &[String], exit_code: u8) {
    let mut line = json!({"timestamp": json_time(), "level": "ERROR", "message": message});
    if !causes.is_empty() {
        line["causes"] = causes.into();
    }
    line["exit_code"] = exit_code.into();
    print_error(&escape_json(&redact(&line.to_string())));
}
