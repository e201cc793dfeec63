//! [`ModelReport`]: the models of a cluster, their deployments and their origin (contract 6).

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use super::deployment_error::is_unknown_model;
use super::stats::StatsEntry;
use super::{Client, ClientError, Deployment, DeploymentError, ServedId};
use crate::trees::configuration;
use crate::version::Version;

const ROOT: &str = "_ml/trained_models";

/// Models per request. The server returns 100 by default.
const PAGE: usize = 1000;

/// A model of the cluster. Unknown fields are null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelReport {
    /// The id of the model.
    pub model_id: String,
    /// `pytorch`, `tree_ensemble` or `lang_ident`.
    pub model_type: Option<String>,
    /// The task, as named in the API.
    pub task: Option<String>,
    /// Bytes of the definition.
    pub size_bytes: Option<u64>,
    /// The hub repository of the model.
    pub hub_model_id: Option<String>,
    /// The commit of the hub repository.
    pub hub_commit: Option<String>,
    /// The objective or the estimator of a tree model, as its library names it. Only rust-eland records it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// The number of trees of a tree model, if recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees: Option<u64>,
    /// The number of nodes of a tree model, if recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// Ingest pipelines that use the model.
    pub pipelines: Option<u64>,
    /// Whether the server has every part of the definition. Absent in lists, and before 8.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition_complete: Option<bool>,
    /// The deployments, in the order of their ids.
    pub deployments: Vec<Deployment>,
}

impl ModelReport {
    fn read(configuration: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &configuration["metadata"];
        let inference = configuration["inference_config"].as_object();
        Self {
            model_id: text(&configuration["model_id"]).unwrap_or_default(),
            model_type: text(&configuration["model_type"]),
            task: inference.and_then(|config| config.keys().next().cloned()),
            size_bytes: configuration["model_size_bytes"].as_u64().filter(|bytes| *bytes > 0),
            hub_model_id: text(&metadata["hub_model_id"]),
            hub_commit: text(&metadata["hub_commit"]),
            objective: text(&metadata[configuration::OBJECTIVE]),
            trees: metadata[configuration::TREES].as_u64(),
            nodes: metadata[configuration::NODES].as_u64(),
            pipelines: None,
            definition_complete: configuration["fully_defined"].as_bool(),
            deployments: Vec::new(),
        }
    }

    /// Whether the model must be deployed to be used. Models other than PyTorch's, such as `tree_ensemble` and `lang_ident`, run inside
    /// Elasticsearch.
    #[must_use]
    pub fn needs_deployment(&self) -> bool {
        self.model_type.as_deref().is_none_or(|kind| kind == "pytorch")
    }

    fn add(&mut self, entry: StatsEntry) {
        self.size_bytes = entry.size_bytes.filter(|bytes| *bytes > 0).or(self.size_bytes);
        self.pipelines = entry.pipelines.or(self.pipelines);
        let is_new = |new: &Deployment| {
            self.deployments.iter().all(|known| known.deployment_id != new.deployment_id)
        };
        if let Some(deployment) = entry.deployment.filter(is_new) {
            self.deployments.push(deployment);
        }
    }
}

impl Client {
    /// The models of every type whose ids match a pattern such as `sentence-transformers__*`, in the order of their ids.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn reports(
        &self,
        pattern: Option<&str>,
    ) -> Result<Vec<ModelReport>, DeploymentError> {
        let path = match pattern {
            Some(pattern) => format!("{ROOT}/{}", encoded(pattern)),
            None => ROOT.to_owned(),
        };
        let found = self.pages(&path, "trained_model_configs", "list the models").await;
        let found = match found {
            // The cluster has no model with this id, which contains no wildcard.
            Err(ClientError::Refused { status: 404, kind: Some(_), .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let mut models: BTreeMap<String, ModelReport> = found
            .iter()
            .map(ModelReport::read)
            .map(|model| (model.model_id.clone(), model))
            .collect();
        let path = format!("{path}/_stats");
        for entry in
            self.pages(&path, "trained_model_stats", "show the state of the models").await?
        {
            let entry = StatsEntry::read(&entry);
            if let Some(model) = models.get_mut(&entry.model_id) {
                model.add(entry);
            }
        }
        Ok(models.into_values().collect())
    }

    /// The model with an id, or the model of the deployment with that id and only this deployment.
    ///
    /// # Errors
    /// [`DeploymentError::NotFound`], or another [`DeploymentError`] if the cluster does not respond.
    pub async fn report(&self, id: &ServedId) -> Result<ModelReport, DeploymentError> {
        let entries = self.stats(id).await?;
        let Some(model_id) = entries.first().and_then(|entry| entry.model_id.parse().ok()) else {
            return Err(not_found(id));
        };
        let mut model = ModelReport::read(&self.configuration(&model_id).await?);
        entries.into_iter().for_each(|entry| model.add(entry));
        Ok(model)
    }

    /// The configuration of a model, with `fully_defined` if the version of the cluster supports it.
    pub(super) async fn configuration(&self, id: &ServedId) -> Result<Value, DeploymentError> {
        let path = format!("{ROOT}/{}", id.segment());
        let status = format!("{path}?include=definition_status");
        let answer = if self.supports(Version::DEFINITION_STATUS) {
            match self.call(Method::GET, &status, None, "show the model").await {
                // Models of other types have no such status.
                Err(ClientError::Refused { status: 400, .. }) => {
                    self.call(Method::GET, &path, None, "show the model").await
                }
                other => other,
            }
        } else {
            self.call(Method::GET, &path, None, "show the model").await
        };
        let mut answer = found(answer, id, "show")?;
        let configuration = answer.pointer_mut("/trained_model_configs/0").map(Value::take);
        configuration.ok_or_else(|| not_found(id))
    }

    /// The deployments of a model, or the one with this id.
    pub(super) async fn deployments(
        &self,
        id: &ServedId,
    ) -> Result<Vec<Deployment>, DeploymentError> {
        let entries = self.stats(id).await?;
        Ok(entries.into_iter().filter_map(|entry| entry.deployment).collect())
    }

    async fn stats(&self, id: &ServedId) -> Result<Vec<StatsEntry>, DeploymentError> {
        let path = format!("{ROOT}/{}/_stats", id.segment());
        let answer = self.call(Method::GET, &path, None, "show the state of the model").await;
        found(answer, id, "show the state of").map(|answer| entries(&answer))
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// [`DeploymentError`] if the model does not exist, or the server rejects the deletion because the model is in use. `force`
    /// deletes it anyway.
    pub async fn delete_model(&self, id: &ServedId, force: bool) -> Result<(), DeploymentError> {
        let force = if force { "?force=true" } else { "" };
        let path = format!("{ROOT}/{}{force}", id.segment());
        let answer = self.call(Method::DELETE, &path, None, "delete the model").await;
        found(answer, id, "delete").map(drop)
    }

    /// Stops one deployment.
    ///
    /// # Errors
    /// [`DeploymentError`] if the server rejects the stop, for example because a pipeline uses the deployment. `force` stops it
    /// anyway.
    pub async fn stop_deployment(
        &self,
        deployment_id: &ServedId,
        force: bool,
    ) -> Result<(), DeploymentError> {
        let force = if force { "?force=true" } else { "" };
        let path = format!("{ROOT}/{}/deployment/_stop{force}", deployment_id.segment());
        let answer = self.call(Method::POST, &path, None, "stop the deployment").await;
        answer
            .map(drop)
            .map_err(|error| DeploymentError::refused(error, || format!("stop {deployment_id}")))
    }

    /// All entries of a list, requested page by page.
    async fn pages(&self, path: &str, list: &str, action: &str) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        for from in (0..).step_by(PAGE) {
            let page = format!("{path}?from={from}&size={PAGE}");
            let mut answer = self.call(Method::GET, &page, None, action).await?;
            let Some(Value::Array(entries)) = answer.get_mut(list).map(Value::take) else { break };
            // A model has one entry or, in the stats, one per deployment, so only the last page is short.
            let is_last = entries.len() < PAGE;
            all.extend(entries);
            if is_last {
                break;
            }
        }
        Ok(all)
    }
}

fn entries(answer: &Value) -> Vec<StatsEntry> {
    answer["trained_model_stats"].as_array().into_iter().flatten().map(StatsEntry::read).collect()
}

/// A pattern as a segment of a path. Stars and commas are kept.
fn encoded(pattern: &str) -> String {
    const KEPT: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'*')
        .remove(b',');
    percent_encoding::utf8_percent_encode(pattern, &KEPT).to_string()
}

fn not_found(id: &ServedId) -> DeploymentError {
    DeploymentError::NotFound { what: "model or deployment", id: id.clone() }
}

/// Converts an error for a model that the server does not have, and other refusals.
fn found(
    answer: Result<Value, ClientError>,
    id: &ServedId,
    verb: &str,
) -> Result<Value, DeploymentError> {
    answer.map_err(|error| match error {
        ClientError::Refused { status: 404, reason, .. } if is_unknown_model(&reason) => {
            not_found(id)
        }
        other => DeploymentError::refused(other, || format!("{verb} {id}")),
    })
}
