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
use super::scripts_arguments::ScriptsArguments;
use super::source::SourceArguments;
use super::task_type::{TaskChoice, TaskParser};
use super::tree_model::TreeModelArguments;
use super::tree_predictions;
use super::upload::interruption;
use crate::bundle::Bundle;
use crate::conversion::{Options, kept_scripts};
use crate::elasticsearch::{Client, ClientError, DeployedModel, Interruption, ServedId};
use crate::inference_results::Input;
use crate::observer::{Progress, RunningStage, Stage};
use crate::workflow::LocalModel;

/// Texts in one call of a local model.
const LOCAL_BATCH: usize = 256;

/// Bytes of text in one call of a local model, so that results of long texts appear soon.
const LOCAL_BATCH_BYTES: usize = 16 << 10;

/// The task with labels of the user.
const ZERO_SHOT: &str = "zero_shot_classification";

/// Number of texts from which progress is shown.
const LONG: usize = 64;

#[derive(Debug, Args)]
#[command(mut_group("cluster", |group| group.required(false)))]
#[command(mut_arg("tree_model", |argument| argument.requires("data")))]
#[command(mut_args(ScriptsArguments::conflicting_with(&["es_model_id", "bundle", "data"])))]
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
    /// Model to use from a repository that provides several; `rust-eland inspect` lists them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["es_model_id", "bundle"])]
    part: Option<String>,
    /// Task whose LoRA adapter to merge into the weights; `rust-eland inspect` lists them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["es_model_id", "bundle"])]
    lora_task: Option<String>,
    /// Maximum number of input tokens, instead of the model's own limit
    #[arg(long, value_name = "N", conflicts_with_all = ["es_model_id", "bundle"], value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    /// Number of dimensions of embeddings, of a model that runs locally (Matryoshka) [default: all]
    #[arg(long, value_name = "N", conflicts_with_all = ["es_model_id", "bundle"], value_parser = clap::value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    #[command(flatten)]
    scripts: ScriptsArguments,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Documents for a tree model: JSON lines, or a CSV file with a header (.csv); - for JSON lines on standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["texts", "hub_model_id", "bundle"]
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
    /// Number of classes, tokens or answers to return per text; -1 for all classes or tokens (text_classification, fill_mask,
    /// question_answering)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..))]
    top_classes: Option<i32>,
    /// Number of texts per request, for a model in Elasticsearch
    #[arg(long, value_name = "N", default_value_t = 16, requires = "es_model_id", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Seconds to wait for the results of one request, for a model in Elasticsearch
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "es_model_id")]
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
        if id.is_none() && self.connection.is_set_by_option() {
            return Err(CommandError::Usage(
                "--url and --cloud-id need --es-model-id, the model in the cluster; remove them to run the model on this machine"
                    .into(),
            ));
        }
        if let Some(data) = &self.data {
            return tree_predictions::infer(&self.connection, &self.tree, id, data, progress).await;
        }
        match id {
            Some(id) => self.infer_remotely(id, progress).await,
            None => self.infer_locally(progress).await,
        }
    }

    async fn infer_remotely(&self, id: &ServedId, progress: &Progress) -> Result<(), CommandError> {
        let lines = self.given_lines()?;
        let client = Client::connect(self.connection.connection()?).await?;
        let model = DeployedModel::find(&client, id.clone()).await?;
        let mut settings = self.settings(model.task(), model.configuration())?;
        let mut run = self.run(lines, model.task(), model.configuration(), progress)?;
        let timeout = Duration::from_secs(self.timeout);
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
                results = model.infer_each(&client, &texts, &settings, timeout) => results?,
                () = interruption.requested() => break,
            };
            run.show(at, &results)?;
        }
        run.finish()
    }

    async fn infer_locally(&self, progress: &Progress) -> Result<(), CommandError> {
        let lines = self.given_lines()?;
        if let TaskChoice::Named(task) = self.task_type {
            self.check_options(task.name())?;
        }
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
                let options = Options {
                    task,
                    part: self.part.clone(),
                    lora_task: self.lora_task.clone(),
                    max_length: self.max_model_input_length,
                    dimensions: self.dimensions,
                    scripts: self.scripts.scripts(),
                    ..Options::default()
                };
                LocalModel::of_source(&source, options, progress).await?
            }
        };
        let configuration = Value::Object(model.configuration().clone());
        let task = configuration["inference_config"].as_object().and_then(|it| it.keys().next());
        let task = task.map_or("", String::as_str);
        let request = model.request(&self.settings(task, &configuration)?)?;
        let mut run = self.run(lines, task, &configuration, progress)?;
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

    /// The texts of the arguments or of the file. Reading them before other work reports mistakes early.
    fn given_lines(&self) -> Result<Option<Vec<Text>>, CommandError> {
        if self.texts.is_empty() && self.input.is_none() {
            return Ok(None);
        }
        infer_texts::read(&self.texts, self.input.as_deref()).map(Some)
    }

    /// Reads the texts of standard input if there are no others, and handles Ctrl-C from here on.
    fn run(
        &self,
        lines: Option<Vec<Text>>,
        task: &str,
        configuration: &Value,
        progress: &Progress,
    ) -> Result<Run, CommandError> {
        let lines = match lines {
            Some(lines) => lines,
            None => infer_texts::read(&[], None)?,
        };
        let (first, option) = match task {
            "question_answering" => (self.question.as_deref(), "--question"),
            _ => (self.query.as_deref(), "--query"),
        };
        let advice = format!("set {option}, or separate the two texts by a tab");
        let texts = infer_texts::pairs(lines, infer_texts::first_setting(task), first, &advice)?;
        if texts.is_empty() {
            tracing::warn!("there are no texts");
        }
        if let Some(scripts) = kept_scripts(&configuration["metadata"]).ok().flatten() {
            infer_texts::warn_of_other_scripts(&texts, &scripts);
        }
        let is_terminal = stdout().is_terminal();
        let format = self.output.unwrap_or(if is_terminal { Format::Table } else { Format::Json });
        let of_arguments = !self.texts.is_empty();
        // Results on a terminal are their own progress.
        let is_long = texts.len() >= LONG && !is_terminal;
        Ok(Run {
            report: InferReport::new(task, configuration, format, texts.len(), of_arguments),
            progress: is_long.then(|| progress.start_texts(Stage::Infer, texts.len() as u64)),
            texts,
            interruption: interruption()?,
        })
    }

    /// The settings of the task for all texts.
    fn settings(
        &self,
        task: &str,
        configuration: &Value,
    ) -> Result<Map<String, Value>, CommandError> {
        self.check_options(task)?;
        let labels = labels(&self.labels)?;
        let stored = &configuration["inference_config"][task]["labels"];
        let has_labels = stored.as_array().is_some_and(|labels| !labels.is_empty());
        if task == ZERO_SHOT && labels.is_empty() && !has_labels {
            let message = "zero_shot_classification needs labels to choose from: set --labels";
            return Err(CommandError::Usage(message.into()));
        }
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        set("labels", (!labels.is_empty()).then(|| json!(labels)));
        set("multi_label", self.multi_label.then(|| json!(true)));
        set("hypothesis_template", self.hypothesis_template.as_ref().map(|text| json!(text)));
        set("num_top_classes", self.top_classes.map(|count| json!(count)));
        Ok(settings)
    }

    /// Rejects options that have no effect on a task.
    fn check_options(&self, task: &str) -> Result<(), CommandError> {
        let ranked = ["text_classification", "fill_mask", "question_answering", "classification"];
        let options: [(bool, &str, &[&str]); 6] = [
            (!self.labels.is_empty(), "--labels", &[ZERO_SHOT]),
            (self.multi_label, "--multi-label", &[ZERO_SHOT]),
            (self.hypothesis_template.is_some(), "--hypothesis-template", &[ZERO_SHOT]),
            (self.question.is_some(), "--question", &["question_answering"]),
            (self.query.is_some(), "--query", &["text_similarity"]),
            (self.top_classes.is_some(), "--top-classes", &ranked),
        ];
        for (is_set, option, tasks) in options {
            if is_set && !tasks.contains(&task) {
                return Err(CommandError::Usage(format!(
                    "{option} has no effect on the task of the model, {task}; remove {option}"
                )));
            }
        }
        if task == "question_answering" && self.top_classes.is_some_and(|count| count < 0) {
            let message = "question_answering cannot return all answers: set --top-classes to a number from 0";
            return Err(CommandError::Usage(message.into()));
        }
        match &self.hypothesis_template {
            Some(template) if !template.contains("{}") => Err(CommandError::Usage(format!(
                "--hypothesis-template {template:?} has no {{}}, which is replaced by the label"
            ))),
            _ => Ok(()),
        }
    }
}

/// The labels without the white space around them.
fn labels(texts: &[String]) -> Result<Vec<&str>, CommandError> {
    let mut labels: Vec<&str> = Vec::with_capacity(texts.len());
    for label in texts.iter().map(|label| label.trim()) {
        if label.is_empty() {
            let message = "a label of --labels is empty: separate labels by single commas";
            return Err(CommandError::Usage(message.into()));
        }
        if labels.contains(&label) {
            let message =
                format!("--labels contains the label {label:?} twice; remove one of them");
            return Err(CommandError::Usage(message));
        }
        labels.push(label);
    }
    Ok(labels)
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
                progress.advance(1);
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
