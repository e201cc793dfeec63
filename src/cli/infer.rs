//! `rust-eland infer`.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::infer_report::InferReport;
use super::infer_texts::{self, Text};
use super::report::Format;
use super::source::SourceArguments;
use super::task_type::{TaskChoice, TaskParser};
use super::tree_model::TreeModelArguments;
use super::tree_predictions;
use super::upload::interruption;
use crate::bundle::Bundle;
use crate::conversion::Options;
use crate::elasticsearch::{Client, ClientError, DeployedModel, Interruption, ServedId};
use crate::inference_results::Input;
use crate::observer::{Progress, RunningStage, Stage};
use crate::workflow::LocalModel;

/// Texts in one call of a local model.
const LOCAL_BATCH: usize = 256;

/// Bytes of text in one call of a local model, so that results of long texts appear soon.
const LOCAL_BATCH_BYTES: usize = 16 << 10;

/// Number of texts from which progress is shown.
const LONG: usize = 64;

#[derive(Debug, Args)]
#[command(mut_group("cluster", |group| group.required(false)))]
#[command(group = ArgGroup::new("model").required(true).args(["es_model_id", "hub_model_id", "bundle", "tree_model"]))]
pub(super) struct InferArguments {
    /// Texts [default: one text per line of standard input]. Without --question or --query, a tab separates the two texts of a pair
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// File with the texts: one text per line, one JSON string or object per line (.jsonl), or CSV with a header (.csv)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "data"])]
    input: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// A model in Elasticsearch, one of its deployments, an alias, or an inference endpoint
    #[arg(long, value_name = "ID", requires = "cluster")]
    es_model_id: Option<ServedId>,
    #[command(flatten)]
    source: SourceArguments,
    /// The ID.metadata.json of an exported model
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
    /// Task of a model that runs locally; auto chooses it from the model's files
    #[arg(long, value_name = "TASK", default_value = "auto", value_parser = TaskParser, conflicts_with_all = ["es_model_id", "bundle"])]
    task_type: TaskChoice,
    /// Maximum number of input tokens, instead of the model's own limit
    #[arg(long, value_name = "N", conflicts_with_all = ["es_model_id", "bundle"], value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Documents for a tree model: JSON lines, or a CSV file with a header (.csv); - for JSON lines on standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "texts",
        required_unless_present_any = ["es_model_id", "hub_model_id", "bundle"]
    )]
    data: Option<PathBuf>,
    /// Labels to choose from, separated by commas (zero_shot_classification)
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Allow several labels per text (zero_shot_classification)
    #[arg(long)]
    multi_label: bool,
    /// Hypothesis for each label, in which {} is replaced by the label; for a model that runs locally [default: This example is {}.]
    #[arg(long, value_name = "TEXT", conflicts_with = "es_model_id")]
    hypothesis_template: Option<String>,
    /// Question to answer from each text (question_answering)
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// Query to compare each text with (text_similarity)
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Number of classes, tokens or answers to return per text
    #[arg(long, value_name = "N")]
    top_classes: Option<u32>,
    /// Number of texts per request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Seconds to wait for the results of one request
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Format of the result: a table, or one JSON document per text [default: table on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// A run over a list of texts, with the receivers of results and progress.
struct Run {
    texts: Vec<Text>,
    report: InferReport,
    progress: Option<RunningStage>,
    interruption: Interruption,
}

impl InferArguments {
    /// Prints the result of each text, batch by batch.
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let id = self.es_model_id.as_ref();
        if let Some(data) = &self.data {
            return tree_predictions::infer(&self.connection, &self.tree, id, data, progress).await;
        }
        match id {
            Some(id) => self.infer_remotely(id, progress).await,
            None => self.infer_locally(progress).await,
        }
    }

    async fn infer_remotely(&self, id: &ServedId, progress: &Progress) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        let model = DeployedModel::find(&client, id.clone()).await?;
        let mut run = self.run(model.task(), model.configuration(), progress)?;
        let timeout = Duration::from_secs(self.timeout);
        let mut settings = self.settings();
        for (at, end) in run.batches(self.batch_size as usize, usize::MAX, true) {
            let batch = &run.texts[at..end];
            if let (Some(name), Some(first)) =
                (infer_texts::first_setting(model.task()), &batch[0].first)
            {
                settings.insert(name.to_owned(), json!(first));
            }
            let texts: Vec<String> = batch.iter().map(|text| text.text.clone()).collect();
            let mut interruption = run.interruption.clone();
            let results = tokio::select! {
                results = model.infer(&client, &texts, &settings, timeout) => results?,
                () = interruption.requested() => break,
            };
            run.show(at, &results)?;
        }
        run.finish()
    }

    async fn infer_locally(&self, progress: &Progress) -> Result<(), CommandError> {
        let model = match &self.bundle {
            Some(path) => {
                let bundle = Bundle::read(path, None)?;
                if bundle.vocabulary.is_none() {
                    let message = format!("the model of {} reads no text", path.display());
                    return Err(CommandError::Usage(message));
                }
                LocalModel::of_bundle(bundle)?
            }
            None => {
                let source = self.source.source()?.resolve().await?;
                let task = match self.task_type {
                    TaskChoice::Auto => None,
                    TaskChoice::Named(task) => Some(task),
                };
                let max_length = self.max_model_input_length;
                let options = Options { task, max_length, ..Options::default() };
                LocalModel::of_source(&source, options, progress).await?
            }
        };
        let request = model.request(&self.settings())?;
        let configuration = Value::Object(model.configuration().clone());
        let task = configuration["inference_config"].as_object().and_then(|it| it.keys().next());
        let mut run = self.run(task.map_or("", String::as_str), &configuration, progress)?;
        for (at, end) in run.batches(LOCAL_BATCH, LOCAL_BATCH_BYTES, false) {
            if run.interruption.is_requested() {
                break;
            }
            let inputs: Vec<Input<'_>> = run.texts[at..end].iter().map(Text::input).collect();
            let results = model.infer(&request, &inputs)?;
            let results: Vec<Value> = results
                .into_iter()
                .map(|result| result.unwrap_or_else(|error| json!({"error": error.to_string()})))
                .collect();
            run.show(at, &results)?;
        }
        run.finish()
    }

    /// Reads the texts, and handles Ctrl-C from here on.
    fn run(
        &self,
        task: &str,
        configuration: &Value,
        progress: &Progress,
    ) -> Result<Run, CommandError> {
        let first = match task {
            "question_answering" => self.question.as_deref(),
            "text_similarity" => self.query.as_deref(),
            _ => None,
        };
        let lines = infer_texts::read(&self.texts, self.input.as_deref())?;
        let texts = infer_texts::pairs(lines, infer_texts::first_setting(task), first)?;
        let is_terminal = stdout().is_terminal();
        let format = self.output.unwrap_or(if is_terminal { Format::Table } else { Format::Json });
        let bytes = texts.iter().map(Text::bytes).sum();
        // Results on a terminal are their own progress.
        let is_long = texts.len() >= LONG && !is_terminal;
        Ok(Run {
            report: InferReport::new(task, configuration, format),
            progress: is_long.then(|| progress.start_bytes(Stage::Infer, bytes)),
            texts,
            interruption: interruption()?,
        })
    }

    /// The settings of the task for all texts.
    fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        set("labels", (!self.labels.is_empty()).then(|| json!(self.labels)));
        set("multi_label", self.multi_label.then(|| json!(true)));
        set("hypothesis_template", self.hypothesis_template.as_ref().map(|text| json!(text)));
        set("num_top_classes", self.top_classes.map(|count| json!(count)));
        settings
    }
}

impl Run {
    /// Cuts the texts into batches: start and end of each. With `same_first`, the texts of a batch share the first text of their pairs.
    fn batches(&self, texts: usize, bytes: usize, same_first: bool) -> Vec<(usize, usize)> {
        let mut batches: Vec<(usize, usize)> = Vec::new();
        let mut filled = 0;
        for (at, text) in self.texts.iter().enumerate() {
            match batches.last_mut() {
                Some((start, end))
                    if at - *start < texts
                        && filled < bytes
                        && (!same_first || self.texts[*start].first == text.first) =>
                {
                    *end = at + 1;
                    filled += text.text.len();
                }
                _ => {
                    batches.push((at, at + 1));
                    filled = text.text.len();
                }
            }
        }
        batches
    }

    /// Prints the results of the texts from `at`.
    fn show(&mut self, at: usize, results: &[Value]) -> Result<(), CommandError> {
        for (text, result) in self.texts.iter().skip(at).zip(results) {
            self.report.show(text, result)?;
            if let Some(progress) = &self.progress {
                progress.advance(text.bytes());
            }
        }
        Ok(())
    }

    /// Prints what compares all texts. Fails if the user stopped the work or a text has no result.
    fn finish(self) -> Result<(), CommandError> {
        let Self { texts, mut report, progress, interruption } = self;
        match progress {
            Some(progress) if report.shown() == texts.len() => progress.finish(),
            _ => {}
        }
        report.finish()?;
        if interruption.is_requested() && report.shown() < texts.len() {
            tracing::warn!("stopped after {} of {} texts", report.shown(), texts.len());
            return Err(ClientError::Interrupted.into());
        }
        match report.failed() {
            0 => Ok(()),
            failed => Err(CommandError::Texts { failed, all: texts.len() }),
        }
    }
}
