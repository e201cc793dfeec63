//! Inference endpoints (`_inference`, contract 9): a model of the cluster under a name by which `semantic_text` fields and retrievers
//! use it.

use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::{Client, ClientError, DeploymentError, EndpointId, ServedId};
use crate::hint::{Setting, hint};
use crate::model_id::ModelId;
use crate::version::Version;

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointTask {
    /// Dense vectors.
    TextEmbedding,
    /// Sparse vectors.
    SparseEmbedding,
    /// Texts in the order in which they answer a query.
    Rerank,
}

impl EndpointTask {
    /// The endpoint's task for a model's, by their names in the API. Most tasks have none.
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

/// An endpoint that is wanted.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// What it does.
    pub task: EndpointTask,
    /// The model.
    pub model_id: ModelId,
    /// A deployment of the model that it is to use; without, it starts one of its own.
    pub deployment_id: Option<ServedId>,
    /// How embeddings are compared, in the words of `dense_vector` fields; cosine where absent.
    pub similarity: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointOutcome {
    /// It is made.
    Created,
    /// It was there, with this model.
    Unchanged,
}

impl Endpoint {
    /// Checks that a cluster can have it: its release, and that no other model has the name. Tells whether it is there already.
    ///
    /// # Errors
    /// When it cannot, or the cluster does not answer.
    pub async fn check(&self, client: &Client) -> Result<bool, DeploymentError> {
        if self.id.as_str() == self.model_id.as_str() {
            return Err(DeploymentError::settings(
                format!("the inference endpoint cannot have the id of the model, {}", self.id),
                hint!("Choose another id with ", Setting::CreateEndpoint, "."),
            ));
        }
        let needed = match self.deployment_id {
            Some(_) if !client.supports(Version::ENDPOINT_OF_DEPLOYMENT) => {
                return Err(DeploymentError::settings(
                    format!(
                        "before Elasticsearch {} an inference endpoint starts the model itself",
                        Version::ENDPOINT_OF_DEPLOYMENT
                    ),
                    hint!("Leave out ", Setting::Start, "."),
                ));
            }
            _ => self.task.since(),
        };
        if !client.supports(needed) {
            let (setting, found) = (Setting::CreateEndpoint, client.version());
            return Err(DeploymentError::Unsupported { setting, found, needed });
        }
        self.is_there(client).await
    }

    /// Whether the endpoint is there, with this model.
    async fn is_there(&self, client: &Client) -> Result<bool, DeploymentError> {
        let path = format!("_inference/{}", self.id);
        let answer = match client.call(Method::GET, &path, None, "look for the endpoint").await {
            Ok(answer) => answer,
            Err(ClientError::Refused { status: 404, kind: Some(_), .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // Releases before 8.14 say `models`.
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

    /// The request that creates it.
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
            // The endpoint knows one name for both kinds of dot product.
            let similarity =
                if similarity == "max_inner_product" { "dot_product" } else { similarity.as_str() };
            settings.insert("similarity".into(), similarity.into());
        }
        json!({"service": "elasticsearch", "service_settings": settings})
    }

    /// Where the request goes.
    #[must_use]
    pub fn path(&self) -> String {
        format!("_inference/{}/{}", self.task.name(), self.id)
    }

    /// Creates it, unless it is there. Without a deployment of its own the cluster starts one for it, and answers when that runs.
    ///
    /// # Errors
    /// When another model has the name, or the cluster refuses or does not answer.
    pub async fn create(&self, client: &Client) -> Result<EndpointOutcome, DeploymentError> {
        if self.is_there(client).await? {
            return Ok(EndpointOutcome::Unchanged);
        }
        let body = Some(Payload::json(&self.body()));
        let Err(error) = client.call(Method::PUT, &self.path(), body, "create the endpoint").await
        else {
            return Ok(EndpointOutcome::Created);
        };
        // A request that was cut off may have been carried out.
        if let Ok(true) = self.is_there(client).await {
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
