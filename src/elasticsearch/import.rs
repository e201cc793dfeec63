//! A bundle becomes a stored model, as a transaction: whole, or nothing, or half of it with a journal from which the same command goes
//! on. The order of things:
//!
//! 1. [`Import::begin`]: the first look at the cluster, before any long work.
//! 2. The bundle is made, without the cluster.
//! 3. [`Transaction::run`]: the second look, then whatever is in the way is removed, then the upload.
//! 4. [`StartOptions::start`](super::StartOptions::start), if asked for.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::attempts::{Attempts, may_pass};
use super::journal::{self, Claim, Journal, JournalHeader, Unclaimed, in_memory};
use super::payload;
use super::trained_models::{BUNDLE_SHA256, FINGERPRINT, IMPORT_ID, StoredModel};
use super::upload::{SMALLEST_PART, Upload, UploadFailure, part_size};
use super::{Client, ClientError, Interruption, RemoteState};
use crate::bundle::Bundle;
use crate::hexadecimal::hexadecimal;
use crate::model_id::ModelId;
use crate::observer::{Event, Progress, Stage};
use crate::retry::RetryPolicy;

/// How often an upload begins anew because something of an earlier model of its id was in the way.
const FRESH_STARTS: u32 = 3;

/// What to do when the cluster has a model of the id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Leave it, and fail.
    #[default]
    Fail,
    /// Delete it, once the new one is ready.
    Replace,
    /// Leave it, and succeed if it has the same definition.
    Skip,
    /// Leave it if it is the very same, with vocabulary and configuration; else delete it, once the new one is ready.
    Update,
}

impl OnConflict {
    /// The names on the command line.
    pub const NAMES: [&str; 4] = ["fail", "replace", "skip", "update"];
}

impl FromStr for OnConflict {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "fail" => Ok(Self::Fail),
            "replace" => Ok(Self::Replace),
            "skip" => Ok(Self::Skip),
            "update" => Ok(Self::Update),
            _ => Err(format!("one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The model is stored.
    Stored {
        /// How many parts its definition has.
        parts: usize,
    },
    /// The same model was there already.
    Unchanged,
}

/// How bundles are imported.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Import {
    /// What to do when the cluster has a model of the id.
    pub on_conflict: OnConflict,
    /// How many parts go up at a time.
    pub concurrency: usize,
    /// Bytes of a part; more where 10,000 of them would not hold the definition.
    pub part_size: usize,
    /// When requests are sent again.
    pub retry: RetryPolicy,
    /// How long a stored part can stay invisible to a deletion: the refresh interval of the server's index, and a little more
    /// (contract 6.3).
    pub refresh_interval: Duration,
    /// Where journals are kept; without, an interrupted import cannot be resumed.
    pub state_folder: Option<PathBuf>,
}

impl Default for Import {
    /// Four parts of 1 MiB, which is what eland and the server's own importer send; no journal.
    fn default() -> Self {
        Self {
            on_conflict: OnConflict::default(),
            concurrency: 4,
            part_size: 1 << 20,
            retry: RetryPolicy::default(),
            refresh_interval: Duration::from_millis(1100),
            state_folder: None,
        }
    }
}

/// An import for which the cluster has been looked at. It holds the right to import a model of this id from this machine.
#[derive(Debug)]
pub struct Transaction<'a> {
    import: &'a Import,
    client: &'a Client,
    model_id: ModelId,
    claim: Option<Claim>,
    /// What the first look found.
    seen: Option<StoredModel>,
    fingerprint: Option<String>,
}

impl Client {
    /// Imports a bundle: both looks at the cluster, and the upload. `on_progress` is told how far the upload is. The model is not
    /// started; [`StartOptions::start`](super::StartOptions::start) does that.
    ///
    /// # Errors
    /// When the cluster cannot serve the bundle, refuses it, or cannot be reached, and when a model of the id is in the way. What is on
    /// the cluster then is told.
    pub async fn import(
        &self,
        bundle: &Bundle,
        import: &Import,
        on_progress: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Outcome, ClientError> {
        self.require(bundle.minimum_version)?;
        let transaction = import.begin(self, &bundle.model_id).await?;
        // Nobody interrupts: dropping the future does.
        let (_interrupter, interruption) = Interruption::new();
        transaction.run(bundle, &Progress::to(on_progress), &interruption).await
    }
}

impl Import {
    /// Looks at the cluster before any long work is done for it: privilege, licence, and whether the id is free, or what is there may
    /// be gone on with, replaced or left as it is.
    ///
    /// # Errors
    /// When the import could not succeed, or another one of the same id is under way here.
    pub async fn begin<'a>(
        &'a self,
        client: &'a Client,
        model_id: &ModelId,
    ) -> Result<Transaction<'a>, ClientError> {
        let (privilege, licence) = tokio::join!(
            client.check_privilege(),
            with_retries(self.retry, || client.check_licence())
        );
        privilege.and(licence)?;
        let claim = match &self.state_folder {
            None => None,
            Some(folder) => match Claim::take(folder, client.identity(), model_id) {
                Ok(claim) => Some(claim),
                Err(Unclaimed::Held) => return Err(ClientError::Underway(model_id.clone())),
                Err(Unclaimed::Io(path, error)) => {
                    journal::warn_unresumable(&path, &error);
                    None
                }
            },
        };
        let mut transaction = Transaction {
            import: self,
            client,
            model_id: model_id.clone(),
            claim,
            seen: None,
            fingerprint: None,
        };
        if let Some(model) = transaction.look().await? {
            let journal = transaction.claim.as_ref().and_then(Claim::resume);
            let is_ours = journal.is_some_and(|journal| is_of(&model, &journal));
            match self.on_conflict {
                _ if is_ours => {}
                OnConflict::Fail => return Err(transaction.conflict().await),
                OnConflict::Skip if model.definition_sha256.is_none() => {
                    return Err(ClientError::Different(model_id.clone()));
                }
                OnConflict::Skip | OnConflict::Replace | OnConflict::Update => {}
            }
            transaction.seen = Some(model);
        }
        Ok(transaction)
    }
}

/// What is to be done about what is there.
enum Action {
    /// Nothing is in the way.
    Fresh,
    /// The journal's upload goes on.
    Resume(Journal),
    /// Our own half of something else goes first.
    Discard(Journal),
    /// The old model goes first.
    Replace(StoredModel),
    /// The same model is there.
    Leave,
}

impl Transaction<'_> {
    /// Takes the SHA-256 of all that the bundle is made from. It is stored with the model, so that another import of the same can tell
    /// without making it.
    pub fn set_fingerprint(&mut self, fingerprint: String) {
        self.fingerprint = Some(fingerprint);
    }

    /// Whether the bundle need not be made: a whole model of the same fingerprint is there, and is to be left.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn is_made(&self) -> Result<bool, ClientError> {
        let may_stay = matches!(self.import.on_conflict, OnConflict::Skip | OnConflict::Update);
        let is_same = self.fingerprint.is_some()
            && self.seen.as_ref().is_some_and(|seen| seen.fingerprint == self.fingerprint);
        Ok(may_stay && is_same && self.is_whole().await? != Some(false))
    }

    /// Leaves the model that is there. Returns its definition's SHA-256, if it is known.
    #[must_use]
    pub fn leave(self) -> (Outcome, Option<String>) {
        if let Some(claim) = &self.claim {
            claim.forget();
        }
        (Outcome::Unchanged, self.seen.and_then(|seen| seen.definition_sha256))
    }

    /// Looks at the cluster again and stores the bundle. After a failure no half-made model stays behind unless the same command can
    /// go on with it; the error says which.
    ///
    /// # Errors
    /// When the cluster cannot serve the model, refuses, cannot be reached for too long, or the user stops the work.
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
            tracing::info!("parts of {size} bytes, so that 10,000 of them hold the model");
        }
        let compressing = progress.start(Stage::CompressVocabulary);
        let vocabulary = bundle.vocabulary.as_ref().map(payload::json_bytes);
        let configuration = bundle.configuration_for(self.client.target());
        let header = JournalHeader {
            model_id: self.model_id.to_string(),
            cluster: self.client.identity().to_owned(),
            import_id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            definition_sha256: bundle.artifact.sha256.clone(),
            companions_sha256: companions(
                vocabulary.as_deref().unwrap_or_default(),
                &configuration,
            ),
            length,
            part_size: size,
        };
        let compressed = vocabulary.as_deref().map(payload::gzip);
        compressing.finish();
        self.client.warn_of_memory(bundle).await;
        let action = self.choose(&header).await?;
        let mut delivery = Delivery {
            transaction: &self,
            bundle,
            configuration,
            vocabulary: compressed,
            progress,
            interruption,
            replaced: false,
        };
        delivery.carry_out(action, header).await
    }

    /// The model that is there under the id, if any.
    async fn look(&self) -> Result<Option<StoredModel>, ClientError> {
        let model = with_retries(self.import.retry, || self.client.model(&self.model_id)).await?;
        match model {
            Some(model) if model.model_id != self.model_id.as_str() => {
                Err(ClientError::Alias { alias: self.model_id.clone(), model_id: model.model_id })
            }
            model => Ok(model),
        }
    }

    /// Whether what is there is whole, as far as the cluster can say.
    async fn is_whole(&self) -> Result<Option<bool>, ClientError> {
        with_retries(self.import.retry, || self.client.is_whole(&self.model_id)).await
    }

    /// What to say of a model that is there and not ours.
    async fn conflict(&self) -> ClientError {
        match self.is_whole().await {
            Ok(Some(false)) => ClientError::ExistsIncomplete(self.model_id.clone()),
            _ => ClientError::Exists(self.model_id.clone()),
        }
    }

    /// The second look.
    async fn choose(&self, header: &JournalHeader) -> Result<Action, ClientError> {
        let Some(model) = self.look().await? else { return Ok(Action::Fresh) };
        let journal = self.claim.as_ref().and_then(Claim::resume);
        if let Some(journal) = journal.filter(|journal| is_of(&model, journal)) {
            if journal.header.is_of(header) {
                return Ok(Action::Resume(journal));
            }
            // Once it is whole, it is a model like any other, and somebody may use it.
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
                    Ok(Action::Leave)
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
                    Ok(Action::Leave)
                }
            }
        }
    }
}

/// A bundle on its way.
struct Delivery<'a> {
    transaction: &'a Transaction<'a>,
    bundle: &'a Bundle,
    configuration: Map<String, Value>,
    /// The request that stores the vocabulary, compressed; none for a model without a vocabulary.
    vocabulary: Option<Bytes>,
    progress: &'a Progress,
    interruption: &'a Interruption,
    /// Whether an old model has been deleted for it.
    replaced: bool,
}

impl Delivery<'_> {
    async fn carry_out(
        &mut self,
        action: Action,
        header: JournalHeader,
    ) -> Result<Outcome, ClientError> {
        if self.interruption.is_requested() {
            return Err(ClientError::Interrupted);
        }
        let journal = match action {
            Action::Leave => {
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
            Action::Fresh => self.begin(self.known_again(header)),
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

    /// The id of a journal's import is kept: its model may not be there *yet*, if a server still works on the request of a process
    /// that is gone.
    fn known_again(&self, header: JournalHeader) -> JournalHeader {
        match self.transaction.claim.as_ref().and_then(Claim::resume) {
            Some(journal) => JournalHeader { import_id: journal.header.import_id, ..header },
            None => header,
        }
    }

    /// Uploads, anew where that helps, and puts things in order after a failure. Returns the number of parts.
    async fn upload(&self, mut journal: Journal) -> Result<usize, ClientError> {
        let mut fresh_starts = 0;
        loop {
            let mut configuration = self.configuration.clone();
            name_import(
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
                    return Err(self.stopped_at_once(&journal));
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
                Err(UploadFailure::NotMade(error)) => return Err(self.nothing_left(error)),
                Err(UploadFailure::TooLarge(error) | UploadFailure::Stopped(error)) => {
                    return Err(self.conclude(&journal, error).await);
                }
            }
        }
    }

    /// Removes what this import has made, and begins again.
    async fn begin_anew(
        &self,
        journal: Journal,
        part_size: usize,
        earlier: u32,
    ) -> Result<Journal, ClientError> {
        match self.remove(&journal, earlier).await {
            Ok(_) => Ok(self.begin(JournalHeader { part_size, ..journal.header })),
            // A journal that is kept lets the next import remove it.
            Err(error) => Err(self.left_behind(&journal, error)),
        }
    }

    /// Whether to keep the half-made model or to remove it.
    async fn conclude(&self, journal: &Journal, error: ClientError) -> ClientError {
        let can_resume = may_pass(&error)
            || matches!(
                error,
                // Without them it could not be removed either.
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

    /// Removes the half-made model because of `cause`.
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

    fn stopped_at_once(&self, journal: &Journal) -> ClientError {
        let left = self.remains(journal, &ClientError::Interrupted);
        self.unfinished(ClientError::Interrupted, left)
    }

    fn left_behind(&self, journal: &Journal, error: ClientError) -> ClientError {
        let left = self.remains(journal, &error);
        self.unfinished(error, left)
    }

    /// What is left when nothing could be removed.
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

    /// The end when nothing of ours is on the cluster.
    fn nothing_left(&self, error: ClientError) -> ClientError {
        self.forget();
        if self.replaced { self.unfinished(error, RemoteState::Nothing) } else { error }
    }

    /// Removes the half-made model, if what is there is the one that this import, or the journal's, has made. Returns whether it was.
    /// `earlier` removals have left something behind.
    async fn remove(&self, journal: &Journal, earlier: u32) -> Result<bool, ClientError> {
        // Somebody waits for an error message; the upload itself has used up its retries.
        let policy = self.transaction.import.retry;
        let policy = RetryPolicy { retries: policy.retries.min(4), ..policy };
        // A deletion finds what the index has refreshed, which it does every second (contract 6.3), or less often if someone set it so.
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

    /// Deletes the model that is to be replaced.
    async fn clear(&self, seen: &StoredModel) -> Result<(), ClientError> {
        let policy = self.transaction.import.retry;
        // Not what another import has put in its place since.
        match with_retries(policy, || self.client().model(self.id())).await? {
            None => return Ok(()),
            Some(now) if now != *seen => return Err(ClientError::Overtaken(self.id().clone())),
            Some(_) => {}
        }
        let in_the_way = |stopped: bool, error: ClientError| {
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
        // Deleted first, so that a model that pipelines use goes on serving them.
        match with_retries(policy, || self.client().delete(self.id())).await {
            Err(ClientError::Refused { status: 409, reason, .. })
                if reason.contains("deployed") => {}
            deleted => return deleted.map_err(|error| in_the_way(false, error)),
        }
        let stopped = with_retries(policy, || self.client().stop(self.id())).await;
        stopped.map_err(|error| in_the_way(false, error))?;
        let deleted = with_retries(policy, || self.client().delete(self.id())).await;
        deleted.map_err(|error| in_the_way(true, error))
    }
}

fn resumable(journal: &Journal) -> RemoteState {
    RemoteState::Resumable { stored: journal.stored(), parts: journal.header.parts() }
}

/// Whether a model is the one that a journal tells of.
fn is_of(model: &StoredModel, journal: &Journal) -> bool {
    model.import_id.as_ref() == Some(&journal.header.import_id)
}

/// Sends a request that may be sent twice until it is answered for good.
async fn with_retries<T, F: Future<Output = Result<T, ClientError>>>(
    policy: RetryPolicy,
    mut request: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut attempts = Attempts::new(policy);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts.wait_out(error).await?,
        }
    }
}

/// Lets the import know its model again.
fn name_import(
    configuration: &mut Map<String, Value>,
    header: &JournalHeader,
    fingerprint: Option<&str>,
) {
    let metadata = configuration.entry("metadata").or_insert_with(|| Map::new().into());
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(IMPORT_ID.to_owned(), header.import_id.as_str().into());
        metadata.insert(BUNDLE_SHA256.to_owned(), header.bundle_sha256().into());
        if let Some(fingerprint) = fingerprint {
            metadata.insert(FINGERPRINT.to_owned(), fingerprint.into());
        }
    }
}

/// SHA-256 of what goes up beside the definition. The metadata hold figures that were measured, which are not what makes a model
/// another one.
fn companions(vocabulary: &[u8], configuration: &Map<String, Value>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in configuration.iter().filter(|(name, _)| *name != "metadata") {
        hash.update(format!("{name}:{value}\n"));
    }
    hash.update(vocabulary);
    hexadecimal(&hash.finalize())
}
