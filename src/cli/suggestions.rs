//! Suggested next steps after an import, as commands and requests to copy.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::conversion::SIMILARITY;
use crate::elasticsearch::{
    Endpoint, EndpointTask, ServedId, embedding_field, example, is_complete_embedding_field,
};
use crate::model_id::ModelId;
use crate::version::{Target, Version};

/// A request for Kibana's console.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    method: &'static str,
    path: String,
    body: Value,
}

impl Request {
    pub(super) fn new(method: &'static str, path: String, body: Value) -> Self {
        Self { method, path, body }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n  {}", self.method, self.path, self.body)
    }
}

/// Suggested next steps. Steps that do not apply to the model are absent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Suggestions {
    /// Command that starts the model, if it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    /// A request that runs an inference.
    #[serde(skip_serializing_if = "Option::is_none")]
    infer: Option<Request>,
    /// A field that stores the model's embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    dense_vector: Option<Value>,
    /// A request that creates the missing inference endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    create_endpoint: Option<Request>,
    /// A request to the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Request>,
    /// A field that uses the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_text: Option<Value>,
}

impl Suggestions {
    /// Suggestions for a model, its deployment and its endpoint in a cluster with the version `target`.
    pub(super) fn of(
        id: &ModelId,
        configuration: Option<&Map<String, Value>>,
        deployment_id: Option<&str>,
        endpoint: Option<&Endpoint>,
        target: Target,
    ) -> Self {
        let Some(configuration) = configuration else { return Self::default() };
        let config = configuration.get("inference_config");
        let Some((task, config)) = config.and_then(|config| config.as_object()?.iter().next())
        else {
            return Self::default();
        };
        let is_started = deployment_id.is_some() || endpoint.is_some();
        let served = deployment_id.unwrap_or(id.as_str());
        let mut next = Self {
            start: (!is_started).then(|| format!("rust-eland start {id}")),
            infer: example(configuration).map(|body| Request {
                method: "POST",
                path: format!("_ml/trained_models/{served}/_infer"),
                body,
            }),
            ..Self::default()
        };
        let kind = EndpointTask::of(task);
        match kind {
            Some(EndpointTask::TextEmbedding) => {
                let declared = configuration.get("metadata").map(|it| &it[SIMILARITY]);
                let similarity = declared.and_then(Value::as_str);
                let field = embedding_field(config.get("embedding_size"), similarity, target);
                next.dense_vector = is_complete_embedding_field(&field, target).then_some(field);
            }
            Some(kind) if endpoint.is_none() => {
                if let Ok(endpoint_id) = format!("{id}-endpoint").parse() {
                    let wanted = Endpoint {
                        id: endpoint_id,
                        task: kind,
                        model_id: id.clone(),
                        deployment_id: deployment_id.and_then(|id| id.parse::<ServedId>().ok()),
                        similarity: None,
                    };
                    next.create_endpoint = target.has(wanted.since()).then(|| Request {
                        method: "PUT",
                        path: wanted.path(),
                        body: wanted.body(),
                    });
                }
            }
            _ => {}
        }
        if let Some(endpoint) = endpoint {
            let body = match endpoint.task {
                EndpointTask::Rerank => json!({
                    "query": "What is Elasticsearch?",
                    "input": ["Elasticsearch is a search engine.", "The sun is a star."],
                }),
                _ => json!({"input": "Elasticsearch is a search engine."}),
            };
            next.endpoint = Some(Request { method: "POST", path: endpoint.path(), body });
            if endpoint.task != EndpointTask::Rerank && target.has(Version::SEMANTIC_TEXT) {
                let field = json!({"type": "semantic_text", "inference_id": endpoint.id});
                next.semantic_text = Some(field);
            }
        }
        next
    }

    /// One paragraph per suggestion.
    pub(super) fn paragraphs(&self) -> Vec<String> {
        let request = |what: &str, request: &Option<Request>| {
            request.as_ref().map(|request| format!("{what}:\n  {request}"))
        };
        let field = |what: &str, field: &Option<Value>| {
            field.as_ref().map(|field| format!("{what}:\n  {field}"))
        };
        [
            self.start.as_ref().map(|command| format!("Start the model:\n  {command}")),
            request("Run an inference", &self.infer),
            field("Map a field for the embeddings", &self.dense_vector),
            request("Create an inference endpoint", &self.create_endpoint),
            request("Use the endpoint", &self.endpoint),
            field("Map a field that uses the endpoint", &self.semantic_text),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestions(task: &str, config: Value, deployment: Option<&str>, version: &str) -> Value {
        let configuration = json!({"inference_config": {task: config}});
        let id = "m".parse().unwrap();
        let target = version.parse().unwrap();
        json!(Suggestions::of(&id, configuration.as_object(), deployment, None, target))
    }

    #[test]
    fn suggestions_suit_the_version_of_the_cluster() {
        let field = |version: &str| {
            let config = json!({"embedding_size": 3});
            suggestions("text_embedding", config, None, version)["dense_vector"].take()
        };
        let new = json!({"type": "dense_vector", "dims": 3, "similarity": "cosine"});
        assert_eq!(field("8.11"), new);
        let old = json!({"type": "dense_vector", "dims": 3, "index": true, "similarity": "cosine"});
        assert_eq!(field("8.7"), old);
        assert_eq!(field("8.10"), old);
        // Before 8.11, a field needs its number of dimensions.
        let unknown = |version: &str| suggestions("text_embedding", json!({}), None, version);
        assert_eq!(unknown("8.10").get("dense_vector"), None);
        assert!(unknown("9.0")["dense_vector"].is_object());
        let endpoint = |task: &str, deployment, version: &str| {
            suggestions(task, json!({}), deployment, version).get("create_endpoint").is_some()
        };
        for (task, deployment, absent, present) in [
            ("text_expansion", None, "8.12", "8.13"),
            ("text_similarity", None, "8.13", "8.14"),
            ("text_expansion", Some("m"), "8.17", "8.18"),
        ] {
            assert!(!endpoint(task, deployment, absent), "{task} {absent}");
            assert!(endpoint(task, deployment, present), "{task} {present}");
        }
    }
}
