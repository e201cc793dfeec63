//! `rust-eland verify` and `infer` for tree models: predictions for documents, from the file and from the cluster.

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments, print};
use super::tree_model::{ReadTreeModel, TreeModelArguments};
use crate::elasticsearch::{Client, ServedId};
use crate::observer::Progress;
use crate::source::hub::{Hub, HubOptions, HubSettings};
use crate::terminal_text::escape_json;
use crate::trees::{Predicted, TreeError};

/// Number of documents per request.
const BATCH: usize = 500;

/// Largest relative difference between two predictions that count as equal.
const TOLERANCE: f64 = 1e-6;

/// Prints one JSON object per document: the prediction of the file or, with a model id, of the cluster.
pub(super) async fn infer(
    connection: &ConnectionArguments,
    tree: &TreeModelArguments,
    id: Option<&ServedId>,
    data: &Path,
    progress: &Progress,
) -> Result<(), CommandError> {
    let documents = read_documents(data)?;
    let answers = match id {
        Some(id) => {
            remote(&Client::connect(connection.connection()?).await?, id, &documents).await?
        }
        None => {
            let read = tree.read(hub, progress).await?;
            documents.iter().map(|document| local(&read, document)).collect::<Result<_, _>>()?
        }
    };
    let mut text = String::new();
    for answer in answers {
        text += &escape_json(&answer.to_string());
        text.push('\n');
    }
    print(text.as_bytes())
}

/// A client of the hub with the settings of the environment.
fn hub() -> Result<Hub, CommandError> {
    Ok(Hub::new(HubSettings::from_environment(HubOptions::default())?)?)
}

/// Predictions of the cluster.
async fn remote(
    client: &Client,
    id: &ServedId,
    documents: &[Value],
) -> Result<Vec<Value>, CommandError> {
    let configuration = client.tree_configuration(id).await?;
    let kind = configuration["model_type"].as_str().unwrap_or_default();
    if kind != "tree_ensemble" {
        return Err(CommandError::Usage(format!(
            "{id} is a model of type {kind}, not a tree model"
        )));
    }
    if configuration["inference_config"].get("learning_to_rank").is_some() {
        return Err(CommandError::Usage(format!(
            "{id} ranks the results of a search: its features are computed by queries, so it has no predictions for documents. \
             Use it in the learning_to_rank rescorer of a search, or run infer with --tree-model"
        )));
    }
    let mut answers = Vec::new();
    for batch in documents.chunks(BATCH) {
        answers.extend(client.infer_documents(id, batch).await?);
    }
    Ok(answers)
}

/// Prediction of the file for one document.
fn local(read: &ReadTreeModel, document: &Value) -> Result<Value, CommandError> {
    let Value::Object(document) = document else {
        return Err(CommandError::Usage("a document is not a JSON object".to_owned()));
    };
    let names = read.names();
    let row: Vec<f64> = read
        .ensemble
        .features
        .iter()
        .zip(&names)
        .map(|(feature, name)| {
            feature.value(field(document, name), read.options.boolean_features.contains(name))
        })
        .collect();
    Ok(match read.ensemble.predict(&row) {
        Predicted::Value(value) => json!({"predicted_value": value}),
        Predicted::Class { index, probabilities } => {
            let labels: Vec<Value> = match (&read.options.labels, &read.ensemble.labels) {
                (Some(labels), _) => {
                    labels.iter().map(|label| Value::from(label.as_str())).collect()
                }
                (None, Some(labels)) => labels.iter().map(crate::trees::Label::to_json).collect(),
                (None, None) => (0..read.ensemble.classes()).map(Value::from).collect(),
            };
            let class = match &read.options.output_class {
                Some(name) => labels.iter().position(|label| label_text(label) == *name),
                None => None,
            };
            match (class, &read.options.weights) {
                (Some(class), _) => json!({"predicted_value": probabilities.get(class)}),
                (None, weights) => {
                    let mut best = index;
                    if let Some(weights) = weights {
                        let score = |class: usize| {
                            probabilities[class] * weights.get(class).copied().unwrap_or(1.0)
                        };
                        for class in 0..probabilities.len() {
                            if class == 0 || score(class) > score(best) {
                                best = class;
                            }
                        }
                    }
                    json!({"predicted_value": labels.get(best), "prediction_probability": probabilities.get(best)})
                }
            }
        }
    })
}

/// Value of a field. Dots in the name separate nested objects.
fn field<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = document.get(name) {
        return Some(value);
    }
    name.match_indices('.').find_map(|(at, _)| {
        let inner = document.get(&name[..at])?.as_object()?;
        field(inner, &name[at + 1..])
    })
}

/// The documents in a file.
fn read_documents(path: &Path) -> Result<Vec<Value>, CommandError> {
    let unreadable = |source| TreeError::Io { path: path.to_owned(), source };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(path).map_err(unreadable)?
    };
    let invalid = |line: usize, reason: String| {
        CommandError::Usage(format!("{}, line {line}: {reason}", path.display()))
    };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
        let names = reader.headers().map_err(|error| invalid(1, error.to_string()))?.clone();
        let mut documents = Vec::new();
        for (index, record) in reader.records().enumerate() {
            let record = record.map_err(|error| invalid(index + 2, error.to_string()))?;
            let fields =
                names.iter().zip(&record).map(|(name, text)| (name.to_owned(), cell(text)));
            documents.push(Value::Object(fields.collect()));
        }
        return Ok(documents);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| invalid(index + 1, error.to_string()))
        })
        .collect()
}

/// A cell of a CSV file: null, a number, a boolean or a text.
fn cell(text: &str) -> Value {
    match text {
        "" => Value::Null,
        "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) if number.is_finite() => number.into(),
            (_, Ok(_)) => Value::Null,
            _ => text.into(),
        },
    }
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
struct Verified {
    model_id: String,
    documents: usize,
    different: usize,
    /// Documents for which the cluster has no prediction, because all of the model's fields are missing.
    without_prediction: usize,
    /// Largest relative difference of two numbers.
    largest_difference: f64,
    /// The first documents with different predictions.
    examples: Vec<Value>,
}

impl Report for Verified {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}: {} of {} predictions equal those of the file; largest relative difference {:e}",
            self.model_id,
            self.documents - self.different - self.without_prediction,
            self.documents,
            self.largest_difference
        )];
        if self.without_prediction > 0 {
            lines.push(format!(
                "{} documents have none of the model's fields; Elasticsearch returns no prediction for them",
                self.without_prediction
            ));
        }
        lines.extend(self.examples.iter().map(Value::to_string));
        lines.join("\n")
    }
}

/// Compares the cluster's predictions with the file's.
pub(super) async fn verify(
    connection: &ConnectionArguments,
    tree: &TreeModelArguments,
    id: Option<&ServedId>,
    data: &Path,
    report: &ReportArguments,
    progress: &Progress,
) -> Result<(), CommandError> {
    /// Maximum number of documents to print.
    const SHOWN: usize = 5;
    let documents = read_documents(data)?;
    let read = tree.read(hub, progress).await?;
    let id = match id {
        Some(id) => id.clone(),
        None => ServedId::from(&tree.model_id(None)?),
    };
    let client = Client::connect(connection.connection()?).await?;
    let answers = remote(&client, &id, &documents).await?;
    let mut verified = Verified {
        model_id: id.to_string(),
        documents: documents.len(),
        different: 0,
        without_prediction: 0,
        largest_difference: 0.0,
        examples: Vec::new(),
    };
    for (document, answer) in documents.iter().zip(answers) {
        if answer.get("warning").is_some() {
            verified.without_prediction += 1;
            continue;
        }
        let own = local(&read, document)?;
        let (ours, theirs) = (&own["predicted_value"], &answer["predicted_value"]);
        let equal = match (ours.as_f64(), theirs.as_f64()) {
            (Some(a), Some(b)) => {
                let size = a.abs().max(b.abs());
                let difference = if a == b { 0.0 } else { (a - b).abs() / size };
                verified.largest_difference = verified.largest_difference.max(difference);
                difference <= TOLERANCE
            }
            _ => label_text(ours) == label_text(theirs),
        };
        if !equal {
            verified.different += 1;
            if verified.examples.len() < SHOWN {
                verified
                    .examples
                    .push(json!({"document": document, "file": own, "cluster": answer}));
            }
        }
    }
    report.print(&verified)?;
    if verified.different > 0 {
        return Err(TreeError::Different {
            different: verified.different,
            documents: verified.documents,
        }
        .into());
    }
    Ok(())
}

fn label_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
