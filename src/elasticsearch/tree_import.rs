//! The import of a tree model as a transaction. One request stores a tree model, but Elasticsearch has no request that replaces one.
//!
//! A replacement deletes the old model and creates the new one. Before the deletion, the old configuration and definition are saved in
//! memory and on disk. The old model is created again if the new one is refused or the user stops the program between the two requests.
//! If the program is killed there, the next import of this id creates the old model again from the file on disk, before anything else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Map, Value};

use super::attempts::{Attempts, already_exists, with_retries};
use super::payload::{Payload, json_bytes};
use super::trained_models::StoredModel;
use super::{Client, ClientError, Import, Interruption, OnConflict, Outcome, RemoteState};
use crate::model_id::ModelId;
use crate::retry::RetryPolicy;
use crate::trees::TreeModel;

const ROOT: &str = "_ml/trained_models";

/// The `model_type` of tree models.
pub(super) const TREE_ENSEMBLE: &str = "tree_ensemble";

/// The most retries of the request that restores the old model. The user waits for an error message.
const RESTORE_RETRIES: u32 = 5;

/// Keys of a stored configuration that only the server sets. A request that contains them is refused.
const GENERATED: [&str; 10] = [
    "model_id",
    "created_by",
    "version",
    "create_time",
    "model_size_bytes",
    "estimated_heap_memory_usage_bytes",
    "estimated_operations",
    "license_level",
    "location",
    "model_package",
];

/// The model that a replacement deletes: the body of the request that creates it again.
struct OldModel {
    body: Bytes,
    /// SHA-256 of definition and configuration, if recorded.
    sha256: Option<String>,
    /// The file that holds the body, if it could be written.
    file: Option<PathBuf>,
}

impl Client {
    /// Stores a tree model. With `force`, a model that an ingest pipeline uses is replaced too.
    ///
    /// # Errors
    /// When the cluster refuses the model or cannot be reached, the user stops the program, or a model with this id is in the way. The
    /// cluster then has the old model again; [`ClientError::Unfinished`] says if it does not.
    pub async fn import_tree_model(
        &self,
        model: &TreeModel,
        import: &Import,
        force: bool,
        interruption: &Interruption,
    ) -> Result<Outcome, ClientError> {
        let claim = import.claim(self, &model.model_id, warn_unsaved)?;
        let file = claim.as_ref().map(|claim| claim.journal.with_extension("previous.json"));
        if let Some(file) = &file {
            self.recover(model, file, import.retry).await?;
        }
        let stored = match self.tree_conflict(model, import).await? {
            TreeConflict::None => None,
            TreeConflict::Unchanged => return Ok(Outcome::Unchanged),
            TreeConflict::Replaced(stored) => Some(stored),
        };
        let replacement = Replacement {
            client: self,
            model,
            body: json_bytes(&model.body(self.target())).into(),
            retry: import.retry,
            interruption,
        };
        replacement.carry_out(stored.as_ref(), file, force).await?;
        Ok(Outcome::Stored { parts: 1 })
    }

    /// Creates the old model again that a killed process deleted. If another model has its id now, the old model is kept in a file.
    async fn recover(
        &self,
        model: &TreeModel,
        file: &Path,
        retry: RetryPolicy,
    ) -> Result<(), ClientError> {
        let id = &model.model_id;
        let Ok(body) = fs::read(file) else { return Ok(()) };
        let Ok(old) = serde_json::from_slice::<Map<String, Value>>(&body) else {
            remove(file);
            return Ok(());
        };
        let mut stored = self.stored_tree_model(id, retry).await?;
        if stored.is_none() {
            let body = Bytes::from(body);
            let created = with_retries(retry, || self.put_tree_model(id, body.clone())).await;
            match created {
                Ok(()) => tracing::warn!(
                    "the model {id} was restored, which an earlier import deleted before it was killed"
                ),
                // An earlier attempt may have created the model, or another program.
                Err(error) if already_exists(&error) => {
                    stored = self.stored_tree_model(id, retry).await?;
                }
                Err(error) => {
                    // The next replacement of this id must not overwrite the file.
                    tracing::warn!(
                        "the model {id}, which an earlier import deleted before it was killed, cannot be restored: {error}. \
                         It is kept in {}",
                        keep(file).display()
                    );
                    return Ok(());
                }
            }
        }
        // The earlier import had not deleted the old model yet, or had stored the new one already.
        let is_settled = |stored: &StoredModel| {
            let sha256 = stored.bundle_sha256.as_deref();
            sha256.is_some() && (sha256 == bundle_sha256(&old) || sha256 == Some(model.sha256()))
        };
        if stored.as_ref().is_none_or(is_settled) {
            remove(file);
        } else {
            tracing::warn!(
                "an earlier import of {id} was killed while it replaced the model, and another model has this id now. \
                 The old model is kept in {}, as the body of the request that creates it",
                keep(file).display()
            );
        }
        Ok(())
    }

    /// Creates a tree model.
    async fn put_tree_model(&self, id: &ModelId, body: Bytes) -> Result<(), ClientError> {
        let body = Some(Payload::bytes(body));
        self.call(Method::PUT, &format!("{ROOT}/{id}"), body, "create the model").await.map(drop)
    }

    /// The model with this id.
    pub(super) async fn stored_tree_model(
        &self,
        id: &ModelId,
        retry: RetryPolicy,
    ) -> Result<Option<StoredModel>, ClientError> {
        match with_retries(retry, || self.model(id)).await? {
            Some(stored) if stored.model_id != id.as_str() => {
                Err(ClientError::Alias { alias: id.clone(), model_id: stored.model_id })
            }
            stored => Ok(stored),
        }
    }
}

/// What a cluster has under the id of a tree model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TreeConflict {
    /// No model.
    None,
    /// The same model, which stays.
    Unchanged,
    /// Another model, which is to be replaced.
    Replaced(StoredModel),
}

impl TreeConflict {
    /// Decides about the model that the cluster has.
    ///
    /// # Errors
    /// When that model has to stay, or is not a tree model.
    pub(super) fn of(
        model: &TreeModel,
        stored: Option<StoredModel>,
        on_conflict: OnConflict,
    ) -> Result<Self, ClientError> {
        let Some(stored) = stored else { return Ok(Self::None) };
        let replaced = |stored: StoredModel| match &stored.model_type {
            Some(kind) if kind != TREE_ENSEMBLE => Err(ClientError::NotATreeModel {
                model_id: model.model_id.clone(),
                kind: kind.clone(),
            }),
            _ => Ok(Self::Replaced(stored)),
        };
        match on_conflict {
            OnConflict::Fail => Err(ClientError::Exists(model.model_id.clone())),
            OnConflict::Skip
                if stored.definition_sha256.as_ref() != Some(&model.definition.sha256) =>
            {
                Err(ClientError::Different(model.model_id.clone()))
            }
            OnConflict::Skip => Ok(Self::Unchanged),
            OnConflict::Update if stored.bundle_sha256.as_deref() == Some(model.sha256()) => {
                Ok(Self::Unchanged)
            }
            OnConflict::Replace | OnConflict::Update => replaced(stored),
        }
    }
}

/// The requests that replace or create a tree model.
struct Replacement<'a> {
    client: &'a Client,
    model: &'a TreeModel,
    body: Bytes,
    retry: RetryPolicy,
    interruption: &'a Interruption,
}

impl Replacement<'_> {
    fn id(&self) -> &ModelId {
        &self.model.model_id
    }

    /// Saves and deletes the old model, if there is one, and creates the new one.
    async fn carry_out(
        &self,
        stored: Option<&StoredModel>,
        file: Option<PathBuf>,
        force: bool,
    ) -> Result<(), ClientError> {
        let old = match stored {
            Some(stored) => Some(self.save(stored, file).await?),
            None => None,
        };
        if self.interruption.is_requested() {
            old.as_ref().and_then(|old| old.file.as_deref()).map(remove);
            return Err(ClientError::Interrupted);
        }
        let Some(old) = old else {
            let mut interruption = self.interruption.clone();
            return tokio::select! {
                created = self.create() => created,
                () = interruption.repeated() => Err(ClientError::Interrupted),
            };
        };
        // From here on the file may be the only copy of the old model.
        let mut interruption = self.interruption.clone();
        let failed = tokio::select! {
            replaced = self.replace(&old, force) => replaced.err(),
            () = interruption.repeated() => {
                return Err(self.unfinished(ClientError::Interrupted, &old, "it was stopped at once"));
            }
        };
        match (&old.file, &failed) {
            (
                Some(_),
                Some(ClientError::Unfinished {
                    remote_state: RemoteState::OldModelSaved { .. },
                    ..
                }),
            )
            | (None, _) => {}
            (Some(file), Some(ClientError::Overtaken(id))) => tracing::warn!(
                "the old model {id} was deleted before another import created the new one. \
                 The old model is kept in {}, as the body of the request that creates it",
                keep(file).display()
            ),
            (Some(file), _) => remove(file),
        }
        failed.map_or(Ok(()), Err)
    }

    /// Deletes the old model and creates the new one, or the old one again.
    async fn replace(&self, old: &OldModel, force: bool) -> Result<(), ClientError> {
        self.delete(old, force).await?;
        let created = if self.interruption.is_requested() {
            Err(ClientError::Interrupted)
        } else {
            self.create().await
        };
        let Err(cause) = created else { return Ok(()) };
        self.restore(cause, old).await
    }

    async fn delete(&self, old: &OldModel, force: bool) -> Result<(), ClientError> {
        let path = format!("{ROOT}/{}{}", self.id(), if force { "?force=true" } else { "" });
        let deleted = with_retries(self.retry, || async {
            let action = "delete the old model";
            match self.client.call(Method::DELETE, &path, None, action).await {
                Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
                Err(error) => Err(error),
            }
        });
        deleted.await.map_err(|error| match error {
            ClientError::Refused { status: 409, reason, .. } => {
                ClientError::TreeModelInUse { model_id: self.id().clone(), reason }
            }
            // The server may have deleted the model.
            error if error.is_ambiguous() => {
                self.unfinished(error, old, "the request that deletes it got no answer")
            }
            error => error,
        })
    }

    /// Creates the new model. A request that fails for a passing reason is sent again.
    async fn create(&self) -> Result<(), ClientError> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            let created = self.client.put_tree_model(self.id(), self.body.clone()).await;
            let Err(error) = created else { return Ok(()) };
            if already_exists(&error) {
                return match attempts.may_have_succeeded() && self.is_stored().await? {
                    true => Ok(()),
                    false => Err(ClientError::Overtaken(self.id().clone())),
                };
            }
            attempts.wait(error, self.interruption).await?;
        }
    }

    /// Whether the cluster has the new model.
    async fn is_stored(&self) -> Result<bool, ClientError> {
        let stored = self.client.stored_tree_model(self.id(), self.retry).await?;
        Ok(stored.is_some_and(|it| it.bundle_sha256.as_deref() == Some(self.model.sha256())))
    }

    /// Creates the old model again after `cause`. Succeeds if the new model turns out to be stored.
    async fn restore(&self, cause: ClientError, old: &OldModel) -> Result<(), ClientError> {
        if matches!(cause, ClientError::Overtaken(_)) {
            return Err(cause);
        }
        let retry = RetryPolicy { retries: self.retry.retries.min(RESTORE_RETRIES), ..self.retry };
        let mut attempts = Attempts::new(retry);
        loop {
            let created = self.client.put_tree_model(self.id(), old.body.clone()).await;
            let error = match created {
                Ok(()) => break,
                Err(error) if already_exists(&error) => {
                    // The request that failed has stored the new model, an earlier attempt has stored the old one, or another import
                    // has stored a model.
                    match self.client.stored_tree_model(self.id(), self.retry).await {
                        Ok(stored) => {
                            let stored = stored.and_then(|stored| stored.bundle_sha256);
                            if stored.as_deref() == Some(self.model.sha256()) {
                                return Ok(());
                            }
                            if stored == old.sha256 {
                                break;
                            }
                            return Err(ClientError::Overtaken(self.id().clone()));
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if let Err(error) = attempts.wait_out(error).await {
                return Err(self.unfinished(cause, old, &error.to_string()));
            }
        }
        Err(ClientError::Unfinished {
            cause: Box::new(cause),
            model_id: self.id().clone(),
            remote_state: RemoteState::OldModelRestored,
            replaced: false,
        })
    }

    /// The error when the old model may be missing.
    fn unfinished(&self, cause: ClientError, old: &OldModel, reason: &str) -> ClientError {
        let remote_state = match &old.file {
            Some(file) => {
                RemoteState::OldModelSaved { file: file.clone(), reason: reason.to_owned() }
            }
            None => RemoteState::OldModelLost { reason: reason.to_owned() },
        };
        ClientError::Unfinished {
            cause: Box::new(cause),
            model_id: self.id().clone(),
            remote_state,
            replaced: false,
        }
    }

    /// Reads configuration and definition of the old model and writes them to a file.
    async fn save(
        &self,
        seen: &StoredModel,
        file: Option<PathBuf>,
    ) -> Result<OldModel, ClientError> {
        let id = self.id();
        let path = format!("{ROOT}/{id}?include=definition&decompress_definition=false");
        let action = "show the model that is to be replaced";
        let mut answer =
            with_retries(self.retry, || self.client.call(Method::GET, &path, None, action)).await?;
        let found = answer.pointer_mut("/trained_model_configs/0").map(Value::take);
        let Some(Value::Object(mut body)) = found else {
            return Err(ClientError::Lost(id.clone()));
        };
        if body.get("create_time").and_then(Value::as_u64) != seen.create_time {
            return Err(ClientError::Overtaken(id.clone()));
        }
        if !["definition", "compressed_definition"].iter().any(|key| body.contains_key(*key)) {
            return Err(ClientError::NoDefinition(id.clone()));
        }
        for alias in make_creatable(&mut body) {
            tracing::warn!(
                "the alias {alias} is deleted with the old model; create it again with PUT {ROOT}/{id}/model_aliases/{alias}"
            );
        }
        let sha256 = bundle_sha256(&body).map(str::to_owned);
        let body = Bytes::from(json_bytes(&body));
        let file = file.and_then(|file| match write(&file, &body) {
            Ok(()) => Some(file),
            Err(error) => {
                warn_unsaved(&file, &error);
                None
            }
        });
        Ok(OldModel { body, sha256, file })
    }
}

/// Removes from a stored configuration what the server refuses at creation. Returns the aliases of the model.
fn make_creatable(body: &mut Map<String, Value>) -> Vec<String> {
    body.retain(|key, _| !GENERATED.contains(&key.as_str()));
    let mut aliases = Vec::new();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("total_feature_importance");
        if let Some(Value::Array(names)) = metadata.remove("model_aliases") {
            aliases.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    // The list of fields of a model for learning to rank is empty; some releases refuse that.
    let is_empty = body
        .get("input")
        .and_then(|input| input.get("field_names"))
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty);
    if is_empty {
        body.remove("input");
    }
    aliases
}

/// Writes a file completely or not at all, and to the disk.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // Not every system can sync directories.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Renames the file of an old model, so that nothing overwrites it. Returns the new path.
fn keep(file: &Path) -> PathBuf {
    let names = (1_u32..).map(|number| match number {
        1 => file.with_extension("kept.json"),
        number => file.with_extension(format!("kept-{number}.json")),
    });
    let kept = names.take(1000).find(|name| !name.exists());
    match kept.map(|kept| fs::rename(file, &kept).map(|()| kept)) {
        Some(Ok(kept)) => kept,
        Some(Err(error)) => {
            tracing::warn!("cannot rename {}: {error}", file.display());
            file.to_owned()
        }
        None => file.to_owned(),
    }
}

/// SHA-256 of definition and configuration, as recorded in the metadata of a configuration.
fn bundle_sha256(configuration: &Map<String, Value>) -> Option<&str> {
    configuration.get("metadata")?.get("bundle_sha256")?.as_str()
}

fn warn_unsaved(path: &Path, error: &io::Error) {
    tracing::warn!(
        "cannot keep a copy of the old model in {} ({error}): it is lost if the program is killed between its deletion and the creation of the new one",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_configuration_becomes_the_body_of_a_creation() {
        let stored = json!({
            "model_id": "m", "model_type": "tree_ensemble", "created_by": "api_user", "version": "12.0.0",
            "create_time": 1, "model_size_bytes": 2, "estimated_operations": 3, "license_level": "enterprise",
            "description": "d", "tags": ["t"], "default_field_map": {"a": "b"},
            "metadata": {"trees": 3, "model_aliases": ["latest"], "total_feature_importance": []},
            "input": {"field_names": []},
            "inference_config": {"learning_to_rank": {"feature_extractors": []}},
            "compressed_definition": "H4sI",
        });
        let Value::Object(mut body) = stored else { unreachable!() };
        assert_eq!(make_creatable(&mut body), ["latest"]);
        let expected = json!({
            "model_type": "tree_ensemble", "description": "d", "tags": ["t"], "default_field_map": {"a": "b"},
            "metadata": {"trees": 3}, "inference_config": {"learning_to_rank": {"feature_extractors": []}},
            "compressed_definition": "H4sI",
        });
        assert_eq!(Value::Object(body), expected);
    }
}
