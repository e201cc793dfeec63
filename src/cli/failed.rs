//! How an error is told: what failed, why, what to do; with `--verbose` what lies beneath it.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Write as _;

use serde_json::json;

use super::command_error::CommandError;
use super::log::{LogFormat, is_coloured, json_time};
use super::{exit_code, hints, similar};
use crate::secrets::redact;

/// A run that failed, and how to print the error.
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

    /// Writes the message to standard error, without secrets.
    pub fn print(&self) {
        let mut message = self.error.to_string();
        let hint = self.error.hint().map(|hint| hints::rendered(&hint));
        for tip in [hint, similar::tip(&self.error)].into_iter().flatten() {
            message += &format!("\n\n  tip: {tip}");
        }
        let causes = if self.verbose { causes(&self.error) } else { Vec::new() };
        match self.format {
            LogFormat::Json => tell_json(&message, &causes, self.exit_code()),
            LogFormat::Text => {
                let label = if is_coloured() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
                let mut text = format!("{label} {message}");
                if !causes.is_empty() {
                    text += "\n\ncaused by:";
                }
                for (cause, number) in causes.iter().zip(1..) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\n  {number}. {cause}");
                }
                eprintln!("{}", redact(&text));
            }
        }
    }
}

/// Tells that the command line is not one, or shows the help that it asks for, and ends the process.
pub(super) fn exit(error: &clap::Error, arguments: &[OsString]) -> ! {
    let is_json = |pair: &[OsString]| pair[0] == "--log-format" && pair[1] == "json";
    let wants_json =
        arguments.windows(2).any(is_json) || arguments.iter().any(|it| it == "--log-format=json");
    if wants_json && error.use_stderr() {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        tell_json(message, &[], u8::try_from(error.exit_code()).unwrap_or(2));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// The causes, outermost first, a line each.
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

/// A line like those of the log, with the exit code.
fn tell_json(message: &str, causes: &[String], exit_code: u8) {
    let mut line = json!({"timestamp": json_time(), "level": "ERROR", "message": message});
    if !causes.is_empty() {
        line["causes"] = causes.into();
    }
    line["exit_code"] = exit_code.into();
    eprintln!("{}", redact(&line.to_string()));
}
