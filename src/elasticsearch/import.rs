//! A bundle becomes a served model.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Client, ClientError};
use crate::bundle::Bundle;
use crate::model_id::ModelId;
use crate::progress::Progress;
use crate::version::Version;

/// Bytes of a part: what eland and the server's own importer send.
const PART: usize = 1 << 20;

/// The most parts that the server takes (contract 4.1).
const MAX_PARTS: usize = 10_000;

/// What is done with a bundle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Import {
    /// Replace a model of the same id.
    pub clear_previous: bool,
}

/// Checks that an id is free, before any long work is done for it.
///
/// # Errors
/// When it is taken, or the cluster does not answer.
pub async fn check_free(client: &Client, id: &ModelId) -> Result<(), ClientError> {
    if client.exists(id).await? { Err(ClientError::Exists(id.clone())) } else { Ok(()) }
}

impl Import {
    /// Stores the bundle. After a failure, or Ctrl-C, no half-made model stays behind.
    ///
    /// # Errors
    /// When the cluster refuses or cannot be reached.
    pub async fn run(
        self,
        client: &Client,
        bundle: &Bundle,
        progress: Progress,
    ) -> Result<(), ClientError> {
        let id = &bundle.model_id;
        let needed = bundle.minimum_version;
        if !client.supports(needed) {
            return Err(ClientError::Unsupported { found: client.version(), needed });
        }
        let configuration = configuration(client, bundle);
        if self.clear_previous {
            client.stop(id).await?;
            client.delete(id).await?;
        } else {
            check_free(client, id).await?;
        }
        // From here on Ctrl-C is ours to answer; what is not awaited with it, is finished first.
        let mut interrupted = tokio::spawn(tokio::signal::ctrl_c());
        client.create(id, &configuration).await?;
        let stored = tokio::select! {
            stored = store(client, bundle, progress) => stored,
            _ = &mut interrupted => Err(ClientError::Interrupted),
        };
        if let Err(cause) = stored {
            return Err(remove(client, id, cause).await);
        }
        Ok(())
    }
}

/// The configuration as the cluster's version takes it.
fn configuration(client: &Client, bundle: &Bundle) -> Map<String, Value> {
    let mut configuration = bundle.configuration.clone();
    if !client.supports(Version::EMBEDDING_SIZE)
        && let Some(task) = configuration.get_mut("inference_config")
        && let Some(embedding) = task.get_mut("text_embedding").and_then(Value::as_object_mut)
    {
        embedding.remove("embedding_size");
    }
    configuration
}

async fn store(client: &Client, bundle: &Bundle, progress: Progress) -> Result<(), ClientError> {
    let id = &bundle.model_id;
    let bytes = bundle.definition.bytes.as_ref();
    let size = PART.max(bytes.len().div_ceil(MAX_PARTS));
    let total = (bytes.len(), bytes.len().div_ceil(size));
    let stage = progress.bytes("uploading", bytes.len() as u64);
    for (part, bytes) in bytes.chunks(size).enumerate() {
        client.put_part(id, part, bytes, total).await?;
        stage.advance(bytes.len() as u64);
    }
    stage.finish();
    client.put_vocabulary(id, &bundle.vocabulary).await?;
    if client.is_whole(id).await? { Ok(()) } else { Err(ClientError::Incomplete(id.clone())) }
}

/// Removes a half-made model. Returns the error to tell.
async fn remove(client: &Client, id: &ModelId, cause: ClientError) -> ClientError {
    // Deleting finds what the index has refreshed, which it does every second (contract 6.3).
    tokio::time::sleep(Duration::from_millis(1100)).await;
    match client.delete(id).await {
        Ok(()) => cause,
        Err(error) => ClientError::LeftBehind {
            cause: Box::new(cause),
            model_id: id.clone(),
            reason: error.to_string(),
        },
    }
}
