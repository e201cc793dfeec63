//! `rust-eland verify` and `infer` for tree models: predictions for documents, from the file and from the cluster.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments, print};
use super::tree_documents::{field, read_documents, shortened};
use super::tree_model::{RESULTS_FIELD, ReadTreeModel, TreeModelArguments, TreeSource};
use super::tree_model_report::first_names;
use crate::elasticsearch::{Client, ServedId};
use crate::observer::Progress;
use crate::terminal_text::escape_json;
use crate::trees::{Classes, LabelType, Predicted, Target, TreeError};

/// Number of documents per request.
const BATCH: usize = 500;

/// Largest relative difference between two predictions that count as equal.
const TOLERANCE: f64 = 1e-6;

/// Numbers that differ by less count as equal, whatever their size.
const SMALLEST_DIFFERENCE: f64 = 1e-13;

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
            let client = Client::connect(connection.connection()?).await?;
            remote(&client, id, &documents).await?.answers
        }
        None => {
            let read = tree.read(&TreeSource::from_environment(), progress).await?;
            warn_of_features(&read, &documents);
            let local = Local::new(&read)?;
            documents.iter().map(|document| local.answer(document)).collect::<Result<_, _>>()?
        }
    };
    let mut text = String::new();
    for answer in answers {
        text += &escape_json(&answer.to_string());
        text.push('\n');
    }
    print(text.as_bytes())
}

/// The cluster's answers.
struct Remote {
    answers: Vec<Value>,
    /// The field of an answer that holds the prediction.
    results_field: String,
    classifies: bool,
}

/// Requests predictions from the cluster.
async fn remote(
    client: &Client,
    id: &ServedId,
    documents: &[Value],
) -> Result<Remote, CommandError> {
    let configuration = client.tree_configuration(id).await?;
    let kind = configuration["model_type"].as_str().unwrap_or_default();
    if kind != "tree_ensemble" {
        return Err(CommandError::Usage(format!(
            "{id} is a model of type {kind}, not a tree model; remove --data and set the texts"
        )));
    }
    let inference = &configuration["inference_config"];
    if inference.get("learning_to_rank").is_some() {
        return Err(CommandError::Usage(format!(
            "{id} ranks the results of a search: its features are computed by queries, so it has no predictions for documents. \
             Use it in the learning_to_rank rescorer of a search, or run infer with --tree-model"
        )));
    }
    let classifies = inference.get("classification").is_some();
    let settings = &inference[if classifies { "classification" } else { "regression" }];
    let results_field = settings["results_field"].as_str().unwrap_or(RESULTS_FIELD).to_owned();
    let mut answers = Vec::new();
    for batch in documents.chunks(BATCH) {
        answers.extend(client.infer_documents(id, batch).await?);
    }
    Ok(Remote { answers, results_field, classifies })
}

/// The arithmetic of a model file on documents.
struct Local<'a> {
    read: &'a ReadTreeModel,
    names: Vec<String>,
    /// Feature to document field.
    fields: HashMap<&'a str, &'a str>,
    labels: Vec<Value>,
    /// The one class whose probability is predicted.
    class: Option<usize>,
    /// Whether Elasticsearch predicts the label, but not its probability.
    labels_only: bool,
    /// Whether a document without any of the fields has a prediction: for learning to rank, whose features are computed by queries.
    predicts_without_fields: bool,
}

impl<'a> Local<'a> {
    fn new(read: &'a ReadTreeModel) -> Result<Self, CommandError> {
        let (Classes { labels, label_type, output }, target) = read.check_options()?;
        let label = |text: String| match label_type {
            LabelType::Number => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            LabelType::Boolean => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
            LabelType::Text => text.into(),
        };
        Ok(Self {
            read,
            names: read.names(),
            fields: read.mapped_fields(),
            labels: labels.into_iter().map(label).collect(),
            class: output,
            labels_only: output.is_none()
                && read.ensemble.prediction.is_classification()
                && !read.ensemble.has_exact_probabilities(),
            predicts_without_fields: target == Target::Ranking,
        })
    }

    /// The values of the features in a document. `None` if Elasticsearch makes no prediction for the document, because all of the
    /// model's fields are missing.
    fn row(&self, document: &Value) -> Result<Option<Vec<f64>>, CommandError> {
        let Value::Object(document) = document else {
            return Err(CommandError::Usage("a document is not a JSON object".to_owned()));
        };
        let present = |name: &str| field(document, name).filter(|value| !value.is_null());
        let mut is_empty = true;
        let features = self.read.ensemble.features.iter().zip(&self.names);
        let row = features.map(|(feature, name)| {
            let mapped = || present(self.fields.get(name.as_str())?);
            let value = present(name).or_else(mapped);
            is_empty &= value.is_none();
            feature.value(value, self.read.options.boolean_features.contains(name))
        });
        let row = row.collect();
        Ok((self.predicts_without_fields || !is_empty).then_some(row))
    }

    /// The probability of a class times its weight.
    fn score(&self, class: usize, probabilities: &[f64]) -> f64 {
        let weights = self.read.options.weights.as_deref().unwrap_or_default();
        probabilities[class] * weights.get(class).copied().unwrap_or(1.0)
    }

    /// The class that wins, with its probability.
    fn best(&self, index: usize, probabilities: &[f64]) -> (usize, Option<f64>) {
        let mut best = index;
        if self.read.options.weights.is_some() {
            let score = |class: usize| self.score(class, probabilities);
            for class in 0..probabilities.len() {
                if class == 0 || score(class) > score(best) {
                    best = class;
                }
            }
        }
        (best, probabilities.get(best).copied())
    }

    /// The answer for a document, in the form of the cluster's answers.
    fn answer(&self, document: &Value) -> Result<Value, CommandError> {
        let Some(row) = self.row(document)? else {
            return Ok(json!({
                "warning": "the model could not be applied, because all of its fields are missing"
            }));
        };
        let field = self.read.results_field();
        let (index, probabilities) = match self.read.ensemble.predict(&row) {
            Predicted::Value(value) => return Ok(json!({field: value})),
            Predicted::Class { index, probabilities } => (index, probabilities),
        };
        if let Some(class) = self.class {
            return Ok(json!({field: probabilities.get(class)}));
        }
        let (best, probability) = self.best(index, &probabilities);
        // The cluster's numbers are others, and have no meaning.
        if self.labels_only {
            return Ok(json!({field: self.labels.get(best)}));
        }
        let mut answer =
            json!({field: self.labels.get(best), "prediction_probability": probability});
        let count = usize::try_from(self.read.top_classes()).unwrap_or(usize::MAX);
        if count > 0 {
            let mut classes: Vec<usize> = (0..probabilities.len()).collect();
            let score = |class: usize| self.score(class, &probabilities);
            classes.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
            let top = classes.into_iter().take(count).map(|class| {
                json!({
                    "class_name": self.labels.get(class),
                    "class_probability": probabilities[class],
                    "class_score": score(class),
                })
            });
            answer["top_classes"] = top.collect();
        }
        Ok(answer)
    }

    /// Compares a prediction with the cluster's answer. Returns the relative difference; `None` if the labels differ.
    fn difference(&self, own: &Predicted, answer: &Value, remote: &Remote) -> Option<f64> {
        let theirs = &answer[remote.results_field.as_str()];
        let probability = answer["prediction_probability"].as_f64();
        match own {
            // A probability, which the cluster gives for the class that it predicts.
            Predicted::Value(own) if remote.classifies => {
                let second = self.labels.get(1).map_or_else(|| "1".to_owned(), label_text);
                let is_second = label_text(theirs) == second || theirs.as_bool() == Some(true);
                let theirs = probability?;
                Some(relative(*own, if is_second { theirs } else { 1.0 - theirs }))
            }
            Predicted::Value(own) => Some(relative(*own, theirs.as_f64()?)),
            Predicted::Class { probabilities, .. } if self.class.is_some() => {
                Some(relative(*probabilities.get(self.class?)?, theirs.as_f64()?))
            }
            Predicted::Class { index, probabilities } => {
                let (best, own) = self.best(*index, probabilities);
                let label = self.labels.get(best)?;
                let is_same = match (label.as_f64(), theirs.as_f64()) {
                    (Some(a), Some(b)) => a == b,
                    _ => label_text(label) == label_text(theirs),
                };
                match (own, probability) {
                    _ if !is_same => None,
                    (Some(own), Some(theirs)) if !self.labels_only => Some(relative(own, theirs)),
                    _ => Some(0.0),
                }
            }
        }
    }
}

/// The difference of two numbers, relative to the larger one.
fn relative(a: f64, b: f64) -> f64 {
    // A sum that is nearly zero has few exact digits.
    let difference = (a - b).abs();
    if difference <= SMALLEST_DIFFERENCE { 0.0 } else { difference / a.abs().max(b.abs()) }
}

/// The largest relative difference of the numbers in two predictions.
fn largest_difference(first: &Predicted, second: &Predicted) -> f64 {
    match (first, second) {
        (Predicted::Value(a), Predicted::Value(b)) => relative(*a, *b),
        (Predicted::Class { probabilities: a, .. }, Predicted::Class { probabilities: b, .. }) => {
            a.iter().zip(b).map(|(a, b)| relative(*a, *b)).fold(0.0, f64::max)
        }
        _ => 0.0,
    }
}

/// Warns of what the user should be aware of: notes of the file, and features of the model that no document has.
fn warn_of_features(read: &ReadTreeModel, documents: &[Value]) {
    for note in &read.ensemble.notes {
        tracing::warn!("{note}");
    }
    let names = read.names();
    let mapped = read.mapped_fields();
    let has = |name: &str| {
        documents.iter().filter_map(Value::as_object).any(|document| {
            let from = mapped.get(name);
            field(document, name).is_some()
                || from.is_some_and(|from| field(document, from).is_some())
        })
    };
    let splits = read.splits();
    let absent: Vec<_> = names
        .iter()
        .zip(splits)
        .filter(|(name, (splits, _))| *splits > 0 && !has(name))
        .map(|(name, _)| name.as_str())
        .collect();
    if absent.is_empty() {
        return;
    }
    let columns: HashSet<&String> =
        documents.iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    // LightGBM replaces the spaces of a name.
    let plain = |name: &str| name.trim().replace(' ', "_").to_lowercase();
    let similar =
        absent.iter().find_map(|name| columns.iter().find(|column| plain(column) == plain(name)));
    const SHOWN: usize = 8;
    let mut list =
        absent.iter().take(SHOWN).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if absent.len() > SHOWN {
        list += &format!(" and {} others", absent.len() - SHOWN);
    }
    let advice = match similar {
        Some(column) => format!("; they have a field {column:?}: check the spelling"),
        None => String::new(),
    };
    tracing::warn!("no document has {list}, which the model uses as features{advice}");
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
struct Verified {
    model_id: String,
    documents: usize,
    different: usize,
    /// Documents for which the cluster has no prediction, because all of the model's fields are missing.
    without_prediction: usize,
    /// Documents for which the cluster and the file predict different labels, or only one of them makes a prediction.
    different_labels: usize,
    /// Whether only labels were compared, because Elasticsearch cannot compute the probabilities of the model.
    labels_only: bool,
    /// Largest relative difference of two numbers.
    largest_difference: f64,
    /// Largest relative difference between the file's predictions and those of XGBoost, which adds float32 numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    float32_difference: Option<f64>,
    /// The first documents with different predictions.
    examples: Vec<Value>,
}

/// A relative difference for readers.
fn shown_difference(difference: f64) -> String {
    if difference == 0.0 { "0".to_owned() } else { format!("{difference:.1e}") }
}

impl Report for Verified {
    fn text(&self) -> String {
        let compared = self.documents - self.without_prediction;
        let mut lines = vec![format!(
            "{}: {} of {compared} predictions equal those of the file",
            self.model_id,
            compared - self.different,
        )];
        if self.different_labels > 0 {
            lines.push(format!("{} predictions have another label", self.different_labels));
        }
        if self.labels_only {
            lines.push(
                "only the labels were compared: Elasticsearch cannot compute the probabilities of this model"
                    .to_owned(),
            );
        } else if self.different_labels < compared {
            let difference = shown_difference(self.largest_difference);
            lines.push(format!("largest relative difference of two numbers: {difference}"));
        }
        if let Some(difference) = self.float32_difference {
            lines.push(format!(
                "XGBoost adds its leaves as float32 numbers; this changes its own predictions for these documents by up to {} (relative)",
                shown_difference(difference)
            ));
        }
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
    let read = tree.read(&TreeSource::from_environment(), progress).await?;
    warn_of_features(&read, &documents);
    let id = match id {
        Some(id) => id.clone(),
        None => ServedId::from(&tree.model_id(None)?),
    };
    let local = Local::new(&read)?;
    let rows: Vec<_> =
        documents.iter().map(|document| local.row(document)).collect::<Result<_, _>>()?;
    if rows.iter().all(Option::is_none) {
        return Err(nothing_to_compare(data, &local, &documents));
    }
    let client = Client::connect(connection.connection()?).await?;
    let remote = remote(&client, &id, &documents).await?;
    let mut verified = Verified {
        model_id: id.to_string(),
        documents: documents.len(),
        different: 0,
        without_prediction: 0,
        different_labels: 0,
        labels_only: local.labels_only,
        largest_difference: 0.0,
        float32_difference: read.ensemble.adds_float32().then_some(0.0),
        examples: Vec::new(),
    };
    for ((document, row), answer) in documents.iter().zip(&rows).zip(&remote.answers) {
        let is_predicted = answer.get("warning").is_none();
        let difference = match row {
            None if !is_predicted => {
                verified.without_prediction += 1;
                continue;
            }
            Some(row) if is_predicted => {
                let own = read.ensemble.predict(row);
                if let Some(largest) = &mut verified.float32_difference {
                    let rounded = read.ensemble.predict_in_float32(row);
                    *largest = largest.max(largest_difference(&own, &rounded));
                }
                local.difference(&own, answer, &remote)
            }
            _ => None,
        };
        verified.different_labels += usize::from(difference.is_none());
        verified.largest_difference = verified.largest_difference.max(difference.unwrap_or(0.0));
        if difference.is_none_or(|difference| difference > TOLERANCE) {
            verified.different += 1;
            if verified.examples.len() < SHOWN {
                let own = local.answer(document)?;
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

/// The error for documents without any field of the model.
fn nothing_to_compare(data: &Path, local: &Local<'_>, documents: &[Value]) -> CommandError {
    let listed = |names: &mut dyn Iterator<Item = &String>| {
        let names: Vec<_> = names.map(|name| format!("{:?}", shortened(name))).collect();
        first_names(&names)
    };
    let fields: BTreeSet<&String> =
        documents.iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    CommandError::Usage(format!(
        "no document in {} has a field of the model, so nothing can be compared. The model's fields are {}; the documents have {}. Rename the fields, or set --feature-names",
        data.display(),
        listed(&mut local.names.iter()),
        listed(&mut fields.into_iter()),
    ))
}

fn label_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
