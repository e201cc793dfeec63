//! [`Endpoint`]: an inference endpoint (`_inference`, contract 9). `semantic_text` fields and retrievers use models through
//! endpoints.

use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::{Client, ClientError, DeploymentError, EndpointId, ServedId};
use crate::hint::{Setting, hint};
use crate::model_id::ModelId;
use crate::version::Version;

/// The task of an inference endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointTask {
    /// Computes dense vectors.
    TextEmbedding,
    /// Computes sparse vectors.
    SparseEmbedding,
    /// Ranks texts by their relevance for a query.
    Rerank,
}

impl EndpointTask {
    /// The task of an endpoint for a model with this task. Both are names of the API. Most tasks have no endpoint.
    #[must_use]
    pub fn of(task: &str) -> Option<Self> {
        match task {
            "text_embedding" => Some(Self::TextEmbedding),
            "text_expansion" => Some(Self::SparseEmbedding),
            "text_similarity" => Some(Self::Rerank),
            _ => None,
        }
    }

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEmbedding => "text_embedding",
            Self::SparseEmbedding => "sparse_embedding",
            Self::Rerank => "rerank",
        }
    }

    fn since(self) -> Version {
        match self {
            Self::Rerank => Version::RERANK_ENDPOINT,
            _ => Version::ENDPOINT,
        }
    }
}

/// An inference endpoint to create.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The id of the endpoint.
    pub id: EndpointId,
    /// The task of the endpoint.
    pub task: EndpointTask,
    /// The model.
    pub model_id: ModelId,
    /// The deployment that the endpoint uses. Without one, the endpoint starts its own.
    pub deployment_id: Option<ServedId>,
    /// The similarity of embeddings, as named by `dense_vector` fields; cosine by default.
    pub similarity: Option<String>,
}

/// The result of creating an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum EndpointOutcome {
    /// The endpoint was created.
    Created,
    /// The endpoint existed, with this model.
    Unchanged,
}

impl Endpoint {
    /// Checks that a cluster supports the endpoint, and that no other endpoint has the id. Returns whether the endpoint exists.
    ///
    /// # Errors
    /// [`DeploymentError`] if the cluster does not support the endpoint, the id is taken, or the cluster does not respond.
    pub async fn check(&self, client: &Client) -> Result<bool, DeploymentError> {
        if self.id.as_str() == self.model_id.as_str() {
            return Err(DeploymentError::settings(
                format!("the inference endpoint cannot have the id of the model, {}", self.id),
                hint!("Choose another id with ", Setting::CreateEndpoint, "."),
            ));
        }
        let needed = self.since();
        if self.deployment_id.is_some() && !client.supports(needed) {
            return Err(DeploymentError::settings(
                format!(
                    "before Elasticsearch {needed} an inference endpoint starts the model itself"
                ),
                hint!("Leave out ", Setting::Start, "."),
            ));
        }
        if !client.supports(needed) {
            let (setting, found) = (Setting::CreateEndpoint, client.version());
            return Err(DeploymentError::Unsupported { setting, found, needed });
        }
        self.exists(client).await
    }

    /// Whether an endpoint with this id and model exists.
    async fn exists(&self, client: &Client) -> Result<bool, DeploymentError> {
        let path = format!("_inference/{}", self.id);
        let answer = match client.call(Method::GET, &path, None, "show the endpoint").await {
            Ok(answer) => answer,
            Err(ClientError::Refused { status: 404, kind: Some(_), .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // Versions before 8.14 name the list `models`.
        let found = [&answer["endpoints"][0], &answer["models"][0]];
        let Some(found) = found.into_iter().find(|found| found.is_object()) else {
            return Ok(false);
        };
        let model = found["service_settings"]["model_id"].as_str();
        let task = found["task_type"].as_str().unwrap_or_default();
        if found["service"] == "elasticsearch"
            && model == Some(self.model_id.as_str())
            && task == self.task.name()
        {
            return Ok(true);
        }
        Err(DeploymentError::EndpointTaken {
            id: self.id.clone(),
            task: match model {
                Some(model) => format!("{task} by {model}"),
                None => format!("{task} by the service {}", found["service"]),
            },
        })
    }

    /// The first version that supports the endpoint.
    #[must_use]
    pub fn since(&self) -> Version {
        match self.deployment_id {
            Some(_) => Version::ENDPOINT_OF_DEPLOYMENT,
            None => self.task.since(),
        }
    }

    /// The body of the request that creates the endpoint.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut settings = Map::new();
        settings.insert("model_id".into(), self.model_id.as_str().into());
        settings.insert("num_threads".into(), 1.into());
        settings.insert("num_allocations".into(), 1.into());
        if let Some(id) = &self.deployment_id {
            settings.insert("deployment_id".into(), id.as_str().into());
        }
        if self.task == EndpointTask::TextEmbedding
            && let Some(similarity) = &self.similarity
        {
            // Endpoints have a single name for both kinds of dot product.
            let similarity =
                if similarity == "max_inner_product" { "dot_product" } else { similarity.as_str() };
            settings.insert("similarity".into(), similarity.into());
        }
        json!({"service": "elasticsearch", "service_settings": settings})
    }

    /// The path of the request that creates the endpoint.
    #[must_use]
    pub fn path(&self) -> String {
        format!("_inference/{}/{}", self.task.name(), self.id)
    }

    /// Creates the endpoint, unless it exists. Without a deployment, the cluster starts one, and responds when it is running.
    ///
    /// # Errors
    /// [`DeploymentError`] if another endpoint has the id, or the cluster rejects the request or does not respond.
    pub async fn create(&self, client: &Client) -> Result<EndpointOutcome, DeploymentError> {
        if self.exists(client).await? {
            return Ok(EndpointOutcome::Unchanged);
        }
        let body = Some(Payload::json(&self.body()));
        let Err(error) = client.call(Method::PUT, &self.path(), body, "create the endpoint").await
        else {
            return Ok(EndpointOutcome::Created);
        };
        // The request may have been carried out even if its response was lost.
        if let Ok(true) = self.exists(client).await {
            return Ok(EndpointOutcome::Created);
        }
        let reason = match error {
            ClientError::Refused { reason, .. } => reason,
            other => other.to_string(),
        };
        Err(DeploymentError::NoEndpoint {
            id: self.id.clone(),
            model_id: self.model_id.clone(),
            reason,
        })
    }
}
