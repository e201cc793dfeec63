//! Results of a deployed model for texts (`_infer`, contract 8).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::smoke::summary;
use super::{Client, ClientError, DeploymentError, ServedId};
use crate::hint::{Command, hint};

/// Part of the server's message if no deployment of a model runs.
const NOT_DEPLOYED: &str = "must be deployed";

/// A deployed model that processes texts.
#[derive(Debug)]
pub struct DeployedModel {
    /// The model, the deployment or the alias.
    id: ServedId,
    /// The task in the configuration.
    task: String,
    /// The settings of the task in the configuration.
    settings: Value,
    /// The field of a document that the model reads.
    field: String,
}

impl DeployedModel {
    /// Reads the configuration of a model.
    ///
    /// # Errors
    /// [`DeploymentError`] if the model does not exist or has no task.
    pub async fn find(client: &Client, id: ServedId) -> Result<Self, DeploymentError> {
        let configuration = client.configuration(&id).await?;
        let tasks = configuration["inference_config"].as_object();
        let Some((task, settings)) = tasks.and_then(|tasks| tasks.iter().next()) else {
            let reason = format!("the configuration of {id} names no task");
            return Err(DeploymentError::NotServed { reason, hint: None });
        };
        let field = configuration["input"]["field_names"][0].as_str().unwrap_or("input");
        Ok(Self { task: task.clone(), settings: settings.clone(), field: field.to_owned(), id })
    }

    /// The name of the task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The server's results for some texts, in order. `overrides` are settings of the task for this request only, such as `labels`.
    ///
    /// # Errors
    /// [`DeploymentError`] if the model is not deployed, does not respond within `timeout`, or rejects a setting.
    pub async fn infer(
        &self,
        client: &Client,
        texts: &[String],
        overrides: &Map<String, Value>,
        timeout: Duration,
    ) -> Result<Vec<Value>, DeploymentError> {
        let documents: Vec<Value> = texts.iter().map(|text| json!({ &self.field: text })).collect();
        let mut body = json!({ "docs": documents });
        if !overrides.is_empty() {
            body["inference_config"] = json!({ &self.task: overrides });
        }
        let (id, seconds) = (self.id.segment(), timeout.as_secs().max(1));
        let path = format!("_ml/trained_models/{id}/_infer?timeout={seconds}s");
        let answer = client.call(Method::POST, &path, Some(Payload::json(&body)), "answer").await;
        let mut answer = answer.map_err(|error| match error {
            ClientError::Refused { reason, .. } if reason.contains(NOT_DEPLOYED) => {
                let start = Command::Start(Some(self.id.to_string()));
                let hint = Some(hint!("Start the model: ", start, "."));
                DeploymentError::NotServed { reason: format!("{} is not deployed", self.id), hint }
            }
            other => other.into(),
        })?;
        match answer["inference_results"].take() {
            Value::Array(results) if results.len() == texts.len() => Ok(results),
            _ => {
                let reason = format!("{} returned no result for each text", self.id);
                Err(DeploymentError::NotServed { reason, hint: None })
            }
        }
    }

    /// A result in one line.
    #[must_use]
    pub fn summary(&self, result: &Value) -> String {
        summary(&self.task, &self.settings, result)
            .unwrap_or_else(|reason| format!("error: {reason}"))
    }
}
