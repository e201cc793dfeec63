//! Comparison of a served model with its source: the model's own tokenizer and float32 graph, run in this process.
//!
//! For each text whose answers differ, the graph is run again on the tokens that the server computes. Equal answers mean that the tokens
//! are the cause; other answers mean that the graph, its numbers or the vocabulary are.

mod causes;
mod comparison;
mod served;
mod sides;
mod texts;

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::resolve::ResolvedSource;
use super::token_comparison::{settings, tokenization};
use crate::conversion::{
    Conversion, ConversionError, DIMENSIONS, LORA_TASK, Options, PART, kept_scripts,
};
use crate::elasticsearch::{Client, DeployedModel, DeploymentError};
use crate::error::Error;
use crate::hint::hint;
use crate::inference_results::{InferenceError, Input};
use crate::observer::Progress;
use crate::server_tokenization::{Kind, Settings, TokenizationError};
use crate::tasks::agreement::Figure;
use crate::tasks::{AgreementSamples, Task};

use sides::Sides;

/// A comparison to run.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The source of the model.
    pub source: ResolvedSource,
    /// Texts, or pairs; built-in texts by default.
    pub texts: Option<Vec<Input<'static>>>,
    /// Largest accepted difference, relative to the largest number of an answer, or to 1.
    pub tolerance: f64,
    /// Longest input in tokens, for a model whose limit was changed on purpose; the model's own limit by default.
    pub max_length: Option<u32>,
}

/// Why an answer differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The cluster rejects the text.
    Rejected,
    /// Elasticsearch computes other tokens than the model's own tokenizer.
    Tokens,
    /// The text has characters of scripts whose tokens are left out.
    Scripts,
    /// The cluster truncates the text, and the model does not.
    Truncation,
    /// A setting of the configuration in the cluster differs from the model's.
    Settings,
    /// The graph in the cluster has 8-bit weights.
    Quantization,
    /// The graph in the cluster has a known defect.
    Graph,
    /// The numbers of the graph, or the vocabulary, differ.
    Numbers,
    /// The model's own side has no answer to the text.
    Model,
}

impl Cause {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Tokens => "tokens",
            Self::Scripts => "scripts",
            Self::Truncation => "truncation",
            Self::Settings => "settings",
            Self::Quantization => "quantization",
            Self::Graph => "graph",
            Self::Numbers => "numbers",
            Self::Model => "model",
        }
    }
}

/// A text whose answers differ by more than the tolerance.
#[derive(Debug, Serialize)]
pub struct DifferentAnswer {
    /// The first text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The text.
    pub text: String,
    /// The difference; none if one of the sides has no answer.
    pub difference: Option<f64>,
    /// The cause.
    pub cause: Cause,
    /// The message of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the model's own side has no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_error: Option<String>,
    /// Tokens that the model reads in Elasticsearch, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_tokens: Option<Vec<String>>,
    /// Tokens of the model's own tokenizer, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_tokens: Option<Vec<String>>,
}

/// A setting whose value in the cluster differs from the value that an import would store.
#[derive(Debug, Serialize)]
pub struct DifferentSetting {
    /// Path of the setting, such as `text_embedding.tokenization.bert.max_sequence_length`.
    pub name: String,
    /// Value in the cluster.
    pub cluster: Value,
    /// Value for the model.
    pub model: Value,
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Id of the model in the cluster.
    pub model_id: String,
    /// Source of the model.
    pub source: String,
    /// Task of the model.
    pub task: String,
    /// Number of texts.
    pub texts: usize,
    /// Number of texts whose answers differ by at most the tolerance.
    pub equal: usize,
    /// The tolerance.
    pub tolerance: f64,
    /// Largest difference of all answers.
    pub largest_difference: f64,
    /// Agreement of the cluster and the float model, with the figures of quantization; empty if no text has an answer on both sides.
    #[serde(serialize_with = "figures")]
    pub agreement: Vec<Figure>,
    /// Agreement on single texts, and numbers of the answers, for plots.
    #[serde(skip)]
    pub samples: AgreementSamples,
    /// Whether the configuration says that the model is quantized.
    pub is_quantized: bool,
    /// Settings that differ.
    pub settings: Vec<DifferentSetting>,
    /// What is wrong with the model in the cluster.
    pub findings: Vec<String>,
    /// Texts whose answers differ, largest difference first.
    pub different: Vec<DifferentAnswer>,
}

/// Formats the figures as an object, or as null if there are none.
fn figures<S: Serializer>(figures: &[Figure], to: S) -> Result<S::Ok, S::Error> {
    if figures.is_empty() {
        return to.serialize_none();
    }
    to.collect_map(figures.iter().map(|figure| (figure.name, (figure.value * 1e6).round() / 1e6)))
}

impl Verification {
    /// Whether all answers are equal within the tolerance.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.equal == self.texts
    }

    /// The result in one line, such as `verified: 64 of 64 texts within 1e-5`.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} of {} texts within {:e}", self.equal, self.texts, self.tolerance)
    }
}

/// Settings of a request that make answers comparable in full.
fn overrides(task: Task) -> Map<String, Value> {
    let settings = match task {
        Task::ZeroShotClassification => json!({"labels": texts::LABELS, "multi_label": true}),
        Task::TextClassification => json!({"num_top_classes": -1}),
        Task::FillMask | Task::QuestionAnswering => json!({"num_top_classes": 5}),
        _ => json!({}),
    };
    settings.as_object().cloned().unwrap_or_default()
}

/// What a verification needs of a model in the cluster.
struct Served {
    task: Task,
    settings: Settings,
}

impl Served {
    /// Reads the configuration of a model.
    fn of(model: &DeployedModel) -> Result<Self, Error> {
        let configuration = model.configuration();
        let id = configuration["model_id"].as_str().unwrap_or("the model");
        if let Some(kind) = configuration["model_type"].as_str().filter(|kind| *kind != "pytorch") {
            let reason = format!(
                "{id} is a model of type {kind}, which is a part of Elasticsearch and has no source to compare it with"
            );
            let hint = hint!("Verify models that you imported.");
            return Err(DeploymentError::Settings { reason, hint }.into());
        }
        let hint = hint!("Verify models that Elasticsearch runs with PyTorch.");
        let unknown = |reason| DeploymentError::Settings { reason, hint };
        let task = model.task().parse().map_err(unknown)?;
        let tokenization = configuration.as_object().and_then(tokenization);
        let settings = tokenization.map_or_else(|| settings(&json!({"bert": {}})), settings);
        let settings = settings.map_err(ConversionError::from)?;
        if settings.kind == Kind::BertJa {
            return Err(InferenceError::from(TokenizationError::NoJapaneseAnalyser).into());
        }
        Ok(Self { task, settings })
    }
}

impl VerifyRequest {
    /// Checks whether a deployed model can be compared with a source, before the source is downloaded.
    ///
    /// # Errors
    /// When the model is a part of Elasticsearch, or its tokens cannot be computed here.
    pub fn check(model: &DeployedModel) -> Result<(), Error> {
        Served::of(model).map(drop)
    }

    /// Compares the answers of a deployed model with those of its source.
    ///
    /// # Errors
    /// When the cluster or the source cannot be used. Different answers are part of the result.
    pub async fn run(
        self,
        client: &Client,
        model_id: &str,
        model: &DeployedModel,
        progress: &Progress,
    ) -> Result<Verification, Error> {
        let Served { task, settings: served_settings } = Served::of(model)?;
        let configuration = model.configuration();
        let served = configuration.as_object().cloned().unwrap_or_default();
        let scripts = kept_scripts(&configuration["metadata"]).map_err(|error| {
            let reason =
                format!("the metadata of {model_id} names scripts that are not known: {error}");
            DeploymentError::Settings { reason, hint: hint!("Import the model again.") }
        })?;
        let mut inputs = match self.texts {
            Some(texts) => texts,
            None => {
                let mut texts = texts::built_in(task, served_settings.kind.mask_token());
                if let Some(scripts) = &scripts {
                    // The model has no tokens for the others.
                    let is_whole = |text: &Cow<'_, str>| scripts.contain(text);
                    texts.retain(|it| is_whole(&it.text) && it.first.iter().all(is_whole));
                }
                texts
            }
        };
        // `_infer` adds no prefix, so both sides get the text with the prefix.
        if let Some(prefix) = configuration["prefix_strings"]["ingest"].as_str() {
            for input in &mut inputs {
                input.text = Cow::Owned(format!("{prefix}{}", input.text));
            }
        }
        let overrides = overrides(task);
        let answers = served::answers(client, model, &inputs, &overrides, progress).await?;
        let files = self.source.files(progress).await?;
        let source = match (self.source.origin(), &self.source) {
            (Some(origin), _) => format!("{}@{}", origin.model_id, origin.commit),
            (None, ResolvedSource::Folder(folder)) => folder.display().to_string(),
            (None, ResolvedSource::Hub(_)) => String::new(),
        };
        let recorded = |key: &str| configuration["metadata"][key].as_str().map(str::to_owned);
        let options = Options {
            task: Some(task),
            part: recorded(PART),
            lora_task: recorded(LORA_TASK),
            dimensions: configuration["metadata"][DIMENSIONS]
                .as_u64()
                .and_then(|dimensions| dimensions.try_into().ok()),
            scripts,
            target: client.target(),
            origin: self.source.origin(),
            max_length: self.max_length,
            ..Options::default()
        };
        let conversion = Conversion::read(&files, options.clone(), progress)?;
        let sides = Sides::new(&conversion, &files, options, served, served_settings, &overrides)?;
        let mut verification = sides.compare(&inputs, &answers, self.tolerance)?;
        verification.model_id = model_id.to_owned();
        verification.source = source;
        Ok(verification)
    }
}
