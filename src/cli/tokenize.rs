//! `rust-eland tokenize`.

use std::io::{self, BufRead};
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::command_error::CommandError;
use super::infer_report::quoted;
use super::input;
use super::report::{Format, print};
use super::scripts_arguments::ScriptsArguments;
use super::source::SourceArguments;
use crate::bundle::Bundle;
use crate::conversion::{Options, common_ends};
use crate::terminal_text::{escape, escape_json};
use crate::workflow::token_comparison::{Comparison, Text, TokenComparison};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("tokenizer").required(true).args(["hub_model_id", "bundle"]))]
#[command(mut_args(ScriptsArguments::conflicting_with(&["bundle"])))]
pub(super) struct TokenizeArguments {
    /// Texts to tokenize; a tab separates the two texts of a pair [default: one text per line of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    source: SourceArguments,
    /// The ID.metadata.json of an exported model. Prints only the server's tokens, because a bundle does not contain the model's own
    /// tokenizer
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
    /// Model to use from a repository that provides several; `rust-eland inspect` lists them
    #[arg(long, value_name = "NAME", conflicts_with = "bundle")]
    part: Option<String>,
    /// Maximum number of input tokens, instead of the model's own limit
    #[arg(long, value_name = "N", conflicts_with = "bundle", value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    #[command(flatten)]
    scripts: ScriptsArguments,
    /// Format of the result: a table, or one JSON document per text
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: Format,
}

impl TokenizeArguments {
    /// Prints the tokens of each text.
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let tokenizers = self.tokenizers().await?;
        let mut shown = 0;
        let mut show = |line: &str| {
            let comparison = tokenizers.compare(Text::of_line(line))?;
            let text = match self.output {
                Format::Json => {
                    escape_json(&serde_json::to_string(&comparison).map_err(io::Error::from)?)
                }
                Format::Table => escape(&table(&tokenizers, &comparison)),
            };
            let gap = if shown > 0 && self.output == Format::Table { "\n" } else { "" };
            shown += 1;
            print(format!("{gap}{text}\n").as_bytes())
        };
        if !self.texts.is_empty() {
            return self.texts.iter().try_for_each(|text| show(text));
        }
        let mut lines = io::stdin().lock();
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            if lines.read_until(b'\n', &mut bytes).map_err(input::unreadable)? == 0 {
                break;
            }
            let line = input::line(&bytes, number)?;
            show(line)?;
        }
        Ok(())
    }

    async fn tokenizers(&self) -> Result<TokenComparison, CommandError> {
        if let Some(path) = &self.bundle {
            let (configuration, vocabulary) = Bundle::read_vocabulary(path)?;
            let Some(vocabulary) = vocabulary else {
                let message = format!("the model in {} does not read text", path.display());
                return Err(CommandError::Usage(message));
            };
            return Ok(TokenComparison::of_upload(&configuration, vocabulary)?);
        }
        let source = self.source.source()?.resolve().await?;
        let options = Options {
            part: self.part.clone(),
            max_length: self.max_model_input_length,
            scripts: self.scripts.scripts(),
            ..Options::default()
        };
        let tokenizers = TokenComparison::of_model(&source, options).await?;
        if !tokenizers.has_model() {
            tracing::warn!(
                "the model has no tokenizer.json, so only the tokens of Elasticsearch are shown"
            );
        }
        Ok(tokenizers)
    }
}

/// The tokens of a text as lines. Arrows mark the parts that differ.
fn table(tokenizers: &TokenComparison, comparison: &Comparison) -> String {
    let mut text = match &comparison.text {
        Text::Single(text) => quoted(text),
        Text::Pair(first, second) => format!("{} {}", quoted(first), quoted(second)),
    };
    if comparison.truncated {
        text += " (too long for one row)";
    }
    if comparison.left_out {
        text += " (has letters of scripts whose tokens are left out)";
    }
    let read = comparison.model_input().unwrap_or_default();
    let common = match &comparison.model {
        Some(model) if comparison.server.is_some() => Some(common_ends(read, model)),
        _ => None,
    };
    let lines = |name: &str, ids: &[u32], common, token: &dyn Fn(u32) -> String| {
        let tokens = marked(ids, common, token);
        let numbers = marked(ids, common, &|id| id.to_string());
        format!("\n  {name:<7}{tokens}\n         {numbers}")
    };
    let server_token = |id| tokenizers.server_token(id).to_owned();
    text += &match (&comparison.error, &comparison.server, &comparison.graph) {
        (Some(error), ..) => format!("\n  server  error: {error}"),
        (None, Some(server), Some(graph)) => {
            lines("server", server, None, &server_token)
                + &lines("graph", graph, common, &server_token)
        }
        (None, server, _) => {
            lines("server", server.as_deref().unwrap_or_default(), common, &server_token)
        }
    };
    if let Some(model) = &comparison.model {
        text += &lines("model", model, common, &|id| tokenizers.model_token(id));
    }
    text
}

/// The words of a row, with arrows around the part between the common prefix and the common suffix.
fn marked(ids: &[u32], common: Option<(usize, usize)>, word: &dyn Fn(u32) -> String) -> String {
    let (start, end) = match common {
        Some((before, after)) => (before, ids.len() - after),
        None => (ids.len(), ids.len()),
    };
    let words = ids.iter().enumerate().map(|(at, id)| {
        let open = if at == start && start < end { "»" } else { "" };
        let close = if at + 1 == end && start < end { "«" } else { "" };
        format!(" {open}{}{close}", word(*id))
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_words_are_marked_with_arrows() {
        let marked = |ids: &[u32], other: &[u32]| {
            marked(ids, Some(common_ends(ids, other)), &|id| id.to_string())
        };
        assert_eq!(marked(&[1, 2, 3, 4], &[1, 9, 4]), " 1 »2 3« 4");
        assert_eq!(marked(&[1, 9, 4], &[1, 2, 3, 4]), " 1 »9« 4");
        assert_eq!(marked(&[1, 4], &[1, 4]), " 1 4");
    }
}
