//! Options that keep only the tokens of some scripts.

use clap::{Arg, Args};

use super::option_value::{SetOption, Unset, Value};
use crate::scripts::Scripts;

/// The scripts of the texts that a model reads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ScriptsArguments {
    /// Keep only tokens for texts in these scripts, such as latin,cyrillic, and for ASCII, digits, punctuation, symbols and emoji. Such texts get
    /// the same answers from a smaller model; it does not understand others [default: all tokens]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    scripts: Vec<Scripts>,
    /// Keep only tokens for texts in the scripts of these languages, such as en,de,ru; see --scripts
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = Scripts::of_languages)]
    languages: Vec<Scripts>,
}

impl SetOption for ScriptsArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "scripts" => self.scripts = value.items(|name| name.parse())?,
            "languages" => self.languages = value.items(Scripts::of_languages)?,
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl ScriptsArguments {
    /// Change of the arguments of a command in which the options cannot be used with other ones.
    pub(super) fn conflicting_with(others: &'static [&'static str]) -> impl Fn(Arg) -> Arg {
        move |argument| match argument.get_id().as_str() {
            "scripts" | "languages" => argument.conflicts_with_all(others),
            _ => argument,
        }
    }

    /// The scripts of the texts, if the options restrict them.
    pub(super) fn scripts(&self) -> Option<Scripts> {
        self.scripts.iter().chain(&self.languages).cloned().reduce(Scripts::and)
    }
}
