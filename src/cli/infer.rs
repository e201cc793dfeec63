//! `rust-eland infer`.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Format, print};
use super::tree_model::TreeModelArguments;
use super::tree_predictions;
use crate::elasticsearch::{Client, DeployedModel, ServedId};
use crate::observer::Progress;
use crate::terminal_text::{escape, escape_json};

#[derive(Debug, Args)]
#[command(mut_group("cluster", |group| group.required(false)))]
pub(super) struct InferArguments {
    /// Texts to send [default: one text per line of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// The model in Elasticsearch, one of its deployments, or an alias
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "tree_model",
        requires = "cluster",
        conflicts_with = "tree_model"
    )]
    es_model_id: Option<ServedId>,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Documents for a tree model: JSON lines, or a CSV file with a header (.csv); - for JSON lines on standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "texts",
        required_unless_present = "es_model_id"
    )]
    data: Option<PathBuf>,
    /// Labels to choose from, separated by commas (zero_shot_classification)
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Allow several labels per text (zero_shot_classification)
    #[arg(long)]
    multi_label: bool,
    /// The question that each text answers (question_answering)
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// The query that each text is compared with (text_similarity)
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Number of classes to return per text
    #[arg(long, value_name = "N")]
    top_classes: Option<u32>,
    /// Number of texts per request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Seconds to wait for the results of one request
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print a table, or one JSON document per text
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: Format,
}

impl InferArguments {
    /// Prints the result of each text, batch by batch.
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let id = self.es_model_id.as_ref();
        if let Some(data) = &self.data {
            return tree_predictions::infer(&self.connection, &self.tree, id, data, progress).await;
        }
        let Some(id) = id else {
            return Err(CommandError::Usage(
                "set --es-model-id, or --tree-model and --data".to_owned(),
            ));
        };
        let client = Client::connect(self.connection.connection()?).await?;
        let model = DeployedModel::find(&client, id.clone()).await?;
        let settings = self.settings();
        let texts = match self.texts.is_empty() {
            true => io::stdin().lock().lines().collect::<Result<_, _>>()?,
            false => self.texts.clone(),
        };
        let timeout = Duration::from_secs(self.timeout);
        for batch in texts.chunks(self.batch_size as usize) {
            let results = model.infer(&client, batch, &settings, timeout).await?;
            for (text, result) in batch.iter().zip(&results) {
                let line = match self.output {
                    Format::Json => escape_json(&result.to_string()),
                    Format::Table => escape(&format!("{text:?}\n  {}", model.summary(result))),
                };
                print(format!("{line}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// The settings of the task for these requests.
    fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        set("labels", (!self.labels.is_empty()).then(|| json!(self.labels)));
        set("multi_label", self.multi_label.then(|| json!(true)));
        set("question", self.question.as_ref().map(|text| json!(text)));
        set("text", self.query.as_ref().map(|text| json!(text)));
        set("num_top_classes", self.top_classes.map(|count| json!(count)));
        settings
    }
}
