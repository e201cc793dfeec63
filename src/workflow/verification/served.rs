//! The answers of the cluster.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::elasticsearch::{Client, ClientError, DeployedModel, DeploymentError};
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
    let bytes = inputs.iter().map(|input| input.text.len() as u64).sum();
    let asking = progress.start_bytes(Stage::Infer, bytes);
    let mut answers = Vec::with_capacity(inputs.len());
    for same in inputs.chunk_by(|a, b| a.first == b.first) {
        let mut settings = overrides.clone();
        if let (Some(name), Some(first)) = (first, same.first().and_then(|it| it.first.as_deref()))
        {
            settings.insert(name.to_owned(), json!(first));
        }
        for batch in same.chunks(BATCH) {
            let texts: Vec<String> = batch.iter().map(|it| it.text.clone().into_owned()).collect();
            match model.infer(client, &texts, &settings, TIMEOUT).await {
                Ok(found) => answers.extend(found),
                // One text fails the whole request, so each is sent alone.
                Err(error) if rejection(&error).is_some() => {
                    for text in &texts {
                        let alone = std::slice::from_ref(text);
                        match model.infer(client, alone, &settings, TIMEOUT).await {
                            Ok(found) => answers.extend(found),
                            Err(error) => match rejection(&error) {
                                Some(reason) => answers.push(json!({ "error": reason })),
                                None => return Err(error),
                            },
                        }
                    }
                }
                Err(error) => return Err(error),
            }
            asking.advance(texts.iter().map(|text| text.len() as u64).sum());
        }
    }
    asking.finish();
    Ok(answers)
}

/// The reason if the cluster rejects a text.
fn rejection(error: &DeploymentError) -> Option<&str> {
    match error {
        DeploymentError::Client(ClientError::Refused { status: 400 | 500, reason, .. }) => {
            Some(reason)
        }
        _ => None,
    }
}
