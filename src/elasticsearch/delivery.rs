//! [`Delivery`]: carries out what a transaction decided, and cleans up after a failure.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::attempts::{may_pass, with_retries};
use super::claim::{Claim, in_memory};
use super::identity::{add_identities, is_of};
use super::journal::{Journal, JournalHeader};
use super::part_size::{SMALLEST_PART, part_size};
use super::trained_models::StoredModel;
use super::transaction::{Action, Transaction};
use super::upload::{Upload, UploadFailure};
use super::{Client, ClientError, Interruption, Outcome, RemoteState};
use crate::bundle::Bundle;
use crate::model_id::ModelId;
use crate::observer::Progress;
use crate::retry::RetryPolicy;

/// How often an upload starts again because parts of an earlier model with its id were in the way.
const FRESH_STARTS: u32 = 3;

/// A bundle that is being uploaded.
pub(super) struct Delivery<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) bundle: &'a Bundle,
    pub(super) configuration: Map<String, Value>,
    /// The request that stores the vocabulary, as JSON; none for a model without a vocabulary.
    pub(super) vocabulary: Option<Bytes>,
    pub(super) progress: &'a Progress,
    pub(super) interruption: &'a Interruption,
    /// Whether an old model was deleted.
    pub(super) replaced: bool,
}

impl Delivery<'_> {
    /// Carries out the decision about an existing model, and uploads.
    pub(super) async fn carry_out(
        &mut self,
        action: Action,
        header: JournalHeader,
    ) -> Result<Outcome, ClientError> {
        if self.interruption.is_requested() {
            return Err(ClientError::Interrupted);
        }
        let journal = match action {
            Action::Keep => {
                self.forget();
                return Ok(Outcome::Unchanged);
            }
            Action::Resume(journal) => {
                tracing::info!(
                    "resuming the upload of {}: {} of {} parts are stored",
                    self.id(),
                    journal.stored(),
                    journal.header.parts()
                );
                journal
            }
            Action::Fresh => self.begin(self.with_known_import_id(header)),
            Action::Discard(journal) => {
                tracing::info!("removing the incomplete model {} of an earlier import", self.id());
                if let Err(error) = self.remove(&journal, 0).await {
                    return Err(self.unfinished(error, resumable(&journal)));
                }
                self.begin(header)
            }
            Action::Replace(model) => {
                self.clear(&model).await?;
                self.replaced = true;
                self.begin(header)
            }
        };
        let parts = self.upload(journal).await?;
        self.forget();
        Ok(Outcome::Stored { parts })
    }

    fn id(&self) -> &ModelId {
        &self.transaction.model_id
    }

    fn client(&self) -> &Client {
        self.transaction.client
    }

    fn begin(&self, header: JournalHeader) -> Journal {
        match &self.transaction.claim {
            Some(claim) => claim.begin(header),
            None => in_memory(header),
        }
    }

    fn forget(&self) {
        if let Some(claim) = &self.transaction.claim {
            claim.forget();
        }
    }

    /// Takes over the import id of an existing journal. Its model may appear later, if a server still works on the request of a process
    /// that has ended.
    fn with_known_import_id(&self, header: JournalHeader) -> JournalHeader {
        match self.transaction.claim.as_ref().and_then(Claim::resume) {
            Some(journal) => JournalHeader { import_id: journal.header.import_id, ..header },
            None => header,
        }
    }

    /// Uploads, starts again if that can help, and cleans up after a failure. Returns the number of parts.
    async fn upload(&self, mut journal: Journal) -> Result<usize, ClientError> {
        let mut fresh_starts = 0;
        loop {
            let mut configuration = self.configuration.clone();
            add_identities(
                &mut configuration,
                &journal.header,
                self.transaction.fingerprint.as_deref(),
            );
            let upload = Upload {
                client: self.client(),
                bundle: self.bundle,
                configuration: &configuration,
                vocabulary: self.vocabulary.as_ref(),
                concurrency: self.transaction.import.concurrency,
                retry: self.transaction.import.retry,
                refresh_interval: self.transaction.import.refresh_interval,
                interruption: self.interruption,
                progress: self.progress,
            };
            let mut interruption = self.interruption.clone();
            let stored = tokio::select! {
                stored = upload.run(&mut journal) => stored,
                () = interruption.repeated() => {
                    journal.sync();
                    return Err(self.stopped_immediately(&journal));
                }
            };
            let size = journal.header.part_size;
            match stored {
                Ok(()) => return Ok(journal.header.parts()),
                Err(UploadFailure::TooLarge(error)) if size > SMALLEST_PART => {
                    let smaller = (size.min(journal.header.length) / 2).max(SMALLEST_PART);
                    if part_size(journal.header.length, smaller) != Some(smaller) {
                        return Err(self.give_up(&journal, error).await);
                    }
                    tracing::warn!(
                        "a part of {size} bytes is more than the cluster, or a proxy in front of it, accepts; starting again with parts of {smaller} bytes"
                    );
                    journal = self.begin_anew(journal, smaller, 0).await?;
                }
                Err(UploadFailure::Leftover) if fresh_starts < FRESH_STARTS => {
                    tracing::warn!(
                        "parts of an earlier model {} are still stored; starting again",
                        self.id()
                    );
                    journal = self.begin_anew(journal, size, fresh_starts).await?;
                    fresh_starts += 1;
                }
                Err(UploadFailure::Leftover) => {
                    let error = ClientError::Leftover(self.id().clone());
                    return Err(self.give_up(&journal, error).await);
                }
                Err(UploadFailure::Overtaken) => {
                    return Err(self.nothing_left(ClientError::Overtaken(self.id().clone())));
                }
                Err(UploadFailure::Lost) => {
                    return Err(self.nothing_left(ClientError::Lost(self.id().clone())));
                }
                Err(UploadFailure::NotCreated(error)) => return Err(self.nothing_left(error)),
                Err(UploadFailure::TooLarge(error) | UploadFailure::Stopped(error)) => {
                    return Err(self.conclude(&journal, error).await);
                }
            }
        }
    }

    /// Removes what this import has stored, and starts again.
    async fn begin_anew(
        &self,
        journal: Journal,
        part_size: usize,
        earlier: u32,
    ) -> Result<Journal, ClientError> {
        match self.remove(&journal, earlier).await {
            Ok(_) => Ok(self.begin(JournalHeader { part_size, ..journal.header })),
            // With the journal, the next import can remove the model.
            Err(error) => Err(self.not_removed(&journal, error)),
        }
    }

    /// Keeps the incomplete model if the upload can be resumed, and removes it otherwise.
    async fn conclude(&self, journal: &Journal, error: ClientError) -> ClientError {
        let can_resume = may_pass(&error)
            || matches!(
                error,
                // A removal would fail for the same reason.
                ClientError::Interrupted
                    | ClientError::Credentials(_)
                    | ClientError::Privilege { .. }
                    | ClientError::Licence(_)
            );
        if can_resume && journal.is_durable() {
            return self.unfinished(error, resumable(journal));
        }
        self.give_up(journal, error).await
    }

    /// Removes the incomplete model because of `cause`.
    async fn give_up(&self, journal: &Journal, cause: ClientError) -> ClientError {
        let mut interruption = self.interruption.clone();
        let removed = tokio::select! {
            removed = self.remove(journal, 0) => removed,
            () = interruption.repeated() => Err(ClientError::Interrupted),
        };
        match removed {
            Ok(removed) => {
                self.forget();
                self.unfinished(
                    cause,
                    if removed { RemoteState::Removed } else { RemoteState::Nothing },
                )
            }
            Err(error) => self.unfinished(cause, self.remains(journal, &error)),
        }
    }

    fn stopped_immediately(&self, journal: &Journal) -> ClientError {
        let state = self.remains(journal, &ClientError::Interrupted);
        self.unfinished(ClientError::Interrupted, state)
    }

    fn not_removed(&self, journal: &Journal, error: ClientError) -> ClientError {
        let state = self.remains(journal, &error);
        self.unfinished(error, state)
    }

    /// The state of the cluster when nothing could be removed.
    fn remains(&self, journal: &Journal, error: &ClientError) -> RemoteState {
        if journal.is_durable() {
            resumable(journal)
        } else {
            RemoteState::Incomplete(error.to_string())
        }
    }

    fn unfinished(&self, cause: ClientError, remote_state: RemoteState) -> ClientError {
        let (cause, model_id) = (Box::new(cause), self.id().clone());
        ClientError::Unfinished { cause, model_id, remote_state, replaced: self.replaced }
    }

    /// Error for an import that left nothing on the cluster.
    fn nothing_left(&self, error: ClientError) -> ClientError {
        self.forget();
        if self.replaced { self.unfinished(error, RemoteState::Nothing) } else { error }
    }

    /// Deletes the model if this import, or the one of the journal, created it. Returns whether that was the case. `earlier` counts
    /// deletions that did not remove everything.
    async fn remove(&self, journal: &Journal, earlier: u32) -> Result<bool, ClientError> {
        // The user waits for an error message, and the upload itself has used up its retries.
        let policy = self.transaction.import.retry;
        let policy = RetryPolicy { retries: policy.retries.min(4), ..policy };
        // A deletion finds only parts that the index has refreshed, by default every second (contract 6.3).
        tokio::time::sleep(
            self.transaction.import.refresh_interval.saturating_mul(4_u32.saturating_pow(earlier)),
        )
        .await;
        let model = with_retries(policy, || self.client().model(self.id())).await?;
        if !model.is_some_and(|model| is_of(&model, journal)) {
            return Ok(false);
        }
        with_retries(policy, || self.client().delete(self.id())).await?;
        Ok(true)
    }

    /// Deletes the model to be replaced.
    async fn clear(&self, seen: &StoredModel) -> Result<(), ClientError> {
        let policy = self.transaction.import.retry;
        // Another import may have replaced the model.
        match with_retries(policy, || self.client().model(self.id())).await? {
            None => return Ok(()),
            Some(now) if now != *seen => return Err(ClientError::Overtaken(self.id().clone())),
            Some(_) => {}
        }
        let cannot_delete = |stopped: bool, error: ClientError| {
            let model_id = self.id().clone();
            match error {
                ClientError::Refused { status: 409, reason, .. } => {
                    ClientError::InUse { model_id, reason, stopped }
                }
                error if stopped => {
                    let cause = Box::new(error);
                    let remote_state = RemoteState::OldModelStopped;
                    ClientError::Unfinished { cause, model_id, remote_state, replaced: false }
                }
                error => error,
            }
        };
        // The deletion comes before the stop, so that a model that pipelines use continues to serve them.
        match with_retries(policy, || self.client().delete(self.id())).await {
            Err(ClientError::Refused { status: 409, reason, .. })
                if reason.contains("deployed") => {}
            deleted => return deleted.map_err(|error| cannot_delete(false, error)),
        }
        let stopped = with_retries(policy, || self.client().stop(self.id())).await;
        stopped.map_err(|error| cannot_delete(false, error))?;
        let deleted = with_retries(policy, || self.client().delete(self.id())).await;
        deleted.map_err(|error| cannot_delete(true, error))
    }
}

fn resumable(journal: &Journal) -> RemoteState {
    RemoteState::Resumable { stored: journal.stored(), parts: journal.header.parts() }
}
