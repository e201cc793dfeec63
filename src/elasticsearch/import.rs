//! Import of a bundle as a transaction. At the end, the cluster has the complete model, nothing of it, or a part of it with a
//! journal from which the same command resumes. The steps:
//!
//! 1. [`Import::begin`] checks the cluster before any long work.
//! 2. The caller creates the bundle, without the cluster.
//! 3. [`Transaction::run`] checks the cluster again, removes what is in the way, and uploads.
//! 4. [`StartOptions::start`](super::StartOptions::start) starts the model, if requested.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::attempts::with_retries;
use super::claim::{Claim, Unclaimed, warn_unresumable};
use super::identity::is_of;
use super::transaction::Transaction;
use super::{Client, ClientError};
use crate::model_id::ModelId;
use crate::retry::RetryPolicy;

/// What to do when the cluster already has a model with this id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Keep the model, and fail.
    #[default]
    Fail,
    /// Delete the model when the new one is ready.
    Replace,
    /// Keep the model, and succeed if its definition is the same. Otherwise fail.
    Skip,
    /// Keep the model if its definition, vocabulary and configuration are the same; otherwise delete it when the new one is ready.
    Update,
}

impl OnConflict {
    /// The names of the values.
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

/// The result of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The model was stored.
    Stored {
        /// Parts of the definition.
        parts: usize,
    },
    /// The cluster already had the same model.
    Unchanged,
}

/// The settings of an import.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Import {
    /// What to do when the cluster already has a model with this id.
    pub on_conflict: OnConflict,
    /// Maximum number of parts that are sent at a time. An upload begins with four and sends more while the cluster responds as fast as
    /// before, but never more than 16 MiB of the definition.
    pub concurrency: usize,
    /// Size of a part in bytes. It is increased if 10,000 parts of this size cannot hold the definition.
    pub part_size: usize,
    /// Policy for retries.
    pub retry: RetryPolicy,
    /// How long a stored part can stay invisible to a deletion: slightly more than the refresh interval of the server's index
    /// (contract 6.3).
    pub refresh_interval: Duration,
    /// The directory of the journals. Without one, an interrupted import cannot be resumed.
    pub state_folder: Option<PathBuf>,
}

impl Default for Import {
    /// Up to 16 parts of 1 MiB at a time, the part size of eland and of the server's own importer; no journal.
    fn default() -> Self {
        Self {
            on_conflict: OnConflict::default(),
            concurrency: 16,
            part_size: 1 << 20,
            retry: RetryPolicy::default(),
            refresh_interval: Duration::from_millis(1100),
            state_folder: None,
        }
    }
}

impl Import {
    /// Keeps other processes on this machine from importing a model with this id. `None` without a state folder, or if it cannot be
    /// used, which `warn` says.
    pub(super) fn claim(
        &self,
        client: &Client,
        model_id: &ModelId,
        warn: fn(&Path, &io::Error),
    ) -> Result<Option<Claim>, ClientError> {
        let Some(folder) = &self.state_folder else { return Ok(None) };
        match Claim::take(folder, client.identity(), model_id) {
            Ok(claim) => Ok(Some(claim)),
            Err(Unclaimed::Held) => Err(ClientError::Underway(model_id.clone())),
            Err(Unclaimed::Io(path, error)) => {
                warn(&path, &error);
                Ok(None)
            }
        }
    }

    /// Checks the cluster before any long work: the privilege, the license, and whether the id is free or the existing model can be
    /// resumed, replaced or kept.
    ///
    /// # Errors
    /// When the import cannot succeed, or another process on this machine is importing a model with this id.
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
        let claim = self.claim(client, model_id, warn_unresumable)?;
        let mut transaction = Transaction {
            import: self,
            client,
            model_id: model_id.clone(),
            claim,
            existing: None,
            fingerprint: None,
        };
        if let Some(model) = transaction.find().await? {
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
            transaction.existing = Some(model);
        }
        Ok(transaction)
    }
}
