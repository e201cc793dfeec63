//! Answers of a deployed model to texts (`_infer`, contract 8).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::attempts::{Attempts, is_pushback};
use super::payload::Payload;
use super::tree_import::TREE_ENSEMBLE;
use super::{Client, ClientError, DeploymentError, ServedId};
use crate::hint::{Command, Setting, hint};
use crate::retry::RetryPolicy;

/// What the server answers while no deployment of a model runs.
const NOT_DEPLOYED: &str = "must be deployed";

/// A model that answers texts.
#[derive(Debug)]
pub struct DeployedModel {
    /// The model, the deployment or the alias.
    id: ServedId,
    /// The configuration of the model.
    configuration: Value,
    /// The task in the configuration.
    task: String,
    /// The field of a document that the model reads.
    field: String,
}

impl DeployedModel {
    /// Finds a model by its id, an alias, the id of a deployment or the id of an inference endpoint.
    ///
    /// # Errors
    /// When the model does not exist or has no task.
    pub async fn find(client: &Client, id: ServedId) -> Result<Self, DeploymentError> {
        let (id, configuration) = match client.configuration(&id).await {
            Err(DeploymentError::NotFound { what, id }) => {
                match by_deployment(client, &id).await? {
                    Some(found) => found,
                    None => return Err(DeploymentError::NotFound { what, id }),
                }
            }
            other => (id, other?),
        };
        if configuration["model_type"] == TREE_ENSEMBLE {
            return Err(DeploymentError::Settings {
                reason: format!("{id} is a tree model, which reads the fields of documents"),
                hint: hint!("Set ", Setting::Data, " to a file of documents instead of texts."),
            });
        }
        let tasks = configuration["inference_config"].as_object();
        let Some((task, _)) = tasks.and_then(|tasks| tasks.iter().next()) else {
            let reason = format!("the configuration of {id} names no task");
            return Err(DeploymentError::NotServed { reason, hint: None });
        };
        let task = task.clone();
        let field = configuration["input"]["field_names"][0].as_str().unwrap_or("input").to_owned();
        Ok(Self { id, configuration, task, field })
    }

    /// The name of the task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The configuration of the model, as the cluster returns it.
    #[must_use]
    pub fn configuration(&self) -> &Value {
        &self.configuration
    }

    /// The server's results for some texts, in order. `overrides` are settings of the task for this request only, such as `labels`.
    /// A request is repeated for at most a minute while the server is busy.
    ///
    /// # Errors
    /// When the model is not deployed, does not answer within `timeout`, or refuses a text or a setting.
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
        let policy = RetryPolicy { timeout: Duration::from_secs(60), ..RetryPolicy::default() };
        let mut attempts = Attempts::new(policy);
        let mut answer = loop {
            let sent = client.call(Method::POST, &path, Some(Payload::json(&body)), "answer").await;
            match sent {
                Ok(answer) => break answer,
                Err(error) if is_pushback(&error) => attempts.wait_out(error).await?,
                Err(ClientError::Refused { reason, .. }) if reason.contains(NOT_DEPLOYED) => {
                    let start = Command::Start(Some(self.id.to_string()));
                    let hint = Some(hint!("Start the model: ", start, "."));
                    let reason = format!("{} is not deployed", self.id);
                    return Err(DeploymentError::NotServed { reason, hint });
                }
                Err(error) => return Err(error.into()),
            }
        };
        match answer["inference_results"].take() {
            Value::Array(results) if results.len() == texts.len() => Ok(results),
            _ => {
                let reason = format!("{} returned no result for each text", self.id);
                Err(DeploymentError::NotServed { reason, hint: None })
            }
        }
    }

    /// The server's results for some texts, in order. A text that the server rejects has an object with `error`, the reason.
    ///
    /// # Errors
    /// As for [`infer`](Self::infer), except for rejected texts.
    pub async fn infer_each(
        &self,
        client: &Client,
        texts: &[String],
        overrides: &Map<String, Value>,
        timeout: Duration,
    ) -> Result<Vec<Value>, DeploymentError> {
        let rejected = match self.infer(client, texts, overrides, timeout).await {
            Ok(results) => return Ok(results),
            Err(error) => rejection(error)?,
        };
        if texts.len() == 1 {
            return Ok(vec![rejected]);
        }
        // One text fails the whole request, so each is sent alone.
        let mut results = Vec::with_capacity(texts.len());
        for text in texts {
            let text = std::slice::from_ref(text);
            match self.infer(client, text, overrides, timeout).await {
                Ok(result) => results.extend(result),
                Err(error) => results.push(rejection(error)?),
            }
        }
        Ok(results)
    }
}

/// The result of a text that the server rejects, or else the error.
fn rejection(error: DeploymentError) -> Result<Value, DeploymentError> {
    match error {
        DeploymentError::Client(ClientError::Refused { status: 400 | 500, reason, .. }) => {
            Ok(json!({ "error": reason }))
        }
        error => Err(error),
    }
}

/// The deployment with this id, or that of the inference endpoint with this id, and the configuration of its model.
async fn by_deployment(
    client: &Client,
    id: &ServedId,
) -> Result<Option<(ServedId, Value)>, DeploymentError> {
    let model_of = |found: &Value| found.as_str()?.parse::<ServedId>().ok();
    let path = format!("_ml/trained_models/{}/_stats", id.segment());
    let stats = client.call(Method::GET, &path, None, "show the state of the model").await;
    let stats = stats.unwrap_or_default();
    if let Some(model) = model_of(&stats["trained_model_stats"][0]["model_id"]) {
        return Ok(Some((id.clone(), client.configuration(&model).await?)));
    }
    let path = format!("_inference/{}", id.segment());
    let endpoint =
        client.call(Method::GET, &path, None, "show the endpoint").await.unwrap_or_default();
    // Elasticsearch 8.13 has the list under another name.
    let list = if endpoint["endpoints"].is_array() { "endpoints" } else { "models" };
    let settings = &endpoint[list][0]["service_settings"];
    let Some(model) = model_of(&settings["model_id"]) else { return Ok(None) };
    // A deployment that the endpoint started has the id of the endpoint.
    let deployment = model_of(&settings["deployment_id"]).unwrap_or_else(|| id.clone());
    Ok(Some((deployment, client.configuration(&model).await?)))
}
