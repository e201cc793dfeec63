//! Questions on a terminal. An answer ends with the Enter key; a closed terminal and Ctrl-C are errors.

use std::io;

use dialoguer::{Confirm, Input, Password, Select};

use super::command_error::CommandError;
use crate::elasticsearch::ClientError;
use crate::secrets::Secret;

/// Asks for a text. The default is the answer to an empty line.
pub(super) fn text(prompt: &str, default: &str) -> Result<String, CommandError> {
    let input = Input::<String>::new().with_prompt(prompt).default(default.to_owned());
    input.interact_text().map(|text| text.trim().to_owned()).map_err(gone)
}

/// Asks for a text that may be empty.
pub(super) fn optional_text(prompt: &str) -> Result<String, CommandError> {
    let input = Input::<String>::new().with_prompt(prompt).allow_empty(true);
    input.interact_text().map(|text| text.trim().to_owned()).map_err(gone)
}

/// Asks for a text until it is not empty.
pub(super) fn required_text(prompt: &str) -> Result<String, CommandError> {
    let input = Input::<String>::new().with_prompt(prompt);
    input.interact_text().map(|text| text.trim().to_owned()).map_err(gone)
}

/// Asks for a secret, which the terminal does not show.
pub(super) fn hidden(prompt: &str) -> Result<Secret, CommandError> {
    Password::new().with_prompt(prompt).interact().map(Secret::new).map_err(gone)
}

/// Asks for one of several items, and returns its index.
pub(super) fn select(
    prompt: &str,
    items: &[String],
    default: usize,
) -> Result<usize, CommandError> {
    Select::new().with_prompt(prompt).items(items).default(default).interact().map_err(gone)
}

/// Asks a question whose answer is yes or no.
pub(super) fn confirm(prompt: &str, default: bool) -> Result<bool, CommandError> {
    Confirm::new().with_prompt(prompt).default(default).interact().map_err(gone)
}

/// The error for a closed terminal or Ctrl-C.
fn gone(error: dialoguer::Error) -> CommandError {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        io::ErrorKind::Interrupted => ClientError::Interrupted.into(),
        _ => CommandError::Usage(format!("cannot read from the terminal: {error}")),
    }
}
