//! `rust-eland verify` and `infer` for tree models: predictions for documents, from the file and from the cluster.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments, print};
use super::tree_model::{RESULTS_FIELD, ReadTreeModel, TreeModelArguments, TreeSource};
use crate::elasticsearch::{Client, ServedId};
use crate::observer::Progress;
use crate::terminal_text::escape_json;
use crate::trees::{Predicted, Prediction, TreeError};

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
}

impl<'a> Local<'a> {
    fn new(read: &'a ReadTreeModel) -> Result<Self, CommandError> {
        let (ensemble, options) = (&read.ensemble, &read.options);
        let names = read.names();
        if names.len() != ensemble.features.len() {
            return Err(CommandError::Usage(format!(
                "the model has {} features, and {} names are set; set one name for each feature",
                ensemble.features.len(),
                names.len()
            )));
        }
        let labels: Vec<Value> = match (&options.labels, &ensemble.labels) {
            (Some(labels), _) => labels.iter().map(|label| Value::from(label.as_str())).collect(),
            (None, Some(labels)) => labels.iter().map(crate::trees::Label::to_json).collect(),
            (None, None) => (0..ensemble.classes()).map(Value::from).collect(),
        };
        let class = match &options.output_class {
            Some(name) => Some(
                labels.iter().position(|label| label_text(label) == *name).ok_or_else(|| {
                    CommandError::Usage(format!(
                        "the model has no class {name:?}; inspect shows its classes"
                    ))
                })?,
            ),
            None => None,
        };
        Ok(Self { read, names, fields: read.mapped_fields(), labels, class })
    }

    /// The prediction for a document.
    fn predict(&self, document: &Value) -> Result<Predicted, CommandError> {
        let Value::Object(document) = document else {
            return Err(CommandError::Usage("a document is not a JSON object".to_owned()));
        };
        let (ensemble, options) = (&self.read.ensemble, &self.read.options);
        let row: Vec<f64> = ensemble
            .features
            .iter()
            .zip(&self.names)
            .map(|(feature, name)| {
                let own = field(document, name);
                let mapped = || field(document, self.fields.get(name.as_str())?);
                feature.value(own.or_else(mapped), options.boolean_features.contains(name))
            })
            .collect();
        Ok(ensemble.predict(&row))
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
        let field = self.read.results_field();
        let (index, probabilities) = match self.predict(document)? {
            Predicted::Value(value) => return Ok(json!({field: value})),
            Predicted::Class { index, probabilities } => (index, probabilities),
        };
        if let Some(class) = self.class {
            return Ok(json!({field: probabilities.get(class)}));
        }
        let (best, probability) = self.best(index, &probabilities);
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
        let relative = |a: f64, b: f64| {
            // A sum that is nearly zero has few exact digits.
            let difference = (a - b).abs();
            if difference <= SMALLEST_DIFFERENCE { 0.0 } else { difference / a.abs().max(b.abs()) }
        };
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
                let has_probabilities = matches!(
                    self.read.ensemble.prediction,
                    Prediction::Logistic | Prediction::Softmax
                );
                match (own, probability) {
                    _ if !is_same => None,
                    (Some(own), Some(theirs)) if has_probabilities => Some(relative(own, theirs)),
                    _ => Some(0.0),
                }
            }
        }
    }
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
    // Spreadsheets write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let invalid = |line: u64, reason: String| {
        CommandError::Usage(format!("{}, line {line}: {reason}", path.display()))
    };
    let mut documents = Vec::new();
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
        let wrong = |error: &csv::Error| {
            let line = error.position().map_or(1, |position| position.line());
            let reason = match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("the row has {len} cells, and the header has {expected_len}")
                }
                _ => error.to_string(),
            };
            invalid(line, reason)
        };
        let names = reader.headers().map_err(|error| wrong(&error))?.clone();
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.to_owned())) {
            return Err(invalid(1, format!("two columns have the name {name:?}")));
        }
        for record in reader.records() {
            let record = record.map_err(|error| wrong(&error))?;
            let fields =
                names.iter().zip(&record).map(|(name, text)| (name.to_owned(), cell(text)));
            documents.push(Value::Object(fields.collect()));
        }
    } else {
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let line_number = index as u64 + 1;
            match serde_json::from_str(line) {
                Ok(document @ Value::Object(_)) => documents.push(document),
                Ok(_) => {
                    return Err(invalid(line_number, "a document must be a JSON object".into()));
                }
                Err(error) => return Err(invalid(line_number, json_reason(&error))),
            }
        }
    }
    if documents.is_empty() {
        return Err(CommandError::Usage(format!("{} has no documents", path.display())));
    }
    Ok(documents)
}

/// Why a line is not JSON, without the position in the line's own count of lines.
fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("not a JSON object: {reason} at column {}", error.column())
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

/// A cell of a CSV file: null, a number, a boolean or a text.
fn cell(text: &str) -> Value {
    match text {
        "" => Value::Null,
        "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        // Elasticsearch reads such texts as numbers too, but they may be the names of categories, such as 01234.
        text if has_odd_start(text) => text.into(),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) if number.is_finite() => number.into(),
            (_, Ok(_)) => Value::Null,
            _ => text.into(),
        },
    }
}

/// Whether a text starts with a plus sign or with a zero before another digit.
fn has_odd_start(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    matches!(digits, [b'+', ..] | [b'0', b'0'..=b'9', ..])
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
    let read = tree.read(&TreeSource::from_environment(), progress).await?;
    warn_of_features(&read, &documents);
    let id = match id {
        Some(id) => id.clone(),
        None => ServedId::from(&tree.model_id(None)?),
    };
    let client = Client::connect(connection.connection()?).await?;
    let remote = remote(&client, &id, &documents).await?;
    let local = Local::new(&read)?;
    let mut verified = Verified {
        model_id: id.to_string(),
        documents: documents.len(),
        different: 0,
        without_prediction: 0,
        largest_difference: 0.0,
        examples: Vec::new(),
    };
    for (document, answer) in documents.iter().zip(&remote.answers) {
        if answer.get("warning").is_some() {
            verified.without_prediction += 1;
            continue;
        }
        let own = local.predict(document)?;
        let difference = local.difference(&own, answer, &remote);
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

fn label_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
