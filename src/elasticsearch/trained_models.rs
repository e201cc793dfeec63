//! The calls of the trained-models API (contract, sections 2 and 4 to 7).

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Map, Value};

use super::payload::{Part, Payload};
use super::{Client, ClientError};
use crate::bundle::DEFINITION_SHA256;
use crate::model_id::ModelId;
use crate::version::Version;

const ROOT: &str = "_ml/trained_models";

/// The key of a model's metadata for the random id of the import that created the model.
pub(super) const IMPORT_ID: &str = "import_id";

/// The key of a model's metadata for the SHA-256 of definition, vocabulary and configuration.
pub(super) const BUNDLE_SHA256: &str = "bundle_sha256";

/// The key of a model's metadata for the fingerprint of the import. The name is that of version 0.1.0.
pub(super) const FINGERPRINT: &str = "recipe_sha256";

/// A model stored in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredModel {
    /// The id. An alias has another one.
    pub(super) model_id: String,
    /// `pytorch`, `tree_ensemble` or `lang_ident`.
    pub(super) model_type: Option<String>,
    /// Milliseconds since 1970. A model with another creation time is another model.
    pub(super) create_time: Option<u64>,
    /// The import that created the model, if rust-eland did.
    pub(super) import_id: Option<String>,
    /// SHA-256 of the definition, if recorded.
    pub(super) definition_sha256: Option<String>,
    /// SHA-256 of definition, vocabulary and configuration, if recorded.
    pub(super) bundle_sha256: Option<String>,
    /// The fingerprint of the import, if recorded.
    pub(super) fingerprint: Option<String>,
}

impl Client {
    /// The model with this id, if there is one.
    pub(super) async fn model(&self, id: &ModelId) -> Result<Option<StoredModel>, ClientError> {
        let path = format!("{ROOT}/{id}");
        let answer = match self.call(Method::GET, &path, None, "show the model").await {
            Ok(answer) => answer,
            // A 404 of a proxy says nothing about the model.
            Err(ClientError::Refused { status: 404, kind: Some(_), .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = &answer["trained_model_configs"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Some(StoredModel {
            model_id: text(&found["model_id"]).unwrap_or_else(|| id.to_string()),
            model_type: text(&found["model_type"]),
            create_time: found["create_time"].as_u64(),
            import_id: text(&found["metadata"][IMPORT_ID]),
            definition_sha256: text(&found["metadata"][DEFINITION_SHA256]),
            bundle_sha256: text(&found["metadata"][BUNDLE_SHA256]),
            fingerprint: text(&found["metadata"][FINGERPRINT]),
        }))
    }

    /// Whether the server has the complete definition. `None` before 8.8, which cannot say.
    pub(super) async fn is_whole(&self, id: &ModelId) -> Result<Option<bool>, ClientError> {
        if !self.supports(Version::DEFINITION_STATUS) {
            return Ok(None);
        }
        let path = format!("{ROOT}/{id}?include=definition_status");
        let answer =
            self.call(Method::GET, &path, None, "show the status of the definition").await?;
        Ok(Some(answer["trained_model_configs"][0]["fully_defined"] == true))
    }

    pub(super) async fn create(
        &self,
        id: &ModelId,
        configuration: &Map<String, Value>,
    ) -> Result<(), ClientError> {
        let body = Some(Payload::json(configuration));
        self.call(Method::PUT, &format!("{ROOT}/{id}"), body, "create the model").await.map(drop)
    }

    pub(super) async fn put_part(
        &self,
        id: &ModelId,
        part: usize,
        body: Part,
    ) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}/definition/{part}");
        let body = Some(Payload::part(body));
        self.call(Method::PUT, &path, body, "store a part of the definition").await.map(drop)
    }

    /// Stores a vocabulary, as compressed JSON.
    pub(super) async fn put_vocabulary(
        &self,
        id: &ModelId,
        compressed: Bytes,
    ) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}/vocabulary");
        let body = Some(Payload::gzip(compressed));
        self.call(Method::PUT, &path, body, "store the vocabulary").await.map(drop)
    }

    /// Stops a model. A model that does not run, or does not exist, counts as stopped.
    pub(super) async fn stop(&self, id: &ModelId) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}/deployment/_stop");
        or_absent(self.call(Method::POST, &path, None, "stop the model").await)
    }

    /// Deletes a model. A model that does not exist counts as deleted.
    pub(super) async fn delete(&self, id: &ModelId) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}");
        or_absent(self.call(Method::DELETE, &path, None, "delete the model").await)
    }
}

/// Treats 404 as success.
fn or_absent(answer: Result<Value, ClientError>) -> Result<(), ClientError> {
    match answer {
        Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
