//! Compares the tokens that Elasticsearch computes with those of the model's own tokenizer.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::resolve::ResolvedSource;
use crate::config::SentenceTransformers;
use crate::conversion::{Conversion, ConversionError, Options, Plan, TokenEffect, kept_scripts};
use crate::error::Error;
use crate::observer::Progress;
use crate::scripts::Scripts;
use crate::server_tokenization::{Settings, Tokenizer as ServerTokenizer};
use crate::source::ModelFiles;
use crate::special_tokens::AppendedTokens;
use crate::tokenizer::{ModelTokenizer, TokenizerError};
use crate::vocabulary::Vocabulary;

/// One text, or a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Text {
    /// One text.
    Single(String),
    /// Two texts.
    Pair(String, String),
}

impl Text {
    /// Reads a line: a tab separates the two texts of a pair.
    #[must_use]
    pub fn of_line(line: &str) -> Self {
        match line.split_once('\t') {
            Some((first, second)) => Self::Pair(first.to_owned(), second.to_owned()),
            None => Self::Single(line.to_owned()),
        }
    }
}

/// The tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The text.
    pub text: Text,
    /// The ids that the server computes; `None` if it throws an exception.
    pub server: Option<Vec<u32>>,
    /// The message of the exception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The ids that the graph passes to the model, where they are not those of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Vec<u32>>,
    /// The ids of the model's own tokenizer; `None` if the model is not available or has no `tokenizer.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Vec<u32>>,
    /// Whether the text has characters of scripts whose tokens are left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// Whether the text is too long for one row: Elasticsearch cuts the text, or reads several windows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl Comparison {
    /// Whether the server and the model's own tokenizer return the same ids. True without a model to compare with, and false if the tokens
    /// of characters are left out.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.model.is_none() || !self.left_out && self.model_input() == self.model.as_deref()
    }

    /// The ids that the model reads in Elasticsearch.
    #[must_use]
    pub fn model_input(&self) -> Option<&[u32]> {
        self.graph.as_deref().or(self.server.as_deref())
    }
}

/// Number of texts that the server tokenizes as the model's own tokenizer does.
#[derive(Debug, Serialize)]
pub struct TextsSummary {
    /// The number of texts.
    pub total: usize,
    /// The number of texts with the same ids.
    pub equal: usize,
    /// The first texts with other ids.
    pub different: Vec<DifferentText>,
    /// How far the answers move, if any text has other ids.
    pub answers: Option<TokenEffect>,
    /// The ids of different texts: of the server, and of the model's own tokenizer.
    #[serde(skip)]
    rows: Vec<(Vec<u32>, Vec<u32>)>,
}

impl TextsSummary {
    /// Runs the model on the ids of both tokenizers, if any text has other ids. Downloads the weights.
    ///
    /// # Errors
    /// When the model cannot be downloaded or converted.
    pub async fn compare_answers(
        &mut self,
        source: &ResolvedSource,
        options: Options,
        progress: &Progress,
    ) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let files = source.files(progress).await?;
        let options = Options { quantize: None, ..options };
        let (rows, progress) = (std::mem::take(&mut self.rows), progress.clone());
        let compared = tokio::task::spawn_blocking(move || {
            Conversion::read(&files, options, &progress)?.token_effect(&rows)
        });
        self.answers = match compared.await {
            Ok(effect) => Some(effect?),
            // The task is not cancelled, so it can only have panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        Ok(())
    }
}

/// A text that the server tokenizes differently.
#[derive(Debug, Serialize)]
pub struct DifferentText {
    /// The number of the line, from 1.
    pub line: usize,
    /// The tokens.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// What the text contains that Elasticsearch treats differently.
    pub causes: Vec<String>,
    /// The tokens that the model reads in Elasticsearch.
    #[serde(skip)]
    pub server_tokens: Vec<String>,
    /// The tokens of the model's own tokenizer.
    #[serde(skip)]
    pub model_tokens: Vec<String>,
}

/// Maximum number of different texts in a summary.
const MAX_DIFFERENT: usize = 10;

/// The greatest number of texts whose answers are compared.
const MAX_ROWS: usize = 1000;

/// A tokenizer of the server, and the model's own.
pub struct TokenComparison {
    server: ServerTokenizer,
    model: Option<ModelTokenizer>,
    appended: Option<AppendedTokens>,
    /// Whether the graph drops the first token of each row.
    drops_first: bool,
    /// The scripts whose tokens are kept; `None` if all are.
    kept: Option<Scripts>,
}

impl TokenComparison {
    /// The tokenizers of a model. No weights are downloaded.
    ///
    /// # Errors
    /// When a file cannot be downloaded or read, or a tokenizer cannot be built.
    pub async fn of_model(source: &ResolvedSource, options: Options) -> Result<Self, Error> {
        let (files, weights) = source.small_files().await?;
        let plan = Plan::read(&files, &weights, options, "")?;
        Ok(Self::of_plan(&files, plan)?)
    }

    /// The tokenizers of a model. `plan` describes what an import of `files` would upload.
    fn of_plan(files: &ModelFiles, plan: Plan) -> Result<Self, ConversionError> {
        let modules = SentenceTransformers::read(files, plan.chosen_part())?;
        let uploaded = match (plan.uploaded, plan.problem) {
            (Some(uploaded), _) => uploaded,
            (None, Some(problem)) => return Err(problem),
            (None, None) => return Err(TokenizerError::Empty("the tokenizer").into()),
        };
        let settings = match plan.configuration.as_ref().and_then(tokenization) {
            Some(tokenization) => settings(tokenization)?,
            None => settings(&json!({ uploaded.kind.name(): uploaded.settings }))?,
        };
        let folder = files.sub(modules.as_ref().map_or("", |it| it.transformer.as_str()))?;
        let drops_first = uploaded.drops_first();
        let max_length = settings.max_sequence_length.saturating_sub(drops_first.into());
        let model = ModelTokenizer::read(&folder, max_length)?;
        let model = model.map(|it| it.for_rows_of(&uploaded));
        let appended = uploaded.special.appended;
        let kept = uploaded.kept_scripts().cloned();
        let server = server(settings, uploaded.vocabulary)?;
        Ok(Self { server, model, appended, drops_first, kept })
    }

    /// Builds the server's tokenizer from a configuration and vocabulary that are ready to be uploaded, without a model to compare
    /// with.
    ///
    /// # Errors
    /// When the tokenizer cannot be built.
    pub fn of_upload(
        configuration: &Map<String, Value>,
        vocabulary: Vocabulary,
    ) -> Result<Self, ConversionError> {
        // Elasticsearch uses bert tokenization if the configuration names none.
        let default = json!({"bert": {}});
        let settings = settings(tokenization(configuration).unwrap_or(&default))?;
        let server = server(settings, vocabulary)?;
        // Only texts are marked by these scripts.
        let kept = configuration.get("metadata").and_then(|it| kept_scripts(it).ok()?);
        Ok(Self { server, model: None, appended: None, drops_first: false, kept })
    }

    /// Whether the model's own tokenizer is available.
    #[must_use]
    pub fn has_model(&self) -> bool {
        self.model.is_some()
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// When the model's own tokenizer fails.
    pub fn compare(&self, text: Text) -> Result<Comparison, ConversionError> {
        let (first, second) = match &text {
            Text::Single(text) => (text.as_str(), None),
            Text::Pair(first, second) => (first.as_str(), Some(second.as_str())),
        };
        let (truncate, span) = (self.server.settings().truncate, self.server.settings().span);
        let rows = match second {
            None => self.server.single(first, truncate, span),
            Some(second) => self.server.pair_windows(first, second, truncate, span),
        };
        let truncated =
            rows.as_ref().is_ok_and(|rows| rows.len() > 1 || rows.iter().any(|it| it.is_truncated));
        let model = self.model.as_ref().map(|model| model.ids(first, second)).transpose()?;
        // The windows of a long text are joined.
        let graph = rows
            .as_ref()
            .ok()
            .map(|rows| rows.iter().flat_map(|row| self.graph_ids(&row.ids)).collect::<Vec<u32>>());
        let (server, error): (Option<Vec<u32>>, _) = match rows {
            Ok(rows) => (Some(rows.into_iter().flat_map(|row| row.ids).collect()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let graph = graph.filter(|graph| server.as_ref() != Some(graph));
        let is_whole = |text: &str| self.kept.as_ref().is_none_or(|scripts| scripts.contain(text));
        let left_out = !is_whole(first) || !second.is_none_or(is_whole);
        Ok(Comparison { server, error, graph, model, left_out, truncated, text })
    }

    /// The ids that the graph passes to the model for a row of the server.
    fn graph_ids(&self, row: &[u32]) -> Vec<u32> {
        let row = if self.drops_first { row.get(1..).unwrap_or_default() } else { row };
        self.appended.map_or_else(|| row.to_vec(), |appended| appended.model_ids(row))
    }

    /// Compares the tokens of texts, each with the number of its line.
    ///
    /// # Errors
    /// When the model's own tokenizer fails.
    pub fn summary(
        &self,
        texts: impl IntoIterator<Item = (usize, Text)>,
    ) -> Result<TextsSummary, ConversionError> {
        let mut summary = TextsSummary {
            total: 0,
            equal: 0,
            different: Vec::new(),
            answers: None,
            rows: Vec::new(),
        };
        for (line, text) in texts {
            let comparison = self.compare(text)?;
            summary.total += 1;
            if comparison.is_equal() {
                summary.equal += 1;
                continue;
            }
            if let (Some(server), Some(model)) = (&comparison.server, &comparison.model)
                && !comparison.left_out
                && summary.rows.len() < MAX_ROWS
            {
                summary.rows.push((server.clone(), model.clone()));
            }
            if summary.different.len() < MAX_DIFFERENT {
                let causes = self.causes(&comparison);
                let (input, own) = (comparison.model_input(), comparison.model.as_deref());
                let stored = |id: &u32| self.server_token(*id).to_owned();
                let server_tokens = input.unwrap_or_default().iter().map(stored).collect();
                let own = own.unwrap_or_default().iter();
                let model_tokens = own.map(|id| self.model_token(*id)).collect();
                let different =
                    DifferentText { line, comparison, causes, server_tokens, model_tokens };
                summary.different.push(different);
            }
        }
        Ok(summary)
    }

    /// What a text contains that the server treats differently.
    fn causes(&self, comparison: &Comparison) -> Vec<String> {
        let mut causes = Vec::new();
        if let Some(error) = &comparison.error {
            causes.push(format!("Elasticsearch throws an exception ({error})"));
        }
        if comparison.left_out {
            causes.push("characters of scripts whose tokens are left out".to_owned());
        }
        if comparison.truncated {
            let max = self.server.settings().max_sequence_length;
            causes.push(format!("more than {max} tokens"));
        }
        let differences = match &comparison.text {
            Text::Single(text) => self.server.differences(text, None),
            Text::Pair(first, second) => self.server.differences(first, Some(second)),
        };
        causes.extend(differences.iter().map(ToString::to_string));
        causes
    }

    /// The text of a token of the server.
    #[must_use]
    pub fn server_token(&self, id: u32) -> &str {
        self.server.stored(id as usize).unwrap_or("?")
    }

    /// The text of a token of the model's own tokenizer.
    #[must_use]
    pub fn model_token(&self, id: u32) -> String {
        self.model.as_ref().and_then(|model| model.token(id)).unwrap_or_else(|| "?".into())
    }
}

/// Builds the server's tokenizer.
pub(super) fn server(
    settings: Settings,
    vocabulary: Vocabulary,
) -> Result<ServerTokenizer, TokenizerError> {
    let Vocabulary { vocabulary, merges, scores } = vocabulary;
    let (merges, scores) = (merges.unwrap_or_default(), scores.unwrap_or_default());
    let built = ServerTokenizer::build(settings, vocabulary, &merges, &scores);
    built.map_err(|error| broken("the vocabulary", &error))
}

/// Reads the settings of the server's tokenizer.
pub(super) fn settings(tokenization: &Value) -> Result<Settings, TokenizerError> {
    Settings::from_json(tokenization).map_err(|error| broken("the tokenization settings", &error))
}

fn broken(file: &'static str, reason: &dyn Display) -> TokenizerError {
    TokenizerError::Broken { file, reason: reason.to_string() }
}

/// The settings of the tokenizer in the body of a request that creates a model.
pub(super) fn tokenization(configuration: &Map<String, Value>) -> Option<&Value> {
    let tasks = configuration.get("inference_config")?.as_object()?;
    tasks.values().find_map(|task| task.get("tokenization"))
}
