//! The answers to the questions of a guided import.

use super::NAME;
use super::command_error::CommandError;
use super::command_line::CommandLine;
use super::import::ImportArguments;
use super::option_value::{SetOption, Unset, Value};
use crate::secrets::Secret;

/// The answers: options with their values.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// Options that are printed, without a value if they are flags.
    pub(super) open: Vec<(&'static str, Option<String>)>,
    /// Secret options, which are never printed.
    pub(super) secret: Vec<(&'static str, Secret)>,
}

impl Answers {
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.open.retain(|(other, _)| *other != name);
        self.open.push((name, Some(value.into())));
    }

    /// Whether an option is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.open.iter().any(|(option, _)| *option == name)
    }

    /// Whether an option has this value.
    pub(super) fn has_value(&self, name: &str, value: &str) -> bool {
        self.open.iter().any(|(option, set)| *option == name && set.as_deref() == Some(value))
    }

    /// The import that the answers describe.
    pub(super) fn import(&self) -> Result<ImportArguments, CommandError> {
        let mut import = ImportArguments::unset()?;
        let open = self.open.iter().map(|(name, value)| (name, value.as_deref().unwrap_or("true")));
        let secret = self.secret.iter().map(|(name, secret)| (name, secret.expose()));
        for (name, value) in open.chain(secret) {
            let set = import.set(name.trim_start_matches('-'), &Value::Text(value.to_owned()));
            set.map_err(|error| {
                CommandError::Usage(match error {
                    Unset::Invalid(reason) => reason,
                    Unset::UnknownName => format!("unknown option {name}"),
                })
            })?;
        }
        Ok(import)
    }

    /// The command line, without secrets.
    pub(super) fn shown(&self) -> String {
        let mut line = CommandLine(format!("{NAME} import"));
        for (name, value) in &self.open {
            match value {
                // The value of an option whose value is optional follows an equals sign.
                Some(value) if *name == "--quantize" => line.flag(&format!("{name}={value}"), true),
                Some(value) => line.option(name, Some(value)),
                None => line.flag(name, true),
            }
        }
        line.0
    }

    /// A note about the secrets that the command line does not contain.
    pub(super) fn note(&self) -> Option<String> {
        let (option, _) = self.secret.first()?;
        Some(match *option {
            "--es-api-key" => "set the API key in the environment variable ES_API_KEY".to_owned(),
            _ => "set the password in the environment variable ES_PASSWORD, or enter it when asked"
                .to_owned(),
        })
    }
}
