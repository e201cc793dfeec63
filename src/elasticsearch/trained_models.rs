//! The calls of the trained-models API (contract, sections 2 and 4 to 7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Client, ClientError};
use crate::model_id::ModelId;
use crate::version::Version;

const ROOT: &str = "_ml/trained_models";

/// The body of one part's request.
#[derive(Serialize)]
struct Part<'a> {
    total_definition_length: usize,
    total_parts: usize,
    definition: &'a str,
}

impl Client {
    /// Whether a model of this id is there.
    pub(super) async fn exists(&self, id: &ModelId) -> Result<bool, ClientError> {
        let path = format!("{ROOT}/{id}");
        match self.call(Method::GET, &path, None, "look for the model").await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the server has the whole definition, which releases before 8.8 cannot say.
    pub(super) async fn is_whole(&self, id: &ModelId) -> Result<bool, ClientError> {
        if !self.supports(Version::DEFINITION_STATUS) {
            return Ok(true);
        }
        let path = format!("{ROOT}/{id}?include=definition_status");
        let answer = self.call(Method::GET, &path, None, "tell whether the model is whole").await?;
        Ok(answer["trained_model_configs"][0]["fully_defined"] == true)
    }

    pub(super) async fn create(
        &self,
        id: &ModelId,
        configuration: &Map<String, Value>,
    ) -> Result<(), ClientError> {
        let body = json(configuration);
        self.call(Method::PUT, &format!("{ROOT}/{id}"), body, "create the model").await.map(drop)
    }

    pub(super) async fn put_part(
        &self,
        id: &ModelId,
        part: usize,
        bytes: &[u8],
        total: (usize, usize),
    ) -> Result<(), ClientError> {
        let (total_definition_length, total_parts) = total;
        let definition = &STANDARD.encode(bytes);
        let body = json(&Part { total_definition_length, total_parts, definition });
        let path = format!("{ROOT}/{id}/definition/{part}");
        self.call(Method::PUT, &path, body, "store a part of the definition").await.map(drop)
    }

    pub(super) async fn put_vocabulary(
        &self,
        id: &ModelId,
        vocabulary: &impl Serialize,
    ) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}/vocabulary");
        self.call(Method::PUT, &path, json(vocabulary), "store the vocabulary").await.map(drop)
    }

    /// Stops a model; one that does not run, or is not there, is stopped already.
    pub(super) async fn stop(&self, id: &ModelId) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}/deployment/_stop");
        or_absent(self.call(Method::POST, &path, None, "stop the model").await)
    }

    /// Deletes a model; one that is not there is deleted already.
    pub(super) async fn delete(&self, id: &ModelId) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{id}");
        or_absent(self.call(Method::DELETE, &path, None, "delete the model").await)
    }
}

/// Takes "there is none" for success.
fn or_absent(answer: Result<Value, ClientError>) -> Result<(), ClientError> {
    match answer {
        Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The bytes of a body. Serializing plain data to memory cannot fail.
fn json(value: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}
