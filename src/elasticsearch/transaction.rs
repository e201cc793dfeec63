//! [`Transaction`]: the checks of the cluster before and after the creation of a bundle, and the decision about an existing model.

use bytes::Bytes;

use super::attempts::with_retries;
use super::claim::Claim;
use super::delivery::Delivery;
use super::identity::{companions_sha256, is_of};
use super::journal::{Journal, JournalHeader};
use super::part_size::part_size;
use super::trained_models::StoredModel;
use super::{Client, ClientError, Import, Interruption, OnConflict, Outcome, payload};
use crate::bundle::Bundle;
use crate::model_id::ModelId;
use crate::observer::Progress;

/// An import whose cluster has been checked. While it exists, no other process on this machine imports a model with this id.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(super) import: &'a Import,
    pub(super) client: &'a Client,
    pub(super) model_id: ModelId,
    pub(super) claim: Option<Claim>,
    /// The model that the first check found.
    pub(super) existing: Option<StoredModel>,
    pub(super) fingerprint: Option<String>,
}

/// What to do about the model on the cluster.
pub(super) enum Action {
    /// No model has this id.
    Fresh,
    /// Continue the upload of the journal.
    Resume(Journal),
    /// Delete an incomplete model of an earlier import first.
    Discard(Journal),
    /// Delete the old model first.
    Replace(StoredModel),
    /// Do nothing, because the cluster has the same model.
    Keep,
}

impl Transaction<'_> {
    /// Sets the SHA-256 of everything that determines the bundle. The fingerprint is stored with the model, so that a later import
    /// of the same input need not create the bundle.
    pub fn set_fingerprint(&mut self, fingerprint: String) {
        self.fingerprint = Some(fingerprint);
    }

    /// Whether the bundle is not needed, because the cluster has a complete model with the same fingerprint, and existing models
    /// are kept.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster does not respond.
    pub async fn is_up_to_date(&self) -> Result<bool, ClientError> {
        let may_keep = matches!(self.import.on_conflict, OnConflict::Skip | OnConflict::Update);
        let is_same = self.fingerprint.is_some()
            && self.existing.as_ref().is_some_and(|model| model.fingerprint == self.fingerprint);
        Ok(may_keep && is_same && self.is_whole().await? != Some(false))
    }

    /// Keeps the existing model. Returns the SHA-256 of its definition, if the import that stored it recorded one.
    #[must_use]
    pub fn keep(self) -> (Outcome, Option<String>) {
        if let Some(claim) = &self.claim {
            claim.forget();
        }
        (Outcome::Unchanged, self.existing.and_then(|model| model.definition_sha256))
    }

    /// Checks the cluster again and stores the bundle. After a failure, an incomplete model stays on the cluster only if the same
    /// command can resume it; the error says so.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster cannot serve the model, rejects it or cannot be reached for too long, or the user stops the
    /// work.
    pub async fn run(
        self,
        bundle: &Bundle,
        progress: &Progress,
        interruption: &Interruption,
    ) -> Result<Outcome, ClientError> {
        self.client.require(bundle.minimum_version)?;
        let length = bundle.artifact.bytes.len();
        let wanted = self.import.part_size.max(1);
        let size = part_size(length, wanted).ok_or(ClientError::TooManyParts { length })?;
        if size > wanted {
            tracing::info!(
                "using parts of {size} bytes, because a definition has at most 10,000 parts"
            );
        }
        let vocabulary = bundle.vocabulary.as_ref().map(payload::json_bytes);
        let configuration = bundle.configuration_for(self.client.target());
        let header = JournalHeader {
            model_id: self.model_id.to_string(),
            cluster: self.client.identity().to_owned(),
            import_id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            definition_sha256: bundle.artifact.sha256.clone(),
            companions_sha256: companions_sha256(
                vocabulary.as_deref().unwrap_or_default(),
                &configuration,
            ),
            length,
            part_size: size,
        };
        self.client.warn_of_memory(bundle).await;
        let action = self.choose(&header).await?;
        let mut delivery = Delivery {
            transaction: &self,
            bundle,
            configuration,
            vocabulary: vocabulary.map(Bytes::from),
            progress,
            interruption,
            replaced: false,
        };
        delivery.carry_out(action, header).await
    }

    /// The model with this id on the cluster, if any.
    pub(super) async fn find(&self) -> Result<Option<StoredModel>, ClientError> {
        let model = with_retries(self.import.retry, || self.client.model(&self.model_id)).await?;
        match model {
            Some(model) if model.model_id != self.model_id.as_str() => {
                Err(ClientError::Alias { alias: self.model_id.clone(), model_id: model.model_id })
            }
            model => Ok(model),
        }
    }

    /// Whether the model on the cluster is complete; `None` if the version of the cluster does not report it.
    async fn is_whole(&self) -> Result<Option<bool>, ClientError> {
        with_retries(self.import.retry, || self.client.is_whole(&self.model_id)).await
    }

    /// The error for an existing model of another import.
    pub(super) async fn conflict(&self) -> ClientError {
        match self.is_whole().await {
            Ok(Some(false)) => ClientError::ExistsIncomplete(self.model_id.clone()),
            _ => ClientError::Exists(self.model_id.clone()),
        }
    }

    /// Checks the cluster again, and decides.
    async fn choose(&self, header: &JournalHeader) -> Result<Action, ClientError> {
        let Some(model) = self.find().await? else { return Ok(Action::Fresh) };
        let journal = self.claim.as_ref().and_then(Claim::resume);
        if let Some(journal) = journal.filter(|journal| is_of(&model, journal)) {
            if journal.header.is_of(header) {
                return Ok(Action::Resume(journal));
            }
            // A complete model may be in use.
            if self.is_whole().await? != Some(true) {
                return Ok(Action::Discard(journal));
            }
        }
        match self.import.on_conflict {
            OnConflict::Fail => Err(self.conflict().await),
            OnConflict::Replace => Ok(Action::Replace(model)),
            OnConflict::Update => {
                let is_same = model.bundle_sha256.as_ref() == Some(&header.bundle_sha256());
                if is_same && self.is_whole().await? != Some(false) {
                    Ok(Action::Keep)
                } else {
                    Ok(Action::Replace(model))
                }
            }
            OnConflict::Skip => {
                if model.definition_sha256.as_ref() != Some(&header.definition_sha256) {
                    Err(ClientError::Different(self.model_id.clone()))
                } else if self.is_whole().await? == Some(false) {
                    Err(ClientError::ExistsIncomplete(self.model_id.clone()))
                } else {
                    Ok(Action::Keep)
                }
            }
        }
    }
}
