//! The first step: the place of a model, its commit, and the files that an import needs.

use std::path::PathBuf;

use serde_json::Value;

use crate::conversion::{ConversionError, WeightsSeen, check_architecture, check_family};
use crate::error::Error;
use crate::observer::{Progress, Stage};
use crate::source::hub::{
    DownloadPlan, Hub, HubError, RemoteWeights, RepositoryId, Revision, verify_snapshot,
};
use crate::source::{ModelFiles, Origin};

/// Where a model is.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelSource {
    /// A folder that is laid out like a clone of a hub repository.
    Folder(PathBuf),
    /// A repository on the hub.
    Hub {
        /// The hub and its cache.
        hub: Hub,
        /// The repository.
        id: RepositoryId,
        /// The branch, tag or commit.
        revision: Revision,
    },
    /// A source that is already resolved.
    Resolved(ResolvedSource),
}

/// A model at a fixed place: a folder, or a hub repository at one commit. Clones share the hub's response.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ResolvedSource {
    /// A folder.
    Folder(PathBuf),
    /// A repository at a commit, with the list of the files to download.
    Hub(Box<DownloadPlan>),
}

impl ModelSource {
    /// Asks the hub for the commit and its files. Downloads no weights.
    ///
    /// # Errors
    /// [`Error`] if the hub does not respond, or the repository does not exist or contains no model.
    pub async fn resolve(mut self) -> Result<ResolvedSource, Error> {
        self.resolved().await
    }

    /// Resolves this source in place, and returns the result.
    ///
    /// # Errors
    /// [`Error`] as for [`resolve`](Self::resolve).
    pub async fn resolved(&mut self) -> Result<ResolvedSource, Error> {
        let source = match self {
            Self::Folder(folder) => ResolvedSource::Folder(folder.clone()),
            Self::Hub { hub, id, revision } => {
                let plan = hub.plan(id, revision).await;
                ResolvedSource::Hub(Box::new(plan.map_err(name_family)?))
            }
            Self::Resolved(source) => source.clone(),
        };
        *self = Self::Resolved(source.clone());
        Ok(source)
    }
}

impl ResolvedSource {
    /// Repository and commit. A folder has them only if it is a snapshot in the hub's cache.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Folder(folder) => Origin::of_folder(folder),
            Self::Hub(plan) => Some(plan.origin()),
        }
    }

    /// The commit that fixes the content of all files. `None` for a folder, because its files can change.
    #[must_use]
    pub fn commit(&self) -> Option<Origin> {
        match self {
            Self::Folder(_) => None,
            Self::Hub(plan) => Some(plan.origin()),
        }
    }

    /// Downloads the model's files if necessary, and returns them. Checks the bytes of files in the hub's cache. Rejects an unsupported architecture before it downloads weights.
    ///
    /// # Errors
    /// When the architecture is not supported, or a file cannot be downloaded or read.
    pub async fn files(&self, progress: &Progress) -> Result<ModelFiles, Error> {
        let folder = match self {
            Self::Folder(folder) => {
                verify_snapshot(folder).await?;
                folder.clone()
            }
            Self::Hub(plan) => {
                check_plan(plan)?;
                let downloading = (**plan).clone().download(progress);
                progress.run_async(Stage::Download, downloading).await?.folder
            }
        };
        Ok(ModelFiles::open(&folder).map_err(ConversionError::from)?)
    }

    /// Downloads the model's small files and the headers of its weights if necessary, and returns them.
    ///
    /// # Errors
    /// When a file cannot be downloaded or read.
    pub async fn small_files(&self) -> Result<(ModelFiles, WeightsSeen), Error> {
        let (folder, weights) = match self {
            Self::Folder(folder) => (folder.clone(), None),
            Self::Hub(plan) => {
                let preview = (**plan).clone().preview().await?;
                (preview.folder, preview.weights)
            }
        };
        let weights = weights.map_or(WeightsSeen::Folder, |weights| {
            let seen = |it: RemoteWeights| (it.path.into(), it.size, it.header);
            WeightsSeen::Elsewhere(weights.into_iter().map(seen).collect())
        });
        Ok((ModelFiles::open(&folder).map_err(ConversionError::from)?, weights))
    }
}

/// Plans the download of a repository.
///
/// # Errors
/// [`Error`] if the hub does not respond, or the repository contains no model of a supported architecture.
pub async fn plan_download(
    hub: &Hub,
    id: &RepositoryId,
    revision: &Revision,
) -> Result<DownloadPlan, Error> {
    let plan = hub.plan(id, revision).await.map_err(name_family)?;
    check_plan(&plan)?;
    Ok(plan)
}

/// The error for a repository without a model. A family that cannot be served is named.
fn name_family(error: HubError) -> Error {
    if let HubError::NoConfig { files, .. } | HubError::NoWeights { files, .. } = &error {
        let (none, has) = (Value::Null, |name: &str| files.iter().any(|file| file == name));
        if let Err(refused) = check_family(&none, &none, &none, &has) {
            return refused.into();
        }
    }
    error.into()
}

/// Rejects a model whose family or architecture is not supported.
fn check_plan(plan: &DownloadPlan) -> Result<(), Error> {
    let declared = plan.declared();
    let has_file = |name: &str| declared.paths.contains(name);
    let config = plan.config().unwrap_or(&Value::Null);
    check_family(config, &declared.tokenizer, &declared.modules, &has_file)?;
    Ok(plan.config().map_or(Ok(()), check_architecture)?)
}
