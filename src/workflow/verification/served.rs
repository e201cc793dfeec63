//! The answers of the cluster.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::elasticsearch::{Client, DeployedModel, DeploymentError};
use crate::inference_results::Input;
use crate::observer::{Progress, Stage};

/// Texts per request.
const BATCH: usize = 16;

/// The longest wait for the answers of one request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The result object of each text. A text that the cluster rejects has an object with `error`.
pub(super) async fn answers(
    client: &Client,
    model: &DeployedModel,
    inputs: &[Input<'_>],
    overrides: &Map<String, Value>,
    progress: &Progress,
) -> Result<Vec<Value>, DeploymentError> {
    let first = match model.task() {
        "question_answering" => Some("question"),
        "text_similarity" => Some("text"),
        _ => None,
    };
    let asking = progress.start_texts(Stage::Infer, inputs.len() as u64);
    let mut answers = Vec::with_capacity(inputs.len());
    for same in inputs.chunk_by(|a, b| a.first == b.first) {
        let mut settings = overrides.clone();
        if let (Some(name), Some(first)) = (first, same.first().and_then(|it| it.first.as_deref()))
        {
            settings.insert(name.to_owned(), json!(first));
        }
        for batch in same.chunks(BATCH) {
            let texts: Vec<String> = batch.iter().map(|it| it.text.clone().into_owned()).collect();
            answers.extend(model.infer_each(client, &texts, &settings, TIMEOUT).await?);
            asking.advance(texts.len() as u64);
        }
    }
    asking.finish();
    Ok(answers)
}
