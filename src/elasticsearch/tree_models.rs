//! Tree models: one request stores a model, and no deployment is needed.
//!
//! Elasticsearch has no request that replaces a tree model. The old one is read, deleted, and put back if the new one is refused or if
//! the user interrupts between the two requests.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::payload::{Payload, json_bytes};
use super::trained_models::StoredModel;
use super::{Client, ClientError, Interruption, ServedId};
use super::{Import, OnConflict, Outcome};
use crate::model_id::ModelId;
use crate::trees::configuration::LEARNING_TO_RANK_GENERAL;
use crate::trees::{Target, TreeModel};

const ROOT: &str = "_ml/trained_models";

/// Licences that include learning to rank.
const RANKING_LICENCES: [&str; 2] = ["enterprise", "trial"];

/// Keys of a stored configuration that only the server sets.
const GENERATED: [&str; 8] = [
    "model_id",
    "created_by",
    "version",
    "create_time",
    "model_size_bytes",
    "estimated_operations",
    "license_level",
    "model_package",
];

/// A tree model in the cluster that is about to be replaced.
struct Previous {
    body: Map<String, Value>,
    /// A copy on disk, in case this process is killed.
    copy: Option<PathBuf>,
}

impl Client {
    /// Checks privileges, licence, version, memory limits and conflicts. Nothing is changed.
    ///
    /// # Errors
    /// Why the model cannot be stored. `Ok(true)` means that the same model is stored already and may stay.
    pub async fn check_tree_model(
        &self,
        model: &TreeModel,
        import: &Import,
    ) -> Result<bool, ClientError> {
        self.require(model.minimum_version)?;
        let (privilege, licence) = tokio::join!(self.check_privilege(), self.check_licence());
        privilege.and(licence)?;
        if model.definition.target == Target::Ranking {
            self.check_ranking_licence().await?;
            if !self.supports(LEARNING_TO_RANK_GENERAL) {
                tracing::warn!(
                    "learning to rank is a preview before Elasticsearch {LEARNING_TO_RANK_GENERAL}"
                );
            }
        }
        if let Some(heap) = self.smallest_heap().await {
            let most = heap / 10;
            if model.definition.json_bytes > most {
                return Err(ClientError::DefinitionTooLarge {
                    bytes: model.definition.json_bytes,
                    limit: most,
                });
            }
        }
        match self.stored(&model.model_id).await? {
            None => Ok(false),
            Some(stored) => self.may_stay(model, &stored, import.on_conflict),
        }
    }

    /// Stores a tree model.
    ///
    /// # Errors
    /// When the cluster refuses it, or another model of this id is there. A model that was to be replaced is there again then.
    pub async fn import_tree_model(
        &self,
        model: &TreeModel,
        import: &Import,
        force: bool,
        interruption: &Interruption,
    ) -> Result<Outcome, ClientError> {
        if self.check_tree_model(model, import).await? {
            return Ok(Outcome::Unchanged);
        }
        let previous = match self.stored(&model.model_id).await? {
            None => None,
            Some(_) => Some(self.previous(&model.model_id, import).await?),
        };
        if interruption.is_requested() {
            return Err(ClientError::Interrupted);
        }
        if previous.is_some() {
            self.delete_tree_model(&model.model_id, force).await?;
        }
        let stored = if interruption.is_requested() {
            Err(ClientError::Interrupted)
        } else {
            self.create(&model.model_id, &model.body(self.target())).await
        };
        match (stored, previous) {
            (Ok(()), previous) => {
                if let Some(copy) = previous.and_then(|previous| previous.copy) {
                    // A copy that stays behind does no harm.
                    let _ = std::fs::remove_file(copy);
                }
                Ok(Outcome::Stored { parts: 1 })
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(previous)) => {
                self.restore(&model.model_id, previous).await;
                Err(error)
            }
        }
    }

    /// Predictions of a tree model for documents.
    ///
    /// # Errors
    /// When the model is not there or the cluster refuses.
    pub async fn infer_documents(
        &self,
        id: &ServedId,
        documents: &[Value],
    ) -> Result<Vec<Value>, ClientError> {
        let path = format!("{ROOT}/{id}/_infer");
        let body = Some(Payload::json(&json!({"docs": documents})));
        let mut answer = self.call(Method::POST, &path, body, "infer").await?;
        match answer.get_mut("inference_results").map(Value::take) {
            Some(Value::Array(results)) if results.len() == documents.len() => Ok(results),
            _ => Err(ClientError::Refused {
                action: "infer".to_owned(),
                status: 200,
                kind: None,
                reason: "the answer does not have one result for each document".to_owned(),
                retry_after: None,
            }),
        }
    }

    /// The configuration of a model, as the cluster has it.
    ///
    /// # Errors
    /// When the model is not there or the cluster refuses.
    pub async fn tree_configuration(&self, id: &ServedId) -> Result<Value, ClientError> {
        let path = format!("{ROOT}/{id}");
        let mut answer = self.call(Method::GET, &path, None, "show the model").await?;
        Ok(answer["trained_model_configs"][0].take())
    }

    async fn stored(&self, id: &ModelId) -> Result<Option<StoredModel>, ClientError> {
        match self.model(id).await? {
            Some(stored) if stored.model_id != id.as_str() => {
                Err(ClientError::Alias { alias: id.clone(), model_id: stored.model_id })
            }
            stored => Ok(stored),
        }
    }

    fn may_stay(
        &self,
        model: &TreeModel,
        stored: &StoredModel,
        on_conflict: OnConflict,
    ) -> Result<bool, ClientError> {
        match on_conflict {
            OnConflict::Fail => Err(ClientError::Exists(model.model_id.clone())),
            OnConflict::Replace => Ok(false),
            OnConflict::Skip
                if stored.definition_sha256.as_ref() == Some(&model.definition.sha256) =>
            {
                Ok(true)
            }
            OnConflict::Skip => Err(ClientError::Different(model.model_id.clone())),
            OnConflict::Update => Ok(stored.bundle_sha256.as_deref() == Some(model.sha256())),
        }
    }

    async fn check_ranking_licence(&self) -> Result<(), ClientError> {
        if self.is_serverless() {
            return Ok(());
        }
        let Ok(answer) = self.call(Method::GET, "_license", None, "show its licence").await else {
            return Ok(());
        };
        match answer["license"]["type"].as_str() {
            Some(kind) if !RANKING_LICENCES.contains(&kind) => Err(ClientError::Licence(format!(
                "it is a {kind} licence, and learning to rank needs an enterprise licence"
            ))),
            _ => Ok(()),
        }
    }

    /// The smallest heap of the nodes that can parse a definition, in bytes. `None` if the cluster does not say.
    async fn smallest_heap(&self) -> Option<u64> {
        if self.is_serverless() {
            return None;
        }
        let answer =
            self.call(Method::GET, "_ml/memory/_stats", None, "show its nodes' memory").await;
        let answer = answer.ok()?;
        let nodes = answer["nodes"].as_object()?.values();
        nodes.filter_map(|node| node["jvm"]["heap_max_in_bytes"].as_u64()).min()
    }

    /// Reads the model that is to be replaced.
    async fn previous(&self, id: &ModelId, import: &Import) -> Result<Previous, ClientError> {
        let path = format!("{ROOT}/{id}?include=definition&decompress_definition=false");
        let mut answer =
            self.call(Method::GET, &path, None, "show the model that is to be replaced").await?;
        let Value::Object(mut body) = answer["trained_model_configs"][0].take() else {
            return Err(ClientError::Exists(id.clone()));
        };
        body.retain(|key, _| !GENERATED.contains(&key.as_str()));
        let copy =
            import.state_folder.as_ref().map(|folder| folder.join(format!("{id}.previous.json")));
        if let Some(path) = &copy {
            let written = std::fs::create_dir_all(path.parent().unwrap_or(path))
                .and_then(|()| std::fs::write(path, json_bytes(&body)));
            if let Err(error) = written {
                tracing::warn!(
                    "cannot keep a copy of the previous model in {}: {error}",
                    path.display()
                );
            }
        }
        Ok(Previous { body, copy })
    }

    async fn delete_tree_model(&self, id: &ModelId, force: bool) -> Result<(), ClientError> {
        let force = if force { "?force=true" } else { "" };
        let path = format!("{ROOT}/{id}{force}");
        self.call(Method::DELETE, &path, None, "delete the previous model").await.map(drop)
    }

    /// Puts the previous model back.
    async fn restore(&self, id: &ModelId, previous: Previous) {
        const TRIES: u32 = 5;
        for attempt in 1..=TRIES {
            match self.create(id, &previous.body).await {
                Ok(()) => {
                    tracing::warn!("the previous model {id} was restored");
                    if let Some(copy) = previous.copy {
                        let _ = std::fs::remove_file(copy);
                    }
                    return;
                }
                Err(error) if attempt == TRIES => {
                    let place = previous.copy.as_ref().map(|copy| {
                        format!("; to restore it, send {} with PUT {ROOT}/{id}", copy.display())
                    });
                    tracing::error!(
                        "the previous model {id} could not be restored: {error}{}",
                        place.unwrap_or_default()
                    );
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
            }
        }
    }
}
